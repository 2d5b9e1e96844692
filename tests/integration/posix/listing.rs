//! Directory streams: whole while names come and go, and with positions that stay.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};

use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, same_in_every_way};

fn open(dir: &Path) -> OwnedFd {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

/// Names with the position after each, by `getdents64` with a buffer of some size, from where the
/// stream is; no more than `most`.
fn names(dir: &OwnedFd, buffer: usize, most: usize) -> Vec<(String, u64)> {
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); buffer];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while names.len() < most
        && let Some(entry) = entries.next()
    {
        let entry = entry.unwrap();
        let name = entry.file_name().to_str().unwrap().to_owned();
        names.push((name, entry.next_entry_cookie()));
    }
    names
}

#[test]
fn lasting_names_are_listed_once_while_others_come_and_go() {
    const LASTING: usize = 3_000;
    const PASSING: usize = 50_000;
    if !can_mount() {
        return;
    }
    let mounted = Mounted::prepared("", |dir| {
        for n in 0..LASTING {
            File::create(dir.join(format!("lasting-{n}"))).unwrap();
        }
    });
    let done = AtomicBool::new(false);
    let lists = std::thread::scope(|scope| {
        let churn = |writer: &'static str| {
            let mounted = &mounted;
            scope.spawn(move || {
                for n in 0..PASSING {
                    File::create(mounted.at(format!("{writer}-{n}"))).unwrap();
                    // Some hundred of them are there at a time.
                    if let Some(old) = n.checked_sub(300) {
                        fs::remove_file(mounted.at(format!("{writer}-{old}"))).unwrap();
                    }
                }
            })
        };
        let writers = [churn("one"), churn("other")];
        let list = |buffer: usize| {
            let (mounted, done) = (&mounted, &done);
            scope.spawn(move || {
                let mut lists = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut seen = BTreeMap::<_, u32>::new();
                    for (name, _) in names(&open(&mounted.mountpoint), buffer, usize::MAX) {
                        *seen.entry(name).or_default() += 1;
                    }
                    for n in 0..LASTING {
                        let name = format!("lasting-{n}");
                        assert_eq!(seen.get(&name), Some(&1), "{name} in list {lists}");
                    }
                    lists += 1;
                    // The writers wait for the directory meanwhile.
                    std::thread::sleep(Duration::from_millis(100));
                }
                lists
            })
        };
        let readers = [list(512), list(32 * 1024)];
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        readers.map(|reader| reader.join().unwrap())
    });
    assert!(lists.iter().all(|count| *count > 1), "{lists:?}");
    mounted.assert_catalog_is_true();
}

#[test]
fn positions_are_those_of_the_backing_directory() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::prepared(way, |dir| {
            fs::create_dir(dir.join("d")).unwrap();
            for n in 0..3_000 {
                File::create(dir.join(format!("d/{}{n}", "x".repeat(n % 50)))).unwrap();
            }
        });
        let dir = open(&mounted.at("d"));
        let all = names(&dir, 4_096, usize::MAX);
        assert_eq!(all, names(&open(&mounted.backing.join("d")), 4_096, usize::MAX));
        assert_eq!(all.len(), 3_002);
        // As telldir and seekdir do it: forwards, backwards, to the end, to the start.
        for at in [0, 1, 100, 1_500, 7, 2_999, 3_001, 400] {
            rustix::fs::seek(&dir, SeekFrom::Start(all[at].1)).unwrap();
            assert_eq!(
                names(&dir, 1_024, 3),
                all.iter().skip(at + 1).take(3).cloned().collect::<Vec<_>>()
            );
        }
        File::create(mounted.at("d/new")).unwrap();
        rustix::fs::seek(&dir, SeekFrom::Start(0)).unwrap();
        let again = names(&dir, 4_096, usize::MAX);
        assert_eq!(again.len(), 3_003, "what was made since is seen after a rewind");
        // A position outlives the name it was taken at.
        let (gone, position) = again[1_000].clone();
        fs::remove_file(mounted.at("d").join(gone)).unwrap();
        rustix::fs::seek(&dir, SeekFrom::Start(position)).unwrap();
        assert_eq!(names(&dir, 1_024, 1)[0].0, again[1_001].0);
    }
}

#[test]
fn a_listing_tells_kinds_and_inode_numbers() {
    same_in_every_way(|dir| {
        let script = "mkdir d; echo f > f; ln -s f l; mkfifo p; ln f h";
        let mut shell = std::process::Command::new("sh");
        crate::tools::must(shell.args(["-c", script]).current_dir(dir));
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4_096];
        let fd = open(dir);
        let mut entries = RawDir::new(&fd, &mut buffer);
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_str().unwrap().to_owned();
            let stat = rustix::fs::statat(&fd, &*name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
            let same = stat.unwrap().st_ino == entry.ino();
            // The root of a mount has its number from the kernel, its parent's is elsewhere.
            found.push((entry.file_type(), same || name == ".." || name == ".", name));
        }
        found.sort_by(|a, b| a.2.cmp(&b.2));
        found
    });
}

#[test]
fn reading_a_directory_that_is_gone_ends() {
    same_in_every_way(|dir| {
        let gone = dir.join("gone");
        fs::create_dir(&gone).unwrap();
        let fd = open(&gone);
        fs::remove_dir(&gone).unwrap();
        let mut buffer = [std::mem::MaybeUninit::uninit(); 1_024];
        let mut entries = RawDir::new(&fd, &mut buffer);
        let first = entries.next().map(|entry| entry.map(|_| ()));
        let made = rustix::fs::openat(&fd, "f", OFlags::CREATE | OFlags::RDWR, Mode::RUSR);
        (first, made.map(|_| ()))
    });
}
