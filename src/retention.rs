//! Which history is kept and which is dropped, with a reason for each item.
//!
//! Owns the policies, their text form, the decisions, the cap on what one run may drop and the order
//! in which history goes when space is short. Never reads a clock, a file or the catalog, and drops
//! nothing itself: `(policy, items, now) -> decisions`. What is retained are the versions of one
//! file, or the snapshots of one dataset; both are [`Item`]s here.
//!
//! # What is always kept
//! The head of a live file, and whatever is pinned. No rule, limit, exclusion or shortage of space
//! drops them.
//!
//! # Rules
//! An item is kept if any rule of [`Keep`] holds for it, and every rule that holds is told:
//!
//! | rule | keeps |
//! | --- | --- |
//! | `last = 10` | the ten newest, the head among them |
//! | `within = "30d"` | everything that was current at some time in the last 30 days |
//! | `hourly`, `daily`, `weekly`, `monthly`, `yearly` `= 7` | the last item of each of the seven newest hours, days, ISO weeks, months or years that have any |
//! | `grid = "1h:all,1d:1h,30d:1d"` | everything of the last hour, the last item of every hour for a day, of every day for 30 days |
//!
//! Limits drop what is too large to be preserved, was replaced too long ago, or is of a file that was
//! deleted too long ago, whatever the rules say; so do exclusions by glob. What they drop is not
//! a candidate for any rule, so it takes no place among the last 10.
//!
//! A number can be `"all"`. Items are ordered by their number, never by their time: a clock that was
//! set back does not make the newest item the oldest. Of items in the same bucket the last is kept,
//! in that order.
//!
//! # Age
//! The age of an item is how long ago it stopped being current ([`Life::Until`]), not how old it is.
//! A file that was written years ago and is overwritten today has just been lost, and `within` is a
//! promise about the days in which it could still be read. The bucket of an item is that of the
//! time when it was written: the last item of a day is what the file was when the day ended.
//!
//! # Calendar and grid
//! Calendar buckets are those of the time zone given: an hour that comes twice when summer time ends
//! is two hours. Cells of a grid are counted from 1970 in UTC, and not from now: cells that move with
//! every run would drop today what they kept yesterday as the last of its cell, and nothing would
//! ever grow old. Each step of a grid is a rule of its own, which reaches from its age to the
//! present.
//!
//! # The default
//! [`Policy::default`] is generous: everything that was current in the last 30 days, then the last of
//! every hour for 90 days, of every day for a year, of every week for five years, and the last 10 for
//! as long as the file lives. A year after a file was deleted all of it goes, because the scratch
//! files of every program are deleted files. Nothing is excluded, and no size is too large.
//!
//! # Text
//! ```
//! let retention = horace::retention::Retention::from_toml(r#"
//!     exclude = ["*.tmp", "**/.cache/**"]
//!
//!     [[rule]]
//!     globs = ["*.log", "/var/log/**"]
//!     keep = { last = 3, within = "7d" }
//!     limit = { size = "64M", age = "90d" }
//!
//!     [default]
//!     keep = { last = 10, within = "30d", grid = "90d:1h,1y:1d,5y:1w" }
//!     limit = { deleted = "1y" }
//!
//!     [cap]
//!     share = "50%"
//! "#)?;
//! assert_eq!(retention.choose(b"a/b.tmp").to_string(), "excluded by `*.tmp`");
//! assert_eq!(retention.choose(b"var/log/x").to_string(), "rule `/var/log/**`");
//! # Ok::<(), horace::retention::RetentionError>(())
//! ```
//! The first rule with a glob that matches decides, else `default`. A glob without a slash is matched
//! against the last name of a path, one with a slash against the whole path below the mount; `*`
//! stays within a name, `**` crosses them. A `keep` or `limit` that is given stands alone, one that is
//! missing is the built-in default's; `limit = {}` is no limit. Sizes are as in [`crate::sizespec`],
//! lengths of time as in [`crate::timespec::Span`].

mod bucket;
mod cap;
mod decide;
mod globs;
mod grid;
mod policy;
mod pressure;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

pub use bucket::{Bucket, Period};
pub use cap::{Cap, CapError, Share, ShareError, Tally};
pub use globs::{Globs, GlobsError};
pub use grid::{Grid, GridError, Spacing, Step};
pub use policy::{Count, Keep, KeepError, Limit, Policy};
pub use pressure::{Candidate, PressureQueue};
pub use reason::{Decision, DropReason, KeepReason};
pub use rules::{Choice, Retention, RetentionError, Rule, RuleError};

/// Something retained: a version of a file, or a snapshot.
///
/// The order of the fields is the order of items: by number first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Its place in the order of creation, which is what newer means: the number of a version, the
    /// transaction of a snapshot.
    pub number: u64,
    /// When it was written or taken, in nanoseconds since 1970, as the clock said then.
    pub time_ns: i64,
    /// Whether it is current.
    pub life: Life,
    /// What dropping it may free, in bytes.
    pub size_bytes: u64,
    /// Whether somebody asked that it stays.
    pub pinned: bool,
}

/// Whether an item is current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// It was, until this time in nanoseconds since 1970: that of the next version, whether or not
    /// the content of that one is kept, or of the deletion. For a snapshot it is when it was taken.
    Until(i64),
    /// It is the head of a live file.
    Head,
}

impl Item {
    /// Whether nothing may ever drop it.
    pub fn is_held(&self) -> bool {
        self.pinned || self.life == Life::Head
    }

    /// When it stopped being current; the end of time for a head, and never before it was written.
    fn end_ns(&self) -> i64 {
        match self.life {
            Life::Until(end_ns) => end_ns.max(self.time_ns),
            Life::Head => i64::MAX,
        }
    }

    /// How long ago it stopped being current; negative for the future.
    fn age_ns(&self, now_ns: i64) -> i64 {
        now_ns.saturating_sub(self.end_ns())
    }
}

/// All that is retained of one file or dataset, in any order.
#[derive(Debug, Clone, Copy)]
pub struct History<'h> {
    /// Its items, also those that are certain to stay: they count as the last and in buckets.
    pub items: &'h [Item],
    /// Since when the file has no name any more, in nanoseconds since 1970; `None` while it lives.
    pub deleted_ns: Option<i64>,
}
