//! `cat`: the content of one version, as a descriptor, or out of packs.
//!
//! Owns which version is meant and where its bytes are opened. Whoever gets them checks what is read
//! against the digest.

use super::{Query, QueryError};
use crate::catalog::{VersionInfo, When};
use crate::content::{Content, Contents};
use crate::query::records::ContentRecord;
use crate::restore::Planner;
use crate::types::Kind;

impl Query<'_, '_> {
    /// Answers with a version's content: of the path's history, or of the path at a time.
    pub(super) fn content(
        &mut self,
        contents: &Contents,
        path: &[u8],
        version: Option<&str>,
        at_ns: Option<i64>,
    ) -> Result<(), QueryError> {
        let (record, content) = self.open_content(contents, path, version, at_ns)?;
        match content {
            Content::File(file) => self.answer.file(&record, file)?,
            Content::Packed(packed) => self.answer.packed(&record, &packed, record.size)?,
        }
        Ok(())
    }

    /// Opens the same.
    pub(super) fn open_content(
        &mut self,
        contents: &Contents,
        path: &[u8],
        version: Option<&str>,
        at_ns: Option<i64>,
    ) -> Result<(ContentRecord, Content), QueryError> {
        let version = match at_ns {
            Some(at_ns) => self.version_at(path, at_ns)?,
            None => self.version_named(path, version.unwrap_or("head"))?.1,
        };
        let content = contents.open(self.reader, (version.file, version.number))?;
        let last = Planner::new(self.reader, contents).last_with(&version)?;
        let mode = last.map_or(version.mode, |(node, _)| node.mode);
        Ok((ContentRecord { size: version.size, sha256: version.hash, mode }, content))
    }

    /// The version of a path's history that is meant by a name, with its number there.
    pub(super) fn version_named(
        &mut self,
        path: &[u8],
        name: &str,
    ) -> Result<(u64, VersionInfo), QueryError> {
        let mut versions = self.lineage(path)?;
        let (name, back) = match name.strip_suffix('~') {
            Some(name) => (name, 1),
            None => (name, 0),
        };
        let is_meant = |(number, version): &(u64, VersionInfo)| {
            let digits = name.len() < 8 && name.parse() == Ok(*number);
            digits
                || (name.len() >= 6
                    && version.hash.is_some_and(|h| h.to_string().starts_with(name)))
        };
        let index = match name {
            "head" => versions.len().checked_sub(1),
            _ => versions.iter().rposition(is_meant),
        };
        let index = index.and_then(|index| index.checked_sub(back));
        let index =
            index.ok_or_else(|| QueryError::NoVersion { path: path.into(), name: name.into() })?;
        Ok(versions.swap_remove(index))
    }

    fn version_at(&mut self, path: &[u8], at_ns: i64) -> Result<VersionInfo, QueryError> {
        let seq = self.reader.seq_at(at_ns)?.ok_or(QueryError::TooEarly)?;
        let node = self.top(path, When::At(seq))?;
        if node.kind != Kind::File {
            return Err(QueryError::NotAFile { path: path.into() });
        }
        let versions = self.reader.versions(node.id)?;
        let version = versions.into_iter().rev().find(|version| version.seq <= seq);
        version.ok_or_else(|| QueryError::NotFound { path: path.into() })
    }
}
