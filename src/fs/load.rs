//! How much is going on, and how background work makes way for it.
//!
//! Owns what is called busy, and the arithmetic of going slower: a share of the time, and a rate of bytes.
//! Never waits itself, and decides nothing: what stops and what only slows down, each work says for itself.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Fs;

/// More calls that change something than this in a second are work.
const BUSY_PER_S: u64 = 20;
/// For so long it is looked at how many there are.
const WINDOW: Duration = Duration::from_millis(250);
/// How long to wait at most before it is looked again.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// Processes that wait for this share of the time, in percent, make the machine busy.
const PRESSURE: f64 = 40.0;

/// What is known of the load, by everyone who asks.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Counts what users of the mount have done.
    work: AtomicU64,
    sample: Mutex<Sample>,
}

#[derive(Debug, Default)]
struct Sample {
    taken: Option<Instant>,
    work: u64,
    busy: bool,
    pressed_at: Option<Instant>,
    pressed: bool,
}

impl Load {
    /// Notes that users have something done.
    pub(super) fn note_work(&self) {
        self.work.fetch_add(1, Ordering::Relaxed);
    }

    fn is_worked(&self) -> bool {
        let mut sample = self.sample.lock();
        let now = Instant::now();
        let work = self.work.load(Ordering::Relaxed);
        let since = sample.taken.map(|taken| now.duration_since(taken));
        if since.is_none_or(|since| since >= WINDOW) {
            let millis = since.map_or(0, |since| since.as_millis()).max(1);
            let done = u128::from(work - sample.work);
            sample.busy = since.is_some() && done * 1000 > millis * u128::from(BUSY_PER_S);
            (sample.taken, sample.work) = (Some(now), work);
        }
        sample.busy
    }

    /// Whether the machine is busy.
    pub(super) fn is_pressed(&self) -> bool {
        let mut sample = self.sample.lock();
        let now = Instant::now();
        if sample.pressed_at.is_none_or(|at| now.duration_since(at) > Duration::from_secs(1)) {
            sample.pressed = ["cpu", "io"].into_iter().any(|what| pressure(what) > PRESSURE);
            sample.pressed_at = Some(now);
        }
        sample.pressed
    }
}

impl Fs {
    /// Whether users of the mount have something done.
    pub(super) fn is_worked(&self) -> bool {
        self.load.is_worked() || self.pending_digests() > 0
    }
}

/// For what share of the last ten seconds some process had to wait, in percent; 0 where the kernel does not say.
fn pressure(what: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/pressure/{what}")).unwrap_or_default();
    parse_pressure(&text).unwrap_or(0.0)
}

fn parse_pressure(text: &str) -> Option<f64> {
    let words = text.lines().find(|line| line.starts_with("some "))?.split(' ');
    words.filter_map(|word| word.strip_prefix("avg10=")).next()?.parse().ok()
}

/// A part of the time: who has worked rests so many times as long.
#[derive(Debug)]
pub(super) struct Share {
    since: Cell<Instant>,
    owed: Cell<Duration>,
}

impl Share {
    pub(super) fn new() -> Self {
        Self { since: Cell::new(Instant::now()), owed: Cell::default() }
    }

    /// Has the work begin only now.
    pub(super) fn begin(&self) {
        self.since.set(Instant::now());
    }

    /// Counts the work since it began: for that, there is to be a rest so many times as long.
    pub(super) fn worked(&self, rest: u32) {
        self.owed.set(self.owed.get() + self.since.get().elapsed() * rest);
        self.begin();
    }

    /// Lets off what is owed.
    pub(super) fn forgive(&self) {
        self.owed.set(Duration::ZERO);
        self.begin();
    }

    /// How long to rest now, if that is worth it; then it is asked again.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.begin();
        let rest = self.owed.get().min(PAUSE);
        let worth_it = rest > PAUSE / 10;
        worth_it.then(|| {
            self.owed.set(self.owed.get() - rest);
            rest
        })
    }
}

/// A rate of bytes that several threads keep together.
#[derive(Debug, Default)]
pub(super) struct Bandwidth {
    rate: Option<NonZeroU64>,
    /// When the next byte is due.
    due: Mutex<Option<Instant>>,
}

impl Bandwidth {
    /// So many bytes in a second; `None` for as many as come.
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { rate, due: Mutex::default() }
    }

    /// Counts bytes. What was not used of the time before is lost, but for a moment.
    pub(super) fn count(&self, bytes: u64) {
        let Some(rate) = self.rate.filter(|_| bytes > 0) else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let now = Instant::now();
        let earliest = now.checked_sub(PAUSE).unwrap_or(now);
        let mut due = self.due.lock();
        *due = due.map_or(now, |due| due.max(earliest)).checked_add(cost);
    }

    /// How much sooner than it should everything counted has been read.
    pub(super) fn early(&self) -> Duration {
        let due = *self.due.lock();
        due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.20 total=12345\n\
                    full avg10=3.00 avg60=0.00 avg300=0.00 total=99\n";
        assert_eq!(parse_pressure(text), Some(12.5));
        assert_eq!(parse_pressure(""), None);
    }

    #[test]
    fn bytes_become_due_at_the_rate_and_none_are_saved_up() {
        let bandwidth = Bandwidth::new(NonZeroU64::new(1_000));
        assert_eq!(bandwidth.early(), Duration::ZERO);
        *bandwidth.due.lock() = Instant::now().checked_sub(Duration::from_secs(3));
        bandwidth.count(60_000);
        bandwidth.count(40_000);
        let early = bandwidth.early();
        assert!(early > Duration::from_secs(90) && early <= Duration::from_secs(100), "{early:?}");
        let unlimited = Bandwidth::new(None);
        unlimited.count(u64::MAX);
        assert_eq!(unlimited.early(), Duration::ZERO);
    }

    #[test]
    fn a_rest_is_owed_for_work_and_given_in_parts() {
        let share = Share::new();
        assert_eq!(share.rest(), None);
        share.owed.set(PAUSE * 5 / 2);
        let rests: Vec<_> = std::iter::from_fn(|| share.rest()).collect();
        assert_eq!(rests, [PAUSE, PAUSE, PAUSE / 2]);
    }
}
