//! The thread that packs what has been kept for a while, and cleans up the packs.
//!
//! Owns when something is packed, and when the packs are rid of what nobody needs any more. It works while the
//! mount has little to do, and only part of the time then. Never decides what history goes.
//!
//! # Order of steps
//! Packing: `pack on the disk → index of chunks → row in the catalog, durably → own file removed → row`. A crash
//! leaves a pack that nobody knows, of which [`recover`](crate::store::pack::recover()) tells the index, or the
//! file of an object that is packed, which is due still and so looked at again. Before its own file goes, each
//! content is read back from the packs and compared with its digest.
//!
//! Cleaning up: `rows of what was given up gone, durably → what is needed found out → packs rewritten → row`. It
//! has the right to change packs while it does, so nothing is packed meanwhile that it does not know of. All
//! objects that the catalog has count as needed, wherever it thinks that they are.

mod clean;
mod pace;
mod pack;
mod survey;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Fs;
use crate::catalog::event::{Event, Op};
use crate::causes::with_causes;
use crate::store::Store;
use crate::store::pack::{GcPolicy, Pace, PackError, PackOptions};
use pace::Throttle;

/// How often it is looked at what is due.
const EVERY: Duration = Duration::from_secs(1);

/// How and when contents are packed.
#[derive(Debug, Clone, Copy)]
pub struct PackingOptions {
    /// So long after it was kept a content is packed.
    pub after: Duration,
    /// How packs are made.
    pub packs: PackOptions,
}

impl Default for PackingOptions {
    /// What was kept within a day is most often wanted back, which is quickest as a whole file.
    fn default() -> Self {
        Self { after: Duration::from_secs(24 * 3600), packs: PackOptions::default() }
    }
}

impl PackingOptions {
    /// What is tolerated in packs of this size.
    fn gc_policy(&self) -> GcPolicy {
        let limit = self.packs.limit_bytes;
        // What is rewritten at once must be there twice for a while.
        GcPolicy {
            small_bytes: limit / 4,
            rewrite_bytes: limit.saturating_mul(4),
            ..GcPolicy::default()
        }
    }
}

/// What the thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PackingState {
    /// There are no packs.
    #[default]
    Off,
    /// Nothing is due.
    Idle,
    /// It makes the index of chunks whole.
    Recovers,
    /// It packs.
    Packs,
    /// It cleans up.
    Cleans,
    /// It waits until the mount has less to do.
    WaitsForMount,
    /// It waits until the disk has room.
    WaitsForRoom,
}

/// The thread, and what others tell it.
#[derive(Debug, Default)]
pub(super) struct PackingThread {
    stopping: AtomicBool,
    /// Somebody needs the space now, and the right to change packs for it.
    makes_way: AtomicBool,
    state: Mutex<PackingState>,
    /// Since when users of the mount have had something done without a pause.
    busy_since: Mutex<Option<Instant>>,
    signal: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl PackingThread {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn set(&self, state: PackingState) {
        *self.state.lock() = state;
    }

    /// Ends the thread; nothing is half-done then.
    pub(super) fn stop(&self, store: Option<&Store>) {
        {
            let _state = self.state.lock();
            self.stopping.store(true, Ordering::Relaxed);
            self.signal.notify_all();
        }
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the packing thread panicked");
        }
        if let Some(packs) = store.and_then(Store::packs) {
            packs.give_up();
        }
    }
}

/// Starts the thread, if there is anything for it.
pub(super) fn start(fs: &Arc<Fs>) -> std::io::Result<()> {
    let Some(store) = fs.store.clone().filter(|store| store.packs().is_some()) else {
        return Ok(());
    };
    fs.packing.set(PackingState::Idle);
    let weak = Arc::downgrade(fs);
    let thread = std::thread::Builder::new().name("packing".into());
    let thread = thread.spawn(move || run(&weak, &store))?;
    *fs.packing.thread.lock() = Some(thread);
    Ok(())
}

fn run(weak: &Weak<Fs>, store: &Store) {
    let mut turns = Turns::default();
    loop {
        let Some(fs) = weak.upgrade() else { return };
        if fs.packing.is_stopping() {
            return;
        }
        match fs.turn(store, &mut turns) {
            Ok(()) | Err(PackError::Stopped) => {}
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(error, "cannot pack, for now");
                turns.trouble();
                fs.packing.set(PackingState::Idle);
            }
        }
        let pause = EVERY.min(fs.options.packing.after.max(EVERY / 10));
        let mut state = fs.packing.state.lock();
        if !fs.packing.is_stopping() {
            fs.packing.signal.wait_for(&mut state, pause);
        }
    }
}

/// When the thread has done what.
#[derive(Debug, Default)]
struct Turns {
    /// Not before this.
    rests_until: Option<Instant>,
    cleans_from: Option<Instant>,
    surveys_from: Option<Instant>,
    surveyed: Option<survey::Seen>,
}

impl Turns {
    /// What went wrong is not tried again at once.
    fn trouble(&mut self) {
        self.rests_until = Some(Instant::now() + Duration::from_secs(30));
    }
}

/// Whether a time has come.
fn has_come(time: Option<Instant>) -> bool {
    time.is_none_or(|time| Instant::now() >= time)
}

impl Fs {
    /// What the thread that packs does.
    pub fn packing_state(&self) -> PackingState {
        *self.packing.state.lock()
    }

    /// Does what there is to do, until it is done or something else comes first.
    fn turn(&self, store: &Store, turns: &mut Turns) -> Result<(), PackError> {
        let Some(packs) = store.packs() else { return Ok(()) };
        if packs.wants_recovery() || packs.index().is_damaged() {
            self.packing.set(PackingState::Recovers);
            self.recover_packs(store)?;
        }
        if !has_come(turns.rests_until) {
            return Ok(());
        }
        if self.is_full() {
            self.packing.set(PackingState::WaitsForRoom);
            return Ok(());
        }
        let throttle = Throttle::new(self);
        if throttle.pace(0) != Pace::Go {
            return Ok(());
        }
        self.pack_what_is_due(store, &throttle)?;
        if has_come(turns.cleans_from) && self.wants_cleaning(packs) {
            let since = Instant::now();
            self.packing.set(PackingState::Cleans);
            let right = packs.maintain();
            self.clean_packs(packs, &right, &throttle)?;
            drop(right);
            turns.cleans_from = Some(Instant::now() + since.elapsed() * 10);
        }
        if has_come(turns.surveys_from) {
            let since = Instant::now();
            self.survey(store, &mut turns.surveyed, &throttle)?;
            let pause = self.options.packing.after.clamp(EVERY, Duration::from_secs(600));
            turns.surveys_from = Some(Instant::now() + pause + since.elapsed() * 20);
        }
        self.packing.set(PackingState::Idle);
        Ok(())
    }

    fn recover_packs(&self, store: &Store) -> Result<(), PackError> {
        let Some(packs) = store.packs() else { return Ok(()) };
        let recovery = packs.recover(&packs.maintain())?;
        for pack in &recovery.missing {
            tracing::error!(%pack, "a pack is missing: what was in it alone is lost");
        }
        for (pack, error) in &recovery.damaged {
            tracing::error!(%pack, %error, "a pack is damaged");
        }
        let (adopted, removed) = (recovery.adopted.len(), recovery.removed.len());
        if adopted + removed > 0 {
            tracing::info!(adopted, removed, "the index of chunks knows all packs again");
        }
        Ok(())
    }

    /// Whether something else comes before what the thread does for nobody: space that is needed now, or
    /// an index without which nobody can read.
    fn comes_first(&self) -> bool {
        let packs = self.store.as_ref().and_then(|store| store.packs());
        self.packing.makes_way.load(Ordering::Relaxed)
            || packs.is_some_and(|packs| packs.wants_recovery())
    }

    /// Hands an event to the catalog that is no work of users.
    fn tell(&self, op: Op) {
        self.catalog.push([Event { time_ns: crate::clock::now_ns(), writer: None, op }]);
    }
}
