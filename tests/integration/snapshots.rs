//! Snapshots of the backing filesystem, on the real thing: zfs-fuse on a file, btrfs on a loop device.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use horace::snapshots::{Backend, BackendKind, Mark, Programs, Snapshot, probe};
use horace::types::Seq;
use rstest::rstest;
use uuid::Uuid;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::pool::Pool;
use crate::tools::{have, must, told};

const CATALOG: Uuid = Uuid::from_u128(42);

fn mark(seq: u64) -> Mark {
    Mark { seq: Seq(seq), catalog: CATALOG }
}

/// A filesystem with snapshots.
enum Volume {
    Zfs(Pool),
    Btrfs(Disk),
}

impl Volume {
    /// One of a kind; says loudly if there cannot be one.
    fn new(kind: BackendKind) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        if kind == BackendKind::Zfs {
            return Pool::new().map(Self::Zfs);
        }
        if !have(&["btrfs"]) {
            return None;
        }
        let disk = Disk::new("btrfs", 512, &["-q"], "")?;
        must(Command::new("btrfs").args(["subvolume", "create"]).arg(disk.path().join("volume")));
        Some(Self::Btrfs(disk))
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Zfs(pool) => pool.path(),
            Self::Btrfs(disk) => disk.path().join("volume"),
        }
    }

    /// Has somebody else take a snapshot.
    fn foreign(&self, name: &str) {
        match self {
            Self::Zfs(pool) => drop(pool.zfs(&["snapshot"], &format!("/files@{name}"))),
            Self::Btrfs(_) => {
                let to = self.path().join(".horace/snapshots").join(name);
                let mut btrfs = Command::new("btrfs");
                btrfs.args(["subvolume", "snapshot", "-r"]).arg(self.path()).arg(to);
                must(&mut btrfs);
            }
        }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        let programs = Programs::start(|| {}).unwrap();
        probe(&open(&self.path()), ".horace", Some(Arc::new(programs)))
    }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn names(list: &[Snapshot]) -> Vec<&str> {
    list.iter().map(|snapshot| &*snapshot.name).collect()
}

#[rstest]
fn snapshots_are_taken_listed_held_and_destroyed(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let backend = volume.backend();
    assert_eq!((backend.kind(), backend.reason()), (kind, None));
    assert_eq!(backend.list().unwrap(), []);
    fs::write(volume.path().join("f"), "one").unwrap();
    backend.create("hourly-20260131-140000", &mark(7)).unwrap();
    fs::write(volume.path().join("f"), "two").unwrap();
    backend.create("daily-20260131-140000", &mark(8)).unwrap();
    volume.foreign("hourly-20200101-000000");
    let list = backend.list().unwrap();
    let taken = ["hourly-20260131-140000", "daily-20260131-140000", "hourly-20200101-000000"];
    assert_eq!(names(&list), taken, "in the order in which they were taken");
    assert_eq!([list[0].mark, list[1].mark, list[2].mark], [Some(mark(7)), Some(mark(8)), None]);
    assert_ne!(list[0].guid, list[1].guid);
    assert!(backend.create(taken[0], &mark(9)).is_err(), "there is one of that name");
    backend.hold(taken[0]).unwrap();
    assert!(backend.hold(taken[0]).is_err() && backend.hold("nothing").is_err());
    assert_eq!(backend.list().unwrap()[0].holds, 1);
    let done = backend.destroy(&[taken[0], taken[1], "nothing"]);
    let gone: Vec<_> = done.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(gone, [false, true, false], "{done:?}");
    backend.release(taken[0]).unwrap();
    assert!(backend.release(taken[0]).is_err());
    assert!(backend.destroy(&[taken[0]])[0].1.is_ok());
    assert_eq!(names(&backend.list().unwrap()), [taken[2]]);
}

#[test]
fn a_snapshot_of_btrfs_shows_what_was_there() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let backend = volume.backend();
    fs::create_dir(volume.path().join("d")).unwrap();
    fs::write(volume.path().join("d/f"), "one").unwrap();
    backend.create("a", &mark(1)).unwrap();
    fs::write(volume.path().join("d/f"), "two").unwrap();
    let snapshot = backend.open("a").unwrap();
    let root = format!("/proc/self/fd/{}", snapshot.as_raw_fd());
    assert_eq!(fs::read_to_string(format!("{root}/d/f")).unwrap(), "one");
    assert!(fs::write(format!("{root}/d/f"), "three").is_err(), "nobody can write to it");
    assert!(!Path::new(&format!("{root}/.horace/snapshots/a/d")).exists(), "none is in another");
    assert!(backend.open("b").is_err());
}

#[test]
fn what_was_cloned_is_told() {
    let Some(volume) = Volume::new(BackendKind::Zfs) else { return };
    let Volume::Zfs(pool) = &volume else { return };
    let backend = volume.backend();
    backend.create("a", &mark(1)).unwrap();
    let clone = format!("{}-clone", pool.dataset());
    let of = format!("{}@a", pool.dataset());
    must(Command::new("zfs").args(["clone", "-o", "mountpoint=none", &of, &clone]));
    assert_eq!(backend.list().unwrap()[0].clones, [&*clone]);
    assert!(backend.destroy(&["a"])[0].1.is_err());
    must(Command::new("zfs").args(["destroy", &clone]));
    assert!(backend.destroy(&["a"])[0].1.is_ok());
}

#[test]
fn a_mount_that_requires_snapshots_starts_only_where_there_are_some() {
    if !can_mount() {
        return;
    }
    for (kind, required) in [(BackendKind::Zfs, "zfs"), (BackendKind::Btrfs, "btrfs")] {
        let refused = Mounted::unmounted(&format!("require={required}"));
        let output = refused
            .command()
            .args(["mount", "-o", &format!("api=off,require={required}")])
            .args([&refused.backing, &refused.mountpoint])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let said = told(&output);
        assert!(said.contains(&format!("horace: `require={required}`: ")), "{said}");
        assert!(!refused.backing.join(".horace").exists(), "nothing is left behind");
        let Some(volume) = Volume::new(kind) else { continue };
        let mut mounted = Mounted::unmounted_on(volume.path(), &format!("require={required}"));
        mounted.start();
        mounted.wait_reconciled();
        fs::write(mounted.at("f"), "one").unwrap();
        assert_eq!(mounted.digests("f").len(), 1);
        mounted.umount();
    }
}

#[test]
fn a_directory_of_a_subvolume_is_none_of_its_own() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let inside = volume.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let backend = probe(&open(&inside), ".horace", None);
    assert_eq!(backend.kind(), BackendKind::None);
    assert!(backend.reason().unwrap().contains("no subvolume of its own"));
}
