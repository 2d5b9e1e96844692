//! Snapshots of a btrfs subvolume.
//!
//! Owns the directory `BACKING/.horace/snapshots`, in which each is a read-only subvolume, beside an empty
//! file `NAME.held` for one that is to stay. The mark is an extended attribute of `.horace`, set before a
//! snapshot is taken and therefore in it, and taken away afterwards. It has the name of the snapshot, so
//! that one somebody else puts there is not taken for ours. Subvolumes in a subvolume are no part of its
//! snapshots, so no snapshot has others in it.
//!
//! # After a crash
//! Between the attribute and the snapshot: an attribute that names none, and is replaced by the next.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};
use uuid::Uuid;

use super::backend::{Backend, BackendError, BackendKind, Mark, Snapshot, check_name};
use crate::sys::{Errno, btrfs, dir::make_private};
use crate::types::Seq;

/// The directory of snapshots in our own.
const DIR: &str = "snapshots";
const MARK: &str = "trusted.horace.snapshot";
const HELD: &str = ".held";

const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A subvolume.
#[derive(Debug)]
pub(super) struct Btrfs {
    backing: OwnedFd,
    path: String,
    own_dir: &'static str,
}

fn error(what: &'static str, name: &str) -> impl FnOnce(Errno) -> BackendError {
    move |source| BackendError::Kernel { what, name: name.into(), source }
}

impl Btrfs {
    /// The subvolume whose root is open, at this path, with a directory of our own.
    pub(super) fn new(backing: OwnedFd, path: String, own_dir: &'static str) -> Self {
        Self { backing, path, own_dir }
    }

    fn own(&self) -> Result<OwnedFd, Errno> {
        make_private(&self.backing, self.own_dir)?;
        rustix::fs::openat(&self.backing, self.own_dir, OPEN, Mode::empty())
    }

    /// The directory of snapshots, if there ever was one.
    fn dir(&self) -> Result<Option<OwnedFd>, Errno> {
        match rustix::fs::openat(self.own()?, DIR, OPEN, Mode::empty()) {
            Err(Errno::NOENT) => Ok(None),
            result => result.map(Some),
        }
    }

    fn existing(&self, what: &'static str, name: &str) -> Result<OwnedFd, BackendError> {
        check_name(name)?;
        let dir = self.dir().map_err(error(what, name))?;
        dir.ok_or_else(|| error(what, name)(Errno::NOENT))
    }

    fn read(&self, dir: &OwnedFd, name: &str) -> Result<Option<Snapshot>, Errno> {
        let subvolume = match rustix::fs::openat(dir, name, OPEN, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(None),
            result => result?,
        };
        if rustix::fs::fstat(&subvolume)?.st_ino != btrfs::ROOT_INODE {
            // What a snapshot in a snapshot leaves.
            return Ok(None);
        }
        let info = btrfs::info(subvolume.as_fd())?;
        let is_held = is_there(dir, &format!("{name}{HELD}"))?;
        Ok(Some(Snapshot {
            name: name.into(),
            guid: Uuid::from_bytes(info.uuid).to_string(),
            createtxg: info.transaction,
            time_ns: info.time_ns,
            used_bytes: None,
            mark: self.read_mark(&subvolume, name).filter(|_| info.is_read_only),
            holds: u64::from(is_held),
            clones: Vec::new(),
            is_base: false,
        }))
    }

    /// What makes a snapshot ours: its last change, its catalog and its name.
    fn read_mark(&self, subvolume: &OwnedFd, name: &str) -> Option<Mark> {
        let own = rustix::fs::openat(subvolume, self.own_dir, OPEN, Mode::empty()).ok()?;
        let mut room = [0; 512];
        let length = rustix::fs::fgetxattr(&own, MARK, &mut room).ok()?;
        let mut words = std::str::from_utf8(&room[..length]).ok()?.split(' ');
        let seq = words.next()?.parse().ok()?;
        let catalog = Uuid::try_parse(words.next()?).ok()?;
        (words.next() == Some(name)).then_some(Mark { seq: Seq(seq), catalog })
    }

    fn destroy_one(&self, name: &str) -> Result<(), BackendError> {
        let dir = self.existing("destroy", name)?;
        if is_there(&dir, &format!("{name}{HELD}")).map_err(error("destroy", name))? {
            return Err(BackendError::Held { name: name.into() });
        }
        btrfs::destroy(dir.as_fd(), name).map_err(error("destroy", name))
    }
}

fn is_there(dir: &OwnedFd, name: &str) -> Result<bool, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Backend for Btrfs {
    fn kind(&self) -> BackendKind {
        BackendKind::Btrfs
    }

    fn dataset(&self) -> &str {
        &self.path
    }

    fn list(&self) -> Result<Vec<Snapshot>, BackendError> {
        let list = || {
            let Some(dir) = self.dir()? else { return Ok(Vec::new()) };
            let mut found = Vec::new();
            for entry in rustix::fs::Dir::read_from(&dir)? {
                let entry = entry?;
                let name = entry.file_name().to_str().ok();
                if let Some(name) = name.filter(|name| check_name(name).is_ok()) {
                    found.extend(self.read(&dir, name)?);
                }
            }
            found.sort_by(|a, b| (a.createtxg, &a.name).cmp(&(b.createtxg, &b.name)));
            Ok(found)
        };
        list().map_err(error("list the snapshots of", &self.path))
    }

    fn create(&self, name: &str, mark: &Mark) -> Result<(), BackendError> {
        check_name(name)?;
        let take = || {
            let own = self.own()?;
            make_private(&own, DIR)?;
            let dir = rustix::fs::openat(&own, DIR, OPEN, Mode::empty())?;
            if is_there(&dir, name)? {
                return Err(Errno::EXIST);
            }
            let text = format!("{} {} {name}", mark.seq.0, mark.catalog);
            rustix::fs::fsetxattr(&own, MARK, text.as_bytes(), XattrFlags::empty())?;
            let taken = btrfs::snapshot(self.backing.as_fd(), dir.as_fd(), name);
            rustix::fs::fremovexattr(&own, MARK)?;
            taken
        };
        take().map_err(error("take the snapshot", name))
    }

    fn destroy<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, Result<(), BackendError>)> {
        names.iter().map(|name| (*name, self.destroy_one(name))).collect()
    }

    fn hold(&self, name: &str) -> Result<(), BackendError> {
        let dir = self.existing("hold", name)?;
        let hold = || {
            if !is_there(&dir, name)? {
                return Err(Errno::NOENT);
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, format!("{name}{HELD}"), flags, Mode::RUSR)?;
            rustix::fs::fsync(&dir)
        };
        hold().map_err(error("hold", name))
    }

    fn release(&self, name: &str) -> Result<(), BackendError> {
        let dir = self.existing("release", name)?;
        let held = format!("{name}{HELD}");
        rustix::fs::unlinkat(&dir, held, AtFlags::empty()).map_err(error("release", name))
    }

    fn open(&self, name: &str) -> Result<OwnedFd, BackendError> {
        let dir = self.existing("look into the snapshot", name)?;
        let opened = rustix::fs::openat(&dir, name, OPEN, Mode::empty());
        opened.map_err(error("look into the snapshot", name))
    }
}
