//! What is in a directory, now or at a time, page by page in the order of the names' bytes.

use super::access::Want;
use super::records::{TreeRecord, Users};
use super::request::NameField;
use super::{Query, QueryError};
use crate::catalog::When;
use crate::timespec::rfc3339;
use crate::types::Kind;

/// Names read at a time.
const PAGE: usize = 1000;

impl Query<'_, '_> {
    /// The names in a directory after a name; the asker may have to be allowed to list it.
    pub(super) fn tree(
        &mut self,
        path: &[u8],
        at_ns: Option<i64>,
        after: &[u8],
        limit: u64,
    ) -> Result<(), QueryError> {
        let at = match at_ns {
            None => self.reader.seq()?,
            Some(ns) => self.reader.seq_at(ns)?.ok_or(QueryError::TooEarly)?,
        };
        let when = at_ns.map_or(When::Now, |_| When::At(at));
        let top = self.top(path, when)?;
        if top.kind != Kind::Dir {
            return Err(QueryError::NotADirectory { path: path.into() });
        }
        let (ids, users) = (self.ids()?, Users::read());
        let mut after = after.to_vec();
        let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
        while left > 0 {
            let page = match when {
                When::Now => self.reader.glimpses_now(top.id, &after, left.min(PAGE))?,
                When::At(at) => self.reader.glimpses(top.id, at, &after, left.min(PAGE))?,
            };
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = last.to_vec();
            left -= page.len();
            for (name, shown) in page {
                let node = shown.node;
                let readable = node.kind == Kind::File
                    && self.guard.node_at(self.reader, node.id, Want::Read, at)?;
                let version = shown.version;
                self.answer.record(&TreeRecord {
                    name: NameField(name.to_vec()),
                    kind: node.kind,
                    size: version.map_or(node.size, |version| version.size),
                    mtime: rfc3339(version.map_or(node.mtime_ns, |version| version.mtime_ns)),
                    mode: node.mode,
                    uid: node.uid,
                    user: users.name_of(node.uid),
                    gid: node.gid,
                    links: shown.links,
                    sha256: version.and_then(|version| version.hash).filter(|_| readable),
                    file_number: (node.kind == Kind::File).then_some(node.version),
                    file_id: ids.uuid(node.id),
                })?;
            }
        }
        Ok(())
    }
}
