//! Writing one pack.
//!
//! Owns the order of bytes in a pack. Items of a kind go into a frame together: those that compress,
//! those that look as if they do not, and recipes. Keeps one frame of each in memory, and the index.

use std::collections::HashSet;
use std::io;

use sha2::{Digest, Sha256};

use super::coding::{Encoder, looks_dense};
use super::dir::{PackDir, Unfinished};
use super::error::PackError;
use super::format::{self, Coding, Footer};
use super::frame::FrameBuilder;
use super::types::{Entry, Key, PackId, PackIndex, Place, Sort};
use crate::types::ContentHash;

/// A pack that is being written. Without [`PackWriter::finish`] nothing is left of it.
pub(super) struct PackWriter<'a> {
    file: Unfinished<'a>,
    frame_bytes: usize,
    digest: Sha256,
    size: u64,
    encoder: Encoder,
    frames: [FrameBuilder; 3],
    entries: Vec<Entry>,
    keys: HashSet<Key>,
}

/// Indices of [`PackWriter::frames`].
const COMPRESSIBLE: usize = 0;
const DENSE: usize = 1;
const RECIPES: usize = 2;

/// Stands in for the name that the pack gets when it is finished.
const NAMELESS: PackId = PackId(ContentHash::EMPTY);

impl<'a> PackWriter<'a> {
    /// Begins a pack whose frames are closed when they have `frame_bytes` of items.
    pub(super) fn create(dir: &'a PackDir, frame_bytes: usize) -> Result<Self, PackError> {
        let mut this = Self {
            file: Unfinished::create(dir)?,
            frame_bytes,
            digest: Sha256::new(),
            size: 0,
            encoder: Encoder::new().map_err(PackError::Compress)?,
            frames: [
                FrameBuilder::new(Sort::Chunk, Coding::Zstd),
                FrameBuilder::new(Sort::Chunk, Coding::Plain),
                // Versions of a file share most of their recipes, dense as hashes are.
                FrameBuilder::new(Sort::Recipe, Coding::Zstd),
            ],
            entries: Vec::new(),
            keys: HashSet::new(),
        };
        this.write(&format::header())?;
        Ok(this)
    }

    /// Whether the item is in this pack.
    pub(super) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// What the pack would take if it were finished now and nothing could be compressed, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        let waiting: usize = self.frames.iter().map(FrameBuilder::plain_bytes).sum();
        self.size + (waiting + self.keys.len() * 40) as u64
    }

    /// Adds an item, which must not be empty.
    pub(super) fn add(&mut self, key: Key, bytes: &[u8]) -> Result<(), PackError> {
        if !self.keys.insert(key) {
            return Ok(());
        }
        let lane = match key.sort {
            Sort::Recipe => RECIPES,
            Sort::Chunk if looks_dense(bytes) => DENSE,
            Sort::Chunk => COMPRESSIBLE,
        };
        if self.frames[lane].plain_bytes() + bytes.len() > self.frame_bytes {
            self.flush(lane)?;
        }
        let length = u32::try_from(bytes.len())
            .map_err(|_| PackError::Compress(io::ErrorKind::FileTooLarge.into()))?;
        self.frames[lane].push(key, length, bytes);
        Ok(())
    }

    /// Adds a frame of another pack as it is. None of its items may be in this pack.
    pub(super) fn add_frame(&mut self, bytes: &[u8], items: &[Entry]) -> Result<(), PackError> {
        let frame = self.write(bytes)?;
        self.keys.extend(items.iter().map(|entry| entry.key));
        self.entries.extend(items.iter().map(|entry| Entry {
            place: Place { pack: NAMELESS, frame, ..entry.place },
            ..*entry
        }));
        Ok(())
    }

    /// Writes what is left, makes it durable and gives the pack its name.
    pub(super) fn finish(mut self) -> Result<PackIndex, PackError> {
        for lane in 0..self.frames.len() {
            self.flush(lane)?;
        }
        let index = format::encode_index(&self.entries);
        let footer = Footer {
            index_offset: self.write(&index)?,
            index_bytes: offset(index.len() as u64)?,
            index_crc: crc32fast::hash(&index),
        };
        self.write(&footer.encode())?;
        let pack = PackId(self.digest.into());
        self.file.finish(pack)?;
        self.entries.iter_mut().for_each(|entry| entry.place.pack = pack);
        Ok(PackIndex { pack, size_bytes: self.size, entries: self.entries })
    }

    fn flush(&mut self, lane: usize) -> Result<(), PackError> {
        if self.frames[lane].is_empty() {
            return Ok(());
        }
        let Self { file, digest, size, encoder, frames, entries, .. } = self;
        let put = |bytes: &[u8], items: &[(Key, u32)]| {
            let (frame, frame_bytes) = (offset(*size)?, offset(bytes.len() as u64)?);
            file.write(bytes)?;
            digest.update(bytes);
            *size += bytes.len() as u64;
            let mut start = 0;
            for (key, length) in items {
                let place = Place { pack: NAMELESS, frame, frame_bytes, start, length: *length };
                entries.push(Entry { key: *key, place });
                start += length;
            }
            Ok(())
        };
        frames[lane].drain(encoder, put).map_err(PackError::Compress)?
    }

    /// Appends bytes; returns where they are.
    fn write(&mut self, bytes: &[u8]) -> Result<u32, PackError> {
        let at = offset(self.size)?;
        self.file.write(bytes)?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(at)
    }
}

fn offset(bytes: u64) -> Result<u32, PackError> {
    u32::try_from(bytes).map_err(|_| PackError::Compress(io::ErrorKind::FileTooLarge.into()))
}
