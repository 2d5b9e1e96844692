//! Preserving content before something destroys it.
//!
//! Owns the choice of how: an inode that loses its last name is moved or linked into the store,
//! what is about to be changed in place is copied there, by shared blocks where the filesystem can. A
//! failure is told with the version and never fails the operation.
//!
//! # Order of steps
//! `into the store → change of the backing directory → events → reply`. What a crash leaves in between
//! stands in the header of the store's objects.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::Fs;
use super::hashing::{is_readable, untimed};
use super::node::{Node, OpenState};
use crate::catalog::event::{Kept, Op};
use crate::store::Store;
use crate::store::objects::CopyError;
use crate::sys::{Errno, stat};
use crate::types::{IncomingId, InodeKey, Loss, SessionId};

/// With less free space than this nothing is kept, in bytes.
const LEAST_FREE: u64 = 256 << 20;
/// More free space than this is never called little, in bytes.
const MOST_FREE: u64 = 32 << 30;

/// What was done for the content that a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preserved {
    /// The node's seals when it had that content.
    seals: u64,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// The catalog knows what became of it.
    Told,
    /// There is a copy, in case that it is changed.
    Held(IncomingId),
    /// There is none.
    Lost(Loss),
}

impl OpenState {
    fn preserved_now(&self) -> Option<How> {
        self.preserved.filter(|preserved| preserved.seals == self.seals).map(|p| p.how)
    }
}

/// An open of a node that is under way: what is held for it is not let go by an earlier one that ends.
pub(super) struct Opening<'f> {
    fs: &'f Fs,
    node: &'f Node,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.node.with_open(|open| open.opening -= 1);
        self.fs.let_go(self.node);
    }
}

impl Fs {
    /// Makes a copy of the content of a node that is being opened to be changed in place, where the kernel
    /// or a mapping may do that without our seeing it. The result lives until the handle is known.
    pub(super) fn hold_to_open<'f>(&'f self, node: &'f Arc<Node>) -> Opening<'f> {
        node.with_open(|open| open.opening += 1);
        self.hold(node);
        Opening { fs: self, node }
    }

    /// The store, if anything is to be kept.
    pub(super) fn keeping(&self) -> Option<&Store> {
        self.store.as_deref()
    }

    /// The store, if there is room to keep something; `None` where nothing is to be kept.
    pub(super) fn room(&self) -> Option<Result<&Store, Loss>> {
        let store = self.keeping()?;
        Some(if self.is_full() { Err(Loss::NoSpace) } else { Ok(store) })
    }

    /// Whether the policy leaves out a content of a size that a node at a path has.
    pub(super) fn is_excluded(
        &self,
        key: InodeKey,
        size: u64,
        path: impl FnOnce() -> Option<Vec<u8>>,
    ) -> bool {
        if !self.is_choosy {
            return false;
        }
        // What nobody knows the place of is kept.
        path().is_some_and(|path| self.options.retention.admit(&path, size).is_err())
            && !self.has_pinned_head(key)
    }

    /// Whether there is so little space left that history must make room.
    pub(super) fn is_full(&self) -> bool {
        self.lacking().is_none_or(|bytes| bytes > 0)
    }

    /// Whether that is soon so.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.space().is_none_or(|(free, wanted)| free < wanted + wanted / 4)
    }

    /// How many bytes more should be free; `None` if nobody knows.
    pub(super) fn lacking(&self) -> Option<u64> {
        self.space().map(|(free, wanted)| wanted.saturating_sub(free))
    }

    /// How much space is left, in bytes, as far as it is known.
    pub(super) fn free_space(&self) -> u64 {
        self.space().map_or(0, |(free, _)| free)
    }

    /// How much space is left, and how much should be, in bytes.
    fn space(&self) -> Option<(u64, u64)> {
        let figures = self.statfs().ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(figures.f_frsize);
        let wanted = (bytes(figures.f_blocks) / 10).clamp(LEAST_FREE, MOST_FREE);
        Some((bytes(figures.f_bavail), wanted))
    }

    /// Preserves the content of a node that is about to be cut off, and tells. The caller holds the tree
    /// lock and the node's for sealing.
    pub(super) fn preserve(&self, node: &Arc<Node>) {
        if self.keeping().is_none() {
            return;
        }
        let how = match node.with_open(|open| open.preserved_now()) {
            Some(How::Told) => return,
            Some(how) => how,
            None => match self.copy(node, self.options.copied) {
                Some(how) => how,
                None => return,
            },
        };
        self.tell_preserved(node, how);
        node.with_open(|open| {
            open.preserved = Some(Preserved { seals: open.seals, how: How::Told });
        });
    }

    /// Preserves as [`Fs::preserve`] does, for a call that holds no lock.
    pub(super) fn preserve_now(&self, node: &Arc<Node>) {
        if self.keeping().is_some() {
            let _tree = self.tree.read();
            let _one = node.sealing.lock();
            self.preserve(node);
        }
    }

    /// Makes a copy of the content of a node that somebody may change in place without our seeing it.
    pub(super) fn hold(&self, node: &Arc<Node>) {
        if self.keeping().is_none() || node.with_open(|open| open.preserved_now()).is_some() {
            return;
        }
        let Some(how) = self.copy(node, self.options.copied_at_open) else { return };
        let before = node.with_open(|open| {
            open.preserved.replace(Preserved { seals: open.seals, how }).map(|p| p.how)
        });
        self.let_go_of(before);
    }

    /// Opens the copy that was made of the content of a node, in case that it is changed, with the number
    /// of the node's seals when it had that content.
    pub(super) fn held_copy(&self, node: &Node) -> Option<(u64, OwnedFd)> {
        let _one = node.sealing.lock();
        let look = |open: &OpenState| (open.seals, open.preserved_now());
        match node.peek_open(look)? {
            (seals, Some(How::Held(id))) => Some((seals, self.keeping()?.open_incoming(id).ok()?)),
            _ => None,
        }
    }

    /// Tells what became of the content that a seal by `session` replaces. The caller holds the locks of
    /// a seal.
    pub(super) fn tell_replaced(&self, node: &Node, session: SessionId) {
        if node.with_open(|open| open.sealed_by) == Some(session) {
            // It goes on with its own version.
            return;
        }
        let (now, before) = node.with_open(|open| (open.preserved_now(), open.preserved.take()));
        match (now, before) {
            (Some(How::Told), _) | (None, None) => {}
            (Some(how), _) => self.tell_preserved(node, how),
            // It was made by somebody else since the copy.
            (None, Some(before)) => {
                self.tell_preserved(node, How::Lost(Loss::Overwritten));
                self.let_go_of(Some(before.how));
            }
        }
    }

    /// Gives up the copy of a content that nobody has changed, once nobody can any more.
    pub(super) fn let_go(&self, node: &Node) {
        let unused =
            node.with_open(|open| if open.is_changing() { None } else { open.preserved.take() });
        self.let_go_of(unused.map(|preserved| preserved.how));
    }

    fn let_go_of(&self, how: Option<How>) {
        if let (Some(How::Held(id)), Some(store)) = (how, self.keeping()) {
            store.discard(id);
        }
    }

    fn tell_preserved(&self, node: &Node, how: How) {
        let kept = match how {
            How::Told => return,
            How::Held(id) => Kept::Copy(id),
            How::Lost(loss) => Kept::Lost(loss),
        };
        self.push(None, Op::Preserve { key: node.key, kept });
        if let Kept::Copy(id) = kept {
            self.keeper.add(id, None);
        }
    }

    /// `None` if there are no bytes.
    fn copy(&self, node: &Arc<Node>, limit: u64) -> Option<How> {
        let store = match self.room()? {
            Ok(store) => store,
            Err(loss) => return Some(How::Lost(loss)),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match untimed(flags, |flags| self.open_node(node, flags)) {
            Ok(file) => file,
            Err(error) => return Some(failed(node, error)),
        };
        let attr = match stat::fstat(&file) {
            Ok(stat) => stat.attr,
            Err(error) => return Some(failed(node, error)),
        };
        let size = attr.size;
        if size == 0 {
            return None;
        }
        if !is_readable(&attr) {
            return Some(How::Lost(Loss::TooLarge));
        }
        if self.is_excluded(node.key, size, || self.path_of(node)) {
            return Some(How::Lost(Loss::Excluded));
        }
        if self.magic == crate::sys::zfs::MAGIC {
            // A clone of what is not on the disk yet has been known to be wrong.
            let _ = rustix::fs::fsync(&file);
        }
        Some(match store.copy_in(file.as_fd(), limit) {
            Ok(id) => How::Held(id),
            Err(CopyError::TooLarge) => How::Lost(Loss::TooLarge),
            Err(CopyError::Failed(error)) => failed(node, error),
        })
    }
}

fn failed(node: &Node, error: Errno) -> How {
    tracing::warn!(%error, inode = node.key.ino, "cannot keep what is replaced");
    How::Lost(if error == Errno::NOSPC { Loss::NoSpace } else { Loss::Failed })
}
