//! Taking names away and moving them: unlink, rmdir and rename.
//!
//! Owns what is noted of an inode before its name goes: its identity for the catalog, and a
//! descriptor, since an inode without a name cannot be opened again.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, RenameFlags};

use super::hashing::is_readable;
use super::lookup::open_path;
use super::node::{Node, OpenState};
use super::privileges::within_limits;
use super::seal::Times;
use super::walk::DirJob;
use super::{Fs, Handles, NodeId};
use crate::catalog::event::{Kept, Op, Openness, Place, Replaced};
use crate::store::Store;
use crate::sys::stat::{self, Stat};
use crate::sys::{Errno, xattr};
use crate::types::{Attr, Caller, IncomingId, Inode, InodeKey, Kind, Loss};

/// What had a name just before the name was taken away or moved.
pub(super) struct Victim {
    pub(super) fd: OwnedFd,
    pub(super) stat: Stat,
    key: InodeKey,
    node: Option<Arc<Node>>,
}

impl Victim {
    /// The inode as it is by now.
    fn now(&self) -> Inode {
        // What is open can be asked; if not, what it was is near enough.
        let attr = stat::fstat(&self.fd).map_or(self.stat.attr, |stat| stat.attr);
        Inode { key: self.key, attr }
    }

    /// Whether the name was the last one.
    pub(super) fn was_last(&self) -> bool {
        self.stat.attr.kind == Kind::Dir || self.stat.attr.nlink <= 1
    }

    /// The node, if what was sealed of it last is its end: held for sealing, that stays so until the
    /// catalog knows.
    pub(super) fn leaving(&self) -> Option<Arc<Node>> {
        // Two renames of each other's targets would wait for each other: with one name each, the kernel
        // has one wait for the other before.
        self.node.clone().filter(|_| self.was_last())
    }

    /// Whether a content goes with the name.
    fn has_content(&self) -> bool {
        self.stat.attr.kind == Kind::File && self.stat.attr.size > 0 && self.was_last()
    }

    /// What the catalog is told of it when something else gets its name.
    pub(super) fn replaced(&self) -> Replaced {
        let remaining = (!self.was_last()).then(|| self.now());
        Replaced { key: self.key, remaining, openness: self.openness() }
    }

    fn openness(&self) -> Openness {
        let open = self.node.as_ref().and_then(|node| node.peek_open(OpenState::is_changing));
        if open == Some(true) { Openness::Open } else { Openness::Closed }
    }
}

impl Fs {
    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// `EBUSY` for the name that is Horace's own, `EROFS` in a view; the backing filesystem's.
    pub fn unlink(&self, caller: Caller, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.remove(caller, parent, name, AtFlags::empty())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As [`Fs::unlink`].
    pub fn rmdir(&self, caller: Caller, parent: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.remove(caller, parent, name, AtFlags::REMOVEDIR)
    }

    fn remove(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        how: AtFlags,
    ) -> Result<(), Errno> {
        if Self::is_hidden(parent, name) {
            return Err(Errno::BUSY);
        }
        Self::may_change(parent)?;
        let dir_node = self.node(parent)?;
        let writer = Self::writer(caller);
        let _tree = self.tree.read();
        let dir = self.path_fd(&dir_node)?;
        let victim = self.victim(&dir, name)?;
        self.seal_victim(&victim);
        let kept = Cell::new(None);
        let remove = || match self.room_for(&victim, &dir_node, name) {
            None => rustix::fs::unlinkat(&*dir, name, how),
            Some(room) => {
                let move_in = |store: &Store| store.move_in(dir.as_fd(), name);
                let moved = room.and_then(|store| move_in(store).map_err(|_| Loss::Failed));
                kept.set(Some(moved));
                if moved.is_ok() { Ok(()) } else { rustix::fs::unlinkat(&*dir, name, how) }
            }
        };
        self.change_victim(&victim, remove, |attr| {
            self.ensure_known(&dir_node);
            Self::forget_name(&victim);
            self.tell_leaving(&victim);
            self.tell_kept(&victim, kept.get());
            let remaining = (!victim.was_last()).then_some(Inode { key: victim.key, attr });
            let at = Place { parent: dir_node.key, name: name.into() };
            let (key, openness) = (victim.key, victim.openness());
            self.push(Some(writer), Op::Unlink { at, key, remaining, openness });
        })?;
        self.forget_path(&victim);
        if victim.was_last() {
            self.outlive(victim, kept.get());
        }
        Ok(())
    }

    /// Moves a name, with the flags of `renameat2(2)`.
    ///
    /// # Errors
    /// `EINVAL` for `RENAME_WHITEOUT`, `EBUSY` for the name that is Horace's own, `EROFS` in a view,
    /// `EXDEV` into one or out of it; the backing filesystem's.
    pub fn rename(
        &self,
        caller: Caller,
        (parent, name): (NodeId, &[u8]),
        (new_parent, new_name): (NodeId, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        let flags = RenameFlags::from_bits_retain(flags);
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        if Self::is_hidden(parent, name) || Self::is_hidden(new_parent, new_name) {
            return Err(Errno::BUSY);
        }
        Self::may_move(parent, new_parent)?;
        let new_dir_node = self.parent_of_new(new_parent, new_name)?;
        let dir_node = self.node(parent)?;
        let writer = Self::writer(caller);
        let _tree = self.tree.read();
        let dir = self.path_fd(&dir_node)?;
        let new_dir = self.path_fd(&new_dir_node)?;
        let moved = self.victim(&dir, name)?;
        let mut target = match self.victim(&new_dir, new_name) {
            Ok(victim) => Some(victim),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error),
        };
        let replaces = !flags.intersects(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE);
        let replaced = target.as_ref().filter(|target| replaces && target.key != moved.key);
        if let Some(target) = replaced {
            self.seal_victim(target);
        }
        let kept = replaced.and_then(|target| self.link_in(target, &new_dir_node, new_name));
        let rename = || {
            let _caller = within_limits(caller)?;
            rustix::fs::renameat_with(&*dir, name, &*new_dir, new_name, flags)
        };
        let renamed = self.change_victim(&moved, rename, |attr| {
            if target.as_ref().is_some_and(|target| target.key == moved.key) {
                // Two names of one inode: nothing happened.
                return;
            }
            self.ensure_known(&dir_node);
            self.ensure_known(&new_dir_node);
            if let Some(node) = &moved.node {
                node.set_place(new_parent, new_name);
            }
            if moved.stat.attr.kind == Kind::Dir {
                let node = moved.node.as_deref();
                self.reconcile.note_move(|| DirJob::of_node(self, node?));
            }
            let from = Place { parent: dir_node.key, name: name.into() };
            let to = Place { parent: new_dir_node.key, name: new_name.into() };
            let inode = Inode { key: moved.key, attr };
            let leaving = target.as_ref().and_then(Victim::leaving);
            let _one = leaving.as_ref().map(|node| node.sealing.lock());
            let op = match target.take() {
                Some(target) if flags.contains(RenameFlags::EXCHANGE) => {
                    if let Some(node) = &target.node {
                        node.set_place(parent, name);
                    }
                    Op::Exchange { a: (from, target.now()), b: (to, inode) }
                }
                Some(target) => {
                    // What is moved goes on as the other file, and ends as its own.
                    self.tell_xattrs(&moved);
                    self.tell_displaced(&target, kept);
                    let replaced = Some(target.replaced());
                    if target.was_last() {
                        self.outlive(target, kept);
                    }
                    Op::Rename { from, to, inode, replaced }
                }
                None => Op::Rename { from, to, inode, replaced: None },
            };
            self.push(Some(writer), op);
        });
        if let (Err(_), Some(target)) = (renamed, target) {
            self.let_stay(&target, kept);
        }
        renamed
    }

    /// A name that was to be taken from something is still there.
    pub(super) fn let_stay(&self, target: &Victim, kept: Option<Result<IncomingId, Loss>>) {
        if let (Some(Ok(id)), Some(store)) = (kept, self.keeping()) {
            store.discard(id);
            // A link that comes and goes moves the time of the inode.
            self.push(None, Op::Attr { inode: target.now(), before: None });
        }
    }

    /// Seals what somebody is writing to something that is about to lose its last name.
    pub(super) fn seal_victim(&self, victim: &Victim) {
        if let Some(node) = victim.leaving() {
            self.seal_leaving(&node);
        }
    }

    /// Takes or moves a name of an inode, and tells with what the inode is then.
    fn change_victim(
        &self,
        victim: &Victim,
        change: impl FnOnce() -> Result<(), Errno>,
        tell: impl FnOnce(Attr),
    ) -> Result<(), Errno> {
        match &victim.node {
            Some(node) => {
                self.change_inode(node, &victim.fd, Times::Kept, change, |attr, ()| tell(attr))
            }
            None => {
                change()?;
                tell(victim.now().attr);
                Ok(())
            }
        }
    }

    /// Tells what becomes of what has just lost a name to something else. The caller holds what is
    /// [leaving](Victim::leaving) for sealing.
    pub(super) fn tell_displaced(&self, target: &Victim, kept: Option<Result<IncomingId, Loss>>) {
        Self::forget_name(target);
        self.tell_leaving(target);
        self.tell_kept(target, kept);
        self.forget_path(target);
    }

    /// Nothing is to be said any more of a name that was the last of a node.
    fn forget_name(victim: &Victim) {
        if let (true, Some(node)) = (victim.was_last(), &victim.node) {
            node.known.store(true, Ordering::Relaxed);
        }
    }

    /// Where inodes are found by paths, a descriptor dies with the name that it was opened by,
    /// although the inode may have others.
    fn forget_path(&self, victim: &Victim) {
        if let (false, Some(node)) = (self.handles == Handles::Open, &victim.node) {
            self.fds.remove(node.id);
        }
    }

    /// The store, if what goes with a name is to be kept and can be; `None` if there is nothing.
    fn room_for(&self, victim: &Victim, dir: &Node, name: &[u8]) -> Option<Result<&Store, Loss>> {
        let room = self.room().filter(|_| victim.has_content())?;
        let path = || {
            let above = self.path_of(dir)?;
            Some(if above.is_empty() { name.into() } else { [&above, name].join(&b'/') })
        };
        if !is_readable(&victim.stat.attr) {
            return Some(Err(Loss::TooLarge));
        }
        let excluded = self.is_excluded(victim.key, victim.stat.attr.size, path);
        Some(if excluded { Err(Loss::Excluded) } else { room })
    }

    pub(super) fn link_in(
        &self,
        target: &Victim,
        dir: &Node,
        name: &[u8],
    ) -> Option<Result<IncomingId, Loss>> {
        let room = self.room_for(target, dir, name)?;
        Some(room.and_then(|store| store.link_in(&target.fd).map_err(|_| Loss::Failed)))
    }

    /// Tells what an inode had that has lost its last name.
    fn tell_leaving(&self, victim: &Victim) {
        if victim.was_last() {
            self.tell_xattrs(victim);
        }
    }

    fn tell_xattrs(&self, victim: &Victim) {
        // Without a name it can still be asked.
        if matches!(victim.stat.attr.kind, Kind::File | Kind::Dir)
            && let Ok(xattrs) = xattr::read_all(&victim.fd)
            && !xattrs.is_empty()
        {
            self.push(None, Op::Leave { key: victim.key, xattrs: Box::new(xattrs) });
        }
    }

    /// Tells what became of the content of an inode that loses its last name.
    fn tell_kept(&self, victim: &Victim, kept: Option<Result<IncomingId, Loss>>) {
        let kept = match kept {
            None => return,
            Some(Ok(id)) => Kept::Inode(id),
            Some(Err(loss)) => Kept::Lost(loss),
        };
        self.push(None, Op::Preserve { key: victim.key, kept });
        if let Kept::Inode(id) = kept {
            self.keeper.add(id, Some((victim.stat.fs.dev, victim.key)));
        }
    }

    /// Keeps the inode of a node reachable after its last name is gone; but where space is short,
    /// what nobody has open is freed before the call returns.
    pub(super) fn outlive(&self, victim: Victim, kept: Option<Result<IncomingId, Loss>>) {
        let Some(node) = victim.node else { return };
        let kept = matches!(kept, Some(Ok(_)));
        let used = node.peek_open(|open| open.handles > 0 || open.is_changing()) == Some(true);
        if kept || used || !self.is_full() {
            node.with_open(|open| {
                open.pinned = Some(Arc::new(victim.fd));
                open.kept = kept;
            });
            return;
        }
        let last = stat::fstat(&victim.fd).unwrap_or(victim.stat);
        node.with_open(|open| open.gone = Some(Box::new(last)));
        self.fds.remove(node.id);
    }

    pub(super) fn victim(&self, dir: &Arc<OwnedFd>, name: &[u8]) -> Result<Victim, Errno> {
        let fd = open_path(dir.as_fd(), name)?;
        // Whether this is the last name must not be what somebody remembers.
        let stat = match self.handles {
            Handles::Open => stat::fstat(&fd)?,
            Handles::Identify | Handles::None => stat::fstat_anew(&fd)?,
        };
        if self.is_foreign(&stat) {
            // What unlink and rename say of a mount point.
            return Err(Errno::BUSY);
        }
        let (key, _) = self.identity(fd.as_fd(), &stat)?;
        let node = self.nodes.find(stat.fs.dev, key);
        Ok(Victim { fd, stat, key, node })
    }
}
