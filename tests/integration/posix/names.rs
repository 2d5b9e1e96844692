//! Names and paths at their limits.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::tools::same_in_every_way;

#[test]
fn every_byte_may_be_in_a_name() {
    same_in_every_way(|dir| {
        let bytes = (1..=255_u8).filter(|byte| *byte != b'/');
        let mut names: Vec<Vec<u8>> = bytes.clone().map(|byte| vec![b'a', byte, b'z']).collect();
        names.extend(bytes.filter(|byte| *byte != b'.').map(|byte| vec![byte]));
        for name in &names {
            let path = dir.join(OsStr::from_bytes(name));
            fs::write(&path, name).unwrap();
            assert_eq!(&fs::read(&path).unwrap(), name);
        }
        let mut listed: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        listed.sort();
        assert_eq!(listed.len(), names.len());
        for name in &names[..100] {
            fs::remove_file(dir.join(OsStr::from_bytes(name))).unwrap();
        }
        listed
    });
}

/// What every call says that takes a name.
fn calls(dir: &Path, name: &str) -> Vec<Result<(), Errno>> {
    let path = dir.join(name);
    let there = dir.join("there");
    fs::write(&there, "x").unwrap();
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let flags = AtFlags::empty();
    vec![
        rustix::fs::stat(&path).map(drop),
        rustix::fs::open(&path, OFlags::RDONLY, Mode::empty()).map(drop),
        rustix::fs::mkdir(&path, Mode::RWXU),
        rustix::fs::rmdir(&path),
        rustix::fs::open(&path, create, Mode::RUSR).map(drop),
        rustix::fs::unlink(&path),
        rustix::fs::symlink("target", &path),
        rustix::fs::readlink(&path, Vec::new()).map(drop),
        rustix::fs::unlink(&path),
        rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0),
        rustix::fs::unlink(&path),
        rustix::fs::linkat(CWD, &there, CWD, &path, flags),
        rustix::fs::unlink(&path),
        rustix::fs::renameat_with(CWD, &there, CWD, &path, RenameFlags::NOREPLACE),
        rustix::fs::rename(&path, &there),
        rustix::fs::chmod(&path, Mode::RUSR),
    ]
}

#[test]
fn names_have_255_bytes_and_no_more() {
    same_in_every_way(|dir| {
        let lengths = [1, 254, 255, 256, 257, 1_023, 1_024, 1_025, 4_000];
        let seen = lengths.map(|length| calls(dir, &"n".repeat(length)));
        // By characters there would be fewer.
        (seen, calls(dir, &"\u{20ac}".repeat(85)), calls(dir, &"\u{20ac}".repeat(86)))
    });
}

fn step(dir: &OwnedFd, name: &str) -> OwnedFd {
    rustix::fs::mkdirat(dir, name, Mode::RWXU).unwrap();
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

#[test]
fn paths_have_4095_bytes_and_trees_any_depth() {
    same_in_every_way(|dir| {
        let name = "d".repeat(255);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut fds = vec![rustix::fs::open(dir, flags, Mode::empty()).unwrap()];
        for _ in 0..60 {
            fds.push(step(fds.last().unwrap(), &name));
        }
        let long = [name.as_str(); 16].join("/");
        assert_eq!(long.len(), 4_095);
        let stat = |path: &str| {
            rustix::fs::statat(&fds[0], path, AtFlags::empty()).map(|stat| stat.st_nlink)
        };
        let limits = [stat(&long), stat(&format!("{long}/")), stat(&format!("./{long}"))];
        let create = OFlags::RDWR | OFlags::CREATE;
        let file = rustix::fs::openat(fds.last().unwrap(), "deep", create, Mode::RUSR).unwrap();
        let mut file = fs::File::from(file);
        file.write_all(b"15,000 bytes down").unwrap();
        fs::rename(dir.join(&name), dir.join("top")).unwrap();
        let up = ["..", "../..", "../../.."].map(|up| {
            let inode = |fd: &OwnedFd, path| rustix::fs::statat(fd, path, AtFlags::empty());
            let above = &fds[60 - up.len().div_ceil(3)];
            inode(&fds[60], up).unwrap().st_ino == rustix::fs::fstat(above).unwrap().st_ino
        });
        // A path that long no walk of the test's could take.
        rustix::fs::unlinkat(&fds[60], "deep", AtFlags::empty()).unwrap();
        for depth in (1..60).rev() {
            rustix::fs::unlinkat(&fds[depth], &name, AtFlags::REMOVEDIR).unwrap();
        }
        (limits, up, file.metadata().unwrap().len())
    });
}
