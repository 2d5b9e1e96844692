//! How many names a file can have. The C library guesses `LINK_MAX` by the type of the filesystem and
//! knows none for FUSE; what counts is where `link` stops.

use std::fs;
use std::path::Path;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};

/// Gives a file names until it gets no more, and says how many it has and why it gets no more.
fn link_until_refused(dir: &Path) -> (u64, Option<i32>) {
    let file = dir.join("f");
    fs::write(&file, "").unwrap();
    let error = (0..100_000).find_map(|n| fs::hard_link(&file, dir.join(n.to_string())).err());
    let links = std::os::unix::fs::MetadataExt::nlink(&fs::metadata(&file).unwrap());
    (links, error.and_then(|error| error.raw_os_error()))
}

#[test]
fn links_end_where_those_of_the_backing_directory_end() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 512, &[], "") else { return };
    let plain = disk.path().join("plain");
    fs::create_dir(&plain).unwrap();
    let expected = link_until_refused(&plain);
    assert_eq!(expected, (65_000, Some(libc::EMLINK)));
    let mounted = Mounted::on(&disk.path(), "");
    assert_eq!(link_until_refused(&mounted.mountpoint), expected);
}
