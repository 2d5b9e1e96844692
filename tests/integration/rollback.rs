//! A backing directory that is not the one that the catalog last knew: rolled back to a snapshot, or
//! restored from a backup.

use std::fs;
use std::path::Path;
use std::process::Command;

use rstest::rstest;

use crate::disk::{Dataset, Disk};
use crate::mounted::{Mounted, can_mount, scratch};
use crate::tools::{have, must, script_in, sha256};

const SIZE: usize = 200_000;

fn btrfs(args: &[&str], paths: &[&Path]) {
    must(Command::new("btrfs").arg("subvolume").args(args).args(paths));
}

impl Mounted {
    /// Every version that the log calls readable is what its digest says, and none is shown wrong.
    #[track_caller]
    fn assert_log_is_honest(&self, path: &str) {
        for version in self.log_of(path) {
            let output = self.run(&["cat", &format!("{path}@{}", version["number"])]);
            if version["content"] == "none" {
                assert!(!output.status.success(), "{version:#}");
            } else {
                let told = String::from_utf8_lossy(&output.stderr);
                assert_eq!(version["sha256"], sha256(&output.stdout), "{version:#} {told}");
            }
        }
    }
}

fn contents(n: u8) -> Vec<u8> {
    crate::tools::noise(u64::from(n), SIZE)
}

/// Puts a snapshot in the place of a subvolume, with `.horace` in it and thus as old as the rest, or with
/// a catalog elsewhere that knows what is not there any more.
fn roll_back(state: Option<&Path>) {
    let Some(disk) = Disk::new("btrfs", 512, &["-q"], "") else { return };
    let (volume, snapshot) = (disk.path().join("volume"), disk.path().join("snapshot"));
    btrfs(&["create"], &[&volume]);
    let options = state.map(|dir| format!("state={}", dir.display())).unwrap_or_default();
    let mut mounted = Mounted::unmounted_on(volume.clone(), &options);
    mounted.start();
    mounted.wait_reconciled();
    mounted.shell("mkdir -p d/e; echo same > d/e/same; echo gone > d/deleted; echo here > d/moved");
    for n in [1, 2] {
        fs::write(mounted.at("d/e/f"), contents(n)).unwrap();
    }
    mounted.sync();
    btrfs(&["snapshot"], &[&volume, &snapshot]);
    for n in [3, 4] {
        fs::write(mounted.at("d/e/f"), contents(n)).unwrap();
    }
    mounted.shell("echo later > d/later; rm d/deleted; mv d/moved d/e/elsewhere; mkdir d/new");
    mounted.sync();
    let before = mounted.log_of("d/e/f");
    assert_eq!(before.len(), 4);
    mounted.umount();
    fs::rename(&volume, disk.path().join("old")).unwrap();
    fs::rename(&snapshot, &volume).unwrap();
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    for path in ["d/e/f", "d/e/same", "d/deleted", "d/moved"] {
        mounted.assert_log_is_honest(path);
    }
    let digests = mounted.digests("d/e/f");
    let expected: &[u8] = if state.is_some() { &[1, 2, 3, 4, 2] } else { &[1, 2] };
    let expected: Vec<_> = expected.iter().map(|n| sha256(contents(*n))).collect();
    assert_eq!(digests, expected, "{:#?}", mounted.log_of("d/e/f"));
    assert_eq!(mounted.digests("d/e/same"), [sha256("same\n")], "nothing new, as nothing changed");
    assert_eq!(mounted.cat(&["d/e/f@1"]), contents(1), "what the snapshot has is kept");
    if state.is_some() {
        let log = mounted.log_of("d/e/f");
        assert_eq!(log[4]["origin"], "external");
        assert_eq!(log[4]["file_id"], before[0]["file_id"], "the file goes on");
        // The third was kept after the snapshot, the fourth was the file itself.
        for lost in &log[2..4] {
            assert_eq!(lost["content"], "none", "{lost:#}");
        }
        assert_eq!(log[2]["content_reason"], "gone", "{:#}", log[2]);
    }
    assert!(!mounted.at("d/later").exists() && mounted.at("d/deleted").exists());
    // Everything can go on from here.
    fs::write(mounted.at("d/e/f"), contents(5)).unwrap();
    mounted.shell("mv d/e/same d/e/again; rm d/moved");
    assert_eq!(mounted.digests("d/e/f").last(), Some(&sha256(contents(5))));
    assert_eq!(mounted.digests("d/e/again"), [sha256("same\n")]);
    mounted.assert_catalog_is_true();
    mounted.assert_survives_remount();
}

#[test]
fn a_rollback_with_the_catalog_is_as_it_was() {
    if can_mount() && have(&["btrfs"]) {
        roll_back(None);
    }
}

#[test]
fn a_rollback_under_a_newer_catalog_is_a_change() {
    if can_mount() && have(&["btrfs"]) {
        let state = tempfile::tempdir().unwrap();
        roll_back(Some(state.path()));
    }
}

/// Where the catalog of a dataset lies that is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Catalog {
    /// In it, and thus as old as the rest afterwards.
    Inside,
    /// Elsewhere, with what is not there any more.
    Outside,
}

/// ZFS puts a snapshot in the place of what is mounted: inodes, descriptors and mappings stay, and have other
/// contents from one moment to the next.
#[rstest]
fn a_dataset_that_zfs_rolls_back_is_as_it_is_then(
    #[values(Catalog::Inside, Catalog::Outside)] catalog: Catalog,
    #[values("mounted", "stopped")] when: &str,
) {
    if !can_mount() {
        return;
    }
    let dir = scratch();
    let Some(dataset) = Dataset::below(dir.path()) else { return };
    let state = tempfile::tempdir().unwrap();
    let options = match catalog {
        Catalog::Inside => String::new(),
        Catalog::Outside => format!("state={}", state.path().display()),
    };
    let mut mounted = Mounted::unmounted_on(dataset.path(), &options);
    mounted.start();
    mounted.wait_reconciled();
    mounted.shell(
        "mkdir -p d/e gone; echo same > d/e/same; echo gone > d/deleted; echo here > d/moved
        echo x > gone/x; echo old > d/replaced; for n in 1 2 3; do echo $n > d/many$n; done",
    );
    for n in [1, 2] {
        fs::write(mounted.at("d/e/f"), contents(n)).unwrap();
    }
    mounted.sync();
    dataset.zfs(&["snapshot"], "@before");
    for n in [3, 4] {
        fs::write(mounted.at("d/e/f"), contents(n)).unwrap();
    }
    mounted.shell(
        "echo later > d/later; rm d/deleted; mv d/moved d/e/elsewhere; mkdir -p d/new/deep
        echo new > d/new/deep/f; rm -r gone; echo new > d/save; mv d/save d/replaced
        for n in {1..300}; do echo new $n > d/many$n; done",
    );
    mounted.sync();
    let before = mounted.log_of("d/e/f");
    assert_eq!(before.len(), 4);
    if when == "stopped" {
        mounted.umount();
    }
    dataset.zfs(&["rollback"], "@before");
    if when == "stopped" {
        mounted.start();
        mounted.wait_reconciled();
    } else {
        mounted.ok(&["reconcile", "."]);
    }
    mounted.assert_catalog_is_true();
    for path in ["d/e/f", "d/e/same", "d/deleted", "d/moved", "d/replaced", "gone/x", "d/many2"] {
        mounted.assert_log_is_honest(path);
    }
    let digests = mounted.digests("d/e/f");
    let expected: &[u8] = if catalog == Catalog::Outside { &[1, 2, 3, 4, 2] } else { &[1, 2] };
    let expected: Vec<_> = expected.iter().map(|n| sha256(contents(*n))).collect();
    assert_eq!(digests, expected, "{:#?}", mounted.log_of("d/e/f"));
    assert_eq!(mounted.digests("d/e/same"), [sha256("same\n")], "nothing new, as nothing changed");
    assert_eq!(mounted.cat(&["d/e/f@1"]), contents(1), "what the snapshot has is kept");
    if catalog == Catalog::Outside {
        let log = mounted.log_of("d/e/f");
        assert_eq!(log[4]["origin"], "external");
        assert_eq!(log[4]["file_id"], before[0]["file_id"], "the file goes on");
        for lost in &log[2..4] {
            assert_eq!(lost["content"], "none", "{lost:#}");
        }
        let moved = mounted.log_of("d/moved");
        assert_eq!(moved.len(), 1, "it came back by its inode: {moved:#?}");
        let deleted = mounted.log_of("d/deleted");
        assert_eq!((deleted.len(), &deleted[0]["content"]), (1, &"head".into()), "{deleted:#?}");
    }
    assert!(!mounted.at("d/later").exists() && mounted.at("d/deleted").exists());
    assert!(!mounted.at("d/new").exists() && mounted.at("gone/x").exists());
    // Everything can go on from here.
    fs::write(mounted.at("d/e/f"), contents(5)).unwrap();
    mounted.shell("mv d/e/same d/e/again; rm d/moved; echo last > d/later; echo last > d/many3");
    assert_eq!(mounted.digests("d/e/f").last(), Some(&sha256(contents(5))));
    assert_eq!(mounted.digests("d/e/again"), [sha256("same\n")]);
    assert!(mounted.status()["degraded"].is_null(), "{:#}", mounted.status());
    mounted.assert_catalog_is_true();
    mounted.assert_survives_remount();
    mounted.umount();
}

#[test]
fn an_older_file_put_back_with_its_old_times_is_found() {
    if !can_mount() || !have(&["rsync"]) {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.wait_reconciled();
    mounted.shell("mkdir d; echo one > d/f; echo one > d/g; touch -d '2020-01-01' d/f d/g");
    let backup = mounted.scratch("backup");
    must(Command::new("cp").arg("-a").arg(mounted.backing.join("d")).arg(&backup));
    // Of the same size and time: only the time of change tells.
    mounted.shell("echo two > d/f; echo two > d/g; touch -d '2020-01-01' d/f d/g");
    for running in [true, false] {
        if !running {
            mounted.shell("echo six > d/f; echo six > d/g; touch -d '2020-01-01' d/f d/g");
            mounted.umount();
        }
        let to = mounted.backing.join("d");
        must(Command::new("rsync").args(["-a", "--ignore-times"]).arg(backup.join("f")).arg(&to));
        must(Command::new("cp").arg("-a").arg(backup.join("g")).arg(&to));
        if running {
            mounted.ok(&["reconcile", "."]);
        } else {
            mounted.start();
            mounted.wait_reconciled();
        }
        mounted.assert_catalog_is_true();
        for path in ["d/f", "d/g"] {
            let log = mounted.log_of(path);
            let newest = log.last().unwrap();
            assert_eq!(
                (&newest["origin"], &newest["sha256"]),
                (&"external".into(), &sha256("one\n").into())
            );
            assert_eq!(newest["file_id"], log[0]["file_id"]);
        }
    }
    assert_eq!(mounted.digests("d/g").len(), 5, "one, two, one, six, one");
}

/// All inodes are new, and may have the numbers that others had.
#[test]
fn a_tree_restored_elsewhere_and_moved_into_place_goes_on_with_its_history() {
    if !can_mount() {
        return;
    }
    for own_catalog in [true, false] {
        let state = tempfile::tempdir().unwrap();
        let options = format!("state={}", state.path().display());
        let mut mounted = Mounted::unmounted(if own_catalog { "" } else { &options });
        mounted.start();
        mounted.wait_reconciled();
        mounted.shell(
            "mkdir -p d/e x; for n in 1 2; do echo $n > d/e/f; echo $n > top; done; echo x > x/y",
        );
        let ids = ["d/e/f", "top"].map(|path| mounted.log_of(path)[0]["file_id"].clone());
        mounted.umount();
        let parent = mounted.backing.parent().unwrap().to_owned();
        script_in(
            &parent,
            "cp -a backing restored; echo 3 > restored/d/e/f; rm -r restored/x; mv backing old; mv restored backing",
        );
        mounted.start();
        mounted.wait_reconciled();
        mounted.assert_catalog_is_true();
        assert_eq!(mounted.digests("d/e/f"), ["1\n", "2\n", "3\n"].map(sha256));
        assert_eq!(mounted.digests("top"), ["1\n", "2\n"].map(sha256));
        let now =
            ["d/e/f", "top"].map(|path| mounted.log_of(path).last().unwrap()["file_id"].clone());
        assert_eq!(now, ids);
        assert_eq!(mounted.cat(&["d/e/f@1"]), b"1\n", "the store came with the backup");
        mounted.shell("echo 4 > d/e/f; mkdir d/z; mv d/e d/z");
        assert_eq!(mounted.digests("d/z/e/f").len(), 4);
        mounted.assert_survives_remount();
    }
}

#[test]
fn a_directory_that_stands_aside_takes_its_history_along() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.wait_reconciled();
    mounted.shell("mkdir -p a/b z; echo old > a/b/f; echo old > z/f");
    let old = ["a/b/f", "z/f"].map(|path| mounted.log_of(path)[0]["file_id"].clone());
    mounted.umount();
    script_in(
        &mounted.backing,
        "mv a 0; mkdir -p a/b; echo new > a/b/f; mv z zz; mkdir z; echo new > z/f; mv zz z/aside",
    );
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    let now = ["0/b/f", "z/aside/f"].map(|path| mounted.log_of(path)[0]["file_id"].clone());
    assert_eq!(now, old);
    for path in ["a/b/f", "z/f"] {
        let newest = mounted.log_of(path).pop().unwrap();
        assert!(!old.contains(&newest["file_id"]), "{path}");
        assert_eq!(newest["sha256"], sha256("new\n"));
    }
}
