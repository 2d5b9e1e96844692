//! What the filesystem tells the catalog.
//!
//! Owns the vocabulary between the two: every event names inodes by their [`InodeKey`] and entries by
//! directory and name, never by path, and carries what `stat` said after the operation. Events are
//! applied in the order in which they were handed over.

use std::sync::Arc;

use super::packing::{Amount, Survey};
use super::{CollectionChange, LabelChange, LastPrune, SnapshotsSeen, VersionKey};
use crate::types::{
    ContentHash, FileId, IncomingId, Inode, InodeKey, Loss, Name, Origin, SessionId, Writer, Xattrs,
};

/// One thing that happened, with when and by whom.
#[derive(Debug, Clone)]
pub struct Event {
    /// Wall clock when it happened, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Who did it; `None` for what was found rather than seen.
    pub writer: Option<Arc<Writer>>,
    /// What happened.
    pub op: Op,
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The directory.
    pub parent: InodeKey,
    /// The name in it.
    pub name: Name,
}

/// Whether anybody has a file open at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Openness {
    /// A handle of the mount is open, so more of the file may come.
    Open,
    /// None is.
    Closed,
}

/// An inode that lost a name to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// Which.
    pub key: InodeKey,
    /// The inode as it is now, if it has other names.
    pub remaining: Option<Inode>,
    /// Whether somebody may still write to it.
    pub openness: Openness,
}

/// The content that a file is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Born {
    /// It comes later, by a [`Op::Seal`] (regular files), or never (everything else).
    Bare,
    /// A regular file made without being opened, so its first version is empty.
    Empty,
    /// A symlink to these bytes.
    Target(Box<[u8]>),
}

/// The beginning of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// So many bytes.
    pub size: u64,
    /// Their digest.
    pub hash: ContentHash,
}

/// What became of a content that is about to be destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A copy of it is among what the store is to take in.
    Copy(IncomingId),
    /// The inode that has it is, after the loss of its last name.
    Inode(IncomingId),
    /// It is lost.
    Lost(Loss),
}

/// What came of looking at an object for packing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// It is packed, durably; its own file may still be there.
    Done,
    /// It is packed, and its own file is gone.
    Alone,
    /// It keeps its file for now.
    Later,
    /// It keeps its file: packing would gain nothing.
    Needless,
    /// It would gain something after all, if it was needless before.
    Again,
}

/// Whether a version is to stay whatever the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// It is.
    Set,
    /// It is not any more.
    Cleared,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Op {
    /// The inode that the root of the tree has this time.
    Root {
        /// The root of the backing directory.
        inode: Inode,
        /// The boot of the machine and the mount of the backing filesystem, as a number.
        incarnation: i64,
    },
    /// A new inode got its first name.
    Create {
        /// Where.
        at: Place,
        /// What.
        inode: Inode,
        /// Its content.
        born: Born,
    },
    /// An inode got another name.
    Link {
        /// Where.
        at: Place,
        /// What, with the new link count.
        inode: Inode,
    },
    /// A name went away, by `unlink` or `rmdir`.
    Unlink {
        /// Where.
        at: Place,
        /// What had the name.
        key: InodeKey,
        /// The inode as it is now, if it has other names.
        remaining: Option<Inode>,
        /// Whether somebody may still write to it.
        openness: Openness,
    },
    /// A name moved, perhaps over another.
    Rename {
        /// From where.
        from: Place,
        /// To where.
        to: Place,
        /// What moved, as it is now.
        inode: Inode,
        /// What had the new name before.
        replaced: Option<Replaced>,
    },
    /// Two names changed places (`RENAME_EXCHANGE`).
    Exchange {
        /// One name, and what has it now.
        a: (Place, Inode),
        /// The other name, and what has it now.
        b: (Place, Inode),
    },
    /// Attributes changed, the content did not.
    Attr {
        /// The inode as it is now.
        inode: Inode,
        /// The extended attributes that it had before, if these changed.
        before: Option<Box<Xattrs>>,
    },
    /// An inode that had extended attributes may be about to end.
    Leave {
        /// Which.
        key: InodeKey,
        /// They.
        xattrs: Box<Xattrs>,
    },
    /// An inode that was made elsewhere got a name, by being moved there; its content follows.
    Arrive {
        /// Where.
        at: Place,
        /// What.
        inode: Inode,
        /// What had the name before.
        replaced: Option<Replaced>,
    },
    /// A session's content is fixed as a version.
    Seal {
        /// The file as it is now.
        inode: Inode,
        /// Which session; one session makes at most one version.
        session: SessionId,
        /// The digest; `None` if it follows by [`Op::Digest`].
        digest: Option<ContentHash>,
        /// What the content begins with, if the session has only appended.
        prefix: Option<Prefix>,
        /// What a version that this makes is to be called.
        origin: Origin,
    },
    /// The digest of a version that was sealed without one.
    Digest {
        /// The session that made the version.
        session: SessionId,
        /// The file when it was read, and its digest; `None` if the bytes were gone before they
        /// could be read.
        read: Option<(Inode, ContentHash)>,
        /// What the content begins with, if the session has only appended.
        prefix: Option<Prefix>,
    },
    /// The content of a file's newest version is about to be destroyed, and was kept, or not.
    Preserve {
        /// Which file.
        key: InodeKey,
        /// Whether.
        kept: Kept,
    },
    /// What was kept has become an object.
    Stored {
        /// Under which name it was kept.
        id: IncomingId,
        /// Its digest and size in bytes; `None` if there was nothing.
        content: Option<(ContentHash, u64)>,
        /// It is the inode itself that had the version, and not a copy.
        original: bool,
        /// What it begins with, if the version before it may be that.
        prefix: Option<Prefix>,
    },
    /// An object was given up.
    Dropped {
        /// Which.
        hash: ContentHash,
    },
    /// An object was lost, with what had it.
    Perished {
        /// Which.
        hash: ContentHash,
    },
    /// An object was looked at for packing.
    Packing {
        /// Which.
        hash: ContentHash,
        /// What came of it.
        packing: Packing,
    },
    /// The packs were cleaned up after what had been given up.
    Cleaned {
        /// How much that was.
        dropped: Amount,
    },
    /// The store was looked through.
    Surveyed(Survey),
    /// An object is there that nobody has told of: a crash came before the word.
    Adopted {
        /// Its digest.
        hash: ContentHash,
        /// Its size in bytes.
        size: u64,
    },
    /// Somebody wants a version to stay, or does not any more.
    Pin {
        /// Which.
        version: VersionKey,
        /// Whether.
        pin: Pin,
    },
    /// Somebody says something of a version.
    Note {
        /// Of which.
        version: VersionKey,
        /// What; nothing takes back what was said.
        text: Box<str>,
    },
    /// Somebody says something of a file.
    Label {
        /// Of which.
        file: FileId,
        /// What.
        change: LabelChange,
    },
    /// Somebody changes a collection.
    Collect {
        /// Which.
        name: Box<str>,
        /// How.
        change: CollectionChange,
    },
    /// What snapshots there are.
    Snapshots(Box<SnapshotsSeen>),
    /// History was pruned, or would have been.
    Pruned {
        /// What came of it.
        outcome: LastPrune,
    },
    /// A session is over; nothing more comes from it.
    End {
        /// Which.
        session: SessionId,
        /// The file, if no other session of it is left: should it have lost its last name, nothing
        /// more comes from it either.
        left: Option<InodeKey>,
    },
    /// A name was found on the backing directory.
    Observe {
        /// Where.
        at: Place,
        /// What has the name.
        inode: Inode,
        /// Its content, if that was read.
        found: Found,
        /// What a change that this reveals is to be called.
        origin: Origin,
    },
    /// Another inode has a name on the backing directory; the one that had it has another name there.
    Elsewhere {
        /// Where.
        at: Place,
        /// What the catalog thought to be there.
        key: InodeKey,
    },
    /// A name that the catalog has was not found on the backing directory.
    Gone {
        /// Where.
        at: Place,
        /// What the catalog thought to be there.
        key: InodeKey,
    },
    /// How far a comparison of all bytes with their digests is, in the words of whoever makes it.
    Verified {
        /// For [`Reader::verified`](super::Reader::verified).
        state: Box<str>,
    },
    /// A whole walk over the tree is done: what it did not find is gone, and what is found from now on is
    /// a change, not an import.
    WalkDone,
    /// The last event of a run that ends in order.
    Stop,
}

/// What is known of the content of something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: only the name and the attributes count.
    Unread,
    /// The same of a directory, when it is known that whatever had its name before is nowhere else.
    Heir,
    /// The digest of a regular file that did not change while it was read, and what it begins with if
    /// it may have grown.
    Content(ContentHash, Option<Prefix>),
    /// A symlink to these bytes.
    Target(Box<[u8]>),
}
