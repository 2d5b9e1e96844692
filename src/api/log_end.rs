//! How long the log of changes is.
//!
//! Owns the one look at it that all who follow the log share: however many they are, the catalog is asked once
//! in a moment, and only while somebody waits.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Api;
use super::problem::Problem;
use crate::catalog::CatalogError;
use crate::types::Seq;

/// How often the end of the log is looked at.
const MOMENT: Duration = Duration::from_millis(100);

/// The end of the log, as somebody has seen it last.
#[derive(Debug, Default)]
pub(super) struct LogEnd {
    /// Present while somebody looks. Locked alone.
    seen: Mutex<Option<watch::Receiver<Seq>>>,
}

impl Api {
    /// The last change that is committed.
    pub(super) async fn log_end(self: &Arc<Self>) -> Result<Seq, Problem> {
        self.block(|service| {
            service.catalog.barrier();
            Ok(service.catalog.read_committed(|reader| reader.seq())?)
        })
        .await
    }

    /// Waits until there are changes after this one; returns the last of them.
    pub(super) async fn log_end_after(self: &Arc<Self>, since: Seq) -> Result<Seq, Problem> {
        loop {
            let mut seen = self.watch_log();
            let end = seen.wait_for(|end| *end > since).await.ok().map(|end| *end);
            if let Some(end) = end {
                return Ok(end);
            }
            // Whoever looked has stopped, since nobody waited or the catalog could not be read.
            tokio::time::sleep(MOMENT).await;
        }
    }

    fn watch_log(self: &Arc<Self>) -> watch::Receiver<Seq> {
        let mut seen = self.log_end.seen.lock();
        if let Some(receiver) = seen.as_ref().filter(|receiver| receiver.has_changed().is_ok()) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(Seq(0));
        *seen = Some(receiver.clone());
        tokio::spawn(look(Arc::downgrade(self), sender));
        receiver
    }
}

async fn look(api: std::sync::Weak<Api>, sender: watch::Sender<Seq>) {
    // One receiver is the one that is kept for who comes next.
    while sender.receiver_count() > 1 {
        let Some(api) = api.upgrade() else { return };
        let seq = api.block(|service| {
            let seq: Result<Seq, CatalogError> = service.catalog.read_committed(|r| r.seq());
            Ok(seq?)
        });
        let Ok(seq) = seq.await else { return };
        sender.send_if_modified(|seen| std::mem::replace(seen, seq) != seq);
        drop(api);
        tokio::time::sleep(MOMENT).await;
    }
}
