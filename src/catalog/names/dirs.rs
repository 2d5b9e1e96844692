//! The tree of directories alone.
//!
//! Owns the way from a directory up to the root and down to those in it. A directory without a name, or
//! below one, is kept for as long as the catalog has it, but no path leads to it. Places of directories
//! that ended are used again.

use std::collections::HashMap;

use crate::types::{FileId, Name};

/// Where a directory is in the list of them.
pub(super) type Slot = u32;

/// The root, which is always there.
pub(super) const ROOT: Slot = 0;
/// No directory.
pub(super) const NONE: Slot = u32::MAX;

#[derive(Debug)]
struct Node {
    id: u64,
    parent: Slot,
    /// The first directory in it.
    first: Slot,
    /// Its neighbours in the directory that it is in.
    next: Slot,
    before: Slot,
    name: Name,
}

#[derive(Debug)]
pub(super) struct Dirs {
    nodes: Vec<Node>,
    free: Vec<Slot>,
    slots: HashMap<u64, Slot>,
    /// Counts every change, so that what was found out about directories can be thrown away.
    pub(super) version: u64,
}

impl Dirs {
    pub(super) fn new() -> Self {
        let mut dirs =
            Self { nodes: Vec::new(), free: Vec::new(), slots: HashMap::new(), version: 0 };
        dirs.slot_or_new(FileId::ROOT.0);
        dirs
    }

    /// Directories and the places of such.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn slot(&self, id: FileId) -> Option<Slot> {
        self.slots.get(&id.0).copied()
    }

    /// The place of a directory, which is a new one without a name if there is none.
    pub(super) fn slot_or_new(&mut self, id: u64) -> Slot {
        if let Some(slot) = self.slots.get(&id) {
            return *slot;
        }
        let node =
            Node { id, parent: NONE, first: NONE, next: NONE, before: NONE, name: Name::default() };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                let slot = Slot::try_from(self.nodes.len()).unwrap_or(NONE);
                assert!(slot != NONE, "there are fewer directories than 2^32");
                if self.nodes.len() == self.nodes.capacity() {
                    self.nodes.reserve_exact(self.nodes.len() / 8 + 16);
                }
                self.nodes.push(node);
                slot
            }
        };
        self.slots.insert(id, slot);
        self.version += 1;
        slot
    }

    pub(super) fn id(&self, slot: Slot) -> u64 {
        self.nodes[slot as usize].id
    }

    pub(super) fn name(&self, slot: Slot) -> &[u8] {
        &self.nodes[slot as usize].name
    }

    pub(super) fn parent(&self, slot: Slot) -> Slot {
        self.nodes[slot as usize].parent
    }

    /// Gives a directory a name in another, in place of the one that it has.
    pub(super) fn attach(&mut self, slot: Slot, parent: Slot, name: &[u8]) {
        self.detach(slot);
        let next = self.nodes[parent as usize].first;
        let node = &mut self.nodes[slot as usize];
        (node.parent, node.next, node.name) = (parent, next, name.into());
        if next != NONE {
            self.nodes[next as usize].before = slot;
        }
        self.nodes[parent as usize].first = slot;
        self.version += 1;
    }

    /// Takes its name from a directory.
    pub(super) fn detach(&mut self, slot: Slot) {
        let node = &mut self.nodes[slot as usize];
        let (parent, next, before) = (node.parent, node.next, node.before);
        if parent == NONE {
            return;
        }
        (node.parent, node.next, node.before) = (NONE, NONE, NONE);
        node.name = Name::default();
        if next != NONE {
            self.nodes[next as usize].before = before;
        }
        match before {
            NONE => self.nodes[parent as usize].first = next,
            before => self.nodes[before as usize].next = next,
        }
        self.version += 1;
    }

    /// Forgets a directory that has no name and nothing in it.
    pub(super) fn forget(&mut self, slot: Slot) {
        let node = &self.nodes[slot as usize];
        if slot == ROOT || node.parent != NONE || node.first != NONE {
            return;
        }
        self.slots.remove(&node.id);
        self.free.push(slot);
        self.version += 1;
    }

    /// The directories in one.
    pub(super) fn children(&self, slot: Slot) -> impl Iterator<Item = Slot> {
        let some = |slot| Some(slot).filter(|slot| *slot != NONE);
        let first = some(self.nodes[slot as usize].first);
        std::iter::successors(first, move |slot| some(self.nodes[*slot as usize].next))
    }

    /// Numbers of the directories below some and of these themselves, in order; `None` if there
    /// are more than `most`.
    pub(super) fn below(&self, mut stack: Vec<Slot>, most: usize) -> Option<Vec<u64>> {
        let mut ids = Vec::new();
        while let Some(slot) = stack.pop() {
            if ids.len() >= most {
                return None;
            }
            ids.push(self.id(slot));
            stack.extend(self.children(slot));
        }
        ids.sort_unstable();
        ids.dedup();
        Some(ids)
    }

    /// Writes the path of a directory from below `top`; whether it is there or below.
    pub(super) fn path(&self, top: Slot, slot: Slot, path: &mut Vec<u8>) -> bool {
        let mut names = Vec::new();
        let mut at = slot;
        while at != top {
            let parent = self.parent(at);
            if parent == NONE {
                return false;
            }
            names.push(self.name(at));
            at = parent;
        }
        for name in names.into_iter().rev() {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
        }
        true
    }

    /// Memory that it has.
    pub(super) fn memory(&self) -> usize {
        let names: usize = self.nodes.iter().map(|node| node.name.len()).sum();
        // A table of pairs with a byte each, seven eighths full at most and a power of two large.
        let table = (self.slots.capacity() * 8 / 7).next_power_of_two();
        self.nodes.capacity() * size_of::<Node>()
            + names
            + self.free.capacity() * size_of::<Slot>()
            + table * (size_of::<(u64, Slot)>() + 1)
    }
}
