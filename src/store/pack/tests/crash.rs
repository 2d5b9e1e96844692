//! A crash between any two durable steps loses nothing that was said to be packed.

use std::collections::HashSet;

use rstest::rstest;

use super::dir::Step;
use super::*;

fn assert_clean(store: &Store) {
    let mut known = store.index.packs().unwrap();
    known.sort_unstable();
    assert_eq!(store.dir.list().unwrap(), known, "no pack is unknown or missing");
    assert_eq!(store.file_names().len(), known.len(), "nothing else is left");
}

#[rstest]
fn packing_can_stop_behind_any_step(
    #[values(
        Step::Created,
        Step::Written,
        Step::Synced,
        Step::Renamed,
        Step::DirSynced,
        Step::Published
    )]
    step: Step,
    #[values(1, 2, 3)] times: usize,
) {
    let mut store = Store::new(SMALL);
    store.dir.crash.after(step, times);
    let mut packed = Vec::new();
    {
        let right = store.dir.maintain();
        let mut packer = Packer::new(&right, &*store.index, &|_| Pace::Go, SMALL);
        for content in contents() {
            if packer.add(hash(&content), content.len() as u64, &content[..]).is_err() {
                break;
            }
            let Ok(more) = packer.commit() else { break };
            packed.extend(more);
        }
    }
    assert!(store.dir.crash.happened());
    assert!(packed.len() < contents().len());
    let recovery = store.reopen();
    let is_unknown = matches!(step, Step::Renamed | Step::DirSynced);
    assert_eq!(recovery.adopted.len(), usize::from(is_unknown));
    assert!(recovery.missing.is_empty() && recovery.damaged.is_empty(), "{recovery:?}");
    assert_clean(&store);
    for content in contents().iter().filter(|content| packed.contains(&hash(content))) {
        assert_eq!(store.read(hash(content)).unwrap().as_ref(), Some(content));
    }
    // The loose copies are packed again.
    store.pack(&contents()).unwrap();
    assert_clean(&store);
    for content in contents() {
        assert_eq!(store.read(hash(&content)).unwrap(), Some(content));
    }
}

#[rstest]
fn rewriting_can_stop_behind_any_step(
    #[values(
        Step::Created,
        Step::Written,
        Step::Synced,
        Step::Renamed,
        Step::DirSynced,
        Step::Published,
        Step::Removed
    )]
    step: Step,
    #[values(1, 2)] times: usize,
) {
    let mut store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    let before = store.dir.list().unwrap();
    let kept = &contents()[3..];
    let mut live = HashSet::new();
    let reader = store.reader();
    for content in kept {
        let recipe = reader.recipe(hash(content)).unwrap().unwrap();
        reader.needs(&recipe, &mut |key| _ = live.insert(key)).unwrap();
    }
    let run = |store: &Store| {
        let right = store.dir.maintain();
        let packs = store.dir.list().unwrap();
        let is_live = |key: &Key| live.contains(key);
        rewrite(&right, &*store.index, &packs, &is_live, &|_| Pace::Go, &SMALL)
    };
    store.dir.crash.after(step, times);
    let outcome = run(&store);
    assert_eq!(outcome.is_err(), store.dir.crash.happened());
    // The index changes only once.
    assert_eq!(outcome.is_ok(), step == Step::Published && times == 2);
    let recovery = store.reopen();
    assert!(recovery.missing.is_empty() && recovery.damaged.is_empty(), "{recovery:?}");
    assert_clean(&store);
    for content in kept {
        assert_eq!(store.read(hash(content)).unwrap().as_ref(), Some(content));
    }
    let again = run(&store).unwrap();
    assert!(again.damaged.is_empty());
    assert_clean(&store);
    assert!(store.dir.list().unwrap().iter().all(|pack| !before.contains(pack)));
    let left: HashSet<_> =
        store.indices().iter().flat_map(|index| &index.entries).map(|entry| entry.key).collect();
    assert_eq!(left, live);
}
