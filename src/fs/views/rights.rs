//! Who may see what of the past.
//!
//! Owns the owners and modes that views show, by which the kernel decides. In a tree of one time they
//! are those of that time. Below `versions`, where all times are seen at once, they are what is left
//! when everything that ever was in the way stays in the way.
//!
//! Of a file that had an ACL, the group bits that the catalog has are the mask of the ACL, which may be
//! more than the owning group had; the ACL itself is not in the catalog.

use crate::catalog::{CatalogError, NodeInfo, Reader, Rights, VersionInfo};
use crate::types::{FileId, Seq};

/// Everybody may look, nobody may change.
pub(super) const EVERYBODYS: Rights = Rights { mode: 0o555, uid: 0, gid: 0 };

/// The bits of everybody.
const ALL: u32 = 0o111;

/// What something allowed at one time.
pub(super) fn at_that_time(node: &NodeInfo) -> Rights {
    // The one place where an ACL of that time would narrow the group bits.
    Rights { mode: node.mode, uid: node.uid, gid: node.gid }
}

/// What a directory allowed at all times, at every place where it was. Who reaches it from the directory
/// `from` has been let through that already.
pub(super) fn of_all_times(
    reader: &Reader,
    dir: FileId,
    from: Option<FileId>,
) -> Result<Rights, CatalogError> {
    let mut rights = always(&reader.rights_ever(dir)?);
    let mut seen = vec![dir];
    seen.extend(from);
    for parent in reader.parents_of(dir, None)? {
        if Some(parent) != from {
            rights = through(rights, everywhere(reader, parent, &mut seen)?);
        }
    }
    Ok(rights)
}

/// What a version allowed when it was made, wherever its file was then. Who sees it from the directory
/// `from` has been let through that already.
pub(super) fn of_version(
    reader: &Reader,
    version: &VersionInfo,
    from: FileId,
) -> Result<Rights, CatalogError> {
    let rights = Rights { mode: version.mode, uid: version.uid, gid: version.gid };
    let mut parents = reader.parents_of(version.file, Some(version.seq))?;
    if parents.is_empty() {
        // It was made when the file had lost its name, just after.
        parents = reader.parents_of(version.file, Some(Seq(version.seq.0.saturating_sub(1))))?;
    }
    if parents.is_empty() {
        parents = reader.parents_of(version.file, None)?;
    }
    if parents.contains(&from) {
        return Ok(rights);
    }
    let mut seen = Vec::new();
    parents.into_iter().try_fold(rights, |rights, parent| {
        Ok(through(rights, everywhere(reader, parent, &mut seen)?))
    })
}

/// What a directory allowed at all times, together with everything above it at any time.
fn everywhere(
    reader: &Reader,
    dir: FileId,
    seen: &mut Vec<FileId>,
) -> Result<Rights, CatalogError> {
    seen.push(dir);
    let mut rights = always(&reader.rights_ever(dir)?);
    for parent in reader.parents_of(dir, None)? {
        if !seen.contains(&parent) {
            rights = through(rights, everywhere(reader, parent, seen)?);
        }
    }
    Ok(rights)
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
        Rights { mode: 0, uid: 0, gid: 0 }
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
