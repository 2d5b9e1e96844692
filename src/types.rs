//! The words that every layer shares.
//!
//! Owns the newtypes for identities, digests, attributes and names, with their text forms. Never
//! does I/O. The meanings are those of the glossary in the crate documentation.

pub mod path;
mod xattrs;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use xattrs::Xattrs;

/// A name in a directory: any bytes but `/` and NUL, at most 255 of them.
pub type Name = Box<[u8]>;

/// The catalog's clock: one number per committed change, never reused.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The catalog's identity of a file, directory or symlink; outside it is shown as a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

impl FileId {
    /// The root of the tree.
    pub const ROOT: Self = Self(1);
}

/// One open session of the mount: an open file handle from its open to its last release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What identifies an inode of the backing filesystem for as long as it exists.
///
/// `generation` tells apart inodes that had the same number one after the other. It is derived
/// from the filesystem's own file handle, so it stays the same across remounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeKey {
    /// `st_ino` on the backing filesystem.
    pub ino: u64,
    /// Digest of the file handle; 0 where the filesystem has none.
    pub generation: u64,
}

/// What a directory entry can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Regular file, the only kind with content and versions.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix domain socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl Kind {
    /// The kind that the type bits of `st_mode` name; `None` for bits no Unix defines.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & libc::S_IFMT {
            libc::S_IFREG => Self::File,
            libc::S_IFDIR => Self::Dir,
            libc::S_IFLNK => Self::Symlink,
            libc::S_IFIFO => Self::Fifo,
            libc::S_IFSOCK => Self::Socket,
            libc::S_IFCHR => Self::CharDevice,
            libc::S_IFBLK => Self::BlockDevice,
            _ => return None,
        })
    }

    /// The type bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        // As the kernel makes the one of the other.
        u32::from(self.code()) << 12
    }

    /// Whether it stands for a device.
    pub fn is_device(self) -> bool {
        matches!(self, Self::CharDevice | Self::BlockDevice)
    }

    /// The `d_type` number, also the number in the catalog.
    pub fn code(self) -> u8 {
        match self {
            Self::File => libc::DT_REG,
            Self::Dir => libc::DT_DIR,
            Self::Symlink => libc::DT_LNK,
            Self::Fifo => libc::DT_FIFO,
            Self::Socket => libc::DT_SOCK,
            Self::CharDevice => libc::DT_CHR,
            Self::BlockDevice => libc::DT_BLK,
        }
    }

    /// The inverse of [`Kind::code`]; `None` for a number that names no kind.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            libc::DT_REG => Self::File,
            libc::DT_DIR => Self::Dir,
            libc::DT_LNK => Self::Symlink,
            libc::DT_FIFO => Self::Fifo,
            libc::DT_SOCK => Self::Socket,
            libc::DT_CHR => Self::CharDevice,
            libc::DT_BLK => Self::BlockDevice,
            _ => return None,
        })
    }
}

/// A point in time as the kernel gives it: seconds since 1970, and nanoseconds upwards from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC, negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`, below 1,000,000,000, also before 1970.
    pub nanos: u32,
}

impl Timestamp {
    /// Nanoseconds since 1970, saturating in 1677 and 2262, where the catalog's integers end.
    pub fn as_ns(self) -> i64 {
        self.secs.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nanos))
    }

    /// The inverse of [`Timestamp::as_ns`].
    pub fn from_ns(ns: i64) -> Self {
        let nanos = u32::try_from(ns.rem_euclid(1_000_000_000)).unwrap_or_default();
        Self { secs: ns.div_euclid(1_000_000_000), nanos }
    }
}

/// The attributes of an inode, as `stat(2)` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// `st_ino`.
    pub ino: u64,
    /// File type.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, in the kernel's encoding.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
}

impl Attr {
    /// What must be equal for the content to be taken as unchanged.
    pub fn stamp(&self) -> Stamp {
        Stamp { size: self.size, mtime_ns: self.mtime.as_ns(), ctime_ns: self.ctime.as_ns() }
    }
}

/// What a file, directory or symlink is to have besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Extended attributes, ACLs among them.
    pub xattrs: Xattrs,
}

/// Size and times of an inode: as long as they stay, its content is taken to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// `st_mtim` in nanoseconds.
    pub mtime_ns: i64,
    /// `st_ctim` in nanoseconds.
    pub ctime_ns: i64,
}

/// An inode with everything that the catalog records of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Which inode.
    pub key: InodeKey,
    /// Its attributes at the time of the event.
    pub attr: Attr,
}

/// Who asks: the credentials of a caller of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Thread or process; 0 where the kernel does not say.
    pub pid: u32,
}

/// Who caused a change, captured when the handle was opened or the call arrived.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Writer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process; 0 where the kernel did not say.
    pub pid: u32,
    /// Command name of the process, at most 15 bytes; empty where unknown.
    pub comm: Name,
}

/// A SHA-256 over the bytes of a file, in hexadecimal where it is text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The digest of no bytes at all.
    pub const EMPTY: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9,
        0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52,
        0xb8, 0x55,
    ]);

    /// Wraps the 32 bytes of a digest.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<sha2::Sha256> for ContentHash {
    fn from(hasher: sha2::Sha256) -> Self {
        Self(sha2::Digest::finalize(hasher).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not a SHA-256: expected 64 hexadecimal digits")]
pub struct ParseHashError;

impl FromStr for ContentHash {
    type Err = ParseHashError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let hex = s.strip_prefix("sha256:").unwrap_or(s);
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(hex.as_bytes())
            .map_err(|_| ParseHashError)?;
        Ok(Self(bytes.try_into().map_err(|_| ParseHashError)?))
    }
}

serde_text!(ContentHash);

/// Names content that was preserved but not taken in yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncomingId(pub u64);

/// Why the content of a version was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// It was replaced or deleted while nothing was to be kept, or around the mount.
    Unseen,
    /// The backing filesystem cannot share blocks, and it was too large to be copied; or it is nearly all
    /// hole, and too large to be read.
    TooLarge,
    /// There was too little space left.
    NoSpace,
    /// It could not be copied.
    Failed,
    /// Somebody who had the file open already wrote over it.
    Overwritten,
    /// It was given up: by a policy, or to make room.
    Pruned,
    /// It was kept, but before it was an object it was gone from the store, which only damage or a power
    /// cut can do.
    Gone,
    /// The retention policy leaves it out.
    Excluded,
}

impl Loss {
    const ALL: [Self; 8] = [
        Self::Unseen,
        Self::TooLarge,
        Self::NoSpace,
        Self::Failed,
        Self::Overwritten,
        Self::Pruned,
        Self::Gone,
        Self::Excluded,
    ];

    /// The number in the catalog.
    pub fn code(self) -> u8 {
        self as u8 + 16
    }

    /// The inverse of [`Loss::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(16)?).copied()
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unseen => "replaced unseen",
            Self::TooLarge => "too large to copy",
            Self::NoSpace => "no space",
            Self::Failed => "copy failed",
            Self::Overwritten => "overwritten while open",
            Self::Pruned => "pruned",
            Self::Gone => "gone from the store",
            Self::Excluded => "excluded by policy",
        })
    }
}

/// Where a version came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// Written through the mount.
    Write,
    /// Found when the directory was catalogued for the first time.
    Import,
    /// Changed on the backing directory, around the mount.
    External,
    /// Brought back from an older version.
    Restore,
    /// Taken over from the catalog of a predecessor, who has told its digest.
    Migrated,
}

impl Origin {
    /// The number in the catalog.
    pub fn code(self) -> u8 {
        match self {
            Self::Write => 1,
            Self::Import => 2,
            Self::External => 3,
            Self::Restore => 4,
            Self::Migrated => 5,
        }
    }

    /// The inverse of [`Origin::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Write,
            2 => Self::Import,
            3 => Self::External,
            4 => Self::Restore,
            5 => Self::Migrated,
            _ => return None,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Import => "import",
            Self::External => "external",
            Self::Restore => "restore",
            Self::Migrated => "migrated",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_digest_is_the_digest_of_no_bytes() {
        let hasher = <sha2::Sha256 as sha2::Digest>::new();
        assert_eq!(ContentHash::from(hasher), ContentHash::EMPTY);
    }

    #[test]
    fn digests_parse_with_and_without_prefix() {
        let text = ContentHash::EMPTY.to_string();
        assert_eq!(text.parse::<ContentHash>().unwrap(), ContentHash::EMPTY);
        assert_eq!(format!("sha256:{text}").parse::<ContentHash>().unwrap(), ContentHash::EMPTY);
        assert!(text[1..].parse::<ContentHash>().is_err());
    }

    #[test]
    fn kinds_and_origins_round_trip() {
        for code in 0..=255 {
            if let Some(kind) = Kind::from_code(code) {
                assert_eq!(kind.code(), code);
                assert_eq!(Kind::from_mode(kind.mode_bits()), Some(kind));
            }
            if let Some(origin) = Origin::from_code(code) {
                assert_eq!(origin.code(), code);
            }
            if let Some(loss) = Loss::from_code(code) {
                assert_eq!(loss.code(), code);
            }
        }
    }

    #[test]
    fn times_before_1970_count_nanoseconds_upwards() {
        let before = Timestamp { secs: -1, nanos: 999_999_999 };
        assert_eq!((before.as_ns(), Timestamp::from_ns(-1)), (-1, before));
        assert_eq!(Timestamp { secs: i64::MAX, nanos: 0 }.as_ns(), i64::MAX);
    }
}
