//! Names out of the database.
//!
//! Owns the statements that read them: all for the index, and one for what a search has found.

use rusqlite::{OptionalExtension, params};

use super::super::CatalogError;
use super::super::read::{NodeInfo, Reader, node_from_row};
use super::super::rows::get_u64;
use super::{NameIndex, NameKey};
use crate::types::{FileId, Kind, Name};

/// Names read at a time: a transaction of some milliseconds, which does not hold back the log.
const PAGE: usize = 8192;

impl Reader {
    /// Puts the next names into an index; returns the last of them, or `None` after the last of all.
    pub(super) fn name_page(
        &self,
        after: Option<NameKey>,
        index: &mut NameIndex,
    ) -> Result<Option<NameKey>, CatalogError> {
        let sql = "SELECT e.parent, e.name, e.child, f.kind FROM entry e
                   JOIN file f ON f.id = e.child
                   WHERE (e.parent, e.name) > (?1, ?2) ORDER BY e.parent, e.name LIMIT ?3";
        let (parent, name) = match &after {
            Some(key) => (key.parent.0.cast_signed(), &key.name[..]),
            None => (i64::MIN, &b""[..]),
        };
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query(params![parent, name, PAGE])?;
        let (mut count, mut last) = (0, None);
        while let Some(row) = rows.next()? {
            let parent = FileId(get_u64(row, 0)?);
            let name = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let kind = Kind::from_code(row.get(3)?).unwrap_or(Kind::File);
            index.put(parent, name, FileId(get_u64(row, 2)?), kind);
            count += 1;
            if count == PAGE {
                last = Some(NameKey { parent, name: name.into() });
            }
        }
        Ok(last)
    }

    /// What has a name now.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn live_name(&self, parent: FileId, name: &[u8]) -> Result<Option<NodeInfo>, CatalogError> {
        let sql = "SELECT f.id, f.kind, f.mode, f.uid, f.gid, f.size, f.mtime_ns,
                          CASE WHEN f.ctime_ns <> 0 THEN v.sha256 END, f.head
                   FROM entry e JOIN file f ON f.id = e.child
                   LEFT JOIN version v ON v.file = f.id AND v.number = f.head
                   WHERE e.parent = ?1 AND e.name = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![parent.0.cast_signed(), name], node_from_row).optional()?)
    }

    /// Names in a directory after one of them, in the order of their bytes, with what has them; fewer than
    /// there is room for only at the end.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn names_in(
        &self,
        dir: FileId,
        after: &[u8],
    ) -> Result<Vec<(Name, FileId, Kind)>, CatalogError> {
        let sql = "SELECT e.name, e.child, f.kind FROM entry e JOIN file f ON f.id = e.child
                   WHERE e.parent = ?1 AND e.name > ?2 ORDER BY e.name LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![dir.0.cast_signed(), after, PAGE], |row| {
            let kind = Kind::from_code(row.get(2)?).unwrap_or(Kind::File);
            Ok((row.get::<_, Vec<u8>>(0)?.into(), FileId(get_u64(row, 1)?), kind))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Live files whose newest content has a digest that begins so, in hex. Reads all versions, since
    /// there is no index of the digests of heads: some seconds for ten million.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn heads_with(&self, prefix: &str) -> Result<Vec<FileId>, CatalogError> {
        let sql = "SELECT f.id FROM version v JOIN file f ON f.id = v.file AND f.head = v.number
                   WHERE substr(hex(substr(v.sha256, 1, ?2)), 1, ?3) = ?1 AND f.ended_seq IS NULL";
        let (bytes, prefix) = (prefix.len().div_ceil(2), prefix.to_ascii_uppercase());
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query
            .query_map(params![prefix, bytes, prefix.len()], |row| get_u64(row, 0).map(FileId))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
