//! The rules of the temporal tree, tried with events as the filesystem sends them.

mod kept;
mod lineage;
mod names;
mod restored;
mod retained;
mod snapshots;
mod views;

use std::sync::Arc;

use super::event::{Born, Event, Found, Op, Openness, Place, Replaced};
use super::tree::Descend;
use super::*;
use crate::types::{
    Attr, ContentHash, FileId, IncomingId, Inode, InodeKey, Kind, Loss, Origin, SessionId,
    Timestamp, Writer,
};

/// A catalog, and a clock that moves by a second with each event.
struct World {
    dir: tempfile::TempDir,
    catalog: Catalog,
    now_ns: i64,
    sessions: u64,
}

const ROOT: InodeKey = InodeKey { ino: 2, generation: 1 };

fn key(ino: u64) -> InodeKey {
    InodeKey { ino, generation: 7 }
}

fn hash(n: u8) -> ContentHash {
    ContentHash::new([n; 32])
}

fn attr(ino: u64, kind: Kind, time: i64) -> Attr {
    let time = Timestamp { secs: time, nanos: 5 };
    Attr {
        ino,
        kind,
        mode: 0o644,
        nlink: 1,
        uid: 1,
        gid: 2,
        rdev: 0,
        size: 10,
        blocks: 8,
        blksize: 4096,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

/// A root that some catalog begins with.
pub(super) fn root_inode() -> Inode {
    Inode { key: ROOT, attr: attr(ROOT.ino, Kind::Dir, 1) }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let mut world = Self { dir, catalog, now_ns: 1_000_000_000_000, sessions: 0 };
        world.open_root();
        world
    }

    fn open_root(&mut self) {
        self.push(Op::Root { inode: root_inode(), incarnation: 1 });
    }

    fn push(&mut self, op: Op) {
        self.now_ns += 1_000_000_000;
        let writer = Writer { uid: 1, gid: 2, pid: 3, comm: b"test".as_slice().into() };
        self.catalog.push([Event { time_ns: self.now_ns, writer: Some(Arc::new(writer)), op }]);
    }

    fn restart(mut self) -> Self {
        self.catalog.close(self.now_ns);
        self.catalog = Catalog::open(self.dir.path()).unwrap();
        self.open_root();
        self
    }

    /// Goes on with what a crash would have left.
    fn crash(mut self) -> Self {
        self.catalog.sync().unwrap();
        let left = tempfile::tempdir().unwrap();
        std::fs::copy(self.dir.path().join(FILE_NAME), left.path().join(FILE_NAME)).unwrap();
        self.catalog = Catalog::open(left.path()).unwrap();
        self.dir = left;
        self.open_root();
        self
    }

    fn inode(&self, ino: u64, kind: Kind) -> Inode {
        Inode { key: key(ino), attr: attr(ino, kind, self.now_ns / 1_000_000_000) }
    }

    fn create_in(&mut self, parent: InodeKey, name: &str, ino: u64, kind: Kind) {
        let at = Place { parent, name: name.as_bytes().into() };
        let inode = self.inode(ino, kind);
        self.push(Op::Create { at, inode, born: Born::Bare });
    }

    fn seal(&mut self, ino: u64, content: u8) {
        self.sessions += 1;
        self.seal_as(self.sessions, ino, Some(hash(content)));
        self.push(Op::End { session: SessionId(self.sessions), left: Some(key(ino)) });
    }

    fn seal_as(&mut self, session: u64, ino: u64, digest: Option<ContentHash>) {
        let inode = self.inode(ino, Kind::File);
        self.push(Op::Seal {
            inode,
            session: SessionId(session),
            digest,
            prefix: None,
            origin: Origin::Write,
        });
    }

    /// A new file with content.
    fn write(&mut self, name: &str, ino: u64, content: u8) {
        self.create_in(ROOT, name, ino, Kind::File);
        self.seal(ino, content);
    }

    fn rename(&mut self, from: &str, to: &str, ino: u64, replaced: Option<u64>) {
        let place = |name: &str| Place { parent: ROOT, name: name.as_bytes().into() };
        let replaced = replaced.map(|ino| Replaced {
            key: key(ino),
            remaining: None,
            openness: Openness::Closed,
        });
        let inode = self.inode(ino, Kind::File);
        self.push(Op::Rename { from: place(from), to: place(to), inode, replaced });
    }

    fn unlink(&mut self, name: &str, ino: u64) {
        let at = Place { parent: ROOT, name: name.as_bytes().into() };
        let openness = Openness::Closed;
        self.push(Op::Unlink { at, key: key(ino), remaining: None, openness });
    }

    fn observe(&mut self, parent: InodeKey, name: &str, inode: Inode, found: Found) {
        let at = Place { parent, name: name.as_bytes().into() };
        self.push(Op::Observe { at, inode, found, origin: Origin::External });
    }

    /// The digests that a path has shown, oldest first, by their first byte; 0 for unknown.
    fn log(&self, path: &str) -> Vec<u8> {
        let versions =
            self.catalog.read::<_, CatalogError>(|reader| reader.lineage(path.as_bytes()));
        let digest = |v: &VersionInfo| v.hash.map_or(0, |hash| hash.as_bytes()[0]);
        versions.unwrap().iter().map(|(_, version)| digest(version)).collect()
    }

    fn id(&self, path: &str) -> Option<FileId> {
        self.catalog.read(|reader| reader.resolve(path.as_bytes(), When::Now)).unwrap()
    }

    fn tree(&self, when: When) -> Vec<(String, Option<u8>)> {
        let mut tree = Vec::new();
        self.catalog
            .read(|reader| {
                reader.walk::<CatalogError>(FileId::ROOT, when, |path, node| {
                    let hash = node.hash.map(|hash| hash.as_bytes()[0]);
                    tree.push((String::from_utf8_lossy(path).into_owned(), hash));
                    Ok(Descend::Yes)
                })
            })
            .unwrap();
        tree
    }

    fn seq(&self) -> Seq {
        self.catalog.read(|reader| reader.seq()).unwrap()
    }
}

#[test]
fn an_atomic_save_is_the_version_that_was_sealed() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.write("tmp", 11, 2);
    // Somebody has opened the new file again by now, and cut it off.
    let place = |name: &str| Place { parent: ROOT, name: name.as_bytes().into() };
    let mut inode = w.inode(11, Kind::File);
    inode.attr.size = 0;
    let replaced = Some(Replaced { key: key(10), remaining: None, openness: Openness::Closed });
    w.push(Op::Rename { from: place("tmp"), to: place("f"), inode, replaced });
    let sizes = w.catalog.read::<_, CatalogError>(|reader| {
        let located = reader.locate(b"f")?.expect("it is there");
        Ok(reader.versions(located.file)?.iter().map(|v| v.size).collect::<Vec<_>>())
    });
    let sealed = w.inode(11, Kind::File).attr.size;
    assert_ne!(sealed, 0);
    assert_eq!(sizes.unwrap(), [sealed, sealed]);
}

#[test]
fn an_atomic_save_continues_the_file() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    let id = w.id("doc");
    for n in 2..=4 {
        w.write("doc.tmp", 10 + u64::from(n), n);
        w.rename("doc.tmp", "doc", 10 + u64::from(n), Some(9 + u64::from(n)));
    }
    assert_eq!(w.log("doc"), [1, 2, 3, 4]);
    assert_eq!(w.id("doc"), id, "the file is still the same");
    assert_eq!(w.id("doc.tmp"), None);
}

#[test]
fn a_save_that_is_renamed_before_it_is_closed_counts_too() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    w.create_in(ROOT, "doc.tmp", 11, Kind::File);
    w.rename("doc.tmp", "doc", 11, Some(10));
    w.seal(11, 2);
    assert_eq!(w.log("doc"), [1, 2]);
}

#[test]
fn a_session_goes_on_with_the_file_it_was_moved_over() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    w.create_in(ROOT, "doc.tmp", 11, Kind::File);
    w.seal_as(50, 11, Some(hash(2)));
    w.rename("doc.tmp", "doc", 11, Some(10));
    w.seal_as(50, 11, Some(hash(3)));
    assert_eq!(w.log("doc"), [1, 3], "one session makes one version");
}

#[test]
fn a_late_digest_is_not_of_what_a_session_has_written_over() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    w.create_in(ROOT, "doc.tmp", 11, Kind::File);
    let source = w.id("doc.tmp").unwrap();
    w.seal_as(50, 11, None);
    w.rename("doc.tmp", "doc", 11, Some(10));
    w.seal_as(50, 11, None);
    let inode = w.inode(11, Kind::File);
    w.push(Op::Digest { session: SessionId(50), read: Some((inode, hash(3))), prefix: None });
    assert_eq!(w.log("doc"), [1, 3]);
    let older = w.catalog.read(|r| r.versions(source)).unwrap();
    assert_eq!(older[0].hash, None, "nobody has read what was there before");
    assert_eq!(older[0].source, Source::Lost(Loss::Overwritten));
    // The same for what one session wrote before and after another.
    w.write("f", 12, 4);
    w.seal_as(60, 12, None);
    w.seal(12, 5);
    w.seal_as(60, 12, None);
    let inode = w.inode(12, Kind::File);
    w.push(Op::Digest { session: SessionId(60), read: Some((inode, hash(6))), prefix: None });
    assert_eq!(w.log("f"), [4, 0, 5, 6]);
}

#[test]
fn a_backup_save_loses_nothing() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    for n in 2..=3 {
        w.rename("doc", "doc~", 8 + u64::from(n), None);
        w.write("doc", 9 + u64::from(n), n);
        w.unlink("doc~", 8 + u64::from(n));
    }
    assert_eq!(w.log("doc"), [1, 2, 3]);
}

#[test]
fn a_name_that_was_deleted_is_continued() {
    let mut w = World::new();
    w.write("doc", 10, 1);
    let id = w.id("doc");
    w.unlink("doc", 10);
    assert_eq!(w.id("doc"), None);
    assert_eq!(w.log("doc"), [1], "history outlives the name");
    w.write("doc", 11, 2);
    assert_eq!(w.id("doc"), id);
    assert_eq!(w.log("doc"), [1, 2]);
}

#[test]
fn a_name_whose_file_lives_elsewhere_begins_a_new_file() {
    let mut w = World::new();
    w.write("a", 10, 1);
    let id = w.id("a");
    w.rename("a", "b", 10, None);
    w.write("a", 11, 2);
    assert_eq!(w.id("b"), id);
    assert_ne!(w.id("a"), id);
    assert_eq!(w.log("a"), [1, 2], "the path has shown both");
    assert_eq!(w.log("b"), [1], "with what it arrived with");
}

#[test]
fn a_first_occupant_brings_its_older_names_along() {
    let mut w = World::new();
    w.write("draft", 10, 1);
    w.seal(10, 2);
    w.rename("draft", "final", 10, None);
    w.seal(10, 3);
    assert_eq!(w.log("final"), [1, 2, 3]);
    assert_eq!(w.log("draft"), [1, 2]);
}

#[test]
fn a_hard_linked_target_gives_its_name_away() {
    let mut w = World::new();
    w.write("a", 10, 1);
    let at = Place { parent: ROOT, name: b"other".as_slice().into() };
    let mut inode = w.inode(10, Kind::File);
    inode.attr.nlink = 2;
    w.push(Op::Link { at, inode });
    let old = w.id("a");
    w.write("new", 11, 2);
    let new = w.id("new");
    w.rename("new", "a", 11, Some(10));
    assert_eq!(w.id("a"), new);
    assert_eq!(w.id("other"), old);
    assert_eq!(w.log("a"), [1, 2]);
}

#[test]
fn a_b_a_is_three_versions_and_a_a_is_one() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.seal(10, 1);
    w.seal(10, 2);
    w.seal(10, 1);
    assert_eq!(w.log("f"), [1, 2, 1]);
}

#[test]
fn one_session_makes_one_version() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.seal_as(50, 10, Some(hash(2)));
    w.seal_as(50, 10, Some(hash(3)));
    assert_eq!(w.log("f"), [1, 3]);
    w.seal_as(50, 10, Some(hash(1)));
    assert_eq!(w.log("f"), [1], "it ended with the bytes it began with");
}

#[test]
fn a_late_digest_completes_its_version_or_takes_it_back() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.seal_as(50, 10, None);
    assert_eq!(w.log("f"), [1, 0]);
    assert_eq!(w.tree(When::Now), [("f".into(), None)], "no digest is better than a wrong one");
    let inode = w.inode(10, Kind::File);
    w.push(Op::End { session: SessionId(50), left: Some(key(10)) });
    w.push(Op::Digest { session: SessionId(50), read: Some((inode, hash(2))), prefix: None });
    assert_eq!(w.log("f"), [1, 2]);
    w.seal_as(51, 10, None);
    let inode = w.inode(10, Kind::File);
    w.push(Op::Digest { session: SessionId(51), read: Some((inode, hash(2))), prefix: None });
    assert_eq!(w.log("f"), [1, 2], "the bytes were those of the head");
}

#[test]
fn a_reused_inode_number_is_another_file() {
    let mut w = World::new();
    w.write("a", 10, 1);
    // The next file has the number before the catalog has heard that it is free.
    let at = Place { parent: ROOT, name: b"b".as_slice().into() };
    let mut inode = w.inode(10, Kind::File);
    inode.key.generation += 1;
    w.push(Op::Create { at, inode, born: Born::Empty });
    w.unlink("a", 10);
    assert_eq!(w.id("a"), None);
    assert!(w.id("b").is_some());
    assert_eq!(w.log("a"), [1]);
}

#[test]
fn what_is_written_after_the_last_unlink_is_the_files_end() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let at = Place { parent: ROOT, name: b"f".as_slice().into() };
    let openness = Openness::Open;
    w.push(Op::Unlink { at, key: key(10), remaining: None, openness });
    w.seal(10, 2);
    assert_eq!(w.log("f"), [1, 2]);
    assert!(!w.catalog.take_reconcile_wish(), "nothing unknown took part");
}

#[test]
fn an_exchange_swaps_two_names() {
    let mut w = World::new();
    w.write("a", 10, 1);
    w.write("b", 11, 2);
    let (a, b) = (w.id("a"), w.id("b"));
    let place = |name: &str| Place { parent: ROOT, name: name.as_bytes().into() };
    let (now_a, now_b) = (w.inode(11, Kind::File), w.inode(10, Kind::File));
    w.push(Op::Exchange { a: (place("a"), now_a), b: (place("b"), now_b) });
    assert_eq!((w.id("a"), w.id("b")), (b, a));
    assert_eq!(w.log("a"), [1, 2]);
}

#[test]
fn the_tree_can_be_seen_as_of_any_change() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    w.create_in(key(20), "f", 10, Kind::File);
    w.seal(10, 1);
    let first = w.seq();
    let first_time = w.now_ns;
    w.seal(10, 2);
    w.rename("dir", "moved", 20, None);
    let second = w.seq();
    w.unlink("moved", 20);
    assert_eq!(w.tree(When::Now), []);
    assert_eq!(w.tree(When::At(second)), [("moved".into(), None), ("moved/f".into(), Some(2))]);
    assert_eq!(w.tree(When::At(first)), [("dir".into(), None), ("dir/f".into(), Some(1))]);
    let seq_at = |ns| w.catalog.read(|reader| reader.seq_at(ns)).unwrap();
    assert_eq!(seq_at(first_time), Some(first));
    assert_eq!(seq_at(first_time + 999_999_999), Some(first));
    assert_eq!(seq_at(0), None);
    assert_eq!(seq_at(i64::MAX), Some(w.seq()));
}

#[test]
fn a_clock_that_was_set_back_does_not_hide_anything() {
    let mut w = World::new();
    w.write("a", 10, 1);
    let before = w.seq();
    let old_now = w.now_ns;
    w.now_ns -= 3_600_000_000_000;
    w.write("b", 11, 2);
    let seq_at = |ns| w.catalog.read(|reader| reader.seq_at(ns)).unwrap();
    assert_eq!(seq_at(w.now_ns), Some(w.seq()));
    assert_eq!(seq_at(old_now), Some(w.seq()), "the later history of a time counts");
    assert!(seq_at(w.now_ns - 3_000_000_000) < Some(before));
}

#[test]
fn renaming_a_directory_touches_two_rows() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    for n in 0..1_000 {
        w.create_in(key(20), &format!("f{n}"), 100 + n, Kind::File);
    }
    let before = w.seq();
    w.rename("dir", "moved", 20, None);
    assert_eq!(w.seq().0, before.0 + 1);
    assert!(w.id("moved/f999").is_some());
    let path = w.catalog.read(|r| r.path_of(w.id("moved/f7").unwrap(), before)).unwrap();
    assert_eq!(path.unwrap(), b"dir/f7");
}

#[test]
fn observing_what_is_known_changes_nothing() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let inode = Inode { key: key(10), attr: attr(10, Kind::File, 1_003) };
    w.observe(ROOT, "f", inode, Found::Content(hash(1), None));
    let seq = w.seq();
    for _ in 0..2 {
        w.observe(ROOT, "f", inode, Found::Content(hash(1), None));
        w.observe(ROOT, "f", inode, Found::Unread);
    }
    assert_eq!(w.seq(), seq);
    assert_eq!(w.log("f"), [1]);
}

#[test]
fn a_change_around_the_mount_is_a_version_of_its_own() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let inode = w.inode(10, Kind::File);
    w.observe(ROOT, "f", inode, Found::Content(hash(2), None));
    assert_eq!(w.log("f"), [1, 2]);
    let id = w.id("f").unwrap();
    let versions = w.catalog.read(|r| r.versions(id)).unwrap();
    assert_eq!(
        versions.iter().map(|v| v.origin).collect::<Vec<_>>(),
        [Origin::Write, Origin::External]
    );
}

#[test]
fn a_move_around_the_mount_is_recognised_by_the_inode() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    w.create_in(key(20), "f", 10, Kind::File);
    w.seal(10, 1);
    let id = w.id("dir/f");
    let inode = w.inode(20, Kind::Dir);
    w.observe(ROOT, "moved", inode, Found::Unread);
    w.push(Op::WalkDone);
    assert_eq!(w.id("moved/f"), id);
    assert_eq!(w.id("dir"), None);
}

#[test]
fn a_name_taken_by_another_directory_waits_for_the_end_of_the_walk() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    w.create_in(key(20), "f", 10, Kind::File);
    let id = w.id("dir/f");
    // mv dir elsewhere; mkdir dir
    let (new, old) = (w.inode(21, Kind::Dir), w.inode(20, Kind::Dir));
    w.observe(ROOT, "dir", new, Found::Unread);
    w.observe(ROOT, "elsewhere", old, Found::Unread);
    w.push(Op::WalkDone);
    assert_eq!(w.id("elsewhere/f"), id);
    assert_eq!(w.id("dir/f"), None);
    // rm -r elsewhere; mkdir elsewhere
    let newer = w.inode(22, Kind::Dir);
    w.observe(ROOT, "elsewhere", newer, Found::Unread);
    w.push(Op::WalkDone);
    assert_eq!(w.tree(When::Now), [("dir".into(), None), ("elsewhere".into(), None)]);
}

#[test]
fn what_lost_its_name_before_a_crash_ends_with_the_next_walk() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let id = w.id("f").unwrap();
    // Around the mount, with another link that the catalog has not heard of.
    w.create_in(ROOT, "f", 11, Kind::File);
    let mut w = w.crash();
    w.push(Op::WalkDone);
    let versions = w.catalog.read(|r| r.versions(id)).unwrap();
    assert_eq!(versions[0].source, Source::Lost(Loss::Unseen), "it is no head any more");
}

#[test]
fn what_is_gone_takes_everything_below_with_it() {
    let mut w = World::new();
    w.create_in(ROOT, "dir", 20, Kind::Dir);
    w.create_in(key(20), "f", 10, Kind::File);
    w.seal(10, 1);
    let at = Place { parent: ROOT, name: b"dir".as_slice().into() };
    w.push(Op::Gone { at: at.clone(), key: key(99) });
    assert!(w.id("dir/f").is_some(), "another inode has the name by now");
    w.push(Op::Gone { at, key: key(20) });
    assert_eq!(w.tree(When::Now), []);
    assert_eq!(w.log("dir/f"), [1]);
}

#[test]
fn events_about_the_unknown_ask_for_a_walk() {
    let mut w = World::new();
    w.catalog.barrier();
    assert!(!w.catalog.take_reconcile_wish());
    w.seal(77, 1);
    w.catalog.barrier();
    assert!(w.catalog.take_reconcile_wish());
}

#[test]
fn the_catalog_survives_a_restart() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let seq = w.seq();
    let mut w = w.restart();
    assert_eq!(w.catalog.past().trusted_until_ns, w.now_ns - 1_000_000_000);
    w.write("g", 11, 2);
    assert!(w.seq() > seq, "sequence numbers are never used again");
    assert_eq!(w.log("f"), [1]);
}

#[test]
fn a_late_digest_that_a_crash_cut_off_is_filled_in_by_the_walk() {
    let mut w = World::new();
    w.write("f", 10, 1);
    w.seal_as(50, 10, None);
    let sealed = Inode { key: key(10), attr: attr(10, Kind::File, w.now_ns / 1_000_000_000 - 1) };
    let mut w = w.restart();
    assert_eq!(w.catalog.read(|r| r.unsettled()).unwrap(), [b"f".to_vec()]);
    w.observe(ROOT, "f", sealed, Found::Content(hash(2), None));
    assert_eq!(w.log("f"), [1, 2]);
    let versions = w.catalog.read(|r| r.versions(w.id("f").unwrap())).unwrap();
    assert_eq!(versions[1].origin, Origin::Write, "it was written through the mount");
}

#[test]
#[expect(clippy::disallowed_types, reason = "somebody else who has the file open")]
fn who_holds_the_database_for_a_moment_is_waited_for() {
    let mut w = World::new();
    w.write("f", 10, 1);
    let other = rusqlite::Connection::open(w.dir.path().join(FILE_NAME)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        other.execute_batch("ROLLBACK").unwrap();
    });
    w.write("g", 11, 2);
    w.catalog.barrier();
    assert_eq!(w.catalog.status().degraded, None);
    release.join().unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let w = World::new();
    let path = w.dir.path().join(FILE_NAME);
    w.catalog.close(w.now_ns);
    let newer = || {
        #[allow(clippy::disallowed_types, reason = "the test makes a file of the future")]
        let db = rusqlite::Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 1_000).unwrap();
    };
    newer();
    let before = std::fs::read(&path).unwrap();
    let error = Catalog::open(w.dir.path()).unwrap_err();
    assert!(matches!(error, CatalogError::Newer { found: 1_000, .. }), "{error}");
    assert!(error.to_string().contains("use the Horace version that wrote it"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn something_else_than_a_catalog_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    std::fs::write(&path, "this is no database, and it is long enough to be looked at".repeat(99))
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Catalog::open(dir.path()), Err(CatalogError::Open { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn changes_name_the_paths_before_and_after() {
    let mut w = World::new();
    w.write("a", 10, 1);
    w.rename("a", "b", 10, None);
    w.unlink("b", 10);
    let changes = w.catalog.read(|r| r.changes(Seq(1), 100)).unwrap();
    let text = |path: &Option<Vec<u8>>| {
        path.as_ref().map(|p| String::from_utf8_lossy(p).into_owned()).unwrap_or_default()
    };
    let rows: Vec<_> = changes.iter().map(|c| (c.op, text(&c.from_path), text(&c.path))).collect();
    assert_eq!(
        rows,
        [
            (ChangeOp::Create, String::new(), "a".into()),
            (ChangeOp::Write, String::new(), "a".into()),
            (ChangeOp::Rename, "a".into(), "b".into()),
            (ChangeOp::Unlink, String::new(), "b".into()),
        ]
    );
    assert_eq!(changes[1].writer.as_ref().unwrap().comm.as_ref(), b"test");
    assert_eq!(changes[1].version, Some((1, 10, Some(hash(1)))));
}

#[test]
fn a_directory_in_the_place_of_one_that_is_nowhere_else_goes_on_with_its_history() {
    let mut world = World::new();
    world.create_in(ROOT, "d", 20, Kind::Dir);
    world.create_in(key(20), "f", 21, Kind::File);
    world.seal(21, 1);
    let ids = ["d", "d/f"].map(|path| world.id(path));
    let restored = world.inode(30, Kind::Dir);
    world.observe(ROOT, "d", restored, Found::Heir);
    let file = world.inode(31, Kind::File);
    world.observe(key(30), "f", file, Found::Content(hash(2), None));
    assert_eq!(["d", "d/f"].map(|path| world.id(path)), ids);
    assert_eq!(world.log("d/f"), [1, 2]);
    // What may still turn up elsewhere only loses its name.
    let other = world.inode(40, Kind::Dir);
    world.observe(ROOT, "d", other, Found::Unread);
    world.observe(ROOT, "aside", restored, Found::Unread);
    assert_eq!(["aside", "aside/f"].map(|path| world.id(path)), ids);
    assert_ne!(world.id("d"), ids[0]);
}
