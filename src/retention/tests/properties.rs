//! What holds for every policy and every history.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::sizespec::Size;
use crate::timespec::Span;

const HOUR: i64 = 3_600_000_000_000;
const DAY: i64 = 24 * HOUR;

/// Times that share hours and days often enough, up to four years back and a day ahead.
fn time() -> impl Strategy<Value = i64> {
    let far = -24 * 1461..24_i64;
    let near = -72..2_i64;
    (prop_oneof![far, near], 0..4_i64)
        .prop_map(|(hours, quarter)| ns(NOW) + hours * HOUR + quarter * HOUR / 4)
}

/// Items with any times, as clocks that jump leave them.
fn items() -> impl Strategy<Value = Vec<Item>> {
    let life = prop_oneof![9 => time().prop_map(Life::Until), 1 => Just(Life::Head)];
    let item = (0..60_u64, time(), life, 0..4_u64, prop::bool::weighted(0.1));
    let item = item.prop_map(|(number, time_ns, life, size_bytes, pinned)| Item {
        number,
        time_ns,
        life,
        size_bytes,
        pinned,
    });
    vec(item, 0..60)
}

/// The versions of a live file under a clock that never went back.
fn ordered() -> impl Strategy<Value = Vec<Item>> {
    vec(time(), 1..60).prop_map(|mut times| {
        times.iter_mut().for_each(|time| *time = (*time).min(ns(NOW)));
        times.sort_unstable();
        versions(&times)
    })
}

fn count() -> impl Strategy<Value = Count> {
    prop_oneof![
        3 => Just(Count::default()),
        3 => (1..9_u32).prop_map(Count::UpTo),
        1 => Just(Count::All),
    ]
}

const GRIDS: &[&str] =
    &["1h:all,1d:1h,30d:1d", "1h:all", "2d:7h", "90d:1h,1y:1d,5y:1w", "7d:1h,1y:30d"];

fn grid() -> impl Strategy<Value = Option<Grid>> {
    prop::option::of(prop::sample::select(GRIDS).prop_map(|text| text.parse().unwrap()))
}

fn span() -> impl Strategy<Value = Span> {
    (1..900_u16, prop::sample::select(&["h", "d"][..]))
        .prop_map(|(number, unit)| format!("{number}{unit}").parse().unwrap())
}

fn rules() -> impl Strategy<Value = Keep> {
    let calendar = (count(), count(), count(), count(), count());
    (count(), prop::option::of(span()), calendar, grid()).prop_map(
        |(last, within, (hourly, daily, weekly, monthly, yearly), grid)| Keep {
            last,
            within,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            grid,
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let size = prop::option::of((0..4_u64).prop_map(Size));
    let limit = (size, prop::option::of(span()), prop::option::of(span()))
        .prop_map(|(size, age, deleted)| Limit { size, age, deleted });
    (rules(), limit).prop_map(|(keep, limit)| Policy { keep, limit })
}

/// Rules that say the same and more.
fn wider(keep: &Keep, more: &Keep) -> Keep {
    let within = [keep.within, more.within].into_iter().flatten().max_by_key(|s| s.as_ns());
    let reach = |grid: &Grid| {
        let steps = grid.to_string();
        let (steps, last) = steps.rsplit_once(',').map_or((None, &*steps), |(a, b)| (Some(a), b));
        let (_, spacing) = last.split_once(':').unwrap();
        let reach = [steps.map(str::to_string), Some(format!("9y:{spacing}"))];
        reach.into_iter().flatten().collect::<Vec<_>>().join(",").parse().unwrap()
    };
    Keep {
        last: keep.last.max(more.last),
        within,
        hourly: keep.hourly.max(more.hourly),
        daily: keep.daily.max(more.daily),
        weekly: keep.weekly.max(more.weekly),
        monthly: keep.monthly.max(more.monthly),
        yearly: keep.yearly.max(more.yearly),
        grid: keep.grid.as_ref().map(reach).or_else(|| more.grid.clone()),
    }
}

fn decide(policy: &Policy, items: &[Item]) -> Vec<Decision> {
    let deleted_ns = items.iter().all(|item| item.life != Life::Head).then(|| ns(NOW) - 99 * DAY);
    policy.decide(&History { items, deleted_ns }, ns(NOW), &berlin())
}

fn survivors(policy: &Policy, items: &[Item], now_ns: i64) -> Vec<Item> {
    let decisions = policy.decide(&History { items, deleted_ns: None }, now_ns, &berlin());
    items.iter().zip(decisions).filter(|(_, d)| d.is_keep()).map(|(item, _)| *item).collect()
}

proptest! {
    #[test]
    fn what_is_held_is_kept_and_every_reason_is_given(policy in policy(), items in items()) {
        let decisions = decide(&policy, &items);
        prop_assert_eq!(decisions.len(), items.len());
        for (item, decision) in items.iter().zip(&decisions) {
            match decision {
                Decision::Keep(reasons) => {
                    prop_assert!(!reasons.is_empty());
                    prop_assert_eq!(
                        reasons.contains(&KeepReason::Head),
                        item.life == Life::Head
                    );
                    prop_assert_eq!(reasons.contains(&KeepReason::Pinned), item.pinned);
                }
                Decision::Drop(_) => prop_assert!(!item.is_held()),
            }
        }
    }

    #[test]
    fn what_was_kept_is_kept_again(policy in policy(), items in items()) {
        let deleted_ns = Some(ns(NOW) - 99 * DAY);
        let again = |items: &[Item]| {
            policy.decide(&History { items, deleted_ns }, ns(NOW), &berlin())
        };
        let decisions = again(&items);
        let kept: Vec<Item> =
            items.iter().zip(&decisions).filter(|(_, d)| d.is_keep()).map(|(i, _)| *i).collect();
        prop_assert!(again(&kept).iter().all(Decision::is_keep));
    }

    #[test]
    fn rules_that_say_more_keep_no_less(
        policy in policy(),
        more in rules(),
        items in items(),
    ) {
        let wide = Policy { keep: wider(&policy.keep, &more), limit: policy.limit.clone() };
        for (narrow, wide) in decide(&policy, &items).iter().zip(decide(&wide, &items)) {
            prop_assert!(!narrow.is_keep() || wide.is_keep(), "{} / {}", narrow, wide);
        }
    }

    #[test]
    fn the_order_of_items_does_not_matter(
        policy in policy(),
        (items, shuffled) in items().prop_flat_map(|items| {
            (Just(items.clone()), Just(items).prop_shuffle())
        }),
    ) {
        let sorted = |items: &[Item]| {
            let decisions = decide(&policy, items).into_iter().map(|d| d.to_string());
            let mut pairs: Vec<_> = items.iter().copied().zip(decisions).collect();
            pairs.sort();
            pairs
        };
        prop_assert_eq!(sorted(&items), sorted(&shuffled));
    }

    #[test]
    fn a_grid_keeps_the_last_of_each_cell(grid in grid(), items in ordered()) {
        let Some(grid) = grid else { return Ok(()) };
        let keep = Keep { grid: Some(grid.clone()), ..Keep::default() };
        let decisions = decide(&Policy { keep, limit: Limit::default() }, &items);
        for step in grid.steps() {
            let mut cells = HashSet::new();
            for (item, decision) in items.iter().zip(&decisions).rev() {
                let is_last = step.cell(item.time_ns).is_none_or(|cell| cells.insert(cell));
                let is_young = item.age_ns(ns(NOW)) <= step.age.as_ns();
                prop_assert!(decision.is_keep() || !(is_last && is_young), "{}", decision);
                if let Decision::Keep(reasons) = decision {
                    prop_assert!(!reasons.contains(&KeepReason::Grid(*step)) || is_last);
                }
            }
        }
    }

    #[test]
    fn every_moment_of_the_span_can_be_seen(
        within in span(),
        items in ordered(),
        back in 0..900 * DAY,
    ) {
        let keep = Keep { within: Some(within), ..Keep::default() };
        let moment_ns = ns(NOW) - back.min(within.as_ns());
        // The version that was current then.
        let Some(place) = items.iter().rposition(|item| item.time_ns <= moment_ns) else {
            return Ok(());
        };
        let decisions = decide(&Policy { keep, limit: Limit::default() }, &items);
        prop_assert!(decisions[place].is_keep());
    }

    #[test]
    fn runs_in_between_change_nothing(
        keep in rules(),
        items in ordered(),
        mut runs in vec(time(), 0..9),
    ) {
        let policy = Policy { keep, limit: Limit::default() };
        runs.retain(|run| *run < ns(NOW));
        runs.sort_unstable();
        let mut gone = HashSet::new();
        for run in runs {
            let mut then: Vec<Item> =
                items.iter().filter(|item| item.time_ns <= run).copied().collect();
            if let Some(head) = then.last_mut() {
                head.life = Life::Head;
            }
            then.retain(|item| !gone.contains(&item.number));
            let kept: HashSet<u64> =
                survivors(&policy, &then, run).iter().map(|item| item.number).collect();
            gone.extend(then.iter().map(|item| item.number).filter(|n| !kept.contains(n)));
        }
        let left: Vec<Item> =
            items.iter().filter(|item| !gone.contains(&item.number)).copied().collect();
        prop_assert_eq!(survivors(&policy, &left, ns(NOW)), survivors(&policy, &items, ns(NOW)));
    }

    #[test]
    fn any_number_is_a_time(
        policy in policy(),
        times in vec((any::<i64>(), any::<i64>()), 0..9),
        now_ns: i64,
    ) {
        let item = |(time_ns, end_ns): (i64, i64)| Item {
            number: 0,
            time_ns,
            life: Life::Until(end_ns),
            size_bytes: 1,
            pinned: false,
        };
        let items: Vec<Item> = times.into_iter().map(item).collect();
        let history = History { items: &items, deleted_ns: Some(i64::MIN) };
        prop_assert_eq!(policy.decide(&history, now_ns, &berlin()).len(), items.len());
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = Retention::from_toml(&text);
        let _ = text.parse::<Grid>();
        let _ = text.parse::<Share>();
    }

    #[test]
    fn every_configuration_survives_its_text(
        keep in rules().prop_filter("keeps something", |keep| keep.check().is_ok()),
        limit in policy().prop_map(|policy| policy.limit),
    ) {
        let policy = Policy { keep, limit };
        let globs = Globs::try_from(vec!["*.x".into()]).unwrap();
        let retention = Retention {
            rules: vec![Rule { globs, policy: policy.clone() }],
            default: policy,
            ..Retention::default()
        };
        prop_assert_eq!(Retention::from_toml(&retention.to_string()), Ok(retention));
    }
}
