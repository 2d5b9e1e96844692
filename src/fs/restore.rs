//! Bringing things back: what restore, undelete and rewind do to the tree.
//!
//! Owns the changes that do not come from the kernel. Each is one operation of the mount: it is
//! catalogued, it preserves what it displaces, and the kernel is told of it. Since the kernel has not
//! looked who asks, this does, with the kernel's own answers for that user.
//!
//! # Order of steps
//! `content and attributes to a file of the store → what it displaces is preserved → moved to its name →
//! events → the kernel is told`. A crash before the move leaves a file that the next start removes;
//! after it, one that the next walk finds.

mod attributes;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};

use super::channel::Channel;
use super::handle::File;
use super::node::Node;
use super::pending::Pending;
use super::remove::Victim;
use super::seal::Sealed;
use super::{Entry, Fs, NodeId};
use crate::catalog::event::{Op, Place};
use crate::config::OWN_DIR;
use crate::content::Wanted;
use crate::store::staging::Staged;
use crate::sys::creds::{Actor, AsUser};
use crate::sys::{Errno, stat, zfs};
use crate::types::path;
use crate::types::{ContentHash, Facts, Inode, Kind, Origin};

/// Why something was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backing filesystem, or the kernel for this user, refuses.
    #[error("{}", .0.kind())]
    Refused(#[from] Errno),
    /// The bytes are not those of the version.
    #[error("what was kept is not the version any more: its bytes have changed")]
    Damaged,
    /// There is nowhere to make a file.
    #[error("this mount keeps nothing (`-o keep=none`), so nothing can be restored in it")]
    NoStore,
}

/// A directory that was looked up, until this is dropped.
struct Looked<'f> {
    fs: &'f Fs,
    node: Arc<Node>,
    entry: Option<Entry>,
}

impl Drop for Looked<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            self.fs.forget(entry.node, 1);
        }
    }
}

impl Fs {
    /// Makes a file of a content and puts it in the place of whatever has the name, but a directory.
    ///
    /// Blocks are shared where the filesystem can; a large content is then read for its digest
    /// afterwards, like any other that the kernel wrote. Everything else is checked before it shows.
    ///
    /// # Errors
    /// `EISDIR` for the name of a directory, `EPERM` for Horace's own.
    pub fn restore_file(
        &self,
        actor: &Actor,
        path: &[u8],
        wanted: &Wanted<'_>,
        facts: &Facts,
    ) -> Result<(), RestoreError> {
        let store = self.keeping().ok_or(RestoreError::NoStore)?;
        let (dir, name) = self.reach(actor, path)?;
        let target = self.target(actor, &dir, name)?;
        if target.is_some_and(|target| target.stat.attr.kind == Kind::Dir) {
            return Err(Errno::ISDIR.into());
        }
        let staged = self.with_room(|| store.staging().begin())?;
        let digest = self.fill(&staged, wanted)?;
        attributes::apply(&staged, &attributes::allowed(actor, facts))?;
        self.put(actor, &dir, name, staged, digest, wanted)?;
        self.tell_kernel(&dir.node, name);
        Ok(())
    }

    /// Fills a file; returns its digest unless only its blocks were shared.
    fn fill(
        &self,
        staged: &Staged<'_>,
        wanted: &Wanted<'_>,
    ) -> Result<Option<ContentHash>, RestoreError> {
        let shared = wanted.content.file().filter(|_| wanted.size_bytes > 0).and_then(|file| {
            if self.magic == zfs::MAGIC {
                // A clone of what is not on the disk yet has been known to be wrong.
                let _ = rustix::fs::fdatasync(file);
            }
            staged.share(file, wanted.size_bytes).ok()
        });
        if shared.is_some() {
            if stat::fstat(staged)?.attr.size != wanted.size_bytes {
                return Err(RestoreError::Damaged);
            }
            if wanted.size_bytes > self.options.read_at_close {
                return Ok(None);
            }
        }
        let digest = match shared {
            Some(()) => staged.digest()?,
            None => self.with_room(|| {
                staged.copy(wanted.size_bytes, |buffer, at| wanted.content.read_at(buffer, at))
            })?,
        };
        let whole = stat::fstat(staged)?.attr.size == wanted.size_bytes;
        if !whole || wanted.hash.is_some_and(|known| known != digest) {
            return Err(RestoreError::Damaged);
        }
        Ok(Some(digest))
    }

    /// Moves a finished file to its name and tells of it.
    fn put(
        &self,
        actor: &Actor,
        dir: &Looked<'_>,
        name: &[u8],
        staged: Staged<'_>,
        digest: Option<ContentHash>,
        wanted: &Wanted<'_>,
    ) -> Result<(), RestoreError> {
        let writer = Self::writer(actor.caller());
        let _tree = self.tree.read();
        let dir_fd = self.path_fd(&dir.node)?;
        let target = self.find_victim(&dir_fd, name)?;
        if let Some(target) = &target {
            self.seal_victim(target);
        }
        let kept = target.as_ref().and_then(|target| self.link_in(target, &dir.node, name));
        let fd = match staged.move_to(dir_fd.as_fd(), name) {
            Ok(fd) => fd,
            Err(error) => {
                if let Some(target) = target {
                    self.let_stay(&target, kept);
                }
                return Err(error.into());
            }
        };
        self.ensure_known(&dir.node);
        let stat = stat::fstat(&fd)?;
        let (entry, node) = self.enter(fd.as_fd(), &stat)?;
        node.set_place(dir.node.id, name);
        node.known.store(true, std::sync::atomic::Ordering::Relaxed);
        let replaced = target.as_ref().map(Victim::replaced);
        let leaving = target.as_ref().and_then(Victim::leaving);
        let one = leaving.as_ref().map(|node| node.sealing.lock());
        if let Some(target) = target {
            self.tell_displaced(&target, kept);
            if target.was_last() {
                self.outlive(target, kept);
            }
        }
        let inode = Inode { key: node.key, attr: stat.attr };
        let at = Place { parent: dir.node.key, name: name.into() };
        self.push(Some(Arc::clone(&writer)), Op::Arrive { at, inode, replaced });
        drop(one);
        let (session, origin) = (self.new_session(), Origin::Restore);
        self.push(Some(writer), Op::Seal { inode, session, digest, prefix: None, origin });
        let number = node.with_open(|open| {
            // As long as there is something to remember it by.
            open.handles += 1;
            open.sealed = Some(stat.attr.stamp());
            open.seals += 1;
            open.seals
        });
        if digest.is_none() {
            let (size, pending, expected) = (wanted.size_bytes, Pending::new(), wanted.hash);
            let sealed = Sealed { number, session, size, mark: None, pending, expected };
            let fd = Channel::new(fd, OFlags::RDWR);
            let file =
                File { node: Arc::clone(&node), fd, session: None, backing: None, runs: false };
            self.digest_later(&node, &file, None, sealed);
        }
        node.with_open(|open| open.handles -= 1);
        self.push(None, Op::End { session, left: Some(node.key) });
        self.forget(entry.node, 1);
        Ok(())
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken.
    pub fn restore_dir(
        &self,
        actor: &Actor,
        path: &[u8],
        facts: &Facts,
    ) -> Result<(), RestoreError> {
        let (dir, name) = self.reach(actor, path)?;
        self.target(actor, &dir, name)?;
        let made = self.mkdir(actor.caller(), dir.node.id, name, 0o700, 0)?;
        let result = self.set_facts(actor, made.node, facts);
        self.forget(made.node, 1);
        self.tell_kernel(&dir.node, name);
        result
    }

    /// Makes a symlink to `to`.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken.
    pub fn restore_symlink(
        &self,
        actor: &Actor,
        path: &[u8],
        to: &[u8],
        facts: &Facts,
    ) -> Result<(), RestoreError> {
        let (dir, name) = self.reach(actor, path)?;
        self.target(actor, &dir, name)?;
        let made = self.symlink(actor.caller(), dir.node.id, name, to)?;
        let result = self.set_facts(actor, made.node, facts);
        self.forget(made.node, 1);
        self.tell_kernel(&dir.node, name);
        result
    }

    /// Makes a pipe, a socket or a device node; `rdev` is a device's number in the kernel's encoding.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken, `EPERM` for a device unless the actor is privileged.
    pub fn restore_special(
        &self,
        actor: &Actor,
        path: &[u8],
        kind: Kind,
        rdev: u32,
        facts: &Facts,
    ) -> Result<(), RestoreError> {
        if kind.is_device() && !actor.is_privileged() {
            return Err(Errno::PERM.into());
        }
        let (dir, name) = self.reach(actor, path)?;
        self.target(actor, &dir, name)?;
        let mode = kind.mode_bits() | 0o600;
        let made = self.mknod(actor.caller(), dir.node.id, name, mode, 0, rdev)?;
        let result = self.set_facts(actor, made.node, facts);
        self.forget(made.node, 1);
        self.tell_kernel(&dir.node, name);
        result
    }

    /// Gives what is there its former mode, owner, times and extended attributes, as far as the actor
    /// may set them.
    ///
    /// # Errors
    /// `EPERM` for who is not its owner.
    pub fn restore_attributes(
        &self,
        actor: &Actor,
        path: &[u8],
        facts: &Facts,
    ) -> Result<(), RestoreError> {
        self.check_way(actor, path)?;
        let looked = self.look_up(path)?;
        let attr = self.getattr(looked.node.id, None)?;
        if !actor.is_privileged() && attr.uid != actor.identity.uid {
            return Err(Errno::PERM.into());
        }
        self.set_facts(actor, looked.node.id, facts)?;
        if let (Some((parent, name)), Some(transport)) = (looked.node.place(), self.transport.get())
        {
            transport.forget_attributes(looked.node.id);
            transport.forget_name(parent, &name);
        }
        Ok(())
    }

    /// Takes a name away, of an empty directory or of anything else.
    ///
    /// # Errors
    /// `ENOTEMPTY`, `ENOENT`.
    pub fn remove_path(&self, actor: &Actor, path: &[u8]) -> Result<(), RestoreError> {
        let (dir, name) = self.reach(actor, path)?;
        let target = self.target(actor, &dir, name)?.ok_or(Errno::NOENT)?;
        match target.stat.attr.kind {
            Kind::Dir => self.rmdir(actor.caller(), dir.node.id, name)?,
            _ => self.unlink(actor.caller(), dir.node.id, name)?,
        }
        self.tell_kernel(&dir.node, name);
        Ok(())
    }

    /// Moves a name to one that is free.
    ///
    /// # Errors
    /// `EEXIST` if it is not.
    pub fn move_path(&self, actor: &Actor, from: &[u8], to: &[u8]) -> Result<(), RestoreError> {
        let (dir, name) = self.reach(actor, from)?;
        let (new_dir, new_name) = self.reach(actor, to)?;
        self.target(actor, &dir, name)?.ok_or(Errno::NOENT)?;
        self.target(actor, &new_dir, new_name)?;
        let flags = RenameFlags::NOREPLACE.bits();
        let (old, new) = ((dir.node.id, name), (new_dir.node.id, new_name));
        self.rename(actor.caller(), old, new, flags)?;
        self.tell_kernel(&dir.node, name);
        self.tell_kernel(&new_dir.node, new_name);
        Ok(())
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// `EEXIST` if that is taken.
    pub fn link_path(&self, actor: &Actor, from: &[u8], to: &[u8]) -> Result<(), RestoreError> {
        let (old_dir, old_name) = self.reach(actor, from)?;
        let source = self.target(actor, &old_dir, old_name)?.ok_or(Errno::NOENT)?;
        if !actor.is_privileged() && source.stat.attr.uid != actor.identity.uid {
            return Err(Errno::PERM.into());
        }
        let (dir, name) = self.reach(actor, to)?;
        self.target(actor, &dir, name)?;
        let looked = self.look_up(from)?;
        let made = self.link(actor.caller(), looked.node.id, dir.node.id, name)?;
        self.forget(made.node, 1);
        self.tell_kernel(&dir.node, name);
        Ok(())
    }

    /// The directory of a path, if the actor may change what is in it, and the last name.
    fn reach<'p>(
        &self,
        actor: &Actor,
        path: &'p [u8],
    ) -> Result<(Looked<'_>, &'p [u8]), RestoreError> {
        let (dir, name) = path::split(path);
        if path::components(path).next() == Some(OWN_DIR.as_bytes()) {
            return Err(Errno::PERM.into());
        }
        if name.is_empty() {
            return Err(Errno::BUSY.into());
        }
        self.check_way(actor, dir)?;
        Ok((self.look_up(dir)?, name))
    }

    fn look_up(&self, path: &[u8]) -> Result<Looked<'_>, RestoreError> {
        if path.is_empty() {
            let node = Arc::clone(self.nodes.root());
            return Ok(Looked { fs: self, node, entry: None });
        }
        let entry = self.walk_to(path)?;
        let looked = |node| Looked { fs: self, node, entry: Some(entry) };
        Ok(looked(self.node(entry.node)?))
    }

    /// Whether the actor gets to a path, without following a symlink.
    fn check_way(&self, actor: &Actor, path: &[u8]) -> Result<(), Errno> {
        let _identity = become_actor(actor)?;
        let path = if path.is_empty() { b"." } else { path };
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat2(&*self.root, path, flags, Mode::empty(), within).map(drop)
    }

    /// What has a name, if the actor may take that name away, or make one where there is none.
    fn target(
        &self,
        actor: &Actor,
        dir: &Looked<'_>,
        name: &[u8],
    ) -> Result<Option<Victim>, Errno> {
        let dir_fd = self.path_fd(&dir.node)?;
        let target = self.find_victim(&dir_fd, name)?;
        if actor.is_privileged() {
            return Ok(target);
        }
        let _identity = become_actor(actor)?;
        rustix::fs::accessat(&dir_fd, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?;
        let above = stat::fstat(&dir_fd)?.attr;
        let own = |uid: u32| uid == actor.identity.uid;
        let sticky = above.mode & libc::S_ISVTX != 0 && !own(above.uid);
        if sticky && target.as_ref().is_some_and(|target| !own(target.stat.attr.uid)) {
            return Err(Errno::PERM);
        }
        Ok(target)
    }

    fn find_victim(&self, dir: &Arc<OwnedFd>, name: &[u8]) -> Result<Option<Victim>, Errno> {
        match self.victim(dir, name) {
            Ok(victim) => Ok(Some(victim)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// No lock may be held.
    fn tell_kernel(&self, dir: &Node, name: &[u8]) {
        if let Some(transport) = self.transport.get() {
            transport.forget_name(dir.id, name);
            transport.forget_attributes(dir.id);
        }
    }

    fn set_facts(&self, actor: &Actor, node: NodeId, facts: &Facts) -> Result<(), RestoreError> {
        let facts = attributes::allowed(actor, facts);
        attributes::set(self, actor.caller(), node, &facts)?;
        Ok(())
    }
}

/// Makes this thread one that may do what the actor may; `None` where it may do everything.
fn become_actor(actor: &Actor) -> Result<Option<AsUser>, Errno> {
    if actor.is_privileged() {
        return Ok(None);
    }
    AsUser::become_user(&actor.identity).map(Some)
}
