//! Copies in the snapshots of the backing filesystem.
//!
//! Owns the way to them: on ZFS, `.zfs/snapshot` at the root of the dataset has one directory for each. A
//! snapshot is mounted when it is first looked into, so this is done only for what is damaged.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::super::Fs;
use crate::sys::zfs::{self, snapshot_dir};
use crate::sys::{Errno, stat};

/// Snapshots that are looked into, the last ones by their names.
const SNAPSHOTS: usize = 64;

impl Fs {
    /// Files of a size at paths from the root, in snapshots: each by its path from the root of the dataset.
    pub(super) fn in_snapshots(&self, paths: &[Vec<u8>], size: u64) -> Vec<(Vec<u8>, OwnedFd)> {
        if self.magic != zfs::MAGIC {
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
        let Some((snapshots, below)) = snapshot_dir(self.root())? else { return Ok(Vec::new()) };
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
}

fn open_below(dir: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(dir, path, flags, Mode::empty(), within)
}
