//! The parallel walk over the backing directory.
//!
//! Owns the comparison of a directory with what the catalog has of it. Unchanged files cost one
//! `statx`: inode number, size and times are those of their digest. Times so young that a change could
//! have come in the same tick are not trusted, as git does with its index.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags, RawDir};

use super::examine::{Look, Reading};
use super::hashing::untimed;
use super::node::Node;
use super::reconcile::{Counts, Later, Pacer};
use super::{Fs, Handles, TICK_NS, identify};
use crate::catalog::read::{KnownEntries, KnownEntry};
use crate::config::OWN_DIR;
use crate::sys::Errno;
use crate::sys::handle::{self as file_handle, FileHandle};
use crate::sys::stat::{self, Stat};
use crate::types::{FileId, InodeKey, Kind, Name, Stamp};

/// A directory to look at.
#[derive(Debug, Clone)]
pub(super) struct DirJob {
    pub(super) key: InodeKey,
    /// Its identity in the catalog; `None` if that is still to be asked.
    id: Option<FileId>,
    handle: Option<FileHandle>,
    /// From the root, for filesystems without handles.
    path: Vec<u8>,
}

impl DirJob {
    pub(super) fn root(fs: &Fs) -> Self {
        let root = fs.nodes.root();
        Self {
            key: root.key,
            id: Some(FileId::ROOT),
            handle: root.handle.clone(),
            path: Vec::new(),
        }
    }

    /// Whether a name in this directory is one that users of the mount may see.
    fn serves(&self, name: &[u8]) -> bool {
        let ours = self.path.is_empty() && name == OWN_DIR.as_bytes();
        !(ours || name == b"." || name == b"..")
    }

    pub(super) fn of_node(fs: &Fs, node: &Node) -> Option<Self> {
        let path = fs.path_of(node)?;
        Some(Self { key: node.key, id: None, handle: node.handle.clone(), path })
    }

    /// A directory by its handle, if it is one that users of the mount may see.
    pub(super) fn served(fs: &Fs, handle: &FileHandle) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = file_handle::open(fs.root.as_fd(), handle, flags).ok()?;
        let stat = stat::fstat(&fd).ok()?;
        if fs.is_foreign(&stat) || stat.attr.kind != Kind::Dir {
            return None;
        }
        let path = below(&stat::path_of(&fs.root).ok()?, &stat::path_of(&fd).ok()?)?.to_vec();
        let first = crate::types::path::components(&path).next();
        if first == Some(OWN_DIR.as_bytes()) {
            return None;
        }
        let (key, _) = identify(fd.as_fd(), &stat, fs.handles, fs.root_fs.dev).ok()?;
        Some(Self { key, id: None, handle: Some(handle.clone()), path })
    }

    /// How many names lead to it from the root.
    pub(super) fn depth(&self) -> usize {
        crate::types::path::components(&self.path).count()
    }

    /// A directory in this one, by its name; known to the catalog or not.
    pub(super) fn child(&self, fs: &Fs, name: &[u8]) -> Option<Self> {
        let dir = self.open(fs).ok()?;
        let (key, handle) = fs.identify_name(dir.as_fd(), name).ok()?;
        let mut path = self.path.clone();
        join(&mut path, name);
        Some(Self { key, id: None, handle, path })
    }

    /// Opens the directory for reading.
    pub(super) fn open(&self, fs: &Fs) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match &self.handle {
            Some(handle) if fs.handles == Handles::Open => {
                untimed(flags, |flags| file_handle::open(fs.root.as_fd(), handle, flags))
            }
            _ => {
                let fd = fs.open_beneath(&self.path, flags)?;
                let stat = stat::fstat(&fd)?;
                let (key, _) = identify(fd.as_fd(), &stat, fs.handles, fs.root_fs.dev)?;
                if key == self.key { Ok(fd) } else { Err(Errno::STALE) }
            }
        }
    }
}

/// How fast a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pacing {
    /// As fast as it can: what it looks at has just happened.
    Unlimited,
    /// As the limits of a reconcile have it.
    Limited,
}

/// A name to look at.
pub(super) struct Wanted {
    pub(super) name: Name,
    pub(super) reading: Reading,
    /// What is below it has to be looked at, too, if it is a directory.
    pub(super) is_tree: bool,
}

/// One walk.
pub(super) struct Walk<'fs> {
    fs: &'fs Fs,
    counts: &'fs Counts,
    pacing: Pacing,
    /// A file that changed then may have changed again with the same times.
    doubtful_ns: Range<i64>,
    jobs: Mutex<Jobs>,
    wake: Condvar,
    replaced: Mutex<Vec<Later>>,
    replaced_dirs: Mutex<Vec<Later>>,
    missing: Mutex<Vec<Later>>,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<DirJob>,
    active: usize,
}

impl<'fs> Walk<'fs> {
    pub(super) fn new(fs: &'fs Fs, counts: &'fs Counts, pacing: Pacing) -> Self {
        // What a run of this daemon has seen was read after the start, or believed.
        let since_ns = match fs.reconcile.is_complete() {
            true => fs.started_ns,
            false => fs.trusted_until_ns(),
        };
        let doubtful_ns = since_ns.saturating_sub(TICK_NS)..fs.started_ns;
        Self {
            fs,
            counts,
            pacing,
            doubtful_ns,
            jobs: Mutex::default(),
            wake: Condvar::new(),
            replaced: Mutex::default(),
            replaced_dirs: Mutex::default(),
            missing: Mutex::default(),
        }
    }

    /// How it looks at names of which it knows nothing more.
    pub(super) fn look<'c>(&self, pacer: Option<&'c Pacer<'c>>) -> Look<'c>
    where
        'fs: 'c,
    {
        Look::new(self.counts, pacer)
    }

    /// Names whose inode was replaced, and names that were not found.
    pub(super) fn into_later(self) -> (Vec<Later>, Vec<Later>) {
        (self.replaced.into_inner(), self.missing.into_inner())
    }

    /// Looks at directories and everything below them with some threads.
    pub(super) fn run(&self, jobs: Vec<DirJob>, threads: usize) {
        self.jobs.lock().waiting.extend(jobs);
        std::thread::scope(|scope| {
            for number in 1..threads {
                let thread = std::thread::Builder::new().name(format!("walk-{number}"));
                if let Err(error) = thread.spawn_scoped(scope, || self.work()) {
                    tracing::warn!(%error, "the walk has one thread less");
                }
            }
            self.work();
        });
    }

    /// Tells of the directories that have the names of others, now that these would have been found
    /// elsewhere, and returns them to be looked into.
    pub(super) fn take_replaced_dirs(&self) -> Vec<DirJob> {
        let replaced = std::mem::take(&mut *self.replaced_dirs.lock());
        let look = Look { is_late: true, ..self.look(None) };
        let found = replaced.into_iter().filter_map(|later| {
            let dir = later.dir.open(self.fs).ok()?;
            self.fs.observe_by(look, &dir, later.dir.key, &later.name);
            later.dir.child(self.fs, &later.name)
        });
        found.collect()
    }

    fn work(&self) {
        let pacer = (self.pacing == Pacing::Limited).then(|| Pacer::new(self.fs));
        loop {
            let job = {
                let mut jobs = self.jobs.lock();
                loop {
                    if self.fs.reconcile.stopped() {
                        jobs.waiting.clear();
                    }
                    if let Some(job) = jobs.waiting.pop() {
                        jobs.active += 1;
                        break job;
                    }
                    if jobs.active == 0 {
                        self.wake.notify_all();
                        return;
                    }
                    self.wake.wait(&mut jobs);
                }
            };
            pacer.iter().for_each(Pacer::begin);
            if let Err(error) = self.look_into(&job, pacer.as_ref()) {
                let path = String::from_utf8_lossy(&job.path).into_owned();
                tracing::debug!(%error, path, "directory left out of the walk");
                self.counts.errors.fetch_add(1, Ordering::Relaxed);
            }
            self.jobs.lock().active -= 1;
            self.wake.notify_all();
        }
    }

    fn add(&self, job: DirJob) {
        self.jobs.lock().waiting.push(job);
        self.wake.notify_one();
    }

    /// Compares one directory.
    fn look_into(
        &self,
        job: &DirJob,
        pacer: Option<&Pacer<'_>>,
    ) -> Result<(), super::reconcile::ReconcileError> {
        let fs = self.fs;
        let dir = job.open(fs)?;
        let id = match job.id {
            Some(id) => Some(id),
            None => fs.catalog.read(|reader| reader.by_inode(job.key))?.map(|node| node.id),
        };
        let mut known = match id {
            Some(id) => fs.catalog.read_committed(|reader| reader.known_entries(id))?,
            None => KnownEntries::default(),
        };
        self.counts.directories.fetch_add(1, Ordering::Relaxed);
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if !job.serves(bytes) {
                continue;
            }
            self.counts.files.fetch_add(1, Ordering::Relaxed);
            let known = known.take(bytes);
            match stat::lstat_at(dir.as_fd(), name) {
                Ok(stat) if stat.attr.kind == Kind::Dir => {
                    let below = self.compare_dir(job, &dir, bytes, &stat, known);
                    below.into_iter().for_each(|job| self.add(job));
                }
                Ok(stat) => self.compare(self.look(pacer), job, &dir, name, &stat, known),
                // Gone since it was listed: an operation of the mount tells, or the next walk.
                Err(Errno::NOENT) => {}
                Err(_) => {
                    self.counts.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
            let goes_on = pacer.map_or_else(|| !fs.reconcile.stopped(), Pacer::passed);
            if !goes_on {
                return Ok(());
            }
        }
        let missing = known.left().map(|(name, entry)| Later {
            dir: job.clone(),
            name: name.to_vec(),
            key: entry.key,
        });
        self.missing.lock().extend(missing);
        Ok(())
    }

    /// Compares some names of a directory, and what is below those that are new.
    pub(super) fn look_at(
        &self,
        job: &DirJob,
        names: &[Wanted],
    ) -> Result<(), super::reconcile::ReconcileError> {
        let fs = self.fs;
        let dir = job.open(fs)?;
        let id = fs.catalog.read(|reader| reader.by_inode(job.key))?.map(|node| node.id);
        if id.is_none() && !fs.imported.load(Ordering::Relaxed) {
            // The first walk is yet to come here.
            return Ok(());
        }
        for wanted in names.iter().filter(|wanted| job.serves(&wanted.name)) {
            if fs.reconcile.stopped() {
                return Ok(());
            }
            let Ok(name) = CString::new(&*wanted.name) else { continue };
            self.counts.files.fetch_add(1, Ordering::Relaxed);
            let known = match id {
                Some(id) => fs.catalog.read_committed(|r| r.known_entry(id, &wanted.name))?,
                None => None,
            };
            match stat::lstat_at(dir.as_fd(), &name) {
                Ok(stat) if stat.attr.kind == Kind::Dir => {
                    let below = self.compare_dir(job, &dir, &wanted.name, &stat, known);
                    let below = below.filter(|job| wanted.is_tree || job.id.is_none());
                    self.run(below.into_iter().collect(), 1);
                }
                Ok(stat) => {
                    let look = Look { reading: wanted.reading, ..self.look(None) };
                    self.compare(look, job, &dir, &name, &stat, known);
                }
                Err(Errno::NOENT) => self.missing.lock().extend(known.map(|known| Later {
                    dir: job.clone(),
                    name: wanted.name.to_vec(),
                    key: known.key,
                })),
                Err(_) => {
                    self.counts.errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Compares one name of what is no directory.
    fn compare(
        &self,
        look: Look<'_>,
        job: &DirJob,
        dir: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        known: Option<KnownEntry>,
    ) {
        let fs = self.fs;
        let bytes = name.to_bytes();
        if self.refuses(job, bytes, stat) {
            return;
        }
        let Some(known) = known else {
            return fs.observe_by(look, dir, job.key, bytes);
        };
        let same_inode = known.key.ino == stat.attr.ino
            && known.kind == stat.attr.kind
            && (!fs.is_other_tree || fs.has_name(dir, bytes, known.key));
        if same_inode && self.is_unchanged(&known, stat) {
            return;
        }
        if !same_inode && known.kind == Kind::File && stat.attr.kind == Kind::File {
            let name = bytes.to_vec();
            self.replaced.lock().push(Later { dir: job.clone(), name, key: known.key });
            return;
        }
        fs.observe_by(look, dir, job.key, bytes);
    }

    /// Whether another filesystem has the name.
    fn refuses(&self, job: &DirJob, name: &[u8], stat: &Stat) -> bool {
        let foreign = self.fs.is_foreign(stat);
        if foreign {
            let mut path = job.path.clone();
            join(&mut path, name);
            self.fs.refuse_path(path);
        }
        foreign
    }

    /// Compares a directory itself, and returns it to be looked into.
    fn compare_dir(
        &self,
        job: &DirJob,
        dir: &OwnedFd,
        name: &[u8],
        stat: &Stat,
        known: Option<KnownEntry>,
    ) -> Option<DirJob> {
        let fs = self.fs;
        if self.refuses(job, name, stat) {
            return None;
        }
        let Ok((key, handle)) = fs.identify_name(dir.as_fd(), name) else {
            self.counts.errors.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let owner = (stat.attr.mode, stat.attr.uid, stat.attr.gid);
        let known = known.filter(|known| known.kind == Kind::Dir);
        if let Some(known) = known.filter(|known| known.key != key) {
            let later = Later { dir: job.clone(), name: name.to_vec(), key: known.key };
            self.replaced_dirs.lock().push(later);
            return None;
        }
        if known.is_none_or(|known| known.owner != owner) {
            fs.observe_by(self.look(None), dir, job.key, name);
        }
        let mut path = job.path.clone();
        join(&mut path, name);
        Some(DirJob { key, id: known.map(|known| known.id), handle, path })
    }

    /// Whether inode, size and times are those that the catalog's digest stands for, and old enough to be
    /// believed.
    fn is_unchanged(&self, known: &KnownEntry, stat: &Stat) -> bool {
        let owner = (stat.attr.mode, stat.attr.uid, stat.attr.gid);
        known.stamp == stat.attr.stamp() && known.owner == owner && !self.is_racy(known.stamp)
    }

    /// Whether a file changed so shortly before the catalog was last known to be true that another
    /// change may hide behind the same times.
    fn is_racy(&self, stamp: Stamp) -> bool {
        self.doubtful_ns.contains(&stamp.ctime_ns)
    }
}

/// A path from the directory `top`, if it is below it; both absolute.
fn below<'p>(top: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(top)?;
    match rest.strip_prefix(b"/") {
        Some(rest) => Some(rest),
        None => (rest.is_empty() || top == b"/").then_some(rest),
    }
}

fn join(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

impl Fs {
    /// Calls `visit` for every name of a directory that is served.
    pub(super) fn list(
        &self,
        job: &DirJob,
        visit: &mut impl FnMut(&[u8], &Stat),
    ) -> Result<(), Errno> {
        let dir = job.open(self)?;
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if job.serves(name.to_bytes())
                && let Ok(stat) = stat::lstat_at(dir.as_fd(), name)
                && !self.is_foreign(&stat)
            {
                visit(name.to_bytes(), &stat);
            }
        }
        Ok(())
    }

    /// Opens a directory by its path from the root.
    pub(super) fn open_dir_path(&self, path: &[u8]) -> Result<(OwnedFd, InodeKey), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = self.open_beneath(path, flags)?;
        let stat = stat::fstat(&fd)?;
        let (key, _) = identify(fd.as_fd(), &stat, self.handles, self.root_fs.dev)?;
        Ok((fd, key))
    }

    /// Opens a path from the root name by name, following nothing.
    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(&*self.root, ".", step, Mode::empty())?;
        for name in crate::types::path::components(path) {
            at = rustix::fs::openat(&at, name, step, Mode::empty())?;
            if self.is_foreign(&stat::fstat(&at)?) {
                return Err(Errno::XDEV);
            }
        }
        untimed(flags, |flags| rustix::fs::openat(&at, ".", flags, Mode::empty()))
    }
}
