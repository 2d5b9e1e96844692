//! What is rewritten, and what that leaves.

use std::collections::HashSet;

use super::super::gc::{Why, WhyNot};
use super::*;

fn usage(n: u8, live_bytes: u64, size_bytes: u64) -> PackUsage {
    let pack = PackId(ContentHash::new([n; 32]));
    PackUsage { pack, size_bytes, total_bytes: 1000, live_bytes }
}

const POLICY: GcPolicy = GcPolicy { waste_percent: 10, rewrite_bytes: 1000, small_bytes: 50 };

#[test]
fn the_worst_packs_are_rewritten_until_the_rest_is_tolerable() {
    let packs = [
        usage(1, 1000, 400),
        usage(2, 0, 400),
        usage(3, 900, 400),
        usage(4, 300, 400),
        usage(5, 600, 400),
    ];
    // 40, 280 and 160 are waste, of 1600 where 160 are tolerated.
    let verdicts = choose(&packs, &POLICY);
    assert_eq!(
        verdicts,
        [
            Verdict::Keep(WhyNot::Needed),
            Verdict::Remove,
            Verdict::Keep(WhyNot::Tolerated),
            Verdict::Rewrite(Why::Waste),
            Verdict::Rewrite(Why::Waste),
        ]
    );
}

#[test]
fn one_round_does_only_so_much() {
    let packs = [usage(1, 100, 600), usage(2, 200, 600), usage(3, 300, 300)];
    let verdicts = choose(&packs, &POLICY);
    assert_eq!(
        verdicts,
        [Verdict::Rewrite(Why::Waste), Verdict::Keep(WhyNot::Later), Verdict::Rewrite(Why::Waste)]
    );
}

#[test]
fn small_packs_are_put_together_where_there_are_several() {
    let alone = [usage(1, 1000, 40), usage(2, 1000, 400)];
    assert_eq!(choose(&alone, &POLICY), [Verdict::Keep(WhyNot::Needed); 2]);
    let several = [usage(1, 1000, 40), usage(2, 1000, 400), usage(3, 990, 20)];
    let [first, _, third] = choose(&several, &POLICY)[..] else { panic!("one each") };
    assert_eq!([first, third], [Verdict::Rewrite(Why::Small); 2]);
    assert!(choose(&[], &POLICY).is_empty());
}

#[test]
fn a_rewrite_keeps_what_is_live_and_nothing_else() {
    let store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    let kept = contents().swap_remove(1);
    let mut live = HashSet::new();
    let reader = store.reader();
    let recipe = reader.recipe(hash(&kept)).unwrap().unwrap();
    reader.needs(&recipe, &mut |key| _ = live.insert(key)).unwrap();
    let is_live = |key: &Key| live.contains(key);
    let right = store.dir.maintain();
    let packs = store.dir.list().unwrap();
    let done = rewrite(&right, &*store.index, &packs, &is_live, &|_| Pace::Go, &SMALL).unwrap();
    assert_eq!(done.removed, packs);
    assert!(done.added_bytes < done.removed_bytes);
    let mut found = HashSet::new();
    for index in store.indices() {
        let usage = PackUsage::count(&index, &is_live);
        assert_eq!(usage.live_bytes, usage.total_bytes);
        for entry in index.entries {
            assert!(found.insert(entry.key), "{:?} is there twice", entry.key);
        }
    }
    assert_eq!(found, live);
    // Also by who had looked before.
    let mut out = Vec::new();
    reader.copy(&recipe, &mut out).unwrap();
    assert_eq!(out, kept);
    assert_eq!(store.read(hash(b"tiny")).unwrap(), None);
}

#[test]
fn small_packs_become_one() {
    let store = Store::new(PackOptions::default());
    for seed in 0..5 {
        store.pack(&[text(2_000, seed)]).unwrap();
    }
    let packs = store.dir.list().unwrap();
    assert_eq!(packs.len(), 5);
    let right = store.dir.maintain();
    rewrite(&right, &*store.index, &packs, &|_| true, &|_| Pace::Go, &store.options).unwrap();
    assert_eq!(store.dir.list().unwrap().len(), 1);
    for seed in 0..5 {
        assert!(store.read(hash(&text(2_000, seed))).unwrap().is_some());
    }
}

#[test]
fn a_damaged_pack_is_left_alone() {
    let store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    let packs = store.dir.list().unwrap();
    let path = store.dir.pack_path(packs[0]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let right = store.dir.maintain();
    let live = |_: &Key| true;
    let done = rewrite(&right, &*store.index, &packs, &live, &|_| Pace::Go, &SMALL).unwrap();
    let [(damaged, PackError::Frame { .. })] = &done.damaged[..] else { panic!("{done:?}") };
    assert_eq!(*damaged, packs[0]);
    assert_eq!(done.removed, packs[1..]);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    for content in contents() {
        assert_eq!(store.read(hash(&content)).unwrap(), Some(content));
    }
}

#[test]
fn a_rewrite_that_is_stopped_changes_nothing() {
    let store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    let mut before = store.file_names();
    let packs = store.dir.list().unwrap();
    let right = store.dir.maintain();
    let pacer = |_| Pace::Stop;
    let error = rewrite(&right, &*store.index, &packs, &|_| true, &pacer, &SMALL).unwrap_err();
    assert!(matches!(error, PackError::Stopped));
    let mut after = store.file_names();
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

#[test]
fn a_pack_that_is_rewritten_as_it_was_stays() {
    let mut store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    for pack in store.dir.list().unwrap() {
        let right = store.dir.maintain();
        rewrite(&right, &*store.index, &[pack], &|_| true, &|_| Pace::Go, &SMALL).unwrap();
    }
    for restart in 0..2 {
        for content in contents() {
            assert!(store.read(hash(&content)).unwrap() == Some(content), "{restart}");
        }
        assert!(store.reopen().missing.is_empty());
    }
}
