//! What would be lost with a snapshot of the backing filesystem.
//!
//! Owns the count of versions whose bytes nobody else has. As the catalog knows it: a snapshot is not looked
//! into.

use std::collections::{HashMap, HashSet};

use super::super::CatalogError;
use super::super::preserve::{SOURCE_COLUMNS, Source, VersionKey};
use super::super::read::Reader;
use super::super::rows::{get_hash, get_u64};
use super::super::snapshots::SnapshotRow;
use crate::types::{ContentHash, FileId, Seq};

/// What only one snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnlyThere {
    /// Versions.
    pub versions: u64,
    /// Sizes of their contents in bytes, each content counted once.
    pub bytes: u64,
}

/// Which snapshots have the bytes of a version that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Holders {
    None,
    /// The one in question and no other.
    This,
    Others,
}

/// The bytes that a version shares with the one before it, if that is its beginning.
#[derive(Clone, Copy)]
struct Next {
    file: FileId,
    seq: Seq,
    is_lost: bool,
    holders: Holders,
}

/// A content that was not kept.
#[derive(Default)]
struct Lost {
    size: u64,
    versions: HashSet<VersionKey>,
}

impl Reader {
    /// What would be lost with a snapshot: the versions whose bytes are in it, and neither in the store nor in a live
    /// file nor in another snapshot.
    ///
    /// Reads the history of every file, and, if it may have anything alone, the digests of all versions
    /// after that: some seconds for millions.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn only_in(&self, snapshot: &SnapshotRow) -> Result<OnlyThere, CatalogError> {
        self.in_one_state(|reader| {
            let mut lost = reader.lost_but_in(snapshot)?;
            reader.leave_out_what_others_have(snapshot, &mut lost)?;
            let mut only = OnlyThere::default();
            for content in lost.values() {
                only.versions += content.versions.len() as u64;
                only.bytes += content.size;
            }
            Ok(only)
        })
    }

    /// The contents of versions that were not kept and that no other snapshot has.
    fn lost_but_in(
        &self,
        snapshot: &SnapshotRow,
    ) -> Result<HashMap<ContentHash, Lost>, CatalogError> {
        let sql = format!(
            "SELECT v.file, v.number, v.seq, v.size, v.sha256, {SOURCE_COLUMNS}
             FROM version v JOIN file f ON f.id = v.file
             WHERE f.head > 1 OR f.ended_seq IS NOT NULL OR v.kept IS NOT NULL
             ORDER BY v.file DESC, v.number DESC"
        );
        let taken = self.snapshots()?;
        let mut lost: HashMap<ContentHash, Lost> = HashMap::new();
        let mut after: Option<Next> = None;
        let mut query = self.db.prepare_cached(&sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let key = (FileId(get_u64(row, 0)?), row.get(1)?);
            let (seq, size) = (Seq(get_u64(row, 2)?), get_u64(row, 3)?);
            let next = after.filter(|next| next.file == key.0);
            let source = Source::from_row(row, 5)?;
            let (is_lost, mut holders) = match (source, next) {
                (Source::Lost(_), _) | (Source::Prefix, None) => (true, Holders::None),
                (Source::Prefix, Some(next)) => (next.is_lost, next.holders),
                (Source::Continued(..), _) => match self.place(key, source)? {
                    (_, Source::Lost(_)) => (true, self.holders(key, snapshot)?),
                    _ => (false, Holders::None),
                },
                _ => (false, Holders::None),
            };
            if is_lost {
                let until = next.map(|next| next.seq);
                let begun = taken.partition_point(|taken| taken.seq < seq);
                let meanwhile = taken[begun..].iter();
                for taken in meanwhile.take_while(|taken| until.is_none_or(|to| taken.seq < to)) {
                    if holders != Holders::Others && !self.names_at(key.0, taken.seq)?.is_empty() {
                        holders = holders.max(Holders::of(taken, snapshot));
                    }
                }
            }
            if holders == Holders::This
                && let Some(hash) = get_hash(row, 4)?
            {
                let content = lost.entry(hash).or_default();
                content.size = size;
                content.versions.insert(key);
            }
            after = Some(Next { file: key.0, seq, is_lost, holders });
        }
        Ok(lost)
    }

    /// The same bytes may be those of other versions.
    fn leave_out_what_others_have(
        &self,
        snapshot: &SnapshotRow,
        lost: &mut HashMap<ContentHash, Lost>,
    ) -> Result<(), CatalogError> {
        if lost.is_empty() {
            return Ok(());
        }
        let sql = "SELECT file, number, sha256 FROM version WHERE sha256 IS NOT NULL";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let Some(hash) = get_hash(row, 2)? else { continue };
            let Some(content) = lost.get(&hash) else { continue };
            let key = (FileId(get_u64(row, 0)?), row.get(1)?);
            if content.versions.contains(&key) {
                continue;
            }
            let is_kept =
                self.bytes_of(key)?.is_some_and(|(_, source)| !matches!(source, Source::Lost(_)));
            if is_kept || self.holders(key, snapshot)? == Holders::Others {
                lost.remove(&hash);
            }
        }
        Ok(())
    }

    fn holders(&self, key: VersionKey, snapshot: &SnapshotRow) -> Result<Holders, CatalogError> {
        let found = self.in_snapshots(key)?;
        let holders = found.iter().map(|found| Holders::of(&found.snapshot, snapshot));
        Ok(holders.max().unwrap_or(Holders::None))
    }
}

impl Holders {
    fn of(one: &SnapshotRow, this: &SnapshotRow) -> Self {
        // What is known of another dataset may have gone long ago.
        if (&one.backend, &one.dataset) != (&this.backend, &this.dataset) {
            return Self::None;
        }
        if one.guid == this.guid { Self::This } else { Self::Others }
    }
}
