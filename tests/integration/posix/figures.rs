//! What `statfs` tells.

use crate::mounted::{Mounted, can_mount};

#[test]
fn figures_are_those_of_the_backing_filesystem() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let [a, b] = [&mounted.backing, &mounted.mountpoint].map(|p| rustix::fs::statvfs(p).unwrap());
    assert_eq!((a.f_bsize, a.f_frsize, a.f_blocks), (b.f_bsize, b.f_frsize, b.f_blocks));
    assert_eq!((a.f_files, a.f_namemax), (b.f_files, b.f_namemax));
    assert!(b.f_bavail > 0 && b.f_ffree > 0);
}
