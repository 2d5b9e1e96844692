//! Files without a name, and names that come and go under open files.

use std::fs::File;
use std::io::Write;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::mounted::{Mounted, can_mount};
use crate::tools::sha256;

#[test]
fn nameless_files_get_names_or_are_refused() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    match rustix::fs::openat(CWD, &mounted.mountpoint, flags, Mode::RUSR | Mode::WUSR) {
        // Programs fall back to a file with a name then.
        Err(error) => assert_eq!(error, Errno::OPNOTSUPP),
        Ok(fd) => {
            let mut file = File::from(fd);
            file.write_all(b"nameless").unwrap();
            let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(CWD, from, CWD, mounted.at("f"), follow).unwrap();
            drop(file);
            assert_eq!(mounted.digests("f").last(), Some(&sha256("nameless")));
        }
    }
    mounted.assert_catalog_is_true();
}
