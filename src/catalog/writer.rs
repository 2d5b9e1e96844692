//! The one thread that writes to the catalog.
//!
//! Owns group commit: whatever is queued becomes one transaction, so that load makes the batches.
//! A batch that fails is rolled back and given up: the catalog is then degraded, which everyone can
//! see, and a reconcile brings in what was lost. File operations go on meanwhile. Files that somebody
//! deletes under the daemon are written again before the next batch; files that were rolled back are opened
//! anew.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::apply::apply;
use super::event::Event;
use super::names::{LiveNames, NameChange};
use super::place::Place;
use super::queue::{Queue, Taken};
use super::rows::{Rows, State};
use super::{CatalogError, Health, backup, checkpoint, schema};
use crate::causes::with_cause;
use crate::metrics::metrics;

/// Why the catalog could not be written again.
#[derive(Debug, thiserror::Error)]
enum WriteAgainError {
    #[error("the catalog was deleted or rolled back and cannot be written again")]
    Copy(#[from] backup::BackupError),
    #[error("the catalog was deleted or rolled back and cannot be opened again")]
    Open(#[from] CatalogError),
    #[error("the catalog was deleted or rolled back and cannot be read again")]
    Load(#[from] rusqlite::Error),
}

pub(super) struct Writer {
    db: Connection,
    path: PathBuf,
    queue: Arc<Queue>,
    health: Arc<Health>,
    names: Arc<LiveNames>,
    /// Thrown away by a failed batch.
    state: Option<State>,
}

impl Writer {
    pub(super) fn new(
        db: Connection,
        path: &Path,
        queue: Arc<Queue>,
        health: Arc<Health>,
        names: Arc<LiveNames>,
    ) -> Result<Self, CatalogError> {
        let state = Some(State::load(&db)?);
        health.begin(Place::of(path));
        Ok(Self { db, path: path.into(), queue, health, names, state })
    }

    pub(super) fn run(mut self) {
        while let Some(Taken { events, nudged }) = self.queue.take() {
            if let Err(error) = self.look_after_files(nudged) {
                self.health.fail(with_cause(&error));
            }
            let began = Instant::now();
            match self.commit(&events) {
                Ok(()) => metrics().committed_events.inc_by(events.len() as u64),
                Err(error) => {
                    self.state = None;
                    // SQLite says that nothing of it was committed; the index need not rely on that.
                    self.names.rebuild();
                    self.health.fail(error.to_string());
                    metrics().failed_batches.inc();
                }
            }
            metrics().commit_seconds.observe(began.elapsed().as_secs_f64());
            self.health.follow(&Place::of(&self.path));
            self.queue.done(events.len());
            checkpoint::limit_wal(&self.db, &self.path);
        }
    }

    fn look_after_files(&mut self, nudged: bool) -> Result<(), WriteAgainError> {
        let (place, now) = (self.health.place(), Place::of(&self.path));
        if nudged && place.is_lost(&now) {
            // Where the next start and everybody else looks for it.
            backup::write_again(&self.db, &self.path, crate::clock::now_ns())?;
            self.open_again()?;
            tracing::error!("the catalog was deleted under the daemon, which has written it again");
        } else if place.is_rolled_back(&now) {
            // Every connection shares what it knows of the log, and that is not true any more.
            backup::take_over(&self.path, crate::clock::now_ns())?;
            self.open_again()?;
            self.health.want_reconcile();
            tracing::warn!(
                "the catalog was rolled back under the daemon, which goes on from there"
            );
        }
        Ok(())
    }

    fn open_again(&mut self) -> Result<(), WriteAgainError> {
        // The old connection finds that its file has moved, and leaves the new ones alone.
        self.db = schema::open_writer(&self.path)?;
        self.state = Some(State::load(&self.db)?);
        self.health.begin(Place::of(&self.path));
        self.names.rebuild();
        Ok(())
    }

    fn commit(&mut self, batch: &[Event]) -> rusqlite::Result<()> {
        // A transaction that begins by reading fails at once when somebody else is about to look whether the log
        // is whole: only who has no lock yet waits for one.
        let tx = Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate)?;
        let mut state = match self.state.take() {
            Some(state) => state,
            None => State::load(&tx)?,
        };
        let mut rows = Rows { db: &tx, state: &mut state };
        for event in batch {
            apply(&mut rows, event)?;
            if rows.state.names.last().is_some_and(|last| *last != NameChange::Whole) {
                rows.state.names.push(NameChange::Whole);
            }
        }
        rows.flush()?;
        tx.commit()?;
        self.names.committed(std::mem::take(&mut state.names));
        if std::mem::take(&mut state.wants_reconcile) {
            self.health.want_reconcile();
        }
        self.state = Some(state);
        Ok(())
    }
}
