//! What `statfs` tells, and the sizes of files.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, must, same_in_every_way};

/// `FUSE_SUPER_MAGIC`.
const FUSE: i64 = 0x6573_5546;

#[test]
fn figures_are_those_of_the_backing_filesystem() {
    if !can_mount() {
        return;
    }
    for (kind, size) in [("ext4", 32), ("xfs", 320), ("btrfs", 200)] {
        let Some(disk) = Disk::new(kind, size, &["-q"], "") else { return };
        let mounted = Mounted::on(&disk.path(), "");
        fs::create_dir(mounted.at("d")).unwrap();
        fs::write(mounted.at("d/f"), vec![1; 300_000]).unwrap();
        mounted.sync();
        // What is written takes its place on the disk first.
        must(Command::new("sync").arg("-f").arg(disk.path()));
        let file = File::open(mounted.at("d/f")).unwrap();
        let plain = rustix::fs::statfs(&mounted.backing).unwrap();
        let seen = [
            rustix::fs::statfs(&mounted.mountpoint).unwrap(),
            rustix::fs::statfs(mounted.at("d/f")).unwrap(),
            rustix::fs::fstatfs(&file).unwrap(),
        ];
        for seen in seen {
            assert_eq!(
                (seen.f_bsize, seen.f_frsize, seen.f_blocks, seen.f_bfree, seen.f_bavail),
                (plain.f_bsize, plain.f_frsize, plain.f_blocks, plain.f_bfree, plain.f_bavail),
                "{kind}"
            );
            assert_eq!(
                (seen.f_files, seen.f_ffree, seen.f_namelen),
                (plain.f_files, plain.f_ffree, plain.f_namelen),
                "{kind}"
            );
            // The kernel's own, of every FUSE filesystem.
            assert_eq!(seen.f_type, FUSE);
            assert_ne!(plain.f_type, FUSE);
        }
        let used = |path: &std::path::Path| {
            let mut df = Command::new("df");
            must(df.args(["--output=size,used,avail,pcent,itotal,iused"]).arg(path))
        };
        assert_eq!(used(&mounted.mountpoint), used(&mounted.backing), "{kind}");
    }
}

/// `nosuid`, `noexec` and their like are of the mount, which has its own.
#[test]
fn flags_are_those_of_the_mount() {
    if !can_mount() {
        return;
    }
    for (options, flag) in [
        ("nosuid", libc::ST_NOSUID),
        ("nodev", libc::ST_NODEV),
        ("noexec", libc::ST_NOEXEC),
        ("noatime", libc::ST_NOATIME),
        ("ro", libc::ST_RDONLY),
    ] {
        let mounted = Mounted::with_options(options);
        let flags = rustix::fs::statvfs(&mounted.mountpoint).unwrap().f_flag.bits();
        assert_ne!(flags & flag, 0, "{options}");
        let plain = Mounted::new();
        let flags = rustix::fs::statvfs(&plain.mountpoint).unwrap().f_flag.bits();
        assert_eq!(flags & flag, 0, "{options}");
    }
}

#[test]
fn devices_do_not_open_where_they_may_not() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::with_options(&format!("{way},nodev"));
        must(Command::new("mknod").arg(mounted.at("null")).args(["c", "1", "3"]));
        let refused = File::open(mounted.at("null")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES), "{way}");
    }
}

#[test]
fn files_take_as_many_blocks_as_anywhere() {
    same_in_every_way(|dir| {
        let mut said = Vec::new();
        let mut note = |name: &str| {
            let path = dir.join(name);
            File::open(&path).unwrap().sync_all().unwrap();
            let meta = fs::metadata(&path).unwrap();
            said.push((name.to_owned(), meta.size(), meta.blocks(), meta.blksize()));
        };
        fs::write(dir.join("empty"), "").unwrap();
        fs::write(dir.join("small"), "x").unwrap();
        fs::write(dir.join("large"), vec![1; 3 << 20]).unwrap();
        let sparse = File::create(dir.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        sparse.write_all_at(&[1; 4_096], 1 << 29).unwrap();
        for name in ["empty", "small", "large", "sparse"] {
            note(name);
        }
        fs::create_dir(dir.join("d")).unwrap();
        note("d");
        said
    });
}
