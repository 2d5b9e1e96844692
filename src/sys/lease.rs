//! Whether anybody can still write to a file.
//!
//! A shared mapping can be stored to after its descriptor was closed, and with passthrough no
//! message tells of it. But the kernel refuses a read lease on an inode that is open for writing,
//! and a writable mapping keeps it open.
#![expect(unsafe_code, reason = "rustix has no wrapper for leases")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Once;

/// The answer of [`writers`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody has the inode open for writing or mapped so.
    None,
    /// Somebody does.
    Some,
    /// The filesystem has no leases.
    Unknown,
}

/// Asks whether the inode behind `fd` is open for writing anywhere on this machine.
///
/// `fd` must be open read-only, not `O_PATH`. The lease is given back at once; whoever opens the inode
/// meanwhile waits for that.
pub fn writers(fd: BorrowedFd<'_>) -> Writers {
    static BREAKS_IGNORED: Once = Once::new();
    // Who holds a lease that is broken gets SIGIO, which ends the process unless it is ignored.
    BREAKS_IGNORED.call_once(|| {
        // SAFETY: SIG_IGN runs no code of ours, and nothing in this process waits for SIGIO.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    });
    // SAFETY: F_SETLEASE takes an integer and no pointer; `fd` is open for the borrow's life.
    let taken = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    if taken == 0 {
        // SAFETY: as above; without a lease the call does nothing.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
        return Writers::None;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Writers::Some,
        _ => Writers::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_lease_that_is_broken_ends_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = std::fs::File::open(file.path()).unwrap();
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| {
                for _ in 0..2_000 {
                    std::fs::File::options().write(true).open(file.path()).unwrap();
                }
            });
            while !opener.is_finished() {
                writers(reader.as_fd());
            }
        });
    }

    #[test]
    fn an_open_writer_is_seen_and_its_end_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = std::fs::File::open(file.path()).unwrap();
        assert_eq!(writers(reader.as_fd()), Writers::Some);
        drop(file.into_temp_path().keep().unwrap());
        assert_eq!(writers(reader.as_fd()), Writers::None);
    }
}
