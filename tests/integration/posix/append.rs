//! Appending: by several open files and processes, beside writers at an offset, switched on and off.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::Command;

use rstest::rstest;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{ReadWriteFlags, pwritev2};

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, same_as_plain, same_in_every_way, sha256};

const RECORD: usize = 64;
const HEADER: usize = 4_096;

fn record(writer: usize, n: usize) -> Vec<u8> {
    format!("{writer} {n} {}\n", "x".repeat(RECORD)).into_bytes()[..RECORD - 1]
        .iter()
        .copied()
        .chain([b'\n'])
        .collect()
}

/// Appends records and checks after each where it went.
fn append_records(mut file: File, writer: usize, count: usize) {
    let mut size = 0;
    for n in 0..count {
        let bytes = record(writer, n);
        assert_eq!(file.write(&bytes).unwrap(), RECORD);
        let (end, now) = (file.stream_position().unwrap(), file.metadata().unwrap().len());
        assert!(end <= now && size < now, "{writer} {n}: {end} {size} {now}");
        size = now;
    }
}

#[rstest]
fn appenders_of_every_kind_and_a_writer_in_place_share_a_file(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    const EACH: usize = 150;
    let mounted = Mounted::with_options(options);
    let path = mounted.at("f");
    fs::write(&path, vec![b'h'; HEADER]).unwrap();
    let open = |flags: i32, read: bool| {
        let mut open = OpenOptions::new();
        open.append(true).read(read).custom_flags(flags).open(&path).unwrap()
    };
    let kinds = [(0, false), (0, true), (libc::O_SYNC, false), (libc::O_DSYNC, true)];
    let files: Vec<_> = kinds.iter().map(|(flags, read)| open(*flags, *read)).collect();
    // One more in another process, through a descriptor that two of its children share.
    let script = r#"exec 5>>f; for c in 4 5; do
        (for n in $(seq 0 49); do printf '%s %s %062d' $c $n 0 | head -c 63 | sed 's/$/\n/' |
            dd bs=64 iflag=fullblock status=none >&5; done) & done; wait"#;
    let mut other = Command::new("bash")
        .args(["-euc", script])
        .current_dir(&mounted.mountpoint)
        .spawn()
        .unwrap();
    std::thread::scope(|scope| {
        for (writer, file) in files.into_iter().enumerate() {
            scope.spawn(move || append_records(file, writer, EACH));
        }
        scope.spawn(|| {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            for n in 0..200_u8 {
                file.write_all_at(&[n; 100], u64::from(n) * 16).unwrap();
            }
        });
    });
    assert!(other.wait().unwrap().success());
    let content = fs::read(&path).unwrap();
    assert_eq!(content.len(), HEADER + (4 * EACH + 2 * 50) * RECORD);
    let mut header: Vec<_> = (0..200_u8).flat_map(|n| [n; 16]).collect();
    header.extend([199; 84]);
    header.resize(HEADER, b'h');
    assert_eq!(&content[..HEADER], header);
    let mut next = [0; 6];
    for line in content[HEADER..].chunks(RECORD) {
        let line = std::str::from_utf8(line).unwrap();
        let parts: Vec<_> = line.split(' ').collect();
        let writer: usize = parts[0].parse().unwrap();
        assert_eq!(parts[1], next[writer].to_string(), "whole, and in order: {line}");
        assert_eq!(line.find('\n'), Some(RECORD - 1), "{line}");
        next[writer] += 1;
    }
    assert_eq!(next, [EACH, EACH, EACH, EACH, 50, 50]);
    assert_eq!(mounted.digests("f").last(), Some(&sha256(&content)));
    mounted.assert_catalog_is_true();
}

#[rstest]
fn what_is_changed_before_an_append_is_hashed_again(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(100, 3_000_000)] size: usize,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let path = mounted.at("f");
    fs::write(&path, noise(1, size)).unwrap();
    let older = OpenOptions::new().write(true).open(&path).unwrap();
    let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
    for text in [b"one", b"two"] {
        older.write_at(text, 7).unwrap();
        appender.write_all(text).unwrap();
        drop(appender.try_clone().unwrap());
        let newest = mounted.digests("f").pop();
        assert_eq!(newest, Some(sha256(fs::read(&path).unwrap())));
    }
    older.write_at(b"three", 7).unwrap();
    drop(older);
    drop(appender);
    // Nor does the next one go on from what is not there any more.
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"end").unwrap();
    mounted.assert_catalog_is_true();
}

#[test]
fn a_write_at_an_offset_appends_all_the_same() {
    same_in_every_way(|dir| {
        let path = dir.join("f");
        let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        file.write_all(b"one ").unwrap();
        let mut seen = Vec::new();
        for (text, offset) in [("two ", 0), ("three ", 1), ("four ", 1 << 40)] {
            let written = file.write_at(text.as_bytes(), offset).unwrap();
            seen.push((written as u64, file.metadata().unwrap().len()));
            seen.push((file.stream_position().unwrap(), 0));
        }
        (seen, fs::read_to_string(&path).unwrap())
    });
}

/// A file that begins with and without `O_APPEND`, which is switched over, and back.
fn switched(dir: &std::path::Path, access: OFlags) -> (Vec<String>, Vec<String>) {
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let [without, with] = [("a", OFlags::empty()), ("b", OFlags::APPEND)].map(|(name, flags)| {
        let flags = flags | access | OFlags::CREATE;
        let file = rustix::fs::open(dir.join(name), flags, 0o644.into()).unwrap();
        let file = File::from(file);
        let mut seen = Vec::new();
        file.write_at(b"0123456789", 0).unwrap();
        let first = fcntl_getfl(&file).unwrap();
        for flags in [first ^ OFlags::APPEND, first] {
            fcntl_setfl(&file, flags).unwrap();
            file.write_at(b"AB", 0).unwrap();
            seen.push(text(name));
            pwritev2(&file, &[IoSlice::new(b"CD")], 2, ReadWriteFlags::APPEND).unwrap();
            seen.push(text(name));
        }
        seen
    });
    (without, with)
}

#[rstest]
fn append_is_switched_on_by_fcntl(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(OFlags::WRONLY, OFlags::RDWR)] access: OFlags,
) {
    same_as_plain(options, |dir| switched(dir, access).0);
}

#[rstest]
fn append_is_switched_off_by_fcntl_where_the_daemon_writes(
    #[values("io=stream", "passthrough=off")] options: &str,
    #[values(OFlags::WRONLY, OFlags::RDWR)] access: OFlags,
) {
    same_as_plain(options, |dir| switched(dir, access).1);
}

#[rstest]
fn append_stays_where_the_kernel_writes(#[values("io=auto", "io=passthrough")] options: &str) {
    if !can_mount() {
        return;
    }
    // The kernel opens the backing file for itself, and fcntl does not reach that.
    let mounted = Mounted::with_options(options);
    let (_, with) = switched(&mounted.mountpoint, OFlags::WRONLY);
    assert_eq!(with[0], "0123456789AB");
    mounted.assert_catalog_is_true();
}

#[test]
fn pages_of_a_mapping_go_where_they_belong_beside_appenders() {
    same_in_every_way(|dir| {
        let path = dir.join("f");
        fs::write(&path, vec![b'.'; 8_192]).unwrap();
        let mut appender = OpenOptions::new().append(true).read(true).open(&path).unwrap();
        let mut other = OpenOptions::new().append(true).open(&path).unwrap();
        let mapping = Mapping::of(&appender, 8_192);
        mapping.store(100, b"first");
        mapping.sync();
        appender.write_all(b"end").unwrap();
        mapping.store(5_000, b"second");
        other.write_all(b" and end").unwrap();
        mapping.sync();
        drop((mapping, appender, other));
        String::from_utf8(fs::read(&path).unwrap()).unwrap()
    });
}
