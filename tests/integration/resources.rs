//! What the daemon takes, and that it gives it back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, noise, sha256};

const MIB: u64 = 1 << 20;

impl Mounted {
    /// Descriptors of the daemon.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Resident memory of the daemon in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// Waits until the daemon has given back all but `slack` of what it took since `before`.
    fn wait_for_memory(&self, before: u64, slack: u64) {
        self.wait_for("memory given back", || self.memory() < before + slack);
    }
}

/// Has the kernel forget names and inodes that nobody uses.
fn forget() {
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
}

/// `HORACE_SCALE` is the number of files; a million takes minutes.
#[test]
fn a_walk_over_a_directory_of_many_files_is_bounded() {
    const CAP: usize = 500;
    if !can_mount() {
        return;
    }
    let files = std::env::var("HORACE_SCALE").map_or(200_000, |text| text.parse().unwrap());
    let mounted = Mounted::prepared(&format!("descriptors={CAP}"), |dir| {
        for n in 0..files {
            File::create(dir.join(format!("file-{n}"))).unwrap();
        }
    });
    mounted.wait_up_to(Duration::from_secs(600), "end of the reconcile", || {
        mounted.status()["reconcile"]["state"] == "done"
    });
    let (descriptors, memory) = (mounted.descriptors(), mounted.memory());
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&mounted.mountpoint).unwrap() {
        assert!(names.insert(entry.unwrap().file_name()), "no name comes twice");
    }
    assert_eq!(names.len(), files);
    for (n, name) in names.iter().enumerate() {
        let (there, here) = (mounted.backing.join(name), mounted.at(name));
        let here = fs::metadata(here).unwrap();
        if n % 1_000 == 0 {
            assert_eq!(here.ino(), fs::metadata(there).unwrap().ino());
            // Some more for what is being asked at the moment.
            assert!(mounted.descriptors() <= descriptors + CAP + 20);
        }
    }
    drop(names);
    let known = mounted.status()["nodes"].as_u64().unwrap();
    // The kernel itself may have forgotten some meanwhile.
    assert!(known > files as u64 / 2, "{known}");
    let taken = mounted.memory();
    assert!(taken < 400 * MIB, "{} MiB", taken / MIB);
    assert!(taken.saturating_sub(memory) / known < 320, "{} MiB", taken / MIB);
    forget();
    mounted.wait_for("forgetting", || mounted.status()["nodes"] == 0);
    assert!(mounted.descriptors() <= descriptors + 4);
    mounted.wait_for_memory(memory, 24 * MIB);
}

#[test]
fn opens_and_closes_leave_nothing_behind() {
    const ROUNDS: u32 = 34_000;
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        fs::write(mounted.at("read"), "read").unwrap();
        let round = |n: u32| {
            let mut text = String::new();
            File::open(mounted.at("read")).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "read");
            drop(File::options().read(true).write(true).open(mounted.at("read")).unwrap());
            assert!(fs::read_dir(&mounted.mountpoint).unwrap().count() >= 1);
            if n.is_multiple_of(10) {
                fs::write(mounted.at("write"), n.to_le_bytes()).unwrap();
                fs::remove_file(mounted.at("write")).unwrap();
            }
        };
        (0..ROUNDS / 5).for_each(round);
        mounted.sync();
        mounted.wait_for("release of every file", || mounted.status()["open_files"] == 0);
        let (descriptors, memory) = (mounted.descriptors(), mounted.memory());
        (0..ROUNDS).for_each(round);
        mounted.sync();
        mounted.wait_for("release of every file", || mounted.status()["open_files"] == 0);
        assert!(mounted.descriptors() <= descriptors + 4, "{way}");
        mounted.wait_for_memory(memory, 16 * MIB);
        assert!(mounted.status()["nodes"].as_u64().unwrap() < 10, "{way}");
        assert_eq!(mounted.digests("read"), [sha256("read")], "{way}");
    }
}

#[test]
fn more_open_files_than_descriptors_are_an_error_and_no_end() {
    const FILES: u64 = 400;
    if !can_mount() || !have(&["prlimit"]) {
        return;
    }
    for way in WAYS {
        let mut mounted = Mounted::unmounted(way);
        mounted.start_with_limit(512);
        for n in 0..FILES {
            fs::write(mounted.at(format!("f{n}")), noise(n, 100)).unwrap();
        }
        let open = |n| File::options().append(true).open(mounted.at(format!("f{n}")));
        let mut files: Vec<_> = (0..FILES).map_while(|n| open(n).ok()).collect();
        let count = files.len() as u64;
        assert!(count > 150 && count < FILES, "{way}: {count}");
        let refused = [
            open(399).unwrap_err(),
            File::create(mounted.at("new")).unwrap_err(),
            fs::read_dir(&mounted.mountpoint).unwrap_err(),
        ];
        assert!(refused.iter().all(|e| e.raw_os_error() == Some(libc::ENFILE)), "{refused:?}");
        assert!(!mounted.at("new").exists());
        // Who has a file open goes on, and so does everything else.
        for file in &mut files {
            file.write_all(b"more").unwrap();
        }
        fs::rename(mounted.at("f399"), mounted.at("moved")).unwrap();
        assert!(mounted.status()["degraded"].is_null());
        drop(files);
        mounted.wait_for("room", || open(398).is_ok());
        for n in 0..count {
            let contents = [noise(n, 100), [noise(n, 100), b"more".to_vec()].concat()];
            assert_eq!(mounted.digests(&format!("f{n}")), contents.map(sha256), "{way}");
        }
        mounted.assert_catalog_is_true();
    }
}
