//! The copy itself, by rsync.
//!
//! Owns how rsync is called and what is made of what it says. It takes everything that a file has: links,
//! ACLs, extended attributes, holes, owners by number. What is there already with the same size and time is
//! not copied again, so a copy that was broken off goes on. rsync gives a file its name when it is whole, and
//! takes away what the source has not. It ends with this process.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{LOST_FOUND, OWN_DIR};

/// What rsync is called.
const PROGRAM: &str = "rsync";

/// So much of what it complains of is kept.
const COMPLAINTS: usize = 20;

/// Why nothing, or not everything, was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It is not installed.
    #[error("there is no rsync, which copies links, ACLs, attributes and holes as they are")]
    Missing,
    /// It cannot copy everything.
    #[error("this rsync was built without {lacks}")]
    Lacks {
        /// What it was built without.
        lacks: &'static str,
    },
    /// It cannot be run.
    #[error("cannot run rsync")]
    Run(#[from] io::Error),
    /// It gave up.
    #[error("rsync gave up (exit code {code}): {complaint}")]
    Failed {
        /// Its exit code.
        code: i32,
        /// What it said.
        complaint: String,
    },
}

/// How rsync finds out what is to be copied again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// By size and modification time.
    ByTime,
    /// By reading both sides: they were found to differ although size and time may be the same.
    ByContent,
}

/// How a copy ended that did not fail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// What could not be copied, as rsync says it.
    pub complaints: Vec<String>,
}

/// Makes sure that there is an rsync that can copy everything.
///
/// # Errors
/// If there is none, or it was built without something.
pub fn check() -> Result<(), CopyError> {
    let told = Command::new(PROGRAM).arg("--version").env("LC_ALL", "C").output();
    match told {
        Ok(told) => capable(&String::from_utf8_lossy(&told.stdout)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CopyError::Missing),
        Err(error) => Err(error.into()),
    }
}

fn capable(told: &str) -> Result<(), CopyError> {
    let capabilities: Vec<&str> = told.split([',', '\n']).map(str::trim).collect();
    for lacks in ["hardlinks", "symlinks", "ACLs", "xattrs"] {
        if !capabilities.contains(&lacks) {
            return Err(CopyError::Lacks { lacks });
        }
    }
    Ok(())
}

/// The arguments of rsync.
pub fn arguments(source: &Path, target: &Path, changed: Changed) -> Vec<OsString> {
    // A negative window is none at all: times are compared to the nanosecond.
    let mut arguments: Vec<OsString> =
        ["-aHAXS", "--numeric-ids", "--modify-window=-1", "--delete"].map(Into::into).to_vec();
    arguments.extend(["--info=progress2", "--no-h"].map(Into::into));
    arguments.push(format!("--exclude=/{OWN_DIR}").into());
    // Not to be taken away from the root of a filesystem.
    arguments.push(format!("--filter=P /{LOST_FOUND}").into());
    if changed == Changed::ByContent {
        arguments.push("--checksum".into());
    }
    // With a slash, what is in them is meant.
    arguments.extend([source.join("").into_os_string(), target.join("").into_os_string()]);
    arguments
}

/// Copies what is in `source`, both absolute, to `target`; `progress` hears how many bytes are there.
///
/// # Errors
/// If rsync cannot be run or gives up. That some files could not be copied is none.
pub fn copy(
    source: &Path,
    target: &Path,
    changed: Changed,
    mut progress: impl FnMut(u64),
) -> Result<Copied, CopyError> {
    let mut command = Command::new(PROGRAM);
    command.args(arguments(source, target, changed)).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    crate::sys::process::end_with_parent(&mut command);
    let mut child = match command.spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(CopyError::Missing),
        spawned => spawned?,
    };
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let complaints = std::thread::scope(|scope| {
        let complaints = scope.spawn(|| stderr.map(complaints).unwrap_or_default());
        if let Some(stdout) = stdout {
            follow(stdout, &mut progress)?;
        }
        io::Result::Ok(complaints.join().unwrap_or_default())
    })?;
    let status = child.wait()?;
    match status.code() {
        // 23: some could not be copied; 24: some were gone when it was their turn.
        Some(0 | 23 | 24) if !is_out_of_space(&complaints) => Ok(Copied { complaints }),
        code => Err(CopyError::Failed {
            code: code.unwrap_or(-1),
            complaint: complaints.first().cloned().unwrap_or_else(|| status.to_string()),
        }),
    }
}

fn is_out_of_space(complaints: &[String]) -> bool {
    complaints.iter().any(|line| line.contains("No space left on device"))
}

/// Reads progress until the end; pieces are separated by carriage returns.
fn follow(stdout: impl Read, progress: &mut impl FnMut(u64)) -> io::Result<()> {
    let mut reader = BufReader::new(stdout);
    let mut piece = Vec::new();
    while reader.read_until(b'\r', &mut piece)? > 0 {
        let told = piece.iter().copied().skip_while(|byte| !byte.is_ascii_digit());
        let digits: Vec<u8> = told.take_while(u8::is_ascii_digit).collect();
        if let Some(bytes) = std::str::from_utf8(&digits).ok().and_then(|text| text.parse().ok()) {
            progress(bytes);
        }
        piece.clear();
    }
    Ok(())
}

fn complaints(stderr: impl Read) -> Vec<String> {
    let mut kept = Vec::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        if kept.len() < COMPLAINTS && !line.is_empty() {
            kept.push(String::from_utf8_lossy(&line).into_owned());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_rsync_lacks_is_seen() {
        let told = "rsync  version 3.2.7\nCapabilities:\n    64-bit files, symlinks, hardlinks,\n    \
                    ACLs, xattrs, optional secluded-args\n";
        assert!(capable(told).is_ok());
        let error = capable(&told.replace("ACLs", "no ACLs")).unwrap_err();
        assert_eq!(error.to_string(), "this rsync was built without ACLs");
    }

    #[test]
    fn progress_is_read_from_pieces() {
        let mut seen = Vec::new();
        let told = b"\r          32768   0%    0.00kB/s    0:00:00  \r   31457280 100%  9MB/s\n";
        follow(&told[..], &mut |bytes| seen.push(bytes)).unwrap();
        assert_eq!(seen, [32768, 31_457_280]);
    }
}
