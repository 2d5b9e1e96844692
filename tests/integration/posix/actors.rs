//! Who does something in a test: threads of the test itself that act as other users.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user with no name, its own group, and one more.
pub(crate) const USER: u32 = 61_234;
/// The group that [`USER`] has beside its own.
pub(crate) const GROUP: u32 = 61_777;
/// Another user.
pub(crate) const OTHER: u32 = 61_235;

/// What a thread is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Actor {
    /// User, and primary group unless that is given.
    pub(crate) uid: u32,
    /// Supplementary groups.
    pub(crate) groups: &'static [u32],
    /// Capabilities that root does without.
    pub(crate) without: CapabilitySet,
}

/// Root with everything that root may do.
pub(crate) const ROOT: Actor = Actor { uid: 0, groups: &[], without: CapabilitySet::empty() };

/// An ordinary user with [`GROUP`].
pub(crate) const fn user(uid: u32) -> Actor {
    Actor { uid, groups: &[GROUP], without: CapabilitySet::empty() }
}

/// An ordinary user in no group but the own.
pub(crate) const fn loner(uid: u32) -> Actor {
    Actor { uid, groups: &[], without: CapabilitySet::empty() }
}

/// Root without some capabilities.
pub(crate) const fn root_without(without: CapabilitySet) -> Actor {
    Actor { uid: 0, groups: &[], without }
}

impl Actor {
    /// Does something as this actor, on a thread of its own.
    pub(crate) fn does<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let act = || {
            self.become_it();
            work()
        };
        std::thread::scope(|scope| scope.spawn(act).join()).unwrap()
    }

    fn become_it(self) {
        let groups: Vec<_> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        set_thread_groups(&groups).unwrap();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.uid));
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        if !self.without.is_empty() {
            let mut sets = capabilities(None).unwrap();
            sets.effective -= self.without;
            sets.permitted -= self.without;
            set_capabilities(None, sets).unwrap();
        }
    }
}

/// The mode of a file, with what it is, and its owner. The mode is asked for alone, so that the kernel
/// answers by what it remembers, as it does when it executes a file.
pub(crate) fn mode_of(path: &Path) -> String {
    let ask = |what| rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, what);
    let mode = ask(StatxFlags::TYPE | StatxFlags::MODE);
    match (mode, ask(StatxFlags::UID | StatxFlags::GID)) {
        (Ok(mode), Ok(owner)) => {
            format!("{:o} {}:{}", mode.stx_mode, owner.stx_uid, owner.stx_gid)
        }
        (mode, owner) => format!("{:?} {:?}", mode.err(), owner.err()),
    }
}
