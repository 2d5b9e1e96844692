//! Time stamps.

use std::fs::{self};
use std::os::unix::fs::MetadataExt;

use rustix::fs::CWD;

use crate::tools::same_in_every_way;

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
