//! What the catalog says of files that are closed but still mapped for writing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, python_in, sha256, sha256_of};

fn readable(f: &Path) -> File {
    File::options().read(true).write(true).open(f).unwrap()
}

#[test]
fn a_reader_does_not_keep_the_digest_of_bytes_that_a_mapping_can_change() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    fs::write(&f, noise(1, 10_000)).unwrap();
    let _reader = File::open(&f).unwrap();
    let file = readable(&f);
    let map = Mapping::of(&file, 10_000);
    map.store(0, b"before");
    drop(file);
    mounted.wait_for("end of the digest", || mounted.digests("f").last().unwrap() == "unknown");
    map.store(0, b"after");
    drop(map);
    let expected = sha256_of(&mounted.backing.join("f"));
    mounted.wait_for("digest", || *mounted.digests("f").last().unwrap() == expected);
}

#[test]
fn a_mapping_that_nobody_stores_to_makes_no_version() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    fs::write(&f, noise(1, 10_000)).unwrap();
    let map = Mapping::of(&readable(&f), 10_000);
    // The second look at the mapping is over after this.
    mounted.sync();
    let expected = [sha256_of(&f)];
    assert_eq!(mounted.digests("f"), expected);
    drop(map);
    mounted.sync();
    assert_eq!(mounted.digests("f"), expected);
}

#[test]
fn several_mappings_of_a_file_make_a_version_for_each_that_changes_it() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    fs::write(&f, noise(1, 10_000)).unwrap();
    let maps = [1, 2, 3].map(|n: u8| {
        let file = readable(&f);
        let map = Mapping::of(&file, 10_000);
        // The last one is only looked at.
        if n < 3 {
            file.write_at(&[n; 100], 0).unwrap();
            map.store(50, &[n + 1]);
        }
        map
    });
    mounted.sync();
    fs::write(&f, noise(2, 9_000)).unwrap();
    mounted.sync();
    drop(maps);
    let expected = sha256_of(&mounted.backing.join("f"));
    mounted.wait_for("digest", || *mounted.digests("f").last().unwrap() == expected);
    assert_eq!(mounted.digests("f").len(), 4, "{:#?}", mounted.log_of("f"));
}

#[test]
fn who_asks_by_attribute_waits_for_what_a_mapping_has_left() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for n in 0..5 {
        let f = mounted.at(format!("f{n}"));
        fs::write(&f, noise(n, 10_000)).unwrap();
        let file = readable(&f);
        let map = Mapping::of(&file, 10_000);
        map.store(0, b"before");
        drop(file);
        mounted.sync();
        map.store(0, b"after");
        drop(map);
        let mut digest = Vec::with_capacity(64);
        let name = "user.horace.sha256";
        rustix::fs::getxattr(&f, name, rustix::buffer::spare_capacity(&mut digest)).unwrap();
        assert_eq!(String::from_utf8(digest).unwrap(), sha256_of(&f));
    }
}

/// A store to a page that was stored to before changes no time, even if a version came in between.
#[test]
fn stores_after_the_seal_of_another_session_count() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    // By a process of its own: each program that another test starts closes copies of what this one has open.
    let script = "
import hashlib, mmap, os
def digest(name):
    with open(name, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()
for n in range(50):
    name = f'f{n}'
    with open(name, 'wb') as f:
        f.write(b'.' * 10_000)
    digests = [digest(name)]
    with open(name, 'r+b', buffering=0) as f, mmap.mmap(f.fileno(), 10_000) as memory:
        memory[500:506] = b'before'
        other = os.open(name, os.O_WRONLY)
        os.pwrite(other, b'!' * 100, 0)
        os.close(other)
        digests.append(digest(name))
        memory[600:605] = b'after'
    print(name, *digests, digest(name))
";
    for line in python_in(&mounted.mountpoint, script).lines() {
        let (name, expected) = line.split_once(' ').unwrap();
        let found = || mounted.digests(name).join(" ");
        mounted.wait_for(&format!("{expected}, but {}", found()), || found() == expected);
    }
}

#[test]
fn what_a_mapping_has_left_is_told_before_it_is_overwritten() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    fs::write(&f, noise(1, 10_000)).unwrap();
    let file = readable(&f);
    let map = Mapping::of(&file, 10_000);
    map.store(0, b"stored");
    drop(file);
    mounted.wait_for("end of the digest", || mounted.digests("f").last().unwrap() == "unknown");
    map.store(0, b"again");
    drop(map);
    let left = sha256_of(&f);
    fs::write(&f, noise(2, 10_000)).unwrap();
    let expected = [sha256(noise(1, 10_000)), left, sha256(noise(2, 10_000))];
    assert_eq!(mounted.digests("f"), expected, "{:#?}", mounted.log_of("f"));
}
