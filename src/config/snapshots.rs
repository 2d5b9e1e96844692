//! When snapshots are taken, and how many stay: the table `[snapshots]` of the configuration file.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::retention::Count;
use crate::snapshots::{Class, KeepCounts, Schedule};

/// The settings of snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotSettings {
    /// When one of a class is taken; those that are missing, never.
    #[serde(deserialize_with = "schedules")]
    pub schedule: BTreeMap<Class, Schedule>,
    /// How many of each stay.
    #[serde(deserialize_with = "counts")]
    pub keep: KeepCounts,
    /// A program that is run before each, with its arguments; if it fails, there is no snapshot.
    pub before: Vec<String>,
    /// A program that is run after each, also after one that failed.
    pub after: Vec<String>,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        let usual =
            Class::ALL.into_iter().filter_map(|class| Some((class, Schedule::usual(class)?)));
        Self {
            schedule: usual.collect(),
            keep: KeepCounts::default(),
            before: Vec::new(),
            after: Vec::new(),
        }
    }
}

/// Those that are given, over the usual ones; `off` is never.
fn schedules<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<Class, Schedule>, D::Error> {
    let mut schedules = SnapshotSettings::default().schedule;
    for (class, text) in BTreeMap::<Class, String>::deserialize(from)? {
        if text == "off" {
            schedules.remove(&class);
        } else {
            schedules.insert(class, text.parse().map_err(serde::de::Error::custom)?);
        }
    }
    Ok(schedules)
}

fn counts<'de, D: Deserializer<'de>>(from: D) -> Result<KeepCounts, D::Error> {
    let mut keep = KeepCounts::default();
    for (class, count) in BTreeMap::<Class, Count>::deserialize(from)? {
        keep.set(class, count);
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn what_is_given_goes_over_the_usual() {
        let settings: SnapshotSettings = toml::from_str(
            "before = [\"/bin/freeze\", \"db\"]\n\
             [schedule]\nhourly = \"off\"\ndaily = \"daily 04:00\"\nyearly = \"yearly\"\n\
             [keep]\ndaily = 3\nmonthly = \"all\"",
        )
        .unwrap();
        let schedule = |class| settings.schedule.get(&class).map(ToString::to_string);
        assert_eq!(schedule(Class::Hourly), None);
        assert_eq!(schedule(Class::Daily).as_deref(), Some("daily 04:00"));
        assert_eq!(schedule(Class::Weekly).as_deref(), Some("weekly"));
        assert_eq!(schedule(Class::Yearly).as_deref(), Some("yearly"));
        assert_eq!(settings.keep.get(Class::Daily), Count::UpTo(3));
        assert_eq!(settings.keep.get(Class::Hourly), Count::UpTo(24));
        assert_eq!(settings.keep.get(Class::Monthly), Count::All);
        assert_eq!(settings.before, ["/bin/freeze", "db"]);
        assert_eq!(toml::from_str::<SnapshotSettings>("").unwrap(), SnapshotSettings::default());
    }

    #[rstest]
    #[case("schedule.nightly = \"daily\"", "`nightly` is no class of snapshots")]
    #[case("schedule.daily = \"sometimes\"", "`sometimes` is no schedule")]
    #[case("keep.daily = -1", "expected a number such as 10, or \"all\"")]
    #[case("every = 1", "unknown field `every`")]
    fn what_is_wrong_is_named(#[case] text: &str, #[case] message: &str) {
        let error = toml::from_str::<SnapshotSettings>(text).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
