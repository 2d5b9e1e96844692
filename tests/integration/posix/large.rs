//! Large files, and offsets up to the last that there is.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rstest::rstest;
use rustix::fs::FallocateFlags;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, noise, python_in, same_in_every_way, sha256};

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn code<T>(result: std::io::Result<T>) -> Result<T, Option<i32>> {
    result.map_err(|error| error.raw_os_error())
}

#[test]
fn files_beyond_4_gib_are_read_and_written() {
    same_in_every_way(|dir| {
        const FAR: u64 = (1 << 32) + 12_345;
        let path = dir.join("f");
        let mut file = open(&path);
        file.write_all_at(&noise(1, 100_000), FAR).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        let mut end = vec![0; 100_000];
        file.seek(SeekFrom::Start(FAR)).unwrap();
        file.read_exact(&mut end).unwrap();
        assert_eq!(end, noise(1, 100_000));
        file.write_all(b"and on").unwrap();
        let mut appender = OpenOptions::new().append(true).open(&path).unwrap();
        appender.write_all(b"appended").unwrap();
        let meta = fs::metadata(&path).unwrap();
        let at = [file.stream_position().unwrap(), appender.stream_position().unwrap()];
        // What is cut off there need not be read as a whole for the catalog.
        file.set_len((1 << 32) + 1).unwrap();
        let short = fs::metadata(&path).unwrap();
        file.set_len(1 << 20).unwrap();
        (meta.len(), meta.blocks() < 1_000, at, short.len())
    });
}

#[test]
fn offsets_beyond_all_files_are_refused() {
    same_in_every_way(|dir| {
        let path = dir.join("f");
        let file = open(&path);
        file.write_all_at(b"content", 0).unwrap();
        let mut seen = Vec::new();
        // The last of all, and the first that a file of 16 TiB does not have.
        for offset in [i64::MAX as u64, i64::MAX as u64 - 1, i64::MAX as u64 - 4_096, 1 << 50] {
            let written = code(file.write_at(b"ab", offset));
            let read = code(file.read_at(&mut [0; 2], offset));
            let cut = [code(file.set_len(offset)), code(set_length(&path, offset))];
            let allocated =
                |from, length| rustix::fs::fallocate(&file, FallocateFlags::empty(), from, length);
            let punched = rustix::fs::fallocate(
                &file,
                FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                offset,
                10,
            );
            let allocated = [allocated(offset, 10), allocated(10, offset)];
            let copied = rustix::fs::copy_file_range(
                &file,
                Some(&mut 0),
                &file,
                Some(&mut offset.clone()),
                7,
            );
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(offset));
            // On tmpfs the plain directory says one more than there can be.
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(offset));
            let hole = hole.map(|at| at.min(i64::MAX as u64));
            seen.push((offset, written, read, cut, allocated, punched, copied, data, hole));
            // Some filesystems have files that large.
            file.set_len(7).unwrap();
        }
        (seen, fs::read(&path).unwrap())
    });
}

fn set_length(path: &Path, length: u64) -> std::io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_len(length)
}

#[test]
fn a_position_may_lie_where_no_byte_can() {
    if !can_mount() {
        return;
    }
    // The kernel keeps positions by itself and does not ask what the backing filesystem's largest
    // file is; the write fails instead.
    let mounted = Mounted::new();
    let mut file = open(&mounted.at("f"));
    assert_eq!(file.seek(SeekFrom::Start(i64::MAX as u64)).unwrap(), i64::MAX as u64);
    assert!(matches!(code(file.write(b"x")), Err(Some(libc::EFBIG | libc::EINVAL))));
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[test]
fn limits_of_the_file_size_are_those_of_the_caller() {
    if !have(&["python3"]) {
        return;
    }
    same_in_every_way(|dir| {
        python_in(
            dir,
            r"
import errno, os, resource, signal
OPENS = {'stream': os.O_WRONLY | os.O_TRUNC, 'both': os.O_RDWR, 'append': os.O_WRONLY | os.O_APPEND}
for name, flags in OPENS.items():
    for action in (signal.SIG_IGN, signal.SIG_DFL):
        open(name, 'w').close()
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
            signal.signal(signal.SIGXFSZ, action)
            file = os.open(name, flags)
            seen = [tried(os.write, file, b'x' * 8000) for part in range(2)]
            print(name, seen, flush=True)
            print(tried(os.write, file, b'x'), flush=True)
            print(tried(os.ftruncate, file, 20000), tried(os.truncate, name, 20000), flush=True)
            print(tried(os.posix_fallocate, file, 0, 20000), flush=True)
            os._exit(0)
        print(os.WTERMSIG(os.waitpid(child, 0)[1]), os.stat(name).st_size, flush=True)
",
        )
    });
}

#[rstest]
fn nobody_waits_for_the_digest_of_a_file_that_is_all_hole(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(false, true)] read: bool,
) {
    if !can_mount() {
        return;
    }
    // Reading all of it would take a core more than an hour.
    const SIZE: u64 = 8 << 40;
    let mounted = Mounted::with_options(options);
    let path = mounted.at("f");
    let mut file =
        OpenOptions::new().create(true).write(true).read(read).truncate(true).open(&path);
    file.as_mut().unwrap().write_all(b"start").unwrap();
    file.unwrap().set_len(SIZE).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), meta.blocks() < 1_000), (SIZE, true));
    let file = OpenOptions::new().write(true).read(read).open(&path).unwrap();
    file.write_all_at(b"more", SIZE - 4).unwrap();
    drop(file);
    set_length(&path, 5).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"start");
    mounted.wait_for("a true digest", || mounted.digests("f").last() == Some(&sha256("start")));
    mounted.assert_catalog_is_true();
}

#[test]
fn nobody_waits_for_files_that_stay_all_hole() {
    if !can_mount() {
        return;
    }
    // More of them than threads that read.
    const HOLES: usize = 12;
    let mut mounted = Mounted::new();
    for n in 0..HOLES {
        let mut file = fs::File::create(mounted.at(format!("hole{n}"))).unwrap();
        file.write_all(b"start").unwrap();
        file.set_len(8 << 40).unwrap();
    }
    let large = crate::tools::noise(1, 3 << 20);
    fs::write(mounted.at("large"), "").unwrap();
    let mut file = OpenOptions::new().append(true).open(mounted.at("large")).unwrap();
    file.write_all(&large).unwrap();
    drop(file);
    mounted.sync();
    assert_eq!(mounted.digests("large").last(), Some(&sha256(&large)));
    let output = mounted.run(&["manifest", "."]);
    assert_eq!(output.status.code(), Some(3), "{}", crate::tools::told(&output));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), HOLES);
    // What is replaced or deleted says that it is not kept, also what grew since somebody deleted it.
    fs::remove_file(mounted.at("hole0")).unwrap();
    fs::write(mounted.at("hole1"), "small").unwrap();
    let file = OpenOptions::new().write(true).open(mounted.at("large")).unwrap();
    fs::remove_file(mounted.at("large")).unwrap();
    file.set_len(8 << 40).unwrap();
    drop(file);
    for name in ["hole0", "hole1"] {
        let first = mounted.log_of(name).remove(0);
        assert_eq!(first["content_reason"], "too-large", "{name}: {first}");
    }
    // What comes later is kept all the same.
    fs::write(mounted.at("late"), "late").unwrap();
    fs::remove_file(mounted.at("late")).unwrap();
    mounted.wait_for("what is kept", || mounted.ok(&["cat", "late"]) == "late");
    // The end waits for nobody either, nor does the next start.
    let began = std::time::Instant::now();
    mounted.remount();
    mounted.ok(&["reconcile"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}
