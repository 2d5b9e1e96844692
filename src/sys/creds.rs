//! Acting as the caller for the length of one system call.
//!
//! Owns the switch of a thread's effective user and groups. Most capabilities stay: who may do what
//! was already decided by the kernel on the FUSE side (`default_permissions`), with all of the
//! caller's groups, which FUSE does not tell us; a second check here could only refuse wrongly.
//! Those go that nobody checked: to keep setuid on a changed file, and to go beyond quotas.

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Errno;
use crate::types::Caller;

/// A thread that acts as another user until this is dropped.
///
/// It is bound to its thread and cannot be sent. The daemon's right to go beyond quotas and into
/// reserved space is root's alone: nobody else acts with it.
#[must_use]
#[derive(Debug)]
pub struct AsCaller {
    changed: Changed,
    has_groups: bool,
    _thread: std::marker::PhantomData<*const ()>,
}

/// What of a thread is to be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    Nothing,
    /// Still root, but in another group or without a capability.
    Root,
    User,
}

/// What becomes of setuid and setgid when somebody changes a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Privileges {
    /// They stay, as for root.
    Keep,
    /// They go as for an ordinary user with these groups, the primary one first: setgid without the
    /// right to execute stays for members.
    Take(Vec<u32>),
}

impl AsCaller {
    /// Makes this thread act as `caller`, so that inodes made meanwhile are the caller's; does
    /// nothing where the daemon is not root, since then it has only its own files to give.
    ///
    /// # Errors
    /// The kernel's, with the old identity restored.
    pub fn become_caller(caller: Caller) -> Result<Self, Errno> {
        Self::switch(caller.uid, &[caller.gid], CapabilitySet::empty())
    }

    /// Makes this thread one that has no more space than the user and treats setuid and setgid as is
    /// said.
    ///
    /// # Errors
    /// As [`AsCaller::become_caller`].
    pub fn to_change(uid: u32, privileges: &Privileges) -> Result<Self, Errno> {
        match privileges {
            Privileges::Keep => Self::switch(uid, &[], CapabilitySet::empty()),
            Privileges::Take(groups) => Self::switch(uid, groups, CapabilitySet::FSETID),
        }
    }

    fn switch(uid: u32, groups: &[u32], mut without: CapabilitySet) -> Result<Self, Errno> {
        let has_groups = groups.len() > 1;
        let this = |changed| Self { changed, has_groups, _thread: std::marker::PhantomData };
        let primary = groups.first().copied();
        let gid = primary.filter(|gid| *gid != rustix::process::getegid().as_raw());
        let nothing = uid == 0 && gid.is_none() && without.is_empty();
        if nothing || !rustix::process::geteuid().is_root() {
            return Ok(this(Changed::Nothing));
        }
        let guard = this(if uid == 0 { Changed::Root } else { Changed::User });
        // The groups first: after the user has changed, they could no longer be set.
        if has_groups {
            let groups: Vec<_> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            set_thread_groups(&groups)?;
        }
        if let Some(gid) = gid {
            set_thread_res_gid(None, Some(Gid::from_raw(gid)), None)?;
        }
        if uid != 0 {
            set_thread_res_uid(None, Some(Uid::from_raw(uid)), None)?;
            without |= CapabilitySet::SYS_RESOURCE;
        }
        raise_effective(without)?;
        Ok(guard)
    }
}

impl Drop for AsCaller {
    fn drop(&mut self) {
        if self.changed == Changed::Nothing {
            return;
        }
        // The real and saved ids never changed, so nothing here can be refused.
        let user = match self.changed {
            // Going back to 0 raises the effective capabilities again.
            Changed::User => set_thread_res_uid(None, Some(Uid::ROOT), None),
            _ => raise_effective(CapabilitySet::empty()),
        };
        let group = set_thread_res_gid(None, Some(rustix::process::getgid()), None);
        // The daemon has none.
        let groups = if self.has_groups { set_thread_groups(&[]) } else { Ok(()) };
        if user.is_err() || group.is_err() || groups.is_err() {
            // Serving others with one caller's identity would be a security hole.
            tracing::error!("cannot return to the daemon's identity, stopping");
            std::process::abort();
        }
    }
}

/// Sets the effective capabilities of this thread to all permitted ones but `without`.
fn raise_effective(without: CapabilitySet) -> Result<(), Errno> {
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted - without;
    set_capabilities(None, sets)
}

/// The ids and groups by which the kernel decides what somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Somebody who asks by another way than the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// What the kernel decides by.
    pub identity: Identity,
    /// The process; 0 where it is not known.
    pub pid: u32,
}

impl Actor {
    /// Whether the kernel's decisions are not needed: it is root, or whom the daemon runs as.
    pub fn is_privileged(&self) -> bool {
        self.identity.uid == 0 || self.identity.uid == rustix::process::geteuid().as_raw()
    }

    /// The same as a caller of the mount.
    pub fn caller(&self) -> Caller {
        Caller { uid: self.identity.uid, gid: self.identity.gid, pid: self.pid }
    }
}

/// A thread that may do what an ordinary user may, and no more, until this is dropped.
///
/// Only the effective ids change, and the capabilities go with them: a thread whose real or saved
/// id were the user's could be killed by that user, and the whole daemon with it.
#[must_use]
#[derive(Debug)]
pub struct AsUser {
    groups: Vec<Gid>,
    _thread: std::marker::PhantomData<*const ()>,
}

impl AsUser {
    /// Makes this thread of a root daemon act as `user`.
    ///
    /// # Errors
    /// The kernel's, with the old identity restored; `EPERM` where the daemon is not root.
    pub fn become_user(user: &Identity) -> Result<Self, Errno> {
        if !rustix::process::geteuid().is_root() {
            return Err(Errno::PERM);
        }
        let groups = rustix::process::getgroups()?;
        let theirs: Vec<Gid> = user.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        let guard = Self { groups, _thread: std::marker::PhantomData };
        set_thread_groups(&theirs)?;
        set_thread_res_gid(None, Some(Gid::from_raw(user.gid)), None)?;
        // Last, since it takes the right to the other two.
        set_thread_res_uid(None, Some(Uid::from_raw(user.uid)), None)?;
        Ok(guard)
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        // Real and saved ids never changed, so none of these can be refused.
        let user = set_thread_res_uid(None, Some(Uid::ROOT), None);
        let group = set_thread_res_gid(None, Some(rustix::process::getgid()), None);
        let groups = set_thread_groups(&self.groups);
        if user.is_err() || group.is_err() || groups.is_err() {
            tracing::error!("cannot return to the daemon's identity, stopping");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65_534;

    fn nobody() -> Option<AsUser> {
        let user = Identity { uid: NOBODY, gid: NOBODY, groups: Vec::new() };
        match AsUser::become_user(&user) {
            Ok(guard) => Some(guard),
            Err(Errno::PERM) => {
                eprintln!("SKIPPED: not root");
                None
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_user_cannot_read_what_is_private_to_root() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
        let Some(guard) = nobody() else { return };
        let refused = std::fs::File::open(file.path());
        drop(guard);
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        assert!(std::fs::File::open(file.path()).is_ok());
    }

    #[test]
    fn a_thread_that_acts_as_a_user_cannot_be_signalled_by_that_user() {
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        let Some(guard) = nobody() else { return };
        let child = std::thread::spawn(move || {
            std::process::Command::new("kill")
                .args(["-0", &thread])
                .uid(NOBODY)
                .gid(NOBODY)
                .output()
        });
        let killed = child.join().unwrap();
        drop(guard);
        // Without a `kill` program there is nothing to try with.
        if let Ok(output) = killed {
            assert!(!output.status.success());
        }
    }
}
