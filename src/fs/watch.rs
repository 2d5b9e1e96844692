//! Watching the backing directory for what is changed around the mount.
//!
//! Owns what becomes of the kernel's events: which of them mean the backing directory, when a name is
//! looked at, and what the kernel is to forget. What a look at a name means is said by the walk. Changes by
//! the daemon itself are left out by its process number; what users do in the mount and the kernel does
//! for them (passthrough) comes under their numbers, and costs one `stat` once nobody has the file open.
//!
//! One thread takes events from the kernel and never waits for anything, so that the kernel need not
//! drop any; another has caches forgotten and looks. Neither holds a lock while it does so that a
//! request waits for. A name is looked at a moment after its file was closed or left alone, never amid
//! its writing. What is too much, here or in the kernel, is left to a reconcile. Nothing
//! survives a crash: the next start compares everything.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::OFlags;

use super::examine::{Reading, is_busy};
use super::node::Node;
use super::reconcile::{Counts, ReconcileError};
use super::walk::{DirJob, Pacing, Walk, Wanted};
use super::{Fs, Handles, TICK_NS};
use crate::sys::fanotify::{Event, Fanotify, Happened, Place, WatchError};
use crate::sys::handle::{self as file_handle, FileHandle};
use crate::sys::{Errno, stat};
use crate::types::path::split;
use crate::types::{Kind, Name};

/// How long a name must have been left alone to be looked at.
const MOMENT: Duration = Duration::from_millis(100);
/// The same for a file that was written and not closed.
const QUIET: Duration = Duration::from_millis(500);
/// How long at most a name waits that is closed again and again.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long at most a name waits of a file that is open in the mount, before it is looked at again.
const BUSY: Duration = Duration::from_secs(2);
/// How often at most caches are forgotten.
const PACE: Duration = Duration::from_millis(5);
/// How many names may wait.
const MOST: usize = 65_536;
/// Of how many directories it is remembered whether they are below the backing directory.
const DIRECTORIES: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");
/// How much is read from the kernel at once.
const BUFFER: usize = 64 << 10;

/// What the watch has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchTotals {
    /// Names that were looked at.
    pub names: u64,
    /// Files that were read.
    pub read_files: u64,
    /// How often there was too much to keep.
    pub overflows: u64,
}

/// A name in a directory; an empty one for an inode that is open without a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spot {
    dir: FileHandle,
    name: Name,
}

/// What is known of a name that waits.
#[derive(Debug, Clone)]
struct Touch {
    first: Instant,
    last: Instant,
    /// How long it waits after the last thing that happened.
    pause: Duration,
    /// The inode to which it happened.
    inode: Option<FileHandle>,
    /// It has not been forgotten yet.
    is_fresh: bool,
    /// Its content may be another one.
    was_written: bool,
    /// It may be a name of something else than it was.
    was_named: bool,
}

impl Touch {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            first: now,
            last: now,
            pause: MOMENT,
            inode: None,
            is_fresh: false,
            was_written: false,
            was_named: false,
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let closed = self.pause == MOMENT;
        now >= self.last + self.pause || (closed && now >= self.first + PATIENCE)
    }
}

/// The names that wait, and the threads.
#[derive(Debug, Default)]
pub(super) struct State {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    threads: Mutex<Option<(OwnedFd, [JoinHandle<()>; 2])>>,
    stopped: AtomicBool,
    counts: Counts,
    overflows: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    touched: HashMap<Spot, Touch>,
    /// Those of them that are fresh.
    fresh: Vec<Spot>,
}

impl Waiting {
    /// Takes what is due.
    fn take_due(&mut self) -> Vec<(Spot, Touch)> {
        let now = Instant::now();
        self.touched.extract_if(|_, touch| !touch.is_fresh && touch.is_due(now)).collect()
    }
}

impl Fs {
    /// Begins to watch the backing directory.
    ///
    /// # Errors
    /// Why it cannot be watched; nothing has begun then.
    pub fn start_watch(self: &Arc<Self>) -> Result<(), WatchError> {
        if self.handles != Handles::Open {
            return Err(WatchError::Filesystem);
        }
        let kernel = Fanotify::watch(self.root())?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let signal = eventfd(0, flags).map_err(WatchError::Other)?;
        let stop = signal.try_clone().map_err(thread_error)?;
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(work).map_err(thread_error)
        };
        let fs = Arc::downgrade(self);
        let reader = spawn("watch", Box::new(move || listen(&fs, &kernel, &stop)))?;
        let fs = Arc::downgrade(self);
        let looker = spawn("look", Box::new(move || look(&fs)))?;
        *self.watch.threads.lock() = Some((signal, [reader, looker]));
        Ok(())
    }

    /// Stops watching. What was not looked at is found by the next start.
    pub(super) fn stop_watch(&self) {
        let Some((signal, threads)) = self.watch.threads.lock().take() else { return };
        self.watch.stopped.store(true, Ordering::Relaxed);
        {
            let _waiting = self.watch.waiting.lock();
            self.watch.wake.notify_all();
        }
        if let Err(error) = rustix::io::write(&signal, &1_u64.to_ne_bytes()) {
            tracing::error!(%error, "the watch cannot be told to stop");
        }
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the watch panicked");
            }
        }
    }

    /// What the watch has come to so far.
    pub fn watch_totals(&self) -> WatchTotals {
        WatchTotals {
            names: self.watch.counts.files.load(Ordering::Relaxed),
            read_files: self.watch.counts.read_files.load(Ordering::Relaxed),
            overflows: self.watch.overflows.load(Ordering::Relaxed),
        }
    }
}

fn thread_error(error: std::io::Error) -> WatchError {
    WatchError::Other(Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
}

/// Takes events from the kernel until it is told to stop.
fn listen(fs: &Weak<Fs>, kernel: &Fanotify, stop: &OwnedFd) {
    let mut buffer = vec![0; BUFFER];
    let mut served = LruCache::new(DIRECTORIES);
    loop {
        let mut ready = [PollFd::new(kernel, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let polled = poll(&mut ready, None);
        let Some(fs) = fs.upgrade() else { return };
        if fs.watch.stopped.load(Ordering::Relaxed) {
            return;
        }
        let read = match polled {
            Ok(_) => kernel.read(&mut buffer),
            Err(error) => Err(error),
        };
        match read {
            Ok(events) => {
                let own = std::process::id();
                for event in events.filter(|event| event.pid != own) {
                    fs.note(&event, &mut served);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "the kernel does not tell of changes any more");
                fs.catalog.wish_reconcile();
                return;
            }
        }
    }
}

/// Has caches forgotten and looks at names until it is told to stop.
fn look(fs: &Weak<Fs>) {
    loop {
        let Some(fs) = fs.upgrade() else { return };
        let (fresh, due) = {
            let mut waiting = fs.watch.waiting.lock();
            if waiting.fresh.is_empty() && !fs.watch.stopped.load(Ordering::Relaxed) {
                if waiting.touched.is_empty() {
                    fs.watch.wake.wait(&mut waiting);
                } else {
                    fs.watch.wake.wait_for(&mut waiting, MOMENT / 2);
                }
            }
            if fs.watch.stopped.load(Ordering::Relaxed) {
                return;
            }
            let fresh: Vec<_> = std::mem::take(&mut waiting.fresh)
                .into_iter()
                .filter_map(|spot| {
                    let touch = waiting.touched.get_mut(&spot)?;
                    touch.is_fresh = false;
                    Some((spot, touch.clone()))
                })
                .collect();
            (fresh, waiting.take_due())
        };
        for (spot, touch) in &fresh {
            fs.forget_cached(spot, touch);
        }
        if !due.is_empty()
            && let Err(error) = fs.look_at_touched(due)
        {
            tracing::debug!(%error, "what changed around the mount is left to a reconcile");
            fs.catalog.wish_reconcile();
        }
        // What is written all the time need not be forgotten all the time.
        std::thread::sleep(PACE);
    }
}

impl Fs {
    /// Notes an event, if it means the backing directory.
    fn note(&self, event: &Event<'_>, served: &mut LruCache<FileHandle, bool>) {
        if event.is_overflow() {
            // The rename of a directory may be among what is lost.
            served.clear();
            return self.note_overflow();
        }
        let happened = event.happened;
        if happened.any(Happened::RENAMED) && happened.any(Happened::TO_DIRECTORY) {
            // What is below it may have come or gone with it.
            served.clear();
        }
        let inode = event.inode.map(|inode| inode.to_handle());
        let mut is_served = |dir: &FileHandle| match served.get(dir) {
            Some(is_served) => *is_served,
            None => {
                let is_served = DirJob::served(self, dir).is_some();
                served.put(dir.clone(), is_served);
                is_served
            }
        };
        let places = [event.place, event.from].into_iter().flatten();
        let spots = places.filter_map(|Place { dir, name }| {
            let (dir, name) = (dir.to_handle(), Name::from(name));
            (&*name != b"." && is_served(&dir)).then_some(Spot { dir, name })
        });
        let mut spots: Vec<_> = spots.collect();
        if event.place.is_none() && !happened.any(Happened::TO_DIRECTORY) {
            spots.extend(inode.clone().map(|dir| Spot { dir, name: Name::default() }));
        }
        for spot in spots {
            self.touch(spot, happened, inode.as_ref());
        }
    }

    fn note_overflow(&self) {
        self.watch.overflows.fetch_add(1, Ordering::Relaxed);
        self.catalog.wish_reconcile();
    }

    fn touch(&self, spot: Spot, happened: Happened, inode: Option<&FileHandle>) {
        let mut waiting = self.watch.waiting.lock();
        let Waiting { touched, fresh } = &mut *waiting;
        if touched.len() >= MOST && !touched.contains_key(&spot) {
            drop(waiting);
            return self.note_overflow();
        }
        let touch = touched.entry(spot.clone()).or_insert_with(Touch::new);
        let any = |kinds: &[Happened]| kinds.iter().any(|kind| happened.any(*kind));
        let (modified, closed) = (any(&[Happened::MODIFIED]), any(&[Happened::CLOSED]));
        touch.last = Instant::now();
        touch.was_named |= any(&[Happened::CREATED, Happened::DELETED, Happened::RENAMED]);
        touch.was_written |= modified || closed || any(&[Happened::CREATED]);
        touch.pause = match (closed, modified) {
            (true, _) => MOMENT,
            (false, true) => QUIET,
            (false, false) => touch.pause,
        };
        touch.inode = inode.cloned().or(touch.inode.take());
        if !touch.is_fresh {
            touch.is_fresh = true;
            fresh.push(spot);
            self.watch.wake.notify_one();
        }
    }

    /// Has the kernel forget what it knows of a name and its inode.
    fn forget_cached(&self, spot: &Spot, touch: &Touch) {
        let Some(transport) = self.transport.get() else { return };
        if touch.was_named
            && !spot.name.is_empty()
            && let Some(dir) = self.node_of(&spot.dir)
        {
            transport.forget_name(dir.id, &spot.name);
            transport.forget_attributes(dir.id);
        }
        if let Some(node) = touch.inode.as_ref().and_then(|inode| self.node_of(inode)) {
            if touch.was_written && node.kind == Kind::File {
                transport.forget_content(node.id);
            } else {
                transport.forget_attributes(node.id);
            }
        }
    }

    /// The node of an inode, if the kernel knows it.
    fn node_of(&self, inode: &FileHandle) -> Option<Arc<Node>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let fd = file_handle::open(self.root.as_fd(), inode, flags).ok()?;
        let stat = stat::fstat(&fd).ok()?;
        self.nodes.peek(stat.fs.dev, stat.attr.ino)
    }

    /// Looks at names to which something has happened.
    fn look_at_touched(&self, due: Vec<(Spot, Touch)>) -> Result<(), ReconcileError> {
        let mut places: HashMap<FileHandle, Vec<(Name, Touch)>> = HashMap::new();
        for (spot, touch) in due {
            if spot.name.is_empty() {
                for (dir, name) in self.places_of(&spot, &touch)? {
                    places.entry(dir).or_default().push((name, touch.clone()));
                }
            } else {
                places.entry(spot.dir).or_default().push((spot.name, touch));
            }
        }
        let jobs = places.into_iter().filter_map(|(dir, names)| {
            let job = DirJob::served(self, &dir)?;
            let wanted = self.postpone_unsettled(&job, &dir, names);
            (!wanted.is_empty()).then_some((job, wanted))
        });
        let mut jobs: Vec<_> = jobs.collect();
        // A new directory has to be known before what is in it.
        jobs.sort_by_key(|(job, _)| job.depth());
        let walk = Walk::new(self, &self.watch.counts, Pacing::Unlimited);
        for (job, wanted) in &jobs {
            // Nobody has these files open any more, so the catalog can be asked what whoever had them did.
            match walk.look_at(job, wanted) {
                // It is gone with everything: a name above it tells.
                Err(ReconcileError::Backing(Errno::STALE | Errno::NOENT)) => {}
                result => result?,
            }
        }
        loop {
            let replaced = walk.take_replaced_dirs();
            if replaced.is_empty() {
                return self.finish_walk(walk, None);
            }
            walk.run(replaced, 1);
        }
    }

    /// The names of an inode that was changed without one, if somebody should look: it was opened by a
    /// handle, as by an NFS server, or by ourselves for somebody.
    fn places_of(
        &self,
        spot: &Spot,
        touch: &Touch,
    ) -> Result<Vec<(FileHandle, Name)>, ReconcileError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(fd) = file_handle::open(self.root.as_fd(), &spot.dir, flags) else {
            return Ok(Vec::new());
        };
        let Ok(stat) = stat::fstat(&fd) else { return Ok(Vec::new()) };
        if stat.attr.kind != Kind::File || self.is_foreign(&stat) {
            return Ok(Vec::new());
        }
        if self.nodes.peek(stat.fs.dev, stat.attr.ino).is_some_and(|node| is_busy(&node)) {
            self.postpone(spot.clone(), touch.clone());
            return Ok(Vec::new());
        }
        let paths = self.catalog.read_committed(|reader| reader.paths_of_inode(stat.attr.ino))?;
        let place = |path: Vec<u8>| {
            let (dir, name) = split(&path);
            let (dir, _) = self.open_dir_path(dir).ok()?;
            let handle = file_handle::of(dir.as_fd(), c"", file_handle::HandleUse::Open).ok()?;
            Some((handle, Name::from(name)))
        };
        Ok(paths.into_iter().filter_map(place).collect())
    }

    /// Of the names in a directory, those that can be looked at now. Of what somebody has open in the
    /// mount his seal will tell, and what has changed in this very tick may change again unseen.
    fn postpone_unsettled(
        &self,
        job: &DirJob,
        handle: &FileHandle,
        names: Vec<(Name, Touch)>,
    ) -> Vec<Wanted> {
        let Ok(dir) = job.open(self) else { return Vec::new() };
        let mut wanted = Vec::new();
        for (name, mut touch) in names {
            let spot = Spot { dir: handle.clone(), name };
            let found = std::ffi::CString::new(&*spot.name)
                .ok()
                .and_then(|name| stat::lstat_at(dir.as_fd(), &name).ok())
                .filter(|stat| stat.attr.kind == Kind::File);
            let was_named = std::mem::take(&mut touch.was_named);
            let mut reading = if touch.was_written { Reading::Always } else { Reading::IfChanged };
            if let Some(stat) = found {
                let node = self.nodes.peek(stat.fs.dev, stat.attr.ino);
                if node.is_some_and(|node| is_busy(&node)) {
                    self.postpone(spot.clone(), touch);
                    if !was_named {
                        continue;
                    }
                    reading = Reading::IfChanged;
                } else if self.coarse_times && is_young(stat.attr.ctime.as_ns()) {
                    touch.was_named = was_named;
                    self.postpone(spot, touch);
                    continue;
                }
            }
            wanted.push(Wanted { name: spot.name, reading, is_tree: was_named });
        }
        wanted
    }

    /// Has a name looked at again later.
    fn postpone(&self, spot: Spot, touch: Touch) {
        let mut waiting = self.watch.waiting.lock();
        let waits = waiting.touched.entry(spot).or_insert_with(|| Touch {
            pause: (touch.pause * 2).min(BUSY),
            first: Instant::now(),
            last: Instant::now(),
            is_fresh: false,
            ..touch.clone()
        });
        waits.was_written |= touch.was_written;
        waits.was_named |= touch.was_named;
    }
}

/// Whether a time is so near that another change may leave the same.
fn is_young(time_ns: i64) -> bool {
    (0..TICK_NS).contains(&crate::clock::now_ns().saturating_sub(time_ns))
}
