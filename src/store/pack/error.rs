//! What can go wrong with packs, each error naming the pack, the place and the content.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::types::Key;
use crate::types::ContentHash;

/// Something could not be packed, read or cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The filesystem refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The filesystem's answer.
        source: io::Error,
    },
    /// A pack that the index knows is not there.
    #[error("pack {} is missing", name(path))]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The header, the index or the footer of a pack is damaged. Its frames can still be read.
    #[error("the {part} of pack {} is damaged at offset {offset}: {fault}", name(path))]
    Outline {
        /// Which pack.
        path: PathBuf,
        /// Which of its parts.
        part: Part,
        /// Where in the pack, in bytes.
        offset: u64,
        /// How it shows.
        fault: Fault,
    },
    /// A frame is damaged, and with it everything in it.
    #[error("the frame at offset {offset} of pack {} is damaged: {fault}", name(path))]
    Frame {
        /// Which pack.
        path: PathBuf,
        /// Where in the pack, in bytes.
        offset: u64,
        /// How it shows.
        fault: Fault,
    },
    /// The bytes of a pack are not those it is named after.
    #[error("pack {} is not what it was when it was written: its SHA-256 is {found}", name(path))]
    NotItself {
        /// Which pack.
        path: PathBuf,
        /// The SHA-256 of the file as it is.
        found: ContentHash,
    },
    /// The index has no place for a chunk or recipe.
    #[error("{key} is in no pack")]
    Unknown {
        /// What was looked for.
        key: Key,
    },
    /// A recipe makes no sense.
    #[error("the recipe of {object} is damaged: {reason}")]
    Recipe {
        /// Whose recipe.
        object: ContentHash,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A content cannot be read, for the reason given as the source.
    #[error("cannot read {object} at offset {offset}: {source}")]
    Object {
        /// Which content.
        object: ContentHash,
        /// From where on in the content, in bytes.
        offset: u64,
        /// Why.
        source: Box<PackError>,
    },
    /// A content is not what its name says.
    #[error("the content is {found}, not {expected}")]
    OtherContent {
        /// Its name.
        expected: ContentHash,
        /// What it has become.
        found: ContentHash,
    },
    /// The content that was to be packed cannot be read.
    #[error("cannot read the content of {object}")]
    Content {
        /// Which content.
        object: ContentHash,
        /// The answer of its reader.
        source: io::Error,
    },
    /// What was read cannot be handed on.
    #[error("cannot write the content")]
    Output(#[source] io::Error),
    /// The index of chunks cannot be asked or changed.
    #[error("the index of packed chunks does not answer")]
    Index(#[source] IndexError),
    /// zstd cannot be set up.
    #[error("cannot compress")]
    Compress(#[source] io::Error),
    /// The pacing callback said so.
    #[error("told to stop")]
    Stopped,
}

/// Whatever the owner of the index has as its error.
pub type IndexError = Box<dyn std::error::Error + Send + Sync>;

/// A part of a pack that is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first bytes, which say that this is a pack.
    Header,
    /// The table of everything in the pack.
    Index,
    /// The last bytes, which say where the index is.
    Footer,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Index => "index",
            Self::Footer => "footer",
        })
    }
}

/// How damage shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The file ends before it.
    CutOff,
    /// Something else is in its place.
    NotThere,
    /// It was written by a later Horace, whose format has this number.
    Version(u16),
    /// Its checksum does not match.
    Checksum,
    /// Its numbers contradict each other.
    Inconsistent,
    /// zstd cannot decompress it.
    Compression,
    /// It has another chunk where this one should be.
    Chunk(ContentHash),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => f.write_str("the file ends before it does"),
            Self::NotThere => f.write_str("something else is in its place"),
            Self::Version(found) => write!(f, "format {found} is of a later version of Horace"),
            Self::Checksum => f.write_str("its checksum does not match"),
            Self::Inconsistent => f.write_str("its numbers contradict each other"),
            Self::Compression => f.write_str("it cannot be decompressed"),
            Self::Chunk(hash) => write!(f, "chunk {hash} is not what it was"),
        }
    }
}

/// The name of a pack: its directory is reached by what means nothing to others.
fn name(path: &Path) -> std::path::Display<'_> {
    Path::new(path.file_name().unwrap_or(path.as_os_str())).display()
}

impl PackError {
    /// Turns the filesystem's answer into an error that says with what it was tried.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.to_path_buf() },
            _ => Self::Io { action, path: path.to_path_buf(), source },
        }
    }

    /// Says in which content this is in the way.
    pub(super) fn within(self, object: ContentHash, offset: u64) -> Self {
        match self {
            Self::Object { .. } | Self::Output(_) | Self::Stopped => self,
            source => Self::Object { object, offset, source: Box::new(source) },
        }
    }
}
