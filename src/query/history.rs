//! `log` and `blame`: the versions of one path.
//!
//! Owns which of them the asker may see. Their numbers are those of the catalog's lineage, whoever asks.

use crate::catalog::{CatalogError, VersionInfo, When};
use crate::query::access::Want;
use crate::query::records::{BlameRecord, Users, VersionRecord};
use crate::timespec::rfc3339;
use crate::types::Kind;

use super::{Query, QueryError};

impl Query<'_, '_> {
    /// The versions of a path, newest first.
    pub(super) fn log(&mut self, path: &[u8], users: &Users) -> Result<(), QueryError> {
        let ids = self.ids()?;
        for (number, version) in self.lineage(path)?.into_iter().rev() {
            let file_id = ids.uuid(version.file);
            let record = VersionRecord::new(number, file_id, &version, users);
            self.answer.record(&record)?;
        }
        Ok(())
    }

    /// Who made the versions of a path, newest first.
    pub(super) fn blame(&mut self, path: &[u8], users: &Users) -> Result<(), QueryError> {
        let mut size_before = 0;
        let mut records = Vec::new();
        for (number, version) in self.lineage(path)? {
            records.push(BlameRecord {
                number,
                seq: version.seq,
                time: rfc3339(version.time_ns),
                op: self.reader.op_of(version.seq)?,
                origin: version.origin,
                writer: version.writer.as_ref().map(|writer| users.record(writer)),
                size: version.size,
                size_delta: version.size.wrapping_sub(size_before).cast_signed(),
            });
            size_before = version.size;
        }
        for record in records.iter().rev() {
            self.answer.record(record)?;
        }
        Ok(())
    }

    /// The versions of a path that the asker may see, with their numbers, oldest first.
    pub(super) fn lineage(&mut self, path: &[u8]) -> Result<Vec<(u64, VersionInfo)>, QueryError> {
        self.reader.in_one_state(|_| self.lineage_now(path))
    }

    fn lineage_now(&mut self, path: &[u8]) -> Result<Vec<(u64, VersionInfo)>, QueryError> {
        self.require(path, Want::Read)?;
        let not_found = || QueryError::NotFound { path: path.into() };
        let located = self.reader.locate(path)?.ok_or_else(not_found)?;
        let node = self.reader.node(located.file, When::Now)?;
        if node.ok_or_else(not_found)?.kind != Kind::File {
            return Err(QueryError::NotAFile { path: path.into() });
        }
        let versions = self.reader.lineage(path)?;
        let visible = versions.into_iter().filter_map(|(number, version)| {
            // The path was checked; others had it before, or the same file in an earlier life.
            let seen: Result<bool, CatalogError> =
                self.guard.node_at(self.reader, version.file, Want::Read, version.seq);
            match seen {
                Ok(true) => Some(Ok((number, version))),
                Ok(false) => None,
                Err(error) => Some(Err(error.into())),
            }
        });
        visible.collect()
    }
}
