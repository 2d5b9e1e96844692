//! Questions about a mount and their answers, whichever way they come.
//!
//! Owns what each request means in terms of the catalog, who may see what, and the records that answers
//! consist of. Answers are written record by record, so that a million of them need no memory. What is read from
//! one state of the catalog is read before it is written, since whoever reads the answer may be slow; only walks
//! through a tree write as they go.
//!
//! Sits beside fuse under daemon: reads the catalog, and asks the mount only through [`Host`], who also does
//! what a request wants changed. Never changes anything itself. The same queries answer from the catalog
//! alone where no daemon runs ([`answer_from_catalog`]); who can open that file sees everything in it.

mod access;
mod changes;
mod content;
pub mod filter;
mod history;
pub mod labels;
mod manifest;
mod mark;
mod prune;
pub mod records;
pub mod reports;
pub mod request;
mod restore;
mod search;
mod service;
pub mod snapshots;
pub mod status;
mod tree;
pub mod verify;
mod walk;

use std::io;
use std::os::fd::OwnedFd;

use serde::Serialize;
use uuid::Uuid;

use access::{Guard, Want};
use changes::Position;
use filter::GlobError;
use prune::PruneRecords;
use records::Users;
use request::{End, Failure, FailureCode, Request};
pub use service::{Listener, Service};
use snapshots::{SnapshotFailure, SnapshotOrder};
pub use status::Host;
use status::{SpaceRecord, StatusRecord};

use crate::catalog::{CatalogError, Reader};
use crate::content::{ContentError, Contents};
use crate::file_id;
use crate::restore::PlanError;
use crate::store::Packed;
use crate::store::pack::PackError;
use crate::types::FileId;
use crate::types::path::parent;

/// Where the lines of an answer go.
pub trait Sink {
    /// Takes one line, which has no line feed.
    ///
    /// # Errors
    /// If nobody wants more.
    fn line(&mut self, line: &[u8]) -> io::Result<()>;

    /// Takes one line with an open file.
    ///
    /// # Errors
    /// If nobody wants more.
    fn file(&mut self, line: &[u8], file: OwnedFd) -> io::Result<()> {
        drop(file);
        self.line(line)
    }

    /// Takes one line with the first `size` bytes of a packed content.
    ///
    /// # Errors
    /// If the content cannot be read, or nobody wants more.
    fn packed(&mut self, line: &[u8], content: &Packed, size: u64) -> Result<(), SendError> {
        let _ = (content, size);
        Ok(self.line(line)?)
    }

    /// Hands over what was taken so far.
    ///
    /// # Errors
    /// If nobody wants more.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why a content is not handed over whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It cannot be read.
    #[error(transparent)]
    Content(#[from] PackError),
    /// Nobody wants more.
    #[error(transparent)]
    Sink(#[from] io::Error),
}

/// Why an answer ends early.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The catalog has no such path.
    #[error("the catalog has no file or directory {}", shown(path))]
    NotFound {
        /// Which.
        path: Vec<u8>,
    },
    /// It is a directory or something else that has no versions.
    #[error("{} is no regular file: only these have versions", shown(path))]
    NotAFile {
        /// What.
        path: Vec<u8>,
    },
    /// It is no directory.
    #[error("{} is no directory", shown(path))]
    NotADirectory {
        /// What.
        path: Vec<u8>,
    },
    /// The path has no such version.
    #[error("{} has no version `{name}`", shown(path))]
    NoVersion {
        /// Which path.
        path: Vec<u8>,
        /// What was asked for.
        name: String,
    },
    /// The content cannot be had.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Whoever asks may not.
    #[error("permission denied: {what}")]
    Denied {
        /// What.
        what: String,
    },
    /// The time is before the beginning.
    #[error("nothing was catalogued at that time yet")]
    TooEarly,
    /// The catalog has no such file, or none that the asker may read.
    #[error("there is no file with the identity {id}")]
    NoFile {
        /// Which.
        id: Uuid,
    },
    /// There is no such collection, or none that the asker may see.
    #[error("there is no collection `{name}`")]
    NoCollection {
        /// Which.
        name: String,
    },
    /// This cannot be said of a file.
    #[error("{reason}")]
    BadLabel {
        /// Why not.
        reason: String,
    },
    /// The catalog has heard of no such snapshot.
    #[error("there is no snapshot `{name}` with a mark of this catalog")]
    NoSnapshot {
        /// Which.
        name: String,
    },
    /// Nothing was done with snapshots.
    #[error(transparent)]
    Snapshot(#[from] SnapshotFailure),
    /// This machine has no such user.
    #[error("there is no user `{name}`")]
    NoUser {
        /// Who.
        name: String,
    },
    /// Nobody was named.
    #[error("whose changes are to be taken back? Name a process or a user")]
    Nobody,
    /// There is no plan to bring it back.
    #[error(transparent)]
    Plan(PlanError),
    /// The glob is none.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// It takes a daemon.
    #[error("no daemon serves this mount")]
    NotRunning,
    /// Too much would go.
    #[error("nothing was dropped: {reason}")]
    Capped {
        /// Why that is too much.
        reason: String,
    },
    /// The mount could not.
    #[error("{0}")]
    Host(String),
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The answer cannot be handed over.
    #[error("nobody reads the answer")]
    Sink(#[from] io::Error),
}

impl From<SendError> for QueryError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Content(error) => ContentError::from(error).into(),
            SendError::Sink(error) => error.into(),
        }
    }
}

fn shown(path: &[u8]) -> String {
    format!("`/{}`", String::from_utf8_lossy(path).escape_debug())
}

impl From<PlanError> for QueryError {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Catalog(error) => Self::Catalog(error),
            PlanError::Content(error) => Self::Content(error),
            error => Self::Plan(error),
        }
    }
}

impl QueryError {
    /// What kind of trouble it is, and its words.
    pub fn to_failure(&self) -> Failure {
        let code = match self {
            Self::NotFound { .. }
            | Self::TooEarly
            | Self::NoVersion { .. }
            | Self::NoFile { .. }
            | Self::NoSnapshot { .. }
            | Self::Snapshot(SnapshotFailure::Unknown { .. })
            | Self::NoCollection { .. } => FailureCode::NotFound,
            Self::Content(
                ContentError::Lost(_)
                | ContentError::Other { .. }
                | ContentError::TakenBack
                | ContentError::NoStore,
            ) => FailureCode::NotKept,
            Self::Plan(PlanError::NotFound { .. }) => FailureCode::NotFound,
            Self::Plan(PlanError::Live { .. } | PlanError::Moved { .. })
            | Self::NoUser { .. }
            | Self::Nobody => FailureCode::BadRequest,
            Self::NotAFile { .. } | Self::NotADirectory { .. } => FailureCode::WrongKind,
            Self::Denied { .. } => FailureCode::Denied,
            Self::Glob(_) | Self::BadLabel { .. } => FailureCode::BadRequest,
            Self::NotRunning => FailureCode::NotRunning,
            Self::Capped { .. } => FailureCode::Capped,
            Self::Snapshot(SnapshotFailure::Impossible(_)) => FailureCode::Impossible,
            Self::Snapshot(SnapshotFailure::Failed(_))
            | Self::Host(_)
            | Self::Catalog(_)
            | Self::Sink(_)
            | Self::Content(_)
            | Self::Plan(_) => FailureCode::Internal,
        };
        let cause = std::error::Error::source(self).map(|source| format!(": {source}"));
        Failure { code, message: format!("{self}{}", cause.unwrap_or_default()) }
    }
}

/// An answer that is being written.
struct Answer<'a> {
    sink: &'a mut dyn Sink,
    line: Vec<u8>,
    end: End,
}

impl<'a> Answer<'a> {
    fn new(sink: &'a mut dyn Sink) -> Self {
        Self { sink, line: Vec::new(), end: End::default() }
    }

    /// Writes one record.
    fn record(&mut self, record: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.end.records += 1;
        self.sink.line(&self.line)
    }

    /// Writes one record that comes with an open file.
    fn file(&mut self, record: &impl Serialize, file: OwnedFd) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record)?;
        self.end.records += 1;
        self.sink.file(&self.line, file)
    }

    /// Writes one record that comes with the first `size` bytes of a packed content.
    fn packed(
        &mut self,
        record: &impl Serialize,
        content: &Packed,
        size: u64,
    ) -> Result<(), SendError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, record).map_err(io::Error::from)?;
        self.end.records += 1;
        self.sink.packed(&self.line, content, size)
    }

    /// Hands over what was written so far.
    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }

    /// How many records there are.
    fn records(&self) -> u64 {
        self.end.records
    }

    /// Counts a record without the digest that was asked for.
    fn lacks_digest(&mut self) {
        self.end.unknown += 1;
    }

    /// What the last line says.
    fn end(&self) -> End {
        self.end
    }
}

/// Everything a query works with.
struct Query<'q, 'a> {
    /// The connection that looks things up.
    reader: &'q Reader,
    /// Whose eyes look.
    guard: &'q mut Guard,
    /// Where the records go.
    answer: &'q mut Answer<'a>,
}

impl Query<'_, '_> {
    /// Refuses a path that the asker may not use so.
    fn require(&mut self, path: &[u8], want: Want) -> Result<(), QueryError> {
        if self.guard.path(self.reader, path, want)? {
            return Ok(());
        }
        // What is not there at all is not forbidden, unless its directory is.
        if self.guard.path(self.reader, parent(path), Want::Search)?
            && self.reader.locate(path)?.is_none()
        {
            return Err(QueryError::NotFound { path: path.into() });
        }
        Err(QueryError::Denied { what: shown(path) })
    }

    fn ids(&self) -> Result<Ids, CatalogError> {
        Ok(Ids(self.reader.catalog_id()?))
    }
}

/// The identity of a catalog, from which files get their UUIDs.
#[derive(Debug, Clone, Copy)]
struct Ids([u8; 16]);

impl Ids {
    fn uuid(self, file: FileId) -> Uuid {
        file_id::to_uuid(&self.0, file)
    }
}

/// Answers from a catalog that no daemon serves; what needs one is refused.
///
/// # Errors
/// If the answer is not whole, after the records that could be told.
pub fn answer_from_catalog(
    reader: &Reader,
    contents: &Contents,
    request: &Request,
    sink: &mut dyn Sink,
) -> Result<End, QueryError> {
    let mut answer = Answer::new(sink);
    let guard = &mut Guard::Everything;
    answer_request(&mut Query { reader, guard, answer: &mut answer }, contents, request)?;
    Ok(answer.end())
}

/// Answers what needs no daemon.
fn answer_request(
    query: &mut Query<'_, '_>,
    contents: &Contents,
    request: &Request,
) -> Result<(), QueryError> {
    match request {
        Request::Log { path } => query.log(&path.0, &Users::read()),
        Request::Blame { path } => query.blame(&path.0, &Users::read()),
        Request::Cat { path, version, at_ns } => {
            query.content(contents, &path.0, version.as_deref(), *at_ns)
        }
        Request::Manifest { path, at_ns } => query.manifest(&path.0, *at_ns),
        Request::Tree { path, at_ns, after, limit } => {
            query.tree(&path.0, *at_ns, &after.0, *limit)
        }
        Request::Usage { path, query: wanted } => query.usage(&path.0, wanted),
        Request::Duplicates { path, min_size, limit } => {
            query.duplicates(&path.0, *min_size, *limit)
        }
        Request::Writers { path, since_ns, limit } => query.writers(&path.0, *since_ns, *limit),
        Request::Search { path, filter } => query.search(&path.0, filter, None),
        Request::File { path } => query.file(&path.0),
        Request::FileWith { file_id } => query.file_with(*file_id),
        Request::Tags { path, after, limit } => query.tags(&path.0, after, *limit),
        Request::Collections { path, after, limit } => {
            query.collections(&path.0, after, *limit, None)
        }
        Request::Collection { name } => query.collection(name, None),
        Request::Changes { path, since, limit, .. } => {
            let mut position = Position::new(query.reader, path, *since, *limit)?;
            while query.changes(&mut position)? > 0 {}
            Ok(())
        }
        Request::Status => {
            let totals = query.reader.totals()?;
            let status = StatusRecord {
                running: false,
                mount: None,
                seq: query.reader.seq()?,
                entries: totals.entries,
                versions: totals.versions,
                objects: totals.objects,
                object_bytes: totals.object_bytes,
                space: SpaceRecord::new(query.reader, contents.pack_totals())?,
                queue: 0,
                wal_bytes: 0,
                degraded: None,
                reconcile: None,
                verify: None,
                last_prune: query.reader.last_prune()?.map(Into::into),
            };
            Ok(query.answer.record(&status)?)
        }
        Request::Snapshots { what: SnapshotOrder::List } => {
            for record in query.remembered_snapshots()? {
                query.answer.record(&record)?;
            }
            Ok(())
        }
        Request::Snapshots { what: SnapshotOrder::Show { name } } => {
            let there = query.remembered_snapshots()?;
            query.show_snapshot(name, there)
        }
        Request::Snapshots { what: SnapshotOrder::Find { path, version } } => {
            query.snapshots_with(&path.0, version.as_deref())
        }
        Request::Snapshots { what: SnapshotOrder::Diff { from, to, after, limit } } => {
            query.snapshot_diff(from, to.as_deref(), after.as_ref(), *limit)
        }
        Request::Sync
        | Request::Snapshots { .. }
        | Request::Reconcile { .. }
        | Request::BringBack { .. }
        | Request::Verify(_)
        | Request::Prune { .. }
        | Request::Mark { .. }
        | Request::Label { .. }
        | Request::Collect { .. }
        | Request::Forget { .. } => Err(QueryError::NotRunning),
    }
}
