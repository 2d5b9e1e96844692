//! What retention asks: whole histories, and whose a content is.
//!
//! Owns the one scan over the history of all files, and the look-ups from a content to the files that
//! have it. Heads of files without a history are no part of it: there is nothing to decide.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row, params};

use super::CatalogError;
use super::marks::PINNED_COLUMN;
use super::preserve::{SOURCE_COLUMNS, Source};
use super::read::Reader;
use super::rows::{get_hash, get_u64};
use crate::types::{ContentHash, FileId, Seq};

/// One version, as retention looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retained {
    /// Its number in its file.
    pub number: u32,
    /// When it was written, in nanoseconds since 1970.
    pub time_ns: i64,
    /// When it was replaced or deleted; `None` for the head of a live file.
    pub until_ns: Option<i64>,
    /// Size in bytes.
    pub size: u64,
    /// Digest, if it is known.
    pub hash: Option<ContentHash>,
    /// Whether somebody wants it to stay.
    pub pinned: bool,
    /// Where its bytes are in the end: no source that only leads to another.
    pub place: Source,
    /// Where else they are, should that be the store: with another version.
    pub elsewhere: Option<Source>,
    /// Its bytes are on their way to the store, where they may be already: there they will be again.
    pub waits: bool,
}

/// The versions of one file, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHistory {
    /// Which file.
    pub file: FileId,
    /// The change that took its last name, and when; `None` while it lives.
    pub ended: Option<(Seq, i64)>,
    /// Its versions.
    pub versions: Vec<Retained>,
}

impl FileHistory {
    /// The change after which the file had the path by which it is known now.
    pub fn known_at(&self) -> Seq {
        self.ended.map_or(Seq(i64::MAX.cast_unsigned()), |(seq, _)| Seq(seq.0.saturating_sub(1)))
    }
}

/// One content in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredContent {
    /// Its digest.
    pub hash: ContentHash,
    /// Size in bytes.
    pub size: u64,
    /// When it was last put there, in nanoseconds since 1970: then it had stopped being current.
    pub stored_ns: i64,
}

/// The columns of [`Loaded`], for a `version v`, its `file f` and its `change c`.
fn columns() -> String {
    format!(
        "v.file, v.number, c.time_ns, v.size, v.sha256, {PINNED_COLUMN}, f.head = v.number,
         f.ended_seq, (SELECT e.time_ns FROM change e WHERE e.seq = f.ended_seq), {SOURCE_COLUMNS}"
    )
}

const TABLES: &str = "version v JOIN file f ON f.id = v.file JOIN change c ON c.seq = v.seq";

/// A row on its own.
struct Loaded {
    file: FileId,
    ended: Option<(Seq, i64)>,
    is_newest: bool,
    source: Source,
    elsewhere: Option<Source>,
    version: Retained,
}

impl Loaded {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let source = Source::from_row(row, 9)?;
        let ended: Option<i64> = row.get(7)?;
        let ended = match ended {
            Some(seq) => Some((Seq(seq.cast_unsigned()), row.get(8)?)),
            None => None,
        };
        Ok(Self {
            file: FileId(get_u64(row, 0)?),
            ended,
            is_newest: row.get(6)?,
            source,
            elsewhere: Source::elsewhere(row, 9)?,
            version: Retained {
                number: row.get(1)?,
                time_ns: row.get(2)?,
                until_ns: None,
                size: get_u64(row, 3)?,
                hash: get_hash(row, 4)?,
                pinned: row.get(5)?,
                place: source,
                elsewhere: None,
                waits: Source::waits(row, 9)?,
            },
        })
    }
}

impl Reader {
    /// Calls `visit` with the history of every file that has any.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `visit` fails with.
    pub fn histories<E: From<CatalogError>>(
        &self,
        mut visit: impl FnMut(FileHistory) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!(
            "SELECT {} FROM {TABLES}
             WHERE f.head > 1 OR f.ended_seq IS NOT NULL OR v.kept IS NOT NULL
             ORDER BY v.file, v.number",
            columns()
        );
        let failed = |error: rusqlite::Error| CatalogError::from(error);
        let mut query = self.db.prepare_cached(&sql).map_err(failed)?;
        let mut rows = query.query([]).map_err(failed)?;
        let mut group: Vec<Loaded> = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let loaded = Loaded::from_row(row).map_err(failed)?;
            if group.first().is_some_and(|first| first.file != loaded.file) {
                self.finish(std::mem::take(&mut group))?.map_or(Ok(()), &mut visit)?;
            }
            group.push(loaded);
        }
        self.finish(group)?.map_or(Ok(()), &mut visit)
    }

    /// The history of one file; `None` if it has no version.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn history(&self, file: FileId) -> Result<Option<FileHistory>, CatalogError> {
        let sql = format!("SELECT {} FROM {TABLES} WHERE v.file = ?1 ORDER BY v.number", columns());
        let mut query = self.db.prepare_cached(&sql)?;
        let rows = query.query_map([file.0.cast_signed()], Loaded::from_row)?;
        self.finish(rows.collect::<Result<_, _>>()?)
    }

    /// What follows from the rows of one file beside each other.
    fn finish(&self, rows: Vec<Loaded>) -> Result<Option<FileHistory>, CatalogError> {
        let Some(first) = rows.first() else { return Ok(None) };
        let (file, ended) = (first.file, first.ended);
        let mut versions = Vec::with_capacity(rows.len());
        let (mut next_ns, mut next_place) = (None, Source::Lost(crate::types::Loss::Unseen));
        for row in rows.into_iter().rev() {
            let mut version = row.version;
            version.until_ns = match next_ns {
                None if row.is_newest => ended.map(|(_, time_ns)| time_ns),
                None => Some(version.time_ns),
                next_ns => next_ns,
            };
            let at = (file, version.number);
            let place_of = |source| match source {
                Source::Prefix => Ok(next_place),
                source => self.place(at, source).map(|(_, place)| place),
            };
            version.place = place_of(row.source)?;
            if let Source::Object(_) = row.source {
                version.elsewhere = row.elsewhere.map(place_of).transpose()?;
            }
            next_place = version.place;
            next_ns = Some(version.time_ns);
            versions.push(version);
        }
        versions.reverse();
        Ok(Some(FileHistory { file, ended, versions }))
    }

    /// Contents of the store after one of them, in the order in which they stopped being current.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn contents_by_age(
        &self,
        after: Option<&StoredContent>,
        limit: usize,
    ) -> Result<Vec<StoredContent>, CatalogError> {
        let sql = "SELECT sha256, size, stored_ns FROM object WHERE (stored_ns, sha256) > (?1, ?2)
                   ORDER BY stored_ns, sha256 LIMIT ?3";
        let (time, hash) = match after {
            Some(after) => (after.stored_ns, after.hash.as_bytes().as_slice()),
            None => (i64::MIN, [].as_slice()),
        };
        let mut query = self.db.prepare_cached(sql)?;
        let found = query.query_map(params![time, hash, limit], |row| {
            let (size, stored_ns) = (get_u64(row, 1)?, row.get(2)?);
            Ok(get_hash(row, 0)?.map(|hash| StoredContent { hash, size, stored_ns }))
        })?;
        let found: Vec<_> = found.collect::<Result<_, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    /// The size of a content in the store; `None` if it is not there.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn stored_size(&self, hash: ContentHash) -> Result<Option<u64>, CatalogError> {
        let sql = "SELECT size FROM object WHERE sha256 = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([hash.as_bytes()], |row| get_u64(row, 0)).optional()?)
    }

    /// The files for whose versions a content was put into the store.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn files_of(&self, hash: ContentHash) -> Result<Vec<FileId>, CatalogError> {
        let sql = "SELECT DISTINCT file FROM version WHERE sha256 = ?1 AND kept = 1";
        let mut query = self.db.prepare_cached(sql)?;
        let files = query.query_map([hash.as_bytes()], |row| get_u64(row, 0).map(FileId))?;
        Ok(files.collect::<Result<_, _>>()?)
    }

    /// The contents in the store that pinned versions need.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn pinned_contents(&self) -> Result<HashSet<ContentHash>, CatalogError> {
        let mut contents = HashSet::new();
        for version in self.pins()? {
            if let Some((_, Source::Object(hash))) = self.bytes_of(version)? {
                contents.insert(hash);
            }
        }
        Ok(contents)
    }
}
