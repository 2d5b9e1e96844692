//! Many writers for as long as one likes: memory, descriptors and queue stay bounded, nothing is dropped.
//!
//! `HORACE_LOAD_SECONDS` says for how long.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mounted::{Mounted, can_mount};
use crate::strace::Tracer;
use crate::tools::have;

const SECONDS: u64 = 8;
const MIB: u64 = 1 << 20;
/// As many as may come while as many are taken in, and what the writers bring meanwhile although they wait each time.
const MOST_WAITING: u64 = 2 * 16_384 + 8_000;

fn seconds() -> Duration {
    let text = std::env::var("HORACE_LOAD_SECONDS").ok();
    Duration::from_secs(text.and_then(|text| text.parse().ok()).unwrap_or(SECONDS))
}

/// Everything that services do to a few files of their own, again and again.
fn work(dir: &Path, stop: &AtomicBool, done: &AtomicU64) {
    fs::create_dir(dir).unwrap();
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("log")).unwrap();
    for round in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let name = |n: u64| dir.join(format!("f{}", n % 20));
        fs::write(name(round), format!("{round} of {}", dir.display())).unwrap();
        writeln!(log, "{round}").unwrap();
        fs::write(dir.join("new"), round.to_le_bytes()).unwrap();
        fs::rename(dir.join("new"), name(round + 7)).unwrap();
        if round % 3 == 0 {
            fs::remove_file(name(round)).unwrap();
        }
        if round % 100 == 0 {
            log.set_len(0).unwrap();
        }
        done.fetch_add(5, Ordering::Relaxed);
    }
}

/// What a daemon has at a moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: u64,
    descriptors: u64,
    queue: u64,
    /// Contents that wait to become objects.
    waiting: u64,
}

impl Sample {
    fn of(mounted: &Mounted) -> Self {
        let (memory, descriptors) = (mounted.memory(), mounted.descriptors() as u64);
        let waiting = fs::read_dir(mounted.backing.join(".horace/store/incoming")).unwrap();
        let queue = mounted.status()["queue"].as_u64().unwrap();
        Self { memory, descriptors, queue, waiting: waiting.count() as u64 }
    }
}

/// The most of something.
fn most(samples: &[Sample], what: fn(&Sample) -> u64) -> u64 {
    samples.iter().map(what).max().unwrap()
}

/// Lets so many writers work, and returns what was seen meanwhile and how much they did.
fn load(mounted: &Mounted, writers: u64) -> (Vec<Sample>, u64) {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut samples = Vec::new();
    std::thread::scope(|scope| {
        for n in 0..writers {
            let dir = mounted.at(format!("w{n}"));
            let (stop, done) = (&stop, &done);
            scope.spawn(move || work(&dir, stop, done));
        }
        let since = Instant::now();
        while since.elapsed() < seconds() {
            samples.push(Sample::of(mounted));
            std::thread::sleep(Duration::from_millis(500));
        }
        stop.store(true, Ordering::Relaxed);
    });
    (samples, done.into_inner())
}

#[test]
fn many_writers_on_a_slow_disk_of_the_catalog_wait_and_lose_nothing() {
    if !can_mount() || !have(&["strace"]) {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.wait_reconciled();
    let tracer = Tracer::slow(&mounted, "catalog", "pwrite64", 2);
    let (samples, done) = load(&mounted, 64);
    let (queue, memory) = (most(&samples, |s| s.queue), most(&samples, |s| s.memory));
    let waiting = most(&samples, |s| s.waiting);
    eprintln!(
        "{done} operations, at most {queue} changes and {waiting} contents waiting, {memory} B"
    );
    tracer.stop();
    // As many as wait may be on their way to the disk; one that finds room may bring a few at once.
    assert!(queue <= 2 * 65_536 + 1_000, "{queue}");
    assert!(waiting <= MOST_WAITING, "{waiting}");
    assert!(memory < 512 * MIB, "{memory} B");
    mounted.sync();
    assert!(mounted.status()["degraded"].is_null(), "{:#}", mounted.status());
    mounted.assert_catalog_is_true();
    mounted.remount();
    assert_eq!(mounted.status()["reconcile"]["read_files"], 0, "nothing was dropped");
}

#[test]
fn mixed_work_leaves_memory_and_descriptors_as_they_were() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let (samples, done) = load(&mounted, 4);
    // After a fifth of the time everything is warm.
    let warm = &samples[samples.len() / 5..];
    let (early, late) = warm.split_at(warm.len() / 2);
    let memory = [early, late].map(|half| most(half, |s| s.memory));
    let descriptors = [early, late].map(|half| most(half, |s| s.descriptors));
    let waiting = most(&samples, |s| s.waiting);
    eprintln!("{done} operations, {memory:?} B, {descriptors:?} descriptors, {waiting} waiting");
    assert!(waiting <= MOST_WAITING, "{waiting}");
    assert!(memory[1] < memory[0] + memory[0] / 4 + 32 * MIB, "{memory:?} B");
    assert!(descriptors[1] < descriptors[0] + 200, "{descriptors:?}");
    mounted.sync();
    mounted.assert_catalog_is_true();
}
