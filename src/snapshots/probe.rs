//! Which kind of snapshots a backing directory has.
//!
//! Owns the way from an open directory to its backend, and the refusal of one that is not what was
//! required. What is not sure is none.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::backend::{Backend, BackendKind};
use super::btrfs::Btrfs;
use super::none::None as NoBackend;
use super::programs::{Programs, Run};
use super::zfs::Zfs;
use crate::sys::mounts::{self, Mount};
use crate::sys::{Errno, btrfs, stat};

/// The backing directory has not the snapshots that were required.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{required}`: {reason}")]
pub struct ProbeError {
    required: String,
    reason: String,
}

/// What the backing directory has to lie on, or it is not mounted: a pool that was not imported leaves an
/// empty directory, which would be served and filled in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Require {
    /// Whatever it is.
    #[default]
    Anything,
    /// A ZFS dataset.
    Zfs,
    /// A btrfs subvolume of its own.
    Btrfs,
}

/// Finds out which snapshots an open directory has, in which `own_dir` is ours. Programs are run by `programs`,
/// if any may be.
pub fn probe(
    backing: &OwnedFd,
    own_dir: &'static str,
    programs: Option<Arc<Programs>>,
) -> Arc<dyn Backend> {
    let run = programs.map(|programs| programs as Arc<dyn Run>);
    match find(backing, own_dir, run) {
        Ok(backend) => backend,
        Err(reason) => Arc::new(NoBackend { reason }),
    }
}

fn find(
    backing: &OwnedFd,
    own_dir: &'static str,
    run: Option<Arc<dyn Run>>,
) -> Result<Arc<dyn Backend>, String> {
    let told = |error: Errno| format!("cannot find out what lies there: {error}");
    let own = || backing.try_clone().map_err(|error| error.to_string());
    let stat = stat::fstat(backing).map_err(told)?;
    if rustix::fs::fstatfs(backing).map_err(told)?.f_type == btrfs::MAGIC {
        if stat.attr.ino != btrfs::ROOT_INODE {
            return Err(
                "the backing directory is no subvolume of its own, of which btrfs could take snapshots"
                    .into(),
            );
        }
        let path = rustix::fs::readlink(stat::proc_name(backing.as_fd()), Vec::new());
        let path = path.map_err(told)?.to_string_lossy().into_owned();
        return Ok(Arc::new(Btrfs::new(own()?, path, own_dir)));
    }
    let mount = mounts::find(stat.fs.mount).map_err(|error| error.to_string())?;
    let mount = mount.ok_or("the table of mounts does not have the backing directory")?;
    if !is_zfs(&mount) {
        return Err(format!("{} has no snapshots that could be taken here", mount.fstype));
    }
    let run = run.ok_or("this user cannot run `zfs`")?;
    Ok(Arc::new(Zfs::open(run, &mount, own()?)?))
}

/// Whether a mount is a dataset's, in the kernel or by zfs-fuse.
fn is_zfs(mount: &Mount) -> bool {
    matches!(&*mount.fstype, "zfs" | "fuse.zfs")
}

/// Whether an open directory lies on ZFS, going by the table of mounts.
pub fn lies_on_zfs(backing: &OwnedFd) -> bool {
    let mount = stat::fstat(backing).ok().and_then(|stat| mounts::find(stat.fs.mount).ok()?);
    mount.is_some_and(|mount| is_zfs(&mount))
}

/// Refuses another kind of snapshots than the one that is required, and another dataset than the one that is
/// named.
///
/// # Errors
/// If it is another.
pub fn check(
    require: Require,
    dataset: Option<&str>,
    backend: &dyn Backend,
) -> Result<(), ProbeError> {
    if let Some(required) = dataset.filter(|required| *required != backend.dataset()) {
        let found = match backend.reason() {
            Some(reason) => format!("none: {reason}"),
            None => format!("`{}`", backend.dataset()),
        };
        let reason = format!("the backing directory lies on {found}");
        return Err(ProbeError { required: format!("dataset={required}"), reason });
    }
    let required = match require {
        Require::Anything => return Ok(()),
        Require::Zfs => BackendKind::Zfs,
        Require::Btrfs => BackendKind::Btrfs,
    };
    if backend.kind() == required {
        return Ok(());
    }
    let reason = backend.reason().unwrap_or_else(|| format!("it lies on {}", backend.kind()));
    Err(ProbeError { required: format!("require={required}"), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags};

    #[test]
    fn what_has_no_snapshots_says_why_and_is_refused_where_some_are_required() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).unwrap();
        let backend = probe(&proc, ".horace", None);
        assert_eq!(backend.kind(), BackendKind::None);
        assert_eq!(backend.list().unwrap(), []);
        assert!(!lies_on_zfs(&proc));
        assert_eq!(check(Require::Anything, None, &*backend), Ok(()));
        let refused = check(Require::Zfs, None, &*backend).unwrap_err().to_string();
        assert_eq!(refused, "`require=zfs`: proc has no snapshots that could be taken here");
        assert!(check(Require::Btrfs, None, &*backend).is_err());
        let refused = check(Require::Anything, Some("tank/files"), &*backend).unwrap_err();
        let lies =
            "`dataset=tank/files`: the backing directory lies on none: proc has no snapshots";
        assert!(refused.to_string().starts_with(lies), "{refused}");
    }
}
