//! `search`: names that match.
//!
//! Owns the order of the tests, cheapest first, and which time and which writer are meant: those of the
//! newest version, or of the deletion; for what has no version and for what the first walk found, the
//! modification time and nobody.

mod live;

use std::collections::HashMap;
use std::sync::Arc;

use crate::catalog::{Gone, LiveNames, NodeInfo, Reader, When};
use crate::query::access::{Guard, Want};
use crate::query::filter::{Cursor, Detail, Matcher, Names, SearchFilter};
use crate::query::labels::FileDetails;
use crate::query::records::{SearchRecord, Users};
use crate::query::request::PathField;
use crate::timespec::rfc3339;
use crate::types::path::parent;
use crate::types::{FileId, Kind, Seq, Writer};

use super::{Answer, Ids, Query, QueryError};

/// Why a search ends before its end.
enum Stop {
    Enough,
    Failed(QueryError),
}

impl<E: Into<QueryError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One search on its way.
struct Search<'s, 'a> {
    filter: &'s SearchFilter,
    matcher: Arc<Matcher>,
    /// The path of the directory that is searched, with a slash unless it is the root.
    prefix: Vec<u8>,
    /// The files that have the labels that are asked for, in the order of their numbers.
    labelled: Option<Vec<FileId>>,
    /// The user that is meant by the name or number of whoever wrote.
    by_uid: Option<u32>,
    ids: Ids,
    guard: &'s mut Guard,
    /// Which directories may be listed, with all above them.
    listable: HashMap<Vec<u8>, bool>,
    answer: &'s mut Answer<'a>,
}

impl Query<'_, '_> {
    /// Names below a directory that match and that the asker may see, from an index if there is one.
    pub(super) fn search(
        &mut self,
        dir: &[u8],
        filter: &SearchFilter,
        names: Option<&LiveNames>,
    ) -> Result<(), QueryError> {
        let top = self.top(dir, When::Now)?;
        let mut prefix = dir.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let mut search = Search {
            filter,
            matcher: Arc::new(Matcher::new(filter)?),
            prefix,
            labelled: match filter.has_labels() {
                true => Some(self.reader.labelled(&filter.tags, filter.collection.as_deref())?),
                false => None,
            },
            by_uid: filter.by.as_ref().and_then(|by| Users::read().number_of(by)),
            ids: self.ids()?,
            guard: &mut *self.guard,
            listable: HashMap::new(),
            answer: &mut *self.answer,
        };
        let reader = self.reader;
        let mut result = search.live_names(reader, top.id, names);
        if result.is_ok() && filter.names == Names::AndDeleted {
            let after = match &filter.after {
                Some(Cursor::Gone(key, from)) => Some((key.clone(), *from)),
                _ => None,
            };
            result = reader.deleted(after, |gone| search.gone(reader, gone));
        }
        match result {
            Ok(()) | Err(Stop::Enough) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

impl Search<'_, '_> {
    fn live(
        &mut self,
        reader: &Reader,
        path: &[u8],
        node: &NodeInfo,
        cursor: Cursor,
    ) -> Result<(), Stop> {
        if !self.filter.fits_size(node.kind, node.size) {
            return Ok(());
        }
        if self.filter.has_times()
            && !self.filter.fits_time(reader.saved_ns(node.id)?.unwrap_or(node.mtime_ns))
        {
            return Ok(());
        }
        if self.filter.by.is_some() && !self.is_by(reader.saved_by(node.id)?.as_ref()) {
            return Ok(());
        }
        let readable = node.kind == Kind::File && self.guard.live_path(path, Want::Read);
        self.write(reader, path, node, None, readable, cursor)
    }

    fn gone(&mut self, reader: &Reader, gone: &Gone) -> Result<(), Stop> {
        let path = &gone.path[..];
        if !path.starts_with(&self.prefix) || !self.matcher.matches(&path[self.prefix.len()..]) {
            return Ok(());
        }
        let Some(node) = reader.node(gone.file, When::Now)? else { return Ok(()) };
        let fits = self.filter.fits_name(&gone.key.name, node.kind)
            && self.filter.fits_size(node.kind, node.size);
        let is_labelled =
            self.labelled.as_ref().is_none_or(|files| files.binary_search(&gone.file).is_ok());
        if !fits || !is_labelled {
            return Ok(());
        }
        let time_ns = reader.time_of(gone.ended)?;
        if !self.filter.fits_time(time_ns)
            || (self.filter.by.is_some() && !self.is_by(reader.writer_of(gone.ended)?.as_ref()))
        {
            return Ok(());
        }
        let before = Seq(gone.ended.0.saturating_sub(1));
        if !self.guard.listing_at(reader, parent(path), before)? {
            return Ok(());
        }
        let readable = self.guard.node_at(reader, node.id, Want::Read, before)?;
        let cursor = Cursor::Gone(gone.key.clone(), gone.from);
        self.write(reader, path, &node, Some(rfc3339(time_ns)), readable, cursor)
    }

    /// Whether a writer is the one that is asked for, by user or by program.
    fn is_by(&self, writer: Option<&Writer>) -> bool {
        let is_comm = |writer: &Writer| {
            self.filter.by.as_ref().is_some_and(|by| *by.as_bytes() == *writer.comm)
        };
        writer.is_some_and(|writer| self.by_uid == Some(writer.uid) || is_comm(writer))
    }

    fn write(
        &mut self,
        reader: &Reader,
        path: &[u8],
        node: &NodeInfo,
        deleted: Option<String>,
        readable: bool,
        cursor: Cursor,
    ) -> Result<(), Stop> {
        // Nobody learns by guessing what he may not read.
        let sha256 = node.hash.filter(|_| readable);
        if !self.filter.fits_digest(sha256) || (self.labelled.is_some() && !readable) {
            return Ok(());
        }
        let details = match self.filter.detail {
            Detail::Whole if readable => Some(FileDetails::read(reader, node)?),
            _ => None,
        };
        let is_enough = |limit| self.answer.records() >= limit;
        if self.filter.limit.is_some_and(is_enough) {
            return Err(Stop::Enough);
        }
        self.answer.record(&SearchRecord {
            path: PathField(path.into()),
            kind: node.kind,
            size: node.size,
            mtime: rfc3339(node.mtime_ns),
            sha256,
            file_id: self.ids.uuid(node.id),
            deleted,
            details,
            cursor: Some(cursor),
        })?;
        match self.filter.limit.is_some_and(|limit| self.answer.records() >= limit) {
            true => Err(Stop::Enough),
            false => Ok(()),
        }
    }
}
