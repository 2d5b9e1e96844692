//! `cat`: the content of one version, as a descriptor.
//!
//! Owns which version is meant and where its bytes are opened. Whoever gets the descriptor checks what
//! is read against the digest.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{Query, QueryError};
use crate::catalog::{Source, VersionInfo, When};
use crate::control::records::ContentRecord;
use crate::store::Store;
use crate::sys::Errno;
use crate::types::{FileId, Kind};

/// Where contents lie.
pub(in crate::control) struct Contents<'c> {
    /// The backing directory.
    pub(in crate::control) backing: &'c OwnedFd,
    /// What was preserved of it.
    pub(in crate::control) store: Option<&'c Store>,
}

impl Query<'_, '_> {
    /// Answers with a version's content: of the path's history, or of the path at a time.
    pub(in crate::control) fn content(
        &mut self,
        contents: &Contents<'_>,
        path: &[u8],
        version: Option<&str>,
        at_ns: Option<i64>,
    ) -> Result<(), QueryError> {
        let version = match at_ns {
            Some(at_ns) => self.version_at(path, at_ns)?,
            None => self.version_named(path, version.unwrap_or("head"))?,
        };
        let file = self.open(contents, &version)?;
        let record = ContentRecord { size: version.size, sha256: version.hash, mode: version.mode };
        Ok(self.answer.file(&record, file)?)
    }

    fn version_named(&mut self, path: &[u8], name: &str) -> Result<VersionInfo, QueryError> {
        let mut versions = self.lineage(path)?;
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
        let index =
            index.ok_or_else(|| QueryError::NoVersion { path: path.into(), name: name.into() })?;
        Ok(versions.swap_remove(index).1)
    }

    fn version_at(&mut self, path: &[u8], at_ns: i64) -> Result<VersionInfo, QueryError> {
        let seq = self.main.seq_at(at_ns)?.ok_or(QueryError::TooEarly)?;
        let node = self.top(path, When::At(seq))?;
        if node.kind != Kind::File {
            return Err(QueryError::NotAFile { path: path.into() });
        }
        let versions = self.main.versions(node.id)?;
        let version = versions.into_iter().rev().find(|version| version.seq <= seq);
        version.ok_or_else(|| QueryError::NotFound { path: path.into() })
    }

    /// Opens the content of a version.
    fn open(
        &mut self,
        contents: &Contents<'_>,
        version: &VersionInfo,
    ) -> Result<OwnedFd, QueryError> {
        const TRIES: usize = 25;
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
        let lost = |reason: &str| QueryError::NotKept { reason: reason.into() };
        let mut at = (version.file, version.number);
        for tries in 1..=TRIES {
            let found = self.side.source(at.0, at.1)?;
            let mut source = found.ok_or_else(|| lost("it was taken back"))?;
            while let Some(step) = self.side.follow(at, source)? {
                (at, source) = step;
            }
            let opened = match (source, contents.store) {
                (Source::Head, _) => return self.open_head(contents, at.0),
                (Source::Empty, _) => {
                    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                }
                (Source::Lost(loss), _) => return Err(lost(&loss.to_string())),
                (Source::Object(hash), Some(store)) => store.open_object(hash),
                // What was looked at is better; but as long as somebody uses it, it is not.
                (Source::Incoming(_), Some(_)) if tries < TRIES => Err(Errno::NOENT),
                (Source::Incoming(id), Some(store)) => store.open_incoming(id),
                (_, _) => return Err(lost("the store cannot be read")),
            };
            match opened {
                Ok(file) => return Ok(file),
                // It is on its way from one place to the other.
                Err(Errno::NOENT) => std::thread::sleep(PAUSE),
                Err(error) => {
                    return Err(QueryError::Store { what: format!("{source:?}"), source: error });
                }
            }
        }
        Err(QueryError::Store { what: "what was kept".into(), source: Errno::NOENT })
    }

    fn open_head(&mut self, contents: &Contents<'_>, file: FileId) -> Result<OwnedFd, QueryError> {
        let now = self.main.seq()?;
        let path = self.side.path_of(file, now)?;
        let path = path.ok_or(QueryError::NotKept { reason: "it has no name".into() })?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let backing = contents.backing.as_fd();
        rustix::fs::openat2(backing, &*path, flags, Mode::empty(), within)
            .map_err(|source| QueryError::Store { what: super::shown(&path), source })
    }
}
