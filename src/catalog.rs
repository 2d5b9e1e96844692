//! The catalog: a tree with time, in one SQLite database.
//!
//! Owns everything that is SQL: the schema, the one writer thread with its queue, and the readers
//! beside it; and the index of live names, which is made from it. Never touches the backing directory.
//! The database lies in the state directory as `catalog.db`, beside its WAL.
//!
//! # Order of durable steps
//! The filesystem changes the backing directory, then pushes an event, then replies (so a reply means
//! "queued"). The writer commits what is queued as one transaction. A crash loses what was queued
//! or in the last unsynced transactions, whole transactions at a time and never one without those
//! before it; the next start compares the backing directory with the catalog and records the
//! difference as found. [`Catalog::sync`] makes everything before it durable.

mod activity;
mod apply;
pub mod backup;
mod checkpoint;
pub mod chunks;
pub mod event;
mod history;
pub mod import;
mod in_snapshots;
mod labels;
mod lineage;
mod marks;
pub mod names;
mod observe;
mod packing;
mod place;
pub mod predecessor;
mod preserve;
mod queue;
pub mod read;
mod retained;
mod rows;
mod schema;
mod sessions;
mod snapshots;
mod statements;
#[cfg(test)]
mod tests;
mod touched;
mod tree;
mod verify;
mod views;
mod writer;
mod xattrs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use activity::Activity;
pub use chunks::ChunkDb;
pub use history::{ChangeInfo, Content, Gone, VersionInfo};
pub use in_snapshots::{InSnapshot, OnlyThere};
pub use labels::{Collection, CollectionChange, LabelChange, Labels};
pub use lineage::Located;
pub use marks::LastPrune;
pub use names::LiveNames;
pub use packing::{Amount, DueObject, ObjectTotals, Survey};
pub use preserve::{Awaited, Source, Unread, VersionKey};
pub use read::{NodeInfo, Reader, When};
pub use retained::{FileHistory, Retained, StoredContent};
pub use rows::ChangeOp;
pub use snapshots::{SnapshotRow, SnapshotsSeen};
pub use touched::{ByWhom, Named, Touched};
pub use tree::Descend;
pub use verify::Head;
pub use views::{Glimpse, LiveHead, Rights, VersionFacts};
pub use xattrs::XattrsAt;

use crate::causes::with_cause;
use crate::types::{InodeKey, Seq};
use event::{Event, Op};
use place::Place;
use queue::Queue;

/// Name of the database file in the state directory.
pub const FILE_NAME: &str = "catalog.db";

/// Connections of readers that stay open while many ask: to open one takes longer than most questions.
pub const KEPT_READERS: usize = 16;
/// As many stay open when few ask.
const IDLE_READERS: usize = 4;
/// How long many have asked after there were too few connections.
const BUSY: Duration = Duration::from_secs(10);

/// Fact about the catalog: when the last orderly stop was, in nanoseconds; 0 while running.
const STOPPED: &str = "stopped_ns";
/// Fact about the catalog: what boot and mount of the backing filesystem the last run was of.
const INCARNATION: &str = "incarnation";
/// Fact about the catalog: 1 once a walk has seen the whole tree.
const IMPORTED: &str = "imported";

/// What can go wrong with the catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The file cannot be opened as a catalog.
    #[error("cannot open the catalog {}", path.display())]
    Open {
        /// The database file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The file has been cut off to nothing, which is how SQLite knows a new one.
    #[error("cannot open the catalog {}: it is empty", path.display())]
    Empty {
        /// The database file.
        path: PathBuf,
    },
    /// There is none, and none can be made.
    #[error("cannot make the catalog {}", path.display())]
    Create {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file was written by an older Horace, and is only to be read.
    #[error(
        "the catalog {} has the older schema {found}, this program reads {known}: mount its \
         directory once, which brings it up to date",
        path.display()
    )]
    Older {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that this program reads.
        known: usize,
    },
    /// The file was written by an older Horace, and cannot be brought up to date.
    #[error(
        "the catalog {} cannot be brought from schema {found} to {known}, and stays as it was",
        path.display()
    )]
    Migrate {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The schema that it should have.
        known: usize,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The file was written by a newer Horace.
    #[error(
        "the catalog {} has schema {found}, this program knows {known}: \
         use the Horace version that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program can read.
        known: usize,
    },
    /// A query failed.
    #[error("the catalog could not be read")]
    Query(#[from] rusqlite::Error),
    /// The writer thread could not be started.
    #[error("cannot start the catalog's writer")]
    Thread(#[source] std::io::Error),
    /// The catalog could not be made durable.
    #[error("the catalog is degraded: {reason}")]
    Degraded {
        /// What is wrong with it.
        reason: String,
    },
}

impl CatalogError {
    fn open(path: &Path, source: rusqlite::Error) -> Self {
        Self::Open { path: path.into(), source }
    }
}

/// What is wrong with the catalog, shared by its threads.
#[derive(Debug, Default)]
struct Health {
    inner: Mutex<HealthState>,
}

#[derive(Debug, Default)]
struct HealthState {
    degraded: Option<String>,
    wants_reconcile: bool,
    /// Which files are open, and how often they were written again.
    place: Place,
    generation: u64,
}

impl Health {
    fn fail(&self, reason: String) {
        let mut inner = self.inner.lock();
        if inner.degraded.is_none() {
            tracing::error!(reason, "catalog degraded: changes go on, a reconcile must follow");
        }
        inner.degraded = Some(reason);
        inner.wants_reconcile = true;
    }

    /// Notes which files are open from now on; who has others open must open these.
    fn begin(&self, place: Place) {
        let mut inner = self.inner.lock();
        inner.place = place;
        inner.generation += 1;
    }

    fn place(&self) -> Place {
        self.inner.lock().place
    }

    /// Notes how the files are after they were written.
    fn follow(&self, now: &Place) {
        let mut inner = self.inner.lock();
        if !inner.place.is_lost(now) {
            inner.place = inner.place.by(now);
        }
    }

    fn generation(&self) -> u64 {
        self.inner.lock().generation
    }

    fn want_reconcile(&self) {
        self.inner.lock().wants_reconcile = true;
    }
}

/// What the last run left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Whether a walk has seen the whole tree at some time.
    pub imported: bool,
    /// Whether the last run came to its end in order.
    pub was_orderly: bool,
    /// When the catalog was last known to be true, in nanoseconds since 1970: a file whose times are
    /// not older than this may have changed in the same tick without a trace.
    pub trusted_until_ns: i64,
    /// What boot and mount of the backing filesystem the last run was of.
    pub incarnation: Option<i64>,
    /// The inode of the backing directory, if there was a run.
    pub root: Option<InodeKey>,
}

/// Figures for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogStatus {
    /// Events that wait for their commit.
    pub queue: u64,
    /// Why the catalog may be behind; `None` if it is well.
    pub degraded: Option<String>,
    /// Size of the write-ahead log in bytes.
    pub wal_bytes: u64,
}

/// What works for a catalog as long as it is open.
struct Threads {
    writer: JoinHandle<()>,
    checkpointer: checkpoint::Checkpointer,
    names: JoinHandle<()>,
}

/// Connections that wait for readers, each with the generation of the files that it has open.
#[derive(Default)]
struct Readers {
    idle: Vec<(u64, Reader)>,
    /// When there was none for somebody.
    missed: Option<Instant>,
}

impl Readers {
    fn take(&mut self) -> Option<(u64, Reader)> {
        let taken = self.idle.pop();
        if taken.is_none() {
            self.missed = Some(Instant::now());
        }
        taken
    }

    /// Returns it if it is one too many, to be closed without the lock.
    fn put_back(&mut self, generation: u64, reader: Reader) -> Option<Reader> {
        let is_busy = self.missed.is_some_and(|missed| missed.elapsed() < BUSY);
        let most = if is_busy { KEPT_READERS } else { IDLE_READERS };
        if self.idle.len() >= most {
            return Some(reader);
        }
        self.idle.push((generation, reader));
        None
    }
}

/// A catalog that is open for writing; one per backing directory.
pub struct Catalog {
    path: PathBuf,
    queue: Arc<Queue>,
    health: Arc<Health>,
    /// Free connections, each with the generation of the files that it has open.
    readers: Mutex<Readers>,
    names: Arc<LiveNames>,
    threads: Mutex<Option<Threads>>,
    past: Past,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Opens or creates the catalog in `state_dir` and starts its writer.
    ///
    /// # Errors
    /// [`CatalogError::Newer`] for a file of a newer schema, [`CatalogError::Migrate`] for an older one that
    /// has to stay as it is, [`CatalogError::Open`] for anything that is not a catalog: it is never
    /// replaced by an empty one.
    pub fn open(state_dir: &Path) -> Result<Self, CatalogError> {
        let path = state_dir.join(FILE_NAME);
        let db = schema::open_writer(&path)?;
        let past = Reader::open(&path)?.past()?;
        let queue = Arc::new(Queue::default());
        let health = Arc::new(Health::default());
        let names = Arc::new(LiveNames::new());
        let writer = writer::Writer::new(
            db,
            &path,
            Arc::clone(&queue),
            Arc::clone(&health),
            Arc::clone(&names),
        )?;
        let writer = std::thread::Builder::new()
            .name("catalog".into())
            .spawn(move || writer.run())
            .map_err(CatalogError::Thread)?;
        let checkpointer =
            checkpoint::Checkpointer::start(&path, Arc::clone(&queue), Arc::clone(&health))?;
        let index = names.start(&path)?;
        Ok(Self {
            path,
            queue,
            health,
            readers: Mutex::default(),
            names,
            threads: Mutex::new(Some(Threads { writer, checkpointer, names: index })),
            past,
        })
    }

    /// What the last run left behind.
    pub fn past(&self) -> Past {
        self.past
    }

    /// Hands events over, in this order and after all that were handed over before.
    ///
    /// Waits only while the queue is full.
    pub fn push(&self, events: impl IntoIterator<Item = Event>) {
        self.queue.push(events);
    }

    /// Waits until a few thousand events could be pushed without waiting.
    pub fn wait_for_room(&self) {
        self.queue.wait_for_room();
    }

    /// Waits until everything pushed before is visible to readers.
    pub fn barrier(&self) {
        self.queue.barrier();
    }

    /// Has the files that were rolled back under the daemon opened anew, if they were.
    pub fn look_after_files(&self) {
        /// The writer may be waiting for a disk.
        const PATIENCE: Duration = Duration::from_secs(30);
        const MOMENT: Duration = Duration::from_millis(5);
        let until = Instant::now() + PATIENCE;
        let is_behind = || self.health.place().is_rolled_back(&Place::of(&self.path));
        while is_behind() && Instant::now() < until {
            self.queue.nudge();
            std::thread::sleep(MOMENT);
        }
    }

    /// Makes everything pushed before durable and returns the last sequence number.
    ///
    /// # Errors
    /// [`CatalogError::Degraded`] if some of it could not be committed.
    pub fn sync(&self) -> Result<Seq, CatalogError> {
        self.look_after_files();
        self.barrier();
        checkpoint::make_durable(&self.path)?;
        if let Some(reason) = self.health.inner.lock().degraded.clone() {
            return Err(CatalogError::Degraded { reason });
        }
        self.read(Reader::seq)
    }

    /// Runs a query that sees everything pushed before, on a connection from a small pool.
    ///
    /// # Errors
    /// What the query fails with.
    pub fn read<T, E: From<CatalogError>>(
        &self,
        query: impl FnOnce(&Reader) -> Result<T, E>,
    ) -> Result<T, E> {
        self.barrier();
        self.read_committed(query)
    }

    /// Runs a query that need not see what is still queued.
    ///
    /// # Errors
    /// What the query fails with.
    pub fn read_committed<T, E: From<CatalogError>>(
        &self,
        query: impl FnOnce(&Reader) -> Result<T, E>,
    ) -> Result<T, E> {
        let generation = self.health.generation();
        let pooled = self.readers.lock().take().filter(|(of, _)| *of == generation);
        let mut reader = match pooled {
            Some((_, reader)) => reader,
            None => {
                Reader::open(&self.path).inspect_err(|error| self.health.fail(with_cause(error)))?
            }
        };
        let result = query(&mut reader);
        if result.is_ok() {
            let left = self.readers.lock().put_back(generation, reader);
            drop(left);
        }
        result
    }

    /// The live names, to be searched. They are as the last commit left them.
    pub fn names(&self) -> &LiveNames {
        &self.names
    }

    /// Figures for `status`.
    pub fn status(&self) -> CatalogStatus {
        CatalogStatus {
            queue: self.queue.depth(),
            degraded: self.health.inner.lock().degraded.clone(),
            wal_bytes: checkpoint::wal_bytes(&self.path),
        }
    }

    /// Asks for a walk over the tree, because something could not be told.
    pub fn wish_reconcile(&self) {
        self.health.want_reconcile();
    }

    /// Whether something happened that only a walk over the tree can tell, since this was asked last.
    pub fn take_reconcile_wish(&self) -> bool {
        std::mem::take(&mut self.health.inner.lock().wants_reconcile)
    }

    /// Says that a walk has repaired whatever was missed.
    pub fn reconciled(&self) {
        let mut inner = self.health.inner.lock();
        if !inner.wants_reconcile && inner.degraded.take().is_some() {
            tracing::info!("catalog repaired by a reconcile");
        }
    }

    /// Commits what is queued, notes the orderly end at `now_ns`, and stops the threads.
    pub fn close(&self, now_ns: i64) {
        let Some(Threads { writer, checkpointer, names }) = self.threads.lock().take() else {
            return;
        };
        self.push([Event { time_ns: now_ns, writer: None, op: Op::Stop }]);
        self.queue.close();
        if writer.join().is_err() {
            tracing::error!("the catalog's writer panicked");
        }
        checkpointer.stop();
        self.names.stop();
        if names.join().is_err() {
            tracing::error!("the thread that reads names panicked");
        }
        self.readers.lock().idle.clear();
        if let Err(error) = checkpoint::make_durable(&self.path) {
            tracing::warn!(%error, "last checkpoint failed, the WAL stays");
        }
    }
}
