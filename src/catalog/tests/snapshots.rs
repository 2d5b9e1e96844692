//! Snapshots in the catalog.

use super::*;
use crate::catalog::event::{Kept, Prefix};
use crate::catalog::{SnapshotRow, SnapshotsSeen};
use crate::types::Loss;

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

impl World {
    /// Has a snapshot taken; those of the names are there then.
    fn snap(&mut self, names: &[&str]) {
        let now = self.catalog.read(Reader::seq).unwrap();
        let mut rows = self.catalog.read(|reader| reader.snapshots()).unwrap();
        rows.retain(|row| names.contains(&&*row.name));
        let name = names[names.len() - 1];
        rows.push(row(name, now.0, now.0 * 10 + names.len() as u64));
        see(&self.catalog, "tank/files", &rows);
    }

    /// The snapshots that have a version, the newest first, with a path in each.
    fn snapshots_with(&self, version: (FileId, u32)) -> Vec<(String, String)> {
        let found = self.catalog.read(|reader| reader.in_snapshots(version)).unwrap();
        let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
        found.iter().map(|found| (found.snapshot.name.clone(), text(&found.paths[0]))).collect()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, path)| (name.to_string(), path.to_string())).collect()
}

#[test]
fn a_snapshot_has_what_was_the_newest_under_the_name_that_it_had() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let file = w.id("f").unwrap();
    w.snap(&["a"]);
    w.rename("f", "g", 10, None);
    w.snap(&["a", "b"]);
    w.seal(10, 2);
    w.snap(&["a", "b", "c"]);
    w.unlink("g", 10);
    w.snap(&["a", "b", "c", "d"]);
    assert_eq!(w.snapshots_with((file, 1)), pairs(&[("b", "g"), ("a", "f")]));
    assert_eq!(w.snapshots_with((file, 2)), pairs(&[("c", "g")]), "it had no name later");
    assert_eq!(w.snapshots_with((file, 3)), []);
    w.snap(&["b", "e"]);
    assert_eq!(w.snapshots_with((file, 1)), pairs(&[("b", "g")]), "the others have gone");
}

#[test]
fn a_version_is_in_a_snapshot_also_as_the_beginning_of_another() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let file = w.id("f").unwrap();
    w.snap(&["a"]);
    w.sessions += 1;
    let mut inode = w.inode(10, Kind::File);
    inode.attr.size = 20;
    let (session, prefix) = (SessionId(w.sessions), Some(Prefix { size: 10, hash: hash(1) }));
    w.push(Op::Seal { inode, session, digest: Some(hash(2)), prefix, origin: Origin::Write });
    w.snap(&["a", "b"]);
    let found = w.catalog.read(|reader| reader.in_snapshots((file, 1))).unwrap();
    assert_eq!(found.iter().map(|found| found.size).collect::<Vec<_>>(), [20, 10]);
    assert_eq!(w.snapshots_with((file, 1)), pairs(&[("b", "f"), ("a", "f")]));
    // It stays so when none of them is there any more.
    w.push(Op::Preserve { key: key(10), kept: Kept::Lost(Loss::Excluded) });
    w.seal(10, 3);
    assert_eq!(w.snapshots_with((file, 1)).len(), 2);
    assert_eq!(w.snapshots_with((file, 2)), pairs(&[("b", "f")]));
}

#[test]
fn a_version_that_was_moved_over_another_file_is_in_snapshots_of_that() {
    let mut w = World::new();
    w.write("old", 10, 1);
    w.write("new", 11, 2);
    let file = w.id("new").unwrap();
    w.snap(&["a"]);
    w.rename("new", "old", 11, Some(10));
    w.snap(&["a", "b"]);
    assert_eq!(w.snapshots_with((file, 1)), pairs(&[("b", "old"), ("a", "new")]));
}

#[test]
fn nobody_looks_for_a_version_without_a_digest() {
    let mut w = World::new();
    w.create_in(ROOT, "f", 10, Kind::File);
    w.seal_as(1, 10, None);
    w.snap(&["a"]);
    assert_eq!(w.snapshots_with((w.id("f").unwrap(), 1)), []);
}

impl World {
    /// How many versions only one snapshot has, and how many bytes.
    fn only_in(&self, name: &str) -> (u64, u64) {
        let only = self.catalog.read(|reader: &Reader| {
            let snapshots = reader.snapshots()?;
            let found = snapshots.iter().find(|snapshot| snapshot.name == name);
            reader.only_in(found.unwrap())
        });
        only.map(|only| (only.versions, only.bytes)).unwrap()
    }

    /// Puts a content into the store.
    fn keep(&mut self, content: u8) {
        self.push(Op::Adopted { hash: hash(content), size: 10 });
    }
}

#[test]
fn what_nobody_else_has_is_lost_with_a_snapshot() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.snap(&["a"]);
    w.snap(&["a", "b"]);
    assert_eq!((w.only_in("a"), w.only_in("b")), ((0, 0), (0, 0)), "it is live");
    w.seal(10, 2);
    assert_eq!((w.only_in("a"), w.only_in("b")), ((0, 0), (0, 0)), "each has it");
    w.snap(&["a", "c"]);
    assert_eq!((w.only_in("a"), w.only_in("c")), ((1, 10), (0, 0)));
    let a = w.catalog.read(|reader| reader.snapshot("a")).unwrap().unwrap();
    let elsewhere = SnapshotRow { name: "old".into(), guid: "guid-old".into(), ..a };
    see(&w.catalog, "tank/old", &[elsewhere]);
    assert_eq!(w.only_in("a"), (1, 10), "what was elsewhere may be there no more");
    w.keep(1);
    assert_eq!(w.only_in("a"), (0, 0), "the store has it");
    w.push(Op::Dropped { hash: hash(1) });
    assert_eq!(w.only_in("a"), (1, 10));
    w.unlink("f", 10);
    assert_eq!((w.only_in("a"), w.only_in("c")), ((1, 10), (1, 10)));
}

#[test]
fn the_same_bytes_in_another_file_or_snapshot_are_not_lost() {
    let mut w = World::new();
    for (name, ino) in [("f", 10), ("g", 11)] {
        w.write(name, ino, 1);
    }
    w.snap(&["a"]);
    w.seal(10, 2);
    assert_eq!(w.only_in("a"), (0, 0), "the other file is live");
    w.seal(11, 3);
    assert_eq!(w.only_in("a"), (2, 10), "one content of two versions");
    w.write("h", 12, 1);
    assert_eq!(w.only_in("a"), (0, 0), "a third is live");
    w.snap(&["a", "b"]);
    w.seal(12, 4);
    assert_eq!((w.only_in("a"), w.only_in("b")), ((0, 0), (0, 0)), "each has it");
}

#[test]
fn what_others_begin_with_is_lost_with_them() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.sessions += 1;
    let mut inode = w.inode(10, Kind::File);
    inode.attr.size = 20;
    let (session, prefix) = (SessionId(w.sessions), Some(Prefix { size: 10, hash: hash(1) }));
    w.push(Op::Seal { inode, session, digest: Some(hash(2)), prefix, origin: Origin::Write });
    w.snap(&["a"]);
    w.seal(10, 3);
    assert_eq!(w.only_in("a"), (2, 30));
    // And what was moved over another file.
    w.write("new", 11, 4);
    w.snap(&["a", "b"]);
    w.rename("new", "f", 11, Some(10));
    assert_eq!(w.only_in("b"), (1, 10), "the one that was replaced: the other is live");
    w.seal(11, 5);
    assert_eq!(w.only_in("b"), (2, 20));
    w.snap(&["a", "c"]);
    assert_eq!((w.only_in("a"), w.only_in("c")), ((2, 30), (0, 0)));
}
