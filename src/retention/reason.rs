//! Decisions and their reasons.
//!
//! Owns the words that `prune --dry-run` prints: each reason is a short text that stands alone.

use std::fmt;
use std::sync::Arc;

use indicatif::BinaryBytes;

use crate::sizespec::Size;
use crate::timespec::Span;

use super::{Bucket, Count, Step};

/// What becomes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It stays, for all of these reasons; there is at least one.
    Keep(Vec<KeepReason>),
    /// It goes.
    Drop(DropReason),
}

impl Decision {
    /// Whether the item stays.
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

impl Decision {
    /// Its reasons without the word for it.
    pub fn reasons(&self) -> String {
        match self {
            Self::Keep(reasons) => {
                let texts: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                texts.join(", ")
            }
            Self::Drop(reason) => reason.to_string(),
        }
    }
}

impl fmt::Display for Decision {
    /// `keep: last 10, daily 2026-11-20` or `drop: older than every rule`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_keep() { "keep" } else { "drop" };
        write!(f, "{word}: {}", self.reasons())
    }
}

/// Why an item stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepReason {
    /// It is the content of the live file.
    Head,
    /// Somebody asked for it.
    Pinned,
    /// It is one of the newest.
    Last(Count),
    /// It was current not longer ago than this.
    Within(Span),
    /// It is the last of a calendar bucket.
    Calendar(Bucket),
    /// It is in a step of the grid that keeps everything, or the last of its cell.
    Grid(Step),
    /// No rule keeps it, but that its content goes would free nothing: something that stays needs the
    /// same bytes.
    Free,
    /// No rule keeps it, but somebody is using its content.
    InUse,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("head"),
            Self::Pinned => f.write_str("pinned"),
            Self::Last(count) => write!(f, "last {count}"),
            Self::Within(span) => write!(f, "within {span}"),
            Self::Calendar(bucket) => bucket.fmt(f),
            Self::Grid(step) => write!(f, "grid {step}"),
            Self::Free => f.write_str("takes no space of its own"),
            Self::InUse => f.write_str("in use"),
        }
    }
}

/// Why an item goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// The path is excluded by this glob.
    Excluded(Arc<str>),
    /// It is larger than what is preserved.
    TooLarge {
        /// Its size in bytes.
        size_bytes: u64,
        /// The limit.
        limit: Size,
    },
    /// It stopped being current longer ago than the limit.
    TooOld(Span),
    /// The file was deleted longer ago than the limit.
    LongDeleted(Span),
    /// A newer item stands for the same bucket or cell, and no other rule holds.
    Thinned(KeepReason),
    /// No rule reaches it any more.
    Outlived,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded(glob) => write!(f, "excluded by `{glob}`"),
            Self::TooLarge { size_bytes, limit } => {
                write!(f, "larger than {limit} ({})", BinaryBytes(*size_bytes))
            }
            Self::TooOld(span) => write!(f, "replaced more than {span} ago"),
            Self::LongDeleted(span) => write!(f, "deleted more than {span} ago"),
            Self::Thinned(by) => write!(f, "a newer one stands for {by}"),
            Self::Outlived => f.write_str("older than every rule"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_as_people_talk() {
        let day = Bucket::Day(jiff::civil::date(2026, 11, 20));
        let keep = [
            KeepReason::Head,
            KeepReason::Pinned,
            KeepReason::Last(Count::UpTo(10)),
            KeepReason::Within(Span::days(30)),
            KeepReason::Calendar(day),
            KeepReason::Grid("1d:1h".parse().unwrap()),
            KeepReason::Free,
            KeepReason::InUse,
        ];
        assert_eq!(
            Decision::Keep(keep.into()).to_string(),
            "keep: head, pinned, last 10, within 30d, daily 2026-11-20, grid 1d:1h, \
             takes no space of its own, in use"
        );
        for (reason, text) in [
            (DropReason::Excluded("*.tmp".into()), "drop: excluded by `*.tmp`"),
            (
                DropReason::TooLarge { size_bytes: 3 << 29, limit: Size(1 << 30) },
                "drop: larger than 1G (1.50 GiB)",
            ),
            (DropReason::TooOld(Span::days(9)), "drop: replaced more than 9d ago"),
            (DropReason::LongDeleted(Span::days(9)), "drop: deleted more than 9d ago"),
            (
                DropReason::Thinned(KeepReason::Calendar(day)),
                "drop: a newer one stands for daily 2026-11-20",
            ),
            (DropReason::Outlived, "drop: older than every rule"),
        ] {
            assert_eq!(Decision::Drop(reason).to_string(), text);
        }
    }
}
