//! What this process may do, what it has from whoever started it, and what others see of it.
//!
//! Owns the ways to have less of each. They work on the calling thread or the whole process, and what
//! a thread has is what those get that it starts: all of this comes before other threads. Nothing
//! here can be taken back, and a crash leaves nothing.
#![expect(unsafe_code, reason = "descriptors that nobody owns are closed by their numbers")]

use std::os::fd::RawFd;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::Errno;

/// Leaves the calling thread these capabilities, as far as it has them, and programs that it starts as root
/// those of them that are `passed_on`, whatever they are.
///
/// # Errors
/// The kernel's. Every step is tried, and the first error counts.
pub fn keep_only(needed: CapabilitySet, passed_on: CapabilitySet) -> Result<(), Errno> {
    let no_new = set_no_new_privs(true);
    let ambient = clear_ambient_capability_set();
    // While there is the right to: the next step takes it.
    let bounding = limit_bounding_set(passed_on & needed);
    let sets = capabilities(None).and_then(|sets| {
        let kept = sets.permitted & needed;
        let inheritable = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
    });
    no_new.and(ambient).and(bounding).and(sets)
}

fn limit_bounding_set(to: CapabilitySet) -> Result<(), Errno> {
    let each = (0..u64::BITS).map(|number| CapabilitySet::from_bits_retain(1 << number));
    for capability in each.filter(|capability| !to.contains(*capability)) {
        match remove_capability_from_bounding_set(capability) {
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Has the kernel write the memory of this process nowhere when it crashes, and show it only to who
/// may trace everything.
///
/// A switch of the effective user puts `fs.suid_dumpable` in the place of the first; the limit then
/// stands for it.
///
/// # Errors
/// The kernel's.
pub fn hide_memory() -> Result<(), Errno> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Makes what this process creates its owner's alone, unless it says otherwise.
pub fn create_privately() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Closes what whoever started this program has left open, but stdin, stdout and stderr.
///
/// To be called before anything is opened, once.
pub fn close_inherited() {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    let numbers: Vec<RawFd> = open.flatten().filter_map(number).collect();
    for fd in numbers.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: the caller has nothing open yet, so nothing in this process owns the descriptor;
        // the one of the directory is closed, and the kernel says so.
        unsafe { libc::close(fd) };
    }
}
