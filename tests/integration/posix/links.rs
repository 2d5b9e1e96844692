//! Link counts and inode numbers.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode};

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{same_in_every_way, sha256};

fn counts(dir: &Path, names: &[&str]) -> Vec<Option<(u64, u64)>> {
    let look = |name: &&str| fs::symlink_metadata(dir.join(name)).ok();
    names.iter().map(|name| look(name).map(|meta| (meta.nlink(), meta.size()))).collect()
}

fn code<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn names_of_a_file_share_its_count() {
    same_in_every_way(|dir| {
        let names = ["a", "b", "d/c"];
        let at = |name: &str| dir.join(name);
        fs::create_dir(at("d")).unwrap();
        let mut file = File::create(at("a")).unwrap();
        let mut seen = vec![counts(dir, &names)];
        for name in &names[1..] {
            fs::hard_link(at("a"), at(name)).unwrap();
            seen.push(counts(dir, &names));
            assert_eq!(file.metadata().unwrap().nlink(), fs::metadata(at("a")).unwrap().nlink());
        }
        file.write_all(b"seen by every name").unwrap();
        seen.push(counts(dir, &names));
        // Two names of one inode: a rename between them does nothing.
        fs::rename(at("a"), at("b")).unwrap();
        seen.push(counts(dir, &names));
        fs::write(at("other"), "x").unwrap();
        fs::rename(at("other"), at("b")).unwrap();
        seen.push(counts(dir, &names));
        fs::remove_file(at("a")).unwrap();
        seen.push(counts(dir, &names));
        fs::remove_file(at("d/c")).unwrap();
        seen.push(vec![Some((file.metadata().unwrap().nlink(), 0))]);
        seen
    });
}

#[test]
fn what_can_be_linked_and_what_cannot() {
    same_in_every_way(|dir| {
        let at = |name: &str| dir.join(name);
        fs::write(at("f"), "x").unwrap();
        fs::create_dir(at("d")).unwrap();
        std::os::unix::fs::symlink("f", at("s")).unwrap();
        rustix::fs::mknodat(CWD, at("p"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let link = |from: &str, to: &str, how| rustix::fs::linkat(CWD, at(from), CWD, at(to), how);
        let results = [
            link("s", "s2", AtFlags::empty()),
            link("s", "f2", AtFlags::SYMLINK_FOLLOW),
            link("p", "p2", AtFlags::empty()),
            link("d", "d2", AtFlags::empty()),
            link("f", "d", AtFlags::empty()),
            link("f", "f", AtFlags::empty()),
            link("f", "none/f", AtFlags::empty()),
            link("none", "n", AtFlags::empty()),
        ];
        let there = counts(dir, &["f", "f2", "s", "s2", "p", "p2"]);
        let device = |path: &Path| fs::metadata(path).unwrap().dev();
        let here = device(&fs::canonicalize(dir.parent().unwrap()).unwrap());
        let other = ["/dev/shm", "/tmp"].map(Path::new).into_iter().find(|p| device(p) != here);
        let elsewhere = tempfile::tempdir_in(other.unwrap()).unwrap();
        let away = elsewhere.path().join("f");
        let across = [
            code(fs::hard_link(at("f"), &away)),
            code(fs::rename(at("f"), &away)),
            code(fs::write(&away, "").and_then(|()| fs::hard_link(&away, at("x")))),
        ];
        (results, there, across, fs::read_link(at("s2")).unwrap())
    });
}

#[test]
fn directories_count_their_directories() {
    same_in_every_way(|dir| {
        let at = |name: &str| dir.join(name);
        let names = ["", "a", "b", "a/x", "b/x"];
        let links = || {
            let look = |name: &&str| fs::metadata(at(name)).map(|meta| meta.nlink()).ok();
            names.iter().map(look).collect::<Vec<_>>()
        };
        let mut seen = vec![links()];
        for name in ["a", "b", "a/x", "a/y", "a/x/z"] {
            fs::create_dir(at(name)).unwrap();
            seen.push(links());
        }
        fs::rename(at("a/x"), at("b/x")).unwrap();
        seen.push(links());
        fs::remove_dir(at("b/x/z")).unwrap();
        seen.push(links());
        // Over an empty directory.
        fs::create_dir(at("b/y")).unwrap();
        fs::rename(at("a/y"), at("b/y")).unwrap();
        seen.push(links());
        seen
    });
}

/// Inode number, and whether the names of directories agree with it, of everything in a tree.
fn numbers(root: &Path) -> Vec<(String, u64, u64)> {
    let mut found = vec![(String::new(), fs::metadata(root).unwrap().ino(), 0)];
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_name() == ".horace" {
                continue;
            }
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push((name, meta.ino(), entry.ino()));
            if meta.is_dir() {
                dirs.push(entry.path());
            }
        }
        let own = rustix::fs::Dir::new(File::open(&dir).unwrap()).unwrap();
        let own = own.map(Result::unwrap).find(|entry| entry.file_name() == c".").unwrap();
        assert_eq!(own.ino(), fs::metadata(&dir).unwrap().ino(), "{}", dir.display());
    }
    found.sort();
    found
}

#[test]
fn inode_numbers_are_those_of_the_backing_directory() {
    if !can_mount() {
        return;
    }
    for options in ["", "passthrough=off"] {
        let mut mounted = Mounted::with_options(options);
        mounted.shell(
            "mkdir -p d/e; echo x > d/f; ln d/f g; ln -s d s; mkfifo p; mknod n c 1 3; echo y > h",
        );
        let before = numbers(&mounted.mountpoint);
        assert_eq!(before, numbers(&mounted.backing), "{options}");
        assert!(before.iter().all(|(name, ino, listed)| name.is_empty() || ino == listed));
        let device = fs::metadata(&mounted.mountpoint).unwrap().dev();
        assert_ne!(device, fs::metadata(&mounted.backing).unwrap().dev());
        for (name, ..) in &before {
            let meta = fs::symlink_metadata(mounted.at(name)).unwrap();
            assert_eq!(meta.dev(), device, "{name}");
        }
        let file = File::open(mounted.at("h")).unwrap();
        let number = file.metadata().unwrap().ino();
        fs::rename(mounted.at("h"), mounted.at("i")).unwrap();
        assert_eq!(file.metadata().unwrap().ino(), number);
        fs::remove_file(mounted.at("i")).unwrap();
        assert_eq!(
            (file.metadata().unwrap().ino(), file.metadata().unwrap().dev()),
            (number, device)
        );
        drop(file);
        let before = numbers(&mounted.mountpoint);
        mounted.remount();
        assert_eq!(numbers(&mounted.mountpoint), before, "{options}");
    }
}

#[test]
fn too_many_links_are_refused() {
    if !can_mount() {
        return;
    }
    const MOST: u64 = 65_000;
    let Some(disk) = Disk::new("ext4", 64, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "");
    // Most of them around the mount, which is faster.
    fs::write(mounted.at("f"), "x").unwrap();
    fs::create_dir(mounted.at("d")).unwrap();
    for n in 1..MOST - 1 {
        fs::hard_link(mounted.backing.join("f"), mounted.backing.join(format!("d/{n}"))).unwrap();
    }
    fs::hard_link(mounted.at("f"), mounted.at("last")).unwrap();
    assert_eq!(fs::metadata(mounted.at("f")).unwrap().nlink(), MOST);
    assert_eq!(code(fs::hard_link(mounted.at("f"), mounted.at("more"))), Some(libc::EMLINK));
    fs::remove_file(mounted.at("last")).unwrap();
    assert_eq!(fs::metadata(mounted.at("d/7")).unwrap().nlink(), MOST - 1);
    assert_eq!(mounted.digests("f"), [sha256("x")]);
}
