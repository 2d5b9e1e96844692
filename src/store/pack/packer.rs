//! Putting whole contents into packs.
//!
//! Owns the order of durable steps: a pack is written and synced under a temporary name, renamed, its
//! directory synced, and then made known to the index. Only when all packs that a content needs are
//! known is its name given back as packed, and only then may its loose copy go.
//!
//! A crash leaves a temporary file, which the next [`PackDir::open`](super::PackDir::open) removes, or a
//! pack that the index does not know, which [`recover`](super::recover()) makes known. Loose copies are
//! still there for both, and are packed again.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::coding::looks_dense;
use super::dir::{Maintenance, Step};
use super::error::PackError;
use super::frame::hash;
use super::index::ChunkIndex;
use super::pace::{self, Pacer};
use super::recipe::{ChunkRef, RecipeBuilder};
use super::types::Key;
use super::writer::PackWriter;
use crate::store::chunk::{ChunkSizes, Chunker};
use crate::types::ContentHash;

/// How packs are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOptions {
    /// A pack is finished when it has this many bytes; it may get larger by one frame of each kind and
    /// its index. Below 3 GiB.
    pub limit_bytes: u64,
    /// Items of a kind are compressed together until they have this many bytes. What reads one of them
    /// decompresses all. Below 16 MiB.
    pub frame_bytes: usize,
    /// How contents are cut.
    pub cuts: Cuts,
}

/// How contents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// Finely, but coarsely what is huge or begins like something that is compressed already.
    ByContent,
    /// All the same.
    Fixed(ChunkSizes),
}

impl Cuts {
    /// Larger contents are cut coarsely: each of their chunks costs a row in the catalog.
    const HUGE_BYTES: u64 = 1 << 30;
    /// How much of a content is looked at.
    const BEGINNING_BYTES: u64 = 64 << 10;

    fn sizes(self, size_bytes: u64, beginning: &[u8]) -> ChunkSizes {
        match self {
            Self::Fixed(sizes) => sizes,
            Self::ByContent if size_bytes > Self::HUGE_BYTES || looks_dense(beginning) => {
                ChunkSizes::COARSE
            }
            Self::ByContent => ChunkSizes::FINE,
        }
    }
}

impl Default for PackOptions {
    /// As measured, see [`pack`](super). The size of packs balances how many files a store has against
    /// how much must be copied to get rid of a little.
    fn default() -> Self {
        Self { limit_bytes: 64 << 20, frame_bytes: 256 << 10, cuts: Cuts::ByContent }
    }
}

/// What was done, in numbers of items and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackStats {
    /// Contents that were packed already.
    pub known_objects: u64,
    /// Contents that were read and packed.
    pub new_objects: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Those chunks of them that no pack had.
    pub new_chunks: u64,
    /// The bytes of those, before compression.
    pub new_bytes: u64,
    /// Packs that were written.
    pub packs: u64,
    /// Their bytes.
    pub pack_bytes: u64,
}

/// Puts contents into packs, one after the other.
///
/// If it is dropped, what was not committed is as if it had never been added.
pub struct Packer<'a> {
    right: &'a Maintenance<'a>,
    index: &'a dyn ChunkIndex,
    pacer: &'a Pacer<'a>,
    options: PackOptions,
    writer: Option<PackWriter<'a>>,
    /// Complete, but partly in the pack that is being written.
    waiting: Vec<ContentHash>,
    packed: Vec<ContentHash>,
    stats: PackStats,
}

impl<'a> Packer<'a> {
    /// A packer that asks `pacer` between any two chunks.
    pub fn new(
        right: &'a Maintenance<'a>,
        index: &'a dyn ChunkIndex,
        pacer: &'a Pacer<'a>,
        options: PackOptions,
    ) -> Self {
        Self {
            right,
            index,
            pacer,
            options,
            writer: None,
            waiting: Vec::new(),
            packed: Vec::new(),
            stats: PackStats::default(),
        }
    }

    /// Packs the content named `object`, about `size_bytes` long, which is durable only after
    /// [`Packer::commit`].
    ///
    /// # Errors
    /// [`PackError::OtherContent`] or [`PackError::Content`] if the content is not what it should be:
    /// then the next one can be added. [`PackError::Stopped`]: then what is complete can still be
    /// committed. Else the packer's own troubles.
    pub fn add(
        &mut self,
        object: ContentHash,
        size_bytes: u64,
        mut content: impl Read,
    ) -> Result<(), PackError> {
        // That its recipe is there says nothing of its chunks: cleaning up may have left it for one that
        // seemed to be needed, and nobody needed the content for a while.
        if object == ContentHash::EMPTY || self.has(&Key::chunk(object))? {
            self.stats.known_objects += 1;
            self.waiting.push(object);
            return Ok(());
        }
        let unreadable = |source| PackError::Content { object, source };
        let mut beginning = Vec::new();
        let most = content.by_ref().take(Cuts::BEGINNING_BYTES).read_to_end(&mut beginning);
        most.map_err(unreadable)?;
        let sizes = self.options.cuts.sizes(size_bytes, &beginning);
        let mut chunker = Chunker::new((&beginning[..]).chain(content), sizes);
        let mut digest = Sha256::new();
        let mut recipe = RecipeBuilder::default();
        let mut only = None;
        let mut count = 0;
        let known = self.has(&Key::recipe(object))?;
        let new_before = self.stats.new_chunks;
        loop {
            let Some(bytes) = chunker.next_chunk().map_err(unreadable)? else { break };
            digest.update(bytes);
            let chunk = hash(bytes);
            self.put(Key::chunk(chunk), bytes)?;
            let covers_bytes = bytes.len() as u64;
            let mut store = |list, bytes: &[u8]| self.put(Key::chunk(list), bytes);
            recipe.push(ChunkRef { chunk, covers_bytes }, &mut store)?;
            self.stats.chunks += 1;
            self.stats.read_bytes += covers_bytes;
            only = (count == 0).then_some(chunk);
            count += 1;
            pace::keep(self.pacer, covers_bytes)?;
        }
        let found = ContentHash::from(digest);
        if found != object {
            return Err(PackError::OtherContent { expected: object, found });
        }
        if only != Some(object) {
            let mut store = |list, bytes: &[u8]| self.put(Key::chunk(list), bytes);
            let recipe = recipe.finish(object, &mut store)?;
            self.put(Key::recipe(object), &recipe.encode())?;
        }
        if known && self.stats.new_chunks == new_before {
            self.stats.known_objects += 1;
        } else {
            self.stats.new_objects += 1;
        }
        self.waiting.push(object);
        Ok(())
    }

    /// Gives back with the others the name of a content that is packed and has no file any more. That all of it is
    /// there, only reading it back shows.
    pub fn add_packed(&mut self, object: ContentHash) {
        self.stats.known_objects += 1;
        self.waiting.push(object);
    }

    /// Makes everything that was added durable and known; returns the names of the contents that have
    /// become so since the last time.
    ///
    /// # Errors
    /// The filesystem's or the index's: then what was added since the last time must be added again.
    pub fn commit(&mut self) -> Result<Vec<ContentHash>, PackError> {
        self.seal()?;
        Ok(std::mem::take(&mut self.packed))
    }

    /// The names of the contents that have become durable and known since the last time because a pack
    /// was full.
    pub fn take_packed(&mut self) -> Vec<ContentHash> {
        std::mem::take(&mut self.packed)
    }

    /// What has been done so far.
    pub fn stats(&self) -> PackStats {
        self.stats
    }

    fn has(&self, key: &Key) -> Result<bool, PackError> {
        if self.writer.as_ref().is_some_and(|writer| writer.contains(key)) {
            return Ok(true);
        }
        Ok(self.index.find(key).map_err(PackError::Index)?.is_some())
    }

    fn put(&mut self, key: Key, bytes: &[u8]) -> Result<(), PackError> {
        if self.has(&key)? {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => PackWriter::create(self.right.dir, self.options.frame_bytes)?,
        };
        // With the writer goes what others have in it.
        writer.add(key, bytes).inspect_err(|_| self.waiting.clear())?;
        self.stats.new_chunks += 1;
        self.stats.new_bytes += bytes.len() as u64;
        let full = writer.size_bytes() >= self.options.limit_bytes;
        self.writer = Some(writer);
        if full { self.seal() } else { Ok(()) }
    }

    /// Finishes the pack that is being written.
    fn seal(&mut self) -> Result<(), PackError> {
        if let Some(writer) = self.writer.take() {
            let pack = writer.finish().inspect_err(|_| self.waiting.clear())?;
            self.stats.packs += 1;
            self.stats.pack_bytes += pack.size_bytes;
            let known = self.index.replace(&[pack], &[]).map_err(PackError::Index);
            known.inspect_err(|_| self.waiting.clear())?;
            self.right.dir.passed(Step::Published)?;
        }
        self.packed.append(&mut self.waiting);
        Ok(())
    }
}
