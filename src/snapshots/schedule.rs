//! When snapshots are taken.
//!
//! Owns the reading of schedules, as cron expressions or calendar words, and the one question whether one is
//! due. It is asked forwards from the last that was taken, never backwards from now: so after a downtime one
//! is due and not one for each time that has passed, and a clock that jumps can make one late or early, and
//! neither many nor none for ever. Times are those of a zone: an hour that comes twice when summer time ends has a
//! daily snapshot once and an hourly one twice, and one that is left out in spring has its daily one as soon
//! as it is over.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Class;
use crate::timespec::from_ns;

/// When something is done again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// The text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no schedule: use hourly, `hourly :30`, daily, `daily 04:00`, `weekly sun 04:00`, \
     `monthly 1 04:00`, `yearly 01-31 04:00`, or a cron expression as `*/15 * * * *`"
)]
pub struct ScheduleError {
    text: String,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ScheduleError { text: text.into() };
        let trimmed = text.trim();
        let pattern = words(&trimmed.to_ascii_lowercase()).unwrap_or_else(|| trimmed.into());
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&pattern).map_err(|_| bad())?;
        let schedule = Self { text: trimmed.into(), cron };
        // There is no 31st of February.
        schedule.after(0, &TimeZone::UTC).ok_or_else(bad)?;
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_text!(Schedule);

/// The cron expression for calendar words; `None` if they are none.
fn words(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let time = |time: &str| {
        let (hour, minute) = time.split_once(':')?;
        Some((number(hour, 0, 23)?, number(minute, 0, 59)?))
    };
    match words[..] {
        ["frequent"] => Some("*/15 * * * *".into()),
        ["hourly"] => Some("0 * * * *".into()),
        ["hourly", minute] => {
            Some(format!("{} * * * *", number(minute.strip_prefix(':')?, 0, 59)?))
        }
        ["daily"] => Some("5 0 * * *".into()),
        ["daily", at] => time(at).map(|(hour, minute)| format!("{minute} {hour} * * *")),
        ["weekly"] => Some("5 1 * * SUN".into()),
        ["weekly", day, at] => {
            let (hour, minute) = time(at)?;
            let days = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
            let day = days.iter().find(|known| day.starts_with(**known))?;
            Some(format!("{minute} {hour} * * {}", day.to_ascii_uppercase()))
        }
        ["monthly"] => Some("5 2 1 * *".into()),
        ["monthly", day, at] => {
            let (hour, minute) = time(at)?;
            // A month without that day would have none.
            Some(format!("{minute} {hour} {} * *", number(day, 1, 28)?))
        }
        ["yearly"] => Some("5 3 1 1 *".into()),
        ["yearly", date, at] => {
            let ((month, day), (hour, minute)) = (date.split_once('-')?, time(at)?);
            let (month, day) = (number(month, 1, 12)?, number(day, 1, 31)?);
            Some(format!("{minute} {hour} {day} {month} *"))
        }
        _ => None,
    }
}

fn number(text: &str, least: u8, most: u8) -> Option<u8> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_digits && (least..=most).contains(number))
}

impl Schedule {
    /// The schedule of a class, if nobody says otherwise; `None` is never.
    pub fn usual(class: Class) -> Option<Self> {
        match class {
            Class::Frequent | Class::Yearly => None,
            Class::Hourly | Class::Daily | Class::Weekly | Class::Monthly => {
                Some(class.as_str().parse().expect("the name of each is a calendar word"))
            }
        }
    }

    /// The first time after another, in nanoseconds since 1970; `None` if there is none any more.
    pub fn after(&self, time_ns: i64, zone: &TimeZone) -> Option<i64> {
        let time: Timestamp = from_ns(time_ns);
        let next = self.cron.find_next_occurrence(&time.to_zoned(zone.clone()), false).ok()?;
        i64::try_from(next.timestamp().as_nanosecond()).ok()
    }
}

/// A clock that is set back by no more than this is one that was a little fast, in nanoseconds.
const SLACK_NS: i64 = 300_000_000_000;

/// Whether one of a class is due, whatever the clock does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The next time after this is the one; `None` is at once.
    since_ns: Option<i64>,
}

impl Due {
    /// After the last one that was taken, if there is one.
    pub fn since(last_ns: Option<i64>) -> Self {
        Self { since_ns: last_ns }
    }

    /// Whether one is due.
    pub fn is_due(&mut self, schedule: &Schedule, now_ns: i64, zone: &TimeZone) -> bool {
        let Some(since_ns) = self.since_ns else { return true };
        if since_ns.saturating_sub(now_ns) > SLACK_NS {
            // The clock was set back: what it called the future is no reason to wait for it.
            self.since_ns = Some(now_ns);
            return false;
        }
        schedule.after(since_ns, zone).is_some_and(|due_ns| due_ns <= now_ns)
    }

    /// When the next one is due, as far as that is known; `None` if there will be none.
    pub fn next_ns(&self, schedule: &Schedule, now_ns: i64, zone: &TimeZone) -> Option<i64> {
        self.since_ns.map_or(Some(now_ns), |since_ns| schedule.after(since_ns, zone))
    }

    /// One was taken, or was not needed.
    pub fn done(&mut self, now_ns: i64) {
        self.since_ns = Some(now_ns);
    }
}

/// How long to wait after so many failures in a row, in nanoseconds: a minute, and up to an hour.
pub fn back_off_ns(failures: u32) -> i64 {
    const MINUTE_NS: i64 = 60_000_000_000;
    match failures {
        0 => 0,
        1..=6 => MINUTE_NS << (failures - 1),
        _ => 60 * MINUTE_NS,
    }
}

#[cfg(test)]
mod tests;
