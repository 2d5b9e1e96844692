//! The daemon's own reading and writing of an open file, where the kernel does not do it by itself.
//!
//! Owns the descriptors of an open file. What is to be done is said by the flags that come with each
//! request, not by those of the open: `fcntl(2)` can switch `O_APPEND` and `O_DIRECT`, `pwritev2(2)`
//! can ask for a synchronous write, and the pages of a mapping come by whichever open file of the
//! inode the kernel picks, with no flags at all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::{IoSlice, ReadWriteFlags};

use crate::sys::{Errno, stat};

/// Most bytes that one request reads or writes.
pub const MAX_TRANSFER: u32 = 1 << 20;

/// Where a bounce buffer for direct I/O begins: no disk asks for more.
const PAGE: usize = 4096;

/// The flags that a descriptor cannot have otherwise than it was opened.
const FIXED: OFlags = OFlags::APPEND.union(OFlags::DIRECT);

/// The descriptors by which one open file is read and written.
#[derive(Debug)]
pub(super) struct Channel {
    fd: OwnedFd,
    flags: OFlags,
    /// One with others of the fixed flags, for when they were switched.
    other: Mutex<Option<(OFlags, Arc<OwnedFd>)>>,
    /// Where a direct request goes on that the kernel has cut in pieces.
    cut: AtomicU64,
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A descriptor that suits a request.
enum Suited<'a> {
    Own(&'a OwnedFd),
    Other(Arc<OwnedFd>),
}

impl AsFd for Suited<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Other(fd) => fd.as_fd(),
        }
    }
}

impl Channel {
    /// Takes a descriptor that was opened with `flags`, without `O_DIRECT`.
    pub(super) fn new(fd: OwnedFd, flags: OFlags) -> Self {
        Self { fd, flags, other: Mutex::default(), cut: AtomicU64::new(u64::MAX) }
    }

    /// Opens what requests with `flags` will need, so that the open fails if they would.
    ///
    /// # Errors
    /// `EINVAL` where the backing filesystem has no direct I/O; else its own.
    pub(super) fn prepare(&self, flags: OFlags) -> Result<(), Errno> {
        self.suited(flags).map(|_| ())
    }

    fn suited(&self, flags: OFlags) -> Result<Suited<'_>, Errno> {
        if (flags ^ self.flags).intersection(FIXED).is_empty() {
            return Ok(Suited::Own(&self.fd));
        }
        let wanted = (self.flags - FIXED - OFlags::TRUNC) | flags.intersection(FIXED);
        let mut other = self.other.lock();
        if let Some((has, fd)) = &*other
            && *has == wanted
        {
            return Ok(Suited::Other(Arc::clone(fd)));
        }
        let fd = rustix::fs::open(stat::proc_name(&self.fd), wanted, Mode::empty())?;
        let fd = Arc::new(fd);
        *other = Some((wanted, Arc::clone(&fd)));
        Ok(Suited::Other(fd))
    }

    /// A descriptor that writes where it is told to.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub(super) fn at_offsets(&self) -> Result<impl AsFd, Errno> {
        self.suited(OFlags::empty())
    }

    /// Reads until `buffer` is full or the file ends, and returns how many bytes there were.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub(super) fn read(
        &self,
        flags: OFlags,
        offset: u64,
        buffer: &mut [u8],
        partly: Partly,
    ) -> Result<usize, Errno> {
        // How the file is written to does not matter here.
        let flags = (flags - OFlags::APPEND) | (self.flags & OFlags::APPEND);
        if flags.contains(OFlags::DIRECT) {
            let fd = self.suited(flags)?;
            let mut bounce = Bounce::new(buffer.len());
            match retry(|| rustix::io::pread(&fd, &mut *bounce.bytes(), offset)) {
                Err(Errno::INVAL) if self.is_piece(offset, buffer.len()) => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    buffer[..count].copy_from_slice(&bounce.bytes()[..count]);
                    return Ok(count);
                }
            }
        }
        whole(buffer.len(), partly, |done| {
            rustix::io::pread(&self.fd, &mut buffer[done..], offset + done as u64)
        })
    }

    /// Writes all of `data` if possible, and returns how many bytes were written.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub(super) fn write(&self, flags: OFlags, offset: u64, data: &[u8]) -> Result<usize, Errno> {
        let how = synchronous(flags);
        let put = |fd: BorrowedFd<'_>, data: &[u8], offset| {
            rustix::io::pwritev2(fd, &[IoSlice::new(data)], offset, how)
        };
        let fd = self.suited(flags)?;
        if flags.contains(OFlags::DIRECT) {
            let mut bounce = Bounce::new(data.len());
            bounce.bytes().copy_from_slice(data);
            match retry(|| put(fd.as_fd(), bounce.bytes(), offset)) {
                Err(Errno::INVAL) if self.is_piece(offset, data.len()) => {}
                result => return result,
            }
        }
        let fd = self.suited(flags - OFlags::DIRECT)?;
        whole(data.len(), Partly::Counts, |done| {
            put(fd.as_fd(), &data[done..], offset + done as u64)
        })
    }

    /// Whether a request that is not aligned may be part of one that was: where the caller's memory
    /// begins within a page, the kernel cuts a long request short of the full length.
    fn is_piece(&self, offset: u64, length: usize) -> bool {
        let long = length + PAGE > MAX_TRANSFER as usize;
        let next = if long { offset.saturating_add(length as u64) } else { u64::MAX };
        let goes_on = self.cut.swap(next, Ordering::Relaxed) == offset;
        long || goes_on
    }
}

/// What the flags of an open file, or of one call, say about waiting for the disk.
fn synchronous(flags: OFlags) -> ReadWriteFlags {
    // Of rustix, `OFlags::DSYNC` is `O_SYNC`.
    let data = OFlags::from_bits_retain(libc::O_DSYNC.cast_unsigned());
    if flags.contains(OFlags::SYNC) {
        ReadWriteFlags::SYNC
    } else if flags.contains(data) {
        ReadWriteFlags::DSYNC
    } else {
        ReadWriteFlags::empty()
    }
}

fn retry(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What becomes of a request that an error ends after something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partly {
    /// It is answered with what was done.
    Counts,
    /// It fails.
    Fails,
}

/// Goes on where a call has stopped short.
fn whole(
    length: usize,
    partly: Partly,
    mut call: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut done = 0;
    while done < length {
        match retry(|| call(done)) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if done == 0 || partly == Partly::Fails => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Memory that direct I/O takes.
struct Bounce {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Bounce {
    fn new(length: usize) -> Self {
        let memory = vec![0; length + PAGE];
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, start, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn channel(flags: OFlags) -> (tempfile::NamedTempFile, Channel) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let fd = rustix::fs::open(file.path(), flags | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (file, Channel::new(fd, flags | OFlags::CLOEXEC))
    }

    #[test]
    fn each_request_appends_or_not_as_its_flags_say() {
        for opened in [OFlags::RDWR, OFlags::RDWR | OFlags::APPEND] {
            let (file, channel) = channel(opened);
            assert_eq!(channel.write(OFlags::APPEND, 0, b"one "), Ok(4));
            assert_eq!(channel.write(OFlags::APPEND, 0, b"two "), Ok(4));
            assert_eq!(channel.write(OFlags::empty(), 0, b"ONE"), Ok(3));
            assert_eq!(channel.write(OFlags::APPEND, 1, b"three"), Ok(5));
            let mut text = [0; 20];
            assert_eq!(channel.read(OFlags::empty(), 0, &mut text, Partly::Counts), Ok(13));
            assert_eq!(&text[..13], b"ONE two three");
            assert_eq!(file.as_file().read_at(&mut text, 0).unwrap(), 13);
        }
    }

    #[test]
    fn direct_requests_are_as_strict_as_the_disk_but_for_the_pieces_of_a_cut_one() {
        let (_file, channel) = channel(OFlags::RDWR);
        if channel.prepare(OFlags::DIRECT).is_err() {
            eprintln!("SKIPPED: no direct I/O here");
            return;
        }
        let data = vec![7; 2 << 20];
        let most = MAX_TRANSFER as usize;
        assert_eq!(channel.write(OFlags::DIRECT, 0, &data[..8_192]), Ok(8_192));
        let strict = channel.write(OFlags::DIRECT, 0, &data[..100]);
        // As tmpfs does it, nothing is refused.
        assert!(matches!(strict, Err(Errno::INVAL) | Ok(100)), "{strict:?}");
        let cut = (most - 16, most as u64 - 16);
        assert_eq!(channel.write(OFlags::DIRECT, 0, &data[..cut.0]), Ok(cut.0));
        assert_eq!(channel.write(OFlags::DIRECT, cut.1, &data[..528]), Ok(528));
        assert_eq!(channel.write(OFlags::DIRECT, cut.1, &data[..528]), strict.map(|_| 528));
        let mut back = vec![0; 1 << 20];
        assert_eq!(
            channel.read(OFlags::DIRECT, 4_096, &mut back, Partly::Counts),
            Ok(most - 4_096 + 512)
        );
        assert!(back[..most - 4_096 + 512].iter().all(|b| *b == 7));
    }
}
