//! Bringing the packs and their index together after a crash.
//!
//! Temporary files are gone since the directory was opened. What is left is a pack that the index does not
//! know: its index is taken in if it has anything that is nowhere else, and it is removed if not. A pack
//! that the index knows and that is not there comes from no crash but from an index that is older than
//! the packs: it is forgotten first, so that nothing passes for being there.

use super::dir::{Maintenance, PackDir, Step};
use super::error::PackError;
use super::index::ChunkIndex;
use super::types::{PackId, PackIndex};

/// What [`recover`] found and did.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Packs that were not known and are now.
    pub adopted: Vec<PackId>,
    /// Packs that were not known and had nothing that is not elsewhere.
    pub removed: Vec<PackId>,
    /// Packs that were known, are not there, and are known no more.
    pub missing: Vec<PackId>,
    /// Packs that were not known and whose outline is damaged: known is what could be found in them.
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
    let is_missing = |pack: &&PackId| there.binary_search(pack).is_err();
    let missing: Vec<_> = known.iter().filter(is_missing).copied().collect();
    if !missing.is_empty() {
        index.replace(&[], &missing).map_err(PackError::Index)?;
    }
    let mut recovery = Recovery { missing, ..Recovery::default() };
    for pack in there.iter().filter(|pack| known.binary_search(pack).is_err()) {
        let (contents, damage) = outline(right.dir, *pack)?;
        let mut has_more = false;
        for entry in &contents.entries {
            has_more |= index.find(&entry.key).map_err(PackError::Index)?.is_none();
        }
        let damaged = damage.is_some();
        recovery.damaged.extend(damage.map(|error| (*pack, error)));
        if has_more {
            index.replace(&[contents], &[]).map_err(PackError::Index)?;
            right.dir.passed(Step::Published)?;
            recovery.adopted.push(*pack);
        } else if !damaged {
            right.dir.remove(*pack)?;
            recovery.removed.push(*pack);
        }
    }
    Ok(recovery)
}

/// Makes an index know all packs that are there, and changes none of them: for one who only reads.
///
/// # Errors
/// The filesystem's or the index's.
pub fn learn(dir: &PackDir, index: &dyn ChunkIndex) -> Result<(), PackError> {
    for pack in dir.list()? {
        let (contents, _) = outline(dir, pack)?;
        index.replace(&[contents], &[]).map_err(PackError::Index)?;
    }
    Ok(())
}

/// What is in a pack, by its index; if that is damaged, by what can be found without it, with the damage.
fn outline(dir: &PackDir, pack: PackId) -> Result<(PackIndex, Option<PackError>), PackError> {
    let file = dir.open_pack(pack)?;
    match file.index() {
        Ok(contents) => Ok((contents, None)),
        Err(error @ PackError::Outline { .. }) => Ok((file.scan()?.index, Some(error))),
        Err(error) => Err(error),
    }
}
