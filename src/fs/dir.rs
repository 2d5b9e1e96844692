//! Reading directories.
//!
//! Owns the translation of directory streams: the backing filesystem's own offsets are passed
//! through, so a position stays valid as long as it does there.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};

use super::handle::Dir;
use super::lookup::{Keep, open_path};
use super::{Entry, Errno, Fh, Fs, NodeId};
use crate::sys::stat;
use crate::types::Kind;

/// One name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// Inode number.
    pub ino: u64,
    /// What it is; `None` where the filesystem does not say without a stat.
    pub kind: Option<Kind>,
    /// Where the stream goes on after this name.
    pub offset: u64,
}

/// Whether a reply has room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It took the entry.
    Left,
    /// It did not.
    None,
}

impl Fs {
    /// Opens a directory.
    ///
    /// # Errors
    /// `ENFILE` where too much is open; the backing filesystem's.
    pub fn opendir(&self, node: NodeId) -> Result<Fh, Errno> {
        self.admit()?;
        if node.is_view() {
            return self.opendir_in_view(node);
        }
        let node = self.node(node)?;
        let path = self.path_fd(&node)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*path, ".", flags, Mode::empty())?;
        Ok(self.dirs.insert(Arc::new(Dir { node, fd, position: parking_lot::Mutex::new(0) })))
    }

    /// Reads names from `offset` on until `add` has no more room. `size` is about how many bytes of
    /// the kernel's own entries will fit.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn readdir(
        &self,
        fh: Fh,
        offset: u64,
        size: usize,
        mut add: impl FnMut(&DirEntry<'_>) -> Room,
    ) -> Result<(), Errno> {
        if fh.is_view() {
            return self.readdir_in_view(fh, offset, add);
        }
        let dir = self.dirs.get(fh)?;
        let mut position = dir.position.lock();
        if *position != offset {
            rustix::fs::seek(&dir.fd, SeekFrom::Start(offset))?;
        }
        // Unknown unless this reads to the end.
        *position = u64::MAX;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
        let length = size.clamp(1024, buffer.len());
        let at_root = dir.node.id == NodeId::ROOT;
        let refused = self.refused_in(&dir.node);
        let mut entries = RawDir::new(dir.fd.as_fd(), &mut buffer[..length]);
        let mut last = offset;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let next = entry.next_entry_cookie();
            let hidden = (at_root && name == crate::config::OWN_DIR.as_bytes())
                || (refused.iter().any(|refused| refused == name) && self.covers(&dir, name));
            if !hidden {
                let kind = kind_of(entry.file_type());
                let entry = DirEntry { name, ino: entry.ino(), kind, offset: next };
                if add(&entry) == Room::None {
                    // What the buffer still holds is read again from here.
                    return Ok(());
                }
            }
            last = next;
        }
        *position = last;
        Ok(())
    }

    /// As [`Fs::readdir`], with a lookup of each name that is counted if `add` took it; the directory
    /// itself and the one above come without. A name that cannot be looked up is not there.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn readdirplus(
        &self,
        fh: Fh,
        offset: u64,
        size: usize,
        mut add: impl FnMut(&DirEntry<'_>, Option<&Entry>) -> Room,
    ) -> Result<(), Errno> {
        if fh.is_view() {
            return self.readdirplus_in_view(fh, offset, add);
        }
        let dir = self.dirs.get(fh)?;
        self.readdir(fh, offset, size, |name| {
            if name.name == b"." || name.name == b".." {
                return add(name, None);
            }
            let Ok((entry, _)) = self.enter_name(&dir.node, name.name, Keep::Nothing) else {
                return Room::Left;
            };
            let room = add(name, Some(&entry));
            if room == Room::None {
                self.forget(entry.node, 1);
            }
            room
        })
    }

    /// Whether another filesystem is still mounted over a name.
    fn covers(&self, dir: &Dir, name: &[u8]) -> bool {
        let found = open_path(dir.fd.as_fd(), name).and_then(|fd| stat::fstat(&fd));
        found.is_ok_and(|stat| self.is_foreign(&stat))
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: Fh) {
        if fh.is_view() {
            return self.releasedir_in_view(fh);
        }
        // Unknown numbers are the kernel's business.
        let _ = self.dirs.remove(fh);
    }

    /// Writes a directory through to the disk.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn fsyncdir(&self, fh: Fh) -> Result<(), Errno> {
        if fh.is_view() {
            return Ok(());
        }
        rustix::fs::fsync(&self.dirs.get(fh)?.fd)
    }
}

fn kind_of(file_type: rustix::fs::FileType) -> Option<Kind> {
    Kind::from_mode(file_type.as_raw_mode())
}
