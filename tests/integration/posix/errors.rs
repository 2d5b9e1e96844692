//! Errors of the backing filesystem reach the caller unchanged, and the catalog claims nothing that
//! did not happen.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::actors::{OTHER, ROOT, USER, loner};
use super::operations;
use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must, noise, sha256};

/// A mount of a directory on a disk of its own, with the catalog elsewhere, so that it is the user
/// who meets the disk's errors.
struct OnDisk {
    mounted: Mounted,
    _state: tempfile::TempDir,
}

impl OnDisk {
    fn new(disk: &Disk, way: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let mounted = Mounted::on(&disk.path(), &format!("{way},state={}", state.path().display()));
        Self { mounted, _state: state }
    }
}

/// Does the same in a directory of a disk and in a mount of another, in every way.
#[track_caller]
fn same_as_on_a_plain_disk<T: PartialEq + Debug>(
    make: impl Fn() -> Option<Disk>,
    work: impl Fn(&Disk, &Path) -> T,
) {
    if !can_mount() {
        return;
    }
    let Some(plain) = make() else { return };
    let dir = plain.path().join("backing");
    fs::create_dir(&dir).unwrap();
    let expected = work(&plain, &dir);
    for way in WAYS {
        let disk = make().unwrap();
        let served = OnDisk::new(&disk, way);
        let found = work(&disk, &served.mounted.mountpoint);
        assert_eq!(found, expected, "left: -o {way}, right: plain");
        served.mounted.assert_catalog_is_true();
        assert!(!served.mounted.status()["degraded"].is_string(), "{:#}", served.mounted.status());
    }
}

/// Writes to a new file until that fails, and tells how, and about how much there was room for.
fn fill(file: &Path, mut piece: usize) -> (i32, u64) {
    let mut file = File::create(file).unwrap();
    let bytes = vec![7; piece];
    loop {
        match file.write(&bytes[..piece]) {
            Ok(count) => assert!(count > 0),
            Err(_) if piece > 512 => piece /= 2,
            Err(error) => {
                let size = file.metadata().unwrap().size();
                return (error.raw_os_error().unwrap(), size >> 20);
            }
        }
    }
}
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
        fs::write(mounted.at("g"), "there is room again").expect(way);
        assert_eq!(mounted.digests("g"), [sha256("there is room again")], "{way}");
    }
}

#[test]
fn every_operation_on_a_full_disk_says_what_it_says_on_plain() {
    same_as_on_a_plain_disk(
        || Disk::new("ext4", 16, &["-q", "-m", "0"], ""),
        |_, dir| {
            operations::prepare(dir);
            let filled = fill(&dir.join("filler"), 1 << 20);
            let full = operations::try_all(dir);
            fs::remove_file(dir.join("filler")).unwrap();
            fs::write(dir.join("after"), "there is room again").unwrap();
            (filled, full)
        },
    );
}

#[test]
fn a_disk_without_inodes_has_none_through_the_mount() {
    same_as_on_a_plain_disk(
        || Disk::new("ext4", 16, &["-q", "-N", "64"], ""),
        |_, dir| {
            operations::prepare(dir);
            let mut made = 0;
            let error = loop {
                match File::create(dir.join(format!("file-{made}"))) {
                    Ok(_) => made += 1,
                    Err(error) => break error.raw_os_error(),
                }
            };
            assert!(made > 10);
            (error, operations::try_all(dir))
        },
    );
}

/// A part of the disk is for root alone.
#[test]
fn reserved_space_is_for_root() {
    same_as_on_a_plain_disk(
        || Disk::new("ext4", 64, &["-q", "-m", "30"], ""),
        |_, dir| {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
            for (name, owner) in [("append", USER), ("of-root", 0)] {
                fs::write(dir.join(name), "x").unwrap();
                chown(dir.join(name), Some(owner), Some(owner)).unwrap();
                fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o666)).unwrap();
            }
            let of_user = loner(USER).does(|| fill(&dir.join("user"), 1 << 20));
            let more = |name: &str, size: usize| {
                let file = File::options().append(true).open(dir.join(name));
                file.and_then(|mut file| file.write_all(&vec![1; size]))
                    .map_err(|error| error.raw_os_error())
            };
            let by_user = loner(USER).does(|| {
                let made = rustix::fs::mkdir(dir.join("made"), rustix::fs::Mode::RWXU);
                let moved = dir.join("n".repeat(200));
                (
                    more("append", 100_000),
                    more("of-root", 100_000),
                    made,
                    rustix::fs::rename(dir.join("append"), &moved),
                    rustix::fs::rename(&moved, dir.join("append")),
                    rustix::fs::symlink("x".repeat(1_000), dir.join("link")),
                )
            });
            let by_root = ROOT.does(|| more("of-root", 4 << 20));
            (of_user, by_user, by_root)
        },
    );
}

#[test]
fn a_quota_holds_for_the_user_who_writes() {
    if !can_mount() || !have(&["setquota", "mkfs.ext4"]) {
        return;
    }
    let make = || {
        // Without the option the limits are kept and hold for nobody.
        let disk = Disk::new("ext4", 64, &["-q", "-O", "quota"], "usrquota")?;
        Some(disk)
    };
    if !kernel_has_quotas() {
        // A property of the kernel, which no installation mends.
        eprintln!("SKIPPED: this kernel has no quotas on ext4 (CONFIG_QFMT_V2)");
        return;
    }
    same_as_on_a_plain_disk(make, |disk, dir| {
        let limit = |kilobytes: &str| {
            let user = USER.to_string();
            let args = ["-u", &user, "0", kilobytes, "0", "20"];
            must(Command::new("setquota").args(args).arg(disk.path()));
        };
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        limit("4096");
        let filled = loner(USER).does(|| fill(&dir.join("user"), 1 << 20));
        assert_eq!(filled.0, libc::EDQUOT);
        let made: Vec<_> = loner(USER)
            .does(|| (0..30).map(|n| fs::write(dir.join(format!("f{n}")), "").is_ok()).collect());
        let other = loner(OTHER).does(|| fs::write(dir.join("other"), vec![1; 1 << 20]).is_ok());
        // Root goes beyond it, for himself and for the user.
        let by_root = File::options().append(true).open(dir.join("user")).unwrap();
        let by_root = (&by_root).write_all(&[1; 100_000]).is_ok();
        fs::write(dir.join("of-root"), vec![1; 1 << 20]).unwrap();
        let given = chown(dir.join("of-root"), Some(USER), None).is_ok();
        (filled, made, other, by_root, given)
    });
}

fn kernel_has_quotas() -> bool {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(8 << 20).unwrap();
    must(Command::new("mkfs.ext4").args(["-q", "-O", "quota"]).arg(&image));
    let mount = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir.path()).output();
    if !mount.unwrap().status.success() {
        return false;
    }
    must(Command::new("umount").arg(dir.path()));
    true
}

#[test]
fn a_quota_of_btrfs_is_told_as_such() {
    same_as_on_a_plain_disk(
        || Disk::new("btrfs", 200, &["-q"], ""),
        |disk, dir| {
            operations::prepare(dir);
            let path = disk.path();
            must(Command::new("btrfs").args(["quota", "enable"]).arg(&path));
            must(Command::new("btrfs").args(["qgroup", "limit", "8M"]).arg(&path));
            let (code, mebibytes) = fill(&dir.join("filler"), 1 << 20);
            let made = fs::create_dir(dir.join("made")).map_err(|error| error.raw_os_error());
            must(Command::new("btrfs").args(["qgroup", "limit", "none"]).arg(&path));
            fs::write(dir.join("after"), "there is room again").unwrap();
            // How much fits differs by a little from run to run.
            (code, mebibytes > 2, made)
        },
    );
}

#[test]
fn a_disk_that_becomes_read_only_is_readable_and_nothing_else() {
    for (kind, size) in [("ext4", 16), ("xfs", 320), ("btrfs", 200)] {
        same_as_on_a_plain_disk(
            || Disk::new(kind, size, &["-q"], ""),
            |disk, dir| {
                operations::prepare(dir);
                let remount = |how: &str| {
                    let how = format!("remount,{how}");
                    // A file that was just closed is let go a moment later.
                    let tries = (0..100).any(|_| {
                        let mount =
                            Command::new("mount").args(["-o", &how]).arg(disk.path()).output();
                        let done = mount.unwrap().status.success();
                        if !done {
                            std::thread::sleep(std::time::Duration::from_millis(20));
                        }
                        done
                    });
                    assert!(tries, "{how} of {kind}");
                };
                remount("ro");
                let refused = operations::try_all(dir);
                remount("rw");
                let allowed = operations::try_all(dir);
                (refused, allowed)
            },
        );
    }
}

/// A disk that is gone: every operation fails, and when it is back, the catalog is right again.
#[test]
fn a_disk_that_fails_says_so() {
    if !can_mount() || !have(&["xfs_io"]) {
        return;
    }
    for (kind, size) in [("ext4", 16), ("xfs", 320)] {
        let fail = |disk: &Disk, dir: &Path| {
            operations::prepare(dir);
            let files = ["append", "write", "cut"]
                .map(|name| File::options().append(true).open(dir.join(name)).unwrap());
            // Without its journal, which has what was done so far: some of it is lost.
            must(Command::new("xfs_io").args(["-x", "-c", "shutdown -f"]).arg(disk.path()));
            let open = files.map(|mut file| {
                let code =
                    |result: std::io::Result<()>| result.err().and_then(|e| e.raw_os_error());
                (code(file.write_all(b"more")), code(file.sync_all()), code(file.set_len(1)))
            });
            (open, operations::try_all(dir))
        };
        let Some(plain) = Disk::new(kind, size, &["-q"], "") else { return };
        let expected = fail(&plain, &plain.path());
        assert!(expected.1.iter().filter(|(_, told)| told == "errno 5").count() > 20);
        for way in WAYS {
            let mut disk = Disk::new(kind, size, &["-q"], "").unwrap();
            let mut served = OnDisk::new(&disk, way);
            assert_eq!(fail(&disk, &served.mounted.mountpoint), expected, "{kind}, -o {way}");
            served.mounted.umount();
            disk.remount();
            served.mounted.start();
            served.mounted.wait_reconciled();
            fs::write(served.mounted.at("after"), "it works again").unwrap();
            served.mounted.assert_catalog_is_true();
        }
    }
}

/// The kernel decides these by the mount, which is not read-only itself.
#[test]
fn what_a_read_only_disk_does_not_refuse_through_the_mount() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 16, &["-q"], "") else { return };
    let served = OnDisk::new(&disk, "");
    let [plain, mounted] = [&served.mounted.backing, &served.mounted.mountpoint];
    fs::write(mounted.join("f"), "x").unwrap();
    must(Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()));
    let ask = |dir: &Path| {
        let may = rustix::fs::access(dir.join("f"), rustix::fs::Access::WRITE_OK);
        let gone = rustix::fs::unlink(dir.join("none"));
        [may, gone].map(|result| result.err().map_or(0, rustix::io::Errno::raw_os_error))
    };
    assert_eq!(ask(plain), [libc::EROFS, libc::EROFS]);
    assert_eq!(ask(mounted), [0, libc::ENOENT]);
}

#[test]
fn content_that_cannot_be_read_has_no_digest() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let Some(disk) = Disk::new("btrfs", 200, &["-q", "-d", "single"], "") else { return };
        let content = noise(5, 1 << 20);
        let served = OnDisk::new(&disk, way);
        let mounted = &served.mounted;
        fs::write(mounted.at("bad"), &content).unwrap();
        fs::write(mounted.at("good"), "good").unwrap();
        mounted.sync();
        disk.damage(&content[4_096..8_192]);
        let mut error = None;
        mounted.wait_for("sight of the damage", || {
            disk.sync();
            error = fs::read(mounted.at("bad")).err();
            error.is_some()
        });
        assert_eq!(error.unwrap().raw_os_error(), Some(libc::EIO), "{way}");
        // Up to there it can be read, and after it, too.
        let mut part = vec![0; 4_096];
        let file = File::open(mounted.at("bad")).unwrap();
        for (offset, readable) in [(0, true), (4_096, false), (8_192, true), (1 << 19, true)] {
            let read = file.read_exact_at(&mut part, offset as u64);
            assert_eq!(read.is_ok(), readable, "{way} {offset}");
            assert!(!readable || part == content[offset..offset + 4_096], "{way} {offset}");
        }
        assert_eq!(file.metadata().unwrap().size(), content.len() as u64);
        assert_eq!(fs::read(mounted.at("good")).unwrap(), b"good");
        // What was written then is still known.
        assert_eq!(mounted.digests("bad"), [sha256(&content)], "{way}");
        // A change that has to be read again has a version, without a digest.
        let mut file = File::options().append(true).open(mounted.at("bad")).unwrap();
        file.write_all(b"more").unwrap();
        drop(file);
        let versions = mounted.log_of("bad");
        assert_eq!(versions.len(), 2, "{way}: {versions:#?}");
        assert!(versions[1]["sha256"].is_null(), "{way}: {versions:#?}");
        assert_eq!(versions[1]["size"], content.len() as u64 + 4);
        // And everything else goes on.
        fs::write(mounted.at("bad"), "mended").unwrap();
        mounted.assert_catalog_is_true();
    }
}

/// What fails leaves nothing behind in the daemon.
#[test]
fn a_thousand_errors_leave_no_descriptor_behind() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let Some(disk) = Disk::new("ext4", 16, &["-q", "-m", "0", "-N", "64"], "") else { return };
        let served = OnDisk::new(&disk, way);
        let dir = &served.mounted.mountpoint;
        operations::prepare(dir);
        fill(&dir.join("filler"), 1 << 20);
        while File::create(dir.join("no-inode")).is_ok() {
            fs::rename(dir.join("no-inode"), dir.join(noise_name())).unwrap();
        }
        served.mounted.sync();
        // Those of the disk, and all.
        let descriptors = || {
            let open = fs::read_dir(format!("/proc/{}/fd", served.mounted.pid())).unwrap();
            let open: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path())).collect();
            let on_disk = |name: &PathBuf| name.starts_with(disk.path());
            (open.iter().flatten().filter(|name| on_disk(name)).count(), open.len())
        };
        let fail = || {
            let mut failed = 0;
            for n in 0..250 {
                failed += usize::from(File::create(dir.join(format!("n{n}"))).is_err());
                failed += usize::from(fs::create_dir(dir.join(format!("d{n}"))).is_err());
                failed += usize::from(File::open(dir.join(format!("none{n}"))).is_err());
                let mut file = File::options().append(true).open(dir.join("filler")).unwrap();
                failed += usize::from(file.write_all(&[1; 100_000]).is_err());
            }
            assert_eq!(failed, 1_000, "{way}");
            served.mounted.sync();
        };
        fail();
        let before = descriptors();
        fail();
        // Connections to the catalog, and what tells the callers' names, come when they are needed.
        let is_clean = |now: (usize, usize)| now.0 <= before.0 && now.1 < before.1 + 100;
        served.mounted.wait_for("the descriptors", || is_clean(descriptors()));
    }
}

/// A name that was not there before.
fn noise_name() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("made-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}
