//! How fast background work may go.
//!
//! Owns what is called busy. Work stops altogether while users of the mount have something done; else it
//! takes a quarter of the time, and a twentieth while the machine is busy with other things. When space
//! gets short, waiting would cost history, so then it only slows down.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{PackingState, PackingThread};
use crate::fs::Fs;
use crate::store::pack::Pace;

/// More calls that change something than this in a second are work.
const BUSY_PER_S: u64 = 20;
/// For so long it is looked at how many there are.
const WINDOW: Duration = Duration::from_millis(250);
/// How long to wait before it is looked again.
const PAUSE: Duration = Duration::from_millis(100);
/// So many times as long as it worked it rests.
const REST: u32 = 3;
/// The same while the machine is busy.
const LONG_REST: u32 = 19;
/// Processes that wait for this share of the time, in percent, make the machine busy.
const PRESSURE: f64 = 40.0;

/// What is known of the load, by everyone who asks.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<Sample>);

#[derive(Debug, Default)]
struct Sample {
    taken: Option<Instant>,
    work: u64,
    busy: bool,
    pressed_at: Option<Instant>,
    pressed: bool,
}

impl PackingThread {
    /// Whether users of the mount have something done.
    fn is_worked(&self) -> bool {
        let mut sample = self.load.0.lock();
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
    fn is_pressed(&self) -> bool {
        let mut sample = self.load.0.lock();
        let now = Instant::now();
        if sample.pressed_at.is_none_or(|at| now.duration_since(at) > Duration::from_secs(1)) {
            sample.pressed = ["cpu", "io"].into_iter().any(|what| pressure(what) > PRESSURE);
            sample.pressed_at = Some(now);
        }
        sample.pressed
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

/// Who asks for the pace of one piece of work.
pub(super) struct Throttle<'a> {
    fs: &'a Fs,
    urgent: bool,
    since: Cell<Instant>,
    owed: Cell<Duration>,
}

impl<'a> Throttle<'a> {
    /// For work that nobody waits for.
    pub(super) fn new(fs: &'a Fs) -> Self {
        Self { fs, urgent: false, since: Cell::new(Instant::now()), owed: Cell::default() }
    }

    /// For work that users wait for.
    pub(super) fn urgent(fs: &'a Fs) -> Self {
        Self { urgent: true, ..Self::new(fs) }
    }

    /// Whether users wait for the work.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// What to do next, after so many bytes.
    pub(super) fn pace(&self, bytes: u64) -> Pace {
        let packing = &self.fs.packing;
        if packing.is_stopping() || (!self.urgent && self.fs.comes_first()) {
            return Pace::Stop;
        }
        if self.urgent {
            return Pace::Go;
        }
        let is_busy = packing.is_worked() || self.fs.pending_digests() > 0;
        let is_short = is_busy && self.fs.is_nearly_full();
        if is_busy && !is_short {
            packing.set(PackingState::WaitsForMount);
            self.since.set(Instant::now());
            return Pace::Wait(PAUSE);
        }
        if bytes > 0 {
            let rest = if is_short || packing.is_pressed() { LONG_REST } else { REST };
            self.owed.set(self.owed.get() + self.since.get().elapsed() * rest);
        }
        let rest = self.owed.get().min(PAUSE);
        if rest > PAUSE / 10 {
            self.owed.set(self.owed.get() - rest);
            self.since.set(Instant::now());
            return Pace::Wait(rest);
        }
        self.since.set(Instant::now());
        Pace::Go
    }

    /// Waits for as long as it takes; whether to go on.
    pub(super) fn keep(&self, bytes: u64) -> bool {
        let mut pace = self.pace(bytes);
        loop {
            match pace {
                Pace::Go => return true,
                Pace::Stop => return false,
                Pace::Wait(time) => std::thread::sleep(time),
            }
            pace = self.pace(0);
        }
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
}
