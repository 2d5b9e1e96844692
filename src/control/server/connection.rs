//! One client of the socket: its request and its answer.
//!
//! Owns the time limits, and what each request needs from the mount before the catalog is asked.

mod feed;

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use crate::catalog::{CatalogError, FileHistory};
use crate::control::access::Guard;
use crate::control::query::{
    Answer, Position, PruneRecords, Query, QueryError, SendError, Sink, answer_from_catalog,
};
use crate::control::records::{Outcome, PruneTotalRecord, RestoreRecord, SyncRecord};
use crate::control::status::{SpaceRecord, StatusRecord};
use crate::control::verify::{VerifyRecord, VerifyRequest};
use crate::control::wire::{
    BringBack, Failure, FailureCode, Follow, Mark, PruneCap, PruneMode, Request, RequestError, Run,
    Wait, last_line, read_request, send_with_file,
};
use crate::pruning::{Scope, Verdict};
use crate::restore::{Action, Means, Step, carry_out};
use crate::store::Packed;
use crate::sys::creds::Actor;
use crate::types::Writer;

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave an answer unread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// How often the end of the log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(150);
/// How often a comparison that is waited for is reported.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Answers one request; every trouble ends on the socket, or with it.
pub(super) fn serve(shared: &Arc<Shared>, stream: &UnixStream, peer: Actor) {
    if let Err(error) = try_serve(shared, stream, peer) {
        tracing::debug!(%error, "a client of the control socket went away");
    }
}

fn try_serve(shared: &Shared, stream: &UnixStream, peer: Actor) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut out = SocketSink(BufWriter::with_capacity(64 * 1024, stream));
    let mut answer = Answer::new(&mut out);
    let result = match read_request(BufReader::new(InTime::new(stream, REQUEST_TIMEOUT))) {
        Ok(request) => {
            let mut client =
                Client { shared, stream, guard: guard(shared, &peer), peer, answer: &mut answer };
            client.answer(&request).map_err(|error| error.to_failure())
        }
        // Somebody looked whether anyone is there.
        Err(RequestError::Cut) => return Ok(()),
        Err(error) => Err(Failure { code: FailureCode::BadRequest, message: error.to_string() }),
    };
    let end = answer.end();
    let last = last_line(result.as_ref().map(|()| end));
    out.line(last.as_bytes())?;
    out.flush()
}

fn guard(shared: &Shared, peer: &Actor) -> Guard {
    if peer.is_privileged() {
        Guard::Everything
    } else {
        Guard::user(peer.identity.clone(), Arc::clone(&shared.backing))
    }
}

/// The bytes of a stream that come before a deadline, however slowly.
struct InTime<'s> {
    stream: &'s UnixStream,
    deadline: Instant,
}

impl<'s> InTime<'s> {
    fn new(stream: &'s UnixStream, time: Duration) -> Self {
        Self { stream, deadline: Instant::now() + time }
    }
}

impl Read for InTime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

/// Lines for the other end.
struct SocketSink<'s>(BufWriter<&'s UnixStream>);

impl Sink for SocketSink<'_> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line)?;
        self.0.write_all(b"\n")
    }

    fn file(&mut self, line: &[u8], file: OwnedFd) -> io::Result<()> {
        // The file goes with the first byte of its line.
        self.0.flush()?;
        send_with_file(self.0.get_ref(), &line[..1], &file)?;
        self.line(&line[1..])
    }

    fn packed(&mut self, line: &[u8], content: &Packed, size: u64) -> Result<(), SendError> {
        feed::send(self, line, content, size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

struct Client<'c, 'a> {
    shared: &'c Shared,
    stream: &'c UnixStream,
    peer: Actor,
    guard: Guard,
    answer: &'c mut Answer<'a>,
}

impl Client<'_, '_> {
    fn answer(&mut self, request: &Request) -> Result<(), QueryError> {
        let host = &self.shared.host;
        match request {
            Request::Status => return self.status(),
            Request::Sync => {
                let seq = host.sync().map_err(QueryError::Host)?;
                return Ok(self.answer.record(&SyncRecord { seq })?);
            }
            Request::Reconcile { wait } => return self.reconcile(*wait),
            Request::Verify(request) => return self.verify(request),
            Request::Prune { path, mode, cap } => return self.prune(&path.0, *mode, *cap),
            _ => {}
        }
        self.check_reach()?;
        match request {
            Request::BringBack { what, run } => {
                host.settle_soon();
                return self.bring_back(what, *run);
            }
            Request::Log { .. } | Request::Cat { .. } | Request::Blame { .. } => host.settle_soon(),
            Request::Manifest { .. } => host.settle(),
            Request::Mark { path, version, mark } => {
                return self.mark(&path.0, version.as_deref(), mark);
            }
            Request::Changes { path, since, follow: Follow::Yes, limit } => {
                let catalog = &self.shared.catalog;
                let position =
                    catalog.read(|reader| Position::new(reader, path, *since, *limit))?;
                return self.follow(position);
            }
            _ => {}
        }
        self.shared.catalog.barrier();
        let shared = self.shared;
        let contents = shared.contents();
        self.query(|query| answer_from_catalog(query, &contents, request))
    }

    /// Runs a query that sees what is committed.
    fn query<T>(
        &mut self,
        run: impl FnOnce(&mut Query<'_, '_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let catalog = &self.shared.catalog;
        catalog.read_committed(|main| {
            catalog.read_committed(|side| {
                run(&mut Query { main, side, guard: &mut self.guard, answer: &mut *self.answer })
            })
        })
    }

    /// Who cannot get to the mount nor to the backing directory has no business in its catalog.
    fn check_reach(&self) -> Result<(), QueryError> {
        if matches!(self.guard, Guard::Everything) {
            return Ok(());
        }
        let backing = self.shared.host.status().backing;
        let reaches = self.guard.reaches(&[&self.shared.mountpoint, &backing]);
        if reaches.unwrap_or(false) {
            return Ok(());
        }
        Err(QueryError::Denied { what: self.shared.mountpoint.display().to_string() })
    }

    fn status(&mut self) -> Result<(), QueryError> {
        let shared = self.shared;
        let packs = shared.contents().pack_totals();
        let known = shared.catalog.read_committed(|reader| {
            let space = SpaceRecord::new(reader, packs)?;
            let (seq, totals) = (reader.seq()?, reader.totals()?);
            Ok::<_, CatalogError>((seq, totals, space, reader.last_prune()?))
        });
        // What is wrong can be told also where the catalog cannot be read.
        let catalog = shared.catalog.status();
        let (seq, totals, space, last_prune) = match known {
            Err(_) if catalog.degraded.is_some() => Default::default(),
            known => known?,
        };
        let status = StatusRecord {
            running: true,
            mount: Some(shared.host.status()),
            seq,
            entries: totals.entries,
            versions: totals.versions,
            objects: totals.objects,
            object_bytes: totals.object_bytes,
            space,
            queue: catalog.queue,
            wal_bytes: catalog.wal_bytes,
            degraded: catalog.degraded,
            reconcile: Some(shared.host.reconcile_progress()),
            verify: shared.host.verified(),
            last_prune: last_prune.map(Into::into),
        };
        Ok(self.answer.record(&status)?)
    }

    /// Denies what only some may do: `what` says it after "may".
    fn check_privilege(&self, what: &str) -> Result<(), QueryError> {
        match self.peer.is_privileged() {
            true => Ok(()),
            false => Err(QueryError::Denied {
                what: format!("only root and the user who mounted may {what}"),
            }),
        }
    }

    fn prune(&mut self, path: &[u8], mode: PruneMode, cap: PruneCap) -> Result<(), QueryError> {
        self.check_privilege("prune")?;
        let scope = if path.is_empty() { Scope::Everything } else { Scope::Below(path.into()) };
        let shared = self.shared;
        let total = shared.catalog.read_committed(|side| {
            let mut records = PruneRecords::new(side, self.answer)?;
            let report = &mut |path: &[u8], history: &FileHistory, verdicts: &[Verdict]| {
                records.write(path, history, verdicts)
            };
            shared.host.prune(scope, mode, cap, report).map_err(QueryError::Host)
        })?;
        let refused = total.refused.clone();
        self.answer.record(&PruneTotalRecord { total })?;
        match refused {
            Some(reason) if mode == PruneMode::Drop => Err(QueryError::Capped { reason }),
            _ => Ok(()),
        }
    }

    fn mark(&mut self, path: &[u8], name: Option<&str>, mark: &Mark) -> Result<(), QueryError> {
        let host = &self.shared.host;
        host.settle_soon();
        self.shared.catalog.barrier();
        let peer = self.peer.clone();
        let version = self.query(|query| query.markable(path, name, &peer.identity))?;
        let (uid, gid) = (peer.identity.uid, peer.identity.gid);
        let by = Writer { uid, gid, pid: peer.pid, comm: Box::default() };
        host.mark(version, mark, by).map_err(QueryError::Host)?;
        self.query(|query| query.marked(path, version))
    }

    fn reconcile(&mut self, wait: Wait) -> Result<(), QueryError> {
        self.check_privilege("start a reconcile")?;
        let host = &self.shared.host;
        host.start_reconcile(wait);
        loop {
            let progress = host.reconcile_progress();
            self.answer.record(&progress)?;
            self.answer.flush()?;
            if wait == Wait::No
                || !progress.state.is_running()
                || self.hung_up(PROGRESS_INTERVAL)?
            {
                return Ok(());
            }
        }
    }

    /// Plans how to bring something back, and does it if it is to be done.
    fn bring_back(&mut self, what: &BringBack, run: Run) -> Result<(), QueryError> {
        let shared = self.shared;
        let contents = shared.contents();
        let tree = match run {
            Run::Plan => None,
            Run::Do => Some(shared.host.tree().map_err(QueryError::Host)?),
        };
        shared.catalog.barrier();
        let (steps, ids) = self.query(|query| query.plan(&contents, what))?;
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
        let means = Means { by: &self.peer, tree, catalog: &shared.catalog, contents: &contents };
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
        let host = Arc::clone(&self.shared.host);
        let mut told = Ok(());
        let done = host.verify(request, &mut |record| {
            let wanted = request.progress || !matches!(record, VerifyRecord::Progress(_));
            told = match wanted {
                true => self.answer.record(&record).and_then(|()| self.answer.flush()),
                false => Ok(()),
            };
            told.is_ok() && !self.hung_up(MOMENT).unwrap_or(true)
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
                if self.hung_up(FOLLOW_INTERVAL)? {
                    return Ok(());
                }
            }
        }
    }

    /// Waits a little; whether one of the two ends is closed.
    fn hung_up(&self, wait: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(wait))?;
        let mut stream = self.stream;
        let closed = match stream.read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ),
        };
        Ok(closed || self.shared.stopping.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_trickles_in_has_no_more_time_than_others() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let trickle = std::thread::spawn(move || {
            while theirs.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let began = Instant::now();
        let stream = InTime::new(&ours, Duration::from_millis(200));
        let error = read_request(BufReader::new(stream)).unwrap_err();
        assert!(matches!(error, RequestError::Io(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(ours);
        trickle.join().unwrap();
    }
}
