//! What snapshots are called.
//!
//! Owns the classes and the form `CLASS-YYYYMMDD-HHMMSS`, in UTC, which scripts and people know.

use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use utoipa::ToSchema;

use crate::timespec::from_ns;

/// How often snapshots of a kind are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Class {
    /// Several times an hour.
    Frequent,
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
    /// Every month.
    Monthly,
    /// Every year.
    Yearly,
}

impl Class {
    /// Every class, from the most frequent to the rarest.
    pub const ALL: [Self; 6] =
        [Self::Frequent, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Frequent => "frequent",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

/// The text names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no class of snapshots: use frequent, hourly, daily, weekly, monthly or yearly"
)]
pub struct ClassError {
    text: String,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = ClassError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|class| class.as_str() == text);
        found.ok_or_else(|| ClassError { text: text.into() })
    }
}

serde_text!(Class);

/// How the second is written in a name.
const SECOND: &str = "%Y%m%d-%H%M%S";

/// A name by which a snapshot is of a class and a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    /// Its class.
    pub class: Class,
    /// Its second, in nanoseconds since 1970.
    pub time_ns: i64,
}

impl SnapshotName {
    /// The name for now, or for the next second that no other of the class has.
    pub fn free(class: Class, now_ns: i64, is_taken: impl Fn(&str) -> bool) -> Self {
        const SECOND_NS: i64 = 1_000_000_000;
        let mut name = Self { class, time_ns: now_ns - now_ns.rem_euclid(SECOND_NS) };
        while is_taken(&name.to_string()) {
            name.time_ns = name.time_ns.saturating_add(SECOND_NS);
        }
        name
    }

    /// Reads a name; `None` if it is not exactly of this form.
    pub fn parse(text: &str) -> Option<Self> {
        let (class, second) = text.split_once('-')?;
        let class = class.parse().ok()?;
        let time = DateTime::strptime(SECOND, second).ok()?.to_zoned(TimeZone::UTC).ok()?;
        let time_ns = i64::try_from(time.timestamp().as_nanosecond()).ok()?;
        let name = Self { class, time_ns };
        // One text for each name.
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.class, from_ns(self.time_ns).strftime(SECOND))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// 2026-01-31 14:00:00 UTC.
    const TIME: i64 = 1_769_868_000_000_000_000;

    #[test]
    fn a_name_is_of_a_class_and_a_second_in_utc() {
        let name = SnapshotName::free(Class::Hourly, TIME + 999_999_999, |_| false);
        assert_eq!(name.to_string(), "hourly-20260131-140000");
        assert_eq!(SnapshotName::parse("hourly-20260131-140000"), Some(name));
    }

    #[test]
    fn two_in_a_second_have_two_names() {
        let taken = ["daily-20260131-140000", "daily-20260131-140001"];
        let name = SnapshotName::free(Class::Daily, TIME, |name| taken.contains(&name));
        assert_eq!(name.to_string(), "daily-20260131-140002");
    }

    #[rstest]
    #[case("hourly-20260131-14000")]
    #[case("hourly-20260131-140000-2")]
    #[case("hourly-20260131-140000 ")]
    #[case("hourly-20260231-140000")]
    #[case("hourly_20260131-140000")]
    #[case("Hourly-20260131-140000")]
    #[case("fortnightly-20260131-140000")]
    #[case("autosnap_2026-01-31_14:00:00_hourly")]
    #[case("")]
    fn another_name_is_of_no_class(#[case] text: &str) {
        assert_eq!(SnapshotName::parse(text), None);
    }

    proptest! {
        #[test]
        fn every_name_is_read_back(second in 0_i64..4_000_000_000, class in 0_usize..6) {
            let name = SnapshotName::free(Class::ALL[class], second * 1_000_000_000, |_| false);
            prop_assert_eq!(SnapshotName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = SnapshotName::parse(&text);
        }
    }
}
