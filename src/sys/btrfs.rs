//! Subvolumes of btrfs.
#![expect(unsafe_code, reason = "rustix has no wrappers for these ioctls")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::Errno;

/// The inode of the root of every subvolume.
pub const ROOT_INODE: u64 = 256;
/// What `statfs(2)` calls the filesystem.
pub const MAGIC: i64 = 0x9123_683e;

const NAME_MAX: usize = 255;

/// `struct btrfs_ioctl_vol_args_v2`, as far as snapshots need it.
#[repr(C)]
struct SnapshotArgs {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct NameArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_timespec`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Time {
    sec: u64,
    nsec: u32,
}

/// `struct btrfs_ioctl_get_subvol_info_args`.
#[repr(C)]
struct InfoArgs {
    treeid: u64,
    name: [u8; 256],
    parent_id: u64,
    dirid: u64,
    generation: u64,
    flags: u64,
    uuid: [u8; 16],
    parent_uuid: [u8; 16],
    received_uuid: [u8; 16],
    ctransid: u64,
    otransid: u64,
    stransid: u64,
    rtransid: u64,
    /// Of its change, its making, and of sending and receiving.
    times: [Time; 4],
    reserved: [u64; 8],
}

/// `_IOW(0x94, 23, struct btrfs_ioctl_vol_args_v2)`.
const SNAP_CREATE_V2: libc::Ioctl = 0x5000_9417;
/// `_IOW(0x94, 15, struct btrfs_ioctl_vol_args)`.
const SNAP_DESTROY: libc::Ioctl = 0x5000_940f;
/// `_IOR(0x94, 60, struct btrfs_ioctl_get_subvol_info_args)`.
const GET_SUBVOL_INFO: libc::Ioctl = 0x81f8_943c_u32 as libc::Ioctl;
/// `BTRFS_SUBVOL_RDONLY`, for who makes one.
const READ_ONLY: u64 = 1 << 1;
/// `BTRFS_ROOT_SUBVOL_RDONLY`, for who asks about one.
const IS_READ_ONLY: u64 = 1 << 0;

/// What there is to know of a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Its identity.
    pub uuid: [u8; 16],
    /// Whether nobody can write to it.
    pub is_read_only: bool,
    /// The transaction in which it was made.
    pub transaction: u64,
    /// When, in nanoseconds since 1970.
    pub time_ns: i64,
}

fn put_name(name: &str, room: &mut [u8]) -> Result<(), Errno> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    room[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    // The kernel lets the result of a search through where it found what it was asked for: that is 1.
    if result >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Makes a snapshot of a subvolume that is open, read-only, under a name in a directory. It has what was
/// written before, also what the disk does not have yet.
///
/// # Errors
/// The kernel's.
pub fn snapshot(of: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let fd: RawFd = of.as_raw_fd();
    let mut args = SnapshotArgs {
        fd: i64::from(fd),
        transid: 0,
        flags: READ_ONLY,
        unused: [0; 4],
        name: [0; 4040],
    };
    put_name(name, &mut args.name)?;
    // SAFETY: the kernel reads the 4096 bytes of the structure, which lives across the call, and the name
    // ends with a zero.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), SNAP_CREATE_V2, &raw const args) })
}

/// Destroys the subvolume of a name in a directory.
///
/// # Errors
/// The kernel's; `EINVAL` if it is none.
pub fn destroy(dir: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let mut args = NameArgs { fd: 0, name: [0; 4088] };
    put_name(name, &mut args.name)?;
    // SAFETY: the kernel reads the 4096 bytes of the structure, which lives across the call, and the name
    // ends with a zero.
    check(unsafe { libc::ioctl(dir.as_raw_fd(), SNAP_DESTROY, &raw const args) })
}

/// What there is to know of the subvolume that an open directory lies in.
///
/// # Errors
/// The kernel's.
pub fn info(subvolume: BorrowedFd<'_>) -> Result<Info, Errno> {
    let mut args = InfoArgs {
        treeid: 0,
        name: [0; 256],
        parent_id: 0,
        dirid: 0,
        generation: 0,
        flags: 0,
        uuid: [0; 16],
        parent_uuid: [0; 16],
        received_uuid: [0; 16],
        ctransid: 0,
        otransid: 0,
        stransid: 0,
        rtransid: 0,
        times: [Time::default(); 4],
        reserved: [0; 8],
    };
    // SAFETY: the kernel writes the 504 bytes of the structure, which lives across the call and of which
    // every value is valid.
    check(unsafe { libc::ioctl(subvolume.as_raw_fd(), GET_SUBVOL_INFO, &raw mut args) })?;
    let made = args.times[1];
    let seconds = i64::try_from(made.sec).unwrap_or(i64::MAX);
    Ok(Info {
        uuid: args.uuid,
        is_read_only: args.flags & IS_READ_ONLY != 0,
        transaction: args.otransid,
        time_ns: seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(made.nsec)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_sizes_that_the_requests_say() {
        assert_eq!(size_of::<SnapshotArgs>(), 4096);
        assert_eq!(size_of::<NameArgs>(), 4096);
        assert_eq!(size_of::<InfoArgs>(), 504);
    }
}
