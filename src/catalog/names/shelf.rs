//! All names, in order.
//!
//! Owns the groups: which one a name belongs to, and that there are neither too many nor too large ones.

use super::block::{Block, NAMES, NewName};
use super::group::{Added, BLOCKS, Group, Removed};
use crate::types::{FileId, Kind};

/// A group is filled up rather than split while it has fewer names than this.
const FULL_ENOUGH: usize = BLOCKS * NAMES * 3 / 4;

#[derive(Debug, Default)]
pub(super) struct Shelf {
    groups: Vec<Group>,
    /// The directory of the first name of each group.
    firsts: Vec<u64>,
    names: usize,
    /// Counts whenever blocks change their places.
    pub(super) layout: u64,
}

impl Shelf {
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(super) fn len(&self) -> usize {
        self.names
    }

    /// The group that has a name, or would have it.
    pub(super) fn seek(&self, parent: u64, name: &[u8]) -> usize {
        let from = self.firsts.partition_point(|first| *first < parent);
        let same = self.firsts[from..].partition_point(|first| *first == parent);
        let after = self.groups[from..from + same].partition_point(|group| {
            group.blocks().first().is_some_and(|b| b.first_name() <= name)
        });
        (from + after).saturating_sub(1)
    }

    /// Adds a name; returns what else had it.
    pub(super) fn insert(&mut self, new: &NewName<'_>) -> Option<(FileId, Kind)> {
        if self.groups.is_empty() {
            let mut block = Block::default();
            block.push(new);
            self.groups.push(Group::new(block));
            self.firsts.push(new.parent);
            self.names = 1;
            self.layout += 1;
            return None;
        }
        let at = self.seek(new.parent, new.name);
        let index = self.groups[at].seek(new.parent, new.name);
        match self.groups[at].insert(index, new) {
            Added::InPlaceOf(child, kind) => return Some((child, kind)),
            Added::Fits => {}
            Added::TooMany { was_last } => self.make_room(at, index, was_last, new),
        }
        self.names += 1;
        self.note_first(at);
        None
    }

    fn make_room(&mut self, at: usize, index: usize, was_last: bool, new: &NewName<'_>) {
        self.layout += 1;
        if !self.groups[at].is_full() {
            self.groups[at].split_block(index, was_last);
            return;
        }
        if self.groups[at].names() < FULL_ENOUGH {
            self.groups[at].repack();
        } else {
            let middle = if was_last && index + 1 == BLOCKS { index } else { BLOCKS / 2 };
            let other = self.groups[at].split_off(middle);
            self.groups.insert(at + 1, other);
            self.firsts.insert(at + 1, 0);
            self.note_first(at + 1);
        }
        self.note_first(at);
        let at = self.seek(new.parent, new.name);
        let index = self.groups[at].seek(new.parent, new.name);
        if self.groups[at].blocks()[index].len() > NAMES {
            self.groups[at].split_block(index, was_last);
        }
    }

    /// Takes a name away; returns what had it.
    pub(super) fn remove(&mut self, parent: u64, name: &[u8]) -> Option<(FileId, Kind)> {
        if self.groups.is_empty() {
            return None;
        }
        let at = self.seek(parent, name);
        let index = self.groups[at].seek(parent, name);
        let Removed::Was { child, kind, was_last } = self.groups[at].remove(index, parent, name)
        else {
            return None;
        };
        self.names -= 1;
        let group = &mut self.groups[at];
        if group.names() > 0 && group.names() * 4 < group.blocks().len() * NAMES && !was_last {
            if group.blocks().len() > 1 {
                group.repack();
                self.layout += 1;
            }
        } else if was_last {
            self.layout += 1;
        }
        self.note_first(at);
        self.merge(at);
        Some((child, kind))
    }

    /// Joins a group with the next one if both together are small.
    fn merge(&mut self, at: usize) {
        if self.groups[at].names() == 0 {
            self.groups.remove(at);
            self.firsts.remove(at);
            self.layout += 1;
            return;
        }
        let blocks = |at: usize| self.groups.get(at).map_or(BLOCKS, |group| group.blocks().len());
        if blocks(at) + blocks(at + 1) <= BLOCKS / 2 {
            let next = self.groups.remove(at + 1);
            self.firsts.remove(at + 1);
            self.groups[at].append(next);
            self.layout += 1;
        }
    }

    fn note_first(&mut self, at: usize) {
        if let Some(block) = self.groups.get(at).and_then(|group| group.blocks().first()) {
            self.firsts[at] = block.first_parent();
        }
    }

    /// Whether a directory has names in it.
    pub(super) fn has_any(&self, parent: u64) -> bool {
        let Some(group) = self.groups.get(self.seek(parent, b"")) else { return false };
        let has = |block: &Block| block.runs().iter().any(|run| run.parent == parent);
        if has(&group.blocks()[group.seek(parent, b"")]) {
            return true;
        }
        // Its first name may be the first of the next block.
        let next = self.firsts.partition_point(|first| *first < parent);
        let at = group.seek(parent, b"") + 1;
        group.blocks().get(at).is_some_and(has)
            || self.firsts.get(next).is_some_and(|first| *first == parent)
    }

    /// What has a name.
    pub(super) fn get(&self, parent: u64, name: &[u8]) -> Option<(FileId, Kind)> {
        let group = self.groups.get(self.seek(parent, name))?;
        let block = &group.blocks()[group.seek(parent, name)];
        let at = block.find(parent, name);
        at.is_there.then(|| block.child(at))
    }

    /// Memory that it has.
    pub(super) fn memory(&self) -> usize {
        let spare = (self.groups.capacity() - self.groups.len()) * size_of::<Group>();
        let firsts = self.firsts.capacity() * size_of::<u64>();
        self.groups.iter().map(Group::memory).sum::<usize>() + spare + firsts
    }

    /// Checks what every other function relies on.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut last: Option<(u64, Vec<u8>)> = None;
        let mut names = 0;
        assert_eq!(self.groups.len(), self.firsts.len());
        for (group, first) in self.groups.iter().zip(&self.firsts) {
            assert!(!group.blocks().is_empty() && group.blocks().len() <= BLOCKS);
            assert_eq!(group.blocks()[0].first_parent(), *first);
            let mut here = 0;
            for (index, block) in group.blocks().iter().enumerate() {
                assert!(block.len() > 0 && block.len() <= NAMES);
                here += block.len();
                let mut entries = block.entries();
                for run in block.runs() {
                    for _ in 0..run.names {
                        let entry = entries.next().unwrap();
                        let key = (run.parent, entry.name.to_vec());
                        assert!(last.as_ref().is_none_or(|last| *last < key));
                        last = Some(key);
                        let bits = super::needle::bits_of(entry.name);
                        assert!(group.sift(&bits) >> index & 1 == 1);
                    }
                }
                assert!(entries.next().is_none());
            }
            assert_eq!(here, group.names());
            names += here;
        }
        assert_eq!(names, self.names);
    }
}
