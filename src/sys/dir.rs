//! Directories of Horace's own.

use std::os::fd::AsFd;

use rustix::fs::Mode;

use super::Errno;

/// Makes a directory for its owner alone, unless it is there.
///
/// # Errors
/// The kernel's.
pub fn make_private(at: impl AsFd, name: &str) -> Result<(), Errno> {
    match rustix::fs::mkdirat(at, name, Mode::RWXU) {
        Err(Errno::EXIST) => Ok(()),
        result => result,
    }
}
