//! One policy: rules that keep, limits that drop.
//!
//! Owns their settings, defaults and text forms.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sizespec::Size;
use crate::timespec::Span;

use super::{Grid, Period};

/// What is kept of a file or a dataset.
///
/// The default is generous; the module's page describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What is kept.
    pub keep: Keep,
    /// What is dropped whatever the rules keep.
    pub limit: Limit,
}

/// Every hour for a quarter, every day for a year, every week for five.
const DEFAULT_GRID: &str = "90d:1h,1y:1d,5y:1w";

impl Default for Policy {
    fn default() -> Self {
        let keep = Keep {
            last: Count::UpTo(10),
            within: Some(Span::days(30)),
            grid: Some(DEFAULT_GRID.parse().expect("the built-in grid is written as one")),
            ..Keep::default()
        };
        Self { keep, limit: Limit { deleted: Some(Span::days(365)), ..Limit::default() } }
    }
}

/// Rules, any of which keeps an item. The default has none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Keep {
    /// The newest, by number; the head is one of them.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub last: Count,
    /// What was current not longer ago than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Span>,
    /// The last of each of so many hours that have any.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub hourly: Count,
    /// The last of each of so many days that have any.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub daily: Count,
    /// The last of each of so many ISO weeks that have any.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub weekly: Count,
    /// The last of each of so many months that have any.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub monthly: Count,
    /// The last of each of so many years that have any.
    #[serde(skip_serializing_if = "Count::is_none")]
    pub yearly: Count,
    /// How dense history is at which age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<Grid>,
}

/// The rules keep nothing.
///
/// That is how a history is lost by a slip of the pen, so who wants it must say so as an exclusion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no rule keeps anything: give one of last, within, hourly, daily, weekly, monthly, yearly or grid, or put the globs into `exclude`"
)]
pub struct KeepError;

impl Keep {
    /// Refuses rules that would keep nothing. Every text form is checked on reading.
    ///
    /// # Errors
    /// If no rule ever holds.
    pub fn check(&self) -> Result<(), KeepError> {
        let counts = self.calendar().into_iter().all(|(_, count)| count.is_none());
        let within = self.within.is_none_or(|span| span.as_ns() == 0);
        if counts && within && self.last.is_none() && self.grid.is_none() {
            return Err(KeepError);
        }
        Ok(())
    }

    /// The numbers of calendar buckets, from the shortest to the longest.
    pub(super) fn calendar(&self) -> [(Period, Count); 5] {
        [
            (Period::Hourly, self.hourly),
            (Period::Daily, self.daily),
            (Period::Weekly, self.weekly),
            (Period::Monthly, self.monthly),
            (Period::Yearly, self.yearly),
        ]
    }
}

// `remote = "Self"` makes the derived functions inherent, so that the checked ones can be the trait's.
impl Serialize for Keep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Keep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keep = Self::deserialize(deserializer)?;
        keep.check().map_err(de::Error::custom)?;
        Ok(keep)
    }
}

/// What is dropped whatever the rules keep, but for heads and pins. The default drops nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// Content larger than this is not preserved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
    /// What was replaced or deleted longer ago than this goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
    /// Everything of a file that was deleted longer ago than this goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<Span>,
}

/// How many: a number or `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// At most so many; the default is none.
    UpTo(u32),
    /// Every one there is.
    All,
}

impl Count {
    /// Whether one more is kept when there are so many already.
    pub(super) fn has_room(self, taken: usize) -> bool {
        match self {
            Self::UpTo(count) => u32::try_from(taken).is_ok_and(|taken| taken < count),
            Self::All => true,
        }
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Count {
    fn default() -> Self {
        Self::UpTo(0)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpTo(count) => count.fmt(f),
            Self::All => f.write_str("all"),
        }
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::UpTo(count) => serializer.serialize_u32(*count),
            Self::All => serializer.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number such as 10, or \"all\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Unsigned(number), &self);
        u32::try_from(number).map(Count::UpTo).map_err(|_| unexpected())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
        let unexpected = || E::invalid_value(de::Unexpected::Signed(number), &self);
        u32::try_from(number).map(Count::UpTo).map_err(|_| unexpected())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
        match text {
            "all" => Ok(Count::All),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_default_is_what_is_documented() {
        let text = toml::to_string(&Policy::default()).unwrap();
        let documented = "[keep]\nlast = 10\nwithin = \"30d\"\ngrid = \"90d:1h,1y:1d,5y:1w\"\n\n\
                          [limit]\ndeleted = \"365d\"\n";
        assert_eq!(text, documented);
        assert_eq!(toml::from_str(&text), Ok(Policy::default()));
        assert_eq!(toml::from_str(""), Ok(Policy::default()));
    }

    #[test]
    fn tables_that_are_given_stand_alone() {
        let policy: Policy = toml::from_str("keep.daily = \"all\"").unwrap();
        assert_eq!(policy.keep, Keep { daily: Count::All, ..Keep::default() });
        assert_eq!(policy.limit, Policy::default().limit);
        let policy: Policy = toml::from_str("limit.size = \"64M\"").unwrap();
        assert_eq!(policy.limit, Limit { size: Some(Size(64 << 20)), ..Limit::default() });
        assert_eq!(policy.keep, Policy::default().keep);
    }

    #[rstest]
    #[case("[keep]", "no rule keeps anything: give one of last, within")]
    #[case("keep = { last = 0, within = \"0s\" }", "no rule keeps anything")]
    #[case(
        "keep.last = -1",
        "invalid value: integer `-1`, expected a number such as 10, or \"all\""
    )]
    #[case("keep.last = \"some\"", "expected a number such as 10, or \"all\"")]
    #[case("keep.last = 5000000000", "expected a number such as 10, or \"all\"")]
    #[case("keep.latest = 3", "unknown field `latest`, expected one of `last`, `within`")]
    #[case("keep.within = \"a month\"", "`a month` is no length of time: use 30m")]
    #[case("keep.grid = \"1h\"", "`1h` is no step of a grid")]
    #[case("limit.size = \"big\"", "`big` is no size: use 100")]
    #[case("limit.length = 1", "unknown field `length`")]
    #[case("limits.size = \"1M\"", "unknown field `limits`, expected `keep` or `limit`")]
    fn what_is_wrong_is_named(#[case] text: &str, #[case] message: &str) {
        let error = toml::from_str::<Policy>(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
