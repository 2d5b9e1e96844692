//! Walking the tree, now or as of any sequence number.
//!
//! Owns the order of a walk and its paging: a directory of a million names needs little memory.

use rusqlite::params;

use super::CatalogError;
use super::read::{NodeInfo, Reader, When, node_from_row};
use super::rows::get_u64;
use crate::types::{FileId, Kind, Name, Seq};

/// Entries read at a time.
const PAGE: usize = 1024;

/// What a visitor of a walk says of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descend {
    /// Go into it.
    Yes,
    /// Leave it out.
    No,
}

impl Reader {
    /// One page of a directory in the order of names, after the name `after`: no name is empty, so the
    /// empty one stands for the beginning.
    fn page(
        &self,
        dir: FileId,
        when: When,
        after: &[u8],
    ) -> Result<Vec<(Name, NodeInfo)>, CatalogError> {
        match when {
            When::Now => {
                let sql = "SELECT f.id, f.kind, f.mode, f.uid, f.gid, f.size, f.mtime_ns,
                                  CASE WHEN f.ctime_ns <> 0 THEN v.sha256 END, f.head, e.name
                           FROM entry e JOIN file f ON f.id = e.child
                           LEFT JOIN version v ON v.file = f.id AND v.number = f.head
                           WHERE e.parent = ?1 AND e.name > ?2 ORDER BY e.name LIMIT ?3";
                let rows = self
                    .db
                    .prepare_cached(sql)?
                    .query_map(params![dir.0.cast_signed(), after, PAGE], |row| {
                        Ok((row.get::<_, Vec<u8>>(9)?.into(), node_from_row(row)?))
                    })?
                    .collect::<Result<_, _>>()?;
                Ok(rows)
            }
            When::At(seq) => self.children_at(dir, seq, after, PAGE),
        }
    }

    /// Up to `limit` names of a directory as it was after a change, in byte order, after the name
    /// `after`, which is empty for the beginning.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn children_at(
        &self,
        dir: FileId,
        at: Seq,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Name, NodeInfo)>, CatalogError> {
        let sql = "SELECT name, child, from_seq FROM entry
                   WHERE parent = ?1 AND name > ?2 AND from_seq <= ?3
                   UNION ALL
                   SELECT name, child, from_seq FROM entry_past
                   WHERE parent = ?1 AND name > ?2 AND from_seq <= ?3 AND to_seq > ?3
                   ORDER BY name LIMIT ?4";
        let names: Vec<(Name, FileId, Seq)> = self
            .db
            .prepare_cached(sql)?
            .query_map(params![dir.0.cast_signed(), after, at.0.cast_signed(), limit], |row| {
                let name: Name = row.get::<_, Vec<u8>>(0)?.into();
                Ok((name, FileId(get_u64(row, 1)?), Seq(get_u64(row, 2)?)))
            })?
            .collect::<Result<_, _>>()?;
        let mut page = Vec::with_capacity(names.len());
        for (name, id, since) in names {
            if let Some(node) = self.node_since(id, since, at)? {
                page.push((name, node));
            }
        }
        Ok(page)
    }

    /// Calls `visit` with the path (relative to `top`) and the state of everything below `top`, each
    /// directory before what is in it, names in byte order, as one consistent state.
    ///
    /// `visit` says of a directory whether to go into it. Holds one read transaction throughout.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `visit` fails with.
    pub fn walk<E: From<CatalogError>>(
        &self,
        top: FileId,
        when: When,
        mut visit: impl FnMut(&[u8], &NodeInfo) -> Result<Descend, E>,
    ) -> Result<(), E> {
        self.in_one_state(|reader| reader.walk_inside(top, when, &mut visit))
    }

    fn walk_inside<E: From<CatalogError>>(
        &self,
        top: FileId,
        when: When,
        visit: &mut impl FnMut(&[u8], &NodeInfo) -> Result<Descend, E>,
    ) -> Result<(), E> {
        struct Level {
            dir: FileId,
            path_length: usize,
            page: std::vec::IntoIter<(Name, NodeInfo)>,
            last: Option<Name>,
        }
        let level = |dir, path_length| Level {
            dir,
            path_length,
            page: Vec::new().into_iter(),
            last: Some(Name::default()),
        };
        let mut path = Vec::new();
        let mut stack = vec![level(top, 0)];
        while let Some(here) = stack.last_mut() {
            let Some((name, node)) = here.page.next() else {
                let Some(last) = here.last.take() else {
                    stack.pop();
                    continue;
                };
                let page = self.page(here.dir, when, &last)?;
                if page.len() == PAGE {
                    here.last = page.last().map(|(name, _)| name.clone());
                }
                here.page = page.into_iter();
                continue;
            };
            path.truncate(here.path_length);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if visit(&path, &node)? == Descend::Yes && node.kind == Kind::Dir {
                let length = path.len();
                stack.push(level(node.id, length));
            }
        }
        Ok(())
    }
}
