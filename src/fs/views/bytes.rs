//! The bytes of files in views.
//!
//! Owns that nobody gets the bytes of one version as those of another. What was kept does not change;
//! small contents are compared with their digest when they are opened. The newest version of a live file is
//! the file itself, which somebody may be changing: after each read the file must still be what its
//! digest stands for, else its bytes are had from elsewhere, or not at all.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{Version, ViewNode};
use crate::catalog::{CatalogError, LiveHead, Source, VersionFacts, VersionKey};
use crate::content::{Content, ContentError};
use crate::fs::handle::{Flush, OpenMode, Session};
use crate::fs::io::Opened;
use crate::fs::node::{Node, OpenState};
use crate::fs::{Errno, Fh, Fs, NodeId};
use crate::sys::stat;
use crate::types::{ContentHash, InodeKey, Kind, Stamp};

/// Contents up to this size are read whole and compared with their digest.
const CHECKED: u64 = 4 << 20;

/// How often it is looked again where something is on its way from one place to another.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// An open file of a view.
#[derive(Debug)]
pub(super) struct ViewFile {
    /// Its node lives as long as it is open.
    _node: Arc<ViewNode>,
    /// `None` for what had no version yet: it is empty.
    version: Option<Version>,
    bytes: Mutex<Arc<Bytes>>,
}

/// Where the bytes of a version come from.
#[derive(Debug)]
enum Bytes {
    /// There are none.
    None,
    /// What was kept.
    Kept(Content),
    /// The live file, as long as it is unchanged.
    Live(Content, Expected),
    /// The live file had the right bytes when it was read, which its times do not prove.
    Read(Vec<u8>),
}

/// What a live file is as long as its content is that of a version.
#[derive(Debug, Clone, Copy)]
struct Expected {
    key: InodeKey,
    /// `None` if nobody has looked at it since it was found; then nobody may be changing it.
    stamp: Option<Stamp>,
    /// Size and modification time in nanoseconds.
    sealed: (u64, i64),
}

/// Why bytes cannot be had now.
enum Failed {
    /// They may be had in a moment.
    Now,
    /// They cannot.
    ForGood(Errno),
}

impl From<Errno> for Failed {
    fn from(error: Errno) -> Self {
        Self::ForGood(error)
    }
}

impl From<ContentError> for Failed {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Lost(_) | ContentError::Other { .. } => Self::ForGood(Errno::NODATA),
            // The kernel looks again when it hears this.
            ContentError::TakenBack => Self::ForGood(Errno::STALE),
            ContentError::NoName | ContentError::Open { .. } => Self::Now,
            ContentError::NoStore | ContentError::Packed(_) | ContentError::Catalog(_) => {
                tracing::warn!(%error, "a content of the past cannot be read");
                Self::ForGood(Errno::IO)
            }
        }
    }
}

/// What the catalog has of a version, the live file that has its bytes, and these, open.
type Opening = (VersionFacts, Option<(VersionKey, LiveHead)>, Content);

impl Fs {
    /// Opens a file of a view for reading.
    pub(in crate::fs) fn open_in_view(&self, id: NodeId) -> Result<Opened, Errno> {
        let node = self.views.get(id)?;
        if node.attr.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        let version = node.version();
        let bytes = match version {
            Some(version) => self.bytes_of(version)?,
            None => Bytes::None,
        };
        let file = ViewFile { _node: node, version, bytes: Mutex::new(Arc::new(bytes)) };
        let fh = self.views.files.insert(Arc::new(file)).in_views();
        Ok(Opened { fh, mode: OpenMode::Immutable, flush: Flush::Needless, backing: None })
    }

    /// The end of an open file of a view.
    pub(in crate::fs) fn release_in_view(&self, fh: Fh) {
        // Unknown numbers are the kernel's business.
        let _ = self.views.files.remove(fh.of_views());
    }

    /// Reads as many bytes as there are, up to `buffer.len()`.
    pub(in crate::fs) fn read_in_view(
        &self,
        fh: Fh,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Errno> {
        let file = self.views.files.get(fh.of_views())?;
        let Some(version) = file.version else { return Ok(0) };
        let left = usize::try_from(version.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(buffer.len());
        for _ in 0..TRIES {
            let bytes = Arc::clone(&file.bytes.lock());
            let read = bytes.read(&mut buffer[..length], offset);
            if !self.are_still(&bytes)? {
                *file.bytes.lock() = Arc::new(self.bytes_of(version)?);
                continue;
            }
            // What is shorter than it was is damaged; a hole would hide it.
            return if read? == length { Ok(length) } else { Err(Errno::IO) };
        }
        Err(Errno::IO)
    }

    /// The next data or hole: there are no holes to tell of.
    pub(in crate::fs) fn lseek_in_view(
        &self,
        fh: Fh,
        offset: u64,
        whence: i32,
    ) -> Result<u64, Errno> {
        let file = self.views.files.get(fh.of_views())?;
        let size = file.version.map_or(0, |version| version.size);
        match whence {
            _ if offset >= size => Err(Errno::NXIO),
            libc::SEEK_DATA => Ok(offset),
            libc::SEEK_HOLE => Ok(size),
            _ => Err(Errno::INVAL),
        }
    }

    /// Finds the bytes of a version, wherever they are by now.
    fn bytes_of(&self, version: Version) -> Result<Bytes, Errno> {
        if version.size == 0 {
            return Ok(Bytes::None);
        }
        for tries in 0..TRIES {
            if tries > 0 {
                std::thread::sleep(PAUSE);
            }
            match self.bytes_now(version) {
                Ok(bytes) => return Ok(bytes),
                Err(Failed::Now) => {}
                Err(Failed::ForGood(error)) => return Err(error),
            }
        }
        Err(Errno::IO)
    }

    fn bytes_now(&self, version: Version) -> Result<Bytes, Failed> {
        let (facts, head, content) = self.open_version(version.key)?;
        if Version::of(version.key, &facts) != version {
            // The session that made it has gone on.
            return Err(Errno::STALE.into());
        }
        let Some((at, head)) = head else { return Ok(self.kept(content, &facts)?) };
        if let Some(expected) = self.expected(at, head)? {
            let bytes = Bytes::Live(content, expected);
            if self.are_still(&bytes)? {
                return Ok(bytes);
            }
        }
        if let Some(held) = self.held(at, head)? {
            return Ok(Bytes::Kept(Content::File(held)));
        }
        let (_, _, content) = self.open_version(version.key)?;
        match whole(&content, &facts)? {
            Some(read) => Ok(Bytes::Read(read)),
            None => Err(Failed::Now),
        }
    }

    fn open_version(&self, key: VersionKey) -> Result<Opening, Failed> {
        let opened = self.catalog.read::<_, CatalogError>(|reader| {
            let (Some(facts), Some((at, source))) =
                (reader.version_facts(key)?, reader.bytes_of(key)?)
            else {
                return Ok(Err(ContentError::TakenBack));
            };
            let head = match source {
                Source::Head => reader.live_head(at.0)?.map(|head| (at, head)),
                _ => None,
            };
            Ok(self.views.contents.open(reader, key).map(|content| (facts, head, content)))
        });
        Ok(opened.map_err(ContentError::from)??)
    }

    /// What was kept, if it is what it was.
    fn kept(&self, content: Content, facts: &VersionFacts) -> Result<Bytes, Errno> {
        let changing = content.file().is_some_and(|file| self.is_being_changed(file));
        match whole(&content, facts)? {
            Some(read) if changing => Ok(Bytes::Read(read)),
            Some(_) => Ok(Bytes::Kept(content)),
            None if changing => Err(Errno::IO),
            None if facts.hash.is_some() && facts.size <= CHECKED => {
                tracing::warn!(size = facts.size, "what was kept of a version has changed");
                Err(Errno::IO)
            }
            None => Ok(Bytes::Kept(content)),
        }
    }

    /// What a live file is as long as it has the content of its newest version `at`.
    fn expected(&self, at: VersionKey, head: LiveHead) -> Result<Option<Expected>, Failed> {
        let LiveHead { key, stamp, sealed } = head;
        if stamp.is_some() {
            return Ok(Some(Expected { key, stamp, sealed }));
        }
        // Its digest is on its way.
        let Some(node) = self.nodes.find_anywhere(key) else {
            return Ok(Some(Expected { key, stamp, sealed }));
        };
        let last_seal = || node.peek_open(|open| (open.seals, open.sealed)).unwrap_or_default();
        let before = last_seal();
        let is_newest = self.is_head(at)?;
        let same = before == last_seal();
        Ok(Some(Expected { key, stamp: before.1, sealed }).filter(|_| is_newest && same))
    }

    /// Whether a version is the newest of a live file, after all that was done before.
    fn is_head(&self, at: VersionKey) -> Result<bool, Errno> {
        Ok(self.look_back(|reader| reader.source(at.0, at.1))? == Some(Source::Head))
    }

    /// The copy that was made of the newest version of a file before somebody could change it.
    fn held(&self, at: VersionKey, head: LiveHead) -> Result<Option<OwnedFd>, Failed> {
        let Some(node) = self.nodes.find_anywhere(head.key) else { return Ok(None) };
        let Some((seals, copy)) = self.held_copy(&node) else { return Ok(None) };
        let is_newest = self.is_head(at)?;
        // Nobody has sealed since: it is a copy of what the catalog means.
        let same = self.held_copy(&node).is_some_and(|(now, _)| now == seals);
        Ok(Some(copy).filter(|_| is_newest && same))
    }

    /// Whether bytes that were read are those of the version, for all that is known.
    fn are_still(&self, bytes: &Bytes) -> Result<bool, Errno> {
        match bytes {
            Bytes::None | Bytes::Read(_) => Ok(true),
            Bytes::Live(content, expected) => match content.file() {
                Some(file) => self.is_as_expected(file, expected),
                None => Ok(false),
            },
            // An inode that lost its name can still be open.
            Bytes::Kept(content) => {
                Ok(content.file().is_none_or(|file| !self.is_being_changed(file)))
            }
        }
    }

    fn is_as_expected(&self, file: BorrowedFd<'_>, expected: &Expected) -> Result<bool, Errno> {
        let node = self.nodes.find_anywhere(expected.key);
        if let Some(node) = &node {
            // Whoever is about to tell the catalog of a change has told it then.
            drop(node.sealing.lock());
        }
        let attr = stat::fstat(file)?.attr;
        let changing = node.as_ref().and_then(|node| node.peek_open(OpenState::is_changing));
        let unchanged = match expected.stamp {
            Some(stamp) => attr.stamp() == stamp,
            None => changing != Some(true) && (attr.size, attr.mtime.as_ns()) == expected.sealed,
        };
        let hidden = node.is_some_and(|node| self.may_hide_changes(&node));
        Ok(attr.ino == expected.key.ino && unchanged && !hidden)
    }

    /// Whether the content of a node may change, or have changed, with the times as they are.
    fn may_hide_changes(&self, node: &Node) -> bool {
        let look = |open: &OpenState| {
            let writers: Vec<_> = open.writers.iter().filter_map(Weak::upgrade).collect();
            (open.seals, writers, !open.mapped.is_empty())
        };
        let Some((seals, writers, mapped)) = node.peek_open(look) else { return false };
        // The first store to a page of a mapping moves the times, and those after a seal do not.
        let stores_unseen = |session: &Session| {
            session.mappable && (self.silent_mappings || seals != session.state.lock().seals)
        };
        let mut maybe_mapped = writers.iter().filter(|file| file.backing.is_some());
        mapped
            || (self.coarse_times && !writers.is_empty())
            || maybe_mapped.any(|file| file.session.as_ref().is_some_and(stores_unseen))
    }

    /// Whether somebody has an inode open who can change it.
    fn is_being_changed(&self, file: BorrowedFd<'_>) -> bool {
        let Ok(found) = stat::fstat(file) else { return true };
        let node = self.nodes.peek(found.fs.dev, found.attr.ino);
        node.and_then(|node| node.peek_open(OpenState::is_changing)) == Some(true)
    }
}

impl Bytes {
    /// Fills the buffer as far as there is anything.
    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        match self {
            Self::None => Ok(0),
            Self::Kept(content) | Self::Live(content, _) => read_full(content, buffer, offset),
            Self::Read(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let count = buffer.len().min(bytes.len() - start);
                buffer[..count].copy_from_slice(&bytes[start..start + count]);
                Ok(count)
            }
        }
    }
}

fn read_full(content: &Content, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut count = 0;
    while count < buffer.len() {
        match content.read_at(&mut buffer[count..], offset + count as u64)? {
            0 => break,
            n => count += n,
        }
    }
    Ok(count)
}

/// All bytes of a small version, if they are those of its digest.
fn whole(content: &Content, facts: &VersionFacts) -> Result<Option<Vec<u8>>, Errno> {
    let (Some(hash), true) = (facts.hash, facts.size <= CHECKED) else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(facts.size).map_err(|_| Errno::FBIG)?];
    let count = read_full(content, &mut bytes, 0)?;
    let found = ContentHash::from(Sha256::new_with_prefix(&bytes[..count]));
    Ok((count == bytes.len() && found == hash).then_some(bytes))
}
