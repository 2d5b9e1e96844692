//! Comparing the directory with the catalog: what is read, when, how hard, and what is told of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, noise, sha256};

fn fill(dir: &Path, files: usize) {
    for n in 0..files {
        let sub = dir.join(format!("d{}", n % 10));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("f{n}")), format!("content {n}")).unwrap();
    }
}

impl Mounted {
    fn run_of(&self, field: &str) -> Value {
        self.status()["reconcile"][field].clone()
    }

    /// The class of the threads of a run at the disk, by their names.
    fn disk_priorities(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap() {
            let task = task.unwrap();
            // It may have ended.
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let name = name.trim().to_owned();
            if name == "reconcile" || name.starts_with("walk-") {
                let class = must(Command::new("ionice").arg("-p").arg(task.file_name()));
                found.push((name, class.split(':').next().unwrap().trim().to_owned()));
            }
        }
        found.sort();
        found
    }
}

#[test]
fn what_was_read_since_the_start_is_not_read_again() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::prepared("", |dir| {
        fill(dir, 100);
        // What changes in the moment of the start remains in doubt.
        std::thread::sleep(Duration::from_millis(50));
    });
    mounted.wait_reconciled();
    assert_eq!(mounted.run_of("read_files"), 100);
    for _ in 0..2 {
        mounted.ok(&["reconcile", "."]);
        assert_eq!((mounted.run_of("files"), mounted.run_of("read_files")), (110.into(), 0.into()));
    }
    fs::write(mounted.backing.join("d3/f3"), "around the mount").unwrap();
    mounted.ok(&["reconcile", "."]);
    assert_eq!(mounted.run_of("read_files"), 1);
    assert_eq!(mounted.digests("d3/f3").last(), Some(&sha256("around the mount")));
}

#[test]
fn after_a_kill_only_what_changed_around_it_is_read() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::prepared("", |dir| fill(dir, 500));
    mounted.wait_reconciled();
    mounted.sync();
    for n in 0..3 {
        fs::write(mounted.at(format!("d{n}/f{n}")), "through the mount").unwrap();
    }
    mounted.kill();
    fs::write(mounted.backing.join("d7/f7"), "around it").unwrap();
    mounted.start();
    mounted.wait_reconciled();
    assert_eq!(mounted.run_of("files"), 510);
    let read = mounted.run_of("read_files").as_u64().unwrap();
    assert!((1..=4).contains(&read), "{read} files were read");
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.digests("d2/f2"), ["content 2", "through the mount"].map(sha256));
    assert_eq!(mounted.digests("d7/f7"), ["content 7", "around it"].map(sha256));
}

#[test]
fn a_schedule_finds_what_nobody_asked_for() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("reconcile=1s");
    assert_eq!(mounted.run_of("every"), "1s");
    fs::write(mounted.at("f"), "through the mount").unwrap();
    mounted.wait_reconciled();
    for round in 0..2 {
        let text = format!("around it, {round}");
        fs::write(mounted.backing.join("f"), &text).unwrap();
        mounted.wait_for("its version", || mounted.digests("f").last() == Some(&sha256(&text)));
    }
    assert_eq!(mounted.log_of("f").last().unwrap()["origin"], "external");
    let by_default = Mounted::new();
    assert_eq!(by_default.run_of("every"), Value::Null);
}

#[test]
fn limits_follow_from_the_disk_and_can_be_set() {
    if !can_mount() {
        return;
    }
    let limits = |options: &str| {
        let mounted = Mounted::with_options(options);
        mounted.wait_reconciled();
        let limits = mounted.run_of("limits");
        let told = mounted.ok(&["status", "."]);
        (limits["disk"].clone(), limits["threads"].clone(), limits["bytes_per_s"].clone(), told)
    };
    let (disk, _, rate, told) = limits("");
    assert_eq!((disk, rate), ("ssd".into(), Value::Null));
    assert!(told.contains("at a start, ") && told.contains(" (ssd)"), "{told}");
    let (disk, threads, rate, told) = limits("disk=hdd");
    assert_eq!((disk, threads, rate), ("hdd".into(), 1.into(), (64 << 20).into()));
    assert!(told.contains("at a start, 1 thread, 64.00 MiB a second (hdd)"), "{told}");
    let (disk, threads, rate, _) =
        limits("disk=network,reconcile_threads=3,reconcile_rate=5M,reconcile=1d");
    assert_eq!((disk, threads, rate), ("network".into(), 3.into(), (5 << 20).into()));
}

#[test]
fn a_run_that_nobody_waits_for_comes_last_at_the_disk_and_keeps_its_rate() {
    if !can_mount() || !have(&["ionice"]) {
        return;
    }
    const LARGE: usize = 4 << 20;
    let options = "reconcile_threads=2,reconcile_rate=1K";
    let mut mounted = Mounted::prepared(options, |dir| {
        fill(dir, 10);
        fs::write(dir.join("large"), noise(1, LARGE)).unwrap();
    });
    // After the first piece of it, the rest is due in an hour.
    mounted.wait_for("a piece", || mounted.run_of("read_bytes").as_u64().unwrap() >= 1 << 16);
    let all = |class: &str| {
        let found = mounted.disk_priorities();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        names == ["reconcile", "walk-1"] && found.iter().all(|(_, is)| is == class)
    };
    assert!(all("idle"), "{:?}", mounted.disk_priorities());
    assert_eq!(mounted.run_of("asked"), false);
    let mut asker = mounted.command();
    asker.arg("reconcile").arg(&mounted.mountpoint).stdout(Stdio::null()).stderr(Stdio::null());
    let mut asker = asker.spawn().unwrap();
    mounted.wait_for("the haste", || mounted.run_of("asked") == true);
    mounted.wait_for("its turn at the disk", || all("none") || all("best-effort"));
    assert_eq!(mounted.run_of("state"), "import");
    let read = mounted.run_of("read_bytes").as_u64().unwrap();
    assert!(read < LARGE as u64, "the rate holds for whoever waits: {read}");
    // It is broken off in the middle of the file.
    mounted.umount();
    asker.wait().unwrap();
    mounted.set_options("");
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.digests("large"), [sha256(noise(1, LARGE))]);
}

#[test]
fn a_run_makes_way_for_the_mount_and_still_comes_to_its_end() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::prepared("reconcile=1s", |dir| fill(dir, 1_000));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work = || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                fs::write(mounted.at(format!("work{}", n % 7)), format!("{n}")).unwrap();
            }
        };
        let worker = scope.spawn(work);
        mounted.wait_for("a slow run", || mounted.run_of("slowed") == true);
        let slow = mounted.run_of("started_ns");
        mounted.wait_for("its end", || {
            let run = mounted.status()["reconcile"].clone();
            run["started_ns"].as_i64() > slow.as_i64() || run["state"] == "done"
        });
        assert!(!worker.is_finished(), "the mount was busy all the time");
        stop.store(true, Ordering::Relaxed);
    });
    mounted.ok(&["reconcile", "."]);
    mounted.assert_catalog_is_true();
    mounted.assert_survives_remount();
}

#[test]
fn status_tells_of_the_copies_of_the_catalog() {
    if !can_mount() {
        return;
    }
    let copied = Mounted::with_options("backup=1s");
    fs::write(copied.at("f"), "x").unwrap();
    copied.wait_for("a copy", || copied.status()["backups"]["count"].as_u64() > Some(0));
    let backups = copied.status()["backups"].clone();
    assert_eq!(backups["every"], "1s");
    assert!(backups["bytes"].as_u64() > Some(0), "{backups}");
    assert!(backups["last"].is_string() && backups["error"].is_null(), "{backups}");
    assert_eq!(backups["dir"], copied.backing.join(".horace/backups").to_str().unwrap());
    let told = copied.ok(&["status", "."]);
    assert!(told.contains("  backups      each 1s, "), "{told}");

    let none = Mounted::with_options("backup=off");
    assert_eq!(none.status()["backups"]["every"], Value::Null);
    assert!(none.ok(&["status", "."]).contains("  backups      off, none yet, in "));

    let failing = Mounted::prepared("backup=1s", |dir| {
        fs::create_dir(dir.join(".horace")).unwrap();
        fs::write(dir.join(".horace/backups"), "no directory").unwrap();
    });
    failing.wait_for("a failure", || failing.status()["backups"]["failed"].is_string());
    let backups = failing.status()["backups"].clone();
    assert!(backups["error"].as_str().unwrap().contains("Not a directory"), "{backups}");
    assert!(failing.ok(&["status", "."]).contains("each 1s, none yet, failed now: "));
}
