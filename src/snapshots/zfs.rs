//! Snapshots of a ZFS dataset, by the `zfs` command.
//!
//! Owns its arguments and the reading of what it says for machines (`-H`, `-p`). `zfs get` is asked even
//! for lists: it knows exact numbers since the oldest version, `zfs list` does not. Names that could mean more
//! than one snapshot never get that far, and no option that makes a destroy reach further (`-r`, `-R`, `-d`)
//! is ever given.

mod properties;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::ProgramError;
use super::backend::{Backend, BackendError, BackendKind, Mark, Snapshot, check_name};
use super::programs::Run;
use crate::sys::mounts::Mount;
use crate::sys::zfs::snapshot_dir;
use properties::{CATALOG, Row, SEQ, rows, snapshots};

const ZFS: &str = "zfs";
/// The tag of our holds.
const TAG: &str = "horace";
/// How long questions may take: a pool that is scrubbed or sleeps is slow.
const ASKING: Duration = Duration::from_secs(60);
/// How long a snapshot may take. Who writes waits for as long.
const TAKING: Duration = Duration::from_secs(15);
/// How long it may take to destroy some.
const DESTROYING: Duration = Duration::from_secs(600);
/// How many are destroyed by one command.
const BATCH: usize = 64;

/// A dataset.
#[derive(Debug)]
pub(super) struct Zfs {
    run: Arc<dyn Run>,
    dataset: String,
    backing: OwnedFd,
    /// The command is zfs-fuse's, which knows no `-t`, no clones and no lists of snapshots.
    is_old: AtomicBool,
}

impl Zfs {
    /// The dataset that is mounted as `mount`.
    ///
    /// # Errors
    /// In words, why it is not sure to be that.
    pub(super) fn open(run: Arc<dyn Run>, mount: &Mount, backing: OwnedFd) -> Result<Self, String> {
        let dataset = mount.source.clone();
        if !dataset.starts_with(|c: char| c.is_ascii_alphanumeric()) || dataset.contains('@') {
            return Err(format!("`{dataset}` is no dataset"));
        }
        let zfs = Self { run, dataset, backing, is_old: AtomicBool::new(false) };
        zfs.check(mount)?;
        Ok(zfs)
    }

    /// Compares what ZFS says of the dataset with the mount.
    fn check(&self, mount: &Mount) -> Result<(), String> {
        let dataset = &self.dataset;
        let get = ["get", "-Hp", "-o", "name,property,value,source", "type,mountpoint,mounted"];
        let said = self.ask(&[&get[..], &[dataset]].concat()).map_err(|e| e.to_string())?;
        let rows = rows(&said).map_err(|e| e.to_string())?;
        let value = |property: &str| {
            let row = rows.iter().find(|r| r.name == *dataset && r.property == property);
            row.map_or("-", |row| row.value)
        };
        if value("type") != "filesystem" {
            return Err(format!("{dataset} is a {}, and no filesystem", value("type")));
        }
        let (mountpoint, mounted) = (value("mountpoint"), value("mounted"));
        if mounted != "yes" {
            return Err(format!("{dataset} is mounted by no means that ZFS knows of"));
        }
        let is_whole = mount.root == std::path::Path::new("/");
        let is_elsewhere = !matches!(mountpoint, "legacy" | "none")
            && mount.mountpoint != std::path::Path::new(mountpoint);
        if is_whole && is_elsewhere {
            let found = mount.mountpoint.display();
            return Err(format!("{dataset} is at {mountpoint}, says ZFS, but at {found} for us"));
        }
        Ok(())
    }

    fn ask(&self, args: &[&str]) -> Result<String, ProgramError> {
        self.run.run(ZFS, args, ASKING)
    }

    fn full(&self, name: &str) -> Result<String, BackendError> {
        check_name(name)?;
        Ok(format!("{}@{name}", self.dataset))
    }

    /// The properties of the snapshots.
    fn properties(&self) -> Result<String, ProgramError> {
        const OLD: &str = "guid,createtxg,creation,used,userrefs";
        const COLUMNS: &str = "name,property,value,source";
        let own = format!("{SEQ},{CATALOG},{}", properties::BASE);
        if !self.is_old.load(Ordering::Relaxed) {
            let all = format!("{OLD},clones,{own}");
            let get = ["get", "-Hp", "-r", "-d", "1", "-t", "snapshot", "-o", COLUMNS];
            match self.ask(&[&get[..], &[&all, &self.dataset]].concat()) {
                Err(ProgramError::Failed { said, .. }) if said.contains("invalid option") => {}
                result => return result,
            }
            self.is_old.store(true, Ordering::Relaxed);
        }
        let all = format!("{OLD},{own}");
        let get = ["get", "-Hp", "-r", "-d", "1", "-o", COLUMNS];
        self.ask(&[&get[..], &[&all, &self.dataset]].concat())
    }

    /// What was cloned in this pool, and from what.
    fn origins(&self) -> Result<String, ProgramError> {
        let pool = self.dataset.split('/').next().unwrap_or_default();
        self.ask(&["get", "-Hp", "-r", "-o", "name,property,value,source", "origin", pool])
    }

    fn destroy_batch(&self, names: &[&str]) -> Result<(), BackendError> {
        let mut list = String::new();
        for name in names {
            check_name(name)?;
            if !list.is_empty() {
                list.push(',');
            }
            list.push_str(name);
        }
        let target = format!("{}@{list}", self.dataset);
        self.run.run(ZFS, &["destroy", &target], DESTROYING)?;
        Ok(())
    }
}

impl Backend for Zfs {
    fn kind(&self) -> BackendKind {
        BackendKind::Zfs
    }

    fn dataset(&self) -> &str {
        &self.dataset
    }

    fn list(&self) -> Result<Vec<Snapshot>, BackendError> {
        let said = self.properties()?;
        let rows = rows(&said)?;
        if !self.is_old.load(Ordering::Relaxed) {
            return snapshots(&self.dataset, &rows, &[]);
        }
        let said = self.origins()?;
        let origins: Vec<Row<'_>> = properties::rows(&said)?;
        snapshots(&self.dataset, &rows, &origins)
    }

    fn create(&self, name: &str, mark: &Mark) -> Result<(), BackendError> {
        let (full, seq) = (self.full(name)?, format!("{SEQ}={}", mark.seq.0));
        let catalog = format!("{CATALOG}={}", mark.catalog);
        self.run.run(ZFS, &["snapshot", "-o", &seq, "-o", &catalog, &full], TAKING)?;
        Ok(())
    }

    fn destroy<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, Result<(), BackendError>)> {
        let size = if self.is_old.load(Ordering::Relaxed) { 1 } else { BATCH };
        let mut done = Vec::new();
        for batch in names.chunks(size) {
            match self.destroy_batch(batch) {
                Ok(()) => done.extend(batch.iter().map(|name| (*name, Ok(())))),
                Err(error) if batch.len() == 1 => done.push((batch[0], Err(error))),
                // One of them is in the way, and the others may go.
                Err(_) => {
                    done.extend(batch.iter().map(|name| (*name, self.destroy_batch(&[*name]))));
                }
            }
        }
        done
    }

    fn hold(&self, name: &str) -> Result<(), BackendError> {
        self.ask(&["hold", TAG, &self.full(name)?])?;
        Ok(())
    }

    fn release(&self, name: &str) -> Result<(), BackendError> {
        self.ask(&["release", TAG, &self.full(name)?])?;
        Ok(())
    }

    fn open(&self, name: &str) -> Result<OwnedFd, BackendError> {
        let error = |source| BackendError::Kernel {
            what: "look into the snapshot",
            name: name.into(),
            source,
        };
        check_name(name)?;
        let found = snapshot_dir(self.backing.as_fd()).map_err(error)?;
        let Some((snapshots, below)) = found else {
            return Err(BackendError::Impossible {
                reason: format!("{} has no .zfs/snapshot to look into", self.dataset),
            });
        };
        let path = match below.is_empty() {
            true => name.as_bytes().to_vec(),
            false => [name.as_bytes(), &below].join(&b'/'),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(&snapshots, path, flags, Mode::empty(), within).map_err(error)
    }
}

#[cfg(test)]
mod tests;
