//! `changes`: the log, page by page.
//!
//! Owns the position in it. Each page is a short read of its own, so that following the log for days
//! keeps nothing back.

use crate::catalog::{CatalogError, ChangeInfo, Reader};
use crate::query::access::Want;
use crate::query::records::{ChangeRecord, Users};
use crate::query::request::{FromPathField, PathField};
use crate::timespec::rfc3339;
use crate::types::path::is_below;
use crate::types::{Kind, Seq};

use super::{Ids, Query, QueryError};

/// Changes read at a time.
const PAGE: usize = 1000;

/// How far in the log an answer is.
#[derive(Debug)]
pub(super) struct Position {
    path: Vec<u8>,
    since: Seq,
    left: u64,
    users: Users,
}

impl Position {
    /// The beginning of an answer: after `since`, or at the end of the log.
    pub(super) fn new(
        reader: &Reader,
        path: &PathField,
        since: Option<Seq>,
        limit: Option<u64>,
    ) -> Result<Self, CatalogError> {
        Ok(Self {
            path: path.0.clone(),
            // No change has a greater number, and SQLite has no greater integer.
            since: Seq(match since {
                Some(since) => since.0.min(i64::MAX.cast_unsigned()),
                None => reader.seq()?.0,
            }),
            left: limit.unwrap_or(u64::MAX),
            users: Users::read(),
        })
    }

    /// Whether the limit is reached.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0
    }

    fn concerns(&self, change: &ChangeInfo) -> bool {
        let paths = [&change.path, &change.from_path];
        paths.into_iter().flatten().any(|path| is_below(path, &self.path))
    }
}

impl Query<'_, '_> {
    /// Writes the next page and moves on; returns how many changes it looked at.
    pub(super) fn changes(&mut self, position: &mut Position) -> Result<usize, QueryError> {
        if position.is_spent() {
            return Ok(0);
        }
        self.guard.forget();
        let page = self.reader.in_one_state(|_| self.page(position))?;
        let looked_at = page.len();
        for (seq, record) in page {
            position.since = seq;
            if let Some(record) = record {
                self.answer.record(&record)?;
                position.left -= 1;
            }
        }
        Ok(looked_at)
    }

    /// The next changes, with the records of those that are to be told.
    fn page(
        &mut self,
        position: &Position,
    ) -> Result<Vec<(Seq, Option<ChangeRecord>)>, CatalogError> {
        let ids = self.ids()?;
        let left = usize::try_from(position.left).unwrap_or(usize::MAX);
        // Of a path, nobody knows how many concern it.
        let limit = if position.path.is_empty() { PAGE.min(left) } else { PAGE };
        let (mut page, mut told) = (Vec::new(), 0);
        for change in self.reader.changes(position.since, limit)? {
            let seq = change.seq;
            let record = match position.concerns(&change) {
                true => self.visible(change, ids, &position.users)?,
                false => None,
            };
            told += usize::from(record.is_some());
            page.push((seq, record));
            if told == left {
                break;
            }
        }
        Ok(page)
    }

    /// The record of a change, without the names and digests that the asker may not see.
    fn visible(
        &mut self,
        change: ChangeInfo,
        ids: Ids,
        users: &Users,
    ) -> Result<Option<ChangeRecord>, CatalogError> {
        let mut visible = |path: Option<Vec<u8>>| -> Result<Option<Vec<u8>>, CatalogError> {
            let Some(path) = path else { return Ok(None) };
            Ok(self.guard.name_at(self.reader, &path, change.seq)?.then_some(path))
        };
        let (path, from_path) = (visible(change.path)?, visible(change.from_path)?);
        if path.is_none() && from_path.is_none() {
            return Ok(None);
        }
        let readable = change.kind == Kind::File
            && self.guard.node_at(self.reader, change.file, Want::Read, change.seq)?;
        let (file_number, size, sha256) = match change.version {
            Some((number, size, hash)) => (Some(number), Some(size), hash.filter(|_| readable)),
            None => (None, None, None),
        };
        Ok(Some(ChangeRecord {
            seq: change.seq,
            time: rfc3339(change.time_ns),
            op: change.op,
            path: path.map(PathField),
            from_path: from_path.map(FromPathField),
            kind: change.kind,
            file_id: ids.uuid(change.file),
            file_number,
            size,
            sha256,
            writer: change.writer.as_ref().map(|writer| users.record(writer)),
        }))
    }
}
