//! Changing attributes.
//!
//! Owns setattr in all its parts. The kernel has already decided that the caller may; what it cannot
//! decide, such as clearing setuid on a chown, the backing filesystem does as it always does.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid};

use super::lookup::ITSELF;
use super::node::Node;
use super::privileges::as_writer;
use super::seal::Times;
use super::{Fh, Fs, NodeId};
use crate::catalog::event::Op;
use crate::sys::{Errno, stat, xattr};
use crate::types::{Attr, Caller, Inode, Timestamp, Writer, Xattrs};

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This one.
    At(Timestamp),
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

impl Fs {
    /// Changes attributes of a node, its size by the open file if one is given.
    ///
    /// A change of the size must not come here before [`Fs::when_digested`].
    ///
    /// # Errors
    /// The backing filesystem's. With several changes at once, those before the failing one stay.
    pub fn setattr(
        &self,
        caller: Caller,
        node: NodeId,
        fh: Option<Fh>,
        set: &SetAttr,
    ) -> Result<Attr, Errno> {
        Self::may_change(node)?;
        let node = self.node(node)?;
        let open = fh.and_then(|fh| self.files.get(fh).ok());
        let open = open.filter(|file| Arc::ptr_eq(&file.node, &node) && file.session.is_some());
        if let Some(size) = set.size {
            match &open {
                Some(file) => self.truncate_open(caller, file, size)?,
                None => self.truncate(caller, &node, size)?,
            }
        }
        if *set == SetAttr::default() {
            self.take_privileges(caller, &node)?;
        } else if *set != (SetAttr { size: set.size, ..SetAttr::default() }) {
            self.set_inode(caller, &node, set)?;
        }
        match open {
            Some(file) => Ok(node.as_users_see(stat::fstat(&file.fd)?.attr)),
            None => self.getattr(node.id, None),
        }
    }

    fn set_inode(&self, caller: Caller, node: &Arc<Node>, set: &SetAttr) -> Result<(), Errno> {
        let writer = Self::writer(caller);
        let fd = self.path_fd(node)?;
        let _tree = self.tree.read();
        self.ensure_known(node);
        let times = if set.mtime.is_some() { Times::Set } else { Times::Kept };
        // A mode changes an ACL.
        let before = set.mode.and_then(|_| xattr::read_all(&fd).ok()).filter(|all| !all.is_empty());
        let tell = |attr, ()| {
            self.push_attr(node, attr, before, writer);
        };
        self.change_inode(node, &fd, times, || apply(caller, &fd, set), tell)
    }
}

impl Fs {
    /// Tells of new attributes, unless the inode has no name any more by which they could be seen.
    pub(super) fn push_attr(
        &self,
        node: &Node,
        attr: Attr,
        before: Option<Xattrs>,
        writer: Arc<Writer>,
    ) {
        if node.peek_open(|open| open.pinned.is_some()) != Some(true) {
            let (inode, before) = (Inode { key: node.key, attr }, before.map(Box::new));
            self.push(Some(writer), Op::Attr { inode, before });
        }
    }
}

fn apply(caller: Caller, fd: &OwnedFd, set: &SetAttr) -> Result<(), Errno> {
    if set.uid.is_some() || set.gid.is_some() {
        let _as_writer = as_writer(caller, fd)?;
        let (uid, gid) = (set.uid.map(Uid::from_raw), set.gid.map(Gid::from_raw));
        rustix::fs::chownat(fd, "", uid, gid, ITSELF)?;
    }
    if let Some(mode) = set.mode {
        rustix::fs::chmod(stat::proc_name(fd), Mode::from_raw_mode(mode & 0o7777))?;
    }
    if set.atime.is_some() || set.mtime.is_some() {
        let times =
            Timestamps { last_access: timespec(set.atime), last_modification: timespec(set.mtime) };
        rustix::fs::utimensat(fd, "", &times, ITSELF)?;
    }
    Ok(())
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
        Some(SetTime::Now) => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
        Some(SetTime::At(time)) => Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() },
    }
}
