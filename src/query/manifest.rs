//! `manifest`: the digests of regular files, now or at a time.
//!
//! Owns nothing else. A file whose digest is not known has a record that says so, never another one.

use std::io;

use crate::catalog::NodeInfo;
use crate::query::records::ManifestRecord;
use crate::query::request::PathField;
use crate::types::Kind;

use super::{Answer, Ids, Query, QueryError};

impl Query<'_, '_> {
    /// The regular files at and below a path that the asker may read.
    pub(super) fn manifest(&mut self, path: &[u8], at_ns: Option<i64>) -> Result<(), QueryError> {
        let (ids, when) = (self.ids()?, self.when(at_ns)?);
        self.walk(path, when, |answer, _, path, node| Ok(write(answer, ids, path, node)?))
    }
}

fn write(answer: &mut Answer<'_>, ids: Ids, path: &[u8], node: &NodeInfo) -> io::Result<()> {
    if node.kind != Kind::File {
        return Ok(());
    }
    if node.hash.is_none() {
        answer.lacks_digest();
    }
    answer.record(&ManifestRecord {
        path: PathField(path.into()),
        sha256: node.hash,
        size: node.size,
        file_id: ids.uuid(node.id),
    })
}
