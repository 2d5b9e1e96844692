//! Threads that do something from time to time.
//!
//! Owns when: as often as the configuration says, counted from the last time, which the task itself
//! remembers, and never soon after a start.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::clock::now_ns;
use crate::timespec::Span;

/// How long after a start nothing is done, in nanoseconds.
const GRACE_NS: i64 = 600_000_000_000;
/// How often the clock is looked at: it may be set, or stand still while the machine sleeps.
const EVERY: Duration = Duration::from_secs(60);

/// What is done.
pub(super) trait Task: Send + 'static {
    /// When it was done last, in nanoseconds since 1970, if it is known.
    fn last_ns(&self) -> Option<i64>;

    /// Does it, and tells of it in the log.
    fn run(&self);
}

/// A thread; it ends when told to.
#[derive(Debug)]
pub(super) struct Periodic {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

/// Whether a thread is to end, and what it hears then while it waits.
pub(super) type Stop = (Mutex<bool>, Condvar);

impl Periodic {
    /// Starts a thread that does a task so often.
    pub(super) fn start(name: &str, every: Span, task: impl Task) -> std::io::Result<Self> {
        Self::spawn(name, move |stop| run(&task, every, stop))
    }

    /// Starts a thread that knows itself when there is something to do.
    pub(super) fn spawn(
        name: &str,
        run: impl FnOnce(&Stop) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(&shared))?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread, once what it does is over.
    pub(super) fn stop(self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        let name = self.thread.thread().name().unwrap_or_default().to_owned();
        if self.thread.join().is_err() {
            tracing::error!(name, "a thread panicked");
        }
    }
}

fn run(task: &impl Task, every: Span, (stopped, signal): &Stop) {
    let started_ns = now_ns();
    let mut tried_ns = None;
    let mut stopped = stopped.lock();
    while !*stopped {
        let now = now_ns();
        let last_ns = task.last_ns().max(tried_ns);
        let wait_ns = due_ns(started_ns, last_ns, every, now).saturating_sub(now);
        if wait_ns > 0 {
            let wait = Duration::from_nanos(wait_ns.unsigned_abs()).min(EVERY);
            signal.wait_for(&mut stopped, wait);
            continue;
        }
        tried_ns = Some(now);
        MutexGuard::unlocked(&mut stopped, || task.run());
    }
}

/// When it is to be done next, in nanoseconds since 1970.
fn due_ns(started_ns: i64, last_ns: Option<i64>, every: Span, now_ns: i64) -> i64 {
    let grace_ns = started_ns.saturating_add(every.as_ns().min(GRACE_NS));
    match last_ns {
        // What is yet to come was told by a clock that has been set back.
        Some(last_ns) if last_ns <= now_ns => grace_ns.max(last_ns.saturating_add(every.as_ns())),
        _ => grace_ns,
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
    fn the_next_time_is_due(#[case] last: Option<i64>, #[case] every: &str, #[case] due: i64) {
        assert_eq!(due_ns(0, last, every.parse().unwrap(), HOUR), due);
    }
}
