//! Snapshots of the filesystem that the backing directory lies on.
//!
//! Owns their names and classes, and the ways to list, take, hold and destroy them behind one trait,
//! [`Backend`]: ZFS by its command, btrfs by the kernel's own calls, and none where there is neither. Knows
//! nothing of the catalog and never decides by itself that something goes: the daemon does, by what the
//! policies here say.
//!
//! # On disk
//! On ZFS a snapshot is `DATASET@NAME`, and what is ours has the user properties `org.horace:seq`, the last
//! change that is in it, and `org.horace:catalog`, whose catalog counted that. On btrfs it is a read-only
//! subvolume `BACKING/.horace/snapshots/NAME`, and the extended attribute `trusted.horace.snapshot` of the
//! `.horace` in it says the same. A snapshot without such a mark is somebody else's, whatever it is called:
//! it is listed and nothing else.
//!
//! # After a crash
//! The mark comes into being with the snapshot, so a crash leaves either both or neither.

mod backend;
mod btrfs;
mod name;
mod none;
mod policy;
mod probe;
mod programs;
mod schedule;
mod zfs;

pub use backend::{Backend, BackendError, BackendKind, Mark, Snapshot};
pub use name::{Class, ClassError, SnapshotName};
pub use policy::{Fate, KeepCounts, Protection, decide};
pub use probe::{ProbeError, Require, check, lies_on_zfs, probe};
pub use programs::{ProgramError, Programs};
pub use schedule::{Due, Schedule, ScheduleError, back_off_ns};
