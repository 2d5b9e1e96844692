//! How a mount is, and what the socket may ask of the one who runs it.
//!
//! Owns the words of `status`. Whoever runs a mount implements [`Host`].

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::restore::Tree;
use crate::types::Seq;

/// The mount, as far as the socket needs it.
pub trait Host: Send + Sync {
    /// Figures of the mount.
    fn status(&self) -> MountStatus;

    /// Waits until all digests that are on their way are known.
    fn settle(&self);

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
    /// When this returns, [`Host::reconcile_progress`] is of that run.
    fn start_reconcile(&self);

    /// How far the newest run is.
    fn reconcile_progress(&self) -> ReconcileProgress;
}

/// Figures of a mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MountStatus {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The backing directory.
    #[serde(with = "lossy")]
    pub backing: PathBuf,
    /// Where it is shown.
    #[serde(with = "lossy")]
    pub mountpoint: PathBuf,
    /// Where the catalog lies.
    #[serde(with = "lossy")]
    pub state_dir: PathBuf,
    /// Seconds since it serves.
    pub uptime_s: u64,
    /// How written bytes travel: `auto`, `stream` or `passthrough`.
    pub io: String,
    /// Whether the kernel goes to the backing files by itself.
    pub passthrough: Passthrough,
    /// What inodes are found again by: `handles`, or `paths` where the backing filesystem has no
    /// handles that open them.
    pub inodes_by: String,
    /// Threads that serve the kernel.
    pub threads: usize,
    /// Files that are open through the mount.
    pub open_files: u64,
    /// Directories that are not served because another filesystem is mounted there.
    #[serde(with = "lossy_list")]
    pub refused: Vec<PathBuf>,
    /// Inodes that the kernel knows.
    pub nodes: u64,
}

/// Whether the kernel goes to the backing files by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passthrough {
    /// Whether it does.
    pub enabled: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// How far a comparison of the backing directory with the catalog is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// When it began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// Files seen per second.
    pub files_per_s: f64,
    /// Bytes read per second.
    pub bytes_per_s: f64,
    /// Seconds that it may still take.
    pub eta_s: Option<u64>,
}

/// What a comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// Events that wait for their commit.
    pub queue: u64,
    /// Size of the catalog's write-ahead log.
    pub wal_bytes: u64,
    /// Why the catalog may be behind; null if it is well.
    pub degraded: Option<String>,
    /// The newest comparison with the backing directory.
    pub reconcile: Option<ReconcileProgress>,
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
