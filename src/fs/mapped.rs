//! Files that are closed but still mapped for writing.
//!
//! With passthrough a shared mapping belongs to the backing file: stores go on after the last close,
//! and no message tells of them. The kernel knows, though, that somebody can still write, and tells
//! through leases. Owns the list of such files and the thread that asks again until the last mapping
//! is gone, and then seals what it left. Until then a version that may still change has no digest.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::OFlags;

use super::handle::{Maker, Session};
use super::hashing::{Reading, is_readable, read_digest, untimed};
use super::node::Node;
use super::{Fs, NodeId};
use crate::catalog::event::Op;
use crate::sys::lease::{self, Writers};
use crate::sys::{Errno, stat, writeback};
use crate::types::{Inode, Origin, SessionId, Stamp};

/// How soon something that looks like a mapping is looked at again.
const SOON: Duration = Duration::from_millis(10);
/// How long something must look like a mapping to be one: the kernel gives up a closed file some time
/// after it has told us.
const SURELY: Duration = Duration::from_millis(250);
/// How often a mapping is asked for that stays.
const EVERY: Duration = Duration::from_millis(250);

/// A session that is over, but for a mapping that may be left of it.
#[derive(Debug, Clone)]
pub(super) struct MaybeMapped {
    pub(super) maker: Maker,
    /// Size and times of the content when it was last told.
    told: Stamp,
    /// The session has changed the content, so stores need not have moved the times again.
    wrote: bool,
    /// The times were so young that stores need not have moved them either.
    is_fresh: bool,
    /// The node's seals when the session began: a store before a later one may hide those after it.
    seals: u64,
}

impl MaybeMapped {
    pub(super) fn of(session: &Session) -> Self {
        let state = session.state.lock();
        Self {
            maker: session.maker(),
            told: state.baseline,
            wrote: state.sealed || state.touched,
            is_fresh: state.baseline_fresh,
            seals: state.seals,
        }
    }
}

/// An entry of the list.
#[derive(Debug)]
struct Mapped {
    node: Arc<Node>,
    of: MaybeMapped,
    /// When it was put on the list.
    listed: Instant,
    /// What was seen of it.
    seen: Seen,
}

/// What was seen of a session on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing, as it was not looked at yet.
    Nothing,
    /// No mapping, or another session beside which none would show.
    NoMapping,
    /// What looks like a mapping, since then.
    Likely(Instant),
    /// A mapping.
    Mapping,
}

impl Mapped {
    fn new(node: Arc<Node>, of: MaybeMapped) -> Self {
        Self { node, of, listed: Instant::now(), seen: Seen::Nothing }
    }
}

/// The list, and the thread's signal.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Held while the list is gone through. Lock order: before the list's.
    looking: Mutex<()>,
    list: Mutex<Vec<Mapped>>,
    signal: Condvar,
}

impl Fs {
    /// Whether something may be stored to by a mapping that has outlived its open file.
    pub(super) fn has_mapped(&self) -> bool {
        !self.mapped.list.lock().is_empty()
    }
}

/// Starts the thread; it ends with the filesystem.
pub(super) fn start(fs: &Arc<Fs>) -> std::io::Result<()> {
    let weak = Arc::downgrade(fs);
    std::thread::Builder::new().name("mapped".into()).spawn(move || watch(&weak)).map(|_| ())
}

fn watch(weak: &Weak<Fs>) {
    let mut pause = EVERY;
    loop {
        let Some(fs) = weak.upgrade() else { return };
        {
            let mut list = fs.mapped.list.lock();
            let waits = list.iter().all(|mapped| mapped.seen != Seen::Nothing);
            if waits {
                fs.mapped.signal.wait_for(&mut list, pause);
            }
        }
        pause = fs.look_at_mapped();
    }
}

/// Seals what is still mapped, at the daemon's end; whether there is any.
pub(super) fn finish(fs: &Fs) -> bool {
    // The thread may be looking, with the list in its hands.
    let _looking = fs.mapped.looking.lock();
    let list = std::mem::take(&mut *fs.mapped.list.lock());
    for mapped in &list {
        if let Ok(fd) = fs.open_mapped(&mapped.node) {
            // The next start is to see what is stored to it.
            writeback::watch_stores(fd.as_fd());
        }
        if let Err(error) = fs.seal_mapped(mapped, Digest::Now) {
            tracing::warn!(%error, inode = mapped.node.key.ino, "cannot seal, the next walk will");
        }
        fs.stop_watching(mapped);
    }
    !list.is_empty()
}

/// What is known of who may still write to a closed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nobody, or it cannot be found out.
    Nobody,
    /// A mapping.
    Mapping,
    /// A session, so a mapping beside it would not show.
    Session,
}

impl Fs {
    /// Ends a session that could be mapped, once it is not any more. The node has it among those that
    /// may be.
    pub(super) fn end_when_unmapped(&self, node: Arc<Node>, of: MaybeMapped) {
        if self.writers_left(&node) == Left::Nobody {
            let now = self.stat_node(&node).map(|stat| stat.attr);
            let last = node.peek_open(|open| open.sealed).flatten();
            let told = now
                .as_ref()
                .is_ok_and(|attr| attr.stamp() == of.told || Some(attr.stamp()) == last);
            // Not before: until the mapping was gone somebody could seal beside it.
            let may_hide = of.wrote || of.is_fresh || node.was_sealed_since(of.seals);
            if told && !may_hide && !self.silent_mappings {
                return self.end_mapped(&node, of.maker.session);
            }
            let small = now.is_ok_and(|attr| attr.size <= self.options.read_at_close);
            let mapped = Mapped::new(Arc::clone(&node), of.clone());
            if small && self.seal_mapped(&mapped, Digest::Now).is_ok() {
                return self.end_mapped(&node, of.maker.session);
            }
        }
        self.keep_watching(Mapped::new(node, of));
        self.mapped.signal.notify_one();
    }

    /// Puts a session on the list. Whose mapping is left cannot be found out, so one session answers
    /// for all of a file: the last that has written.
    fn keep_watching(&self, mut mapped: Mapped) {
        let mut list = self.mapped.list.lock();
        let same = list.iter().position(|other| other.node.key == mapped.node.key);
        let other = same.map(|index| {
            let mut other = list.swap_remove(index);
            let rank = |mapped: &Mapped| (mapped.of.wrote, mapped.of.maker.session);
            if rank(&other) > rank(&mapped) {
                std::mem::swap(&mut other, &mut mapped);
            }
            (mapped.listed, mapped.seen) = (Instant::now(), Seen::Nothing);
            other
        });
        list.push(mapped);
        drop(list);
        if let Some(other) = other {
            self.stop_watching(&other);
        }
    }

    fn end_mapped(&self, node: &Node, session: SessionId) {
        node.with_open(|open| open.mapped.retain(|maker| maker.session != session));
        self.let_go(node);
        self.end_session(node, session);
    }

    fn stop_watching(&self, mapped: &Mapped) {
        self.end_mapped(&mapped.node, mapped.of.maker.session);
    }

    fn writers_left(&self, node: &Node) -> Left {
        if node.peek_open(|open| open.has_writers(None)) == Some(true) {
            return Left::Session;
        }
        match self.open_mapped(node) {
            Ok(fd) if lease::writers(fd.as_fd()) == Writers::Some => Left::Mapping,
            _ => Left::Nobody,
        }
    }

    /// Opens a file for reading, without waiting for anybody to give a lease back.
    fn open_mapped(&self, node: &Node) -> Result<OwnedFd, Errno> {
        untimed(OFlags::RDONLY | OFlags::NONBLOCK, |flags| self.open_node(node, flags))
    }

    /// Whether a closed session of a node may have left a mapping, or had until a moment ago.
    pub fn may_be_mapped(&self, node: NodeId) -> bool {
        let mapped =
            self.node(node).ok().and_then(|node| node.peek_open(|open| !open.mapped.is_empty()));
        mapped == Some(true)
    }

    /// Seals what was mapped until a moment ago, for somebody who asks for it, and waits until it is
    /// known what is mapped.
    pub fn settle_mapped(&self) {
        /// The end of a file that is closed comes a moment after the close.
        const MOMENT: Duration = Duration::from_millis(2);
        // Somebody may be opening and closing all the time.
        let until = Instant::now() + 2 * SURELY;
        loop {
            self.look_at_mapped();
            let unclear = |mapped: &Mapped| match mapped.seen {
                Seen::Nothing | Seen::Likely(_) => true,
                Seen::NoMapping => mapped.listed.elapsed() < SURELY,
                Seen::Mapping => false,
            };
            if !self.mapped.list.lock().iter().any(unclear) || Instant::now() > until {
                return;
            }
            std::thread::sleep(MOMENT);
        }
    }

    /// Tells what a mapping that is gone has left in a small file, for somebody who is about to change
    /// it. As a rule the thread has come first.
    pub(super) fn settle_before_write(&self, node: &Arc<Node>) {
        if node.peek_open(|open| !open.mapped.is_empty()) != Some(true) {
            return;
        }
        let Some(_looking) = self.mapped.looking.try_lock() else { return };
        let mapped = {
            let mut list = self.mapped.list.lock();
            let index = list.iter().position(|mapped| mapped.node.key == node.key);
            index.map(|index| list.swap_remove(index))
        };
        let Some(mapped) = mapped else { return };
        let small =
            || self.stat_node(node).is_ok_and(|s| s.attr.size <= self.options.read_at_close);
        if self.writers_left(node) == Left::Nobody && small() && self.is_told(&mapped) {
            self.stop_watching(&mapped);
        } else {
            self.keep_watching(mapped);
        }
    }

    /// Goes through the list once and returns when to come again.
    fn look_at_mapped(&self) -> Duration {
        let _looking = self.mapped.looking.lock();
        let list = std::mem::take(&mut *self.mapped.list.lock());
        let mut pause = EVERY;
        for mut mapped in list {
            mapped.seen = match (self.writers_left(&mapped.node), mapped.seen) {
                (Left::Nobody, _) if self.is_told(&mapped) => {
                    self.stop_watching(&mapped);
                    continue;
                }
                (Left::Nobody | Left::Session, _) => Seen::NoMapping,
                (Left::Mapping, Seen::Nothing | Seen::NoMapping) => Seen::Likely(Instant::now()),
                (Left::Mapping, Seen::Likely(since)) if since.elapsed() >= SURELY => {
                    // If that fails, the end of the mapping tells all the same.
                    let _ = self.seal_mapped(&mapped, Digest::WhenUnmapped);
                    Seen::Mapping
                }
                (Left::Mapping, seen) => seen,
            };
            if matches!(mapped.seen, Seen::Likely(_)) {
                pause = SOON;
            }
            self.keep_watching(mapped);
        }
        pause
    }

    /// Tells what a mapping that is gone has left; `false` if that must be tried again.
    fn is_told(&self, mapped: &Mapped) -> bool {
        match self.seal_mapped(mapped, Digest::Now) {
            // Without a name there is nothing left to tell of.
            Ok(()) | Err(Errno::STALE) => true,
            Err(Errno::AGAIN | Errno::BUSY) => false,
            Err(error) => {
                tracing::warn!(%error, inode = mapped.node.key.ino, "cannot read, a walk will");
                self.catalog.wish_reconcile();
                true
            }
        }
    }

    /// Whether reading a file is in vain: a session has begun, or there is no time left.
    fn is_rewritten(&self, node: &Node) -> bool {
        node.peek_open(|open| open.has_writers(None)) == Some(true) || self.hashers.is_out_of_time()
    }

    /// Tells what a mapping has left, or that it may be changing the content.
    ///
    /// # Errors
    /// The backing filesystem's; `EAGAIN` if the content changes too fast to be read, `EBUSY` while
    /// a session is at work.
    fn seal_mapped(&self, mapped: &Mapped, digest: Digest) -> Result<(), Errno> {
        let node = &mapped.node;
        let fd = self.open_mapped(node)?;
        // Without a lock: reading may take long.
        let read = match digest {
            Digest::WhenUnmapped => None,
            Digest::Now => match read_digest(fd.as_fd(), None, &|_| self.is_rewritten(node))? {
                Reading::Stable(read) => Some(*read),
                // It will be no better the next time.
                Reading::Torn if !is_readable(&stat::fstat(&fd)?.attr) => None,
                Reading::Torn => return Err(Errno::AGAIN),
            },
        };
        let _tree = self.tree.read();
        let _one = node.sealing.lock();
        let attr = stat::fstat(&fd)?.attr;
        if read.as_ref().is_some_and(|(_, read)| read.stamp() != attr.stamp()) {
            return Err(Errno::AGAIN);
        }
        let (told, busy) = node.with_open(|open| {
            // Stores to pages that the session itself has changed show in no time.
            let told = !mapped.of.wrote
                && [open.sealed, Some(mapped.of.told)].contains(&Some(attr.stamp()));
            (told, open.has_writers(None) || open.pending.is_some())
        });
        if busy {
            // What is there by now is for that session to tell first.
            return Err(Errno::BUSY);
        }
        if told && read.is_none() && !self.silent_mappings {
            return Ok(());
        }
        let inode = Inode { key: node.key, attr };
        let digest = read.map(|(tail, _)| tail.digest());
        let Maker { session, writer } = mapped.of.maker.clone();
        self.tell_replaced(node, session);
        node.with_open(|open| {
            open.sealed = Some(attr.stamp());
            open.seals += 1;
            open.sealed_by = Some(session);
        });
        self.push(
            Some(writer),
            Op::Seal { inode, session, digest, prefix: None, origin: Origin::Write },
        );
        if digest.is_none() {
            // It comes by a seal, not by itself: the catalog need not remember the session for it.
            self.push(None, Op::Digest { session, read: None, prefix: None });
        }
        Ok(())
    }
}

/// When the digest of what a mapping leaves is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    /// At once: the mapping is gone.
    Now,
    /// Not yet: it would not be true for long.
    WhenUnmapped,
}
