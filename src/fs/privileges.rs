//! Setuid, setgid, file capabilities, and the space that is left for root.
//!
//! Owns who a change of a file is made as. Whether a caller may make it the kernel has decided; what
//! a change does beyond that depends on who makes it: an ordinary user takes setuid and setgid from
//! a file with the content, and may go neither over quotas nor into reserved blocks. So the thread
//! is that user meanwhile, and the backing filesystem does as it always does.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::Mode;

use super::Fs;
use super::node::Node;
use super::seal::Times;
use crate::sys::creds::{AsCaller, Privileges};
use crate::sys::{Errno, process, stat};
use crate::types::{Attr, Caller, Kind};

const GRANTS: u32 = libc::S_ISUID | libc::S_ISGID;

/// Whether a change of the content by an ordinary user must take something from the mode.
pub(super) fn grants(attr: &Attr) -> bool {
    attr.kind == Kind::File && attr.mode & GRANTS != 0
}

/// What is to become of the privileges of a file that `caller` changes.
fn privileges(caller: Caller, attr: &Attr) -> Privileges {
    if !grants(attr) {
        return Privileges::Keep;
    }
    let rights = process::rights(caller);
    if rights.fsetid { Privileges::Keep } else { Privileges::Take(rights.groups) }
}

/// Makes this thread change the content or the owner of a file as `caller` would.
pub(super) fn as_writer(caller: Caller, file: impl AsFd) -> Result<AsCaller, Errno> {
    Ok(Writing::begin(caller, file)?.as_whom)
}

/// Who writes to a file, and what of it the kernel has to hear.
pub(super) struct Writing {
    as_whom: AsCaller,
    takes_privileges: bool,
}

impl Writing {
    /// Makes this thread one that writes to a file as `caller` would.
    pub(super) fn begin(caller: Caller, file: impl AsFd) -> Result<Self, Errno> {
        Self::with(caller.uid, &privileges(caller, &stat::fstat(file)?.attr))
    }

    /// The same for somebody who keeps privileges.
    pub(super) fn begin_privileged(uid: u32) -> Result<Self, Errno> {
        Self::with(uid, &Privileges::Keep)
    }

    fn with(uid: u32, privileges: &Privileges) -> Result<Self, Errno> {
        let takes_privileges = *privileges != Privileges::Keep;
        Ok(Self { as_whom: AsCaller::to_change(uid, privileges)?, takes_privileges })
    }

    /// Ends it, before the call is answered: nobody may execute the new content by a mode that the
    /// kernel remembers.
    pub(super) fn end(self, fs: &Fs, node: &Node) {
        drop(self.as_whom);
        if self.takes_privileges
            && let Some(transport) = fs.transport.get()
        {
            transport.forget_attributes(node.id);
        }
    }
}

/// Makes this thread one that has no more space than `caller` has.
pub(super) fn within_limits(caller: Caller) -> Result<AsCaller, Errno> {
    AsCaller::to_change(caller.uid, &Privileges::Keep)
}

impl Fs {
    /// Takes setuid and setgid from a file that is about to be changed without us.
    ///
    /// The kernel asks for it by a change of attributes that changes none, before a write by
    /// passthrough and before calls on ranges, where the caller may not keep them. The same comes
    /// of a `chown` to nobody, which is for the owner.
    ///
    /// # Errors
    /// `EPERM` for who neither writes nor owns the file; the backing filesystem's.
    pub(super) fn take_privileges(&self, caller: Caller, node: &Arc<Node>) -> Result<(), Errno> {
        let fd = self.path_fd(node)?;
        let attr = stat::fstat(&fd)?.attr;
        if !grants(&attr) {
            return Ok(());
        }
        let rights = process::rights(caller);
        let member = rights.fsetid || rights.groups.contains(&attr.gid);
        let mut mode = attr.mode & !libc::S_ISUID;
        if attr.mode & libc::S_IXGRP != 0 || !member {
            mode &= !libc::S_ISGID;
        }
        if mode == attr.mode {
            return Ok(());
        }
        let writes = node.peek_open(|open| open.has_writers(None)) == Some(true);
        if !writes && caller.uid != 0 && caller.uid != attr.uid {
            return Err(Errno::PERM);
        }
        let writer = Self::writer(caller);
        let _tree = self.tree.read();
        self.ensure_known(node);
        let chmod = || rustix::fs::chmod(stat::proc_name(&fd), Mode::from_raw_mode(mode));
        self.change_inode(node, &fd, Times::Kept, chmod, |attr, ()| {
            self.push_attr(node, attr, None, writer);
        })
    }
}
