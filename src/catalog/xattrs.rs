//! The extended attributes that files had.
//!
//! Owns their table. Nothing is written as long as attributes stay: a row says what a file had *until* a
//! change, so those of a version are in the first row after it, or still at the live file.

use rusqlite::{OptionalExtension, params};

use super::CatalogError;
use super::apply::Apply;
use super::read::Reader;
use super::rows::Rows;
use crate::types::{FileId, InodeKey, Seq, Xattrs};

/// Where the extended attributes that a file had after a change are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XattrsAt {
    /// It had these.
    Past(Xattrs),
    /// The live file has them still.
    Live,
}

impl Apply<'_, '_> {
    /// An inode is about to lose its last name.
    pub(super) fn leave(&mut self, key: InodeKey, xattrs: &Xattrs) -> rusqlite::Result<()> {
        let Some(file) = self.rows.find(key)? else { return Ok(()) };
        self.rows.insert_past_xattrs(file.id, xattrs)
    }
}

impl Rows<'_> {
    /// Notes what a file has until the next change.
    pub(super) fn insert_past_xattrs(&self, file: FileId, xattrs: &Xattrs) -> rusqlite::Result<()> {
        // What was told first of a change was true before it.
        let sql = "INSERT OR IGNORE INTO xattr_past (file, until_seq, xattrs) VALUES (?1, ?2, ?3)";
        self.db.prepare_cached(sql)?.execute(params![
            file.0.cast_signed(),
            self.seq().0.cast_signed(),
            xattrs.encode(),
        ])?;
        Ok(())
    }
}

impl Reader {
    /// Whether a file had an extended attribute that it lost, or whose value changed.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn had_xattr(&self, file: FileId, name: &str) -> Result<bool, CatalogError> {
        let sql = "SELECT 1 FROM xattr_past WHERE file = ?1 AND instr(xattrs, ?2) > 0";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.exists(params![file.0.cast_signed(), name.as_bytes()])?)
    }

    /// The extended attributes that a file had after a change.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn xattrs_at(&self, file: FileId, at: Seq) -> Result<XattrsAt, CatalogError> {
        let sql = "SELECT xattrs FROM xattr_past WHERE file = ?1 AND until_seq > ?2
                   ORDER BY until_seq LIMIT 1";
        let row: Option<Vec<u8>> = self
            .db
            .prepare_cached(sql)?
            .query_row(params![file.0.cast_signed(), at.0.cast_signed()], |row| row.get(0))
            .optional()?;
        if let Some(bytes) = row {
            return Ok(XattrsAt::Past(Xattrs::decode(&bytes).unwrap_or_default()));
        }
        let sql = "SELECT 1 FROM file WHERE id = ?1 AND ended_seq IS NULL";
        let live = self.db.prepare_cached(sql)?.exists([file.0.cast_signed()])?;
        // What ends with some says so.
        Ok(if live { XattrsAt::Live } else { XattrsAt::Past(Xattrs::default()) })
    }
}
