//! Looking at one name: what it stands for, and telling the catalog.
//!
//! Owns the reading of what a name stands for, and the moment in which that is told: it is looked at once
//! more and handed over while no operation of the mount is under way, and not at all for what somebody is
//! changing, whose seal will tell. Which names are looked at is for others to say.

use std::cell::Cell;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::hashing::{Whole, open_to_read, read_marked};
use super::lookup::{open_path, read_link};
use super::node::Node;
use super::reconcile::{Counts, Pacer};
use super::{Fs, identify};
use crate::catalog::event::{Found, Op, Place};
use crate::sys::Errno;
use crate::sys::lease::{self, Writers};
use crate::sys::{stat, writeback};
use crate::types::{Inode, InodeKey, Kind, Stamp};

/// How often a name that changes while it is looked at is looked at again.
const ATTEMPTS: usize = 3;

/// When the content of a file is read that has a name where the catalog knows none, or other times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Always: nobody knows what happened to it.
    Always,
    /// If it does not have the size and the modification time of its digest: it is known that it was not
    /// written.
    IfChanged,
}

/// How names are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'c> {
    pub(super) counts: &'c Counts,
    pub(super) reading: Reading,
    /// Everything else has been looked at: what had a name before and was not found is nowhere.
    pub(super) is_late: bool,
    /// What says how fast; there is no limit without it.
    pub(super) pacer: Option<&'c Pacer<'c>>,
}

impl<'c> Look<'c> {
    /// At names of which nothing more is known.
    pub(super) fn new(counts: &'c Counts, pacer: Option<&'c Pacer<'c>>) -> Self {
        Self { counts, reading: Reading::Always, is_late: false, pacer }
    }

    /// Counts bytes that were read, and waits as the limits want it; whether to go on.
    fn read(&self, bytes: u64) -> bool {
        self.counts.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pacer.is_none_or(|pacer| pacer.read(bytes))
    }
}

impl Fs {
    /// Looks at one name, reads what it stands for, and tells the catalog, unless an operation of the
    /// mount is about to.
    pub(super) fn observe(&self, dir: &OwnedFd, parent: InodeKey, name: &[u8]) {
        self.observe_by(Look::new(&self.reconcile.counts, None), dir, parent, name);
    }

    pub(super) fn observe_by(&self, look: Look<'_>, dir: &OwnedFd, parent: InodeKey, name: &[u8]) {
        let Ok(c_name) = CString::new(name) else { return };
        for _ in 0..ATTEMPTS {
            let Ok((inode, found)) = self.examine(look, dir, name) else { return };
            self.catalog.wait_for_room();
            let _tree = self.tree.write();
            let Ok(now) = stat::lstat_at(dir.as_fd(), &c_name) else { return };
            let file = inode.attr.kind == Kind::File;
            if now.attr.ino != inode.key.ino || (file && now.attr.stamp() != inode.attr.stamp()) {
                continue;
            }
            let busy = self.nodes.find(now.fs.dev, inode.key).is_some_and(|node| is_busy(&node));
            let found = if file && busy { Found::Unread } else { found };
            let at = Place { parent, name: name.into() };
            self.push_observed(Op::Observe { at, inode, found, origin: self.origin() });
            return;
        }
    }

    /// Whether exactly this inode has a name.
    pub(super) fn has_name(&self, dir: &OwnedFd, name: &[u8], key: InodeKey) -> bool {
        self.identify_name(dir.as_fd(), name).is_ok_and(|(found, _)| found == key)
    }

    /// How far a file can be what the catalog knows of it.
    fn known_size(&self, key: InodeKey) -> Option<u64> {
        if !self.imported.load(Ordering::Relaxed) {
            return None;
        }
        self.catalog.read_committed(|reader| reader.known_size(key)).ok().flatten()
    }

    /// Whether the catalog has a digest for a file of this size and modification time, or somebody is
    /// about to tell one.
    fn has_digest(&self, inode: &Inode) -> bool {
        if self.nodes.find_anywhere(inode.key).is_some_and(|node| is_busy(&node)) {
            return true;
        }
        let known = self.catalog.read_committed(|reader| reader.by_inode(inode.key));
        known.ok().flatten().is_some_and(|known| {
            known.hash.is_some()
                && (known.size, known.mtime_ns) == (inode.attr.size, inode.attr.mtime.as_ns())
        })
    }

    fn examine(&self, look: Look<'_>, dir: &OwnedFd, name: &[u8]) -> Result<(Inode, Found), Errno> {
        let fd = open_path(dir.as_fd(), name)?;
        let stat = stat::fstat(&fd)?;
        if self.is_foreign(&stat) {
            return Err(Errno::XDEV);
        }
        let (key, _) = identify(fd.as_fd(), &stat, self.handles, self.root_fs.dev)?;
        let unread = Inode { key, attr: stat.attr };
        match stat.attr.kind {
            Kind::Symlink => Ok((unread, Found::Target(read_link(fd.as_fd())?))),
            Kind::File if look.reading == Reading::IfChanged && self.has_digest(&unread) => {
                Ok((unread, Found::Unread))
            }
            Kind::File => {
                let reader = open_to_read(&fd).inspect_err(|_| {
                    look.counts.errors.fetch_add(1, Ordering::Relaxed);
                })?;
                look.counts.read_files.fetch_add(1, Ordering::Relaxed);
                // Perhaps by a mapping that has outlived its mount, of which nobody tells.
                let is_mapped = lease::writers(reader.as_fd()) == Writers::Some;
                let broken_off = Cell::new(false);
                let enough = |bytes| {
                    broken_off.set(!look.read(bytes));
                    broken_off.get()
                };
                let mark = self.known_size(key).filter(|size| *size < stat.attr.size);
                for _ in 0..ATTEMPTS {
                    let watched = is_mapped.then(|| watch_stores(reader.as_fd())).transpose()?;
                    let read = read_marked(reader.as_fd(), None, mark, &enough)?;
                    if broken_off.get() {
                        return Err(Errno::INTR);
                    }
                    let read =
                        read.filter(|read| watched.is_none_or(|stamp| stamp == read.attr.stamp()));
                    if let Some(Whole { tail, attr }) = read {
                        let found = Found::Content(tail.digest(), tail.beginning);
                        return Ok((Inode { key, attr }, found));
                    }
                }
                Ok((unread, Found::Unread))
            }
            Kind::Dir if look.is_late => Ok((unread, Found::Heir)),
            _ => Ok((unread, Found::Unread)),
        }
    }

    /// While a directory is catalogued for the first time, a small file that is about to be changed
    /// is catalogued first, so that its history begins with what it was.
    pub(super) fn observe_before_write(&self, node: &Arc<Node>) {
        if self.imported.load(Ordering::Relaxed) {
            return;
        }
        let known = self.catalog.read_committed(|reader| reader.by_inode(node.key));
        if !matches!(known, Ok(None)) {
            return;
        }
        let small = self.stat_node(node).is_ok_and(|s| s.attr.size <= self.options.read_at_close);
        let place = node.place().and_then(|(parent, name)| Some((self.nodes.get(parent)?, name)));
        let (true, Some((parent, name))) = (small, place) else { return };
        {
            let _tree = self.tree.read();
            self.ensure_known(&parent);
        }
        if let Ok(fd) = self.path_fd(&parent) {
            self.observe(&fd, parent.key, &name);
        }
    }
}

/// Has what is stored to mappings of a file show in its times from now on, and returns these: if they are the
/// same after the content was read, no store has come in between that could be followed by one that moves them
/// no more.
fn watch_stores(fd: BorrowedFd<'_>) -> Result<Stamp, Errno> {
    let stamp = || Ok(stat::fstat(fd)?.attr.stamp());
    let age_ns = crate::clock::now_ns().saturating_sub(stamp()?.ctime_ns);
    // Times may lie in the future.
    if (0..writeback::UNDER_WAY_NS).contains(&age_ns) {
        let rest_ns = writeback::UNDER_WAY_NS - age_ns;
        std::thread::sleep(Duration::from_nanos(rest_ns.unsigned_abs()));
    }
    let before = stamp()?;
    writeback::watch_stores(fd);
    Ok(before)
}

/// Whether somebody is changing the content, so that their seal will tell.
pub(super) fn is_busy(node: &Node) -> bool {
    node.peek_open(|open| open.is_changing() || open.pending.is_some()) == Some(true)
}
