//! Reading and writing: direct, appended, synchronous, in holes and ranges.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::process::Command;

use rstest::rstest;
use rustix::fs::{FallocateFlags, SeekFrom as Whence};
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, same_in_every_way, sha256};

#[rstest]
fn direct_io(#[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut open = File::options();
    open.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    let file = open.truncate(false).open(mounted.at("f")).unwrap();
    let buffer = Mapping::anonymous(65_536);
    buffer.store(0, &noise(1, 65_536));
    assert_eq!(file.write_at(buffer.bytes(), 0).unwrap(), 65_536);
    buffer.fill(0);
    drop(file);
    assert_eq!(mounted.digests("f"), [sha256(noise(1, 65_536))]);
    let status = Command::new("dd")
        .args(["if=f", "of=g", "bs=4096", "iflag=direct", "oflag=direct", "status=none"])
        .current_dir(&mounted.mountpoint)
        .status();
    assert!(status.unwrap().success());
    assert_eq!(mounted.digests("g"), [sha256(noise(1, 65_536))]);
}

#[rstest]
fn appends_of_several_processes_do_not_tear(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    mounted.shell(
        r#"
        for w in a b c d; do
            (exec 5>>log; for n in $(seq 100); do echo "$w $n $(printf "$w%.0s" $(seq 80))" >&5; done) & jobs="${jobs-} $!"
        done
        for job in $jobs; do wait $job; done"#,
    );
    let text = fs::read_to_string(mounted.at("log")).unwrap();
    assert_eq!(text.lines().count(), 400);
    for writer in ["a", "b", "c", "d"] {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(writer)).collect();
        let expected: Vec<_> =
            (1..=100).map(|n| format!("{writer} {n} {}", writer.repeat(80))).collect();
        assert_eq!(lines, expected, "whole, and in order");
    }
    assert_eq!(mounted.digests("log").last(), Some(&sha256(&text)));
    mounted.assert_catalog_is_true();
}

#[test]
fn holes_are_found() {
    same_in_every_way(|dir| {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join("f"));
        let file = file.unwrap();
        file.write_at(&[1; 65_536], 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        let seek = |whence| rustix::fs::seek(&file, whence);
        let found = [
            seek(Whence::Data(0)),
            seek(Whence::Hole(1 << 20)),
            seek(Whence::Data(2 << 20)),
            seek(Whence::Hole(5 << 20)),
            seek(Whence::End(-10)),
        ];
        (found, file.metadata().unwrap().blocks() < 1_000)
    });
}

#[test]
fn ranges_that_fuse_cannot_move_are_refused_cleanly() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), noise(1, 65_536)).unwrap();
    let file = File::options().write(true).open(mounted.at("f")).unwrap();
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 4_096, 4_096), Err(Errno::OPNOTSUPP));
    }
    drop(file);
    assert_eq!(mounted.digests("f"), [sha256(noise(1, 65_536))]);
}

#[rstest]
fn a_write_moves_the_time(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let path = mounted.at("f");
    fs::write(&path, "x").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    let mut file = File::options().append(true).open(&path).unwrap();
    file.set_modified(old).unwrap();
    file.write_all(b"y").unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.modified().unwrap() > old, "seen before the close");
    assert_eq!(meta.len(), 2);
    drop(file);
    let [mount, backing] = [&path, &mounted.backing.join("f")].map(|p| fs::metadata(p).unwrap());
    assert_eq!((mount.mtime(), mount.mtime_nsec()), (backing.mtime(), backing.mtime_nsec()));
    assert_eq!(mount.ino(), backing.ino());
}

#[rstest]
fn what_one_writes_another_reads(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut writer = File::create(mounted.at("f")).unwrap();
    let mut reader = File::open(mounted.at("f")).unwrap();
    let mut text = String::new();
    for n in 0..50 {
        writer.write_all(format!("{n} ").as_bytes()).unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(&format!("{n} ")), "{text}");
        assert_eq!(fs::metadata(mounted.at("f")).unwrap().len(), text.len() as u64);
    }
    let both = File::options().read(true).write(true).open(mounted.at("f")).unwrap();
    both.write_at(b"X", 0).unwrap();
    reader.seek(SeekFrom::Start(0)).unwrap();
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"X");
}

#[test]
fn syncs_reach_the_disk() {
    same_in_every_way(|dir| {
        let mut file = File::create(dir.join("f")).unwrap();
        file.write_all(b"x").unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        File::open(dir).unwrap().sync_all().unwrap();
        rustix::fs::syncfs(&file).unwrap();
        File::open(dir.join("f")).unwrap().sync_all().is_ok()
    });
}
