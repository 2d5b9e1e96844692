//! Going through a tree with somebody's eyes, now or at a time.

use crate::catalog::{Descend, NodeInfo, Reader, When};
use crate::query::access::{Guard, Want};
use crate::types::path::parent;
use crate::types::{FileId, Kind};

use super::{Answer, Query, QueryError};

impl Query<'_, '_> {
    /// The moment that a time means.
    pub(super) fn when(&mut self, at_ns: Option<i64>) -> Result<When, QueryError> {
        Ok(match at_ns {
            None => When::Now,
            Some(ns) => When::At(self.reader.seq_at(ns)?.ok_or(QueryError::TooEarly)?),
        })
    }

    /// Calls `visit` with the regular files that the asker may read and the directories that he may list, at and
    /// below a path: each directory before what is in it, names in byte order, as one consistent state. With them
    /// goes a connection that sees what is newest.
    pub(super) fn walk(
        &mut self,
        path: &[u8],
        when: When,
        mut visit: impl FnMut(&mut Answer<'_>, &Reader, &[u8], &NodeInfo) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let top = self.top(path, when)?;
        visit(self.answer, self.reader, path, &top)?;
        if top.kind != Kind::Dir {
            return Ok(());
        }
        let prefix_length = path.len();
        let mut whole = path.to_vec();
        let (reader, guard, answer) = (self.reader, &mut *self.guard, &mut *self.answer);
        self.reader.walk(top.id, when, |below, node| {
            whole.truncate(prefix_length);
            if prefix_length > 0 {
                whole.push(b'/');
            }
            whole.extend_from_slice(below);
            let want = match node.kind {
                Kind::Dir => Want::List,
                Kind::File => Want::Read,
                _ => return Ok(Descend::No),
            };
            if !may(guard, reader, when, &whole, node.id, want)? {
                return Ok(Descend::No);
            }
            visit(answer, reader, &whole, node)?;
            Ok(Descend::Yes)
        })
    }

    /// What a path leads to, if the asker may see it.
    pub(super) fn top(&mut self, path: &[u8], when: When) -> Result<NodeInfo, QueryError> {
        let not_found = || QueryError::NotFound { path: path.into() };
        let found = self.reader.resolve(path, when)?;
        let node = match found {
            Some(id) => self.reader.node(id, when)?,
            None => None,
        };
        let want = match &node {
            Some(node) if node.kind == Kind::Dir => Want::List,
            _ => Want::Read,
        };
        match (&node, when) {
            (Some(node), When::At(at)) => {
                if !self.guard.listing_at(self.reader, parent(path), at)?
                    || !self.guard.node_at(self.reader, node.id, want, at)?
                {
                    return Err(QueryError::Denied { what: super::shown(path) });
                }
            }
            _ => self.require(path, want)?,
        }
        node.ok_or_else(not_found)
    }
}

/// Whether something that a walk came by may be seen.
fn may(
    guard: &mut Guard,
    reader: &Reader,
    when: When,
    path: &[u8],
    id: FileId,
    want: Want,
) -> Result<bool, QueryError> {
    match when {
        When::Now => Ok(guard.live_path(path, want)),
        When::At(at) => Ok(guard.node_at(reader, id, want, at)?),
    }
}
