//! The thread that takes snapshots when they are due.
//!
//! Owns how far each class is: when one was taken last, which the snapshots themselves remember, and what
//! went wrong since. Nothing is taken soon after a start. Of frequent and hourly ones, one is left out if nothing has
//! changed since the newest snapshot and nobody has a file open for writing: a database that is never closed
//! changes without a word to the catalog. Rarer ones are always taken, since what is changed around the mount is not
//! heard of at once either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use parking_lot::MutexGuard;

use super::super::periodic::{Periodic, Stop};
use super::{SnapshotError, Snapshotter};
use crate::causes::with_causes;
use crate::clock::now_ns;
use crate::config::Snapshots;
use crate::query::request::PruneMode;
use crate::query::snapshots::{SnapshotClassStatus, SnapshotsStatus};
use crate::snapshots::{Class, Due, Snapshot, SnapshotName, back_off_ns};
use crate::timespec::rfc3339;

/// How long after a start nothing is taken.
const GRACE: Duration = Duration::from_secs(60);
/// How often the clock is looked at: it may be set, or stand still while the machine sleeps.
const EVERY: Duration = Duration::from_secs(5);

/// How far each class is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    classes: BTreeMap<Class, ClassProgress>,
}

#[derive(Debug)]
struct ClassProgress {
    due: Due,
    last_ns: Option<i64>,
    failures: u32,
    /// Not before this after a failure, in nanoseconds since 1970.
    wait_ns: i64,
    error: Option<String>,
}

/// Starts the thread where there are snapshots to take.
pub(in crate::daemon) fn start(snapshots: &Arc<Snapshotter>) -> std::io::Result<Option<Periodic>> {
    if !snapshots.is_possible() {
        return Ok(None);
    }
    let snapshots = Arc::clone(snapshots);
    Periodic::spawn("snapshots", move |stop| run(&snapshots, stop)).map(Some)
}

fn run(snapshots: &Snapshotter, (stopped, signal): &Stop) {
    // Also those that a crash has left without a row.
    let known = snapshots.look().unwrap_or_else(|error| {
        tracing::warn!(error = with_causes(&error), "cannot tell which snapshots there are");
        Vec::new()
    });
    snapshots.remember(&known);
    if snapshots.enabled == Snapshots::Off {
        return;
    }
    let mut stopped = stopped.lock();
    if !*stopped {
        signal.wait_for(&mut stopped, GRACE);
    }
    while !*stopped {
        MutexGuard::unlocked(&mut stopped, || snapshots.take_due(now_ns(), &TimeZone::system()));
        if !*stopped {
            signal.wait_for(&mut stopped, EVERY);
        }
    }
}

impl Snapshotter {
    /// Takes up how far each class is by what there is.
    fn remember(&self, known: &[Snapshot]) {
        let mut progress = self.progress.lock();
        for class in self.settings.schedule.keys() {
            let ours = known.iter().filter(|snapshot| self.seq_of(snapshot).is_some());
            let of_class = ours.filter(|snapshot| {
                SnapshotName::parse(&snapshot.name).is_some_and(|name| name.class == *class)
            });
            let last_ns = of_class.max_by_key(|s| s.createtxg).map(|snapshot| snapshot.time_ns);
            let due = Due::since(last_ns);
            let class_progress =
                ClassProgress { due, last_ns, failures: 0, wait_ns: i64::MIN, error: None };
            progress.classes.insert(*class, class_progress);
        }
    }

    /// Takes one of each class of which one is due, and prunes after each.
    fn take_due(&self, now: i64, zone: &TimeZone) {
        for (class, schedule) in &self.settings.schedule {
            let is_due = {
                let mut progress = self.progress.lock();
                let progress = progress.classes.get_mut(class);
                // A clock that was set back does not make anybody wait.
                progress.is_some_and(|p| {
                    let waits = p.wait_ns > now && p.wait_ns - now <= back_off_ns(u32::MAX);
                    !waits && p.due.is_due(schedule, now, zone)
                })
            };
            if is_due {
                let done = self.take_if_needed(*class);
                self.note(*class, now, done);
            }
        }
    }

    fn note(&self, class: Class, now: i64, done: Result<(), SnapshotError>) {
        let mut progress = self.progress.lock();
        let Some(progress) = progress.classes.get_mut(&class) else { return };
        match done {
            Ok(()) => {
                progress.due.done(now);
                progress.last_ns = Some(now);
                (progress.failures, progress.error) = (0, None);
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(%class, error, "no snapshot was taken");
                progress.failures = progress.failures.saturating_add(1);
                progress.wait_ns = now.saturating_add(back_off_ns(progress.failures));
                progress.error = Some(error);
            }
        }
    }

    fn take_if_needed(&self, class: Class) -> Result<(), SnapshotError> {
        if matches!(class, Class::Frequent | Class::Hourly) && self.is_unchanged()? {
            tracing::debug!(%class, "nothing has changed since the newest snapshot");
            return Ok(());
        }
        self.take(class)?;
        if let Err(error) = self.prune_by(&self.settings.keep, PruneMode::Drop) {
            // There is a snapshot, and the next prune may do better.
            tracing::warn!(error = with_causes(&error), "old snapshots were not destroyed");
        }
        Ok(())
    }

    /// Whether the newest snapshot has everything that there is.
    fn is_unchanged(&self) -> Result<bool, SnapshotError> {
        if self.fs.is_being_written() {
            return Ok(false);
        }
        let list = self.backend.list()?;
        let newest = list.iter().filter(|s| self.seq_of(s).is_some()).max_by_key(|s| s.createtxg);
        let newest = newest.and_then(|snapshot| self.seq_of(snapshot));
        Ok(newest == Some(self.catalog.read(crate::catalog::Reader::seq)?))
    }

    /// What `status` says.
    pub(super) fn describe(&self, now: i64) -> SnapshotsStatus {
        let zone = TimeZone::system();
        let progress = self.progress.lock();
        let enabled = self.enabled == Snapshots::On && self.is_possible();
        let class = |(class, schedule): (&Class, &crate::snapshots::Schedule)| {
            let progress = progress.classes.get(class);
            let next_ns = progress.and_then(|p| p.due.next_ns(schedule, now, &zone));
            let overdue_ns = next_ns.map_or(0, |next_ns| now.saturating_sub(next_ns).max(0));
            SnapshotClassStatus {
                class: class.to_string(),
                schedule: schedule.to_string(),
                keep: self.settings.keep.get(*class).to_string(),
                last: progress.and_then(|p| p.last_ns).map(rfc3339),
                next: next_ns.map(rfc3339),
                overdue_s: overdue_ns.unsigned_abs() / 1_000_000_000,
                failures: progress.map_or(0, |p| p.failures),
                error: progress.and_then(|p| p.error.clone()),
            }
        };
        let classes =
            if enabled { self.settings.schedule.iter().map(class).collect() } else { Vec::new() };
        SnapshotsStatus {
            backend: self.backend.kind().to_string(),
            dataset: self.backend.dataset().into(),
            reason: self.backend.reason(),
            enabled,
            classes,
        }
    }
}
