//! Who may see what of the past.
//!
//! Owns the owners and modes that views show, by which the kernel decides. In a tree of one time they
//! are those of that time. Below `versions`, where all times are seen at once, they are what is left
//! when everything that ever was in the way stays in the way.
//!
//! Of a file that has an ACL, the group bits are the mask of the ACL, which may be more than the owning
//! group has. In a tree of one time the kernel gets the ACL of that time. Below `versions`, what has or
//! ever had an ACL is taken to have had one always, and its group gets nothing.

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::catalog::{CatalogError, NodeInfo, Reader, Rights, VersionInfo};
use crate::fs::Fs;
use crate::sys::{Errno, stat};
use crate::types::{FileId, Seq};

/// Everybody may look, nobody may change.
pub(super) const EVERYBODYS: Rights = Rights { mode: 0o555, uid: 0, gid: 0 };

/// Nobody but root may do anything.
const NOBODYS: Rights = Rights { mode: 0, uid: 0, gid: 0 };

/// The bits of everybody.
const ALL: u32 = 0o111;

/// The bits of the group, which are the mask where there is an ACL.
const GROUP: u32 = 0o070;

/// What has been in more directories than this is shown to nobody.
const MOST: usize = 4096;

const ACL: &str = "system.posix_acl_access";

/// Decides with what the catalog and the live files say.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) fs: &'a Fs,
    pub(super) reader: &'a Reader,
}

impl Judge<'_> {
    /// What a directory allowed at all times, at every place where it was. Who reaches it from the
    /// directory `from` has been let through that already.
    pub(super) fn of_all_times(
        self,
        dir: FileId,
        from: Option<FileId>,
    ) -> Result<Rights, CatalogError> {
        let rights = self.always(dir)?;
        let parents = self.reader.parents_of(dir, None)?;
        let others = parents.into_iter().filter(|parent| Some(*parent) != from);
        self.through_all(rights, others.collect(), from)
    }

    /// What a version allowed when it was made, wherever its file was then. Who sees it from the
    /// directory `from` has been let through that already.
    pub(super) fn of_version(
        self,
        version: &VersionInfo,
        from: FileId,
    ) -> Result<Rights, CatalogError> {
        let rights = Rights { mode: version.mode, uid: version.uid, gid: version.gid };
        let rights = self.without_mask(version.file, rights)?;
        let mut parents = self.reader.parents_of(version.file, Some(version.seq))?;
        if parents.is_empty() {
            // It was made when the file had lost its name.
            let before = Seq(version.seq.0.saturating_sub(1));
            parents = self.reader.parents_of(version.file, Some(before))?;
        }
        if parents.is_empty() {
            parents = self.reader.parents_of(version.file, None)?;
        }
        if parents.contains(&from) {
            return Ok(rights);
        }
        self.through_all(rights, parents, None)
    }

    /// What is left of rights for those who must have passed some directories, and all that were ever
    /// above them, but for those that `known` leads to.
    fn through_all(
        self,
        mut rights: Rights,
        mut dirs: Vec<FileId>,
        known: Option<FileId>,
    ) -> Result<Rights, CatalogError> {
        let mut seen: Vec<FileId> = known.into_iter().collect();
        while let Some(dir) = dirs.pop() {
            if seen.contains(&dir) {
                continue;
            }
            if seen.len() > MOST {
                return Ok(NOBODYS);
            }
            seen.push(dir);
            rights = through(rights, self.always(dir)?);
            dirs.extend(self.reader.parents_of(dir, None)?);
        }
        Ok(rights)
    }

    /// What a directory allowed at all times.
    fn always(self, dir: FileId) -> Result<Rights, CatalogError> {
        self.without_mask(dir, always(&self.reader.rights_ever(dir)?))
    }

    /// Takes what may be the mask of an ACL for what it might hide.
    fn without_mask(self, file: FileId, rights: Rights) -> Result<Rights, CatalogError> {
        if rights.mode & GROUP == 0 || !(self.reader.had_xattr(file, ACL)? || self.has_acl(file)?) {
            return Ok(rights);
        }
        Ok(Rights { mode: rights.mode & !GROUP, ..rights })
    }

    /// Whether a file that lives has an ACL.
    fn has_acl(self, file: FileId) -> Result<bool, CatalogError> {
        if !self.fs.views.has_acls {
            return Ok(false);
        }
        let now = Seq(i64::MAX.cast_unsigned());
        let Some(path) = self.reader.path_of(file, now)? else { return Ok(false) };
        let path: &[u8] = if path.is_empty() { b"." } else { &path };
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(match rustix::fs::openat2(self.fs.root(), path, flags, Mode::empty(), within) {
            Ok(file) => {
                let length = rustix::fs::getxattr(stat::proc_name(&file), ACL, &mut [0_u8; 0]);
                !matches!(length, Err(Errno::NODATA | Errno::OPNOTSUPP))
            }
            // What cannot be asked may have one.
            Err(error) => error != Errno::NOENT,
        })
    }
}

/// Whether files of a filesystem can have ACLs.
pub(super) fn has_acls(root: impl std::os::fd::AsFd) -> bool {
    let found = rustix::fs::getxattr(stat::proc_name(&root), ACL, &mut [0_u8; 0]);
    !matches!(found, Err(Errno::OPNOTSUPP))
}

/// What something allowed at one time.
pub(super) fn at_that_time(node: &NodeInfo) -> Rights {
    Rights { mode: node.mode, uid: node.uid, gid: node.gid }
}

/// What all of these allow. Where owners or groups differ, that is what everybody was allowed.
fn always(all: &[Rights]) -> Rights {
    let mode = all.iter().fold(0o777, |mode, rights| mode & rights.mode);
    match all {
        [first, rest @ ..]
            if rest.iter().all(|one| (one.uid, one.gid) == (first.uid, first.gid)) =>
        {
            Rights { mode, ..*first }
        }
        _ => Rights { mode: (mode & mode >> 3 & mode >> 6 & 0o7) * ALL, uid: 0, gid: 0 },
    }
}

/// What is left of rights for those who must have passed a directory, too.
fn through(rights: Rights, dir: Rights) -> Rights {
    let passes = dir.mode & ALL;
    if passes == ALL {
        rights
    } else if (dir.uid, dir.gid) == (rights.uid, rights.gid) {
        Rights { mode: rights.mode & (passes * 0o7), ..rights }
    } else {
        NOBODYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn rights((mode, uid, gid): (u32, u32, u32)) -> Rights {
        Rights { mode, uid, gid }
    }

    #[rstest]
    #[case(&[(0o755, 1, 2)], (0o755, 1, 2))]
    #[case(&[(0o755, 1, 2), (0o750, 1, 2), (0o775, 1, 2)], (0o750, 1, 2))]
    #[case(&[(0o750, 1, 2), (0o750, 1, 3)], (0, 0, 0))]
    #[case(&[(0o750, 1, 2), (0o755, 3, 2)], (0, 0, 0))]
    #[case(&[(0o755, 1, 2), (0o777, 3, 2)], (0o555, 0, 0))]
    #[case(&[(0o711, 1, 2), (0o755, 3, 2)], (0o111, 0, 0))]
    #[case(&[(0o705, 1, 2), (0o755, 3, 2)], (0, 0, 0))] // the group of the first was shut out
    fn what_was_always_allowed(#[case] all: &[(u32, u32, u32)], #[case] expected: (u32, u32, u32)) {
        let all: Vec<_> = all.iter().copied().map(rights).collect();
        assert_eq!(always(&all), rights(expected));
    }

    #[rstest]
    #[case((0o644, 1, 2), (0o755, 9, 9), (0o644, 1, 2))]
    #[case((0o644, 1, 2), (0o711, 9, 9), (0o644, 1, 2))]
    #[case((0o644, 1, 2), (0o750, 1, 2), (0o640, 1, 2))]
    #[case((0o644, 1, 2), (0o700, 1, 2), (0o600, 1, 2))]
    #[case((0o644, 1, 2), (0o750, 1, 3), (0, 0, 0))]
    #[case((0o644, 1, 2), (0o745, 1, 2), (0o604, 1, 2))]
    fn a_directory_in_the_way_stays_in_the_way(
        #[case] file: (u32, u32, u32),
        #[case] dir: (u32, u32, u32),
        #[case] expected: (u32, u32, u32),
    ) {
        assert_eq!(through(rights(file), rights(dir)), rights(expected));
    }
}
