//! What the tests do again and again: run programs on a mount, and ask for what the catalog knows.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::mounted::{Mounted, can_mount};

/// Whether programs are installed; says loudly if not, or fails where it must.
pub(crate) fn have(programs: &[&str]) -> bool {
    let found = |program: &&&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).exists())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("REQUIRE_FUSE").is_none(), "REQUIRE_FUSE is set, without {missing:?}");
    eprintln!("SKIPPED: {missing:?} is not installed");
    false
}

/// SHA-256 of bytes as hexadecimal.
pub(crate) fn sha256(bytes: impl AsRef<[u8]>) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// SHA-256 of a file's content.
pub(crate) fn sha256_of(path: &Path) -> String {
    sha256(std::fs::read(path).unwrap())
}

/// Bytes that look like noise, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Runs a command, which must succeed, and returns what it printed.
pub(crate) fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?} failed:\n{}", told(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Everything that a command printed.
pub(crate) fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}\n{err}", output.status)
}

/// Runs a shell script in a directory and returns what it printed, with `DIR` for the directory.
pub(crate) fn script_in(dir: &Path, script: &str) -> String {
    let told = must(Command::new("bash").args(["-euo", "pipefail", "-c", script]).current_dir(dir));
    told.replace(dir.to_str().unwrap(), "DIR")
}

/// What every Python script may use: a call's result or the name of its error, and only whether it
/// was done or the name of its error.
pub(crate) const TRIED: &str = "
import errno
def tried(call, *args, **more):
    try:
        return call(*args, **more)
    except OSError as error:
        return errno.errorcode[error.errno]
def done(call, *args):
    try:
        call(*args)
        return 'done'
    except OSError as error:
        return errno.errorcode[error.errno]
";

/// Runs a Python script in a directory and returns what it printed.
pub(crate) fn python_in(dir: &Path, script: &str) -> String {
    must(Command::new("python3").args(["-c", &format!("{TRIED}{script}")]).current_dir(dir))
}

/// Every way in which files are served.
pub(crate) const WAYS: [&str; 4] = ["io=auto", "io=stream", "io=passthrough", "passthrough=off"];

/// Does the same in a plain directory and in a mount, which must say the same.
#[track_caller]
pub(crate) fn same_as_plain<T: PartialEq + Debug>(options: &str, work: impl Fn(&Path) -> T) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let plain = mounted.scratch("plain");
    std::fs::create_dir(&plain).unwrap();
    let expected = work(&plain);
    assert_eq!(work(&mounted.mountpoint), expected, "left: -o {options}, right: plain");
    mounted.assert_catalog_is_true();
}

/// The same as plain in every way in which files are served.
#[track_caller]
pub(crate) fn same_in_every_way<T: PartialEq + Debug>(work: impl Fn(&Path) -> T) {
    for options in WAYS {
        same_as_plain(options, &work);
    }
}

/// The same as plain on another filesystem, in every way in which files are served.
#[track_caller]
pub(crate) fn same_in_every_way_on<T: PartialEq + Debug>(
    filesystem: &Path,
    work: impl Fn(&Path) -> T,
) {
    let plain = filesystem.join("plain");
    std::fs::create_dir(&plain).unwrap();
    let expected = work(&plain);
    for options in WAYS {
        let state = tempfile::tempdir().unwrap();
        let options = format!("{options},state={}", state.path().display());
        let mounted = Mounted::on(filesystem, &options);
        assert_eq!(work(&mounted.mountpoint), expected, "left: -o {options}, right: plain");
        mounted.assert_catalog_is_true();
        let backing = mounted.backing.clone();
        drop(mounted);
        std::fs::remove_dir_all(backing).unwrap();
    }
}

/// A path in a record, exact also if it is not UTF-8.
pub(crate) fn path_of(record: &Value) -> Vec<u8> {
    match record["path_base64"].as_str() {
        Some(text) => data_encoding::BASE64.decode(text.as_bytes()).unwrap(),
        None => record["path"].as_str().unwrap().as_bytes().to_vec(),
    }
}

/// Every regular file below a directory by its path from there, without Horace's own.
pub(crate) fn files_below(dir: &Path) -> BTreeMap<Vec<u8>, PathBuf> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(dir).unwrap().as_os_str().as_bytes().to_vec();
            if kind.is_dir() && name != b".horace" {
                dirs.push(path);
            } else if kind.is_file() {
                files.insert(name, path);
            }
        }
    }
    files
}

impl Mounted {
    /// A path in the mount.
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mountpoint.join(name)
    }

    /// Runs the program with `--json` and returns its records.
    pub(crate) fn records(&self, args: &[&str]) -> Vec<Value> {
        Self::parse(&self.ok(&[args, &["--json"]].concat()))
    }

    fn parse(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The versions of a path, oldest first.
    pub(crate) fn log_of(&self, path: &str) -> Vec<Value> {
        let mut versions = self.records(&["log", path]);
        versions.reverse();
        versions
    }

    /// The digests of the versions of a path, oldest first.
    pub(crate) fn digests(&self, path: &str) -> Vec<String> {
        let digest = |v: &Value| v["sha256"].as_str().unwrap_or("unknown").to_owned();
        self.log_of(path).iter().map(digest).collect()
    }

    /// Runs a shell script in the mount, which must succeed.
    pub(crate) fn shell(&self, script: &str) -> String {
        self.shell_in("", script)
    }

    /// Runs a shell script in a directory of the mount, which must succeed.
    pub(crate) fn shell_in(&self, dir: &str, script: &str) -> String {
        must(
            Command::new("bash")
                .args(["-euo", "pipefail", "-c", script])
                .current_dir(self.at(dir))
                .env("HORACE", env!("CARGO_BIN_EXE_horace"))
                .env("HORACE_RUNTIME_DIR", &self.runtime),
        )
    }

    /// What `manifest` says of a directory: digests by path.
    pub(crate) fn manifest(&self, dir: &str) -> BTreeMap<Vec<u8>, String> {
        let digest = |v: &Value| v["sha256"].as_str().unwrap_or("unknown").to_owned();
        // Some of it may be unknown.
        let text = self.ok_or_partial(&["manifest", dir, "--json"]);
        Self::parse(&text).iter().map(|v| (path_of(v), digest(v))).collect()
    }

    /// The catalog has every file of the backing directory and no other, with the right digests.
    #[track_caller]
    pub(crate) fn assert_catalog_is_true(&self) {
        if let Err(untrue) = self.compare_catalog() {
            panic!("{untrue}\n{}", self.log());
        }
    }

    /// What the catalog says of the backing directory that is not so.
    pub(crate) fn compare_catalog(&self) -> Result<(), String> {
        let found = files_below(&self.backing);
        let found = found.into_iter().map(|(name, path)| (name, sha256_of(&path)));
        let text = |map: &mut dyn Iterator<Item = (Vec<u8>, String)>| {
            map.map(|(name, digest)| format!("{digest}  {}", name.escape_ascii()))
                .collect::<Vec<_>>()
        };
        let there = text(&mut found.into_iter());
        let known = text(&mut self.manifest(".").into_iter());
        let missing: Vec<_> = there.iter().filter(|line| !known.contains(line)).take(9).collect();
        let wrong: Vec<_> = known.iter().filter(|line| !there.contains(line)).take(9).collect();
        if missing.is_empty() && wrong.is_empty() && known.len() == there.len() {
            return Ok(());
        }
        Err(format!("{} of {}, missing {missing:#?}\nwrong {wrong:#?}", known.len(), there.len()))
    }

    /// As a user checks it: `cd MOUNT && horace manifest . | sha256sum -c`, with a line per file.
    #[track_caller]
    pub(crate) fn assert_manifest_passes(&self) {
        let script = r#"
            "$HORACE" manifest . > ../manifest
            test ! -s ../manifest || sha256sum -c --quiet --strict ../manifest
            find . -type f -printf x | wc -c
            wc -l < ../manifest
        "#;
        let told = self.shell(script);
        let counts: Vec<_> = told.split_whitespace().collect();
        assert!(counts.len() == 2 && counts[0] == counts[1], "{told}");
    }

    /// After a remount the manifest still passes, and no content was read to find that out.
    #[track_caller]
    pub(crate) fn assert_survives_remount(&mut self) {
        self.assert_manifest_passes();
        self.remount();
        let status = self.status();
        assert_eq!(status["reconcile"]["read_files"], 0, "{status:#}\n{}", self.log());
        self.assert_manifest_passes();
    }
}
