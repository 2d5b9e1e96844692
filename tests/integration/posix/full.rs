//! A catalog that cannot be written: files are served as before, and afterwards it is right again.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must};

/// The catalog lies on the disk that the user fills.
#[test]
fn a_disk_that_is_full_of_files_and_has_the_catalog_recovers() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let Some(disk) = Disk::new("ext4", 24, &["-q", "-m", "0"], "") else { return };
        let mounted = Mounted::on(&disk.path(), way);
        let mut filler = File::create(mounted.at("filler")).unwrap();
        let mut piece = 1 << 20;
        while piece > 1_024 {
            if filler.write_all(&vec![7; piece]).is_err() {
                piece /= 2;
            }
        }
        drop(filler);
        // Small things may find room or not; what the catalog says of them must be true.
        for n in 0..200 {
            let (from, to) = (mounted.at(format!("f{n}")), mounted.at(format!("g{n}")));
            let made = fs::write(&from, "x").and_then(|()| fs::rename(&from, &to));
            if let Err(error) = made {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{way}");
            }
        }
        fs::remove_file(mounted.at("filler")).unwrap();
        // Its place is free once it has been read for its digest.
        mounted.wait_for("room", || fs::write(mounted.at("after"), "room again").is_ok());
        mounted.wait_for("a catalog that is right again", || {
            let status = mounted.status();
            status["degraded"].is_null() && status["reconcile"]["state"] == "done"
        });
        mounted.sync();
        mounted.assert_catalog_is_true();
    }
}

/// The catalog lies on a disk that goes away under the mount.
#[test]
fn a_disk_that_fails_with_the_catalog_is_right_after_the_next_start() {
    if !can_mount() || !have(&["xfs_io"]) {
        return;
    }
    for way in WAYS {
        let Some(mut disk) = Disk::new("ext4", 24, &["-q"], "") else { return };
        let mut mounted = Mounted::on(&disk.path(), way);
        mounted.shell("mkdir d; for n in 1 2 3 4 5 6; do echo $n > d/$n; done");
        mounted.sync();
        must(Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(disk.path()));
        for n in 0..50 {
            let refused = fs::write(mounted.at(format!("d/f{n}")), "x").unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EIO), "{way}");
            assert!(fs::rename(mounted.at("d/1"), mounted.at("d/moved")).is_err());
        }
        // Nothing of it happened, and the daemon is still there to say so.
        let child = Command::new("kill").arg("-0").arg(mounted.pid().to_string()).status();
        assert!(child.unwrap().success(), "{way}");
        mounted.umount();
        disk.remount();
        mounted.start();
        mounted.wait_reconciled();
        mounted.assert_catalog_is_true();
        fs::write(mounted.at("after"), "it works again").unwrap();
        mounted.assert_catalog_is_true();
    }
}
