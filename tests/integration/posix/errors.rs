//! Errors of the backing filesystem reach the caller unchanged.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, sha256};

#[test]
fn a_full_disk_says_so_and_keeps_what_was_written() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let Some(disk) = Disk::new("ext4", 48, &["-q"], "") else { return };
        // The catalog elsewhere, so that it is the user who fills the disk.
        let state = tempfile::tempdir().unwrap();
        let options = format!("{way},state={}", state.path().display());
        let mounted = Mounted::on(&disk.path(), &options);
        let mut file = File::create(mounted.at("f")).unwrap();
        let error = loop {
            match file.write(&[7; 65_536]) {
                Ok(count) => assert!(count > 0),
                Err(error) => break error,
            }
        };
        assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{way}");
        let size = file.metadata().unwrap().size();
        assert!(size > 20 << 20, "{way}: {size}");
        drop(file);
        assert_eq!(mounted.records(&["log", "f"])[0]["size"], size, "{way}");
        let content = vec![7; usize::try_from(size).unwrap()];
        assert_eq!(mounted.digests("f"), [sha256(content)], "{way}");
        fs::remove_file(mounted.at("f")).unwrap();
        fs::write(mounted.at("g"), "there is room again").unwrap();
        assert_eq!(mounted.digests("g"), [sha256("there is room again")], "{way}");
    }
}
