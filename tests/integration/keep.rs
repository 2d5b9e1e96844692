//! What becomes of content that is deleted, replaced or overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use rstest::rstest;

use crate::disk::Disk;
use crate::hashing::truncate;
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, noise, sha256};

const SIZE: usize = 300_000;

type Lose = fn(&Path);

/// What a file is changed by, from a content of `SIZE` bytes.
const WAYS_TO_LOSE: [(&str, Lose); 15] = [
    ("delete", |f| fs::remove_file(f).unwrap()),
    ("delete and create", |f| {
        fs::remove_file(f).unwrap();
        fs::write(f, "new").unwrap();
    }),
    ("replace", |f| {
        let new = f.with_extension("new");
        fs::write(&new, "new").unwrap();
        fs::rename(&new, f).unwrap();
    }),
    ("cut off by open", |f| fs::write(f, "new").unwrap()),
    ("cut off and left empty", |f| drop(File::create(f).unwrap())),
    ("truncate", |f| truncate(f, 10)),
    ("truncate by a handle", |f| writable(f).set_len(10).unwrap()),
    ("truncate by an appending handle", |f| {
        OpenOptions::new().append(true).open(f).unwrap().set_len(10).unwrap();
    }),
    ("extend", |f| writable(f).set_len(2 * SIZE as u64).unwrap()),
    ("write in place", |f| writable(f).write_all_at(b"new", 1000).unwrap()),
    ("write in place and read", |f| {
        let file = OpenOptions::new().read(true).write(true).open(f).unwrap();
        file.write_all_at(b"new", 1000).unwrap();
    }),
    ("store to a mapping", |f| {
        let file = OpenOptions::new().read(true).write(true).open(f).unwrap();
        Mapping::of(&file, SIZE).store(1000, b"new");
    }),
    ("append", |f| OpenOptions::new().append(true).open(f).unwrap().write_all(b"new").unwrap()),
    ("append to the end", |f| {
        let mut file = writable(f);
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"new").unwrap();
    }),
    ("punch a hole", |f| {
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(writable(f), mode, 4096, 8192).unwrap();
    }),
];

fn writable(f: &Path) -> File {
    OpenOptions::new().write(true).open(f).unwrap()
}

impl Mounted {
    /// What `horace cat` prints, which must succeed.
    #[track_caller]
    pub(crate) fn cat(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(&[&["cat"], args].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}\n{}", self.log());
        output.stdout
    }

    /// Every version of a path can be printed, and is what it was.
    #[track_caller]
    pub(crate) fn assert_kept(&self, path: &str) {
        let log = self.log_of(path);
        for version in &log {
            let number = format!("{path}@{}", version["number"]);
            let output = self.run(&["cat", &number]);
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{number}: {error}\n{log:#?}\n{}", self.log());
            assert_eq!(version["sha256"], sha256(output.stdout), "{number}: {log:#?}");
        }
    }
}

fn lose_everything(mounted: &Mounted, options: &str) {
    for (round, (way, lose)) in WAYS_TO_LOSE.iter().enumerate() {
        let (name, seed) = (format!("f{round}"), round as u64);
        let f = mounted.at(&name);
        for content in [noise(seed, SIZE), noise(seed + 100, SIZE)] {
            fs::write(&f, &content).unwrap();
            lose(&f);
        }
        let first = mounted.cat(&[&format!("{name}@1")]);
        assert!(first == noise(seed, SIZE), "{options}, {way}: {:#?}", mounted.log_of(&name));
        mounted.assert_kept(&name);
        let contents: Vec<_> = mounted.log_of(&name).iter().map(|v| v["content"].clone()).collect();
        assert!(contents.iter().all(|content| content != "none"), "{way}: {contents:?}");
    }
    mounted.assert_catalog_is_true();
}

#[rstest]
fn nothing_is_lost(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if can_mount() {
        lose_everything(&Mounted::with_options(options), options);
    }
}

#[rstest]
fn nothing_is_lost_on(#[values("xfs", "btrfs")] kind: &str) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new(kind, 2048, &["-q"], "") else { return };
    for options in WAYS {
        let dir = disk.path().join(options);
        fs::create_dir(&dir).unwrap();
        lose_everything(&Mounted::on(&dir, options), options);
    }
}

#[test]
fn a_deleted_file_is_kept_without_a_copy() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), noise(1, SIZE)).unwrap();
    let inode = fs::metadata(mounted.at("f")).unwrap().ino();
    fs::remove_file(mounted.at("f")).unwrap();
    let store = mounted.backing.join(".horace/store/objects");
    let digest = sha256(noise(1, SIZE));
    let object = store.join(&digest[..2]).join(&digest[2..]);
    mounted.wait_for("object", || object.exists());
    let found = fs::metadata(&object).unwrap();
    assert_eq!((found.ino(), found.nlink()), (inode, 1));
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o400, 0), "nobody's but root's");
    let own = fs::metadata(mounted.backing.join(".horace")).unwrap();
    assert_eq!(own.mode() & 0o7777, 0o700);
}

#[rstest]
fn what_is_changed_in_place_right_after_a_close_is_kept(
    #[values("io=auto", "io=stream", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let rounds = 300;
    for round in 0..rounds {
        // The end of one session and the beginning of the next meet, earlier or later.
        let f = mounted.at(format!("f{round}"));
        fs::write(&f, noise(round, 3000)).unwrap();
        writable(&f).write_all_at(b"new", 100).unwrap();
    }
    for round in 0..rounds {
        let versions = mounted.log_of(&format!("f{round}"));
        assert_eq!(versions.len(), 2);
        assert_ne!(versions[0]["content"], "none", "{options}: {:#}", versions[0]);
    }
}

#[test]
fn the_same_bytes_are_kept_once() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for name in ["a", "b", "c"] {
        fs::write(mounted.at(name), noise(1, SIZE)).unwrap();
        fs::remove_file(mounted.at(name)).unwrap();
    }
    let stored = || {
        let count = |dir: &str| {
            let dir = mounted.backing.join(".horace/store").join(dir);
            crate::tools::files_below(&dir).len()
        };
        (count("incoming"), count("objects"))
    };
    mounted.wait_for("objects", || stored() == (0, 1));
    for name in ["a", "b", "c"] {
        assert_eq!(mounted.cat(&[name]), noise(1, SIZE));
    }
}

#[rstest]
fn a_deleted_file_that_is_open_has_no_link_and_goes_on(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let f = mounted.at("f");
    let mut file = File::create_new(&f).unwrap();
    file.write_all(b"before ").unwrap();
    for how in ["unlink", "rename"] {
        if how == "unlink" {
            fs::remove_file(&f).unwrap();
        } else {
            file = File::create_new(&f).unwrap();
            file.write_all(b"before ").unwrap();
            fs::write(mounted.at("other"), "other").unwrap();
            fs::rename(mounted.at("other"), &f).unwrap();
        }
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{how}");
        file.write_all(b"after").unwrap();
        drop(file.try_clone().unwrap());
        assert_eq!(file.metadata().unwrap().nlink(), 0, "{how}");
    }
    drop(file);
    mounted.assert_kept("f");
}

/// Whoever goes on writing to what another file has replaced goes on with the version that he has made.
#[rstest]
fn what_was_written_last_to_a_replaced_file_is_kept(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(false, true)] was_closed: bool,
    #[values("rename", "unlink", "restore")] how: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let f = mounted.at("f");
    fs::write(&f, "first").unwrap();
    fs::write(mounted.at("other"), "other").unwrap();
    fs::remove_file(&f).unwrap();
    let mut file = File::create_new(&f).unwrap();
    file.write_all(b"before ").unwrap();
    if was_closed {
        drop(file.try_clone().unwrap());
    }
    match how {
        "rename" => fs::rename(mounted.at("other"), &f).unwrap(),
        "unlink" => {
            fs::remove_file(&f).unwrap();
            fs::write(&f, "other").unwrap();
        }
        _ => drop(mounted.ok(&["restore", "other", "--version", "1", "--to", "f"])),
    }
    file.write_all(b"after").unwrap();
    drop(file);
    mounted.sync();
    mounted.wait_for("the inode to be forgotten", || {
        mounted.log_of("f").iter().all(|version| version["content"] != "none")
    });
    let log = mounted.log_of("f");
    let contents: Vec<_> =
        log.iter().map(|v| mounted.cat(&[&format!("f@{}", v["number"])])).collect();
    assert_eq!(contents, [b"first".as_slice(), b"before after", b"other"], "{log:#?}");
    mounted.assert_kept("f");
    mounted.assert_catalog_is_true();
}

#[test]
fn what_grew_unseen_still_begins_with_what_it_was() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    for (name, size) in [("small", 100), ("large", 3_000_000), ("changed", 100)] {
        fs::write(mounted.at(name), noise(1, size)).unwrap();
    }
    mounted.umount();
    for name in ["small", "large", "changed"] {
        let path = mounted.backing.join(name);
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
    }
    fs::write(mounted.backing.join("changed"), noise(2, 200)).unwrap();
    mounted.start();
    mounted.wait_reconciled();
    for name in ["small", "large"] {
        let log = mounted.log_of(name);
        let facts = log.iter().map(|v| [&v["origin"], &v["content"]].map(|v| v.as_str().unwrap()));
        assert_eq!(
            facts.collect::<Vec<_>>(),
            [["write", "prefix"], ["external", "head"]],
            "{name}"
        );
        mounted.assert_kept(name);
    }
    let log = mounted.log_of("changed");
    assert_eq!(log[0]["content_reason"], "unseen", "{log:#?}");
}

#[test]
fn what_was_written_last_to_a_deleted_file_is_kept() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    let mut file = File::create_new(&f).unwrap();
    file.write_all(b"before ").unwrap();
    fs::remove_file(&f).unwrap();
    file.write_all(b"after").unwrap();
    drop(file);
    assert_eq!(mounted.cat(&["f"]), b"before after");
}

#[test]
fn a_content_is_had_by_number_digest_or_time() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    fs::write(&f, "one").unwrap();
    mounted.sync();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let between = mounted.shell("date --rfc-3339=ns").trim().to_owned();
    fs::write(&f, "two").unwrap();
    assert_eq!(mounted.cat(&["f"]), b"two");
    assert_eq!(mounted.cat(&["f@head"]), b"two");
    assert_eq!(mounted.cat(&["f@1"]), b"one");
    assert_eq!(mounted.cat(&[&format!("f@{}", &sha256("one")[..8])]), b"one");
    assert_eq!(mounted.cat(&["f", "--at", &between]), b"one");
    fs::remove_file(&f).unwrap();
    assert_eq!(mounted.cat(&["f"]), b"two");
    assert_eq!(mounted.cat(&["f", "--at", &between]), b"one");
    fs::write(mounted.at("f@1"), "a name").unwrap();
    assert_eq!(mounted.cat(&["f@1"]), b"a name");
    for (args, error) in [
        (["cat", "f@9"].as_slice(), "`/f` has no version `9`"),
        (&["cat", "nothing"], "no file or directory `/nothing`"),
        (&["cat", "f@2", "--at", "1m"], "leave one out"),
    ] {
        let output = mounted.run(args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.contains(error), "{args:?}: {told}");
    }
}

#[test]
fn what_is_kept_survives_the_daemon() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    for n in 0..20_u64 {
        let f = mounted.at(format!("f{n}"));
        fs::write(&f, noise(n, SIZE)).unwrap();
        fs::remove_file(&f).unwrap();
    }
    mounted.sync();
    mounted.kill();
    mounted.start();
    mounted.wait_reconciled();
    for n in 0..20_u64 {
        assert_eq!(mounted.cat(&[&format!("f{n}")]), noise(n, SIZE), "{n}");
    }
    mounted.remount();
    mounted.umount();
    for n in 0..20_u64 {
        let f = mounted.backing.join(format!("f{n}"));
        let output = mounted.command().arg("cat").arg(f).output().unwrap();
        assert_eq!(output.stdout, noise(n, SIZE), "without a daemon");
    }
}

#[test]
fn only_who_could_read_a_file_reads_what_was_in_it() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    fs::set_permissions(mounted.at(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    mounted.shell("echo open > open; echo secret > secret; chmod 600 secret; rm open secret");
    let as_nobody = |path: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg(env!("CARGO_BIN_EXE_horace")).args(["cat", path]);
        command.env("HORACE_RUNTIME_DIR", &mounted.runtime).current_dir(&mounted.mountpoint);
        command.output().unwrap()
    };
    let open = as_nobody("open");
    assert_eq!(open.stdout, b"open\n", "{}", String::from_utf8_lossy(&open.stderr));
    let secret = as_nobody("secret");
    assert!(!secret.status.success() && secret.stdout.is_empty());
    assert!(String::from_utf8_lossy(&secret.stderr).contains("permission denied"));
}

#[test]
fn what_is_not_kept_says_so() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("keep=none");
    fs::write(mounted.at("f"), "one").unwrap();
    fs::write(mounted.at("f"), "two").unwrap();
    let log = mounted.log_of("f");
    assert_eq!((&log[0]["content"], &log[1]["content"]), (&"none".into(), &"head".into()));
    assert_eq!(log[0]["content_reason"], "unseen");
    let output = mounted.run(&["cat", "f@1"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("was not kept: replaced unseen"), "{told}");
    assert!(!mounted.backing.join(".horace/store").exists());
}

#[test]
fn a_damaged_object_is_not_passed_off_as_the_version() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    // Its end would notice that the object is gone.
    mounted.wait_reconciled();
    fs::write(mounted.at("f"), "precious").unwrap();
    fs::remove_file(mounted.at("f")).unwrap();
    let digest = sha256("precious");
    let object =
        mounted.backing.join(".horace/store/objects").join(&digest[..2]).join(&digest[2..]);
    mounted.wait_for("object", || object.exists());
    let damages: [fn(&Path); 3] = [
        |object| fs::write(object, "previous").unwrap(),
        |object| fs::write(object, "pre").unwrap(),
        |object| fs::remove_file(object).unwrap(),
    ];
    for damage in damages {
        damage(&object);
        let output = mounted.run(&["cat", "f"]);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert!(told.contains("its bytes have changed") || told.contains("cannot open"), "{told}");
    }
}

#[test]
fn a_small_disk_keeps_nothing_and_frees_what_is_deleted() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 128, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "io=auto");
    for n in 0..8 {
        let mut file = File::create(mounted.at("f")).unwrap();
        file.write_all(&noise(n, 40 << 20)).unwrap();
        drop(file);
        fs::remove_file(mounted.at("f")).unwrap();
    }
    assert_eq!(mounted.log_of("f").last().unwrap()["content_reason"], "no-space");
}

#[test]
fn a_full_disk_gives_up_the_oldest_first() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 1024, &["-q", "-m", "0"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "io=auto");
    let objects =
        || crate::tools::files_below(&mounted.backing.join(".horace/store/objects")).len();
    for n in 0..6_u64 {
        let f = mounted.at(format!("f{n}"));
        fs::write(&f, noise(n, 50 << 20)).unwrap();
        fs::remove_file(&f).unwrap();
        mounted.wait_for("object", || objects() == usize::try_from(n + 1).unwrap());
    }
    // History and this are more than there is room for.
    let mut live = File::create(mounted.at("live")).unwrap();
    for n in 0..56 {
        live.write_all(&noise(n, 10 << 20)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(live);
    mounted.wait_for("room", || objects() < 6);
    let reason = |n: u64| mounted.log_of(&format!("f{n}"))[0]["content_reason"].clone();
    mounted.wait_for("word of it", || reason(0) == "pruned");
    let mut back = Vec::new();
    File::open(mounted.at("live")).unwrap().read_to_end(&mut back).unwrap();
    assert_eq!(back.len(), 560 << 20);
}
