//! Everything that a program can ask of a directory and its files, with what it is told.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Result;

/// Makes what [`try_all`] works on.
pub(crate) fn prepare(dir: &Path) {
    for name in ["read", "write", "append", "cut", "over", "attr", "gone", "moved", "linked"] {
        fs::write(dir.join(name), "content").unwrap();
    }
    for name in ["empty", "full", "exchanged"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    fs::write(dir.join("full/f"), "content").unwrap();
    rustix::fs::setxattr(dir.join("attr"), "user.old", b"x", XattrFlags::empty()).unwrap();
    std::os::unix::fs::symlink("read", dir.join("symlink")).unwrap();
}

/// Asks for everything, and tells what came of it.
pub(crate) fn try_all(dir: &Path) -> Vec<(&'static str, String)> {
    let mut said = reading(dir);
    said.extend(files(dir));
    said.extend(attributes(dir));
    said.extend(names(dir));
    said
}

type Told = (&'static str, String);

fn tell<T>(what: &'static str, result: Result<T>) -> Told {
    (what, result.map_or_else(|error| format!("errno {}", error.raw_os_error()), |_| "done".into()))
}

fn tell_io<T>(what: &'static str, result: std::io::Result<T>) -> Told {
    tell(what, result.map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap()))
}

/// What changes nothing.
pub(crate) fn reading(dir: &Path) -> Vec<Told> {
    let at = |name: &str| dir.join(name);
    let mut byte = [0];
    vec![
        tell_io("stat", fs::metadata(at("read"))),
        tell_io("open", File::open(at("read"))),
        tell_io("read", File::open(at("read")).and_then(|mut file| file.read_exact(&mut byte))),
        tell_io(
            "list",
            fs::read_dir(dir).and_then(|list| list.collect::<std::io::Result<Vec<_>>>()),
        ),
        tell_io("readlink", fs::read_link(at("symlink"))),
        tell("getxattr", rustix::fs::getxattr(at("attr"), "user.old", &mut byte)),
        tell("listxattr", rustix::fs::listxattr(at("attr"), &mut [0; 256])),
        tell("statfs", rustix::fs::statfs(dir)),
        tell_io("no such name", fs::metadata(at("none"))),
    ]
}

fn files(dir: &Path) -> Vec<Told> {
    let at = |name: &str| dir.join(name);
    let open = |name: &str, flags: OFlags| -> Result<File> {
        let mode = Mode::from_raw_mode(0o644);
        rustix::fs::open(at(name), flags, mode).map(File::from)
    };
    let write = |name: &str, flags: OFlags| {
        open(name, flags).and_then(|file| rustix::io::write(&file, &[7; 100]).map(drop))
    };
    let on = |name: &str, act: fn(&File) -> Result<()>| {
        open(name, OFlags::RDWR).and_then(|file| act(&file))
    };
    vec![
        tell("write", write("write", OFlags::WRONLY)),
        tell("read and write", write("write", OFlags::RDWR)),
        tell("append", write("append", OFlags::WRONLY | OFlags::APPEND)),
        tell("cut and write", write("cut", OFlags::WRONLY | OFlags::TRUNC)),
        tell("create and write", write("new", OFlags::WRONLY | OFlags::CREATE)),
        tell("create anew", write("new", OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)),
        tell("write far out", on("over", |file| rustix::io::pwrite(file, b"x", 1 << 20).map(drop))),
        tell("grow", on("over", |file| rustix::fs::ftruncate(file, 1 << 30))),
        tell("shrink", on("over", |file| rustix::fs::ftruncate(file, 3))),
        tell(
            "allocate",
            on("over", |file| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 1 << 20)),
        ),
        tell("sync", on("over", |file| rustix::fs::fsync(file))),
        tell_io(
            "write and sync",
            open("write", OFlags::WRONLY).map_err(Into::into).and_then(|file| {
                file.write_all_at(&[1; 5_000], 0)?;
                file.sync_all()
            }),
        ),
    ]
}

fn attributes(dir: &Path) -> Vec<Told> {
    let attr = dir.join("attr");
    let set =
        |name: &str, value: &[u8]| rustix::fs::setxattr(&attr, name, value, XattrFlags::empty());
    let now = rustix::fs::Timespec { tv_sec: 7, tv_nsec: 7 };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    vec![
        tell_io("chmod", fs::set_permissions(&attr, Permissions::from_mode(0o640))),
        tell_io(
            "chmod a directory",
            fs::set_permissions(dir.join("empty"), Permissions::from_mode(0o750)),
        ),
        tell_io("chown", std::os::unix::fs::chown(&attr, Some(7), Some(7))),
        tell("utimens", rustix::fs::utimensat(CWD, &attr, &times, AtFlags::empty())),
        tell("setxattr", set("user.new", b"x")),
        tell("large setxattr", set("user.large", &[1; 3_000])),
        tell("removexattr", rustix::fs::removexattr(&attr, "user.old")),
    ]
}

fn names(dir: &Path) -> Vec<Told> {
    let at = |name: &str| -> PathBuf { dir.join(name) };
    let mode = Mode::from_raw_mode(0o644);
    let long = "x".repeat(1_000);
    vec![
        tell("mkdir", rustix::fs::mkdir(at("made"), mode)),
        tell("mknod", rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, mode, 0)),
        tell("symlink", rustix::fs::symlink("t", at("short"))),
        tell("long symlink", rustix::fs::symlink(&long, at("long"))),
        tell("link", rustix::fs::link(at("linked"), at("other"))),
        tell("rename", rustix::fs::rename(at("moved"), at("there"))),
        tell("rename over", rustix::fs::rename(at("linked"), at("gone"))),
        tell("rename into", rustix::fs::rename(at("gone"), at("full/in"))),
        tell(
            "exchange",
            rustix::fs::renameat_with(CWD, at("exchanged"), CWD, at("cut"), RenameFlags::EXCHANGE),
        ),
        tell("rmdir of a full one", rustix::fs::rmdir(at("full"))),
        tell("rename a directory", rustix::fs::rename(at("full"), at("renamed"))),
        tell("rmdir", rustix::fs::rmdir(at("empty"))),
        tell("unlink", rustix::fs::unlink(at("read"))),
        tell_io("sync a directory", File::open(dir).and_then(|dir| dir.sync_all())),
    ]
}
