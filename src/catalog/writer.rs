//! The one thread that writes to the catalog.
//!
//! Owns group commit: whatever is queued becomes one transaction, so that load makes the batches.
//! A batch that fails is rolled back and given up: the catalog is then degraded, which everyone can
//! see, and a reconcile brings in what was lost. File operations go on meanwhile. Files that somebody
//! deletes under the daemon are written again before the next batch.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;

use super::apply::apply;
use super::event::Event;
use super::place::Place;
use super::queue::{Queue, Taken};
use super::rows::{Rows, State};
use super::{CatalogError, Health, backup, checkpoint, schema};
use crate::causes::with_cause;
use crate::metrics::metrics;

/// Why the catalog could not be written again.
#[derive(Debug, thiserror::Error)]
enum WriteAgainError {
    #[error("the catalog was deleted and cannot be written again")]
    Copy(#[from] backup::BackupError),
    #[error("the catalog was deleted and cannot be opened again")]
    Open(#[from] CatalogError),
    #[error("the catalog was deleted and cannot be read again")]
    Load(#[from] rusqlite::Error),
}

pub(super) struct Writer {
    db: Connection,
    path: PathBuf,
    queue: Arc<Queue>,
    health: Arc<Health>,
    /// Thrown away by a failed batch.
    state: Option<State>,
}

impl Writer {
    pub(super) fn new(
        db: Connection,
        path: &Path,
        queue: Arc<Queue>,
        health: Arc<Health>,
    ) -> Result<Self, CatalogError> {
        let state = Some(State::load(&db)?);
        health.begin(Place::of(path));
        Ok(Self { db, path: path.into(), queue, health, state })
    }

    pub(super) fn run(mut self) {
        while let Some(Taken { events, nudged }) = self.queue.take() {
            if nudged
                && self.health.place().is_lost(&self.path)
                && let Err(error) = self.write_again()
            {
                self.health.fail(with_cause(&error));
            }
            let began = Instant::now();
            match self.commit(&events) {
                Ok(()) => metrics().committed_events.inc_by(events.len() as u64),
                Err(error) => {
                    self.state = None;
                    self.health.fail(error.to_string());
                    metrics().failed_batches.inc();
                }
            }
            metrics().commit_seconds.observe(began.elapsed().as_secs_f64());
            self.queue.done(events.len());
            checkpoint::limit_wal(&self.db, &self.path);
        }
    }

    /// Puts everything where the next start and everybody else looks for it.
    fn write_again(&mut self) -> Result<(), WriteAgainError> {
        backup::write_again(&self.db, &self.path, crate::clock::now_ns())?;
        // The old connection finds that its file has moved, and leaves the new ones alone.
        self.db = schema::open_writer(&self.path)?;
        self.state = Some(State::load(&self.db)?);
        self.health.begin(Place::of(&self.path));
        tracing::error!("the catalog was deleted under the daemon, which has written it again");
        Ok(())
    }

    fn commit(&mut self, batch: &[Event]) -> rusqlite::Result<()> {
        let tx = self.db.unchecked_transaction()?;
        let mut state = match self.state.take() {
            Some(state) => state,
            None => State::load(&tx)?,
        };
        let mut rows = Rows { db: &tx, state: &mut state };
        for event in batch {
            apply(&mut rows, event)?;
        }
        rows.flush()?;
        tx.commit()?;
        if std::mem::take(&mut state.wants_reconcile) {
            self.health.want_reconcile();
        }
        self.state = Some(state);
        Ok(())
    }
}
