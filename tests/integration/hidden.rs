//! What users of a mount cannot reach: Horace's own directory, and filesystems mounted below the
//! backing directory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::mounted::{Mounted, can_mount};
use crate::tools::{must, sha256, told};

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

/// All that the kernel tells: some C libraries skip names with the number 0, others do not.
fn names(dir: &Path) -> Vec<String> {
    let dir = File::open(dir).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut entries = rustix::fs::RawDir::new(&dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    names
}

#[test]
fn the_own_directory_is_not_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.at("d")).unwrap();
    fs::write(mounted.at("f"), "text").unwrap();
    symlink(".horace", mounted.at("s")).unwrap();
    symlink("..", mounted.at("d/up")).unwrap();
    let own = mounted.at(".horace");
    assert_eq!(names(&mounted.mountpoint), ["d", "f", "s"]);
    assert_eq!(mounted.shell("ls -A1 .; find . -name '.hor*'"), "d\nf\ns\n");
    // The name leads to the past, by whichever way, and to nothing of what lies there.
    for way in [".horace", "d/../.horace", "./.horace", "d/up/.horace", "s"] {
        assert_eq!(names(&mounted.at(way)), ["at", "gmt", "versions"], "{way}");
        for inside in ["catalog.db", "store", "store/objects"] {
            let inside = mounted.at(way).join(inside);
            assert_eq!(errno(fs::metadata(&inside)), libc::ENOENT, "{way}");
            assert_eq!(errno(File::open(&inside)), libc::ENOENT, "{way}");
            assert_eq!(errno(fs::read_dir(&inside)), libc::ENOENT, "{way}");
        }
    }
    // By descriptors, which need no path.
    let dir = File::open(mounted.at("d")).unwrap();
    let open = |name: &str| rustix::fs::openat(&dir, name, OFlags::PATH, Mode::empty());
    assert_eq!(open("../.horace/catalog.db").unwrap_err(), rustix::io::Errno::NOENT);
    let proc = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    assert_eq!(errno(fs::metadata(proc.join("../.horace/store"))), libc::ENOENT);
    assert_eq!(errno(fs::metadata(proc.join("up/.horace/catalog.db"))), libc::ENOENT);
    let root = PathBuf::from(format!("/proc/self/root{}/catalog.db", own.display()));
    assert_eq!(errno(fs::metadata(root)), libc::ENOENT);
    // Nor can it be made.
    let denied = |result: std::io::Result<()>, what: &str| {
        let kind = result.expect_err(what).kind();
        assert_eq!(kind, ErrorKind::AlreadyExists, "{what}");
    };
    denied(fs::create_dir(&own), "mkdir");
    denied(File::create_new(&own).map(drop), "create");
    denied(symlink("x", &own), "symlink");
    denied(fs::hard_link(mounted.at("f"), &own), "link");
    denied(rustix::fs::mkfifoat(CWD, &own, Mode::RUSR).map_err(Into::into), "mkfifo");
    assert_eq!(errno(File::create(&own)), libc::EISDIR);
    assert_eq!(errno(fs::rename(mounted.at("f"), &own)), libc::EISDIR);
    assert_eq!(errno(fs::rename(mounted.at("d"), &own)), libc::EBUSY);
    for flags in [RenameFlags::NOREPLACE, RenameFlags::EXCHANGE] {
        let result = rustix::fs::renameat_with(CWD, mounted.at("d"), CWD, &own, flags);
        assert!(result.is_err(), "{flags:?}");
    }
    // Nor moved, removed, linked from or changed.
    assert_eq!(errno(fs::rename(&own, mounted.at("x"))), libc::EBUSY);
    assert_eq!(errno(fs::remove_dir(&own)), libc::EBUSY);
    assert_eq!(errno(fs::remove_file(own.join("catalog.db"))), libc::ENOENT);
    assert_eq!(errno(fs::hard_link(own.join("catalog.db"), mounted.at("x"))), libc::ENOENT);
    assert_eq!(errno(fs::write(own.join("catalog.db"), "")), libc::EROFS);
    let mode = rustix::fs::chmodat(CWD, &own, Mode::RWXU, AtFlags::empty());
    assert_eq!(mode.unwrap_err(), rustix::io::Errno::ROFS);
    mounted.shell("! rm -rf .horace 2> /dev/null; ls .horace");
    // In other directories it is a name like any other.
    fs::create_dir(mounted.at("d/.horace")).unwrap();
    fs::write(mounted.at("d/.horace/x"), "ours").unwrap();
    assert_eq!(mounted.digests("d/.horace/x"), [sha256("ours")]);
    assert_eq!(names(&mounted.mountpoint), ["d", "f", "s"]);
    mounted.assert_catalog_is_true();
    mounted.shell("rm -r d f s; test -z \"$(ls -A)\"");
    assert!(mounted.backing.join(".horace/catalog.db").exists());
}

#[test]
fn the_own_directory_is_not_reached_by_its_inode_number() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    // A mount that exports file handles would open any inode by its number.
    let inode = fs::metadata(mounted.backing.join(".horace/catalog.db")).unwrap().ino();
    let found = mounted.shell(&format!("find . -inum {inode}"));
    assert_eq!(found, "");
}

#[test]
fn the_own_directory_is_its_owners_alone() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    assert_eq!(fs::metadata(mounted.backing.join(".horace")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_mount_over_the_backing_directory_itself() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::over_itself("", |dir| {
        fs::write(dir.join("before"), "was there").unwrap();
        fs::create_dir(dir.join("d")).unwrap();
    });
    mounted.wait_reconciled();
    for n in 0..3 {
        fs::write(mounted.at("d/f"), format!("{n}")).unwrap();
    }
    fs::rename(mounted.at("before"), mounted.at("d/after")).unwrap();
    assert_eq!(mounted.digests("d/f"), ["0", "1", "2"].map(sha256));
    assert_eq!(mounted.digests("d/after"), [sha256("was there")]);
    assert_eq!(names(&mounted.mountpoint), ["d"]);
    assert_eq!(errno(fs::metadata(mounted.at(".horace/catalog.db"))), libc::ENOENT);
    mounted.assert_manifest_passes();
    mounted.remount();
    assert_eq!(mounted.status()["reconcile"]["read_files"], 0);
    mounted.assert_manifest_passes();
    // After a crash the directory is covered by a dead mount.
    fs::write(mounted.at("late"), "late").unwrap();
    mounted.kill();
    mounted.start();
    mounted.wait_reconciled();
    assert_eq!(mounted.digests("late"), [sha256("late")]);
    mounted.umount();
    assert!(mounted.backing.join(".horace/catalog.db").exists());
    assert_eq!(fs::read(mounted.backing.join("d/f")).unwrap(), b"2");
    // And asked while nothing is mounted.
    let output = mounted.command().arg("log").arg(mounted.backing.join("d/f")).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4);
}

/// A filesystem mounted by a test, gone when dropped.
struct Child(PathBuf);

impl Child {
    fn tmpfs(at: PathBuf) -> Self {
        fs::create_dir_all(&at).unwrap();
        rustix::mount::mount("none", &at, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(at)
    }

    fn bind(what: &Path, at: PathBuf) -> Self {
        rustix::mount::mount_bind(what, &at).unwrap();
        Self(at)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn filesystems_mounted_below_are_not_crossed() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    let other = mounted.scratch("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("bound"), "bound").unwrap();
    fs::create_dir_all(mounted.backing.join("d/bind")).unwrap();
    fs::write(mounted.backing.join("d/file"), "covered").unwrap();
    let tmpfs = Child::tmpfs(mounted.backing.join("tmp"));
    let bind = Child::bind(&other, mounted.backing.join("d/bind"));
    let one = Child::bind(&other.join("bound"), mounted.backing.join("d/file"));
    let only = Child::tmpfs(mounted.backing.join("e/only"));
    fs::write(tmpfs.0.join("secret"), "another filesystem").unwrap();
    fs::write(mounted.backing.join("d/mine"), "mine").unwrap();
    mounted.start();
    mounted.wait_reconciled();
    for path in ["tmp", "d/bind", "d/file", "e/only"] {
        assert_eq!(errno(fs::metadata(mounted.at(path))), libc::EXDEV, "{path}");
        assert_eq!(errno(File::open(mounted.at(path))), libc::EXDEV, "{path}");
    }
    for path in ["tmp/secret", "d/bind/bound"] {
        assert_eq!(errno(fs::metadata(mounted.at(path))), libc::EXDEV, "{path}");
        assert_eq!(errno(fs::write(mounted.at(path), "x")), libc::EXDEV, "{path}");
    }
    assert_eq!(names(&mounted.mountpoint), ["d", "e"]);
    assert_eq!(names(&mounted.at("d")), ["mine"]);
    assert!(names(&mounted.at("e")).is_empty());
    let mut refused: Vec<_> = mounted.status()["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap().to_owned())
        .collect();
    refused.sort();
    assert_eq!(refused, ["d/bind", "d/file", "e/only", "tmp"]);
    let table = mounted.ok(&["status", "."]);
    assert!(table.contains("another filesystem is mounted there"), "{table}");
    let known: Vec<_> = mounted.manifest(".").into_keys().collect();
    assert_eq!(known, [b"d/mine".to_vec()]);
    assert_eq!(mounted.records(&["search", "bound"]).len(), 0);
    // Nothing that users do gets in there.
    let mut remove = Command::new("rm");
    let remove = remove.args(["-rf", "d", "tmp"]).current_dir(&mounted.mountpoint);
    assert!(!remove.output().unwrap().status.success());
    assert_eq!(fs::read(tmpfs.0.join("secret")).unwrap(), b"another filesystem");
    assert_eq!(fs::read(other.join("bound")).unwrap(), b"bound");
    let moved = fs::rename(mounted.at("tmp"), mounted.at("t"));
    assert!([libc::EBUSY, libc::EXDEV].contains(&errno(moved)));
    assert!(fs::remove_dir(mounted.at("tmp")).is_err());
    // Without them the directories are served.
    drop((tmpfs, bind, one, only));
    // The kernel may remember the refusal for a moment, the listing does not.
    assert_eq!(names(&mounted.at("e")), ["only"]);
    mounted.ok(&["reconcile", "."]);
    assert_eq!(names(&mounted.mountpoint), ["d", "e", "tmp"]);
    assert_eq!(fs::read_dir(mounted.at("tmp")).unwrap().count(), 0);
    mounted.assert_catalog_is_true();
}

#[test]
fn a_filesystem_mounted_later_is_not_crossed_either() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.at("d")).unwrap();
    fs::write(mounted.at("d/f"), "covered").unwrap();
    let held = File::open(mounted.at("d/f")).unwrap();
    let child = Child::tmpfs(mounted.backing.join("d"));
    fs::write(child.0.join("f"), "another").unwrap();
    fs::write(child.0.join("secret"), "another").unwrap();
    mounted.ok(&["reconcile", "."]);
    assert_eq!(std::io::read_to_string(&held).unwrap(), "covered");
    // Until the kernel asks again, it may know the directory that was there, but never the other.
    match fs::read(mounted.at("d/f")) {
        Ok(text) => assert_eq!(text, b"covered"),
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EXDEV)),
    }
    assert!(fs::read(mounted.at("d/secret")).is_err());
    assert_eq!(mounted.records(&["search", "secret"]).len(), 0);
    drop(child);
    mounted.ok(&["reconcile", "."]);
    mounted.wait_for("directory", || fs::read(mounted.at("d/f")).is_ok_and(|b| b == b"covered"));
    assert_eq!(mounted.digests("d/f"), [sha256("covered")]);
    assert_eq!(mounted.log_of("d/f")[0]["origin"], "write");
    mounted.assert_catalog_is_true();
}

#[test]
fn a_mount_in_the_mount_is_the_users_own() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let child = Child::tmpfs(mounted.at("tmp"));
    fs::write(child.0.join("elsewhere"), "not in the backing directory").unwrap();
    fs::write(mounted.at("here"), "here").unwrap();
    assert_eq!(mounted.manifest(".").len(), 1);
    let output = mounted.run(&["log", "tmp/elsewhere"]);
    assert_ne!(output.status.code(), Some(0), "{}", told(&output));
    drop(child);
    must(Command::new("rmdir").arg(mounted.at("tmp")));
}
