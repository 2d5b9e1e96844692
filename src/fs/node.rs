//! Nodes: the inodes that the kernel knows of.
//!
//! Owns the table from node ids to inodes of the backing filesystem, with the kernel's lookup counts.
//! A node holds no descriptor while nobody has it open: it is opened again by its file handle, or by
//! its last known place where the filesystem has no handles. Nothing here survives a restart.

use std::any::Any;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::handle::{File, Maker, Session};
use super::hashing::Tail;
use super::pending::Pending;
use super::preserve::Preserved;
use crate::sys::handle::FileHandle;
use crate::sys::stat::Stat;
use crate::types::{Attr, InodeKey, Kind, Name, SessionId, Stamp};

/// The number by which the kernel names a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of the mount.
    pub const ROOT: Self = Self(1);
    /// Node ids from here on are made up, for inodes whose own number cannot serve.
    const MADE_UP: u64 = 1 << 63;
    /// Node ids from here on are those of views.
    const VIEWS: u64 = 3 << 62;

    /// Whether it names something in a view, of which the backing directory knows nothing.
    pub fn is_view(self) -> bool {
        self.0 >= Self::VIEWS
    }

    /// A node id for something in a view.
    pub(super) fn in_views(number: u64) -> Self {
        Self(number | Self::VIEWS)
    }
}

/// What the transport registered with the kernel so that it serves a file without us. The same for
/// all open handles of an inode; gone with the last of them.
pub type Backing = Arc<dyn Any + Send + Sync>;

/// One inode of the backing filesystem, as long as the kernel or an open handle refers to it.
#[derive(Debug)]
pub(super) struct Node {
    /// The kernel's name for it.
    pub id: NodeId,
    /// Which inode it is.
    pub key: InodeKey,
    /// `st_dev`, always that of the root but on stacked filesystems.
    pub dev: u64,
    /// What it is.
    pub kind: Kind,
    pub(super) handle: Option<FileHandle>,
    lookups: AtomicU64,
    /// Whether the catalog has been told of this node since the daemon started.
    pub(super) known: AtomicBool,
    /// Directory and name under which it was last seen.
    place: Mutex<Option<(NodeId, Name)>>,
    /// Held from looking at the content to telling the catalog of it, so that what two sessions say
    /// comes in the order in which it was true. Lock order: after the lock of a session.
    pub(super) sealing: Mutex<()>,
    /// Lock order: after every other lock.
    open: Mutex<Option<Box<OpenState>>>,
}

/// What only nodes in use have.
#[derive(Default)]
pub(super) struct OpenState {
    /// Open handles of any kind.
    pub(super) handles: u32,
    /// Handles that may change the content and are about to be open.
    pub(super) opening: u32,
    /// Open handles that may change the content.
    pub(super) writers: Vec<Weak<File>>,
    /// Rises whenever somebody who may change the content begins or interferes.
    pub(super) epoch: u64,
    /// How many seals there were.
    pub(super) seals: u64,
    /// Whose the content was at the last of them.
    pub(super) sealed_by: Option<SessionId>,
    /// Size and times of the content as it was last told.
    pub(super) sealed: Option<Stamp>,
    pub(super) backing: Option<Weak<dyn Any + Send + Sync>>,
    /// The hash of the content up to its end, to go on from after an append.
    pub(super) tail: Option<Tail>,
    /// The digest of the newest version is being computed.
    pub(super) pending: Option<Arc<Pending>>,
    /// A descriptor for an inode that lost its last name and cannot be opened again.
    pub(super) pinned: Option<Arc<OwnedFd>>,
    /// What an inode was that is gone although the kernel still knows it.
    pub(super) gone: Option<Box<Stat>>,
    /// The last name that users could see is gone, but the inode is kept by another one.
    pub(super) kept: bool,
    /// What was done for the content that it has.
    pub(super) preserved: Option<Preserved>,
    /// Ended sessions of which somebody may still have a writable mapping.
    pub(super) mapped: Vec<Maker>,
}

impl std::fmt::Debug for OpenState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenState").field("handles", &self.handles).finish_non_exhaustive()
    }
}

impl OpenState {
    /// Whether a session other than `but` may be changing the content.
    pub(super) fn has_writers(&self, but: Option<SessionId>) -> bool {
        self.writers.iter().any(|writer| match but {
            None => writer.strong_count() > 0,
            Some(id) => {
                let file = writer.upgrade();
                file.and_then(|f| f.session.as_ref().map(|s| s.id != id)).unwrap_or(false)
            }
        })
    }

    /// Whether anybody may be changing the content, unseen or not.
    pub(super) fn is_changing(&self) -> bool {
        self.has_writers(None) || self.opening > 0 || !self.mapped.is_empty()
    }

    /// Whose session began last of those that may still change the content, if that was after
    /// `session`.
    pub(super) fn newest_after(&self, session: SessionId) -> Option<Maker> {
        let open = self.writers.iter().filter_map(Weak::upgrade);
        let open = open.filter_map(|file| file.session.as_ref().map(Session::maker));
        let all = open.chain(self.mapped.iter().cloned());
        all.filter(|maker| maker.session > session).max_by_key(|maker| maker.session)
    }

    /// Nothing is left that must be remembered while no handle is open.
    fn is_spent(&self) -> bool {
        self.handles == 0
            && self.opening == 0
            && self.tail.is_none()
            && self.pending.is_none()
            && self.pinned.is_none()
            && self.gone.is_none()
            && self.mapped.is_empty()
            && self.preserved.is_none()
    }
}

impl Node {
    /// What tells it apart from an earlier inode with the same id. The kernel made the root by itself,
    /// with 0, and takes one with another number for another inode.
    pub(super) fn generation(&self) -> u64 {
        if self.id == NodeId::ROOT { 0 } else { self.key.generation }
    }

    /// The place where the node was last seen.
    pub(super) fn place(&self) -> Option<(NodeId, Name)> {
        self.place.lock().clone()
    }

    /// Notes where the node was seen.
    pub(super) fn set_place(&self, parent: NodeId, name: &[u8]) {
        let mut place = self.place.lock();
        if place.as_ref().is_none_or(|(p, n)| *p != parent || **n != *name) {
            *place = Some((parent, name.into()));
        }
    }

    /// Works on the state of a node in use.
    pub(super) fn with_open<T>(&self, work: impl FnOnce(&mut OpenState) -> T) -> T {
        let mut open = self.open.lock();
        let state = open.get_or_insert_default();
        let result = work(state);
        if state.is_spent() {
            *open = None;
        }
        result
    }

    /// Attributes without what only history has: the name by which it keeps the inode.
    pub(super) fn as_users_see(&self, mut attr: Attr) -> Attr {
        if self.peek_open(|open| open.kept) == Some(true) {
            attr.nlink = attr.nlink.saturating_sub(1);
        }
        attr
    }

    /// Whether the content was sealed, by whomever, since there were so many seals.
    pub(super) fn was_sealed_since(&self, seals: u64) -> bool {
        self.peek_open(|open| open.seals) != Some(seals)
    }

    /// Its open handles that may change the content, oldest first.
    pub(super) fn open_to_write(&self) -> Vec<Arc<File>> {
        let open = |open: &OpenState| open.writers.iter().filter_map(Weak::upgrade).collect();
        self.peek_open(open).unwrap_or_default()
    }

    /// Looks at the state of a node that may be in use.
    pub(super) fn peek_open<T>(&self, look: impl FnOnce(&OpenState) -> T) -> Option<T> {
        self.open.lock().as_deref().map(look)
    }
}

const SHARDS: usize = 16;

/// All nodes.
#[derive(Debug)]
pub(super) struct NodeTable {
    shards: [Mutex<HashMap<u64, Arc<Node>>>; SHARDS],
    root: Arc<Node>,
    /// Made-up node ids of inodes on other devices than the root's, and of number 1.
    aliases: Mutex<HashMap<(u64, u64), u64>>,
    next_alias: AtomicU64,
}

/// Which of `count` shards a node id belongs to.
pub(super) fn shard_of(id: u64, count: usize) -> usize {
    usize::try_from(id % count as u64).unwrap_or_default()
}

/// An inode about to become a node.
pub(super) struct Found {
    pub(super) key: InodeKey,
    pub(super) dev: u64,
    pub(super) kind: Kind,
    pub(super) handle: Option<FileHandle>,
}

impl NodeTable {
    pub(super) fn new(root: Found) -> Self {
        let root = Arc::new(Node::new(NodeId::ROOT, root));
        root.known.store(true, Ordering::Relaxed);
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            root,
            aliases: Mutex::default(),
            next_alias: AtomicU64::new(NodeId::MADE_UP),
        }
    }

    pub(super) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Arc<Node>>> {
        // Inode numbers of one directory are often consecutive.
        self.shards[shard_of(id, SHARDS)].lock()
    }

    /// The node the kernel means; `None` for one it was never told of.
    pub(super) fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        if id == NodeId::ROOT {
            return Some(Arc::clone(&self.root));
        }
        self.shard(id.0).get(&id.0).cloned()
    }

    /// The node of an inode number, without counting a lookup. The inode may be another one that had
    /// the number before.
    pub(super) fn peek(&self, dev: u64, ino: u64) -> Option<Arc<Node>> {
        if (dev, ino) == (self.root.dev, self.root.key.ino) {
            return Some(Arc::clone(&self.root));
        }
        let id = self.id_of(dev, ino)?;
        self.shard(id).get(&id).cloned()
    }

    /// The node of exactly this inode, without counting a lookup.
    pub(super) fn find(&self, dev: u64, key: InodeKey) -> Option<Arc<Node>> {
        self.peek(dev, key.ino).filter(|node| node.key == key && node.dev == dev)
    }

    /// The node of exactly this inode, whichever device it is on.
    pub(super) fn find_anywhere(&self, key: InodeKey) -> Option<Arc<Node>> {
        let own = self.find(self.root.dev, key);
        own.or_else(|| {
            let aliases = self.aliases.lock();
            let devices = aliases.keys().filter(|(_, ino)| *ino == key.ino);
            let devices: Vec<u64> = devices.map(|(dev, _)| *dev).collect();
            drop(aliases);
            devices.into_iter().find_map(|dev| self.find(dev, key))
        })
    }

    /// The kernel's id for an inode is its own number, so that `st_ino` is the backing one.
    fn id_of(&self, dev: u64, ino: u64) -> Option<u64> {
        if dev == self.root.dev && ino > 1 && ino < NodeId::MADE_UP {
            return Some(ino);
        }
        self.aliases.lock().get(&(dev, ino)).copied()
    }

    /// The node of an inode with one more lookup, made if it is new.
    pub(super) fn enter(&self, found: Found) -> Arc<Node> {
        let (dev, ino) = (found.dev, found.key.ino);
        let id = self.id_of(dev, ino).unwrap_or_else(|| {
            let mut aliases = self.aliases.lock();
            *aliases
                .entry((dev, ino))
                .or_insert_with(|| self.next_alias.fetch_add(1, Ordering::Relaxed))
        });
        let mut shard = self.shard(id);
        let carried = match shard.get(&id) {
            Some(node) if node.key == found.key => {
                node.lookups.fetch_add(1, Ordering::Relaxed);
                return Arc::clone(node);
            }
            // The number was reused. The kernel tells the two apart by their generation, and its
            // forgets for the old one come under the same number.
            Some(old) => old.lookups.load(Ordering::Relaxed),
            None => 0,
        };
        let node = Arc::new(Node::new(NodeId(id), found));
        node.lookups.store(carried + 1, Ordering::Relaxed);
        shard.insert(id, Arc::clone(&node));
        node
    }

    /// Takes back `count` lookups; returns whether that was the node's end.
    pub(super) fn forget(&self, id: NodeId, count: u64) -> bool {
        if id == NodeId::ROOT {
            return false;
        }
        let mut shard = self.shard(id.0);
        let Some(node) = shard.get(&id.0) else { return false };
        let before = node.lookups.load(Ordering::Relaxed);
        node.lookups.store(before.saturating_sub(count), Ordering::Relaxed);
        if before > count {
            return false;
        }
        let node = shard.remove(&id.0);
        if shard.len() < shard.capacity() / 8 {
            let room = shard.len() * 2;
            shard.shrink_to(room);
        }
        drop(shard);
        if let Some(node) = node.filter(|n| n.id.0 >= NodeId::MADE_UP) {
            self.aliases.lock().remove(&(node.dev, node.key.ino));
        }
        true
    }

    /// Nodes in the table, without the root.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Node {
    fn new(id: NodeId, found: Found) -> Self {
        Self {
            id,
            key: found.key,
            dev: found.dev,
            kind: found.kind,
            handle: found.handle,
            lookups: AtomicU64::new(0),
            known: AtomicBool::new(false),
            place: Mutex::default(),
            sealing: Mutex::default(),
            open: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ino: u64, generation: u64) -> Found {
        Found { key: InodeKey { ino, generation }, dev: 1, kind: Kind::File, handle: None }
    }

    #[test]
    fn a_node_lives_until_every_lookup_is_forgotten() {
        let table = NodeTable::new(found(128, 1));
        let node = table.enter(found(7, 1));
        assert_eq!(node.id, NodeId(7));
        table.enter(found(7, 1));
        assert!(!table.forget(NodeId(7), 1));
        assert!(table.forget(NodeId(7), 1));
        assert!(table.get(NodeId(7)).is_none());
    }

    #[test]
    fn a_reused_number_is_another_node_under_the_same_id() {
        let table = NodeTable::new(found(128, 1));
        table.enter(found(7, 1));
        let new = table.enter(found(7, 2));
        assert_eq!((new.id, new.key.generation), (NodeId(7), 2));
        assert!(!table.forget(NodeId(7), 1), "the old inode's forget leaves the new one");
        assert!(table.forget(NodeId(7), 1));
    }

    #[test]
    fn the_root_is_told_without_a_generation() {
        let table = NodeTable::new(found(128, 5));
        assert_eq!(table.root().generation(), 0);
        assert_eq!(table.enter(found(7, 5)).generation(), 5);
    }

    #[test]
    fn numbers_that_cannot_serve_get_others() {
        let table = NodeTable::new(found(128, 1));
        let one = table.enter(found(1, 1));
        assert_ne!(one.id, NodeId::ROOT);
        let foreign = table.enter(Found { dev: 2, ..found(7, 1) });
        let own = table.enter(found(7, 1));
        assert_ne!(foreign.id, own.id);
        assert!(table.forget(foreign.id, 1));
        assert_eq!(table.len(), 2);
    }
}
