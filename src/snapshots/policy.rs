//! Which snapshots go.
//!
//! Owns what no rule can drop, with a reason each, and hands the rest to the engine of [`retention`]: of each
//! class, so many of the newest stay. What has no mark of ours, or that of another catalog, is nobody's business
//! here, whatever it is called.
//!
//! [`retention`]: crate::retention

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use uuid::Uuid;

use super::{Class, Snapshot, SnapshotName};
use crate::retention::{self, Count, Decision, History, Item, Life, Limit, Policy};

/// How many of each class stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepCounts(BTreeMap<Class, Count>);

impl Default for KeepCounts {
    fn default() -> Self {
        let usual = |class| match class {
            Class::Frequent => 8,
            Class::Hourly => 24,
            Class::Daily => 14,
            Class::Weekly | Class::Monthly => 12,
            Class::Yearly => 10,
        };
        Self(Class::ALL.into_iter().map(|class| (class, Count::UpTo(usual(class)))).collect())
    }
}

impl KeepCounts {
    /// How many of a class stay.
    pub fn get(&self, class: Class) -> Count {
        self.0.get(&class).copied().unwrap_or(Count::All)
    }

    /// Has so many of a class stay.
    pub fn set(&mut self, class: Class, count: Count) {
        self.0.insert(class, count);
    }
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It stays, whatever the rules say.
    Protected(Protection),
    /// What the rules say.
    Decided(Decision),
}

/// Why no rule can drop a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// It has no mark of ours.
    Foreign,
    /// Another catalog has marked it.
    OtherCatalog,
    /// It has been renamed.
    NoClass,
    /// Somebody holds it.
    Held,
    /// Something was cloned from it.
    Cloned(String),
    /// A replication goes on from it.
    Base,
    /// There is no newer one of ours.
    Newest,
}

impl Fate {
    /// Whether it stays.
    pub fn is_keep(&self) -> bool {
        match self {
            Self::Protected(_) => true,
            Self::Decided(decision) => decision.is_keep(),
        }
    }

    /// Why.
    pub fn reason(&self) -> String {
        match self {
            Self::Protected(protection) => protection.to_string(),
            Self::Decided(decision) => decision.reasons(),
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("not ours"),
            Self::OtherCatalog => f.write_str("of another catalog"),
            Self::NoClass => f.write_str("of no class"),
            Self::Held => f.write_str("held"),
            Self::Cloned(as_what) => write!(f, "cloned as {as_what}"),
            Self::Base => f.write_str("a replication goes on from it"),
            Self::Newest => f.write_str("the newest"),
        }
    }
}

/// Decides about every snapshot of a dataset, in the order given. `catalog` is ours.
pub fn decide(snapshots: &[Snapshot], catalog: Uuid, keep: &KeepCounts, now_ns: i64) -> Vec<Fate> {
    let is_ours = |snapshot: &&Snapshot| snapshot.mark.is_some_and(|mark| mark.catalog == catalog);
    let newest = snapshots.iter().filter(is_ours).max_by_key(|s| (s.createtxg, &s.name));
    let newest = newest.map(|snapshot| &*snapshot.guid);
    let protections: Vec<_> =
        snapshots.iter().map(|snapshot| protection(snapshot, catalog, newest)).collect();
    let mut fates: Vec<_> =
        protections.iter().map(|found| found.clone().map(Fate::Protected)).collect();
    for class in Class::ALL {
        let of_class: Vec<usize> = (0..snapshots.len())
            .filter(|&place| {
                let name = SnapshotName::parse(&snapshots[place].name);
                is_ours(&&snapshots[place]) && name.is_some_and(|name| name.class == class)
            })
            .collect();
        let item = |&place: &usize| item(&snapshots[place], protections[place].is_some());
        let items: Vec<_> = of_class.iter().map(item).collect();
        let keep = retention::Keep { last: keep.get(class), ..retention::Keep::default() };
        let policy = Policy { keep, limit: Limit::default() };
        let history = History { items: &items, deleted_ns: None };
        let decisions = policy.decide(&history, now_ns, &TimeZone::UTC);
        for (place, decision) in of_class.into_iter().zip(decisions) {
            fates[place].get_or_insert(Fate::Decided(decision));
        }
    }
    // What no class took has a reason to stay already.
    fates.into_iter().map(|fate| fate.unwrap_or(Fate::Protected(Protection::NoClass))).collect()
}

fn item(snapshot: &Snapshot, pinned: bool) -> Item {
    Item {
        number: snapshot.createtxg,
        time_ns: snapshot.time_ns,
        life: Life::Until(snapshot.time_ns),
        size_bytes: snapshot.used_bytes.unwrap_or(0),
        pinned,
    }
}

fn protection(snapshot: &Snapshot, catalog: Uuid, newest: Option<&str>) -> Option<Protection> {
    let Some(mark) = snapshot.mark else { return Some(Protection::Foreign) };
    if mark.catalog != catalog {
        return Some(Protection::OtherCatalog);
    }
    if SnapshotName::parse(&snapshot.name).is_none() {
        return Some(Protection::NoClass);
    }
    if snapshot.holds > 0 {
        return Some(Protection::Held);
    }
    if let Some(clone) = snapshot.clones.first() {
        return Some(Protection::Cloned(clone.clone()));
    }
    if snapshot.is_base {
        return Some(Protection::Base);
    }
    (newest == Some(&snapshot.guid)).then_some(Protection::Newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::Mark;
    use crate::types::Seq;
    use proptest::prelude::*;

    const OURS: Uuid = Uuid::from_u128(1);
    const HOUR: i64 = 3_600_000_000_000;

    fn snapshot(number: u64, class: Class) -> Snapshot {
        let time_ns = i64::try_from(number).unwrap() * HOUR;
        Snapshot {
            name: SnapshotName { class, time_ns }.to_string(),
            guid: number.to_string(),
            createtxg: number,
            time_ns,
            used_bytes: Some(1),
            mark: Some(Mark { seq: Seq(number), catalog: OURS }),
            holds: 0,
            clones: Vec::new(),
            is_base: false,
        }
    }

    fn keeping(class: Class, count: u32) -> KeepCounts {
        let mut keep = KeepCounts::default();
        keep.set(class, Count::UpTo(count));
        keep
    }

    fn told(fates: &[Fate]) -> Vec<String> {
        let word = |fate: &Fate| if fate.is_keep() { "keep" } else { "drop" };
        fates.iter().map(|fate| format!("{}: {}", word(fate), fate.reason())).collect()
    }

    #[test]
    fn the_usual_counts_are_those_that_people_know() {
        let keep = KeepCounts::default();
        let counts = Class::ALL.map(|class| keep.get(class).to_string());
        assert_eq!(counts, ["8", "24", "14", "12", "12", "10"]);
    }

    #[test]
    fn of_each_class_the_newest_stay() {
        let mut all: Vec<_> = (1..=5).map(|n| snapshot(n, Class::Hourly)).collect();
        all.extend((6..=7).map(|n| snapshot(n, Class::Daily)));
        let fates = decide(&all, OURS, &keeping(Class::Hourly, 2), 0);
        assert_eq!(
            told(&fates),
            [
                "drop: older than every rule",
                "drop: older than every rule",
                "drop: older than every rule",
                "keep: last 2",
                "keep: last 2",
                "keep: last 14",
                "keep: the newest",
            ]
        );
    }

    #[test]
    fn what_is_needed_stays_whatever_the_rules_say() {
        let mut all: Vec<_> = (1..=8).map(|n| snapshot(n, Class::Hourly)).collect();
        all[0].mark = None;
        all[1].mark = Some(Mark { seq: Seq(1), catalog: Uuid::from_u128(2) });
        all[2].name = "before-the-upgrade".into();
        all[3].holds = 1;
        all[4].clones = vec!["tank/clone".into()];
        all[5].is_base = true;
        let fates = decide(&all, OURS, &keeping(Class::Hourly, 0), 0);
        assert_eq!(
            told(&fates),
            [
                "keep: not ours",
                "keep: of another catalog",
                "keep: of no class",
                "keep: held",
                "keep: cloned as tank/clone",
                "keep: a replication goes on from it",
                "drop: older than every rule",
                "keep: the newest",
            ]
        );
    }

    #[test]
    fn newer_is_by_transaction_and_not_by_a_clock_that_was_set_back() {
        let mut all: Vec<_> = (1..=3).map(|n| snapshot(n, Class::Daily)).collect();
        all[0].time_ns = 99 * HOUR;
        let fates = decide(&all, OURS, &keeping(Class::Daily, 1), 0);
        assert_eq!(fates.iter().map(Fate::is_keep).collect::<Vec<_>>(), [false, false, true]);
    }

    proptest! {
        #[test]
        fn the_newest_and_so_many_of_a_class_always_stay(
            classes in proptest::collection::vec((0_usize..6, any::<bool>()), 1..60),
            count in 0_u32..5,
        ) {
            let mut all = Vec::new();
            for (number, (class, ours)) in classes.iter().enumerate() {
                let mut one = snapshot(number as u64, Class::ALL[*class]);
                one.mark = one.mark.filter(|_| *ours);
                all.push(one);
            }
            let mut keep = KeepCounts::default();
            Class::ALL.into_iter().for_each(|class| keep.set(class, Count::UpTo(count)));
            let fates = decide(&all, OURS, &keep, 0);
            for (class, _) in Class::ALL.iter().zip(0..) {
                let of = |place: &usize| all[*place].mark.is_some()
                    && all[*place].name.starts_with(class.as_str());
                let places: Vec<_> = (0..all.len()).filter(of).collect();
                let kept = places.iter().filter(|place| fates[**place].is_keep()).count();
                prop_assert!(kept >= places.len().min(count as usize));
            }
            let last = (0..all.len()).rev().find(|place| all[*place].mark.is_some());
            prop_assert!(last.is_none_or(|place| fates[place].is_keep()));
            // Foreign ones never go, and a second run drops nothing more.
            prop_assert!(all.iter().zip(&fates).all(|(s, fate)| s.mark.is_some() || fate.is_keep()));
            let left: Vec<_> = all.iter().zip(&fates).filter(|(_, f)| f.is_keep()).map(|(s, _)| s.clone()).collect();
            prop_assert!(decide(&left, OURS, &keep, 0).iter().all(Fate::is_keep));
        }
    }
}
