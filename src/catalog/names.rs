//! Every live name in memory, to be found by any part of it.
//!
//! Owns an index that can be thrown away and made again from the catalog at any time: nothing of it is on
//! disk, so a crash leaves nothing behind. Never stores a path: a name is kept with the number of its
//! directory, so renaming a directory changes one name, whatever is in it.
//!
//! # Order
//! Names are in the order of the catalog's own table: by the number of their directory, which is the order
//! in which directories were first seen, then by their bytes. A name keeps its place whatever comes
//! and goes around it, and whatever its directory is called; so a search can go on after any name,
//! and finds each of the others that stayed where they are once. What moves to another directory
//! meanwhile may be found twice, or not.
//!
//! # Shape
//! 64 names are a block, 64 blocks a group. Each block is signed with the letters, three in a row, that
//! are in its names, so that most blocks need not be looked into. What takes long is done in slices, between
//! which the writer goes on.

mod block;
mod dirs;
pub mod feed;
mod group;
mod load;
mod needle;
mod pattern;
pub mod search;
mod shelf;
#[cfg(test)]
mod tests;

use block::NewName;
use dirs::Dirs;
use shelf::Shelf;

use crate::types::{FileId, Kind, Name};

pub use feed::{LiveNames, NameStats};
pub use pattern::NamePattern;
pub use search::{FoundName, NameQuery, NameSearch};

/// Where a name is in the order of all names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NameKey {
    /// The directory that it is in.
    pub parent: FileId,
    /// The name.
    pub name: Name,
}

/// What a committed change did to the names, one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameChange {
    /// A name was given to a file; it had none before, or that of another.
    Open { parent: FileId, name: Name, child: FileId, kind: Kind },
    /// A name was taken away.
    Close { parent: FileId, name: Name },
    /// A directory came to its end.
    End(FileId),
    /// What comes before belongs together, and what comes next does not.
    Whole,
}

/// The names of one tree.
#[derive(Debug)]
pub struct NameIndex {
    shelf: Shelf,
    dirs: Dirs,
    changed: u64,
}

impl Default for NameIndex {
    fn default() -> Self {
        Self { shelf: Shelf::default(), dirs: Dirs::new(), changed: 0 }
    }
}

impl NameIndex {
    /// Gives a name to something, in place of what has it.
    pub fn put(&mut self, parent: FileId, name: &[u8], child: FileId, kind: Kind) {
        self.changed += 1;
        let slot = self.dirs.slot_or_new(parent.0);
        let old = self.shelf.insert(&NewName { parent: parent.0, slot, name, child, kind });
        if let Some((old, Kind::Dir)) = old {
            self.unname(old, parent, name);
        }
        if kind == Kind::Dir {
            let at = self.dirs.slot_or_new(child.0);
            self.dirs.attach(at, slot, name);
        }
    }

    /// Takes a name away, if it is there.
    pub fn take(&mut self, parent: FileId, name: &[u8]) {
        if let Some((child, kind)) = self.shelf.remove(parent.0, name) {
            self.changed += 1;
            if kind == Kind::Dir {
                self.unname(child, parent, name);
            }
        }
    }

    /// Forgets a directory that has ended. One that has names yet stays until they are gone.
    pub fn end(&mut self, dir: FileId) {
        if let Some(slot) = self.dirs.slot(dir)
            && !self.shelf.has_any(dir.0)
        {
            self.dirs.forget(slot);
        }
    }

    /// A directory is not where it was; it may be elsewhere already.
    fn unname(&mut self, dir: FileId, parent: FileId, name: &[u8]) {
        if let (Some(slot), Some(above)) = (self.dirs.slot(dir), self.dirs.slot(parent))
            && self.dirs.parent(slot) == above
            && self.dirs.name(slot) == name
        {
            self.dirs.detach(slot);
        }
    }

    fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Open { parent, name, child, kind } => {
                self.put(*parent, name, *child, *kind);
            }
            NameChange::Close { parent, name } => self.take(*parent, name),
            NameChange::End(dir) => self.end(*dir),
            NameChange::Whole => {}
        }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.shelf.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names put or taken away so far: what changes cost.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// What has a name.
    pub fn get(&self, parent: FileId, name: &[u8]) -> Option<(FileId, Kind)> {
        self.shelf.get(parent.0, name)
    }

    /// Memory that it has, in bytes. Looks at every block.
    pub fn memory(&self) -> usize {
        self.shelf.memory() + self.dirs.memory()
    }
}
