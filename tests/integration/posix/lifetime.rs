//! Files without a name, and names that come and go under open files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, same_in_every_way, script_in, sha256};

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
            give_a_name(&file, &mounted.at("f")).unwrap();
            drop(file);
            assert_eq!(mounted.digests("f").last(), Some(&sha256("nameless")));
        }
    }
    mounted.assert_catalog_is_true();
}

/// A directory shown by another program through FUSE, gone when dropped.
struct Bindfs(tempfile::TempDir);

impl Bindfs {
    fn new() -> Self {
        let dir = crate::mounted::scratch();
        let [source, mountpoint] = ["source", "shown"].map(|name| dir.path().join(name));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        must(Command::new("bindfs").args([source, mountpoint]));
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("shown")
    }
}

impl Drop for Bindfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_removal_succeeds_where_the_backing_forgets_the_inode_with_its_last_name() {
    if !can_mount() || !have(&["bindfs"]) {
        return;
    }
    let backing = Bindfs::new();
    let mounted = Mounted::on(&backing.path(), "");
    let [f, g, d, l] = ["f", "g", "d", "l"].map(|name| mounted.at(name));
    fs::write(&f, "one").unwrap();
    fs::remove_file(&f).unwrap();
    fs::create_dir(&d).unwrap();
    fs::remove_dir(&d).unwrap();
    std::os::unix::fs::symlink("target", &l).unwrap();
    fs::remove_file(&l).unwrap();
    fs::write(&f, "two").unwrap();
    fs::write(&g, "three").unwrap();
    fs::rename(&f, &g).unwrap();
    assert_eq!(fs::read(&g).unwrap(), b"two");
    mounted.assert_catalog_is_true();
}

#[test]
fn programs_do_without_nameless_files() {
    same_in_every_way(|dir| {
        script_in(
            dir,
            r#"python3 -c "if 1:
                import tempfile
                with tempfile.TemporaryFile(dir='.') as t:
                    t.write(b'x' * 100000); t.seek(0); print(len(t.read()))
                with tempfile.SpooledTemporaryFile(max_size=10, dir='.') as t:
                    t.write(b'x' * 100000); t.seek(0); print(len(t.read()))"
            seq 30000 -1 1 | sort -n -S 32k -T . | md5sum
            ls -A"#,
        )
    });
}

fn give_a_name(file: &File, name: &Path) -> Result<(), Errno> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, name, AtFlags::SYMLINK_FOLLOW)
}

/// What can be seen of an open file.
fn seen(file: &File) -> (u64, u64, u32, Vec<u8>) {
    let meta = file.metadata().unwrap();
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    (meta.nlink(), meta.size(), meta.mode(), fs::read(again).unwrap())
}

/// Does to an open file whatever can be done to it.
fn exercise(mut file: &File) -> Vec<String> {
    let mut results = Vec::new();
    let mut note = |what: &str, result: &dyn std::fmt::Debug| {
        results.push(format!("{what}: {result:?} {:?}", seen(file)));
    };
    note("start", &());
    note("write", &file.write_at(b"written", 3).unwrap());
    note("cut", &file.set_len(5).unwrap());
    note("grown", &file.set_len(9_000).unwrap());
    let mapping = Mapping::of(file, 9_000);
    mapping.store(100, b"mapped");
    mapping.sync();
    note("mapped", &&mapping.bytes()[..10]);
    drop(mapping);
    let mut text = [0; 8];
    file.seek(SeekFrom::Start(99)).unwrap();
    file.read_exact(&mut text).unwrap();
    note("read", &text);
    note("mode", &file.set_permissions(PermissionsExt::from_mode(0o640)));
    note("owner", &std::os::unix::fs::fchown(file, Some(7), Some(8)));
    note("time", &file.set_modified(std::time::SystemTime::UNIX_EPOCH));
    note("set xattr", &rustix::fs::fsetxattr(file, "user.a", b"value", XattrFlags::empty()));
    let mut value = [0; 10];
    note("get xattr", &rustix::fs::fgetxattr(file, "user.a", &mut value[..]));
    note("synced", &file.sync_all());
    let allocate = rustix::fs::FallocateFlags::empty();
    note("allocated", &rustix::fs::fallocate(file, allocate, 0, 20_000));
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut reopened = OpenOptions::new().append(true).open(&again).unwrap();
    note("appended", &reopened.write(b"appended"));
    note(
        "path cut",
        &rustix::fs::open(&again, OFlags::WRONLY | OFlags::TRUNC, Mode::empty()).is_ok(),
    );
    results
}

#[test]
fn files_without_a_name_are_as_good_as_others() {
    same_in_every_way(|dir| {
        let path = dir.join("f");
        let mut open = OpenOptions::new();
        open.read(true).write(true);
        fs::write(&path, "content").unwrap();
        let file = open.open(&path).unwrap();
        let mut stream = File::create(dir.join("stream")).unwrap();
        stream.write_all(b"begun").unwrap();
        fs::remove_file(&path).unwrap();
        fs::remove_file(dir.join("stream")).unwrap();
        let mut results = exercise(&file);
        stream.write_all(b" and ended").unwrap();
        let meta = stream.metadata().unwrap();
        results.push(format!("{} {}", meta.nlink(), meta.len()));
        results.push(format!("{:?}", give_a_name(&file, &dir.join("again"))));
        results.push(format!("{:?}", fs::metadata(&path).map_err(|e| e.raw_os_error())));
        // Another file takes the name, and leaves the first alone.
        fs::write(&path, "another").unwrap();
        file.write_all_at(b"the first", 0).unwrap();
        results.push(format!("{:?} {:?}", seen(&file), fs::read(&path)));
        results
    });
}

#[test]
fn files_that_are_renamed_over_go_on() {
    same_in_every_way(|dir| {
        let [old, new] = ["old", "new"].map(|name| {
            fs::write(dir.join(name), name).unwrap();
            OpenOptions::new().read(true).write(true).open(dir.join(name)).unwrap()
        });
        let inode = |path: &str| fs::metadata(dir.join(path)).unwrap().ino();
        let inodes = [inode("old"), inode("new")];
        fs::rename(dir.join("new"), dir.join("old")).unwrap();
        assert_eq!(inode("old"), inodes[1]);
        assert_eq!([&old, &new].map(|file| file.metadata().unwrap().ino()), inodes);
        let results = exercise(&old);
        new.write_all_at(b"NEW and more", 0).unwrap();
        old.write_all_at(b"OLD", 0).unwrap();
        let content = fs::read(dir.join("old")).unwrap();
        let [first, second] = [seen(&old), seen(&new)];
        drop((old, new));
        (results, first, second, content, fs::metadata(dir.join("old")).unwrap().len())
    });
}

#[rstest]
fn files_without_a_name_outlive_what_the_daemon_keeps_at_hand(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let files: Vec<_> = (0..100)
        .map(|n| {
            let path = mounted.at(format!("gone{n}"));
            let mut open = OpenOptions::new();
            let file = open.read(true).write(n % 2 == 0).create(n % 2 == 0).truncate(false);
            if n % 2 == 1 {
                fs::write(&path, format!("{n}")).unwrap();
            }
            let file = file.open(&path).unwrap();
            if n % 2 == 0 {
                file.write_all_at(format!("{n}").as_bytes(), 0).unwrap();
            }
            fs::remove_file(&path).unwrap();
            file
        })
        .collect();
    for n in 0..9_000 {
        fs::write(mounted.at(format!("f{}", n % 5_000)), "").unwrap();
    }
    for (n, file) in files.iter().enumerate() {
        let (nlink, _, _, content) = seen(file);
        assert_eq!((nlink, content), (0, format!("{n}").into_bytes()));
        file.set_permissions(PermissionsExt::from_mode(0o600)).unwrap();
    }
    drop(files);
    mounted.assert_catalog_is_true();
}

#[test]
fn directories_are_used_after_their_end() {
    same_in_every_way(|dir| {
        script_in(
            dir,
            r"
            exec 2>&1; set +e
            mkdir -p a/b/c; cd a/b/c
            rmdir ../c; ls -a; touch x; mkdir y; stat -c '%h %F' . ; cd ..; ls -a
            mkdir c; cd c; mv ../../b ../../moved; touch x; cd ..; ls -R
            basename $(/bin/pwd); cd ..; ls; /bin/pwd | sed 's,.*/,,'
            ",
        )
    });
}

#[test]
fn open_directories_follow_their_renames() {
    same_in_every_way(|dir| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::create_dir(dir.join("other")).unwrap();
        fs::write(dir.join("a/f"), "in a").unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open = |path: &str| rustix::fs::open(dir.join(path), flags, Mode::empty()).unwrap();
        let (a, b) = (open("a"), open("a/b"));
        let read = |at: rustix::fd::BorrowedFd<'_>, path: &str| {
            let mut text = String::new();
            let fd = rustix::fs::openat(at, path, OFlags::RDONLY, Mode::empty())?;
            File::from(fd).read_to_string(&mut text).unwrap();
            Ok::<_, Errno>(text)
        };
        let mut seen = vec![read(b.as_fd(), "../f")];
        fs::rename(dir.join("a"), dir.join("renamed")).unwrap();
        seen.extend([read(a.as_fd(), "f"), read(b.as_fd(), "../f"), read(b.as_fd(), "../../a/f")]);
        fs::rename(dir.join("renamed/b"), dir.join("other/b")).unwrap();
        fs::write(dir.join("other/f"), "in other").unwrap();
        seen.extend([read(b.as_fd(), "../f"), read(a.as_fd(), "b/../f")]);
        let create = OFlags::WRONLY | OFlags::CREATE;
        let made = rustix::fs::openat(&b, "made", create, Mode::RUSR).map(drop);
        let there = fs::metadata(dir.join("other/b/made")).is_ok();
        let path = fs::read_link(format!("/proc/self/fd/{}", b.as_raw_fd())).unwrap();
        let path = path.strip_prefix(fs::canonicalize(dir).unwrap()).unwrap().to_path_buf();
        fs::remove_file(dir.join("other/b/made")).unwrap();
        fs::remove_dir(dir.join("other/b")).unwrap();
        let gone = rustix::fs::openat(&b, "made", create, Mode::RUSR).map(drop);
        let listed: Vec<_> = rustix::fs::Dir::read_from(&b).unwrap().map(|e| e.is_ok()).collect();
        let stat = rustix::fs::fstat(&b).unwrap();
        seen.push(read(b.as_fd(), "../f"));
        (seen, made, there, path, gone, listed, stat.st_nlink)
    });
}
