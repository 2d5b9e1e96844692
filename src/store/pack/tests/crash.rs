//! A crash between any two durable steps loses nothing that was said to be packed.

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
