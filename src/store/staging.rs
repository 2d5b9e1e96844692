//! Files that are being made whole before they get their name.
//!
//! Owns `store/restoring/`, on the backing filesystem, so that a finished file can be moved to any name
//! there. What a crash leaves in it was nobody's yet: the next start removes it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use crate::sys::{Errno, stat};
use crate::types::ContentHash;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// Where files are made.
#[derive(Debug)]
pub struct Staging {
    dir: OwnedFd,
    next: AtomicU64,
}

impl Staging {
    /// Takes the directory that is for this alone.
    pub(super) fn new(dir: OwnedFd) -> Self {
        Self { dir, next: AtomicU64::new(1) }
    }

    /// Removes what a crash has left.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn clear(&self) -> Result<(), Errno> {
        for entry in rustix::fs::Dir::read_from(&self.dir)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                rustix::fs::unlinkat(&self.dir, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Begins a file, which only root can read.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn begin(&self) -> Result<Staged<'_>, Errno> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, &*name, flags, Mode::from_raw_mode(0o600))?;
        Ok(Staged { staging: self, name: Some(name), file })
    }
}

/// A file that is being made; without a name it goes away again.
#[derive(Debug)]
pub struct Staged<'s> {
    staging: &'s Staging,
    name: Option<String>,
    file: OwnedFd,
}

impl AsFd for Staged<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Staged<'_> {
    /// Takes the first `size_bytes` of a file by sharing its blocks.
    ///
    /// # Errors
    /// The filesystem's, which is mostly that it cannot.
    pub fn share(&self, from: BorrowedFd<'_>, size_bytes: u64) -> Result<(), Errno> {
        rustix::fs::ioctl_ficlone(&self.file, from)?;
        if stat::fstat(&self.file)?.attr.size > size_bytes {
            rustix::fs::ftruncate(&self.file, size_bytes)?;
        }
        Ok(())
    }

    /// Reads the whole file for its digest.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn digest(&self) -> Result<ContentHash, Errno> {
        super::objects::read_whole(self.as_fd(), &|| true).map(|(hash, _)| hash)
    }

    /// Copies `size_bytes` that `read_at` gives, and returns their digest; what is zero becomes a
    /// hole. Fewer bytes make a shorter file.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn copy(
        &self,
        size_bytes: u64,
        mut read_at: impl FnMut(&mut [u8], u64) -> Result<usize, Errno>,
    ) -> Result<ContentHash, Errno> {
        let mut buffer = vec![0; CHUNK.min(usize::try_from(size_bytes).unwrap_or(CHUNK)).max(1)];
        let mut hasher = Sha256::new();
        let mut offset = 0;
        while offset < size_bytes {
            let room = usize::try_from(size_bytes - offset).unwrap_or(CHUNK).min(buffer.len());
            let n = read_at(&mut buffer[..room], offset)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            if buffer[..n].iter().any(|byte| *byte != 0) {
                write_all(&self.file, &buffer[..n], offset)?;
            }
            offset += n as u64;
        }
        rustix::fs::ftruncate(&self.file, offset)?;
        Ok(hasher.into())
    }

    /// Moves the file to a name, in place of what is there.
    ///
    /// # Errors
    /// The filesystem's; nothing has changed then.
    pub fn move_to(mut self, dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
        if let Some(own) = &self.name {
            rustix::fs::renameat(&self.staging.dir, &**own, dir, name)?;
        }
        self.name = None;
        // Another descriptor of the same open file, so that this one can be dropped.
        rustix::io::fcntl_dupfd_cloexec(&self.file, 0)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(error) = rustix::fs::unlinkat(&self.staging.dir, &**name, AtFlags::empty())
        {
            tracing::warn!(%error, "a file that was not restored stays until the next start");
        }
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let n = retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))?;
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    fn staging() -> (tempfile::TempDir, Staging) {
        let dir = tempfile::tempdir().unwrap();
        let staging = Staging::new(File::open(dir.path()).unwrap().into());
        (dir, staging)
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let (dir, staging) = staging();
        let to = tempfile::tempdir_in(dir.path()).unwrap();
        let at = File::open(to.path()).unwrap();
        let staged = staging.begin().unwrap();
        let bytes = b"whole".repeat(1000);
        let read = |buffer: &mut [u8], offset: u64| {
            let rest = &bytes[usize::try_from(offset).unwrap()..];
            let n = rest.len().min(buffer.len()).min(700);
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        };
        let digest = staged.copy(3000, read).unwrap();
        assert_eq!(digest, ContentHash::from(Sha256::new_with_prefix(&bytes[..3000])));
        assert!(!to.path().join("f").exists());
        staged.move_to(at.as_fd(), b"f").unwrap();
        assert_eq!(std::fs::read(to.path().join("f")).unwrap(), &bytes[..3000]);
        drop(staging.begin().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "only the other directory");
    }

    #[test]
    fn zeros_take_no_space() {
        let (_dir, staging) = staging();
        let staged = staging.begin().unwrap();
        let zeros = |buffer: &mut [u8], _| {
            buffer.fill(0);
            Ok(buffer.len())
        };
        staged.copy(8 << 20, zeros).unwrap();
        let found = File::from(rustix::io::dup(&staged.file).unwrap()).metadata().unwrap();
        assert_eq!((found.size(), found.blocks()), (8 << 20, 0));
    }

    #[test]
    fn what_a_crash_left_is_cleared_away() {
        let (dir, staging) = staging();
        std::fs::write(dir.path().join("7"), "left").unwrap();
        staging.clear().unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
