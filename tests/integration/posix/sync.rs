//! What was synced is on the disk: the disk's image, as it is at that moment, has it.

use std::fs::{self, File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::{ReadWriteFlags, pwritev2};

use crate::disk::Disk;
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, noise};

const SIZE: usize = 100_000;

fn open(path: &Path, flags: i32) -> File {
    let mut open = OpenOptions::new();
    open.read(true).write(true).create(true).truncate(false).custom_flags(flags);
    open.open(path).unwrap()
}

fn create(path: &Path, flags: i32) -> File {
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).custom_flags(flags).open(path).unwrap()
}

type Sync = fn(&Path);

/// Ways to make a file with its content last.
const SYNCS: &[(&str, Sync)] = &[
    ("fsync", |path| {
        let mut file = File::create(path).unwrap();
        file.write_all(&noise(1, SIZE)).unwrap();
        file.sync_all().unwrap();
    }),
    ("fdatasync", |path| {
        let file = open(path, 0);
        file.write_all_at(&noise(1, SIZE), 0).unwrap();
        file.sync_data().unwrap();
    }),
    ("fsync of a reader", |path| {
        fs::write(path, noise(1, SIZE)).unwrap();
        File::open(path).unwrap().sync_all().unwrap();
    }),
    ("O_SYNC", |path| create(path, libc::O_SYNC).write_all(&noise(1, SIZE)).unwrap()),
    ("O_DSYNC", |path| open(path, libc::O_DSYNC).write_all_at(&noise(1, SIZE), 0).unwrap()),
    ("O_DSYNC and O_APPEND", |path| {
        let mut open = OpenOptions::new();
        let file = open.append(true).create(true).custom_flags(libc::O_DSYNC).open(path);
        file.unwrap().write_all(&noise(1, SIZE)).unwrap();
    }),
    ("O_DSYNC and O_DIRECT", |path| {
        let memory = Mapping::anonymous(SIZE.next_multiple_of(4_096));
        memory.store(0, &noise(1, SIZE));
        let file = create(path, libc::O_DSYNC | libc::O_DIRECT);
        assert_eq!(file.write_at(memory.bytes(), 0).unwrap(), memory.bytes().len());
        file.set_len(SIZE as u64).unwrap();
        file.sync_all().unwrap();
    }),
    ("RWF_DSYNC", |path| {
        let bytes = noise(1, SIZE);
        pwritev2(create(path, 0), &[IoSlice::new(&bytes)], 0, ReadWriteFlags::DSYNC).unwrap();
    }),
    ("RWF_SYNC", |path| {
        let bytes = noise(1, SIZE);
        pwritev2(open(path, 0), &[IoSlice::new(&bytes)], 0, ReadWriteFlags::SYNC).unwrap();
    }),
    ("msync", |path| {
        let file = open(path, 0);
        file.set_len(SIZE as u64).unwrap();
        let mapping = Mapping::of(&file, SIZE);
        mapping.store(0, &noise(1, SIZE));
        mapping.sync();
    }),
    ("fsync and rename", |path| {
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary).unwrap();
        file.write_all(&noise(1, SIZE)).unwrap();
        file.sync_all().unwrap();
        fs::rename(&temporary, path).unwrap();
        File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
    }),
    ("sync", |path| {
        fs::write(path, noise(1, SIZE)).unwrap();
        rustix::fs::sync();
    }),
];

/// What a file is on a disk if the power is cut now.
fn after_a_power_cut(disk: &Disk, path: &str) -> Option<Vec<u8>> {
    let copy = disk.copy();
    fs::read(copy.path().join(path)).ok()
}

#[test]
fn what_is_synced_survives_a_power_cut() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let Some(disk) = Disk::new("ext4", 32, &["-q"], "commit=600") else { return };
        let state = tempfile::tempdir().unwrap();
        let options = format!("{options},state={}", state.path().display());
        let mounted = Mounted::on(&disk.path(), &options);
        for (n, (what, sync)) in SYNCS.iter().enumerate() {
            let name = format!("backing/f{n}");
            // What nobody syncs shows that it is not the copy which makes things last.
            if *what != "sync" {
                fs::write(mounted.at(format!("unsynced{n}")), noise(n as u64, SIZE)).unwrap();
            }
            sync(&mounted.at(format!("f{n}")));
            let copy = disk.copy();
            let there = fs::read(copy.path().join(&name)).ok();
            assert!(there == Some(noise(1, SIZE)), "{options}: {what} is not on the disk");
            if *what != "sync" {
                let unsynced = fs::read(copy.path().join(format!("backing/unsynced{n}")));
                let proves = unsynced.unwrap_or_default() != noise(n as u64, SIZE);
                assert!(proves, "{options}: {what} proves nothing");
            }
        }
        mounted.assert_catalog_is_true();
    }
}

#[test]
fn syncfs_does_not_get_through_to_the_disk() {
    if !can_mount() {
        return;
    }
    // The kernel keeps it to itself for filesystems like this one.
    let Some(disk) = Disk::new("ext4", 32, &["-q"], "commit=600") else { return };
    let state = tempfile::tempdir().unwrap();
    let mounted = Mounted::on(&disk.path(), &format!("state={}", state.path().display()));
    fs::write(mounted.at("f"), noise(1, SIZE)).unwrap();
    rustix::fs::syncfs(File::open(&mounted.mountpoint).unwrap()).unwrap();
    assert_ne!(after_a_power_cut(&disk, "backing/f"), Some(noise(1, SIZE)));
    // On the backing directory it does what it says.
    rustix::fs::syncfs(File::open(&mounted.backing).unwrap()).unwrap();
    assert_eq!(after_a_power_cut(&disk, "backing/f"), Some(noise(1, SIZE)));
}

#[test]
fn a_synchronous_mount_waits_for_every_write() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let Some(disk) = Disk::new("ext4", 32, &["-q"], "commit=600") else { return };
        let state = tempfile::tempdir().unwrap();
        let options = format!("sync,{options},state={}", state.path().display());
        let mounted = Mounted::on(&disk.path(), &options);
        let files = [
            create(&mounted.at("stream"), 0),
            open(&mounted.at("both"), 0),
            OpenOptions::new().append(true).create(true).open(mounted.at("append")).unwrap(),
        ];
        for file in &files {
            assert_eq!(file.write_at(&noise(1, SIZE), 0).unwrap(), SIZE);
        }
        let copy = disk.copy();
        for name in ["stream", "both", "append"] {
            let there = fs::read(copy.path().join("backing").join(name)).unwrap();
            assert!(there == noise(1, SIZE), "{options}: {name}");
        }
    }
}
