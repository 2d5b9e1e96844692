//! Some dozens of names in one piece of memory.
//!
//! Owns the order within a block: by the number of the directory, then by the bytes of the name. A name
//! costs its bytes, 8 more, and 16 for each directory that it shares with its neighbours.

use super::dirs::Slot;
use crate::types::{FileId, Kind};

/// Names in a block at most, so that a set of them is one word.
pub(super) const NAMES: usize = 64;

/// What has a name, and how long that is, in one word: 44 bits, 4 bits, 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Packed(u64);

impl Packed {
    fn new(child: FileId, kind: Kind, length: usize) -> Self {
        let length = u64::try_from(length).unwrap_or(u64::MAX).min(0xffff);
        Self(child.0 << 20 | u64::from(kind.code() & 0xf) << 16 | length)
    }

    fn child(self) -> FileId {
        FileId(self.0 >> 20)
    }

    fn kind(self) -> Kind {
        let code = u8::try_from(self.0 >> 16 & 0xf).unwrap_or_default();
        Kind::from_code(code).unwrap_or(Kind::File)
    }

    fn length(self) -> usize {
        usize::try_from(self.0 & 0xffff).unwrap_or_default()
    }
}

/// Neighbours in the same directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// The directory.
    pub(super) parent: u64,
    /// Where the tree of directories has it.
    pub(super) slot: Slot,
    /// How many names.
    pub(super) names: u32,
}

/// A name to be put into a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewName<'n> {
    pub(super) parent: u64,
    pub(super) slot: Slot,
    pub(super) name: &'n [u8],
    pub(super) child: FileId,
    pub(super) kind: Kind,
}

/// One name of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'b> {
    pub(super) name: &'b [u8],
    pub(super) child: FileId,
    pub(super) kind: Kind,
}

/// Where a name is, or would be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) index: usize,
    offset: usize,
    run: usize,
    pub(super) is_there: bool,
}

#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    entries: Vec<Packed>,
    runs: Vec<Run>,
    /// Names that left since it was signed.
    pub(super) gone: u8,
}

impl Block {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The names, one after the other.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub(super) fn first_parent(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.parent)
    }

    pub(super) fn last_parent(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.parent)
    }

    pub(super) fn first_name(&self) -> &[u8] {
        &self.bytes[..self.entries.first().map_or(0, |entry| entry.length())]
    }

    pub(super) fn last_name(&self) -> &[u8] {
        let length = self.entries.last().map_or(0, |entry| entry.length());
        &self.bytes[self.bytes.len() - length..]
    }

    /// Every name in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut end = 0;
        self.entries.iter().map(move |packed| {
            let start = end;
            end += packed.length();
            Entry { name: &self.bytes[start..end], child: packed.child(), kind: packed.kind() }
        })
    }

    /// Which name the byte at a place belongs to, and where that name ends.
    pub(super) fn entry_at(&self, from: (usize, usize), at: usize) -> (usize, usize, usize) {
        let (mut index, mut start) = from;
        loop {
            let end = start + self.entries[index].length();
            if at < end || index + 1 == self.entries.len() {
                return (index, start, end);
            }
            (index, start) = (index + 1, end);
        }
    }

    pub(super) fn find(&self, parent: u64, name: &[u8]) -> Place {
        let (mut index, mut offset) = (0, 0);
        for (number, run) in self.runs.iter().enumerate() {
            let end = index + run.names as usize;
            if run.parent < parent {
                offset += self.entries[index..end].iter().map(|e| e.length()).sum::<usize>();
                index = end;
                continue;
            }
            if run.parent > parent {
                return Place { index, offset, run: number, is_there: false };
            }
            while index < end {
                let length = self.entries[index].length();
                match self.bytes[offset..offset + length].cmp(name) {
                    std::cmp::Ordering::Less => (index, offset) = (index + 1, offset + length),
                    order => {
                        return Place { index, offset, run: number, is_there: order.is_eq() };
                    }
                }
            }
            return Place { index, offset, run: number, is_there: false };
        }
        Place { index, offset, run: self.runs.len(), is_there: false }
    }

    /// What has the name at a place.
    pub(super) fn child(&self, at: Place) -> (FileId, Kind) {
        (self.entries[at.index].child(), self.entries[at.index].kind())
    }

    /// Gives the name at a place to another.
    pub(super) fn set(&mut self, at: Place, child: FileId, kind: Kind) {
        let length = self.entries[at.index].length();
        self.entries[at.index] = Packed::new(child, kind, length);
    }

    pub(super) fn insert(&mut self, at: Place, new: &NewName<'_>) {
        reserve(&mut self.bytes, new.name.len());
        reserve(&mut self.entries, 1);
        self.bytes.splice(at.offset..at.offset, new.name.iter().copied());
        self.entries.insert(at.index, Packed::new(new.child, new.kind, new.name.len()));
        // At the end of a directory, `find` stops at that; before the first of one, at the next.
        match self.runs.get_mut(at.run) {
            Some(run) if run.parent == new.parent => run.names += 1,
            _ => {
                reserve(&mut self.runs, 1);
                self.runs.insert(at.run, Run { parent: new.parent, slot: new.slot, names: 1 });
            }
        }
    }

    /// Adds a name that comes after all that are there.
    pub(super) fn push(&mut self, new: &NewName<'_>) {
        let run = self.runs.len() - usize::from(self.last_parent() == new.parent && self.len() > 0);
        let at = Place { index: self.len(), offset: self.bytes.len(), run, is_there: false };
        self.insert(at, new);
    }

    pub(super) fn remove(&mut self, at: Place) {
        let length = self.entries[at.index].length();
        self.bytes.drain(at.offset..at.offset + length);
        self.entries.remove(at.index);
        self.runs[at.run].names -= 1;
        if self.runs[at.run].names == 0 {
            self.runs.remove(at.run);
        }
        self.gone = self.gone.saturating_add(1);
    }

    /// Takes off the names from an index on.
    pub(super) fn split_off(&mut self, index: usize) -> Self {
        let offset = self.entries[..index].iter().map(|e| e.length()).sum();
        let mut other = Self {
            bytes: self.bytes.split_off(offset),
            entries: self.entries.split_off(index),
            ..Self::default()
        };
        let mut before = 0;
        for run in std::mem::take(&mut self.runs) {
            let here = index.saturating_sub(before).min(run.names as usize);
            before += run.names as usize;
            let here = u32::try_from(here).unwrap_or(run.names);
            if here > 0 {
                self.runs.push(Run { names: here, ..run });
            }
            if run.names > here {
                other.runs.push(Run { names: run.names - here, ..run });
            }
        }
        self.shrink();
        other.shrink();
        other
    }

    /// Adds all names of a block that comes after this one.
    pub(super) fn append(&mut self, other: &Self) {
        self.bytes.extend_from_slice(&other.bytes);
        self.entries.extend_from_slice(&other.entries);
        for run in &other.runs {
            match self.runs.last_mut() {
                Some(last) if last.parent == run.parent => last.names += run.names,
                _ => self.runs.push(*run),
            }
        }
        self.shrink();
    }

    /// Gives back memory that is not used.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.runs.shrink_to_fit();
    }

    /// Memory that it has, without its own struct.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
            + self.entries.capacity() * size_of::<Packed>()
            + self.runs.capacity() * size_of::<Run>()
    }
}

/// Makes room without doubling: what is not used would be a third of the index.
fn reserve<T>(items: &mut Vec<T>, more: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.max(items.len() / 8));
    }
}
