//! Finding nodes: lookup, forget, attributes and links.
//!
//! Owns the way from a name to a node. A lookup opens the name once and asks everything of that one
//! descriptor, so that name, attributes and identity belong together.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::node::{Found, Node};
use super::{Entry, Fh, Fs, Lasts, NodeId, identify};
use crate::config::OWN_DIR;
use crate::sys::stat::{self, Stat};
use crate::sys::{Errno, handle::FileHandle};
use crate::types::{Attr, InodeKey, Kind};

/// Whether a descriptor that was opened for a lookup is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Yes: something will probably be asked of the node soon.
    Fd,
    /// No: this is one of many in a listing.
    Nothing,
}

impl Fs {
    /// Looks a name up in a directory and counts it for [`Fs::forget`].
    ///
    /// # Errors
    /// `ENOENT`, `EXDEV` for a directory on which another filesystem is mounted; the backing
    /// filesystem's.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> Result<Entry, Errno> {
        if Self::is_hidden(parent, name) {
            return Ok(self.views_top());
        }
        if parent.is_view() {
            return self.lookup_in_view(parent, name);
        }
        let parent = self.node(parent)?;
        self.enter_name(&parent, name, Keep::Fd).map(|(entry, _)| entry)
    }

    /// Looks a node up by its id alone, and counts it: a file handle that the kernel gave away (NFS, or
    /// `name_to_handle_at` on the mount) names it long after the kernel forgot it.
    ///
    /// # Errors
    /// `ESTALE` if there is no such inode, or nobody knows where; the backing filesystem's.
    pub fn lookup_self(&self, id: NodeId) -> Result<Entry, Errno> {
        if id.is_view() {
            return self.lookup_view_again(id);
        }
        let Some(node) = self.nodes.get(id) else { return self.find_again(id) };
        let fd = self.path_fd(&node)?;
        let stat = stat::fstat(&fd)?;
        self.enter(fd.as_fd(), &stat).map(|(entry, _)| entry)
    }

    /// Looks up the directory that a directory is in, and counts it.
    ///
    /// # Errors
    /// `ESTALE` if there is no such directory; the backing filesystem's.
    pub fn lookup_parent(&self, id: NodeId) -> Result<Entry, Errno> {
        if id.is_view() {
            return self.lookup_above_view(id);
        }
        let dir = self.path_fd(&*self.node(id)?)?;
        let fd = open_path(dir.as_fd(), b"..")?;
        let stat = stat::fstat(&fd)?;
        let root = self.nodes.root();
        if (stat.fs.dev, stat.attr.ino) == (root.dev, root.key.ino) {
            let generation = root.generation();
            let (node, lasts) = (root.id, Lasts::AsSet);
            return Ok(Entry { node, generation, attr: stat.attr, lasts });
        }
        self.enter(fd.as_fd(), &stat).map(|(entry, _)| entry)
    }

    /// The catalog knows where an inode is; the way there tells whether it is that one.
    fn find_again(&self, id: NodeId) -> Result<Entry, Errno> {
        let paths = self.catalog.read(|reader| reader.paths_of_inode(id.0)).map_err(|error| {
            tracing::warn!(%error, inode = id.0, "the catalog cannot tell where an inode is");
            Errno::STALE
        })?;
        let found = paths.iter().find_map(|path| {
            let entry = self.walk_to(path).ok()?;
            if entry.node == id {
                return Some(entry);
            }
            self.forget(entry.node, 1);
            None
        });
        found.ok_or(Errno::STALE)
    }

    /// Looks up a path from the root and counts its last name.
    pub(super) fn walk_to(&self, path: &[u8]) -> Result<Entry, Errno> {
        let mut at = Arc::clone(self.nodes.root());
        let mut last = None;
        for name in crate::types::path::components(path) {
            let next = self.enter_name(&at, name, Keep::Nothing);
            if let Some(Entry { node, .. }) = last {
                self.forget(node, 1);
            }
            let (entry, node) = next?;
            (at, last) = (node, Some(entry));
        }
        last.ok_or(Errno::STALE)
    }

    pub(super) fn enter_name(
        &self,
        parent: &Arc<Node>,
        name: &[u8],
        keep: Keep,
    ) -> Result<(Entry, Arc<Node>), Errno> {
        let dir = self.path_fd(parent)?;
        let fd = open_path(dir.as_fd(), name)?;
        let stat = stat::fstat(&fd)?;
        if self.is_foreign(&stat) {
            return Err(self.refuse(parent, name));
        }
        let (entry, node) = self.enter(fd.as_fd(), &stat)?;
        node.set_place(parent.id, name);
        if keep == Keep::Fd && !self.fds.holds(node.id) {
            self.fds.put(node.id, Arc::new(fd));
        }
        Ok((entry, node))
    }

    /// Makes a node of an open inode and counts a lookup.
    pub(super) fn enter(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(Entry, Arc<Node>), Errno> {
        let (key, handle) = self.identity(fd, stat)?;
        let found = Found { key, dev: stat.fs.dev, kind: stat.attr.kind, handle };
        let node = self.nodes.enter(found);
        let (generation, lasts) = (node.generation(), Lasts::AsSet);
        let entry = Entry { node: node.id, generation, attr: stat.attr, lasts };
        Ok((entry, node))
    }

    /// The identity of what has a name in a directory.
    pub(super) fn identify_name(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(InodeKey, Option<FileHandle>), Errno> {
        let fd = open_path(dir, name)?;
        let stat = stat::fstat(&fd)?;
        identify(fd.as_fd(), &stat, self.handles, self.root_fs.dev)
    }

    /// The identity of an open inode; what a cached descriptor keeps alive need not be asked again.
    pub(super) fn identity(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
    ) -> Result<(InodeKey, Option<FileHandle>), Errno> {
        if let Some(node) = self.nodes.peek(stat.fs.dev, stat.attr.ino)
            && node.dev == stat.fs.dev
            && node.kind == stat.attr.kind
            && self.fds.holds(node.id)
        {
            return Ok((node.key, node.handle.clone()));
        }
        identify(fd, stat, self.handles, self.root_fs.dev)
    }

    /// Takes back lookups that were counted for a node.
    pub fn forget(&self, node: NodeId, count: u64) {
        if node.is_view() {
            return self.views.forget(node, count);
        }
        if self.nodes.forget(node, count) {
            self.fds.remove(node);
        }
    }

    /// The attributes of a node, by an open file of it if there is one.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn getattr(&self, node: NodeId, fh: Option<Fh>) -> Result<Attr, Errno> {
        if node.is_view() {
            return self.getattr_in_view(node);
        }
        // Directories have handles of another table, so the number alone does not tell.
        let node = self.node(node)?;
        if let Some(file) = fh.and_then(|fh| self.files.get(fh).ok())
            && file.node.key == node.key
        {
            return Ok(node.as_users_see(stat::fstat(&file.fd)?.attr));
        }
        let mut attr = node.as_users_see(self.stat_node(&node)?.attr);
        if node.id == NodeId::ROOT && attr.nlink > 2 && self.hides_a_directory() {
            // Where directories are counted, programs may rely on there being as many.
            attr.nlink -= 1;
        }
        Ok(attr)
    }

    fn hides_a_directory(&self) -> bool {
        let own = rustix::fs::statat(self.root(), OWN_DIR, AtFlags::SYMLINK_NOFOLLOW);
        own.is_ok_and(|stat| Kind::from_mode(stat.st_mode) == Some(Kind::Dir))
    }

    pub(super) fn stat_node(&self, node: &Arc<Node>) -> Result<Stat, Errno> {
        match self.path_fd(node).and_then(|fd| stat::fstat(&fd)) {
            // Unlinked, and its descriptor evicted: any open file of it will do.
            Err(Errno::STALE) => {
                if let Some(gone) = node.peek_open(|open| open.gone.clone()).flatten() {
                    return Ok(*gone);
                }
                let file = self.files.all().into_iter().find(|file| Arc::ptr_eq(&file.node, node));
                stat::fstat(&file.ok_or(Errno::STALE)?.fd)
            }
            result => result,
        }
    }

    /// The target of a symlink, byte for byte.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn readlink(&self, node: NodeId) -> Result<Box<[u8]>, Errno> {
        if node.is_view() {
            return self.readlink_in_view(node);
        }
        read_link(self.path_fd(&*self.node(node)?)?.as_fd())
    }

    /// Figures of the backing filesystem.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn statfs(&self) -> Result<rustix::fs::StatVfs, Errno> {
        rustix::fs::fstatvfs(&*self.root)
    }
}

/// Opens a name without following it and without any right to its content.
pub(super) fn open_path(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The target of the symlink that is open as `fd`.
pub(super) fn read_link(fd: BorrowedFd<'_>) -> Result<Box<[u8]>, Errno> {
    Ok(rustix::fs::readlinkat(fd, "", Vec::new())?.into_bytes().into())
}

/// Flags for a call that means the descriptor itself.
pub(super) const ITSELF: AtFlags = AtFlags::EMPTY_PATH;
