//! A digest in the catalog is that of the bytes in the file, whichever way they came there.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rstest::rstest;
use rustix::fs::FallocateFlags;

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, noise, sha256, sha256_of};

fn writable(path: &Path) -> File {
    OpenOptions::new().create(true).write(true).truncate(false).open(path).unwrap()
}

fn readable(path: &Path) -> File {
    OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path).unwrap()
}

fn appending(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// `truncate(2)`: without opening the file.
#[expect(unsafe_code, reason = "rustix has it for open files only")]
pub(crate) fn truncate(path: &Path, size: i64) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the string ends with a NUL and lives through the call.
    assert_eq!(unsafe { libc::truncate(path.as_ptr(), size) }, 0);
}

fn allocate(file: &File, mode: FallocateFlags, offset: u64, length: u64) -> bool {
    match rustix::fs::fallocate(file, mode, offset, length) {
        Ok(()) => true,
        // Not every backing filesystem has every mode.
        Err(rustix::io::Errno::OPNOTSUPP) => false,
        Err(error) => panic!("{error}"),
    }
}

fn one_stream(f: &Path) {
    let mut file = File::create(f).unwrap();
    for n in 0..100 {
        file.write_all(&noise(n, 777)).unwrap();
    }
}

fn a_large_stream(f: &Path) {
    fs::write(f, noise(1, 9_000_001)).unwrap();
}

fn nothing(f: &Path) {
    drop(File::create(f).unwrap());
}

fn appends(f: &Path) {
    for n in 0..20 {
        appending(f).write_all(&noise(n, 300)).unwrap();
    }
}

fn large_appends(f: &Path) {
    for n in 0..3 {
        appending(f).write_all(&noise(n, 1_500_000)).unwrap();
    }
}

fn appends_after_a_change_inside(f: &Path) {
    fs::write(f, noise(1, 5_000)).unwrap();
    appending(f).write_all(b"end").unwrap();
    writable(f).write_at(b"inside", 100).unwrap();
    appending(f).write_all(b"end").unwrap();
}

fn random_offsets(f: &Path) {
    let file = writable(f);
    for n in 0..200_u64 {
        file.write_at(&noise(n, 100), (n * 7_919) % 100_000).unwrap();
    }
}

fn backwards(f: &Path) {
    let file = File::create(f).unwrap();
    for n in (0..50_u64).rev() {
        file.write_at(&noise(n, 100), n * 100).unwrap();
    }
}

fn the_same_range_twice(f: &Path) {
    let file = File::create(f).unwrap();
    file.write_at(&noise(1, 5_000), 0).unwrap();
    file.write_at(&noise(2, 3_000), 1_000).unwrap();
}

fn two_writers_at_once(f: &Path) {
    std::thread::scope(|scope| {
        for n in 0..2_u64 {
            let file = writable(f);
            scope.spawn(move || {
                for i in 0..200_u64 {
                    file.write_at(&noise(n * 1_000 + i, 512), (2 * i + n) * 512).unwrap();
                }
            });
        }
    });
}

fn two_writers_that_close_in_turn(f: &Path) {
    let (first, second) = (File::create(f).unwrap(), writable(f));
    first.write_at(b"aaaa", 0).unwrap();
    second.write_at(b"bbbb", 2).unwrap();
    drop(first);
    second.write_at(b"cc", 0).unwrap();
    drop(second);
}

fn an_appender_beside_a_writer(f: &Path) {
    let (mut first, mut second) = (File::create(f).unwrap(), appending(f));
    for n in 0..50 {
        first.write_all(&noise(n, 10)).unwrap();
        second.write_all(&noise(n, 20)).unwrap();
    }
}

fn truncates(f: &Path) {
    fs::write(f, noise(1, 10_000)).unwrap();
    truncate(f, 4_000);
    truncate(f, 9_000);
    truncate(f, 0);
    truncate(f, 3_000_000);
}

fn truncates_of_the_open_file(f: &Path) {
    let mut file = File::create(f).unwrap();
    file.write_all(&noise(1, 10_000)).unwrap();
    file.set_len(5_000).unwrap();
    file.write_all(&noise(2, 10)).unwrap();
    file.set_len(20_000).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(&noise(3, 10)).unwrap();
}

fn truncated_to_what_was_written(f: &Path) {
    let mut file = File::create(f).unwrap();
    file.write_all(&noise(1, 1_000)).unwrap();
    file.set_len(1_000).unwrap();
    file.write_all(&noise(2, 1_000)).unwrap();
    file.set_len(2_000).unwrap();
}

fn truncated_by_another(f: &Path) {
    let mut file = File::create(f).unwrap();
    file.write_all(&noise(1, 10_000)).unwrap();
    truncate(f, 100);
    file.write_all(&noise(2, 10)).unwrap();
}

fn holes(f: &Path) {
    let file = File::create(f).unwrap();
    file.write_at(b"end", 1_000_000).unwrap();
    file.write_at(b"middle", 500_000).unwrap();
    file.set_len(2_000_000).unwrap();
}

fn allocated(f: &Path) {
    let file = File::create(f).unwrap();
    file.write_at(b"start", 0).unwrap();
    allocate(&file, FallocateFlags::empty(), 0, 300_000);
    allocate(&file, FallocateFlags::KEEP_SIZE, 300_000, 300_000);
}

fn holes_punched(f: &Path) {
    let file = writable(f);
    file.write_at(&noise(1, 300_000), 0).unwrap();
    allocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4_096, 100_000);
    drop(file);
    // And alone in its session.
    let file = writable(f);
    allocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 200_000, 50_000);
    allocate(&file, FallocateFlags::ZERO_RANGE, 150_000, 10);
}

fn copied_ranges(f: &Path) {
    let source = f.with_file_name("source");
    fs::write(&source, noise(1, 100_000)).unwrap();
    let (source, file) = (File::open(source).unwrap(), writable(f));
    for (mut from, mut to) in [(0, 0), (50_000, 10_000), (10, 60_000)] {
        let copied =
            rustix::fs::copy_file_range(&source, Some(&mut from), &file, Some(&mut to), 40_000);
        assert_eq!(copied, Ok(40_000));
    }
    drop(file);
    let file = readable(f);
    let (mut from, mut to) = (0, 200_000);
    rustix::fs::copy_file_range(&file, Some(&mut from), &file, Some(&mut to), 40_000).unwrap();
}

fn sent_by_the_kernel(f: &Path) {
    let source = f.with_file_name("source");
    fs::write(&source, noise(1, 300_000)).unwrap();
    let (source, file) = (File::open(source).unwrap(), File::create(f).unwrap());
    let mut offset = 0;
    while rustix::fs::sendfile(&file, &source, Some(&mut offset), 1 << 20).unwrap() > 0 {}
}

fn rewritten(f: &Path) {
    for n in 0..5 {
        fs::write(f, noise(n, 1_000 * (6 - usize::try_from(n).unwrap()))).unwrap();
    }
}

fn rewritten_while_open(f: &Path) {
    let mut first = File::create(f).unwrap();
    first.write_all(&noise(1, 10_000)).unwrap();
    let mut second = File::create(f).unwrap();
    second.write_all(&noise(2, 100)).unwrap();
    drop(second);
    first.write_all(&noise(3, 10)).unwrap();
}

fn duplicated(f: &Path) {
    let mut file = File::create(f).unwrap();
    let mut other = file.try_clone().unwrap();
    for n in 0..20 {
        file.write_all(&noise(n, 100)).unwrap();
        other.write_all(&noise(n, 50)).unwrap();
        drop(file.try_clone().unwrap());
    }
}

fn inherited(f: &Path) {
    let file = File::create(f).unwrap();
    for n in 0..5 {
        let status = std::process::Command::new("printf")
            .args(["%s\n", &format!("child {n}")])
            .stdout(file.try_clone().unwrap())
            .status();
        assert!(status.unwrap().success());
        (&file).write_all(b"parent\n").unwrap();
    }
}

fn left_to_a_child(f: &Path) {
    let file = File::create(f).unwrap();
    let mut child = std::process::Command::new("sh")
        .args(["-c", "read line; echo $line"])
        .stdin(std::process::Stdio::piped())
        .stdout(file.try_clone().unwrap())
        .spawn()
        .unwrap();
    drop(file);
    child.stdin.take().unwrap().write_all(b"late\n").unwrap();
    assert!(child.wait().unwrap().success());
}

fn renamed_before_the_close(f: &Path) {
    let temp = f.with_file_name("temp");
    let mut file = File::create(&temp).unwrap();
    file.write_all(&noise(1, 1_000)).unwrap();
    fs::rename(&temp, f).unwrap();
    file.write_all(&noise(2, 1_000)).unwrap();
}

fn renamed_over_before_the_close(f: &Path) {
    fs::write(f, "old").unwrap();
    renamed_before_the_close(f);
}

fn hard_links(f: &Path) {
    fs::write(f, "one").unwrap();
    for name in ["g", "h"] {
        let _ = fs::remove_file(f.with_file_name(name));
        fs::hard_link(f, f.with_file_name(name)).unwrap();
    }
    writable(&f.with_file_name("h")).write_at(b"three", 1).unwrap();
    let mut file = writable(f);
    file.write_all(b"before").unwrap();
    let _ = fs::remove_file(f.with_file_name("i"));
    fs::hard_link(f, f.with_file_name("i")).unwrap();
    file.write_all(b"after").unwrap();
}

fn by_direct_io(f: &Path) {
    let file =
        OpenOptions::new().create(true).write(true).custom_flags(libc::O_DIRECT).open(f).unwrap();
    // The buffer of a mapping is aligned.
    let buffer = Mapping::anonymous(8_192);
    buffer.fill(3);
    file.write_at(buffer.bytes(), 0).unwrap();
    file.write_at(buffer.bytes(), 8_192).unwrap();
}

fn by_vectors(f: &Path) {
    let file = File::create(f).unwrap();
    let parts = [noise(1, 10), noise(2, 5_000), noise(3, 1)];
    let parts = parts.each_ref().map(|part| std::io::IoSlice::new(part));
    assert_eq!((&file).write_vectored(&parts).unwrap(), 5_011);
}

fn mapped(f: &Path) {
    let file = readable(f);
    file.set_len(10_000).unwrap();
    let map = Mapping::of(&file, 10_000);
    map.fill(7);
    map.sync();
    drop(map);
}

fn mapped_and_never_synced(f: &Path) {
    fs::write(f, noise(1, 10_000)).unwrap();
    let file = readable(f);
    let map = Mapping::of(&file, 10_000);
    map.store(5_000, b"stored");
    drop(map);
    drop(file);
}

fn mapped_beyond_the_close(f: &Path) {
    fs::write(f, noise(1, 10_000)).unwrap();
    let file = readable(f);
    let map = Mapping::of(&file, 10_000);
    map.store(0, b"before");
    drop(file);
    map.store(1, b"after");
    map.store(9_000, b"after");
}

fn mapped_beside_a_stream(f: &Path) {
    fs::write(f, noise(1, 10_000)).unwrap();
    let map = Mapping::of(&readable(f), 10_000);
    let file = writable(f);
    file.write_at(&noise(2, 1_000), 0).unwrap();
    map.store(500, b"stored");
    drop(file);
    map.store(600, b"stored");
}

/// How each way is called, so that a failure says which.
#[rstest]
#[case::one_stream(one_stream)]
#[case::a_large_stream(a_large_stream)]
#[case::nothing(nothing)]
#[case::appends(appends)]
#[case::large_appends(large_appends)]
#[case::appends_after_a_change_inside(appends_after_a_change_inside)]
#[case::random_offsets(random_offsets)]
#[case::backwards(backwards)]
#[case::the_same_range_twice(the_same_range_twice)]
#[case::two_writers_at_once(two_writers_at_once)]
#[case::two_writers_that_close_in_turn(two_writers_that_close_in_turn)]
#[case::an_appender_beside_a_writer(an_appender_beside_a_writer)]
#[case::truncates(truncates)]
#[case::truncates_of_the_open_file(truncates_of_the_open_file)]
#[case::truncated_to_what_was_written(truncated_to_what_was_written)]
#[case::truncated_by_another(truncated_by_another)]
#[case::holes(holes)]
#[case::allocated(allocated)]
#[case::holes_punched(holes_punched)]
#[case::copied_ranges(copied_ranges)]
#[case::sent_by_the_kernel(sent_by_the_kernel)]
#[case::rewritten(rewritten)]
#[case::rewritten_while_open(rewritten_while_open)]
#[case::duplicated(duplicated)]
#[case::inherited(inherited)]
#[case::left_to_a_child(left_to_a_child)]
#[case::renamed_before_the_close(renamed_before_the_close)]
#[case::renamed_over_before_the_close(renamed_over_before_the_close)]
#[case::hard_links(hard_links)]
#[case::by_direct_io(by_direct_io)]
#[case::by_vectors(by_vectors)]
#[case::mapped(mapped)]
#[case::mapped_and_never_synced(mapped_and_never_synced)]
fn the_digest_is_that_of_the_bytes(
    #[case] way: fn(&Path),
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let plain = mounted.scratch("plain");
    fs::create_dir(&plain).unwrap();
    way(&plain.join("f"));
    way(&mounted.at("f"));
    // What is on the backing directory is what a plain directory would have.
    assert_eq!(sha256_of(&mounted.backing.join("f")), sha256_of(&plain.join("f")));
    mounted.assert_catalog_is_true();
    // Once more over what is there, and without a moment in between.
    way(&mounted.at("f"));
    mounted.assert_catalog_is_true();
    assert_eq!(
        mounted.digests("f").last(),
        Some(&sha256_of(&mounted.backing.join("f"))),
        "log says the same"
    );
}

/// Nobody tells of the end of a mapping; the digest comes as soon as it is noticed.
#[rstest]
#[case::mapped_beyond_the_close(mapped_beyond_the_close)]
#[case::mapped_beside_a_stream(mapped_beside_a_stream)]
fn the_digest_follows_the_stores_of_a_mapping(
    #[case] way: fn(&Path),
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    // The kernel tells of the end of an open file at any moment after it.
    for _ in 0..8 {
        way(&mounted.at("f"));
        mounted.wait_for("true catalog", || mounted.compare_catalog().is_ok());
    }
}

#[rstest]
fn the_last_version_of_a_deleted_file_is_what_was_written_to_it(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(100, 3_000_000)] size: usize,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let bytes = noise(1, size);
    let mut file =
        OpenOptions::new().create_new(true).read(true).write(true).open(mounted.at("f")).unwrap();
    file.write_all(&bytes[..10]).unwrap();
    fs::remove_file(mounted.at("f")).unwrap();
    file.write_all(&bytes[10..]).unwrap();
    file.rewind().unwrap();
    let mut back = Vec::new();
    file.read_to_end(&mut back).unwrap();
    assert_eq!(back, bytes);
    drop(file);
    assert_eq!(mounted.digests("f").last(), Some(&sha256(&bytes)));
    assert_eq!(mounted.manifest(".").len(), 0);
}

#[rstest]
fn the_last_of_several_writers_to_a_deleted_file_is_heard(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut first = File::create(mounted.at("f")).unwrap();
    let mut second = appending(&mounted.at("f"));
    first.write_all(b"first").unwrap();
    fs::remove_file(mounted.at("f")).unwrap();
    drop(first);
    second.write_all(b"second").unwrap();
    drop(second);
    assert_eq!(mounted.digests("f").last(), Some(&sha256("firstsecond")));
}

#[rstest]
fn writes_after_the_delete_stay_with_the_deleted_file(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut old = File::create(mounted.at("f")).unwrap();
    old.write_all(b"old").unwrap();
    fs::remove_file(mounted.at("f")).unwrap();
    fs::write(mounted.at("f"), "new").unwrap();
    old.write_all(b"er").unwrap();
    drop(old);
    assert_eq!(mounted.digests("f").last(), Some(&sha256("new")));
    mounted.assert_catalog_is_true();
}

#[rstest]
fn a_mapping_that_outlives_its_file_descriptor_is_one_version(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    fs::write(mounted.at("f"), "0123456789").unwrap();
    let map = Mapping::of(&readable(&mounted.at("f")), 10);
    map.store(0, b"abc");
    map.store(5, b"xyz");
    drop(map);
    let expected = ["0123456789", "abc34xyz89"].map(sha256);
    // Nobody tells of an unmap, and without the kernel's help stores are written back later.
    mounted.wait_for("digest of the mapping", || mounted.digests("f") == expected);
}

/// What a mapping has stored is not taken for the older session's that closes after it.
#[rstest]
fn a_late_close_takes_no_stores_of_a_mapping(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let f = mounted.at("f");
    let late = fs::File::create(&f).unwrap();
    (&late).write_all(b"0123456789").unwrap();
    drop(late.try_clone().unwrap());
    // Longer than the times of ext4 are coarse: a store is seen by them.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let map = Mapping::of(&readable(&f), 10);
    map.store(0, b"abc");
    drop(map);
    mounted.wait_for("end of the mapping", || mounted.status()["open_files"] == 1);
    drop(late);
    let expected = ["0123456789", "abc3456789"].map(sha256);
    mounted.wait_for("digest of the mapping", || mounted.digests("f") == expected);
    mounted.assert_catalog_is_true();
}

/// The end of a session that was mapped comes while another has the file open, and changes nothing.
#[rstest]
fn the_stores_of_a_mapping_count_beside_another_session(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let f = mounted.at("f");
    fs::write(&f, noise(1, 10_000)).unwrap();
    let map = Mapping::of(&readable(&f), 10_000);
    let other = writable(&f);
    map.store(600, b"stored");
    drop(map);
    // The end of the mapping is told a moment later.
    mounted.wait_for("end of the mapping", || mounted.status()["open_files"] == 1);
    drop(other);
    let digest = sha256_of(&mounted.backing.join("f"));
    assert_ne!(digest, sha256(noise(1, 10_000)));
    mounted.wait_for("true digest", || mounted.digests("f").last() == Some(&digest));
    mounted.assert_catalog_is_true();
}

#[test]
fn what_comes_after_a_close_is_in_no_version_of_it() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let mounted = Mounted::with_options(options);
        let f = mounted.at("f");
        fs::write(&f, "").unwrap();
        let contents: Vec<_> = (0..200).map(|n| noise(n, 20_000)).collect();
        // Opened and written again at once, when the kernel has not told of the end yet.
        contents.iter().for_each(|content| readable(&f).write_all_at(content, 0).unwrap());
        let expected: Vec<_> =
            [sha256("")].into_iter().chain(contents.iter().map(sha256)).collect();
        assert!(mounted.digests("f") == expected, "{options}: {:#?}", mounted.log_of("f"));
    }
}
