//! Whole answers.
//!
//! Owns what each request needs from the mount before the catalog is asked, and what only some may ask for.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::Guard;
use super::records::{ContentRecord, Outcome, PruneTotalRecord, RestoreRecord, SyncRecord};
use super::request::{
    BringBack, Collect, End, Follow, Mark, PruneCap, PruneMode, Request, Run, Wait,
};
use super::snapshots::{SnapshotHold, SnapshotOrder};
use super::status::{Host, SpaceRecord, StatusRecord};
use super::verify::{VerifyRecord, VerifyRequest};
use super::{Answer, Position, PruneRecords, Query, QueryError, Sink, answer_request};
use crate::catalog::{Catalog, CatalogError, CollectionChange, FileHistory, LabelChange};
use crate::content::{Content, Contents};
use crate::pruning::{Scope, Verdict};
use crate::restore::{Action, Means, Step, carry_out};
use crate::sys::creds::Actor;
use crate::types::Writer;

/// How often the end of the log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(150);
/// How often a comparison that is waited for is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Who waits for an answer.
pub trait Listener {
    /// Waits a little; whether nobody wants more.
    ///
    /// # Errors
    /// If that cannot be told any more.
    fn is_gone(&self, wait: Duration) -> io::Result<bool>;
}

/// A mount that can be asked.
pub struct Service {
    /// What is asked about.
    pub catalog: Arc<Catalog>,
    /// The backing directory.
    pub backing: Arc<OwnedFd>,
    /// What is in it, and what is left of what was.
    pub contents: Contents,
    /// Where it is mounted: who cannot get there nor to the backing directory sees nothing.
    pub mountpoint: PathBuf,
    /// The mount.
    pub host: Arc<dyn Host>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

impl Service {
    /// Answers a request with everything that `by` may see, and does what they may have done.
    ///
    /// # Errors
    /// If the answer is not whole, after the records that could be told.
    pub fn answer(
        &self,
        by: &Actor,
        request: &Request,
        sink: &mut dyn Sink,
        listener: &dyn Listener,
    ) -> Result<End, QueryError> {
        let mut answer = Answer::new(sink);
        let mut client =
            Client { service: self, listener, guard: self.guard(by), by, answer: &mut answer };
        client.answer(request)?;
        Ok(answer.end())
    }

    /// Opens the content of a version for somebody who may read it: of a path's history, or of a path at a
    /// time in nanoseconds since 1970. Whoever reads it knows how long it is, and its digest if that is known.
    ///
    /// # Errors
    /// If there is none, they may not read it, or it was not kept.
    pub fn open(
        &self,
        by: &Actor,
        path: &[u8],
        version: Option<&str>,
        at_ns: Option<i64>,
    ) -> Result<(ContentRecord, Content), QueryError> {
        let mut nothing = Nothing;
        let mut answer = Answer::new(&mut nothing);
        let (guard, listener) = (self.guard(by), &Nothing);
        let mut client = Client { service: self, listener, guard, by, answer: &mut answer };
        client.check_reach()?;
        self.host.settle_soon();
        self.catalog.barrier();
        client.query(|query| query.open_content(&self.contents, path, version, at_ns))
    }

    fn guard(&self, by: &Actor) -> Guard {
        if by.is_privileged() {
            Guard::Everything
        } else {
            Guard::user(by.identity.clone(), Arc::clone(&self.backing))
        }
    }
}

/// Nobody, who gets nothing.
struct Nothing;

impl Sink for Nothing {
    fn line(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Listener for Nothing {
    fn is_gone(&self, _: Duration) -> io::Result<bool> {
        Ok(true)
    }
}

struct Client<'c, 'a> {
    service: &'c Service,
    listener: &'c dyn Listener,
    by: &'c Actor,
    guard: Guard,
    answer: &'c mut Answer<'a>,
}

impl Client<'_, '_> {
    fn answer(&mut self, request: &Request) -> Result<(), QueryError> {
        let host = &self.service.host;
        match request {
            Request::Status => return self.status(),
            Request::Sync => {
                let seq = host.sync().map_err(QueryError::Host)?;
                return Ok(self.answer.record(&SyncRecord { seq })?);
            }
            Request::Reconcile { wait } => return self.reconcile(*wait),
            Request::Verify(request) => return self.verify(request),
            Request::Prune { path, mode, cap } => return self.prune(&path.0, *mode, *cap),
            Request::Snapshots { what } => return self.snapshots(what),
            _ => {}
        }
        self.check_reach()?;
        match request {
            Request::BringBack { what, run } => {
                host.settle_soon();
                return self.bring_back(what, *run);
            }
            Request::Log { .. }
            | Request::File { .. }
            | Request::FileWith { .. }
            | Request::Cat { .. }
            | Request::Blame { .. }
            | Request::Usage { .. }
            | Request::Writers { .. }
            | Request::Tree { .. } => {
                host.settle_soon();
            }
            Request::Manifest { .. } | Request::Duplicates { .. } => host.settle(),
            Request::Mark { path, version, mark } => {
                return self.mark(&path.0, version.as_deref(), mark);
            }
            Request::Label { path, change } => return self.label(&path.0, change),
            Request::Collect { name, what } => return self.collect(name, what),
            Request::Forget { name } => return self.forget(name),
            Request::Changes { path, since, follow: Follow::Yes, limit } => {
                let catalog = &self.service.catalog;
                let position =
                    catalog.read(|reader| Position::new(reader, path, *since, *limit))?;
                return self.follow(position);
            }
            _ => {}
        }
        self.service.catalog.barrier();
        let (service, by) = (self.service, self.by);
        self.query(|query| match request {
            Request::Search { path, filter } => {
                query.search(&path.0, filter, Some(service.catalog.names()))
            }
            Request::Collections { path, after, limit } => {
                query.collections(&path.0, after, *limit, Some(&by.identity))
            }
            Request::Collection { name } => query.collection(name, Some(&by.identity)),
            _ => answer_request(query, &service.contents, request),
        })
    }

    /// Runs a query that sees what is committed.
    fn query<T>(
        &mut self,
        run: impl FnOnce(&mut Query<'_, '_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let catalog = &self.service.catalog;
        catalog.read_committed(|reader| {
            run(&mut Query { reader, guard: &mut self.guard, answer: &mut *self.answer })
        })
    }

    /// Who cannot get to the mount nor to the backing directory has no business in its catalog.
    fn check_reach(&self) -> Result<(), QueryError> {
        if matches!(self.guard, Guard::Everything) {
            return Ok(());
        }
        let backing = self.service.host.status().backing;
        let reaches = self.guard.reaches(&[&self.service.mountpoint, &backing]);
        if reaches.unwrap_or(false) {
            return Ok(());
        }
        Err(QueryError::Denied { what: self.service.mountpoint.display().to_string() })
    }

    fn status(&mut self) -> Result<(), QueryError> {
        let service = self.service;
        let packs = service.contents.pack_totals();
        let known = service.catalog.read_committed(|reader| {
            let space = SpaceRecord::new(reader, packs)?;
            let (seq, totals) = (reader.seq()?, reader.totals()?);
            Ok::<_, CatalogError>((seq, totals, space, reader.last_prune()?))
        });
        // What is wrong can be told also where the catalog cannot be read.
        let catalog = service.catalog.status();
        let (seq, totals, space, last_prune) = match known {
            Err(_) if catalog.degraded.is_some() => Default::default(),
            known => known?,
        };
        let status = StatusRecord {
            running: true,
            mount: Some(service.host.status()),
            seq,
            entries: totals.entries,
            versions: totals.versions,
            objects: totals.objects,
            object_bytes: totals.object_bytes,
            space,
            queue: catalog.queue,
            wal_bytes: catalog.wal_bytes,
            degraded: catalog.degraded,
            reconcile: Some(service.host.reconcile_progress()),
            verify: service.host.verified(),
            last_prune: last_prune.map(Into::into),
        };
        Ok(self.answer.record(&status)?)
    }

    /// Denies what only some may do: `what` says it after "may".
    fn check_privilege(&self, what: &str) -> Result<(), QueryError> {
        match self.by.is_privileged() {
            true => Ok(()),
            false => Err(QueryError::Denied {
                what: format!("only root and the user who mounted may {what}"),
            }),
        }
    }

    fn prune(&mut self, path: &[u8], mode: PruneMode, cap: PruneCap) -> Result<(), QueryError> {
        self.check_privilege("prune")?;
        let scope = if path.is_empty() { Scope::Everything } else { Scope::Below(path.into()) };
        let service = self.service;
        let total = service.catalog.read_committed(|reader| {
            let mut records = PruneRecords::new(reader, self.answer)?;
            let report = &mut |path: &[u8], history: &FileHistory, verdicts: &[Verdict]| {
                records.write(path, history, verdicts)
            };
            service.host.prune(scope, mode, cap, report).map_err(QueryError::Host)
        })?;
        let refused = total.refused.clone();
        self.answer.record(&PruneTotalRecord { total })?;
        match refused {
            Some(reason) if mode == PruneMode::Drop => Err(QueryError::Capped { reason }),
            _ => Ok(()),
        }
    }

    fn snapshots(&mut self, what: &SnapshotOrder) -> Result<(), QueryError> {
        self.check_privilege("see and take snapshots")?;
        let service = self.service;
        let host = service.host.snapshots();
        match what {
            SnapshotOrder::List => {
                for record in host.list()? {
                    self.answer.record(&record)?;
                }
            }
            SnapshotOrder::Show { name } => {
                let there = host.list()?;
                return self.query(|query| query.show_snapshot(name, there));
            }
            SnapshotOrder::Create { class } => {
                self.answer.record(&host.create(*class)?)?;
            }
            SnapshotOrder::Prune { keep, mode } => {
                for record in host.prune(keep, *mode)? {
                    self.answer.record(&record)?;
                }
            }
            SnapshotOrder::Hold { name } => {
                self.answer.record(&host.hold(name, SnapshotHold::Hold)?)?;
            }
            SnapshotOrder::Release { name } => {
                self.answer.record(&host.hold(name, SnapshotHold::Release)?)?;
            }
            SnapshotOrder::Find { path, version } => {
                service.host.settle_soon();
                service.catalog.barrier();
                return self.query(|query| query.snapshots_with(&path.0, version.as_deref()));
            }
            SnapshotOrder::Diff { from, to, after, limit } => {
                service.catalog.barrier();
                return self.query(|query| {
                    query.snapshot_diff(from, to.as_deref(), after.as_ref(), *limit)
                });
            }
        }
        Ok(())
    }

    fn mark(&mut self, path: &[u8], name: Option<&str>, mark: &Mark) -> Result<(), QueryError> {
        let host = &self.service.host;
        host.settle_soon();
        self.service.catalog.barrier();
        let by = self.by;
        let version = self.query(|query| query.markable(path, name, &by.identity))?;
        host.mark(version, mark, self.writer()).map_err(QueryError::Host)?;
        self.query(|query| query.marked(path, version))
    }

    /// Whoever asks, as the catalog notes it.
    fn writer(&self) -> Writer {
        let Actor { identity, pid } = self.by;
        Writer { uid: identity.uid, gid: identity.gid, pid: *pid, comm: Box::default() }
    }

    fn label(&mut self, path: &[u8], change: &LabelChange) -> Result<(), QueryError> {
        self.service.catalog.barrier();
        let by = self.by;
        let file = self.query(|query| query.labellable(path, change, &by.identity))?;
        self.service.host.label(file, change.clone(), self.writer());
        self.query(|query| query.file(path))
    }

    fn collect(&mut self, name: &str, what: &Collect) -> Result<(), QueryError> {
        self.service.catalog.barrier();
        let identity = &self.by.identity;
        let change = self.query(|query| query.collectable(name, what, identity))?;
        self.service.host.collect(name, change, self.writer());
        self.query(|query| query.collection(name, Some(identity)))
    }

    fn forget(&mut self, name: &str) -> Result<(), QueryError> {
        self.service.catalog.barrier();
        let identity = &self.by.identity;
        self.query(|query| query.forgettable(name, identity))?;
        self.service.host.collect(name, CollectionChange::Delete, self.writer());
        Ok(())
    }

    fn reconcile(&mut self, wait: Wait) -> Result<(), QueryError> {
        self.check_privilege("start a reconcile")?;
        let host = &self.service.host;
        host.start_reconcile(wait);
        loop {
            let progress = host.reconcile_progress();
            self.answer.record(&progress)?;
            self.answer.flush()?;
            if wait == Wait::No
                || !progress.state.is_running()
                || self.listener.is_gone(PROGRESS_INTERVAL)?
            {
                return Ok(());
            }
        }
    }

    /// Plans how to bring something back, and does it if it is to be done.
    fn bring_back(&mut self, what: &BringBack, run: Run) -> Result<(), QueryError> {
        let service = self.service;
        let contents = &service.contents;
        let tree = match run {
            Run::Plan => None,
            Run::Do => Some(service.host.tree().map_err(QueryError::Host)?),
        };
        service.catalog.barrier();
        let (steps, ids) = self.query(|query| query.plan(contents, what))?;
        let answer = &mut *self.answer;
        let mut tell = |step: &Step, outcome, reason| {
            answer.record(&RestoreRecord::new(ids.uuid(step.file), step, outcome, reason))
        };
        let Some(tree) = tree else {
            for step in &steps {
                match &step.action {
                    Action::Impossible(reason) => tell(step, Outcome::Failed, Some(reason.clone())),
                    _ => tell(step, Outcome::Planned, None),
                }?;
            }
            return Ok(());
        };
        let means = Means { by: self.by, tree, catalog: &service.catalog, contents };
        carry_out(&steps, means, |step, done| match done {
            Ok(()) => tell(step, Outcome::Done, None),
            Err(reason) => tell(step, Outcome::Failed, Some(reason)),
        })?;
        tree.sync().map_err(QueryError::Host)
    }

    /// Has everything read again, for as long as the client stays.
    fn verify(&mut self, request: &VerifyRequest) -> Result<(), QueryError> {
        /// Long enough to see that the client is gone.
        const MOMENT: Duration = Duration::from_millis(1);
        self.check_privilege("verify everything")?;
        let host = Arc::clone(&self.service.host);
        let mut told = Ok(());
        let done = host.verify(request, &mut |record| {
            let wanted = request.progress || !matches!(record, VerifyRecord::Progress(_));
            told = match wanted {
                true => self.answer.record(&record).and_then(|()| self.answer.flush()),
                false => Ok(()),
            };
            told.is_ok() && !self.listener.is_gone(MOMENT).unwrap_or(true)
        });
        told?;
        done.map_err(QueryError::Host)
    }

    /// Writes the log as it grows, until the client or the server has enough.
    fn follow(&mut self, mut position: Position) -> Result<(), QueryError> {
        loop {
            let looked_at = self.query(|query| query.changes(&mut position))?;
            if position.is_spent() {
                return Ok(());
            }
            if looked_at == 0 {
                self.answer.flush()?;
                if self.listener.is_gone(FOLLOW_INTERVAL)? {
                    return Ok(());
                }
            }
        }
    }
}
