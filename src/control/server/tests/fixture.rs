//! A served backing directory for tests, without a mount: the tests tell the catalog what a
//! filesystem would.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::super::*;
use crate::catalog::Catalog;
use crate::catalog::event::{Born, Event, Op, Openness, Place};
use crate::content::Contents;
use crate::control::client::{ClientError, ask_daemon};
use crate::query::request::{End, Mark, PruneCap, PruneMode, Request, Wait};
use crate::query::snapshots::{
    KeepField, SnapshotFailure, SnapshotHold, SnapshotHost, SnapshotPruneRecord, SnapshotRecord,
    SnapshotsStatus,
};
use crate::query::status::{
    MountStatus, Passthrough, PruneReport, PruneTotals, ReconcileProgress, ReconcileState,
};
use crate::query::verify::{VerifyProgress, VerifyRecord, VerifyRequest};
use crate::query::{Host, Sink};
use crate::restore::Tree;
use crate::snapshots::Class;
use crate::sys::creds::{AsUser, Identity};
use crate::types::{ContentHash, FileId, Inode, InodeKey, Origin, Seq, SessionId, Writer};

pub(super) const SECOND: i64 = 1_000_000_000;

/// A mount that is none.
pub(super) struct FakeHost {
    backing: PathBuf,
    reports_left: std::sync::atomic::AtomicU32,
}

impl Host for FakeHost {
    fn status(&self) -> MountStatus {
        MountStatus {
            version: "test".into(),
            pid: 7,
            backing: self.backing.clone(),
            mountpoint: "/nonexistent".into(),
            state_dir: self.backing.join(".horace"),
            uptime_s: 1,
            io: "auto".into(),
            passthrough: Passthrough { enabled: false, reason: Some("fake".into()) },
            api: None,
            api_cert: None,
            watch: crate::query::status::WatchRecord::default(),
            inodes_by: "handles".into(),
            threads: 2,
            open_files: 0,
            refused: vec!["proc".into()],
            nodes: 1,
            packing: "off".into(),
            backups: None,
            snapshots: SnapshotsStatus::default(),
        }
    }

    fn settle(&self) {}

    fn settle_soon(&self) {}

    fn sync(&self) -> Result<Seq, String> {
        Ok(Seq(42))
    }

    fn tree(&self) -> Result<&dyn Tree, String> {
        Err("there is no mount".into())
    }

    fn start_reconcile(&self, _wait: Wait) {
        self.reports_left.store(2, Ordering::SeqCst);
    }

    fn reconcile_progress(&self) -> ReconcileProgress {
        let left = self.reports_left.load(Ordering::SeqCst);
        self.reports_left.store(left.saturating_sub(1), Ordering::SeqCst);
        ReconcileProgress {
            state: if left > 0 { ReconcileState::Check } else { ReconcileState::Done },
            ..ReconcileProgress::default()
        }
    }

    fn verify(
        &self,
        _request: &VerifyRequest,
        tell: &mut dyn FnMut(VerifyRecord) -> bool,
    ) -> Result<(), String> {
        tell(VerifyRecord::Progress(VerifyProgress::default()));
        tell(VerifyRecord::Summary(VerifyProgress { files: 1, ..VerifyProgress::default() }));
        Ok(())
    }

    fn verified(&self) -> Option<VerifyProgress> {
        None
    }

    fn prune(
        &self,
        _scope: crate::pruning::Scope,
        _mode: PruneMode,
        _cap: PruneCap,
        _report: &mut PruneReport<'_>,
    ) -> Result<PruneTotals, String> {
        Ok(PruneTotals::default())
    }

    fn mark(&self, _: crate::catalog::VersionKey, _: &Mark, _: Writer) -> Result<(), String> {
        Ok(())
    }

    fn label(&self, _: FileId, _: crate::catalog::LabelChange, _: Writer) {}

    fn collect(&self, _: &str, _: crate::catalog::CollectionChange, _: Writer) {}

    fn snapshots(&self) -> &dyn SnapshotHost {
        self
    }
}

impl SnapshotHost for FakeHost {
    fn list(&self) -> Result<Vec<SnapshotRecord>, SnapshotFailure> {
        Ok(Vec::new())
    }

    fn create(&self, _: Class) -> Result<SnapshotRecord, SnapshotFailure> {
        Err(SnapshotFailure::Impossible("there is no mount".into()))
    }

    fn prune(
        &self,
        _: &[KeepField],
        _: PruneMode,
    ) -> Result<Vec<SnapshotPruneRecord>, SnapshotFailure> {
        Ok(Vec::new())
    }

    fn hold(&self, _: &str, _: SnapshotHold) -> Result<SnapshotRecord, SnapshotFailure> {
        Err(SnapshotFailure::Impossible("there is no mount".into()))
    }

    fn status(&self) -> SnapshotsStatus {
        SnapshotsStatus::default()
    }
}

/// A served backing directory, with what a filesystem would tell the catalog of it.
pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) catalog: Arc<Catalog>,
    pub(super) server: Option<Server>,
    pub(super) clock: i64,
    sessions: u64,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        let backing = dir.path().join("b");
        std::fs::create_dir(&backing).unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let catalog = Arc::new(Catalog::open(&dir.path().join("state")).unwrap());
        let open: Arc<OwnedFd> = Arc::new(std::fs::File::open(&backing).unwrap().into());
        let service = Arc::new(Service {
            catalog: Arc::clone(&catalog),
            contents: Contents::new(Arc::clone(&open), None),
            backing: open,
            mountpoint: "/nonexistent".into(),
            host: Arc::new(FakeHost {
                backing: backing.clone(),
                reports_left: std::sync::atomic::AtomicU32::new(0),
            }),
        });
        let socket = dir.path().join("sock");
        let server = Server::start(ServerConfig { socket, service }).unwrap();
        let mut fixture = Self { dir, catalog, server: Some(server), clock: 0, sessions: 0 };
        let inode = fixture.inode("");
        fixture.push(Op::Root { inode, incarnation: 1 });
        fixture.push(Op::WalkDone);
        fixture
    }

    pub(super) fn backing(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join("b").join(path)
    }

    pub(super) fn inode(&self, path: impl AsRef<Path>) -> Inode {
        let path = self.backing(path);
        let parent = std::fs::File::open(path.parent().unwrap()).unwrap();
        let name = std::ffi::CString::new(path.file_name().unwrap().as_bytes()).unwrap();
        let stat = crate::sys::stat::lstat_at(parent.as_fd(), &name).unwrap();
        Inode { key: InodeKey { ino: stat.attr.ino, generation: 0 }, attr: stat.attr }
    }

    pub(super) fn place(&self, path: &Path) -> Place {
        Place {
            parent: self.inode(path.parent().unwrap()).key,
            name: path.file_name().unwrap().as_bytes().into(),
        }
    }

    pub(super) fn push(&mut self, op: Op) {
        self.clock += SECOND;
        let writer = Writer { uid: 0, gid: 0, pid: 99, comm: b"test".as_slice().into() };
        self.catalog.push([Event { time_ns: self.clock, writer: Some(Arc::new(writer)), op }]);
    }

    pub(super) fn mkdir(&mut self, path: &str, mode: u32) {
        std::fs::create_dir(self.backing(path)).unwrap();
        set_mode(&self.backing(path), mode);
        self.push(Op::Create {
            at: self.place(Path::new(path)),
            inode: self.inode(path),
            born: Born::Bare,
        });
    }

    /// Writes a file as a program would, with everything that the filesystem tells of it.
    pub(super) fn write(&mut self, path: impl AsRef<Path>, content: &str, mode: u32) {
        let path = path.as_ref();
        let is_new = !self.backing(path).exists();
        std::fs::write(self.backing(path), content).unwrap();
        set_mode(&self.backing(path), mode);
        let inode = self.inode(path);
        if is_new {
            self.push(Op::Create { at: self.place(path), inode, born: Born::Bare });
        }
        self.sessions += 1;
        let session = SessionId(self.sessions);
        self.push(Op::Seal {
            inode,
            session,
            digest: Some(digest(content)),
            prefix: None,
            origin: Origin::Write,
        });
        let key = inode.key;
        self.push(Op::End { session, left: Some(key) });
    }

    pub(super) fn remove(&mut self, path: &str) {
        let (at, key) = (self.place(Path::new(path)), self.inode(path).key);
        std::fs::remove_file(self.backing(path)).unwrap();
        self.push(Op::Unlink { at, key, remaining: None, openness: Openness::Closed });
    }

    pub(super) fn ask<R: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<(Vec<R>, End), ClientError> {
        let mut lines = Lines::default();
        let end = ask_daemon(&self.dir.path().join("sock"), request, &mut lines)?;
        Ok((lines.parsed(), end))
    }

    /// Asks as user 65534: the socket tells the effective ids of the thread that connects.
    pub(super) fn ask_as_nobody(&self, request: &Request) -> Vec<serde_json::Value> {
        let nobody = Identity { uid: 65_534, gid: 65_534, groups: Vec::new() };
        let mut stream = {
            let _identity = AsUser::become_user(&nobody).unwrap();
            UnixStream::connect(self.dir.path().join("sock")).unwrap()
        };
        let request = serde_json::to_string(request).unwrap();
        writeln!(stream, "{request}").unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.map(|l| serde_json::from_str(&l).unwrap()).collect()
    }
}

pub(super) fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

pub(super) fn digest(content: &str) -> ContentHash {
    let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
    sha2::Digest::update(&mut hasher, content);
    hasher.into()
}

#[derive(Default)]
pub(super) struct Lines(pub(super) Vec<Vec<u8>>);

impl Lines {
    pub(super) fn parsed<R: DeserializeOwned>(&self) -> Vec<R> {
        let parse = |line: &Vec<u8>| serde_json::from_slice(line).unwrap();
        self.0.iter().map(parse).collect()
    }
}

impl Sink for Lines {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.push(line.to_vec());
        Ok(())
    }
}
