//! Schedules under a clock that is simulated over years.

use super::*;
use jiff::civil::date;
use proptest::prelude::*;
use rstest::rstest;

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn at(zone: &TimeZone, year: i16, month: i8, day: i8, hour: i8, minute: i8) -> i64 {
    let time = date(year, month, day).at(hour, minute, 0, 0).to_zoned(zone.clone()).unwrap();
    i64::try_from(time.timestamp().as_nanosecond()).unwrap()
}

fn local(zone: &TimeZone, ns: i64) -> String {
    from_ns(ns).to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M").to_string()
}

/// Looks at the clock every so often, and returns when one was taken.
fn run(schedule: &Schedule, zone: &TimeZone, clock: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut due = Due::since(None);
    let mut taken = Vec::new();
    for now in clock {
        if due.is_due(schedule, now, zone) {
            taken.push(now);
            due.done(now);
        }
    }
    taken
}

fn every(step: i64, from: i64, to: i64) -> impl Iterator<Item = i64> {
    (0..).map(move |n| from + n * step).take_while(move |now| *now < to)
}

#[rstest]
#[case(Class::Hourly, "2026-01-31 14:20", "Sat 2026-01-31 15:00")]
#[case(Class::Daily, "2026-01-31 14:20", "Sun 2026-02-01 00:05")]
#[case(Class::Weekly, "2026-02-02 14:20", "Sun 2026-02-08 01:05")]
#[case(Class::Monthly, "2026-02-02 14:20", "Sun 2026-03-01 02:05")]
fn the_usual_times_are_those_that_people_know(
    #[case] class: Class,
    #[case] now: &str,
    #[case] next: &str,
) {
    let utc = TimeZone::UTC;
    let now = crate::timespec::parse_time(now, 0, &utc).unwrap();
    let schedule = Schedule::usual(class).unwrap();
    assert_eq!(local(&utc, schedule.after(now, &utc).unwrap()), next);
}

#[rstest]
#[case("hourly :20", "20 * * * *")]
#[case("Daily 4:30", "30 4 * * *")]
#[case("weekly Sunday 01:05", "5 1 * * SUN")]
#[case("monthly 15 02:00", "0 2 15 * *")]
#[case("yearly 12-31 23:59", "59 23 31 12 *")]
#[case("*/15 9-17 * * MON-FRI", "*/15 9-17 * * MON-FRI")]
fn words_are_cron_expressions(#[case] text: &str, #[case] cron: &str) {
    let (schedule, same): (Schedule, Schedule) = (text.parse().unwrap(), cron.parse().unwrap());
    assert_eq!(schedule.cron, same.cron);
    assert_eq!(schedule.to_string(), text);
}

#[rstest]
#[case("")]
#[case("sometimes")]
#[case("daily 24:00")]
#[case("daily +4:00")]
#[case("hourly 20")]
#[case("monthly 31 02:00")]
#[case("weekly someday 01:00")]
#[case("0 0 31 2 *")]
#[case("* * * * * *")]
#[case("* * * *")]
#[case("99 * * * *")]
fn what_is_no_schedule_is_named(#[case] text: &str) {
    let error = text.parse::<Schedule>().unwrap_err().to_string();
    assert!(error.starts_with(&format!("`{text}` is no schedule: use hourly")), "{error}");
}

#[rstest]
fn every_day_of_ten_years_has_one_in_every_zone(
    #[values("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")]
    name: &str,
    #[values("daily", "daily 02:30", "daily 01:45")] text: &str,
) {
    let (zone, schedule) = (zone(name), text.parse().unwrap());
    let (from, to) = (at(&zone, 2026, 1, 1, 12, 0), at(&zone, 2036, 1, 1, 12, 0));
    let taken = run(&schedule, &zone, every(HOUR, from, to));
    // The first at once, then one on each of 3652 days.
    assert_eq!(taken.len(), 1 + 3652);
    let mut days: Vec<_> = taken.iter().map(|ns| local(&zone, *ns)[4..14].to_owned()).collect();
    days.dedup();
    assert_eq!(days.len(), 1 + 3652, "never two on a day, and none left out");
}

#[rstest]
fn every_hour_of_years_has_one_also_those_that_come_twice(
    #[values("UTC", "Europe/Berlin", "America/New_York")] name: &str,
) {
    let (zone, schedule) = (zone(name), Schedule::usual(Class::Hourly).unwrap());
    let (from, to) = (at(&zone, 2026, 1, 1, 0, 30), at(&zone, 2028, 1, 1, 0, 30));
    let taken = run(&schedule, &zone, every(30 * MINUTE, from, to));
    assert_eq!(taken.len(), 1 + 2 * 365 * 24);
    assert!(taken[1..].windows(2).all(|pair| pair[1] - pair[0] == HOUR));
}

#[test]
fn weeks_and_months_are_whole() {
    let zone = zone("Europe/Berlin");
    let (from, to) = (at(&zone, 2026, 1, 1, 0, 0), at(&zone, 2030, 1, 1, 0, 0));
    let taken = |class| {
        let schedule = Schedule::usual(class).unwrap();
        run(&schedule, &zone, every(35 * MINUTE, from, to)).split_off(1)
    };
    let weekly = taken(Class::Weekly);
    assert_eq!(weekly.len(), 209);
    assert!(weekly.iter().all(|ns| local(&zone, *ns).starts_with("Sun ")));
    let monthly = taken(Class::Monthly);
    assert_eq!(monthly.len(), 48);
    assert!(monthly.iter().all(|ns| local(&zone, *ns).contains("-01 02:")), "{monthly:?}");
}

#[test]
fn after_a_downtime_there_is_one_and_not_one_for_each() {
    let (zone, schedule) = (TimeZone::UTC, Schedule::usual(Class::Hourly).unwrap());
    let off = 500 * DAY + 20 * MINUTE;
    let clock = every(MINUTE, 0, DAY).chain(every(MINUTE, off, off + 2 * HOUR));
    let taken = run(&schedule, &zone, clock);
    assert_eq!(taken.len(), 24 + 1 + 2);
    assert_eq!(taken[24..], [off, 500 * DAY + HOUR, 500 * DAY + 2 * HOUR]);
}

#[test]
fn a_clock_that_jumps_makes_neither_many_nor_none() {
    let (zone, schedule) = (TimeZone::UTC, Schedule::usual(Class::Hourly).unwrap());
    let wrong = 9_000 * DAY;
    // A day, then two hours of a day that is long to come, then right again.
    let clock = every(MINUTE, 0, DAY).chain(every(MINUTE, wrong + MINUTE, wrong + 2 * HOUR));
    let taken = run(&schedule, &zone, clock.chain(every(MINUTE, DAY, 2 * DAY)));
    assert_eq!(taken.len(), 24 + 2 + 23, "{taken:?}");
    assert_eq!(taken[26], DAY + HOUR, "it goes on with the next hour");
    // A little back, over the full hour: not twice.
    let clock = every(MINUTE, 0, HOUR + MINUTE).chain(every(MINUTE, HOUR - 2 * MINUTE, 2 * HOUR));
    assert_eq!(run(&schedule, &zone, clock), [0, HOUR]);
}

#[test]
fn the_last_one_is_remembered_over_a_restart() {
    let (zone, schedule) = (TimeZone::UTC, Schedule::usual(Class::Daily).unwrap());
    let mut due = Due::since(Some(DAY + 10 * MINUTE));
    assert!(!due.is_due(&schedule, DAY + 20 * MINUTE, &zone));
    assert_eq!(due.next_ns(&schedule, DAY, &zone), Some(2 * DAY + 5 * MINUTE));
    assert!(due.is_due(&schedule, 2 * DAY + 5 * MINUTE, &zone));
}

#[test]
fn failures_are_tried_again_less_and_less_often() {
    let waits: Vec<_> = (0..9).map(|failures| back_off_ns(failures) / MINUTE).collect();
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(back_off_ns(u32::MAX), HOUR);
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _ = text.parse::<Schedule>();
    }

    #[test]
    fn any_clock_is_survived(clock in proptest::collection::vec(any::<i64>(), 1..50)) {
        let schedule = Schedule::usual(Class::Daily).unwrap();
        run(&schedule, &TimeZone::UTC, clock.into_iter());
    }
}
