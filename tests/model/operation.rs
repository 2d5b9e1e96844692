//! One operation on a small tree, and the world it is done in.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;

/// Names are few, so that operations meet; some are not text.
const NAMES: [&CStr; 6] = [c"a", c"b", c"c.tmp", c"d", c"\xff\xfe", c"new\nline\\"];

/// A path of one to three names.
#[derive(Debug, Clone)]
pub(crate) struct Name(Vec<u8>);

impl Arbitrary for Name {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        proptest::collection::vec(0..u8::try_from(NAMES.len()).unwrap(), 1..3)
            .prop_map(Self)
            .boxed()
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    Read,
    Write,
    ReadWrite,
    Append,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Create {
    No,
    IfMissing,
    Exclusive,
    Truncate,
}

/// What is done. Open files are kept in four slots.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    WriteFile { name: Name, fill: u8, length: u32 },
    AppendFile { name: Name, fill: u8, length: u16 },
    SaveByRename { name: Name, fill: u8, length: u16 },
    SaveByBackup { name: Name, fill: u8, length: u16 },
    Open { slot: u8, name: Name, how: How, create: Create },
    Write { slot: u8, offset: u32, fill: u8, length: u16 },
    Read { slot: u8, offset: u32, length: u16 },
    Store { slot: u8, offset: u16, fill: u8, keep_mapped: bool },
    TruncateOpen { slot: u8, length: u32 },
    Punch { slot: u8, offset: u16, length: u16 },
    Allocate { slot: u8, offset: u16, length: u16 },
    Copy { from: u8, to: u8, from_offset: u16, to_offset: u16, length: u16 },
    Duplicate { slot: u8 },
    Sync { slot: u8 },
    Close { slot: u8 },
    Truncate { name: Name, length: u32 },
    Rename { from: Name, to: Name, flags: u8 },
    Link { from: Name, to: Name },
    Unlink { name: Name },
    MakeDir { name: Name, mode: u16 },
    RemoveDir { name: Name },
    Symlink { target: Name, name: Name },
    MakeNode { name: Name, kind: u8 },
    ChangeMode { name: Name, mode: u16 },
    ChangeOwner { name: Name, uid: u8, gid: u8 },
    SetTimes { name: Name, seconds: i32, nanos: u32 },
    SetXattr { name: Name, fill: u8, length: u8 },
    RemoveXattr { name: Name },
    List { name: Name },
}

impl Arbitrary for Operation {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        use Operation as O;
        let name = any::<Name>;
        let slot = || 0..4u8;
        let how = prop_oneof![
            Just(How::Read),
            Just(How::Write),
            Just(How::ReadWrite),
            Just(How::ReadWrite),
            Just(How::Append)
        ];
        let create = prop_oneof![
            Just(Create::No),
            Just(Create::IfMissing),
            Just(Create::IfMissing),
            Just(Create::Exclusive),
            Just(Create::Truncate)
        ];
        // Around the size up to which content is read at close, too.
        let length = prop_oneof![
            8 => 0..20_000u32,
            1 => 1_040_000..1_060_000u32,
            1 => 1_500_000..3_000_000u32
        ];
        let files = prop_oneof![
            4 => (name(), any::<u8>(), length.clone())
                .prop_map(|(name, fill, length)| O::WriteFile { name, fill, length }),
            2 => (name(), any::<u8>(), any::<u16>())
                .prop_map(|(name, fill, length)| O::AppendFile { name, fill, length }),
            2 => (name(), any::<u8>(), any::<u16>())
                .prop_map(|(name, fill, length)| O::SaveByRename { name, fill, length }),
            1 => (name(), any::<u8>(), any::<u16>())
                .prop_map(|(name, fill, length)| O::SaveByBackup { name, fill, length }),
            1 => (name(), length.clone()).prop_map(|(name, length)| O::Truncate { name, length }),
        ];
        let opened = prop_oneof![
            4 => (slot(), name(), how, create)
                .prop_map(|(slot, name, how, create)| O::Open { slot, name, how, create }),
            4 => (slot(), 0..30_000u32, any::<u8>(), any::<u16>()).prop_map(
                |(slot, offset, fill, length)| O::Write { slot, offset, fill, length }
            ),
            1 => (slot(), 0..30_000u32, any::<u16>())
                .prop_map(|(slot, offset, length)| O::Read { slot, offset, length }),
            2 => (slot(), any::<u16>(), any::<u8>(), any::<bool>()).prop_map(
                |(slot, offset, fill, keep_mapped)| O::Store { slot, offset, fill, keep_mapped }
            ),
            1 => (slot(), length).prop_map(|(slot, length)| O::TruncateOpen { slot, length }),
            1 => (slot(), any::<u16>(), 1..u16::MAX)
                .prop_map(|(slot, offset, length)| O::Punch { slot, offset, length }),
            1 => (slot(), any::<u16>(), 1..u16::MAX)
                .prop_map(|(slot, offset, length)| O::Allocate { slot, offset, length }),
            1 => (slot(), slot(), any::<u16>(), any::<u16>(), any::<u16>()).prop_map(
                |(from, to, from_offset, to_offset, length)| O::Copy {
                    from,
                    to,
                    from_offset,
                    to_offset,
                    length
                }
            ),
            1 => slot().prop_map(|slot| O::Duplicate { slot }),
            1 => slot().prop_map(|slot| O::Sync { slot }),
            3 => slot().prop_map(|slot| O::Close { slot }),
        ];
        let names = prop_oneof![
            3 => (name(), name(), 0..5u8)
                .prop_map(|(from, to, flags)| O::Rename { from, to, flags }),
            2 => (name(), name()).prop_map(|(from, to)| O::Link { from, to }),
            2 => name().prop_map(|name| O::Unlink { name }),
            3 => (name(), 0..0o2000u16).prop_map(|(name, mode)| O::MakeDir { name, mode }),
            1 => name().prop_map(|name| O::RemoveDir { name }),
            1 => (name(), name()).prop_map(|(target, name)| O::Symlink { target, name }),
            1 => (name(), 0..3u8).prop_map(|(name, kind)| O::MakeNode { name, kind }),
            1 => name().prop_map(|name| O::List { name }),
        ];
        let attributes = prop_oneof![
            (name(), 0..0o10000u16).prop_map(|(name, mode)| O::ChangeMode { name, mode }),
            (name(), 0..3u8, 0..3u8).prop_map(|(name, uid, gid)| O::ChangeOwner { name, uid, gid }),
            (name(), any::<i32>(), 0..1_000_000_000u32)
                .prop_map(|(name, seconds, nanos)| O::SetTimes { name, seconds, nanos }),
            (name(), any::<u8>(), any::<u8>()).prop_map(|(name, fill, length)| O::SetXattr {
                name,
                fill,
                length
            }),
            name().prop_map(|name| O::RemoveXattr { name }),
        ];
        prop_oneof![4 => files, 6 => opened, 4 => names, 2 => attributes].boxed()
    }
}

/// What an operation gave: bytes, numbers, or an error.
pub(crate) type Outcome = Result<Vec<u8>, Errno>;

/// A tree and the files that are open in it.
pub(crate) struct World {
    root: PathBuf,
    slots: BTreeMap<u8, OwnedFd>,
    duplicates: Vec<OwnedFd>,
    mappings: Vec<Mapping>,
}

impl World {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            slots: BTreeMap::new(),
            duplicates: Vec::new(),
            mappings: Vec::new(),
        }
    }

    fn path(&self, name: &Name) -> CString {
        use std::os::unix::ffi::OsStrExt;
        let mut path = self.root.as_os_str().as_bytes().to_vec();
        for index in &name.0 {
            path.push(b'/');
            path.extend_from_slice(NAMES[usize::from(*index)].to_bytes());
        }
        CString::new(path).unwrap()
    }

    fn slot(&self, slot: u8) -> Result<&OwnedFd, Errno> {
        self.slots.get(&slot).ok_or(Errno::BADF)
    }

    /// Does one operation.
    pub(crate) fn apply(&mut self, operation: &Operation) -> Outcome {
        use Operation as O;
        match operation {
            O::WriteFile { .. }
            | O::AppendFile { .. }
            | O::SaveByRename { .. }
            | O::SaveByBackup { .. }
            | O::Truncate { .. } => self.file(operation),
            O::Open { slot, name, how, create } => {
                let fd = open(&self.path(name), *how, *create)?;
                self.slots.insert(*slot, fd);
                nothing()
            }
            O::Close { slot } => self.slots.remove(slot).map(|_| Vec::new()).ok_or(Errno::BADF),
            O::Duplicate { slot } => {
                let fd = rustix::io::fcntl_dupfd_cloexec(self.slot(*slot)?, 3)?;
                self.duplicates.push(fd);
                nothing()
            }
            O::Store { slot, offset, fill, keep_mapped } => {
                let mapping = Mapping::store(self.slot(*slot)?, (*offset).into(), *fill)?;
                if *keep_mapped {
                    self.mappings.push(mapping);
                }
                nothing()
            }
            O::Write { .. }
            | O::Read { .. }
            | O::TruncateOpen { .. }
            | O::Punch { .. }
            | O::Allocate { .. }
            | O::Copy { .. }
            | O::Sync { .. } => self.range(operation),
            O::ChangeMode { .. }
            | O::ChangeOwner { .. }
            | O::SetTimes { .. }
            | O::SetXattr { .. }
            | O::RemoveXattr { .. } => self.attributes(operation),
            _ => self.name(operation),
        }
    }

    /// Whole files, from open to close.
    fn file(&mut self, operation: &Operation) -> Outcome {
        use Operation as O;
        match operation {
            O::WriteFile { name, fill, length } => {
                let fd = open(&self.path(name), How::Write, Create::Truncate)?;
                write_all(&fd, *fill, *length as usize)
            }
            O::AppendFile { name, fill, length } => {
                let fd = open(&self.path(name), How::Append, Create::IfMissing)?;
                write_all(&fd, *fill, (*length).into())
            }
            O::SaveByRename { name, fill, length } => {
                let (path, temp) = (self.path(name), self.path(&Name(vec![2])));
                let fd = open(&temp, How::Write, Create::Truncate)?;
                write_all(&fd, *fill, (*length).into())?;
                drop(fd);
                rustix::fs::rename(temp, path)?;
                nothing()
            }
            O::SaveByBackup { name, fill, length } => {
                let path = self.path(name);
                let backup = CString::new([path.to_bytes(), b"~"].concat()).unwrap();
                rustix::fs::rename(&path, &backup)?;
                let fd = open(&path, How::Write, Create::Exclusive)?;
                write_all(&fd, *fill, (*length).into())?;
                drop(fd);
                rustix::fs::unlinkat(CWD, backup, AtFlags::empty())?;
                nothing()
            }
            O::Truncate { name, length } => {
                let path = self.path(name);
                let length = i64::from(*length);
                // SAFETY is not needed: std has no truncate(2) by path, so it is done by the shell's
                // way, an open for writing and ftruncate, half of the time elsewhere; here by name.
                truncate(&path, length)
            }
            _ => unreachable!("not a whole-file operation"),
        }
    }

    /// Ranges of open files.
    fn range(&mut self, operation: &Operation) -> Outcome {
        use Operation as O;
        match operation {
            O::Write { slot, offset, fill, length } => {
                let data = vec![*fill; (*length).into()];
                let count = rustix::io::pwrite(self.slot(*slot)?, &data, (*offset).into())?;
                number(count as u64)
            }
            O::Read { slot, offset, length } => {
                let mut data = vec![0; (*length).into()];
                let count = rustix::io::pread(self.slot(*slot)?, &mut data[..], (*offset).into())?;
                data.truncate(count);
                Ok(data)
            }
            O::TruncateOpen { slot, length } => {
                rustix::fs::ftruncate(self.slot(*slot)?, (*length).into())?;
                nothing()
            }
            O::Punch { slot, offset, length } => {
                let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let fd = self.slot(*slot)?;
                rustix::fs::fallocate(fd, how, (*offset).into(), (*length).into())?;
                nothing()
            }
            O::Allocate { slot, offset, length } => {
                let fd = self.slot(*slot)?;
                let how = FallocateFlags::empty();
                rustix::fs::fallocate(fd, how, (*offset).into(), (*length).into())?;
                nothing()
            }
            O::Copy { from, to, from_offset, to_offset, length } => {
                let (from, to) = (self.slot(*from)?, self.slot(*to)?);
                let (mut off_in, mut off_out) = (u64::from(*from_offset), u64::from(*to_offset));
                let count = rustix::fs::copy_file_range(
                    from,
                    Some(&mut off_in),
                    to,
                    Some(&mut off_out),
                    (*length).into(),
                )?;
                number(count as u64)
            }
            O::Sync { slot } => {
                rustix::fs::fsync(self.slot(*slot)?)?;
                nothing()
            }
            _ => unreachable!("not an operation on a range"),
        }
    }

    /// Names.
    fn name(&mut self, operation: &Operation) -> Outcome {
        use Operation as O;
        match operation {
            O::Rename { from, to, flags } => {
                let flags = match flags {
                    0 => RenameFlags::NOREPLACE,
                    1 => RenameFlags::EXCHANGE,
                    _ => RenameFlags::empty(),
                };
                rustix::fs::renameat_with(CWD, self.path(from), CWD, self.path(to), flags)?;
            }
            O::Link { from, to } => {
                rustix::fs::linkat(CWD, self.path(from), CWD, self.path(to), AtFlags::empty())?;
            }
            O::Unlink { name } => {
                rustix::fs::unlinkat(CWD, self.path(name), AtFlags::empty())?;
            }
            O::MakeDir { name, mode } => {
                let mode = Mode::from_raw_mode(u32::from(*mode) | 0o700);
                rustix::fs::mkdirat(CWD, self.path(name), mode)?;
            }
            O::RemoveDir { name } => {
                rustix::fs::unlinkat(CWD, self.path(name), AtFlags::REMOVEDIR)?;
            }
            O::Symlink { target, name } => {
                let target = NAMES[usize::from(target.0[0])];
                rustix::fs::symlinkat(target, CWD, self.path(name))?;
            }
            O::MakeNode { name, kind } => {
                let kind =
                    [FileType::RegularFile, FileType::Fifo, FileType::Socket][usize::from(*kind)];
                let mode = Mode::from_raw_mode(0o640);
                rustix::fs::mknodat(CWD, self.path(name), kind, mode, 0)?;
            }
            O::List { name } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
                let fd = rustix::fs::open(self.path(name), flags, Mode::empty())?;
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::read_from(fd)? {
                    let entry = entry?;
                    let kind = entry.file_type();
                    names.push(
                        [entry.file_name().to_bytes(), format!(" {kind:?}").as_bytes()].concat(),
                    );
                }
                names.sort();
                return Ok(names.join(&b'/'));
            }
            _ => unreachable!("not an operation on names"),
        }
        nothing()
    }

    /// Attributes.
    fn attributes(&mut self, operation: &Operation) -> Outcome {
        use Operation as O;
        const XATTR: &CStr = c"user.test";
        match operation {
            O::ChangeMode { name, mode } => {
                rustix::fs::chmod(self.path(name), Mode::from_raw_mode((*mode).into()))?;
            }
            O::ChangeOwner { name, uid, gid } => {
                let id = |n: u8| if n == 0 { 0 } else { 60_000 + u32::from(n) };
                let (uid, gid) = (Uid::from_raw(id(*uid)), Gid::from_raw(id(*gid)));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(CWD, self.path(name), Some(uid), Some(gid), flags)?;
            }
            O::SetTimes { name, seconds, nanos } => {
                let time = Timespec { tv_sec: (*seconds).into(), tv_nsec: (*nanos).into() };
                let times = Timestamps { last_access: time, last_modification: time };
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(CWD, self.path(name), &times, flags)?;
                let stat = rustix::fs::statat(CWD, self.path(name), flags)?;
                return Ok(format!("{}.{}", stat.st_mtime, stat.st_mtime_nsec).into());
            }
            O::SetXattr { name, fill, length } => {
                let value = vec![*fill; (*length).into()];
                rustix::fs::lsetxattr(self.path(name), XATTR, &value, XattrFlags::empty())?;
            }
            O::RemoveXattr { name } => rustix::fs::lremovexattr(self.path(name), XATTR)?,
            _ => unreachable!("not an operation on attributes"),
        }
        nothing()
    }
}

fn nothing() -> Outcome {
    Ok(Vec::new())
}

fn number(n: u64) -> Outcome {
    Ok(n.to_string().into())
}

fn open(path: &CStr, how: How, create: Create) -> Result<OwnedFd, Errno> {
    let mut flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    flags |= match how {
        How::Read => OFlags::RDONLY,
        How::Write => OFlags::WRONLY,
        How::ReadWrite => OFlags::RDWR,
        How::Append => OFlags::WRONLY | OFlags::APPEND,
    };
    flags |= match create {
        Create::No => OFlags::empty(),
        Create::IfMissing => OFlags::CREATE,
        Create::Exclusive => OFlags::CREATE | OFlags::EXCL,
        Create::Truncate => OFlags::CREATE | OFlags::TRUNC,
    };
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))
}

fn write_all(fd: &OwnedFd, fill: u8, length: usize) -> Outcome {
    let data = vec![fill; length];
    let mut done = 0;
    while done < length {
        // Pieces of an odd size, so that the last one is short.
        let end = length.min(done + 100_003);
        done += rustix::io::write(fd, &data[done..end])?;
    }
    number(done as u64)
}

fn truncate(path: &CStr, length: i64) -> Outcome {
    // The coreutils program truncates by descriptor; by name only the system call does.
    #[allow(unsafe_code, reason = "neither std nor rustix has truncate(2)")]
    // SAFETY: the path is NUL-terminated.
    let result = unsafe { libc::truncate(path.as_ptr(), length) };
    if result == 0 { nothing() } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()
}

/// A shared writable mapping of a file.
struct Mapping {
    address: *mut libc::c_void,
    length: usize,
}

#[allow(unsafe_code, reason = "mappings are what is tested")]
impl Mapping {
    /// Maps a whole file and stores some bytes into it.
    fn store(fd: &OwnedFd, offset: usize, fill: u8) -> Result<Self, Errno> {
        let size = usize::try_from(rustix::fs::fstat(fd.as_fd())?.st_size).unwrap();
        if size == 0 {
            return Err(Errno::INVAL);
        }
        use std::os::fd::AsRawFd;
        // SAFETY: a new mapping at an address of the kernel's choice; checked below.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let mapping = Self { address, length: size };
        let at = offset % size;
        let count = 100.min(size - at);
        // SAFETY: the range lies within the mapping, and the file was not cut off meanwhile: each
        // world is used by one thread.
        unsafe { std::ptr::write_bytes(address.cast::<u8>().add(at), fill, count) };
        Ok(mapping)
    }
}

#[allow(unsafe_code, reason = "mappings are what is tested")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
