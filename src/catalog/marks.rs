//! What people say of versions, and what pruning has come to.
//!
//! Owns the tables of pins and notes, and what is remembered of the last prune. They are no changes of
//! the tree: they have no sequence number and are in no log. A mark is of one version of one file,
//! wherever the file is or was.

use rusqlite::params;

use super::apply::Apply;
use super::event::Pin;
use super::read::Reader;
use super::rows::{Rows, get_u64};
use super::{CatalogError, VersionKey};
use crate::types::FileId;

/// Whether a `version v` is pinned.
pub(super) const PINNED_COLUMN: &str =
    "EXISTS (SELECT 1 FROM pin p WHERE p.file = v.file AND p.number = v.number)";
/// What was said of a `version v`.
pub(super) const NOTE_COLUMN: &str =
    "(SELECT n.text FROM note n WHERE n.file = v.file AND n.number = v.number)";

/// Fact about the catalog: when it was pruned last.
const PRUNED: &str = "pruned_ns";
const PRUNED_VERSIONS: &str = "pruned_versions";
const PRUNED_BYTES: &str = "pruned_bytes";
const PRUNED_ERROR: &str = "pruned_error";

/// What the last prune came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPrune {
    /// When, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Versions whose content went.
    pub dropped: u64,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// Why nothing, or not all, was done.
    pub error: Option<String>,
}

impl Apply<'_, '_> {
    pub(super) fn pin(&mut self, (file, number): VersionKey, pin: Pin) -> rusqlite::Result<()> {
        let file = file.0.cast_signed();
        match pin {
            Pin::Set => {
                let sql = "INSERT OR REPLACE INTO pin (file, number, time_ns, uid)
                           VALUES (?1, ?2, ?3, ?4)";
                let (time, uid) = (self.time_ns, self.uid());
                self.rows.db.prepare_cached(sql)?.execute(params![file, number, time, uid])?;
            }
            Pin::Cleared => {
                let sql = "DELETE FROM pin WHERE file = ?1 AND number = ?2";
                self.rows.db.prepare_cached(sql)?.execute(params![file, number])?;
            }
        }
        Ok(())
    }

    pub(super) fn note(&mut self, (file, number): VersionKey, text: &str) -> rusqlite::Result<()> {
        let file = file.0.cast_signed();
        if text.is_empty() {
            let sql = "DELETE FROM note WHERE file = ?1 AND number = ?2";
            self.rows.db.prepare_cached(sql)?.execute(params![file, number])?;
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO note (file, number, text, time_ns, uid)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        let (time, uid) = (self.time_ns, self.uid());
        self.rows.db.prepare_cached(sql)?.execute(params![file, number, text, time, uid])?;
        Ok(())
    }

    pub(super) fn uid(&self) -> u32 {
        self.writer.map_or(0, |writer| writer.uid)
    }
}

impl Rows<'_> {
    /// A version was taken back: what was said of it is meant of the one before, whose bytes it had.
    pub(super) fn move_marks(&self, file: FileId, number: u32) -> rusqlite::Result<()> {
        for table in ["pin", "note"] {
            let of = params![file.0.cast_signed(), number];
            let sql = format!(
                "UPDATE OR IGNORE {table} SET number = ?2 - 1 WHERE file = ?1 AND number = ?2"
            );
            self.db.prepare_cached(&sql)?.execute(of)?;
            let sql = format!("DELETE FROM {table} WHERE file = ?1 AND number = ?2");
            self.db.prepare_cached(&sql)?.execute(of)?;
        }
        Ok(())
    }

    /// Remembers what a prune came to.
    pub(super) fn set_last_prune(&self, outcome: &LastPrune) -> rusqlite::Result<()> {
        self.set_meta(PRUNED, outcome.time_ns)?;
        self.set_meta(PRUNED_VERSIONS, outcome.dropped.cast_signed())?;
        self.set_meta(PRUNED_BYTES, outcome.freed_bytes.cast_signed())?;
        self.set_meta(PRUNED_ERROR, outcome.error.as_deref().unwrap_or_default())
    }
}

impl Reader {
    /// What the last prune came to; `None` if there was none.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn last_prune(&self) -> Result<Option<LastPrune>, CatalogError> {
        let Some(time_ns) = self.meta(PRUNED)? else { return Ok(None) };
        let count =
            |key| Ok::<_, CatalogError>(self.meta::<i64>(key)?.unwrap_or(0).cast_unsigned());
        Ok(Some(LastPrune {
            time_ns,
            dropped: count(PRUNED_VERSIONS)?,
            freed_bytes: count(PRUNED_BYTES)?,
            error: self.meta(PRUNED_ERROR)?.filter(|error: &String| !error.is_empty()),
        }))
    }

    /// Every version that is pinned.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn pins(&self) -> Result<Vec<VersionKey>, CatalogError> {
        let mut query = self.db.prepare_cached("SELECT file, number FROM pin")?;
        let pins = query.query_map([], |row| Ok((FileId(get_u64(row, 0)?), row.get(1)?)))?;
        Ok(pins.collect::<Result<_, _>>()?)
    }
}
