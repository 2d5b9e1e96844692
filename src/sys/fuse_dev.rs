//! The one call on `/dev/fuse` that fuser keeps to itself.
#![expect(unsafe_code, reason = "the ioctl has no wrapper")]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Errno;

/// `_IOW(229, 2, u32)`.
const FUSE_DEV_IOC_BACKING_CLOSE: libc::Ioctl = 0x4004_e502;

/// Gives up a backing file that was registered with the connection `device`.
///
/// # Errors
/// `ENOENT` for an id that is not registered.
pub fn backing_close(device: BorrowedFd<'_>, id: u32) -> Result<(), Errno> {
    // SAFETY: the ioctl reads four bytes from the pointer, which live across the call.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), FUSE_DEV_IOC_BACKING_CLOSE, &raw const id) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
