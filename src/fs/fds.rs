//! A bounded set of `O_PATH` descriptors, so that a walk over a million files needs few.
//!
//! Owns which nodes have one at the moment, least recently used first out. A descriptor taken from
//! here stays open for as long as its user holds it.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::node::NodeId;

const SHARDS: usize = 8;

/// Descriptors of nodes.
#[derive(Debug)]
pub(super) struct FdCache {
    shards: [Mutex<LruCache<u64, Arc<OwnedFd>>>; SHARDS],
}

impl FdCache {
    /// Holds at most `capacity` descriptors.
    pub(super) fn new(capacity: usize) -> Self {
        let each = NonZeroUsize::new(capacity / SHARDS).unwrap_or(NonZeroUsize::MIN);
        Self { shards: std::array::from_fn(|_| Mutex::new(LruCache::new(each))) }
    }

    fn shard(&self, id: NodeId) -> &Mutex<LruCache<u64, Arc<OwnedFd>>> {
        &self.shards[super::node::shard_of(id.0, SHARDS)]
    }

    pub(super) fn get(&self, id: NodeId) -> Option<Arc<OwnedFd>> {
        self.shard(id).lock().get(&id.0).cloned()
    }

    /// Whether the node has a descriptor, which keeps its inode number from being reused.
    pub(super) fn holds(&self, id: NodeId) -> bool {
        self.shard(id).lock().contains(&id.0)
    }

    pub(super) fn put(&self, id: NodeId, fd: Arc<OwnedFd>) {
        let evicted = self.shard(id).lock().push(id.0, fd);
        // Closed after the lock is given back.
        drop(evicted);
    }

    pub(super) fn remove(&self, id: NodeId) {
        let removed = self.shard(id).lock().pop(&id.0);
        drop(removed);
    }
}
