//! How fast a run goes.
//!
//! Owns what it does about the load. A run that somebody waits for takes all the time that it gets. Any other
//! comes last at the disk, and while users of the mount have something done it takes a quarter of the time if
//! the catalog may be wrong until it is over, and else a twentieth. None stops altogether: on a mount that is
//! always busy it would never end, and what it is to find stay unknown. The rate of bytes always holds.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Haste;
use crate::fs::Fs;
use crate::fs::load::{PAUSE, Share};
use crate::sys::process::{IoPriority, set_io_priority};

/// So many times as long as it worked a run rests that the catalog needs.
const REST: u32 = 3;
/// The same for one that nobody needs now.
const LONG_REST: u32 = 19;
/// After so many names it is looked at the load.
const STRIDE: u32 = 64;

/// What holds one thread of a run to its limits.
#[derive(Debug)]
pub(in crate::fs) struct Pacer<'fs> {
    fs: &'fs Fs,
    share: Share,
    names: Cell<u32>,
    priority: Cell<Option<IoPriority>>,
}

impl<'fs> Pacer<'fs> {
    /// For the thread that calls this.
    pub(in crate::fs) fn new(fs: &'fs Fs) -> Self {
        let this = Self { fs, share: Share::new(), names: Cell::new(0), priority: Cell::new(None) };
        this.take_priority();
        this
    }

    /// Has the work begin only now: until then it was waited for some.
    pub(in crate::fs) fn begin(&self) {
        self.share.begin();
    }

    /// After a look at one name: waits as the limits want it; whether to go on.
    pub(in crate::fs) fn passed(&self) -> bool {
        self.names.set(self.names.get().wrapping_add(1));
        if self.names.get().is_multiple_of(STRIDE) {
            self.keep()
        } else {
            !self.fs.reconcile.stopped()
        }
    }

    /// After so many bytes of content: waits as the limits want it; whether to go on.
    pub(in crate::fs) fn read(&self, bytes: u64) -> bool {
        self.fs.reconcile.bandwidth.count(bytes);
        self.keep()
    }

    fn keep(&self) -> bool {
        let state = &self.fs.reconcile;
        self.take_priority();
        let rests = self.rests();
        match rests {
            Some(rest) => self.share.worked(rest),
            None => self.share.forgive(),
        }
        state.slowed.store(rests.is_some(), Ordering::Relaxed);
        loop {
            if state.stopped() {
                return false;
            }
            if state.haste() == Haste::Asked {
                self.share.forgive();
            }
            let rest = self.share.rest().unwrap_or(Duration::ZERO);
            let wait = state.bandwidth.early().min(PAUSE).max(rest);
            if wait.is_zero() {
                return true;
            }
            std::thread::sleep(wait);
            self.take_priority();
        }
    }

    /// How many times as long as it works a run has to rest now.
    fn rests(&self) -> Option<u32> {
        let rest = match self.fs.reconcile.haste() {
            Haste::Asked => return None,
            Haste::Needed => REST,
            Haste::Routine => LONG_REST,
        };
        self.fs.is_worked().then_some(rest)
    }

    fn take_priority(&self) {
        let wanted = match self.fs.reconcile.haste() {
            Haste::Asked => IoPriority::Normal,
            Haste::Needed | Haste::Routine => IoPriority::Idle,
        };
        if self.priority.replace(Some(wanted)) != Some(wanted)
            && let Err(error) = set_io_priority(wanted)
        {
            tracing::debug!(%error, "the priority at the disk stays");
        }
    }
}
