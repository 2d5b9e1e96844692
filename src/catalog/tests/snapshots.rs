//! Snapshots in the catalog.

use super::*;
use crate::catalog::{SnapshotRow, SnapshotsSeen};

fn row(name: &str, seq: u64, txg: u64) -> SnapshotRow {
    SnapshotRow {
        backend: "zfs".into(),
        dataset: "tank/files".into(),
        guid: format!("guid-{txg}"),
        name: name.into(),
        class: Some("hourly".into()),
        createtxg: txg,
        seq: Seq(seq),
        time_ns: 7,
        is_held: false,
        gone_ns: None,
    }
}

fn see(catalog: &Catalog, dataset: &str, found: &[SnapshotRow]) {
    let found = found.to_vec();
    let seen = SnapshotsSeen { backend: "zfs".into(), dataset: dataset.into(), found };
    catalog.push([Event { time_ns: 99, writer: None, op: Op::Snapshots(Box::new(seen)) }]);
}

#[test]
fn the_table_follows_what_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(dir.path()).unwrap();
    let live = |catalog: &Catalog| catalog.read(|reader| reader.snapshots()).unwrap();
    let named = |name: &str| catalog.read(|reader| reader.snapshot(name)).unwrap();
    let before = catalog.read(Reader::seq).unwrap();
    let (one, two) = (row("one", 5, 10), row("two", 5, 20));
    see(&catalog, "tank/files", &[two.clone(), one.clone()]);
    assert_eq!(live(&catalog), [one.clone(), two.clone()]);
    let held = SnapshotRow { is_held: true, ..two.clone() };
    see(&catalog, "tank/files", std::slice::from_ref(&held));
    assert_eq!(live(&catalog), [held]);
    assert_eq!(named("one").unwrap().gone_ns, Some(99), "it is remembered");
    // Another dataset says nothing of this one; and another of the same name is another.
    see(&catalog, "tank/other", &[]);
    let again = row("one", 9, 30);
    see(&catalog, "tank/files", &[two.clone(), again.clone()]);
    assert_eq!(live(&catalog), [two, again.clone()]);
    assert_eq!(named("one"), Some(again));
    assert_eq!(catalog.read(Reader::seq).unwrap(), before, "it is no change of the tree");
}
