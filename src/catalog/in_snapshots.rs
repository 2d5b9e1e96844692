//! Which versions the snapshots of the backing filesystem have.
//!
//! Owns the rule: a snapshot has a version that was the newest of its file at the last change in it, if the file had
//! a name then; and what begins with the bytes of another version, or went on with them, has that one, too.
//! The catalog says only where they must be. What was being written to an open file is in a snapshot as well
//! and was no version, so whoever reads compares with the digest.

mod only;

use rusqlite::{OptionalExtension, params};

use super::CatalogError;
use super::preserve::VersionKey;
use super::read::Reader;
use super::rows::{get_hash, get_u64};
use super::snapshots::{COLUMNS, SnapshotRow};
use crate::types::{ContentHash, Seq};

pub use only::OnlyThere;

/// A file in a snapshot that begins with the bytes of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSnapshot {
    /// In which.
    pub snapshot: SnapshotRow,
    /// The paths that it has there, in their order.
    pub paths: Vec<Vec<u8>>,
    /// Its size in bytes there.
    pub size: u64,
}

/// A version, and how long it was the newest of its file: from one change until another.
struct Stay {
    size: u64,
    hash: Option<ContentHash>,
    from: Seq,
    to: Option<Seq>,
}

impl Reader {
    /// Where the bytes of a version are in the snapshots that are there, from the newest to the oldest.
    /// Nothing for a version without a digest: nobody could tell that it is the right one.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn in_snapshots(&self, version: VersionKey) -> Result<Vec<InSnapshot>, CatalogError> {
        self.in_one_state(|reader| {
            let Some(wanted) = reader.stay(version)? else { return Ok(Vec::new()) };
            let Some(source) = reader.source(version.0, version.1)? else { return Ok(Vec::new()) };
            if wanted.hash.is_none() {
                return Ok(Vec::new());
            }
            let mut with_them = Vec::new();
            reader.place_by(version, source, |other| with_them.push(other))?;
            let mut found = reader.stays_in_snapshots(version, &wanted)?;
            for other in with_them {
                let Some(stay) = reader.stay(other)? else { continue };
                if stay.size > wanted.size || stay.hash == wanted.hash {
                    found.extend(reader.stays_in_snapshots(other, &stay)?);
                }
            }
            let age = |found: &InSnapshot| (found.snapshot.seq, found.snapshot.createtxg);
            found.sort_by_key(|found| std::cmp::Reverse(age(found)));
            Ok(found)
        })
    }

    fn stay(&self, (file, number): VersionKey) -> Result<Option<Stay>, CatalogError> {
        let sql = "SELECT v.size, v.sha256, v.seq,
                          (SELECT n.seq FROM version n WHERE n.file = v.file AND n.number > v.number
                           ORDER BY n.number LIMIT 1)
                   FROM version v WHERE v.file = ?1 AND v.number = ?2";
        let stay = |row: &rusqlite::Row<'_>| {
            let to: Option<i64> = row.get(3)?;
            Ok(Stay {
                size: get_u64(row, 0)?,
                hash: get_hash(row, 1)?,
                from: Seq(get_u64(row, 2)?),
                to: to.map(|seq| Seq(seq.cast_unsigned())),
            })
        };
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![file.0.cast_signed(), number], stay).optional()?)
    }

    /// The snapshots that were taken while a version was the newest of a file with a name.
    fn stays_in_snapshots(
        &self,
        (file, _): VersionKey,
        stay: &Stay,
    ) -> Result<Vec<InSnapshot>, CatalogError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM snapshot WHERE gone_ns IS NULL AND seq >= ?1 AND seq < ?2"
        );
        let to = stay.to.map_or(i64::MAX, |seq| seq.0.cast_signed());
        let mut query = self.db.prepare_cached(&sql)?;
        let taken =
            query.query_map(params![stay.from.0.cast_signed(), to], SnapshotRow::from_row)?;
        let mut found = Vec::new();
        for snapshot in taken {
            let snapshot = snapshot?;
            let names = self.names_at(file, snapshot.seq)?;
            let paths: Vec<_> = names.into_iter().map(|name| name.path).collect();
            if !paths.is_empty() {
                found.push(InSnapshot { snapshot, paths, size: stay.size });
            }
        }
        Ok(found)
    }
}
