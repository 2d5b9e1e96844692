//! Up to 64 blocks of names with their signatures.
//!
//! Owns the signatures. They lie across: for each bit one word says which blocks have it, so that a text
//! of six bits rules out 64 blocks by six words. A signature may have bits of names that are gone, and
//! never lacks one of a name that is there.

use super::block::{Block, NAMES, NewName};
use super::needle::{BITS, trigrams};
use crate::types::{FileId, Kind};

/// Blocks in a group at most, one for each bit of a word.
pub(super) const BLOCKS: usize = 64;

#[derive(Debug)]
pub(super) struct Group {
    blocks: Vec<Block>,
    signs: Box<[u64]>,
    names: usize,
}

impl Group {
    pub(super) fn new(block: Block) -> Self {
        let mut group = Self { blocks: Vec::new(), signs: vec![0; BITS].into(), names: 0 };
        group.names = block.len();
        group.blocks.push(block);
        group.sign(0);
        group
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub(super) fn names(&self) -> usize {
        self.names
    }

    pub(super) fn is_full(&self) -> bool {
        self.blocks.len() >= BLOCKS
    }

    /// A bit for each block.
    pub(super) fn all(&self) -> u64 {
        u64::MAX >> (BLOCKS - self.blocks.len())
    }

    /// The blocks that may have a text of these bits.
    pub(super) fn sift(&self, bits: &[u16]) -> u64 {
        let mut mask = self.all();
        for bit in bits {
            mask &= self.signs[usize::from(*bit)];
            if mask == 0 {
                break;
            }
        }
        mask
    }

    /// The blocks that have a name in one of these directories, which are in order.
    pub(super) fn with_parents(&self, parents: &[u64]) -> u64 {
        let (Some(first), Some(last)) = (self.blocks.first(), self.blocks.last()) else {
            return 0;
        };
        let from = parents.partition_point(|id| *id < first.first_parent());
        let parents = &parents[from..];
        let parents = &parents[..parents.partition_point(|id| *id <= last.last_parent())];
        if parents.is_empty() {
            return 0;
        }
        let has = |block: &Block| {
            let at = parents.partition_point(|id| *id < block.first_parent());
            parents.get(at).is_some_and(|id| *id <= block.last_parent())
        };
        let bits = self.blocks.iter().enumerate().filter(|(_, block)| has(block));
        bits.fold(0, |mask, (index, _)| mask | 1 << index)
    }

    /// The block that has a name, or would have it.
    pub(super) fn seek(&self, parent: u64, name: &[u8]) -> usize {
        let after = self
            .blocks
            .partition_point(|block| (block.first_parent(), block.first_name()) <= (parent, name));
        after.saturating_sub(1)
    }

    /// Adds a name to a block, or gives it to another.
    pub(super) fn insert(&mut self, index: usize, new: &NewName<'_>) -> Added {
        let block = &mut self.blocks[index];
        let at = block.find(new.parent, new.name);
        if at.is_there {
            let (child, kind) = block.child(at);
            block.set(at, new.child, new.kind);
            return Added::InPlaceOf(child, kind);
        }
        let was_last = at.index == block.len();
        self.names += 1;
        block.insert(at, new);
        for bit in trigrams(new.name) {
            self.signs[usize::from(bit)] |= 1 << index;
        }
        if block.len() > NAMES { Added::TooMany { was_last } } else { Added::Fits }
    }

    /// Splits a block that is too large. What was added last at its end goes on alone, so that names
    /// that come in order leave full blocks.
    pub(super) fn split_block(&mut self, index: usize, added_last: bool) {
        let block = &mut self.blocks[index];
        let at = if added_last { block.len() - 1 } else { block.len() / 2 };
        let other = block.split_off(at);
        let below = (1_u64 << index << 1).wrapping_sub(1);
        for word in &mut self.signs {
            *word = *word & below | (*word & !below) << 1;
        }
        self.blocks.insert(index + 1, other);
        self.sign(index);
        self.sign(index + 1);
    }

    /// Takes off the blocks from an index on.
    pub(super) fn split_off(&mut self, index: usize) -> Self {
        let blocks = self.blocks.split_off(index);
        let names = blocks.iter().map(Block::len).sum();
        let below = (1_u64 << index).wrapping_sub(1);
        let signs = self.signs.iter().map(|word| word >> index).collect();
        self.signs.iter_mut().for_each(|word| *word &= below);
        self.names -= names;
        Self { blocks, signs, names }
    }

    /// Fills the blocks up, so that there are fewer.
    pub(super) fn repack(&mut self) {
        let mut full: Vec<Block> = Vec::with_capacity(BLOCKS);
        for block in std::mem::take(&mut self.blocks) {
            let mut rest = block;
            if let Some(last) = full.last_mut().filter(|last| last.len() < NAMES) {
                let take = (NAMES - last.len()).min(rest.len());
                let other = rest.split_off(take);
                last.append(&rest);
                rest = other;
            }
            if rest.len() > 0 {
                full.push(rest);
            }
        }
        self.blocks = full;
        self.signs.fill(0);
        for index in 0..self.blocks.len() {
            self.sign(index);
        }
    }

    /// Takes a name out of a block; whether it was there.
    pub(super) fn remove(&mut self, index: usize, parent: u64, name: &[u8]) -> Removed {
        let block = &mut self.blocks[index];
        let at = block.find(parent, name);
        if !at.is_there {
            return Removed::NotThere;
        }
        let (child, kind) = block.child(at);
        block.remove(at);
        self.names -= 1;
        let was_last = self.blocks[index].len() == 0;
        if was_last {
            self.drop_block(index);
        } else if usize::from(self.blocks[index].gone) >= NAMES / 2 {
            self.blocks[index].shrink();
            self.sign(index);
        }
        Removed::Was { child, kind, was_last }
    }

    /// Adds the blocks of a group that comes after this one. There is room.
    pub(super) fn append(&mut self, other: Self) {
        let shift = self.blocks.len();
        for (word, more) in self.signs.iter_mut().zip(&other.signs) {
            *word |= more << shift;
        }
        self.names += other.names;
        self.blocks.extend(other.blocks);
    }

    fn drop_block(&mut self, index: usize) {
        self.blocks.remove(index);
        let below = (1_u64 << index).wrapping_sub(1);
        for word in &mut self.signs {
            *word = *word & below | (*word >> 1) & !below;
        }
    }

    /// Signs a block anew.
    fn sign(&mut self, index: usize) {
        let bit = 1_u64 << index;
        self.signs.iter_mut().for_each(|word| *word &= !bit);
        for entry in self.blocks[index].entries() {
            for sign in trigrams(entry.name) {
                self.signs[usize::from(sign)] |= bit;
            }
        }
        self.blocks[index].gone = 0;
    }

    /// Memory that it has, with its own struct.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.signs.len() * size_of::<u64>()
            + self.blocks.capacity() * size_of::<Block>()
            + self.blocks.iter().map(Block::memory).sum::<usize>()
    }
}

/// What became of a name that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    Fits,
    /// Something else had the name.
    InPlaceOf(FileId, Kind),
    /// Its block is too large now; whether it is the last in it.
    TooMany {
        was_last: bool,
    },
}

/// What became of a name that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removed {
    NotThere,
    Was {
        child: FileId,
        kind: Kind,
        /// Whether its block is gone with it.
        was_last: bool,
    },
}
