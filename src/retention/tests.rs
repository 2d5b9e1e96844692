//! Examples of whole policies; `properties` holds for all of them.

mod properties;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;

/// 2026-11-20 13:00 in Berlin, a Friday.
const NOW: &str = "2026-11-20T12:00:00Z";

fn ns(time: &str) -> i64 {
    let time: Timestamp = time.parse().unwrap();
    i64::try_from(time.as_nanosecond()).unwrap()
}

fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
}

fn keep(text: &str) -> Policy {
    Policy { keep: toml::from_str(text).unwrap(), limit: Limit::default() }
}

/// Versions 1, 2, 3 … of a live file, each current until the next.
fn versions(times_ns: &[i64]) -> Vec<Item> {
    let item = |(place, &time_ns): (usize, &i64)| Item {
        number: place as u64 + 1,
        time_ns,
        life: times_ns.get(place + 1).map_or(Life::Head, |&end_ns| Life::Until(end_ns)),
        size_bytes: 10,
        pinned: false,
    };
    times_ns.iter().enumerate().map(item).collect()
}

/// The versions of a file that was deleted at the last of these times.
fn deleted(times_ns: &[i64]) -> Vec<Item> {
    let mut items = versions(times_ns);
    items.pop();
    items
}

fn decisions(policy: &Policy, items: &[Item], deleted_ns: Option<i64>) -> Vec<String> {
    let decisions = policy.decide(&History { items, deleted_ns }, ns(NOW), &berlin());
    decisions.iter().map(ToString::to_string).collect()
}

fn of_times(policy: &str, times: &[&str]) -> Vec<String> {
    let times: Vec<i64> = times.iter().map(|time| ns(time)).collect();
    decisions(&keep(policy), &versions(&times), None)
}

fn are_kept(decisions: &[String]) -> Vec<bool> {
    decisions.iter().map(|decision| decision.starts_with("keep")).collect()
}

#[test]
fn the_last_are_the_newest_and_the_head_is_one_of_them() {
    let times = ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z"];
    assert_eq!(
        of_times("last = 2", &times),
        ["drop: older than every rule", "keep: last 2", "keep: head, last 2"]
    );
    assert_eq!(of_times("last = \"all\"", &times)[0], "keep: last all");
}

#[test]
fn what_was_current_lately_is_kept_however_old_it_is() {
    let times = [
        "2019-01-01T00:00:00Z", // replaced in 2020
        "2020-01-01T00:00:00Z", // replaced on the first day of the 30
        "2026-10-21T12:00:00Z",
    ];
    assert_eq!(
        of_times("within = \"30d\"", &times),
        ["drop: older than every rule", "keep: within 30d", "keep: head, within 30d"]
    );
}

#[test]
fn the_last_of_each_bucket_is_kept() {
    let times = [
        "2025-03-01T10:00:00Z",
        "2026-11-18T10:00:00Z",
        "2026-11-18T22:59:59Z", // the last second of the 18th in Berlin
        "2026-11-18T23:00:00Z",
        "2026-11-20T10:00:00Z",
        "2026-11-20T11:00:00Z",
    ];
    assert_eq!(
        of_times("daily = 3\nyearly = 5", &times),
        [
            "keep: yearly 2025",
            "drop: a newer one stands for daily 2026-11-18",
            "keep: daily 2026-11-18",
            "keep: daily 2026-11-19",
            "drop: a newer one stands for daily 2026-11-20",
            "keep: head, daily 2026-11-20, yearly 2026",
        ]
    );
}

#[test]
fn the_hour_that_comes_twice_keeps_two() {
    let times = [
        "2026-10-25T00:10:00Z",
        "2026-10-25T00:50:00Z",
        "2026-10-25T01:10:00Z",
        "2026-10-25T02:10:00Z",
    ];
    assert_eq!(
        of_times("hourly = 9", &times),
        [
            "drop: a newer one stands for hourly 2026-10-25 02:00+02",
            "keep: hourly 2026-10-25 02:00+02",
            "keep: hourly 2026-10-25 02:00+01",
            "keep: head, hourly 2026-10-25 03:00+01",
        ]
    );
}

#[test]
fn a_grid_thins_with_age() {
    let times = [
        "2026-09-01T10:00:00Z",
        "2026-11-17T10:00:00Z", // three days old: one a day
        "2026-11-17T20:00:00Z",
        "2026-11-20T08:10:00Z", // hours old: one an hour
        "2026-11-20T08:50:00Z",
        "2026-11-20T11:10:00Z", // within the hour: all
        "2026-11-20T11:20:00Z",
        "2026-11-20T11:30:00Z",
    ];
    // The first was current until the 17th.
    assert_eq!(
        of_times("grid = \"1h:all,1d:1h,30d:1d\"", &times),
        [
            "keep: grid 30d:1d",
            "drop: a newer one stands for grid 30d:1d",
            "keep: grid 1d:1h",
            "drop: a newer one stands for grid 1d:1h",
            "keep: grid 1h:all",
            "keep: grid 1h:all",
            "keep: grid 1h:all",
            "keep: head, grid 1h:all",
        ]
    );
}

#[test]
fn heads_and_pins_stay_whatever_is_said() {
    let mut items = versions(&[0, 1, ns(NOW)]);
    items[0].pinned = true;
    items[2].pinned = true;
    let mut policy = keep("within = \"1h\"");
    policy.limit = toml::from_str("size = \"1\"\nage = \"0s\"\ndeleted = \"0s\"").unwrap();
    assert_eq!(
        decisions(&policy, &items, None),
        ["keep: pinned", "drop: larger than 1 (10 B)", "keep: head, pinned, within 1h"]
    );
}

#[test]
fn what_is_over_a_limit_takes_no_place() {
    let mut items = versions(&[1, 2, 3, ns(NOW)]);
    items[2].size_bytes = 1000;
    let mut policy = keep("last = 3");
    policy.limit.size = Some("999".parse().unwrap());
    assert_eq!(
        decisions(&policy, &items, None),
        ["keep: last 3", "keep: last 3", "drop: larger than 999 (1000 B)", "keep: head, last 3"]
    );
}

#[test]
fn a_file_that_is_long_gone_goes_whole() {
    let gone_ns = ns("2026-11-10T12:00:00Z");
    let items = deleted(&[1, 2, gone_ns]);
    let mut policy = keep("last = 1");
    assert_eq!(
        decisions(&policy, &items, Some(gone_ns)),
        ["drop: older than every rule", "keep: last 1"]
    );
    policy.limit.deleted = Some("10d".parse().unwrap());
    assert_eq!(decisions(&policy, &items, Some(gone_ns))[1], "keep: last 1");
    assert_eq!(
        decisions(&policy, &items, Some(gone_ns - 1)),
        ["drop: deleted more than 10d ago"; 2]
    );
}

#[test]
fn age_limits_count_from_the_end() {
    let times = [1, ns("2026-11-01T00:00:00Z"), ns("2026-11-10T12:00:00Z"), ns(NOW)];
    let mut policy = keep("last = 9");
    policy.limit.age = Some("10d".parse().unwrap());
    assert_eq!(
        decisions(&policy, &versions(&times), None),
        ["drop: replaced more than 10d ago", "keep: last 9", "keep: last 9", "keep: head, last 9"]
    );
}

#[test]
fn a_clock_that_was_set_back_does_not_make_the_newest_the_oldest() {
    let times = ["2026-11-20T11:00:00Z", "1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z"];
    assert_eq!(
        of_times("last = 2", &times),
        ["drop: older than every rule", "keep: last 2", "keep: head, last 2"]
    );
    // What was replaced before it was written was replaced when it was written.
    assert_eq!(of_times("within = \"2h\"", &times)[0], "keep: within 2h");
}

#[test]
fn the_future_is_young() {
    let times = ["2099-01-01T00:00:00Z", "2099-01-01T00:00:01Z", "2026-11-20T11:59:00Z"];
    for policy in ["within = \"1s\"", "grid = \"1h:1m\"", "daily = 2"] {
        assert_eq!(
            are_kept(&of_times(policy, &times)),
            [policy.starts_with("within"), true, true],
            "{policy}"
        );
    }
}

#[test]
fn equal_times_are_told_apart_by_their_numbers() {
    let times = ["2026-11-20T11:00:00Z"; 3];
    assert_eq!(are_kept(&of_times("daily = 1", &times)), [false, false, true]);
}

#[test]
fn snapshots_are_moments() {
    let moment = |number, time| Item {
        number,
        time_ns: ns(time),
        life: Life::Until(ns(time)),
        size_bytes: 0,
        pinned: false,
    };
    let items = [
        moment(30, "2026-11-20T11:30:00Z"),
        moment(10, "2026-11-18T12:00:00Z"),
        moment(20, "2026-11-20T11:00:00Z"),
    ];
    assert_eq!(
        decisions(&keep("within = \"1d\"\nweekly = 4"), &items, None),
        [
            "keep: within 1d, weekly 2026-W47",
            "drop: a newer one stands for weekly 2026-W47",
            "keep: within 1d",
        ]
    );
}

#[test]
fn nothing_is_decided_about_nothing() {
    assert!(decisions(&Policy::default(), &[], None).is_empty());
}

#[test]
fn the_default_keeps_what_it_promises() {
    let hour = 3_600_000_000_000;
    // One version every ten minutes for two years.
    let times: Vec<i64> = (0..6 * 24 * 730).rev().map(|n| ns(NOW) - n * hour / 6).collect();
    let items = versions(&times);
    let history = History { items: &items, deleted_ns: None };
    let decisions = Policy::default().decide(&history, ns(NOW), &berlin());
    let kept = |from_days: i64, to_days: i64| {
        let of_age = |item: &Item| {
            let age = ns(NOW) - item.time_ns;
            (from_days * 24 * hour..to_days * 24 * hour).contains(&age)
        };
        let pairs = items.iter().zip(&decisions);
        pairs.filter(|(item, decision)| of_age(item) && decision.is_keep()).count()
    };
    assert_eq!(kept(0, 30), 30 * 24 * 6);
    assert_eq!(kept(31, 89), 58 * 24);
    assert_eq!(kept(91, 364), 273);
    assert!((51..=53).contains(&kept(366, 730)));
}
