//! The rarer calls on open files: copies inside the kernel, flags of single calls, hints, `ioctl`,
//! asynchronous I/O.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rstest::rstest;
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{
    have, noise, python_in, same_in_every_way, same_in_every_way_on, script_in, sha256,
};

const SIZE: usize = 300_000;

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

#[test]
fn the_kernel_copies_between_files() {
    if !have(&["python3"]) {
        return;
    }
    same_in_every_way(|dir| {
        fs::write(dir.join("f"), noise(1, SIZE)).unwrap();
        let told = python_in(
            dir,
            r"
import errno, os, socket
WAYS = {'stream': os.O_WRONLY | os.O_TRUNC, 'both': os.O_RDWR, 'append': os.O_WRONLY | os.O_APPEND}
source = os.open('f', os.O_RDONLY)
for name, flags in WAYS.items():
    for copy in ('sendfile', 'range', 'splice'):
        target = os.open(f'{name}-{copy}', flags | os.O_CREAT)
        if copy == 'sendfile':
            print(tried(os.sendfile, target, source, 100, 200000), tried(os.sendfile, target, source, 0, 10))
        elif copy == 'range':
            print(tried(os.copy_file_range, source, target, 200000, 100, 7))
            print(tried(os.copy_file_range, source, target, 10 ** 6, 299990, 0))
            print(tried(os.copy_file_range, target, source, 10, 0, 0))
        else:
            out, into = os.pipe()
            print(tried(os.splice, source, into, 5000, offset_src=77), tried(os.splice, out, target, 5000))
            print(tried(os.splice, source, into, 500, offset_src=299990))
            print(tried(os.splice, out, target, 500, offset_dst=9000))
        print(os.fstat(target).st_size, os.lseek(target, 0, os.SEEK_CUR))
both = os.open('f', os.O_RDWR)
print(tried(os.copy_file_range, both, both, 1000, 0, 5000), tried(os.copy_file_range, both, both, 1000, 0, 500))
left, right = socket.socketpair()
print(tried(os.sendfile, left.fileno(), both, 0, 1000), len(right.recv(1000, socket.MSG_WAITALL)))
",
        );
        let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
        files.sort_by_key(fs::DirEntry::file_name);
        let content =
            |entry: &fs::DirEntry| (entry.file_name(), sha256(fs::read(entry.path()).unwrap()));
        (told, files.iter().map(content).collect::<Vec<_>>())
    });
}

#[rstest]
fn cp_copies_with_and_without_reflinks(#[values("ext4", "xfs", "btrfs")] kind: &str) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new(kind, 320, &["-q"], "") else { return };
    same_in_every_way_on(&disk.path(), |dir| {
        fs::write(dir.join("f"), noise(1, SIZE)).unwrap();
        script_in(
            dir,
            "cp --reflink=auto f auto; cp --reflink=never f never; cp f plain
             truncate -s 10M sparse; cp --sparse=always sparse sparse2; cp -a f archive
             md5sum *; du sparse sparse2",
        )
    });
}

#[test]
fn reflinks_are_refused_as_where_there_are_none() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("xfs", 320, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "");
    fs::write(mounted.at("f"), noise(1, SIZE)).unwrap();
    let [from, to] = ["f", "g"].map(|name| open(&mounted.at(name)));
    assert_eq!(rustix::fs::ioctl_ficlone(&to, &from), Err(Errno::OPNOTSUPP));
    // But a copy by the kernel shares the blocks on the backing filesystem.
    let copied = rustix::fs::copy_file_range(&from, Some(&mut 0), &to, Some(&mut 0), SIZE);
    assert_eq!(copied, Ok(SIZE));
    drop((from, to));
    mounted.assert_catalog_is_true();
}

#[test]
fn single_calls_have_flags() {
    same_in_every_way(|dir| {
        let path = dir.join("f");
        fs::write(&path, "0123456789").unwrap();
        let [file, stream] = [open(&path), File::create(dir.join("g")).unwrap()];
        let mut seen = Vec::new();
        for flags in [
            ReadWriteFlags::empty(),
            ReadWriteFlags::DSYNC,
            ReadWriteFlags::SYNC,
            ReadWriteFlags::HIPRI,
            ReadWriteFlags::APPEND,
        ] {
            let write = |file: &File| pwritev2(file, &[IoSlice::new(b"ab")], 3, flags);
            let mut text = [0; 4];
            let read = preadv2(&file, &mut [IoSliceMut::new(&mut text)], 1, flags);
            seen.push((write(&file), write(&stream), read, text));
        }
        (seen, fs::read_to_string(&path).unwrap(), fs::read(dir.join("g")).unwrap())
    });
}

#[test]
fn hints_are_taken() {
    if !have(&["python3"]) {
        return;
    }
    same_in_every_way(|dir| {
        fs::write(dir.join("f"), noise(1, SIZE)).unwrap();
        python_in(
            dir,
            r"
import ctypes, os, select
libc = ctypes.CDLL(None, use_errno=True)
zero, size = ctypes.c_long(0), ctypes.c_long(100000)
for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY):
    file = os.open('f', flags)
    print([os.posix_fadvise(file, 0, 0, advice) for advice in range(6)])
    print(libc.readahead(file, zero, size), [libc.sync_file_range(file, zero, size, how) for how in range(9)])
    print(select.select([file], [file], [], 0) == ([file], [file], []))
    if flags != os.O_WRONLY:
        print(len(os.pread(file, 10 ** 6, 5)))
",
        )
    });
}

#[test]
fn what_fuse_does_not_have_is_refused_so_that_programs_do_without() {
    if !can_mount() || !have(&["python3"]) {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), noise(1, SIZE)).unwrap();
    let told = python_in(
        &mounted.mountpoint,
        r"
import errno, fcntl, os, select, struct
file = os.open('f', os.O_RDWR)
print('RWF_NOWAIT', done(os.preadv, file, [bytearray(10)], 0, os.RWF_NOWAIT))
print('RWF_DONTCACHE', done(os.preadv, file, [bytearray(10)], 0, 0x80))
print('FS_IOC_GETFLAGS', done(fcntl.ioctl, file, 0x80086601, bytes(8)))
print('FS_IOC_FIEMAP', done(fcntl.ioctl, file, 0xC020660B, struct.pack('QQIIII', 0, 1 << 62, 0, 0, 0, 0)))
# Elsewhere a regular file cannot be waited for; here it is always ready.
poll = select.epoll()
poll.register(file)
print('epoll', [event for at, event in poll.poll()] == [select.EPOLLIN | select.EPOLLOUT])
",
    );
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [
            "RWF_NOWAIT ENOTSUP",
            "RWF_DONTCACHE ENOTSUP",
            "FS_IOC_GETFLAGS ENOTTY",
            "FS_IOC_FIEMAP ENOTSUP",
            "epoll True"
        ]
    );
}

#[test]
fn asynchronous_requests_are_done() {
    if !have(&["python3"]) {
        return;
    }
    same_in_every_way(|dir| {
        fs::write(dir.join("f"), noise(1, 1 << 20)).unwrap();
        let told = python_in(
            dir,
            r"
import ctypes, mmap, os, platform
SETUP, SUBMIT, GETEVENTS = {'x86_64': (206, 209, 208), 'aarch64': (0, 2, 4)}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
class Iocb(ctypes.Structure):
    _fields_ = [('data', ctypes.c_uint64), ('key', ctypes.c_uint32), ('rw', ctypes.c_uint32),
        ('opcode', ctypes.c_uint16), ('prio', ctypes.c_int16), ('file', ctypes.c_uint32),
        ('buf', ctypes.c_uint64), ('size', ctypes.c_uint64), ('offset', ctypes.c_int64),
        ('rest', ctypes.c_uint64), ('flags', ctypes.c_uint32), ('event', ctypes.c_uint32)]
class Event(ctypes.Structure):
    _fields_ = [('data', ctypes.c_uint64), ('obj', ctypes.c_uint64), ('res', ctypes.c_int64), ('res2', ctypes.c_int64)]
PREAD, PWRITE, FSYNC = 0, 1, 2
memory = mmap.mmap(-1, 1 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
for flags in (os.O_RDWR, os.O_RDWR | os.O_DIRECT):
    file = os.open('f', flags)
    context = ctypes.c_uint64(0)
    assert libc.syscall(SETUP, 64, ctypes.byref(context)) == 0
    def go(opcode, count, step=16384):
        blocks = [Iocb(n, 0, 0, opcode, 0, file, 0 if opcode == FSYNC else address + n * step,
            0 if opcode == FSYNC else step, n * step) for n in range(count)]
        list_ = (ctypes.POINTER(Iocb) * count)(*map(ctypes.pointer, blocks))
        assert libc.syscall(SUBMIT, context, ctypes.c_long(count), list_) == count, ctypes.get_errno()
        events = (Event * count)()
        assert libc.syscall(GETEVENTS, context, ctypes.c_long(count), ctypes.c_long(count), events, None) == count
        return sorted((event.data, event.res) for event in events)
    print(go(PREAD, 40))
    memory[:] = bytes(byte ^ 0x55 for byte in memory[:])
    print(go(PWRITE, 40))
    print(go(FSYNC, 1))
",
        );
        (told, sha256(fs::read(dir.join("f")).unwrap()))
    });
}

#[test]
fn ranges_are_taken_out_of_files() {
    same_in_every_way(|dir| {
        use rustix::fs::FallocateFlags as Mode;
        let path = dir.join("f");
        fs::write(&path, noise(1, SIZE)).unwrap();
        let file = open(&path);
        let keep = Mode::KEEP_SIZE;
        let mut seen = Vec::new();
        for (mode, offset, length) in [
            (Mode::PUNCH_HOLE | keep, 4_096, 8_192),
            (Mode::PUNCH_HOLE | keep, 20_001, 77),
            (Mode::PUNCH_HOLE, 0, 4_096),
            (Mode::ZERO_RANGE, 40_000, 1_000),
            (Mode::ZERO_RANGE, 299_000, 5_000),
            (Mode::ZERO_RANGE | keep, 300_000, 50_000),
            (Mode::empty(), 310_000, 1_000),
            (keep, 400_000, 1_000),
            (Mode::PUNCH_HOLE | keep, 1 << 40, 10),
            (Mode::empty(), 0, 0),
            (Mode::UNSHARE_RANGE | Mode::PUNCH_HOLE, 0, 10),
        ] {
            let result = rustix::fs::fallocate(&file, mode, offset, length);
            let mut byte = [0; 100];
            let read = file.read_at(&mut byte, offset).ok();
            seen.push((result, file.metadata().unwrap().len(), read, byte.to_vec()));
        }
        (seen, sha256(fs::read(&path).unwrap()))
    });
}
