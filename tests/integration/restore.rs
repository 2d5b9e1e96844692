//! Getting things back: restore, undelete, rewind, and taking back what somebody did.

mod people;
mod random;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use serde_json::Value;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must, noise, sha256, told};

impl Mounted {
    /// The moment, as an option for a time takes it.
    pub(crate) fn moment(&self) -> String {
        self.sync();
        let moment = must(Command::new("date").arg("+%Y-%m-%dT%H:%M:%S.%N%:z"));
        moment.trim().to_string()
    }

    /// The steps that a command tells.
    fn steps(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(&[args, &["--json"]].concat());
        let lines = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.code() != Some(1), "{args:?}: {}\n{}", told(&output), self.log());
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// What a tree is: names, kinds, modes, owners, times, contents, targets, links and attributes.
pub(crate) fn describe(dir: &Path) -> String {
    let script = r#"
        find . -mindepth 1 -type d -printf '%p d %m %U:%G\n' -o -printf '%p %y %m %U:%G %s %T@ %l\n'
        find . -type f -exec sha256sum {} +
        find . -type f -links +1 -printf '%i %p\n' | sort |
            awk '{ i = $1; sub(/^[0-9]+ /, ""); if (i in l) l[i] = l[i] " = " $0; else l[i] = $0 }
                 END { for (i in l) print l[i] }'
        find . -mindepth 1 ! -type l -exec getfattr -h -d -m - {} + 2>/dev/null |
            awk 'BEGIN { RS = ""; FS = "\n" } { for (i = 2; i <= NF; i++) print $1 " " $i }'
    "#;
    let text = must(Command::new("bash").args(["-c", script]).current_dir(dir));
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn set(path: &Path, name: &str, value: &str) {
    must(Command::new("setfattr").args(["-n", name, "-v", value]).arg(path));
}

#[rstest]
fn a_version_comes_back_with_everything_it_had(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() || !have(&["setfattr", "setfacl", "getfattr"]) {
        return;
    }
    let mounted = Mounted::with_options(options);
    fs::create_dir(mounted.at("d")).unwrap();
    let f = mounted.at("d/f");
    fs::write(&f, noise(1, 300_000)).unwrap();
    set(&f, "user.a", "old");
    must(Command::new("setfacl").args(["-m", "u:61234:rw"]).arg(&f));
    chown(&f, Some(61_235), Some(61_236)).unwrap();
    fs::set_permissions(&f, PermissionsExt::from_mode(0o4764)).unwrap();
    must(Command::new("touch").args(["-d", "2001-02-03 04:05:06.789"]).arg(&f));
    let before = describe(&mounted.at("d"));
    // Everything of it changes, and another inode takes its place.
    let new = mounted.at("d/new");
    fs::write(&new, "new").unwrap();
    set(&new, "user.b", "new");
    fs::rename(&new, &f).unwrap();
    let held = File::open(&f).unwrap();
    let changed = describe(&mounted.at("d"));
    assert_ne!(before, changed);

    mounted.ok(&["restore", "d/f", "--version", "1"]);
    assert_eq!(describe(&mounted.at("d")), before, "{options}");
    let log = mounted.log_of("d/f");
    let told: Vec<_> = log.iter().map(|v| (v["origin"].as_str(), v["size"].as_u64())).collect();
    let write = Some("write");
    let expected = [(write, Some(300_000)), (write, Some(3)), (Some("restore"), Some(300_000))];
    assert_eq!(told, expected);
    assert_eq!(log[0]["sha256"], log[2]["sha256"]);
    // Who had it open goes on with what it was.
    let mut bytes = [0; 3];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"new");
    // What was displaced is a version, so that it can be undone.
    mounted.ok(&["restore", "d/f@2"]);
    assert_eq!(describe(&mounted.at("d")), changed, "{options}");
    mounted.assert_kept("d/f");
    mounted.assert_catalog_is_true();
}

#[test]
fn a_restored_file_shares_its_blocks() {
    if !can_mount() {
        return;
    }
    const SIZE: usize = 64 << 20;
    for kind in ["xfs", "btrfs"] {
        let Some(disk) = Disk::new(kind, 2048, &["-q"], "") else { return };
        for options in WAYS {
            let dir = disk.path().join(options);
            fs::create_dir(&dir).unwrap();
            let mounted = Mounted::on(&dir, options);
            fs::write(mounted.at("f"), noise(7, SIZE)).unwrap();
            fs::remove_file(mounted.at("f")).unwrap();
            mounted.sync();
            let used = || {
                must(Command::new("sync").arg("-f").arg(disk.path()));
                let figures = rustix::fs::statvfs(disk.path()).unwrap();
                (figures.f_blocks - figures.f_bfree) * figures.f_frsize
            };
            let before = used();
            mounted.ok(&["restore", "f@1"]);
            let more = used().saturating_sub(before);
            assert!(more < 8 << 20, "{kind}, {options}: {more} bytes more");
            assert!(fs::read(mounted.at("f")).unwrap() == noise(7, SIZE));
            // The digest of what was not read comes afterwards, and tells that nothing is new.
            assert_eq!(mounted.digests("f"), [sha256(noise(7, SIZE))]);
            mounted.assert_catalog_is_true();
        }
    }
}

#[test]
fn what_is_restored_shows_at_once() {
    if !can_mount() {
        return;
    }
    // The kernel may remember names for a minute.
    let mounted = Mounted::with_options("attr_timeout=60");
    fs::write(mounted.at("f"), "one").unwrap();
    fs::write(mounted.at("f"), "second").unwrap();
    fs::create_dir(mounted.at("d")).unwrap();
    fs::write(mounted.at("d/g"), "g").unwrap();
    fs::remove_dir_all(mounted.at("d")).unwrap();
    let moment = mounted.moment();
    fs::write(mounted.at("extra"), "extra").unwrap();
    assert_eq!(fs::metadata(mounted.at("f")).unwrap().len(), 6);
    assert!(!mounted.at("d").exists() && mounted.at("extra").exists());
    mounted.ok(&["restore", "f@1"]);
    assert_eq!(fs::metadata(mounted.at("f")).unwrap().len(), 3);
    assert_eq!(fs::read(mounted.at("f")).unwrap(), b"one");
    mounted.ok(&["undelete", "d"]);
    assert_eq!(fs::read(mounted.at("d/g")).unwrap(), b"g");
    let names = || fs::read_dir(&mounted.mountpoint).unwrap().count();
    assert_eq!(names(), 3);
    mounted.ok(&["rewind", ".", "--to", &moment]);
    assert!(!mounted.at("d").exists() && !mounted.at("extra").exists());
    assert_eq!((names(), fs::metadata(mounted.at("f")).unwrap().len()), (1, 6));
}

#[test]
fn a_plan_changes_nothing_and_is_what_is_done() {
    if !can_mount() || !have(&["getfattr"]) {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir_all(mounted.at("d/sub")).unwrap();
    fs::write(mounted.at("d/f"), "one").unwrap();
    fs::write(mounted.at("d/sub/g"), "g").unwrap();
    let moment = mounted.moment();
    fs::write(mounted.at("d/f"), "two").unwrap();
    fs::write(mounted.at("d/new"), "new").unwrap();
    fs::remove_dir_all(mounted.at("d/sub")).unwrap();
    let (changed, seq) = (describe(&mounted.mountpoint), mounted.status()["seq"].clone());
    let commands: [&[&str]; 3] =
        [&["restore", "d/f@1"], &["undelete", "d/sub"], &["rewind", "d", "--to", &moment]];
    for command in commands {
        let planned = mounted.steps(&[command, &["--dry-run"]].concat());
        assert!(planned.iter().all(|step| step["outcome"] == "planned"), "{planned:#?}");
        assert_eq!(describe(&mounted.mountpoint), changed);
        assert_eq!(mounted.status()["seq"], seq);
    }
    let planned = mounted.steps(&["rewind", "d", "--to", &moment, "--dry-run"]);
    let done = mounted.steps(&["rewind", "d", "--to", &moment]);
    let what = |steps: &[Value]| -> Vec<_> {
        steps.iter().map(|step| (step["action"].clone(), step["path"].clone())).collect()
    };
    assert_eq!(what(&planned), what(&done));
    assert!(done.iter().all(|step| step["outcome"] == "done"), "{done:#?}");
    let again = mounted.steps(&["rewind", "d", "--to", &moment]);
    assert!(again.is_empty(), "nothing is left to do: {again:#?}");
    assert!(mounted.ok(&["rewind", "d", "--to", &moment]).starts_with("nothing to do"));
}

#[test]
fn a_deleted_directory_comes_back_as_it_was_when_the_deletion_began() {
    if !can_mount() || !have(&["getfattr", "setfattr"]) {
        return;
    }
    let mounted = Mounted::new();
    let d = mounted.at("above/d");
    fs::create_dir_all(d.join("sub/deep")).unwrap();
    fs::write(d.join("gone before"), "it was deleted by somebody else").unwrap();
    fs::remove_file(d.join("gone before")).unwrap();
    fs::write(d.join("f"), "f").unwrap();
    fs::write(d.join("sub/deep/g"), "g").unwrap();
    fs::hard_link(d.join("f"), d.join("sub/link")).unwrap();
    symlink("../f", d.join("sub/symlink")).unwrap();
    fs::set_permissions(d.join("sub"), PermissionsExt::from_mode(0o2750)).unwrap();
    set(&d.join("sub"), "user.a", "b");
    fs::write(d.join(std::ffi::OsStr::new("new\nline")), "odd").unwrap();
    let before = describe(&mounted.mountpoint);
    let digest = mounted.log_of("above/d/f")[0]["sha256"].clone();
    must(Command::new("rm").arg("-r").arg(mounted.at("above")));
    mounted.ok(&["undelete", "above/d"]);
    assert_eq!(describe(&mounted.mountpoint), before);
    assert_eq!(mounted.log_of("above/d/f")[0]["sha256"], digest);
    mounted.assert_catalog_is_true();
    // It is the same file, with its whole history.
    assert_eq!(mounted.log_of("above/d/sub/deep/g").len(), 1);

    must(Command::new("rm").arg("-r").arg(&d));
    mounted.ok(&["undelete", "above/d/sub/deep/g"]);
    assert_eq!(fs::read(d.join("sub/deep/g")).unwrap(), b"g");
    assert_eq!(fs::metadata(d.join("sub")).unwrap().mode() & 0o7777, 0o2750);
    assert!(!d.join("f").exists(), "only what was asked for, and the way there");
}

#[test]
fn pipes_sockets_devices_and_the_times_of_directories_come_back() {
    if !can_mount() || !have(&["setpriv", "python3"]) {
        return;
    }
    let mounted = Mounted::new();
    let d = mounted.at("d");
    let times = || {
        let find = r"find d -type d -printf '%p %T@\n' -o -printf '%p %y %m %U:%G %T@ ' -exec stat -c %t:%T {} \;";
        mounted.shell(find)
    };
    fs::create_dir_all(d.join("sub/empty")).unwrap();
    mounted.shell(
        "mkfifo -m 640 d/pipe && chown 12:34 d/pipe && mknod -m 604 d/sub/char c 1 5 && \
         mknod d/sub/block b 259 1048575 && python3 -c \
         'import socket; socket.socket(socket.AF_UNIX).bind(\"d/socket\")' && touch -d 2001-02-03 d/socket d/sub/empty",
    );
    fs::write(d.join("sub/f"), "f").unwrap();
    mounted.sync();
    let before = times();
    fs::remove_dir_all(&d).unwrap();
    mounted.ok(&["undelete", "d"]);
    let precisely = |text: &str| {
        // The catalog hears of a new name a moment after the directory.
        let to_the_second = |line: &str| line.rsplit_once('.').map(|(l, _)| l.to_string());
        let mut lines: Vec<_> = text.lines().map(|l| to_the_second(l).unwrap()).collect();
        lines.sort();
        lines
    };
    assert_eq!(precisely(&times()), precisely(&before));
    mounted.assert_catalog_is_true();

    // Another device is another file: it has no number that was another's.
    fs::remove_file(d.join("sub/char")).unwrap();
    let moment = mounted.moment();
    mounted.shell("mknod d/sub/char c 1 3");
    mounted.ok(&["rewind", "d", "--to", &moment]);
    assert!(!d.join("sub/char").exists());
    let moment = mounted.moment();
    mounted.shell("mknod d/sub/char c 1 7 && rm d/sub/block");
    mounted.ok(&["rewind", "d", "--to", &moment]);
    assert_eq!(mounted.shell("stat -c %t:%T d/sub/block").trim(), "103:fffff");

    // Who may not make devices cannot have them made.
    mounted.shell("chmod 777 d d/sub && rm d/sub/block d/pipe");
    for (path, works) in [("d/pipe", true), ("d/sub/block", false)] {
        let output = mounted.run_as(12, &["undelete", path]);
        assert_eq!(output.status.success(), works, "{path}: {}", told(&output));
        assert_eq!(mounted.at(path).exists(), works, "{path}");
    }
}

#[test]
fn what_was_not_deleted_is_not_undeleted() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("there"), "x").unwrap();
    fs::write(mounted.at("from"), "x").unwrap();
    fs::rename(mounted.at("from"), mounted.at("to")).unwrap();
    for (path, message) in [
        ("there", "`/there` is there: it was not deleted"),
        ("from", "`/from` was not deleted but moved to `/to`"),
        ("never", "the catalog has no file or directory `/never`"),
    ] {
        let output = mounted.run(&["undelete", path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains(message), "{}", told(&output));
    }
}

#[test]
fn a_version_can_be_put_elsewhere() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir_all(mounted.at("d/e")).unwrap();
    fs::write(mounted.at("d/f"), "one").unwrap();
    fs::set_permissions(mounted.at("d/f"), PermissionsExt::from_mode(0o640)).unwrap();
    fs::write(mounted.at("d/e/g"), "g").unwrap();
    let moment = mounted.moment();
    fs::write(mounted.at("d/f"), "two").unwrap();
    fs::remove_file(mounted.at("d/e/g")).unwrap();
    let read = |path: &str| fs::read_to_string(mounted.at(path)).unwrap();
    mounted.ok(&["restore", "d/f@1", "--to", "copy"]);
    mounted.ok(&["restore", "d/f@1", "--to", "d/e"]);
    assert_eq!((read("copy").as_str(), read("d/e/f").as_str()), ("one", "one"));
    assert_eq!(read("d/f"), "two");
    mounted.ok(&["restore", "d", "--at", &moment, "--to", "old"]);
    assert_eq!((read("old/f").as_str(), read("old/e/g").as_str()), ("one", "g"));
    assert!(!mounted.at("old/e/f").exists());
    // Outside of the mount it is an ordinary file.
    let outside = mounted.scratch("outside");
    mounted.ok(&["restore", "d/f@1", "--to", outside.to_str().unwrap()]);
    assert_eq!(fs::read(&outside).unwrap(), b"one");
    assert_eq!(fs::metadata(&outside).unwrap().mode() & 0o7777, 0o640);
    let nowhere = mounted.run(&["restore", "d/f@1", "--to", "/nonexistent/x"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn the_other_names_of_a_restored_file_keep_what_they_have() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), "one").unwrap();
    fs::hard_link(mounted.at("f"), mounted.at("g")).unwrap();
    let moment = mounted.moment();
    fs::write(mounted.at("g"), "two").unwrap();
    mounted.ok(&["restore", "f@1"]);
    let read = |path: &str| fs::read_to_string(mounted.at(path)).unwrap();
    assert_eq!((read("f").as_str(), read("g").as_str()), ("one", "two"));
    // A rewind brings the file back, and with it all its names.
    mounted.ok(&["rewind", ".", "--to", &moment]);
    assert_eq!((read("f").as_str(), read("g").as_str()), ("one", "one"));
    let inode = |path: &str| fs::metadata(mounted.at(path)).unwrap().ino();
    assert_eq!(inode("f"), inode("g"));
    mounted.assert_catalog_is_true();
}

#[test]
fn restoring_a_directory_takes_nothing_away() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir_all(mounted.at("d/sub")).unwrap();
    for name in ["changed", "deleted", "moved", "sub/below"] {
        fs::write(mounted.at("d").join(name), name).unwrap();
    }
    let moment = mounted.moment();
    fs::write(mounted.at("d/changed"), "new").unwrap();
    fs::remove_file(mounted.at("d/deleted")).unwrap();
    fs::rename(mounted.at("d/moved"), mounted.at("d/new place")).unwrap();
    fs::rename(mounted.at("d/sub"), mounted.at("d/other")).unwrap();
    fs::write(mounted.at("d/new"), "new").unwrap();
    mounted.ok(&["restore", "d", "--at", &moment]);
    for name in ["changed", "deleted", "moved", "sub/below"] {
        assert_eq!(fs::read_to_string(mounted.at("d").join(name)).unwrap(), name);
    }
    for name in ["new place", "other/below", "new"] {
        assert!(mounted.at("d").join(name).exists(), "{name}");
    }
}

#[test]
fn what_cannot_be_brought_back_says_why_and_leaves_what_is_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("damaged"), noise(1, 5000)).unwrap();
    fs::write(mounted.at("lost"), noise(2, 5000)).unwrap();
    fs::write(mounted.at("fine"), "fine").unwrap();
    let moment = mounted.moment();
    for name in ["damaged", "lost", "fine"] {
        fs::write(mounted.at(name), "new").unwrap();
    }
    mounted.sync();
    let object = |name: &str| {
        let digest = mounted.log_of(name)[0]["sha256"].as_str().unwrap().to_string();
        mounted.backing.join(".horace/store/objects").join(&digest[..2]).join(&digest[2..])
    };
    File::options().write(true).open(object("damaged")).unwrap().write_all_at(b"x", 100).unwrap();
    fs::remove_file(object("lost")).unwrap();
    let output = mounted.run(&["rewind", ".", "--to", &moment]);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let told = told(&output);
    assert!(told.contains("damaged: what was kept is not the version any more"), "{told}");
    assert!(told.contains("lost: cannot open"), "{told}");
    let read = |path: &str| fs::read_to_string(mounted.at(path)).unwrap();
    let now = ["damaged", "lost", "fine"].map(read);
    assert_eq!(now, ["new", "new", "fine"]);
}

#[test]
fn a_mount_that_cannot_be_changed_refuses() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::write(mounted.at("f"), "one").unwrap();
    fs::write(mounted.at("f"), "two").unwrap();
    mounted.umount();
    mounted.set_options("ro");
    mounted.start();
    let refused = mounted.run(&["restore", "f@1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("the mount is read-only"), "{}", told(&refused));
    mounted.ok(&["restore", "f@1", "--dry-run"]);
    mounted.umount();
    mounted.set_options("keep=none");
    mounted.start();
    let refused = mounted.run(&["restore", "f@1"]);
    assert!(
        !refused.status.success() && told(&refused).contains("keep=none"),
        "{}",
        told(&refused)
    );
    mounted.umount();
    let stopped =
        mounted.command().arg("restore").arg(mounted.backing.join("f@1")).output().unwrap();
    assert!(told(&stopped).contains("no daemon serves this mount"), "{}", told(&stopped));
}

#[test]
fn what_a_crash_left_half_made_is_cleared_away() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::write(mounted.at("f"), "one").unwrap();
    mounted.sync();
    mounted.kill();
    let restoring = mounted.backing.join(".horace/store/restoring");
    fs::write(restoring.join("1"), "half").unwrap();
    mounted.start();
    assert_eq!(fs::read_dir(&restoring).unwrap().count(), 0);
    fs::remove_file(mounted.at("f")).unwrap();
    mounted.ok(&["undelete", "f"]);
    assert_eq!(fs::read(mounted.at("f")).unwrap(), b"one");
}

#[test]
fn two_versions_can_be_compared() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for content in ["a\nb\nc\n", "a\nB\nc\n", "a\nB\nc\nd\n"] {
        fs::write(mounted.at("f"), content).unwrap();
    }
    let newest = "--- f@head~\n+++ f@head\n@@ -1,3 +1,4 @@\n a\n B\n c\n+d\n";
    assert_eq!(mounted.ok(&["diff", "f"]), newest);
    let first = "--- f@1\n+++ f@2\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
    assert_eq!(mounted.ok(&["diff", "f", "1", "2"]), first);
    fs::remove_file(mounted.at("f")).unwrap();
    assert_eq!(mounted.ok(&["diff", "f", "1", "2"]), first);
    fs::write(mounted.at("b"), b"bin\0ary").unwrap();
    fs::write(mounted.at("b"), b"bin\0ARY").unwrap();
    let binary = mounted.ok(&["diff", "b"]);
    assert_eq!(binary, "Binary contents b@head~ and b@head differ: 7 B and 7 B, first at byte 4\n");
    assert_eq!(mounted.run(&["diff", "f", "1", "9"]).status.code(), Some(1));
}
