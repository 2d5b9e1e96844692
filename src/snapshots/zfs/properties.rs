//! What `zfs get` says, in rows of name, property, value and source.
//!
//! Owns the making of snapshots out of rows. A user property counts only where it was set on the snapshot
//! itself: it would else be inherited from the dataset, and everybody's snapshots would be ours.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::super::backend::{BackendError, Mark, Snapshot};
use crate::types::Seq;

/// The last change that is in a snapshot.
pub(super) const SEQ: &str = "org.horace:seq";
/// Whose catalog counted it.
pub(super) const CATALOG: &str = "org.horace:catalog";
/// Set by people on what a replication goes on from.
pub(super) const BASE: &str = "org.horace:base";

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'s> {
    pub(super) name: &'s str,
    pub(super) property: &'s str,
    pub(super) value: &'s str,
    source: &'s str,
}

fn misunderstood(line: &str) -> BackendError {
    BackendError::Answer { program: super::ZFS, line: line.into() }
}

/// Reads rows.
pub(super) fn rows(said: &str) -> Result<Vec<Row<'_>>, BackendError> {
    let row = |line| {
        let fields: Vec<&str> = str::split(line, '\t').collect();
        let [name, property, value, source] = fields[..] else { return Err(misunderstood(line)) };
        Ok(Row { name, property, value, source })
    };
    said.lines().map(row).collect()
}

/// The snapshots of exactly one dataset, in the order of their transactions. What was cloned comes with
/// them, or by the origins of everything in the pool.
pub(super) fn snapshots(
    dataset: &str,
    rows: &[Row<'_>],
    origins: &[Row<'_>],
) -> Result<Vec<Snapshot>, BackendError> {
    let mut found: BTreeMap<&str, Vec<&Row<'_>>> = BTreeMap::new();
    for row in rows {
        if let Some(name) = row.name.strip_prefix(dataset).and_then(|rest| rest.strip_prefix('@')) {
            found.entry(name).or_default().push(row);
        }
    }
    let snapshots = found.into_iter().map(|(name, rows)| snapshot(name, &rows));
    let mut snapshots = snapshots.collect::<Result<Vec<_>, _>>()?;
    for origin in origins {
        let name = origin.value.strip_prefix(dataset).and_then(|rest| rest.strip_prefix('@'));
        let cloned = snapshots.iter_mut().find(|snapshot| Some(&*snapshot.name) == name);
        if let Some(snapshot) = cloned {
            snapshot.clones.push(origin.name.into());
        }
    }
    snapshots.sort_by(|a, b| (a.createtxg, &a.name).cmp(&(b.createtxg, &b.name)));
    Ok(snapshots)
}

fn snapshot(name: &str, rows: &[&Row<'_>]) -> Result<Snapshot, BackendError> {
    let row = |property: &str| rows.iter().find(|row| row.property == property);
    let value = |property: &str| row(property).map(|row| row.value).filter(|value| *value != "-");
    let number = |property: &str| -> Result<Option<u64>, BackendError> {
        let read = |value: &str| value.parse().map_err(|_| misunderstood(value));
        value(property).map(read).transpose()
    };
    let needed = |property: &str| {
        number(property)?.ok_or_else(|| misunderstood(&format!("no {property} of {name}")))
    };
    // Set here, or received with the snapshot from elsewhere.
    let own = |property: &str| row(property).filter(|row| row.source == "local").map(|r| r.value);
    let mark = || {
        let seq = own(SEQ)?.parse().ok()?;
        let catalog = Uuid::try_parse(own(CATALOG)?).ok()?;
        Some(Mark { seq: Seq(seq), catalog })
    };
    let clones = value("clones").unwrap_or_default();
    let seconds = i64::try_from(needed("creation")?).unwrap_or(i64::MAX);
    Ok(Snapshot {
        name: name.into(),
        guid: needed("guid")?.to_string(),
        createtxg: needed("createtxg")?,
        time_ns: seconds.saturating_mul(1_000_000_000),
        used_bytes: number("used")?,
        mark: mark(),
        // Where it is not told, somebody may hold it: destroying it fails then.
        holds: number("userrefs")?.unwrap_or(0),
        clones: clones.split(',').filter(|clone| !clone.is_empty()).map(Into::into).collect(),
        is_base: row(BASE).is_some_and(|row| !matches!(row.value, "-" | "" | "off" | "no")),
    })
}
