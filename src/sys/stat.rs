//! `statx(2)` in our words, and path names of descriptors.
//!
//! Owns the translation of the kernel's `struct statx` to [`Attr`], and the facts that tell whether
//! an inode still lies on the filesystem that is served.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp};

use super::Errno;
use crate::types::{Attr, Kind, Timestamp};

/// Which mounted filesystem an inode lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsId {
    /// `st_dev`.
    pub dev: u64,
    /// The mount, which tells bind mounts of one filesystem apart; 0 before Linux 5.8.
    pub mount: u64,
}

/// The result of one `statx(2)`.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// The attributes.
    pub attr: Attr,
    /// Where the inode lies.
    pub fs: FsId,
    /// Birth time in nanoseconds; 0 where the filesystem records none.
    pub btime_ns: i64,
}

/// Stats an open descriptor, `O_PATH` ones included.
///
/// # Errors
/// The kernel's.
pub fn fstat(fd: impl AsFd) -> Result<Stat, Errno> {
    stat_at(fd.as_fd(), c"", AtFlags::EMPTY_PATH)
}

/// Stats an open descriptor, and has a filesystem that remembers what another machine or process
/// told it ask again.
///
/// # Errors
/// The kernel's.
pub fn fstat_anew(fd: impl AsFd) -> Result<Stat, Errno> {
    stat_at(fd.as_fd(), c"", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC)
}

/// A number for the mount in which something open lies, never used again before the next boot; before Linux
/// 6.8, one that may be.
///
/// # Errors
/// The kernel's.
pub fn mount_of(fd: impl AsFd) -> Result<u64, Errno> {
    const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let mask = StatxFlags::MNT_ID | UNIQUE;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, mask).map(|stat| stat.stx_mnt_id)
}

/// Stats `name` in the directory `dir`, not following a symlink.
///
/// # Errors
/// The kernel's; `EIO` if the inode has a type that no Unix defines.
pub fn lstat_at(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    stat_at(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn stat_at(dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> Result<Stat, Errno> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let stat = rustix::fs::statx(dir, name, flags | AtFlags::NO_AUTOMOUNT, mask)?;
    convert(&stat)
}

fn convert(s: &Statx) -> Result<Stat, Errno> {
    let time = |t: &StatxTimestamp| Timestamp { secs: t.tv_sec, nanos: t.tv_nsec };
    let mode = u32::from(s.stx_mode);
    let attr = Attr {
        ino: s.stx_ino,
        kind: Kind::from_mode(mode).ok_or(Errno::IO)?,
        mode: mode & 0o7777,
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        rdev: kernel_rdev(s.stx_rdev_major, s.stx_rdev_minor),
        size: s.stx_size,
        blocks: s.stx_blocks,
        blksize: s.stx_blksize,
        atime: time(&s.stx_atime),
        mtime: time(&s.stx_mtime),
        ctime: time(&s.stx_ctime),
    };
    let has = |flag: StatxFlags| s.stx_mask & flag.bits() != 0;
    Ok(Stat {
        attr,
        fs: FsId {
            dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
            mount: if has(StatxFlags::MNT_ID) { s.stx_mnt_id } else { 0 },
        },
        btime_ns: if has(StatxFlags::BTIME) { time(&s.stx_btime).as_ns() } else { 0 },
    })
}

/// The kernel's 32-bit encoding of a device number, the one FUSE speaks.
fn kernel_rdev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of the encoding that FUSE speaks, as `mknod(2)` wants it.
pub fn device_from_kernel(rdev: u32) -> u64 {
    rustix::fs::makedev((rdev & 0xf_ff00) >> 8, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00))
}

/// The name of a descriptor below `/proc/self/fd`, which reaches the inode itself and follows
/// nothing, whatever kind it is.
pub fn proc_name(fd: impl AsFd) -> std::ffi::CString {
    std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
        .expect("digits have no NUL")
}

/// Where a descriptor was opened or has been moved to, as the kernel names it.
///
/// # Errors
/// The kernel's.
pub fn path_of(fd: impl AsFd) -> Result<Vec<u8>, Errno> {
    Ok(rustix::fs::readlink(proc_name(fd), Vec::new())?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (8, 255), (259, 70_000), (4095, 1_048_575)] {
            let device = device_from_kernel(kernel_rdev(major, minor));
            assert_eq!((rustix::fs::major(device), rustix::fs::minor(device)), (major, minor));
        }
    }
}
