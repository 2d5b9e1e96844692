//! Which version is to be marked, and who may: root, the user who mounted, and the owner of the file, as
//! it is now or was when it was deleted.

use super::{Query, QueryError};
use crate::catalog::{VersionKey, When};
use crate::query::records::{Users, VersionRecord};
use crate::sys::creds::Identity;

impl Query<'_, '_> {
    /// The version that is meant, if `user` may mark it.
    pub(super) fn markable(
        &mut self,
        path: &[u8],
        name: Option<&str>,
        user: &Identity,
    ) -> Result<VersionKey, QueryError> {
        let (_, version) = self.version_named(path, name.unwrap_or("head"))?;
        let node = self.reader.node(version.file, When::Now)?;
        if self.guard.sees_everything() || node.is_some_and(|node| node.uid == user.uid) {
            return Ok((version.file, version.number));
        }
        Err(QueryError::Denied {
            what: format!("only root and the owner may mark versions of {}", super::shown(path)),
        })
    }

    /// Answers with a version as it is marked by now.
    pub(super) fn marked(&mut self, path: &[u8], key: VersionKey) -> Result<(), QueryError> {
        let versions = self.lineage(path)?;
        let is_it = |(_, version): &&(u64, _)| {
            let version: &crate::catalog::VersionInfo = version;
            (version.file, version.number) == key
        };
        let (number, version) = versions
            .iter()
            .find(is_it)
            .ok_or_else(|| QueryError::NotFound { path: path.into() })?;
        let file_id = self.ids()?.uuid(version.file);
        let record = VersionRecord::new(*number, file_id, version, &Users::read());
        Ok(self.answer.record(&record)?)
    }
}
