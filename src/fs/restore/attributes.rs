//! Attributes of what is brought back.
//!
//! Owns which of them somebody may give: root all, anybody else what a file of their own can have.

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use crate::fs::{Fs, NodeId, SetAttr, SetTime};
use crate::store::staging::Staged;
use crate::sys::creds::Actor;
use crate::sys::{Errno, stat, xattr};
use crate::types::{Caller, Facts, Kind, Xattrs};

/// What somebody may give of what something had.
pub(super) fn allowed(actor: &Actor, facts: &Facts) -> Facts {
    if actor.is_privileged() {
        return facts.clone();
    }
    let identity = &actor.identity;
    let member = facts.gid == identity.gid || identity.groups.contains(&facts.gid);
    let gid = if member { facts.gid } else { identity.gid };
    // Rights of another owner or group are not given to these.
    let own = facts.uid == identity.uid && member;
    let mode = if own { facts.mode } else { facts.mode & 0o777 };
    let may = |name: &[u8]| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
    let xattrs = facts.xattrs.iter().filter(|(name, _)| may(name));
    let xattrs = Xattrs::new(xattrs.map(|(name, value)| (name.into(), value.into())).collect());
    Facts { mode, uid: identity.uid, gid, mtime: facts.mtime, xattrs }
}

/// Gives a file that nobody sees yet its attributes.
///
/// # Errors
/// The filesystem's.
pub(super) fn apply(staged: &Staged<'_>, facts: &Facts) -> Result<(), Errno> {
    let owner = (Some(Uid::from_raw(facts.uid)), Some(Gid::from_raw(facts.gid)));
    match rustix::fs::fchown(staged, owner.0, owner.1) {
        // Where a user mounts for himself, everything is his.
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => {}
        result => result?,
    }
    // A change of the owner takes setuid, setgid and capabilities, so these come after it.
    rustix::fs::fchmod(staged, Mode::from_raw_mode(facts.mode & 0o7777))?;
    let path = stat::proc_name(staged);
    for (name, value) in facts.xattrs.iter() {
        let set = rustix::fs::setxattr(&path, name, value, XattrFlags::empty());
        tolerate(name, set)?;
    }
    let mtime = Timespec { tv_sec: facts.mtime.secs, tv_nsec: facts.mtime.nanos.into() };
    let now = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    rustix::fs::futimens(staged, &Timestamps { last_access: now, last_modification: mtime })
}

/// Sets the attributes of something that lives.
///
/// # Errors
/// The filesystem's.
pub(super) fn set(fs: &Fs, caller: Caller, node: NodeId, facts: &Facts) -> Result<(), Errno> {
    let now = fs.getattr(node, None)?;
    let is_link = now.kind == Kind::Symlink;
    let owner = SetAttr {
        uid: Some(facts.uid).filter(|uid| *uid != now.uid),
        gid: Some(facts.gid).filter(|gid| *gid != now.gid),
        ..SetAttr::default()
    };
    let rights = SetAttr {
        mode: Some(facts.mode).filter(|_| !is_link),
        mtime: Some(SetTime::At(facts.mtime)),
        ..SetAttr::default()
    };
    if owner != SetAttr::default() {
        fs.setattr(caller, node, None, &owner)?;
    }
    if !is_link {
        set_xattrs(fs, caller, node, &facts.xattrs)?;
    }
    // The mode after the ACL, of which it is a part.
    fs.setattr(caller, node, None, &rights).map(drop)
}

fn set_xattrs(fs: &Fs, caller: Caller, node: NodeId, wanted: &Xattrs) -> Result<(), Errno> {
    let now = xattr::read_all(&fs.path_fd(&*fs.node(node)?)?)?;
    for (name, value) in wanted.iter().filter(|(name, value)| now.get(name) != Some(value)) {
        tolerate(name, fs.setxattr(caller, node, name, value, 0))?;
    }
    for (name, _) in now.iter().filter(|(name, _)| wanted.get(name).is_none()) {
        // What the system itself gives it stays.
        if name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") {
            fs.removexattr(caller, node, name)?;
        }
    }
    Ok(())
}

/// What this filesystem has no place for is left out.
fn tolerate(name: &[u8], set: Result<(), Errno>) -> Result<(), Errno> {
    match set {
        Err(error @ (Errno::OPNOTSUPP | Errno::INVAL)) if !name.starts_with(b"user.") => {
            let name = String::from_utf8_lossy(name);
            tracing::warn!(%error, %name, "an attribute cannot be restored here");
            Ok(())
        }
        result => result,
    }
}
