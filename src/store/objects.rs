//! Objects: whole contents, each a file that is named by its digest.
//!
//! Owns `store/incoming/`, where content is preserved before it is looked at, and `store/objects/`, where
//! it stays. Both lie on the backing filesystem, so that an inode can be moved in and blocks can be
//! shared. What is in `objects` was read whole, and had the digest that is its name.
//!
//! # Order of steps
//! `into incoming → what destroys the content → (later) read → sync of what was copied → owner and mode
//! → row in the catalog → into objects`. A crash leaves the content in `incoming`, where the next start
//! finds it and takes it in; at worst it is there although nothing was destroyed, and becomes an object
//! beside the live file. It has its name among the objects only when the catalog knows that: what its
//! digest is, nobody could tell from a version that had none yet. What had been on the disk stays on
//! the disk; of a copy, a power cut can take what was not synced yet, and then its digest tells.

mod mend;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use sha2::{Digest, Sha256};

use super::pack::{ChunkIndex, PackError};
use super::packs::{Packed, Packs};
use super::staging::Staging;
use crate::sys::dir::make_private;
use crate::sys::writeback::begin_writing_back;
use crate::sys::{Errno, stat};
use crate::types::{ContentHash, IncomingId};

pub use mend::MendError;

/// Bytes read or copied at a time.
const CHUNK: usize = 1 << 20;
/// The directory of packs in that of the store.
const PACKS: &str = "packs";

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the store directory `{name}`")]
pub struct StoreError {
    /// The directory.
    name: &'static str,
    /// The filesystem's reason.
    source: Errno,
}

/// How content came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// With its inode: what of it was on the disk still is.
    AsInode,
    /// As a copy, or nobody knows.
    AsCopy,
}

/// What was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Its digest.
    pub hash: ContentHash,
    /// Size in bytes.
    pub size: u64,
    /// Its modification time, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The digest of its beginning, where that was asked for.
    pub beginning: Option<ContentHash>,
}

/// What was read, and can be taken in once the disk has it.
#[derive(Debug)]
pub struct ReadIn {
    /// What it is.
    pub taken: Taken,
    /// Its file, if the disk may lack some of it.
    unsynced: Option<OwnedFd>,
}

impl ReadIn {
    /// Waits until the disk has it.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn sync(&self) -> Result<(), Errno> {
        self.unsynced.as_ref().map_or(Ok(()), rustix::fs::fdatasync)
    }
}

/// Why content was not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyError {
    /// It cannot share blocks, and is larger than what may be copied.
    TooLarge,
    /// The filesystem's reason.
    Failed(Errno),
}

impl From<Errno> for CopyError {
    fn from(error: Errno) -> Self {
        Self::Failed(error)
    }
}

/// The preserved content of one backing directory.
#[derive(Debug)]
pub struct Store {
    dir: OwnedFd,
    incoming: OwnedFd,
    objects: OwnedFd,
    staging: Staging,
    packs: Option<Arc<Packs>>,
    next: AtomicU64,
    /// What need not be kept, and could not be removed yet. Locked alone.
    unwanted: Mutex<Vec<IncomingId>>,
}

impl Store {
    /// Opens the store in `own`, Horace's own directory on the backing filesystem, made if missing.
    ///
    /// # Errors
    /// If a directory cannot be made or read.
    pub fn open(own: BorrowedFd<'_>) -> Result<Self, StoreError> {
        let store = open_dir(own, "store")?;
        let incoming = open_dir(store.as_fd(), "incoming")?;
        let objects = open_dir(store.as_fd(), "objects")?;
        let staging = Staging::new(open_dir(store.as_fd(), "restoring")?);
        let next = AtomicU64::new(1);
        let unwanted = Mutex::default();
        let this = Self { dir: store, incoming, objects, staging, packs: None, next, unwanted };
        let left = this.incoming().map_err(|source| StoreError { name: "incoming", source })?;
        let last = left.iter().map(|id| id.0).max().unwrap_or(0);
        this.next.store(last + 1, Ordering::Relaxed);
        Ok(this)
    }

    /// Where files are made that are to be moved to a name.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Has the packs of this store, made if missing, to read from and to change.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn with_packs(self, index: Arc<dyn ChunkIndex>) -> Result<Self, PackError> {
        let packs = Packs::open(&self.packs_path(), index)?;
        Ok(Self { packs: Some(Arc::new(packs)), ..self })
    }

    /// Has the packs of this store to read from alone, if there are any.
    ///
    /// # Errors
    /// The filesystem's or the index's.
    pub fn with_packs_to_read(self, index: Arc<dyn ChunkIndex>) -> Result<Self, PackError> {
        match Packs::open_to_read(&self.packs_path(), index) {
            Ok(packs) => Ok(Self { packs: Some(Arc::new(packs)), ..self }),
            Err(PackError::Missing { .. }) => Ok(self),
            Err(error) => Err(error),
        }
    }

    fn packs_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{PACKS}", self.dir.as_raw_fd()).into()
    }

    /// Its packs, if it has any.
    pub fn packs(&self) -> Option<&Arc<Packs>> {
        self.packs.as_ref()
    }

    /// Keeps new names apart from those that somebody still remembers.
    pub fn skip_to(&self, after: IncomingId) {
        self.next.fetch_max(after.0 + 1, Ordering::Relaxed);
    }

    /// Everything that waits to be taken in.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn incoming(&self) -> Result<Vec<IncomingId>, Errno> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.incoming)? {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
                found.push(IncomingId(id));
            }
        }
        Ok(found)
    }

    fn new_id(&self) -> IncomingId {
        IncomingId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Moves a name in, and with it its inode.
    ///
    /// # Errors
    /// The filesystem's; the name is where it was then.
    pub fn move_in(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<IncomingId, Errno> {
        let id = self.new_id();
        rustix::fs::renameat(dir, name, &self.incoming, &*incoming_name(id))?;
        Ok(id)
    }

    /// Gives an inode, which may be open by `O_PATH`, another name among the incoming.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn link_in(&self, inode: impl AsFd) -> Result<IncomingId, Errno> {
        let id = self.new_id();
        let (path, follow) = (stat::proc_name(&inode), AtFlags::SYMLINK_FOLLOW);
        rustix::fs::linkat(CWD, path, &self.incoming, &*incoming_name(id), follow)?;
        Ok(id)
    }

    /// Copies the content of a file that is open for reading: by sharing its blocks, else byte by
    /// byte if there are at most `limit`.
    ///
    /// # Errors
    /// [`CopyError::TooLarge`]; the filesystem's.
    pub fn copy_in(&self, file: BorrowedFd<'_>, limit: u64) -> Result<IncomingId, CopyError> {
        let id = self.new_id();
        let name = incoming_name(id);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let private = Mode::from_raw_mode(0o400);
        let copy = rustix::fs::openat(&self.incoming, &*name, flags, private)?;
        let shared = rustix::fs::ioctl_ficlone(&copy, file);
        let copied = shared.or_else(|_| copy_bytes(file, &copy, limit));
        if let Err(error) = copied {
            self.discard(id);
            return Err(error);
        }
        Ok(id)
    }

    /// Forgets what need not be kept. What cannot be removed is tried again with the next, and by
    /// [`discard_rest`](Self::discard_rest).
    pub fn discard(&self, id: IncomingId) {
        self.unwanted.lock().push(id);
        self.discard_rest();
    }

    /// Removes what could not be removed before.
    pub fn discard_rest(&self) {
        let mut unwanted = self.unwanted.lock();
        while let Some(id) = unwanted.last().copied() {
            match rustix::fs::unlinkat(&self.incoming, &*incoming_name(id), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => drop(unwanted.pop()),
                Err(error) => {
                    tracing::warn!(%error, id = id.0, "cannot remove what need not be kept");
                    return;
                }
            }
        }
    }

    /// Opens what waits to be taken in.
    ///
    /// # Errors
    /// `ENOENT` once it was taken in or discarded; the filesystem's.
    pub fn open_incoming(&self, id: IncomingId) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.incoming, &*incoming_name(id), READ, Mode::empty())
    }

    /// Forgets what has another name: it is somebody's, as a crash between two steps leaves it. Returns
    /// whether it has.
    ///
    /// # Errors
    /// `ENOENT` if it does not wait any more; the filesystem's.
    pub fn let_go_if_linked(&self, id: IncomingId) -> Result<bool, Errno> {
        let linked = stat::fstat(self.open_incoming(id)?)?.attr.nlink > 1;
        if linked {
            self.discard(id);
        }
        Ok(linked)
    }

    /// Reads what was preserved, and makes it ready to be [taken in](Store::take_in); also the digest of its first
    /// `mark` bytes. Nobody may be changing it any more. Asks `go_on` between reads. `None` if it has another
    /// name, and [is only let go](Store::let_go_if_linked).
    ///
    /// # Errors
    /// `EINTR` if it is not to go on; the filesystem's.
    pub fn read_in(
        &self,
        id: IncomingId,
        came: Came,
        mark: Option<u64>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<ReadIn>, Errno> {
        if self.let_go_if_linked(id)? {
            return Ok(None);
        }
        let file = self.open_incoming(id)?;
        let mtime_ns = stat::fstat(&file)?.attr.mtime.as_ns();
        let (hash, size, beginning) = read_marked(file.as_fd(), mark, go_on)?;
        if came == Came::AsCopy {
            begin_writing_back(file.as_fd());
        }
        // It is history's from now on: no user's quota, and nobody's to read.
        match rustix::fs::fchown(&file, Some(Uid::ROOT), Some(Gid::ROOT)) {
            // Where a user mounts for himself, it stays his.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(0o400))?;
        let taken = Taken { hash, size, mtime_ns, beginning };
        Ok(Some(ReadIn { taken, unsynced: (came == Came::AsCopy).then_some(file) }))
    }

    /// Makes an object of what was [read](Store::read_in).
    ///
    /// # Errors
    /// The filesystem's.
    pub fn take_in(&self, id: IncomingId, hash: ContentHash) -> Result<(), Errno> {
        let (dir, name) = self.place(hash, Make::Yes)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let from = incoming_name(id);
        match rustix::fs::renameat_with(&self.incoming, &*from, &dir, &*name, flags) {
            // The same bytes are there already.
            Err(Errno::EXIST) => self.discard(id),
            Err(Errno::INVAL) => rustix::fs::renameat(&self.incoming, &*from, &dir, &*name)?,
            renamed => renamed?,
        }
        Ok(())
    }

    /// Opens an object for reading. Its bytes are to be checked by whoever reads them.
    ///
    /// # Errors
    /// `ENOENT` if there is none; the filesystem's.
    pub fn open_object(&self, hash: ContentHash) -> Result<OwnedFd, Errno> {
        let (dir, name) = self.place(hash, Make::No)?;
        rustix::fs::openat(dir, &*name, READ, Mode::empty())
    }

    /// Opens a content that is packed; `None` if it is not.
    ///
    /// # Errors
    /// If the packs cannot be read.
    pub fn open_packed(&self, hash: ContentHash) -> Result<Option<Packed>, PackError> {
        self.packs.as_ref().map_or(Ok(None), |packs| packs.open_content(hash))
    }

    /// Whether an object has a file of its own that is what it should be.
    ///
    /// # Errors
    /// The filesystem's: nobody can tell.
    pub fn has_whole(&self, hash: ContentHash) -> Result<bool, Errno> {
        match self.open_object(hash).and_then(|file| read_whole(file.as_fd(), &|| true)) {
            Ok((found, _)) => Ok(found == hash),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The digests and sizes in bytes of the objects whose digests begin with a byte.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn objects_beginning(&self, byte: u8) -> Result<Vec<(ContentHash, u64)>, Errno> {
        let prefix = data_encoding::HEXLOWER.encode(&[byte]);
        let dir = match rustix::fs::openat(&self.objects, &*prefix, DIR, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Vec::new()),
            result => result?,
        };
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Ok(hash) = format!("{prefix}{}", name.to_string_lossy()).parse() else { continue };
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            found.push((hash, stat.st_size.cast_unsigned()));
        }
        Ok(found)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// The filesystem's, but for that it was gone already.
    pub fn remove(&self, hash: ContentHash) -> Result<(), Errno> {
        let removed = self
            .place(hash, Make::No)
            .and_then(|(dir, name)| rustix::fs::unlinkat(dir, &*name, AtFlags::empty()));
        match removed {
            Err(Errno::NOENT) => Ok(()),
            result => result,
        }
    }

    /// The directory of an object, and its name there.
    fn place(&self, hash: ContentHash, make: Make) -> Result<(OwnedFd, String), Errno> {
        let text = hash.to_string();
        let (dir, name) = text.split_at(2);
        let open = || rustix::fs::openat(&self.objects, dir, DIR, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) if make == Make::Yes => {
                make_private(&self.objects, dir)?;
                open()?
            }
            opened => opened?,
        };
        Ok((opened, name.into()))
    }
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const DIR: OFlags = READ.union(OFlags::DIRECTORY);

/// Whether a directory that is missing is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    Yes,
    No,
}

fn open_dir(at: BorrowedFd<'_>, name: &'static str) -> Result<OwnedFd, StoreError> {
    let open = || {
        make_private(at, name)?;
        rustix::fs::openat(at, name, DIR, Mode::empty())
    };
    open().map_err(|source| StoreError { name, source })
}

fn incoming_name(id: IncomingId) -> String {
    id.0.to_string()
}

fn copy_bytes(file: BorrowedFd<'_>, copy: &OwnedFd, limit: u64) -> Result<(), CopyError> {
    if stat::fstat(file)?.attr.size > limit {
        return Err(CopyError::TooLarge);
    }
    let mut buffer = vec![0; CHUNK.min(usize::try_from(limit).unwrap_or(CHUNK)).max(1)];
    let mut offset = 0;
    loop {
        let n = read_some(file, &mut buffer, offset)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..n];
        while !rest.is_empty() {
            let written = rustix::io::pwrite(copy, rest, offset)?;
            offset += written as u64;
            rest = &rest[written..];
        }
    }
}

/// The digest and size in bytes of a file.
pub(super) fn read_whole(
    file: BorrowedFd<'_>,
    go_on: &dyn Fn() -> bool,
) -> Result<(ContentHash, u64), Errno> {
    read_marked(file, None, go_on).map(|(hash, size, _)| (hash, size))
}

/// The digest and size in bytes of a file, and the digest of its first `mark` bytes if it has more.
fn read_marked(
    file: BorrowedFd<'_>,
    mark: Option<u64>,
    go_on: &dyn Fn() -> bool,
) -> Result<(ContentHash, u64, Option<ContentHash>), Errno> {
    let size = usize::try_from(stat::fstat(file)?.attr.size).unwrap_or(CHUNK);
    let mut buffer = vec![0; (size + 1).min(CHUNK)];
    let mut hasher = Sha256::new();
    let (mut offset, mut beginning) = (0, None);
    loop {
        let before = mark.filter(|mark| *mark > offset).map_or(u64::MAX, |mark| mark - offset);
        let room = usize::try_from(before).unwrap_or(usize::MAX).min(buffer.len());
        let n = read_some(file, &mut buffer[..room], offset)?;
        if n == 0 {
            return Ok((hasher.into(), offset, beginning));
        }
        if mark == Some(offset) {
            beginning = Some(hasher.clone().into());
        }
        hasher.update(&buffer[..n]);
        offset += n as u64;
        if !go_on() {
            return Err(Errno::INTR);
        }
    }
}

fn read_some(file: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let own = File::open(dir.path()).unwrap();
        let store = Store::open(own.as_fd()).unwrap();
        (dir, store)
    }

    fn take_in(store: &Store, id: IncomingId) -> Result<Option<(ContentHash, u64)>, Errno> {
        Ok(take_in_marked(store, id, None)?.map(|taken| (taken.hash, taken.size)))
    }

    fn take_in_marked(
        store: &Store,
        id: IncomingId,
        mark: Option<u64>,
    ) -> Result<Option<Taken>, Errno> {
        let Some(read) = store.read_in(id, Came::AsCopy, mark, &|| true)? else { return Ok(None) };
        read.sync()?;
        store.take_in(id, read.taken.hash)?;
        Ok(Some(read.taken))
    }

    #[test]
    fn what_could_not_be_removed_is_removed_later() {
        let (dir, store) = store();
        let at = |id| dir.path().join("store/incoming").join(incoming_name(id));
        let (first, second) = (store.new_id(), store.new_id());
        // A directory is not removed as a file is.
        std::fs::create_dir(at(first)).unwrap();
        std::fs::write(at(second), "x").unwrap();
        store.discard(first);
        assert!(at(first).exists());
        std::fs::remove_dir(at(first)).unwrap();
        std::fs::write(at(first), "y").unwrap();
        store.discard_rest();
        assert!(!at(first).exists());
        store.discard(second);
        assert!(!at(second).exists());
    }

    fn bytes(fd: OwnedFd) -> Vec<u8> {
        let mut found = Vec::new();
        File::from(fd).read_to_end(&mut found).unwrap();
        found
    }

    #[test]
    fn content_comes_in_by_move_link_or_copy_and_is_had_by_its_digest() {
        let (dir, store) = store();
        let path = dir.path().join("f");
        let at = File::open(dir.path()).unwrap();
        for (content, how) in [("moved", 0), ("linked", 1), ("copied", 2)] {
            std::fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            let id = match how {
                0 => store.move_in(at.as_fd(), b"f").unwrap(),
                1 => {
                    let id = store.link_in(&file).unwrap();
                    std::fs::remove_file(&path).unwrap();
                    id
                }
                _ => store.copy_in(file.as_fd(), 100).unwrap(),
            };
            assert_eq!(path.exists(), how == 2);
            assert_eq!(bytes(store.open_incoming(id).unwrap()), content.as_bytes());
            let (hash, size) = take_in(&store, id).unwrap().unwrap();
            assert_eq!(size, content.len() as u64);
            assert_eq!(bytes(store.open_object(hash).unwrap()), content.as_bytes());
            assert_eq!(store.open_incoming(id).unwrap_err(), Errno::NOENT);
            store.remove(hash).unwrap();
            store.remove(hash).unwrap();
            assert_eq!(store.open_object(hash).unwrap_err(), Errno::NOENT);
            let _ = std::fs::remove_file(&path);
        }
        assert!(store.incoming().unwrap().is_empty());
    }

    #[test]
    fn the_same_bytes_are_one_object() {
        let (dir, store) = store();
        let path = dir.path().join("f");
        std::fs::write(&path, "twice").unwrap();
        let file = File::open(&path).unwrap();
        let ids = [0, 1].map(|_| store.copy_in(file.as_fd(), 100).unwrap());
        let taken = ids.map(|id| take_in(&store, id).unwrap().unwrap());
        assert_eq!(taken[0], taken[1]);
        let (hash, size) = taken[0];
        let beginning = |byte| store.objects_beginning(byte).unwrap();
        assert_eq!(beginning(hash.as_bytes()[0]), [(hash, size)]);
        assert_eq!(beginning(!hash.as_bytes()[0]), []);
        assert!(store.incoming().unwrap().is_empty());
        assert_eq!(bytes(store.open_object(taken[0].0).unwrap()), b"twice");
    }

    #[test]
    fn the_beginning_of_what_is_taken_in_is_told() {
        let (dir, store) = store();
        let path = dir.path().join("f");
        let content = vec![7; CHUNK + 10];
        std::fs::write(&path, &content).unwrap();
        let size = content.len() as u64;
        for mark in [1, CHUNK as u64 - 1, CHUNK as u64, size - 1, size, size + 1] {
            let file = File::open(&path).unwrap();
            let id = store.copy_in(file.as_fd(), u64::MAX).unwrap();
            let taken = take_in_marked(&store, id, Some(mark)).unwrap().unwrap();
            let digest = |bytes: &[u8]| ContentHash::from(Sha256::new_with_prefix(bytes));
            assert_eq!((taken.hash, taken.size), (digest(&content), size));
            let begins = (mark < size).then(|| digest(&content[..usize::try_from(mark).unwrap()]));
            assert_eq!(taken.beginning, begins, "{mark}");
        }
    }

    #[test]
    fn what_is_not_the_content_is_not_whole() {
        let (dir, store) = store();
        let path = dir.path().join("f");
        std::fs::write(&path, "whole").unwrap();
        let id = store.copy_in(File::open(&path).unwrap().as_fd(), 100).unwrap();
        let (hash, _) = take_in(&store, id).unwrap().unwrap();
        assert_eq!(store.has_whole(hash), Ok(true));
        let text = hash.to_string();
        let object = dir.path().join("store/objects").join(&text[..2]).join(&text[2..]);
        std::fs::remove_file(&object).unwrap();
        std::fs::write(&object, "whol").unwrap();
        assert_eq!(store.has_whole(hash), Ok(false));
        std::fs::remove_file(&object).unwrap();
        assert_eq!(store.has_whole(hash), Ok(false));
        std::fs::create_dir(&object).unwrap();
        assert_eq!(store.has_whole(hash), Err(Errno::ISDIR), "it cannot be told");
    }

    #[test]
    fn what_a_crash_left_is_found_and_its_name_not_used_again() {
        let (dir, store) = store();
        let path = dir.path().join("f");
        std::fs::write(&path, "left").unwrap();
        let id = store.copy_in(File::open(&path).unwrap().as_fd(), 100).unwrap();
        drop(store);
        let store = Store::open(File::open(dir.path()).unwrap().as_fd()).unwrap();
        assert_eq!(store.incoming().unwrap(), [id]);
        let next = store.copy_in(File::open(&path).unwrap().as_fd(), 100).unwrap();
        assert!(next > id);
        let stopped = store.read_in(id, Came::AsCopy, None, &|| false);
        assert_eq!(stopped.unwrap_err(), Errno::INTR);
        assert_eq!(store.incoming().unwrap().len(), 2);
    }

    #[test]
    fn what_is_somebodys_still_is_let_go_as_it_was() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let (dir, store) = store();
        let path = dir.path().join("f");
        std::fs::write(&path, "live").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        // For root alone to do.
        let _ = std::os::unix::fs::chown(&path, Some(1234), Some(1234));
        let before = std::fs::metadata(&path).unwrap();
        store.link_in(File::open(&path).unwrap()).unwrap();
        // As after a crash before the name was taken away.
        let store = Store::open(File::open(dir.path()).unwrap().as_fd()).unwrap();
        for id in store.incoming().unwrap() {
            assert_eq!(take_in(&store, id).unwrap(), None);
        }
        let found = std::fs::metadata(&path).unwrap();
        let facts = |found: &std::fs::Metadata| (found.mode(), found.uid(), found.nlink());
        assert_eq!(facts(&found), facts(&before));
        assert_eq!(std::fs::read(&path).unwrap(), b"live");
        assert!(store.incoming().unwrap().is_empty());
    }

    #[test]
    fn a_copy_has_its_limit() {
        let (dir, store) = store();
        let path = dir.path().join("f");
        std::fs::write(&path, "too much").unwrap();
        let file = File::open(&path).unwrap();
        let copied = store.copy_in(file.as_fd(), 7);
        // Where blocks can be shared there is none.
        assert!(matches!(copied, Ok(_) | Err(CopyError::TooLarge)), "{copied:?}");
        assert_eq!(store.incoming().unwrap().len(), usize::from(copied.is_ok()));
    }
}
