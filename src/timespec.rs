//! Points in time and lengths of time as people type them.
//!
//! Owns the pure parser of every `--at` and `--since`, and [`Span`], which policies are written in.
//! Never reads the clock or the zone: both come as arguments.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// The text names no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no time: use 10m, 2h, 3d, now, `yesterday 14:00`, `2026-01-31 14:00` or RFC 3339"
)]
pub struct TimeError {
    text: String,
}

/// The time that `text` names at `now_ns` in `zone`, in nanoseconds since 1970.
///
/// Takes RFC 3339, `YYYY-MM-DD [HH:MM[:SS]]` in the zone, `today` and `yesterday` with or without a
/// time of day, `now`, and how long ago as a [`Span`]: `90s`, `10m`, `2h`, `1h30m`, `3d`, `2w`,
/// `1y`, with or without `ago`.
///
/// # Errors
/// If it is none of these, or lies before 1677 or after 2262.
pub fn parse_time(text: &str, now_ns: i64, zone: &TimeZone) -> Result<i64, TimeError> {
    let trimmed = text.trim();
    absolute(trimmed, zone)
        .or_else(|| relative(trimmed, now_ns))
        .or_else(|| day(trimmed, now_ns, zone))
        .ok_or_else(|| TimeError { text: text.into() })
}

/// The time that `text` names whenever it is read, in nanoseconds since 1970: RFC 3339, or a date with or
/// without a time in `zone`; `None` for everything else.
pub fn parse_absolute(text: &str, zone: &TimeZone) -> Option<i64> {
    absolute(text, zone)
}

/// How Windows clients write the time of a previous version, in UTC.
const GMT: &str = "@GMT-%Y.%m.%d-%H.%M.%S";

/// The name of a second by which Samba and its clients ask for a previous version.
pub fn gmt_token(ns: i64) -> String {
    from_ns(ns).strftime(GMT).to_string()
}

/// The inverse of [`gmt_token`]: the beginning of the second in nanoseconds since 1970.
pub fn parse_gmt_token(text: &str) -> Option<i64> {
    let time = in_zone(DateTime::strptime(GMT, text).ok()?, &TimeZone::UTC)?;
    // One name for each second.
    (gmt_token(time) == text).then_some(time)
}

fn absolute(text: &str, zone: &TimeZone) -> Option<i64> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return nanoseconds(time);
    }
    // What has digits only or starts with a letter is a relative time, not a compact date.
    if !text.contains('-') {
        return None;
    }
    in_zone(text.parse::<DateTime>().ok()?, zone)
}

fn relative(text: &str, now_ns: i64) -> Option<i64> {
    if text == "now" {
        return Some(now_ns);
    }
    let ago = Span::read(text.strip_suffix("ago").unwrap_or(text).trim_end())?;
    now_ns.checked_sub(ago.as_ns())
}

/// A length of time: `90s`, `10m`, `12h`, `1h30m`, `30d`, `2w`, `1y`.
///
/// A day has 24 hours, a week 7 days and a year 365 days, so that a length is the same whenever it
/// is applied. It shows itself in the smallest unit it was typed in: `30d` stays `30d`, and `1h30m`
/// is `90m`. At most about 292 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    seconds: i64,
    /// Seconds of the unit it is shown in; `seconds` is a multiple of it.
    unit: i64,
}

/// The text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no length of time: use 30m, 12h, 30d, 2w or 1y; a month is 30d")]
pub struct SpanError {
    text: String,
}

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;

impl Span {
    /// So many days of 24 hours.
    pub const fn days(days: u16) -> Self {
        Self { seconds: days as i64 * DAY, unit: DAY }
    }

    /// Its nanoseconds, never negative.
    pub fn as_ns(self) -> i64 {
        self.seconds * 1_000_000_000
    }

    fn read(text: &str) -> Option<Self> {
        let (mut seconds, mut smallest) = (0_i64, i64::MAX);
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let unit = unit_seconds(unit)?;
            seconds = seconds.checked_add(number.parse::<i64>().ok()?.checked_mul(unit)?)?;
            smallest = smallest.min(unit);
            rest = tail.trim_start();
        }
        // What is shown as nanoseconds must fit them, and nothing at all is no length.
        seconds.checked_mul(1_000_000_000).filter(|_| smallest < i64::MAX)?;
        // Years are no whole weeks.
        let unit = if seconds % smallest == 0 { smallest } else { DAY };
        Some(Self { seconds, unit })
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::read(text.trim()).ok_or_else(|| SpanError { text: text.into() })
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.unit {
            1 => 's',
            60 => 'm',
            3600 => 'h',
            DAY => 'd',
            WEEK => 'w',
            _ => 'y',
        };
        write!(f, "{}{letter}", self.seconds / self.unit)
    }
}

serde_text!(Span);

fn unit_seconds(unit: &str) -> Option<i64> {
    Some(match unit {
        "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => DAY,
        "w" => WEEK,
        "y" => 365 * DAY,
        _ => return None,
    })
}

fn day(text: &str, now_ns: i64, zone: &TimeZone) -> Option<i64> {
    let today = from_ns(now_ns).to_zoned(zone.clone()).date();
    let (date, clock): (Date, &str) = if let Some(rest) = text.strip_prefix("today") {
        (today, rest)
    } else {
        let rest = text.strip_prefix("yesterday")?;
        (today.checked_sub(1.day()).ok()?, rest)
    };
    let time = match clock.trim_start() {
        "" => Time::midnight(),
        clock => clock.parse().ok()?,
    };
    in_zone(date.to_datetime(time), zone)
}

/// The instant of a local time; one that was skipped or came twice is taken as RFC 5545 does.
fn in_zone(local: DateTime, zone: &TimeZone) -> Option<i64> {
    nanoseconds(zone.to_timestamp(local).ok()?)
}

fn nanoseconds(time: Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond()).ok()
}

/// The instant of a count of nanoseconds since 1970.
pub fn from_ns(ns: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns))
        .expect("64 bits of nanoseconds are within the years of jiff")
}

/// RFC 3339 in UTC with the offset `+00:00`.
pub fn rfc3339(ns: i64) -> String {
    jiff::fmt::temporal::DateTimePrinter::new()
        .timestamp_with_offset_to_string(&from_ns(ns), jiff::tz::Offset::UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// 2026-03-10 12:00:00 in Berlin.
    const NOW: &str = "2026-03-10T11:00:00+00:00";

    fn parse(text: &str) -> Result<String, TimeError> {
        let now = nanoseconds(NOW.parse().unwrap()).unwrap();
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        parse_time(text, now, &zone).map(rfc3339)
    }

    #[rstest]
    #[case("now", NOW)]
    #[case("10m", "2026-03-10T10:50:00+00:00")]
    #[case("1h30m ago", "2026-03-10T09:30:00+00:00")]
    #[case("3d", "2026-03-07T11:00:00+00:00")]
    #[case("2w", "2026-02-24T11:00:00+00:00")]
    #[case("1y", "2025-03-10T11:00:00+00:00")]
    #[case("90 s", "")]
    #[case("today", "2026-03-09T23:00:00+00:00")]
    #[case("yesterday 14:00", "2026-03-09T13:00:00+00:00")]
    #[case("yesterday 14:00:30", "2026-03-09T13:00:30+00:00")]
    #[case("2026-01-31", "2026-01-30T23:00:00+00:00")]
    #[case("2026-07-01 08:30", "2026-07-01T06:30:00+00:00")]
    #[case("2026-07-01 08:30:15", "2026-07-01T06:30:15+00:00")]
    #[case("2026-07-01T08:30:15Z", "2026-07-01T08:30:15+00:00")]
    #[case("2026-07-01T08:30:15.5-02:00", "2026-07-01T10:30:15.5+00:00")]
    #[case("", "")]
    #[case("ago", "")]
    #[case("5", "")]
    #[case("5x", "")]
    #[case("99999999999999999999d", "")]
    #[case("tomorrow", "")]
    #[case("9999-12-31", "")]
    fn times_are_read(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse(text).unwrap_or_default(), expected);
    }

    #[rstest]
    #[case("2026-07-01T08:30:15Z", true)]
    #[case("2026-07-01T08:30:15.5-02:00", true)]
    #[case("2026-07-01 08:30", true)]
    #[case("2026-07-01", true)]
    #[case("now", false)]
    #[case("10m", false)]
    #[case("yesterday 14:00", false)]
    #[case("20260701", false)]
    fn what_is_absolute_needs_no_clock(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(parse_absolute(text, &TimeZone::UTC).is_some(), expected);
    }

    #[rstest]
    #[case("@GMT-2026.07.01-08.30.15", "2026-07-01T08:30:15+00:00")]
    #[case("@GMT-1999.12.31-23.59.59", "1999-12-31T23:59:59+00:00")]
    #[case("@GMT-2026.7.1-8.30.15", "")]
    #[case("@GMT-2026.07.01-08.30.15 ", "")]
    #[case("@GMT-2026.02.30-08.30.15", "")]
    #[case("@GMT-9999.07.01-08.30.15", "")]
    #[case("GMT-2026.07.01-08.30.15", "")]
    fn seconds_have_one_name_each(#[case] token: &str, #[case] expected: &str) {
        let time = parse_gmt_token(token);
        assert_eq!(time.map(rfc3339).unwrap_or_default(), expected);
        assert!(time.is_none_or(|time| gmt_token(time + 999_999_999) == token));
    }

    #[test]
    fn the_error_shows_what_can_be_typed() {
        let message = parse("soon").unwrap_err().to_string();
        assert!(message.contains("`soon`") && message.contains("yesterday 14:00"));
    }

    #[rstest]
    #[case("30d", "30d", 30 * DAY)]
    #[case("2w", "2w", 14 * DAY)]
    #[case("1y", "1y", 365 * DAY)]
    #[case("1h30m", "90m", 5400)]
    #[case(" 1h 30min ", "90m", 5400)]
    #[case("1y1w", "372d", 372 * DAY)]
    #[case("0s", "0s", 0)]
    fn spans_stay_as_they_were_typed(
        #[case] text: &str,
        #[case] shown: &str,
        #[case] seconds: i64,
    ) {
        let span: Span = text.parse().unwrap();
        assert_eq!((span.to_string().as_str(), span.as_ns()), (shown, seconds * 1_000_000_000));
    }

    #[rstest]
    #[case("")]
    #[case("d")]
    #[case("30")]
    #[case("3 d")]
    #[case("-3d")]
    #[case("1mo")]
    #[case("300y")]
    fn what_is_no_span_says_how_to_write_one(#[case] text: &str) {
        let message = text.parse::<Span>().unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")) && message.contains("a month is 30d"));
    }

    proptest! {
        #[test]
        fn spans_survive_their_text(parts in "([0-9]{1,2}[smhdwy] ?){1,2}") {
            let span: Span = parts.parse().unwrap();
            prop_assert_eq!(span.to_string().parse(), Ok(span));
        }

        #[test]
        fn no_text_panics(text in ".*", now in any::<i64>()) {
            let _ = parse_time(&text, now, &TimeZone::UTC);
        }

        #[test]
        fn nearly_times_do_not_panic(
            text in "(yesterday |today )?[0-9]{0,20}[-:TZ smhdw+.0-9]{0,12}",
            now in any::<i64>(),
        ) {
            let _ = parse_time(&text, now, &TimeZone::UTC);
        }

        #[test]
        fn no_token_panics(text in "(@GMT-)?[0-9.@-]{0,25}") {
            let _ = parse_gmt_token(&text);
        }

        #[test]
        fn every_instant_survives_its_text(ns in any::<i64>()) {
            prop_assert_eq!(parse_time(&rfc3339(ns), 0, &TimeZone::UTC), Ok(ns));
        }
    }
}
