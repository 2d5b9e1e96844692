//! The process itself: descriptor limit, umask and priority per thread, and who called.
//!
//! Owns the process-wide and thread-wide set-up that a passthrough daemon needs, and reading the
//! name of a caller from `/proc`.
#![expect(
    unsafe_code,
    reason = "unshare(CLONE_FS), ioprio_set, SO_PEERCRED, SO_PEERGROUPS and what is done between fork and \
              exec have no safe wrapper"
)]

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use lru::LruCache;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Errno;
use super::creds::{Actor, Identity};
use crate::types::{Caller, Name, Writer};

/// Raises the soft limit of open files to the hard one and returns it.
///
/// It also makes the kernel grow the descriptor table now: later each doubling would stop all
/// threads for an RCU grace period (measured: CREATE 14 µs instead of 3.4).
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let hard = limit.maximum.or(limit.current).unwrap_or(1024);
    let raised =
        setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: limit.maximum });
    let now = if raised.is_ok() { hard } else { limit.current.unwrap_or(1024) };
    let top = i32::try_from(now.min(65_536) - 1).unwrap_or(1023);
    if let Ok(file) = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        // A failure only leaves the table small.
        let _ = rustix::io::fcntl_dupfd_cloexec(&file, top);
    }
    now
}

/// The kernel's name for this boot of the machine.
///
/// # Errors
/// The kernel's.
pub fn boot_id() -> Result<String, Errno> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Has a program that is about to be started end when the thread ends that starts it, however that ends.
pub fn end_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let set = || {
        let signal = Some(rustix::process::Signal::TERM);
        rustix::process::set_parent_process_death_signal(signal).map_err(Into::into)
    };
    // SAFETY: between fork and exec this makes one system call and takes no memory and no lock.
    unsafe { command.pre_exec(set) };
}

/// Whose requests come first at the disk.
///
/// The schedulers BFQ and, since Linux 5.14, mq-deadline heed it. `none` and Kyber do not, and neither do
/// filesystems that queue by themselves, as ZFS, or lie on other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoPriority {
    /// As its nice value has it.
    Normal,
    /// After those of everybody else.
    Idle,
}

/// Sets the priority at the disk of this thread alone.
///
/// # Errors
/// The kernel's.
pub fn set_io_priority(priority: IoPriority) -> Result<(), Errno> {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_SHIFT: u32 = 13;
    let class: libc::c_int = match priority {
        IoPriority::Normal => 0,
        IoPriority::Idle => 3,
    };
    // SAFETY: it takes three numbers and touches no memory; 0 is the calling thread.
    let result =
        unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, class << CLASS_SHIFT) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

thread_local! {
    /// The umask of this thread once it has its own; `None` before.
    static UMASK: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Sets the umask of this thread alone, so that the backing filesystem applies the caller's: with
/// a default ACL on the directory the umask must not count, and only the filesystem knows.
///
/// # Errors
/// The kernel's, if the thread cannot get a umask of its own.
pub fn set_thread_umask(umask: u32) -> Result<(), Errno> {
    let current = UMASK.get();
    if current.is_none() {
        // SAFETY: CLONE_FS gives this thread its own umask, root and working directory; nothing
        // in this process relies on sharing them between threads.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FS)? };
    }
    if current != Some(umask) {
        rustix::process::umask(Mode::from_raw_mode(umask & 0o777));
        UMASK.set(Some(umask));
    }
    Ok(())
}

/// Who connected at the other end of a Unix socket.
///
/// # Errors
/// The kernel's.
pub fn peer(socket: BorrowedFd<'_>) -> Result<Actor, Errno> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut bytes = libc::socklen_t::try_from(size_of_val(&peer)).map_err(|_| Errno::RANGE)?;
    // SAFETY: `peer` has `bytes` bytes, any of which make a `ucred`, and both pointers live across the
    // call. The wrapper of rustix has a type that cannot be 0, which a process is that is not seen
    // from here.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    }
    let groups = peer_groups(socket)?;
    let identity = Identity { uid: peer.uid, gid: peer.gid, groups };
    Ok(Actor { identity, pid: u32::try_from(peer.pid).unwrap_or(0) })
}

/// The supplementary groups of the process at the other end of a Unix socket.
fn peer_groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(groups.len() * 4).map_err(|_| Errno::RANGE)?;
        // SAFETY: the buffer has `bytes` bytes, and both pointers live across the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / 4;
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        match Errno::from_io_error(&std::io::Error::last_os_error()) {
            Some(Errno::RANGE) if count > groups.len() => groups.resize(count, 0),
            other => return Err(other.unwrap_or(Errno::IO)),
        }
    }
}

/// What of a caller decides beyond its ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Primary and supplementary groups.
    pub groups: Vec<u32>,
    /// The caller has `CAP_FSETID` here: it may keep setuid and setgid on a file that it changes.
    pub fsetid: bool,
    /// The caller has `CAP_SYS_ADMIN` here.
    pub sys_admin: bool,
}

/// Asks what `caller` is besides the ids that came with its call. Of one that is gone, or cannot be
/// seen from here, only those are known.
pub fn rights(caller: Caller) -> Rights {
    use rustix::thread::CapabilitySet as Caps;
    let root = caller.uid == 0;
    let known = Rights { groups: vec![caller.gid], fsetid: root, sys_admin: root };
    if caller.pid == 0 {
        return known;
    }
    let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", caller.pid)) else {
        return known;
    };
    let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
    let more = line("Groups:").unwrap_or_default().split_whitespace();
    let groups = known.groups.iter().copied().chain(more.filter_map(|gid| gid.parse().ok()));
    let capable = line("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    // Capabilities in a namespace of users say nothing of files outside.
    let effective = match capable {
        Some(set) if shares_our_users(caller.pid) => Caps::from_bits_retain(set),
        _ => Caps::empty(),
    };
    Rights {
        groups: groups.collect(),
        fsetid: effective.contains(Caps::FSETID),
        sys_admin: effective.contains(Caps::SYS_ADMIN),
    }
}

fn shares_our_users(pid: u32) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).ok();
    namespace(&pid.to_string()) == namespace("self")
}

/// Gives up the supplementary groups that whoever started the daemon had: they would count as
/// the caller's. Must be called before other threads are started; does nothing without the right.
pub fn leave_groups() {
    if let Err(error) = rustix::thread::set_thread_groups(&[]) {
        tracing::debug!(%error, "the supplementary groups stay");
    }
}

/// What a thread remembers of a caller: the descriptor of `/proc/PID/comm` stays with the process,
/// so one `pread` gives its name as of now, also after an `exec`, and fails once it is gone.
struct Known {
    pid: u32,
    comm: OwnedFd,
}

thread_local! {
    static KNOWN: std::cell::RefCell<LruCache<u32, Known>> = std::cell::RefCell::new(
        LruCache::new(NonZeroUsize::new(32).expect("32 is not zero")),
    );
}

/// Captures who `caller` is. Unknown parts stay 0 or empty: a change is never refused for it.
pub fn writer(caller: Caller) -> Writer {
    let (pid, comm) = KNOWN.with_borrow_mut(|known| {
        if let Some(entry) = known.get(&caller.pid)
            && let Some(comm) = read_comm(&entry.comm)
        {
            return (entry.pid, comm);
        }
        let Some(entry) = open_process(caller.pid) else {
            known.pop(&caller.pid);
            return (caller.pid, Name::default());
        };
        let comm = read_comm(&entry.comm).unwrap_or_default();
        let pid = entry.pid;
        known.put(caller.pid, entry);
        (pid, comm)
    });
    Writer { uid: caller.uid, gid: caller.gid, pid, comm }
}

/// FUSE names the calling thread; people know the process.
fn open_process(thread: u32) -> Option<Known> {
    if thread == 0 {
        return None;
    }
    let status = std::fs::read(format!("/proc/{thread}/status")).ok()?;
    let pid = status
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))
        .and_then(|value| std::str::from_utf8(value).ok())
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(thread);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let comm = rustix::fs::open(format!("/proc/{pid}/comm"), flags, Mode::empty()).ok()?;
    Some(Known { pid, comm })
}

fn read_comm(fd: &OwnedFd) -> Option<Name> {
    let mut buffer = [0u8; 64];
    let length = rustix::io::pread(fd, &mut buffer, 0).ok().filter(|n| *n > 0)?;
    Some(buffer[..length].strip_suffix(b"\n").unwrap_or(&buffer[..length]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_known_by_its_process_name() {
        let pid = std::process::id();
        let me = writer(Caller { uid: 1, gid: 2, pid });
        assert_eq!((me.uid, me.gid, me.pid), (1, 2, pid));
        let expected = std::fs::read("/proc/self/comm").unwrap();
        assert_eq!(&*me.comm, expected.strip_suffix(b"\n").unwrap());
        assert_eq!(writer(Caller { uid: 1, gid: 2, pid: 0 }).comm.len(), 0);
    }

    #[test]
    fn a_peer_is_who_connected() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = peer(std::os::fd::AsFd::as_fd(&one)).unwrap();
        drop(other);
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.identity.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.identity.gid, rustix::process::getegid().as_raw());
        let groups = rustix::process::getgroups().unwrap();
        assert_eq!(peer.identity.groups, groups.iter().map(|g| g.as_raw()).collect::<Vec<_>>());
    }

    #[test]
    fn rights_are_those_of_the_process() {
        let caller = Caller { uid: 7, gid: 8, pid: std::process::id() };
        let mine = rights(caller);
        assert_eq!(mine.groups[0], 8);
        let others = rustix::process::getgroups().unwrap();
        assert_eq!(mine.groups[1..], others.iter().map(|g| g.as_raw()).collect::<Vec<_>>());
        let capable = rustix::thread::capabilities(None).unwrap().effective;
        assert_eq!(mine.fsetid, capable.contains(rustix::thread::CapabilitySet::FSETID));
        let unseen = Rights { groups: vec![8], fsetid: false, sys_admin: false };
        assert_eq!(rights(Caller { pid: 0, ..caller }), unseen);
    }

    #[test]
    fn a_thread_counts_as_its_process() {
        std::thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
            assert_eq!(writer(Caller { uid: 0, gid: 0, pid: tid }).pid, std::process::id());
        })
        .join()
        .unwrap();
    }
}
