//! Acting as the caller for the length of one system call.
//!
//! Owns the switch of a thread's effective user and group. The capabilities stay: who may do what
//! was already decided by the kernel on the FUSE side (`default_permissions`), with all of the
//! caller's groups, which FUSE does not tell us; a second check here could only refuse wrongly.

use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Errno;
use crate::types::Caller;

/// A thread that acts as another user until this is dropped.
///
/// Inodes made meanwhile belong to that user. It is bound to its thread and cannot be sent.
#[must_use]
#[derive(Debug)]
pub struct AsCaller {
    switched: bool,
    _thread: std::marker::PhantomData<*const ()>,
}

impl AsCaller {
    /// Makes this thread act as `caller`; does nothing where the daemon is not root, since then
    /// it has only its own files to give.
    ///
    /// # Errors
    /// The kernel's, with the old identity restored.
    pub fn become_caller(caller: Caller) -> Result<Self, Errno> {
        let daemon = rustix::process::geteuid();
        let same = caller.uid == 0 && caller.gid == rustix::process::getegid().as_raw();
        if !daemon.is_root() || same {
            return Ok(Self {
                switched: false,
                _thread: std::marker::PhantomData,
            });
        }
        let guard = Self {
            switched: true,
            _thread: std::marker::PhantomData,
        };
        // The group first: after the user has changed, it could no longer be set.
        set_thread_res_gid(None, Some(Gid::from_raw(caller.gid)), None)?;
        set_thread_res_uid(None, Some(Uid::from_raw(caller.uid)), None)?;
        raise_effective(CapabilitySet::empty())?;
        Ok(guard)
    }
}

impl Drop for AsCaller {
    fn drop(&mut self) {
        if !self.switched {
            return;
        }
        // Going back to 0 raises the effective capabilities again. The real and saved ids never
        // changed, so neither call can be refused.
        let user = set_thread_res_uid(None, Some(Uid::ROOT), None);
        let group = set_thread_res_gid(None, Some(rustix::process::getgid()), None);
        if user.is_err() || group.is_err() {
            // Serving others with one caller's identity would be a security hole.
            tracing::error!("cannot return to the daemon's identity, stopping");
            std::process::abort();
        }
    }
}

/// A thread without `CAP_FSETID` until this is dropped, so that the backing filesystem clears
/// setuid and setgid on a write, as it does for an ordinary writer.
#[must_use]
#[derive(Debug)]
pub struct WithoutFsetid(std::marker::PhantomData<*const ()>);

impl WithoutFsetid {
    /// Drops the capability from the effective set of this thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter() -> Result<Self, Errno> {
        raise_effective(CapabilitySet::FSETID)?;
        Ok(Self(std::marker::PhantomData))
    }
}

impl Drop for WithoutFsetid {
    fn drop(&mut self) {
        // Raising what is permitted cannot be refused; without it only suid handling would differ.
        let _ = raise_effective(CapabilitySet::empty());
    }
}

/// Sets the effective capabilities of this thread to all permitted ones but `without`.
fn raise_effective(without: CapabilitySet) -> Result<(), Errno> {
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted - without;
    set_capabilities(None, sets)
}

/// Gives this thread the identity of an ordinary user for good: ids, groups and no capabilities.
///
/// For threads that only check what a user may read. The thread cannot come back.
///
/// # Errors
/// The kernel's; the thread must then not be used.
pub fn become_user_for_good(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(Some(gid), Some(gid), Some(gid))?;
    set_thread_res_uid(Some(uid), Some(uid), Some(uid))
}
