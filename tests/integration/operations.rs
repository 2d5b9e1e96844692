//! Operations of a filesystem beyond reading and writing, compared with a plain directory.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use rustix::fs::{
    CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom as Whence, XattrFlags,
};
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, noise, sha256, told};

/// Does the same in a plain directory and in a mount, which must say the same.
fn same_as_plain<T: PartialEq + std::fmt::Debug>(options: &str, work: impl Fn(&Path) -> T) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let plain = mounted.scratch("plain");
    fs::create_dir(&plain).unwrap();
    let expected = work(&plain);
    assert_eq!(work(&mounted.mountpoint), expected);
    mounted.assert_catalog_is_true();
}

#[test]
fn figures_are_those_of_the_backing_filesystem() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let [a, b] = [&mounted.backing, &mounted.mountpoint].map(|p| rustix::fs::statvfs(p).unwrap());
    assert_eq!((a.f_bsize, a.f_frsize, a.f_blocks), (b.f_bsize, b.f_frsize, b.f_blocks));
    assert_eq!((a.f_files, a.f_namemax), (b.f_files, b.f_namemax));
    assert!(b.f_bavail > 0 && b.f_ffree > 0);
}

#[rstest]
fn extended_attributes(#[values("", "passthrough=off")] options: &str) {
    same_as_plain(options, |dir| {
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink("f", dir.join("l")).unwrap();
        let mut results = Vec::new();
        let mut note = |what: &str, result: Result<Vec<u8>, Errno>| {
            results.push(format!("{what}: {result:?}"));
        };
        let done = |result: Result<(), Errno>| result.map(|()| Vec::new());
        for name in ["user.a", "user.empty", "trusted.b", "security.c", "system.none", "none"] {
            let value = if name == "user.empty" { b"".to_vec() } else { noise(1, 300) };
            note(name, done(rustix::fs::setxattr(&file, name, &value, XattrFlags::empty())));
            let again = rustix::fs::setxattr(&file, name, b"x", XattrFlags::CREATE);
            note("create", done(again));
            let replaced = rustix::fs::setxattr(&file, "user.new", b"x", XattrFlags::REPLACE);
            note("replace", done(replaced));
            let mut buffer = vec![0; 1_000];
            let got = rustix::fs::getxattr(&file, name, &mut buffer[..]);
            note("get", got.map(|n| buffer[..n].to_vec()));
            let small = rustix::fs::getxattr(&file, name, &mut [0; 2][..]);
            note("small", small.map(|n| vec![u8::try_from(n).unwrap()]));
            let size = rustix::fs::getxattr(&file, name, &mut [0; 0][..]);
            note("size", size.map(|n| n.to_le_bytes().to_vec()));
            let link = rustix::fs::lsetxattr(dir.join("l"), name, b"x", XattrFlags::empty());
            note("on a symlink", done(link));
        }
        let mut list = vec![0; 1_000];
        let listed = rustix::fs::listxattr(&file, &mut list[..]).unwrap();
        let mut names: Vec<_> = list[..listed].split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        names.sort();
        results.push(format!("{names:?}"));
        results.push(format!("{:?}", rustix::fs::removexattr(&file, "user.a")));
        results.push(format!("{:?}", rustix::fs::removexattr(&file, "user.a")));
        let large = rustix::fs::setxattr(&file, "user.l", &vec![1; 70_000], XattrFlags::empty());
        results.push(format!("{large:?}"));
        results
    });
}

#[test]
fn access_control_lists_decide() {
    if !can_mount() || !have(&["setfacl", "getfacl", "setpriv"]) {
        return;
    }
    same_as_plain("", |dir| {
        let script = r#"
            cd "$1"; echo x > f; chmod 600 f; setfacl -m u:61234:r f; getfacl -c f; stat -c %A f
            setpriv --reuid=61234 --clear-groups -- cat f; chmod 640 f; getfacl -c f
            setpriv --reuid=61235 --clear-groups -- cat f 2>&1
            setfacl -b f; getfacl -c f; mkdir d; setfacl -d -m u:61234:rwx d; mkdir d/e; getfacl -c d/e
            setfacl -m u:61234:--- f; chmod 666 f; setpriv --reuid=61234 --clear-groups -- cat f 2>&1"#;
        told(&Command::new("bash").args(["-c", script, "-"]).arg(dir).output().unwrap())
    });
}

#[test]
fn special_files() {
    same_as_plain("", |dir| {
        for (name, kind, device) in [
            ("fifo", FileType::Fifo, 0),
            ("socket", FileType::Socket, 0),
            ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            ("loop", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
            ("regular", FileType::RegularFile, 0),
        ] {
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(CWD, dir.join(name), kind, mode, device).unwrap();
        }
        // A device works, and a fifo joins two who meet there.
        let mut null = File::options().read(true).write(true).open(dir.join("null")).unwrap();
        assert_eq!(null.write(b"away").unwrap(), 4);
        assert_eq!(null.read(&mut [0; 4]).unwrap(), 0);
        let fifo = dir.join("fifo");
        let writer = std::thread::spawn(move || fs::write(fifo, "through the fifo").unwrap());
        assert_eq!(fs::read_to_string(dir.join("fifo")).unwrap(), "through the fifo");
        writer.join().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.join("bound")).unwrap();
        let client = std::os::unix::net::UnixStream::connect(dir.join("bound"));
        assert!(client.is_ok());
        drop(listener);
        let mut kinds: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let (kind, meta) = (entry.file_type().unwrap(), entry.metadata().unwrap());
                let flags = (kind.is_fifo(), kind.is_socket(), kind.is_char_device());
                (entry.file_name(), flags, meta.mode(), meta.rdev())
            })
            .collect();
        kinds.sort();
        kinds
    });
}

#[test]
fn symlinks_keep_every_byte() {
    same_as_plain("", |dir| {
        let long = "x".repeat(4_095);
        let targets = ["a", "/absolute", "../..", "no such", "a\nb", "\u{e9}", "//", ".", &long];
        let read = targets.iter().enumerate().map(|(n, target)| {
            let link = dir.join(format!("l{n}"));
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert_eq!(fs::symlink_metadata(&link).unwrap().len(), target.len() as u64);
            fs::read_link(&link).unwrap()
        });
        let read: Vec<_> = read.collect();
        let bytes = std::ffi::OsStr::new;
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
        std::os::unix::fs::symlink(odd, dir.join("odd")).unwrap();
        assert_eq!(fs::read_link(dir.join("odd")).unwrap().as_os_str(), odd);
        let empty = std::os::unix::fs::symlink(bytes(""), dir.join("empty")).unwrap_err();
        let too_long = std::os::unix::fs::symlink("x".repeat(4_096), dir.join("long"));
        std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
        let looped = fs::read(dir.join("loop")).unwrap_err();
        let codes = [empty, too_long.unwrap_err(), looped].map(|error| error.raw_os_error());
        (read, codes)
    });
}

#[rstest]
fn locks_hold_between_processes(#[values("", "passthrough=off")] options: &str) {
    if !can_mount() || !have(&["flock", "python3"]) {
        return;
    }
    let mounted = Mounted::with_options(options);
    let file = File::create(mounted.at("f")).unwrap();
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let tried = || {
        let mut command = Command::new("flock");
        command.args(["--nonblock", "f", "true"]).current_dir(&mounted.mountpoint);
        command.status().unwrap().success()
    };
    assert!(!tried());
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    assert!(tried());
    drop(file);
    let posix = r#"
import fcntl, os, subprocess, sys
child = "import fcntl\nf = open('f', 'r+')\ntry:\n fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, %d)\nexcept OSError as e:\n print(e.errno)\nelse:\n print('free')"
def ask(start): return subprocess.check_output([sys.executable, '-c', child % start]).decode().strip()
f = open('f', 'r+')
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
assert ask(5) == '11', ask(5)
assert ask(20) == 'free'
g = open('f'); g.close()  # closing any descriptor of the file gives POSIX locks back
assert ask(5) == 'free'
"#;
    let script = mounted.scratch("locks.py");
    fs::write(&script, posix).unwrap();
    mounted.shell(&format!("python3 {}", script.display()));
}

#[rstest]
fn direct_io(#[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut open = File::options();
    open.read(true).write(true).create(true).custom_flags(libc::O_DIRECT);
    let file = open.truncate(false).open(mounted.at("f")).unwrap();
    let buffer = Mapping::anonymous(65_536);
    buffer.store(0, &noise(1, 65_536));
    assert_eq!(file.write_at(buffer.bytes(), 0).unwrap(), 65_536);
    buffer.fill(0);
    drop(file);
    assert_eq!(mounted.digests("f"), [sha256(noise(1, 65_536))]);
    let status = Command::new("dd")
        .args(["if=f", "of=g", "bs=4096", "iflag=direct", "oflag=direct", "status=none"])
        .current_dir(&mounted.mountpoint)
        .status();
    assert!(status.unwrap().success());
    assert_eq!(mounted.digests("g"), [sha256(noise(1, 65_536))]);
}

#[rstest]
fn appends_of_several_processes_do_not_tear(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    mounted.shell(
        r#"
        for w in a b c d; do
            (exec 5>>log; for n in $(seq 100); do echo "$w $n $(printf "$w%.0s" $(seq 80))" >&5; done) & jobs="${jobs-} $!"
        done
        for job in $jobs; do wait $job; done"#,
    );
    let text = fs::read_to_string(mounted.at("log")).unwrap();
    assert_eq!(text.lines().count(), 400);
    for writer in ["a", "b", "c", "d"] {
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with(writer)).collect();
        let expected: Vec<_> =
            (1..=100).map(|n| format!("{writer} {n} {}", writer.repeat(80))).collect();
        assert_eq!(lines, expected, "whole, and in order");
    }
    assert_eq!(mounted.digests("log").last(), Some(&sha256(&text)));
    mounted.assert_catalog_is_true();
}

#[rstest]
fn holes_are_found(#[values("", "passthrough=off")] options: &str) {
    same_as_plain(options, |dir| {
        let file = File::options().read(true).write(true).create_new(true).open(dir.join("f"));
        let file = file.unwrap();
        file.write_at(&[1; 65_536], 1 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
        let seek = |whence| rustix::fs::seek(&file, whence);
        let found = [
            seek(Whence::Data(0)),
            seek(Whence::Hole(1 << 20)),
            seek(Whence::Data(2 << 20)),
            seek(Whence::Hole(5 << 20)),
            seek(Whence::End(-10)),
        ];
        (found, file.metadata().unwrap().blocks() < 1_000)
    });
}

#[test]
fn ranges_that_fuse_cannot_move_are_refused_cleanly() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), noise(1, 65_536)).unwrap();
    let file = File::options().write(true).open(mounted.at("f")).unwrap();
    for mode in [FallocateFlags::COLLAPSE_RANGE, FallocateFlags::INSERT_RANGE] {
        assert_eq!(rustix::fs::fallocate(&file, mode, 4_096, 4_096), Err(Errno::OPNOTSUPP));
    }
    drop(file);
    assert_eq!(mounted.digests("f"), [sha256(noise(1, 65_536))]);
}

#[rstest]
fn programs_run(#[values("io=auto", "io=stream", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    mounted.shell(
        r#"
        printf '#!/bin/sh\necho script "$@"\n' > script; chmod +x script
        test "$(./script a)" = "script a"
        cp "$(type -P true)" program; ./program
        cp "$(type -P sleep)" sleeper; ./sleeper 100 & child=$!
        # What runs cannot be written, as anywhere.
        until [ "$(readlink /proc/$child/exe)" = "$PWD/sleeper" ]; do :; done
        if (echo x >> sleeper) 2> ../error; then echo written; fi
        kill $child; wait $child || true
        grep -q 'busy' ../error
        "#,
    );
    mounted.assert_manifest_passes();
}

#[rstest]
fn times(#[values("", "passthrough=off")] options: &str) {
    same_as_plain(options, |dir| {
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        let mut seen = Vec::new();
        for (seconds, nanos) in [(0, 0), (-1, 999_999_999), (-1_000_000_000, 5), (4_000_000_000, 1)]
        {
            let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, &file, &times, rustix::fs::AtFlags::empty()).unwrap();
            let meta = fs::metadata(&file).unwrap();
            seen.push((meta.mtime(), meta.mtime_nsec(), meta.atime(), meta.atime_nsec()));
        }
        seen
    });
}

#[rstest]
fn a_write_moves_the_time(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let path = mounted.at("f");
    fs::write(&path, "x").unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH;
    let mut file = File::options().append(true).open(&path).unwrap();
    file.set_modified(old).unwrap();
    file.write_all(b"y").unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.modified().unwrap() > old, "seen before the close");
    assert_eq!(meta.len(), 2);
    drop(file);
    let [mount, backing] = [&path, &mounted.backing.join("f")].map(|p| fs::metadata(p).unwrap());
    assert_eq!((mount.mtime(), mount.mtime_nsec()), (backing.mtime(), backing.mtime_nsec()));
    assert_eq!(mount.ino(), backing.ino());
}

#[rstest]
fn what_one_writes_another_reads(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut writer = File::create(mounted.at("f")).unwrap();
    let mut reader = File::open(mounted.at("f")).unwrap();
    let mut text = String::new();
    for n in 0..50 {
        writer.write_all(format!("{n} ").as_bytes()).unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.ends_with(&format!("{n} ")), "{text}");
        assert_eq!(fs::metadata(mounted.at("f")).unwrap().len(), text.len() as u64);
    }
    let both = File::options().read(true).write(true).open(mounted.at("f")).unwrap();
    both.write_at(b"X", 0).unwrap();
    reader.seek(SeekFrom::Start(0)).unwrap();
    let mut first = [0];
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"X");
}

#[test]
fn nameless_files_get_names_or_are_refused() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let flags = OFlags::TMPFILE | OFlags::WRONLY;
    match rustix::fs::openat(CWD, &mounted.mountpoint, flags, Mode::RUSR | Mode::WUSR) {
        // Programs fall back to a file with a name then.
        Err(error) => assert_eq!(error, Errno::OPNOTSUPP),
        Ok(fd) => {
            let mut file = File::from(fd);
            file.write_all(b"nameless").unwrap();
            let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(CWD, from, CWD, mounted.at("f"), follow).unwrap();
            drop(file);
            assert_eq!(mounted.digests("f").last(), Some(&sha256("nameless")));
        }
    }
    mounted.assert_catalog_is_true();
}

#[test]
fn the_fallback_says_why_it_is_one() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("passthrough=off");
    let status = mounted.status();
    assert_eq!(status["passthrough"]["enabled"], false);
    let reason = status["passthrough"]["reason"].as_str().unwrap();
    assert!(reason.contains("passthrough=off"), "{reason}");
    assert!(mounted.ok(&["status"]).contains("no kernel passthrough"));
    let with = Mounted::new();
    assert_eq!(with.status()["passthrough"]["enabled"], true, "{:#}", with.status());
}

#[test]
fn syncs_reach_the_disk() {
    same_as_plain("", |dir| {
        let mut file = File::create(dir.join("f")).unwrap();
        file.write_all(b"x").unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        File::open(dir).unwrap().sync_all().unwrap();
        rustix::fs::syncfs(&file).unwrap();
        File::open(dir.join("f")).unwrap().sync_all().is_ok()
    });
}
