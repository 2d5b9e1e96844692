//! Time stamps: what can be set, by whom, and which of them each operation moves.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::fs::{UTIME_NOW, UTIME_OMIT};

use super::actors::{Actor, GROUP, OTHER, ROOT, USER, loner, root_without, user};
use crate::disk::Disk;
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, same_in_every_way};

fn at(seconds: i64, nanos: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanos }
}

fn set(file: &Path, last_access: Timespec, last_modification: Timespec) -> rustix::io::Result<()> {
    let times = Timestamps { last_access, last_modification };
    rustix::fs::utimensat(CWD, file, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Access and modification time as anybody sees them.
fn seen(file: &Path) -> [i64; 4] {
    let meta = fs::symlink_metadata(file).unwrap();
    [meta.atime(), meta.atime_nsec(), meta.mtime(), meta.mtime_nsec()]
}

/// From before the first filesystem to after the last of their ends.
const MOMENTS: [(i64, i64); 16] = [
    (0, 0),
    (0, 1),
    (-1, 999_999_999),
    (-1, 0),
    (-1_000_000_000, 5),
    (-2_147_483_648, 0),
    (-2_147_483_649, 7),
    (1_700_000_000, 123_456_789),
    (2_147_483_647, 999_999_999),
    (2_147_483_648, 0),
    (4_000_000_000, 1),
    (4_294_967_296, 500),
    (15_032_385_535, 3),
    (15_032_385_536, 3),
    (16_299_260_424, 1),
    (253_402_300_800, 9),
];

/// Sets every moment on a file, a directory and a symlink, and reads it back.
fn moments(dir: &Path) -> Vec<String> {
    fs::write(dir.join("f"), "x").unwrap();
    fs::create_dir(dir.join("d")).unwrap();
    std::os::unix::fs::symlink("f", dir.join("l")).unwrap();
    let mut said = Vec::new();
    for name in ["f", "d", "l"] {
        for (seconds, nanos) in MOMENTS {
            let done = set(&dir.join(name), at(seconds, nanos), at(seconds + 1, nanos));
            said.push(format!("{name} {seconds}.{nanos} {done:?} {:?}", seen(&dir.join(name))));
        }
    }
    said
}

#[test]
fn times() {
    same_in_every_way(moments);
}

/// Each filesystem has an end of time of its own, at which it stops.
#[test]
fn times_end_where_the_backing_filesystem_ends_them() {
    if !can_mount() {
        return;
    }
    for (kind, size, mkfs) in [
        ("ext4", 16, &["-q", "-I", "256"][..]),
        ("ext4", 16, &["-q", "-I", "128"]),
        ("xfs", 320, &["-q"]),
        ("xfs", 320, &["-q", "-m", "bigtime=0"]),
        ("btrfs", 200, &["-q"]),
    ] {
        let Some(disk) = Disk::new(kind, size, mkfs, "") else { return };
        let plain = disk.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let expected = moments(&plain);
        let mounted = Mounted::on(&disk.path(), "");
        assert_eq!(moments(&mounted.mountpoint), expected, "{kind} {mkfs:?}");
        mounted.assert_catalog_is_true();
    }
}

#[test]
fn one_time_can_be_set_without_the_other() {
    let omit = at(0, UTIME_OMIT);
    same_in_every_way(|dir| {
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        let mut said = Vec::new();
        for (access, modification) in [
            (at(5, 6), at(7, 8)),
            (omit, at(9, 10)),
            (at(11, 12), omit),
            (omit, omit),
            (at(1, 1_000_000_000), at(1, 0)),
            (at(1, -1), at(1, 0)),
        ] {
            said.push(format!("{:?} {:?}", set(&file, access, modification), seen(&file)));
        }
        // The present is after everything above, and moves only what was asked for.
        let now = at(0, UTIME_NOW);
        set(&file, now, omit).unwrap();
        let [access, _, modification, _] = seen(&file);
        said.push(format!("{} {modification}", access > 1_000_000_000));
        set(&file, at(3, 4), now).unwrap();
        let [access, _, modification, _] = seen(&file);
        said.push(format!("{access} {}", modification > 1_000_000_000));
        // By an open file, and by one that is open for reading only.
        let open = File::open(&file).unwrap();
        let times = Timestamps { last_access: at(21, 1), last_modification: at(22, 2) };
        said.push(format!("{:?} {:?}", rustix::fs::futimens(&open, &times), seen(&file)));
        said
    });
}

/// Sets an access time that any reader would move, because the modification is younger.
fn last_read_long_ago(path: &Path) {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 100_000_000, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 200_000_000, tv_nsec: 0 },
    };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn what_the_catalog_reads_for_itself_keeps_its_access_time() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let mut mounted = Mounted::prepared(options, |dir| {
            fs::create_dir(dir.join("old")).unwrap();
            fs::write(dir.join("old/file"), "x").unwrap();
            last_read_long_ago(&dir.join("old/file"));
            last_read_long_ago(&dir.join("old"));
        });
        mounted.wait_reconciled();
        let atimes = |mounted: &Mounted, names: &[&str]| {
            names.iter().for_each(|name| {
                let atime = fs::metadata(mounted.backing.join(name)).unwrap().atime();
                assert_eq!(atime, 100_000_000, "{name}, {options}");
            });
        };
        atimes(&mounted, &["old", "old/file"]);
        // A file that can be mapped is read after its last close.
        let both = File::options().read(true).write(true).create_new(true).clone();
        let made = File::options().write(true).create_new(true).clone();
        for (name, how) in [("both", both), ("made", made)] {
            let mut file = how.open(mounted.at(name)).unwrap();
            file.write_all(b"some content").unwrap();
            last_read_long_ago(&mounted.at(name));
        }
        // Created, but open for reading only.
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDONLY;
        let mode = rustix::fs::Mode::from_raw_mode(0o644);
        let empty = rustix::fs::open(mounted.at("empty"), flags, mode).unwrap();
        last_read_long_ago(&mounted.at("empty"));
        drop(empty);
        mounted.sync();
        for name in ["both", "made", "empty"] {
            assert_eq!(mounted.digests(name).len(), 1, "{name}, {options}");
        }
        atimes(&mounted, &["both", "made", "empty"]);
        mounted.remount();
        atimes(&mounted, &["old", "old/file", "both", "made", "empty"]);
    }
}

/// Who owns a file sets any time, who may write to it only the present, and others nothing.
#[test]
fn times_are_set_by_who_may() {
    let now = at(0, UTIME_NOW);
    let cases = [
        (now, now),
        (at(5, 0), at(5, 0)),
        (now, at(0, UTIME_OMIT)),
        (at(0, UTIME_OMIT), now),
        (at(5, 0), now),
        (at(0, UTIME_OMIT), at(0, UTIME_OMIT)),
    ];
    let actors = [
        ROOT,
        root_without(rustix::thread::CapabilitySet::FOWNER),
        root_without(rustix::thread::CapabilitySet::all()),
        user(USER),
        loner(OTHER),
    ];
    same_in_every_way(|dir| {
        let mut said = Vec::new();
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        for (uid, gid, mode) in [
            (0, 0, 0o644),
            (USER, USER, 0o600),
            (USER, GROUP, 0o660),
            (0, GROUP, 0o664),
            (0, 0, 0o666),
        ] {
            std::os::unix::fs::chown(&file, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            for (actor, (access, modification)) in
                actors.into_iter().flat_map(|actor: Actor| cases.map(|case| (actor, case)))
            {
                let done = actor.does(|| set(&file, access, modification));
                said.push(format!("{uid}:{gid} {mode:o} {actor:?} {done:?}"));
            }
        }
        said
    });
}

/// Which of a file's times, and of its directory's, an operation has moved.
fn moved(dir: &Path, file: &Path, act: impl FnOnce()) -> String {
    let before = [file, dir].map(|path| fs::symlink_metadata(path).ok());
    // Some kernels have ticks of 10 ms.
    std::thread::sleep(Duration::from_millis(12));
    act();
    let after = [file, dir].map(|path| fs::symlink_metadata(path).ok());
    let letters = before.iter().zip(&after).map(|(before, after)| {
        let (Some(before), Some(after)) = (before, after) else { return "gone".into() };
        let mut letters = String::new();
        for (letter, moved) in [
            ('a', (before.atime(), before.atime_nsec()) != (after.atime(), after.atime_nsec())),
            ('m', (before.mtime(), before.mtime_nsec()) != (after.mtime(), after.mtime_nsec())),
            ('c', (before.ctime(), before.ctime_nsec()) != (after.ctime(), after.ctime_nsec())),
        ] {
            if moved {
                letters.push(letter);
            }
        }
        letters
    });
    letters.collect::<Vec<_>>().join(" of the file, of its directory: ")
}

/// An operation on the file `f` in a directory, which has an open file of it, too.
type Act = fn(&Path, &File);

const ACTS: [(&str, Act); 31] = [
    ("nothing", |_, _| {}),
    ("stat", |dir, _| drop(fs::metadata(dir.join("f")))),
    ("open", |dir, _| drop(File::open(dir.join("f")))),
    ("read", |_, mut file| assert_eq!(file.read(&mut [0; 3]).unwrap(), 3)),
    ("read nothing", |_, mut file| assert_eq!(file.read(&mut []).unwrap(), 0)),
    ("read at the end", |_, file| assert_eq!(file.read_at(&mut [0; 3], 100).unwrap(), 0)),
    ("read by name", |dir, _| drop(fs::read(dir.join("f")).unwrap())),
    ("write", |_, file| file.write_all_at(b"new", 0).unwrap()),
    ("write by name", |dir, _| fs::write(dir.join("f"), "longer than before").unwrap()),
    ("write nothing", |_, file| assert_eq!(file.write_at(b"", 0).unwrap(), 0)),
    ("append", |dir, _| {
        use std::io::Write;
        File::options().append(true).open(dir.join("f")).unwrap().write_all(b"x").unwrap();
    }),
    ("cut", |_, file| file.set_len(2).unwrap()),
    ("grow", |_, file| file.set_len(10_000).unwrap()),
    ("keep", |_, file| file.set_len(7).unwrap()),
    ("cut by an open", |dir, _| drop(File::create(dir.join("f")).unwrap())),
    ("allocate", |_, file| {
        rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 9_000).unwrap();
    }),
    ("allocate beyond", |_, file| {
        rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 9_000, 9_000).unwrap();
    }),
    ("punch", |_, file| {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, how, 0, 3).unwrap();
    }),
    ("map and store", |_, file| Mapping::of(file, 7).store(0, b"mapped!")),
    ("map and load", |_, file| assert_eq!(Mapping::of(file, 7).bytes(), b"content")),
    ("chmod", |dir, _| fs::set_permissions(dir.join("f"), Permissions::from_mode(0o600)).unwrap()),
    ("chown", |dir, _| std::os::unix::fs::chown(dir.join("f"), Some(7), None).unwrap()),
    ("setxattr", |dir, _| {
        rustix::fs::setxattr(dir.join("f"), "user.a", b"b", XattrFlags::empty()).unwrap();
    }),
    ("link", |dir, _| fs::hard_link(dir.join("f"), dir.join("g")).unwrap()),
    ("unlink one of two", |dir, _| {
        fs::hard_link(dir.join("f"), dir.join("h")).unwrap();
        fs::remove_file(dir.join("h")).unwrap();
    }),
    ("rename over itself", |dir, _| fs::rename(dir.join("f"), dir.join("f")).unwrap()),
    ("rename away and back", |dir, _| {
        fs::rename(dir.join("f"), dir.join("i")).unwrap();
        fs::rename(dir.join("i"), dir.join("f")).unwrap();
    }),
    ("create beside", |dir, _| drop(File::create_new(dir.join("j")).unwrap())),
    ("mkdir beside", |dir, _| fs::create_dir(dir.join("k")).unwrap()),
    ("list", |dir, _| assert!(fs::read_dir(dir).unwrap().count() > 0)),
    ("utimens", |dir, _| set(&dir.join("f"), at(1, 2), at(3, 4)).unwrap()),
];

#[test]
fn every_operation_moves_the_times_that_it_moves_anywhere() {
    same_in_every_way(|dir| {
        let mut said = Vec::new();
        for (number, (name, act)) in ACTS.into_iter().enumerate() {
            // Read before or not: where `relatime` rules, an access counts once.
            for read_before in [false, true] {
                let dir = dir.join(format!("{number}-{read_before}"));
                fs::create_dir(&dir).unwrap();
                let file = dir.join("f");
                fs::write(&file, "content").unwrap();
                let open = File::options().read(true).write(true).open(&file).unwrap();
                if read_before {
                    set(&file, at(2_000_000_000, 0), at(1_000_000_000, 0)).unwrap();
                }
                let moved = moved(&dir, &file, || act(&dir, &open));
                said.push(format!("{name}, read before: {read_before}: {moved}"));
            }
        }
        said
    });
}

#[test]
fn reading_without_access_times_moves_none() {
    same_in_every_way(|dir| {
        let file = dir.join("f");
        fs::write(&file, "content").unwrap();
        set(&file, at(5, 0), at(5, 0)).unwrap();
        let read = |flags: OFlags| {
            let fd = rustix::fs::open(&file, OFlags::RDONLY | flags, Mode::empty()).unwrap();
            rustix::io::read(&fd, &mut [0; 3]).unwrap();
            drop(fd);
            fs::metadata(&file).unwrap().atime() == 5
        };
        (read(OFlags::NOATIME), read(OFlags::empty()))
    });
}

/// What else `statx` tells, and the one thing that it does not: when a file was born.
#[test]
fn birth_times_are_not_told() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        fs::write(mounted.at("f"), vec![1; 70_000]).unwrap();
        let flags = rustix::fs::StatxFlags::ALL;
        let ask = |path: &Path| rustix::fs::statx(CWD, path, AtFlags::empty(), flags).unwrap();
        let (plain, seen) = (ask(&mounted.backing.join("f")), ask(&mounted.at("f")));
        let btime = rustix::fs::StatxFlags::BTIME.bits();
        assert_ne!(plain.stx_mask & btime, 0, "{way}");
        assert_eq!(seen.stx_mask & btime, 0, "{way}");
        let basic = rustix::fs::StatxFlags::BASIC_STATS.bits();
        assert_eq!(seen.stx_mask & basic, basic, "{way}");
        assert_eq!((seen.stx_ino, seen.stx_size), (plain.stx_ino, plain.stx_size), "{way}");
        // The kernel has room for a power of two only; ZFS has others.
        let blksize = 1 << plain.stx_blksize.ilog2();
        assert_eq!((seen.stx_blocks, seen.stx_blksize), (plain.stx_blocks, blksize), "{way}");
        assert_eq!((seen.stx_nlink, seen.stx_mode), (plain.stx_nlink, plain.stx_mode), "{way}");
    }
}
