//! ZFS, and where it shows the snapshots of a dataset.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::{Errno, stat};

/// What `statfs(2)` calls the filesystem.
pub const MAGIC: i64 = 0x2fc1_2fc1;

/// Directories above the given one that are looked into.
const LEVELS: usize = 64;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directory of the snapshots of what an open directory lies on, and the path of that directory in each.
///
/// `None` if there is no `.zfs/snapshot`. It is reached by descriptors: something else may be mounted over
/// the path.
///
/// # Errors
/// The kernel's.
pub fn snapshot_dir(root: BorrowedFd<'_>) -> Result<Option<(OwnedFd, Vec<u8>)>, Errno> {
    let dev = stat::fstat(root)?.fs.dev;
    let path = rustix::fs::readlink(stat::proc_name(root), Vec::new())?;
    let mut names: Vec<_> = path.to_bytes().split(|b| *b == b'/').collect();
    let mut below = Vec::new();
    let mut dir = rustix::fs::openat(root, ".", DIR, Mode::empty())?;
    for _ in 0..LEVELS {
        match rustix::fs::openat(&dir, ".zfs/snapshot", DIR, Mode::empty()) {
            Err(Errno::NOENT) => {}
            result => {
                below.reverse();
                return Ok(Some((result?, below.join(&b'/'))));
            }
        }
        let above = rustix::fs::openat(&dir, "..", DIR, Mode::empty())?;
        let Some(name) = names.pop().filter(|name| !name.is_empty()) else { break };
        if stat::fstat(&above)?.fs.dev != dev {
            break;
        }
        below.push(name);
        dir = above;
    }
    Ok(None)
}
