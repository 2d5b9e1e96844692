//! What a comparison of all bytes with their digests asks of the catalog.
//!
//! Owns the order in which objects and heads are gone through, who needs a content, and who else has
//! it. Versions are looked for by digest without an index: that costs a look at all of them, but only
//! damage asks for it.

use rusqlite::{OptionalExtension, params};

use super::preserve::VersionKey;
use super::read::Reader;
use super::rows::{get_hash, get_u64};
use super::{CatalogError, Source};
use crate::types::{ContentHash, FileId, InodeKey, Kind, Seq, Stamp};

/// Fact about the catalog: how far a comparison is, in the words of whoever makes it.
pub(super) const VERIFY: &str = "verify";

/// The newest version of a live file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which.
    pub version: VersionKey,
    /// Its digest, if it is known.
    pub hash: Option<ContentHash>,
    /// The inode that has it.
    pub key: InodeKey,
    /// Size and times that the digest stands for; `ctime_ns` is 0 if the content is not known.
    pub stamp: Stamp,
}

const HEADS: &str =
    "SELECT f.id, f.head, v.sha256, f.ino, f.generation, f.size, f.mtime_ns, f.ctime_ns
     FROM file f JOIN version v ON v.file = f.id AND v.number = f.head
     WHERE f.ended_seq IS NULL AND f.kind = ?1 AND f.head > 0";

fn head_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Head> {
    Ok(Head {
        version: (FileId(get_u64(row, 0)?), row.get(1)?),
        hash: get_hash(row, 2)?,
        key: InodeKey { ino: get_u64(row, 3)?, generation: get_u64(row, 4)? },
        stamp: Stamp { size: get_u64(row, 5)?, mtime_ns: row.get(6)?, ctime_ns: row.get(7)? },
    })
}

impl Reader {
    /// What was said last of how far a comparison is.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn verified(&self) -> Result<Option<String>, CatalogError> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        Ok(self.db.prepare_cached(sql)?.query_row([VERIFY], |row| row.get(0)).optional()?)
    }

    /// Up to `limit` heads of files behind `after`.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn heads_after(&self, after: FileId, limit: u32) -> Result<Vec<Head>, CatalogError> {
        let sql = format!("{HEADS} AND f.id > ?2 ORDER BY f.id LIMIT ?3");
        let mut query = self.db.prepare_cached(&sql)?;
        let values = params![Kind::File.code(), after.0.cast_signed(), limit];
        Ok(query.query_map(values, head_from_row)?.collect::<Result<_, _>>()?)
    }

    /// The head of a file, if it is live and has one.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn head_of(&self, file: FileId) -> Result<Option<Head>, CatalogError> {
        let sql = format!("{HEADS} AND f.id = ?2");
        let values = params![Kind::File.code(), file.0.cast_signed()];
        Ok(self.db.prepare_cached(&sql)?.query_row(values, head_from_row).optional()?)
    }

    /// How many bytes live files have.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn live_bytes(&self) -> Result<u64, CatalogError> {
        let sql = "SELECT coalesce(sum(size), 0) FROM file WHERE ended_seq IS NULL AND kind = ?1";
        Ok(self.db.query_row(sql, [Kind::File.code()], |row| get_u64(row, 0))?)
    }

    /// The versions that have a digest, wherever their content is.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn versions_with(&self, hash: ContentHash) -> Result<Vec<VersionKey>, CatalogError> {
        self.keys("SELECT file, number FROM version WHERE sha256 = ?1", [hash.as_bytes()])
    }

    /// Every version whose content is had from an object.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn need_object(&self, hash: ContentHash) -> Result<Vec<VersionKey>, CatalogError> {
        self.needing(self.versions_with(hash)?, |_, source| source == Source::Object(hash))
    }

    /// Every version whose content is had from a live file.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn need_file(&self, head: VersionKey) -> Result<Vec<VersionKey>, CatalogError> {
        self.needing(vec![head], |at, source| at == head && source == Source::Head)
    }

    /// Those of `some`, and of the versions that have their content from them, whose content is where
    /// `is_there` says.
    fn needing(
        &self,
        some: Vec<VersionKey>,
        is_there: impl Fn(VersionKey, Source) -> bool,
    ) -> Result<Vec<VersionKey>, CatalogError> {
        let (mut found, mut next) = (Vec::new(), some);
        while let Some((file, number)) = next.pop() {
            let Some((at, source)) = self.bytes_of((file, number))? else { continue };
            if !is_there(at, source) || found.contains(&(file, number)) {
                continue;
            }
            found.push((file, number));
            if number > 1 && self.source(file, number - 1)? == Some(Source::Prefix) {
                next.push((file, number - 1));
            }
            let sql = "SELECT file, number FROM continued WHERE to_file = ?1 AND to_number = ?2";
            next.extend(self.keys(sql, params![file.0.cast_signed(), number])?);
        }
        found.sort_unstable();
        Ok(found)
    }

    fn keys(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<VersionKey>, CatalogError> {
        let mut query = self.db.prepare_cached(sql)?;
        let keys = query.query_map(values, |row| Ok((FileId(get_u64(row, 0)?), row.get(1)?)))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }

    /// The path that shows a version, and the number that it has there; `None` if it never had a name.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn shown_as(
        &self,
        (file, number): VersionKey,
    ) -> Result<Option<(Vec<u8>, u64)>, CatalogError> {
        let sql = "SELECT seq FROM version WHERE file = ?1 AND number = ?2";
        let made: Option<u64> = self
            .db
            .prepare_cached(sql)?
            .query_row(params![file.0.cast_signed(), number], |row| get_u64(row, 0))
            .optional()?;
        let Some(made) = made else { return Ok(None) };
        // Where it is now, where it was then, and where it was just before that.
        for seq in [self.seq()?.0, made, made.saturating_sub(1)] {
            let Some(path) = self.path_of(file, Seq(seq))? else { continue };
            let shown = self.lineage(&path)?;
            let found = shown.iter().find(|(_, v)| (v.file, v.number) == (file, number));
            if let Some((number, _)) = found {
                return Ok(Some((path, *number)));
            }
        }
        Ok(None)
    }
}
