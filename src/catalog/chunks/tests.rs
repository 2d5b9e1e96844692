//! The index gives the same answers as one in memory, and is anew whatever happens to its file.

use super::*;
use crate::store::pack::{Entry, MemoryIndex};
use crate::types::ContentHash;

use proptest::prelude::*;

fn hash(n: u8) -> ContentHash {
    ContentHash::new([n; 32])
}

fn pack(n: u8) -> PackId {
    PackId(hash(n))
}

/// A pack with chunks and, from 128 up, recipes of these numbers.
fn index(n: u8, items: &[u8]) -> PackIndex {
    let mut entries: Vec<Entry> = Vec::new();
    for (at, item) in (0..).zip(items) {
        let key = if *item < 128 { Key::chunk(hash(*item)) } else { Key::recipe(hash(item - 128)) };
        let place = Place { pack: pack(n), frame: 16, frame_bytes: 900, start: at * 9, length: 9 };
        if entries.iter().all(|entry| entry.key != key) {
            entries.push(Entry { key, place });
        }
    }
    PackIndex { pack: pack(n), size_bytes: 1000 + u64::from(n), entries }
}

fn keys() -> impl Iterator<Item = Key> {
    (0..6).flat_map(|n| [Key::chunk(hash(n)), Key::recipe(hash(n))])
}

fn packs(index: &dyn ChunkIndex) -> Vec<PackId> {
    let mut packs = index.packs().unwrap();
    packs.sort_unstable();
    packs
}

fn at(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join(FILE_NAME)
}

#[test]
fn what_is_known_is_known_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let db = ChunkDb::open(&at(&dir)).unwrap();
    db.replace(&[index(1, &[1, 2, 129]), index(2, &[2, 3])], &[]).unwrap();
    drop(db);
    for db in [ChunkDb::open(&at(&dir)).unwrap(), ChunkDb::open_to_read(&at(&dir)).unwrap()] {
        assert_eq!(packs(&db), [pack(1), pack(2)]);
        assert_eq!(db.totals(), PackTotals { packs: 2, bytes: 2003, items: 5 });
        let place = db.find(&Key::chunk(hash(3))).unwrap().unwrap();
        assert_eq!(place, index(2, &[2, 3]).entries[1].place);
        assert_eq!(db.find(&Key::recipe(hash(1))).unwrap().unwrap().start, 18);
        assert_eq!(db.find(&Key::recipe(hash(2))).unwrap(), None);
        assert!(!db.is_damaged());
    }
}

#[test]
fn who_holds_it_for_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let db = ChunkDb::open(&at(&dir)).unwrap();
    let other = Connection::open(at(&dir)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(300));
        other.execute_batch("ROLLBACK").unwrap();
    });
    db.replace(&[index(1, &[1])], &[]).unwrap();
    assert_eq!(packs(&db), [pack(1)]);
    release.join().unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_made_anew() {
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        let db = ChunkDb::open(&at(&dir)).unwrap();
        db.replace(&[index(1, &[1, 2])], &[]).unwrap();
        drop(db);
        dir
    };
    let spoil: [fn(&Path); 5] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::write(path, "this is no database, is it? ".repeat(999)).unwrap(),
        |path| std::fs::write(path, "").unwrap(),
        |path| std::fs::File::options().write(true).open(path).unwrap().set_len(100).unwrap(),
        |path| {
            let db = Connection::open(path).unwrap();
            db.pragma_update(None, "user_version", VERSION + 1).unwrap();
        },
    ];
    for spoil in spoil {
        let dir = fresh();
        spoil(&at(&dir));
        let read = ChunkDb::open_to_read(&at(&dir)).unwrap();
        assert_eq!(packs(&read), []);
        let db = ChunkDb::open(&at(&dir)).unwrap();
        assert_eq!(packs(&db), []);
        db.replace(&[index(2, &[1])], &[]).unwrap();
        assert_eq!(db.find(&Key::chunk(hash(1))).unwrap().unwrap().pack, pack(2));
    }
}

#[test]
fn a_file_that_was_rolled_back_is_not_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let db = ChunkDb::open(&at(&dir)).unwrap();
    db.replace(&[index(1, &[1])], &[]).unwrap();
    db.replace(&[index(2, &[2])], &[]).unwrap();
    assert!(!db.is_damaged());
    {
        // As if it had been written since.
        let mut main = db.main.lock();
        main.place = main.place.later();
    }
    assert!(db.replace(&[index(3, &[3])], &[]).is_err());
    assert!(db.is_damaged());
    assert_eq!(packs(&db), [pack(1), pack(2)]);
    db.clear().unwrap();
    assert!(!db.is_damaged());
    db.replace(&[index(3, &[3])], &[]).unwrap();
    assert_eq!(packs(&db), [pack(3)]);
    drop(db);
    assert_eq!(packs(&ChunkDb::open(&at(&dir)).unwrap()), [pack(3)]);
}

#[test]
fn damage_shows_and_clearing_cures_it() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<PackIndex> = (0..100).map(|n| index(n, &[n, 1, 2, 3, 129])).collect();
    let db = ChunkDb::open(&at(&dir)).unwrap();
    db.replace(&many, &[]).unwrap();
    drop(db);
    // The pages of the first one stay, so that it can be opened.
    let mut bytes = std::fs::read(at(&dir)).unwrap();
    let item = {
        let db = Connection::open(at(&dir)).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'item'";
        usize::try_from(db.query_row(sql, [], |row| get_u64(row, 0)).unwrap()).unwrap()
    };
    bytes[(item - 1) * 4096..item * 4096].fill(0xa5);
    std::fs::write(at(&dir), &bytes).unwrap();
    for db in [ChunkDb::open_to_read(&at(&dir)).unwrap(), ChunkDb::open(&at(&dir)).unwrap()] {
        assert_eq!(packs(&db).len(), 100);
        assert!(!db.is_damaged());
        db.find(&Key::chunk(hash(1))).unwrap_err();
        assert!(db.is_damaged());
        db.clear().unwrap();
        assert!(!db.is_damaged());
        assert_eq!(db.find(&Key::chunk(hash(1))).unwrap(), None);
        db.replace(&many[..2], &[]).unwrap();
        assert_eq!(db.find(&Key::chunk(hash(1))).unwrap().unwrap().length, 9);
        assert_eq!(packs(&db), [pack(0), pack(1)]);
    }
    // What only reads has left the file alone.
    assert_eq!(packs(&ChunkDb::open_to_read(&at(&dir)).unwrap()), [pack(0), pack(1)]);
}

#[test]
fn rows_of_packs_that_are_gone_are_swept_out() {
    let dir = tempfile::tempdir().unwrap();
    let db = ChunkDb::open(&at(&dir)).unwrap();
    let rows = || {
        let db = Connection::open(at(&dir)).unwrap();
        db.query_row("SELECT count(*) FROM item", [], |row| get_u64(row, 0)).unwrap()
    };
    let wide = |n: u8| {
        let place = index(n, &[1]).entries[0].place;
        let key = |k: u64| {
            let mut bytes = [n; 32];
            bytes[..8].copy_from_slice(&k.to_be_bytes());
            Key::chunk(ContentHash::new(bytes))
        };
        let entries = (0..6000).map(|k| Entry { key: key(k), place }).collect();
        PackIndex { pack: pack(n), size_bytes: 1, entries }
    };
    db.replace(&[wide(1), wide(2), wide(3)], &[]).unwrap();
    db.replace(&[], &[pack(1)]).unwrap();
    assert_eq!((rows(), packs(&db).len()), (18_000, 2));
    assert_eq!(db.find(&wide(1).entries[0].key).unwrap(), None);
    db.replace(&[], &[pack(2)]).unwrap();
    assert_eq!(rows(), 6000);
    assert!(db.find(&wide(3).entries[9].key).unwrap().is_some());
}

proptest! {
    #[test]
    fn it_answers_as_one_in_memory_does(
        steps in proptest::collection::vec(
            (proptest::collection::vec((0u8..5, proptest::collection::vec(
                prop_oneof![0u8..6, 128u8..134], 0..6)), 0..3),
             proptest::collection::vec(0u8..5, 0..3)),
            1..12,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let db = ChunkDb::open(&at(&dir)).unwrap();
        let memory = MemoryIndex::default();
        // A pack's name says what is in it, so each comes with one content.
        let mut contents: HashMap<u8, Vec<u8>> = HashMap::new();
        for (added, removed) in steps {
            let removed: Vec<_> = removed.iter().map(|n| pack(*n)).collect();
            let added: Vec<_> = added
                .into_iter()
                .map(|(n, items)| index(n, contents.entry(n).or_insert(items)))
                .filter(|index| !removed.contains(&index.pack))
                .collect();
            db.replace(&added, &removed).unwrap();
            memory.replace(&added, &removed).unwrap();
            prop_assert_eq!(packs(&db), packs(&memory));
            prop_assert_eq!(db.totals(), memory.totals());
            for key in keys() {
                let (ours, theirs) = (db.find(&key).unwrap(), memory.find(&key).unwrap());
                prop_assert_eq!(ours.is_some(), theirs.is_some(), "{}", key);
                if let Some(place) = ours {
                    let known = |index: &PackIndex| index.entries.iter().any(|e| e.place == place && e.key == key);
                    let n = place.pack.0.as_bytes()[0];
                    prop_assert!(known(&index(n, &contents[&n])));
                }
            }
        }
    }
}

mod crashes;
