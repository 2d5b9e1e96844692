//! The way back: errors of the filesystem as FUSE sends them.

use crate::sys::Errno;

/// The raw error number, unchanged: what the backing filesystem said is what the caller gets.
pub(super) fn reply(error: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(error.raw_os_error())
}
