//! The cap on what one run may drop.
//!
//! Owns the check of a plan before anything of it is done: a wrong policy, or a wrong clock, must not
//! cost the history of everything in one night.

use std::fmt;
use std::str::FromStr;

use indicatif::BinaryBytes;
use serde::{Deserialize, Serialize};

use crate::sizespec::Size;

use super::{Decision, Item, Life};

/// What one run may drop at most. By default half of the history, and no number or size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cap {
    /// Share of the items, heads not among them.
    pub share: Share,
    /// Up to so many dropped items the share does not count: half of a small history is nothing.
    pub share_from: u32,
    /// Number of items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Their size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Size>,
}

impl Default for Cap {
    fn default() -> Self {
        Self { share: Share(50), share_from: 100, count: None, bytes: None }
    }
}

/// A share in whole percent, from `0%` to `100%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u8);

/// The text is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no share: use a whole percentage from 0% to 100%")]
pub struct ShareError {
    text: String,
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.trim().strip_suffix('%').filter(|digits| !digits.starts_with('+'));
        digits
            .and_then(|digits| digits.parse().ok())
            .filter(|percent| *percent <= 100)
            .map(Self)
            .ok_or_else(|| ShareError { text: text.into() })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

serde_text!(Share);

/// What a plan comes to, over all files of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Items that are not heads: the history.
    pub items: u64,
    /// Those that go.
    pub dropped: u64,
    /// Their size in bytes.
    pub dropped_bytes: u64,
}

impl Tally {
    /// Counts one decision.
    pub fn add(&mut self, item: &Item, decision: &Decision) {
        if item.life != Life::Head {
            self.items += 1;
        }
        if !decision.is_keep() {
            self.dropped += 1;
            self.dropped_bytes = self.dropped_bytes.saturating_add(item.size_bytes);
        }
    }
}

/// A plan drops more than one run may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// Too large a part of the history.
    #[error(
        "would drop {dropped} of {items} ({}%), and `cap.share` allows {cap} in one run", percent(*dropped, *items)
    )]
    Share {
        /// Items that would go.
        dropped: u64,
        /// Items there are, without heads.
        items: u64,
        /// The cap.
        cap: Share,
    },
    /// Too many.
    #[error("would drop {dropped} of {items}, and `cap.count` allows {cap} in one run")]
    Count {
        /// Items that would go.
        dropped: u64,
        /// Items there are, without heads.
        items: u64,
        /// The cap.
        cap: u32,
    },
    /// Too much.
    #[error(
        "would drop {} in {dropped} of {items}, and `cap.bytes` allows {cap} in one run",
        BinaryBytes(*dropped_bytes)
    )]
    Bytes {
        /// Their size in bytes.
        dropped_bytes: u64,
        /// Items that would go.
        dropped: u64,
        /// Items there are, without heads.
        items: u64,
        /// The cap.
        cap: Size,
    },
}

fn percent(part: u64, whole: u64) -> u128 {
    // Rounded up, so that what exceeds a cap never shows as the cap.
    (u128::from(part) * 100).div_ceil(u128::from(whole.max(1)))
}

impl Cap {
    /// Refuses a plan that drops more than one run may.
    ///
    /// # Errors
    /// The first cap that is exceeded, with the numbers.
    pub fn check(&self, tally: &Tally) -> Result<(), CapError> {
        let Tally { items, dropped, dropped_bytes } = *tally;
        if dropped > u64::from(self.share_from) && percent(dropped, items) > self.share.0.into() {
            return Err(CapError::Share { dropped, items, cap: self.share });
        }
        if let Some(cap) = self.count.filter(|cap| dropped > u64::from(*cap)) {
            return Err(CapError::Count { dropped, items, cap });
        }
        if let Some(cap) = self.bytes.filter(|cap| dropped_bytes > cap.0) {
            return Err(CapError::Bytes { dropped_bytes, dropped, items, cap });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DropReason, KeepReason};
    use super::*;
    use rstest::rstest;

    fn tally(items: u64, dropped: u64, dropped_bytes: u64) -> Tally {
        Tally { items, dropped, dropped_bytes }
    }

    #[test]
    fn heads_are_no_history() {
        let item = |life| Item { number: 1, time_ns: 0, life, size_bytes: 7, pinned: false };
        let mut tally = Tally::default();
        tally.add(&item(Life::Head), &Decision::Keep(vec![KeepReason::Head]));
        tally.add(&item(Life::Until(0)), &Decision::Keep(vec![KeepReason::Pinned]));
        tally.add(&item(Life::Until(0)), &Decision::Drop(DropReason::Outlived));
        assert_eq!(tally, Tally { items: 2, dropped: 1, dropped_bytes: 7 });
    }

    #[rstest]
    #[case("", tally(0, 0, 0), "")]
    #[case("", tally(100, 100, u64::MAX), "")]
    #[case("", tally(2000, 1000, 0), "")]
    #[case("", tally(2000, 1001, 0), "would drop 1001 of 2000 (51%), and `cap.share` allows 50%")]
    #[case("share_from = 0\nshare = \"0%\"", tally(9, 1, 0), "would drop 1 of 9 (12%)")]
    #[case("share = \"100%\"", tally(u64::MAX, u64::MAX, 0), "")]
    #[case("count = 5", tally(50, 5, 0), "")]
    #[case("count = 5", tally(50, 6, 0), "would drop 6 of 50, and `cap.count` allows 5 in one run")]
    #[case("bytes = \"1M\"", tally(50, 6, 1 << 20), "")]
    #[case(
        "bytes = \"1M\"",
        tally(50, 6, 3 << 19),
        "would drop 1.50 MiB in 6 of 50, and `cap.bytes` allows 1M in one run"
    )]
    fn what_is_too_much_is_refused_with_numbers(
        #[case] cap: &str,
        #[case] tally: Tally,
        #[case] message: &str,
    ) {
        let cap: Cap = toml::from_str(cap).unwrap();
        let error = cap.check(&tally).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(message) && error.is_empty() == message.is_empty(), "{error}");
    }

    #[rstest]
    #[case("50")]
    #[case("+5%")]
    #[case("101%")]
    #[case("5.5%")]
    #[case("%")]
    fn a_wrong_share_is_named(#[case] text: &str) {
        let error = text.parse::<Share>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{text}` is no share: use a whole percentage")));
    }
}
