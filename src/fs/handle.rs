//! Open files and directories, as the kernel has them.
//!
//! Owns the table from handle numbers to open files, and what an open file is made of. Handles live
//! from OPEN to RELEASE, whatever happens to the names of the file meanwhile.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sha2::Sha256;

use super::channel::Channel;
use super::hashing::Tail;
use super::node::{Backing, Node};
use crate::sys::Errno;
use crate::types::{SessionId, Stamp, Writer};

/// The number by which the kernel names an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

impl Fh {
    /// Numbers from here on are those of views, which have tables of their own.
    const VIEWS: u64 = 1 << 63;

    /// Whether it names something that is open in a view.
    pub fn is_view(self) -> bool {
        self.0 >= Self::VIEWS
    }

    /// The kernel's number for what has this number in a table of views.
    pub(super) fn in_views(self) -> Self {
        Self(self.0 | Self::VIEWS)
    }

    /// The inverse of [`Fh::in_views`].
    pub(super) fn of_views(self) -> Self {
        Self(self.0 & !Self::VIEWS)
    }
}

/// How the kernel is to treat an open file; the transport turns it into flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Reads, writes and mappings go to the backing file inside the kernel.
    Passthrough,
    /// `read` and `write` come to us, mappings go to the backing file.
    Stream,
    /// `read` and `write` come to us, and so do the pages of mappings.
    Direct,
    /// Reads come to us through the kernel's page cache.
    Cached,
    /// The same, and what the kernel has read once it need never read again.
    Immutable,
}

/// Whether the kernel should tell us of each `close`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Yes: there may be something to seal.
    Wanted,
    /// No: nothing was written.
    Needless,
}

/// An open regular file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) node: Arc<Node>,
    pub(super) fd: Channel,
    /// What may make a version; `None` for handles that cannot write.
    pub(super) session: Option<Session>,
    /// Kept so that the kernel can go on using it.
    pub(super) backing: Option<Backing>,
    /// The kernel opened it to run it, and as long as it is open lets nobody write to it.
    pub(super) runs: bool,
}

impl File {
    /// Whether it can be mapped so that stores pass us unseen.
    pub(super) fn is_mappable(&self) -> bool {
        self.backing.is_some() && self.session.as_ref().is_some_and(|session| session.mappable)
    }
}

/// What makes at most one version: an open file that may change the content.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) writer: Arc<Writer>,
    /// The kernel writes to the backing file without us.
    pub(super) kernel_writes: bool,
    /// Writable shared mappings are possible, and stores to them pass us unseen.
    pub(super) mappable: bool,
    /// Every write goes to the end of the file.
    pub(super) append: bool,
    /// Lock order: before the state of the node.
    pub(super) state: Mutex<SessionState>,
}

/// Whose a content is.
#[derive(Debug, Clone)]
pub(super) struct Maker {
    pub(super) session: SessionId,
    pub(super) writer: Arc<Writer>,
}

impl Session {
    pub(super) fn maker(&self) -> Maker {
        Maker { session: self.id, writer: Arc::clone(&self.writer) }
    }
}

/// What a session has done so far.
#[derive(Debug)]
pub(super) struct SessionState {
    /// The hash of the bytes from 0 to `hashed`; `None` once it proves nothing any more.
    pub(super) hasher: Option<Sha256>,
    pub(super) hashed: u64,
    /// The content before the session, to go on from if it only appends.
    pub(super) prefix: Option<Tail>,
    /// The size with which the session began.
    pub(super) began_with: u64,
    /// The node's epoch when the session began: another value means somebody else took part.
    pub(super) epoch: u64,
    /// The node's seals when the session began.
    pub(super) seals: u64,
    /// The content has changed, by what we saw, since the last seal.
    pub(super) touched: bool,
    /// Size and times of the file when its content was last known to be sealed.
    pub(super) baseline: Stamp,
    /// The baseline's times are so young that a change could have left them as they are.
    pub(super) baseline_fresh: bool,
    /// The session was sealed at least once.
    pub(super) sealed: bool,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) node: Arc<Node>,
    pub(super) fd: OwnedFd,
    /// Where the descriptor stands, so that reading on needs no seek.
    pub(super) position: Mutex<u64>,
}

/// A table of things that are open.
#[derive(Debug)]
pub(super) struct HandleTable<T> {
    slots: RwLock<Slots<T>>,
}

#[derive(Debug)]
struct Slots<T> {
    items: Vec<Option<Arc<T>>>,
    free: Vec<usize>,
}

impl<T> Default for HandleTable<T> {
    fn default() -> Self {
        Self { slots: RwLock::new(Slots { items: Vec::new(), free: Vec::new() }) }
    }
}

impl<T> HandleTable<T> {
    /// Stores an open thing and returns its number.
    pub(super) fn insert(&self, item: Arc<T>) -> Fh {
        let mut slots = self.slots.write();
        let index = match slots.free.pop() {
            Some(index) => {
                slots.items[index] = Some(item);
                index
            }
            None => {
                slots.items.push(Some(item));
                slots.items.len() - 1
            }
        };
        Fh(index as u64)
    }

    /// The open thing with a number.
    pub(super) fn get(&self, fh: Fh) -> Result<Arc<T>, Errno> {
        let index = usize::try_from(fh.0).map_err(|_| Errno::BADF)?;
        self.slots.read().items.get(index).cloned().flatten().ok_or(Errno::BADF)
    }

    /// Takes an open thing out of the table.
    pub(super) fn remove(&self, fh: Fh) -> Result<Arc<T>, Errno> {
        let index = usize::try_from(fh.0).map_err(|_| Errno::BADF)?;
        let mut slots = self.slots.write();
        let item = slots.items.get_mut(index).and_then(Option::take).ok_or(Errno::BADF)?;
        slots.free.push(index);
        Ok(item)
    }

    /// Everything that is open.
    pub(super) fn all(&self) -> Vec<Arc<T>> {
        self.slots.read().items.iter().flatten().cloned().collect()
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        let slots = self.slots.read();
        slots.items.len() - slots.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_reused_only_after_removal() {
        let table = HandleTable::default();
        let a = table.insert(Arc::new("a"));
        let b = table.insert(Arc::new("b"));
        assert_ne!(a, b);
        assert_eq!(*table.remove(a).unwrap(), "a");
        assert_eq!(table.get(a).unwrap_err(), Errno::BADF);
        assert_eq!(table.insert(Arc::new("c")), a);
        assert_eq!(table.len(), 2);
    }
}
