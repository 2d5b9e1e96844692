//! Calendar buckets.
//!
//! Owns which hour, day, ISO week, month and year a time belongs to in a time zone.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};

use crate::timespec::from_ns;

/// How long a calendar bucket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From one full hour of the local clock to the next.
    Hourly,
    /// From midnight to midnight.
    Daily,
    /// From Monday to Sunday, as ISO 8601 numbers them.
    Weekly,
    /// A month.
    Monthly,
    /// A year.
    Yearly,
}

/// One bucket of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// An hour. The offset tells apart the two that have one name when summer time ends.
    Hour(Date, i8, Offset),
    /// A day.
    Day(Date),
    /// A week: the year it belongs to and its number.
    Week(i16, i8),
    /// A month of a year.
    Month(i16, i8),
    /// A year.
    Year(i16),
}

impl Bucket {
    /// The bucket of this length that a time in nanoseconds since 1970 lies in.
    pub fn of(period: Period, time_ns: i64, zone: &TimeZone) -> Self {
        let instant = from_ns(time_ns);
        let offset = zone.to_offset(instant);
        let local = offset.to_datetime(instant);
        match period {
            Period::Hourly => Self::Hour(local.date(), local.hour(), offset),
            Period::Daily => Self::Day(local.date()),
            Period::Weekly => {
                let week = local.date().iso_week_date();
                Self::Week(week.year(), week.week())
            }
            Period::Monthly => Self::Month(local.year(), local.month()),
            Period::Yearly => Self::Year(local.year()),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(day, hour, offset) => write!(f, "hourly {day} {hour:02}:00{offset}"),
            Self::Day(day) => write!(f, "daily {day}"),
            Self::Week(year, week) => write!(f, "weekly {year}-W{week:02}"),
            Self::Month(year, month) => write!(f, "monthly {year}-{month:02}"),
            Self::Year(year) => write!(f, "yearly {year}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn bucket(period: Period, time: &str) -> String {
        let time: jiff::Timestamp = time.parse().unwrap();
        let ns = i64::try_from(time.as_nanosecond()).unwrap();
        Bucket::of(period, ns, &berlin()).to_string()
    }

    #[rstest]
    #[case(Period::Hourly, "2026-11-20T14:59:59.9Z", "hourly 2026-11-20 15:00+01")]
    #[case(Period::Daily, "2026-11-20T22:59:59Z", "daily 2026-11-20")]
    #[case(Period::Daily, "2026-11-20T23:00:00Z", "daily 2026-11-21")]
    #[case(Period::Weekly, "2027-01-03T12:00:00Z", "weekly 2026-W53")]
    #[case(Period::Weekly, "2027-01-03T23:00:00Z", "weekly 2027-W01")]
    #[case(Period::Weekly, "2024-12-30T12:00:00Z", "weekly 2025-W01")]
    #[case(Period::Monthly, "2026-01-31T23:30:00Z", "monthly 2026-02")]
    #[case(Period::Yearly, "2025-12-31T23:30:00Z", "yearly 2026")]
    #[case(Period::Yearly, "1700-06-01T00:00:00Z", "yearly 1700")]
    fn times_have_the_bucket_of_the_local_clock(
        #[case] period: Period,
        #[case] time: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(bucket(period, time), expected);
    }

    #[test]
    fn the_hour_that_comes_twice_is_two_hours() {
        // On 2026-10-25 the clock goes from 03:00 back to 02:00 in Berlin.
        assert_eq!(bucket(Period::Hourly, "2026-10-25T00:30:00Z"), "hourly 2026-10-25 02:00+02");
        assert_eq!(bucket(Period::Hourly, "2026-10-25T01:30:00Z"), "hourly 2026-10-25 02:00+01");
    }

    #[test]
    fn days_of_23_and_25_hours_are_days() {
        // The first and the last second of 2026-03-29 and 2026-10-25 in Berlin.
        for (first, last) in [
            ("2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z"),
            ("2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z"),
        ] {
            assert_eq!(bucket(Period::Daily, first), bucket(Period::Daily, last));
        }
    }

    proptest! {
        #[test]
        fn every_time_has_its_buckets(ns: i64) {
            for period in [
                Period::Hourly, Period::Daily, Period::Weekly, Period::Monthly, Period::Yearly,
            ] {
                prop_assert_eq!(
                    Bucket::of(period, ns, &berlin()),
                    Bucket::of(period, ns, &berlin())
                );
            }
        }
    }
}
