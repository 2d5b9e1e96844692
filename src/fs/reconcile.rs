//! Reconcile: making the catalog true where the backing directory says otherwise.
//!
//! Owns a run from its start to its end: the walk, what was left for after it, and the progress that
//! `status` shows. It never overrides what operations of the mount say meanwhile: each observation is
//! checked once more and handed over while no operation is under way.
//!
//! # Order
//! Names that are where they were, or new, are told during the walk. What needs the whole picture waits
//! for its end: a name that another inode has now (the old one may turn up elsewhere), with what is below
//! it if it is a directory, directories that were moved while the walk went on, names that were not
//! found, files whose content is still unknown. A crash at any point loses only the rest of the run; the
//! next start begins a new one.

mod pace;

use std::collections::HashSet;
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Fs;
use super::examine::Look;
use super::load::Bandwidth;
use super::walk::{DirJob, Pacing, Walk};
use crate::catalog::CatalogError;
use crate::catalog::event::{Event, Op, Place};
use crate::sys::{Errno, stat};
use crate::types::path::split;
use crate::types::{InodeKey, Kind};

pub(super) use pace::Pacer;

/// How hard a run may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads that walk and read.
    pub threads: NonZeroUsize,
    /// Bytes of content to read in a second; `None` as fast as it goes.
    pub rate: Option<NonZeroU64>,
}

/// Who waits for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Haste {
    /// Nobody: it is done from time to time.
    #[default]
    Routine,
    /// Everybody who asks the catalog, which may be wrong until it is over.
    Needed,
    /// Somebody who has asked for it.
    Asked,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum ProgressState {
    /// None has begun.
    #[default]
    Idle,
    /// Cataloguing the directory for the first time.
    Import,
    /// Comparing the directory with the catalog.
    Check,
    /// The last run is over.
    Done,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it is doing.
    pub state: ProgressState,
    /// Directories looked at.
    pub directories: u64,
    /// Names in them.
    pub files: u64,
    /// Files whose content was read.
    pub read_files: u64,
    /// Bytes of it.
    pub read_bytes: u64,
    /// Names that there are, by the last count; 0 while unknown.
    pub expected: u64,
    /// Bytes that there are to read; 0 if unknown, or if only changes are read.
    pub expected_bytes: u64,
    /// Names that are looked at once more after the walk; 0 until it is over.
    pub later: u64,
    /// How many of them have been.
    pub later_done: u64,
    /// When that began, in nanoseconds since 1970.
    pub later_ns: i64,
    /// What could not be looked at.
    pub errors: u64,
    /// For whom it is.
    pub haste: Haste,
    /// Whether it goes slowly because users of the mount have something done.
    pub is_slowed: bool,
    /// When it began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended; 0 while it runs.
    pub finished_ns: i64,
}

/// A name to come back to when the walk is over.
pub(super) struct Later {
    pub(super) dir: DirJob,
    pub(super) name: Vec<u8>,
    pub(super) key: InodeKey,
}

impl Later {
    /// What has the name now.
    fn key_now(&self, fs: &Fs) -> Option<InodeKey> {
        let dir = self.dir.open(fs).ok()?;
        fs.identify_name(dir.as_fd(), &self.name).ok().map(|(key, _)| key)
    }
}

/// What was looked at and read.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) directories: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) read_files: AtomicU64,
    pub(super) read_bytes: AtomicU64,
    pub(super) errors: AtomicU64,
}

impl Counts {
    fn reset(&self) {
        for counter in
            [&self.directories, &self.files, &self.read_files, &self.read_bytes, &self.errors]
        {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// The state of the run, shared between its threads.
#[derive(Debug, Default)]
pub(super) struct State {
    running: Mutex<()>,
    stop: AtomicBool,
    active: AtomicBool,
    haste: Mutex<Haste>,
    bandwidth: Bandwidth,
    slowed: AtomicBool,
    later_done: AtomicU64,
    pub(super) counts: Counts,
    /// A run of this daemon has seen everything.
    complete: AtomicBool,
    summary: Mutex<Progress>,
    /// Directories that were moved while a walk was under way.
    moved: Mutex<Vec<DirJob>>,
}

impl State {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { bandwidth: Bandwidth::new(limits.rate), ..Self::default() }
    }

    fn haste(&self) -> Haste {
        *self.haste.lock()
    }

    fn hasten(&self, haste: Haste) {
        let mut now = self.haste.lock();
        *now = haste.max(*now);
    }

    /// Whether a run of this daemon has seen everything: what it took for true was so after the start.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Remembers a moved directory: the walk may have been at its new place before, and will not find
    /// it at the old one.
    pub(super) fn note_move(&self, dir: impl FnOnce() -> Option<DirJob>) {
        if self.active.load(Ordering::Relaxed) {
            self.moved.lock().extend(dir());
        }
    }

    fn begin(&self, state: ProgressState, expected: u64) {
        self.counts.reset();
        self.later_done.store(0, Ordering::Relaxed);
        let started_ns = crate::clock::now_ns();
        *self.summary.lock() = Progress { state, expected, started_ns, ..Progress::default() };
        self.moved.lock().clear();
        self.active.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        self.active.store(false, Ordering::Relaxed);
        self.slowed.store(false, Ordering::Relaxed);
        *self.haste.lock() = Haste::default();
        let mut summary = self.summary.lock();
        summary.state = ProgressState::Done;
        summary.finished_ns = crate::clock::now_ns();
    }

    fn progress(&self) -> Progress {
        let mut progress = *self.summary.lock();
        progress.directories = self.counts.directories.load(Ordering::Relaxed);
        progress.files = self.counts.files.load(Ordering::Relaxed);
        progress.read_files = self.counts.read_files.load(Ordering::Relaxed);
        progress.read_bytes = self.counts.read_bytes.load(Ordering::Relaxed);
        progress.errors = self.counts.errors.load(Ordering::Relaxed);
        progress.later_done = self.later_done.load(Ordering::Relaxed);
        progress.is_slowed = self.slowed.load(Ordering::Relaxed);
        progress.haste = self.haste();
        progress
    }

    /// Says how many names more are looked at after the walk.
    fn add_later(&self, names: usize) {
        let mut summary = self.summary.lock();
        if summary.later == 0 {
            summary.later_ns = crate::clock::now_ns();
        }
        summary.later += names as u64;
    }
}

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The backing directory could not be read.
    #[error("the backing directory could not be read")]
    Backing(#[from] Errno),
    /// The daemon is stopping.
    #[error("stopped")]
    Stopped,
}

impl Fs {
    /// How far the current run is, or how the last one ended.
    pub fn progress(&self) -> Progress {
        self.reconcile.progress()
    }

    /// What a run is held to.
    pub fn reconcile_limits(&self) -> Limits {
        self.options.reconcile
    }

    /// Has the run that is under way, or else the next, take no less account of who waits for it.
    pub fn hasten_reconcile(&self, haste: Haste) {
        self.reconcile.hasten(haste);
    }

    /// Breaks off the run that is under way, and every later one.
    pub fn stop_reconcile(&self) {
        self.reconcile.stop();
    }

    /// Compares the whole backing directory with the catalog and records the difference.
    ///
    /// Reads only files whose inode, size or times are not those of their digest, as fast as `haste` and the
    /// limits have it. Returns when everything it found is committed. One run at a time; `begun` is called
    /// when this one's progress can be seen.
    ///
    /// # Errors
    /// If the catalog or the root cannot be read, or the daemon stops meanwhile.
    pub fn reconcile(
        &self,
        haste: Haste,
        begun: impl FnOnce(),
    ) -> Result<Progress, ReconcileError> {
        let _running = self.reconcile.running.lock();
        self.reconcile.hasten(haste);
        self.catalog.look_after_files();
        if let Some(packs) = self.store.as_ref().and_then(|store| store.packs()) {
            packs.look_again();
        }
        let first = !self.imported.load(Ordering::Relaxed);
        let state = if first { ProgressState::Import } else { ProgressState::Check };
        let expected = if first { 0 } else { self.catalog.read_committed(|r| r.totals())?.entries };
        self.reconcile.begin(state, expected);
        begun();
        let result = self.run();
        self.reconcile.end();
        result.map(|()| self.progress())
    }

    fn run(&self) -> Result<(), ReconcileError> {
        let walk = Walk::new(self, &self.reconcile.counts, Pacing::Limited);
        let threads = self.options.reconcile.threads.get();
        std::thread::scope(|scope| {
            if !self.imported.load(Ordering::Relaxed) {
                // How long the first run takes, only a count can tell.
                scope.spawn(|| self.count());
            }
            walk.run(vec![DirJob::root(self)], threads);
        });
        loop {
            self.check_stop()?;
            let mut jobs = std::mem::take(&mut *self.reconcile.moved.lock());
            jobs.extend(walk.take_replaced_dirs());
            if jobs.is_empty() {
                break;
            }
            walk.run(jobs, threads);
        }
        let pacer = Pacer::new(self);
        self.finish_walk(walk, Some(&pacer))?;
        self.settle_rest(&pacer)?;
        self.compare_if_older();
        self.check_stop()?;
        {
            let _tree = self.tree.read();
            self.push_observed(Op::WalkDone);
        }
        self.imported.store(true, Ordering::Relaxed);
        self.settle_left(|| self.reconcile.stopped());
        self.check_stop()?;
        self.catalog.barrier();
        self.catalog.reconciled();
        if self.reconcile.counts.errors.load(Ordering::Relaxed) == 0 {
            self.reconcile.complete.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Tells what only the end of a walk shows: what has been replaced, and then what is gone.
    pub(super) fn finish_walk(
        &self,
        walk: Walk<'_>,
        pacer: Option<&Pacer<'_>>,
    ) -> Result<(), ReconcileError> {
        let look = walk.look(pacer);
        let (replaced, missing) = walk.into_later();
        self.observe_swapped(&replaced)?;
        if pacer.is_some() {
            self.reconcile.add_later(replaced.len() + missing.len());
        }
        for later in replaced {
            if let Ok(fd) = later.dir.open(self) {
                self.observe_by(look, &fd, later.dir.key, &later.name);
            }
            self.passed_later(pacer)?;
        }
        for later in missing {
            self.observe_missing(&later);
            self.passed_later(pacer)?;
        }
        Ok(())
    }

    /// After a name that was looked at once more: waits as the limits want it, if there are any.
    fn passed_later(&self, pacer: Option<&Pacer<'_>>) -> Result<(), ReconcileError> {
        let Some(pacer) = pacer else { return self.check_stop() };
        self.reconcile.later_done.fetch_add(1, Ordering::Relaxed);
        if pacer.passed() { Ok(()) } else { Err(ReconcileError::Stopped) }
    }

    /// Counts names and bytes ahead of the walk, for the estimate of its end.
    fn count(&self) {
        let (mut names, mut bytes) = (0, 0);
        let pacer = Pacer::new(self);
        let mut jobs = vec![DirJob::root(self)];
        while let Some(job) = jobs.pop() {
            if self.reconcile.stopped() {
                return;
            }
            // What cannot be read is for the walk to report.
            let _ = self.list(&job, &mut |name, stat| {
                names += 1;
                pacer.passed();
                match stat.attr.kind {
                    Kind::File => bytes += stat.attr.size,
                    Kind::Dir => jobs.extend(job.child(self, name)),
                    _ => {}
                }
            });
        }
        let mut summary = self.reconcile.summary.lock();
        (summary.expected, summary.expected_bytes) = (names, bytes);
    }

    fn check_stop(&self) -> Result<(), ReconcileError> {
        if self.reconcile.stopped() { Err(ReconcileError::Stopped) } else { Ok(()) }
    }

    /// Tells which of the names whose inode was replaced lost it to another of them: files whose names
    /// were exchanged or passed on have moved, and none has taken the place of another.
    fn observe_swapped(&self, replaced: &[Later]) -> Result<(), ReconcileError> {
        let found: HashSet<_> = replaced.iter().filter_map(|later| later.key_now(self)).collect();
        for later in replaced.iter().filter(|later| found.contains(&later.key)) {
            self.check_stop()?;
            self.catalog.wait_for_room();
            let _tree = self.tree.write();
            if later.key_now(self).is_some_and(|now| now != later.key) {
                let at = Place { parent: later.dir.key, name: later.name.clone().into() };
                self.push_observed(Op::Elsewhere { at, key: later.key });
            }
        }
        Ok(())
    }

    /// Tells that a name is gone, if it really is and nobody else has said so.
    fn observe_missing(&self, later: &Later) {
        let Ok(fd) = later.dir.open(self) else { return };
        let Ok(name) = std::ffi::CString::new(later.name.as_slice()) else { return };
        self.catalog.wait_for_room();
        let _tree = self.tree.write();
        let gone = match stat::lstat_at(fd.as_fd(), &name) {
            Err(Errno::NOENT) => true,
            Ok(stat) => stat.attr.ino != later.key.ino && !self.is_foreign(&stat),
            Err(_) => false,
        };
        if gone {
            let at = Place { parent: later.dir.key, name: later.name.clone().into() };
            self.push_observed(Op::Gone { at, key: later.key });
        }
    }

    /// Reads the files whose content the catalog does not know although nobody has them open.
    fn settle_rest(&self, pacer: &Pacer<'_>) -> Result<(), ReconcileError> {
        let paths = self.catalog.read(|reader| reader.unsettled())?;
        self.reconcile.add_later(paths.len());
        let look = Look::new(&self.reconcile.counts, Some(pacer));
        for path in paths {
            let (dir, name) = split(&path);
            if let Ok((fd, key)) = self.open_dir_path(dir) {
                self.observe_by(look, &fd, key, name);
            }
            self.passed_later(Some(pacer))?;
        }
        Ok(())
    }

    /// Hands over what was seen, in one go and in order.
    pub(super) fn push_observed(&self, op: Op) {
        self.catalog.push([Event { time_ns: crate::clock::now_ns(), writer: None, op }]);
    }
}
