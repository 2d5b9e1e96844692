//! Copies in the snapshots of the backing filesystem.
//!
//! Owns the way to them: on ZFS, `.zfs/snapshot` at the root of the dataset has one directory for each. A
//! snapshot is mounted when it is first looked into, so this is done only for what is damaged.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::super::{Fs, ZFS};
use crate::sys::{Errno, stat};

/// Directories above the backing one that are looked into.
const LEVELS: usize = 64;
/// Snapshots that are looked into, the last ones by their names.
const SNAPSHOTS: usize = 64;

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Fs {
    /// Files of a size at paths from the root, in snapshots: each by its path from the root of the dataset.
    pub(super) fn in_snapshots(&self, paths: &[Vec<u8>], size: u64) -> Vec<(Vec<u8>, OwnedFd)> {
        if self.magic != ZFS {
            return Vec::new();
        }
        self.look_into_snapshots(paths, size).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look into snapshots");
            Vec::new()
        })
    }

    fn look_into_snapshots(
        &self,
        paths: &[Vec<u8>],
        size: u64,
    ) -> Result<Vec<(Vec<u8>, OwnedFd)>, Errno> {
        let Some((snapshots, below)) = self.snapshots()? else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&snapshots)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        let mut found = Vec::new();
        for name in names.iter().rev().take(SNAPSHOTS) {
            for path in paths {
                let there = [&name[..], &below, path].join(&b'/');
                if let Ok(file) = open_below(snapshots.as_fd(), &there)
                    && stat::fstat(&file)?.attr.size == size
                {
                    found.push(([b".zfs/snapshot/", &there[..]].concat(), file));
                }
            }
        }
        Ok(found)
    }

    /// The directory of the snapshots, and the path of the backing directory in each; `None` if there is
    /// no such directory.
    fn snapshots(&self) -> Result<Option<(OwnedFd, Vec<u8>)>, Errno> {
        let path = rustix::fs::readlink(stat::proc_name(self.root()), Vec::new())?;
        let mut names: Vec<_> = path.to_bytes().split(|b| *b == b'/').collect();
        let mut below = Vec::new();
        let mut dir = rustix::fs::openat(self.root(), ".", DIR, Mode::empty())?;
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
            if stat::fstat(&above)?.fs.dev != self.root_fs.dev {
                break;
            }
            below.push(name);
            dir = above;
        }
        Ok(None)
    }
}

fn open_below(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(dir, path, flags, Mode::empty(), within)
}
