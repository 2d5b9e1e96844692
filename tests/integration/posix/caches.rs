//! Changes that are made in the backing directory, around the mount, are seen through it.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::mounted::{Mounted, can_mount};
use crate::tools::WAYS;

/// What a user sees of a directory with a file `f`, a directory `d` and perhaps a file `new`.
fn look(dir: &Path) -> String {
    let text = |result: std::io::Result<Vec<u8>>| match result {
        Ok(bytes) => String::from_utf8(bytes).unwrap(),
        Err(error) => format!("{:?}", error.raw_os_error()),
    };
    let stat = |name: &str| {
        let meta = fs::symlink_metadata(dir.join(name));
        meta.map_or_else(
            |error| format!("{:?}", error.raw_os_error()),
            |m| {
                format!(
                    "{} {:o} {} {} {}",
                    m.size(),
                    m.mode(),
                    m.nlink(),
                    m.mtime(),
                    m.mtime_nsec()
                )
            },
        )
    };
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| name != ".horace");
    names.sort();
    let read = |name: &str| text(fs::read(dir.join(name)));
    let names_of = ["f", "new", "d", "e", "d/inner", "e/inner", "link"];
    let stats = names_of.map(|name| format!("{name}: {} {}", stat(name), read(name)));
    format!("{names:?}\n{}", stats.join("\n"))
}

/// What is changed, and how.
type Change = (&'static str, fn(&Path));

/// One change after the other.
fn changes() -> [Change; 10] {
    [
        ("content of the same size", |dir| fs::write(dir.join("f"), "two").unwrap()),
        ("longer", |dir| fs::write(dir.join("f"), "three and more").unwrap()),
        ("shorter", |dir| {
            File::options().write(true).open(dir.join("f")).unwrap().set_len(2).unwrap();
        }),
        ("mode", |dir| {
            fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
        }),
        ("new name", |dir| fs::write(dir.join("new"), "new").unwrap()),
        ("replaced", |dir| {
            fs::write(dir.join("temp"), "another inode").unwrap();
            fs::rename(dir.join("temp"), dir.join("f")).unwrap();
        }),
        ("removed", |dir| fs::remove_file(dir.join("new")).unwrap()),
        ("renamed", |dir| fs::rename(dir.join("d"), dir.join("e")).unwrap()),
        ("exchanged", |dir| {
            fs::rename(dir.join("e"), dir.join("d")).unwrap();
            fs::remove_file(dir.join("f")).unwrap();
            fs::create_dir(dir.join("f")).unwrap();
        }),
        ("linked", |dir| fs::hard_link(dir.join("d/inner"), dir.join("link")).unwrap()),
    ]
}

fn read_again(file: &mut File) -> String {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

fn prepare(dir: &Path) {
    fs::write(dir.join("f"), "one").unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    fs::write(dir.join("d/inner"), "inner").unwrap();
}

#[test]
fn without_a_timeout_every_change_shows_at_once() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::prepared(&format!("{way},attr_timeout=0"), prepare);
        mounted.wait_reconciled();
        assert_eq!(look(&mounted.mountpoint), look(&mounted.backing), "{way}");
        for (what, change) in changes() {
            change(&mounted.backing);
            assert_eq!(look(&mounted.mountpoint), look(&mounted.backing), "{way}: {what}");
        }
    }
}

#[test]
fn a_change_shows_when_the_timeout_is_over() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::prepared(way, prepare);
        mounted.wait_reconciled();
        for (what, change) in changes() {
            look(&mounted.mountpoint);
            change(&mounted.backing);
            let changed = Instant::now();
            loop {
                // The kernel's clock for timeouts ticks every 10 ms at the coarsest.
                let late = changed.elapsed() > Duration::from_millis(1_020);
                let (here, there) = (look(&mounted.mountpoint), look(&mounted.backing));
                if here == there {
                    break;
                }
                assert!(!late, "{way}: {what}: {here}\n{there}");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn file_data_is_never_old() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        // However long attributes are trusted.
        let mounted = Mounted::prepared(&format!("{way},attr_timeout=3600"), prepare);
        let behind = mounted.backing.join("f");
        let mut open = File::open(mounted.at("f")).unwrap();
        assert_eq!(read_again(&mut open), "one");
        fs::write(&behind, "two").unwrap();
        if way != "passthrough=off" {
            // By a handle that was open before, too: the kernel reads the backing file itself.
            assert_eq!(read_again(&mut open), "two", "{way}");
        }
        assert_eq!(fs::read(mounted.at("f")).unwrap(), b"two", "{way}");
        File::options().write(true).open(&behind).unwrap().write_at(b"T", 0).unwrap();
        assert_eq!(fs::read(mounted.at("f")).unwrap(), b"Two", "{way}");
        // Longer than the size that is trusted.
        let mut longer = File::options().append(true).open(&behind).unwrap();
        longer.write_all(b" and more").unwrap();
        assert_eq!(fs::read(mounted.at("f")).unwrap(), b"Two and more", "{way}");
        fs::write(&behind, "s").unwrap();
        assert_eq!(fs::read(mounted.at("f")).unwrap(), b"s", "{way}");
    }
}

/// Without kernel passthrough what was read before is kept as long as attributes are.
#[test]
fn an_open_file_without_passthrough_shows_new_data_when_the_timeout_is_over() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::prepared("passthrough=off", prepare);
    let mut open = File::open(mounted.at("f")).unwrap();
    assert_eq!(read_again(&mut open), "one");
    fs::write(mounted.backing.join("f"), "two").unwrap();
    std::thread::sleep(Duration::from_millis(1_020));
    assert_eq!(read_again(&mut open), "two");
}
