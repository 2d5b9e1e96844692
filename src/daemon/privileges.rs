//! What the daemon may do where it runs as root.
//!
//! Owns the list of its capabilities. Everything else goes before the first thread is started, and what it starts
//! would have none. On ZFS there is one thread before that, which runs the `zfs` command and nothing else, and what
//! that starts has the one right without which it could do nothing. As another user the daemon has no more than
//! that user; there it must be able to start `fusermount3`, which has its rights from its file.

use rustix::thread::CapabilitySet as Caps;

use crate::sys::privileges;

/// Every capability of the daemon, and what it is for.
pub const CAPABILITIES: [(Caps, &str); 13] = [
    (Caps::CHOWN, "gives files that it makes or brings back to their owners"),
    (Caps::DAC_OVERRIDE, "acts for callers about whom the kernel has decided already"),
    (Caps::DAC_READ_SEARCH, "opens files by handles"),
    (Caps::FOWNER, "changes modes, times and ACLs for those whom the kernel lets"),
    (Caps::FSETID, "keeps setuid and setgid for those who may"),
    (Caps::SETUID, "acts as the caller, so that files and quotas are the caller's"),
    (Caps::SETGID, "acts in the groups of the caller"),
    (Caps::SYS_ADMIN, "mounts and unmounts, kernel passthrough, trusted attributes"),
    (Caps::SYS_PTRACE, "sees which capabilities of a caller count here"),
    (Caps::SYS_RESOURCE, "gives root what is reserved for root on a full disk or beyond quotas"),
    (Caps::MKNOD, "makes device nodes"),
    (Caps::LEASE, "asks the kernel whether somebody can still write to a file"),
    (Caps::SETFCAP, "sets file capabilities"),
];

/// Gives up everything else, before threads are started.
///
/// What cannot be given up stays and is told: a mount that serves with too many rights is better than
/// none.
pub(super) fn drop_unneeded() {
    privileges::create_privately();
    if rustix::process::geteuid().is_root() {
        let needed = CAPABILITIES.iter().fold(Caps::empty(), |all, (one, _)| all | *one);
        if let Err(error) = privileges::keep_only(needed, Caps::empty()) {
            tracing::warn!(%error, "the daemon keeps rights that it does not need");
        }
        if let Err(error) = privileges::hide_memory() {
            tracing::warn!(%error, "a crash may write out the memory of the daemon");
        }
    }
}

/// Gives up, in the thread that runs programs, what those don't need.
pub(super) fn drop_unneeded_for_programs() {
    privileges::create_privately();
    if rustix::process::geteuid().is_root()
        && let Err(error) = privileges::keep_only(Caps::SYS_ADMIN, Caps::SYS_ADMIN)
    {
        tracing::warn!(%error, "programs have rights that they do not need");
    }
}
