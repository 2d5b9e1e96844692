//! Comparing the directory with the catalog: what is read, when, how hard, and what is told of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::sha256;

fn fill(dir: &Path, files: usize) {
    for n in 0..files {
        let sub = dir.join(format!("d{}", n % 10));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("f{n}")), format!("content {n}")).unwrap();
    }
}

impl Mounted {
    fn run_of(&self, field: &str) -> Value {
        self.status()["reconcile"][field].clone()
    }
}

#[test]
fn what_was_read_since_the_start_is_not_read_again() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::prepared("", |dir| {
        fill(dir, 100);
        // What changes in the moment of the start remains in doubt.
        std::thread::sleep(Duration::from_millis(50));
    });
    mounted.wait_reconciled();
    assert_eq!(mounted.run_of("read_files"), 100);
    for _ in 0..2 {
        mounted.ok(&["reconcile", "."]);
        assert_eq!((mounted.run_of("files"), mounted.run_of("read_files")), (110.into(), 0.into()));
    }
    fs::write(mounted.backing.join("d3/f3"), "around the mount").unwrap();
    mounted.ok(&["reconcile", "."]);
    assert_eq!(mounted.run_of("read_files"), 1);
    assert_eq!(mounted.digests("d3/f3").last(), Some(&sha256("around the mount")));
}

#[test]
fn after_a_kill_only_what_changed_around_it_is_read() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::prepared("", |dir| fill(dir, 500));
    mounted.wait_reconciled();
    mounted.sync();
    for n in 0..3 {
        fs::write(mounted.at(format!("d{n}/f{n}")), "through the mount").unwrap();
    }
    mounted.kill();
    fs::write(mounted.backing.join("d7/f7"), "around it").unwrap();
    mounted.start();
    mounted.wait_reconciled();
    assert_eq!(mounted.run_of("files"), 510);
    let read = mounted.run_of("read_files").as_u64().unwrap();
    assert!((1..=4).contains(&read), "{read} files were read");
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.digests("d2/f2"), ["content 2", "through the mount"].map(sha256));
    assert_eq!(mounted.digests("d7/f7"), ["content 7", "around it"].map(sha256));
}
