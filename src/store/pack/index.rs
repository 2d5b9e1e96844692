//! Where the places of chunks are looked up: an interface, and an index in memory.
//!
//! The real one is the catalog's, as everything that is SQL.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use super::error::IndexError;
use super::types::{Key, PackId, PackIndex, Place};
use crate::types::ContentHash;

/// Knows in which pack each chunk and recipe is.
///
/// An item may lie in several packs; any of its places will do, as long as that pack is known.
pub trait ChunkIndex: Send + Sync {
    /// The place of an item; `None` if it is in no known pack.
    ///
    /// # Errors
    /// The owner's.
    fn find(&self, key: &Key) -> Result<Option<Place>, IndexError>;

    /// The place of a content that is one chunk, or of its recipe, with which of them it is.
    ///
    /// # Errors
    /// The owner's.
    fn find_content(&self, object: ContentHash) -> Result<Option<(Key, Place)>, IndexError> {
        for key in [Key::chunk(object), Key::recipe(object)] {
            if let Some(place) = self.find(&key)? {
                return Ok(Some((key, place)));
            }
        }
        Ok(None)
    }

    /// Makes packs known and others unknown, all of it or nothing, durably before it returns.
    ///
    /// An item that has a place in a pack that stays known may keep it. An item of a removed pack that is
    /// in no other pack is forgotten.
    ///
    /// # Errors
    /// The owner's. Nothing has changed then.
    fn replace(&self, added: &[PackIndex], removed: &[PackId]) -> Result<(), IndexError>;

    /// All packs that are known, in any order.
    ///
    /// # Errors
    /// The owner's.
    fn packs(&self) -> Result<Vec<PackId>, IndexError>;

    /// How many packs are known, and how large they are.
    fn totals(&self) -> PackTotals;

    /// How many packs are smaller than this.
    fn count_smaller(&self, bytes: u64) -> usize;

    /// Forgets everything, and whatever is damaged with it, so that it can be told anew.
    ///
    /// # Errors
    /// The owner's.
    fn clear(&self) -> Result<(), IndexError>;

    /// Whether an answer has shown that the index is not what it was.
    fn is_damaged(&self) -> bool {
        false
    }
}

/// All packs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackTotals {
    /// How many there are.
    pub packs: u64,
    /// Their size on disk in bytes.
    pub bytes: u64,
    /// How many chunks and recipes they have.
    pub items: u64,
}

/// An index in memory, for tests and measurements.
#[derive(Debug, Default)]
pub struct MemoryIndex(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: HashMap<Key, Place>,
    packs: BTreeMap<PackId, PackIndex>,
}

impl ChunkIndex for MemoryIndex {
    fn find(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        Ok(self.0.lock().places.get(key).copied())
    }

    fn replace(&self, added: &[PackIndex], removed: &[PackId]) -> Result<(), IndexError> {
        let Known { places, packs } = &mut *self.0.lock();
        for index in added {
            packs.insert(index.pack, index.clone());
        }
        for pack in removed {
            packs.remove(pack);
        }
        if !removed.is_empty() {
            places.retain(|_, place| packs.contains_key(&place.pack));
        }
        // What lost its place may have another one in any pack.
        let all = packs.values().filter(|_| !removed.is_empty());
        for entry in added.iter().chain(all).flat_map(|index| &index.entries) {
            places.entry(entry.key).or_insert(entry.place);
        }
        Ok(())
    }

    fn packs(&self) -> Result<Vec<PackId>, IndexError> {
        Ok(self.0.lock().packs.keys().copied().collect())
    }

    fn totals(&self) -> PackTotals {
        let known = self.0.lock();
        let bytes = known.packs.values().map(|pack| pack.size_bytes).sum();
        let items = known.packs.values().map(|pack| pack.entries.len() as u64).sum();
        PackTotals { packs: known.packs.len() as u64, bytes, items }
    }

    fn count_smaller(&self, bytes: u64) -> usize {
        self.0.lock().packs.values().filter(|pack| pack.size_bytes < bytes).count()
    }

    fn clear(&self) -> Result<(), IndexError> {
        *self.0.lock() = Known::default();
        Ok(())
    }
}
