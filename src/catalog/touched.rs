//! Which files the log names since some change, and where they were.
//!
//! Owns the queries from which it is planned how to bring things back.

use std::collections::BTreeMap;

use rusqlite::params;

use super::CatalogError;
use super::read::{NodeInfo, Reader};
use super::rows::get_u64;
use crate::types::path::join;
use crate::types::{FileId, Name, Seq};

/// Whose changes are meant. What is not given is anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByWhom {
    /// The process.
    pub pid: Option<u32>,
    /// The user.
    pub uid: Option<u32>,
}

impl ByWhom {
    fn matches(&self, pid: Option<u32>, uid: Option<u32>) -> bool {
        let anybody = *self == Self::default();
        anybody
            || (self.pid.is_none_or(|wanted| pid == Some(wanted))
                && self.uid.is_none_or(|wanted| uid == Some(wanted)))
    }
}

/// What somebody did to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// Their first change.
    pub first: Seq,
    /// The first change by somebody else after that.
    pub others: Option<Seq>,
}

/// A name of a file.
#[derive(Debug, Clone)]
pub struct Named {
    /// The directory that it is in.
    pub dir: FileId,
    /// The last name.
    pub name: Name,
    /// The whole path from the root.
    pub path: Vec<u8>,
}

impl PartialEq for Named {
    /// The same name in the same directory, whatever that is called.
    fn eq(&self, other: &Self) -> bool {
        (self.dir, &self.name) == (other.dir, &other.name)
    }
}

impl Reader {
    /// The files that somebody changed after `since`, up to `until`.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn touched(
        &self,
        since: Seq,
        until: Seq,
        by: &ByWhom,
    ) -> Result<BTreeMap<FileId, Touched>, CatalogError> {
        let sql = "SELECT c.seq, c.file, c.other, w.pid, w.uid FROM change c
                   LEFT JOIN writer w ON w.id = c.writer
                   WHERE c.seq > ?1 AND c.seq <= ?2 ORDER BY c.seq";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query(params![since.0.cast_signed(), until.0.cast_signed()])?;
        let mut touched: BTreeMap<FileId, Touched> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let seq = Seq(get_u64(row, 0)?);
            let other = row.get::<_, Option<i64>>(2)?.map(i64::cast_unsigned);
            let theirs = by.matches(row.get(3)?, row.get(4)?);
            for file in [Some(get_u64(row, 1)?), other].into_iter().flatten().map(FileId) {
                match touched.get_mut(&file) {
                    Some(known) if !theirs => known.others = known.others.or(Some(seq)),
                    None if theirs => {
                        touched.insert(file, Touched { first: seq, others: None });
                    }
                    _ => {}
                }
            }
        }
        Ok(touched)
    }

    /// Every name by which a file could be reached after a change, in the order of paths.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn names_at(&self, file: FileId, at: Seq) -> Result<Vec<Named>, CatalogError> {
        if file == FileId::ROOT {
            return Ok(vec![Named { dir: file, name: Name::default(), path: Vec::new() }]);
        }
        let sql = "SELECT parent, name FROM entry WHERE child = ?1 AND from_seq <= ?2
                   UNION ALL
                   SELECT parent, name FROM entry_past
                   WHERE child = ?1 AND from_seq <= ?2 AND to_seq > ?2";
        let names: Vec<(FileId, Vec<u8>)> = self
            .db
            .prepare_cached(sql)?
            .query_map(params![file.0.cast_signed(), at.0.cast_signed()], |row| {
                Ok((FileId(get_u64(row, 0)?), row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut named = Vec::new();
        for (dir, name) in names {
            if let Some(above) = self.path_of(dir, at)? {
                let path = join(&above, &name);
                named.push(Named { dir, name: name.into(), path });
            }
        }
        named.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(named)
    }

    /// Everything in a directory after a change, in the order of names.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn all_children_at(
        &self,
        dir: FileId,
        at: Seq,
    ) -> Result<Vec<(Name, NodeInfo)>, CatalogError> {
        const PAGE: usize = 1024;
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or(&b""[..], |(name, _): &(Name, NodeInfo)| name);
            let page = self.children_at(dir, at, after, PAGE)?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// Names that a directory lost by changes of one writer, from the last on back: the changes.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn losses(&self, dir: FileId, writer_of: Seq) -> Result<Vec<(Seq, FileId)>, CatalogError> {
        let sql = "SELECT p.to_seq, p.child FROM entry_past p JOIN change c ON c.seq = p.to_seq
                   WHERE p.parent = ?1 AND p.to_seq <= ?2
                     AND c.writer IS (SELECT writer FROM change WHERE seq = ?2)
                   ORDER BY p.to_seq DESC";
        let mut query = self.db.prepare_cached(sql)?;
        let keys = params![dir.0.cast_signed(), writer_of.0.cast_signed()];
        let rows =
            query.query_map(keys, |row| Ok((Seq(get_u64(row, 0)?), FileId(get_u64(row, 1)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The change that ended a file; `None` while it lives.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn end_of(&self, file: FileId) -> Result<Option<Seq>, CatalogError> {
        Ok(self.ended_seq(file)?.map(Seq))
    }
}
