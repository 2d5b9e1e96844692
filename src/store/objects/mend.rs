//! Objects that are damaged, and putting them right.
//!
//! Owns `store/damaged/`, where a damaged object goes before another takes its place. Never removes or
//! overwrites anything, and gives no name to bytes that it has not compared with it.
//!
//! # Order of steps
//! `into incoming → sync → damaged object aside → into objects → sync`. A crash leaves the content in
//! `incoming`, from where the next start takes it in.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, RenameFlags};
use sha2::{Digest, Sha256};

use super::{CHUNK, Make, Store, incoming_name, open_dir};
use crate::sys::Errno;
use crate::types::{ContentHash, IncomingId};

/// Why an object was not put right.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The copy is not what the object was.
    #[error("the copy is {found} by now")]
    Other {
        /// What it is.
        found: ContentHash,
    },
    /// The filesystem's reason.
    #[error(transparent)]
    Failed(#[from] Errno),
}

/// Reads some of a content into a buffer from an offset on; returns how much, 0 at its end.
type ReadAt<'r> = dyn FnMut(&mut [u8], u64) -> Result<usize, Errno> + 'r;

impl Store {
    /// Stores a content anew whose object is damaged or missing.
    ///
    /// # Errors
    /// [`MendError::Other`] if `read` has not that content; the filesystem's.
    pub fn mend(
        &self,
        hash: ContentHash,
        size: u64,
        read: &mut ReadAt<'_>,
    ) -> Result<(), MendError> {
        let id = self.new_id();
        let mended = self.write_incoming(id, size, read).and_then(|(file, found)| {
            if found != hash {
                return Err(MendError::Other { found });
            }
            rustix::fs::fdatasync(&file)?;
            let (dir, name) = self.place(hash, Make::Yes)?;
            self.set_aside(hash)?;
            let from = incoming_name(id);
            rustix::fs::renameat(&self.incoming, &*from, &dir, &*name)?;
            Ok(rustix::fs::fsync(&dir)?)
        });
        if mended.is_err() {
            self.discard(id);
        }
        mended
    }

    fn write_incoming(
        &self,
        id: IncomingId,
        size: u64,
        read: &mut ReadAt<'_>,
    ) -> Result<(OwnedFd, ContentHash), MendError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let private = Mode::from_raw_mode(0o400);
        let file = rustix::fs::openat(&self.incoming, &*incoming_name(id), flags, private)?;
        let (mut hasher, mut buffer, mut offset) = (Sha256::new(), vec![0; CHUNK], 0);
        while offset < size {
            let room = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
            let n = read(&mut buffer[..room], offset)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let written = rustix::io::pwrite(&file, rest, offset)?;
                offset += written as u64;
                rest = &rest[written..];
            }
        }
        Ok((file, hasher.into()))
    }

    /// Takes an object that is no use out of the way, if it is there.
    fn set_aside(&self, hash: ContentHash) -> Result<(), Errno> {
        let damaged = open_dir(self.dir.as_fd(), "damaged").map_err(|error| error.source)?;
        let (dir, name) = self.place(hash, Make::No)?;
        for count in 1_u32.. {
            let aside = format!("{hash}.{count}");
            match rustix::fs::renameat_with(&dir, &*name, &damaged, &*aside, RenameFlags::NOREPLACE)
            {
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => break,
                result => return result,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_put_right_by_nothing_but_its_own_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(std::fs::File::open(dir.path()).unwrap().as_fd()).unwrap();
        let hash: ContentHash = Sha256::new_with_prefix("precious").into();
        let text = hash.to_string();
        let objects = dir.path().join("store/objects").join(&text[..2]);
        std::fs::create_dir(&objects).unwrap();
        let object = objects.join(&text[2..]);
        std::fs::write(&object, "previous").unwrap();
        let mend = |content: &'static [u8]| {
            store.mend(hash, 8, &mut |buffer, offset| {
                let rest = &content[usize::try_from(offset).unwrap()..];
                let n = rest.len().min(buffer.len());
                buffer[..n].copy_from_slice(&rest[..n]);
                Ok(n)
            })
        };
        for wrong in [b"previous".as_slice(), b"precio", b""] {
            assert!(matches!(mend(wrong), Err(MendError::Other { .. })));
            assert_eq!(std::fs::read(&object).unwrap(), b"previous");
            assert!(store.incoming().unwrap().is_empty());
        }
        mend(b"precious, and what came after").unwrap();
        assert_eq!(std::fs::read(&object).unwrap(), b"precious");
        let aside = dir.path().join("store/damaged").join(format!("{hash}.1"));
        assert_eq!(std::fs::read(&aside).unwrap(), b"previous", "not lost either");
        std::fs::remove_file(&object).unwrap();
        mend(b"precious").unwrap();
        assert_eq!(std::fs::read(&object).unwrap(), b"precious");
    }
}
