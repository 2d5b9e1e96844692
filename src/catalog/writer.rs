//! The one thread that writes to the catalog.
//!
//! Owns group commit: whatever is queued becomes one transaction, so that load makes the batches.
//! A batch that fails is rolled back and given up: the catalog is then degraded, which everyone can
//! see, and a reconcile brings in what was lost. File operations go on meanwhile.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::Connection;

use super::apply::apply;
use super::event::Event;
use super::queue::Queue;
use super::rows::{Rows, State};
use super::{CatalogError, Health, checkpoint};

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
        Ok(Self { db, path: path.into(), queue, health, state })
    }

    pub(super) fn run(mut self) {
        while let Some(batch) = self.queue.take() {
            if let Err(error) = self.commit(&batch) {
                self.state = None;
                self.health.fail(error.to_string());
            }
            self.queue.done(batch.len());
            checkpoint::limit_wal(&self.db, &self.path);
        }
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
