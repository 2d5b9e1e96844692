//! File handles: names for inodes that outlive every open descriptor.
//!
//! Owns `name_to_handle_at(2)` and `open_by_handle_at(2)`. A handle opens its inode again for as
//! long as that exists, wherever it was renamed to, and never another inode that got its number.
#![expect(unsafe_code, reason = "rustix has no wrapper for these two calls")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::OFlags;

use super::Errno;

/// The kernel's `MAX_HANDLE_SZ`.
const MAX_BYTES: u32 = 128;

/// The kernel's `struct file_handle` with room for the longest handle.
#[repr(C)]
struct Raw {
    bytes: u32,
    kind: i32,
    data: [u8; MAX_BYTES as usize],
}

/// An opaque, persistent name of an inode on one filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    kind: i32,
    data: Box<[u8]>,
}

impl FileHandle {
    /// A handle that the kernel has told.
    pub(super) fn new(kind: i32, data: &[u8]) -> Self {
        Self { kind, data: data.into() }
    }

    /// A number that differs for inodes that had the same inode number one after the other.
    ///
    /// FNV-1a over the handle's bytes: it is stored in the catalog, so it must never change. 63
    /// bits, never 0.
    pub fn generation(&self) -> u64 {
        let start = 0xcbf2_9ce4_8422_2325_u64;
        let mix = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = self.data.iter().fold(start, |h, b| mix(h, *b));
        (hash & (u64::MAX >> 1)).max(1)
    }
}

/// Whether a handle must serve to open the inode again, or only to tell it from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleUse {
    /// For [`open`].
    Open,
    /// For [`FileHandle::generation`] only; more filesystems can give one (Linux 6.5).
    Identify,
}

/// The handle of `name` in `dir`, or of `dir` itself if `name` is empty; follows no symlink.
///
/// # Errors
/// `EOPNOTSUPP` where the filesystem has no handles; else the kernel's.
pub fn of(dir: BorrowedFd<'_>, name: &CStr, purpose: HandleUse) -> Result<FileHandle, Errno> {
    const AT_HANDLE_FID: i32 = 0x200;
    let mut raw = Raw { bytes: MAX_BYTES, kind: 0, data: [0; MAX_BYTES as usize] };
    let mut mount_id = 0i32;
    let mut flags = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    if purpose == HandleUse::Identify {
        flags |= AT_HANDLE_FID;
    }
    // SAFETY: `name` is NUL-terminated; `raw` has the layout of struct file_handle with the room
    // that `bytes` states; both out pointers live across the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            dir.as_raw_fd(),
            name.as_ptr(),
            &raw mut raw,
            &raw mut mount_id,
            flags,
        )
    };
    if result < 0 {
        return Err(last_errno());
    }
    let data = raw.data.get(..raw.bytes as usize).ok_or(Errno::OVERFLOW)?.into();
    Ok(FileHandle { kind: raw.kind, data })
}

/// Opens the inode that `handle` names on the filesystem that `mount` lies on.
///
/// # Errors
/// `ESTALE` if the inode is gone, `EPERM` without `CAP_DAC_READ_SEARCH`; else as `open(2)`.
pub fn open(mount: BorrowedFd<'_>, handle: &FileHandle, flags: OFlags) -> Result<OwnedFd, Errno> {
    let length = u32::try_from(handle.data.len()).map_err(|_| Errno::OVERFLOW)?;
    let mut raw = Raw { bytes: length, kind: handle.kind, data: [0; MAX_BYTES as usize] };
    raw.data[..handle.data.len()].copy_from_slice(&handle.data);
    // SAFETY: `raw` has the layout of struct file_handle and holds `bytes` bytes of data.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            &raw mut raw,
            (flags | OFlags::CLOEXEC).bits(),
        )
    };
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::BADF)?) })
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn generation_of_a_handle_never_changes() {
        let handle = FileHandle { kind: 1, data: vec![1, 2, 3, 4].into() };
        assert_eq!(handle.generation(), 4_502_014_644_069_955_677);
    }

    #[test]
    fn a_handle_follows_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), "x").unwrap();
        let handle = of(fd.as_fd(), c"a", HandleUse::Open).unwrap();
        std::fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        match open(fd.as_fd(), &handle, OFlags::RDONLY) {
            Ok(_) => {}
            Err(Errno::PERM) => eprintln!("SKIPPED: no CAP_DAC_READ_SEARCH"),
            Err(other) => panic!("{other}"),
        }
    }
}
