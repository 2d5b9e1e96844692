//! What a filesystem can do for what is copied to it.
//!
//! Owns questions that change nothing: what it is, what is free, and whether it has ACLs and attributes.

use std::io;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;

use crate::sys::{Errno, btrfs, zfs};

/// Types of filesystems, as `statfs(2)` has them.
const KINDS: [(i64, &str); 11] = [
    (zfs::MAGIC, "zfs"),
    (btrfs::MAGIC, "btrfs"),
    (0x5846_5342, "xfs"),
    (0xef53, "ext4"),
    (0x0102_1994, "tmpfs"),
    (0xf2f5_2010, "f2fs"),
    (0x6969, "nfs"),
    (0xff53_4d42, "smb"),
    (0xfe53_4d42, "smb"),
    (0x6573_5546, "fuse"),
    (0x794c_7630, "overlay"),
];

/// Whether a filesystem has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It has.
    Yes,
    /// It has not.
    No,
}

/// What is known of the filesystem of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is called.
    pub kind: String,
    /// Bytes that are free for everybody.
    pub available: u64,
    /// Inodes that are free; `None` where they are not counted.
    pub inodes: Option<u64>,
    /// Whether it has ACLs.
    pub acls: Support,
    /// Whether it has extended attributes of users.
    pub xattrs: Support,
}

/// Looks at the filesystem of a directory.
///
/// # Errors
/// If it cannot be looked at.
pub fn look(dir: &Path) -> io::Result<Place> {
    let magic = rustix::fs::statfs(dir)?.f_type;
    let kind = KINDS.iter().find(|(number, _)| *number == magic);
    let figures = rustix::fs::statvfs(dir)?;
    Ok(Place {
        kind: kind.map_or_else(|| format!("type {magic:#x}"), |(_, name)| (*name).to_owned()),
        available: figures.f_bavail.saturating_mul(figures.f_frsize),
        inodes: (figures.f_files > 0).then_some(figures.f_favail),
        acls: has(dir, "system.posix_acl_access"),
        xattrs: has(dir, "user.horace.is_there"),
    })
}

/// Whether an attribute of a name could be there.
fn has(dir: &Path, name: &str) -> Support {
    let mut value = Vec::with_capacity(crate::sys::xattr::MOST);
    match rustix::fs::getxattr(dir, name, spare_capacity(&mut value)) {
        Err(Errno::OPNOTSUPP) => Support::No,
        _ => Support::Yes,
    }
}

/// The path itself if it is there, or what is there of the way to it.
pub fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|dir| dir.exists());
    there.unwrap_or(Path::new("/")).to_path_buf()
}

/// Whether `inner`, which may be still to be made, is `outer` or lies in it, also by another path.
pub fn lies_in(inner: &Path, outer: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let key = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino()));
    let (Ok(outer), Ok(inner)) = (key(outer), nearest(inner).canonicalize()) else {
        return false;
    };
    inner.ancestors().any(|dir| key(dir).is_ok_and(|key| key == outer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_directory_is_known_by_any_path() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::create_dir(at("ab")).unwrap();
        std::os::unix::fs::symlink(at("a/b"), at("s")).unwrap();
        assert!(lies_in(&at("a/b"), &at("a")) && lies_in(&at("a"), &at("a")));
        assert!(lies_in(&at("s/new/er"), &at("a")));
        assert!(!lies_in(&at("ab"), &at("a")) && !lies_in(&at("a"), &at("a/b")));
        assert!(!lies_in(&at("new"), &at("a")));
    }

    #[test]
    fn what_is_free_is_told() {
        let found = look(Path::new("/dev/shm")).unwrap();
        assert_eq!(found.kind, "tmpfs");
        assert!(found.available > 0);
        // The kernel's own filesystems have no ACLs.
        assert_eq!(look(Path::new("/proc")).unwrap().acls, Support::No);
    }
}
