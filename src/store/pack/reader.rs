//! Reading packed contents, whole or in part.
//!
//! Nothing is handed on before its checksum has been checked. A chunk that is read for itself is compared
//! with its name too; of a content that is read whole the whole is, and its chunks only to find out which
//! of them is wrong: SHA-256 costs as much as zstd, and once is enough. Never writes.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::cache::{Cache, Item, Proof};
use super::dir::PackDir;
use super::error::PackError;
use super::index::ChunkIndex;
use super::recipe::{ChunkRef, Recipe, decode_list};
use super::types::{Key, PackId, Place, Sort};
use crate::types::ContentHash;

/// Reads contents from packs; any number of threads may.
pub struct PackReader {
    dir: Arc<PackDir>,
    index: Arc<dyn ChunkIndex>,
    cache: Cache,
}

/// Takes a part of a content: its offset in the content, and the bytes.
type Take<'a> = dyn FnMut(u64, &[u8]) -> Result<(), PackError> + 'a;

impl PackReader {
    /// A reader that keeps up to `cache_bytes` of decompressed frames.
    pub fn new(dir: Arc<PackDir>, index: Arc<dyn ChunkIndex>, cache_bytes: usize) -> Self {
        Self { dir, index, cache: Cache::new(cache_bytes) }
    }

    /// Opens every pack anew from now on: a filesystem that was rolled back may have another file of its name.
    pub fn close_packs(&self) {
        self.cache.close_packs();
    }

    /// How a content is made, which is what the other calls want to know; `None` if it is not packed.
    ///
    /// # Errors
    /// [`PackError::Object`] if the recipe is damaged.
    pub fn recipe(&self, object: ContentHash) -> Result<Option<Recipe>, PackError> {
        if object == ContentHash::EMPTY {
            return Ok(Some(Recipe::of_nothing()));
        }
        let at_hand = |key: Key| self.cache.place(&key).map(|place| (key, place));
        let at_hand = at_hand(Key::chunk(object)).or_else(|| at_hand(Key::recipe(object)));
        let found = match at_hand {
            None => self.index.find_content(object).map_err(PackError::Index)?,
            found => found,
        };
        match found {
            None => Ok(None),
            Some((Key { sort: Sort::Chunk, .. }, place)) => {
                Ok(Some(Recipe::of_chunk(object, place.length)))
            }
            Some((key, place)) => {
                let bytes = self.item_at(key, place, Proof::Now);
                let recipe = bytes.and_then(|bytes| Recipe::decode(object, &bytes));
                recipe.map(Some).map_err(|error| error.within(object, 0))
            }
        }
    }

    /// Reads from `offset` on until `buffer` is full or the content ends; returns the number of bytes.
    ///
    /// # Errors
    /// [`PackError::Object`] with the first part that cannot be read.
    pub fn read_at(
        &self,
        recipe: &Recipe,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, PackError> {
        let end = offset.saturating_add(buffer.len() as u64).min(recipe.size_bytes);
        let range = offset.min(end)..end;
        let mut filled = 0;
        self.visit(recipe, &range, Proof::Now, &mut |start, chunk| {
            // Only the first one begins before the range.
            let skip = usize::try_from(range.start.saturating_sub(start)).unwrap_or(usize::MAX);
            let wanted = chunk.get(skip..).unwrap_or_default();
            let n = wanted.len().min(buffer.len() - filled);
            buffer[filled..filled + n].copy_from_slice(&wanted[..n]);
            filled += n;
            Ok(())
        })?;
        Ok(filled)
    }

    /// Writes the whole content to `out`; returns its length in bytes.
    ///
    /// # Errors
    /// [`PackError::Object`] with the first part that cannot be read, [`PackError::Output`]. What has been
    /// written before an error must be thrown away.
    pub fn copy(&self, recipe: &Recipe, out: &mut dyn Write) -> Result<u64, PackError> {
        let whole = 0..recipe.size_bytes;
        if recipe.is_chunk() {
            let mut write = |_, chunk: &[u8]| out.write_all(chunk).map_err(PackError::Output);
            self.visit(recipe, &whole, Proof::Now, &mut write)?;
            return Ok(recipe.size_bytes);
        }
        let mut digest = Sha256::new();
        self.visit(recipe, &whole, Proof::Later, &mut |_, chunk| {
            digest.update(chunk);
            out.write_all(chunk).map_err(PackError::Output)
        })?;
        let found = ContentHash::from(digest);
        if found == recipe.object {
            return Ok(recipe.size_bytes);
        }
        self.visit(recipe, &whole, Proof::Now, &mut |_, _| Ok(()))?;
        let error = PackError::OtherContent { expected: recipe.object, found };
        Err(error.within(recipe.object, 0))
    }

    /// Closes packs that have been removed: as long as they are open they take space.
    pub fn forget(&self, packs: &[PackId]) {
        packs.iter().for_each(|pack| self.cache.forget(*pack));
    }

    /// Names every item that the content needs, its recipe included, some of them more than once.
    ///
    /// # Errors
    /// [`PackError::Object`] if the recipe is damaged.
    pub fn needs(&self, recipe: &Recipe, each: &mut dyn FnMut(Key)) -> Result<(), PackError> {
        if !recipe.is_chunk() && recipe.size_bytes > 0 {
            each(Key::recipe(recipe.object));
        }
        let top = Level { refs: &recipe.refs, level: recipe.level, start: 0 };
        self.walk(recipe.object, &top, &(0..recipe.size_bytes), &mut |_, reference, _| {
            each(Key::chunk(reference.chunk));
            Ok(())
        })
    }

    fn visit(
        &self,
        recipe: &Recipe,
        range: &Range<u64>,
        proof: Proof,
        take: &mut Take<'_>,
    ) -> Result<(), PackError> {
        let object = recipe.object;
        let top = Level { refs: &recipe.refs, level: recipe.level, start: 0 };
        self.walk(object, &top, range, &mut |start, reference, level| {
            if level > 0 {
                return Ok(());
            }
            let get = |proof| {
                let chunk = self.item(Key::chunk(reference.chunk), proof);
                chunk.map_err(|error| error.within(object, start))
            };
            let chunk = get(proof)?;
            if chunk.len() as u64 == reference.covers_bytes {
                return take(start, &chunk);
            }
            // Which of the two is wrong.
            get(Proof::Now)?;
            let reason = "a chunk has another length than it says";
            Err(PackError::Recipe { object, reason }.within(object, start))
        })
    }

    /// Calls `each` with the references that touch `range`, those to lists before those in them.
    fn walk(
        &self,
        object: ContentHash,
        list: &Level<'_>,
        range: &Range<u64>,
        each: &mut dyn FnMut(u64, &ChunkRef, u8) -> Result<(), PackError>,
    ) -> Result<(), PackError> {
        let mut start = list.start;
        for reference in list.refs {
            if start >= range.end {
                break;
            }
            let end = start.saturating_add(reference.covers_bytes);
            if end > range.start {
                each(start, reference, list.level)?;
                if let Some(level) = list.level.checked_sub(1) {
                    let refs =
                        self.item(Key::chunk(reference.chunk), Proof::Now).and_then(|bytes| {
                            decode_list(&bytes, reference.covers_bytes)
                                .map_err(|reason| PackError::Recipe { object, reason })
                        });
                    let refs = refs.map_err(|error| error.within(object, start))?;
                    self.walk(object, &Level { refs: &refs, level, start }, range, each)?;
                }
            }
            start = end;
        }
        Ok(())
    }

    fn item(&self, key: Key, proof: Proof) -> Result<Item, PackError> {
        let place = match self.cache.place(&key) {
            Some(place) => place,
            None => self.find(&key)?,
        };
        self.item_at(key, place, proof)
    }

    fn find(&self, key: &Key) -> Result<Place, PackError> {
        let place = self.index.find(key).map_err(PackError::Index)?;
        place.ok_or(PackError::Unknown { key: *key })
    }

    fn item_at(&self, key: Key, place: Place, proof: Proof) -> Result<Item, PackError> {
        match self.cache.item(&self.dir, &key, &place, proof) {
            Err(PackError::Missing { path }) => {
                self.cache.forget(place.pack);
                // It may have been rewritten since we asked for the place.
                let again = self.find(&key)?;
                if again.pack == place.pack {
                    return Err(PackError::Missing { path });
                }
                self.cache.item(&self.dir, &key, &again, proof)
            }
            item => item,
        }
    }
}

/// A list of references and where in the content it begins.
struct Level<'a> {
    refs: &'a [ChunkRef],
    level: u8,
    start: u64,
}
