//! What goes in comes out.

use std::cell::Cell;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn assert_sound(store: &Store) {
    for written in store.indices() {
        let file = store.dir.open_pack(written.pack).unwrap();
        let scan = file.scan().unwrap();
        assert!(scan.damage.is_empty(), "{:?}", scan.damage);
        assert_eq!(scan.index, written, "the index rebuilt by a scan is the one written");
        assert!(file.check(&|_| Pace::Go).unwrap().is_empty());
    }
}

#[test]
fn contents_of_all_kinds_are_read_as_they_were() {
    let store = Store::new(SMALL);
    let (packed, stats) = store.pack(&contents()).unwrap();
    assert_eq!(packed, contents().iter().map(|content| hash(content)).collect::<Vec<_>>());
    assert_eq!((stats.new_objects, stats.known_objects), (6, 1));
    assert!(stats.packs > 1);
    for content in contents() {
        assert_eq!(store.read(hash(&content)).unwrap(), Some(content));
    }
    assert_eq!(store.read(hash(b"something else")).unwrap(), None);
    assert_sound(&store);
}

#[test]
fn contents_as_usual_are_read_as_they_were() {
    let store = Store::new(PackOptions::default());
    let contents = [text(3_000_000, 1), noise(1_000_000, 2), text(5, 3)];
    store.pack(&contents).unwrap();
    for content in contents {
        assert_eq!(store.read(hash(&content)).unwrap(), Some(content));
    }
    assert_sound(&store);
}

#[test]
fn shared_chunks_are_stored_once() {
    let store = Store::new(SMALL);
    let before = text(100_000, 1);
    let mut after = before.clone();
    after.splice(50_000..50_000, *b"inserted");
    let (_, first) = store.pack(std::slice::from_ref(&before)).unwrap();
    let (_, second) = store.pack(std::slice::from_ref(&after)).unwrap();
    assert!(first.new_bytes > 100_000);
    // A few chunks, the list that they are in and the recipe.
    assert!(second.new_bytes < 40_000, "{second:?}");
    assert!(second.new_chunks <= 8, "{second:?}");
    let (packed, third) = store.pack(&[before.clone(), after.clone()]).unwrap();
    assert_eq!(packed, [hash(&before), hash(&after)]);
    assert_eq!((third.known_objects, third.packs), (2, 0));
    assert_sound(&store);
}

#[test]
fn a_content_with_a_long_recipe_is_read_in_parts() {
    let store = Store::new(SMALL);
    let content = noise(1_000_000, 1);
    store.pack(std::slice::from_ref(&content)).unwrap();
    let reader = store.reader();
    let recipe = reader.recipe(hash(&content)).unwrap().unwrap();
    assert!(recipe.level > 0);
    for (offset, length) in
        [(0, 1), (0, 100_000), (123_456, 7_890), (999_000, 5_000), (2_000_000, 9)]
    {
        let mut buffer = vec![0; length];
        let n = reader.read_at(&recipe, offset as u64, &mut buffer).unwrap();
        let expected = &content[offset.min(content.len())..(offset + length).min(content.len())];
        assert_eq!(&buffer[..n], expected, "{offset} {length}");
    }
    let mut keys = std::collections::HashSet::new();
    reader.needs(&recipe, &mut |key| _ = keys.insert(key)).unwrap();
    let stored: std::collections::HashSet<_> =
        store.indices().iter().flat_map(|index| &index.entries).map(|entry| entry.key).collect();
    assert_eq!(keys, stored, "it needs all that is there");
}

#[test]
fn a_content_that_is_not_what_it_should_be_is_refused_alone() {
    let store = Store::new(SMALL);
    let right = store.dir.maintain();
    let mut packer = Packer::new(&right, &*store.index, &|_| Pace::Go, SMALL);
    packer.add(hash(b"good"), 0, &b"good"[..]).unwrap();
    let error = packer.add(hash(b"good, too"), 0, &b"good, too, and more"[..]).unwrap_err();
    assert!(matches!(error, PackError::OtherContent { .. }), "{error}");
    packer.add(hash(b"better"), 0, &b"better"[..]).unwrap();
    assert_eq!(packer.commit().unwrap(), [hash(b"good"), hash(b"better")]);
    assert_eq!(store.read(hash(b"good, too")).unwrap(), None);
}

#[test]
fn what_is_not_committed_is_not_there() {
    let store = Store::new(PackOptions::default());
    let right = store.dir.maintain();
    let mut packer = Packer::new(&right, &*store.index, &|_| Pace::Go, PackOptions::default());
    packer.add(hash(b"some"), 0, &b"some"[..]).unwrap();
    assert_eq!(store.read(hash(b"some")).unwrap(), None);
    drop(packer);
    assert!(store.file_names().is_empty());
}

#[test]
fn the_pacer_is_asked_and_obeyed() {
    let store = Store::new(SMALL);
    let right = store.dir.maintain();
    let (bytes, waits) = (Cell::new(0), Cell::new(0));
    let pacer = |more| {
        bytes.set(bytes.get() + more);
        match (more, bytes.get()) {
            (_, 5_000..) => Pace::Stop,
            (1.., _) => Pace::Wait(Duration::from_micros(1)),
            (0, _) => {
                waits.set(waits.get() + 1);
                Pace::Go
            }
        }
    };
    let mut packer = Packer::new(&right, &*store.index, &pacer, SMALL);
    packer.add(hash(b"first"), 0, &b"first"[..]).unwrap();
    let content = text(20_000, 1);
    let error = packer.add(hash(&content), content.len() as u64, &content[..]).unwrap_err();
    assert!(matches!(error, PackError::Stopped));
    assert!(waits.get() > 3 && bytes.get() < 7_000, "{waits:?} {bytes:?}");
    assert_eq!(packer.commit().unwrap(), [hash(b"first")], "what is complete is kept");
}

#[test]
fn the_names_of_packs_are_their_digests() {
    let store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    for pack in store.dir.list().unwrap() {
        assert_eq!(hash(&std::fs::read(store.dir.pack_path(pack)).unwrap()), pack.0);
    }
}

#[derive(Debug, Clone)]
struct Edit {
    at: usize,
    removed: usize,
    inserted: Vec<u8>,
}

fn edit() -> impl Strategy<Value = Edit> {
    let inserted = proptest::collection::vec(any::<u8>(), 0..300);
    (0..40_000usize, 0..2_000usize, inserted).prop_map(|(at, removed, inserted)| Edit {
        at,
        removed,
        inserted,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_contents_and_their_edits_round_trip(
        (length, seed, dense) in (0..40_000usize, any::<u64>(), any::<bool>()),
        edits in proptest::collection::vec(edit(), 0..6),
        reads in proptest::collection::vec((0..45_000usize, 0..9_000usize), 4),
    ) {
        let store = Store::new(SMALL);
        let mut version = if dense { noise(length, seed) } else { text(length, seed) };
        let mut versions = vec![version.clone()];
        for Edit { at, removed, inserted } in edits {
            let at = at.min(version.len());
            let end = (at + removed).min(version.len());
            version.splice(at..end, inserted);
            versions.push(version.clone());
        }
        store.pack(&versions).unwrap();
        assert_sound(&store);
        let reader = store.reader();
        for version in &versions {
            prop_assert_eq!(store.read(hash(version)).unwrap(), Some(version.clone()));
            let recipe = reader.recipe(hash(version)).unwrap().unwrap();
            for (offset, length) in &reads {
                let mut buffer = vec![0; *length];
                let n = reader.read_at(&recipe, *offset as u64, &mut buffer).unwrap();
                let end = (offset + length).min(version.len());
                prop_assert_eq!(&buffer[..n], &version[(*offset).min(end)..end]);
            }
        }
    }
}
