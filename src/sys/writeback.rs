//! Having the kernel write back what it has of a file.
//!
//! Owns the calls that do so without making anything durable, and what a mapping tells by them.
#![expect(unsafe_code, reason = "rustix has no wrapper for sync_file_range")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel begin to write back what it has of a file, and waits for nothing.
///
/// So many files can be on their way to the disk before the first of them is waited for. Where the filesystem
/// cannot, nothing happens.
pub fn begin_writing_back(fd: BorrowedFd<'_>) {
    // SAFETY: the call takes no pointer; `fd` is open for the borrow's life.
    unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// How long a store may take: the kernel moves the times of the file first, then waits for its journal and for
/// the page, and last there are the bytes.
pub const UNDER_WAY_NS: i64 = 100_000_000;

/// Has what is stored to mappings of a file from now on show in its times.
///
/// A store moves them when it is the first to its page since that was written back; so this writes back
/// what there is. Nothing is made durable by it. Where the filesystem cannot, nothing happens.
pub fn watch_stores(fd: BorrowedFd<'_>) {
    let all = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes no pointer; `fd` is open for the borrow's life.
    unsafe { libc::sync_file_range(fd.as_raw_fd(), 0, 0, all) };
}
