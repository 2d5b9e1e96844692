//! Reading files for their digests, now or in the background.
//!
//! Owns the small pool of threads that follow lazy seals. A digest is taken only of a file that did not
//! change while it was read; one that keeps changing gets none.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use super::pending::{PATIENCE, Waiting};
use crate::catalog::event::Prefix;
use crate::metrics::metrics;
use crate::sys::{Errno, stat};
use crate::types::{Attr, ContentHash, Stamp};

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// After so many bytes it is looked whether they are still worth reading.
const LEG: u64 = 64 << 20;

/// No file with more holes is read: what this many take a core is more than half an hour, and a file may
/// have holes of exbibytes.
const MAX_HOLES: u64 = 4 << 40;

/// Whether a file can be read to its end in this life, going by what is allocated of it.
pub(super) fn is_readable(attr: &Attr) -> bool {
    attr.size.saturating_sub(attr.blocks.saturating_mul(512)) <= MAX_HOLES
}

/// The hash of a file's content from its start to `length`, at which point it had `stamp`.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    pub(super) hasher: Sha256,
    pub(super) length: u64,
    pub(super) stamp: Stamp,
    /// What it began with before somebody appended to it.
    pub(super) beginning: Option<Prefix>,
}

impl Tail {
    /// What somebody who appends begins with.
    pub(super) fn into_beginning(self) -> Self {
        let beginning = (self.length > 0).then(|| self.as_prefix());
        Self { beginning, ..self }
    }

    fn as_prefix(&self) -> Prefix {
        Prefix { size: self.length, hash: self.digest() }
    }

    pub(super) fn digest(&self) -> ContentHash {
        self.hasher.clone().into()
    }
}

/// The result of reading a whole file.
pub(super) enum Reading {
    /// The content, and the attributes it had before and after.
    Stable(Box<(Tail, Attr)>),
    /// The file changed while it was read, is [nearly all hole](is_readable), or was not to be read any
    /// more.
    Torn,
}

/// Reads a file to its end, from the end of `prefix` if that is given, unless `enough`, which hears
/// of the bytes as they are read, says meanwhile that nobody wants it any more.
///
/// # Errors
/// The backing filesystem's.
pub(super) fn read_digest(
    fd: BorrowedFd<'_>,
    prefix: Option<&Tail>,
    enough: &dyn Fn(u64) -> bool,
) -> Result<Reading, Errno> {
    let before = stat::fstat(fd)?.attr;
    if !is_readable(&before) {
        return Ok(Reading::Torn);
    }
    let (mut hasher, mut offset) = match prefix {
        Some(tail) => (tail.hasher.clone(), tail.length),
        None => (Sha256::new(), 0),
    };
    let room = usize::try_from(before.size.saturating_sub(offset) + 1).unwrap_or(CHUNK);
    let mut buffer = vec![0u8; room.min(CHUNK)];
    loop {
        let n = retry_on_intr(|| rustix::io::pread(fd, &mut buffer[..], offset))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        metrics().reread_bytes.inc_by(n as u64);
        offset += n as u64;
        if enough(n as u64)
            || (offset % LEG < n as u64 && before.stamp() != stat::fstat(fd)?.attr.stamp())
        {
            return Ok(Reading::Torn);
        }
    }
    let after = stat::fstat(fd)?.attr;
    if before.stamp() != after.stamp() || offset != after.size {
        return Ok(Reading::Torn);
    }
    let beginning = prefix.and_then(|tail| tail.beginning);
    let tail = Tail { hasher, length: offset, stamp: after.stamp(), beginning };
    Ok(Reading::Stable(Box::new((tail, after))))
}

/// A whole content.
pub(super) struct Whole {
    pub(super) tail: Tail,
    pub(super) attr: Attr,
}

/// Reads a file as [`read_digest`] does, with the digest of its first `mark` bytes beside that of the whole,
/// unless the prefix knows what it began with.
///
/// # Errors
/// The backing filesystem's.
pub(super) fn read_marked(
    fd: BorrowedFd<'_>,
    prefix: Option<&Tail>,
    mark: Option<u64>,
    enough: &dyn Fn(u64) -> bool,
) -> Result<Option<Whole>, Errno> {
    let before = stat::fstat(fd)?.attr;
    if !is_readable(&before) {
        return Ok(None);
    }
    let before = before.stamp();
    let first = match (prefix, mark.filter(|mark| *mark > 0)) {
        (None, Some(mark)) => read_beginning(fd, mark, enough)?.map(Tail::into_beginning),
        _ => None,
    };
    match read_digest(fd, first.as_ref().or(prefix), enough)? {
        // Both parts must be of the same content.
        Reading::Stable(read) if read.1.stamp() == before => {
            let (tail, attr) = *read;
            Ok(Some(Whole { tail, attr }))
        }
        Reading::Stable(_) | Reading::Torn => Ok(None),
    }
}

fn read_beginning(
    fd: BorrowedFd<'_>,
    length: u64,
    enough: &dyn Fn(u64) -> bool,
) -> Result<Option<Tail>, Errno> {
    let (mut hasher, mut offset) = (Sha256::new(), 0);
    let mut buffer = vec![0u8; CHUNK];
    while offset < length {
        let room = usize::try_from(length - offset).unwrap_or(CHUNK).min(CHUNK);
        let n = retry_on_intr(|| rustix::io::pread(fd, &mut buffer[..room], offset))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
        metrics().reread_bytes.inc_by(n as u64);
        offset += n as u64;
        if enough(n as u64) {
            return Ok(None);
        }
    }
    let whole = offset == length;
    Ok(whole.then(|| Tail { hasher, length, stamp: Stamp::default(), beginning: None }))
}

/// Opens a file for reading by a descriptor that may not be able to, also after it was unlinked.
///
/// # Errors
/// The backing filesystem's.
pub(super) fn open_to_read(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    untimed(flags, |flags| rustix::fs::open(stat::proc_name(&fd), flags, Mode::empty()))
}

/// Opens something for the catalog alone: that it is read must not show in its access time.
///
/// # Errors
/// Those of `open`.
pub(super) fn untimed(
    flags: OFlags,
    open: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    match open(flags | OFlags::NOATIME) {
        // O_NOATIME is for owners.
        Err(Errno::PERM) => open(flags),
        result => result,
    }
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Outstanding {
    next: u64,
    jobs: BTreeSet<u64>,
}

/// The threads that read in the background.
pub(super) struct Hashers {
    queue: Mutex<Option<mpsc::Sender<(u64, Job)>>>,
    outstanding: Arc<(Mutex<Outstanding>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    waiting: Waiting,
    stopping: OnceLock<Instant>,
}

impl std::fmt::Debug for Hashers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hashers")
    }
}

impl Hashers {
    /// Has no threads yet: jobs run at once.
    pub(super) fn idle() -> Self {
        Self {
            queue: Mutex::new(None),
            outstanding: Arc::default(),
            threads: Mutex::default(),
            waiting: Waiting::default(),
            stopping: OnceLock::new(),
        }
    }

    /// Starts the threads.
    pub(super) fn start(&self, count: usize) -> std::io::Result<()> {
        let (sender, receiver) = mpsc::channel::<(u64, Job)>();
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..count {
            let (receiver, outstanding) = (Arc::clone(&receiver), Arc::clone(&self.outstanding));
            let run = move || {
                loop {
                    let next = receiver.lock().recv();
                    let Ok((number, job)) = next else { return };
                    job();
                    outstanding.0.lock().jobs.remove(&number);
                    outstanding.1.notify_all();
                }
            };
            let thread = std::thread::Builder::new().name(format!("hash-{index}")).spawn(run)?;
            self.threads.lock().push(thread);
        }
        self.waiting.start()?;
        *self.queue.lock() = Some(sender);
        Ok(())
    }

    /// The digests that somebody waits for.
    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// Whether the threads are to end and have had their time for it.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.stopping.get().is_some_and(|since| since.elapsed() > PATIENCE)
    }

    /// Whether the threads are to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get().is_some()
    }

    /// Queues a job; after [`Hashers::stop`] it runs at once.
    pub(super) fn spawn(&self, job: Job) {
        let queue = self.queue.lock();
        let Some(sender) = queue.as_ref() else {
            drop(queue);
            return job();
        };
        let mut outstanding = self.outstanding.0.lock();
        let number = outstanding.next;
        outstanding.next += 1;
        outstanding.jobs.insert(number);
        // The receivers live as long as this sender.
        let _ = sender.send((number, job));
    }

    /// Waits until every job that was queued before is done, the patience is at its end, or the threads
    /// are to end.
    pub(super) fn settle(&self, patience: Duration) {
        let until_when = Instant::now().checked_add(patience);
        let mut outstanding = self.outstanding.0.lock();
        let until = outstanding.next;
        while outstanding.jobs.first().is_some_and(|first| *first < until) && !self.is_stopping() {
            match until_when {
                None => self.outstanding.1.wait(&mut outstanding),
                Some(when) if self.outstanding.1.wait_until(&mut outstanding, when).timed_out() => {
                    return;
                }
                Some(_) => {}
            }
        }
    }

    /// Jobs queued or running.
    pub(super) fn depth(&self) -> usize {
        self.outstanding.0.lock().jobs.len()
    }

    /// Lets nobody wait any more, and gives what is queued its last moments.
    pub(super) fn begin_to_stop(&self) {
        self.stopping.get_or_init(Instant::now);
        // Whoever has looked before sleeps by now.
        drop(self.outstanding.0.lock());
        self.outstanding.1.notify_all();
    }

    /// Finishes what is queued, as far as that is soon done, and ends the threads.
    pub(super) fn stop(&self) {
        self.begin_to_stop();
        self.waiting.stop();
        self.queue.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a hashing thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_waits_no_longer_than_he_likes() {
        let hashers = Hashers::idle();
        hashers.start(1).unwrap();
        let (sender, receiver) = mpsc::channel::<()>();
        let (done, is_done) = mpsc::channel();
        hashers.spawn(Box::new(move || {
            let _ = receiver.recv();
            done.send(()).unwrap();
        }));
        hashers.settle(Duration::from_millis(10));
        assert!(is_done.try_recv().is_err());
        drop(sender);
        hashers.settle(Duration::MAX);
        assert!(is_done.try_recv().is_ok());
        hashers.stop();
    }

    #[test]
    fn nobody_waits_for_what_is_to_end() {
        let hashers = Arc::new(Hashers::idle());
        hashers.start(1).unwrap();
        let (sender, receiver) = mpsc::channel::<()>();
        hashers.spawn(Box::new(move || _ = receiver.recv()));
        let waiting = {
            let hashers = Arc::clone(&hashers);
            std::thread::spawn(move || hashers.settle(Duration::MAX))
        };
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        hashers.begin_to_stop();
        waiting.join().unwrap();
        drop(sender);
        hashers.stop();
    }

    #[test]
    fn a_file_that_is_nearly_all_hole_is_not_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MAX_HOLES).unwrap();
        let attr = |size| Attr { size, blocks: 8, ..stat::fstat(&file).unwrap().attr };
        assert!(is_readable(&attr(MAX_HOLES + 4096)));
        assert!(!is_readable(&attr(MAX_HOLES + 4097)));
        assert!(!is_readable(&attr(i64::MAX as u64)));
        if file.set_len(2 * MAX_HOLES).is_ok() {
            let read = read_marked(file.as_fd(), None, Some(MAX_HOLES), &|_| panic!("it is read"));
            assert!(read.unwrap().is_none());
        }
    }
}
