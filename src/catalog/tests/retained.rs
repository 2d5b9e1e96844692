//! Histories as retention sees them, and what people say of versions.

use super::super::event::{Kept, Pin, Prefix};
use super::*;
use crate::types::{IncomingId, Loss};

impl World {
    fn preserve(&mut self, ino: u64, id: u64, content: u8) {
        self.push(Op::Preserve { key: key(ino), kept: Kept::Copy(IncomingId(id)) });
        self.store(id, content);
    }

    fn store(&mut self, id: u64, content: u8) {
        let content = Some((hash(content), 10));
        self.push(Op::Stored { id: IncomingId(id), content, original: false, prefix: None });
    }

    fn history(&self, name: &str) -> FileHistory {
        let file = self.id(name).unwrap();
        self.catalog.read(|r: &Reader| r.history(file)).unwrap().unwrap()
    }

    fn pin(&mut self, name: &str, number: u32, pin: Pin) {
        let version = (self.id(name).unwrap(), number);
        self.push(Op::Pin { version, pin });
    }

    fn places(&self, name: &str) -> Vec<Source> {
        self.history(name).versions.iter().map(|version| version.place).collect()
    }
}

#[test]
fn a_history_tells_when_versions_ended_and_where_their_bytes_are() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.preserve(10, 1, 1);
    w.seal(10, 2);
    // The second is what the third begins with.
    w.sessions += 1;
    let (inode, session) = (w.inode(10, Kind::File), SessionId(w.sessions));
    let prefix = Some(Prefix { size: 10, hash: hash(2) });
    w.push(Op::Seal { inode, session, digest: Some(hash(3)), prefix, origin: Origin::Write });
    let history = w.history("f");
    assert_eq!(history.ended, None);
    let [first, second, third] = history.versions[..] else { panic!("{history:?}") };
    assert_eq!((first.until_ns, second.until_ns), (Some(second.time_ns), Some(third.time_ns)));
    assert_eq!(third.until_ns, None);
    assert_eq!(w.places("f"), [Source::Object(hash(1)), Source::Head, Source::Head]);
    let files = |content| w.catalog.read(|r: &Reader| r.files_of(hash(content))).unwrap();
    assert_eq!((files(1), files(2)), (vec![history.file], vec![]));
    let file = w.id("f").unwrap();
    w.preserve(10, 2, 3);
    w.unlink("f", 10);
    let history = w.catalog.read(|r: &Reader| r.history(file)).unwrap().unwrap();
    assert_eq!(history.versions[2].until_ns, Some(history.ended.unwrap().1));
    assert_eq!(history.versions[1].place, Source::Object(hash(3)));
    w.push(Op::Dropped { hash: hash(3) });
    let history = w.catalog.read(|r: &Reader| r.history(file)).unwrap().unwrap();
    let places: Vec<_> = history.versions.iter().map(|version| version.place).collect();
    let gone = Source::Lost(Loss::Pruned);
    assert_eq!(places, [Source::Object(hash(1)), gone, gone]);
    w.push(Op::Adopted { hash: hash(3), size: 10 });
    let history = w.catalog.read(|r: &Reader| r.history(file)).unwrap().unwrap();
    assert_eq!(history.versions[2].place, Source::Object(hash(3)));
}

/// A crash came after the object was in its place, and before the catalog was told.
#[test]
fn what_was_being_taken_in_is_kept() {
    let mut w = World::new();
    for (name, ino) in [("kept", 10), ("lost", 11)] {
        w.write(name, ino, u8::try_from(ino).unwrap());
        w.push(Op::Preserve { key: key(ino), kept: Kept::Copy(IncomingId(ino)) });
        w.seal(ino, 99);
    }
    w.push(Op::Adopted { hash: hash(10), size: 10 });
    for id in [10, 11] {
        let (id, prefix) = (IncomingId(id), None);
        w.push(Op::Stored { id, content: None, original: false, prefix });
    }
    assert_eq!(w.places("kept"), [Source::Object(hash(10)), Source::Head]);
    assert_eq!(w.places("lost"), [Source::Lost(Loss::Gone), Source::Head]);
    w.push(Op::Dropped { hash: hash(10) });
    assert_eq!(w.places("kept")[0], Source::Lost(Loss::Pruned));
}

#[test]
fn what_is_lost_again_is_as_young_as_that_loss() {
    let mut w = World::new();
    for (n, name) in ["a", "b"].into_iter().enumerate() {
        let n = n as u64 + 1;
        w.write(name, 10 + n, u8::try_from(n).unwrap());
        w.preserve(10 + n, n, u8::try_from(n).unwrap());
        w.seal(10 + n, 9);
    }
    let order = |w: &World| {
        let page = w.catalog.read(|r: &Reader| r.contents_by_age(None, 9)).unwrap();
        page.iter().map(|content| content.hash).collect::<Vec<_>>()
    };
    assert_eq!(order(&w), [hash(1), hash(2)]);
    w.store(7, 1);
    assert_eq!(order(&w), [hash(2), hash(1)]);
    let rest = w.catalog.read(|r: &Reader| {
        let page = r.contents_by_age(None, 1)?;
        r.contents_by_age(page.first(), 9)
    });
    assert_eq!(rest.unwrap()[0].hash, hash(1));
}

#[test]
fn marks_stay_with_the_bytes_of_a_version_that_is_taken_back() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.sessions += 1;
    w.seal_as(w.sessions, 10, Some(hash(2)));
    w.pin("f", 2, Pin::Set);
    let version = (w.id("f").unwrap(), 2);
    w.push(Op::Note { version, text: "mine".into() });
    w.seal_as(w.sessions, 10, Some(hash(1)));
    let versions = w.catalog.read(|r| r.versions(version.0)).unwrap();
    assert_eq!((versions.len(), versions[0].pinned), (1, true));
    assert_eq!(versions[0].note.as_deref(), Some("mine"));
    w.pin("f", 1, Pin::Cleared);
    assert_eq!(w.catalog.read(|r: &Reader| r.pins()).unwrap(), []);
}

/// A content that is moved to and fro between two names is not looked for in a circle.
#[test]
fn where_a_content_goes_on_is_no_circle() {
    let mut w = World::new();
    w.write("a", 10, 1);
    w.write("b", 11, 1);
    w.rename("b", "a", 11, Some(10));
    w.write("b", 12, 1);
    w.rename("a", "b", 11, Some(12));
    w.preserve(11, 1, 1);
    w.seal(11, 2);
    w.push(Op::Dropped { hash: hash(1) });
    assert_eq!(w.places("b"), [Source::Lost(Loss::Pruned), Source::Head]);
    let histories = w.catalog.read(|r: &Reader| {
        let mut found = Vec::new();
        r.histories(|history| {
            found.push(history);
            Ok::<_, CatalogError>(())
        })?;
        Ok::<_, CatalogError>(found)
    });
    let histories = histories.unwrap();
    assert_eq!(histories.len(), 2);
    assert_eq!(histories[0].versions[0].place, Source::Lost(Loss::Pruned));
}

#[test]
fn the_last_prune_is_remembered() {
    let w = World::new();
    let last = |w: &World| w.catalog.read(|r: &Reader| r.last_prune()).unwrap();
    assert_eq!(last(&w), None);
    let mut w = w;
    for error in [Some("too much".to_owned()), None] {
        let outcome = LastPrune { time_ns: 5, dropped: 3, freed_bytes: 4, error };
        w.push(Op::Pruned { outcome: outcome.clone() });
        assert_eq!(last(&w), Some(outcome));
    }
}

#[test]
fn a_content_is_not_looked_for_in_a_number_that_was_given_again() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    w.create_in(ROOT, "new", 11, Kind::File);
    w.seal_as(50, 11, None);
    let (doc, new) = (w.id("doc").unwrap(), w.id("new").unwrap());
    w.rename("new", "doc", 11, Some(10));
    // It has the bytes that were there before, so what it made of the document is taken back.
    let inode = w.inode(11, Kind::File);
    w.push(Op::Digest { session: SessionId(50), read: Some((inode, hash(1))), prefix: None });
    w.push(Op::End { session: SessionId(50), left: Some(key(11)) });
    w.seal(11, 5);
    assert_eq!(w.log("doc"), [1, 5]);
    let bytes_of = |key| w.catalog.read(|r| r.bytes_of(key)).unwrap().unwrap();
    let (at, _) = bytes_of((new, 1));
    assert_eq!(at, (doc, 1), "not the second version, which is another content by now");
    let versions = w.catalog.read(|r| r.versions(new)).unwrap();
    let (first, last) = (bytes_of((doc, 1)).1, versions[0].source);
    assert_eq!(
        matches!(first, Source::Lost(_)),
        matches!(last, Source::Lost(_)),
        "{first:?} {last:?}"
    );
}
