//! The index of names beside the writer.
#![expect(clippy::disallowed_types, reason = "one test breaks the database")]

use std::time::{Duration, Instant};

use super::*;
use crate::catalog::names::{NamePattern, NameQuery, NameSearch};

impl World {
    /// What a search for a text finds, once there is an index.
    fn found(&self, text: &str) -> Vec<String> {
        self.catalog.barrier();
        let pattern = NamePattern::part(text.as_bytes());
        let query =
            NameQuery { top: FileId::ROOT, pattern, extension: None, kind: None, after: None };
        let mut search = NameSearch::new(query);
        let began = Instant::now();
        let mut paths = Vec::new();
        while !search.is_done() {
            match self.catalog.names().step(&mut search, 100) {
                Some(found) => paths.extend(found.into_iter().map(|f| f.path)),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(began.elapsed() < Duration::from_secs(30), "the index is not built");
        }
        paths.into_iter().map(|path| String::from_utf8(path).unwrap()).collect()
    }

    fn changed(&self) -> u64 {
        self.catalog.barrier();
        self.catalog.names().stats().unwrap().changed
    }
}

#[test]
fn what_was_pushed_before_is_found() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    for ino in 30..1000 {
        w.create_in(key(20), &format!("file {ino}"), ino, Kind::File);
        if ino % 97 == 0 {
            assert_eq!(w.found(&format!("FILE {ino}")), [format!("dir/file {ino}")]);
        }
    }
    assert_eq!(
        w.found("file 99"),
        (990..1000)
            .map(|n| format!("dir/file {n}"))
            .chain(["dir/file 99".into()])
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    w.write("one", 2000, 1);
    w.rename("one", "two", 2000, None);
    assert_eq!((w.found("one"), w.found("two")), (vec![], vec!["two".to_owned()]));
    w.unlink("two", 2000);
    assert_eq!(w.found("two"), Vec::<String>::new());
}

#[test]
fn renaming_a_directory_of_many_files_changes_one_name() {
    let mut w = World::new();
    w.create_in(ROOT, "old", 20, Kind::Dir);
    for ino in 30..3030 {
        w.create_in(key(20), &format!("file {ino}"), ino, Kind::File);
    }
    assert_eq!(w.found("old/file 777"), ["old/file 777"]);
    let before = w.changed();
    w.rename("old", "new", 20, None);
    assert_eq!(w.found("new/file 777"), ["new/file 777"]);
    assert_eq!(w.found("old"), Vec::<String>::new());
    assert_eq!(w.changed() - before, 2, "taken away and put");
}

#[test]
fn a_batch_that_is_rolled_back_changes_nothing() {
    let mut w = World::new();
    w.write("kept", 10, 1);
    assert_eq!(w.found("kept"), ["kept"]);
    let breaker = rusqlite::Connection::open(w.dir.path().join(FILE_NAME)).unwrap();
    let trigger =
        "CREATE TRIGGER broken BEFORE INSERT ON entry BEGIN SELECT raise(FAIL, 'no'); END";
    breaker.execute_batch(trigger).unwrap();
    w.create_in(ROOT, "lost", 11, Kind::File);
    assert!(w.found("").iter().all(|name| name == "kept"), "{:?}", w.found(""));
    assert!(w.catalog.status().degraded.is_some());
    breaker.execute_batch("DROP TRIGGER broken").unwrap();
    w.create_in(ROOT, "later", 12, Kind::File);
    assert_eq!(w.found(""), ["kept", "later"]);
}

#[test]
fn a_catalog_that_is_opened_has_its_names() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    w.create_in(key(20), "file", 21, Kind::File);
    w.catalog.close(w.now_ns);
    w.catalog = Catalog::open(w.dir.path()).unwrap();
    assert_eq!(w.found(""), ["dir", "dir/file"]);
}
