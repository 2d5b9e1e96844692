//! Snapshots of the backing filesystem: what is told of them, and what the mount does with them.
//!
//! Owns the records, and what the catalog knows of two snapshots without looking into them. Only root and the
//! user who mounted may have anything done; and only they see what has changed between two, whatever the
//! rights on the files are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::{FromPathField, PathField, PruneMode};
use super::{Query, QueryError};
use crate::catalog::{ByWhom, CatalogError, NodeInfo, OnlyThere, Reader, SnapshotRow, When};
pub use crate::retention::Count;
pub use crate::snapshots::Class;
use crate::snapshots::{Fate, Snapshot, SnapshotName};
use crate::timespec::rfc3339;
use crate::types::{ContentHash, FileId, Kind, Seq};

/// What may be asked of snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum SnapshotOrder {
    /// To list them.
    List,
    /// One, and what only it has.
    Show {
        /// Which.
        name: String,
    },
    /// To take one.
    Create {
        /// Of which class.
        class: Class,
    },
    /// To destroy those that need not be kept.
    Prune {
        /// How many of a class stay, in place of what the configuration says.
        keep: Vec<KeepField>,
        /// Whether anything goes.
        mode: PruneMode,
    },
    /// To have one stay until it is released.
    Hold {
        /// Which.
        name: String,
    },
    /// To let one go again.
    Release {
        /// Which.
        name: String,
    },
    /// Which of them have a version of a path, or all its versions.
    Find {
        /// Whose.
        #[serde(flatten)]
        path: PathField,
        /// Which; all if left out.
        version: Option<String>,
    },
    /// What has changed from one to another, or to now.
    Diff {
        /// From which.
        from: String,
        /// To which; to now if left out.
        to: Option<String>,
        /// Only what comes after this.
        #[serde(default)]
        after: Option<SnapshotDiffPlace>,
        /// At most so many; all if left out.
        #[serde(default)]
        limit: Option<u64>,
    },
}

/// How many of a class stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepField {
    /// Of which.
    pub class: Class,
    /// How many.
    pub count: Count,
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotRecord {
    /// Its name.
    pub name: String,
    /// What it is of.
    pub dataset: String,
    /// `zfs` or `btrfs`.
    pub backend: String,
    /// Its class, if its name is of one.
    pub class: Option<String>,
    /// When it was taken.
    pub time: String,
    /// The last change that is in it; null if this catalog has not marked it.
    pub seq: Option<Seq>,
    /// What tells it from others of its name.
    pub guid: String,
    /// The transaction in which it was taken.
    pub createtxg: u64,
    /// What destroying it alone would free, in bytes, if that is known.
    pub used: Option<u64>,
    /// How many want it to stay.
    pub holds: u64,
    /// What was cloned from it.
    pub clones: Vec<String>,
    /// Whether somebody has said that a replication goes on from it.
    pub base: bool,
}

impl SnapshotRecord {
    /// What is told of a snapshot; `seq` if it is of this catalog.
    pub fn new(backend: &str, dataset: &str, snapshot: &Snapshot, seq: Option<Seq>) -> Self {
        let class = SnapshotName::parse(&snapshot.name).map(|name| name.class.to_string());
        Self {
            name: snapshot.name.clone(),
            dataset: dataset.into(),
            backend: backend.into(),
            class,
            time: rfc3339(snapshot.time_ns),
            seq,
            guid: snapshot.guid.clone(),
            createtxg: snapshot.createtxg,
            used: snapshot.used_bytes,
            holds: snapshot.holds,
            clones: snapshot.clones.clone(),
            base: snapshot.is_base,
        }
    }

    /// What the catalog remembers of one.
    fn remembered(row: SnapshotRow) -> Self {
        Self {
            name: row.name,
            dataset: row.dataset,
            backend: row.backend,
            class: row.class,
            time: rfc3339(row.time_ns),
            seq: Some(row.seq),
            guid: row.guid,
            createtxg: row.createtxg,
            used: None,
            holds: u64::from(row.is_held),
            clones: Vec::new(),
            base: false,
        }
    }
}

/// A snapshot, and what would be lost with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotShowRecord {
    /// Which.
    #[serde(flatten)]
    pub snapshot: SnapshotRecord,
    /// What neither the store nor a live file nor another snapshot has; null if this catalog has not marked it.
    pub only: Option<SnapshotOnlyRecord>,
}

/// What only one snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotOnlyRecord {
    /// Versions.
    pub versions: u64,
    /// Sizes of their contents in bytes, each content counted once.
    pub bytes: u64,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotPruneRecord {
    /// Which.
    #[serde(flatten)]
    pub snapshot: SnapshotRecord,
    /// Whether it goes, or would.
    pub drop: bool,
    /// Why.
    pub reason: String,
    /// Why it is there all the same.
    pub error: Option<String>,
}

impl SnapshotPruneRecord {
    /// What a policy says of a snapshot.
    pub fn new(snapshot: SnapshotRecord, fate: &Fate) -> Self {
        Self { snapshot, drop: !fate.is_keep(), reason: fate.reason(), error: None }
    }
}

/// A version in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotVersionRecord {
    /// Its position in the history of the path that was asked for, from 1 for the oldest.
    pub number: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Option<ContentHash>,
    /// The snapshot.
    pub snapshot: String,
    /// When that was taken.
    pub time: String,
    /// The last change that is in it.
    pub seq: Seq,
    /// Where the version is in it.
    #[serde(flatten)]
    pub path: PathField,
}

/// What has changed from one snapshot to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotDiffRecord {
    /// How.
    pub change: SnapshotChange,
    /// Where it is in the later one, or was in the earlier.
    #[serde(flatten)]
    pub path: PathField,
    /// Where it was, if it was moved.
    #[serde(flatten)]
    pub from: Option<FromPathField>,
    /// What it is, or was.
    pub kind: Kind,
    /// Its size in the earlier one.
    pub size_before: Option<u64>,
    /// Its size in the later one.
    pub size: Option<u64>,
    /// Its digest in the later one.
    pub sha256: Option<ContentHash>,
}

/// Where a record stands among what has changed: they are in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotDiffPlace {
    /// The path.
    #[serde(flatten)]
    pub path: PathField,
    /// What has become of it.
    pub change: SnapshotChange,
}

impl SnapshotDiffRecord {
    /// Where it stands.
    pub fn place(&self) -> SnapshotDiffPlace {
        SnapshotDiffPlace { path: self.path.clone(), change: self.change }
    }
}

/// How something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotChange {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// Its content or its attributes are others.
    Modified,
    /// It has another name, and may have been changed, too.
    Renamed,
}

/// Why something was not done with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFailure {
    /// There is none of the name.
    #[error("there is no snapshot `{name}`")]
    Unknown {
        /// Which.
        name: String,
    },
    /// It cannot be done as things are, in words for the user.
    #[error("{0}")]
    Impossible(String),
    /// Something went wrong, in words for the user.
    #[error("{0}")]
    Failed(String),
}

/// What the mount does with snapshots.
pub trait SnapshotHost {
    /// Every snapshot of what is served, in the order in which they were taken.
    ///
    /// # Errors
    /// Why they cannot be told, in words for the user.
    fn list(&self) -> Result<Vec<SnapshotRecord>, SnapshotFailure>;

    /// Takes one.
    ///
    /// # Errors
    /// Why it could not be taken.
    fn create(&self, class: Class) -> Result<SnapshotRecord, SnapshotFailure>;

    /// Decides about each, and destroys those that go if that is wanted.
    ///
    /// # Errors
    /// Why nothing could be decided.
    fn prune(
        &self,
        keep: &[KeepField],
        mode: PruneMode,
    ) -> Result<Vec<SnapshotPruneRecord>, SnapshotFailure>;

    /// Has one stay, or lets it go again.
    ///
    /// # Errors
    /// Why that could not be done.
    fn hold(&self, name: &str, hold: SnapshotHold) -> Result<SnapshotRecord, SnapshotFailure>;

    /// How the taking of them goes.
    fn status(&self) -> SnapshotsStatus;
}

/// What becomes of our hold on a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotHold {
    /// It stays until it is released.
    Hold,
    /// It may go.
    Release,
}

/// How the taking of snapshots goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct SnapshotsStatus {
    /// `zfs`, `btrfs` or `none`.
    pub backend: String,
    /// What is snapshotted.
    pub dataset: String,
    /// Why there are none.
    pub reason: Option<String>,
    /// Whether they are taken without being asked.
    pub enabled: bool,
    /// Those classes that are taken.
    pub classes: Vec<SnapshotClassStatus>,
}

/// How the taking of one class goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotClassStatus {
    /// Which.
    pub class: String,
    /// When one is taken.
    pub schedule: String,
    /// How many stay.
    pub keep: String,
    /// When the newest was taken, or was not needed because nothing had changed.
    pub last: Option<String>,
    /// When the next is due.
    pub next: Option<String>,
    /// Since how many seconds one is due; 0 if none is.
    pub overdue_s: u64,
    /// How often it has failed since then.
    pub failures: u32,
    /// Why, the last time.
    pub error: Option<String>,
}

impl Query<'_, '_> {
    /// Every snapshot that the catalog knows to be there.
    pub(super) fn remembered_snapshots(&mut self) -> Result<Vec<SnapshotRecord>, QueryError> {
        let rows = self.reader.snapshots()?;
        Ok(rows.into_iter().map(SnapshotRecord::remembered).collect())
    }

    /// The one of a name among the snapshots that are there, with what only it has.
    pub(super) fn show_snapshot(
        &mut self,
        name: &str,
        there: Vec<SnapshotRecord>,
    ) -> Result<(), QueryError> {
        let found = there.into_iter().find(|snapshot| snapshot.name == name);
        let snapshot = found.ok_or_else(|| SnapshotFailure::Unknown { name: name.into() })?;
        let known = self.reader.snapshots()?;
        let only = match known.iter().find(|row| row.guid == snapshot.guid) {
            Some(row) => {
                let OnlyThere { versions, bytes } = self.reader.only_in(row)?;
                Some(SnapshotOnlyRecord { versions, bytes })
            }
            None => None,
        };
        Ok(self.answer.record(&SnapshotShowRecord { snapshot, only })?)
    }

    /// The snapshots that have a version of a path, or each of its versions, the newest first.
    pub(super) fn snapshots_with(
        &mut self,
        path: &[u8],
        version: Option<&str>,
    ) -> Result<(), QueryError> {
        let versions = match version {
            Some(name) => vec![self.version_named(path, name)?],
            None => self.lineage(path)?,
        };
        for (number, version) in versions.into_iter().rev() {
            for found in self.reader.in_snapshots((version.file, version.number))? {
                let path = found.paths.into_iter().next().unwrap_or_default();
                self.answer.record(&SnapshotVersionRecord {
                    number,
                    size: version.size,
                    sha256: version.hash,
                    snapshot: found.snapshot.name,
                    time: rfc3339(found.snapshot.time_ns),
                    seq: found.snapshot.seq,
                    path: PathField(path),
                })?;
            }
        }
        Ok(())
    }

    /// What has changed from one snapshot to another, or to now: at most so many records after a place.
    pub(super) fn snapshot_diff(
        &mut self,
        from: &str,
        to: Option<&str>,
        after: Option<&SnapshotDiffPlace>,
        limit: Option<u64>,
    ) -> Result<(), QueryError> {
        let mut records = self.reader.in_one_state(|reader| {
            let from = self.snapshot_seq(from)?;
            let to = match to {
                Some(name) => self.snapshot_seq(name)?,
                None => reader.seq()?,
            };
            let touched = reader.touched(from.min(to), from.max(to), &ByWhom::default())?;
            let mut records = Vec::new();
            for file in touched.into_keys().filter(|file| *file != FileId::ROOT) {
                let (before, after) = (state(reader, file, from)?, state(reader, file, to)?);
                compare(&before, &after, &mut records);
            }
            Ok::<_, QueryError>(records)
        })?;
        records.sort_by(|a, b| a.path.0.cmp(&b.path.0).then(a.change.cmp(&b.change)));
        let is_passed = |record: &SnapshotDiffRecord| {
            after.is_some_and(|after| {
                (&record.path.0, record.change) <= (&after.path.0, after.change)
            })
        };
        let passed = records.partition_point(is_passed);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        for record in records.iter().skip(passed).take(limit) {
            self.answer.record(record)?;
        }
        Ok(())
    }

    fn snapshot_seq(&self, name: &str) -> Result<Seq, QueryError> {
        let found = self.reader.snapshot(name)?;
        found.map(|row| row.seq).ok_or_else(|| QueryError::NoSnapshot { name: name.into() })
    }
}

/// What a file was at some time: its names, and what it had.
type State = Option<(Vec<Vec<u8>>, NodeInfo)>;

fn state(reader: &Reader, file: FileId, at: Seq) -> Result<State, CatalogError> {
    let names: Vec<_> = reader.names_at(file, at)?.into_iter().map(|name| name.path).collect();
    let node = if names.is_empty() { None } else { reader.node(file, When::At(at))? };
    Ok(node.map(|node| (names, node)))
}

/// Tells the names that are there no more, those that are new, and what has changed under those that stay.
fn compare(before: &State, after: &State, records: &mut Vec<SnapshotDiffRecord>) {
    let Some((_, either)) = after.as_ref().or(before.as_ref()) else { return };
    let record = |change, path: &[u8]| SnapshotDiffRecord {
        change,
        path: PathField(path.into()),
        from: None,
        kind: either.kind,
        size_before: before.as_ref().map(|(_, node)| node.size),
        size: after.as_ref().map(|(_, node)| node.size),
        sha256: after.as_ref().and_then(|(_, node)| node.hash),
    };
    let names = |state: &State| state.as_ref().map(|(names, _)| names.clone()).unwrap_or_default();
    let (was, is) = (names(before), names(after));
    let mut gone: Vec<_> = was.iter().filter(|name| !is.contains(name)).collect();
    for name in is.iter().filter(|name| !was.contains(name)) {
        match gone.pop() {
            Some(old) => records.push(SnapshotDiffRecord {
                from: Some(FromPathField(old.clone())),
                ..record(SnapshotChange::Renamed, name)
            }),
            None => records.push(record(SnapshotChange::Added, name)),
        }
    }
    records.extend(gone.into_iter().map(|name| record(SnapshotChange::Removed, name)));
    if let (Some((_, old)), Some((_, new))) = (before, after)
        && is_other(old, new)
    {
        let stayed = is.iter().filter(|name| was.contains(name));
        records.extend(stayed.map(|name| record(SnapshotChange::Modified, name)));
    }
}

fn is_other(old: &NodeInfo, new: &NodeInfo) -> bool {
    let facts =
        |node: &NodeInfo| (node.hash, node.size, node.version, node.mode, node.uid, node.gid);
    facts(old) != facts(new)
}
