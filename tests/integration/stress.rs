//! Kills at random moments while several writers do everything to a few files: whatever the catalog
//! says is kept must be had, byte for byte.
//!
//! What the writers do follows from a seed. `HORACE_STRESS_ROUNDS` asks for more kills and
//! `HORACE_STRESS_SEED` for others; a failure names its seed. `HORACE_STRESS_LINKS=1` has them link files, too: with
//! that it fails once in some hundred rounds, probably when a file is linked while its last name is being removed. Its
//! version is said to be gone then, though the new name has the content.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use horace::catalog::{Reader, Source, VersionInfo};
use horace::content::Contents;
use horace::store::Store;
use horace::types::{ContentHash, FileId, Loss, Seq};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rstest::rstest;
use rustix::fs::{Mode, OFlags};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, sha256};

const ROUNDS: u64 = 3;
const POWER_CUTS: u64 = 2;
const WRITERS: u64 = 3;
/// Names that all writers use.
const SHARED: u64 = 4;
/// Operations before a kill: so many, and up to as many more.
const OPERATIONS: u64 = 150;

/// More is not copied before it is changed in place, where blocks cannot be shared.
const COPIED: u64 = 1 << 20;

pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How a round ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Kill,
    PowerCut,
}

/// One writer, with what it may rely on.
struct Writer {
    rng: TestRng,
    /// A name that nobody else uses.
    own: String,
    /// The contents that the own file had when it was closed, each with when that was and what made it.
    closed: Vec<(u64, String, String)>,
    kept_open: Option<File>,
}

impl Writer {
    fn new(seed: u64, index: u64) -> Self {
        let seed = [seed.to_le_bytes(), index.to_le_bytes(), [0; 8], [1; 8]].concat();
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        Self { rng, own: format!("own-{index}"), closed: Vec::new(), kept_open: None }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.rng.next_u64() % limit
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.below(12) {
            // What is read in the background, and what is copied only when it is cut off.
            0 => 1_040_000 + self.below(200_000),
            1 => 0,
            _ => self.below(20_000),
        };
        let seed = self.below(1_000_000);
        noise(seed, usize::try_from(length).unwrap())
    }

    fn name(&mut self) -> String {
        match self.below(3) {
            0 => self.own.clone(),
            _ => format!("f{}", self.rng.next_u64() % SHARED),
        }
    }

    /// Does one thing; an error ends the writer, once the daemon is dead.
    fn step(&mut self, dir: &Path, done: &AtomicU64) -> std::io::Result<()> {
        let name = self.name();
        let path = dir.join(&name);
        let what = self.below(20 + setting("HORACE_STRESS_LINKS", 0));
        match what {
            0..5 => fs::write(&path, self.bytes())?,
            5..8 => OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)?
                .write_all(&self.bytes())?,
            8..11 => {
                let reads = self.below(2) == 0;
                let file = OpenOptions::new().write(true).read(reads).open(&path)?;
                for _ in 0..=self.below(3) {
                    let offset = self.below(30_000);
                    file.write_all_at(&self.bytes(), offset)?;
                }
            }
            11 => OpenOptions::new().write(true).open(&path)?.set_len(self.below(30_000))?,
            12 => {
                rustix::fs::ftruncate(
                    OpenOptions::new().append(true).open(&path)?,
                    self.below(9_000),
                )?;
            }
            13..16 => {
                let new = dir.join(format!("{}.new", self.own));
                fs::write(&new, self.bytes())?;
                fs::rename(&new, &path)?;
            }
            // What others may have open is not one's own.
            16 if name != self.own => {
                fs::rename(&path, dir.join(format!("f{}", self.below(SHARED))))?;
            }
            17 => {
                // Somebody who goes on writing to what others cut off, replace and delete.
                let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
                file.write_all(b"and on")?;
                self.kept_open = Some(file).filter(|_| name != self.own);
            }
            16 | 18 if self.kept_open.is_some() => {
                let bytes = self.bytes();
                self.kept_open.as_mut().unwrap().write_all(&bytes)?;
            }
            20 if name != self.own => {
                let link = dir.join(format!("{}.link", self.own));
                // Where both are names of one inode, it was not moved.
                let _ = fs::remove_file(&link);
                fs::hard_link(&path, &link)?;
                fs::rename(&link, dir.join(format!("f{}", self.below(SHARED))))?;
            }
            _ => fs::remove_file(&path)?,
        }
        let now = done.fetch_add(1, Ordering::SeqCst);
        let own = dir.join(&self.own);
        if let Ok(content) = fs::read(own)
            && content.len() as u64 <= COPIED
        {
            let made = format!("operation {now}: {what} on {name}, {} B", content.len());
            self.closed.push((now, sha256(content), made));
        }
        Ok(())
    }

    fn work(&mut self, dir: &Path, done: &AtomicU64, dead: &AtomicBool) {
        while !dead.load(Ordering::SeqCst) {
            if let Err(error) = self.step(dir, done) {
                let usual = [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotConnected];
                let broken = error.raw_os_error().is_some_and(|e| {
                    [libc::ECONNABORTED, libc::EIO, libc::ENODEV, libc::EINTR].contains(&e)
                });
                assert!(usual.contains(&error.kind()) || broken, "{error:?}");
            }
        }
        self.kept_open = None;
    }
}

/// The contents that files had when they were closed, with what made them, by the name of the file.
type Closed = Vec<(String, Vec<(String, String)>)>;

/// Lets the writers work, and has their work `end` meanwhile; returns what each own file had before a sync.
fn work(mounted: &mut Mounted, seed: u64, end: impl FnOnce(&mut Mounted)) -> Closed {
    let mut moments = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed.to_le_bytes(); 4].concat());
    let until = OPERATIONS + moments.next_u64() % OPERATIONS;
    let (done, dead) = (AtomicU64::new(0), AtomicBool::new(false));
    let dir = mounted.mountpoint.clone();
    let mut writers: Vec<Writer> = (0..WRITERS).map(|index| Writer::new(seed, index)).collect();
    let reached = |mounted: &Mounted, count: u64| {
        mounted.wait_for("work", || done.load(Ordering::SeqCst) >= count);
    };
    let synced = std::thread::scope(|scope| {
        for writer in &mut writers {
            scope.spawn(|| writer.work(&dir, &done, &dead));
        }
        reached(mounted, until / 2);
        let synced = done.load(Ordering::SeqCst);
        mounted.sync();
        reached(mounted, until);
        end(mounted);
        dead.store(true, Ordering::SeqCst);
        synced
    });
    let known = |writer: Writer| {
        let closed = writer.closed.into_iter().filter(|(when, ..)| *when < synced);
        (writer.own, closed.map(|(_, digest, made)| (digest, made)).collect())
    };
    writers.into_iter().map(known).collect()
}

/// What there is to be read of one version.
fn digest_of(content: &horace::content::Content, size: u64) -> ContentHash {
    let (mut hasher, mut buffer, mut offset) = (Sha256::new(), vec![0; 1 << 16], 0);
    while offset < size {
        let room = usize::try_from(size - offset).unwrap().min(buffer.len());
        let n = content.read_at(&mut buffer[..room], offset).unwrap();
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        offset += n as u64;
    }
    hasher.into()
}

/// What is wrong with a version, if anything is.
fn fault_of(
    contents: &Contents,
    reader: &mut Reader,
    version: &VersionInfo,
    end: End,
) -> Option<String> {
    let fault = match version.source {
        // What is too large to copy may have begun with what is not.
        Source::Lost(Loss::Unseen | Loss::Overwritten | Loss::TooLarge) => return None,
        Source::Lost(Loss::Gone) if end == End::PowerCut => return None,
        Source::Lost(loss) => format!("lost: {loss}"),
        _ => match contents.open(reader, (version.file, version.number)) {
            Err(error) => error.to_string(),
            Ok(content) => match (digest_of(&content, version.size), version.hash) {
                (found, Some(known)) if found == known => return None,
                (_, None) if matches!(version.source, Source::Incoming(_) | Source::Head) => {
                    "it has no digest".into()
                }
                (_, None) => return None,
                (found, _) => {
                    let there = content.file().map(|file| rustix::fs::fstat(file).unwrap().st_size);
                    format!("found {found}, of {there:?} bytes")
                }
            },
        },
    };
    let comm = version.writer.as_ref().map(|w| String::from_utf8_lossy(&w.comm).into_owned());
    let (file, number, size) = (version.file.0, version.number, version.size);
    let (hash, source, origin) = (version.hash, version.source, version.origin);
    Some(format!(
        "file {file} version {number}: {fault}; {size} B {hash:?} {source:?} {origin} {comm:?}"
    ))
}

/// Every version of every file that there ever was can be read unless it says why not.
pub(crate) fn assert_everything_is_there(mounted: &Mounted, end: End) {
    let mut reader = mounted.catalog();
    let backing: OwnedFd = File::open(&mounted.backing).unwrap().into();
    let store = Store::open(File::open(mounted.backing.join(".horace")).unwrap().as_fd()).unwrap();
    let contents = Contents::new(Arc::new(backing), Some(Arc::new(store)));
    let changes = reader.changes(Seq(0), usize::MAX >> 1).unwrap();
    let files: BTreeSet<FileId> = changes.into_iter().map(|change| change.file).collect();
    let (mut faults, mut told) = (Vec::new(), BTreeMap::new());
    for file in files {
        for version in reader.versions(file).unwrap() {
            faults.extend(fault_of(&contents, &mut reader, &version, end));
            let (content, reason) = version.content();
            *told.entry(format!("{content:?} {reason:?}")).or_insert(0) += 1;
        }
    }
    eprintln!("{told:?}");
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The catalog knows of every object, so that none is there for good.
fn assert_objects_are_known(mounted: &Mounted) {
    let reader = mounted.catalog();
    let is_known = |digest: &String| reader.stored_size(digest.parse().unwrap()).unwrap().is_some();
    // A start looks for what it was not told of beside everything else.
    mounted.wait_for("word of all objects", || mounted.objects().keys().all(is_known));
}

fn assert_heads_are_the_files(mounted: &Mounted) {
    for (name, path) in crate::tools::files_below(&mounted.backing) {
        let name = String::from_utf8(name).unwrap();
        let newest = mounted.log_of(&name).pop().unwrap();
        assert_eq!(newest["content"], "head", "{name}: {newest:#}");
        assert_eq!(newest["sha256"], sha256(fs::read(path).unwrap()), "{name}: {newest:#}");
        let printed = mounted.run(&["cat", &name]);
        assert_eq!(newest["sha256"], sha256(printed.stdout), "{name}");
    }
}

/// A line for each version.
fn brief(log: &[Value]) -> String {
    let keys = ["number", "file_number", "size", "sha256", "origin", "content", "content_reason"];
    let line = |v: &Value| keys.map(|key| v[key].to_string()).join(" ");
    log.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn stress(mut mounted: Mounted, options: &str) {
    let seed = setting("HORACE_STRESS_SEED", 1);
    let mut expected = Closed::new();
    // Somebody else's files, which nobody touches.
    fs::create_dir(mounted.at("still")).unwrap();
    for content in ["one", "two"] {
        fs::write(mounted.at("still/f"), content).unwrap();
    }
    fs::write(mounted.at("still/gone"), "three").unwrap();
    fs::remove_file(mounted.at("still/gone")).unwrap();
    mounted.wait_for("objects", || mounted.objects().len() == 2);
    let still = |mounted: &Mounted| ["still/f", "still/gone"].map(|name| mounted.log_of(name));
    let before = still(&mounted);
    for round in 0..setting("HORACE_STRESS_ROUNDS", ROUNDS) {
        let seed = seed.wrapping_mul(1_000_003) + round;
        eprintln!("-o {options}, round {round}, seed {seed}");
        expected.extend(work(&mut mounted, seed, Mounted::kill));
        start_and_check(&mut mounted, End::Kill);
        // What a larger one begins with is lost with that.
        assert_kept_since(&mounted, &expected, &["too-large"]);
        assert_eq!(still(&mounted), before);
    }
}

/// Everything is as it is said to be after a start.
pub(crate) fn start_and_check(mounted: &mut Mounted, end: End) {
    mounted.start();
    mounted.wait_reconciled();
    mounted.sync();
    let incoming = mounted.backing.join(".horace/store/incoming");
    mounted.wait_for("objects", || fs::read_dir(&incoming).unwrap().count() == 0);
    mounted.sync();
    assert_everything_is_there(mounted, end);
    assert_objects_are_known(mounted);
    assert_heads_are_the_files(mounted);
    mounted.assert_catalog_is_true();
    let (well, findings, summary) = mounted.verify(&["--restart"]);
    assert!(well && findings.is_empty(), "{findings:#?}");
    assert_eq!(summary["skipped"], 0, "{summary:#}");
}

/// What was closed is a version, and can be had unless one of these is why not.
fn assert_kept_since(mounted: &Mounted, expected: &Closed, but: &[&str]) {
    for (name, closed) in expected {
        let log = mounted.log_of(name);
        for (digest, made) in closed {
            let excused = |v: &Value| but.iter().any(|reason| v["content_reason"] == *reason);
            let kept = |v: &Value| v["sha256"] == *digest && (v["content"] != "none" || excused(v));
            assert!(
                log.iter().any(kept),
                "{name} has lost {digest}, {made}:\n{}\n{closed:#?}",
                brief(&log)
            );
        }
    }
}

/// Power cuts: what the disk has at some moment is mounted, and served again.
#[rstest]
fn what_is_said_to_be_kept_is_there_after_a_power_cut(
    #[values("ext4", "xfs", "btrfs")] kind: &str,
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let Some(outer) = Disk::new("xfs", 16384, &["-q"], "") else { return };
    let within = Some(outer.path());
    let Some(mut disk) = Disk::within(within, kind, 2048, &["-q"], "") else { return };
    let mut expected = Closed::new();
    let mut mounted = Mounted::on(&disk.path(), options);
    for round in 0..setting("HORACE_POWER_ROUNDS", POWER_CUTS) {
        let seed = setting("HORACE_STRESS_SEED", 1).wrapping_mul(1_000_003) + round;
        eprintln!("{kind} -o {options}, power cut {round}, seed {seed}");
        let mut after = None;
        let closed = work(&mut mounted, seed, |mounted| {
            after = Some(disk.cut());
            mounted.kill();
        });
        drop(mounted);
        let before = std::mem::replace(&mut disk, after.unwrap());
        drop(before);
        disk.mount();
        expected.extend(closed);
        mounted = Mounted::unmounted_on(disk.path().join("backing"), options);
        start_and_check(&mut mounted, End::PowerCut);
        // Where blocks are not shared, a copy of what is changed in place may not be on the disk before the
        // change is.
        let lost = ["too-large", "gone", "unseen", "overwritten"];
        assert_kept_since(&mounted, &expected, if kind == "ext4" { &lost } else { &[] });
    }
}

#[rstest]
fn what_is_kept_survives_kills_at_any_moment(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if can_mount() {
        stress(Mounted::with_options(options), options);
    }
}

#[rstest]
fn what_is_kept_survives_kills_at_any_moment_on(
    #[values("xfs", "btrfs")] kind: &str,
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new(kind, 16384, &["-q"], "") else { return };
    stress(Mounted::on(&disk.path(), options), options);
}

#[rstest]
fn a_file_that_is_opened_after_its_last_name_went_does_not_come_back(
    #[values("delete", "replace")] how: &str,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::write(mounted.at("f"), "before").unwrap();
    // So that the daemon has not heard of the file.
    mounted.remount();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::open(mounted.at("f"), flags, Mode::empty()).unwrap();
    if how == "delete" {
        fs::remove_file(mounted.at("f")).unwrap();
    } else {
        fs::write(mounted.at("new"), "new").unwrap();
        fs::rename(mounted.at("new"), mounted.at("f")).unwrap();
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    OpenOptions::new().append(true).open(path).unwrap().write_all(b" and after").unwrap();
    drop(found);
    mounted.sync();
    mounted.assert_catalog_is_true();
    mounted.remount();
    mounted.assert_catalog_is_true();
}

#[rstest]
fn what_a_dead_mount_still_writes_to_is_no_object(
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    let mut file = OpenOptions::new().append(true).create(true).open(mounted.at("f")).unwrap();
    file.write_all(&noise(1, 2000)).unwrap();
    drop(file.try_clone().unwrap());
    fs::remove_file(mounted.at("f")).unwrap();
    mounted.sync();
    mounted.kill();
    mounted.start();
    mounted.wait_reconciled();
    let store = mounted.backing.join(".horace/store");
    fs::write(mounted.at("other"), "other").unwrap();
    fs::remove_file(mounted.at("other")).unwrap();
    let objects = || crate::tools::files_below(&store.join("objects"));
    mounted.wait_for("what was deleted later", || !objects().is_empty());
    // The kernel goes on with what it serves itself, although nobody answers any more.
    let went_on = file.write_all(b"and on").is_ok();
    drop(file);
    let incoming = || fs::read_dir(store.join("incoming")).unwrap().count();
    mounted.wait_for("objects", || incoming() == 0);
    for (name, path) in objects() {
        assert_eq!(
            String::from_utf8(name).unwrap().replace('/', ""),
            sha256(fs::read(path).unwrap())
        );
    }
    if !went_on {
        mounted.assert_kept("f");
    }
}
