//! How much there is in a tree, and what of it asks for something of where it goes.
//!
//! Owns one walk that reads names and attributes and no content. A hard link counts once.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{Access, AtFlags, CWD};

use super::OWN_DIR;

/// How many of what cannot be read are named.
const NAMED: usize = 20;

/// What a tree has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Regular files, each once.
    pub files: u64,
    /// Directories, the root among them.
    pub dirs: u64,
    /// Names of everything else.
    pub others: u64,
    /// Device nodes among them.
    pub devices: u64,
    /// Names of files that are there already.
    pub links: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// Bytes that the files take.
    pub allocated: u64,
    /// Whether anything has an ACL.
    pub has_acls: bool,
    /// Whether anything has another extended attribute.
    pub has_xattrs: bool,
    /// Where other filesystems are mounted in it, from its root.
    pub mounts: Vec<PathBuf>,
    /// How many names cannot be read.
    pub unreadable: u64,
    /// Some of them from the root of the tree, and why.
    pub unreadable_named: Vec<(PathBuf, String)>,
}

impl Survey {
    /// Inodes that it takes.
    pub fn inodes(&self) -> u64 {
        self.files + self.dirs + self.others
    }
}

/// Looks through a tree, without what Horace has in its root; `progress` hears of every name.
///
/// # Errors
/// If its root is no directory that can be looked at.
pub fn survey(top: &Path, mut progress: impl FnMut()) -> io::Result<Survey> {
    let root = top.metadata()?;
    std::fs::read_dir(top)?;
    let mut walk = Walk { top, survey: Survey::default(), seen: HashSet::new() };
    walk.look(Path::new(""), &root);
    let mut dirs = vec![(PathBuf::new(), root.dev())];
    while let Some((dir, dev)) = dirs.pop() {
        let entries = match std::fs::read_dir(top.join(&dir)) {
            Ok(entries) => entries,
            Err(error) => {
                walk.refuse(dir, &error);
                continue;
            }
        };
        for entry in entries {
            progress();
            let Some((path, found)) = walk.entry(&dir, entry) else { continue };
            walk.look(&path, &found);
            if found.is_dir() {
                if found.dev() != dev {
                    walk.survey.mounts.push(path.clone());
                }
                dirs.push((path, found.dev()));
            }
        }
    }
    Ok(walk.survey)
}

struct Walk<'t> {
    top: &'t Path,
    survey: Survey,
    /// Files with several names.
    seen: HashSet<(u64, u64)>,
}

impl Walk<'_> {
    /// A name of a directory with what it stands for, if it counts.
    fn entry(
        &mut self,
        dir: &Path,
        entry: io::Result<std::fs::DirEntry>,
    ) -> Option<(PathBuf, Metadata)> {
        let entry = entry.inspect_err(|error| self.refuse(dir.into(), error)).ok()?;
        let name = entry.file_name();
        if dir.as_os_str().is_empty() && name == OWN_DIR {
            return None;
        }
        let path = dir.join(name);
        match self.top.join(&path).symlink_metadata() {
            Ok(found) => Some((path, found)),
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.refuse(path, &error);
                None
            }
        }
    }

    fn look(&mut self, path: &Path, found: &Metadata) {
        let kind = found.file_type();
        let full = self.top.join(path);
        if kind.is_file() {
            if found.nlink() > 1 && !self.seen.insert((found.dev(), found.ino())) {
                self.survey.links += 1;
                return;
            }
            self.survey.files += 1;
            self.survey.bytes += found.len();
            self.survey.allocated += found.blocks() * 512;
        } else if kind.is_dir() {
            self.survey.dirs += 1;
            self.survey.allocated += found.blocks() * 512;
        } else {
            self.survey.others += 1;
            self.survey.devices += u64::from(kind.is_block_device() || kind.is_char_device());
        }
        let wanted = match (kind.is_file(), kind.is_dir()) {
            (true, _) => Some(Access::READ_OK),
            (_, true) => Some(Access::READ_OK | Access::EXEC_OK),
            _ => None,
        };
        if let Some(wanted) = wanted
            && let Err(error) = rustix::fs::accessat(CWD, &full, wanted, AtFlags::EACCESS)
        {
            self.refuse(path.into(), &error.into());
        }
        self.look_at_attributes(&full);
    }

    fn look_at_attributes(&mut self, path: &Path) {
        if self.survey.has_acls && self.survey.has_xattrs {
            return;
        }
        let mut list = Vec::with_capacity(crate::sys::xattr::MOST);
        if rustix::fs::llistxattr(path, spare_capacity(&mut list)).is_err() {
            return;
        }
        for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if name.starts_with(b"system.posix_acl_") {
                self.survey.has_acls = true;
            } else if name.starts_with(b"user.") || name.starts_with(b"trusted.") {
                self.survey.has_xattrs = true;
            }
        }
    }

    fn refuse(&mut self, path: PathBuf, error: &io::Error) {
        self.survey.unreadable += 1;
        if self.survey.unreadable_named.len() < NAMED {
            self.survey.unreadable_named.push((path, error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once_and_holes_take_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::create_dir(at(OWN_DIR)).unwrap();
        std::fs::write(at(".horace/catalog.db"), "not counted").unwrap();
        std::fs::write(at("d/f"), [7; 10_000]).unwrap();
        std::fs::hard_link(at("d/f"), at("g")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("s")).unwrap();
        std::fs::File::create(at("hole")).unwrap().set_len(1 << 30).unwrap();
        let mut names = 0;
        let found = survey(dir.path(), || names += 1).unwrap();
        assert_eq!((found.files, found.dirs, found.others, found.links), (2, 2, 1, 1));
        assert_eq!(found.bytes, 10_000 + (1 << 30));
        assert!(found.allocated < 1 << 20, "{found:?}");
        assert_eq!((names, found.unreadable), (6, 0));
        assert!(survey(&at("g"), || ()).is_err());
    }
}
