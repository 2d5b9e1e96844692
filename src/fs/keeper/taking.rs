//! Making objects of what is nobody's any more.
//!
//! Owns the list of what waits for that. It is gone through in groups, each of which waits for one commit: who keeps
//! saving over his files is not to be faster than this. If he is, he waits until a group is done, or for a moment,
//! and brings less work to the catalog meanwhile: so the list stays bounded, but for what somebody still has open.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::catalog::event::{Op, Prefix};
use crate::catalog::{CatalogError, Reader, Unread};
use crate::fs::Fs;
use crate::fs::hashing::is_readable;
use crate::metrics::metrics;
use crate::store::Store;
use crate::store::objects::{Came, ReadIn, Taken};
use crate::sys::lease::{self, Writers};
use crate::sys::{Errno, stat};
use crate::types::{ContentHash, IncomingId, InodeKey};

/// How long what could not be taken in waits at first before it is tried again, and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Contents that become objects together, at most.
const GROUP: usize = 256;
/// Bytes of them after which the group is closed.
const GROUP_BYTES: u64 = 64 << 20;
/// Contents that may wait to be looked at, before those who bring more have to wait.
const MANY: usize = 16 * 1024;
/// For how long they wait each time, at most: a catalog on a slow disk can have a minute's work before it.
const MOMENT: Duration = Duration::from_secs(1);

/// What waits to become an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    id: IncomingId,
    whose: Whose,
    failed: Option<Failed>,
    /// Nobody has looked at it yet.
    is_new: bool,
}

/// When something could not be taken in, and how long it waits after that.
#[derive(Debug, Clone, Copy)]
struct Failed {
    at: Instant,
    pause: Duration,
}

impl Waits {
    pub(super) fn new(id: IncomingId, whose: Whose) -> Self {
        Self { id, whose, failed: None, is_new: true }
    }

    /// Whether it can be taken in at once.
    fn is_ours(&self) -> bool {
        self.whose == Whose::Ours && !self.pauses()
    }

    /// Whether it was tried in vain just now.
    fn pauses(&self) -> bool {
        self.failed.is_some_and(|failed| failed.at.elapsed() < failed.pause)
    }

    /// The same after it could not be taken in.
    fn again(self) -> Self {
        let [first, most] = PAUSES;
        let pause = self.failed.map_or(first, |failed| (failed.pause * 2).min(most));
        Self { failed: Some(Failed { at: Instant::now(), pause }), ..self }
    }
}

/// Who may still be changing what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Nobody: it is a copy.
    Ours,
    /// Users of the mount who have this inode (by device and key).
    Inode(u64, InodeKey),
    /// Perhaps users of a mount that is dead: the kernel still serves what they have open.
    Left,
}

/// What waits, and the keeper's signal.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    list: Mutex<List>,
    /// Some of what was on the list is being taken in.
    taking: AtomicBool,
    /// Something can be taken in at once.
    filled: Condvar,
    /// Some of what had come was looked at.
    looked_at: Condvar,
}

#[derive(Debug, Default)]
struct List {
    all: Vec<Waits>,
    /// How many have come that were not looked at, here or with who takes them in.
    new: usize,
}

impl Waiting {
    /// Appends something. If a great deal has come, this takes a moment.
    pub(super) fn push(&self, waits: Waits) {
        let mut list = self.list.lock();
        list.all.push(waits);
        list.new += 1;
        if waits.whose == Whose::Ours {
            self.filled.notify_one();
        }
        let is_too_much = |list: &mut List| list.new > MANY && self.taking.load(Ordering::Relaxed);
        if is_too_much(&mut list) {
            metrics().keep_waits.inc();
            self.looked_at.wait_while_for(&mut list, is_too_much, MOMENT);
        }
    }

    /// Whether anything could be taken in at once, or is.
    pub(super) fn is_at_work(&self) -> bool {
        let list = self.list.lock();
        self.taking.load(Ordering::Relaxed) || list.all.iter().any(Waits::is_ours)
    }

    /// Waits until something can be taken in at once, or so long.
    pub(super) fn wait(&self, most: Duration) {
        let mut list = self.list.lock();
        if !list.all.iter().any(Waits::is_ours) {
            self.filled.wait_for(&mut list, most);
        }
    }

    /// Has the thread look at once.
    pub(super) fn wake(&self) {
        self.filled.notify_one();
    }

    fn take(&self) -> Vec<Waits> {
        let mut list = self.list.lock();
        self.taking.store(true, Ordering::Relaxed);
        std::mem::take(&mut list.all)
    }

    /// Lets those go on who wait until these were looked at.
    fn done_with(&self, some: &[Waits]) {
        let new = some.iter().filter(|waits| waits.is_new).count();
        self.list.lock().new -= new;
        self.looked_at.notify_all();
    }

    fn put_back(&self, rest: Vec<Waits>) {
        let mut list = self.list.lock();
        list.all.extend(rest.into_iter().map(|waits| Waits { is_new: false, ..waits }));
        self.taking.store(false, Ordering::Relaxed);
        self.looked_at.notify_all();
    }
}

/// What was read, and is not an object yet.
struct Ready {
    waits: Waits,
    /// What it is, if anything.
    read: Option<ReadIn>,
    unread: Option<Unread>,
}

impl Ready {
    fn taken(&self) -> Option<Taken> {
        self.read.as_ref().map(|read| read.taken)
    }
}

/// Whether somebody who has it open or mapped can still change what was preserved.
fn has_writers(store: &Store, id: IncomingId) -> bool {
    store.open_incoming(id).is_ok_and(|fd| lease::writers(fd.as_fd()) == Writers::Some)
}

impl Fs {
    /// Makes objects of what is nobody's any more, and room for them.
    pub(super) fn take_in(&self, store: &Store) {
        let mut rest = Vec::new();
        let list = self.keeper.waiting.take();
        for some in list.chunks(GROUP) {
            if self.hashers.is_stopping() {
                rest.extend(some);
            } else {
                self.take_in_group(store, some, &mut rest);
            }
            self.keeper.waiting.done_with(some);
        }
        self.keeper.waiting.put_back(rest);
    }

    fn take_in_group(&self, store: &Store, some: &[Waits], rest: &mut Vec<Waits>) {
        let (free, used): (Vec<_>, Vec<_>) =
            some.iter().partition(|waits| self.is_free(store, waits));
        rest.extend(used);
        if free.is_empty() {
            return;
        }
        // Whose it is must be known by now.
        self.catalog.barrier();
        self.take_in_some(store, free, rest);
        self.make_room(store);
    }

    fn is_free(&self, store: &Store, waits: &Waits) -> bool {
        match waits.whose {
            _ if waits.pauses() => false,
            Whose::Ours => true,
            Whose::Inode(dev, key) => {
                self.nodes.find(dev, key).is_none() && !has_writers(store, waits.id)
            }
            Whose::Left => !has_writers(store, waits.id),
        }
    }

    fn take_in_some(&self, store: &Store, free: Vec<Waits>, rest: &mut Vec<Waits>) {
        let (mut group, mut bytes) = (Vec::new(), 0_u64);
        let lacking = self.unread(&free);
        for (waits, lacks) in free.into_iter().zip(lacking) {
            // What came before it may have got its digest since.
            let unread = lacks.and_then(|_| self.unread(&[waits]).pop().flatten());
            let ready = match self.read_in(store, waits, unread) {
                Ok(ready) => ready,
                Err(Errno::INTR) => {
                    rest.push(waits);
                    continue;
                }
                Err(error) => {
                    rest.push(failed(waits, error));
                    continue;
                }
            };
            bytes += ready.taken().map_or(0, |taken| taken.size);
            // What comes next may be compared with what has its digest from this.
            let is_last = ready.unread.is_some() || bytes >= GROUP_BYTES;
            group.push(ready);
            if is_last {
                self.name_group(store, std::mem::take(&mut group), rest);
                bytes = 0;
            }
        }
        self.name_group(store, group, rest);
    }

    fn read_in(&self, store: &Store, waits: Waits, unread: Option<Unread>) -> Result<Ready, Errno> {
        let came = if let Whose::Inode(..) = waits.whose { Came::AsInode } else { Came::AsCopy };
        let mark = unread.and_then(|version| version.before);
        // Whoever had it open may have made it larger than anybody can read.
        let attr = store.open_incoming(waits.id).and_then(|file| stat::fstat(&file));
        if attr.is_ok_and(|stat| !is_readable(&stat.attr)) {
            store.discard(waits.id);
        }
        let go_on = || !self.hashers.is_stopping();
        let read = match store.read_in(waits.id, came, mark, &go_on) {
            Err(Errno::NOENT) => None,
            read => read?,
        };
        Ok(Ready { waits, read, unread })
    }

    /// Waits for the disk, tells the catalog what each of them is, and then names them so.
    fn name_group(&self, store: &Store, mut group: Vec<Ready>, rest: &mut Vec<Waits>) {
        group.retain(|ready| {
            let synced = ready.read.as_ref().map_or(Ok(()), ReadIn::sync);
            rest.extend(synced.err().map(|error| failed(ready.waits, error)));
            synced.is_ok()
        });
        if group.is_empty() {
            return;
        }
        let _giving = self.keeper.giving.lock();
        for ready in &group {
            self.tell_ready(ready);
        }
        self.catalog.barrier();
        for ready in group {
            let Some(taken) = ready.taken() else { continue };
            match store.take_in(ready.waits.id, taken.hash) {
                Ok(()) => self.keeper.gives.store(true, Ordering::Relaxed),
                Err(error) => rest.push(failed(ready.waits, error)),
            }
        }
    }

    fn tell_ready(&self, ready: &Ready) {
        let Ready { waits, unread, .. } = ready;
        let taken = ready.taken();
        // A copy has a time of its own.
        let is_meant = |taken: Taken| unread.is_some_and(|v| v.mtime_ns == taken.mtime_ns);
        let original = match waits.whose {
            Whose::Inode(..) => true,
            Whose::Left => taken.is_some_and(is_meant),
            Whose::Ours => false,
        };
        let mark = unread.and_then(|version| version.before);
        let prefix = taken.and_then(|taken| Some(Prefix { size: mark?, hash: taken.beginning? }));
        self.tell_stored(waits.id, taken.map(|t| (t.hash, t.size)), original, prefix);
    }

    /// The versions without a digest of which these are the contents, if they are of any.
    fn unread(&self, some: &[Waits]) -> Vec<Option<Unread>> {
        let unread = self.catalog.read_committed(|reader: &Reader| {
            some.iter().map(|waits| reader.unread(waits.id)).collect()
        });
        unread.unwrap_or_else(|error: CatalogError| {
            tracing::warn!(%error, "cannot tell whose a content is");
            vec![None; some.len()]
        })
    }

    pub(super) fn tell_stored(
        &self,
        id: IncomingId,
        content: Option<(ContentHash, u64)>,
        original: bool,
        prefix: Option<Prefix>,
    ) {
        self.push(None, Op::Stored { id, content, original, prefix });
        if let Some((hash, _)) = content {
            self.keeper.spare(hash);
            // It is there again.
            self.keeper.untold.lock().retain(|gone| *gone != hash);
        }
    }
}

fn failed(waits: Waits, error: Errno) -> Waits {
    if waits.failed.is_none() {
        let id = waits.id.0;
        tracing::warn!(%error, id, "cannot take in what was preserved, will try again");
    }
    waits.again()
}
