//! From a version to its bytes.
//!
//! Owns the way there: the catalog says what became of a content, and the backing directory or the store
//! has it, in a file of its own or packed, or else a snapshot. Never writes, and checks only what comes out of a
//! snapshot: whoever reads knows the digest.

mod snapshots;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::retry_on_intr;

use crate::catalog::{CatalogError, Reader, Source, VersionKey, XattrsAt};
use crate::store::pack::{PackError, PackTotals};
use crate::store::{Packed, Store};
use crate::sys::{Errno, xattr};
use crate::types::{ContentHash, FileId, Loss, Seq, Xattrs};

pub use snapshots::SnapshotDirs;

/// Why a content cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// There is no such version any more.
    #[error("the version was taken back")]
    TakenBack,
    /// Nobody has it.
    #[error("the content of this version was not kept: {0}")]
    Lost(Loss),
    /// Nobody has it, and a snapshot that should have something else.
    #[error(
        "the content of this version was not kept: {loss}, and the snapshot `{snapshot}` has other \
         bytes in its place"
    )]
    Other {
        /// Why it was not kept.
        loss: Loss,
        /// The newest of those that should have it.
        snapshot: String,
    },
    /// It was kept, but the store cannot be read.
    #[error("the store cannot be read, or nothing is kept here (`-o keep=none`)")]
    NoStore,
    /// It is a live file without a name.
    #[error("the file has no name")]
    NoName,
    /// It cannot be opened.
    #[error("cannot open {what}")]
    Open {
        /// What was to be opened.
        what: String,
        /// The filesystem's reason.
        source: Errno,
    },
    /// It is packed and cannot be read.
    #[error(transparent)]
    Packed(#[from] PackError),
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// The content of one version, open for reading. It may go on behind the version's end.
#[derive(Debug)]
pub enum Content {
    /// A file has it, from its beginning on.
    File(OwnedFd),
    /// Packs have it.
    Packed(Packed),
}

impl Content {
    /// Reads from `offset` on; returns the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// The filesystem's; `EIO` where a pack is damaged, of which the log has more.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        match self {
            Self::File(file) => retry_on_intr(|| rustix::io::pread(file, &mut *buffer, offset)),
            Self::Packed(packed) => packed.read_at(buffer, offset).map_err(|error| {
                tracing::error!(%error, "cannot read a packed content");
                Errno::IO
            }),
        }
    }

    /// The file that has it, if one has: its blocks can be shared.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::File(file) => Some(file.as_fd()),
            Self::Packed(_) => None,
        }
    }
}

/// A part of a content that a file is to get.
#[derive(Debug)]
pub struct Wanted<'c> {
    /// Where it is.
    pub content: &'c Content,
    /// How many bytes of it, from the beginning on.
    pub size_bytes: u64,
    /// Their digest, if it is known.
    pub hash: Option<ContentHash>,
}

/// Where contents lie.
#[derive(Debug, Clone)]
pub struct Contents {
    backing: Arc<OwnedFd>,
    store: Option<Arc<Store>>,
    snapshots: Option<Arc<dyn SnapshotDirs>>,
}

impl Contents {
    /// The contents of a backing directory, with what was preserved of it.
    pub fn new(backing: Arc<OwnedFd>, store: Option<Arc<Store>>) -> Self {
        Self { backing, store, snapshots: None }
    }

    /// The same, with what only snapshots have.
    pub fn with_snapshots(self, snapshots: Arc<dyn SnapshotDirs>) -> Self {
        Self { snapshots: Some(snapshots), ..self }
    }

    /// How many packs there are to read from, and how large they are.
    pub fn pack_totals(&self) -> PackTotals {
        let packs = self.store.as_ref().and_then(|store| store.packs());
        packs.map_or_else(PackTotals::default, |packs| packs.totals())
    }

    /// Opens the content of a version, as the catalog that `reader` reads has it.
    ///
    /// # Errors
    /// If it was not kept, or cannot be opened.
    pub fn open(&self, reader: &Reader, version: VersionKey) -> Result<Content, ContentError> {
        /// What is on its way from one place to another is there before long.
        const TRIES: usize = 25;
        const PAUSE: Duration = Duration::from_millis(20);
        for tries in 1..=TRIES {
            let (at, source) = reader.bytes_of(version)?.ok_or(ContentError::TakenBack)?;
            let opened = match (source, &self.store) {
                (Source::Head, _) => return self.open_head(reader, at.0),
                (Source::Empty, _) => rustix::fs::open("/dev/null", READ, Mode::empty()),
                (Source::Lost(loss), _) => return self.open_in_snapshot(reader, version, loss),
                (Source::Object(hash), Some(store)) => match store.open_object(hash) {
                    Err(Errno::NOENT) => match store.open_packed(hash)? {
                        Some(packed) => return Ok(Content::Packed(packed)),
                        None => Err(Errno::NOENT),
                    },
                    opened => opened,
                },
                // What was looked at is better; but as long as somebody uses it, it is not.
                (Source::Incoming(_), Some(_)) if tries < TRIES => Err(Errno::NOENT),
                (Source::Incoming(id), Some(store)) => store.open_incoming(id),
                (_, _) => return Err(ContentError::NoStore),
            };
            match opened {
                Ok(file) => return Ok(Content::File(file)),
                Err(Errno::NOENT) => std::thread::sleep(PAUSE),
                Err(error) => {
                    return Err(ContentError::Open { what: format!("{source:?}"), source: error });
                }
            }
        }
        Err(ContentError::Open { what: "what was kept".into(), source: Errno::NOENT })
    }

    /// Why the content of a version cannot be had, as far as the catalog knows: a snapshot is not looked into.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn why_lost(
        &self,
        reader: &Reader,
        version: VersionKey,
    ) -> Result<Option<ContentError>, ContentError> {
        Ok(match reader.bytes_of(version)? {
            None => Some(ContentError::TakenBack),
            Some((_, Source::Lost(loss))) if !self.may_be_in_snapshot(reader, version)? => {
                Some(ContentError::Lost(loss))
            }
            Some(_) => None,
        })
    }

    fn open_head(&self, reader: &Reader, file: FileId) -> Result<Content, ContentError> {
        self.open_live(reader, file, READ | OFlags::NONBLOCK | OFlags::NOFOLLOW).map(Content::File)
    }

    /// The extended attributes that a file had after a change.
    ///
    /// # Errors
    /// If the catalog or the live file cannot be read.
    pub fn xattrs(&self, reader: &Reader, file: FileId, at: Seq) -> Result<Xattrs, ContentError> {
        if let XattrsAt::Past(xattrs) = reader.xattrs_at(file, at)? {
            return Ok(xattrs);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let live = self.open_live(reader, file, flags)?;
        let unreadable = |source| ContentError::Open { what: "extended attributes".into(), source };
        xattr::read_all(live).map_err(unreadable)
    }

    fn open_live(
        &self,
        reader: &Reader,
        file: FileId,
        flags: OFlags,
    ) -> Result<OwnedFd, ContentError> {
        let now = reader.seq()?;
        let path = reader.path_of(file, now)?.ok_or(ContentError::NoName)?;
        let path = if path.is_empty() { b".".to_vec() } else { path };
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.backing, &*path, flags, Mode::empty(), within).map_err(|source| {
            let what = format!("`/{}`", String::from_utf8_lossy(&path).escape_debug());
            ContentError::Open { what, source }
        })
    }
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
