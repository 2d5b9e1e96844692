//! Changes around the mount, directly in the backing directory: seen at once with a watch, and found
//! by the next reconcile without one.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::disk::Disk;
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must, script_in, sha256, told};

impl Mounted {
    /// A path in the backing directory.
    fn around(&self, name: impl AsRef<Path>) -> std::path::PathBuf {
        self.backing.join(name)
    }

    /// The versions of a path, oldest first; none if it never was.
    fn versions_of(&self, path: &str) -> Vec<Value> {
        let output = self.run(&["log", "--json", path]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut versions: Vec<_> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        versions.reverse();
        versions
    }

    /// Waits until the catalog has a version of a path with a content, and returns its origin.
    #[track_caller]
    fn wait_for_version(&self, path: &str, content: impl AsRef<[u8]>) -> String {
        let digest = sha256(content);
        let newest = || self.versions_of(path).pop();
        let what = format!("version of {path}, {:?}", newest());
        self.wait_up_to(Duration::from_secs(10), &what, || {
            newest().is_some_and(|version| version["sha256"] == digest)
        });
        newest().unwrap()["origin"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn assert_found(&self, path: &str, content: impl AsRef<[u8]>) {
        assert_eq!(self.wait_for_version(path, content), "external", "{path}");
    }

    /// Waits until the catalog is what the directory is.
    #[track_caller]
    fn wait_until_true(&self) {
        self.wait_for("true catalog", || self.compare_catalog().is_ok());
    }

    /// When the last comparison with the whole directory began.
    fn last_reconcile(&self) -> Value {
        self.status()["reconcile"]["started_ns"].clone()
    }

    fn watched(options: &str, filesystem: Option<&Path>) -> Self {
        let options = format!("watch=on,{options}");
        let mounted = match filesystem {
            Some(filesystem) => Self::on(filesystem, &options),
            None => Self::with_options(&options),
        };
        mounted.wait_reconciled();
        assert_eq!(mounted.status()["watch"]["enabled"], true);
        mounted
    }
}

/// A file id per path.
fn file_id(mounted: &Mounted, path: &str) -> String {
    mounted.log_of(path).last().unwrap()["file_id"].as_str().unwrap().to_owned()
}

/// Every kind of change around the mount, each found by itself.
fn change_everything_around(mounted: &Mounted) {
    let reconciled = mounted.last_reconcile();
    mounted.shell("mkdir -p d/e; for f in a b c f g h d/e/x; do echo $f > $f; done; ln h h2");
    mounted.sync();
    let ids = ["b", "d/e/x", "g"].map(|path| file_id(mounted, path));

    fs::write(mounted.around("new"), "created").unwrap();
    mounted.assert_found("new", "created");

    let file = OpenOptions::new().write(true).open(mounted.around("a")).unwrap();
    file.write_all_at(b"A", 0).unwrap();
    drop(file);
    mounted.assert_found("a", "A\n");

    OpenOptions::new().append(true).open(mounted.around("c")).unwrap().write_all(b"+").unwrap();
    mounted.assert_found("c", "c\n+");

    fs::write(mounted.around("f.tmp"), "saved").unwrap();
    fs::rename(mounted.around("f.tmp"), mounted.around("f")).unwrap();
    mounted.assert_found("f", "saved");
    assert_eq!(mounted.log_of("f").len(), 2, "the save continues the file");

    fs::rename(mounted.around("b"), mounted.around("b2")).unwrap();
    mounted.wait_for("move", || !mounted.versions_of("b2").is_empty());
    assert_eq!(file_id(mounted, "b2"), ids[0]);
    assert_eq!(mounted.log_of("b2").len(), 1, "a move makes no version");

    // What stands aside and what takes its name are told apart.
    fs::rename(mounted.around("g"), mounted.around("g~")).unwrap();
    fs::write(mounted.around("g"), "another").unwrap();
    mounted.assert_found("g", "another");
    assert_eq!(file_id(mounted, "g~"), ids[2]);

    fs::rename(mounted.around("d/e"), mounted.around("moved")).unwrap();
    mounted.wait_for("move", || !mounted.versions_of("moved/x").is_empty());
    assert_eq!(file_id(mounted, "moved/x"), ids[1]);
    fs::write(mounted.around("moved/x"), "after the move").unwrap();
    mounted.assert_found("moved/x", "after the move");

    fs::hard_link(mounted.around("new"), mounted.around("link")).unwrap();
    mounted.wait_for("link", || !mounted.versions_of("link").is_empty());
    assert_eq!(file_id(mounted, "link"), file_id(mounted, "new"));
    fs::write(mounted.around("link"), "by the other name").unwrap();
    mounted.assert_found("new", "by the other name");

    fs::remove_file(mounted.around("h2")).unwrap();
    fs::remove_file(mounted.around("a")).unwrap();
    let gone = |path: &str| {
        mounted.records(&["search", "--deleted", path]).iter().any(|found| found["path"] == path)
    };
    mounted.wait_for("deletion", || gone("a"));

    // A tree that is made and one that is moved in from elsewhere on the filesystem.
    script_in(&mounted.backing, "mkdir -p p/q/r; echo 1 > p/q/r/one; echo 2 > p/two");
    mounted.assert_found("p/q/r/one", "1\n");
    mounted.assert_found("p/two", "2\n");
    let outside = mounted.backing.with_extension("outside");
    script_in(
        mounted.backing.parent().unwrap(),
        "mkdir -p backing.outside/t/u; echo 3 > backing.outside/t/u/three",
    );
    fs::rename(outside.join("t"), mounted.around("t")).unwrap();
    mounted.assert_found("t/u/three", "3\n");
    fs::write(mounted.around("t/u/three"), "4").unwrap();
    mounted.assert_found("t/u/three", "4");
    fs::rename(mounted.around("t"), outside.join("t")).unwrap();
    mounted.wait_for("move out", || gone("t/u/three"));
    fs::write(outside.join("t/u/three"), "not ours any more").unwrap();

    fs::remove_dir_all(mounted.around("p")).unwrap();
    mounted.wait_for("removal", || gone("p/q/r/one"));

    std::os::unix::fs::symlink("nowhere", mounted.around("symlink")).unwrap();
    fs::set_permissions(mounted.around("c"), fs::Permissions::from_mode(0o600)).unwrap();
    let attr =
        || mounted.records(&["changes"]).iter().any(|c| c["op"] == "attr" && c["path"] == "c");
    mounted.wait_for("attributes", attr);
    assert_eq!(mounted.log_of("c").len(), 2, "a chmod makes no version");

    mounted.wait_until_true();
    assert_eq!(mounted.last_reconcile(), reconciled, "nothing was left to a reconcile");
}

#[rstest]
fn a_watch_finds_changes_around_the_mount(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if can_mount() {
        let mut mounted = Mounted::watched(options, None);
        change_everything_around(&mounted);
        mounted.assert_survives_remount();
    }
}

#[rstest]
fn a_watch_finds_changes_around_the_mount_on(#[values("ext4", "xfs", "btrfs")] kind: &str) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new(kind, 512, &["-q"], "") else { return };
    change_everything_around(&Mounted::watched("", Some(&disk.path())));
}

#[test]
fn a_watch_finds_changes_around_the_mount_on_tmpfs() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    change_everything_around(&Mounted::watched("", Some(dir.path())));
}

/// With names and attributes that the kernel may believe for a minute.
#[rstest]
fn with_a_watch_the_mount_shows_changes_at_once(
    #[values("passthrough=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::watched(&format!("attr_timeout=60,{options}"), None);
    mounted.shell("mkdir d; echo old > f; echo saved > s; echo moved > d/m; echo gone > g; ln f l");
    let read = |path: &str| fs::read_to_string(mounted.at(path)).unwrap_or_default();
    let mut held = File::open(mounted.at("f")).unwrap();
    let mut again = || {
        let mut text = String::new();
        held.seek(SeekFrom::Start(0)).unwrap();
        held.read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!(again(), "old\n");
    for (path, text) in [("f", "old\n"), ("s", "saved\n"), ("d/m", "moved\n"), ("g", "gone\n")] {
        assert_eq!(read(path), text);
        assert!(fs::metadata(mounted.at(path)).unwrap().is_file());
    }
    let began = Instant::now();
    fs::write(mounted.around("f"), "new and longer\n").unwrap();
    fs::write(mounted.around("t"), "saved again\n").unwrap();
    fs::rename(mounted.around("t"), mounted.around("s")).unwrap();
    fs::rename(mounted.around("d/m"), mounted.around("n")).unwrap();
    fs::remove_file(mounted.around("g")).unwrap();
    fs::set_permissions(mounted.around("l"), fs::Permissions::from_mode(0o640)).unwrap();
    mounted.wait_up_to(Duration::from_secs(5), "new content", || {
        again() == "new and longer\n" && read("f") == "new and longer\n"
    });
    mounted.wait_up_to(Duration::from_secs(5), "new names", || {
        read("s") == "saved again\n"
            && read("n") == "moved\n"
            && !mounted.at("d/m").exists()
            && !mounted.at("g").exists()
    });
    mounted.wait_up_to(Duration::from_secs(5), "new attributes", || {
        fs::metadata(mounted.at("f")).unwrap().mode() & 0o777 == 0o640
    });
    assert!(began.elapsed() < Duration::from_secs(5), "long before the minute is over");
}

#[test]
fn a_file_is_read_when_it_is_closed_and_not_before() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::watched("", None);
    let mut file = File::create(mounted.around("f")).unwrap();
    let began = Instant::now();
    let mut written = Vec::new();
    while began.elapsed() < Duration::from_millis(1500) {
        file.write_all(b"line\n").unwrap();
        written.extend(b"line\n");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(file);
    mounted.assert_found("f", &written);
    assert!(mounted.log_of("f").len() <= 2, "{:#?}", mounted.log_of("f"));
    assert!(mounted.status()["watch"]["read_files"].as_u64().unwrap() <= 2);
    // Who never closes it is found as soon as he pauses.
    let mut open = File::create(mounted.around("open")).unwrap();
    open.write_all(b"paused").unwrap();
    mounted.assert_found("open", "paused");
    drop(open);
}

#[test]
fn a_storm_around_the_mount_ends_true() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::watched("", None);
    script_in(
        &mounted.backing,
        "for d in $(seq 20); do mkdir d$d; for f in $(seq 1000); do echo $d $f > d$d/f$f; done; done
         mv d3 e3; rm -r d4; for f in $(seq 500); do mv d5/f$f d6/g$f; done",
    );
    mounted.wait_up_to(Duration::from_secs(120), "true catalog", || {
        mounted.status()["entries"].as_u64().unwrap() >= 19_000 && mounted.compare_catalog().is_ok()
    });
    let external = |path: &str| mounted.log_of(path)[0]["origin"] == "external";
    assert!(external("d1/f1") && external("e3/f1000") && external("d20/f1000"));
}

#[test]
fn more_than_the_kernel_keeps_is_left_to_a_reconcile() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::watched("", None);
    let reconciled = mounted.last_reconcile();
    let daemon = Pid::from_raw(mounted.pid().cast_signed()).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    // The kernel keeps 16,384 events, as a rule.
    script_in(&mounted.backing, "mkdir d; for f in $(seq 20000); do echo $f > d/f$f; done");
    kill_process(daemon, Signal::CONT).unwrap();
    mounted.wait_up_to(Duration::from_secs(120), "reconcile", || {
        let status = mounted.status();
        status["watch"]["overflows"].as_u64().unwrap() > 0
            && status["reconcile"]["started_ns"] != reconciled
            && status["reconcile"]["state"] == "done"
    });
    mounted.wait_until_true();
}

/// A mixed workload through the mount.
const WORK: &str = r#"
    mkdir -p d/e
    for n in 1 2 3; do
        echo stream $n > f; echo append $n >> log; cp f d/e/copy$n
        echo saved $n > f.tmp; mv f.tmp saved
        dd if=/dev/urandom of=large bs=64k count=30 status=none
        printf in-place | dd of=large bs=1 seek=1000 conv=notrunc status=none
        truncate -s 1000 large
        python3 -c "
import mmap, os
with open('mapped', 'w+b') as f:
    f.write(b'x' * 5000); f.flush()
    m = mmap.mmap(f.fileno(), 0); m[10:12] = b'$n$n'; m.close()
with open('rw', 'a+b') as f:
    f.write(b'row\n'); f.flush(); os.fsync(f.fileno()); f.write(b'end\n')
"
    done
    ln f hard; chmod 600 f; mv d d2; rm saved; echo again > saved; mv d2/e/copy1 d2/e/copy2
"#;

/// What the catalog was told, without times and digests of noise.
fn told_of(mounted: &Mounted) -> Vec<[Value; 5]> {
    let changes = mounted.records(&["changes"]);
    let fields = ["op", "path", "from_path", "file_number", "size"];
    changes.iter().map(|change| fields.map(|field| change[field].clone())).collect()
}

#[rstest]
fn a_watch_adds_nothing_to_what_users_of_the_mount_do(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() || !have(&["python3"]) {
        return;
    }
    let plain = Mounted::with_options(options);
    plain.wait_reconciled();
    let watched = Mounted::watched(options, None);
    for mounted in [&plain, &watched] {
        mounted.shell(WORK);
        mounted.sync();
    }
    // Whatever the watch would do, it has done by then.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(told_of(&plain), told_of(&watched), "left: without, right: with");
    // Only the root is nobody's.
    let nobodys = watched.records(&["changes"]).iter().filter(|c| c["writer"].is_null()).count();
    assert_eq!(nobodys, 1);
    let status = watched.status();
    assert_eq!(status["watch"]["read_files"], 0, "{status:#}");
    watched.assert_catalog_is_true();
}

#[test]
fn what_is_changed_around_while_it_is_open_is_found_afterwards() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let mounted = Mounted::watched(options, None);
        fs::write(mounted.at("f"), "before").unwrap();
        let open = OpenOptions::new().read(true).write(true).open(mounted.at("f")).unwrap();
        let mapping = Mapping::of(&open, 6);
        fs::write(mounted.around("f"), "around").unwrap();
        std::thread::sleep(Duration::from_millis(800));
        drop((mapping, open));
        mounted.wait_for_version("f", "around");
    }
}

#[test]
fn a_watch_that_is_impossible_is_named() {
    if !can_mount() {
        return;
    }
    if let Some(disk) = Disk::new("btrfs", 256, &["-q"], "") {
        let volume = disk.path().join("volume");
        must(Command::new("btrfs").args(["subvolume", "create"]).arg(&volume));
        let mut mounted = Mounted::unmounted_on(volume, "watch=auto");
        mounted.start();
        let watch = mounted.status()["watch"].clone();
        assert_eq!(watch["enabled"], false);
        assert!(watch["reason"].as_str().unwrap().contains("subvolume"), "{watch}");
        fs::write(mounted.at("f"), "served all the same").unwrap();
        assert!(mounted.ok(&["status", "."]).contains("subvolume"));
        mounted.umount();
        let output = mounted
            .command()
            .args(["mount", "-o", "api=off,watch=on"])
            .args([&mounted.backing, &mounted.mountpoint])
            .output()
            .unwrap();
        assert!(!output.status.success());
        assert!(told(&output).contains("cannot watch the backing directory"), "{}", told(&output));
    }
    let plain = Mounted::new();
    let watch = plain.status()["watch"].clone();
    assert!(watch["reason"].as_str().unwrap().contains("switched off"), "{watch}");
}
