//! The thread that prunes history from time to time.
//!
//! Owns when: as often as the configuration says, counted from the last prune of everything, of which the
//! catalog knows, and never soon after a start. It has no more leave than anybody: what the
//! policy's cap refuses waits for somebody to look at it, and `status` says so.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::catalog::{Catalog, CatalogError, Reader};
use crate::clock::now_ns;
use crate::fs::{Aim, Cut, Fs, PruneError, PruneOrder};
use crate::pruning::Scope;
use crate::timespec::Span;

/// How long after a start nothing is pruned, in nanoseconds.
const GRACE_NS: i64 = 600_000_000_000;
/// How often the clock is looked at: it may be set, or stand still while the machine sleeps.
const EVERY: Duration = Duration::from_secs(60);

/// The thread; it ends when told to.
#[derive(Debug)]
pub(super) struct Pruner {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Pruner {
    pub(super) fn start(
        fs: &Arc<Fs>,
        catalog: &Arc<Catalog>,
        every: Span,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (fs, catalog, shared) = (Arc::clone(fs), Arc::clone(catalog), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("prune".into())
            .spawn(move || run(&fs, &catalog, every, &shared))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread; a prune that is under way is broken off.
    pub(super) fn stop(self, fs: &Fs) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        fs.stop_prune();
        if self.thread.join().is_err() {
            tracing::error!("the prune thread panicked");
        }
    }
}

fn run(fs: &Fs, catalog: &Catalog, every: Span, (stopped, signal): &(Mutex<bool>, Condvar)) {
    let started_ns = now_ns();
    let mut tried_ns = None;
    let mut stopped = stopped.lock();
    while !*stopped {
        let last = catalog.read_committed(|reader: &mut Reader| reader.last_prune());
        let last_ns = last.unwrap_or_else(|error: CatalogError| {
            tracing::warn!(%error, "cannot tell when history was pruned last");
            None
        });
        let last_ns = last_ns.map(|last| last.time_ns).max(tried_ns);
        let now = now_ns();
        let wait_ns = due_ns(started_ns, last_ns, every, now).saturating_sub(now);
        if wait_ns > 0 {
            let wait = Duration::from_nanos(wait_ns.unsigned_abs()).min(EVERY);
            signal.wait_for(&mut stopped, wait);
            continue;
        }
        tried_ns = Some(now);
        parking_lot::MutexGuard::unlocked(&mut stopped, || prune(fs));
    }
}

/// When the next prune is due, in nanoseconds since 1970.
fn due_ns(started_ns: i64, last_ns: Option<i64>, every: Span, now_ns: i64) -> i64 {
    let grace_ns = started_ns.saturating_add(every.as_ns().min(GRACE_NS));
    match last_ns {
        // What is yet to come was told by a clock that has been set back.
        Some(last_ns) if last_ns <= now_ns => grace_ns.max(last_ns.saturating_add(every.as_ns())),
        _ => grace_ns,
    }
}

fn prune(fs: &Fs) {
    let order = PruneOrder { scope: Scope::Everything, aim: Aim::Drop, cut: Cut::Capped };
    match fs.prune(&order, &mut |_, _, _| Ok(())) {
        Ok(outcome) => {
            let dropped = outcome.plan.tally.dropped;
            match outcome.refused {
                Some(reason) => {
                    tracing::error!(%reason, "history was not pruned: too much at once");
                }
                None => tracing::info!(dropped, bytes = outcome.freed_bytes, "history was pruned"),
            }
        }
        Err(PruneError::Stopped | PruneError::NothingKept) => {}
        Err(error) => tracing::error!(%error, "history was not pruned"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const HOUR: i64 = 3_600_000_000_000;

    #[rstest]
    #[case(None, "1d", GRACE_NS)] // the first one soon
    #[case(None, "1m", HOUR / 60)]
    #[case(Some(-23 * HOUR), "1d", HOUR)]
    #[case(Some(-24 * HOUR), "1d", GRACE_NS)] // but never at once
    #[case(Some(-99 * HOUR), "1d", GRACE_NS)]
    #[case(Some(HOUR / 2), "1d", HOUR / 2 + 24 * HOUR)]
    #[case(Some(99 * HOUR), "1d", GRACE_NS)] // a clock that was set back
    fn the_next_prune_is_due(#[case] last: Option<i64>, #[case] every: &str, #[case] due: i64) {
        assert_eq!(due_ns(0, last, every.parse().unwrap(), HOUR), due);
    }
}
