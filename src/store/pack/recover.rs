//! Bringing the packs and their index together after a crash.
//!
//! Temporary files are gone since the directory was opened. What is left is a pack that the index does not
//! know: its index is taken in if it has anything that is nowhere else, and it is removed if not. A pack
//! that the index knows and that is not there is reported; it comes from no crash.

use super::dir::{Maintenance, Step};
use super::error::PackError;
use super::index::ChunkIndex;
use super::types::PackId;

/// What [`recover`] found and did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Packs that were not known and are now.
    pub adopted: Vec<PackId>,
    /// Packs that were not known and had nothing that is not elsewhere.
    pub removed: Vec<PackId>,
    /// Packs that are known and not there.
    pub missing: Vec<PackId>,
    /// Packs that are not known and cannot be, because their outline is damaged.
    pub damaged: Vec<(PackId, PackError)>,
}

/// Makes the index know the packs that are there. To be called once before anything is packed.
///
/// # Errors
/// The filesystem's or the index's. It can be called again.
pub fn recover(right: &Maintenance<'_>, index: &dyn ChunkIndex) -> Result<Recovery, PackError> {
    let there = right.dir.list()?;
    let mut known = index.packs().map_err(PackError::Index)?;
    known.sort_unstable();
    let mut recovery = Recovery::default();
    for pack in there.iter().filter(|pack| known.binary_search(pack).is_err()) {
        let contents = match right.dir.open_pack(*pack).and_then(|file| file.index()) {
            Ok(contents) => contents,
            Err(error @ PackError::Io { .. }) => return Err(error),
            Err(error) => {
                recovery.damaged.push((*pack, error));
                continue;
            }
        };
        let mut has_more = false;
        for entry in &contents.entries {
            has_more |= index.find(&entry.key).map_err(PackError::Index)?.is_none();
        }
        if has_more {
            index.replace(&[contents], &[]).map_err(PackError::Index)?;
            right.dir.passed(Step::Published)?;
            recovery.adopted.push(*pack);
        } else {
            right.dir.remove(*pack)?;
            recovery.removed.push(*pack);
        }
    }
    let is_missing = |pack: &&PackId| there.binary_search(pack).is_err();
    recovery.missing = known.iter().filter(is_missing).copied().collect();
    Ok(recovery)
}
