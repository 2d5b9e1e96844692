//! Digests on their way, and the calls that wait for them.
//!
//! Owns how long a call waits. What would change a file lets its digest come first, which takes moments
//! as a rule; but a file can be all hole and larger than any disk, and nobody may have to wait hours
//! for an `open`. Whoever has lost patience goes on, and the version stays without a digest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a call waits for a digest.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What somebody waits with.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// Why somebody waits for a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To change the content, which cannot be read any more then.
    Change,
    /// To know it.
    Know,
}

/// A digest on its way, and what waits for it.
#[derive(Default)]
pub(super) struct Pending {
    /// `None` once nobody needs to wait.
    waiters: Mutex<Option<Vec<(Purpose, Work)>>>,
    given_up: AtomicBool,
}

impl Pending {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { waiters: Mutex::new(Some(Vec::new())), given_up: AtomicBool::default() })
    }

    /// Whether the content is being changed because it took too long.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Lets everyone go on.
    pub(super) fn finish(&self) {
        let waiters = self.waiters.lock().take();
        run(waiters.unwrap_or_default());
    }

    /// Lets everyone go on who waits by now, and gives the digest up if that changes the content.
    fn lose_patience(&self) {
        let mut waiters = self.waiters.lock();
        let waiting = waiters.as_mut().map(std::mem::take).unwrap_or_default();
        if waiting.iter().any(|(purpose, _)| *purpose == Purpose::Change) {
            self.given_up.store(true, Ordering::Relaxed);
            *waiters = None;
        }
        drop(waiters);
        run(waiting);
    }
}

fn run(waiting: Vec<(Purpose, Work)>) {
    for (_, work) in waiting {
        work();
    }
}

/// The digests that somebody waits for, the longest awaited first.
#[derive(Default)]
struct Awaited {
    list: VecDeque<(Instant, Arc<Pending>)>,
    stopped: bool,
}

/// The thread that looks at the clock for those who wait.
#[derive(Default)]
pub(super) struct Waiting {
    awaited: Arc<(Mutex<Awaited>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Waiting {
    /// Starts the thread.
    pub(super) fn start(&self) -> std::io::Result<()> {
        let awaited = Arc::clone(&self.awaited);
        let thread =
            std::thread::Builder::new().name("patience".into()).spawn(move || watch(&awaited))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Runs `work` once the digest is there or has taken too long; gives it back if nobody needs
    /// to wait.
    pub(super) fn wait(
        &self,
        pending: &Arc<Pending>,
        purpose: Purpose,
        work: Work,
    ) -> Result<(), Work> {
        {
            let mut waiters = pending.waiters.lock();
            let Some(waiters) = waiters.as_mut() else { return Err(work) };
            waiters.push((purpose, work));
            if waiters.len() > 1 {
                return Ok(());
            }
        }
        let mut awaited = self.awaited.0.lock();
        if awaited.stopped {
            drop(awaited);
            pending.lose_patience();
            return Ok(());
        }
        awaited.list.push_back((Instant::now() + PATIENCE, Arc::clone(pending)));
        self.awaited.1.notify_one();
        Ok(())
    }

    /// Ends the thread; from now on nobody waits.
    pub(super) fn stop(&self) {
        self.awaited.0.lock().stopped = true;
        self.awaited.1.notify_one();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for those who wait panicked");
        }
    }
}

fn watch((awaited, signal): &(Mutex<Awaited>, Condvar)) {
    let mut awaiting = awaited.lock();
    loop {
        match awaiting.list.front() {
            None if awaiting.stopped => return,
            None => signal.wait(&mut awaiting),
            Some((until, _)) if !awaiting.stopped && Instant::now() < *until => {
                let until = *until;
                signal.wait_until(&mut awaiting, until);
            }
            Some(_) => {
                let late = awaiting.list.pop_front();
                drop(awaiting);
                if let Some((_, pending)) = late {
                    pending.lose_patience();
                }
                awaiting = awaited.lock();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn who_waits_goes_on_with_the_digest_or_without() {
        let waiting = Waiting::default();
        waiting.start().unwrap();
        let (sender, done) = mpsc::channel();
        let work = |what: &'static str| -> Work {
            let sender = sender.clone();
            Box::new(move || sender.send(what).unwrap())
        };
        let (slow, asked) = (Pending::new(), Pending::new());
        assert!(waiting.wait(&slow, Purpose::Change, work("a change")).is_ok());
        assert!(waiting.wait(&asked, Purpose::Know, work("a question")).is_ok());
        let quick = Pending::new();
        assert!(waiting.wait(&quick, Purpose::Change, work("at once")).is_ok());
        quick.finish();
        assert!(waiting.wait(&quick, Purpose::Change, work("nothing")).is_err());
        let order: Vec<_> = done.iter().take(3).collect();
        assert_eq!(order, ["at once", "a change", "a question"]);
        // Only what would change the content ends the reading.
        assert_eq!((slow.is_given_up(), asked.is_given_up()), (true, false));
        assert!(waiting.wait(&slow, Purpose::Change, work("nothing")).is_err());
        waiting.stop();
    }
}
