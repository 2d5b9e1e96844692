//! The decisions of a policy.
//!
//! Owns the one walk over a history, from the newest item to the oldest, in which every rule takes
//! what it keeps. Rules don't know each other: an item goes only if none of them took it.

use std::cmp::Reverse;
use std::collections::HashSet;

use jiff::tz::TimeZone;

use super::{
    Bucket, Count, Decision, DropReason, History, Item, Keep, KeepReason, Life, Limit, Period,
    Policy, Step,
};

impl Policy {
    /// Decides about every item of a history, in its order.
    ///
    /// `now_ns` is in nanoseconds since 1970; calendar buckets are those of `zone`. Deciding again
    /// about what was kept, at the same time, drops nothing more.
    pub fn decide(&self, history: &History<'_>, now_ns: i64, zone: &TimeZone) -> Vec<Decision> {
        let items = history.items;
        let mut newest_first: Vec<usize> = (0..items.len()).collect();
        newest_first.sort_by_key(|&place| Reverse(items[place]));
        let mut rules = Rules::new(&self.keep, now_ns, zone);
        let mut decisions = vec![Decision::Drop(DropReason::Outlived); items.len()];
        for place in newest_first {
            let item = &items[place];
            // What is not preserved at all must not take the place of something that is.
            decisions[place] = match self.limit.exceeded(item, history.deleted_ns, now_ns) {
                Some(reason) if !item.is_held() => Decision::Drop(reason),
                _ => rules.judge(item),
            };
        }
        decisions
    }
}

impl Limit {
    /// Why content of this size is not preserved; `None` if it is.
    pub(super) fn exceeded_by_size(&self, size_bytes: u64) -> Option<DropReason> {
        let limit = self.size.filter(|limit| size_bytes > limit.0)?;
        Some(DropReason::TooLarge { size_bytes, limit })
    }

    fn exceeded(&self, item: &Item, deleted_ns: Option<i64>, now_ns: i64) -> Option<DropReason> {
        let too_old = || {
            let age = self.age.filter(|age| item.age_ns(now_ns) > age.as_ns())?;
            Some(DropReason::TooOld(age))
        };
        let long_deleted = || {
            let gone_ns = now_ns.saturating_sub(deleted_ns?);
            let limit = self.deleted.filter(|limit| gone_ns > limit.as_ns())?;
            Some(DropReason::LongDeleted(limit))
        };
        self.exceeded_by_size(item.size_bytes).or_else(too_old).or_else(long_deleted)
    }
}

/// The reasons that no policy can take away.
pub(super) fn held(item: &Item) -> Vec<KeepReason> {
    let head = (item.life == Life::Head).then_some(KeepReason::Head);
    let pinned = item.pinned.then_some(KeepReason::Pinned);
    head.into_iter().chain(pinned).collect()
}

/// What every rule has taken so far.
struct Rules<'k> {
    keep: &'k Keep,
    now_ns: i64,
    zone: &'k TimeZone,
    /// Items judged, all of them newer than the next.
    judged: usize,
    calendar: Vec<(Period, Count, HashSet<Bucket>)>,
    grid: Vec<(Step, HashSet<i64>)>,
}

impl<'k> Rules<'k> {
    fn new(keep: &'k Keep, now_ns: i64, zone: &'k TimeZone) -> Self {
        let given = keep.calendar().into_iter().filter(|(_, count)| *count != Count::default());
        let steps = keep.grid.iter().flat_map(|grid| grid.steps());
        Self {
            keep,
            now_ns,
            zone,
            judged: 0,
            calendar: given.map(|(period, count)| (period, count, HashSet::new())).collect(),
            grid: steps.map(|step| (*step, HashSet::new())).collect(),
        }
    }

    /// Decides about the next older item.
    fn judge(&mut self, item: &Item) -> Decision {
        let mut reasons = held(item);
        let mut newer = None;
        if self.keep.last.has_room(self.judged) {
            reasons.push(KeepReason::Last(self.keep.last));
        }
        self.judged += 1;
        let age_ns = item.age_ns(self.now_ns);
        reasons.extend(
            self.keep.within.filter(|within| age_ns <= within.as_ns()).map(KeepReason::Within),
        );
        self.judge_by_calendar(item, &mut reasons, &mut newer);
        self.judge_by_grid(item, age_ns, &mut reasons, &mut newer);
        if !reasons.is_empty() {
            return Decision::Keep(reasons);
        }
        Decision::Drop(newer.map_or(DropReason::Outlived, DropReason::Thinned))
    }

    /// Adds the buckets that the item is the last of; else leaves in `newer` the first that has one.
    fn judge_by_calendar(
        &mut self,
        item: &Item,
        reasons: &mut Vec<KeepReason>,
        newer: &mut Option<KeepReason>,
    ) {
        for (period, count, taken) in &mut self.calendar {
            let bucket = Bucket::of(*period, item.time_ns, self.zone);
            let reason = KeepReason::Calendar(bucket);
            if taken.contains(&bucket) {
                newer.get_or_insert(reason);
            } else if count.has_room(taken.len()) {
                taken.insert(bucket);
                reasons.push(reason);
            }
        }
    }

    /// Adds the first step that keeps the item; else leaves in `newer` the first that has a newer one.
    fn judge_by_grid(
        &mut self,
        item: &Item,
        age_ns: i64,
        reasons: &mut Vec<KeepReason>,
        newer: &mut Option<KeepReason>,
    ) {
        let mut kept = None;
        for (step, taken) in &mut self.grid {
            // The last of a cell is the same whether or not the step reaches it, so that a step that
            // reaches further keeps all that it kept before.
            let is_last = step.cell(item.time_ns).is_none_or(|cell| taken.insert(cell));
            if age_ns > step.age.as_ns() {
                continue;
            }
            let reason = KeepReason::Grid(*step);
            if is_last {
                kept.get_or_insert(reason);
            } else {
                newer.get_or_insert(reason);
            }
        }
        reasons.extend(kept);
    }
}
