//! What becomes of the content of versions, from its preservation to its object.

use rstest::rstest;

use super::super::event::{Kept, Openness, Place};
use super::*;

#[test]
fn what_a_crash_came_before_is_not_replaced() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let keep = |id| Op::Preserve { key: key(10), kept: Kept::Copy(IncomingId(id)) };
    let stored = |id| {
        let (id, content) = (IncomingId(id), Some((hash(1), 10)));
        Op::Stored { id, content, original: false, prefix: None }
    };
    w.push(keep(1));
    w.push(stored(1));
    let source = |w: &World| w.catalog.read(|r| r.source(w.id("f").unwrap(), 1)).unwrap().unwrap();
    assert_eq!(source(&w), Source::Object(hash(1)), "it is about to be replaced");
    let mut w = w.crash();
    assert_eq!(source(&w), Source::Head);
    w.push(keep(2));
    w.push(stored(2));
    w.push(Op::Dropped { hash: hash(1) });
    assert_eq!(source(&w), Source::Head, "the file is still there");
}

/// Somebody is about to change a file in place, but a session that has it open comes first.
#[rstest]
fn what_was_kept_of_a_version_is_not_what_its_session_makes_of_it_later(
    #[values(false, true)] waits: bool,
) {
    let mut w = World::new();
    w.create_in(ROOT, "f", 10, Kind::File);
    w.seal_as(50, 10, Some(hash(1)));
    let keep = |kept| Op::Preserve { key: key(10), kept };
    let stored = |id, n, original| {
        let (id, content) = (IncomingId(id), Some((hash(n), 10)));
        Op::Stored { id, content, original, prefix: None }
    };
    w.push(keep(Kept::Copy(IncomingId(1))));
    if !waits {
        w.push(stored(1, 1, false));
    }
    w.seal_as(50, 10, None);
    let f = w.id("f").unwrap();
    let source = |w: &World, n| w.catalog.read(|r| r.source(f, n)).unwrap().unwrap();
    // What it is now goes, and what it was comes late.
    w.push(keep(Kept::Inode(IncomingId(2))));
    w.unlink("f", 10);
    assert_eq!(source(&w, 1), Source::Incoming(IncomingId(2)));
    w.push(stored(2, 2, true));
    w.push(stored(1, 1, false));
    assert_eq!(w.log("f"), [2]);
    assert_eq!(source(&w, 1), Source::Object(hash(2)));
    // The same for what is not kept: it says why.
    w.write("g", 11, 3);
    w.seal_as(51, 11, Some(hash(4)));
    w.push(Op::Preserve { key: key(11), kept: Kept::Copy(IncomingId(3)) });
    w.push(stored(3, 4, false));
    w.seal_as(51, 11, Some(hash(5)));
    w.push(Op::Preserve { key: key(11), kept: Kept::Lost(Loss::TooLarge) });
    w.seal(11, 6);
    let g = w.id("g").unwrap();
    let source = w.catalog.read(|r| r.source(g, 2)).unwrap();
    assert_eq!((w.log("g"), source), (vec![3, 5, 6], Some(Source::Lost(Loss::TooLarge))));
}

/// A copy was made of a version, and then its file is deleted while a session goes on writing to it.
#[rstest]
fn a_deleted_inode_has_what_its_session_makes_of_it(#[values(false, true)] waits: bool) {
    let mut w = World::new();
    let stored = |id, n| {
        let (id, content) = (IncomingId(id), Some((hash(n), 10)));
        Op::Stored { id, content, original: true, prefix: None }
    };
    let mut files = Vec::new();
    for (name, ino) in [("same", 10), ("another", 11), ("crashed", 12), ("back", 13)] {
        let id = 2 * ino;
        w.create_in(ROOT, name, ino, Kind::File);
        w.seal_as(ino, ino, Some(hash(1)));
        files.push(w.id(name).unwrap());
        w.push(Op::Preserve { key: key(ino), kept: Kept::Copy(IncomingId(id)) });
        if !waits {
            w.push(stored(id, 1));
        }
        w.push(Op::Preserve { key: key(ino), kept: Kept::Inode(IncomingId(id + 1)) });
        let at = Place { parent: ROOT, name: name.as_bytes().into() };
        let openness = Openness::Open;
        w.push(Op::Unlink { at, key: key(ino), remaining: None, openness });
    }
    let sources = |w: &World, n: usize| {
        let versions = w.catalog.read(|r| r.versions(files[n])).unwrap();
        versions.into_iter().map(|version| version.source).collect::<Vec<_>>()
    };
    let object = |n| Source::Object(hash(n));
    let copy = |id| Source::Incoming(IncomingId(id));
    // The session that made it goes on with its version.
    w.seal_as(10, 10, None);
    assert_eq!(sources(&w, 0), [copy(21)]);
    w.push(stored(21, 2));
    assert_eq!(sources(&w, 0), [object(2)]);
    // Another one makes the next.
    w.seal_as(99, 11, None);
    assert_eq!(sources(&w, 1), [if waits { copy(22) } else { object(1) }, copy(23)]);
    w.push(stored(23, 3));
    assert_eq!(sources(&w, 1)[1], object(3));
    // What the session did last was lost in a crash.
    w.seal_as(12, 12, Some(hash(4)));
    w.push(stored(25, 5));
    assert_eq!(sources(&w, 2), [Source::Lost(Loss::Overwritten)]);
    // It is as it was again.
    w.seal_as(98, 13, Some(hash(6)));
    w.seal_as(98, 13, Some(hash(1)));
    w.push(stored(27, 1));
    w.push(Op::Dropped { hash: hash(1) });
    let dropped = if waits { copy(26) } else { Source::Lost(Loss::Pruned) };
    assert_eq!(sources(&w, 3), [dropped]);
}
