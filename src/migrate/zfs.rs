//! Datasets to move into.
//!
//! Owns how `zfs` is called: with one argument per word and no shell, and only to list and to create; nothing is
//! ever changed of what is there, and nothing destroyed.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the program is called.
const PROGRAM: &str = "zfs";

/// Why there is no dataset.
#[derive(Debug, thiserror::Error)]
pub enum ZfsError {
    /// It cannot be run.
    #[error("cannot run `zfs`")]
    Run(#[from] io::Error),
    /// It refused.
    #[error("`{command}` failed: {told}")]
    Refused {
        /// What it was told to do.
        command: String,
        /// What it said.
        told: String,
    },
    /// A dataset is mounted nowhere.
    #[error("the dataset {name} is not mounted: `zfs mount {name}`")]
    NotMounted {
        /// Which.
        name: String,
    },
    /// A dataset is mounted elsewhere.
    #[error("the dataset {name} is mounted at {}, and not at {}", found.display(), wanted.display())]
    Elsewhere {
        /// Which.
        name: String,
        /// Where it is mounted.
        found: PathBuf,
        /// Where it should be.
        wanted: PathBuf,
    },
}

/// A dataset, as it is or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// Where it is mounted, or will be.
    pub mountpoint: PathBuf,
    /// What makes it, if it is not there.
    pub create: Option<Vec<OsString>>,
    /// Bytes that are free for it, if that can be told.
    pub available: Option<u64>,
}

/// What datasets are made with, where `zfs` knows it; the first of several words for the same that it knows.
const WANTED: [(&str, &[&str]); 4] = [
    ("compression", &["lz4", "on"]),
    ("atime", &["off"]),
    ("xattr", &["sa"]),
    ("acltype", &["posixacl", "posix"]),
];

/// The properties that this `zfs` knows, each with the values that it takes; `None` if there is none.
///
/// # Errors
/// If it is there and cannot be run.
pub fn properties() -> io::Result<Option<Vec<String>>> {
    // Without a property it lists all of them, on its way to an error.
    match run(&["get".into()]) {
        Ok(output) => {
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told).into_owned();
            Ok(Some(told.lines().map(str::to_owned).collect()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks at a dataset, or how it would be made with what this `zfs` knows; `at` is where it is to be mounted,
/// if that matters.
///
/// # Errors
/// If it is there, and not mounted, or elsewhere.
pub fn plan(name: &str, at: Option<&Path>, known: &[String]) -> Result<Dataset, ZfsError> {
    let usual = || Path::new("/mnt").join(name);
    let available = name.rmatch_indices('/').map(|(end, _)| &name[..end]);
    let available = std::iter::once(name).chain(available).find_map(available_in);
    let listed = ["list", "-H", "-o", "mounted,mountpoint", name].map(OsString::from);
    let listed = run(&listed)?;
    if !listed.status.success() {
        let told = String::from_utf8_lossy(&listed.stderr).trim().to_owned();
        if !told.contains("does not exist") {
            let command = super::advice::command(PROGRAM, ["list", name]);
            return Err(ZfsError::Refused { command, told });
        }
        let name = name.to_owned();
        let mountpoint = at.map_or_else(usual, Path::to_path_buf);
        let create = Some(creation(&name, &mountpoint, known));
        return Ok(Dataset { name, mountpoint, create, available });
    }
    let name = name.to_owned();
    let told = String::from_utf8_lossy(&listed.stdout).into_owned();
    let (mounted, mountpoint) = told.trim_end().split_once('\t').unwrap_or_default();
    if mounted != "yes" {
        return Err(ZfsError::NotMounted { name });
    }
    let found = PathBuf::from(mountpoint);
    if let Some(wanted) = at.filter(|wanted| *wanted != found) {
        return Err(ZfsError::Elsewhere { name, found, wanted: wanted.into() });
    }
    Ok(Dataset { name, mountpoint: found, create: None, available })
}

fn available_in(name: &str) -> Option<u64> {
    let asked = ["get", "-Hp", "-o", "value", "available", name].map(OsString::from);
    let output = run(&asked).ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

fn creation(name: &str, mountpoint: &Path, known: &[String]) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["create".into(), "-p".into()];
    for (property, values) in WANTED {
        let takes = |value: &str| {
            known.iter().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(property) && words.any(|word| word == value)
            })
        };
        if let Some(value) = values.iter().find(|value| takes(value)) {
            words.extend(["-o".into(), format!("{property}={value}").into()]);
        }
    }
    let mut mount = OsString::from("mountpoint=");
    mount.push(mountpoint);
    words.extend(["-o".into(), mount, name.into()]);
    words
}

/// Makes a dataset that is not there yet, and makes sure that it is mounted where it should be.
///
/// # Errors
/// If `zfs` refuses.
pub fn create(dataset: &Dataset) -> Result<(), ZfsError> {
    let Some(words) = &dataset.create else { return Ok(()) };
    let output = run(words)?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(ZfsError::Refused { command: super::advice::command(PROGRAM, words), told });
    }
    plan(&dataset.name, Some(&dataset.mountpoint), &[]).and_then(|found| match found.create {
        None => Ok(()),
        Some(_) => Err(ZfsError::NotMounted { name: found.name }),
    })
}

fn run(words: &[OsString]) -> io::Result<Output> {
    Command::new(PROGRAM).args(words).env("LC_ALL", "C").output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_made_with_what_is_known() {
        let told = |known: &[&str]| {
            let known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
            crate::migrate::advice::command("zfs", &creation("p/f", Path::new("/mnt/p f"), &known))
        };
        let compression = "\tcompression    YES  YES   on | off | lzjb | gzip-[1-9] | zle";
        assert_eq!(
            told(&[
                &format!("{compression} | lz4 | zstd"),
                "\tatime          YES      YES   on | off",
                "\txattr          YES      YES   on | off | dir | sa",
                "\tacltype        YES      YES   off | nfsv4 | posix",
            ]),
            "zfs create -p -o compression=lz4 -o atime=off -o xattr=sa -o acltype=posix -o \
             'mountpoint=/mnt/p f' p/f"
        );
        // An old one.
        assert_eq!(
            told(&[compression, "\txattr          YES      YES   on | off"]),
            "zfs create -p -o compression=on -o 'mountpoint=/mnt/p f' p/f"
        );
    }
}
