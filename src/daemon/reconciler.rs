//! The thread that compares the backing directory with the catalog: at the start, when asked, and when
//! the catalog has heard of something it cannot know.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::catalog::Catalog;
use crate::fs::{Fs, ReconcileError};

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
    stop: bool,
}

/// The thread, and how to ask it.
#[derive(Debug)]
pub(super) struct Reconciler {
    wish: Arc<(Mutex<Wish>, Condvar)>,
    thread: JoinHandle<()>,
}

/// Asks for runs from anywhere.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    wish: Arc<(Mutex<Wish>, Condvar)>,
}

impl Asker {
    /// Has a run begin that sees everything up to now, and returns when it has.
    pub(super) fn ask(&self) {
        let (wish, signal) = &*self.wish;
        let mut wish = wish.lock();
        wish.asked += 1;
        let mine = wish.asked;
        signal.notify_all();
        while wish.begun < mine && !wish.stop {
            signal.wait(&mut wish);
        }
    }
}

impl Reconciler {
    pub(super) fn start(fs: &Arc<Fs>, catalog: &Arc<Catalog>) -> std::io::Result<Self> {
        let wish = Arc::new((Mutex::new(Wish { asked: 1, ..Wish::default() }), Condvar::new()));
        let (fs, catalog, shared) = (Arc::clone(fs), Arc::clone(catalog), Arc::clone(&wish));
        let thread = std::thread::Builder::new()
            .name("reconcile".into())
            .spawn(move || run(&fs, &catalog, &shared))?;
        Ok(Self { wish, thread })
    }

    pub(super) fn asker(&self) -> Asker {
        Asker { wish: Arc::clone(&self.wish) }
    }

    /// Ends the thread; a run that is under way is broken off.
    pub(super) fn stop(self, fs: &Fs) {
        self.wish.0.lock().stop = true;
        self.wish.1.notify_all();
        fs.stop_reconcile();
        if self.thread.join().is_err() {
            tracing::error!("the reconcile thread panicked");
        }
    }
}

fn run(fs: &Fs, catalog: &Catalog, shared: &(Mutex<Wish>, Condvar)) {
    let (wish, signal) = shared;
    let mut pause = EVERY;
    loop {
        let target = {
            let mut wish = wish.lock();
            while wish.asked == wish.done && !wish.stop {
                signal.wait_for(&mut wish, pause);
                if catalog.take_reconcile_wish() {
                    wish.asked += 1;
                }
            }
            if wish.stop {
                return;
            }
            wish.asked
        };
        let begun = || {
            wish.lock().begun = target;
            signal.notify_all();
        };
        let errors = match fs.reconcile(begun) {
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
                tracing::error!(%error, "reconcile failed");
                1
            }
        };
        let in_vain = errors > 0 || catalog.status().degraded.is_some();
        pause = if in_vain { (pause * 2).min(MOST) } else { EVERY };
        wish.lock().done = target;
    }
}
