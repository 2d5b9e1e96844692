//! `fanotify(7)` on a whole filesystem: who changed which name.
//!
//! Owns the group, its mark and the format of what the kernel tells. An event names directories by
//! file handles and never by paths, so it stays true when they are renamed. The kernel keeps what is not
//! read yet, up to a limit, and says so when there was more.
#![expect(unsafe_code, reason = "rustix has no wrapper for fanotify")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::Errno;
use super::handle::FileHandle;

/// Why a filesystem cannot be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// `CAP_SYS_ADMIN` is missing.
    #[error("the daemon lacks CAP_SYS_ADMIN")]
    Privilege,
    /// The kernel cannot do it.
    #[error("this kernel cannot tell of changes by name: Linux 5.17 or newer can")]
    Kernel,
    /// Inodes of the filesystem cannot be named.
    #[error("the backing filesystem has no file handles or no identity to watch it by")]
    Filesystem,
    /// The directory lies in a part of the filesystem that cannot be told apart from the others.
    #[error(
        "the backing directory lies in a btrfs subvolume, and the kernel watches only whole filesystems"
    )]
    Subvolume,
    /// Anything else.
    #[error("the kernel refused: {0}")]
    Other(Errno),
}

/// What happened, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Happened(u64);

impl Happened {
    /// Content was changed.
    pub const MODIFIED: Self = Self(libc::FAN_MODIFY);
    /// Somebody closed it who could write.
    pub const CLOSED: Self = Self(libc::FAN_CLOSE_WRITE);
    /// A name was made.
    pub const CREATED: Self = Self(libc::FAN_CREATE);
    /// A name was removed.
    pub const DELETED: Self = Self(libc::FAN_DELETE);
    /// A name was changed.
    pub const RENAMED: Self = Self(libc::FAN_RENAME);
    /// It was a directory.
    pub const TO_DIRECTORY: Self = Self(libc::FAN_ONDIR);
    const OVERFLOW: Self = Self(libc::FAN_Q_OVERFLOW);
    const WATCHED: u64 = libc::FAN_MODIFY
        | libc::FAN_CLOSE_WRITE
        | libc::FAN_ATTRIB
        | libc::FAN_CREATE
        | libc::FAN_DELETE
        | libc::FAN_RENAME
        | libc::FAN_ONDIR;

    /// Whether something of `other` is among it: the kernel tells several things at once.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// An inode, in the bytes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawHandle<'b> {
    kind: i32,
    data: &'b [u8],
}

impl RawHandle<'_> {
    /// The handle that it is.
    pub fn to_handle(self) -> FileHandle {
        FileHandle::new(self.kind, self.data)
    }
}

/// A name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'b> {
    /// The directory.
    pub dir: RawHandle<'b>,
    /// The name; `.` for the directory itself.
    pub name: &'b [u8],
}

/// One thing that happened, or several to the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'b> {
    /// What.
    pub happened: Happened,
    /// The process that did it; 0 if it is in another PID namespace.
    pub pid: u32,
    /// Where: the new name, if it was renamed. An inode that was opened by a handle may have none.
    pub place: Option<Place<'b>>,
    /// The old name, if it was renamed.
    pub from: Option<Place<'b>>,
    /// To which inode.
    pub inode: Option<RawHandle<'b>>,
}

impl Event<'_> {
    /// Whether more happened than the kernel has kept.
    pub fn is_overflow(&self) -> bool {
        self.happened.any(Happened::OVERFLOW)
    }
}

/// A watched filesystem.
#[derive(Debug)]
pub struct Fanotify(OwnedFd);

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Fanotify {
    /// Watches the whole filesystem on which `dir` lies.
    ///
    /// # Errors
    /// Why it cannot be watched.
    pub fn watch(dir: BorrowedFd<'_>) -> Result<Self, WatchError> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_REPORT_DFID_NAME_TARGET
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK;
        let group = init(flags).map_err(|error| match error {
            Errno::PERM => WatchError::Privilege,
            Errno::INVAL | Errno::NOSYS => WatchError::Kernel,
            other => WatchError::Other(other),
        })?;
        mark(&group, Happened::WATCHED, dir).map_err(|error| match error {
            Errno::PERM => WatchError::Privilege,
            Errno::INVAL => WatchError::Kernel,
            Errno::NODEV | Errno::OPNOTSUPP => WatchError::Filesystem,
            Errno::XDEV => WatchError::Subvolume,
            other => WatchError::Other(other),
        })?;
        Ok(Self(group))
    }

    /// Reads what there is.
    ///
    /// # Errors
    /// `EAGAIN` if there is nothing; the kernel's.
    pub fn read<'b>(&self, buffer: &'b mut [u8]) -> Result<Events<'b>, Errno> {
        let length = rustix::io::read(&self.0, &mut *buffer)?;
        Ok(Events { rest: &buffer[..length] })
    }
}

fn init(flags: u32) -> Result<OwnedFd, Errno> {
    let file_flags = (libc::O_RDONLY | libc::O_LARGEFILE).cast_unsigned();
    // SAFETY: the call takes two integers and no pointer.
    let fd = unsafe { libc::fanotify_init(flags, file_flags) };
    if fd < 0 {
        return Err(super::handle::last_errno());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn mark(group: &OwnedFd, mask: u64, dir: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    // SAFETY: without a path the call means `dir` itself; both descriptors are open throughout.
    let result = unsafe {
        libc::fanotify_mark(group.as_raw_fd(), flags, mask, dir.as_raw_fd(), std::ptr::null())
    };
    if result < 0 { Err(super::handle::last_errno()) } else { Ok(()) }
}

/// The events in some bytes. What is not as the kernel writes it ends them.
#[derive(Debug, Clone)]
pub struct Events<'b> {
    rest: &'b [u8],
}

/// Bytes of an event before what is told of its inodes.
const METADATA: usize = 24;
/// Bytes of one such piece before the handle's data: type, length, filesystem, size and type of the handle.
const PIECE: usize = 20;

impl<'b> Iterator for Events<'b> {
    type Item = Event<'b>;

    fn next(&mut self) -> Option<Event<'b>> {
        let length = u32_at(self.rest, 0)? as usize;
        if length < METADATA || self.rest.get(4) != Some(&libc::FANOTIFY_METADATA_VERSION) {
            return None;
        }
        let (event, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        let mut parsed = Event {
            happened: Happened(u64::from_ne_bytes(*event.get(8..)?.first_chunk()?)),
            pid: u32_at(event, 20)?,
            place: None,
            from: None,
            inode: None,
        };
        let mut pieces = event.get(usize::from(u16_at(event, 6)?)..)?;
        while let Some(length) = u16_at(pieces, 2) {
            let (piece, rest) = pieces.split_at_checked(usize::from(length).max(4))?;
            pieces = rest;
            let Some((handle, name)) = split_piece(piece) else { continue };
            let place = Some(Place { dir: handle, name });
            match piece[0] {
                libc::FAN_EVENT_INFO_TYPE_FID => parsed.inode = Some(handle),
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => {
                    parsed.place = place;
                }
                libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => parsed.from = place,
                _ => {}
            }
        }
        Some(parsed)
    }
}

/// The handle in a piece, and the name after it up to its NUL.
fn split_piece(piece: &[u8]) -> Option<(RawHandle<'_>, &[u8])> {
    let size = u32_at(piece, 12)? as usize;
    let kind = u32_at(piece, 16)?.cast_signed();
    let (data, name) = piece.get(PIECE..)?.split_at_checked(size)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some((RawHandle { kind, data }, name))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A piece as the kernel writes it, padded to a multiple of four.
    fn piece(kind: u8, handle: &[u8], name: &[u8]) -> Vec<u8> {
        let mut body = vec![0xf5; 8];
        body.extend(u32::try_from(handle.len()).unwrap().to_ne_bytes());
        body.extend(1_i32.to_ne_bytes());
        body.extend(handle);
        if !name.is_empty() {
            body.extend(name);
            body.push(0);
        }
        body.resize(body.len().next_multiple_of(4), 0);
        let length = u16::try_from(body.len() + 4).unwrap();
        [&[kind, 0][..], &length.to_ne_bytes(), &body].concat()
    }

    fn event(mask: u64, pid: i32, pieces: &[Vec<u8>]) -> Vec<u8> {
        let pieces = pieces.concat();
        let mut bytes = u32::try_from(METADATA + pieces.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([libc::FANOTIFY_METADATA_VERSION, 0]);
        bytes.extend(u16::try_from(METADATA).unwrap().to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend((-1_i32).to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes.extend(pieces);
        bytes
    }

    fn three() -> Vec<u8> {
        let written = [piece(2, b"dir1", b"name"), piece(1, b"inode123", b"")];
        let renamed = [piece(10, b"old!", b"a"), piece(12, b"new!", b"bcd"), piece(1, b"i", b"")];
        [
            event(libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE, 7, &written),
            event(libc::FAN_RENAME | libc::FAN_ONDIR, 8, &renamed),
            event(libc::FAN_Q_OVERFLOW, 0, &[]),
        ]
        .concat()
    }

    #[test]
    fn names_and_inodes_of_events_are_found() {
        let bytes = three();
        let events: Vec<_> = Events { rest: &bytes }.collect();
        let raw = |data| RawHandle { kind: 1, data };
        let [written, renamed, overflow] = &*events else { panic!("{events:?}") };
        assert_eq!(written.pid, 7);
        assert_eq!(written.place, Some(Place { dir: raw(b"dir1"), name: b"name" }));
        assert_eq!((written.from, written.inode), (None, Some(raw(b"inode123"))));
        assert!(written.happened.any(Happened::CLOSED) && !written.happened.any(Happened::RENAMED));
        assert_eq!(renamed.from, Some(Place { dir: raw(b"old!"), name: b"a" }));
        assert_eq!(renamed.place, Some(Place { dir: raw(b"new!"), name: b"bcd" }));
        assert!(renamed.happened.any(Happened::TO_DIRECTORY));
        assert!(overflow.is_overflow() && overflow.place.is_none() && !renamed.is_overflow());
    }

    #[test]
    fn what_is_cut_off_anywhere_ends_the_events() {
        let bytes = three();
        for length in 0..bytes.len() {
            assert!(Events { rest: &bytes[..length] }.count() < 3, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_read_beyond_their_end(
            at in 0..500_usize, value: u8, junk in proptest::collection::vec(any::<u8>(), 0..99),
        ) {
            let mut bytes = three();
            let at = at % bytes.len();
            bytes[at] = value;
            let count = |bytes: &[u8]| Events { rest: bytes }.count();
            prop_assert!(count(&bytes) <= bytes.len() / METADATA);
            prop_assert!(count(&junk) <= junk.len() / METADATA);
        }
    }

    #[test]
    fn a_change_is_told_by_handle_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        let watch = match Fanotify::watch(fd.as_fd()) {
            Ok(watch) => watch,
            Err(error) => return eprintln!("SKIPPED: {error}"),
        };
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let own = super::super::handle::of(fd.as_fd(), c"", super::super::handle::HandleUse::Open);
        let mut buffer = vec![0; 64 << 10];
        let found = std::iter::from_fn(|| {
            watch.read(&mut buffer).ok().map(|events| {
                events
                    .filter(|event| event.pid == std::process::id())
                    .filter_map(|event| event.place)
                    .any(|place| place.name == b"f" && own == Ok(place.dir.to_handle()))
            })
        });
        assert!(found.into_iter().any(|found| found));
    }
}
