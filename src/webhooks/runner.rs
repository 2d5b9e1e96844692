//! The thread that posts.
//!
//! Owns one task for each webhook, so that none waits for another, and when each looks and tries again. A webhook has at
//! most one post in memory, and goes on with the next when that was taken.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::rand::GetRandomFlags;
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::{self, Batch};
use super::sender::{Refused, Sender, delay};
use super::{Sent, Webhook, Webhooks, sent_of};
use crate::catalog::{CatalogError, Reader};
use crate::causes::with_causes;
use crate::clock::now_ns;
use crate::query::Service;
use crate::types::Seq;

/// How often it is looked which webhooks are wanted.
const LOOK: Duration = Duration::from_secs(1);
/// How often the end of the log is looked at.
const MOMENT: Duration = Duration::from_millis(250);
/// How long it takes to stop at most.
const GRACE: Duration = Duration::from_secs(2);
/// How often a place is noted at which nothing was of interest.
const SELDOM_NS: i64 = 60_000_000_000;

/// The posting, until it is stopped.
#[must_use]
#[derive(Debug)]
pub struct Runner {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Runner {
    /// Begins to post what is wanted.
    ///
    /// # Errors
    /// If there is no thread.
    pub fn start(webhooks: Webhooks, service: Arc<Service>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(8)
            .thread_name("webhook")
            .build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("webhooks".into()).spawn(move || {
            runtime.block_on(follow(Arc::new(webhooks), service, stopped));
            runtime.shutdown_timeout(GRACE);
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it; what was not taken is posted after the next start.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the thread of the webhooks panicked");
        }
    }
}

/// Has a task for each webhook that is wanted.
async fn follow(webhooks: Arc<Webhooks>, service: Arc<Service>, stop: CancellationToken) {
    let mut tasks: HashMap<(String, i64), AbortHandle> = HashMap::new();
    let mut told = None;
    loop {
        match webhooks.wanted() {
            Ok(wanted) => {
                told = None;
                let key = |webhook: &Webhook| (webhook.name.clone(), webhook.created_ns);
                tasks.retain(|known, task| {
                    let stays = wanted.iter().any(|webhook| key(webhook) == *known);
                    if !stays {
                        task.abort();
                    }
                    stays
                });
                for webhook in wanted.iter() {
                    tasks.entry(key(webhook)).or_insert_with(|| {
                        let (webhooks, service) = (Arc::clone(&webhooks), Arc::clone(&service));
                        let task = Task { webhooks, service, webhook: Arc::new(webhook.clone()) };
                        tokio::spawn(task.run()).abort_handle()
                    });
                }
            }
            Err(error) => {
                let error = with_causes(&error);
                if told.as_ref() != Some(&error) {
                    tracing::error!(error, "cannot read which webhooks are wanted");
                    told = Some(error);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// One webhook on its way.
struct Task {
    webhooks: Arc<Webhooks>,
    service: Arc<Service>,
    webhook: Arc<Webhook>,
}

impl Task {
    async fn run(self) {
        let mut sent = loop {
            match self.begin().await {
                Ok(sent) => break sent,
                Err(error) => self.wait_for_catalog(&error).await,
            }
        };
        let mut noted_ns = now_ns();
        let mut sender = None;
        loop {
            let batch = match self.next(sent.seq).await {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    sleep(MOMENT).await;
                    continue;
                }
                Err(error) => {
                    self.wait_for_catalog(&error).await;
                    continue;
                }
            };
            if batch.post.is_some() {
                self.deliver(&mut sender, &batch, &mut sent).await;
            }
            (sent.seq, sent.time_ns) = (batch.until, batch.time_ns);
            if batch.post.is_some() || now_ns() - noted_ns > SELDOM_NS {
                self.note(&sent).await;
                noted_ns = now_ns();
            }
        }
    }

    /// Where it goes on. A catalog that is another, or was rolled back, has numbers that mean something else: it
    /// goes on after the time of the last change that was taken.
    async fn begin(&self) -> Result<Sent, String> {
        let webhooks = Arc::clone(&self.webhooks);
        let webhook = Arc::clone(&self.webhook);
        self.block(move |service| {
            let all = webhooks.sent.read().map_err(|error| with_causes(&error))?;
            let mut sent = sent_of(&webhook, &all);
            let read = service.catalog.read::<_, CatalogError>(|reader| {
                let (catalog, end) = (Uuid::from_bytes(reader.catalog_id()?), reader.seq()?);
                let time_of = |reader: &Reader, seq| match seq {
                    Seq(0) => Ok(0),
                    seq => reader.time_of(seq),
                };
                let is_new = sent.catalog.is_none();
                let is_known = sent.catalog == Some(catalog)
                    && sent.seq <= end
                    && time_of(reader, sent.seq)? == sent.time_ns;
                let seq = match is_new || is_known {
                    true => sent.seq.min(end),
                    false => reader.seq_at(sent.time_ns)?.unwrap_or_default(),
                };
                Ok((catalog, seq, time_of(reader, seq)?))
            });
            let (catalog, seq, time_ns) = read.map_err(|error| with_causes(&error))?;
            (sent.catalog, sent.seq, sent.time_ns) = (Some(catalog), seq, time_ns);
            Ok(sent)
        })
        .await
    }

    /// The next part of the log, if there is any.
    async fn next(&self, since: Seq) -> Result<Option<Batch>, String> {
        let webhook = Arc::clone(&self.webhook);
        self.block(move |service| {
            let end = service.catalog.read_committed::<_, CatalogError>(|reader| reader.seq());
            if end.map_err(|error| with_causes(&error))? <= since {
                return Ok(None);
            }
            batch::read(service, &webhook, since).map(Some).map_err(|error| with_causes(&error))
        })
        .await
    }

    /// Posts until it is taken.
    async fn deliver(&self, sender: &mut Option<Sender>, batch: &Batch, sent: &mut Sent) {
        let Some(post) = &batch.post else { return };
        loop {
            if sender.is_none() {
                *sender = Sender::new(&self.webhook.url).ok();
            }
            let done = match sender {
                Some(sender) => sender.post(&self.webhook, post, now_ns()).await,
                None => Sender::new(&self.webhook.url).map(drop),
            };
            let now_ns = now_ns();
            let refused = match done {
                Ok(()) => {
                    if sent.failing_ns.take().is_some() {
                        tracing::info!(webhook = self.webhook.name, "a webhook is taken again");
                    }
                    (sent.success_ns, sent.error, sent.failures) = (Some(now_ns), None, 0);
                    return;
                }
                Err(refused) => refused,
            };
            self.failed(sent, refused, now_ns).await;
        }
    }

    async fn failed(&self, sent: &mut Sent, refused: Refused, now_ns: i64) {
        let Refused { reason, wait } = refused;
        if sent.failing_ns.is_none() {
            tracing::warn!(webhook = self.webhook.name, reason, "a webhook is not taken");
        }
        let failing_ns = now_ns - *sent.failing_ns.get_or_insert(now_ns);
        sent.failures = sent.failures.saturating_add(1);
        sent.error = Some(reason);
        self.note(sent).await;
        let pause = delay(sent.failures, failing_ns, random());
        sleep(pause.max(wait.unwrap_or_default())).await;
    }

    async fn note(&self, sent: &Sent) {
        let (webhooks, webhook) = (Arc::clone(&self.webhooks), Arc::clone(&self.webhook));
        let sent = sent.clone();
        let noted = self
            .block(move |_| webhooks.note(&webhook, &sent).map_err(|error| with_causes(&error)));
        if let Err(error) = noted.await {
            tracing::warn!(error, "cannot note how far a webhook is: it may get changes again");
        }
    }

    async fn wait_for_catalog(&self, error: &str) {
        tracing::warn!(webhook = self.webhook.name, error, "cannot read what a webhook is to get");
        sleep(GRACE).await;
    }

    /// Runs something that may block.
    async fn block<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Service) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let service = Arc::clone(&self.service);
        let ran = tokio::task::spawn_blocking(move || run(&service));
        ran.await.map_err(|error| error.to_string())?
    }
}

/// A number from 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness, the middle does.
    match rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(4) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        _ => 0.5,
    }
}
