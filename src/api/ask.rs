//! From async handlers to blocking queries.
//!
//! Owns the threads that queries run on, of which there are only so many, and how often one source may ask.

use std::convert::Infallible;
use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};

use super::Api;
use super::caller::{Caller, PENALTY};
use super::peer::Source;
use super::problem::{Code, Problem};
use crate::catalog::{CatalogError, KEPT_READERS, When};
use crate::query::request::{End, Request};
use crate::query::{Listener, QueryError, Service, Sink};
use crate::types::Kind;

/// Queries that run at once, with half of the connections that the catalog keeps open: others look things up, too.
const RUNNING: usize = KEPT_READERS / 2;
/// Requests of one source in a second, on average and at once.
const RATE: NonZeroU32 = NonZeroU32::new(4000).expect("not zero");
/// Wrong keys of one source in a minute.
const GUESSES: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// Sources that are remembered before those are forgotten that asked long ago.
const SOURCES: usize = 4096;
/// Bytes of lines that are handed on at once.
const PART: usize = 32 * 1024;
/// Parts that wait for a client to read them.
const PARTS: usize = 4;
/// How long a request may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many may ask, and how often.
pub(super) struct Gate {
    turns: Arc<Semaphore>,
    requests: DefaultKeyedRateLimiter<Source>,
    guesses: DefaultKeyedRateLimiter<Source>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(RUNNING)),
            requests: RateLimiter::keyed(Quota::per_second(RATE)),
            guesses: RateLimiter::keyed(Quota::per_minute(GUESSES)),
        }
    }

    /// Counts a request; how long its source has to wait if there are too many.
    pub(super) fn admit(&self, source: Source) -> Option<Duration> {
        // Nobody is remembered for longer than it matters.
        for remembered in [&self.requests, &self.guesses] {
            if remembered.len() > SOURCES {
                remembered.retain_recent();
                remembered.shrink_to_fit();
            }
        }
        let refused = self.requests.check_key(&source).err()?;
        Some(refused.wait_time_from(DefaultClock::default().now()))
    }

    /// Counts a wrong key; how long its source has to wait if there were too many.
    pub(super) fn fail(&self, source: Source) -> Option<Duration> {
        self.guesses.check_key(&source).is_err().then_some(PENALTY)
    }
}

impl Api {
    /// Runs something that may block, when it is its turn.
    pub(super) async fn block<T: Send + 'static>(
        self: &Arc<Self>,
        run: impl FnOnce(&Service) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = Arc::clone(&self.gate.turns).acquire_owned();
        let turn = tokio::time::timeout(PATIENCE, turn).await;
        let busy = || Problem::new(Code::Unavailable, "too many ask at once");
        let turn = turn.map_err(|_| busy().retry_after(PATIENCE))?.map_err(|_| busy())?;
        let service = Arc::clone(&self.config.service);
        let ran = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            run(&service)
        });
        Ok(ran.await.map_err(Problem::internal)??)
    }

    /// Asks, and collects at most so many records.
    pub(super) async fn records<R: DeserializeOwned + Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        request: Request,
        most: usize,
    ) -> Result<Vec<R>, Problem> {
        let actor = caller.actor.clone();
        self.block(move |service| {
            let mut first = First { most, records: Vec::new() };
            match service.answer(&actor, &request, &mut first, &Waiting) {
                Ok(End { .. }) => Ok(first.records),
                Err(QueryError::Sink(_)) if first.records.len() == most => Ok(first.records),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// What has a path now, if anything has; who asks has to be allowed to know of it.
    pub(super) async fn is_there(self: &Arc<Self>, path: &[u8]) -> Result<Option<Kind>, Problem> {
        let path = path.to_vec();
        self.block(move |service| {
            service.catalog.barrier();
            Ok(service.catalog.read_committed::<_, CatalogError>(|reader| {
                let Some(file) = reader.resolve(&path, When::Now)? else { return Ok(None) };
                Ok(reader.node(file, When::Now)?.map(|node| node.kind))
            })?)
        })
        .await
    }

    /// Asks for a single record.
    pub(super) async fn record<R: DeserializeOwned + Send + 'static>(
        self: &Arc<Self>,
        caller: &Caller,
        request: Request,
    ) -> Result<R, Problem> {
        let mut records = self.records(caller, request, 1).await?;
        records.pop().ok_or_else(|| Problem::internal("an answer without its record"))
    }
}

/// An answer as lines, as it is made.
pub(super) struct Stream {
    first: Option<Bytes>,
    rest: mpsc::Receiver<Result<Bytes, Problem>>,
}

impl futures::Stream for Stream {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        self.rest.poll_recv(cx).map(|part| part.map(|part| Ok(part.unwrap_or_else(last_line))))
    }
}

/// What stands at the end of an answer that is not whole.
fn last_line(problem: Problem) -> Bytes {
    #[derive(serde::Serialize)]
    struct Last {
        problem: Problem,
    }
    let mut line = serde_json::to_vec(&Last { problem }).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

impl Api {
    /// Asks, and hands on the records line by line. What is wrong from the beginning is told at once, and what
    /// goes wrong later in a last line `{"problem": ...}`.
    pub(super) async fn stream(
        self: &Arc<Self>,
        caller: &Caller,
        request: Request,
    ) -> Result<Stream, Problem> {
        let (sender, mut rest) = mpsc::channel(PARTS);
        let (api, actor) = (Arc::clone(self), caller.actor.clone());
        tokio::spawn(async move {
            let parts = Lines { sender: sender.clone(), part: Vec::new() };
            let answered = api.block(move |service| {
                let mut sink = parts;
                let listener = Reader(sink.sender.clone());
                service.answer(&actor, &request, &mut sink, &listener)?;
                Ok(sink.flush()?)
            });
            if let Err(problem) = answered.await {
                let _ = sender.send(Err(problem)).await;
            }
        });
        match rest.recv().await {
            Some(Err(problem)) => Err(problem),
            Some(Ok(first)) => Ok(Stream { first: Some(first), rest }),
            None => Ok(Stream { first: None, rest }),
        }
    }
}

/// Lines that are handed on in parts.
struct Lines {
    sender: mpsc::Sender<Result<Bytes, Problem>>,
    part: Vec<u8>,
}

impl Sink for Lines {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.part.extend_from_slice(line);
        self.part.push(b'\n');
        if self.part.len() >= PART { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part).into();
        self.sender.blocking_send(Ok(part)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Who reads a stream.
struct Reader(mpsc::Sender<Result<Bytes, Problem>>);

impl Listener for Reader {
    fn is_gone(&self, wait: Duration) -> io::Result<bool> {
        std::thread::sleep(wait);
        Ok(self.0.is_closed())
    }
}

/// The first records of an answer.
struct First<R> {
    most: usize,
    records: Vec<R>,
}

impl<R: DeserializeOwned> Sink for First<R> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.records.len() == self.most {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.records.push(serde_json::from_slice(line)?);
        Ok(())
    }
}

/// Who waits for a whole answer.
struct Waiting;

impl Listener for Waiting {
    fn is_gone(&self, wait: Duration) -> io::Result<bool> {
        std::thread::sleep(wait);
        Ok(false)
    }
}
