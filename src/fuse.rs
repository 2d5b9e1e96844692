//! FUSE: decode a request, call the filesystem, reply.
//!
//! Owns everything that is fuser's: its trait, its replies, the flags of INIT and of open files, and the
//! registration of backing files. Decides nothing about files. Another transport would stand beside
//! this module and call the same [`Fs`].

mod convert;
mod errno;
mod offload;
pub mod session;

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BackingId, BsdFileFlags, CopyFileRangeFlags, FileHandle, FopenFlags, Generation,
    INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents,
    PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::fs::{
    Backing, Fh, Flush, Fs, Lasts, MAX_TRANSFER, NodeId, OpenMode, Opened, Purpose, Registrar,
    Room, SetAttr, Sync, WriteBy,
};
use crate::metrics::{Operation, Timed};
use crate::sys::Errno;
use crate::types::{Caller, Kind};
use offload::Offload;

/// The filesystem as fuser calls it.
#[derive(Debug)]
pub struct Adapter {
    fs: Arc<Fs>,
    /// How long the kernel may believe entries and attributes.
    timeout: Duration,
    wants_passthrough: bool,
    offload: Offload,
}

/// Registers through the reply to the request that needs it.
struct ByReply<'a, R>(&'a R);

impl Registrar for ByReply<'_, ReplyOpen> {
    fn register(&self, file: BorrowedFd<'_>) -> Result<Backing, Errno> {
        backing(self.0.open_backing(file))
    }
}

impl Registrar for ByReply<'_, ReplyCreate> {
    fn register(&self, file: BorrowedFd<'_>) -> Result<Backing, Errno> {
        backing(self.0.open_backing(file))
    }
}

fn backing(result: std::io::Result<BackingId>) -> Result<Backing, Errno> {
    match result {
        Ok(id) => Ok(Arc::new(id)),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid() }
}

fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

fn fh(handle: FileHandle) -> Fh {
    Fh(handle.0)
}

/// The flags of an open file, and what the kernel is to serve it from.
fn open_flags(opened: &Opened) -> (FopenFlags, Option<&BackingId>) {
    let direct = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    let mut flags = match opened.mode {
        OpenMode::Passthrough | OpenMode::Cached => FopenFlags::empty(),
        OpenMode::Immutable => FopenFlags::FOPEN_KEEP_CACHE,
        OpenMode::Stream | OpenMode::Direct => direct,
    };
    if opened.flush == Flush::Needless {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    (flags, opened.backing.as_ref().and_then(|backing| backing.downcast_ref()))
}

impl Adapter {
    /// How long the kernel may believe what it is told.
    fn timeout(&self, lasts: Lasts) -> Duration {
        match lasts {
            Lasts::Moment => Duration::ZERO,
            Lasts::AsSet => self.timeout,
            Lasts::Long => LONG,
        }
    }

    fn reply_entry(&self, result: Result<crate::fs::Entry, Errno>, reply: ReplyEntry) {
        match result {
            Ok(entry) => reply.entry(
                &self.timeout(entry.lasts),
                &convert::entry_attr(&entry),
                Generation(entry.generation),
            ),
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn open_now(fs: &Fs, caller: Caller, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match fs.open(caller, node(ino), flags.0, &ByReply(&reply)) {
            Ok(opened) => {
                let (flags, backing) = open_flags(&opened);
                let handle = FileHandle(opened.fh.0);
                match backing {
                    Some(backing) => reply.opened_passthrough(handle, flags, backing),
                    None => reply.opened(handle, flags),
                }
            }
            Err(error) => reply.error(errno::reply(error)),
        }
    }
}

fn reply_empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno::reply(error)),
    }
}

fn reply_xattr(result: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(value) => {
            let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
            if size == 0 {
                reply.size(length);
            } else if length > size {
                reply.error(errno::reply(Errno::RANGE));
            } else {
                reply.data(&value);
            }
        }
        Err(error) => reply.error(errno::reply(error)),
    }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_EXPORT_SUPPORT
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP;
        if self.wants_passthrough {
            wanted |= InitFlags::FUSE_PASSTHROUGH;
        }
        let granted = wanted & config.capabilities();
        if config.add_capabilities(granted).is_err() {
            tracing::warn!("the kernel took back a capability that it had offered");
        }
        if granted.contains(InitFlags::FUSE_PASSTHROUGH) {
            // Two, so that the backing directory may lie on an overlay itself.
            let depth = if self.fs.is_stacked() { 2 } else { 1 };
            if config.set_max_stack_depth(depth).is_ok() {
                self.fs.set_passthrough(crate::fs::Passthrough::Possible);
            }
        }
        if let Err(nearest) = config.set_max_write(MAX_TRANSFER) {
            let _ = config.set_max_write(nearest);
        }
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _timed = Timed::new(Operation::Lookup);
        let parent = node(parent);
        let result = match name.as_bytes() {
            b"." => self.fs.lookup_self(parent),
            b".." => self.fs.lookup_parent(parent),
            name => self.fs.lookup(parent, name),
        };
        self.reply_entry(result, reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(node(ino), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let _timed = Timed::new(Operation::Getattr);
        match self.fs.getattr(node(ino), handle.map(fh)) {
            Ok(attr) => {
                let timeout = self.timeout(self.fs.lasts(node(ino)));
                reply.attr(&timeout, &convert::attr(node(ino), &attr));
            }
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _timed = Timed::new(Operation::Setattr);
        let (atime, mtime) = (atime.map(convert::set_time), mtime.map(convert::set_time));
        let set = SetAttr { mode, uid, gid, size, atime, mtime };
        let (fs, caller, timeout) = (Arc::clone(&self.fs), caller(req), self.timeout);
        let work = move || match fs.setattr(caller, node(ino), handle.map(fh), &set) {
            Ok(attr) => reply.attr(&timeout, &convert::attr(node(ino), &attr)),
            Err(error) => reply.error(errno::reply(error)),
        };
        if size.is_some() {
            self.fs.when_digested(node(ino), Purpose::Change, Box::new(work));
        } else {
            work();
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let _timed = Timed::new(Operation::Readlink);
        match self.fs.readlink(node(ino)) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _timed = Timed::new(Operation::Mknod);
        let name = name.as_bytes();
        let result = self.fs.mknod(caller(req), node(parent), name, mode, umask, rdev);
        self.reply_entry(result, reply);
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _timed = Timed::new(Operation::Mkdir);
        let result = self.fs.mkdir(caller(req), node(parent), name.as_bytes(), mode, umask);
        self.reply_entry(result, reply);
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _timed = Timed::new(Operation::Unlink);
        reply_empty(self.fs.unlink(caller(req), node(parent), name.as_bytes()), reply);
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _timed = Timed::new(Operation::Rmdir);
        reply_empty(self.fs.rmdir(caller(req), node(parent), name.as_bytes()), reply);
    }

    fn symlink(
        &self,
        req: &Request,
        parent: INodeNo,
        link_name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _timed = Timed::new(Operation::Symlink);
        let (name, target) = (link_name.as_bytes(), target.as_os_str().as_bytes());
        self.reply_entry(self.fs.symlink(caller(req), node(parent), name, target), reply);
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _timed = Timed::new(Operation::Rename);
        let from = (node(parent), name.as_bytes());
        let to = (node(newparent), newname.as_bytes());
        reply_empty(self.fs.rename(caller(req), from, to, flags.bits()), reply);
    }

    fn link(
        &self,
        req: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let _timed = Timed::new(Operation::Link);
        let result = self.fs.link(caller(req), node(ino), node(newparent), newname.as_bytes());
        self.reply_entry(result, reply);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let timed = Timed::new(Operation::Open);
        let caller = caller(req);
        if node(ino).is_view() {
            let fs = Arc::clone(&self.fs);
            // What was kept may have to be looked for.
            return self.offload.run(move || {
                let _timed = timed;
                Self::open_now(&fs, caller, ino, flags, reply);
            });
        }
        if flags.0 & (libc::O_ACCMODE | libc::O_TRUNC) == libc::O_RDONLY {
            return Self::open_now(&self.fs, caller, ino, flags, reply);
        }
        let (fs, whole) = (Arc::clone(&self.fs), Arc::clone(&self.fs));
        let work = move || {
            let _timed = timed;
            Self::open_now(&fs, caller, ino, flags, reply);
        };
        let open = move || whole.when_digested(node(ino), Purpose::Change, Box::new(work));
        match flags.acc_mode() {
            // Before it cuts the content off it may have to wait for the end of a program.
            OpenAccMode::O_RDONLY => self.offload.run(open),
            OpenAccMode::O_WRONLY | OpenAccMode::O_RDWR => open(),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let timed = Timed::new(Operation::Read);
        let fs = Arc::clone(&self.fs);
        let read = move || {
            let _timed = timed;
            let mut buffer = vec![0; size as usize];
            match fs.read(fh(handle), flags.0, offset, &mut buffer) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(error) => reply.error(errno::reply(error)),
            }
        };
        if fh(handle).is_view() { self.offload.run(read) } else { read() }
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _timed = Timed::new(Operation::Write);
        let by = if write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            WriteBy::Mapping
        } else if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            WriteBy::Ordinary(caller(req))
        } else {
            WriteBy::Privileged(caller(req))
        };
        self.fs.write(by, fh(handle), flags.0, offset, data, |result| match result {
            // A request has at most MAX_TRANSFER bytes.
            Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno::reply(error)),
        });
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let _timed = Timed::new(Operation::Flush);
        reply_empty(self.fs.flush(fh(handle)), reply);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _timed = Timed::new(Operation::Release);
        self.fs.release(fh(handle));
        reply.ok();
    }

    fn fsync(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let timed = Timed::new(Operation::Fsync);
        let fs = Arc::clone(&self.fs);
        let what = if datasync { Sync::Data } else { Sync::All };
        self.offload.run(move || {
            let _timed = timed;
            reply_empty(fs.fsync(fh(handle), what), reply);
        });
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _timed = Timed::new(Operation::Opendir);
        match self.fs.opendir(node(ino)) {
            Ok(handle) => reply.opened(FileHandle(handle.0), FopenFlags::empty()),
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn readdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _timed = Timed::new(Operation::Readdir);
        let result = self.fs.readdir(fh(handle), offset, LISTING, |entry| {
            let kind = convert::file_type(entry.kind.unwrap_or(Kind::File));
            let name = OsStr::from_bytes(entry.name);
            if reply.add(INodeNo(entry.ino), entry.offset, kind, name) {
                Room::None
            } else {
                Room::Left
            }
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _timed = Timed::new(Operation::Readdirplus);
        let result = self.fs.readdirplus(fh(handle), offset, LISTING / 4, |name, entry| {
            let (attr, generation) = match entry {
                Some(entry) => (convert::entry_attr(entry), entry.generation),
                None => (convert::nothing(name), 0),
            };
            let timeout = self.timeout(entry.map_or(Lasts::AsSet, |entry| entry.lasts));
            let (ino, bytes) = (INodeNo(name.ino), OsStr::from_bytes(name.name));
            let generation = Generation(generation);
            if reply.add(ino, name.offset, bytes, &timeout, &attr, generation) {
                Room::None
            } else {
                Room::Left
            }
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _timed = Timed::new(Operation::Releasedir);
        self.fs.releasedir(fh(handle));
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let timed = Timed::new(Operation::Fsyncdir);
        let fs = Arc::clone(&self.fs);
        self.offload.run(move || {
            let _timed = timed;
            reply_empty(fs.fsyncdir(fh(handle)), reply);
        });
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let _timed = Timed::new(Operation::Statfs);
        match self.fs.statfs() {
            Ok(s) => {
                let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                reply.statfs(
                    s.f_blocks,
                    s.f_bfree,
                    s.f_bavail,
                    s.f_files,
                    s.f_ffree,
                    small(s.f_bsize),
                    small(s.f_namemax),
                    small(s.f_frsize),
                );
            }
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _timed = Timed::new(Operation::Setxattr);
        let result = self.fs.setxattr(caller(req), node(ino), name.as_bytes(), value, flags);
        reply_empty(result, reply);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let timed = Timed::new(Operation::Getxattr);
        if Fs::is_own_xattr(name.as_bytes()) {
            // Who asks for the digest waits for it.
            let (fs, name) = (Arc::clone(&self.fs), name.to_owned());
            let ask = move || {
                let _timed = timed;
                reply_xattr(fs.getxattr(node(ino), name.as_bytes()), size, reply);
            };
            let awaited = self.fs.digested_as(node(ino));
            if !self.fs.may_be_mapped(awaited) {
                return self.fs.when_digested(awaited, Purpose::Know, Box::new(ask));
            }
            let fs = Arc::clone(&self.fs);
            return self.offload.run(move || {
                fs.settle_mapped();
                fs.when_digested(awaited, Purpose::Know, Box::new(ask));
            });
        }
        reply_xattr(self.fs.getxattr(node(ino), name.as_bytes()), size, reply);
    }

    fn listxattr(&self, req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _timed = Timed::new(Operation::Listxattr);
        reply_xattr(self.fs.listxattr(caller(req), node(ino), size), size, reply);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _timed = Timed::new(Operation::Removexattr);
        reply_empty(self.fs.removexattr(caller(req), node(ino), name.as_bytes()), reply);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions itself and does not ask again.
        reply.error(errno::reply(Errno::NOSYS));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _timed = Timed::new(Operation::Create);
        let registrar = ByReply(&reply);
        let (caller, name) = (caller(req), name.as_bytes());
        match self.fs.create(caller, node(parent), name, mode, umask, flags, &registrar) {
            Ok(created) => {
                let attr = convert::entry_attr(&created.entry);
                let generation = Generation(created.entry.generation);
                let handle = FileHandle(created.opened.fh.0);
                let (flags, backing) = open_flags(&created.opened);
                let ttl = &self.timeout;
                match backing {
                    Some(backing) => {
                        reply.created_passthrough(ttl, &attr, generation, handle, flags, backing);
                    }
                    None => reply.created(ttl, &attr, generation, handle, flags),
                }
            }
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn getlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        // Locks are the kernel's own: it was not told that we want them.
        reply.error(errno::reply(Errno::NOSYS));
    }

    fn setlk(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        _start: u64,
        _end: u64,
        _typ: i32,
        _pid: u32,
        _sleep: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(errno::reply(Errno::NOSYS));
    }

    fn bmap(&self, _req: &Request, _ino: INodeNo, _blocksize: u32, _idx: u64, reply: ReplyBmap) {
        reply.error(errno::reply(Errno::NOSYS));
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(errno::reply(Errno::NOTTY));
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _ph: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files are always ready; after this answer the kernel knows.
        reply.error(errno::reply(Errno::NOSYS));
    }

    fn fallocate(
        &self,
        req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _timed = Timed::new(Operation::Fallocate);
        reply_empty(self.fs.fallocate(caller(req), fh(handle), mode, offset, length), reply);
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _timed = Timed::new(Operation::Lseek);
        match self.fs.lseek(fh(handle), offset, whence) {
            Ok(offset) => reply.offset(i64::try_from(offset).unwrap_or(i64::MAX)),
            Err(error) => reply.error(errno::reply(error)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        _ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let timed = Timed::new(Operation::CopyFileRange);
        if !flags.is_empty() {
            return reply.error(errno::reply(Errno::INVAL));
        }
        let (fs, caller) = (Arc::clone(&self.fs), caller(req));
        self.offload.run(move || {
            let _timed = timed;
            let (from, to) = ((fh(fh_in), offset_in), (fh(fh_out), offset_out));
            match fs.copy_file_range(caller, from, to, len) {
                Ok(count) => reply.written(u32::try_from(count).unwrap_or(u32::MAX)),
                Err(error) => reply.error(errno::reply(error)),
            }
        });
    }
}

/// How long the kernel may believe what is over. Not for ever: that a clock was set back, or that
/// history was pruned, it is to hear of some day.
const LONG: Duration = Duration::from_secs(3600);

/// Bytes of directory entries to read for one reply, whose size fuser does not tell.
const LISTING: usize = 8 * 1024;
