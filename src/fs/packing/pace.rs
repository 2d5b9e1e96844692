//! How fast packing may go.
//!
//! Owns what it does about the load. Work stops altogether while users of the mount have something done; else
//! it takes a quarter of the time, and a twentieth while the machine is busy with other things. When space
//! gets short, waiting would cost history, so then it only slows down; and so it does where users never pause.

use std::time::{Duration, Instant};

use super::PackingState;
use crate::fs::Fs;
use crate::fs::load::{PAUSE, Share};
use crate::store::pack::Pace;

/// So many times as long as it worked it rests.
const REST: u32 = 3;
/// The same while the machine is busy.
const LONG_REST: u32 = 19;

/// After so long without a pause, users have it beside their work.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What there is to heed.
#[derive(Debug, Clone, Copy)]
struct Circumstances {
    /// Since when users have something done.
    busy_for: Option<Duration>,
    /// Space gets short.
    is_short: bool,
    /// The machine is busy.
    is_pressed: bool,
}

impl Circumstances {
    /// How many times as long as it worked it rests; `None` if it does not work at all.
    fn rest(self) -> Option<u32> {
        match self.busy_for {
            Some(time) if !self.is_short && time < PATIENCE => None,
            Some(_) => Some(LONG_REST),
            None if self.is_pressed => Some(LONG_REST),
            None => Some(REST),
        }
    }
}

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
        let busy_for = self.busy_for();
        let is_short = busy_for.is_some() && self.fs.is_nearly_full();
        let is_pressed = busy_for.is_none() && bytes > 0 && self.fs.load.is_pressed();
        let Some(rest) = (Circumstances { busy_for, is_short, is_pressed }).rest() else {
            packing.set(PackingState::WaitsForMount);
            self.share.begin();
            return Pace::Wait(PAUSE);
        };
        if bytes > 0 {
            self.share.worked(rest);
        }
        self.share.rest().map_or(Pace::Go, Pace::Wait)
    }

    /// How long users have had something done whenever somebody asked for the pace.
    fn busy_for(&self) -> Option<Duration> {
        let mut since = self.fs.packing.busy_since.lock();
        if !self.fs.is_worked() {
            *since = None;
            return None;
        }
        Some(since.get_or_insert_with(Instant::now).elapsed())
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
    use rstest::rstest;

    const AT_LAST: Duration = PATIENCE;
    const NOT_YET: Duration = PATIENCE.saturating_sub(Duration::from_secs(1));

    #[rstest]
    #[case(None, false, false, Some(REST))]
    #[case(None, false, true, Some(LONG_REST))]
    #[case(Some(Duration::ZERO), false, false, None)]
    #[case(Some(NOT_YET), false, false, None)]
    #[case(Some(Duration::ZERO), true, false, Some(LONG_REST))]
    #[case(Some(AT_LAST), false, false, Some(LONG_REST))]
    fn users_come_first_but_not_for_ever(
        #[case] busy_for: Option<Duration>,
        #[case] is_short: bool,
        #[case] is_pressed: bool,
        #[case] rest: Option<u32>,
    ) {
        assert_eq!(Circumstances { busy_for, is_short, is_pressed }.rest(), rest);
    }
}
