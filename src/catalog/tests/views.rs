//! What the views of the past are made of.

use super::*;

impl World {
    fn glimpse(&self, path: &str, at: Seq) -> Option<Glimpse> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let found = self.catalog.read::<_, CatalogError>(|reader| {
            let Some(dir) = reader.resolve(dir.as_bytes(), When::At(at))? else { return Ok(None) };
            reader.glimpse(dir, name.as_bytes(), at)
        });
        found.unwrap()
    }

    fn symlink(&mut self, name: &str, ino: u64, target: &str) {
        let at = Place { parent: ROOT, name: name.as_bytes().into() };
        let inode = self.inode(ino, Kind::Symlink);
        self.push(Op::Create { at, inode, born: Born::Target(target.as_bytes().into()) });
    }

    fn dir(&self, path: &str) -> FileId {
        let found = self.catalog.read(|reader| reader.resolve(path.as_bytes(), When::Now)).unwrap();
        found.unwrap_or(FileId::ROOT)
    }

    fn time_of_dir(&self, path: &str) -> i64 {
        self.glimpse(path, self.seq()).unwrap().node.mtime_ns
    }
}

#[test]
fn a_symlink_made_anew_leaves_the_old_one_as_it_was() {
    let mut w = World::new();
    w.symlink("s", 10, "one");
    let then = w.seq();
    w.unlink("s", 10);
    w.symlink("s", 11, "two");
    let target = |at| {
        let id = w.glimpse("s", at).unwrap().node.id;
        w.catalog.read(|reader| reader.target_of(id)).unwrap().unwrap()
    };
    assert_eq!((target(then), target(w.seq())), (b"one".to_vec(), b"two".to_vec()));
}

#[test]
fn a_file_made_anew_has_no_version_until_it_is_closed() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.unlink("f", 10);
    w.create_in(ROOT, "f", 11, Kind::File);
    let created = w.seq();
    w.rename("f", "g", 11, None);
    let renamed = w.seq();
    w.seal(11, 2);
    for (name, at) in [("f", created), ("g", renamed)] {
        let found = w.glimpse(name, at).unwrap();
        assert_eq!((found.node.version, found.node.size, found.node.hash), (0, 0, None), "{name}");
        assert_eq!(found.version, None);
    }
    assert_eq!(w.glimpse("g", w.seq()).unwrap().node.version, 2);
    // What was only moved keeps what it had.
    w.rename("g", "h", 11, None);
    assert_eq!(w.glimpse("h", w.seq()).unwrap().node.hash, Some(hash(2)));
}

#[test]
fn a_directory_has_the_time_of_its_last_change() {
    let mut w = World::new();
    w.create_in(ROOT, "d", 20, Kind::Dir);
    let made = w.time_of_dir("d");
    w.create_in(key(20), "f", 21, Kind::File);
    assert_eq!(w.time_of_dir("d"), w.now_ns, "a name came");
    // What a walk finds came nobody knows when.
    let at = Place { parent: key(20), name: b"g".as_slice().into() };
    let (inode, origin) = (w.inode(22, Kind::File), Origin::External);
    let op = Op::Observe { at, inode, found: Found::Unread, origin };
    w.catalog.push([Event { time_ns: w.now_ns + 1, writer: None, op }]);
    assert_eq!(w.time_of_dir("d"), made);
    let inode = Inode { key: key(20), attr: attr(20, Kind::Dir, 77) };
    w.push(Op::Attr { inode, before: None });
    assert_eq!(w.time_of_dir("d"), 77_000_000_005, "it was set");
    let set = w.seq();
    let at = Place { parent: key(20), name: b"f".as_slice().into() };
    w.push(Op::Unlink { at, key: key(21), remaining: None, openness: Openness::Closed });
    assert_eq!(w.time_of_dir("d"), w.now_ns, "a name went");
    assert_eq!(w.glimpse("d", set).unwrap().node.mtime_ns, 77_000_000_005);
}

#[test]
fn the_seconds_of_a_long_history_stay_a_few_hundred() {
    let mut w = World::new();
    w.write("f", 10, 1);
    // An event moves the clock by a second; these by more and more, over ten years.
    for n in 0..4_000_i64 {
        w.now_ns += n / 40 * 1_600 * 1_000_000_000;
        w.seal(10, u8::try_from(n % 2).unwrap() + 1);
    }
    let last = w.now_ns;
    for n in 0..100 {
        w.seal(10, n % 2 + 3);
    }
    let seconds = w.catalog.read(Reader::changed_seconds).unwrap();
    assert!((200..500).contains(&seconds.len()), "{}", seconds.len());
    assert!(seconds.is_sorted_by(|newer, older| newer > older));
    assert!(seconds.iter().all(|ns| ns % 1_000_000_000 == 0));
    // The newest ones all, and something of each time before.
    assert!(seconds[..60].windows(2).all(|pair| pair[0] - pair[1] <= 2_000_000_000));
    assert!(seconds[59] > last - 1_000_000_000);
    assert!(*seconds.last().unwrap() < last - 8 * 365 * 86_400 * 1_000_000_000);
    // Each stands for a change in it.
    for second in &seconds {
        let seq = w.catalog.read(|reader| reader.seq_at(second + 999_999_999)).unwrap().unwrap();
        let time = w.catalog.read(|reader| reader.time_of(seq)).unwrap();
        assert_eq!(time - time % 1_000_000_000, *second);
    }
}

#[test]
fn nothing_has_changed_before_the_first_change() {
    let w = World::new();
    let seconds = w.catalog.read(Reader::changed_seconds).unwrap();
    assert_eq!(seconds, [w.now_ns]);
}

#[test]
fn now_is_the_newest_of_all_times() {
    let mut w = World::new();
    let check = |w: &World| {
        for dir in [FileId::ROOT, w.dir("d")] {
            for (after, limit) in [("", 100), ("b", 2), ("zz", 9)] {
                let (now, then) = w
                    .catalog
                    .read::<_, CatalogError>(|reader| {
                        let then = reader.glimpses(dir, reader.seq()?, after.as_bytes(), limit)?;
                        Ok((reader.glimpses_now(dir, after.as_bytes(), limit)?, then))
                    })
                    .unwrap();
                assert_eq!(now, then, "after {after:?}");
            }
        }
    };
    w.create_in(ROOT, "d", 20, Kind::Dir);
    w.create_in(key(20), "in", 21, Kind::File);
    for (name, ino, content) in
        [("a", 10, 1), ("b", 11, 2), ("c", 12, 3), ("e", 13, 5), ("f", 14, 6)]
    {
        w.write(name, ino, content);
        check(&w);
    }
    w.write("a", 10, 77);
    w.symlink("s", 30, "there");
    w.rename("b", "moved", 11, None);
    check(&w);
    w.unlink("c", 12);
    w.create_in(ROOT, "c", 15, Kind::File);
    check(&w);
    w.rename("c", "again", 15, None);
    check(&w);
    w.seal(15, 3);
    w.rename("e", "f", 13, Some(14));
    let inode = Inode { key: key(10), attr: attr(10, Kind::File, 77) };
    w.push(Op::Attr { inode, before: None });
    check(&w);
    w.seal(21, 4);
    w.unlink("s", 30);
    check(&w);
}
