//! `search`: names that match.
//!
//! Owns the order of the tests, cheapest first, and which time `since` means: that of the newest
//! version, or of the deletion; for what has no version and for what the first walk found, the
//! modification time.

use crate::catalog::Descend;
use crate::catalog::{NodeInfo, Reader, When};
use crate::query::access::{Guard, Want};
use crate::query::filter::{Matcher, Names, SearchFilter};
use crate::query::records::SearchRecord;
use crate::query::request::PathField;
use crate::timespec::rfc3339;
use crate::types::{Kind, Seq};

use super::{Answer, Ids, Query, QueryError};

/// Why a walk ends before its end.
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
    matcher: Matcher,
    /// Length of the path of the directory that is searched, with its slash.
    top_length: usize,
    ids: Ids,
    guard: &'s mut Guard,
    answer: &'s mut Answer<'a>,
}

impl Query<'_, '_> {
    /// Names below a directory that match and that the asker may see.
    pub(super) fn search(&mut self, dir: &[u8], filter: &SearchFilter) -> Result<(), QueryError> {
        let top = self.top(dir, When::Now)?;
        let mut prefix = dir.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let mut search = Search {
            filter,
            matcher: Matcher::new(filter)?,
            top_length: prefix.len(),
            ids: self.ids()?,
            guard: &mut *self.guard,
            answer: &mut *self.answer,
        };
        let side = &*self.side;
        let mut whole = prefix.clone();
        let mut result = self.main.walk(top.id, When::Now, |below, node| {
            whole.truncate(prefix.len());
            whole.extend_from_slice(below);
            search.live(side, &whole, node)
        });
        if result.is_ok() && filter.names == Names::AndDeleted {
            result = self.main.deleted(|path, seq, file| {
                if !path.starts_with(&prefix) {
                    return Ok(());
                }
                match side.node(file, When::Now)? {
                    Some(node) => search.deleted(side, path, seq, &node),
                    None => Ok(()),
                }
            });
        }
        match result {
            Ok(()) | Err(Stop::Enough) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }
}

impl Search<'_, '_> {
    fn live(&mut self, side: &Reader, path: &[u8], node: &NodeInfo) -> Result<Descend, Stop> {
        let descend = if node.kind == Kind::Dir && self.guard.live_path(path, Want::List) {
            Descend::Yes
        } else {
            Descend::No
        };
        if !self.matches(path, node) {
            return Ok(descend);
        }
        if let Some(since) = self.filter.since_ns
            && side.saved_ns(node.id)?.unwrap_or(node.mtime_ns) < since
        {
            return Ok(descend);
        }
        let readable = node.kind == Kind::File && self.guard.live_path(path, Want::Read);
        self.write(path, node, None, readable)?;
        Ok(descend)
    }

    fn deleted(
        &mut self,
        side: &Reader,
        path: &[u8],
        ended: Seq,
        node: &NodeInfo,
    ) -> Result<(), Stop> {
        if !self.matches(path, node) {
            return Ok(());
        }
        let time_ns = side.time_of(ended)?;
        if self.filter.since_ns.is_some_and(|since| time_ns < since) {
            return Ok(());
        }
        let parent = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let before = Seq(ended.0.saturating_sub(1));
        if !self.guard.listing_at(side, &path[..parent], before)? {
            return Ok(());
        }
        let readable = self.guard.node_at(side, node.id, Want::Read, before)?;
        self.write(path, node, Some(rfc3339(time_ns)), readable)
    }

    fn matches(&self, path: &[u8], node: &NodeInfo) -> bool {
        let size = self.filter.size.as_ref();
        size.is_none_or(|range| node.kind == Kind::File && range.contains(&node.size))
            && self.matcher.matches(&path[self.top_length..])
    }

    fn write(
        &mut self,
        path: &[u8],
        node: &NodeInfo,
        deleted: Option<String>,
        readable: bool,
    ) -> Result<(), Stop> {
        let limit = self.filter.limit;
        if limit.is_some_and(|limit| self.answer.records() >= limit) {
            return Err(Stop::Enough);
        }
        self.answer.record(&SearchRecord {
            path: PathField(path.into()),
            kind: node.kind,
            size: node.size,
            mtime: rfc3339(node.mtime_ns),
            sha256: node.hash.filter(|_| readable),
            file_id: self.ids.uuid(node.id),
            deleted,
        })?;
        Ok(())
    }
}
