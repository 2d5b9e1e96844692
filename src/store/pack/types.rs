//! Names and places of what is packed.

use std::fmt;

use crate::types::ContentHash;

/// A pack: the SHA-256 of all its bytes, which is also its file name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub ContentHash);

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pack:{self}")
    }
}

/// What a packed item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sort {
    /// Bytes, named by their SHA-256. A whole content if it fits one chunk, else a part of one or of a
    /// long recipe.
    Chunk,
    /// How a content is made of chunks, named by the SHA-256 of that content.
    Recipe,
}

impl Sort {
    /// The number in packs.
    pub fn code(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::Recipe => 2,
        }
    }

    /// The inverse of [`Sort::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Chunk),
            2 => Some(Self::Recipe),
            _ => None,
        }
    }
}

/// Names one item in the packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub sort: Sort,
    /// Of the chunk's bytes, or of the content whose recipe it is.
    pub hash: ContentHash,
}

impl Key {
    /// A chunk.
    pub fn chunk(hash: ContentHash) -> Self {
        Self { sort: Sort::Chunk, hash }
    }

    /// A recipe.
    pub fn recipe(object: ContentHash) -> Self {
        Self { sort: Sort::Recipe, hash: object }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sort {
            Sort::Chunk => write!(f, "chunk {}", self.hash),
            Sort::Recipe => write!(f, "the recipe of {}", self.hash),
        }
    }
}

/// Where an item is. All numbers are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// In which pack.
    pub pack: PackId,
    /// Offset of the frame in the pack.
    pub frame: u32,
    /// Length of the frame in the pack, with its head.
    pub frame_bytes: u32,
    /// Offset of the item in the decompressed frame.
    pub start: u32,
    /// Length of the item.
    pub length: u32,
}

/// An item and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Which item.
    pub key: Key,
    /// Where it is.
    pub place: Place,
}

/// Everything that is in one pack, in the order in which it lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackIndex {
    /// Which pack.
    pub pack: PackId,
    /// Its length in bytes; 0 where it was rebuilt from a damaged pack.
    pub size_bytes: u64,
    /// What is in it.
    pub entries: Vec<Entry>,
}
