//! Whether anybody can still write to a file.
//!
//! A shared mapping can be stored to after its descriptor was closed, and with passthrough no
//! message tells of it. But the kernel refuses a read lease on an inode that is open for writing,
//! and a writable mapping keeps it open.
#![expect(unsafe_code, reason = "rustix has no wrapper for leases")]

use std::os::fd::{AsRawFd, BorrowedFd};

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
/// `fd` must be open read-only, not `O_PATH`. The lease is given back at once.
pub fn writers(fd: BorrowedFd<'_>) -> Writers {
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
    fn an_open_writer_is_seen_and_its_end_too() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = std::fs::File::open(file.path()).unwrap();
        assert_eq!(writers(reader.as_fd()), Writers::Some);
        drop(file.into_temp_path().keep().unwrap());
        assert_eq!(writers(reader.as_fd()), Writers::None);
    }
}
