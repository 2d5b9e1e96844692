//! How fast packing may go.
//!
//! Owns what it does about the load. Work stops altogether while users of the mount have something done; else
//! it takes a quarter of the time, and a twentieth while the machine is busy with other things. When space
//! gets short, waiting would cost history, so then it only slows down.

use super::PackingState;
use crate::fs::Fs;
use crate::fs::load::{PAUSE, Share};
use crate::store::pack::Pace;

/// So many times as long as it worked it rests.
const REST: u32 = 3;
/// The same while the machine is busy.
const LONG_REST: u32 = 19;

/// Who asks for the pace of one piece of work.
pub(super) struct Throttle<'a> {
    fs: &'a Fs,
    urgent: bool,
    share: Share,
}

impl<'a> Throttle<'a> {
    /// For work that nobody waits for.
    pub(super) fn new(fs: &'a Fs) -> Self {
        Self { fs, urgent: false, share: Share::new() }
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
        let is_busy = self.fs.is_worked();
        let is_short = is_busy && self.fs.is_nearly_full();
        if is_busy && !is_short {
            packing.set(PackingState::WaitsForMount);
            self.share.begin();
            return Pace::Wait(PAUSE);
        }
        if bytes > 0 {
            let is_pressed = is_short || self.fs.load.is_pressed();
            self.share.worked(if is_pressed { LONG_REST } else { REST });
        }
        self.share.rest().map_or(Pace::Go, Pace::Wait)
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
