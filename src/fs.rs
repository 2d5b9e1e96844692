//! Passthrough semantics: what each operation of the mount does on the backing directory, and
//! what the catalog is told of it.
//!
//! Owns the open backing directory, the nodes and handles of the mount, the sessions and their
//! seals. It speaks its own types: no transport's type crosses into it, so that another transport can
//! be put beside FUSE over `/dev/fuse`. Backing errors are returned unchanged.
//!
//! # Order of steps
//! Every operation that changes something runs `change the backing directory → push the event →
//! return` under the shared side of the tree lock. A crash between the first two leaves a change
//! that the catalog has not heard of: the next start's walk finds it. The walk takes the lock's
//! exclusive side to look at a name and push what it saw, so what it says is never older than what
//! an operation said before it.

mod attr;
mod channel;
mod create;
mod dir;
mod examine;
mod fds;
mod handle;
mod hashing;
mod io;
mod keeper;
mod load;
mod lookup;
mod mapped;
mod node;
mod packing;
mod pending;
mod preserve;
mod pressure;
mod privileges;
mod prune;
pub mod reconcile;
mod remove;
mod restore;
mod seal;
mod still;
pub mod verify;
mod views;
mod walk;
mod watch;
mod xattr;

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustix::fs::{Mode, OFlags};

use crate::catalog::Catalog;
use crate::catalog::event::{Event, Found as FoundContent, Op, Place};
use crate::config::{IoMode, OWN_DIR};
use crate::content::Contents;
use crate::retention::Retention;
use crate::store::Store;
use crate::sys::handle::{self as file_handle, HandleUse};
use crate::sys::stat::{self, FsId, Stat};
use crate::sys::{self, Errno, writeback};
use crate::types::{Attr, Caller, Inode, InodeKey, Kind, Origin, SessionId, Writer};

pub use attr::{SetAttr, SetTime};
pub use channel::MAX_TRANSFER;
pub use create::Created;
pub use dir::{DirEntry, Room};
pub use handle::{Fh, Flush, OpenMode};
pub use io::{Opened, Registrar, Sync, WriteBy};
pub use node::{Backing, NodeId};
pub use packing::{PackingOptions, PackingState};
pub use pending::Purpose;
pub use prune::{Aim, Cut, Mark, MarkError, PruneError, PruneOrder, PruneOutcome, Report};
pub use reconcile::{Haste, Limits, Progress, ProgressState, ReconcileError};
pub use restore::RestoreError;
pub use still::StillError;
pub use watch::WatchTotals;

use fds::FdCache;
use handle::{Dir, File, HandleTable};
use hashing::Hashers;
use node::{Node, NodeTable};

/// Two changes within this time may leave the same times, in nanoseconds: the coarsest tick of a
/// kernel is 10 ms.
const TICK_NS: i64 = 20_000_000;

const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;
const FUSE: i64 = 0x6573_5546;

/// What the kernel gets to know of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub node: NodeId,
    /// Tells it apart from an earlier inode with the same id.
    pub generation: u64,
    /// Its attributes.
    pub attr: Attr,
    /// How long this is true.
    pub lasts: Lasts,
}

/// How long the kernel may believe what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasts {
    /// Not at all.
    Moment,
    /// As long as the mount was asked to let it.
    AsSet,
    /// Long: it is over, and does not change.
    Long,
}

/// What the filesystem asks of the transport by itself.
pub trait Transport: std::fmt::Debug + Send + std::marker::Sync {
    /// Has the kernel forget the attributes of a node, without waiting for any request.
    fn forget_attributes(&self, node: NodeId);

    /// Has the kernel forget the attributes and the cached content of a node. Waits for requests that read
    /// or write it, so no lock may be held that they wait for.
    fn forget_content(&self, node: NodeId);

    /// Has the kernel look a name up again, since it was changed without its doing. Waits for requests
    /// in that directory, so no lock may be held that they wait for.
    fn forget_name(&self, parent: NodeId, name: &[u8]);
}

/// How the filesystem is to behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// How files are opened for writing.
    pub io: IoMode,
    /// How many descriptors may be kept for nodes that nobody has open.
    pub descriptors: usize,
    /// How many files and directories may be open at once.
    pub open_files: usize,
    /// How many closed files may wait to be read for their digests; each keeps a descriptor.
    pub unread: usize,
    /// Threads that read for digests.
    pub readers: usize,
    /// How hard a reconcile may work.
    pub reconcile: Limits,
    /// When a write is on the disk.
    pub writes: Writes,
    /// Content up to this size is read at once when a session is sealed, more in the background.
    pub read_at_close: u64,
    /// Where blocks cannot be shared, content up to this size is copied before it is cut off.
    pub copied: u64,
    /// The same for content that may be changed in place, and is copied when it is opened.
    pub copied_at_open: u64,
    /// How and when what was kept is packed.
    pub packing: PackingOptions,
    /// What is preserved at all, and for how long.
    pub retention: Arc<Retention>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            io: IoMode::Auto,
            descriptors: 4096,
            open_files: 4096,
            unread: 256,
            readers: 2,
            reconcile: Limits { threads: NonZeroUsize::MIN, rate: None },
            writes: Writes::Later,
            read_at_close: 1 << 20,
            copied: 64 << 20,
            copied_at_open: 1 << 20,
            packing: PackingOptions::default(),
            retention: Arc::default(),
        }
    }
}

/// When a write is on the disk that did not ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// Before it returns: the mount is synchronous.
    AtOnce,
    /// Some time later.
    Later,
}

/// How the backing filesystem names inodes beyond their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handles {
    /// By handles that open them again.
    Open,
    /// By handles that only tell them apart.
    Identify,
    /// Not at all; birth times must do.
    None,
}

/// A mounted backing directory.
#[derive(Debug)]
pub struct Fs {
    root: Arc<OwnedFd>,
    root_fs: FsId,
    handles: Handles,
    options: Options,
    catalog: Arc<Catalog>,
    /// Where content is preserved, if it is.
    store: Option<Arc<Store>>,
    keeper: keeper::Keeper,
    packing: packing::PackingThread,
    load: load::Load,
    /// What some policy leaves out must be asked before anything is preserved.
    is_choosy: bool,
    nodes: NodeTable,
    fds: FdCache,
    files: HandleTable<File>,
    dirs: HandleTable<Dir>,
    hashers: Hashers,
    /// Shared by operations, exclusive for a look at a state that no operation is changing.
    /// Lock order: before every other lock of this module.
    tree: RwLock<()>,
    next_session: AtomicU64,
    passthrough: AtomicBool,
    imported: AtomicBool,
    /// The machine or the backing filesystem came up since the last run: a power cut may have come between,
    /// and the disk may lack bytes of what was there.
    may_lack_bytes: bool,
    /// The catalog may be older than the store: a backup that has just been put in its place.
    is_rebuilt: bool,
    /// The backing directory is another inode than in the last run: a snapshot or a backup that has been put
    /// in its place, whose inodes may have the numbers of others.
    is_other_tree: bool,
    /// Mappings do not update times on this filesystem (tmpfs).
    silent_mappings: bool,
    /// Two changes in a row may leave the same times.
    coarse_times: bool,
    /// The backing filesystem's type, as `statfs(2)` has it.
    magic: i64,
    refused: Mutex<Vec<Vec<u8>>>,
    reconcile: reconcile::State,
    verify: verify::State,
    mapped: mapped::Watch,
    watch: watch::State,
    transport: OnceLock<Box<dyn Transport>>,
    views: views::Views,
    started_ns: i64,
    weak: std::sync::Weak<Self>,
}

impl Fs {
    /// Serves the directory `root` (open for reading, not `O_PATH`) and tells `catalog` about it.
    /// `probe` is some regular file on the same filesystem whose times may be changed, to find out
    /// how fine they are. What is destroyed is preserved in `store`, if there is one.
    pub fn new(
        root: OwnedFd,
        probe: Option<BorrowedFd<'_>>,
        catalog: Arc<Catalog>,
        store: Option<Arc<Store>>,
        options: Options,
    ) -> Result<Arc<Self>, Errno> {
        let stat = stat::fstat(&root)?;
        let magic = rustix::fs::fstatfs(&root)?.f_type;
        let handles = probe_handles(root.as_fd(), magic);
        let (key, handle) = identify(root.as_fd(), &stat, handles, stat.fs.dev)?;
        let found = node::Found { key, dev: stat.fs.dev, kind: stat.attr.kind, handle };
        let readers = options.readers;
        let root = Arc::new(root);
        let contents = Contents::new(Arc::clone(&root), store.clone());
        let started_ns = crate::clock::now_ns();
        let past = catalog.past();
        let incarnation = incarnation(root.as_fd())?;
        let may_lack_bytes = past.incarnation != Some(incarnation);
        let is_rebuilt = past.incarnation.is_none() && past.imported;
        let is_other_tree = past.root.is_some_and(|root| root != key);
        let views = views::Views::new(root.as_fd(), contents, started_ns);
        let thread_error = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN);
        let fs = Arc::new_cyclic(|weak| Self {
            root,
            root_fs: stat.fs,
            handles,
            fds: FdCache::new(options.descriptors),
            imported: AtomicBool::new(past.imported),
            may_lack_bytes,
            is_rebuilt,
            is_other_tree,
            catalog,
            store,
            keeper: keeper::Keeper::default(),
            packing: packing::PackingThread::default(),
            load: load::Load::default(),
            is_choosy: !options.retention.admits_everything(),
            nodes: NodeTable::new(found),
            files: HandleTable::default(),
            dirs: HandleTable::default(),
            hashers: Hashers::idle(),
            tree: RwLock::new(()),
            next_session: AtomicU64::new(1),
            passthrough: AtomicBool::new(false),
            magic,
            coarse_times: !probe.is_some_and(has_fine_times),
            silent_mappings: matches!(magic, TMPFS | RAMFS),
            refused: Mutex::default(),
            reconcile: reconcile::State::new(&options.reconcile),
            verify: verify::State::default(),
            mapped: mapped::Watch::default(),
            watch: watch::State::default(),
            transport: OnceLock::new(),
            views,
            started_ns,
            weak: weak.clone(),
            options,
        });
        fs.push(None, Op::Root { inode: Inode { key, attr: stat.attr }, incarnation });
        fs.hashers.start(readers).map_err(thread_error)?;
        mapped::start(&fs).map_err(thread_error)?;
        keeper::start(&fs).map_err(thread_error)?;
        packing::start(&fs).map_err(thread_error)?;
        Ok(fs)
    }

    /// Until when what the last run said of contents is to be believed, in nanoseconds since 1970.
    fn trusted_until_ns(&self) -> i64 {
        /// How long before a power cut something was written that the disk may not have: the kernel begins
        /// with what is 30 seconds old, every 5 seconds, and takes its time.
        const UNWRITTEN_NS: i64 = 120_000_000_000;
        let until_ns = self.catalog.past().trusted_until_ns;
        if self.may_lack_bytes { until_ns.saturating_sub(UNWRITTEN_NS) } else { until_ns }
    }

    /// Writes everything that has been done through to the disk.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn write_through(&self) -> Result<(), Errno> {
        rustix::fs::syncfs(&self.root)
    }

    /// Says whether the transport can have the kernel serve files without us.
    pub fn set_passthrough(&self, possible: Passthrough) {
        self.passthrough.store(possible == Passthrough::Possible, Ordering::Relaxed);
    }

    /// Says by what the kernel is reached. Only the first one counts.
    pub fn set_transport(&self, transport: Box<dyn Transport>) {
        // There is one.
        let _ = self.transport.set(transport);
    }

    /// The open root of the backing directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether the backing directory lies on a filesystem that is stacked on others.
    pub fn is_stacked(&self) -> bool {
        const OVERLAYFS: i64 = 0x794c_7630;
        self.magic == OVERLAYFS
    }

    /// Whether the kernel serves files without us, as far as it has been found out.
    pub fn kernel_serves(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// How the backing filesystem names inodes.
    pub fn handles(&self) -> Handles {
        self.handles
    }

    /// Directories that are not served because another filesystem is mounted there, as far as
    /// anybody has asked for them; paths from the root.
    pub fn refused(&self) -> Vec<Vec<u8>> {
        self.refused.lock().clone()
    }

    /// Nodes that the kernel knows of, and open files and directories.
    pub fn usage(&self) -> (usize, usize) {
        (self.nodes.len() + self.views.len(), self.open_count())
    }

    /// Open files and directories.
    fn open_count(&self) -> usize {
        self.files.len() + self.dirs.len() + self.views.open_count()
    }

    /// Digests that are on their way.
    pub fn pending_digests(&self) -> usize {
        self.hashers.depth()
    }

    /// Waits until every digest that was on its way is with the catalog, but for those of files that
    /// somebody has mapped for writing.
    pub fn settle(&self) {
        self.settle_within(Duration::MAX);
    }

    /// The same, but who asks a question does not wait long for somebody's large file.
    pub fn settle_soon(&self) {
        self.settle_within(pending::PATIENCE);
    }

    /// Lets nobody wait for digests any more: the filesystem is about to be shut down.
    pub fn stop_settling(&self) {
        self.hashers.begin_to_stop();
    }

    fn settle_within(&self, patience: Duration) {
        self.settle_mapped();
        self.hashers.settle(patience);
        self.settle_kept();
    }

    /// Seals every session that is still open and stops the threads. Nothing may be asked of the
    /// filesystem afterwards.
    ///
    /// Where something can still be stored to by a mapping, returns since when the times that the catalog has
    /// been told are not to be believed, in nanoseconds since 1970: of two stores while it is sealed, the first
    /// may move the times, and the second leave them alone.
    pub fn shut_down(&self) -> Option<i64> {
        self.packing.stop(self.store.as_deref());
        self.stop_reconcile();
        self.stop_watch();
        let since_ns = crate::clock::now_ns();
        let mut is_mapped = false;
        for file in self.files.all() {
            is_mapped |= self.seal_at_end(&file);
        }
        is_mapped |= mapped::finish(self);
        self.hashers.stop();
        self.keeper.stop();
        is_mapped.then_some(since_ns - writeback::UNDER_WAY_NS)
    }

    /// The node of the backing directory that the kernel means.
    fn node(&self, id: NodeId) -> Result<Arc<Node>, Errno> {
        self.nodes.get(id).ok_or(Errno::STALE)
    }

    /// Refuses to open more than there are descriptors for: the daemon needs some for itself, or what
    /// is open already could not be closed in order.
    fn admit(&self) -> Result<(), Errno> {
        if self.open_count() < self.options.open_files { Ok(()) } else { Err(Errno::NFILE) }
    }

    /// An `O_PATH` descriptor of a node.
    fn path_fd(&self, node: &Node) -> Result<Arc<OwnedFd>, Errno> {
        if node.id == NodeId::ROOT {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(fd) = self.fds.get(node.id) {
            return Ok(fd);
        }
        if let Some(fd) = node.peek_open(|open| open.pinned.clone()).flatten() {
            return Ok(fd);
        }
        let fd = Arc::new(self.reopen(node)?);
        self.fds.put(node.id, Arc::clone(&fd));
        Ok(fd)
    }

    fn reopen(&self, node: &Node) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let (Handles::Open, Some(handle)) = (self.handles, &node.handle) {
            return file_handle::open(self.root.as_fd(), handle, flags);
        }
        let (parent, name) = node.place().ok_or(Errno::STALE)?;
        let parent = self.path_fd(&*self.node(parent)?)?;
        let fd = match rustix::fs::openat(&*parent, &*name, flags, Mode::empty()) {
            // It may have another name: the kernel looks again when it hears this.
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(Errno::STALE),
            result => result?,
        };
        let stat = stat::fstat(&fd)?;
        let (key, _) = identify(fd.as_fd(), &stat, self.handles, self.root_fs.dev)?;
        if key == node.key && stat.fs.dev == node.dev { Ok(fd) } else { Err(Errno::STALE) }
    }

    /// Opens the inode of a node for I/O.
    fn open_node(&self, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        if let (Handles::Open, Some(handle)) = (self.handles, &node.handle) {
            match file_handle::open(self.root.as_fd(), handle, flags) {
                // Its last name is gone, but a descriptor may be left.
                Err(Errno::STALE) => {}
                result => return result,
            }
        }
        let fd = self.path_fd(node)?;
        rustix::fs::open(stat::proc_name(&fd), flags | OFlags::CLOEXEC, Mode::empty())
    }

    /// Whether an inode lies on another filesystem than the root, mounted below it.
    fn is_foreign(&self, stat: &Stat) -> bool {
        // On a stacked filesystem files may have the device of their layer, directories never.
        stat.fs.mount != self.root_fs.mount
            || (stat.attr.kind == Kind::Dir && stat.fs.dev != self.root_fs.dev)
    }

    fn refuse(&self, parent: &Node, name: &[u8]) -> Errno {
        let mut path = self.path_of(parent).unwrap_or_default();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        self.refuse_path(path);
        Errno::XDEV
    }

    /// The names in a directory that were refused so far.
    fn refused_in(&self, dir: &Node) -> Vec<Vec<u8>> {
        let refused = self.refused();
        if refused.is_empty() {
            return refused;
        }
        let Some(mut above) = self.path_of(dir) else { return Vec::new() };
        if !above.is_empty() {
            above.push(b'/');
        }
        let name = |path: Vec<u8>| path.strip_prefix(&*above).map(<[u8]>::to_vec);
        refused.into_iter().filter_map(name).collect()
    }

    fn refuse_path(&self, path: Vec<u8>) {
        let mut refused = self.refused.lock();
        if !refused.contains(&path) {
            let shown = String::from_utf8_lossy(&path);
            tracing::warn!(path = %shown, "another filesystem is mounted there: not served");
            refused.push(path);
        }
    }

    /// The path of a node from the root as last seen.
    fn path_of(&self, node: &Node) -> Option<Vec<u8>> {
        let mut names = Vec::new();
        let (mut id, mut place) = (node.id, node.place());
        while id != NodeId::ROOT {
            let (parent, name) = place?;
            names.push(name);
            id = parent;
            place = self.nodes.get(parent)?.place();
        }
        names.reverse();
        Some(names.join(&b'/'))
    }

    /// Whether a name is the one that leads to views, and not to what the backing directory has there.
    fn is_hidden(parent: NodeId, name: &[u8]) -> bool {
        parent == NodeId::ROOT && name == OWN_DIR.as_bytes()
    }

    fn writer(caller: Caller) -> Arc<Writer> {
        Arc::new(sys::process::writer(caller))
    }

    fn new_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// Hands an event to the catalog; the caller holds the tree lock if it is of the tree.
    fn push(&self, writer: Option<Arc<Writer>>, op: Op) {
        self.load.note_work();
        self.catalog.push([Event { time_ns: crate::clock::now_ns(), writer, op }]);
    }

    /// What a name that the catalog has not heard of is to be called.
    fn origin(&self) -> Origin {
        if self.imported.load(Ordering::Relaxed) { Origin::External } else { Origin::Import }
    }

    /// Makes sure that the catalog knows a node and the directories above it, before something is
    /// said of them: the walk may not have been here yet. The caller holds the tree lock.
    fn ensure_known(&self, node: &Arc<Node>) {
        if node.known.load(Ordering::Relaxed) {
            return;
        }
        // Who takes the last name of a file away holds this until that is told.
        let _one = (node.kind != Kind::Dir).then(|| node.sealing.lock());
        let mut chain = Vec::new();
        let mut current = Arc::clone(node);
        while !current.known.load(Ordering::Relaxed) {
            let Some(event) = self.describe(&current) else { break };
            let Some(parent) = current.place().and_then(|(parent, _)| self.nodes.get(parent))
            else {
                break;
            };
            chain.push(event);
            current.known.store(true, Ordering::Relaxed);
            current = parent;
        }
        if !chain.is_empty() {
            self.catalog.push(chain.into_iter().rev());
        }
    }

    /// What the walk would say of a node at its last known place.
    fn describe(&self, node: &Node) -> Option<Event> {
        let (parent, name) = node.place()?;
        let parent = self.nodes.get(parent)?;
        let fd = self.path_fd(node).ok()?;
        let attr = stat::fstat(&fd).ok()?.attr;
        let found = match attr.kind {
            Kind::Symlink => FoundContent::Target(lookup::read_link(fd.as_fd()).ok()?),
            _ => FoundContent::Unread,
        };
        let at = Place { parent: parent.key, name };
        let inode = Inode { key: node.key, attr };
        let op = Op::Observe { at, inode, found, origin: self.origin() };
        Some(Event { time_ns: crate::clock::now_ns(), writer: None, op })
    }
}

/// Whether the kernel can serve files without us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passthrough {
    /// It can, by what the transport registers.
    Possible,
    /// It cannot.
    Impossible,
}

/// Whether each change of an inode that was looked at leaves another change time (Linux 6.13 does
/// on most filesystems); else there is one time per tick, of up to 10 ms.
fn has_fine_times(probe: BorrowedFd<'_>) -> bool {
    let mut last = None;
    (0..8).all(|n| {
        let touched = rustix::fs::fchmod(probe, Mode::from_raw_mode(0o600 | (n & 1)));
        let now = stat::fstat(probe).ok().map(|stat| stat.attr.ctime);
        let moved = touched.is_ok() && now > last;
        last = now;
        moved
    })
}

/// Finds out what handles the backing filesystem gives, and whether we may open them.
fn probe_handles(root: BorrowedFd<'_>, magic: i64) -> Handles {
    if magic == FUSE {
        // It makes them of numbers that it gives out anew whenever it has forgotten an inode.
        return Handles::None;
    }
    if let Ok(handle) = file_handle::of(root, c"", HandleUse::Open)
        && file_handle::open(root, &handle, OFlags::PATH).is_ok()
    {
        return Handles::Open;
    }
    match file_handle::of(root, c"", HandleUse::Identify) {
        Ok(_) => Handles::Identify,
        Err(_) => Handles::None,
    }
}

/// What tells an inode from every other, and the handle to open it again by.
fn identify(
    fd: BorrowedFd<'_>,
    stat: &Stat,
    handles: Handles,
    root_dev: u64,
) -> Result<(InodeKey, Option<file_handle::FileHandle>), Errno> {
    let handle = match handles {
        Handles::Open => Some(file_handle::of(fd, c"", HandleUse::Open)?),
        Handles::Identify => Some(file_handle::of(fd, c"", HandleUse::Identify)?),
        Handles::None => None,
    };
    let mut generation = match &handle {
        Some(handle) => handle.generation(),
        None => stat.btime_ns.unsigned_abs(),
    };
    if stat.fs.dev != root_dev {
        generation ^= stat.fs.dev.rotate_left(32) >> 1;
    }
    Ok((InodeKey { ino: stat.attr.ino, generation }, handle))
}

/// The boot of the machine and the mount of the backing filesystem, as a number: where it is the same, the
/// kernel has had everything in its memory all the time.
fn incarnation(root: BorrowedFd<'_>) -> Result<i64, Errno> {
    use sha2::Digest as _;
    let name = format!("{} {}", sys::process::boot_id()?.trim(), stat::mount_of(root)?);
    let digest = sha2::Sha256::digest(name);
    let first = digest.first_chunk().expect("it has 32 bytes");
    Ok(i64::from_le_bytes(*first))
}
