//! Contents that were not kept, out of snapshots of the backing filesystem.
//!
//! Owns the way into a snapshot, and that nothing comes out of it but what was asked for: the catalog says
//! where a version must be, and all of it is compared with its digest before anybody gets a byte. So it is read each time
//! that it is opened.

use std::fmt;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use super::{Content, ContentError, Contents, READ};
use crate::catalog::{InSnapshot, Reader, VersionKey};
use crate::sys::Errno;
use crate::types::{ContentHash, Loss};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// The way to snapshots of the backing directory.
pub trait SnapshotDirs: fmt::Debug + Send + Sync {
    /// Opens the backing directory as it is in the snapshot of a name.
    ///
    /// # Errors
    /// Why it cannot be opened, in words for the log.
    fn open_dir(&self, name: &str) -> Result<OwnedFd, String>;
}

impl Contents {
    /// Whether the catalog knows of a snapshot to look into for a version.
    pub(super) fn may_be_in_snapshot(
        &self,
        reader: &Reader,
        version: VersionKey,
    ) -> Result<bool, ContentError> {
        Ok(self.snapshots.is_some() && !reader.in_snapshots(version)?.is_empty())
    }

    /// Opens the content of a version in the newest snapshot that has it.
    pub(super) fn open_in_snapshot(
        &self,
        reader: &Reader,
        version: VersionKey,
        loss: Loss,
    ) -> Result<Content, ContentError> {
        let (Some(snapshots), Some(facts)) = (&self.snapshots, reader.version_facts(version)?)
        else {
            return Err(ContentError::Lost(loss));
        };
        let Some(hash) = facts.hash else { return Err(ContentError::Lost(loss)) };
        let mut other = None;
        for found in reader.in_snapshots(version)? {
            let snapshot = &found.snapshot.name;
            let dir = match snapshots.open_dir(snapshot) {
                Ok(dir) => dir,
                Err(error) => {
                    tracing::warn!(snapshot, error, "a snapshot cannot be looked into");
                    continue;
                }
            };
            match open_same(&dir, &found, facts.size, hash) {
                Some(file) => return Ok(Content::File(file)),
                None => {
                    tracing::warn!(snapshot, %hash, "a snapshot does not have what it should have");
                    other.get_or_insert(found.snapshot.name);
                }
            }
        }
        Err(match other {
            Some(snapshot) => ContentError::Other { loss, snapshot },
            None => ContentError::Lost(loss),
        })
    }
}

/// Opens the file of a snapshot, by whichever of its paths, if its first `size` bytes have a digest.
fn open_same(dir: &OwnedFd, found: &InSnapshot, size: u64, hash: ContentHash) -> Option<OwnedFd> {
    found.paths.iter().find_map(|path| {
        let file = open_file(dir, path, found.size).ok()??;
        let same = digest(&file, size).is_ok_and(|digest| digest == hash);
        same.then_some(file)
    })
}

/// Opens a regular file of a size, without following a symlink or waiting for the other end of a pipe.
fn open_file(dir: &OwnedFd, path: &[u8], size: u64) -> Result<Option<OwnedFd>, Errno> {
    let flags = READ | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY;
    let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = rustix::fs::openat2(dir, path, flags, Mode::empty(), within)?;
    let stat = rustix::fs::fstat(&file)?;
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok((is_regular && u64::try_from(stat.st_size) == Ok(size)).then_some(file))
}

/// The digest of the first `size` bytes of a file, or of as many as there are.
fn digest(file: &OwnedFd, size: u64) -> Result<ContentHash, Errno> {
    let mut buffer = vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))];
    let (mut hasher, mut offset) = (Sha256::new(), 0);
    while offset < size {
        let room = usize::try_from(size - offset).unwrap_or(CHUNK).min(buffer.len());
        let n = retry_on_intr(|| rustix::io::pread(file, &mut buffer[..room], offset))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
    Ok(hasher.into())
}
