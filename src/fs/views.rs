//! Views of the past: the directory `.horace` at the root of the mount, which is looked up but not listed.
//!
//! Owns what is in there and never in the backing directory: `at/TIME/…` and `gmt/@GMT-…/…`, the tree as
//! it was, and `versions/PATH/NUMBER`, all versions of each path. Everything is read from the catalog
//! when it is asked for; a node lives here as long as the kernel knows it, and nothing survives a
//! restart. Nothing here changes anything, waits for a digest or takes the tree lock.
//!
//! # Identity
//! The number of a node is made from what it shows, so that it stays the same when the kernel asks
//! again, and two files of one time, or one file at two times, never share one. A tree of the past is
//! fixed to a sequence number when its name is looked up, and never moves after that.
//!
//! # Permissions
//! Are the kernel's, by the owners and modes that are told. What [`rights`] says is never more than
//! somebody had at the time that is shown.

mod bytes;
mod list;
mod rights;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use jiff::tz::TimeZone;
use parking_lot::Mutex;

use super::handle::HandleTable;
use super::{Entry, Errno, Fs, Lasts, NodeId};
use crate::catalog::{
    CatalogError, Glimpse, NodeInfo, Reader, Rights, VersionFacts, VersionInfo, VersionKey, When,
};
use crate::config::OWN_DIR;
use crate::content::{ContentError, Contents};
use crate::timespec;
use crate::types::path::join;
use crate::types::{Attr, FileId, Kind, Name, Seq, Timestamp, Xattrs};
use rights::Judge;

const SECOND_NS: i64 = 1_000_000_000;

/// What happened so long ago is in the catalog, in the order in which it happened.
const SETTLED_NS: i64 = 10 * SECOND_NS;

/// Setuid and setgid mean nothing for what nobody can change, and much to who runs it.
const SHOWN: u32 = 0o1777;

/// All views of one mount.
#[derive(Debug)]
pub(super) struct Views {
    contents: Contents,
    nodes: Mutex<HashMap<NodeId, Known>>,
    files: HandleTable<bytes::ViewFile>,
    dirs: HandleTable<list::ViewDir>,
    started: Timestamp,
    has_acls: bool,
}

/// A node with the lookups that the kernel has not taken back.
#[derive(Debug)]
struct Known {
    node: Arc<ViewNode>,
    lookups: u64,
}

/// Something in a view.
#[derive(Debug)]
struct ViewNode {
    id: NodeId,
    /// `None` for the top, which is in the root of the mount.
    parent: Option<Arc<ViewNode>>,
    key: Key,
    /// What it was when it was looked up; of [`Key::History`] only that is not final.
    attr: Attr,
}

/// The tree at one time, under one name.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Tree {
    /// Two names of one time are two directories: the kernel wants each to be in one place.
    name: Name,
    seq: Seq,
}

/// What a node shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// `.horace` itself.
    Top,
    /// `at`.
    At,
    /// `gmt`.
    Gmt,
    /// Something in a tree of the past.
    Past { tree: Arc<Tree>, file: FileId, version: Option<Version> },
    /// A directory below `versions`, or that itself.
    History { above: NodeId, name: Name, dir: FileId },
    /// The versions of a path.
    Numbers { above: NodeId, name: Name, dir: FileId },
    /// One of them.
    Numbered { above: NodeId, number: u64, version: Version },
}

/// What a regular file shows. A session that goes on can make more of its version, and take it back:
/// that is another node then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    key: VersionKey,
    size: u64,
    mtime_ns: i64,
}

impl Version {
    fn of(key: VersionKey, facts: &VersionFacts) -> Self {
        Self { key, size: facts.size, mtime_ns: facts.mtime_ns }
    }
}

/// Something that was found and may become a node.
#[derive(Debug, Clone)]
struct Found {
    key: Key,
    attr: Attr,
    lasts: Lasts,
}

impl Key {
    /// The number by which the kernel is to know it, if no other has it.
    fn id(&self) -> NodeId {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        NodeId::in_views(hasher.finish())
    }
}

impl ViewNode {
    /// The version that it shows.
    fn version(&self) -> Option<Version> {
        match &self.key {
            Key::Past { version, .. } => *version,
            Key::Numbered { version, .. } => Some(*version),
            _ => None,
        }
    }

    fn lasts(&self) -> Lasts {
        let is_final = matches!(self.key, Key::Past { .. }) && self.attr.kind != Kind::File;
        if is_final { Lasts::Long } else { Lasts::AsSet }
    }

    /// The directory of the catalog that it shows.
    fn dir(&self) -> Option<FileId> {
        match &self.key {
            Key::Past { file, .. } if self.attr.kind == Kind::Dir => Some(*file),
            Key::History { dir, .. } => Some(*dir),
            _ => None,
        }
    }

    /// The path that it shows below `versions`.
    fn path(&self) -> Vec<u8> {
        let above = std::iter::successors(Some(self), |node| node.parent.as_deref());
        let shown = above.take_while(|node| node.dir() != Some(FileId::ROOT));
        let mut names: Vec<&[u8]> = shown
            .filter_map(|node| match &node.key {
                Key::History { name, .. } | Key::Numbers { name, .. } => Some(&**name),
                _ => None,
            })
            .collect();
        names.reverse();
        names.join(&b'/')
    }

    /// Whether it or a directory above it shows a directory: what was in one another at different
    /// times must not lead round in a circle.
    fn is_below(&self, dir: FileId) -> bool {
        let mut above = std::iter::successors(Some(self), |node| node.parent.as_deref());
        above.any(|node| node.dir() == Some(dir))
    }
}

impl Drop for ViewNode {
    fn drop(&mut self) {
        // A deep tree must not need a deep stack.
        let mut above = self.parent.take();
        while let Some(node) = above {
            above = Arc::into_inner(node).and_then(|mut node| node.parent.take());
        }
    }
}

impl Views {
    /// The views of a backing directory.
    pub(super) fn new(root: BorrowedFd<'_>, contents: Contents, started_ns: i64) -> Self {
        Self {
            has_acls: rights::has_acls(root),
            contents,
            nodes: Mutex::default(),
            files: HandleTable::default(),
            dirs: HandleTable::default(),
            started: Timestamp::from_ns(started_ns),
        }
    }

    /// Nodes that the kernel knows of.
    pub(super) fn len(&self) -> usize {
        self.nodes.lock().len()
    }

    /// Open files and directories.
    pub(super) fn open_count(&self) -> usize {
        self.files.len() + self.dirs.len()
    }

    fn get(&self, id: NodeId) -> Result<Arc<ViewNode>, Errno> {
        self.nodes.lock().get(&id).map(|known| Arc::clone(&known.node)).ok_or(Errno::STALE)
    }

    /// Counts a lookup of what was found in `parent`, and makes a node of it if there is none.
    fn enter(&self, parent: Option<&Arc<ViewNode>>, found: Found) -> Entry {
        let mut id = found.key.id();
        let mut nodes = self.nodes.lock();
        loop {
            match nodes.get_mut(&id) {
                Some(known) if known.node.key == found.key => {
                    known.lookups += 1;
                    break;
                }
                Some(_) => id = NodeId::in_views(id.0.wrapping_add(1)),
                None => {
                    let parent = parent.cloned();
                    let node = ViewNode { id, parent, key: found.key, attr: found.attr };
                    nodes.insert(id, Known { node: Arc::new(node), lookups: 1 });
                    break;
                }
            }
        }
        Entry { node: id, generation: 0, attr: found.attr, lasts: found.lasts }
    }

    /// Takes back lookups.
    pub(super) fn forget(&self, id: NodeId, count: u64) {
        let mut nodes = self.nodes.lock();
        let Some(known) = nodes.get_mut(&id) else { return };
        known.lookups = known.lookups.saturating_sub(count);
        if known.lookups > 0 {
            return;
        }
        let gone = nodes.remove(&id);
        if nodes.len() < nodes.capacity() / 8 {
            let room = nodes.len() * 2;
            nodes.shrink_to(room);
        }
        drop(nodes);
        // With it may go the last reference to those above it.
        drop(gone);
    }

    /// A directory that is nobody's and has no time of its own.
    fn made_up(&self, key: Key) -> Found {
        let attr = attr(Kind::Dir, rights::EVERYBODYS, (0, self.started), 1);
        Found { key, attr, lasts: Lasts::AsSet }
    }
}

/// Attributes as far as the catalog has them: all times are that of the content.
fn attr(kind: Kind, rights: Rights, (size, time): (u64, Timestamp), nlink: u32) -> Attr {
    Attr {
        ino: 0,
        kind,
        mode: rights.mode & SHOWN,
        nlink,
        uid: rights.uid,
        gid: rights.gid,
        rdev: 0,
        size,
        blocks: if kind == Kind::File { size.div_ceil(512) } else { 0 },
        blksize: 4096,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

fn past(tree: &Arc<Tree>, glimpse: &Glimpse) -> Found {
    let Glimpse { node, links, version } = glimpse;
    let time = Timestamp::from_ns(node.mtime_ns);
    let attr = attr(node.kind, rights::at_that_time(node), (node.size, time), *links);
    let version = version.map(|facts| Version::of((node.id, node.version), &facts));
    let key = Key::Past { tree: Arc::clone(tree), file: node.id, version };
    let lasts = if node.kind == Kind::File { Lasts::AsSet } else { Lasts::Long };
    Found { key, attr, lasts }
}

/// What `versions` shows of a name: nothing of what has no versions.
fn history(
    judge: Judge<'_>,
    parent: &ViewNode,
    name: &[u8],
    node: &NodeInfo,
) -> Result<Option<Found>, CatalogError> {
    let (above, name, time) = (parent.id, name.into(), Timestamp::from_ns(node.mtime_ns));
    let (key, rights) = match (node.kind, parent.dir()) {
        (Kind::Dir, _) if parent.is_below(node.id) => return Ok(None),
        (Kind::Dir, from) => {
            let rights = judge.of_all_times(node.id, from)?;
            (Key::History { above, name, dir: node.id }, rights)
        }
        (Kind::File, Some(dir)) => (Key::Numbers { above, name, dir }, rights::EVERYBODYS),
        _ => return Ok(None),
    };
    Ok(Some(Found { key, attr: attr(Kind::Dir, rights, (0, time), 1), lasts: Lasts::AsSet }))
}

fn numbered(
    judge: Judge<'_>,
    parent: &ViewNode,
    dir: FileId,
    number: u64,
    info: &VersionInfo,
) -> Result<Found, CatalogError> {
    let rights = judge.of_version(info, dir)?;
    let facts = VersionFacts { size: info.size, mtime_ns: info.mtime_ns, hash: info.hash };
    let version = Version::of((info.file, info.number), &facts);
    let attr = attr(Kind::File, rights, (info.size, Timestamp::from_ns(info.mtime_ns)), 1);
    let key = Key::Numbered { above: parent.id, number, version };
    Ok(Found { key, attr, lasts: Lasts::AsSet })
}

impl Fs {
    /// Asks the catalog, which knows everything that was done before; what it fails with is for the log.
    fn look_back<T>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, CatalogError>,
    ) -> Result<T, Errno> {
        self.catalog.barrier();
        self.look_at_past(look)
    }

    /// The same for what is older than a change that the catalog knows.
    fn look_at_past<T>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, CatalogError>,
    ) -> Result<T, Errno> {
        self.catalog.read_committed(|reader| reader.in_one_state(look)).map_err(|error| {
            tracing::warn!(%error, "the past cannot be shown");
            Errno::IO
        })
    }

    fn judge<'a>(&'a self, reader: &'a Reader) -> Judge<'a> {
        Judge { fs: self, reader }
    }

    /// Looks up the top of all views.
    pub(super) fn views_top(&self) -> Entry {
        self.views.enter(None, self.views.made_up(Key::Top))
    }

    /// Looks up a name in a directory of a view.
    pub(super) fn lookup_in_view(&self, parent: NodeId, name: &[u8]) -> Result<Entry, Errno> {
        let parent = self.views.get(parent)?;
        let found = self.find_in_view(&parent, name)?.ok_or(Errno::NOENT)?;
        Ok(self.views.enter(Some(&parent), found))
    }

    fn find_in_view(&self, dir: &ViewNode, name: &[u8]) -> Result<Option<Found>, Errno> {
        match &dir.key {
            Key::Top => match name {
                b"at" => Ok(Some(self.views.made_up(Key::At))),
                b"gmt" => Ok(Some(self.views.made_up(Key::Gmt))),
                b"versions" => {
                    self.look_back(|reader| match reader.node(FileId::ROOT, When::Now)? {
                        Some(root) => history(self.judge(reader), dir, name, &root),
                        None => Ok(None),
                    })
                }
                _ => Ok(None),
            },
            Key::At => {
                self.find_tree(name, |text| timespec::parse_absolute(text, &TimeZone::system()))
            }
            Key::Gmt => self.find_tree(name, timespec::parse_gmt_token),
            Key::Past { tree, file, .. } => {
                if *file == FileId::ROOT && name == OWN_DIR.as_bytes() {
                    return Ok(None);
                }
                self.look_at_past(|reader| {
                    let glimpse = reader.glimpse(*file, name, tree.seq)?;
                    Ok(glimpse.map(|glimpse| past(tree, &glimpse)))
                })
            }
            Key::History { .. } => self.look_back(|reader| {
                let located = reader.locate(&join(&dir.path(), name))?;
                let node = located.map(|located| reader.node(located.file, When::Now));
                match node.transpose()?.flatten() {
                    Some(node) => history(self.judge(reader), dir, name, &node),
                    None => Ok(None),
                }
            }),
            Key::Numbers { dir: file, .. } => self.look_back(|reader| {
                let versions = reader.lineage(&dir.path())?;
                let is_meant = |known: u64| known.to_string().as_bytes() == name;
                let found = versions.into_iter().find(|(known, _)| is_meant(*known));
                let judge = self.judge(reader);
                found.map(|(n, info)| numbered(judge, dir, *file, n, &info)).transpose()
            }),
            Key::Numbered { .. } => Err(Errno::NOTDIR),
        }
    }

    /// The tree as it was at the time that a name means.
    fn find_tree(
        &self,
        name: &[u8],
        parse: impl FnOnce(&str) -> Option<i64>,
    ) -> Result<Option<Found>, Errno> {
        let Some(time_ns) = std::str::from_utf8(name).ok().and_then(parse) else { return Ok(None) };
        // Whoever names a second means what was there when it was over.
        let whole = time_ns.rem_euclid(SECOND_NS) == 0;
        let time_ns = if whole { time_ns.saturating_add(SECOND_NS - 1) } else { time_ns };
        let lasts = match crate::clock::now_ns().saturating_sub(time_ns) {
            SETTLED_NS.. => Lasts::Long,
            0.. => Lasts::AsSet,
            _ => Lasts::Moment,
        };
        self.look_back(|reader| {
            let Some(seq) = reader.seq_at(time_ns)? else { return Ok(None) };
            let tree = Arc::new(Tree { name: name.into(), seq });
            let root = reader.glimpse_root(seq)?;
            let found = root.map(|root| past(&tree, &root));
            Ok(found.map(|found| Found { lasts, ..found }))
        })
    }

    /// Counts another lookup of a node that the kernel knows.
    pub(super) fn lookup_view_again(&self, id: NodeId) -> Result<Entry, Errno> {
        let node = self.views.get(id)?;
        let attr = self.attr_in_view(&node)?;
        let lasts = node.lasts();
        Ok(self.views.enter(node.parent.as_ref(), Found { key: node.key.clone(), attr, lasts }))
    }

    /// Looks up the directory that a directory of a view is in.
    pub(super) fn lookup_above_view(&self, id: NodeId) -> Result<Entry, Errno> {
        let node = self.views.get(id)?;
        let Some(above) = &node.parent else { return self.lookup_self(NodeId::ROOT) };
        let (attr, lasts) = (self.attr_in_view(above)?, above.lasts());
        Ok(self.views.enter(above.parent.as_ref(), Found { key: above.key.clone(), attr, lasts }))
    }

    /// The attributes of a node of a view.
    pub(super) fn getattr_in_view(&self, id: NodeId) -> Result<Attr, Errno> {
        self.attr_in_view(&*self.views.get(id)?)
    }

    fn attr_in_view(&self, node: &ViewNode) -> Result<Attr, Errno> {
        let Key::History { dir, .. } = &node.key else { return Ok(node.attr) };
        // What is private by now is private for all times.
        let from = node.parent.as_ref().and_then(|parent| parent.dir());
        let rights = self.look_back(|reader| self.judge(reader).of_all_times(*dir, from))?;
        Ok(attr(Kind::Dir, rights, (0, node.attr.mtime), 1))
    }

    /// How long the kernel may believe the attributes of a node.
    pub fn lasts(&self, id: NodeId) -> Lasts {
        if !id.is_view() {
            return Lasts::AsSet;
        }
        self.views.get(id).map_or(Lasts::AsSet, |node| node.lasts())
    }

    /// The target of a symlink in a view.
    pub(super) fn readlink_in_view(&self, id: NodeId) -> Result<Box<[u8]>, Errno> {
        let node = self.views.get(id)?;
        let Key::Past { file, .. } = &node.key else { return Err(Errno::INVAL) };
        let target = self.look_at_past(|reader| reader.target_of(*file))?;
        Ok(target.ok_or(Errno::INVAL)?.into())
    }

    /// The extended attributes that something in a view had: those of a tree of one time.
    pub(super) fn xattrs_in_view(&self, id: NodeId) -> Result<Xattrs, Errno> {
        let node = self.views.get(id)?;
        let Key::Past { tree, file, .. } = &node.key else { return Ok(Xattrs::default()) };
        if !matches!(node.attr.kind, Kind::File | Kind::Dir) {
            return Ok(Xattrs::default());
        }
        let look = |reader: &Reader| self.views.contents.xattrs(reader, *file, tree.seq);
        self.catalog.read_committed(look).map_err(|error: ContentError| {
            tracing::warn!(%error, "extended attributes of the past cannot be read");
            Errno::IO
        })
    }

    /// What the catalog has of a file of a view, under the names that live files have it by.
    pub(super) fn own_xattr_in_view(&self, id: NodeId, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let node = self.views.get(id)?;
        let (file, version) = match &node.key {
            Key::Past { file, version, .. } => (*file, *version),
            Key::Numbered { version, .. } => (version.key.0, Some(*version)),
            _ => return Err(Errno::NODATA),
        };
        let text = match (name, version) {
            (b"sha256", Some(version)) => {
                let known = self.look_back(|reader| reader.version_facts(version.key))?;
                known.and_then(|facts| facts.hash).map(|hash| hash.to_string())
            }
            (b"version", Some(version)) => Some(version.key.1.to_string()),
            (b"file_id", _) => {
                let catalog = self.look_back(|reader| reader.catalog_id())?;
                Some(crate::file_id::to_uuid(&catalog, file).to_string())
            }
            _ => None,
        };
        text.map(String::into_bytes).ok_or(Errno::NODATA)
    }

    /// The node whose digest somebody must wait for who wants that of a node: of a version that is the
    /// newest of a live file, that file's.
    pub fn digested_as(&self, id: NodeId) -> NodeId {
        let live = || {
            let node = self.views.get(id).ok()?;
            let (file, _) = node.version()?.key;
            let head = self.look_back(|reader| reader.live_head(file)).ok()??;
            self.nodes.find_anywhere(head.key).map(|node| node.id)
        };
        if id.is_view() { live().unwrap_or(id) } else { id }
    }
}
