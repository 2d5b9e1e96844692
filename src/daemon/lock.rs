//! One daemon per backing directory.
//!
//! Owns a lock on the directory itself, which the kernel gives back when the process ends, however it
//! ends.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::sys::Errno;

/// The lock, held until this is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct BackingLock {
    _fd: OwnedFd,
}

impl BackingLock {
    /// Locks an open directory.
    pub(super) fn take(backing: &OwnedFd, path: &Path) -> anyhow::Result<Self> {
        // A description of its own: the lock must outlive whatever is done with the other.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(backing, ".", flags, Mode::empty())
            .with_context(|| format!("cannot open {}", path.display()))?;
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _fd: fd }),
            Err(Errno::WOULDBLOCK) => match holder(&fd) {
                Some(pid) => bail!(
                    "{} is already served by process {pid}: one daemon at a time may own a \
                     directory; `horace status` shows where it is mounted",
                    path.display()
                ),
                None => bail!("{} is already served by another daemon", path.display()),
            },
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }
}

/// Which process holds the lock, as `/proc/locks` has it.
fn holder(fd: &OwnedFd) -> Option<u32> {
    let stat = rustix::fs::fstat(fd).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    let inode = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    find_holder(&locks, &inode)
}

/// Lines are like `1: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF`; waiters have `->` before the type.
fn find_holder(locks: &str, inode: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_lock = words.next() == Some("FLOCK");
        let pid = words.nth(2)?;
        (is_lock && words.next() == Some(inode)).then(|| pid.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 fe:00:131 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4711 fe:00:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 4712 fe:00:131 0 EOF\n";
        assert_eq!(find_holder(locks, "fe:00:131"), Some(4711));
        assert_eq!(find_holder(locks, "fe:00:13"), None);
    }

    #[test]
    fn a_second_lock_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let open = || std::fs::File::open(dir.path()).unwrap().into();
        let _first = BackingLock::take(&open(), dir.path()).unwrap();
        let error = BackingLock::take(&open(), dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }
}
