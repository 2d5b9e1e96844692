//! Recipes: how a content is made of chunks.
//!
//! Owns their encoding. A content of one chunk has none: the name of that chunk is the name of the
//! content. A long recipe is itself stored in chunks, level upon level, so that neither making one nor
//! reading one keeps more of it in memory than a list per level.
//!
//! ```text
//! recipe   hash of the content (32 bytes), its length varint, level u8, list
//! list     number of references varint, then per reference the hash of a chunk (32 bytes) and how
//!          many bytes of the content it stands for, varint
//! ```
//!
//! On level 0 the chunks are the content's own. On level 1 each chunk is a list of level 0, and so on.
//! A list ends where the hash of its last reference says so, like a chunk, so that two versions of a huge
//! file share most of their lists too.

use super::error::PackError;
use super::fields::{Fields, put_varint};
use super::frame::hash;
use crate::types::ContentHash;

/// A list of fewer references ends only with the content.
const MIN_REFS: usize = 256;
/// A list ends behind a reference whose hash begins with these many zero bits.
const END_BITS: u32 = 9;
/// No list has more references.
const MAX_REFS: usize = 4096;
/// Chunks of eight kilobytes make an exbibyte with fewer levels.
const MAX_LEVEL: u8 = 6;

/// A chunk and how many bytes of the content it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef {
    /// Which chunk.
    pub chunk: ContentHash,
    /// Bytes of the content: the chunk's own length, or what the list in it adds up to.
    pub covers_bytes: u64,
}

/// How a content is made of chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Which content.
    pub object: ContentHash,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// 0 if the references are to the content's own bytes, else to lists of the level below.
    pub(super) level: u8,
    pub(super) refs: Vec<ChunkRef>,
}

impl Recipe {
    /// The recipe of a content that is one chunk.
    pub(super) fn of_chunk(object: ContentHash, length: u32) -> Self {
        let size_bytes = u64::from(length);
        let refs = vec![ChunkRef { chunk: object, covers_bytes: size_bytes }];
        Self { object, size_bytes, level: 0, refs }
    }

    /// The recipe of the empty content.
    pub(super) fn of_nothing() -> Self {
        Self { object: ContentHash::EMPTY, size_bytes: 0, level: 0, refs: Vec::new() }
    }

    /// Whether the content is one chunk, which has its name.
    pub(super) fn is_chunk(&self) -> bool {
        self.level == 0 && self.refs.len() == 1 && self.refs[0].chunk == self.object
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = self.object.as_bytes().to_vec();
        put_varint(&mut out, self.size_bytes);
        out.push(self.level);
        put_list(&mut out, &self.refs);
        out
    }

    /// Decodes the recipe of `object`.
    ///
    /// # Errors
    /// [`PackError::Recipe`].
    pub(super) fn decode(object: ContentHash, bytes: &[u8]) -> Result<Self, PackError> {
        let damaged = |reason| PackError::Recipe { object, reason };
        let mut fields = Fields(bytes);
        if fields.hash() != Some(object) {
            return Err(damaged("it belongs to another content"));
        }
        let head = fields.varint().zip(fields.u8());
        let (size_bytes, level) = head.ok_or(damaged("it ends too early"))?;
        if level > MAX_LEVEL {
            return Err(damaged("it has too many levels"));
        }
        let refs = decode_list(fields.0, size_bytes).map_err(damaged)?;
        Ok(Self { object, size_bytes, level, refs })
    }
}

fn put_list(out: &mut Vec<u8>, refs: &[ChunkRef]) {
    put_varint(out, refs.len() as u64);
    for reference in refs {
        out.extend_from_slice(reference.chunk.as_bytes());
        put_varint(out, reference.covers_bytes);
    }
}

/// Decodes a list that must stand for `covers_bytes` in all.
pub(super) fn decode_list(bytes: &[u8], covers_bytes: u64) -> Result<Vec<ChunkRef>, &'static str> {
    let mut fields = Fields(bytes);
    let count = fields.varint().ok_or("a list ends too early")?;
    let mut refs = Vec::with_capacity(usize::try_from(count).unwrap_or(MAX_REFS).min(MAX_REFS));
    let mut total = 0u64;
    for _ in 0..count {
        let reference = fields.hash().zip(fields.varint());
        let (chunk, covers_bytes) = reference.ok_or("a list ends too early")?;
        total = total.checked_add(covers_bytes).ok_or("its lengths add up to too much")?;
        refs.push(ChunkRef { chunk, covers_bytes });
    }
    if !fields.0.is_empty() {
        return Err("a list goes on behind its end");
    }
    if total != covers_bytes {
        return Err("its lengths do not add up");
    }
    Ok(refs)
}

/// Makes a recipe of the chunks of a content, one after the other.
#[derive(Debug, Default)]
pub(super) struct RecipeBuilder {
    levels: Vec<Vec<ChunkRef>>,
}

impl RecipeBuilder {
    /// Adds the next chunk. `store` gets the bytes and the hash of each list that is complete.
    pub(super) fn push<E>(
        &mut self,
        mut reference: ChunkRef,
        store: &mut impl FnMut(ContentHash, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let refs = &mut self.levels[level];
            refs.push(reference);
            if !ends_list(refs) {
                break;
            }
            reference = store_list(refs, store)?;
        }
        Ok(())
    }

    /// Completes the recipe of `object`.
    pub(super) fn finish<E>(
        mut self,
        object: ContentHash,
        store: &mut impl FnMut(ContentHash, &[u8]) -> Result<(), E>,
    ) -> Result<Recipe, E> {
        let mut level = 0;
        while usize::from(level) + 1 < self.levels.len() {
            let mut refs = std::mem::take(&mut self.levels[usize::from(level)]);
            level += 1;
            if !refs.is_empty() {
                // The list above may be full by this: it becomes the top all the same.
                let reference = store_list(&mut refs, store)?;
                self.levels[usize::from(level)].push(reference);
            }
        }
        let refs = self.levels.pop().unwrap_or_default();
        let size_bytes = refs.iter().map(|reference| reference.covers_bytes).sum();
        Ok(Recipe { object, size_bytes, level, refs })
    }
}

fn ends_list(refs: &[ChunkRef]) -> bool {
    let wants = refs.last().is_some_and(|last| {
        let bytes = last.chunk.as_bytes();
        u16::from_be_bytes([bytes[0], bytes[1]]).leading_zeros() >= END_BITS
    });
    refs.len() >= MAX_REFS || (wants && refs.len() >= MIN_REFS)
}

fn store_list<E>(
    refs: &mut Vec<ChunkRef>,
    store: &mut impl FnMut(ContentHash, &[u8]) -> Result<(), E>,
) -> Result<ChunkRef, E> {
    let mut bytes = Vec::with_capacity(refs.len() * 36);
    put_list(&mut bytes, refs);
    let chunk = hash(&bytes);
    store(chunk, &bytes)?;
    let covers_bytes = refs.iter().map(|reference| reference.covers_bytes).sum();
    refs.clear();
    Ok(ChunkRef { chunk, covers_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::convert::Infallible;

    type Lists = HashMap<ContentHash, Vec<u8>>;

    fn reference(n: u64) -> ChunkRef {
        ChunkRef { chunk: hash(&n.to_le_bytes()), covers_bytes: n % 100 + 1 }
    }

    fn build(refs: &[ChunkRef], lists: &mut Lists) -> Recipe {
        let mut store = |hash, bytes: &[u8]| {
            lists.insert(hash, bytes.to_vec());
            Ok::<_, Infallible>(())
        };
        let mut builder = RecipeBuilder::default();
        for reference in refs {
            builder.push(*reference, &mut store).unwrap();
        }
        builder.finish(ContentHash::EMPTY, &mut store).unwrap()
    }

    fn leaves(refs: &[ChunkRef], level: u8, lists: &Lists) -> Vec<ChunkRef> {
        if level == 0 {
            return refs.to_vec();
        }
        let below = |list: &ChunkRef| {
            let refs = decode_list(&lists[&list.chunk], list.covers_bytes).unwrap();
            leaves(&refs, level - 1, lists)
        };
        refs.iter().flat_map(below).collect()
    }

    #[test]
    fn recipes_of_any_length_round_trip() {
        for count in [0, 1, 255, 256, 257, 5000, 400_000] {
            let refs: Vec<_> = (0..count).map(reference).collect();
            let mut lists = Lists::new();
            let recipe = build(&refs, &mut lists);
            assert_eq!(Recipe::decode(ContentHash::EMPTY, &recipe.encode()).unwrap(), recipe);
            assert_eq!(leaves(&recipe.refs, recipe.level, &lists), refs, "{count}");
            assert!(recipe.refs.len() <= MAX_REFS + 1);
            assert_eq!(recipe.level, if count < 256 { 0 } else { recipe.level.clamp(0, 2) });
        }
    }

    #[test]
    fn a_change_leaves_the_lists_around_it_as_they_were() {
        let mut refs: Vec<_> = (0..100_000).map(reference).collect();
        let mut lists = Lists::new();
        build(&refs, &mut lists);
        let before = lists.len();
        refs.splice(50_000..50_003, [reference(1_000_000)]);
        build(&refs, &mut lists);
        assert!((before + 1..=before + 3).contains(&lists.len()), "{before}, {}", lists.len());
    }

    #[test]
    fn damaged_recipes_are_refused() {
        let recipe = build(&(0..20).map(reference).collect::<Vec<_>>(), &mut Lists::new());
        let bytes = recipe.encode();
        for end in 0..bytes.len() {
            Recipe::decode(ContentHash::EMPTY, &bytes[..end]).unwrap_err();
        }
        Recipe::decode(hash(b""), &bytes).unwrap();
        Recipe::decode(hash(b"other"), &bytes).unwrap_err();
        let longer = [&bytes[..], b"0"].concat();
        Recipe::decode(ContentHash::EMPTY, &longer).unwrap_err();
    }
}
