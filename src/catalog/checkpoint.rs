//! Moving the write-ahead log into the database.
//!
//! Owns a thread of its own for it, since a checkpoint in the writer stalls it for a tenth of a second.
//! Under a flood the log would outgrow it, so above a limit the writer does it after all.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags};

use super::place::{Place, beside};
use super::queue::Queue;
use super::{CatalogError, Health};

/// How often the log is looked at.
const EVERY: Duration = Duration::from_millis(500);
/// Below this it is left alone, in bytes.
const WORTH_IT: u64 = 4 << 20;
/// Above this the writer waits for its checkpoint, in bytes.
const LIMIT: u64 = 256 << 20;

/// The thread; it ends when told to.
pub(super) struct Checkpointer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    pub(super) fn start(
        path: &Path,
        queue: Arc<Queue>,
        health: Arc<Health>,
    ) -> Result<Self, CatalogError> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (path, signal) = (path.to_path_buf(), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || run(&path, &queue, &health, &signal))
            .map_err(CatalogError::Thread)?;
        Ok(Self { stop, thread })
    }

    pub(super) fn stop(self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if self.thread.join().is_err() {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

fn run(path: &Path, queue: &Queue, health: &Health, (stopped, signal): &(Mutex<bool>, Condvar)) {
    let mut last = 0;
    let mut stopped = stopped.lock();
    while !*stopped {
        signal.wait_for(&mut stopped, EVERY);
        let size = wal_bytes(path);
        let (place, now) = (health.place(), Place::of(path));
        if place.is_lost(&now) || place.is_rolled_back(&now) {
            queue.nudge();
        } else if size >= WORTH_IT && size != last {
            parking_lot::MutexGuard::unlocked(&mut stopped, || match open(path) {
                Ok(db) => checkpoint(&db, "PASSIVE"),
                Err(error) => tracing::warn!(%error, "no checkpoint"),
            });
        }
        last = size;
    }
}

/// Opens a database that is there.
fn open(path: &Path) -> Result<Connection, CatalogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|source| CatalogError::open(path, source))
}

/// Empties the log from within the writer if it has outgrown its limit.
pub(super) fn limit_wal(db: &Connection, path: &Path) {
    if wal_bytes(path) > LIMIT {
        checkpoint(db, "TRUNCATE");
    }
}

fn checkpoint(db: &Connection, mode: &str) {
    if let Err(error) = db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
        tracing::warn!(%error, mode, "checkpoint failed");
    }
}

/// Writes everything that is committed through to the disk.
pub(super) fn make_durable(path: &Path) -> Result<(), CatalogError> {
    // The pages of the log first: a checkpoint that finds a reader in its way leaves some there.
    let wal = std::fs::File::open(wal_path(path)).and_then(|wal| wal.sync_data());
    match wal {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(CatalogError::Degraded { reason: format!("cannot sync its log: {error}") });
        }
        _ => {}
    }
    let db = open(path)?;
    db.busy_timeout(Duration::from_secs(5))?;
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(())
}

/// Size of the write-ahead log.
pub(super) fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(wal_path(path)).map_or(0, |m| m.len())
}

fn wal_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}
