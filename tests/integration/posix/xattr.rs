//! Extended attributes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::actors::{Actor, OTHER, ROOT, USER, loner, root_without};
use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, noise, same_in_every_way, sha256};

fn set(file: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    rustix::fs::lsetxattr(file, name, value, XattrFlags::empty())
}

fn get(file: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65_536];
    let length = rustix::fs::lgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// The names of a file's attributes, sorted.
fn list(file: &Path) -> Result<Vec<String>, Errno> {
    let mut list = vec![0; 65_536];
    let length = rustix::fs::llistxattr(file, &mut list[..])?;
    let names = list[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut names: Vec<_> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort();
    Ok(names)
}

#[test]
fn limits_are_those_of_the_backing_filesystem() {
    if !can_mount() {
        return;
    }
    for (kind, size, mkfs) in [
        ("ext4", 32, &["-q"][..]),
        ("ext4", 32, &["-q", "-O", "ea_inode"]),
        ("xfs", 320, &["-q"]),
        ("btrfs", 200, &["-q"]),
    ] {
        let Some(disk) = Disk::new(kind, size, mkfs, "") else { return };
        let plain = disk.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let expected = limits(&plain);
        for options in ["", "passthrough=off"] {
            let mounted = Mounted::on(&disk.path(), options);
            let found = limits(&mounted.mountpoint);
            assert_eq!(found, expected, "{kind} {mkfs:?}");
            let backing = mounted.backing.clone();
            drop(mounted);
            fs::remove_dir_all(backing).unwrap();
        }
    }
}

/// Sizes of values and names, how many names there can be, and what is said beyond.
fn limits(dir: &Path) -> Vec<String> {
    let mut said = Vec::new();
    let value = noise(3, 65_537);
    for size in [0, 1, 255, 256, 1_000, 2_000, 4_000, 4_096, 16_000, 32_768, 65_535, 65_536, 65_537]
    {
        let file = dir.join(format!("f{size}"));
        fs::write(&file, "x").unwrap();
        let done = set(&file, "user.v", &value[..size]);
        let same = get(&file, "user.v").map(|found| found == value[..size]);
        let replaced = set(&file, "user.v", b"small");
        let small = rustix::fs::getxattr(&file, "user.v", &mut [0; 4][..]);
        said.push(format!("value of {size}: {done:?} {same:?} {replaced:?} {small:?}"));
    }
    let file = dir.join("names");
    fs::write(&file, "x").unwrap();
    for length in [0, 1, 249, 250, 251, 300] {
        let name = format!("user.{}", "n".repeat(length));
        said.push(format!(
            "name of {length}: {:?} {:?}",
            set(&file, &name, b"x"),
            get(&file, &name)
        ));
    }
    let file = dir.join("many");
    fs::write(&file, "x").unwrap();
    let mut many = 0;
    let end = loop {
        match set(&file, &format!("user.{}{many:04}", "m".repeat(200)), b"x") {
            Ok(()) if many < 400 => many += 1,
            other => break other,
        }
    };
    let listed = list(&file).map(|names| names.len());
    // Of a list that is too long to be had, nobody needs the size.
    let size = listed.and_then(|_| rustix::fs::listxattr(&file, &mut [0; 0][..]));
    let small = rustix::fs::listxattr(&file, &mut [0; 100][..]);
    said.push(format!("many: {many} {end:?} {listed:?} {size:?} {small:?}"));
    said
}

#[test]
fn names_are_checked_as_anywhere() {
    same_in_every_way(|dir| {
        fs::write(dir.join("f"), "x").unwrap();
        let mut said = Vec::new();
        for name in [
            "",
            "user",
            "user.",
            "user..",
            "user.a b",
            "user.\u{e9}",
            "USER.a",
            "system.",
            "system.posix_acl",
            "security.",
            "security.x",
            "trusted.",
            "trusted.overlay.x",
            "btrfs.compression",
            "os2.a",
        ] {
            let file = dir.join("f");
            let removed = rustix::fs::removexattr(&file, name);
            let done = (set(&file, name, b"v"), get(&file, name), removed, list(&file));
            said.push(format!("{name}: {done:?} {:?}", rustix::fs::removexattr(&file, name)));
        }
        said
    });
}

#[test]
fn every_kind_of_inode_takes_what_it_takes_from_everybody() {
    let actors: [Actor; 4] =
        [ROOT, root_without(rustix::thread::CapabilitySet::SYS_ADMIN), loner(USER), loner(OTHER)];
    same_in_every_way(|dir| {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("file"), "x").unwrap();
        fs::write(dir.join("read-only"), "x").unwrap();
        fs::create_dir(dir.join("dir")).unwrap();
        fs::create_dir(dir.join("sticky")).unwrap();
        symlink("file", dir.join("link")).unwrap();
        must(Command::new("mkfifo").arg(dir.join("fifo")));
        must(Command::new("mknod").arg(dir.join("null")).args(["c", "1", "3"]));
        let names = ["file", "read-only", "dir", "sticky", "link", "fifo", "null"];
        for name in names {
            std::os::unix::fs::lchown(dir.join(name), Some(USER), Some(USER)).unwrap();
        }
        let mode = |name: &str, mode| {
            fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
        };
        for (name, bits) in
            [("file", 0o666), ("read-only", 0o444), ("dir", 0o777), ("sticky", 0o1777)]
        {
            mode(name, bits);
        }
        mode("fifo", 0o666);
        mode("null", 0o666);
        let mut said = Vec::new();
        for (name, actor) in names.into_iter().flat_map(|name| actors.map(|actor| (name, actor))) {
            for attribute in ["user.a", "trusted.a", "security.a"] {
                let told = actor.does(|| {
                    let file = dir.join(name);
                    let done = (set(&file, attribute, b"v"), get(&file, attribute), list(&file));
                    format!("{done:?} {:?}", rustix::fs::lremovexattr(&file, attribute))
                });
                // What root has set is not for others.
                let _ = set(&dir.join(name), attribute, b"of root");
                let seen = actor.does(|| (get(&dir.join(name), attribute), list(&dir.join(name))));
                let _ = rustix::fs::lremovexattr(dir.join(name), attribute);
                said.push(format!("{name} {attribute} {actor:?} {told} {seen:?}"));
            }
        }
        said
    });
}

#[test]
fn attributes_go_where_the_file_goes() {
    same_in_every_way(|dir| {
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        set(&file, "user.a", b"kept").unwrap();
        fs::hard_link(&file, dir.join("hard")).unwrap();
        fs::rename(&file, dir.join("g")).unwrap();
        let open = fs::File::open(dir.join("g")).unwrap();
        fs::remove_file(dir.join("g")).unwrap();
        set(&dir.join("hard"), "user.b", b"new").unwrap();
        let mut value = [0; 10];
        let by_open = rustix::fs::fgetxattr(&open, "user.b", &mut value[..]);
        chown(dir.join("hard"), Some(USER), None).unwrap();
        (list(&dir.join("hard")), by_open, value)
    });
}

/// What the catalog says of a file is read there and nowhere else.
#[test]
fn our_own_attributes_cannot_be_changed_or_copied() {
    if !can_mount() || !have(&["setfattr", "getfattr", "rsync"]) {
        return;
    }
    let mounted = Mounted::new();
    let file = mounted.at("f");
    fs::write(&file, "content").unwrap();
    set(&file, "user.real", b"x").unwrap();
    assert_eq!(get(&file, "user.horace.sha256").unwrap(), sha256("content").as_bytes());
    assert_eq!(get(&file, "user.horace.version").unwrap(), b"1");
    assert_eq!(get(&file, "user.horace.none"), Err(Errno::NODATA));
    for name in ["user.horace.sha256", "user.horace.version", "user.horace.none"] {
        assert_eq!(set(&file, name, b"forged"), Err(Errno::PERM));
        assert_eq!(rustix::fs::removexattr(&file, name), Err(Errno::PERM));
    }
    assert_eq!(list(&file).unwrap(), ["user.real"]);
    mounted.shell("cp -a f copied; rsync -aX f rsynced; mkdir d; getfattr -d -m - f > d/list");
    assert!(!fs::read_to_string(mounted.at("d/list")).unwrap().contains("horace"));
    for copy in ["copied", "rsynced"] {
        assert_eq!(list(&mounted.backing.join(copy)).unwrap(), ["user.real"], "{copy}");
        assert_eq!(
            get(&mounted.at(copy), "user.horace.sha256").unwrap(),
            sha256("content").as_bytes()
        );
    }
    // What has the name on the backing file, from before, is neither seen nor in the way.
    set(&mounted.backing.join("f"), "user.horace.sha256", b"forged").unwrap();
    assert_eq!(get(&file, "user.horace.sha256").unwrap(), sha256("content").as_bytes());
    assert_eq!(list(&file).unwrap(), ["user.real"]);
}
