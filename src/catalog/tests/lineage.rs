//! What a path has shown, whatever became of the directories above it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

impl World {
    /// Moves something from a name to a name that is free.
    fn move_to(&mut self, from: (InodeKey, &str), to: (InodeKey, &str), ino: u64, kind: Kind) {
        let place =
            |(parent, name): (InodeKey, &str)| Place { parent, name: name.as_bytes().into() };
        let inode = self.inode(ino, kind);
        self.push(Op::Rename { from: place(from), to: place(to), inode, replaced: None });
    }

    fn move_dir(&mut self, from: &str, to: &str, ino: u64) {
        self.move_to((ROOT, from), (ROOT, to), ino, Kind::Dir);
    }

    fn write_in(&mut self, dir: u64, name: &str, ino: u64, content: u8) {
        self.create_in(key(dir), name, ino, Kind::File);
        self.seal(ino, content);
    }

    fn unlink_in(&mut self, parent: InodeKey, name: &str, ino: u64) {
        let at = Place { parent, name: name.as_bytes().into() };
        let openness = Openness::Closed;
        self.push(Op::Unlink { at, key: key(ino), remaining: None, openness });
    }

    fn is_live(&self, path: &str) -> Option<bool> {
        let located = self.catalog.read(|reader| reader.locate(path.as_bytes())).unwrap();
        located.map(|located| located.live)
    }
}

#[test]
fn a_directory_that_is_renamed_and_made_anew_has_the_history_of_both() {
    let mut w = World::new();
    w.create_in(ROOT, "a", 20, Kind::Dir);
    w.write_in(20, "f", 30, 1);
    w.seal(30, 2);
    w.write_in(20, "g", 31, 3);
    w.move_dir("a", "b", 20);
    w.seal(30, 4);
    assert_eq!((w.log("a/f"), w.is_live("a/f")), (vec![1, 2], Some(false)));
    assert_eq!(w.log("b/f"), [1, 2, 4], "what it was before it was called so");
    w.create_in(ROOT, "a", 21, Kind::Dir);
    assert_eq!((w.log("a/f"), w.is_live("a/f")), (vec![1, 2], Some(false)));
    w.write_in(21, "f", 32, 5);
    assert_eq!((w.log("a/f"), w.is_live("a/f")), (vec![1, 2, 5], Some(true)));
    assert_eq!((w.log("a/g"), w.is_live("a/g")), (vec![3], Some(false)));
    assert_eq!(w.is_live("a/h"), None);
    assert_eq!(w.log("b/f"), [1, 2, 4]);
}

#[test]
fn directories_that_change_places_leave_what_their_paths_have_shown() {
    let mut w = World::new();
    for (dir, name, content) in [(20, "live", 1), (21, "next", 2)] {
        w.create_in(ROOT, name, dir, Kind::Dir);
        w.write_in(dir, "f", dir + 10, content);
    }
    w.move_dir("live", "last", 20);
    w.move_dir("next", "live", 21);
    assert_eq!(w.log("live/f"), [1, 2]);
    w.seal(31, 3);
    w.seal(30, 4);
    assert_eq!(
        (w.log("live/f"), w.log("last/f"), w.log("next/f")),
        (vec![1, 2, 3], vec![1, 4], vec![2])
    );
}

#[test]
fn what_was_deleted_before_its_directory_got_another_name_is_found_there() {
    let mut w = World::new();
    w.create_in(ROOT, "old", 20, Kind::Dir);
    w.write_in(20, "f", 30, 1);
    w.unlink_in(key(20), "f", 30);
    w.move_dir("old", "new", 20);
    assert_eq!((w.log("new/f"), w.is_live("new/f")), (vec![1], Some(false)));
    assert_eq!((w.log("old/f"), w.is_live("old/f")), (vec![1], Some(false)));
}

const DIRS: [&str; 3] = ["a", "b", "c"];
const FILES: [&str; 2] = ["f", "g"];

#[derive(Debug, Clone)]
enum Step {
    Mkdir(usize),
    Rmdir(usize),
    MoveDir(usize, usize),
    Write(usize, usize),
    Unlink(usize, usize),
    MoveFile((usize, usize), (usize, usize)),
}

fn step() -> impl Strategy<Value = Step> {
    let (dir, file) = (0..DIRS.len(), 0..FILES.len());
    let place = (dir.clone(), file.clone());
    prop_oneof![
        2 => dir.clone().prop_map(Step::Mkdir),
        1 => dir.clone().prop_map(Step::Rmdir),
        3 => (dir.clone(), dir.clone()).prop_map(|(from, to)| Step::MoveDir(from, to)),
        6 => (dir.clone(), file.clone()).prop_map(|(dir, file)| Step::Write(dir, file)),
        2 => (dir, file).prop_map(|(dir, file)| Step::Unlink(dir, file)),
        2 => (place.clone(), place).prop_map(|(from, to)| Step::MoveFile(from, to)),
    ]
}

/// Files of a directory: their inodes and contents.
type Files = BTreeMap<usize, (u64, u8)>;

/// The tree as it should be, and what each path has shown.
#[derive(Default)]
struct Model {
    /// The inode of a directory, and its files.
    dirs: BTreeMap<usize, (u64, Files)>,
    shown: BTreeMap<(usize, usize), Vec<u8>>,
    inodes: u64,
    contents: u8,
}

impl Model {
    fn apply(&mut self, w: &mut World, step: &Step) {
        match *step {
            Step::Mkdir(dir) if !self.dirs.contains_key(&dir) => {
                let ino = self.next_inode();
                w.create_in(ROOT, DIRS[dir], ino, Kind::Dir);
                self.dirs.insert(dir, (ino, BTreeMap::new()));
            }
            Step::Rmdir(dir) if self.dirs.get(&dir).is_some_and(|(_, files)| files.is_empty()) => {
                let (ino, _) = self.dirs.remove(&dir).unwrap();
                w.unlink_in(ROOT, DIRS[dir], ino);
            }
            Step::MoveDir(from, to)
                if self.dirs.contains_key(&from) && !self.dirs.contains_key(&to) =>
            {
                let dir = self.dirs.remove(&from).unwrap();
                w.move_dir(DIRS[from], DIRS[to], dir.0);
                self.dirs.insert(to, dir);
            }
            Step::Write(dir, file) => {
                let ino = self.next_inode();
                let Some((parent, files)) = self.dirs.get_mut(&dir) else { return };
                self.contents += 1;
                let has = files.entry(file).or_insert_with(|| {
                    w.create_in(key(*parent), FILES[file], ino, Kind::File);
                    (ino, 0)
                });
                has.1 = self.contents;
                w.seal(has.0, has.1);
            }
            Step::Unlink(dir, file) => {
                let Some((parent, files)) = self.dirs.get_mut(&dir) else { return };
                if let Some((ino, _)) = files.remove(&file) {
                    w.unlink_in(key(*parent), FILES[file], ino);
                }
            }
            Step::MoveFile(from, to) => {
                let Some((parent, files)) = self.dirs.get(&to.0) else { return };
                let (parent, is_free) = (*parent, !files.contains_key(&to.1));
                let Some((source, files)) = self.dirs.get_mut(&from.0) else { return };
                let Some(file) = is_free.then(|| files.remove(&from.1)).flatten() else { return };
                let places = ((key(*source), FILES[from.1]), (key(parent), FILES[to.1]));
                w.move_to(places.0, places.1, file.0, Kind::File);
                self.dirs.get_mut(&to.0).unwrap().1.insert(to.1, file);
            }
            _ => return,
        }
        self.look();
    }

    fn next_inode(&mut self) -> u64 {
        self.inodes += 1;
        100 + self.inodes
    }

    fn look(&mut self) {
        for (dir, (_, files)) in &self.dirs {
            for (file, (_, content)) in files {
                let shown = self.shown.entry((*dir, *file)).or_default();
                if !shown.contains(content) {
                    shown.push(*content);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_path_has_shown_what_it_has_shown(steps in proptest::collection::vec(step(), 1..60)) {
        let (mut w, mut model) = (World::new(), Model::default());
        for step in &steps {
            model.apply(&mut w, step);
        }
        w.catalog.barrier();
        for ((dir, file), shown) in &model.shown {
            let path = format!("{}/{}", DIRS[*dir], FILES[*file]);
            let log = w.log(&path);
            // Older history of the first that had the path, and no other: it all comes from before.
            let older: Vec<u8> = log.iter().copied().filter(|c| !shown.contains(c)).collect();
            prop_assert!(older.iter().all(|content| *content < shown[0]), "{path}: {log:?} {shown:?}");
            let mut sorted = log.clone();
            sorted.sort_unstable();
            let mut expected = [older.as_slice(), shown].concat();
            expected.sort_unstable();
            prop_assert_eq!(&sorted, &expected, "{}", path);
            if older.is_empty() {
                prop_assert_eq!(&log, shown, "{}", path);
            }
        }
    }
}
