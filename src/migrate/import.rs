//! A predecessor's history put into a new catalog.
//!
//! Owns what stands for inodes that are long gone: keys that no inode has, so that the first walk of a mount
//! finds other inodes at the same names, takes them for what went on there, and reads them. A file whose
//! bytes are those that the predecessor knew last gets no other version.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::digest::digest_of;
use super::history::{History, LeftOut, Standing, Step, What};
use crate::catalog::event::{Found, Op, Place};
use crate::catalog::import::{Import, ImportError};
use crate::types::{Attr, ContentHash, Inode, InodeKey, Kind, Origin, Seq, Timestamp};

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Versions.
    pub versions: u64,
    /// Deletions.
    pub deletions: u64,
    /// What was left out, by its path.
    pub left_out: Vec<(Vec<u8>, LeftOut)>,
    /// The last sequence number of the new catalog.
    pub seq: Seq,
}

/// Whose the history of what is not there any more is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Makes a catalog in `state_dir` for the tree at `top` from what a predecessor knew.
///
/// # Errors
/// If the catalog cannot be written, or the tree's root cannot be read. Then there is none, or the one that was.
pub fn import(
    state_dir: &Path,
    top: &Path,
    history: History,
    owner: Owner,
    now_ns: i64,
) -> Result<Imported, ImportError> {
    let begin_ns = history.steps.first().map_or(now_ns, |step| step.time_ns);
    let error = |source| ImportError::File { path: top.into(), source };
    let root = attr_of(&top.metadata().map_err(error)?, Kind::Dir);
    let root = Inode { key: key(0), attr: root };
    let mut writing = Writing {
        import: Import::begin(state_dir, root, begin_ns)?,
        top: top.into(),
        owner,
        names: BTreeMap::new(),
        next: 1,
        done: Imported { versions: 0, deletions: 0, left_out: Vec::new(), seq: Seq(0) },
    };
    for step in &history.steps {
        writing.take(&history.paths[step.path], step);
    }
    let mut done = writing.done;
    done.seq = writing.import.finish(now_ns)?;
    done.left_out.splice(..0, history.left_out);
    Ok(done)
}

/// What has a name, as far as the import has come.
#[derive(Debug, Clone, Copy)]
struct Named {
    key: InodeKey,
    kind: Kind,
}

struct Writing {
    import: Import,
    top: PathBuf,
    owner: Owner,
    names: BTreeMap<Vec<u8>, Named>,
    next: u64,
    done: Imported,
}

impl Writing {
    fn take(&mut self, path: &[u8], step: &Step) {
        match step.what {
            What::Version { hash, size, standing } => {
                let Some(attr) = self.file_attr(path, step.time_ns, (hash, size, standing)) else {
                    self.done.left_out.push((path.into(), LeftOut::NoSize));
                    return;
                };
                let at = self.place(path, step.time_ns);
                let key = self.key_at(path, Kind::File, step.time_ns);
                self.observe(at, Inode { key, attr }, Found::Content(hash, None), step.time_ns);
                self.done.versions += 1;
            }
            What::Gone => {
                self.gone(path, step.time_ns);
                self.leave_empty_dirs(path, step.time_ns);
                self.done.deletions += 1;
            }
        }
    }

    /// The place of a path, whose directories come to be if they are not known yet.
    fn place(&mut self, path: &[u8], time_ns: i64) -> Place {
        let mut parent = key(0);
        let mut begin = 0;
        for end in (0..path.len()).filter(|at| path[*at] == b'/') {
            let dir = &path[..end];
            let is_known = self.names.get(dir).is_some_and(|named| named.kind == Kind::Dir);
            let at = Place { parent, name: path[begin..end].into() };
            parent = self.key_at(dir, Kind::Dir, time_ns);
            if !is_known {
                let attr = self.dir_attr(dir, time_ns);
                self.observe(at, Inode { key: parent, attr }, Found::Unread, time_ns);
            }
            begin = end + 1;
        }
        Place { parent, name: path[begin..].into() }
    }

    /// The key of what is at a path, after what is of another kind there is gone.
    fn key_at(&mut self, path: &[u8], kind: Kind, time_ns: i64) -> InodeKey {
        match self.names.get(path) {
            Some(named) if named.kind == kind => return named.key,
            Some(_) => self.gone(path, time_ns),
            None => {}
        }
        let key = key(self.next);
        self.next += 1;
        self.names.insert(path.into(), Named { key, kind });
        key
    }

    fn observe(&self, at: Place, inode: Inode, found: Found, time_ns: i64) {
        self.import.push(time_ns, Op::Observe { at, inode, found, origin: Origin::Migrated });
    }

    /// A name is not there any more, with everything below it.
    fn gone(&mut self, path: &[u8], time_ns: i64) {
        let Some(named) = self.names.remove(path) else { return };
        let at = self.place(path, time_ns);
        self.import.push(time_ns, Op::Gone { at, key: named.key });
        let inside = [path, b"/"].concat();
        let below = self.names.range(inside.clone()..);
        let below =
            below.map(|(path, _)| path.clone()).take_while(|path| path.starts_with(&inside));
        for path in below.collect::<Vec<_>>() {
            self.names.remove(&path);
        }
    }

    /// Directories of which the predecessor knew nothing but what was in them went with that, unless they are
    /// there.
    fn leave_empty_dirs(&mut self, path: &[u8], time_ns: i64) {
        let mut path = path;
        while let Some(end) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..end];
            let inside = [path, b"/"].concat();
            let mut below = self.names.range(inside.clone()..);
            let is_empty = below.next().is_none_or(|(name, _)| !name.starts_with(&inside));
            if !is_empty || self.there(path).is_some_and(|found| found.is_dir()) {
                return;
            }
            self.gone(path, time_ns);
        }
    }

    /// The attributes of a version; `None` if its size is not known.
    ///
    /// The predecessor looked at the size later than at the bytes. If the bytes are those of the file that is
    /// there now, its size is theirs.
    fn file_attr(
        &self,
        path: &[u8],
        time_ns: i64,
        (hash, size, standing): (ContentHash, Option<u64>, Standing),
    ) -> Option<Attr> {
        let there = self.there(path).filter(Metadata::is_file);
        let mut attr = match &there {
            Some(found) => attr_of(found, Kind::File),
            None => self.private(Kind::File),
        };
        let mtime = attr.mtime;
        attr.mtime = Timestamp::from_ns(time_ns);
        if let Some(found) = there.filter(|_| standing == Standing::Head || size.is_none()) {
            let is_it = match size {
                Some(size) if size == found.len() => mtime <= attr.mtime,
                _ => self.has_digest(path, hash),
            };
            if is_it {
                attr.mtime = mtime;
                return Some(Attr { size: found.len(), ..attr });
            }
        }
        Some(Attr { size: size?, ..attr })
    }

    fn dir_attr(&self, path: &[u8], time_ns: i64) -> Attr {
        match self.there(path).filter(Metadata::is_dir) {
            Some(found) => attr_of(&found, Kind::Dir),
            None => Attr { mtime: Timestamp::from_ns(time_ns), ..self.private(Kind::Dir) },
        }
    }

    fn there(&self, path: &[u8]) -> Option<Metadata> {
        self.path(path).symlink_metadata().ok()
    }

    fn path(&self, path: &[u8]) -> PathBuf {
        self.top.join(std::ffi::OsStr::from_bytes(path))
    }

    fn has_digest(&self, path: &[u8], hash: ContentHash) -> bool {
        let read =
            || -> io::Result<ContentHash> { digest_of(&File::open(self.path(path))?, &|_| {}) };
        read().is_ok_and(|found| found == hash)
    }

    /// What is not there any more is for its owner alone: nobody knows who could read it.
    fn private(&self, kind: Kind) -> Attr {
        let mode = if kind == Kind::Dir { 0o700 } else { 0o600 };
        Attr { mode, uid: self.owner.uid, gid: self.owner.gid, ..bare(kind) }
    }
}

/// A key that no inode has: filesystems count from below.
fn key(number: u64) -> InodeKey {
    InodeKey { ino: u64::MAX / 2 + 1 + number, generation: u64::MAX }
}

fn attr_of(found: &Metadata, kind: Kind) -> Attr {
    let nanos = u32::try_from(found.mtime_nsec()).unwrap_or_default();
    Attr {
        mode: found.permissions().mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: Timestamp { secs: found.mtime(), nanos },
        ..bare(kind)
    }
}

/// Attributes without a change time, which is how the catalog knows what has yet to be read.
fn bare(kind: Kind) -> Attr {
    Attr {
        ino: 0,
        kind,
        mode: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{FILE_NAME, Reader};

    const SECOND: i64 = 1_000_000_000;

    fn step(seconds: i64, path: usize, what: What) -> Step {
        Step { time_ns: seconds * SECOND, path, what }
    }

    fn version(n: u8, size: impl Into<Option<u64>>, standing: Standing) -> What {
        What::Version { hash: ContentHash::new([n; 32]), size: size.into(), standing }
    }

    #[test]
    fn names_that_were_of_another_kind_before_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let top = tempfile::tempdir().unwrap();
        let history = History {
            paths: ["a", "a/b/c", "d/e/gone"].map(|path| path.as_bytes().to_vec()).to_vec(),
            steps: vec![
                step(1, 0, version(1, 5, Standing::Past)),
                step(2, 1, version(2, 6, Standing::Past)),
                step(3, 0, version(3, 7, Standing::Head)),
                step(4, 2, version(4, None, Standing::Past)),
                step(5, 2, version(5, 8, Standing::Past)),
                step(6, 2, What::Gone),
            ],
            left_out: Vec::new(),
        };
        let owner = Owner { uid: 7, gid: 8 };
        let done = import(dir.path(), top.path(), history, owner, 10 * SECOND).unwrap();
        assert_eq!((done.versions, done.deletions), (4, 1));
        assert_eq!(done.left_out, [(b"d/e/gone".to_vec(), LeftOut::NoSize)]);
        let reader = Reader::open(&dir.path().join(FILE_NAME)).unwrap();
        let changes = reader.changes(Seq(0), 100).unwrap();
        let told = |change: &crate::catalog::ChangeInfo| {
            let path = String::from_utf8(change.path.clone().unwrap()).unwrap();
            format!("{} {:?} {path}", change.time_ns / SECOND, change.op)
        };
        assert_eq!(
            changes.iter().map(told).collect::<Vec<_>>(),
            [
                "1 Create ",
                "1 Create a",
                "2 Unlink a",
                "2 Create a",
                "2 Create a/b",
                "2 Create a/b/c",
                "3 Unlink a",
                "3 Create a",
                "5 Create d",
                "5 Create d/e",
                "5 Create d/e/gone",
                "6 Unlink d/e/gone",
                "6 Unlink d/e",
                "6 Unlink d"
            ]
        );
    }
}
