//! Files that are closed but still mapped for writing.
//!
//! With passthrough a shared mapping belongs to the backing file: stores go on after the last close,
//! and no message tells of them. The kernel knows, though, that somebody can still write, and tells
//! through leases. Owns the list of such files and the thread that asks again until the last mapping
//! is gone, and then seals what it left. Until then a version that may still change has no digest.

use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::fs::OFlags;

use super::Fs;
use super::hashing::{Reading, read_digest};
use super::node::Node;
use crate::catalog::event::Op;
use crate::sys::lease::{self, Writers};
use crate::sys::{Errno, stat};
use crate::types::{Inode, SessionId, Writer};

/// How soon something that looks like a mapping is looked at again.
const SECOND_LOOK: Duration = Duration::from_millis(10);
/// How often a mapping is asked for that stays.
const EVERY: Duration = Duration::from_millis(250);

/// A session whose file is still mapped.
#[derive(Debug)]
struct Mapped {
    node: Arc<Node>,
    session: SessionId,
    writer: Arc<Writer>,
    looks: u32,
}

/// The list, and the thread's signal.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Held while the list is gone through. Lock order: before the list's.
    looking: Mutex<()>,
    list: Mutex<Vec<Mapped>>,
    signal: Condvar,
}

/// Starts the thread; it ends with the filesystem.
pub(super) fn start(fs: &Arc<Fs>) -> std::io::Result<()> {
    let weak = Arc::downgrade(fs);
    std::thread::Builder::new().name("mapped".into()).spawn(move || watch(&weak)).map(|_| ())
}

fn watch(weak: &Weak<Fs>) {
    let mut pause = EVERY;
    loop {
        let Some(fs) = weak.upgrade() else { return };
        {
            let mut list = fs.mapped.list.lock();
            let waits = list.iter().all(|mapped| mapped.looks > 0);
            if waits {
                fs.mapped.signal.wait_for(&mut list, pause);
            }
        }
        pause = fs.look_at_mapped();
    }
}

/// Seals what is still mapped, at the daemon's end.
pub(super) fn finish(fs: &Fs) {
    for mapped in std::mem::take(&mut *fs.mapped.list.lock()) {
        if let Err(error) = fs.seal_mapped(&mapped, Digest::Now) {
            tracing::warn!(%error, inode = mapped.node.key.ino, "cannot seal, the next walk will");
        }
        fs.end_session(&mapped.node, mapped.session);
    }
}

/// What is known of who may still write to a closed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nobody, or it cannot be found out.
    Nobody,
    /// A mapping.
    Mapping,
    /// A session, so a mapping beside it would not show.
    Session,
}

impl Fs {
    /// Ends a session that could be mapped, once it is not any more.
    pub(super) fn end_when_unmapped(
        &self,
        node: Arc<Node>,
        session: SessionId,
        writer: Arc<Writer>,
    ) {
        if self.writers_left(&node) == Left::Nobody {
            return self.end_session(&node, session);
        }
        node.with_open(|open| open.mapped += 1);
        self.mapped.list.lock().push(Mapped { node, session, writer, looks: 0 });
        self.mapped.signal.notify_one();
    }

    fn writers_left(&self, node: &Node) -> Left {
        if node.peek_open(|open| open.has_writers(None)) == Some(true) {
            return Left::Session;
        }
        match self.open_node(node, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) if lease::writers(fd.as_fd()) == Writers::Some => Left::Mapping,
            _ => Left::Nobody,
        }
    }

    /// Goes through the list once and returns when to come again.
    pub(super) fn look_at_mapped(&self) -> Duration {
        let _looking = self.mapped.looking.lock();
        let list = std::mem::take(&mut *self.mapped.list.lock());
        let mut pause = EVERY;
        for mut mapped in list {
            mapped.looks += 1;
            match self.writers_left(&mapped.node) {
                Left::Nobody if self.seal_mapped(&mapped, Digest::Now).is_ok() => {
                    mapped.node.with_open(|open| open.mapped -= 1);
                    self.end_session(&mapped.node, mapped.session);
                    continue;
                }
                // The kernel gives up a closed file a moment after it has told us.
                Left::Mapping if mapped.looks == 1 => pause = SECOND_LOOK,
                Left::Mapping if mapped.looks == 2 => {
                    let _ = self.seal_mapped(&mapped, Digest::WhenUnmapped);
                }
                _ => {}
            }
            self.mapped.list.lock().push(mapped);
        }
        pause
    }

    /// Tells what a mapping has left, or that it may be changing the content.
    ///
    /// # Errors
    /// The backing filesystem's; `EAGAIN` if the content changes too fast to be read.
    fn seal_mapped(&self, mapped: &Mapped, digest: Digest) -> Result<(), Errno> {
        let node = &mapped.node;
        let fd = self.open_node(node, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let _tree = self.tree.read();
        let _one = node.sealing.lock();
        let (attr, digest) = match digest {
            Digest::Now => match read_digest(fd.as_fd(), None)? {
                Reading::Stable(read) => (read.1, Some(read.0.digest())),
                Reading::Torn => return Err(Errno::AGAIN),
            },
            Digest::WhenUnmapped => {
                let attr = stat::fstat(&fd)?.attr;
                let told = node.peek_open(|open| open.sealed == Some(attr.stamp()));
                if told == Some(true) && !self.silent_mappings {
                    return Ok(());
                }
                (attr, None)
            }
        };
        node.with_open(|open| {
            open.sealed = Some(attr.stamp());
            open.seals += 1;
        });
        let inode = Inode { key: node.key, attr };
        let writer = Some(Arc::clone(&mapped.writer));
        self.push(writer, Op::Seal { inode, session: mapped.session, digest });
        Ok(())
    }
}

/// When the digest of what a mapping leaves is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    /// At once: the mapping is gone.
    Now,
    /// Not yet: it would not be true for long.
    WhenUnmapped,
}
