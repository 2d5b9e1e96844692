//! Making inodes and names: create, mknod, mkdir, symlink and link.
//!
//! Owns how new inodes get their owner and mode: they are made by a thread that has the caller's user,
//! group and umask, so the backing filesystem applies setgid directories and default ACLs itself.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::io::{Fresh, Opened, Registrar};
use super::lookup::{Keep, open_path};
use super::node::Node;
use super::privileges::within_limits;
use super::seal::Times;
use super::{Entry, Fs, NodeId};
use crate::catalog::event::{Born, Op, Place};
use crate::sys::creds::AsCaller;
use crate::sys::{Errno, process, stat};
use crate::types::{Caller, Inode, Kind};

/// A file that was created and opened in one step.
#[derive(Debug)]
pub struct Created {
    /// The file, counted as a lookup.
    pub entry: Entry,
    /// The open file.
    pub opened: Opened,
}

/// A name that was just made. Unless it is [kept](NewName::keep) it goes again: what fails must have
/// done nothing, and the catalog has not heard of it.
struct NewName<'a> {
    fs: &'a Fs,
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    how: AtFlags,
}

impl<'a> NewName<'a> {
    fn of(fs: &'a Fs, dir: BorrowedFd<'a>, name: &'a [u8], kind: Kind) -> Self {
        let how = if kind == Kind::Dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Self { fs, dir, name, how }
    }

    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for NewName<'_> {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::unlinkat(self.dir, self.name, self.how) {
            tracing::warn!(%error, "what could not be made whole stays: a reconcile follows");
            self.fs.catalog.wish_reconcile();
        }
    }
}

/// The inode that a name is to get.
enum New<'a> {
    Node(u32, u32),
    Dir(u32),
    Symlink(&'a [u8]),
}

impl Fs {
    /// Creates and opens a regular file; opens it if it exists and `O_EXCL` is not among the flags.
    ///
    /// `mode` has the permission bits before the umask; `flags` are those of `open(2)`.
    ///
    /// # Errors
    /// `EPERM` for the name that is Horace's own, `EROFS` in a view; the backing filesystem's.
    #[expect(
        clippy::too_many_arguments,
        reason = "these are the arguments of open(2) and umask(2)"
    )]
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        umask: u32,
        flags: i32,
        registrar: &dyn Registrar,
    ) -> Result<Created, Errno> {
        self.admit()?;
        let dir_node = self.parent_of_new(parent, name)?;
        let writer = Self::writer(caller);
        process::set_thread_umask(umask)?;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let how = self.backing_flags(flags) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let tree = self.tree.read();
        let dir = self.path_fd(&dir_node)?;
        let made = {
            let _caller = AsCaller::become_caller(caller)?;
            rustix::fs::openat(&*dir, name, how, Mode::from_raw_mode(mode & 0o7777))
        };
        let fd = match made {
            Ok(fd) => fd,
            Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {
                // It came to be around the mount since the kernel looked.
                drop(tree);
                let (entry, _) = self.enter_name(&dir_node, name, Keep::Fd)?;
                let opened = self.open(caller, entry.node, flags.bits().cast_signed(), registrar);
                if opened.is_err() {
                    self.forget(entry.node, 1);
                }
                return Ok(Created { entry, opened: opened? });
            }
            Err(error) => return Err(error),
        };
        let made = NewName::of(self, dir.as_fd(), name, Kind::File);
        let stat = stat::fstat(&fd)?;
        let (entry, node) = self.enter(fd.as_fd(), &stat)?;
        made.keep();
        self.ensure_known(&dir_node);
        node.set_place(parent, name);
        node.known.store(true, std::sync::atomic::Ordering::Relaxed);
        let inode = Inode { key: node.key, attr: stat.attr };
        let at = Place { parent: dir_node.key, name: name.into() };
        self.push(Some(Arc::clone(&writer)), Op::Create { at, inode, born: Born::Bare });
        let opened = self.open_file(&node, fd, flags, Some(writer), Fresh::Created, registrar);
        if opened.is_err() {
            self.forget(entry.node, 1);
            // It is there and known, and nobody will close it, so nobody but a walk will look at its content.
            self.catalog.wish_reconcile();
        }
        Ok(Created { entry, opened: opened? })
    }

    /// Makes a file, fifo, socket or device node. `mode` has type and permission bits, `rdev` the
    /// kernel's encoding of a device number.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn mknod(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        umask: u32,
        rdev: u32,
    ) -> Result<Entry, Errno> {
        process::set_thread_umask(umask)?;
        self.make(caller, parent, name, &New::Node(mode, rdev))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn mkdir(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> Result<Entry, Errno> {
        process::set_thread_umask(umask)?;
        self.make(caller, parent, name, &New::Dir(mode))
    }

    /// Makes a symlink to `target`, byte for byte.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn symlink(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        target: &[u8],
    ) -> Result<Entry, Errno> {
        self.make(caller, parent, name, &New::Symlink(target))
    }

    fn make(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &[u8],
        new: &New<'_>,
    ) -> Result<Entry, Errno> {
        let dir_node = self.parent_of_new(parent, name)?;
        let writer = Self::writer(caller);
        let _tree = self.tree.read();
        let dir = self.path_fd(&dir_node)?;
        {
            let _caller = AsCaller::become_caller(caller)?;
            match *new {
                New::Node(mode, rdev) => rustix::fs::mknodat(
                    &*dir,
                    name,
                    FileType::from_raw_mode(mode),
                    Mode::from_raw_mode(mode & 0o7777),
                    stat::device_from_kernel(rdev),
                )?,
                New::Dir(mode) => {
                    rustix::fs::mkdirat(&*dir, name, Mode::from_raw_mode(mode & 0o7777))?;
                }
                New::Symlink(target) => rustix::fs::symlinkat(target, &*dir, name)?,
            }
        }
        let kind = if matches!(new, New::Dir(_)) { Kind::Dir } else { Kind::File };
        let (fd, entry, node) = self.enter_new(&dir_node, dir.as_fd(), name, kind)?;
        let born = match (new, entry.attr.kind) {
            (New::Symlink(target), _) => Born::Target((*target).into()),
            (_, Kind::File) => Born::Empty,
            _ => Born::Bare,
        };
        let inode = Inode { key: node.key, attr: entry.attr };
        let at = Place { parent: dir_node.key, name: name.into() };
        self.push(Some(writer), Op::Create { at, inode, born });
        self.fds.put(node.id, Arc::new(fd));
        Ok(entry)
    }

    /// Gives an inode another name.
    ///
    /// # Errors
    /// As [`Fs::create`].
    pub fn link(
        &self,
        caller: Caller,
        node: NodeId,
        new_parent: NodeId,
        new_name: &[u8],
    ) -> Result<Entry, Errno> {
        Self::may_move(node, new_parent)?;
        let dir_node = self.parent_of_new(new_parent, new_name)?;
        let source = self.node(node)?;
        let writer = Self::writer(caller);
        let _tree = self.tree.read();
        let dir = self.path_fd(&dir_node)?;
        let fd = self.path_fd(&source)?;
        self.ensure_known(&source);
        let mut linked = None;
        let link = || {
            // The magic link reaches the inode itself, also if that is a symlink.
            let (inode, follow) = (stat::proc_name(&fd), AtFlags::SYMLINK_FOLLOW);
            {
                let _caller = within_limits(caller)?;
                rustix::fs::linkat(rustix::fs::CWD, inode, &*dir, new_name, follow)?;
            }
            self.enter_new(&dir_node, dir.as_fd(), new_name, Kind::File)
        };
        self.change_inode(&source, &fd, Times::Kept, link, |attr, (_, mut entry, node)| {
            entry.attr = attr;
            let at = Place { parent: dir_node.key, name: new_name.into() };
            self.push(Some(writer), Op::Link { at, inode: Inode { key: node.key, attr } });
            linked = Some(entry);
        })?;
        linked.ok_or(Errno::IO)
    }

    /// The directory in which a name is to be made, if it may be.
    pub(super) fn parent_of_new(&self, parent: NodeId, name: &[u8]) -> Result<Arc<Node>, Errno> {
        if Self::is_hidden(parent, name) {
            return Err(Errno::PERM);
        }
        Self::may_change(parent)?;
        self.node(parent)
    }

    /// Refuses to change what is in a view.
    pub(super) fn may_change(node: NodeId) -> Result<(), Errno> {
        if node.is_view() { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Refuses names that would lead from a view out of it or into it: to programs it is another
    /// filesystem.
    pub(super) fn may_move(from: NodeId, to: NodeId) -> Result<(), Errno> {
        if from.is_view() == to.is_view() { Ok(()) } else { Err(Errno::XDEV) }
    }

    /// The node of a name that was just made; the caller holds the tree lock.
    fn enter_new(
        &self,
        dir_node: &Arc<Node>,
        dir: BorrowedFd<'_>,
        name: &[u8],
        kind: Kind,
    ) -> Result<(OwnedFd, Entry, Arc<Node>), Errno> {
        let made = NewName::of(self, dir, name, kind);
        let fd = open_path(dir, name)?;
        let stat = stat::fstat(&fd)?;
        let (entry, node) = self.enter(fd.as_fd(), &stat)?;
        made.keep();
        self.ensure_known(dir_node);
        node.set_place(dir_node.id, name);
        node.known.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok((fd, entry, node))
    }
}
