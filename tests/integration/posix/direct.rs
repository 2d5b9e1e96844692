//! `O_DIRECT`: what is aligned passes, what is not fails as on the backing filesystem.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::disk::Disk;
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, same_as_plain, same_in_every_way, same_in_every_way_on, sha256};

const SIZE: usize = 64 << 10;

fn open_direct(path: &Path, read: bool) -> File {
    let mut open = OpenOptions::new();
    open.write(true).read(read).create(true).truncate(false);
    open.custom_flags(libc::O_DIRECT).open(path).unwrap()
}

type Result = std::result::Result<usize, Option<i32>>;

fn outcome(result: std::io::Result<usize>) -> Result {
    result.map_err(|error| error.raw_os_error())
}

/// Writes and reads with ranges that are aligned and that are not, from memory at `at`.
fn ranges(dir: &Path, at: usize) -> (Vec<Result>, Vec<u8>) {
    let memory = Mapping::anonymous(SIZE * 2);
    memory.store(0, &noise(1, SIZE * 2));
    let ranges = [
        (0, SIZE),
        (SIZE, 4_096),
        (0, 512),
        (512, 512),
        (1_536, 1_024),
        (0, 100),
        (0, 1),
        (100, 4_096),
        (1, 511),
        (4_096, 4_095),
        (4_095, 1),
        (1 << 26, 4_096),
    ];
    let mut seen = Vec::new();
    for read in [true, false] {
        let name = format!("f{read}");
        let file = open_direct(&dir.join(&name), read);
        for (offset, length) in ranges {
            let bytes = &memory.bytes()[at..at + length];
            seen.push(outcome(file.write_at(bytes, offset as u64)));
        }
        drop(file);
        let cut = File::options().write(true).open(dir.join(&name)).unwrap();
        cut.set_len(SIZE as u64 + 777).unwrap();
    }
    for read in [open_direct(&dir.join("ftrue"), true), {
        let mut open = OpenOptions::new();
        open.read(true).custom_flags(libc::O_DIRECT).open(dir.join("ftrue")).unwrap()
    }] {
        for (offset, length) in ranges.into_iter().chain([(SIZE, SIZE)]) {
            let mut into = Mapping::anonymous(SIZE * 2);
            seen.push(outcome(read.read_at(&mut into.bytes_mut()[at..at + length], offset as u64)));
        }
    }
    (seen, [fs::read(dir.join("ftrue")).unwrap(), fs::read(dir.join("ffalse")).unwrap()].concat())
}

#[test]
fn ranges_are_held_to_the_same_alignment() {
    same_in_every_way(|dir| ranges(dir, 0));
}

#[rstest]
fn ranges_are_held_to_the_same_alignment_on(#[values("ext4", "xfs", "btrfs")] kind: &str) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new(kind, 320, &["-q"], "") else { return };
    same_in_every_way_on(&disk.path(), |dir| ranges(dir, 0));
}

#[test]
fn ranges_are_held_to_the_same_alignment_on_tmpfs() {
    if !can_mount() {
        return;
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    same_in_every_way_on(memory.path(), |dir| (ranges(dir, 0), ranges(dir, 1)));
}

#[rstest]
fn memory_is_held_to_the_same_alignment_where_the_kernel_serves(
    #[values("io=auto", "io=stream", "io=passthrough")] options: &str,
    #[values(512, 1)] at: usize,
) {
    same_as_plain(options, |dir| {
        let memory = Mapping::anonymous(SIZE);
        let file = open_direct(&dir.join("f"), true);
        let written = outcome(file.write_at(&memory.bytes()[at..at + 4_096], 0));
        file.set_len(4_096).unwrap();
        let mut into = Mapping::anonymous(SIZE);
        (written, outcome(file.read_at(&mut into.bytes_mut()[at..at + 4_096], 0)))
    });
}

#[rstest]
#[case("io=auto", false)]
#[case("passthrough=off", true)]
fn memory_may_lie_anywhere_where_the_daemon_serves(#[case] options: &str, #[case] read: bool) {
    if !can_mount() {
        return;
    }
    // The daemon gets the bytes and cannot know where they lay.
    let mounted = Mounted::with_options(options);
    let mut memory = Mapping::anonymous(SIZE);
    memory.store(1, &noise(1, 4_096));
    let file = open_direct(&mounted.at("f"), read);
    assert_eq!(file.write_at(&memory.bytes()[1..4_097], 0).unwrap(), 4_096);
    if read {
        assert_eq!(file.read_at(&mut memory.bytes_mut()[3..4_099], 0).unwrap(), 4_096);
        assert_eq!(memory.bytes()[3..4_099], noise(1, 4_096));
    }
    drop(file);
    assert_eq!(mounted.digests("f"), [sha256(noise(1, 4_096))]);
}

#[rstest]
fn long_requests_pass_wherever_they_begin_in_a_page(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(0, 512)] at: usize,
) {
    const LONG: usize = 3 << 20;
    same_as_plain(options, |dir| {
        let mut memory = Mapping::anonymous(LONG + 4_096);
        memory.store(at, &noise(1, LONG));
        let path = dir.join("f");
        let file = open_direct(&path, false);
        let written = outcome(file.write_at(&memory.bytes()[at..at + LONG], 0));
        drop(file);
        assert_eq!(sha256(fs::read(&path).unwrap()), sha256(noise(1, LONG)));
        let mut open = OpenOptions::new();
        let file = open.read(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        memory.fill(0);
        let read = outcome(file.read_at(&mut memory.bytes_mut()[at..at + LONG], 0));
        assert_eq!(sha256(&memory.bytes()[at..at + LONG]), sha256(noise(1, LONG)));
        (written, read)
    });
}

/// What comes of misaligned writes while `O_DIRECT` is switched off, and on again.
fn switched(dir: &Path, read: bool) -> Vec<Result> {
    let memory = Mapping::anonymous(SIZE);
    memory.store(0, &noise(1, SIZE));
    let file = open_direct(&dir.join("f"), read);
    let direct = fcntl_getfl(&file).unwrap();
    assert!(direct.contains(OFlags::DIRECT));
    let mut seen = vec![outcome(file.write_at(memory.bytes(), 0))];
    for flags in [direct - OFlags::DIRECT, direct] {
        fcntl_setfl(&file, flags).unwrap();
        seen.push(outcome(file.write_at(&memory.bytes()[..100], SIZE as u64)));
        seen.push(outcome(file.write_at(&memory.bytes()[..4_096], 4_096)));
    }
    seen
}

#[rstest]
fn direct_io_is_switched_off_by_fcntl_where_only_written(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    same_as_plain(options, |dir| (switched(dir, false), sha256(fs::read(dir.join("f")).unwrap())));
}

#[test]
fn direct_io_is_switched_off_by_fcntl_where_the_daemon_serves() {
    same_as_plain("passthrough=off", |dir| switched(dir, true));
}

#[rstest]
fn direct_io_stays_where_the_kernel_reads_and_writes(
    #[values("io=auto", "io=stream", "io=passthrough")] options: &str,
) {
    if !can_mount() {
        return;
    }
    // The kernel opens the backing file for itself, and fcntl does not reach that.
    let mounted = Mounted::with_options(options);
    let plain = switched(mounted.backing.parent().unwrap(), true);
    let seen = switched(&mounted.mountpoint, true);
    let misaligned = plain[3];
    assert_eq!(seen, [Ok(SIZE), misaligned, Ok(4_096), misaligned, Ok(4_096)]);
    if options == "io=stream" {
        return;
    }
    // Nor is it switched on later: what is not aligned passes then.
    let file = File::options().read(true).write(true).open(mounted.at("f")).unwrap();
    fcntl_setfl(&file, fcntl_getfl(&file).unwrap() | OFlags::DIRECT).unwrap();
    assert_eq!(outcome(file.write_at(&[1; 100], 100)), Ok(100));
    drop(file);
    mounted.assert_catalog_is_true();
}

#[rstest]
fn dd_copies_files_whose_last_block_is_short(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values("fsync", "notrunc")] conv: &str,
) {
    same_as_plain(options, |dir| {
        let source = dir.join("source");
        fs::write(&source, noise(1, 1_000_001)).unwrap();
        let status = Command::new("dd")
            .args(["if=source", "of=copy", "bs=64k", "iflag=direct", "oflag=direct"])
            .args([&format!("conv={conv}"), "status=none"])
            .current_dir(dir)
            .status();
        (status.unwrap().success(), sha256(fs::read(dir.join("copy")).unwrap()))
    });
}
