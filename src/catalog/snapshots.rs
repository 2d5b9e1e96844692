//! The snapshots of the backing filesystem that this catalog has marked.
//!
//! Owns their table. What is there is what the backing filesystem says, and the table follows it: it is told
//! everything that was seen at once, and calls gone what was not among that. A snapshot is in no log and is
//! no change: it lies between two of them. One that is gone stays in the table, because it is an answer, too.
//!
//! # After a crash
//! Between a snapshot and its row: the snapshot has its mark, and the next time that all are told it gets its
//! row. A catalog that is rolled back with its filesystem loses the rows of what is lost with it.

use std::collections::HashSet;

use rusqlite::params;

use super::CatalogError;
use super::apply::Apply;
use super::read::Reader;
use super::rows::get_u64;
use crate::types::Seq;

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    /// What kind of filesystem it is of.
    pub backend: String,
    /// What it is of.
    pub dataset: String,
    /// What tells it from others of its name.
    pub guid: String,
    /// Its name.
    pub name: String,
    /// Its class, if its name is of one.
    pub class: Option<String>,
    /// The transaction in which it was taken.
    pub createtxg: u64,
    /// The last change that is in it.
    pub seq: Seq,
    /// When it was taken, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Whether somebody wants it to stay.
    pub is_held: bool,
    /// When it was found gone, in nanoseconds since 1970; `None` if it is there.
    pub gone_ns: Option<i64>,
}

pub(super) const COLUMNS: &str =
    "backend, dataset, guid, name, class, createtxg, seq, time_ns, held, gone_ns";

impl SnapshotRow {
    pub(super) fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            backend: row.get(0)?,
            dataset: row.get(1)?,
            guid: row.get(2)?,
            name: row.get(3)?,
            class: row.get(4)?,
            createtxg: get_u64(row, 5)?,
            seq: Seq(get_u64(row, 6)?),
            time_ns: row.get(7)?,
            is_held: row.get(8)?,
            gone_ns: row.get(9)?,
        })
    }
}

/// Everything that was seen of a dataset at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotsSeen {
    /// The kind of filesystem.
    pub backend: String,
    /// The dataset.
    pub dataset: String,
    /// Its snapshots with a mark of this catalog.
    pub found: Vec<SnapshotRow>,
}

impl Apply<'_, '_> {
    pub(super) fn snapshots(&mut self, seen: &SnapshotsSeen) -> rusqlite::Result<()> {
        let db = &self.rows.db;
        for row in &seen.found {
            let sql = format!(
                "INSERT INTO snapshot ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, NULL)
                 ON CONFLICT (backend, guid) DO UPDATE
                 SET dataset = ?2, name = ?4, class = ?5, held = ?9, gone_ns = NULL"
            );
            db.prepare_cached(&sql)?.execute(params![
                seen.backend,
                seen.dataset,
                row.guid,
                row.name,
                row.class,
                row.createtxg.cast_signed(),
                row.seq.0.cast_signed(),
                row.time_ns,
                row.is_held,
            ])?;
        }
        let there: HashSet<&str> = seen.found.iter().map(|row| &*row.guid).collect();
        let sql = "SELECT guid FROM snapshot
                   WHERE backend = ?1 AND dataset = ?2 AND gone_ns IS NULL";
        let mut query = db.prepare_cached(sql)?;
        let known = query.query_map([&seen.backend, &seen.dataset], |row| row.get(0))?;
        let known: Vec<String> = known.collect::<Result<_, _>>()?;
        for guid in known.iter().filter(|guid| !there.contains(guid.as_str())) {
            let sql = "UPDATE snapshot SET gone_ns = ?3 WHERE backend = ?1 AND guid = ?2";
            db.prepare_cached(sql)?.execute(params![seen.backend, guid, self.time_ns])?;
        }
        Ok(())
    }
}

impl Reader {
    /// Every snapshot that is there, as far as the catalog knows, from the oldest to the newest.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn snapshots(&self) -> Result<Vec<SnapshotRow>, CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshot WHERE gone_ns IS NULL ORDER BY seq, createtxg, name"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        Ok(query.query_map([], SnapshotRow::from_row)?.collect::<Result<_, _>>()?)
    }

    /// The newest snapshot of a name, also one that is gone.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn snapshot(&self, name: &str) -> Result<Option<SnapshotRow>, CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshot WHERE name = ?1
             ORDER BY gone_ns IS NOT NULL, createtxg DESC LIMIT 1"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let mut rows = query.query_map([name], SnapshotRow::from_row)?;
        Ok(rows.next().transpose()?)
    }
}
