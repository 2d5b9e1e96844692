//! Open files: open, read, write and the calls on ranges.
//!
//! Owns the choice of how the kernel treats each open file (the table in the crate documentation),
//! and what a session notes while it is written to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom};
use sha2::{Digest, Sha256};

use super::channel::{Channel, Partly};
use super::handle::{Fh, File, Flush, OpenMode, Session, SessionState};
use super::hashing::Tail;
use super::hashing::open_to_read;
use super::node::{Backing, Node};
use super::privileges::{Writing, as_writer, grants};
use super::{Fs, NodeId, TICK_NS, Writes};
use crate::config::IoMode;
use crate::metrics::metrics;
use crate::sys::creds::{AsCaller, Privileges};
use crate::sys::{Errno, stat};
use crate::types::{Caller, Kind, Stamp, Writer};

/// How the kernel opens a program to run it (`__FMODE_EXEC`), which no caller can.
const TO_RUN: OFlags = OFlags::from_bits_retain(0x20);

/// What registers backing files with the kernel; the transport is one.
pub trait Registrar {
    /// Has the kernel know a backing file, for as long as the result lives.
    ///
    /// # Errors
    /// The kernel's.
    fn register(&self, file: BorrowedFd<'_>) -> Result<Backing, Errno>;
}

/// A file that was opened.
#[derive(Debug)]
pub struct Opened {
    /// Its number.
    pub fh: Fh,
    /// How the kernel is to treat it.
    pub mode: OpenMode,
    /// Whether each `close` is to be told.
    pub flush: Flush,
    /// What the kernel was made to know, for the modes that need it.
    pub backing: Option<Backing>,
}

/// What a file had before it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fresh {
    /// It did not exist.
    Created,
    /// Its content was cut off by the open.
    Truncated,
    /// It has what it had.
    No,
}

/// An open file that is to be registered, perhaps.
struct Register<'a> {
    mode: OpenMode,
    flags: OFlags,
    fresh: Fresh,
    writer: Option<&'a Writer>,
}

impl Fs {
    /// Opens a regular file with the flags of `open(2)`.
    ///
    /// What may change the content must not come here before [`Fs::when_digested`].
    ///
    /// # Errors
    /// `ENFILE` where too much is open; the backing filesystem's.
    pub fn open(
        &self,
        caller: Caller,
        node: NodeId,
        flags: i32,
        registrar: &dyn Registrar,
    ) -> Result<Opened, Errno> {
        self.admit()?;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        if node.is_view() {
            return if may_write(flags) { Err(Errno::ROFS) } else { self.open_in_view(node) };
        }
        let node = self.node(node)?;
        if node.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        if !may_write(flags) {
            let fd = self.open_node(&node, self.backing_flags(flags))?;
            return self.open_file(&node, fd, flags, None, Fresh::No, registrar);
        }
        if access(flags) == OFlags::RDONLY && self.runs(&node) {
            return Err(Errno::TXTBSY);
        }
        let writer = Self::writer(caller);
        self.digest_before_write(&node);
        let _tree = self.tree.read();
        self.ensure_known(&node);
        let truncates = flags.contains(OFlags::TRUNC);
        // What the open cuts off must not be found by the late end of an earlier session before this
        // one is known.
        let _one = truncates.then(|| node.sealing.lock());
        // Cutting off the content takes privileges as a write does.
        if truncates {
            self.preserve(&node);
        }
        let in_place = access(flags) != OFlags::WRONLY || !flags.contains(OFlags::APPEND);
        let _opening = (in_place && !truncates).then(|| self.hold_to_open(&node));
        let cuts = truncates.then(|| Writing::begin(caller, &*self.path_fd(&node)?)).transpose()?;
        let fd = self.open_node(&node, self.backing_flags(flags));
        if let Some(cuts) = cuts {
            cuts.end(self, &node);
        }
        let fresh = if truncates { Fresh::Truncated } else { Fresh::No };
        let opened =
            fd.and_then(|fd| self.open_file(&node, fd, flags, Some(writer), fresh, registrar));
        if truncates && opened.is_err() {
            // It may have been cut off before that failed, and no session tells of it.
            self.catalog.wish_reconcile();
        }
        opened
    }

    /// Whether a node is a program that runs. To the kernel only opens for writing need to be refused
    /// then; that an open for reading cuts the content off, it finds out after we have done so.
    fn runs(&self, node: &Arc<Node>) -> bool {
        /// The end of a program comes to us a moment after it has ended.
        const MOMENT: Duration = Duration::from_millis(1);
        (0..20).all(|_| {
            let runs = |file: &Arc<File>| file.runs && Arc::ptr_eq(&file.node, node);
            let found = self.files.all().iter().any(runs);
            if found {
                std::thread::sleep(MOMENT);
            }
            found
        })
    }

    /// The flags with which the backing file is opened for a handle.
    pub(super) fn backing_flags(&self, flags: OFlags) -> OFlags {
        let ours = OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY | OFlags::NOFOLLOW;
        // O_DIRECT can be switched off later, so what needs it gets a descriptor of its own; the
        // kernel keeps it for what it serves itself. O_NONBLOCK says nothing of regular files, but for
        // that an open would not wait until a lease is given back, of which users know nothing.
        (flags - ours - OFlags::DIRECT - OFlags::NONBLOCK) | OFlags::CLOEXEC
    }

    /// Makes a handle of an open backing file.
    pub(super) fn open_file(
        &self,
        node: &Arc<Node>,
        fd: OwnedFd,
        flags: OFlags,
        writer: Option<Arc<Writer>>,
        fresh: Fresh,
        registrar: &dyn Registrar,
    ) -> Result<Opened, Errno> {
        // From here on the node remembers what its open files share.
        node.with_open(|open| open.handles += 1);
        let mode = self.choose(&fd, flags, fresh, writer.as_deref());
        let how = Register { mode, flags, fresh, writer: writer.as_deref() };
        let (mode, backing) = self.register(node, &fd, &how, registrar);
        let fd = Channel::new(fd, self.backing_flags(flags));
        let ready = if mode == OpenMode::Passthrough { Ok(()) } else { fd.prepare(flags) };
        let session = ready.and_then(|()| {
            let begin = |writer| self.begin_session(node, &fd, flags, writer, fresh, mode);
            writer.map(begin).transpose()
        });
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                node.with_open(|open| open.handles -= 1);
                return Err(error);
            }
        };
        let flush = if session.is_some() { Flush::Wanted } else { Flush::Needless };
        let file = Arc::new(File {
            node: Arc::clone(node),
            fd,
            session,
            backing: backing.clone(),
            runs: flags.contains(TO_RUN),
        });
        if file.session.is_some() {
            node.with_open(|open| open.writers.push(Arc::downgrade(&file)));
        }
        Ok(Opened { fh: self.files.insert(file), mode, flush, backing })
    }

    /// Which way of serving suits an open file best.
    fn choose(
        &self,
        fd: &OwnedFd,
        flags: OFlags,
        fresh: Fresh,
        writer: Option<&Writer>,
    ) -> OpenMode {
        let direct = flags.contains(OFlags::DIRECT);
        if !self.kernel_serves() {
            return if may_write(flags) || direct { OpenMode::Direct } else { OpenMode::Cached };
        }
        // What the kernel writes as a user takes setuid and setgid, whoever writes.
        if writer.is_some() && stat::fstat(fd).is_ok_and(|stat| grants(&stat.attr)) {
            return OpenMode::Stream;
        }
        if direct && access(flags) == OFlags::WRONLY {
            // As `dd` does it, O_DIRECT is switched off for the last bytes, of which nobody tells
            // the kernel's descriptor.
            return OpenMode::Stream;
        }
        if may_write(flags) && self.options.writes == Writes::AtOnce {
            // That the mount is synchronous, the kernel tells us and not the backing file.
            return OpenMode::Stream;
        }
        if !may_write(flags) || direct {
            return OpenMode::Passthrough;
        }
        // A readable handle can be mapped for writing, which proves nothing to a stream.
        let provable = fresh != Fresh::No
            && access(flags) == OFlags::WRONLY
            && !flags.contains(OFlags::APPEND);
        match self.options.io {
            IoMode::Stream => OpenMode::Stream,
            IoMode::Auto if provable => OpenMode::Stream,
            IoMode::Auto | IoMode::Passthrough => OpenMode::Passthrough,
        }
    }

    /// Gets the node's backing registered for the modes that need it. All open files of an inode
    /// must use the same registration, so it happens under the node's lock.
    fn register(
        &self,
        node: &Arc<Node>,
        fd: &OwnedFd,
        &Register { mode, flags, fresh, writer }: &Register<'_>,
        registrar: &dyn Registrar,
    ) -> (OpenMode, Option<Backing>) {
        if matches!(mode, OpenMode::Direct | OpenMode::Cached) {
            return (mode, None);
        }
        if mode == OpenMode::Stream && fresh == Fresh::Created && access(flags) == OFlags::WRONLY {
            // Nobody else can have it open yet, and it cannot be mapped: two calls less.
            return (OpenMode::Direct, None);
        }
        let backing = node.with_open(|open| {
            if let Some(backing) = open.backing.as_ref().and_then(std::sync::Weak::upgrade) {
                return Ok(backing);
            }
            let backing = Self::register_for_all(fd, writer, registrar)?;
            open.backing = Some(Arc::downgrade(&backing));
            Ok::<_, Errno>(backing)
        });
        match backing {
            Ok(backing) => (mode, Some(backing)),
            Err(error) => {
                tracing::debug!(%error, "the kernel refused a backing file");
                (if may_write(flags) { OpenMode::Direct } else { OpenMode::Cached }, None)
            }
        }
    }

    /// Registers by a descriptor that cannot write: the registration may outlive the writer, and
    /// must neither look like one nor keep the file from being executed.
    ///
    /// The kernel writes as whom it was registered by: the writer, or the owner where a reader comes
    /// first. That says who may go beyond quotas. Setuid and setgid go before such a write, by
    /// [`Fs::take_privileges`]; those that were set around the mount go by the write of a user.
    fn register_for_all(
        fd: &OwnedFd,
        writer: Option<&Writer>,
        registrar: &dyn Registrar,
    ) -> Result<Backing, Errno> {
        let path = OFlags::PATH | OFlags::CLOEXEC;
        let named = rustix::fs::open(stat::proc_name(fd), path, Mode::empty())?;
        let attr = stat::fstat(fd)?.attr;
        let uid = writer.map_or(attr.uid, |writer| writer.uid);
        let privileges = if uid == 0 { Privileges::Keep } else { Privileges::Take(vec![attr.gid]) };
        let _user = AsCaller::to_change(uid, &privileges)?;
        match registrar.register(named.as_fd()) {
            // Before Linux 6.16 it had to be open for I/O.
            Err(Errno::BADF) => registrar.register(open_to_read(fd)?.as_fd()),
            result => result,
        }
    }

    pub(super) fn begin_session(
        &self,
        node: &Arc<Node>,
        fd: impl AsFd,
        flags: OFlags,
        writer: Arc<Writer>,
        fresh: Fresh,
        mode: OpenMode,
    ) -> Result<Session, Errno> {
        let baseline = stat::fstat(fd)?.attr.stamp();
        let write_only = access(flags) == OFlags::WRONLY;
        let append = flags.contains(OFlags::APPEND) && write_only;
        let (alone, epoch, seals, prefix) = node.with_open(|open| {
            open.writers.retain(|writer| writer.strong_count() > 0);
            let alone = open.writers.is_empty() && open.mapped.is_empty();
            open.epoch += 1;
            let prefix = open.tail.take().filter(|tail| alone && append && tail.stamp == baseline);
            (alone, open.epoch, open.seals, prefix.map(Tail::into_beginning))
        });
        let streams = matches!(mode, OpenMode::Stream | OpenMode::Direct);
        let inline = streams && write_only && alone && baseline.size == 0;
        Ok(Session {
            id: self.new_session(),
            writer,
            kernel_writes: mode == OpenMode::Passthrough,
            mappable: !write_only,
            append,
            state: Mutex::new(SessionState {
                hasher: inline.then(Sha256::new),
                hashed: 0,
                prefix,
                began_with: baseline.size,
                epoch,
                seals,
                touched: fresh != Fresh::No,
                baseline,
                baseline_fresh: self.is_fresh(baseline),
                sealed: false,
            }),
        })
    }

    /// Whether times are so young that a change in the same tick would not show in them.
    pub(super) fn is_fresh(&self, stamp: Stamp) -> bool {
        self.coarse_times && crate::clock::now_ns().saturating_sub(stamp.ctime_ns) < TICK_NS
    }

    /// Reads up to `buffer.len()` bytes and returns how many there were; `flags` are those that the
    /// open file has by now.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn read(&self, fh: Fh, flags: i32, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
        if fh.is_view() {
            return self.read_in_view(fh, offset, buffer);
        }
        let file = self.files.get(fh)?;
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        // To the kernel's page cache a short answer is the end of the file: what lies beyond would be
        // cut off in silence. Of an error it asks again, page by page.
        let partly = if file.session.is_none() { Partly::Fails } else { Partly::Counts };
        file.fd.read(flags, offset, buffer, partly)
    }

    /// Writes, calls `answer` with the number of bytes written, and hashes them after that, so that
    /// the next write overlaps with the hashing. `flags` are those that the open file has by now.
    pub fn write(
        &self,
        by: WriteBy,
        fh: Fh,
        flags: i32,
        offset: u64,
        data: &[u8],
        answer: impl FnOnce(Result<usize, Errno>),
    ) {
        let file = match self.files.get(fh) {
            Ok(file) => file,
            Err(error) => return answer(Err(error)),
        };
        let Some(session) = &file.session else { return answer(Err(Errno::BADF)) };
        self.load.note_work();
        if session.append && flags & libc::O_APPEND == 0 {
            self.preserve_now(&file.node);
        }
        let writing = match by {
            WriteBy::Ordinary(caller) => Writing::begin(caller, &file.fd),
            WriteBy::Privileged(caller) => Writing::begin_privileged(caller.uid),
            WriteBy::Mapping => Writing::begin_privileged(session.writer.uid),
        };
        let writing = match writing {
            Ok(writing) => writing,
            Err(error) => return answer(Err(error)),
        };
        let flags = OFlags::from_bits_retain(flags.cast_unsigned());
        let mut state = session.state.lock();
        state.touched = true;
        if state.hasher.is_none() || state.hashed != offset {
            state.hasher = None;
            if !flags.contains(OFlags::APPEND) {
                state.prefix = None;
            }
            // Order does not matter any more, so writes need not wait for each other.
            drop(state);
            let result = self.with_room(|| file.fd.write(flags, offset, data));
            writing.end(self, &file.node);
            // A close of another descriptor may have sealed while this was under way.
            session.state.lock().touched = true;
            return answer(result);
        }
        let result = self.with_room(|| file.fd.write(flags, offset, data));
        writing.end(self, &file.node);
        // The lock stays taken until the bytes are hashed: the next write comes as soon as this
        // one is answered, and must be hashed after it.
        answer(result);
        match (result, &mut state.hasher) {
            (Ok(count), Some(hasher)) => {
                hasher.update(&data[..count]);
                metrics().streamed_bytes.inc_by(count as u64);
                state.hashed += count as u64;
            }
            _ => state.hasher = None,
        }
    }

    /// Allocates, punches or zeroes a range, with the mode of `fallocate(2)`.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn fallocate(
        &self,
        caller: Caller,
        fh: Fh,
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let file = self.files.get(fh)?;
        let mode = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        if file.session.as_ref().is_some_and(|session| session.append) {
            self.preserve_now(&file.node);
        }
        file.interfere(|| {
            let _as_writer = as_writer(caller, &file.fd)?;
            self.with_room(|| rustix::fs::fallocate(&file.fd, mode, offset, length))
        })
    }

    /// Copies a range between two files and returns how many bytes were copied.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn copy_file_range(
        &self,
        caller: Caller,
        (from, mut from_offset): (Fh, u64),
        (to, mut to_offset): (Fh, u64),
        length: u64,
    ) -> Result<usize, Errno> {
        if from.is_view() {
            // The kernel copies by itself when it hears this.
            return Err(Errno::OPNOTSUPP);
        }
        let (from, to) = (self.files.get(from)?, self.files.get(to)?);
        // The reply has 32 bits.
        let length = usize::try_from(length.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        let target = to.fd.at_offsets()?;
        to.interfere(|| {
            let _as_writer = as_writer(caller, &to.fd)?;
            let (from_offset, to_offset) = (Some(&mut from_offset), Some(&mut to_offset));
            rustix::fs::copy_file_range(&from.fd, from_offset, &target, to_offset, length)
        })
    }

    /// Finds the next data or hole, with the `whence` of `lseek(2)`.
    ///
    /// # Errors
    /// `EINVAL` for another `whence`; the backing filesystem's.
    pub fn lseek(&self, fh: Fh, offset: i64, whence: i32) -> Result<u64, Errno> {
        let start = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        if fh.is_view() {
            return self.lseek_in_view(fh, start, whence);
        }
        let file = self.files.get(fh)?;
        let to = match whence {
            libc::SEEK_DATA => SeekFrom::Data(start),
            libc::SEEK_HOLE => SeekFrom::Hole(start),
            _ => return Err(Errno::INVAL),
        };
        rustix::fs::seek(&file.fd, to)
    }

    /// Writes a file through to the disk.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn fsync(&self, fh: Fh, what: Sync) -> Result<(), Errno> {
        if fh.is_view() {
            return Ok(());
        }
        let file = self.files.get(fh)?;
        match what {
            Sync::All => rustix::fs::fsync(&file.fd),
            Sync::Data => rustix::fs::fdatasync(&file.fd),
        }
    }
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteBy {
    /// Somebody who may not keep setuid and setgid.
    Ordinary(Caller),
    /// Somebody who may.
    Privileged(Caller),
    /// The kernel, what whoever opened the file has stored to a mapping: which keeps them.
    Mapping,
}

/// What `fsync` and `fdatasync` differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Content and attributes.
    All,
    /// Content, and the attributes needed to read it.
    Data,
}

impl File {
    /// Makes a change of the content that no stream can follow.
    pub(super) fn interfere<T>(
        &self,
        change: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let session = self.session.as_ref().ok_or(Errno::BADF)?;
        let touch = || {
            let mut state = session.state.lock();
            state.touched = true;
            state.hasher = None;
            state.prefix = None;
        };
        self.node.with_open(|open| open.epoch += 1);
        touch();
        let result = change();
        // Again: a close of another descriptor may have sealed while this was under way.
        touch();
        result
    }
}

fn access(flags: OFlags) -> OFlags {
    flags & OFlags::RWMODE
}

fn may_write(flags: OFlags) -> bool {
    access(flags) != OFlags::RDONLY || flags.contains(OFlags::TRUNC)
}
