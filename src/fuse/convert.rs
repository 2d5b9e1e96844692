//! fuser's types and ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::fs::{DirEntry, Entry, NodeId, SetTime};
use crate::types::{Attr, Kind, Timestamp};

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Dir => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// Attributes as an answer to a lookup, where fuser takes the node's id from them.
pub(super) fn entry_attr(entry: &Entry) -> FileAttr {
    FileAttr { ino: INodeNo(entry.node.0), ..attr(entry.node, &entry.attr) }
}

/// Attributes as an answer to getattr: the root shows its own number there, like everything else.
pub(super) fn attr(node: NodeId, a: &Attr) -> FileAttr {
    let ino = if node == NodeId::ROOT { a.ino } else { node.0 };
    FileAttr {
        ino: INodeNo(ino),
        size: a.size,
        blocks: a.blocks,
        atime: system_time(a.atime),
        mtime: system_time(a.mtime),
        ctime: system_time(a.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(a.kind),
        // Twelve bits.
        perm: u16::try_from(a.mode & 0o7777).unwrap_or_default(),
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: a.blksize,
        flags: 0,
    }
}

/// Attributes of a directory itself and of the one above, of which the kernel takes the number and no
/// more.
pub(super) fn nothing(name: &DirEntry<'_>) -> FileAttr {
    FileAttr {
        ino: INodeNo(name.ino),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(name.kind.unwrap_or(Kind::File)),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn system_time(t: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(t.secs.unsigned_abs());
    let whole =
        if t.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    whole.and_then(|w| w.checked_add(Duration::from_nanos(t.nanos.into()))).unwrap_or(UNIX_EPOCH)
}

/// A time to set, as the kernel sent it.
///
/// fuser 0.18 turns a time before 1970 around: of `secs` and `nanos` from there upwards it makes
/// `secs + nanos` before 1970. The two parts are still in it, so they can be taken out again.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Timestamp {
                secs: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
                nanos: after.subsec_nanos(),
            },
            Err(before) => {
                let parts = before.duration();
                let secs = i64::try_from(parts.as_secs()).map_or(i64::MIN, |secs| -secs);
                Timestamp { secs, nanos: parts.subsec_nanos() }
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_way_in_and_out() {
        // What fuser makes of tv_sec = -2, tv_nsec = 800,000,000.
        let from_fuser = UNIX_EPOCH - Duration::new(2, 800_000_000);
        let time = Timestamp { secs: -2, nanos: 800_000_000 };
        assert_eq!(set_time(TimeOrNow::SpecificTime(from_fuser)), SetTime::At(time));
        assert_eq!(system_time(time), UNIX_EPOCH - Duration::new(1, 200_000_000));
    }
}
