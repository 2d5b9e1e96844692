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
