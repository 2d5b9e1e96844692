//! What is damaged says so, and everything else stays readable.

use std::collections::HashSet;
use std::fs;

use rstest::rstest;

use super::error::{Fault, Part};
use super::*;

/// All contents in one pack of many frames.
fn one_pack() -> (Store, PackIndex) {
    let store = Store::new(PackOptions { limit_bytes: 1 << 20, ..SMALL });
    let right = store.dir.maintain();
    let mut packer = Packer::new(&right, &*store.index, &|_| Pace::Go, store.options);
    for content in contents() {
        packer.add(hash(&content), content.len() as u64, &content[..]).unwrap();
    }
    packer.commit().unwrap();
    drop(packer);
    drop(right);
    let [index] = &store.indices()[..] else { panic!("one pack") };
    let index = index.clone();
    (store, index)
}

/// The keys that each content needs, while everything is sound.
fn needs(store: &Store) -> Vec<HashSet<Key>> {
    let reader = store.reader();
    let of = |content: Vec<u8>| {
        let mut keys = HashSet::new();
        let recipe = reader.recipe(hash(&content)).unwrap().unwrap();
        reader.needs(&recipe, &mut |key| _ = keys.insert(key)).unwrap();
        keys
    };
    contents().into_iter().map(of).collect()
}

/// Reads all contents; says which fail. What is read must be right.
fn failing(store: &Store) -> Vec<Option<PackError>> {
    let read = |content: Vec<u8>| match store.read(hash(&content)) {
        Ok(found) => {
            assert_eq!(found, Some(content));
            None
        }
        Err(error) => Some(error),
    };
    contents().into_iter().map(read).collect()
}

/// Fails exactly where something is needed that the check calls lost, and names pack and content.
fn assert_told(store: &Store, pack: PackId, needs: &[HashSet<Key>], lost: &HashSet<Key>) {
    for ((content, needs), error) in contents().iter().zip(needs).zip(failing(store)) {
        assert_eq!(error.is_some(), !needs.is_disjoint(lost), "{error:?}");
        if let Some(error) = error {
            let text = error.to_string();
            assert!(text.contains(&pack.to_string()), "{text}");
            assert!(text.contains(&hash(content).to_string()), "{text}");
            assert!(text.contains("offset"), "{text}");
        }
    }
}

#[rstest]
#[case::magic(0)]
#[case::count(8)]
#[case::checksum(20)]
#[case::table(30)]
#[case::payload(150)]
fn a_flip_in_a_frame_costs_this_frame(#[case] within: usize) {
    let (store, index) = one_pack();
    let needs = needs(&store);
    let path = store.dir.pack_path(index.pack);
    let sound = fs::read(&path).unwrap();
    let frames: Vec<_> = index.entries.chunk_by(|a, b| a.place.frame == b.place.frame).collect();
    assert!(frames.len() > 8);
    for frame in &frames {
        let mut bytes = sound.clone();
        bytes[frame[0].place.frame as usize + within] ^= 4;
        fs::write(&path, bytes).unwrap();
        let file = store.dir.open_pack(index.pack).unwrap();
        let [damage] = &file.check(&|_| Pace::Go).unwrap()[..] else { panic!("one damage") };
        let offset = u64::from(frame[0].place.frame);
        assert!(matches!(damage.error, PackError::Frame { offset: at, .. } if at == offset));
        assert!(damage.lost.iter().eq(frame.iter().map(|entry| &entry.key)));
        assert_told(&store, index.pack, &needs, &damage.lost.iter().copied().collect());
        // A scan finds all the other frames.
        let scan = file.scan().unwrap();
        assert_eq!(scan.damage.len(), 1, "{:?}", scan.damage);
        let others = index.entries.iter().filter(|entry| entry.place.frame != frame[0].place.frame);
        assert!(scan.index.entries.iter().eq(others));
    }
}

#[rstest]
#[case::header(Part::Header, 3)]
#[case::version(Part::Header, 8)]
#[case::index(Part::Index, -60)]
#[case::footer(Part::Footer, -20)]
#[case::last_byte(Part::Footer, -1)]
fn a_flip_outside_the_frames_costs_nothing(#[case] expected: Part, #[case] at: isize) {
    let (store, index) = one_pack();
    let path = store.dir.pack_path(index.pack);
    let mut bytes = fs::read(&path).unwrap();
    let at = if at < 0 { bytes.len().strict_add_signed(at) } else { at.unsigned_abs() };
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(failing(&store).iter().all(Option::is_none));
    let file = store.dir.open_pack(index.pack).unwrap();
    let error = file.index().unwrap_err();
    assert!(matches!(error, PackError::Outline { part, .. } if part == expected), "{error}");
    assert!(error.to_string().contains(&index.pack.to_string()), "{error}");
    let [damage] = &file.check(&|_| Pace::Go).unwrap()[..] else { panic!("one damage") };
    assert!(damage.lost.is_empty());
    assert_eq!(file.scan().unwrap().index, index, "the index can be rebuilt");
}

#[test]
fn no_flipped_byte_goes_unnoticed_or_changes_a_content() {
    let store = Store::new(SMALL);
    let small = [text(900, 1), noise(800, 2), b"tiny".to_vec()];
    store.pack(&small).unwrap();
    let [pack] = store.dir.list().unwrap()[..] else { panic!("one pack") };
    let path = store.dir.pack_path(pack);
    let sound = fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x11;
        fs::write(&path, bytes).unwrap();
        let file = store.dir.open_pack(pack).unwrap();
        assert!(!file.check(&|_| Pace::Go).unwrap().is_empty(), "byte {at}");
        for content in &small {
            match store.read(hash(content)) {
                Ok(read) => assert_eq!(read.as_ref(), Some(content), "byte {at}"),
                Err(error) => assert!(matches!(error, PackError::Object { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn a_pack_that_is_cut_off_keeps_what_is_left() {
    let (store, index) = one_pack();
    let needs = needs(&store);
    let path = store.dir.pack_path(index.pack);
    let sound = fs::read(&path).unwrap();
    let middle = index.entries[index.entries.len() / 2].place.frame as usize;
    for length in [0, 10, middle - 1, middle, middle + 5, middle + 40, sound.len() - 1] {
        fs::write(&path, &sound[..length]).unwrap();
        let gone = |entry: &&Entry| (entry.place.frame + entry.place.frame_bytes) as usize > length;
        let lost = index.entries.iter().filter(gone).map(|entry| entry.key).collect();
        assert_told(&store, index.pack, &needs, &lost);
        let file = store.dir.open_pack(index.pack).unwrap();
        let error = file.index().unwrap_err();
        assert!(matches!(error, PackError::Outline { .. }), "{error}");
        assert!(!file.check(&|_| Pace::Go).unwrap().is_empty());
        let left = file.scan().unwrap().index.entries;
        assert!(left.iter().eq(index.entries.iter().filter(|entry| !gone(entry))), "{length}");
    }
}

#[test]
fn a_pack_that_is_gone_takes_its_own_contents_with_it() {
    let mut store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    let needs = needs(&store);
    for gone in store.indices() {
        let path = store.dir.pack_path(gone.pack);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = store.dir.open_pack(gone.pack).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
        let lost: HashSet<_> = gone.entries.iter().map(|entry| entry.key).collect();
        for (needs, error) in needs.iter().zip(failing(&store)) {
            assert_eq!(error.is_some(), !needs.is_disjoint(&lost));
            let text = error.map(|error| error.to_string()).unwrap_or_default();
            assert!(text.is_empty() || text.contains(&gone.pack.to_string()), "{text}");
        }
        assert_eq!(store.reopen().missing, [gone.pack]);
        fs::write(store.dir.pack_path(gone.pack), bytes).unwrap();
        assert_eq!(store.reopen().adopted, [gone.pack]);
    }
    assert!(failing(&store).iter().all(Option::is_none));
}

#[test]
fn a_pack_with_another_packs_bytes_is_found_out() {
    let store = Store::new(PackOptions::default());
    store.pack(&[text(5_000, 1)]).unwrap();
    let other = Store::new(PackOptions::default());
    other.pack(&[text(5_000, 2)]).unwrap();
    let ([pack], [stranger]) = (&store.indices()[..], &other.indices()[..]) else {
        panic!("one pack each")
    };
    fs::copy(other.dir.pack_path(stranger.pack), store.dir.pack_path(pack.pack)).unwrap();
    let error = store.read(hash(&text(5_000, 1))).unwrap_err();
    assert!(matches!(error, PackError::Object { .. }), "{error}");
    let file = store.dir.open_pack(pack.pack).unwrap();
    let [damage] = &file.check(&|_| Pace::Go).unwrap()[..] else { panic!("one damage") };
    assert!(matches!(damage.error, PackError::NotItself { found, .. } if found == stranger.pack.0));
}

#[test]
fn a_wrong_chunk_in_a_sound_frame_is_not_handed_out() {
    let (store, index) = one_pack();
    let first = index.entries[1];
    let length = first.place.length;
    let mut others = index.entries[2..].iter().map(|entry| entry.place);
    let other = others.find(|place| place.length >= length).unwrap();
    let entry = Entry { key: first.key, place: Place { length, ..other } };
    let swapped = PackIndex { entries: vec![entry], ..index.clone() };
    let wrong = MemoryIndex::default();
    wrong.replace(&[swapped, index], &[]).unwrap();
    let reader = PackReader::new(Arc::clone(&store.dir), Arc::new(wrong), 0);
    // Whether it is a content by itself or a part of one, read in part or whole.
    let whole = contents().into_iter().map(|content| hash(&content)).find(|object| {
        let mut has = false;
        let recipe = store.reader().recipe(*object).unwrap().unwrap();
        store.reader().needs(&recipe, &mut |key| has |= key == first.key).unwrap();
        has
    });
    for object in [first.key.hash, whole.unwrap()] {
        let recipe = reader.recipe(object).unwrap().unwrap();
        let mut buffer = vec![0; 40_000];
        for error in [
            reader.copy(&recipe, &mut Vec::new()).unwrap_err(),
            reader.read_at(&recipe, 0, &mut buffer).unwrap_err(),
        ] {
            let PackError::Object { source, .. } = error else { panic!("{error}") };
            let expected = Fault::Chunk(first.key.hash);
            assert!(matches!(*source, PackError::Frame { fault, .. } if fault == expected));
        }
    }
}

#[test]
fn an_index_that_is_older_than_the_packs_loses_nothing() {
    let mut store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    let old: Vec<PackIndex> = store.indices();
    // Everything moves to other packs, and then the index is as it was before.
    let packs = store.dir.list().unwrap();
    let right = store.dir.maintain();
    rewrite(&right, &*store.index, &packs, &|_| true, &|_| Pace::Go, &store.options).unwrap();
    drop(right);
    store.index = Arc::default();
    store.index.replace(&old, &[]).unwrap();
    let recovery = store.reopen();
    assert_eq!((recovery.missing.len(), recovery.removed), (packs.len(), vec![]));
    for content in contents() {
        assert_eq!(store.read(hash(&content)).unwrap(), Some(content));
    }
}

#[test]
fn what_can_be_found_in_a_damaged_pack_is_known_to_a_new_index() {
    let mut store = Store::new(SMALL);
    store.pack(&contents()).unwrap();
    for pack in store.dir.list().unwrap() {
        let path = store.dir.pack_path(pack);
        let length = std::fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(&path).unwrap().set_len(length - 10).unwrap();
    }
    store.index = Arc::default();
    let recovery = store.reopen();
    assert_eq!(recovery.damaged.len(), recovery.adopted.len());
    assert!(!recovery.damaged.is_empty() && recovery.removed.is_empty());
    for content in contents() {
        assert_eq!(store.read(hash(&content)).unwrap(), Some(content));
    }
}
