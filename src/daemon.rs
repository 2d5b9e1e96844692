//! The daemon: the only place where everything is wired together.
//!
//! Owns the order of starting and stopping. Start: give up what rights are not needed, lock the backing
//! directory, open the catalog, watch, mount, answer at the socket, say that it is ready, and only then
//! compare the directory with the catalog. Stop, by a signal or an unmount: no more requests, seal what is
//! open, commit what is queued. A mount that is in use when a signal comes is served for a moment longer,
//! then dead, and taken out of the tree last: until then nobody reaches what lies beneath it. A crash at
//! any point leaves a dead mount and a catalog that is behind; the next start cleans up the one and
//! catches up with the other.

mod backups;
mod front;
mod host;
mod limits;
mod lock;
mod migrate;
mod periodic;
pub mod privileges;
mod pruner;
mod rebuild;
mod reconciler;
mod restorer;
mod snapshots;
mod verify;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::snapshots::{Snapshotter, start_programs, start_scheduler, tell_of_snapshots};
use crate::api::Tls;
use crate::catalog::{Catalog, CatalogError, ChunkDb, chunks};
use crate::config::{Disk, Keep, MountConfig, OWN_DIR, Repeat, Watch};
use crate::control::registry::Registration;
use crate::fs::{Fs, Options, PackingOptions, Writes};
use crate::fuse::session::{
    PassthroughStatus, Session, Unmount, is_dead, mount_id, unmount, write_back,
};
use crate::snapshots::{check, probe};
use crate::store::Store;
use crate::sys::{self, Errno};
use backups::{Backups, Failure};
use front::open_tls;
use lock::BackingLock;
use periodic::Periodic;
use pruner::Pruner;
use reconciler::{Reconciler, Schedule};

pub use crate::fuse::session::remount;
pub use migrate::{Claim, claim, must_be_free};
pub use rebuild::rebuild;

/// How long users of a mount that is taken away by a signal have to finish.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is tried whether they have.
const RETRY: Duration = Duration::from_millis(50);

/// How a directory of Horace's own is opened.
const OWN_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Two changes within this time may leave the same times: the end waits for it, so that the next
/// start can trust them.
const TICK: Duration = Duration::from_millis(40);

/// Serves a mount until it is unmounted or a signal ends it.
///
/// Calls `ready` once the mount serves.
///
/// # Errors
/// If the mount cannot be made, with what to do about it.
pub fn run(
    mut config: MountConfig,
    runtime_dir: PathBuf,
    ready: impl FnOnce() + Send,
) -> anyhow::Result<()> {
    let descriptors = sys::process::raise_descriptor_limit();
    sys::process::leave_groups();
    config.resolve_paths(&std::env::current_dir().context("no working directory")?);
    take_away_the_dead(&config.mountpoint).context("cannot clean up a dead mount")?;
    let backing = open_backing(&config.backing)?;
    let programs = start_programs(&backing)?;
    privileges::drop_unneeded();
    sys::alloc::give_back_in_background();
    let tls = open_tls(&config)?;
    let backend = probe(&backing, OWN_DIR, programs);
    check(config.require, config.dataset.as_deref(), &*backend)?;
    tell_of_snapshots(&*backend);
    let lock = BackingLock::take(&backing, &config.backing)?;
    let state = open_state_dir(&config, &backing)?;
    sys::sqlite::leave_symlinks_to_the_kernel();
    // Reached through its descriptor: the mount may come to lie over its path.
    let state_path = PathBuf::from(format!("/proc/self/fd/{}", state.as_raw_fd()));
    let catalog = Catalog::open(&state_path).map_err(|error| cannot_open(error, &config))?;
    let catalog = Arc::new(catalog);
    let store = match config.keep {
        Keep::Content => open_store(&backing, &state_path),
        Keep::None => None,
    };
    let disk = limits::disk(&config, &backing);
    let options = fs_options(&config, disk, descriptors);
    let trial = trial_file(&backing);
    let probe = trial.as_ref().map(AsFd::as_fd);
    let fs = Fs::new(backing, probe, Arc::clone(&catalog), store.clone(), options)
        .context("cannot serve the directory")?;
    let snapshots = Snapshotter::new(
        backend,
        Arc::clone(&fs),
        Arc::clone(&catalog),
        config.snapshots,
        Arc::clone(&config.snapshot_settings),
    )?;
    let unwatched = start_watch(&config, &fs)?;
    let threads = threads(&config);
    let session = Session::mount(Arc::clone(&fs), &config, threads, trial)?;
    let started_ns = crate::clock::now_ns();
    let mount_id = mount_id(&config.mountpoint);
    let daemon = Daemon {
        config,
        tls,
        disk,
        mount_id,
        fs,
        catalog,
        store,
        state_path,
        not_copied: Arc::default(),
        snapshots: Arc::new(snapshots),
        threads,
        unwatched,
        started_ns,
    };
    let served = daemon.serve(session, &runtime_dir, ready);
    daemon.stop();
    if daemon.is_in_place()
        && let Err(error) = take_away_the_dead(&daemon.config.mountpoint)
    {
        tracing::error!(%error, "the mount stays there, dead");
    }
    // `horace umount` waits for the end of the registration: everything is committed by then.
    drop((state, lock));
    served.map(drop)
}

/// Takes a mount that nobody serves out of the tree; who uses it still keeps that.
fn take_away_the_dead(mountpoint: &Path) -> std::io::Result<()> {
    if !is_dead(mountpoint) {
        return Ok(());
    }
    tracing::info!(path = %mountpoint.display(), "taking away a dead mount");
    unmount(mountpoint, Unmount::Detach)
}

/// Ends a mount that is in use. It stays where it is, dead.
fn cut_off(mountpoint: &Path) {
    if let Err(error) = write_back(mountpoint) {
        tracing::warn!(%error, "what was stored to mapped files may be lost");
    }
    if let Err(error) = unmount(mountpoint, Unmount::Abort) {
        tracing::error!(%error, "cannot end it");
    }
}

/// Everything that lives as long as the mount.
struct Daemon {
    config: MountConfig,
    /// The certificate of the API, if it has one.
    tls: Option<Arc<Tls>>,
    disk: Disk,
    /// Which mount it is.
    mount_id: Option<u64>,
    fs: Arc<Fs>,
    catalog: Arc<Catalog>,
    store: Option<Arc<Store>>,
    /// The state directory, by its descriptor.
    state_path: PathBuf,
    /// Why the catalog was not copied the last time.
    not_copied: Arc<Mutex<Option<Failure>>>,
    snapshots: Arc<Snapshotter>,
    threads: usize,
    /// Why changes around the mount are not watched for; `None` if they are.
    unwatched: Option<String>,
    started_ns: i64,
}

impl Daemon {
    fn serve(
        &self,
        session: Session,
        runtime_dir: &Path,
        ready: impl FnOnce() + Send,
    ) -> anyhow::Result<Registration> {
        let passthrough = session.passthrough().clone();
        let PassthroughStatus { enabled, reason } = passthrough.clone();
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let (sender, events) = mpsc::channel();
        let on_signal = sender.clone();
        let watcher = std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever().filter(|signal| *signal != SIGHUP) {
                // Nobody listens any more once the daemon stops.
                let _ = on_signal.send(Ended::Signal(signal));
            }
        })?;
        let server = std::thread::Builder::new().name("fuse".into()).spawn(move || {
            let _ = sender.send(Ended::Served(session.serve()));
        })?;
        let reconciler = Reconciler::start(&self.fs, &self.catalog)?;
        let front = self.open_front(runtime_dir, passthrough, reconciler.asker());
        let (front, registration) = match front {
            Ok(front) => front,
            Err(error) => {
                let _ = unmount(&self.config.mountpoint, Unmount::Detach);
                reconciler.stop();
                return Err(error);
            }
        };
        let periodic = self.start_periodic(&reconciler)?;
        let scheduler = start_scheduler(&self.snapshots)?;
        ready();
        tracing::info!(
            backing = %self.config.backing.display(),
            mountpoint = %self.config.mountpoint.display(),
            passthrough = enabled,
            reason,
            "serving"
        );
        let result = self.wait(&events);
        // What somebody waits for would hold up the end, and so would digests.
        self.fs.stop_prune();
        reconciler.break_off();
        self.fs.stop_settling();
        // Nobody may ask what is being taken down.
        front.stop();
        periodic.into_iter().chain(scheduler).for_each(Periodic::stop);
        reconciler.stop();
        handle.close();
        let _ = watcher.join();
        if result.is_ok() {
            let _ = server.join();
        }
        match result {
            Ok(served) => served.context("the connection to the kernel broke")?,
            Err(StillBusy) => tracing::warn!("stopping although it is still in use"),
        }
        Ok(registration)
    }

    /// Starts what is done from time to time.
    fn start_periodic(&self, reconciler: &Reconciler) -> std::io::Result<Vec<Periodic>> {
        let mut started = Vec::new();
        if let (Repeat::Every(span), Some(_)) = (self.config.prune, &self.store) {
            let (fs, catalog) = (Arc::clone(&self.fs), Arc::clone(&self.catalog));
            started.push(Periodic::start("prune", span, Pruner { fs, catalog })?);
        }
        if let Repeat::Every(span) = self.config.backup {
            let (catalog, state_dir) = (Arc::clone(&self.catalog), self.state_path.clone());
            let failed = Arc::clone(&self.not_copied);
            started.push(Periodic::start("backup", span, Backups { catalog, state_dir, failed })?);
        }
        if let Repeat::Every(span) = self.config.reconcile {
            started.push(Periodic::start("schedule", span, Schedule(reconciler.asker()))?);
        }
        Ok(started)
    }

    /// Waits for the end of serving; a signal brings it about.
    fn wait(&self, events: &mpsc::Receiver<Ended>) -> Result<std::io::Result<()>, StillBusy> {
        let gone = || Ok(Ok(()));
        let signal = match events.recv() {
            Ok(Ended::Served(result)) => return Ok(result),
            Ok(Ended::Signal(signal)) => signal,
            Err(_) => return gone(),
        };
        tracing::info!(signal, "unmounting");
        let path = &self.config.mountpoint;
        let mut deadline = Instant::now() + GRACE;
        while self.is_in_place()
            && let Err(error) = unmount(path, Unmount::IfFree)
        {
            let busy = Errno::from_io_error(&error) == Some(Errno::BUSY);
            if !busy || Instant::now() >= deadline {
                tracing::warn!(%error, "ending a mount that is in use");
                cut_off(path);
                break;
            }
            match events.recv_timeout(RETRY) {
                Ok(Ended::Served(result)) => return Ok(result),
                // Who asks twice is in a hurry.
                Ok(Ended::Signal(_)) => deadline = Instant::now(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return gone(),
            }
        }
        loop {
            match events.recv_timeout(GRACE) {
                Ok(Ended::Served(result)) => return Ok(result),
                Ok(Ended::Signal(_)) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(StillBusy),
                Err(mpsc::RecvTimeoutError::Disconnected) => return gone(),
            }
        }
    }

    /// Whether the mount is what is at its path: others may have detached it, and what lay beneath, or was
    /// mounted since, is not ours to unmount.
    fn is_in_place(&self) -> bool {
        mount_id(&self.config.mountpoint) == self.mount_id
    }

    fn stop(&self) {
        let doubtful_ns = self.fs.shut_down();
        std::thread::sleep(TICK);
        self.catalog.close(doubtful_ns.unwrap_or_else(crate::clock::now_ns));
        tracing::info!("stopped");
    }
}

enum Ended {
    Served(std::io::Result<()>),
    Signal(i32),
}

/// Requests are still under way although the mount is at its end.
struct StillBusy;

/// Why the catalog cannot be opened, and what can be done.
fn cannot_open(error: CatalogError, config: &MountConfig) -> anyhow::Error {
    let damaged = matches!(error, CatalogError::Open { .. } | CatalogError::Empty { .. });
    let what = format!("state directory {}", config.state_dir().display());
    let error = anyhow::Error::new(error);
    if !damaged {
        return error.context(what);
    }
    let backing = config.backing.display();
    let state = config.state.as_ref().map(|dir| format!(" --state {}", dir.display()));
    error.context(format!(
        "{what}: if it is damaged, `horace reconcile --rebuild {backing}{}` puts its newest backup in \
         its place",
        state.unwrap_or_default()
    ))
}

fn open_backing(path: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())
        .with_context(|| format!("cannot open the backing directory {}", path.display()))?;
    if is_horace_mount(&fd) {
        bail!(
            "{} lies in a Horace mount already: `horace status {0}` tells which; \
             unmount that first, or name its backing directory",
            path.display()
        );
    }
    Ok(fd)
}

/// Whether a directory is shown by Horace, going by the table of mounts.
fn is_horace_mount(dir: &OwnedFd) -> bool {
    let mount =
        sys::stat::fstat(dir).ok().and_then(|stat| sys::mounts::find(stat.fs.mount).ok()?);
    mount.is_some_and(|mount| mount.fstype == "fuse.horace")
}

/// Opens the state directory, made for its owner alone if it is missing.
fn open_state_dir(config: &MountConfig, backing: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let Some(path) = &config.state else {
        sys::dir::make_private(backing, OWN_DIR).with_context(|| {
            format!(
                "cannot make {} for the catalog; `-o state=DIR` puts it elsewhere",
                config.state_dir().display()
            )
        })?;
        return rustix::fs::openat(backing, OWN_DIR, OWN_FLAGS, Mode::empty())
            .with_context(|| format!("cannot open {}", config.state_dir().display()));
    };
    let describe = || format!("cannot use the state directory {}", path.display());
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(describe)?;
    let real = path.canonicalize().with_context(describe)?;
    let inside = config.backing.canonicalize().is_ok_and(|b| real.starts_with(b));
    if inside {
        bail!(
            "the state directory {} lies in the directory that is to be served: \
             leave `state=` out, or put it elsewhere",
            real.display()
        );
    }
    rustix::fs::open(&real, OWN_FLAGS, Mode::empty()).with_context(describe)
}

/// Opens the store beside what it preserves; a directory that cannot have one is served without.
fn open_store(backing: &OwnedFd, state_path: &Path) -> Option<Arc<Store>> {
    let open = || {
        sys::dir::make_private(backing, OWN_DIR)?;
        let own = rustix::fs::openat(backing, OWN_DIR, OWN_FLAGS, Mode::empty())?;
        let index = ChunkDb::open(&state_path.join(chunks::FILE_NAME));
        let index = index.map_err(|error| anyhow::anyhow!(error))?;
        anyhow::Ok(Store::open(own.as_fd())?.with_packs(Arc::new(index))?)
    };
    match open() {
        Ok(store) => Some(Arc::new(store)),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "content that is replaced is not kept");
            None
        }
    }
}

/// Watches for changes around the mount, if that is wanted, before anything is compared with the catalog.
/// Returns why not.
fn start_watch(config: &MountConfig, fs: &Arc<Fs>) -> anyhow::Result<Option<String>> {
    if config.watch == Watch::Off {
        return Ok(Some("switched off: `watch=on` switches it on".into()));
    }
    match fs.start_watch() {
        Ok(()) => Ok(None),
        Err(error) if config.watch == Watch::On => {
            Err(anyhow::Error::new(error).context("cannot watch the backing directory"))
        }
        Err(error) => {
            tracing::warn!(%error, "changes around the mount are found by the next reconcile");
            Ok(Some(error.to_string()))
        }
    }
}

fn fs_options(config: &MountConfig, disk: Disk, descriptors: u64) -> Options {
    // A quarter for nodes nobody has open leaves the rest for open files.
    const MOST: usize = 16_384;
    let limit = usize::try_from(descriptors).unwrap_or(usize::MAX);
    let cached = match config.descriptors {
        Some(wanted) => wanted.get().min(limit / 2),
        None => MOST.min(limit / 4),
    };
    let unread = (limit / 8).min(1024);
    // For the catalog, the socket and what is open for a moment.
    let own = 128;
    let open_files = limit.saturating_sub(cached + unread + own).max(limit / 8);
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    let mut packing = PackingOptions::default();
    packing.after = config.pack_after.unwrap_or(packing.after);
    if let Some(limit) = config.pack_limit {
        packing.packs.limit_bytes = limit.get() as u64;
    }
    let writes = if config.flags.sync { Writes::AtOnce } else { Writes::Later };
    Options {
        io: config.io,
        descriptors: cached,
        open_files,
        unread,
        readers: cores.min(4),
        reconcile: limits::limits(config, disk, cores),
        writes,
        packing,
        retention: Arc::clone(&config.retention),
        ..Options::default()
    }
}

/// One thread per core, and no more than help: a request is a few microseconds of work.
fn threads(config: &MountConfig) -> usize {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    config.threads.map_or(cores.clamp(2, 8), std::num::NonZeroUsize::get)
}

/// A nameless file on the backing filesystem, to try things with.
fn trial_file(backing: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let private = Mode::from_raw_mode(0o600);
    let nameless = rustix::fs::openat(backing, ".", flags, private);
    nameless
        .or_else(|_| {
            // Some filesystems have no nameless files.
            let name = format!("{OWN_DIR}/trial");
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            let file = rustix::fs::openat(backing, &*name, flags, private)?;
            rustix::fs::unlinkat(backing, &*name, rustix::fs::AtFlags::empty())?;
            Ok::<_, sys::Errno>(file)
        })
        .ok()
}
