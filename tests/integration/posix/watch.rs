//! inotify: watchers on the mount see what happens through it, event for event.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{XattrFlags, inotify};
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::tools::same_in_every_way;

/// What a watcher was told since it was last asked. Events that follow each other come in the order
/// of the cookies that join them.
fn events(watcher: &OwnedFd) -> Vec<String> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16_384];
    let mut reader = inotify::Reader::new(watcher, &mut buffer);
    let mut seen = Vec::new();
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(CStr::to_string_lossy).unwrap_or_default();
                let joined = if event.cookie() == 0 { "" } else { " joined" };
                seen.push(format!("{} {:?} {name}{joined}", event.wd(), event.events()));
            }
            Err(Errno::AGAIN) => return seen,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn watchers_see_the_same() {
    same_in_every_way(|dir| {
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("old"), "content").unwrap();
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let watcher = inotify::init(flags).unwrap();
        for path in [dir.to_path_buf(), dir.join("sub"), dir.join("old")] {
            inotify::add_watch(&watcher, path, inotify::WatchFlags::ALL_EVENTS).unwrap();
        }
        let mut seen = Vec::new();
        for (what, act) in ACTS {
            act(dir);
            seen.push((*what, events(&watcher)));
        }
        seen
    });
}

type Act = fn(&Path);

const ACTS: &[(&str, Act)] = &[
    ("create and write", |dir| fs::write(dir.join("f"), "x".repeat(3_000_000)).unwrap()),
    ("read", |dir| drop(fs::read(dir.join("f")).unwrap())),
    ("append", |dir| {
        let mut file = OpenOptions::new().append(true).open(dir.join("f")).unwrap();
        file.write_all(b"one").unwrap();
        file.write_all(b"two").unwrap();
    }),
    ("in place", |dir| {
        let file = OpenOptions::new().read(true).write(true).open(dir.join("old")).unwrap();
        file.write_all_at(b"new", 1).unwrap();
        (&file).read_exact(&mut [0; 3]).unwrap();
        file.set_len(2).unwrap();
    }),
    ("cut by the open", |dir| drop(File::create(dir.join("old")).unwrap())),
    ("cut while open", |dir| {
        OpenOptions::new().write(true).open(dir.join("f")).unwrap().set_len(10).unwrap();
    }),
    ("mapped", |dir| {
        fs::write(dir.join("m"), [0; 4_096]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(dir.join("m")).unwrap();
        let mapping = Mapping::of(&file, 4_096);
        drop(file);
        mapping.store(0, b"stored");
    }),
    ("copied", |dir| assert!(fs::copy(dir.join("m"), dir.join("copy")).is_ok())),
    ("mode", |dir| fs::set_permissions(dir.join("old"), PermissionsExt::from_mode(0o600)).unwrap()),
    ("owner", |dir| std::os::unix::fs::chown(dir.join("old"), Some(1), Some(1)).unwrap()),
    ("time", |dir| {
        let file = File::open(dir.join("old")).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }),
    ("xattr", |dir| {
        rustix::fs::setxattr(dir.join("old"), "user.a", b"x", XattrFlags::empty()).unwrap();
        rustix::fs::removexattr(dir.join("old"), "user.a").unwrap();
    }),
    ("link", |dir| fs::hard_link(dir.join("old"), dir.join("sub/linked")).unwrap()),
    ("symlink", |dir| std::os::unix::fs::symlink("old", dir.join("s")).unwrap()),
    ("rename", |dir| fs::rename(dir.join("f"), dir.join("g")).unwrap()),
    ("move", |dir| fs::rename(dir.join("g"), dir.join("sub/g")).unwrap()),
    ("rename over", |dir| fs::rename(dir.join("sub/g"), dir.join("sub/linked")).unwrap()),
    ("directory", |dir| fs::create_dir(dir.join("d")).unwrap()),
    ("directory moved", |dir| fs::rename(dir.join("d"), dir.join("sub/d")).unwrap()),
    ("directory removed", |dir| fs::remove_dir(dir.join("sub/d")).unwrap()),
    ("listed", |dir| assert!(fs::read_dir(dir).unwrap().count() > 1)),
    ("unlinked while open", |dir| {
        let mut file = OpenOptions::new().append(true).open(dir.join("old")).unwrap();
        fs::remove_file(dir.join("old")).unwrap();
        file.write_all(b"more").unwrap();
    }),
    ("the end of a watched directory", |dir| fs::remove_dir_all(dir.join("sub")).unwrap()),
];
