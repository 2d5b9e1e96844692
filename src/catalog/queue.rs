//! The way from the filesystem to the catalog's writer.
//!
//! Owns the order of events and the back pressure: a full queue makes the caller wait, it never drops.
//! Each event gets a ticket; whoever must see an event committed waits for its ticket.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::event::Event;
use crate::metrics::metrics;

/// Events that may wait at once. At some 200 bytes each this bounds the queue to about 16 MB.
pub(super) const CAPACITY: usize = 65_536;

/// How long the writer lets a batch grow while nobody waits for it. Waking it for each event would
/// cost the thread that serves the mount more than the event itself.
const LINGER: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    /// Tickets handed out so far.
    enqueued: u64,
    /// Tickets whose events are committed, or given up with the catalog degraded.
    committed: u64,
    /// Barriers waiting.
    waiting: usize,
    writer_idle: bool,
    /// The writer is to look after its files.
    nudged: bool,
    closed: bool,
}

/// What there is to do for the writer.
pub(super) struct Taken {
    /// What is to be committed; nothing if it is only to look.
    pub(super) events: Vec<Event>,
    /// It is to look after its files.
    pub(super) nudged: bool,
}

/// A bounded multi-producer, single-consumer queue with tickets.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    room: Condvar,
    progress: Condvar,
}

impl Queue {
    /// Appends `events` in order, waiting for room; returns the ticket of the last one.
    pub(super) fn push(&self, events: impl IntoIterator<Item = Event>) -> u64 {
        let mut inner = self.inner.lock();
        self.wait_until(&mut inner, |inner| inner.events.len() < CAPACITY);
        let before = inner.events.len();
        inner.events.extend(events);
        let added = inner.events.len() - before;
        inner.enqueued += added as u64;
        if inner.writer_idle && added > 0 {
            inner.writer_idle = false;
            self.filled.notify_one();
        }
        inner.enqueued
    }

    /// Waits until there is room for a few thousand events, so that a caller who holds a lock does
    /// not wait for it in [`Queue::push`].
    pub(super) fn wait_for_room(&self) {
        let mut inner = self.inner.lock();
        self.wait_until(&mut inner, |inner| inner.events.len() <= CAPACITY / 2);
    }

    fn wait_until(&self, inner: &mut MutexGuard<'_, Inner>, has_room: impl Fn(&Inner) -> bool) {
        if has_room(inner) || inner.closed {
            return;
        }
        let began = Instant::now();
        while !has_room(inner) && !inner.closed {
            self.room.wait(inner);
        }
        metrics().queue_waits.inc();
        metrics().queue_wait_seconds.inc_by(began.elapsed().as_secs_f64());
    }

    /// Has the writer look after its files, at once if there is nothing else to do.
    pub(super) fn nudge(&self) {
        self.inner.lock().nudged = true;
        self.filled.notify_all();
    }

    /// Takes all that is queued, waiting if there is nothing; `None` once closed and empty.
    pub(super) fn take(&self) -> Option<Taken> {
        let mut inner = self.inner.lock();
        if inner.events.is_empty() && !inner.closed && !inner.nudged {
            inner.writer_idle = true;
            while inner.events.is_empty() && !inner.closed && !inner.nudged {
                self.filled.wait(&mut inner);
            }
            inner.writer_idle = false;
            if inner.waiting == 0 && !inner.closed {
                // Woken early by a barrier or by the end.
                self.filled.wait_for(&mut inner, LINGER);
            }
        }
        let events = std::mem::take(&mut inner.events);
        let nudged = std::mem::take(&mut inner.nudged);
        self.room.notify_all();
        if events.is_empty() && !nudged { None } else { Some(Taken { events, nudged }) }
    }

    /// Marks `count` more events as done.
    pub(super) fn done(&self, count: usize) {
        self.inner.lock().committed += count as u64;
        self.progress.notify_all();
    }

    /// Waits until everything that was pushed before is done.
    pub(super) fn barrier(&self) {
        let mut inner = self.inner.lock();
        let ticket = inner.enqueued;
        inner.waiting += 1;
        self.filled.notify_one();
        while inner.committed < ticket {
            self.progress.wait(&mut inner);
        }
        inner.waiting -= 1;
    }

    /// Lets the writer finish what is queued and then stop.
    pub(super) fn close(&self) {
        {
            let mut inner = self.inner.lock();
            // What was lost just before the end is seen by nobody afterwards.
            (inner.closed, inner.nudged) = (true, true);
        }
        self.filled.notify_all();
        self.room.notify_all();
    }

    /// Events waiting now.
    pub(super) fn depth(&self) -> u64 {
        let inner = self.inner.lock();
        inner.enqueued - inner.committed
    }
}
