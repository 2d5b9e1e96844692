//! Taking snapshots, and destroying those that need not be kept.
//!
//! Owns the order of steps, one at a time however many ask, and what is done by itself when the schedule
//! says so. Never destroys what the policy has not named, and looks again at each just before.
//!
//! # Order of steps
//! The program that is run before it → everything is committed and nothing changes → the snapshot, with its
//! mark → operations go on → the program that is run after it → the row in the catalog → what outlived its
//! time goes. A crash before the snapshot leaves nothing; one after it, a snapshot that gets its row the next time
//! that they are looked at, which each start does. A snapshot that was not taken in time may come into being later, with
//! changes that its mark does not know: it is destroyed as soon as it is found.

mod scheduler;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::catalog::event::{Event, Op};
use crate::catalog::{Catalog, CatalogError, SnapshotRow, SnapshotsSeen};
use crate::causes::with_causes;
use crate::clock::now_ns;
use crate::config::{SnapshotSettings, Snapshots};
use crate::content::SnapshotDirs;
use crate::fs::{Fs, StillError};
use crate::query::request::PruneMode;
use crate::query::snapshots::{
    KeepField, SnapshotFailure, SnapshotHold, SnapshotHost, SnapshotPruneRecord, SnapshotRecord,
    SnapshotsStatus,
};
use crate::snapshots::{
    Backend, BackendError, BackendKind, Class, Fate, KeepCounts, Mark, ProgramError, Programs,
    Snapshot, SnapshotName, decide, lies_on_zfs,
};
use crate::types::Seq;
use scheduler::Progress;
pub(super) use scheduler::start as start_scheduler;

/// How long a program before or after a snapshot may take.
const HOOK: Duration = Duration::from_secs(60);

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("the program that is to be run before it failed")]
    Before(#[source] ProgramError),
    #[error(transparent)]
    Still(#[from] StillError),
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("it was taken, and is not there")]
    Vanished,
    #[error("there is no snapshot `{name}`")]
    Unknown { name: String },
}

impl From<SnapshotError> for SnapshotFailure {
    fn from(error: SnapshotError) -> Self {
        let told = with_causes(&error);
        match error {
            SnapshotError::Unknown { name } => Self::Unknown { name },
            SnapshotError::Before(_) | SnapshotError::Backend(BackendError::Impossible { .. }) => {
                Self::Impossible(told)
            }
            SnapshotError::Still(_)
            | SnapshotError::Backend(_)
            | SnapshotError::Catalog(_)
            | SnapshotError::Vanished => Self::Failed(told),
        }
    }
}

/// Starts what runs the `zfs` command, where there is a use for it.
pub(super) fn start_programs(backing: &OwnedFd) -> anyhow::Result<Option<Arc<Programs>>> {
    if !lies_on_zfs(backing) {
        return Ok(None);
    }
    let programs = Programs::start(super::privileges::drop_unneeded_for_programs);
    Ok(Some(Arc::new(programs.context("cannot run programs")?)))
}

/// Says in the log what can be taken of the backing directory.
pub(super) fn tell_of_snapshots(snapshots: &dyn Backend) {
    let (backend, dataset) = (snapshots.kind().as_str(), snapshots.dataset());
    match snapshots.reason() {
        Some(reason) => tracing::info!(reason, "no snapshots"),
        None => tracing::info!(backend, dataset, "snapshots can be taken"),
    }
}

/// What takes snapshots.
#[derive(Debug)]
pub(super) struct Snapshotter {
    backend: Arc<dyn Backend>,
    fs: Arc<Fs>,
    catalog: Arc<Catalog>,
    /// Whose marks are ours.
    id: Uuid,
    enabled: Snapshots,
    settings: Arc<SnapshotSettings>,
    /// Runs the programs of the configuration, which have no rights that others would not have.
    hooks: Option<Programs>,
    /// One at a time; names of those that were not taken in time.
    one: Mutex<Vec<String>>,
    progress: Mutex<Progress>,
}

impl Snapshotter {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        fs: Arc<Fs>,
        catalog: Arc<Catalog>,
        enabled: Snapshots,
        settings: Arc<SnapshotSettings>,
    ) -> anyhow::Result<Self> {
        let id = Uuid::from_bytes(catalog.read(|reader| reader.catalog_id())?);
        let has_hooks = !settings.before.is_empty() || !settings.after.is_empty();
        let hooks = if has_hooks { Some(Programs::start(|| {})?) } else { None };
        let (one, progress) = (Mutex::default(), Mutex::default());
        Ok(Self { backend, fs, catalog, id, enabled, settings, hooks, one, progress })
    }

    /// Whether there are any.
    fn is_possible(&self) -> bool {
        self.backend.kind() != BackendKind::None
    }

    /// Refuses where there are none.
    fn check_possible(&self) -> Result<(), BackendError> {
        match self.backend.reason() {
            Some(reason) => Err(BackendError::Impossible { reason }),
            None => Ok(()),
        }
    }

    /// The last change that is in a snapshot, if it is ours.
    fn seq_of(&self, snapshot: &Snapshot) -> Option<Seq> {
        let mark = snapshot.mark.filter(|mark| mark.catalog == self.id);
        mark.map(|mark| mark.seq)
    }

    fn record(&self, snapshot: &Snapshot) -> SnapshotRecord {
        let (backend, dataset) = (self.backend.kind().as_str(), self.backend.dataset());
        SnapshotRecord::new(backend, dataset, snapshot, self.seq_of(snapshot))
    }

    /// Looks what there is, and tells the catalog of those that are ours.
    fn look(&self) -> Result<Vec<Snapshot>, BackendError> {
        let list = self.backend.list()?;
        if !self.is_possible() {
            return Ok(list);
        }
        let (backend, dataset) = (self.backend.kind().to_string(), self.backend.dataset().into());
        let row = |snapshot: &Snapshot| {
            let class = SnapshotName::parse(&snapshot.name).map(|name| name.class.to_string());
            Some(SnapshotRow {
                backend: self.backend.kind().to_string(),
                dataset: self.backend.dataset().into(),
                guid: snapshot.guid.clone(),
                name: snapshot.name.clone(),
                class,
                createtxg: snapshot.createtxg,
                seq: self.seq_of(snapshot)?,
                time_ns: snapshot.time_ns,
                is_held: snapshot.holds > 0,
                gone_ns: None,
            })
        };
        let found = list.iter().filter_map(row).collect();
        let op = Op::Snapshots(Box::new(SnapshotsSeen { backend, dataset, found }));
        self.catalog.push([Event { time_ns: now_ns(), writer: None, op }]);
        self.catalog.barrier();
        Ok(list)
    }

    fn find(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        let found = self.look()?.into_iter().find(|snapshot| snapshot.name == name);
        found.ok_or_else(|| SnapshotError::Unknown { name: name.into() })
    }

    /// Takes one.
    fn take(&self, class: Class) -> Result<Snapshot, SnapshotError> {
        self.check_possible()?;
        let mut late = self.one.lock();
        self.destroy_late(&mut late);
        let taken = self.backend.list()?;
        let name = SnapshotName::free(class, now_ns(), |name| taken.iter().any(|s| s.name == name));
        let name = name.to_string();
        self.hook(&self.settings.before, &name).map_err(SnapshotError::Before)?;
        let began = std::time::Instant::now();
        let held = self.fs.hold_still(|seq| {
            let made = self.backend.create(&name, &Mark { seq, catalog: self.id });
            (made, seq, began.elapsed())
        });
        if let Err(error) = self.hook(&self.settings.after, &name) {
            tracing::warn!(%error, "the program that is to be run after a snapshot failed");
        }
        let (made, seq, took) = held?;
        if let Err(BackendError::Program(ProgramError::TimedOut { .. })) = &made {
            late.push(name.clone());
            self.destroy_late(&mut late);
        }
        made?;
        let found = self.look()?.into_iter().find(|snapshot| snapshot.name == name);
        let found = found.ok_or(SnapshotError::Vanished)?;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(snapshot = name, seq = seq.0, duration_ms, "a snapshot was taken");
        Ok(found)
    }

    /// Destroys what came into being after nobody waited for it any more.
    fn destroy_late(&self, late: &mut Vec<String>) {
        late.retain(|name| {
            let there = self.backend.list().map(|list| list.iter().any(|s| s.name == *name));
            match there {
                Ok(false) => true,
                Ok(true) => self.backend.destroy(&[name]).iter().any(|(_, done)| done.is_err()),
                Err(_) => true,
            }
        });
    }

    fn hook(&self, words: &[String], name: &str) -> Result<(), ProgramError> {
        let (Some(hooks), Some((program, args))) = (&self.hooks, words.split_first()) else {
            return Ok(());
        };
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        args.push(name);
        hooks.run_for(program, &args, HOOK)
    }

    /// Decides about each, and destroys those that go if that is wanted.
    fn prune_by(
        &self,
        keep: &KeepCounts,
        mode: PruneMode,
    ) -> Result<Vec<SnapshotPruneRecord>, SnapshotError> {
        self.check_possible()?;
        let _one = self.one.lock();
        let list = self.look()?;
        let fates = decide(&list, self.id, keep, now_ns());
        let records = list.iter().zip(&fates);
        let mut records: Vec<_> =
            records.map(|(s, fate)| SnapshotPruneRecord::new(self.record(s), fate)).collect();
        if mode == PruneMode::DryRun || fates.iter().all(Fate::is_keep) {
            return Ok(records);
        }
        // As it is now: a name may have become another's since.
        let now = self.backend.list()?;
        let is_same = |(snapshot, fate): &(&Snapshot, &Fate)| {
            let same = |s: &&Snapshot| s.guid == snapshot.guid && s.name == snapshot.name;
            let found = now.iter().find(same);
            !fate.is_keep() && found.is_some_and(|s| s.holds == 0 && s.mark == snapshot.mark)
        };
        let going = list.iter().zip(&fates).filter(is_same).map(|(s, _)| &*s.name);
        let going: Vec<&str> = going.collect();
        for (name, done) in self.backend.destroy(&going) {
            match done {
                Ok(()) => tracing::info!(snapshot = name, "a snapshot was destroyed"),
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(snapshot = name, error, "a snapshot could not be destroyed");
                    let record = records.iter_mut().find(|record| record.snapshot.name == name);
                    if let Some(record) = record {
                        record.error = Some(error);
                    }
                }
            }
        }
        self.look()?;
        Ok(records)
    }
}

impl SnapshotDirs for Snapshotter {
    fn open_dir(&self, name: &str) -> Result<OwnedFd, String> {
        self.backend.open(name).map_err(|error| with_causes(&error))
    }
}

impl SnapshotHost for Snapshotter {
    fn list(&self) -> Result<Vec<SnapshotRecord>, SnapshotFailure> {
        let list = self.look().map_err(SnapshotError::from)?;
        Ok(list.iter().map(|snapshot| self.record(snapshot)).collect())
    }

    fn create(&self, class: Class) -> Result<SnapshotRecord, SnapshotFailure> {
        Ok(self.record(&self.take(class)?))
    }

    fn prune(
        &self,
        keep: &[KeepField],
        mode: PruneMode,
    ) -> Result<Vec<SnapshotPruneRecord>, SnapshotFailure> {
        let mut counts = self.settings.keep.clone();
        keep.iter().for_each(|field| counts.set(field.class, field.count));
        Ok(self.prune_by(&counts, mode)?)
    }

    fn hold(&self, name: &str, hold: SnapshotHold) -> Result<SnapshotRecord, SnapshotFailure> {
        self.check_possible().map_err(SnapshotError::from)?;
        self.find(name)?;
        let done = match hold {
            SnapshotHold::Hold => self.backend.hold(name),
            SnapshotHold::Release => self.backend.release(name),
        };
        // It is there, so it was held already, or not by us.
        done.map_err(|error| SnapshotFailure::Impossible(with_causes(&error)))?;
        Ok(self.record(&self.find(name)?))
    }

    fn status(&self) -> SnapshotsStatus {
        self.describe(now_ns())
    }
}
