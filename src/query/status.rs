//! How a mount is, and what the socket may ask of the one who runs it.
//!
//! Owns the words of `status`. Whoever runs a mount implements [`Host`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use super::request::{Mark, PruneCap, PruneMode, Wait};
use super::snapshots::{SnapshotHost, SnapshotsStatus};
use super::verify::{VerifyProgress, VerifyRecord, VerifyRequest};
use crate::catalog::{
    CatalogError, CollectionChange, FileHistory, LabelChange, LastPrune, Reader, VersionKey,
};
use crate::pruning::{Scope, Verdict};
use crate::restore::Tree;
use crate::store::pack::PackTotals;
use crate::timespec::rfc3339;
use crate::types::{FileId, Seq, Writer};

/// Gets the decisions about one file: its path, its history, and the decisions, newest first.
pub type PruneReport<'r> = dyn FnMut(&[u8], &FileHistory, &[Verdict]) -> std::io::Result<()> + 'r;

/// The mount, as far as the socket needs it.
pub trait Host: Send + Sync {
    /// Figures of the mount.
    fn status(&self) -> MountStatus;

    /// Waits until all digests that are on their way are known.
    fn settle(&self);

    /// The same, but only for as long as somebody who asks a question would.
    fn settle_soon(&self);

    /// Makes everything closed so far durable and returns the last change.
    ///
    /// # Errors
    /// Why it could not, in words for the user.
    fn sync(&self) -> Result<Seq, String>;

    /// The operations by which things are brought back.
    ///
    /// # Errors
    /// Why there are none, in words for the user.
    fn tree(&self) -> Result<&dyn Tree, String>;

    /// Begins to compare the backing directory with the catalog, or lets a run go on that does.
    ///
    /// When this returns, [`Host::reconcile_progress`] is of that run. It is in haste if somebody waits.
    fn start_reconcile(&self, wait: Wait);

    /// How far the newest run is.
    fn reconcile_progress(&self) -> ReconcileProgress;

    /// Reads everything again and compares it with its digests. Tells what it finds and how far it is,
    /// several times a second, until it is done or `tell` is false.
    ///
    /// # Errors
    /// Why it ended early, in words for the user.
    fn verify(
        &self,
        request: &VerifyRequest,
        tell: &mut dyn FnMut(VerifyRecord) -> bool,
    ) -> Result<(), String>;

    /// How far the newest such run is, if there ever was one.
    fn verified(&self) -> Option<VerifyProgress>;

    /// Prunes history, or only decides about it.
    ///
    /// # Errors
    /// Why it could not, in words for the user.
    fn prune(
        &self,
        scope: Scope,
        mode: PruneMode,
        cap: PruneCap,
        report: &mut PruneReport<'_>,
    ) -> Result<PruneTotals, String>;

    /// Marks a version, for somebody who may.
    ///
    /// # Errors
    /// Why it could not, in words for the user.
    fn mark(&self, version: VersionKey, mark: &Mark, by: Writer) -> Result<(), String>;

    /// Says something of a file, for somebody who may.
    fn label(&self, file: FileId, change: LabelChange, by: Writer);

    /// Changes a collection, for somebody who may.
    fn collect(&self, name: &str, change: CollectionChange, by: Writer);

    /// What can be done with snapshots.
    fn snapshots(&self) -> &dyn SnapshotHost;
}

/// What a prune has come to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct PruneTotals {
    /// Versions that are no heads.
    pub versions: u64,
    /// Those of them whose content went, or would.
    pub dropped: u64,
    /// Bytes that are free now, or would be: each content counts once.
    pub freed_bytes: u64,
    /// Why nothing went, or would.
    pub refused: Option<String>,
}

/// What the last prune of everything came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastPruneRecord {
    /// When.
    pub time: String,
    /// Versions whose content went.
    pub dropped: u64,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// Why nothing went, or not all.
    pub error: Option<String>,
}

impl From<LastPrune> for LastPruneRecord {
    fn from(last: LastPrune) -> Self {
        let LastPrune { time_ns, dropped, freed_bytes, error } = last;
        Self { time: rfc3339(time_ns), dropped, freed_bytes, error }
    }
}

/// Figures of a mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MountStatus {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The backing directory.
    #[serde(with = "lossy")]
    #[schema(value_type = String)]
    pub backing: PathBuf,
    /// Where it is shown.
    #[serde(with = "lossy")]
    #[schema(value_type = String)]
    pub mountpoint: PathBuf,
    /// Where the catalog lies.
    #[serde(with = "lossy")]
    #[schema(value_type = String)]
    pub state_dir: PathBuf,
    /// Seconds since it serves.
    pub uptime_s: u64,
    /// How written bytes travel: `auto`, `stream` or `passthrough`.
    pub io: String,
    /// Whether the kernel goes to the backing files by itself.
    pub passthrough: Passthrough,
    /// Where the HTTP API is; null if it is off.
    #[serde(default)]
    pub api: Option<String>,
    /// The certificate with which it is served; null if it is served without TLS.
    #[serde(default)]
    pub api_cert: Option<CertRecord>,
    /// Whether changes around the mount are found at once.
    #[serde(default)]
    pub watch: WatchRecord,
    /// What inodes are found again by: `handles`, or `paths` where the backing filesystem has no
    /// handles that open them.
    pub inodes_by: String,
    /// Threads that serve the kernel.
    pub threads: usize,
    /// Files that are open through the mount.
    pub open_files: u64,
    /// Directories that are not served because another filesystem is mounted there.
    #[serde(with = "lossy_list")]
    #[schema(value_type = Vec<String>)]
    pub refused: Vec<PathBuf>,
    /// Inodes that the kernel knows.
    pub nodes: u64,
    /// What the thread does that packs what is kept: `off`, `idle`, `recovers`, `packs`, `cleans`, or what it
    /// waits for.
    #[serde(default)]
    pub packing: String,
    /// The copies of the catalog.
    #[serde(default)]
    pub backups: Option<BackupRecord>,
    /// How the taking of snapshots goes.
    #[serde(default)]
    pub snapshots: SnapshotsStatus,
}

/// The certificate of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertRecord {
    /// Where it is.
    #[serde(with = "lossy")]
    #[schema(value_type = String)]
    pub path: PathBuf,
    /// What is wrong with the files as they are now; an older certificate serves in their place.
    pub problem: Option<String>,
}

/// The copies of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupRecord {
    /// How often one is made; null is never.
    pub every: Option<String>,
    /// Where they are.
    #[serde(with = "lossy")]
    #[schema(value_type = String)]
    pub dir: PathBuf,
    /// How many.
    pub count: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// When the newest was made.
    pub last: Option<String>,
    /// When it was last tried in vain; null since one was made.
    pub failed: Option<String>,
    /// Why that was in vain.
    pub error: Option<String>,
}

/// Whether the kernel goes to the backing files by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passthrough {
    /// Whether it does.
    pub enabled: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Whether changes around the mount are found at once, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct WatchRecord {
    /// Whether they are.
    pub enabled: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Names that were looked at.
    pub names: u64,
    /// Files that were read.
    pub read_files: u64,
    /// How often there was too much at once, and a reconcile followed.
    pub overflows: u64,
}

/// How far a comparison of the backing directory with the catalog is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct ReconcileProgress {
    /// What it does.
    pub state: ReconcileState,
    /// Directories seen.
    pub directories: u64,
    /// Files seen.
    pub files: u64,
    /// Files whose content was read.
    pub read_files: u64,
    /// Bytes of content read.
    pub read_bytes: u64,
    /// How many files there may be in all.
    pub total_files: Option<u64>,
    /// Names that are looked at once more after the walk.
    #[serde(default)]
    pub left: u64,
    /// What could not be looked at.
    #[serde(default)]
    pub errors: u64,
    /// When it began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended; null while it runs.
    #[serde(default)]
    pub finished_ns: Option<i64>,
    /// Files seen per second.
    pub files_per_s: f64,
    /// Bytes read per second.
    pub bytes_per_s: f64,
    /// Seconds that it may still take.
    pub eta_s: Option<u64>,
    /// Whether somebody waits for it.
    #[serde(default)]
    pub asked: bool,
    /// Whether it goes slowly because users of the mount have something done.
    #[serde(default)]
    pub slowed: bool,
    /// How often there is one without being asked for, beside that of each start; null is never.
    #[serde(default)]
    pub every: Option<String>,
    /// How hard it may work.
    #[serde(default)]
    pub limits: LimitsRecord,
}

/// How hard a comparison may work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LimitsRecord {
    /// What the backing directory lies on: `ssd`, `hdd` or `network`.
    pub disk: String,
    /// Threads.
    pub threads: usize,
    /// Bytes of content that are read in a second; null is as fast as it goes.
    pub bytes_per_s: Option<u64>,
}

/// What a comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReconcileState {
    /// Nothing: there was none yet.
    #[default]
    Idle,
    /// Catalogues the directory for the first time.
    Import,
    /// Looks for what changed around the mount.
    Check,
    /// Nothing any more: it is complete.
    Done,
}

impl ReconcileState {
    /// Whether it does something.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Import | Self::Check)
    }

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Import => "import",
            Self::Check => "check",
            Self::Done => "done",
        }
    }
}

/// The record of `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusRecord {
    /// Whether a daemon serves the mount; without one there are only the catalog's figures.
    pub running: bool,
    /// Figures of the mount.
    #[serde(flatten)]
    pub mount: Option<MountStatus>,
    /// The last change that is committed.
    pub seq: Seq,
    /// Live names.
    pub entries: u64,
    /// Versions of all files.
    pub versions: u64,
    /// Contents of versions that are no heads, each counted once.
    #[serde(default)]
    pub objects: u64,
    /// Their sizes in bytes.
    #[serde(default)]
    pub object_bytes: u64,
    /// What that takes.
    #[serde(default)]
    pub space: SpaceRecord,
    /// Events that wait for their commit.
    pub queue: u64,
    /// Size of the catalog's write-ahead log.
    pub wal_bytes: u64,
    /// Why the catalog may be behind; null if it is well.
    pub degraded: Option<String>,
    /// The newest comparison with the backing directory.
    pub reconcile: Option<ReconcileProgress>,
    /// The last prune of everything, if there was one.
    #[serde(default)]
    pub last_prune: Option<LastPruneRecord>,
    /// The newest reading of everything; null if there was none.
    #[serde(default)]
    pub verify: Option<VerifyProgress>,
}

/// What everything that is kept takes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct SpaceRecord {
    /// Contents with a file of their own.
    pub loose_objects: u64,
    /// Contents that are packed.
    pub packed_objects: u64,
    /// Their sizes in bytes.
    pub packed_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// What packs take, in bytes.
    pub pack_bytes: u64,
    /// What was found when the store was last looked through; null if it never was.
    pub surveyed: Option<SurveyRecord>,
}

/// What was found when the store was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SurveyRecord {
    /// When that was, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Versions whose content is kept, without those that live files have.
    pub kept_versions: u64,
    /// Their sizes in bytes, each counted.
    pub kept_version_bytes: u64,
    /// What contents with a file of their own take on the disk, in bytes.
    pub loose_disk_bytes: u64,
    /// How many of these bytes other files have too.
    pub loose_shared_bytes: u64,
    /// How many times as large the versions are as what is kept for them; null if that is nothing.
    pub ratio: Option<f64>,
}

impl SpaceRecord {
    /// The figures of a catalog and its packs.
    pub(super) fn new(reader: &Reader, packs: PackTotals) -> Result<Self, CatalogError> {
        let totals = reader.object_totals()?;
        let surveyed = reader.survey()?.map(|survey| {
            let own = survey.loose.bytes.saturating_sub(survey.shared_bytes) + packs.bytes;
            #[expect(clippy::cast_precision_loss, reason = "a ratio is approximate")]
            let ratio = (own > 0).then(|| survey.versions.bytes as f64 / own as f64);
            SurveyRecord {
                time_ns: survey.time_ns,
                kept_versions: survey.versions.count,
                kept_version_bytes: survey.versions.bytes,
                loose_disk_bytes: survey.loose.bytes,
                loose_shared_bytes: survey.shared_bytes,
                ratio,
            }
        });
        Ok(Self {
            loose_objects: totals.loose.count,
            packed_objects: totals.packed.count,
            packed_bytes: totals.packed.bytes,
            packs: packs.packs,
            pack_bytes: packs.bytes,
            surveyed,
        })
    }
}

fn text(path: &Path) -> Cow<'_, str> {
    path.to_string_lossy()
}

/// A path as text: `status` is for reading, so what is not UTF-8 shows as U+FFFD.
mod lossy {
    use super::*;

    pub(super) fn serialize<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&text(path))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        String::deserialize(d).map(PathBuf::from)
    }
}

mod lossy_list {
    use super::*;

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(paths.iter().map(|path| text(path)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<PathBuf>, D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        Ok(texts.into_iter().map(PathBuf::from).collect())
    }
}
