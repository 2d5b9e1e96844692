//! Reading what is verified.
//!
//! Owns reading past the page cache: what others have there stays, and what is compared is what is on the
//! disk. Where a filesystem cannot do that, what was read is dropped again. Moves no access time.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use super::super::examine::is_busy;
use super::super::hashing::open_to_read;
use super::super::lookup::open_path;
use super::super::{Fs, identify};
use super::finding::Place;
use super::{Run, Trouble, VerifyError};
use crate::catalog::Head;
use crate::content::Content;
use crate::store::Store;
use crate::store::pack::{Key, PackError, PackReader};
use crate::sys::{Errno, stat};
use crate::types::path::split;
use crate::types::{Attr, ContentHash};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// What buffers and offsets must be multiples of to be read past the page cache.
const ALIGNED: usize = 4096;

/// Something to be read once.
struct Uncached {
    content: Content,
    direct: bool,
    buffer: Vec<u8>,
}

impl Uncached {
    fn new(content: Content) -> Self {
        let set = |file| fcntl_setfl(file, fcntl_getfl(file)? | OFlags::DIRECT);
        let direct = content.file().is_some_and(|file| set(file).is_ok());
        let mut this = Self { content, direct, buffer: vec![0; CHUNK + ALIGNED] };
        this.drop_pages();
        this
    }

    fn drop_pages(&mut self) {
        if let (Some(file), false) = (self.content.file(), self.direct) {
            // It is only advice.
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
    }

    fn read(&mut self, offset: u64) -> Result<&[u8], Errno> {
        let start = self.buffer.as_ptr().align_offset(ALIGNED).min(ALIGNED);
        let n = match self.content.read_at(&mut self.buffer[start..start + CHUNK], offset) {
            Err(Errno::INVAL) if self.direct => {
                self.direct = false;
                if let Some(file) = self.content.file() {
                    fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?;
                }
                self.content.read_at(&mut self.buffer[start..start + CHUNK], offset)?
            }
            read => read?,
        };
        Ok(&self.buffer[start..start + n])
    }
}

impl Drop for Uncached {
    fn drop(&mut self) {
        self.drop_pages();
    }
}

/// What a live file was found to be.
enum Looked {
    /// What the catalog says.
    Same,
    /// Changed around the mount.
    External(&'static str),
    /// Somebody is at it.
    Busy,
    /// Not what the catalog says, with nothing to show for it.
    Rotten(Trouble, String),
}

impl Run<'_, '_> {
    /// Reads a content to its end, or to `limit`; the filesystem's error if it cannot be read.
    fn digest_of(
        &self,
        content: Content,
        limit: u64,
    ) -> Result<Result<(ContentHash, u64), Errno>, VerifyError> {
        let (mut hasher, mut offset) = (Sha256::new(), 0);
        let mut content = Uncached::new(content);
        while offset < limit {
            let bytes = match content.read(offset) {
                Ok(bytes) => bytes,
                Err(error) => return Ok(Err(error)),
            };
            let room = usize::try_from(limit - offset).unwrap_or(CHUNK);
            let bytes = &bytes[..bytes.len().min(room)];
            if bytes.is_empty() {
                break;
            }
            hasher.update(bytes);
            let n = bytes.len() as u64;
            offset += n;
            self.tick(n)?;
        }
        Ok(Ok((hasher.into(), offset)))
    }

    /// Reads a packed content from the disk; what is wrong if it cannot be read.
    fn digest_of_packed(
        &self,
        reader: &PackReader,
        hash: ContentHash,
    ) -> Result<Result<(ContentHash, u64), PackError>, VerifyError> {
        let (mut hasher, mut offset, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
        let recipe = match reader.recipe(hash) {
            Ok(Some(recipe)) => recipe,
            Ok(None) => return Ok(Err(PackError::Unknown { key: Key::recipe(hash) })),
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let n = match reader.read_at(&recipe, offset, &mut buffer) {
                Ok(0) => return Ok(Ok((hasher.into(), offset))),
                Ok(n) => n,
                Err(error) => return Ok(Err(error)),
            };
            hasher.update(&buffer[..n]);
            offset += n as u64;
            self.tick(n as u64)?;
        }
    }

    /// Whether a content begins with what has this digest and size.
    pub(super) fn is_content(
        &self,
        content: &Content,
        (hash, size): (ContentHash, u64),
    ) -> Result<bool, VerifyError> {
        let (mut hasher, mut offset, mut buffer) = (Sha256::new(), 0, vec![0; CHUNK]);
        while offset < size {
            let room = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
            let Ok(n @ 1..) = content.read_at(&mut buffer[..room], offset) else {
                return Ok(false);
            };
            hasher.update(&buffer[..n]);
            offset += n as u64;
            self.tick(n as u64)?;
        }
        Ok(ContentHash::from(hasher) == hash)
    }

    /// Opens a copy.
    pub(super) fn open_copy(
        &self,
        hash: ContentHash,
        place: &Place,
    ) -> Result<Option<Content>, VerifyError> {
        let content = match place {
            Place::Version(version) => {
                let open = |reader: &crate::catalog::Reader| {
                    Ok::<_, crate::catalog::CatalogError>(self.contents.open(reader, *version).ok())
                };
                self.fs.catalog.read_committed(open)?
            }
            Place::Object => {
                self.fs.store.as_ref().and_then(|store| open_object(store, hash).ok().flatten())
            }
            Place::File(file) => file.try_clone().ok().map(Content::File),
        };
        if let Some(file) = content.as_ref().and_then(Content::file) {
            // It is not read for its users.
            let _ = fcntl_getfl(file).and_then(|flags| fcntl_setfl(file, flags | OFlags::NOATIME));
        }
        Ok(content)
    }

    /// Compares an object with its digest.
    pub(super) fn look_at_object(
        &self,
        store: &Store,
        hash: ContentHash,
        size: u64,
    ) -> Result<Option<(Trouble, String)>, VerifyError> {
        /// What is on its way from one place to another is there before long.
        const TRIES: usize = 25;
        const PAUSE: Duration = Duration::from_millis(20);
        for _ in 0..TRIES {
            match open_object(store, hash) {
                Ok(None) => std::thread::sleep(PAUSE),
                // The packs were read as a whole.
                Ok(Some(Content::Packed(packed)))
                    if packed.size_bytes() == size && self.state.borrow().pack_damages == 0 =>
                {
                    return Ok(None);
                }
                Ok(Some(Content::Packed(_))) => {
                    let packs = store.packs().map(|packs| packs.fresh_reader());
                    let Some(reader) = packs else { return Ok(None) };
                    return Ok(match self.digest_of_packed(&reader, hash)? {
                        Ok(found) if found == (hash, size) => None,
                        Ok((found, length)) => {
                            Some((Trouble::Damaged, format!("it has {length} bytes of {found}")))
                        }
                        Err(error) => Some((Trouble::Damaged, error.to_string())),
                    });
                }
                Ok(Some(content)) => {
                    return Ok(match self.digest_of(content, u64::MAX)? {
                        Ok(found) if found == (hash, size) => None,
                        Ok((found, length)) => {
                            Some((Trouble::Damaged, format!("it has {length} bytes of {found}")))
                        }
                        Err(error) => Some((Trouble::Unreadable, error.to_string())),
                    });
                }
                Err(found) => return Ok(Some(found)),
            }
            if self.ask(|reader| reader.stored_size(hash))?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some((Trouble::Missing, "it is not in the store".into())))
    }

    /// Compares a live file with the digest of its head.
    pub(super) fn look_at_head(&self, head: &Head) -> Result<(), VerifyError> {
        let path = self.ask(|reader| {
            let now = reader.seq()?;
            reader.path_of(head.version.0, now)
        })?;
        let (Some(hash), Some(path)) = (head.hash, path) else { return self.skip() };
        if head.stamp.ctime_ns == 0 {
            return self.skip();
        }
        let (dir, name) = split(&path);
        let looked = self.compare_head(head, hash, dir, name)?;
        if matches!(looked, Looked::Same) {
            self.state.borrow_mut().files += 1;
            return Ok(());
        }
        // What has changed since the catalog was asked is no finding.
        self.fs.catalog.barrier();
        if self.ask(|reader| reader.head_of(head.version.0))?.as_ref() != Some(head) {
            return self.skip();
        }
        match looked {
            Looked::Same | Looked::Busy => self.skip(),
            Looked::External(detail) => {
                match self.fs.open_dir_path(dir) {
                    Ok((dir, key)) => self.fs.observe(&dir, key, name),
                    Err(_) => self.fs.catalog.wish_reconcile(),
                }
                self.found_external(&path, detail)
            }
            Looked::Rotten(trouble, detail) => {
                self.state.borrow_mut().files += 1;
                self.found_rot(head, &path, hash, (trouble, detail))
            }
        }
    }

    fn skip(&self) -> Result<(), VerifyError> {
        self.state.borrow_mut().skipped += 1;
        Ok(())
    }

    fn compare_head(
        &self,
        head: &Head,
        hash: ContentHash,
        dir: &[u8],
        name: &[u8],
    ) -> Result<Looked, VerifyError> {
        let (fd, attr) = match self.fs.find_head(head, dir, name) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.fs.catalog.wish_reconcile();
                return Ok(Looked::External("it is gone"));
            }
            Err(Errno::STALE) => return Ok(Looked::External("another file has its name")),
            Err(error) => return Ok(Looked::Rotten(Trouble::Unreadable, error.to_string())),
        };
        if self.fs.is_in_use(head, &fd) {
            return Ok(Looked::Busy);
        }
        if attr.stamp() != head.stamp {
            return Ok(Looked::External("its size or times are others"));
        }
        let read = match open_to_read(&fd) {
            Ok(file) => self.digest_of(Content::File(file), u64::MAX)?,
            Err(error) => Err(error),
        };
        let unchanged = stat::fstat(&fd).is_ok_and(|stat| stat.attr.stamp() == head.stamp);
        if !unchanged || self.fs.is_in_use(head, &fd) {
            return Ok(Looked::Busy);
        }
        Ok(match read {
            Ok((found, length)) if (found, length) == (hash, head.stamp.size) => Looked::Same,
            Ok((found, _)) => Looked::Rotten(
                Trouble::BitRot,
                format!("its bytes are {found}, its times are not new"),
            ),
            Err(error) => Looked::Rotten(Trouble::Unreadable, error.to_string()),
        })
    }
}

impl Fs {
    /// The inode of a head, by its path.
    ///
    /// # Errors
    /// `ESTALE` if another one is there; the backing filesystem's.
    pub(super) fn find_head(
        &self,
        head: &Head,
        dir: &[u8],
        name: &[u8],
    ) -> Result<(OwnedFd, Attr), Errno> {
        let (dir, _) = self.open_dir_path(dir)?;
        let fd = open_path(dir.as_fd(), name)?;
        let stat = stat::fstat(&fd)?;
        let (key, _) = identify(fd.as_fd(), &stat, self.handles, self.root_fs.dev)?;
        if key == head.key { Ok((fd, stat.attr)) } else { Err(Errno::STALE) }
    }

    /// Whether users of the mount may be changing a head.
    pub(super) fn is_in_use(&self, head: &Head, fd: &OwnedFd) -> bool {
        let dev = stat::fstat(fd).map_or(self.root_fs.dev, |stat| stat.fs.dev);
        self.nodes.find(dev, head.key).is_some_and(|node| is_busy(&node))
    }
}

/// Opens an object, wherever it is; `None` if it is nowhere.
fn open_object(store: &Store, hash: ContentHash) -> Result<Option<Content>, (Trouble, String)> {
    match retry_on_intr(|| store.open_object(hash)) {
        Ok(file) => Ok(Some(Content::File(file))),
        Err(Errno::NOENT) => match store.open_packed(hash) {
            Ok(packed) => Ok(packed.map(Content::Packed)),
            Err(error) => Err((Trouble::Damaged, error.to_string())),
        },
        Err(error) => Err((Trouble::Unreadable, error.to_string())),
    }
}
