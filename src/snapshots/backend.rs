//! What every kind of snapshots has in common.
//!
//! Owns the trait and its words. What may be destroyed is decided elsewhere; a backend only refuses
//! what it cannot name without doubt.

use std::fmt;
use std::os::fd::OwnedFd;

use uuid::Uuid;

use super::ProgramError;
use crate::sys::Errno;
use crate::types::Seq;

/// A way to take snapshots.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which.
    fn kind(&self) -> BackendKind;

    /// What is snapshotted: a dataset, or the path of a subvolume.
    fn dataset(&self) -> &str;

    /// Why there are none, for [`BackendKind::None`], in words.
    fn reason(&self) -> Option<String> {
        None
    }

    /// Every snapshot of exactly that, ours or not, in the order in which they were taken.
    ///
    /// # Errors
    /// If they cannot be told.
    fn list(&self) -> Result<Vec<Snapshot>, BackendError>;

    /// Takes one, with its mark.
    ///
    /// # Errors
    /// If there is one of the name, or it could not be taken. After [`ProgramError::TimedOut`] it may come into
    /// being later, and is then not what its mark says.
    fn create(&self, name: &str, mark: &Mark) -> Result<(), BackendError>;

    /// Destroys some, as many at once as can be, and goes on past one that fails. Nothing that is held or
    /// has clones goes.
    fn destroy<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, Result<(), BackendError>)>;

    /// Has one stay until it is released, whoever wants to destroy it.
    ///
    /// # Errors
    /// If that could not be done; it may be held already.
    fn hold(&self, name: &str) -> Result<(), BackendError>;

    /// Takes our hold back; those of others stay.
    ///
    /// # Errors
    /// If that could not be done.
    fn release(&self, name: &str) -> Result<(), BackendError>;

    /// Opens the backing directory as it is in one.
    ///
    /// # Errors
    /// If it cannot be reached there.
    fn open(&self, name: &str) -> Result<OwnedFd, BackendError>;
}

/// The kinds of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// Of a ZFS dataset.
    Zfs,
    /// Of a btrfs subvolume.
    Btrfs,
    /// None.
    None,
}

impl BackendKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zfs => "zfs",
            Self::Btrfs => "btrfs",
            Self::None => "none",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What makes a snapshot ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The last change that is in it.
    pub seq: Seq,
    /// The catalog that counted it.
    pub catalog: Uuid,
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name, without that of the dataset.
    pub name: String,
    /// What tells it from one of the same name before or after it.
    pub guid: String,
    /// The transaction in which it was taken: they are in this order, whatever the clock said.
    pub createtxg: u64,
    /// When it was taken, in nanoseconds since 1970, as the clock said then.
    pub time_ns: i64,
    /// What destroying it alone would free, in bytes, if that is known.
    pub used_bytes: Option<u64>,
    /// What makes it ours; `None` if somebody else took it.
    pub mark: Option<Mark>,
    /// How many want it to stay.
    pub holds: u64,
    /// What was cloned from it.
    pub clones: Vec<String>,
    /// Whether somebody has said that a replication goes on from it.
    pub is_base: bool,
}

/// Why something could not be done with snapshots.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A program said what nobody understands.
    #[error("`{program}` said what is not understood: `{line}`")]
    Answer {
        /// Which.
        program: &'static str,
        /// What it said.
        line: String,
    },
    /// The kernel refused.
    #[error("cannot {what} {name}")]
    Kernel {
        /// What was to be done.
        what: &'static str,
        /// With what.
        name: String,
        /// Its reason.
        source: Errno,
    },
    /// The name is none that is sure to mean one snapshot.
    #[error("`{name}` is no name of a snapshot here")]
    Name {
        /// The name.
        name: String,
    },
    /// Somebody wants it to stay.
    #[error("{name} is held")]
    Held {
        /// Which.
        name: String,
    },
    /// This kind of snapshots has no such thing.
    #[error("{reason}")]
    Impossible {
        /// Why, in words.
        reason: String,
    },
}

/// Whether a name can stand in a command without meaning something else: `%` and `,` make ranges and lists
/// of snapshots, `@` and `/` end the name of a dataset.
pub(super) fn check_name(name: &str) -> Result<(), BackendError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if starts_well && name.len() <= 200 && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(BackendError::Name { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("hourly-20260131-140000", true)]
    #[case("a.b:c_d-1", true)]
    #[case("", false)]
    #[case("-r", false)]
    #[case("..", false)]
    #[case("a%b", false)]
    #[case("a,b", false)]
    #[case("a@b", false)]
    #[case("a/b", false)]
    #[case("a b", false)]
    #[case("ä", false)]
    fn a_name_that_could_mean_more_than_one_snapshot_is_refused(
        #[case] name: &str,
        #[case] is_plain: bool,
    ) {
        assert_eq!(check_name(name).is_ok(), is_plain);
    }
}
