//! Files without a name, and names that come and go under open files.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, sha256};

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

/// A directory shown by another program through FUSE, gone when dropped.
struct Bindfs(tempfile::TempDir);

impl Bindfs {
    fn new() -> Self {
        let dir = crate::mounted::scratch();
        let [source, mountpoint] = ["source", "shown"].map(|name| dir.path().join(name));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        must(Command::new("bindfs").args([source, mountpoint]));
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("shown")
    }
}

impl Drop for Bindfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_removal_succeeds_where_the_backing_forgets_the_inode_with_its_last_name() {
    if !can_mount() || !have(&["bindfs"]) {
        return;
    }
    let backing = Bindfs::new();
    let mounted = Mounted::on(&backing.path(), "");
    let [f, g, d, l] = ["f", "g", "d", "l"].map(|name| mounted.at(name));
    fs::write(&f, "one").unwrap();
    fs::remove_file(&f).unwrap();
    fs::create_dir(&d).unwrap();
    fs::remove_dir(&d).unwrap();
    std::os::unix::fs::symlink("target", &l).unwrap();
    fs::remove_file(&l).unwrap();
    fs::write(&f, "two").unwrap();
    fs::write(&g, "three").unwrap();
    fs::rename(&f, &g).unwrap();
    assert_eq!(fs::read(&g).unwrap(), b"two");
    mounted.assert_catalog_is_true();
}
