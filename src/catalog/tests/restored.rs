//! What is needed to bring things back as they were: extended attributes, targets, restored versions.

use super::*;
use crate::types::Xattrs;

fn xattrs(value: &str) -> Xattrs {
    Xattrs::new(vec![(b"user.x".as_slice().into(), value.as_bytes().into())])
}

impl World {
    fn set_xattr(&mut self, ino: u64, before: &Xattrs) {
        let inode = self.inode(ino, Kind::File);
        self.push(Op::Attr { inode, before: Some(Box::new(before.clone())) });
    }

    fn xattrs_at(&self, name: &str, at: Seq) -> XattrsAt {
        self.catalog
            .read::<_, CatalogError>(|reader| {
                let file = reader.child(FileId::ROOT, name.as_bytes(), When::At(at))?.unwrap();
                reader.xattrs_at(file, at)
            })
            .unwrap()
    }

    fn move_in(&mut self, name: &str, ino: u64, content: u8) {
        let at = Place { parent: ROOT, name: name.as_bytes().into() };
        let inode = self.inode(ino, Kind::File);
        self.push(Op::Arrive { at, inode, replaced: None });
        self.sessions += 1;
        let (session, digest) = (SessionId(self.sessions), Some(hash(content)));
        let origin = Origin::Restore;
        self.push(Op::Seal { inode, session, digest, prefix: None, origin });
    }
}

#[test]
fn extended_attributes_are_known_as_of_any_change() {
    let mut world = World::new();
    world.write("a", 10, 1);
    let bare = world.seq();
    world.set_xattr(10, &Xattrs::default());
    let one = world.seq();
    assert!(one > bare, "setting an attribute is a change of its own");
    world.set_xattr(10, &xattrs("one"));
    let two = world.seq();
    assert_eq!(world.xattrs_at("a", bare), XattrsAt::Past(Xattrs::default()));
    assert_eq!(world.xattrs_at("a", one), XattrsAt::Past(xattrs("one")));
    assert_eq!(world.xattrs_at("a", two), XattrsAt::Live);
    world.push(Op::Leave { key: key(10), xattrs: Box::new(xattrs("two")) });
    world.unlink("a", 10);
    assert_eq!(world.xattrs_at("a", two), XattrsAt::Past(xattrs("two")));
    // The file goes on with another inode, whose attributes are its own.
    world.write("a", 11, 2);
    assert_eq!(world.xattrs_at("a", two), XattrsAt::Past(xattrs("two")));
    let three = world.seq();
    assert_eq!(world.xattrs_at("a", three), XattrsAt::Live);
    world.write("b", 12, 3);
    world.rename("b", "a", 12, Some(11));
    assert_eq!(world.xattrs_at("a", three), XattrsAt::Past(Xattrs::default()));
    assert_eq!(world.xattrs_at("a", one), XattrsAt::Past(xattrs("one")));
}

#[test]
fn a_symlink_that_is_made_anew_leaves_the_old_target_to_the_old_one() {
    let mut world = World::new();
    let mut ids = Vec::new();
    for (ino, target) in [(20, "first"), (21, "second")] {
        let at = Place { parent: ROOT, name: b"l".as_slice().into() };
        let inode = world.inode(ino, Kind::Symlink);
        world.push(Op::Create { at, inode, born: Born::Target(target.as_bytes().into()) });
        let seq = world.seq();
        let child = |reader: &Reader| reader.child(FileId::ROOT, b"l", When::At(seq));
        ids.push(world.catalog.read::<_, CatalogError>(child).unwrap().unwrap());
        world.unlink("l", ino);
    }
    let targets: Vec<_> = ids
        .iter()
        .map(|id| world.catalog.read::<_, CatalogError>(|r| r.target_of(*id)).unwrap().unwrap())
        .collect();
    assert_eq!(targets, [b"first".to_vec(), b"second".to_vec()]);
}

#[test]
fn what_is_moved_in_goes_on_with_the_file_that_has_or_had_the_name() {
    let mut world = World::new();
    world.write("a", 10, 1);
    world.move_in("a", 30, 2);
    world.unlink("a", 30);
    world.move_in("a", 31, 1);
    let versions = world
        .catalog
        .read::<_, CatalogError>(|reader| {
            let file = reader.child(FileId::ROOT, b"a", When::Now)?.unwrap();
            reader.versions(file)
        })
        .unwrap();
    let seen: Vec<_> = versions.iter().map(|v| (v.hash, v.origin)).collect();
    let restored = Origin::Restore;
    assert_eq!(
        seen,
        [(Some(hash(1)), Origin::Write), (Some(hash(2)), restored), (Some(hash(1)), restored)]
    );
}

#[test]
fn a_file_that_is_made_anew_with_the_same_bytes_has_its_own_attributes() {
    let mut world = World::new();
    world.write("a", 10, 1);
    world.unlink("a", 10);
    let at = Place { parent: ROOT, name: b"a".as_slice().into() };
    let mut inode = world.inode(11, Kind::File);
    inode.attr.mode = 0o600;
    world.push(Op::Create { at, inode, born: Born::Bare });
    let (session, digest, origin) = (SessionId(99), Some(hash(1)), Origin::Write);
    world.push(Op::Seal { inode, session, digest, prefix: None, origin });
    let seq = world.seq();
    assert_eq!(world.log("a"), [1], "the bytes are not new");
    let node = world.catalog.read::<_, CatalogError>(|reader| {
        let file = reader.child(FileId::ROOT, b"a", When::Now)?.unwrap();
        Ok(reader.node(file, When::At(seq))?.unwrap())
    });
    assert_eq!(node.unwrap().mode, 0o600);
}

#[test]
fn what_an_appending_session_has_cut_off_is_no_beginning_any_more() {
    use crate::catalog::event::Prefix;
    let mut world = World::new();
    world.write("a", 10, 1);
    let seal = |world: &mut World, digest, prefix| {
        let (inode, origin) = (world.inode(10, Kind::File), Origin::Write);
        let digest = Some(hash(digest));
        world.push(Op::Seal { inode, session: SessionId(9), digest, prefix, origin });
    };
    let first = |world: &World| {
        let versions = world.catalog.read::<_, CatalogError>(|reader| {
            let file = reader.child(FileId::ROOT, b"a", When::Now)?.unwrap();
            reader.versions(file)
        });
        versions.unwrap()[0].source
    };
    let begins_with = |n| Some(Prefix { size: 10, hash: hash(n) });
    seal(&mut world, 2, begins_with(1));
    assert_eq!(first(&world), Source::Prefix);
    // It appends more: what there was before is still the beginning.
    seal(&mut world, 3, begins_with(1));
    assert_eq!(first(&world), Source::Prefix);
    seal(&mut world, 4, None);
    assert_eq!(first(&world), Source::Lost(crate::types::Loss::Overwritten));
}
