//! Directories that match.
//!
//! Owns the first pass of a search for a text: it looks into the blocks that may have it, for the
//! directories among the names. It gives up where there are so many hits that a plain pass in the
//! order of names finds enough at once.

use super::super::NameIndex;
use super::super::block::Block;
use super::super::dirs::Slot;
use super::super::pattern::{NamePattern, Shape};
use super::{Own, SLICE_BLOCKS, SLICE_GROUPS, hits_in};
use crate::types::{FileId, Kind};

/// Names that match up to which the pass goes on.
const FEW_HITS: usize = 2_000;
/// Directories with what is below them up to which these alone are visited.
const FEW_DIRS: usize = 50_000;

#[derive(Debug)]
pub(super) struct Marks {
    bits: Vec<u16>,
    /// The text is found in directories above the names that match, not in the names.
    above: bool,
    /// The group that is looked into next, as long as no block changes its place.
    group: usize,
    layout: u64,
    masks: Vec<u64>,
    hits: usize,
    /// Directories whose content matches, with all below.
    covered: Vec<Slot>,
    /// Directories that have names which match by themselves.
    visited: Vec<u64>,
    lower: Vec<u8>,
}

pub(super) enum Step {
    More,
    Done,
    TooMany,
}

impl Marks {
    /// Plans it; `None` if nothing is known of the names that match. For less than three letters all
    /// blocks are looked into, which is still less than to look at all directories.
    pub(super) fn begin(index: &NameIndex, pattern: &NamePattern<'_>) -> Option<Self> {
        let (bits, above) = match &pattern.0 {
            Shape::Parts(parts) if parts.bits.is_empty() => (&parts.above_bits[..], true),
            _ => (pattern.bits(), false),
        };
        let helps = !bits.is_empty() || matches!(pattern.0, Shape::Part(_));
        helps.then(|| Self {
            bits: bits.to_vec(),
            above,
            group: 0,
            layout: index.shelf.layout,
            masks: Vec::new(),
            hits: 0,
            covered: Vec::new(),
            visited: Vec::new(),
            lower: Vec::new(),
        })
    }

    pub(super) fn step(
        &mut self,
        index: &NameIndex,
        pattern: &NamePattern<'_>,
        top: Slot,
        inside: &mut impl FnMut(Slot) -> bool,
    ) -> Step {
        if self.layout != index.shelf.layout {
            // Blocks have moved: from the beginning, which is at most some milliseconds back.
            (self.layout, self.group, self.hits) = (index.shelf.layout, 0, 0);
            self.masks.clear();
            self.covered.clear();
            self.visited.clear();
        }
        let (mut blocks, first) = (0, self.group);
        while let Some(group) = index.shelf.groups().get(self.group) {
            let mut mask = group.sift(&self.bits);
            let mut refined = mask;
            while mask != 0 {
                let number = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                blocks += 1;
                let block = &group.blocks()[number];
                if self.look_into(index, pattern, top, block, inside) == 0 {
                    refined &= !(1 << number);
                }
            }
            self.masks.push(refined);
            self.group += 1;
            if self.hits > FEW_HITS {
                return Step::TooMany;
            }
            if blocks >= SLICE_BLOCKS || self.group - first >= SLICE_GROUPS {
                return Step::More;
            }
        }
        Step::Done
    }

    /// Notes the directories of a block that match; returns how many names do.
    fn look_into(
        &mut self,
        index: &NameIndex,
        pattern: &NamePattern<'_>,
        top: Slot,
        block: &Block,
        inside: &mut impl FnMut(Slot) -> bool,
    ) -> usize {
        let part = match &pattern.0 {
            Shape::Part(_) => Some(hits_in(block, pattern, &mut self.lower)),
            _ => None,
        };
        if part == Some(0) {
            return 0;
        }
        let before = self.hits;
        let mut entries = (0..).zip(block.entries());
        for run in block.runs() {
            for (at, entry) in entries.by_ref().take(run.names as usize) {
                let is_hit = match part {
                    Some(bits) => bits >> at & 1 == 1,
                    None => self.above || pattern.is_own(entry.name),
                };
                if !is_hit {
                    continue;
                }
                self.hits += usize::from(!self.above);
                if entry.kind == Kind::Dir
                    && let Some(slot) = index.dirs.slot(entry.child)
                    && inside(slot)
                {
                    self.note(index, pattern, top, (run.slot, slot, entry.child));
                }
            }
        }
        self.hits - before
    }

    fn note(
        &mut self,
        index: &NameIndex,
        pattern: &NamePattern<'_>,
        top: Slot,
        (parent, slot, id): (Slot, Slot, FileId),
    ) {
        let dirs = &index.dirs;
        if !self.above {
            if slot != top && pattern.may_be_in(dirs, top, parent) {
                self.covered.push(slot);
            }
        } else if pattern.may_be_in(dirs, top, slot) {
            self.hits += 1;
            self.visited.push(id.0);
            let own = dirs.children(slot).filter(|child| pattern.is_own(dirs.name(*child)));
            self.covered.extend(own);
        }
    }

    /// The directories to be visited, and where else names match; `None` if there are too many.
    pub(super) fn finish(mut self, index: &NameIndex) -> Option<(Vec<u64>, Own)> {
        if self.layout != index.shelf.layout {
            return None;
        }
        let mut dirs = index.dirs.below(std::mem::take(&mut self.covered), FEW_DIRS)?;
        let own = match self.above {
            true => Own::Nowhere,
            false => Own::Refined { layout: self.layout, masks: self.masks },
        };
        dirs.append(&mut self.visited);
        dirs.sort_unstable();
        dirs.dedup();
        Some((dirs, own))
    }
}
