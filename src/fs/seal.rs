//! Seals: fixing the content of a session as a version.
//!
//! Owns when a session's content counts as changed, where its digest comes from (the bytes as they
//! passed, or the file read again), and the digests that follow later. `close` waits for the seal,
//! which FLUSH asks for; RELEASE is the backstop and the session's end.
//!
//! # Order of steps
//! `content on the backing file → event → reply to FLUSH`. A crash before the commit leaves a file
//! whose times differ from the catalog's; a crash between a version and its late digest leaves
//! a version without one. The next start reads both again: the first becomes a version with origin
//! `external`, the second gets its digest.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::OFlags;

use super::channel::Channel;
use super::handle::{Fh, File, OpenMode, Session, SessionState};
use super::hashing::{Tail, Whole, open_to_read, read_marked};
use super::io::Fresh;
use super::mapped::MaybeMapped;
use super::node::{Node, OpenState};
use super::pending::{PATIENCE, Pending, Purpose, Work};
use super::privileges::as_writer;
use super::{Fs, NodeId};
use crate::catalog::event::Op;
use crate::sys::{Errno, stat, writeback};
use crate::types::{Attr, Caller, ContentHash, Inode, Kind, Origin, SessionId};

/// How often a file that changes while it is read is read again.
const ATTEMPTS: usize = 3;

impl Fs {
    /// A `close` of one of a handle's descriptors: seals what the session has written so far.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle. A seal that fails does not fail the close: the file is found
    /// changed by the next walk.
    pub fn flush(&self, fh: Fh) -> Result<(), Errno> {
        if fh.is_view() {
            return Ok(());
        }
        let file = self.files.get(fh)?;
        self.seal_file(&file, Why::Close);
        Ok(())
    }

    /// The end of an open file.
    pub fn release(&self, fh: Fh) {
        if fh.is_view() {
            return self.release_in_view(fh);
        }
        let Ok(file) = self.files.remove(fh) else { return };
        let node = Arc::clone(&file.node);
        let maybe_mapped = file.session.as_ref().filter(|_| file.is_mappable());
        let maybe_mapped = maybe_mapped.map(MaybeMapped::of);
        if maybe_mapped.is_none() {
            self.seal_file(&file, Why::End);
        }
        let session = file.session.as_ref().map(|session| session.id);
        if let Some(of) = &maybe_mapped {
            node.with_open(|open| open.mapped.push(of.maker.clone()));
        }
        drop(file);
        node.with_open(|open| {
            open.handles -= 1;
            open.writers.retain(|writer| writer.strong_count() > 0);
        });
        self.let_go(&node);
        match (maybe_mapped, session) {
            // Only after our own descriptor is closed the kernel can tell whether anybody can write.
            (Some(session), _) => self.end_when_unmapped(node, session),
            (None, Some(session)) => self.end_session(&node, session),
            (None, None) => {}
        }
    }

    /// Seals what an open file has at the end of the daemon; whether it can be stored to afterwards.
    pub(super) fn seal_at_end(&self, file: &Arc<File>) -> bool {
        let mappable = file.is_mappable();
        if mappable {
            // A mapping outlives the mount; the next start is to see what is stored to it.
            writeback::watch_stores(file.fd.as_fd());
        }
        self.seal_file(file, Why::Close);
        mappable
    }

    pub(super) fn end_session(&self, node: &Node, session: SessionId) {
        let _tree = self.tree.read();
        self.tell_end(node, session);
    }

    /// The caller holds the tree lock.
    fn tell_end(&self, node: &Node, session: SessionId) {
        // A session that is left may still write to a file that has no name any more.
        let others = node.peek_open(OpenState::is_changing);
        let left = (others != Some(true)).then_some(node.key);
        self.push(None, Op::End { session, left });
    }

    fn seal_file(&self, file: &File, why: Why) {
        // Before the session's lock, as everywhere.
        let _tree = self.tree.read();
        self.seal_open(file, why);
    }

    /// Seals what has been written so far to a node that is about to lose its last name: whoever writes
    /// goes on with that version. The caller holds the tree lock.
    pub(super) fn seal_leaving(&self, node: &Node) {
        for file in node.open_to_write() {
            self.seal_open(&file, Why::Close);
        }
    }

    /// The caller holds the tree lock.
    fn seal_open(&self, file: &File, why: Why) {
        let Some(session) = &file.session else { return };
        let mut state = session.state.lock();
        let _one = file.node.sealing.lock();
        if let Err(error) = self.seal(&file.node, file, session, &mut state, why) {
            tracing::warn!(%error, inode = file.node.key.ino, "cannot seal, a walk will");
            self.catalog.wish_reconcile();
        }
    }

    /// Seals if anything may have changed. The caller holds the tree lock, the session's and the
    /// node's for sealing.
    fn seal(
        &self,
        node: &Arc<Node>,
        file: &File,
        session: &Session,
        state: &mut SessionState,
        why: Why,
    ) -> Result<(), Errno> {
        let attr = stat::fstat(&file.fd)?.attr;
        let (alone, others, sealed, next) = node.with_open(|open| {
            let alone = open.epoch == state.epoch && open.mapped.is_empty();
            (alone, open.has_writers(Some(session.id)), open.sealed, open.newest_after(session.id))
        });
        let changed = if !session.kernel_writes && !session.mappable {
            state.touched
        } else if why == Why::End && others && !state.touched {
            // What others wrote is theirs to seal. After the last close only pages of a mapping come,
            // which we have seen.
            false
        } else {
            let told = attr.stamp() == state.baseline || Some(attr.stamp()) == sealed;
            state.touched || !told || self.may_hide_a_change(file, state, why)
        };
        if !changed {
            return Ok(());
        }
        let mark = session.append.then_some(state.began_with);
        let (attr, tail) = match proven(state, session, &attr, alone) {
            Some(tail) => (attr, Some(tail)),
            None => self.read_if_small(file, attr, state.prefix.as_ref().filter(|_| alone), mark),
        };
        let inode = Inode { key: node.key, attr };
        let digest = tail.as_ref().map(Tail::digest);
        let prefix = tail.as_ref().and_then(|tail| tail.beginning);
        // What this session was sealed with stays its version; who came later made the rest.
        let maker = next.filter(|_| state.sealed && !state.touched);
        let maker = maker.unwrap_or_else(|| session.maker());
        self.tell_replaced(node, maker.session);
        let origin = Origin::Write;
        let op = Op::Seal { inode, session: maker.session, digest, prefix, origin };
        self.push(Some(Arc::clone(&maker.writer)), op);
        // Beside an older writer, who may change what is hashed by now, nothing can be gone on from.
        let goes_on = session.append && !others;
        let number = node.with_open(|open| {
            open.sealed = Some(attr.stamp());
            open.seals += 1;
            open.sealed_by = Some(maker.session);
            open.tail = tail.clone().filter(|_| goes_on);
            open.seals
        });
        if digest.is_none() {
            let prefix = state.prefix.take().filter(|_| alone);
            let mark = mark.filter(|_| maker.session == session.id);
            let (session, size, pending) = (maker.session, attr.size, Pending::new());
            let sealed = Sealed { number, session, size, mark, pending, expected: None };
            self.digest_later(node, file, prefix, sealed);
        }
        state.touched = false;
        state.sealed = true;
        if others {
            self.hold(node);
        }
        state.baseline = attr.stamp();
        state.baseline_fresh = self.is_fresh(attr.stamp());
        state.prefix = tail.filter(|_| goes_on);
        Ok(())
    }

    /// Whether the content may have changed although size and times have not.
    fn may_hide_a_change(&self, file: &File, state: &SessionState, why: Why) -> bool {
        // A store to a page that was stored to before the last seal, whose ever that was, changes no
        // time; on tmpfs no store to a mapping does. Where the pages are ours, stores come to us as
        // writes.
        let unseen =
            file.is_mappable() && (file.node.was_sealed_since(state.seals) || self.silent_mappings);
        unseen || (state.baseline_fresh && why == Why::Close)
    }

    /// Tells of a content that is about to be changed, while it can still be read.
    pub(super) fn digest_before_write(&self, node: &Arc<Node>) {
        self.observe_before_write(node);
        self.settle_before_write(node);
    }

    /// Reads the content at once if there is little of it to read, or too much waits to be read. What
    /// cannot be read is a version without a digest all the same.
    fn read_if_small(
        &self,
        file: &File,
        attr: Attr,
        prefix: Option<&Tail>,
        mark: Option<u64>,
    ) -> (Attr, Option<Tail>) {
        let known = prefix.map_or(0, |tail| tail.length);
        let little = attr.size >= known && attr.size - known <= self.options.read_at_close;
        if !little && self.hashers.depth() < self.options.unread {
            return (attr, None);
        }
        let since = Instant::now();
        let read = || {
            let fd = open_to_read(&file.fd)?;
            for _ in 0..ATTEMPTS {
                let enough = |_| since.elapsed() > PATIENCE;
                if let Some(read) = read_marked(fd.as_fd(), prefix, mark, &enough)? {
                    return Ok((read.attr, Some(read.tail)));
                }
            }
            Ok((stat::fstat(&file.fd)?.attr, None))
        };
        read().unwrap_or_else(|error: Errno| {
            tracing::warn!(%error, inode = attr.ino, "cannot read for the digest");
            (attr, None)
        })
    }

    /// Has the digest of a version that is already committed computed in the background.
    pub(super) fn digest_later(
        &self,
        node: &Arc<Node>,
        file: &File,
        prefix: Option<Tail>,
        sealed: Sealed,
    ) {
        let pending = Arc::clone(&sealed.pending);
        node.with_open(|open| open.pending = Some(Arc::clone(&pending)));
        let fd = open_to_read(&file.fd);
        let (fs, node) = (self.weak.clone(), Arc::clone(node));
        self.hashers.spawn(Box::new(move || {
            if let Some(fs) = fs.upgrade() {
                let told = fd.and_then(|fd| fs.tell_digest(&node, &fd, prefix.as_ref(), &sealed));
                let tail = told.unwrap_or_else(|error| {
                    tracing::warn!(%error, inode = node.key.ino, "cannot read, a walk will");
                    fs.catalog.wish_reconcile();
                    None
                });
                if tail.is_none() {
                    let _tree = fs.tree.read();
                    let session = sealed.session;
                    fs.push(None, Op::Digest { session, read: None, prefix: None });
                }
                if sealed.mark.is_some() && tail.is_some() {
                    node.with_open(|open| {
                        open.tail = tail.filter(|_| !open.has_writers(Some(sealed.session)));
                    });
                }
            }
            node.with_open(|open| {
                if open.pending.as_ref().is_some_and(|now| Arc::ptr_eq(now, &pending)) {
                    open.pending = None;
                }
            });
            pending.finish();
        }));
    }

    /// Reads what was sealed and tells its digest; `None` if it is not that any more, because a writer
    /// has gone on, whose own seal has come or will.
    fn tell_digest(
        &self,
        node: &Node,
        fd: &OwnedFd,
        prefix: Option<&Tail>,
        sealed: &Sealed,
    ) -> Result<Option<Tail>, Errno> {
        let enough = || sealed.pending.is_given_up() || self.hashers.is_out_of_time();
        for _ in 0..ATTEMPTS {
            if let Some(Whole { tail, attr: read }) =
                read_marked(fd.as_fd(), prefix, sealed.mark, &|_| enough())?
            {
                let _tree = self.tree.read();
                let _one = node.sealing.lock();
                let attr = stat::fstat(fd)?.attr;
                if attr.stamp() == read.stamp() {
                    if !still_is(node, sealed, &attr) {
                        return Ok(None);
                    }
                    let digest = tail.digest();
                    if sealed.expected.is_some_and(|expected| expected != digest) {
                        tracing::error!(%digest, "a restored file is not what it was");
                    }
                    let read = Some((Inode { key: node.key, attr }, digest));
                    let (session, prefix) = (sealed.session, tail.beginning);
                    self.push(None, Op::Digest { session, read, prefix });
                    return Ok(Some(tail));
                }
            }
            if enough() || node.peek_open(|open| open.seals != sealed.number) == Some(true) {
                break;
            }
        }
        Ok(None)
    }

    /// Changes an inode but not its content, and tells the catalog with what the inode is then.
    ///
    /// Such a change moves the times by which a change of the content is seen, so the sessions of the
    /// node take note of it. The caller holds the tree lock.
    pub(super) fn change_inode<T>(
        &self,
        node: &Node,
        fd: &OwnedFd,
        times: Times,
        change: impl FnOnce() -> Result<T, Errno>,
        tell: impl FnOnce(Attr, T),
    ) -> Result<(), Errno> {
        let writers = node.open_to_write();
        let sessions = || writers.iter().filter_map(|file| file.session.as_ref());
        let mut states: Vec<_> = sessions().map(|session| session.state.lock()).collect();
        let _one = node.sealing.lock();
        let was = stat::fstat(fd)?.attr;
        let before = was.stamp();
        let result = change()?;
        // What is done is done: not every filesystem knows an inode that has lost its last name.
        let attr = stat::fstat(fd).map_or(was, |stat| stat.attr);
        let hides_writes = match times {
            Times::Set => sessions().any(|session| session.kernel_writes),
            Times::Kept => before.mtime_ns != attr.mtime.as_ns(),
        };
        // Where a write may have come in between, better read once too often.
        if !hides_writes {
            for state in states.iter_mut().filter(|state| state.baseline == before) {
                state.baseline = attr.stamp();
            }
            if node.peek_open(|open| open.sealed == Some(before)) == Some(true) {
                node.with_open(|open| open.sealed = Some(attr.stamp()));
            }
        }
        tell(attr, result);
        Ok(())
    }

    /// Runs `work`, which wants to know the content of a node or to change it, when no digest of it is
    /// on its way: now, by the thread that finishes it, or when that takes too long.
    pub fn when_digested(&self, node: NodeId, purpose: Purpose, work: Work) {
        let pending =
            self.node(node).ok().and_then(|n| n.peek_open(|o| o.pending.clone()).flatten());
        match pending {
            None => work(),
            Some(pending) => {
                if let Err(work) = self.hashers.waiting().wait(&pending, purpose, work) {
                    work();
                }
            }
        }
    }

    /// `truncate(2)`: a session of its own, from the change to its seal.
    pub(super) fn truncate(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        size: u64,
    ) -> Result<(), Errno> {
        if node.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        let writer = Self::writer(caller);
        self.digest_before_write(node);
        let _tree = self.tree.read();
        self.ensure_known(node);
        let fd = self.open_node(node, OFlags::WRONLY)?;
        node.with_open(|open| open.handles += 1);
        let result = (|| {
            let session =
                self.begin_session(node, &fd, OFlags::WRONLY, writer, Fresh::No, OpenMode::Direct)?;
            let id = session.id;
            let mut state = session.state.lock();
            let _one = node.sealing.lock();
            self.preserve(node);
            {
                let _as_writer = as_writer(caller, &fd)?;
                rustix::fs::ftruncate(&fd, size)?;
            }
            let fd = Channel::new(fd, OFlags::WRONLY);
            let file =
                File { node: Arc::clone(node), fd, session: None, backing: None, runs: false };
            state.hasher = None;
            state.touched = true;
            let sealed = self.seal(node, &file, &session, &mut state, Why::Close);
            if let Err(error) = sealed {
                tracing::warn!(%error, inode = node.key.ino, "cannot seal, the next walk will");
            }
            self.tell_end(node, id);
            Ok(())
        })();
        node.with_open(|open| open.handles -= 1);
        result
    }

    /// `ftruncate(2)` on an open file.
    pub(super) fn truncate_open(
        &self,
        caller: Caller,
        file: &File,
        size: u64,
    ) -> Result<(), Errno> {
        let session = file.session.as_ref().ok_or(Errno::INVAL)?;
        if session.append {
            self.preserve_now(&file.node);
        }
        let keeps_stream = {
            let state = session.state.lock();
            state.hasher.is_some() && state.hashed == size
        };
        let truncate = || {
            let _as_writer = as_writer(caller, &file.fd)?;
            rustix::fs::ftruncate(&file.fd, size)
        };
        if keeps_stream { truncate() } else { file.interfere(truncate) }
    }
}

/// Why a session is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// A descriptor was closed.
    Close,
    /// The last one was closed before, and nothing refers to the open file any more.
    End,
}

/// What a harmless change did to the modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Set it.
    Set,
    /// Left it alone.
    Kept,
}

/// A seal whose digest follows.
pub(super) struct Sealed {
    /// Which seal of the node it was.
    pub(super) number: u64,
    /// Size of the content.
    pub(super) size: u64,
    /// Whose content it is.
    pub(super) session: SessionId,
    /// The size with which the session began, if it only appends: the next one can go on from the digest.
    pub(super) mark: Option<u64>,
    /// The digest that follows.
    pub(super) pending: Arc<Pending>,
    /// What it should be, where that is known before.
    pub(super) expected: Option<ContentHash>,
}

/// Whether what was read now is what was sealed then: nobody has sealed since, and whoever is
/// writing has changed nothing yet.
fn still_is(node: &Node, sealed: &Sealed, attr: &Attr) -> bool {
    node.with_open(|open| {
        let quiet = !open.has_writers(Some(sealed.session)) || open.sealed == Some(attr.stamp());
        open.seals == sealed.number && attr.size == sealed.size && quiet
    })
}

/// The digest of the bytes as they passed, if they are provably the file.
fn proven(state: &SessionState, session: &Session, attr: &Attr, alone: bool) -> Option<Tail> {
    let hasher = state.hasher.as_ref()?;
    let whole = state.hashed == attr.size && alone && !session.mappable;
    whole.then(|| Tail {
        hasher: hasher.clone(),
        length: state.hashed,
        stamp: attr.stamp(),
        beginning: None,
    })
}
