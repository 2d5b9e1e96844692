//! What was kept for a while is packed, and is had from there as before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use serde_json::Value;

use crate::disk::{Dataset, Disk};
use crate::mounted::{Mounted, can_mount, scratch};
use crate::tools::{files_below, have, must, noise, sha256};

/// What was kept is packed at once, into packs that are soon full.
const SOON: &str = "pack_after=0,pack_limit=20000";

/// Text that compresses, the same for the same seed.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let words = noise(seed, length).into_iter().map(|byte| format!("word{byte} "));
    words.flat_map(String::into_bytes).take(length).collect()
}

/// Versions of a file that have most in common.
fn edited(seed: u64, edit: u64) -> Vec<u8> {
    let mut content = text(seed, 60_000);
    let at = usize::try_from(edit * 1000).unwrap();
    content.splice(at..at, format!("edit {edit} of {seed}").into_bytes());
    content
}

impl Mounted {
    fn store(&self) -> PathBuf {
        self.backing.join(".horace/store")
    }

    /// The contents that have files of their own.
    fn loose(&self) -> Vec<PathBuf> {
        let all = ["objects", "incoming"].map(|dir| files_below(&self.store().join(dir)));
        all.into_iter().flat_map(BTreeMap::into_values).collect()
    }

    fn packs(&self) -> Vec<PathBuf> {
        let all = files_below(&self.store().join("packs")).into_values();
        all.filter(|path| path.extension().is_some_and(|e| e == "pack")).collect()
    }

    /// Makes versions of some files, the last of which are then deleted.
    fn make_versions(&self, files: u64, versions: u64) {
        for n in 0..files {
            let f = self.at(format!("f{n}"));
            for edit in 0..versions {
                fs::write(&f, edited(n, edit)).unwrap();
            }
            fs::remove_file(&f).unwrap();
        }
    }

    /// Every version of these files is what it was, also where no daemon runs.
    #[track_caller]
    fn assert_versions(&self, files: u64, versions: u64) {
        for (n, edit) in (0..files).flat_map(|n| (0..versions).map(move |edit| (n, edit))) {
            let f = self.backing.join(format!("f{n}@{}", edit + 1));
            let output = self.command().arg("cat").arg(f).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.stdout == edited(n, edit), "{n}@{}: {told}\n{}", edit + 1, self.log());
        }
    }

    /// Waits for what packing does, which gives way to everything else that goes on.
    #[track_caller]
    fn wait_until_packed(&self, condition: impl FnMut() -> bool) {
        self.wait_up_to(std::time::Duration::from_secs(300), "packing", condition);
    }

    #[track_caller]
    fn wait_packed(&self) {
        self.wait_until_packed(|| self.loose().is_empty() && !self.packs().is_empty());
    }
}

#[test]
fn what_is_packed_is_had_as_before() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(SOON);
    mounted.make_versions(12, 4);
    mounted.wait_packed();
    mounted.assert_versions(12, 4);
    mounted.assert_kept("f3");
    mounted.remount();
    mounted.assert_versions(12, 4);
    mounted.umount();
    mounted.assert_versions(12, 4);
    for path in [mounted.store(), mounted.store().join("packs")] {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o700, 0), "{}", path.display());
    }
    for path in mounted.packs() {
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o077, found.uid()), (0, 0), "{}", path.display());
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(sha256(fs::read(&path).unwrap()), name);
    }
}

#[test]
fn a_large_content_and_the_beginning_of_one_are_had() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("pack_after=0");
    let long = text(1, 21 << 20);
    let f = mounted.at("f");
    fs::write(&f, &long[..20 << 20]).unwrap();
    let mut append = fs::OpenOptions::new().append(true).open(&f).unwrap();
    std::io::Write::write_all(&mut append, &long[20 << 20..]).unwrap();
    drop(append);
    // On a busy machine it takes longer than anybody waits to find out what the new one begins with.
    mounted.sync();
    fs::remove_file(&f).unwrap();
    mounted.wait_packed();
    mounted.assert_kept("f");
    // A reader who has enough early on holds nothing up.
    assert_eq!(mounted.shell("$HORACE cat f@1 | head -c 20").len(), 20);
    mounted.assert_kept("f");
}

type Spoil = fn(&Path);

const WAYS_TO_SPOIL: [Spoil; 4] = [
    |index| fs::remove_file(index).unwrap(),
    |index| fs::File::options().write(true).open(index).unwrap().set_len(100).unwrap(),
    |index| fs::write(index, [0xa5; 50_000]).unwrap(),
    // It can be opened still.
    |index| {
        let file = fs::File::options().write(true).open(index).unwrap();
        let pages = usize::try_from(file.metadata().unwrap().len()).unwrap() / 4096;
        file.write_all_at(&vec![0xa5; 4096 * (pages / 2)], 4096 * (pages as u64 / 2)).unwrap();
    },
];

#[rstest]
fn an_index_that_is_lost_is_made_anew(#[values(0, 1, 2, 3)] way: usize) {
    let spoil = WAYS_TO_SPOIL[way];
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(SOON);
    mounted.make_versions(6, 3);
    mounted.wait_packed();
    mounted.umount();
    let index = mounted.backing.join(".horace/chunks.db");
    spoil(&index);
    let spoilt = fs::read(&index).ok();
    mounted.assert_versions(6, 3);
    assert_eq!(fs::read(&index).ok(), spoilt, "who only reads changes nothing");
    mounted.start();
    mounted.assert_versions(6, 3);
    // And it is whole again.
    mounted.make_versions(7, 3);
    mounted.wait_packed();
    mounted.remount();
    mounted.assert_versions(7, 3);
}

#[test]
fn an_index_that_is_older_than_the_packs_is_made_anew() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(SOON);
    mounted.make_versions(3, 3);
    mounted.wait_packed();
    mounted.umount();
    let index = mounted.backing.join(".horace/chunks.db");
    let old = fs::read(&index).unwrap();
    mounted.start();
    mounted.make_versions(8, 3);
    mounted.wait_packed();
    mounted.umount();
    fs::write(&index, old).unwrap();
    mounted.assert_versions(8, 3);
    mounted.start();
    mounted.assert_versions(8, 3);
}

/// A crash, or somebody who keeps the same content once more, leaves such a one.
#[test]
fn what_is_packed_and_is_to_be_packed_without_a_file_is_no_damage() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(SOON);
    mounted.make_versions(3, 3);
    mounted.wait_packed();
    mounted.umount();
    mounted.set_options("pack_after=10,pack_limit=20000");
    mounted.start();
    mounted.make_versions(3, 3);
    mounted.wait_for("objects", || mounted.loose().len() == 9);
    mounted.sync();
    for object in mounted.loose() {
        fs::remove_file(object).unwrap();
    }
    mounted.wait_until_packed(|| {
        let status = mounted.status();
        status["objects"] == 9 && status["space"]["packed_objects"] == 9
    });
    assert!(!mounted.log().contains("damaged"), "{}", mounted.log());
    mounted.assert_versions(3, 3);
}

#[test]
fn packs_that_go_or_come_under_the_daemon_are_noticed_by_a_reconcile() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(SOON);
    mounted.make_versions(3, 3);
    mounted.wait_packed();
    let dir = mounted.store().join("packs");
    let older = mounted.scratch("older");
    must(Command::new("cp").arg("-a").arg(&dir).arg(&older));
    mounted.make_versions(8, 3);
    mounted.wait_packed();
    // As it was, like after a rollback of the dataset under a catalog that lies elsewhere.
    for pack in mounted.packs() {
        fs::remove_file(pack).unwrap();
    }
    must(Command::new("cp").arg("-a").arg(older.join(".")).arg(&dir));
    mounted.ok(&["reconcile", "."]);
    mounted.assert_versions(3, 3);
    // What the index knew from packs that have gone is not taken for packed.
    mounted.make_versions(8, 3);
    mounted.wait_packed();
    mounted.assert_versions(8, 3);
    mounted.ok(&["verify", "."]);
}

/// ZFS takes the packs back, and with the catalog also the index of them, while both are open.
#[rstest]
fn packs_and_their_index_can_be_rolled_back_by_zfs(#[values(true, false)] with_catalog: bool) {
    if !can_mount() {
        return;
    }
    let dir = scratch();
    let Some(dataset) = Dataset::below(dir.path()) else { return };
    let state = tempfile::tempdir().unwrap();
    let elsewhere = format!("{SOON},state={}", state.path().display());
    let options = if with_catalog { SOON } else { &elsewhere };
    let mut mounted = Mounted::unmounted_on(dataset.path(), options);
    mounted.start();
    mounted.wait_reconciled();
    mounted.make_versions(6, 3);
    mounted.wait_packed();
    mounted.sync();
    dataset.zfs(&["snapshot"], "@before");
    mounted.make_versions(12, 3);
    mounted.wait_packed();
    mounted.sync();
    dataset.zfs(&["rollback"], "@before");
    mounted.ok(&["reconcile", "."]);
    mounted.assert_versions(6, 3);
    mounted.make_versions(12, 3);
    mounted.wait_packed();
    mounted.assert_versions(12, 3);
    mounted.ok(&["verify", "."]);
    mounted.umount();
    if with_catalog {
        // Without a daemon, the way to a catalog that lies elsewhere is not known.
        mounted.assert_versions(12, 3);
    }
}

/// Contents that are kept again all the time meanwhile have no files in the end either.
#[test]
fn what_is_kept_again_while_it_is_packed_leaves_no_file() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(SOON);
    for _ in 0..30 {
        mounted.make_versions(2, 3);
    }
    mounted.wait_packed();
    mounted.assert_versions(2, 3);
}

#[test]
fn what_packing_would_not_make_smaller_stays_as_it_is() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(SOON);
    fs::write(mounted.at("once"), noise(1, 200_000)).unwrap();
    fs::remove_file(mounted.at("once")).unwrap();
    for seed in [2, 3] {
        let end = noise(seed, 1000);
        fs::write(mounted.at("often"), [noise(2, 300_000), end].concat()).unwrap();
    }
    fs::remove_file(mounted.at("often")).unwrap();
    fs::write(mounted.at("small"), noise(4, 3000)).unwrap();
    fs::remove_file(mounted.at("small")).unwrap();
    let digest = sha256(noise(1, 200_000));
    let object = mounted.store().join("objects").join(&digest[..2]).join(&digest[2..]);
    mounted.wait_until_packed(|| mounted.loose() == [object.as_path()]);
    for path in ["once", "often", "small"] {
        mounted.assert_kept(path);
    }
}

#[test]
fn what_shares_its_blocks_with_a_live_file_is_not_packed() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("xfs", 2048, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), SOON);
    let content = text(1, 4 << 20);
    fs::write(mounted.at("f"), &content).unwrap();
    let file = fs::File::options().write(true).open(mounted.at("f")).unwrap();
    file.write_all_at(b"changed", 0).unwrap();
    drop(file);
    fs::write(mounted.at("g"), &content[..100_000]).unwrap();
    fs::remove_file(mounted.at("g")).unwrap();
    mounted.wait_until_packed(|| !mounted.packs().is_empty() && mounted.loose().len() == 1);
    let survey = || mounted.status()["space"]["surveyed"].clone();
    mounted.wait_for("survey", || {
        survey()["loose_shared_bytes"].as_u64().is_some_and(|bytes| bytes > 3 << 20)
    });
    mounted.assert_kept("f");
}

#[test]
fn status_tells_what_everything_takes() {
    if !can_mount() || !have(&["du"]) {
        return;
    }
    let mounted = Mounted::with_options(SOON);
    mounted.make_versions(10, 5);
    fs::write(mounted.at("noise"), noise(1, 500_000)).unwrap();
    fs::remove_file(mounted.at("noise")).unwrap();
    // Appended to: two versions, one content.
    fs::write(mounted.at("log"), text(99, 10_000)).unwrap();
    let mut log = fs::OpenOptions::new().append(true).open(mounted.at("log")).unwrap();
    std::io::Write::write_all(&mut log, b"more").unwrap();
    drop(log);
    mounted.wait_until_packed(|| mounted.loose().len() == 1);
    let number = |value: &Value| value.as_u64().unwrap();
    let sizes = |range: std::ops::Range<u64>| range.map(|n| (n, edited(0, n).len() as u64));
    let each: u64 = sizes(0..5).map(|(_, size)| size).sum();
    mounted.wait_for("survey", || {
        mounted.status()["space"]["surveyed"]["kept_versions"] == 52
            && mounted.status()["space"]["loose_objects"] == 1
            && mounted.status()["space"]["surveyed"]["loose_disk_bytes"].as_u64()
                == Some(fs::metadata(&mounted.loose()[0]).unwrap().blocks() * 512)
    });
    let status = mounted.status();
    let (space, found) = (&status["space"], &status["space"]["surveyed"]);
    assert_eq!(number(&found["kept_version_bytes"]), each * 10 + 500_000 + 10_000);
    assert_eq!(number(&status["object_bytes"]), each * 10 + 500_000);
    assert_eq!((number(&status["objects"]), number(&space["packed_objects"])), (51, 50));
    assert_eq!(number(&space["packed_bytes"]), each * 10);
    assert_eq!(number(&space["packs"]), mounted.packs().len() as u64);
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    assert_eq!(number(&space["pack_bytes"]), mounted.packs().iter().map(length).sum::<u64>());
    // Versions of a file share most of their chunks.
    assert!(number(&space["pack_bytes"]) * 5 < number(&space["packed_bytes"]), "{space:#}");
    let own = number(&found["loose_disk_bytes"]) + number(&space["pack_bytes"]);
    let ratio = number(&found["kept_version_bytes"]) as f64 / own as f64;
    assert!((found["ratio"].as_f64().unwrap() - ratio).abs() < 0.01);
    // Beside these figures there are only directories, and what blocks round up.
    let du = mounted.shell(&format!("du -s -B1 {} | cut -f1", mounted.store().display()));
    let du: u64 = du.trim().parse().unwrap();
    let slack = 4096 * (300 + number(&space["packs"]));
    assert!((own..own + slack).contains(&du), "{own} of {du}");
    let human = mounted.ok(&["status", "."]);
    assert!(human.contains("52 versions") && human.contains("50 contents in"), "{human}");
}

#[test]
fn it_waits_while_the_mount_is_busy() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("pack_after=1");
    let state = || mounted.status()["packing"].clone();
    mounted.make_versions(5, 3);
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let f = mounted.at("busy");
            while busy.load(std::sync::atomic::Ordering::Relaxed) {
                for n in 0..50 {
                    fs::set_permissions(&f, std::os::unix::fs::PermissionsExt::from_mode(n)).ok();
                    fs::write(&f, "busy").unwrap();
                }
            }
        });
        mounted.wait_for("pause", || state() == "waits for the mount");
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
    });
    mounted.wait_until_packed(|| mounted.loose().is_empty() && state() == "idle");
    mounted.assert_versions(5, 3);
}

#[test]
fn without_a_store_nothing_is_packed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("keep=none,pack_after=0");
    fs::write(mounted.at("f"), "one").unwrap();
    fs::remove_file(mounted.at("f")).unwrap();
    mounted.sync();
    assert_eq!(mounted.status()["packing"], "off");
    assert!(!mounted.store().exists() && !mounted.backing.join(".horace/chunks.db").exists());
}

#[test]
fn damage_is_told_and_costs_what_it_hits() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("pack_after=0");
    let f = mounted.at("f");
    for seed in 0..40 {
        fs::write(&f, text(seed, 300_000)).unwrap();
    }
    fs::remove_file(&f).unwrap();
    mounted.wait_packed();
    mounted.umount();
    let pack = &mounted.packs()[0];
    let file = fs::File::options().write(true).open(pack).unwrap();
    file.write_all_at(&[0xa5; 10], 50).unwrap();
    mounted.start();
    let cat = |n: u64| mounted.run(&["cat", &format!("f@{}", n + 1)]);
    let broken: Vec<u64> = (0..40).filter(|n| cat(*n).stdout != text(*n, 300_000)).collect();
    assert!((1..10).contains(&broken.len()), "{broken:?}");
    for n in broken {
        let output = cat(n);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let names = [pack.file_name().unwrap().to_str().unwrap(), &sha256(text(n, 300_000))];
        assert!(!output.status.success());
        assert!(names.iter().all(|name| told.contains(name)), "{told}");
    }
}

#[test]
fn a_full_disk_gives_up_what_is_packed_too() {
    const LENGTH: usize = 25 << 20;
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 1024, &["-q", "-m", "0"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "pack_after=0,pack_limit=8000000");
    for seed in 0..11 {
        fs::write(mounted.at("f"), noise(seed, LENGTH)).unwrap();
    }
    mounted.make_versions(10, 3);
    // Versions of one file are packed although they cannot be compressed.
    mounted.wait_until_packed(|| {
        mounted.loose().is_empty() && mounted.status()["space"]["packed_objects"] == 40
    });
    let bytes = || mounted.status()["space"]["pack_bytes"].as_u64().unwrap();
    let before = bytes();
    assert!(before > 10 * LENGTH as u64, "{before}");
    let mut live = fs::File::create(mounted.at("live")).unwrap();
    for n in 0..54 {
        std::io::Write::write_all(&mut live, &noise(n, 10 << 20)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(live);
    mounted.wait_for("room", || bytes() < before);
    let kept = |path: &str| {
        let versions = mounted.log_of(path).into_iter();
        versions.map(|version| version["content_reason"] != "pruned").collect::<Vec<_>>()
    };
    mounted.wait_for("word of it", || !kept("f")[0]);
    assert!(kept("f").is_sorted(), "the oldest go first: {:?}", kept("f"));
    assert_eq!(kept("f9"), [true; 3], "no more than needed goes");
    mounted.assert_kept("f9");
    assert_eq!(fs::metadata(mounted.at("live")).unwrap().len(), 540 << 20);
}

#[test]
fn killed_at_any_point_it_loses_nothing() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("pack_after=0,pack_limit=4096");
    for round in 0..12_u64 {
        for edit in round * 3..round * 3 + 3 {
            fs::write(mounted.at("f0"), edited(0, edit)).unwrap();
        }
        mounted.sync();
        // Whatever it is at: a while that is another one in each round.
        std::thread::sleep(std::time::Duration::from_millis(noise(round, 1)[0].into()));
        mounted.kill();
        let dead = Command::new("umount").arg("-l").arg(&mounted.mountpoint).status().unwrap();
        assert!(dead.success());
        if round % 3 == 0 {
            mounted.assert_catalogued(round * 3 + 3);
        }
        mounted.start();
        mounted.wait_reconciled();
        mounted.assert_catalogued(round * 3 + 3);
    }
    fs::remove_file(mounted.at("f0")).unwrap();
    mounted.wait_packed();
    mounted.assert_catalogued(36);
    let named = |path: &PathBuf| path.extension().is_some_and(|e| e == "tmp");
    let left = files_below(&mounted.store().join("packs")).into_values();
    assert!(!left.into_iter().any(|path| named(&path)), "a half-written pack is left");
}

impl Mounted {
    /// The first so many versions of a file are what they were.
    #[track_caller]
    fn assert_catalogued(&self, versions: u64) {
        self.assert_versions(1, versions);
    }
}

#[test]
fn killed_while_it_makes_room_it_loses_nothing_that_is_kept() {
    const LENGTH: usize = 3 << 20;
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 400, &["-q", "-m", "0"], "") else { return };
    let mut mounted = Mounted::on(&disk.path(), "pack_after=0,pack_limit=4000000");
    for round in 0..10_u64 {
        for n in 0..5 {
            fs::write(mounted.at("f"), noise(round * 5 + n, LENGTH)).unwrap();
        }
        mounted.sync();
        std::thread::sleep(std::time::Duration::from_millis(noise(round, 1)[0].into()));
        mounted.kill();
        let dead = Command::new("umount").arg("-l").arg(&mounted.mountpoint).status().unwrap();
        assert!(dead.success());
        mounted.start();
        mounted.wait_reconciled();
        mounted.assert_what_is_kept("f");
    }
    let reasons = mounted.log_of("f").into_iter().map(|version| version["content_reason"].clone());
    let reasons: Vec<_> = reasons.collect();
    assert!(reasons.contains(&"pruned".into()), "the test is of something: {reasons:?}");
    assert!(reasons[49].is_null());
}

impl Mounted {
    /// What the log says is kept can be had.
    #[track_caller]
    fn assert_what_is_kept(&self, path: &str) {
        for version in self.log_of(path) {
            let output = self.run(&["cat", &format!("{path}@{}", version["number"])]);
            // It may have gone since the log was read.
            let is_kept = |v: &Value| v["number"] == version["number"] && v["content"] != "none";
            if !self.log_of(path).iter().any(is_kept) {
                continue;
            }
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                version["sha256"],
                sha256(output.stdout),
                "{version:#} {told}{}",
                self.log()
            );
        }
    }
}
