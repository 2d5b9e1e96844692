//! What the socket may ask of the mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::backups::{self, Failure};
use super::reconciler::Asker;
use super::restorer::Restorer;
use super::snapshots::Snapshotter;
use super::verify;
use crate::api::Tls;
use crate::catalog::{Catalog, CollectionChange, LabelChange, VersionKey};
use crate::causes::with_causes;
use crate::config::{Access, Disk, MountConfig, Repeat};
use crate::fs::{
    Aim, Cut, Fs, Handles, Haste, Mark, PackingState, Progress, ProgressState, PruneOrder,
    WatchTotals,
};
use crate::fuse::session::PassthroughStatus;
use crate::pruning::Scope;
use crate::query::request::{self, PruneCap, PruneMode, Wait};
use crate::query::snapshots::SnapshotHost;
use crate::query::status::{
    CertRecord, Host, LimitsRecord, MountStatus, Passthrough, PruneReport, PruneTotals,
    ReconcileProgress, ReconcileState, WatchRecord,
};
use crate::query::verify::{VerifyProgress, VerifyRecord, VerifyRequest};
use crate::restore::Tree;
use crate::types::{FileId, Seq, Writer};

/// The mount, for the socket.
#[derive(Debug)]
pub(super) struct MountHost {
    pub(super) config: MountConfig,
    pub(super) disk: Disk,
    /// The state directory, by its descriptor.
    pub(super) state_path: PathBuf,
    /// Why the catalog was not copied the last time.
    pub(super) not_copied: Arc<Mutex<Option<Failure>>>,
    pub(super) snapshots: Arc<Snapshotter>,
    pub(super) fs: Arc<Fs>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) threads: usize,
    pub(super) started_ns: i64,
    pub(super) passthrough: PassthroughStatus,
    /// Why changes around the mount are not watched for; `None` if they are.
    pub(super) unwatched: Option<String>,
    /// Where the HTTP API is, once it is.
    pub(super) api: Arc<OnceLock<Served>>,
    pub(super) asker: Asker,
    pub(super) restorer: Restorer,
}

/// The HTTP API as it is served.
#[derive(Debug)]
pub(super) struct Served {
    /// Where.
    pub(super) at: String,
    /// With which certificate.
    pub(super) tls: Option<Arc<Tls>>,
}

impl Served {
    fn cert(&self) -> Option<CertRecord> {
        let tls = self.tls.as_ref()?;
        Some(CertRecord { path: tls.cert().into(), problem: tls.problem() })
    }
}

impl MountHost {
    fn watch(&self) -> WatchRecord {
        let WatchTotals { names, read_files, overflows } = self.fs.watch_totals();
        let reason = self.unwatched.clone();
        WatchRecord { enabled: reason.is_none(), reason, names, read_files, overflows }
    }
}

impl Host for MountHost {
    fn status(&self) -> MountStatus {
        let (nodes, open) = self.fs.usage();
        let uptime_ns = crate::clock::now_ns().saturating_sub(self.started_ns);
        let refused = self.fs.refused().into_iter().map(OsString::from_vec);
        MountStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            backing: self.config.backing.clone(),
            mountpoint: self.config.mountpoint.clone(),
            state_dir: self.config.state_dir(),
            uptime_s: u64::try_from(uptime_ns / 1_000_000_000).unwrap_or(0),
            io: self.config.io.as_str().into(),
            passthrough: Passthrough {
                enabled: self.passthrough.enabled,
                reason: self.passthrough.reason.clone(),
            },
            watch: self.watch(),
            inodes_by: match self.fs.handles() {
                Handles::Open => "handles".into(),
                Handles::Identify | Handles::None => "paths".into(),
            },
            api: self.api.get().map(|served| served.at.clone()),
            api_cert: self.api.get().and_then(Served::cert),
            threads: self.threads,
            open_files: open as u64,
            refused: refused.map(PathBuf::from).collect(),
            nodes: nodes as u64,
            packing: match self.fs.packing_state() {
                PackingState::Off => "off",
                PackingState::Idle => "idle",
                PackingState::Recovers => "recovers",
                PackingState::Packs => "packs",
                PackingState::Cleans => "cleans",
                PackingState::WaitsForMount => "waits for the mount",
                PackingState::WaitsForRoom => "waits for room",
            }
            .into(),
            backups: Some(backups::describe(
                &self.config,
                &self.state_path,
                self.not_copied.lock().clone(),
            )),
            snapshots: SnapshotHost::status(&*self.snapshots),
        }
    }

    fn settle(&self) {
        self.fs.settle();
    }

    fn settle_soon(&self) {
        self.fs.settle_soon();
    }

    fn sync(&self) -> Result<Seq, String> {
        self.fs.settle();
        self.fs.write_through().map_err(|error| format!("cannot write to the disk: {error}"))?;
        self.catalog.sync().map_err(|error| error.to_string())
    }

    fn tree(&self) -> Result<&dyn Tree, String> {
        match self.config.access {
            Access::ReadWrite => Ok(&self.restorer),
            Access::ReadOnly => Err("the mount is read-only".into()),
        }
    }

    fn start_reconcile(&self, wait: Wait) {
        self.asker.ask(match wait {
            Wait::Yes => Haste::Asked,
            Wait::No => Haste::Needed,
        });
    }

    fn reconcile_progress(&self) -> ReconcileProgress {
        let limits = self.fs.reconcile_limits();
        ReconcileProgress {
            every: every(self.config.reconcile),
            limits: LimitsRecord {
                disk: self.disk.as_str().into(),
                threads: limits.threads.get(),
                bytes_per_s: limits.rate.map(std::num::NonZeroU64::get),
            },
            ..describe(&self.fs.progress(), crate::clock::now_ns())
        }
    }

    fn verify(
        &self,
        request: &VerifyRequest,
        tell: &mut dyn FnMut(VerifyRecord) -> bool,
    ) -> Result<(), String> {
        verify::run(&self.fs, request, tell)
    }

    fn verified(&self) -> Option<VerifyProgress> {
        let (verified, running) = self.fs.verified();
        verified.map(|verified| verify::progress(&verified, running))
    }

    fn prune(
        &self,
        scope: Scope,
        mode: PruneMode,
        cap: PruneCap,
        report: &mut PruneReport<'_>,
    ) -> Result<PruneTotals, String> {
        let aim = match mode {
            PruneMode::Drop => Aim::Drop,
            PruneMode::DryRun => Aim::Show,
        };
        let cut = match cap {
            PruneCap::Holds => Cut::Capped,
            PruneCap::Lifted => Cut::Any,
        };
        self.fs.settle();
        let outcome = self
            .fs
            .prune(&PruneOrder { scope, aim, cut }, report)
            .map_err(|error| with_causes(&error))?;
        Ok(PruneTotals {
            versions: outcome.plan.tally.items,
            dropped: outcome.plan.tally.dropped,
            freed_bytes: outcome.freed_bytes,
            refused: outcome.refused.map(|cap| cap.to_string()),
        })
    }

    fn mark(&self, version: VersionKey, mark: &request::Mark, by: Writer) -> Result<(), String> {
        let mark = match mark {
            request::Mark::Pin => Mark::Pin,
            request::Mark::Unpin => Mark::Unpin,
            request::Mark::Note(text) => Mark::Note(text.as_str().into()),
        };
        self.fs.mark(version, mark, by).map_err(|error| with_causes(&error))
    }

    fn label(&self, file: FileId, change: LabelChange, by: Writer) {
        self.fs.label(file, change, by);
    }

    fn collect(&self, name: &str, change: CollectionChange, by: Writer) {
        self.fs.collect(name, change, by);
    }

    fn snapshots(&self) -> &dyn SnapshotHost {
        &*self.snapshots
    }
}

/// How often something is done without being asked; `None` is never.
pub(super) fn every(repeat: Repeat) -> Option<String> {
    match repeat {
        Repeat::Off => None,
        Repeat::Every(span) => Some(span.to_string()),
    }
}

/// Progress with the rates it has had so far.
fn describe(p: &Progress, now_ns: i64) -> ReconcileProgress {
    let end = if p.finished_ns == 0 { now_ns } else { p.finished_ns };
    #[expect(clippy::cast_precision_loss, reason = "rates are approximate")]
    let (seconds, files, bytes) =
        (((end - p.started_ns).max(1) as f64) / 1e9, p.files as f64, p.read_bytes as f64);
    let state = match p.state {
        ProgressState::Idle => ReconcileState::Idle,
        ProgressState::Import => ReconcileState::Import,
        ProgressState::Check => ReconcileState::Check,
        ProgressState::Done => ReconcileState::Done,
    };
    let total = Some(p.expected).filter(|n| *n > 0);
    ReconcileProgress {
        state,
        directories: p.directories,
        files: p.files,
        read_files: p.read_files,
        read_bytes: p.read_bytes,
        total_files: total,
        left: p.later.saturating_sub(p.later_done),
        errors: p.errors,
        started_ns: p.started_ns,
        finished_ns: Some(p.finished_ns).filter(|ns| *ns > 0),
        files_per_s: files / seconds,
        bytes_per_s: bytes / seconds,
        eta_s: if state.is_running() { rest_s(p, now_ns) } else { None },
        asked: p.haste == Haste::Asked,
        slowed: p.is_slowed,
        every: None,
        limits: LimitsRecord::default(),
    }
}

/// The seconds that a run may still take, if it goes on as it does. Of names and bytes, those count that are
/// furthest from their end: a first run may have many small files before few large ones.
fn rest_s(p: &Progress, now_ns: i64) -> Option<u64> {
    let rest = |since_ns: i64, done: u64, all: u64| {
        let spent = u128::try_from(now_ns.saturating_sub(since_ns)).unwrap_or(0);
        let rest = u128::from(all.saturating_sub(done)) * spent / u128::from(done);
        u64::try_from(rest.div_ceil(1_000_000_000)).unwrap_or(u64::MAX)
    };
    if p.later > 0 {
        return (p.later_done > 0).then(|| rest(p.later_ns, p.later_done, p.later));
    }
    let amounts = [(p.files, p.expected), (p.read_bytes, p.expected_bytes)];
    let known = amounts.into_iter().filter(|(done, all)| *done > 0 && *all > 0);
    known.map(|(done, all)| rest(p.started_ns, done, all)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_the_rest_follow_from_the_counts() {
        let progress = Progress {
            state: ProgressState::Check,
            files: 1_000,
            read_bytes: 4_000,
            expected: 3_000,
            started_ns: 0,
            ..Progress::default()
        };
        let shown = describe(&progress, 2_000_000_000);
        assert!((shown.files_per_s - 500.0).abs() < 1e-6);
        assert!((shown.bytes_per_s - 2_000.0).abs() < 1e-6);
        assert_eq!(shown.eta_s, Some(4));
    }

    #[test]
    fn what_is_left_is_told_by_what_takes_longest() {
        let all = Progress {
            state: ProgressState::Import,
            files: 500,
            read_bytes: 10,
            expected: 1_000,
            expected_bytes: 100,
            ..Progress::default()
        };
        let at = |p: Progress, seconds: i64| describe(&p, seconds * 1_000_000_000).eta_s;
        assert_eq!(at(all, 10), Some(90), "bytes");
        assert_eq!(at(Progress { read_bytes: 90, ..all }, 10), Some(10), "names");
        assert_eq!(at(Progress { expected: 0, expected_bytes: 0, ..all }, 10), None);
        let later = Progress { later: 4, later_done: 1, later_ns: 7_000_000_000, ..all };
        assert_eq!(at(later, 10), Some(9), "after the walk, names that are looked at once more");
        assert_eq!(at(Progress { later_done: 0, ..later }, 10), None);
        assert_eq!(at(Progress { state: ProgressState::Done, ..all }, 10), None);
    }
}
