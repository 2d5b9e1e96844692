//! What happens to the catalog under a running daemon: files are served as before, `status` says what
//! is wrong, and when the cause is gone, the catalog becomes right by itself.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::strace::Tracer;
use crate::tools::{have, sha256};

/// A mount whose catalog has a disk of its own.
struct Apart {
    mounted: Mounted,
    disk: Disk,
}

impl Apart {
    fn new() -> Option<Self> {
        let disk = Disk::new("ext4", 48, &["-q", "-m", "0"], "")?;
        let mut mounted = Mounted::unmounted(&format!("state={}", disk.path().display()));
        mounted.start();
        fill(&mounted);
        Some(Self { mounted, disk })
    }
}

/// History from before the trouble.
fn fill(mounted: &Mounted) {
    for content in ["first", "second"] {
        for name in ["changed", "deleted", "moved", "left"] {
            fs::write(mounted.at(name), format!("{content} {name}")).unwrap();
        }
    }
    mounted.wait_reconciled();
    mounted.sync();
}

/// Everything that users do works while the catalog cannot be told.
fn work(mounted: &Mounted) {
    fs::write(mounted.at("changed"), "third changed").unwrap();
    fs::remove_file(mounted.at("deleted")).unwrap();
    fs::rename(mounted.at("moved"), mounted.at("away")).unwrap();
    fs::write(mounted.at("new"), "new").unwrap();
    fs::create_dir(mounted.at("dir")).unwrap();
    fs::write(mounted.at("dir/f"), "below").unwrap();
    assert_eq!(fs::read(mounted.at("changed")).unwrap(), b"third changed");
}

/// `status` says that the catalog is behind, and why.
fn wait_degraded(mounted: &Mounted, why: &str) {
    mounted.wait_for("degraded", || {
        mounted.status()["degraded"].as_str().is_some_and(|reason| reason.contains(why))
    });
    assert!(mounted.log().contains("catalog degraded"), "{}", mounted.log());
}

fn assert_recovers(mounted: &mut Mounted) {
    mounted.wait_for("recovery", || {
        mounted.status()["degraded"].is_null() && mounted.compare_catalog().is_ok()
    });
    mounted.sync();
    assert_has_history(mounted);
    mounted.remount();
    mounted.assert_catalog_is_true();
    assert_has_history(mounted);
}

/// What the catalog knew before is there, and what came since.
fn assert_has_history(mounted: &Mounted) {
    let expected = ["first changed", "second changed", "third changed"].map(sha256);
    assert_eq!(mounted.digests("changed"), expected);
    assert_eq!(mounted.cat(&["changed@1"]), b"first changed");
    assert_eq!(mounted.digests("left"), ["first left", "second left"].map(sha256));
    assert_eq!(mounted.digests("away")[..2], ["first moved", "second moved"].map(sha256));
    assert_eq!(mounted.cat(&["deleted"]), b"second deleted");
}

#[test]
fn a_full_disk_of_the_catalog_is_waited_out() {
    if !can_mount() {
        return;
    }
    let Some(mut apart) = Apart::new() else { return };
    let filler = apart.disk.path().join("filler");
    let file = File::create(&filler).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        let bytes = vec![7; size];
        while std::io::Write::write_all(&mut &file, &bytes).is_ok() {}
    }
    work(&apart.mounted);
    // The log of the catalog may have had room for some of it.
    for n in 0.. {
        fs::write(apart.mounted.at(format!("more-{n}")), "more").unwrap();
        if apart.mounted.status()["degraded"].is_string() {
            break;
        }
    }
    wait_degraded(&apart.mounted, "full");
    drop(file);
    fs::remove_file(filler).unwrap();
    assert_recovers(&mut apart.mounted);
}

#[rstest]
fn a_catalog_that_cannot_be_written_is_waited_out(#[values("EROFS", "EIO", "EDQUOT")] errno: &str) {
    if !can_mount() || !have(&["strace"]) {
        return;
    }
    let mut mounted = Mounted::new();
    fill(&mounted);
    // No disk becomes read-only while somebody has a file open to write, unless it is broken for good.
    let tracer = Tracer::fail(&mounted, "catalog", "pwrite64", errno);
    work(&mounted);
    wait_degraded(&mounted, "disk");
    tracer.stop();
    assert_recovers(&mut mounted);
}

#[test]
fn a_locked_catalog_is_waited_out() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fill(&mounted);
    let db = mounted.backing.join(".horace/catalog.db");
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        db.execute('BEGIN IMMEDIATE')\n\
        print('locked', flush=True)\n\
        sys.stdin.read()\n";
    let mut other = Command::new("python3")
        .args(["-c", script])
        .arg(db)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let out = other.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut told).unwrap();
    assert_eq!(told, "locked\n");
    work(&mounted);
    wait_degraded(&mounted, "locked");
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_recovers(&mut mounted);
}

fn files(mounted: &Mounted) -> [PathBuf; 3] {
    ["catalog.db", "catalog.db-wal", "catalog.db-shm"]
        .map(|name| mounted.backing.join(".horace").join(name))
}

#[test]
fn a_deleted_catalog_is_written_again() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fill(&mounted);
    for file in files(&mounted) {
        fs::remove_file(file).unwrap();
    }
    work(&mounted);
    wait_written_again(&mounted);
    assert_recovers(&mut mounted);
}

#[test]
fn a_log_that_is_deleted_while_it_is_used_costs_nothing() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fill(&mounted);
    let [_, wal, shm] = files(&mounted);
    fs::remove_file(wal).unwrap();
    fs::remove_file(shm).unwrap();
    work(&mounted);
    wait_written_again(&mounted);
    assert_recovers(&mut mounted);
}

fn wait_written_again(mounted: &Mounted) {
    mounted.wait_for("a catalog", || mounted.log().contains("has written it again"));
    assert!(files(mounted).iter().all(|file| file.exists()));
}

/// Overwrites everything but the beginning with noise.
fn spoil(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    for offset in (4096..size).step_by(4096) {
        file.write_all_at(&[0x5a; 4096], offset).unwrap();
    }
}

#[test]
fn a_catalog_that_is_spoiled_while_it_is_used_stops_no_work_and_can_be_rebuilt() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("backup=1s");
    fill(&mounted);
    let backups = mounted.backing.join(".horace/backups");
    mounted.wait_for("a copy", || fs::read_dir(&backups).is_ok_and(|dir| dir.count() > 0));
    mounted.umount();
    mounted.set_options("backup=off");
    mounted.start();
    mounted.wait_reconciled();
    spoil(&files(&mounted)[0]);
    work(&mounted);
    wait_degraded(&mounted, "malformed");
    work_goes_on(&mounted);
    mounted.umount();
    let refused = mounted.refused_start();
    assert!(refused.contains("reconcile --rebuild"), "{refused}");
    let backing = mounted.backing.to_str().unwrap().to_owned();
    let rebuilt = mounted.run_at_root(&["reconcile", "--rebuild", &backing]);
    assert!(rebuilt.status.success(), "{}", crate::tools::told(&rebuilt));
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    assert_has_history(&mounted);
}

fn work_goes_on(mounted: &Mounted) {
    for n in 0..20 {
        fs::write(mounted.at(format!("on-{n}")), "on").unwrap();
    }
}
