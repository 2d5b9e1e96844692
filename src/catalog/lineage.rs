//! What a path has led to over time.
//!
//! Owns lineage, the rule by which a path's history spans all the files that had the path, in all the
//! directories that had the path above it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::CatalogError;
use super::history::VersionInfo;
use super::read::{NodeInfo, Reader, When};
use super::rows::{ChangeOp, get_u64};
use crate::types::path::{components, split};
use crate::types::{FileId, Name, Seq};

/// Where a path leads, or led when it last led anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    /// What has or had the path.
    pub file: FileId,
    /// Whether it has it now.
    pub live: bool,
}

/// How long a path led to a file: from one change until another.
#[derive(Debug, Clone, Copy)]
struct Stay {
    file: FileId,
    from: u64,
    to: u64,
}

/// The end of what lasts.
const NEVER: u64 = i64::MAX.cast_unsigned();

impl Reader {
    /// Where a path from the root leads, or led last: a path that has gone is followed to what had it
    /// last, also through directories that have gone or are called otherwise now.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn locate(&self, path: &[u8]) -> Result<Option<Located>, CatalogError> {
        self.in_one_state(|reader| {
            if let Some(file) = reader.resolve(path, When::Now)? {
                return Ok(Some(Located { file, live: true }));
            }
            let (dir, name) = split(path);
            let last = reader.last_below(&reader.stays(dir)?, name)?;
            Ok(last.map(|file| Located { file, live: false }))
        })
    }

    /// Up to `limit` names in what has a path from the root, or had it last, in byte order after the name
    /// `after`, each with what has its path or had it last, as that is now or was in the end.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn names_ever(
        &self,
        dir: &[u8],
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Name, NodeInfo)>, CatalogError> {
        let sql = "SELECT name FROM entry WHERE parent = ?1 AND name > ?2
                   UNION
                   SELECT name FROM entry_past WHERE parent = ?1 AND name > ?2
                   ORDER BY name";
        self.in_one_state(|reader| {
            let mut page = Vec::new();
            let dirs = reader.stays(dir)?;
            let Some(last) = dirs.last() else { return Ok(page) };
            let mut query = reader.db.prepare_cached(sql)?;
            let mut names = query.query(params![last.file.0.cast_signed(), after])?;
            while page.len() < limit
                && let Some(row) = names.next()?
            {
                let name: Vec<u8> = row.get(0)?;
                if let Some(file) = reader.last_below(&dirs, &name)?
                    && let Some(node) = reader.node(file, When::Now)?
                {
                    page.push((name.into(), node));
                }
            }
            Ok(page)
        })
    }

    /// Every version that a path from the root has shown, oldest first: each occupant's versions while it
    /// was there and the one it arrived with, and the first occupant's older history. With each comes the
    /// number by which users know it: its position in this order, from 1.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn lineage(&self, path: &[u8]) -> Result<Vec<(u64, VersionInfo)>, CatalogError> {
        self.in_one_state(|reader| {
            let mut seen = HashSet::new();
            let mut shown = Vec::new();
            for stay in reader.stays(path)? {
                let versions = reader.versions(stay.file)?;
                let mut first = versions.partition_point(|version| version.seq.0 < stay.from);
                // What it arrived with, unless it was deleted and began anew here.
                if first > 0 && !reader.was_created(stay.file, Seq(stay.from))? {
                    first -= 1;
                }
                // What a session still wrote after the name was deleted was the end of this path too.
                let ended_here = reader.ended_seq(stay.file)? == Some(stay.to);
                for version in versions.into_iter().skip(first) {
                    let there = version.seq.0 < stay.to || ended_here;
                    if there && seen.insert((version.file, version.number)) {
                        shown.push(version);
                    }
                }
            }
            Ok((1..).zip(shown).collect())
        })
    }

    /// All that a path has led to, oldest first; no two at the same time. The first brought what it was under older
    /// names: it was always there.
    fn stays(&self, path: &[u8]) -> Result<Vec<Stay>, CatalogError> {
        let mut stays = vec![Stay { file: FileId::ROOT, from: 0, to: NEVER }];
        for name in components(path) {
            stays = self.stays_below(&stays, name)?;
            if let Some(first) = stays.first_mut() {
                first.from = 0;
            }
        }
        Ok(stays)
    }

    /// Whether a change was the creation of a file, perhaps of one that had been deleted.
    fn was_created(&self, file: FileId, seq: Seq) -> Result<bool, CatalogError> {
        let sql = "SELECT op FROM change WHERE seq = ?1 AND file = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let key = params![seq.0.cast_signed(), file.0.cast_signed()];
        let op = query.query_row(key, |row| row.get(0)).optional()?;
        Ok(op.and_then(ChangeOp::from_code) == Some(ChangeOp::Create))
    }

    /// What had a name in some directories while they were there.
    fn stays_below(&self, dirs: &[Stay], name: &[u8]) -> Result<Vec<Stay>, CatalogError> {
        // A directory can come back many times.
        let mut named: HashMap<FileId, Vec<Stay>> = HashMap::new();
        let mut below = Vec::new();
        for dir in dirs {
            let named = match named.entry(dir.file) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.stays_in(dir.file, name)?),
            };
            let begun = named.partition_point(|stay| stay.to <= dir.from);
            let meanwhile = named[begun..].iter().take_while(|stay| stay.from < dir.to);
            below.extend(meanwhile.map(|stay| Stay {
                file: stay.file,
                from: stay.from.max(dir.from),
                to: stay.to.min(dir.to),
            }));
        }
        Ok(below)
    }

    /// All that a name in a directory has led to, oldest first.
    fn stays_in(&self, dir: FileId, name: &[u8]) -> Result<Vec<Stay>, CatalogError> {
        let sql = "SELECT child, from_seq, to_seq FROM entry_past WHERE parent = ?1 AND name = ?2
                   UNION ALL
                   SELECT child, from_seq, NULL FROM entry WHERE parent = ?1 AND name = ?2
                   ORDER BY from_seq";
        let mut query = self.db.prepare_cached(sql)?;
        let stays = query.query_map(params![dir.0.cast_signed(), name], |row| {
            let to: Option<i64> = row.get(2)?;
            let to = to.map_or(NEVER, i64::cast_unsigned);
            Ok(Stay { file: FileId(get_u64(row, 0)?), from: get_u64(row, 1)?, to })
        })?;
        Ok(stays.collect::<Result<_, _>>()?)
    }

    /// What had a name last in some directories while they were there.
    fn last_below(&self, dirs: &[Stay], name: &[u8]) -> Result<Option<FileId>, CatalogError> {
        for dir in dirs.iter().rev() {
            if let Some(file) = self.last_during(*dir, name)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The same in one of them.
    fn last_during(&self, dir: Stay, name: &[u8]) -> Result<Option<FileId>, CatalogError> {
        let sql = "SELECT child, from_seq FROM entry
                   WHERE parent = ?1 AND name = ?2 AND from_seq < ?4
                   UNION ALL
                   SELECT child, from_seq FROM entry_past
                   WHERE parent = ?1 AND name = ?2 AND from_seq < ?4 AND to_seq > ?3
                   ORDER BY from_seq DESC LIMIT 1";
        let (id, from, to) = (dir.file.0, dir.from, dir.to);
        let values = params![id.cast_signed(), name, from.cast_signed(), to.cast_signed()];
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(values, |row| get_u64(row, 0).map(FileId)).optional()?)
    }
}
