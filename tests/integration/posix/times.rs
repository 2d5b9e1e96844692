//! Time stamps.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Timespec, Timestamps};

use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, same_in_every_way};

#[test]
fn times() {
    same_in_every_way(|dir| {
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        let mut seen = Vec::new();
        for (seconds, nanos) in [(0, 0), (-1, 999_999_999), (-1_000_000_000, 5), (4_000_000_000, 1)]
        {
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
            let meta = fs::metadata(&file).unwrap();
            seen.push((meta.mtime(), meta.mtime_nsec(), meta.atime(), meta.atime_nsec()));
        }
        seen
    });
}

/// Sets an access time that any reader would move, because the modification is younger.
fn last_read_long_ago(path: &Path) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 100_000_000, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 200_000_000, tv_nsec: 0 },
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn what_the_catalog_reads_for_itself_keeps_its_access_time() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let mut mounted = Mounted::prepared(options, |dir| {
            fs::create_dir(dir.join("old")).unwrap();
            fs::write(dir.join("old/file"), "x").unwrap();
            last_read_long_ago(&dir.join("old/file"));
            last_read_long_ago(&dir.join("old"));
        });
        mounted.wait_reconciled();
        let atimes = |mounted: &Mounted, names: &[&str]| {
            names.iter().for_each(|name| {
                let atime = fs::metadata(mounted.backing.join(name)).unwrap().atime();
                assert_eq!(atime, 100_000_000, "{name}, {options}");
            });
        };
        atimes(&mounted, &["old", "old/file"]);
        // A file that can be mapped is read after its last close.
        let both = File::options().read(true).write(true).create_new(true).clone();
        let made = File::options().write(true).create_new(true).clone();
        for (name, how) in [("both", both), ("made", made)] {
            let mut file = how.open(mounted.at(name)).unwrap();
            file.write_all(b"some content").unwrap();
            last_read_long_ago(&mounted.at(name));
        }
        // Created, but open for reading only.
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDONLY;
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        let empty = rustix::fs::open(mounted.at("empty"), flags, mode).unwrap();
        last_read_long_ago(&mounted.at("empty"));
        drop(empty);
        mounted.sync();
        for name in ["both", "made", "empty"] {
            assert_eq!(mounted.digests(name).len(), 1, "{name}, {options}");
        }
        atimes(&mounted, &["both", "made", "empty"]);
        mounted.remount();
        atimes(&mounted, &["old", "old/file", "both", "made", "empty"]);
    }
}
