//! The thread that makes objects of what was preserved, and makes room.
//!
//! Owns the list of what waits: a content that somebody may still be changing, or whose inode the kernel
//! still knows, waits until it is nobody's but history's. When space runs low the oldest objects go.
//!
//! # Order of steps
//! Taking in: `read → row → name among the objects`; giving up: `row → removal`. So a row without an
//! object is a damage, never what a crash leaves: that is content that waits to be taken in once more,
//! or an object that nobody knows.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Fs;
use crate::catalog::event::Op;
use crate::catalog::{CatalogError, Reader};
use crate::store::Store;
use crate::store::objects::Came;
use crate::store::pack::PackError;
use crate::sys::Errno;
use crate::sys::lease::{self, Writers};
use crate::types::{ContentHash, IncomingId, InodeKey};

/// How often it is looked at what waits, and at the free space.
const EVERY: Duration = Duration::from_millis(200);
/// Objects given up before the free space is looked at again.
const AT_ONCE: u32 = 16;

/// What waits to become an object.
#[derive(Debug, Clone, Copy)]
struct Waits {
    id: IncomingId,
    whose: Whose,
}

/// Who may still be changing what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Nobody: it is a copy.
    Ours,
    /// Users of the mount who have this inode (by device and key).
    Inode(u64, InodeKey),
    /// Perhaps users of a mount that is dead: the kernel still serves what they have open.
    Left,
}

/// The list, and the thread's signal.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    list: Mutex<Vec<Waits>>,
    /// Some of what was on the list is being taken in.
    taking: AtomicBool,
    signal: Condvar,
    /// There are objects to give up.
    gives: AtomicBool,
}

impl Keeper {
    /// Whether anything could be taken in at once, or is.
    fn is_at_work(&self) -> bool {
        let list = self.list.lock();
        self.taking.load(Ordering::Relaxed) || list.iter().any(|waits| waits.whose == Whose::Ours)
    }

    /// Has something taken in, once its inode (by device and key) is forgotten.
    pub(super) fn add(&self, id: IncomingId, inode: Option<(u64, InodeKey)>) {
        let whose = inode.map_or(Whose::Ours, |(dev, key)| Whose::Inode(dev, key));
        self.list.lock().push(Waits { id, whose });
        if whose == Whose::Ours {
            self.signal.notify_one();
        }
    }
}

/// Starts the thread, with what an earlier run has left; it ends with the filesystem.
pub(super) fn start(fs: &Arc<Fs>) -> std::io::Result<()> {
    let Some(store) = fs.store.clone() else { return Ok(()) };
    let known = fs.catalog.read(|reader: &mut Reader| reader.incoming()).unwrap_or_else(
        |error: CatalogError| {
            tracing::warn!(%error, "cannot tell what was preserved");
            Vec::new()
        },
    );
    store.staging().clear()?;
    let there = store.incoming()?;
    for (id, content) in known {
        store.skip_to(id);
        if !there.contains(&id) {
            // After a power cut the disk may know more than the catalog.
            let content = content.filter(|(hash, _)| store.open_object(*hash).is_ok());
            fs.tell_stored(id, content, Came::AsCopy);
        }
    }
    fs.keeper.gives.store(true, Ordering::Relaxed);
    fs.keeper.list.lock().extend(there.into_iter().map(|id| Waits { id, whose: Whose::Left }));
    let weak = Arc::downgrade(fs);
    std::thread::Builder::new().name("keeper".into()).spawn(move || watch(&weak, &store)).map(drop)
}

fn watch(weak: &Weak<Fs>, store: &Store) {
    loop {
        let Some(fs) = weak.upgrade() else { return };
        {
            let mut list = fs.keeper.list.lock();
            if !list.iter().any(|waits| waits.whose == Whose::Ours) {
                fs.keeper.signal.wait_for(&mut list, EVERY);
            }
        }
        fs.take_in(store);
        fs.make_room(store);
    }
}

/// Whether somebody who has it open or mapped can still change what was preserved.
fn has_writers(store: &Store, id: IncomingId) -> bool {
    store.open_incoming(id).is_ok_and(|fd| lease::writers(fd.as_fd()) == Writers::Some)
}

impl Fs {
    /// Tries again while history makes room on a disk that is full.
    pub(super) fn with_room<T>(
        &self,
        mut work: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        const PAUSE: Duration = Duration::from_millis(2);
        const PATIENCE: Duration = Duration::from_secs(2);
        let since = Instant::now();
        loop {
            match work() {
                Err(Errno::NOSPC)
                    if self.keeper.gives.load(Ordering::Relaxed) && since.elapsed() < PATIENCE =>
                {
                    self.keeper.signal.notify_one();
                    std::thread::sleep(PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Waits until what is nobody's any more is an object, so that what is said of it is known; but not
    /// for long.
    pub(super) fn settle_kept(&self) {
        const PAUSE: Duration = Duration::from_millis(5);
        const PATIENCE: Duration = Duration::from_millis(500);
        let since = Instant::now();
        while self.keeper.is_at_work() && since.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }

    /// Makes objects of what is nobody's any more.
    fn take_in(&self, store: &Store) {
        let list = {
            let mut list = self.keeper.list.lock();
            self.keeper.taking.store(true, Ordering::Relaxed);
            std::mem::take(&mut *list)
        };
        let is_free = |waits: &Waits| match waits.whose {
            Whose::Ours => true,
            Whose::Inode(dev, key) => {
                self.nodes.find(dev, key).is_none() && !has_writers(store, waits.id)
            }
            Whose::Left => !has_writers(store, waits.id),
        };
        let (free, mut rest): (Vec<_>, Vec<_>) = list.into_iter().partition(is_free);
        for waits in free {
            let inode = matches!(waits.whose, Whose::Inode(..));
            let came = if inode { Came::AsInode } else { Came::AsCopy };
            let go_on = || !self.hashers.is_stopping();
            let mut tell = |content| {
                self.tell_stored(waits.id, content, came);
                self.catalog.barrier();
            };
            match store.take_in(waits.id, came, &go_on, &mut tell) {
                Ok(()) => self.keeper.gives.store(true, Ordering::Relaxed),
                Err(Errno::NOENT) => self.tell_stored(waits.id, None, came),
                Err(Errno::INTR) => rest.push(waits),
                Err(error) => {
                    // It stays where it is, for the next start.
                    tracing::warn!(%error, id = waits.id.0, "cannot take in what was preserved");
                }
            }
        }
        self.keeper.list.lock().extend(rest);
        self.keeper.taking.store(false, Ordering::Relaxed);
    }

    fn tell_stored(&self, id: IncomingId, content: Option<(ContentHash, u64)>, came: Came) {
        let op = Op::Stored { id, content, original: came == Came::AsInode };
        self.push(None, op);
    }

    /// Gives up the oldest objects while there is little space.
    fn make_room(&self, store: &Store) {
        while self.is_full() && !self.hashers.is_stopping() {
            // What was given up and was packed takes space still.
            let freed = match self.free_packs(store) {
                Ok(freed) => freed,
                Err(PackError::Stopped) => return,
                Err(error) => {
                    return tracing::warn!(%error, "cannot give back the space of what was packed");
                }
            };
            if freed > 0 {
                continue;
            }
            let oldest = self.catalog.read(|reader: &mut Reader| reader.oldest_objects(AT_ONCE));
            let oldest: Vec<_> = match oldest {
                Ok(oldest) if !oldest.is_empty() => oldest,
                Ok(_) => return self.keeper.gives.store(false, Ordering::Relaxed),
                Err(error) => {
                    let error: CatalogError = error;
                    return tracing::warn!(%error, "cannot tell what to give up");
                }
            };
            let (count, bytes) = (oldest.len(), oldest.iter().map(|(_, size)| size).sum::<u64>());
            for (hash, _) in &oldest {
                self.push(None, Op::Dropped { hash: *hash });
            }
            self.catalog.barrier();
            for (hash, _) in oldest {
                if let Err(error) = store.remove(hash) {
                    return tracing::warn!(%error, %hash, "cannot give up an object");
                }
            }
            tracing::info!(count, bytes, "the disk is nearly full: gave up what was kept longest");
        }
    }
}
