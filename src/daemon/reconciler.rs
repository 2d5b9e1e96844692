//! The thread that compares the backing directory with the catalog: at the start, when asked, from time to
//! time, and when the catalog has heard of something it cannot know.
//!
//! Owns for whom each run is, which says how it makes way for others.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::periodic::Task;
use crate::catalog::Catalog;
use crate::causes::with_cause;
use crate::fs::{Fs, Haste, ReconcileError};

/// How often the catalog is asked whether it wants a run.
const EVERY: Duration = Duration::from_secs(1);
/// How long at most a run waits that follows runs in vain: while the catalog cannot be written or a
/// file cannot be read, each would look at everything for nothing.
const MOST: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct Wish {
    /// Runs that were asked for.
    asked: u64,
    /// How many of them the newest run that has begun is for.
    begun: u64,
    /// How many of them a run is through with.
    done: u64,
    /// For whom the next run is.
    haste: Haste,
    stop: bool,
}

/// The thread, and how to ask it.
#[derive(Debug)]
pub(super) struct Reconciler {
    asker: Asker,
    thread: JoinHandle<()>,
}

/// Asks for runs from anywhere.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    wish: Arc<(Mutex<Wish>, Condvar)>,
    fs: Arc<Fs>,
}

impl Asker {
    /// Has a run begin that sees everything up to now, and returns when it has. One that is under way is
    /// no less in haste, since this one comes after it.
    pub(super) fn ask(&self, haste: Haste) {
        let (wish, signal) = &*self.wish;
        let mut wish = wish.lock();
        wish.asked += 1;
        wish.haste = wish.haste.max(haste);
        self.fs.hasten_reconcile(haste);
        let mine = wish.asked;
        signal.notify_all();
        while wish.begun < mine && !wish.stop {
            signal.wait(&mut wish);
        }
    }

    /// Has a run begin, unless there is one.
    fn remind(&self) {
        let (wish, signal) = &*self.wish;
        let mut wish = wish.lock();
        if wish.asked == wish.done {
            wish.asked += 1;
            signal.notify_all();
        }
    }
}

/// Runs from time to time.
#[derive(Debug)]
pub(super) struct Schedule(pub(super) Asker);

impl Task for Schedule {
    fn last_ns(&self) -> Option<i64> {
        let last = self.0.fs.progress();
        [last.finished_ns, last.started_ns].into_iter().find(|time_ns| *time_ns != 0)
    }

    fn run(&self) {
        self.0.remind();
    }
}

impl Reconciler {
    pub(super) fn start(fs: &Arc<Fs>, catalog: &Arc<Catalog>) -> std::io::Result<Self> {
        let first = Wish { asked: 1, haste: Haste::Needed, ..Wish::default() };
        let wish = Arc::new((Mutex::new(first), Condvar::new()));
        let asker = Asker { wish: Arc::clone(&wish), fs: Arc::clone(fs) };
        let (fs, catalog) = (Arc::clone(fs), Arc::clone(catalog));
        let thread = std::thread::Builder::new()
            .name("reconcile".into())
            .spawn(move || run(&fs, &catalog, &wish))?;
        Ok(Self { asker, thread })
    }

    pub(super) fn asker(&self) -> Asker {
        self.asker.clone()
    }

    /// Breaks off the run that is under way; nobody waits for another any more.
    pub(super) fn break_off(&self) {
        self.asker.wish.0.lock().stop = true;
        self.asker.wish.1.notify_all();
        self.asker.fs.stop_reconcile();
    }

    /// Ends the thread; a run that is under way is broken off.
    pub(super) fn stop(self) {
        self.break_off();
        if self.thread.join().is_err() {
            tracing::error!("the reconcile thread panicked");
        }
    }
}

fn run(fs: &Fs, catalog: &Catalog, shared: &(Mutex<Wish>, Condvar)) {
    let (wish, signal) = shared;
    let mut pause = EVERY;
    loop {
        let (target, haste) = {
            let mut wish = wish.lock();
            while wish.asked == wish.done && !wish.stop {
                signal.wait_for(&mut wish, pause);
                if catalog.take_reconcile_wish() {
                    wish.asked += 1;
                    wish.haste = wish.haste.max(Haste::Needed);
                }
            }
            if wish.stop {
                return;
            }
            (wish.asked, std::mem::take(&mut wish.haste))
        };
        let begun = || {
            wish.lock().begun = target;
            signal.notify_all();
        };
        let errors = match fs.reconcile(haste, begun) {
            Ok(progress) => {
                tracing::info!(
                    directories = progress.directories,
                    files = progress.files,
                    read = progress.read_files,
                    errors = progress.errors,
                    "the catalog is what the directory is"
                );
                progress.errors
            }
            Err(ReconcileError::Stopped) => return,
            Err(error) => {
                tracing::error!(error = with_cause(&error), "reconcile failed");
                1
            }
        };
        let in_vain = errors > 0 || catalog.status().degraded.is_some();
        pause = if in_vain { (pause * 2).min(MOST) } else { EVERY };
        {
            let mut wish = wish.lock();
            // It may not have come so far as to begin.
            (wish.begun, wish.done) = (target, target);
        }
        signal.notify_all();
    }
}
