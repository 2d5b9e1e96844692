//! The thread that makes objects of what was preserved, and makes room.
//!
//! A content that somebody may still be changing, or whose inode the kernel still knows, waits until it is
//! nobody's but history's (`taking`). Owns the one way in which contents go, for a policy or to make room.
//!
//! # Order of steps
//! Taking in: `read → disk → row → name among the objects`. Giving up: `row → its commit → removal`. So a row
//! without an object is a damage, never what a crash leaves: that is content that waits to be taken in
//! once more, or an object of which the catalog does not know. The start after it adopts these: what was
//! being given up is readable again until it is given up again. Only where the catalog cannot be written
//! because the disk is full do objects go before the commit: it is told as soon as it can be, and should
//! that be never, a read says that the object is missing.

mod taking;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Fs;
use super::pressure::Pressure;
use crate::catalog::event::{Op, Packing};
use crate::catalog::{self, CatalogError, Reader};
use crate::store::Store;
use crate::sys::Errno;
use crate::types::{ContentHash, IncomingId, InodeKey};
use taking::{Waiting, Waits, Whose};

/// How often it is looked at what waits, and at the free space.
const EVERY: Duration = Duration::from_millis(200);

/// What the thread works for.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    waiting: Waiting,
    /// What an earlier run has left was not looked at yet.
    has_left: AtomicBool,
    /// There are objects to give up.
    pub(super) gives: AtomicBool,
    /// Somebody waits for room.
    pub(super) is_urgent: AtomicBool,
    /// Some version is pinned.
    pub(super) has_pins: AtomicBool,
    /// Held while an object comes or goes, until the catalog has been told.
    giving: Mutex<()>,
    /// Lock order: after `giving`.
    spared: Mutex<Spared>,
    /// Objects that went before the catalog could be told.
    untold: Mutex<Vec<ContentHash>>,
    /// How far making room has come.
    pub(super) pressure: Mutex<Pressure>,
    /// Held by the prune that runs.
    pub(super) pruning: Mutex<()>,
    /// No prune may go on.
    pub(super) stops_pruning: AtomicBool,
}

/// Contents that came to be needed while somebody makes a plan of what is to go.
#[derive(Debug, Default)]
struct Spared {
    plans: u32,
    contents: HashSet<ContentHash>,
}

/// While this is there, what comes to be needed is not given up.
pub(super) struct Planning<'k>(&'k Keeper);

impl Drop for Planning<'_> {
    fn drop(&mut self) {
        let mut spared = self.0.spared.lock();
        spared.plans -= 1;
        if spared.plans == 0 {
            spared.contents = HashSet::new();
        }
    }
}

/// What is done where the catalog cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untold {
    /// Nothing is given up.
    Stays,
    /// It is given up and told later: somebody needs the room.
    Goes,
}

/// Why contents were not given up.
#[derive(Debug, thiserror::Error)]
pub enum GiveUpError {
    /// The catalog cannot be written.
    #[error("the catalog cannot be told")]
    Untold,
    /// An object cannot be removed.
    #[error("cannot remove the object {hash}")]
    Remove {
        /// Which.
        hash: ContentHash,
        /// The filesystem's reason.
        source: Errno,
    },
}

impl Keeper {
    /// Whether anything could be taken in at once, or is.
    fn is_at_work(&self) -> bool {
        self.has_left.load(Ordering::Relaxed) || self.waiting.is_at_work()
    }

    /// Begins to plan what is to go, before the catalog is looked at.
    pub(super) fn plan(&self) -> Planning<'_> {
        self.spared.lock().plans += 1;
        Planning(self)
    }

    /// Has no plan made before give up a content, of which the catalog knows by now that it is needed.
    pub(super) fn spare(&self, hash: ContentHash) {
        let mut spared = self.spared.lock();
        if spared.plans > 0 {
            spared.contents.insert(hash);
        }
    }

    /// Waits for what is under way; what comes after the hashers have stopped is left for the next start.
    pub(super) fn stop(&self) {
        drop(self.giving.lock());
    }

    /// Has something taken in, once its inode (by device and key) is forgotten.
    pub(super) fn add(&self, id: IncomingId, inode: Option<(u64, InodeKey)>) {
        let whose = inode.map_or(Whose::Ours, |(dev, key)| Whose::Inode(dev, key));
        self.waiting.push(Waits::new(id, whose));
    }
}

/// Starts the thread, with what an earlier run has left; it ends with the filesystem.
pub(super) fn start(fs: &Arc<Fs>) -> std::io::Result<()> {
    let Some(store) = fs.store.clone() else { return Ok(()) };
    let known = fs.catalog.read(|reader: &Reader| reader.incoming()).unwrap_or_else(
        |error: CatalogError| {
            tracing::warn!(%error, "cannot tell what was preserved");
            Vec::new()
        },
    );
    store.staging().clear()?;
    let there = store.incoming()?;
    known.iter().for_each(|(id, _)| store.skip_to(*id));
    let missing: Vec<_> = known.into_iter().filter(|(id, _)| !there.contains(id)).collect();
    let pins = fs.catalog.read(|reader: &Reader| reader.pins());
    let has_pins = pins.is_ok_and(|pins: Vec<_>| !pins.is_empty());
    fs.keeper.has_pins.store(has_pins, Ordering::Relaxed);
    fs.keeper.gives.store(true, Ordering::Relaxed);
    for id in there {
        // What still has a name goes no further, before anybody looks at its times.
        if store.let_go_if_linked(id).unwrap_or(false) {
            fs.tell_stored(id, None, false, None);
        } else {
            fs.keeper.waiting.push(Waits::new(id, Whose::Left));
        }
    }
    fs.keeper.has_left.store(true, Ordering::Relaxed);
    let weak = Arc::downgrade(fs);
    let work = move || {
        if let Some(fs) = weak.upgrade() {
            fs.repair(&store, &missing);
        }
        watch(&weak, &store);
    };
    std::thread::Builder::new().name("keeper".into()).spawn(work).map(drop)
}

fn watch(weak: &Weak<Fs>, store: &Store) {
    loop {
        let Some(fs) = weak.upgrade() else { return };
        fs.keeper.waiting.wait(EVERY);
        fs.take_in(store);
        if fs.keeper.has_left.load(Ordering::Relaxed) {
            fs.look_again(store);
            fs.keeper.has_left.store(false, Ordering::Relaxed);
        }
        fs.make_room(store);
    }
}

impl Fs {
    /// Tries again while history makes room on a disk that is full.
    pub(super) fn with_room<T>(
        &self,
        mut work: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        const PAUSE: Duration = Duration::from_millis(2);
        const PATIENCE: Duration = Duration::from_secs(30);
        let since = Instant::now();
        loop {
            match work() {
                Err(Errno::NOSPC)
                    if self.keeper.gives.load(Ordering::Relaxed) && since.elapsed() < PATIENCE =>
                {
                    if !self.is_full() {
                        // There is room by now, or it is something else that is used up.
                        return work();
                    }
                    self.keeper.is_urgent.store(true, Ordering::Relaxed);
                    self.keeper.waiting.wake();
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
        if let Some(store) = self.keeping() {
            store.discard_rest();
        }
        let since = Instant::now();
        while self.keeper.is_at_work() && since.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until what an earlier run has left was taken in, but for what somebody still uses.
    pub(super) fn settle_left(&self, is_enough: impl Fn() -> bool) {
        const PAUSE: Duration = Duration::from_millis(5);
        while self.keeper.has_left.load(Ordering::Relaxed) && !is_enough() {
            std::thread::sleep(PAUSE);
        }
    }

    /// Brings catalog and store together after a crash: `missing` is what the catalog takes for waiting,
    /// and is not there.
    fn repair(&self, store: &Store, missing: &[catalog::Awaited]) {
        if !self.catalog.past().was_orderly {
            for byte in 0..=u8::MAX {
                if let Err(error) = self.adopt(store, byte) {
                    tracing::warn!(error, "cannot look for objects that nobody has told of");
                }
            }
        }
        if self.is_rebuilt || self.is_other_tree || self.lacks_the_newest(store) {
            self.compare_with_store_or_say(store);
        }
        for (id, content) in missing {
            // After a power cut the disk may know more than the catalog.
            let content = content.filter(|(hash, _)| store.open_object(*hash).is_ok());
            self.tell_stored(*id, content, false, None);
        }
    }

    /// Has what is not in the store any more say so, if that is older than the catalog.
    pub(super) fn compare_if_older(&self) {
        if let Some(store) = &self.store
            && self.lacks_the_newest(store)
        {
            self.compare_with_store_or_say(store);
        }
    }

    fn compare_with_store_or_say(&self, store: &Store) {
        if let Err(error) = self.compare_with_store(store) {
            tracing::warn!(%error, "cannot compare the catalog with the store");
        }
    }

    /// Whether the store is older than the catalog, as after a rollback of the backing directory when the
    /// catalog lies elsewhere: the content that was kept last is not there.
    fn lacks_the_newest(&self, store: &Store) -> bool {
        let newest = self.catalog.read(|reader: &Reader| reader.newest_object());
        newest
            .unwrap_or_else(|error: CatalogError| {
                tracing::warn!(%error, "cannot tell what was kept last");
                None
            })
            .is_some_and(|hash| matches!(store.open_object(hash), Err(Errno::NOENT)))
    }

    /// Brings a catalog and a store together of which one is older: what was given up or not yet kept then
    /// is gone, what was packed is found there.
    fn compare_with_store(&self, store: &Store) -> Result<(), CatalogError> {
        const PAGE: u32 = 1000;
        let _giving = self.keeper.giving.lock();
        let mut after = None;
        loop {
            let page = self.catalog.read(|reader: &Reader| reader.objects_after(after, PAGE))?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            for (hash, _) in page {
                if matches!(store.open_object(hash), Err(Errno::NOENT)) {
                    self.tell_without_file(store, hash);
                }
            }
        }
        let lacking = self.catalog.read(|reader: &Reader| {
            reader.contents_without_objects(|hash| matches!(store.open_packed(hash), Ok(Some(_))))
        })?;
        for (hash, size) in lacking {
            self.push(None, Op::Adopted { hash, size });
            self.tell_packed(hash);
        }
        self.catalog.barrier();
        Ok(())
    }

    /// Tells of an object that has no file of its own, or none that is whole.
    fn tell_without_file(&self, store: &Store, hash: ContentHash) {
        match store.open_packed(hash) {
            Ok(Some(_)) => self.tell_packed(hash),
            Ok(None) => {
                tracing::warn!(%hash, "a content that was kept is not in the store");
                self.push(None, Op::Perished { hash });
            }
            // It may come back.
            Err(error) => tracing::warn!(%error, %hash, "cannot tell whether a content is packed"),
        }
    }

    fn tell_packed(&self, hash: ContentHash) {
        for packing in [Packing::Done, Packing::Alone] {
            self.push(None, Op::Packing { hash, packing });
        }
    }

    /// Tells of the objects, with digests that begin with a byte, that the catalog does not have.
    fn adopt(&self, store: &Store, byte: u8) -> Result<(), String> {
        let _giving = self.keeper.giving.lock();
        let told = |error: Errno| error.to_string();
        let found = store.objects_beginning(byte).map_err(told)?;
        let untold = self.catalog.read(|reader: &Reader| {
            let mut untold = Vec::new();
            for (hash, size) in found {
                if reader.stored_size(hash)?.is_none() {
                    untold.push((hash, size));
                }
            }
            Ok(untold)
        });
        for (hash, size) in untold.map_err(|error: CatalogError| error.to_string())? {
            let whole = !self.may_lack_bytes || store.has_whole(hash).map_err(told)?;
            if !whole {
                store.remove(hash).map_err(told)?;
                continue;
            }
            tracing::info!(%hash, size, "an object that nobody had told of is kept");
            self.push(None, Op::Adopted { hash, size });
            self.keeper.spare(hash);
        }
        Ok(())
    }

    /// Looks whether the disk has what was taken in shortly before a power cut.
    fn look_again(&self, store: &Store) {
        if !self.may_lack_bytes {
            return;
        }
        // What has come since the start was read then.
        let doubtful_ns = self.trusted_until_ns()..self.started_ns;
        let young = self.catalog.read(|reader: &Reader| reader.stored_within(doubtful_ns));
        let young = young.unwrap_or_else(|error: CatalogError| {
            tracing::warn!(%error, "cannot tell what was kept last");
            Vec::new()
        });
        for (hash, _) in young {
            if self.hashers.is_stopping() {
                return;
            }
            let _giving = self.keeper.giving.lock();
            match store.has_whole(hash) {
                Ok(true) => continue,
                Ok(false) => self.tell_without_file(store, hash),
                Err(error) => {
                    tracing::warn!(%error, %hash, "cannot read what was kept");
                    continue;
                }
            }
            self.catalog.barrier();
            if let Err(error) = store.remove(hash) {
                tracing::warn!(%error, %hash, "cannot remove what is left of a content");
            }
        }
    }

    /// Gives contents up, but for those that came to be needed since they were looked at; returns those
    /// that went.
    pub(super) fn give_up(
        &self,
        store: &Store,
        contents: impl IntoIterator<Item = ContentHash>,
        untold: Untold,
    ) -> Result<Vec<ContentHash>, GiveUpError> {
        let _giving = self.keeper.giving.lock();
        let going: Vec<_> = {
            // Whoever comes to need one of them from now on finds it gone.
            let spared = self.keeper.spared.lock();
            let free = contents.into_iter().filter(|hash| !spared.contents.contains(hash));
            let going: Vec<_> = free.collect();
            self.tell_dropped(&going);
            self.catalog.barrier();
            going
        };
        if self.catalog.status().degraded.is_some() {
            match untold {
                Untold::Stays => return Err(GiveUpError::Untold),
                Untold::Goes => self.keeper.untold.lock().extend(&going),
            }
        }
        for &hash in &going {
            store.remove(hash).map_err(|source| GiveUpError::Remove { hash, source })?;
        }
        Ok(going)
    }

    /// Removes the own file of what is packed, as the catalog knows by now.
    pub(super) fn remove_packed(&self, store: &Store, hash: ContentHash) -> Result<(), Errno> {
        // The same bytes may just have been told of, and be about to get their name again.
        let _giving = self.keeper.giving.lock();
        store.remove(hash)?;
        self.push(None, Op::Packing { hash, packing: Packing::Alone });
        Ok(())
    }

    fn tell_dropped(&self, contents: &[ContentHash]) {
        for &hash in contents {
            self.push(None, Op::Dropped { hash });
        }
    }

    /// Tells again what the catalog could not take.
    pub(super) fn tell_untold(&self) {
        let _giving = self.keeper.giving.lock();
        let mut untold = self.keeper.untold.lock();
        if untold.is_empty() {
            return;
        }
        self.tell_dropped(&untold);
        self.catalog.barrier();
        if self.catalog.status().degraded.is_none() {
            untold.clear();
        }
    }
}
