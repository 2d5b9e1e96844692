//! Putting a live file right whose bytes have rotted.
//!
//! Owns writing the right bytes over the wrong ones, in the same inode: its names, its users and what
//! refers to it stay as they are, and so does the modification time. Only a file that nobody has open
//! for writing is touched, and only where it differs.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::super::hashing::open_to_read;
use super::super::seal::Times;
use super::Run;
use crate::catalog::Head;
use crate::catalog::event::Op;
use crate::content::Content;
use crate::sys::lease::{Writers, writers};
use crate::sys::{Errno, stat};
use crate::types::path::split;
use crate::types::{Attr, ContentHash, Inode};

/// Bytes compared and written at a time.
const CHUNK: usize = 1 << 20;
/// What a write takes away.
const CAPABILITIES: &str = "security.capability";

impl Run<'_, '_> {
    /// Writes what `copy` has, which has the digest of the head, over what the file has.
    pub(super) fn heal_file(
        &self,
        head: &Head,
        path: &[u8],
        hash: ContentHash,
        copy: &Content,
    ) -> Result<(), String> {
        self.rewrite(head, path, copy).map_err(|error| error.to_string())?;
        let (dir, name) = split(path);
        let healed = self.fs.find_head(head, dir, name).and_then(|(fd, _)| open_to_read(&fd));
        let healed = healed.map_err(|error| error.to_string())?;
        let content = (hash, head.stamp.size);
        match self.is_content(&Content::File(healed), content) {
            Ok(true) => Ok(()),
            Ok(false) => Err("it is still not what it should be".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn rewrite(&self, head: &Head, path: &[u8], copy: &Content) -> Result<(), Errno> {
        let (dir, name) = split(path);
        let (fd, _) = self.fs.find_head(head, dir, name)?;
        let file = open_to_read(&fd)?;
        let wrong = differences(&file, copy, head.stamp.size);
        {
            let _tree = self.fs.tree.write();
            let attr = stat::fstat(&fd)?.attr;
            let used = self.fs.is_in_use(head, &fd) || writers(file.as_fd()) == Writers::Some;
            if used || attr.stamp() != head.stamp {
                return Err(Errno::BUSY);
            }
            let dev = stat::fstat(&fd)?.fs.dev;
            let write = || overwrite(&fd, copy, &wrong, &attr);
            let told = |attr| {
                let inode = Inode { key: head.key, attr };
                self.fs.push(None, Op::Attr { inode, before: None });
            };
            match self.fs.nodes.find(dev, head.key) {
                Some(node) => {
                    let tell = |attr, ()| told(attr);
                    self.fs.change_inode(&node, &fd, Times::Kept, write, tell)?;
                }
                None => {
                    write()?;
                    told(stat::fstat(&fd)?.attr);
                }
            }
        }
        rustix::fs::fsync(&file)
    }
}

/// Where a file does not have what `copy` has; what cannot be read counts, too.
fn differences(file: &OwnedFd, copy: &Content, size: u64) -> Vec<u64> {
    let (mut is, mut should) = (vec![0; CHUNK], vec![0; CHUNK]);
    let differs = |offset: &u64| {
        let room = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        let found = rustix::io::pread(file, &mut is[..room], *offset);
        let wanted = copy.read_at(&mut should[..room], *offset);
        found.is_err() || found != wanted || is[..room] != should[..room]
    };
    (0..size).step_by(CHUNK).filter(differs).collect()
}

fn overwrite(fd: &OwnedFd, copy: &Content, wrong: &[u64], was: &Attr) -> Result<(), Errno> {
    let path = stat::proc_name(fd);
    let mut capabilities = [0; 64];
    let had = rustix::fs::getxattr(&*path, CAPABILITIES, &mut capabilities).ok();
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(&*path, flags, Mode::empty())?;
    let mut buffer = vec![0; CHUNK];
    for start in wrong {
        let room = usize::try_from(was.size - start).unwrap_or(CHUNK).min(CHUNK);
        let n = copy.read_at(&mut buffer[..room], *start)?;
        let (mut offset, mut rest) = (*start, &buffer[..n]);
        while !rest.is_empty() {
            let written = rustix::io::pwrite(&file, rest, offset)?;
            offset += written as u64;
            rest = &rest[written..];
        }
    }
    if let Some(length) = had {
        let capabilities = &capabilities[..length];
        rustix::fs::fsetxattr(&file, CAPABILITIES, capabilities, XattrFlags::empty())?;
    }
    let keep = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let mtime = Timespec { tv_sec: was.mtime.secs, tv_nsec: was.mtime.nanos.into() };
    rustix::fs::futimens(&file, &Timestamps { last_access: keep, last_modification: mtime })
}
