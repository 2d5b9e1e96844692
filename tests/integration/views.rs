//! The past in the mount: trees of other times, and all versions of each path.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;

use crate::callers::{USER, as_user};
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must, noise, script_in, sha256, told};

/// Everything that was done before is over, and nothing after it has begun.
fn now(mounted: &Mounted) -> String {
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    pause();
    let now = mounted.shell("date --utc +%FT%T.%NZ").trim().to_owned();
    pause();
    now
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.unwrap_err().raw_os_error().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

impl Mounted {
    /// The root of the tree at a time.
    fn then(&self, time: &str) -> PathBuf {
        self.at(".horace/at").join(time)
    }
}

/// All that a tree has, but for the times of directories.
fn listing(dir: &Path) -> String {
    script_in(
        dir,
        r"find . \( -type d -printf '%P %y %m %U:%G\n' \) -o \
              -printf '%P %y %m %U:%G %s %n %l %T@\n' | sort",
    )
}

/// When the directories of a tree were changed, in seconds.
fn directory_times(dir: &Path) -> Vec<(String, f64)> {
    let listed = script_in(dir, r"find . -type d -printf '%T@ %p\n' | sort -k2");
    let parse = |line: &str| {
        let (time, path) = line.split_once(' ').unwrap();
        (path.to_owned(), time.parse().unwrap())
    };
    listed.lines().map(parse).collect()
}

/// What a program that changes a tree at random does in one step.
fn change_at_random(seed: u64) -> String {
    let mut dice = noise(seed, 4096).into_iter();
    let mut dice = |sides: u8| dice.next().unwrap() % sides;
    let mut script = String::from("mkdir -p a/x b/y c 2>/dev/null || true\n");
    for _ in 0..40 {
        let dirs = ["a", "b", "c", "a/x", "b/y", "a/new", "b/new", "moved", "moved/x"];
        let mut path = || {
            let dir = dirs[usize::from(dice(9))];
            format!("{dir}/f{}", dice(6))
        };
        let (one, two) = (path(), path());
        let (n, how) = (dice(200), dice(22));
        let dir = dirs[usize::from(dice(9))];
        let (owner, mode) = (1000 + u32::from(dice(3)), 600 + u32::from(dice(8)) * 10);
        script += &match how {
            0..4 => format!("[ -L {one} ] || echo {seed} {n} > {one}"),
            4..6 => format!("[ -L {one} ] || echo {n} >> {one}"),
            6 => format!("[ -L {one} ] || truncate -s {n} {one}"),
            7..9 => format!("rm -rf {one}"),
            9 => format!("mv -T {one} {two}"),
            10 => format!("rm -f {one}; ln {two} {one}"),
            11 => format!("rm -f {one}; ln -s target{n} {one}"),
            12 => format!("ln -sfn other{n} {one}"),
            13 => format!("chmod {mode} {one}"),
            14 => format!("chown {owner}:{owner} {one}"),
            15 => format!("touch -h -d @{}.5 {one}", 1_000_000 + u32::from(n)),
            16 => format!("mkdir -p {dir}; chmod 7{n:02} {dir}", n = (n % 8) * 10 + n % 8),
            17 => format!("rm -rf moved; mv -T {dir} moved"),
            18 => format!("rm -rf {dir}"),
            19 => format!("mkdir -p {dir}; touch -d @{}.25 {dir}", 2_000_000 + u32::from(n)),
            20 => format!("mv -T moved {dir}"),
            _ => format!("cp --reflink=auto {two} {one}.new && mv -T {one}.new {one}"),
        };
        script += " 2>/dev/null || true\n";
    }
    script
}

#[rstest]
fn a_tree_of_the_past_is_what_it_was(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::prepared(options, |dir| {
        let script = "mkdir -p a/x old; echo one > a/f1; ln a/f1 a/f2; ln -s f1 a/f3
                      touch -d @77777 a/f1; chmod 640 a/f1; chown 7:8 old; touch -d @88888.5 old";
        script_in(dir, script);
    });
    mounted.wait_reconciled();
    let copies: Vec<_> = (1..6)
        .map(|round| {
            mounted.shell(&change_at_random(round));
            let time = now(&mounted);
            let copy = mounted.scratch(&format!("copy{round}"));
            must(Command::new("cp").arg("-a").arg(mounted.at(".")).arg(&copy));
            (copy, time)
        })
        .collect();
    mounted.shell("rm -rf ./*; mkdir a; echo new > a/f1");
    for (copy, time) in copies {
        let then = mounted.then(&time);
        let (expected, found) = (listing(&copy), listing(&then));
        assert!(expected.lines().count() > 5, "{expected}");
        assert_eq!(found, expected, "{time}");
        must(Command::new("diff").args(["-r", "--no-dereference"]).args([&copy, &then]));
        let (expected, found) = (directory_times(&copy), directory_times(&then));
        for ((path, copied), (_, shown)) in expected.iter().zip(&found) {
            // That of what is made in it is when the daemon heard of it.
            assert!((copied - shown).abs() < 0.5, "{path}: {copied}, shown {shown}");
        }
        // Programs that read a tree can do with it what they always do.
        let again = mounted.scratch("again");
        must(Command::new("cp").arg("-a").arg(then.join(".")).arg(&again));
        assert_eq!(listing(&again), listing(&then));
        let grep = "grep -r . . | sort || true";
        assert_eq!(script_in(&then, grep), script_in(&copy, grep));
        fs::remove_dir_all(again).unwrap();
    }
    mounted.assert_catalog_is_true();
}

#[test]
fn times_are_found_and_not_listed() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("mkdir d; echo one > d/f; setfattr -n user.own -v x d/f || true");
    let time = now(&mounted);
    mounted.shell("echo two > d/f");
    assert_eq!(names(&mounted.mountpoint), ["d"]);
    assert_eq!(mounted.shell("ls -A; find . -name '.hor*'; echo .hor*"), "d\n.hor*\n");
    assert_eq!(names(&mounted.at(".horace")), ["at", "gmt", "versions"]);
    assert!(names(&mounted.at(".horace/at")).is_empty());
    assert_eq!(names(&mounted.then(&time)), ["d"]);
    assert_eq!(errno(fs::metadata(mounted.then(&time).join(".horace"))), libc::ENOENT);
    assert_eq!(errno(fs::metadata(mounted.at(".horace/catalog.db"))), libc::ENOENT);
    let read = |time: &str| fs::read_to_string(mounted.then(time).join("d/f"));
    assert_eq!(read(&time).unwrap(), "one\n");
    // The same instant by other names.
    let there = time.replace('Z', "+00:00");
    assert_eq!(read(&there).unwrap(), "one\n");
    let local = mounted.shell(&format!("date -d {time} '+%F %T.%N'"));
    assert_eq!(read(local.trim()).unwrap(), "one\n");
    // What is to come is now, and goes on.
    assert_eq!(read("2200-01-01").unwrap(), "two\n");
    mounted.shell("echo three > d/f");
    assert_eq!(read("2200-01-01").unwrap(), "three\n");
    for nothing in
        ["1999-12-31T23:59:59Z", "now", "10m", "yesterday", "today 14:00", "x", "20260101"]
    {
        assert_eq!(errno(read(nothing)), libc::ENOENT, "{nothing}");
    }
    let not_utf8 = mounted.at(".horace/at").join(std::ffi::OsStr::from_bytes(b"2026-01-01\xff"));
    assert_eq!(errno(fs::metadata(not_utf8)), libc::ENOENT);
    // In other directories it is a name like any other.
    mounted.shell("mkdir d/.horace; echo ours > d/.horace/at");
    let later = now(&mounted);
    assert_eq!(fs::read(mounted.then(&later).join("d/.horace/at")).unwrap(), b"ours\n");
}

#[test]
fn who_names_a_second_means_its_end() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let second = || mounted.shell("date +%s").trim().parse::<u64>().unwrap();
    fs::write(mounted.at("f"), "one").unwrap();
    let written = second();
    mounted.wait_for("another second", || second() > written);
    fs::write(mounted.at("f"), "two").unwrap();
    let [utc, gmt] = ["+%FT%TZ", "+@GMT-%Y.%m.%d-%H.%M.%S"]
        .map(|format| mounted.shell(&format!("date --utc -d @{written} {format}")));
    assert_eq!(fs::read(mounted.then(utc.trim()).join("f")).unwrap(), b"one");
    let gmt = mounted.at(".horace/gmt").join(gmt.trim());
    assert_eq!(fs::read(gmt.join("f")).unwrap(), b"one");
}

#[test]
fn seconds_with_changes_are_listed_for_samba() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let second = || mounted.shell("date +%s").trim().parse::<u64>().unwrap();
    let mut seconds = Vec::new();
    for n in 0..3 {
        fs::write(mounted.at("f"), n.to_string()).unwrap();
        let written = second();
        seconds.push(written);
        mounted.wait_for("another second", || second() > written);
    }
    let token = |n: &u64| {
        mounted.shell(&format!("date --utc -d @{n} +@GMT-%Y.%m.%d-%H.%M.%S")).trim().to_owned()
    };
    let listed = names(&mounted.at(".horace/gmt"));
    let read = |token: &str| fs::read_to_string(mounted.at(".horace/gmt").join(token).join("f"));
    for (n, token) in seconds.iter().map(token).enumerate() {
        assert!(listed.contains(&token), "{token}: {listed:?}");
        assert_eq!(read(&token).unwrap(), n.to_string());
    }
    // The directory was mounted just before, and nothing happened since.
    assert!(listed.len() <= 4, "{listed:?}");
    // One that is not listed is as good.
    assert_eq!(read(&token(&(second() + 1000))).unwrap(), "2");
    for nothing in ["@GMT-1999.12.31-23.59.59", "@GMT-2026.13.01-00.00.00", "2026-01-01"] {
        assert_eq!(errno(read(nothing)), libc::ENOENT, "{nothing}");
    }
}

#[rstest]
fn every_version_of_a_path_has_its_number(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    mounted.shell(
        "mkdir -p d/e; echo 1 > d/f; touch -d @5555.5 d/f; echo 2 >> d/f; chmod 640 d/f
         echo 3 > d/f; echo 4 > new; mv new d/f; rm d/f; echo 5 > d/f; mv d/f d/f~; echo 6 > d/f
         echo deep > d/e/g; rm -r d/e; mv d moved; echo late >> moved/f; ln -s f moved/link
         : > empty; mkdir nothing
         mkdir again; echo 1 > again/f; echo 2 > again/g; mv again away; mkdir again; echo 3 > again/f",
    );
    let versions = mounted.at(".horace/versions");
    assert_eq!(names(&versions), ["again", "away", "d", "empty", "moved", "new", "nothing"]);
    assert_eq!(names(&versions.join("moved")), ["e", "f", "f~"]);
    for path in [
        "moved/f",
        "d/f",
        "moved/f~",
        "moved/e/g",
        "d/e/g",
        "empty",
        "new",
        "again/f",
        "again/g",
        "away/f",
    ] {
        let log = mounted.log_of(path);
        let dir = versions.join(path);
        let mut numbers: Vec<u64> = names(&dir).iter().map(|n| n.parse().unwrap()).collect();
        numbers.sort_unstable();
        let known: Vec<_> = log.iter().map(|v| v["number"].as_u64().unwrap()).collect();
        assert!(!known.is_empty() && numbers == known, "{path}: {numbers:?}, {known:?}");
        for version in &log {
            let number = version["number"].to_string();
            let file = dir.join(&number);
            let content = fs::read(&file).unwrap();
            assert_eq!(sha256(&content), version["sha256"], "{path} {number}");
            let cat = mounted
                .command()
                .args(["cat", &format!("{path}@{number}")])
                .current_dir(&mounted.mountpoint)
                .output()
                .unwrap();
            assert_eq!(content, cat.stdout, "{path} {number}");
            let found = fs::metadata(&file).unwrap();
            assert_eq!(found.len(), version["size"], "{path} {number}");
            let digest = must(
                Command::new("getfattr")
                    .args(["--only-values", "-n", "user.horace.sha256"])
                    .arg(&file),
            );
            assert_eq!(digest, version["sha256"]);
        }
        for no in ["0", "99", "01", "+1", "x"] {
            assert_eq!(errno(fs::metadata(dir.join(no))), libc::ENOENT, "{path}/{no}");
        }
    }
    assert_eq!(names(&versions.join("moved/f")).len(), 7);
    // Both directories of that name count; what is listed is what the last one had.
    assert_eq!(names(&versions.join("again/f")).len(), 2);
    assert_eq!(names(&versions.join("again")), ["f"]);
    let two = fs::metadata(versions.join("moved/f/2")).unwrap();
    assert_eq!((two.mode() & 0o7777, two.len()), (0o644, 4));
    mounted.shell("echo 7 > moved/f");
    assert_eq!(fs::read(versions.join("moved/f/8")).unwrap(), b"7\n", "at once");
}

#[test]
fn directories_that_were_in_one_another_do_not_lead_in_a_circle() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell(
        "mkdir -p a/b; echo x > a/b/f; mv a/b b; mv a b/a; mv b/a a; mv b a/b; mv a/b c; mv a c/a",
    );
    let found = mounted.shell("find .horace/versions -name f | sort | head -1000");
    let found: Vec<_> = found.lines().collect();
    assert!(found.contains(&".horace/versions/c/f"), "{found:?}");
    assert!(found.contains(&".horace/versions/a/b/f"), "{found:?}");
    assert!(found.len() < 50, "{found:?}");
}

/// What a user gets in a view.
fn as_other(mounted: &Mounted, program: &str, path: &str) -> Output {
    let path = mounted.at(".horace").join(path);
    as_user(USER, program).arg(path).output().unwrap()
}

#[test]
fn users_see_what_they_could_see_then() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell(
        "umask 022; mkdir open shut; echo was-public > open/f; (umask 077; echo was-private > open/g)
         echo hidden > shut/f; chmod 700 shut; echo mine > open/mine; chown 61234 open/mine
         chmod 600 open/mine",
    );
    let before = now(&mounted);
    mounted.shell("chmod 600 open/f; chmod 644 open/g; chmod 755 shut; chown 0 open/mine");
    let after = now(&mounted);
    let read = |time: &str, path: &str| {
        let output = as_other(&mounted, "cat", &format!("at/{time}/{path}"));
        let text = told(&output);
        assert_eq!(output.status.success(), !text.contains("Permission denied"), "{text}");
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(read(&before, "open/f").unwrap(), "was-public\n");
    assert_eq!(read(&after, "open/f"), None);
    assert_eq!(read(&before, "open/g"), None);
    assert_eq!(read(&after, "open/g").unwrap(), "was-private\n");
    assert_eq!(read(&before, "shut/f"), None);
    assert_eq!(read(&after, "shut/f").unwrap(), "hidden\n");
    assert_eq!(read(&before, "open/mine").unwrap(), "mine\n");
    assert_eq!(read(&after, "open/mine"), None);
    let list = |path: &str| as_other(&mounted, "ls", path).status.success();
    assert!(!list(&format!("at/{before}/shut")) && list(&format!("at/{after}/shut")));
    // All times at once: what was private at any time is.
    assert!(list("versions/open") && !list("versions/shut"));
    let cat = |path: &str| as_other(&mounted, "cat", path).status.success();
    assert!(cat("versions/open/f/1") && !cat("versions/open/g/1"));
    assert!(!cat("versions/shut/f/1"));
    // A mount that is private by now is private for all times.
    mounted.shell("chmod 700 .");
    assert_eq!(read(&before, "open/f"), None);
}

#[test]
fn what_was_in_a_private_directory_stays_private_wherever_it_goes() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell(
        "umask 022; mkdir -m 700 private; mkdir public; echo draft > private/f; echo one > private/g
         mkdir private/d; echo gone > private/d/gone; rm private/d/gone; echo left > private/d/left
         mv private/f private/g private/d public; echo final > public/f
         mkdir -m 700 again; echo secret > again/f; mv again away; mkdir again; echo open > again/f",
    );
    let can = |program: &str, path: &str| as_other(&mounted, program, path).status.success();
    // The file came with its history.
    assert_eq!(fs::read(mounted.at(".horace/versions/public/f/1")).unwrap(), b"draft\n");
    assert!(!can("cat", "versions/public/f/1"));
    assert!(can("cat", "versions/public/f/2"));
    assert!(!can("cat", "versions/private/f/1"));
    assert!(!can("ls", "versions/public/d") && !can("cat", "versions/public/d/left/1"));
    assert!(can("ls", "versions/public") && can("ls", "versions/public/f"));
    assert!(!can("cat", "versions/again/f/1") && can("cat", "versions/again/f/2"));
    // A directory whose owner has changed is for those who always could.
    mounted
        .shell("mkdir -m 750 team; chgrp 61234 team; echo x > team/f; mkdir all; echo x > all/f");
    assert!(!can("ls", "versions/team"));
    mounted.shell("chown 61234 all; mkdir -m 700 mine; chown 61234:61234 mine");
    assert!(can("ls", "versions/all") && !can("ls", "versions/mine"));
}

#[test]
fn the_mask_of_an_acl_is_not_taken_for_what_the_group_had() {
    if !can_mount() || !have(&["setpriv", "setfacl"]) {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell(
        "umask 022; mkdir d; for f in f g d/f; do echo secret > $f; done
         chgrp 61234 f g d; chmod 640 f g; chmod 750 d
         setfacl -m g::-,u:1:r f; setfacl -m g::-,u:1:rx d; echo more | tee -a f >> g",
    );
    let time = now(&mounted);
    let can = |program: &str, path: &str| as_other(&mounted, program, path).status.success();
    for (path, expected) in [("f", false), ("g", true), ("d/f", false)] {
        assert_eq!(can("cat", &format!("at/{time}/{path}")), expected, "{path}");
    }
    assert!(!can("cat", "versions/f/2") && can("cat", "versions/g/2"));
}

#[test]
fn acls_and_attributes_are_those_of_that_time() {
    if !can_mount() || !have(&["setpriv", "setfacl", "getfacl", "setfattr", "getfattr"]) {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell(
        "umask 077; mkdir d; echo secret > d/f; setfacl -m u:61234:x d; setfacl -m u:61234:r d/f
         setfattr -n user.mood -v good d/f",
    );
    let time = now(&mounted);
    mounted.shell("setfacl -b d d/f; setfattr -n user.mood -v bad d/f; echo more >> d/f");
    let later = now(&mounted);
    let path = |time: &str| format!("at/{time}/d/f");
    assert!(as_other(&mounted, "cat", &path(&time)).status.success(), "the ACL let them");
    assert!(!as_other(&mounted, "cat", &path(&later)).status.success(), "there is none any more");
    let told = |program: &str, time: &str| {
        must(
            Command::new(program)
                .args(["-d", "--absolute-names"])
                .arg(mounted.then(time).join("d/f")),
        )
    };
    assert!(told("getfattr", &time).contains("user.mood=\"good\""));
    assert!(told("getfattr", &later).contains("user.mood=\"bad\""));
    let acl = must(Command::new("getfacl").arg("-cp").arg(mounted.then(&time).join("d/f")));
    assert!(acl.contains("user:61234:r--"), "{acl}");
    // The live file is what it is.
    mounted.shell("rm -r d");
    assert!(told("getfattr", &time).contains("user.mood=\"good\""));
}

#[test]
fn setuid_and_setgid_are_not_shown() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("cp /bin/true f; chmod 6755 f; mkdir d; chmod 3775 d; echo x >> f; chmod 6755 f");
    mounted.shell("mknod null c 1 3; mkdir d/e");
    let time = now(&mounted);
    mounted.shell("rm -r f d null");
    let then = mounted.then(&time);
    assert_eq!(fs::metadata(then.join("f")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(then.join("d")).unwrap().mode() & 0o7777, 0o1775);
    mounted.shell(".horace/versions/f/1");
    assert_eq!(fs::metadata(then.join("d")).unwrap().nlink(), 1);
    let null = fs::metadata(then.join("null")).unwrap();
    assert_eq!((null.mode() & libc::S_IFMT, null.rdev()), (libc::S_IFCHR, 0));
    assert_eq!(errno(File::open(then.join("null"))), libc::ENXIO);
}

#[test]
fn nothing_can_be_changed_in_there() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("mkdir d; echo x > d/f; ln -s f d/s; mkdir d/e");
    let time = now(&mounted);
    let script = r#"
import os, sys
there, live = sys.argv[1], sys.argv[2]
f, d, s = there + "/d/f", there + "/d", there + "/d/s"
top = live + "/.horace"
number = top + "/versions/d/f/1"
def opened(path, flags):
    os.close(os.open(path, flags, 0o600))
def names(dir):
    new = dir + "/new"
    yield "create", lambda: opened(new, os.O_CREAT | os.O_WRONLY)
    yield "mkdir", lambda: os.mkdir(new)
    yield "mknod", lambda: os.mknod(new)
    yield "fifo", lambda: os.mkfifo(new)
    yield "symlink", lambda: os.symlink("x", new)
calls = [(f"{name} {dir}", call)
         for dir in (d, there, top, top + "/at", top + "/gmt", top + "/versions", top + "/versions/d/f")
         for name, call in names(dir)]
for path in (f, number):
    calls += [
        ("write", lambda p=path: opened(p, os.O_WRONLY)),
        ("read-write", lambda p=path: opened(p, os.O_RDWR)),
        ("append", lambda p=path: opened(p, os.O_WRONLY | os.O_APPEND)),
        ("O_TRUNC", lambda p=path: opened(p, os.O_RDONLY | os.O_TRUNC)),
        ("truncate", lambda p=path: os.truncate(p, 0)),
        ("chmod", lambda p=path: os.chmod(p, 0o600)),
        ("chown", lambda p=path: os.chown(p, 1, 1)),
        ("utime", lambda p=path: os.utime(p)),
        ("setxattr", lambda p=path: os.setxattr(p, "user.a", b"b")),
        ("own xattr", lambda p=path: os.setxattr(p, "user.horace.sha256", b"b")),
        ("removexattr", lambda p=path: os.removexattr(p, "user.a")),
        ("unlink", lambda p=path: os.unlink(p)),
        ("link inside", lambda p=path: os.link(p, d + "/new")),
        ("rename inside", lambda p=path: os.rename(p, d + "/new")),
    ]
calls += [
    ("rmdir", lambda: os.rmdir(d + "/e")),
    ("rename over", lambda: os.rename(f, s)),
    ("lchown", lambda: os.lchown(s, 1, 1)),
    ("chmod of the top", lambda: os.chmod(top, 0o700)),
    ("rmdir of a view", lambda: os.rmdir(top + "/at")),
    ("rename of a view", lambda: os.rename(top + "/at", top + "/new")),
]
for name, call in calls:
    assert done(call) == "EROFS", (name, done(call))
across = [
    ("rename out", lambda: os.rename(f, live + "/new")),
    ("rename in", lambda: os.rename(live + "/d/f", d + "/new")),
    ("link out", lambda: os.link(f, live + "/new")),
    ("link in", lambda: os.link(live + "/d/f", d + "/new")),
]
for name, call in across:
    assert done(call) == "EXDEV", (name, done(call))
for name, call in (("rmdir", lambda: os.rmdir(top)), ("rename", lambda: os.rename(top, live + "/new"))):
    assert done(call) == "EBUSY", (name, done(call))
assert done(os.unlink, top) == "EISDIR"
handle = os.open(f, os.O_RDONLY)
assert done(os.fchmod, handle, 0o600) == "EROFS"
assert done(os.fsync, handle) == "done"
assert os.lseek(handle, 0, os.SEEK_HOLE) == 2 and os.lseek(handle, 1, os.SEEK_DATA) == 1
assert done(os.lseek, handle, 2, os.SEEK_DATA) == "ENXIO"
assert os.listxattr(f) == [] and done(os.getxattr, f, "user.a") == "ENODATA"
"#;
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{}{script}", crate::tools::TRIED)]);
    must(command.arg(mounted.then(&time)).arg(&mounted.mountpoint));
    assert_eq!(fs::read(mounted.at("d/f")).unwrap(), b"x\n");
    // Out of it, files are copied.
    mounted.shell(&format!("cp -a '.horace/at/{time}/d' back; mv -n back moved; cat moved/f"));
    mounted.assert_catalog_is_true();
}

#[test]
fn what_was_not_kept_is_listed_and_not_read() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("keep=none");
    fs::write(mounted.at("f"), "lost").unwrap();
    let time = now(&mounted);
    fs::write(mounted.at("f"), "two").unwrap();
    for lost in [mounted.then(&time).join("f"), mounted.at(".horace/versions/f/1")] {
        assert_eq!(fs::metadata(&lost).unwrap().len(), 4);
        assert_eq!(errno(File::open(&lost)), libc::ENODATA);
    }
    assert_eq!(fs::read(mounted.at(".horace/versions/f/2")).unwrap(), b"two");
}

#[test]
fn a_damaged_object_is_not_passed_off_as_the_past() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), "precious").unwrap();
    let time = now(&mounted);
    fs::remove_file(mounted.at("f")).unwrap();
    let digest = sha256("precious");
    let object =
        mounted.backing.join(".horace/store/objects").join(&digest[..2]).join(&digest[2..]);
    mounted.wait_for("object", || object.exists());
    for damage in ["previous", "pre"] {
        fs::write(&object, damage).unwrap();
        assert_eq!(errno(fs::read(mounted.then(&time).join("f"))), libc::EIO, "{damage}");
    }
}

/// Reads from an open file without any cache.
fn read_anew(file: &File, length: usize) -> std::io::Result<Vec<u8>> {
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, 0).map(|()| buffer)
}

#[rstest]
fn a_file_that_is_overwritten_meanwhile_stays_what_it_was(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(300_000, 6_000_000)] size: usize,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let f = mounted.at("f");
    type Change = fn(&Path, &[u8]);
    let changes: [(&str, Change); 6] = [
        ("cut off and written", |f, new| fs::write(f, new).unwrap()),
        ("in place", |f, new| {
            File::options().write(true).open(f).unwrap().write_all_at(new, 0).unwrap();
        }),
        ("in place, readable", |f, new| {
            let file = File::options().read(true).write(true).open(f).unwrap();
            file.write_all_at(new, 0).unwrap();
        }),
        ("replaced", |f, new| {
            fs::write(f.with_extension("new"), new).unwrap();
            fs::rename(f.with_extension("new"), f).unwrap();
        }),
        ("deleted", |f, _| fs::remove_file(f).unwrap()),
        ("attributes", |f, _| fs::set_permissions(f, PermissionsExt::from_mode(0o600)).unwrap()),
    ];
    for (seed, (what, change)) in (0..).zip(changes) {
        let (old, new) = (noise(seed, size), noise(seed + 50, size));
        fs::write(&f, &old).unwrap();
        let time = now(&mounted);
        let view = File::open(mounted.then(&time).join("f")).unwrap();
        assert!(read_anew(&view, 1000).unwrap() == old[..1000], "{what}");
        change(&f, &new);
        let opened = File::open(mounted.then(&time).join("f"));
        for read in [Ok(view), opened].map(|file| file.and_then(|file| read_anew(&file, size))) {
            match read {
                Ok(read) => assert!(read == old, "{what}: bytes of another version"),
                // What is changed in place is copied first only if it is small.
                Err(error) => {
                    let is_lost = error.raw_os_error() == Some(libc::ENODATA);
                    assert!(is_lost && size > 1 << 20 && what.starts_with("in place"), "{what}");
                }
            }
        }
        let _ = fs::remove_file(&f);
    }
}

fn is_unreadable(error: &std::io::Error) -> bool {
    [Some(libc::EIO), Some(libc::ENODATA)].contains(&error.raw_os_error())
}

#[rstest]
fn who_is_writing_shows_in_no_view(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(300_000, 6_000_000)] size: usize,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let f = mounted.at("f");
    for (seed, readable) in [(1, false), (2, true)] {
        let old = noise(seed, size);
        fs::write(&f, &old).unwrap();
        let time = now(&mounted);
        let then = mounted.then(&time).join("f");
        let before = File::open(&then).unwrap();
        let writer = File::options().read(readable).write(true).open(&f).unwrap();
        for n in 0..20 {
            writer.write_all_at(&noise(100 + n, 1000), n * 100).unwrap();
            let opened = File::open(&then);
            for file in std::iter::once(&before).chain(&opened) {
                match read_anew(file, size) {
                    Ok(read) => assert!(read == old, "{n}: bytes of another state"),
                    // What could not be copied is nowhere by then.
                    Err(error) => assert!(is_unreadable(&error), "{n}: {error}"),
                }
            }
            assert!(opened.as_ref().err().is_none_or(is_unreadable), "{n}: {opened:?}");
            if size < 1 << 20 {
                assert!(read_anew(&opened.unwrap(), size).unwrap() == old, "{n}: a copy was made");
            }
        }
        // Sealed, and still open.
        drop(writer.try_clone().unwrap());
        if let Ok(read) = File::open(&then).and_then(|file| read_anew(&file, size)) {
            assert!(read == old);
        }
        drop(writer);
        fs::remove_file(&f).unwrap();
    }
}

#[test]
fn an_appended_file_is_as_long_as_it_was() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    let mut times = Vec::new();
    for n in 0..5 {
        let mut file = File::options().append(true).create(true).open(&f).unwrap();
        std::io::Write::write_all(&mut file, n.to_string().repeat(1000).as_bytes()).unwrap();
        drop(file);
        times.push(now(&mounted));
    }
    for (n, time) in times.iter().enumerate() {
        let expected: String = (0..=n).map(|n| n.to_string().repeat(1000)).collect();
        let then = mounted.then(time).join("f");
        assert_eq!(fs::read_to_string(&then).unwrap(), expected);
        let mut file = File::open(&then).unwrap();
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), expected.len());
    }
}

#[test]
fn names_are_bytes() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let name = std::ffi::OsStr::from_bytes(b"na\xff\xfeme\n");
    let long = "l".repeat(255);
    fs::create_dir(mounted.at(name)).unwrap();
    fs::write(mounted.at(name).join(name), "bytes").unwrap();
    fs::write(mounted.at(&long), "long").unwrap();
    symlink(name, mounted.at("link")).unwrap();
    let time = now(&mounted);
    fs::remove_dir_all(mounted.at(name)).unwrap();
    let then = mounted.then(&time);
    assert_eq!(fs::read(then.join(name).join(name)).unwrap(), b"bytes");
    assert_eq!(fs::read(then.join("link").join(name)).unwrap(), b"bytes");
    assert_eq!(fs::read_link(then.join("link")).unwrap().as_os_str(), name);
    assert_eq!(fs::read(then.join(&long)).unwrap(), b"long");
    let found: Vec<_> = fs::read_dir(&then).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(found.iter().any(|found| found == name), "{found:?}");
    let versions = mounted.at(".horace/versions").join(name).join(name).join("1");
    assert_eq!(fs::read(versions).unwrap(), b"bytes");
}

#[test]
fn a_symlink_leads_where_it_led() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut times = Vec::new();
    for target in ["one", "two", "three"] {
        let _ = fs::remove_file(mounted.at("s"));
        symlink(target, mounted.at("s")).unwrap();
        times.push((target, now(&mounted)));
    }
    for (target, time) in times {
        assert_eq!(fs::read_link(mounted.then(&time).join("s")).unwrap(), Path::new(target));
    }
}

#[test]
fn what_is_created_anew_does_not_show_what_was_deleted() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let f = mounted.at("f");
    fs::write(&f, "before").unwrap();
    fs::set_permissions(&f, PermissionsExt::from_mode(0o600)).unwrap();
    fs::remove_file(&f).unwrap();
    let file = File::create_new(&f).unwrap();
    file.write_all_at(b"being written", 0).unwrap();
    let time = now(&mounted);
    drop(file);
    let then = mounted.then(&time).join("f");
    assert_eq!(fs::metadata(&then).unwrap().mode() & 0o777, 0o644);
    // A program that another thread starts has the file for a moment, and its end is a close, too.
    assert!([b"".as_slice(), b"being written"].contains(&&*fs::read(&then).unwrap()));
}

#[test]
fn inode_numbers_tell_files_apart_and_stay() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("mkdir d; echo x > d/f; ln d/f d/hard; cp d/f d/copy");
    let one = now(&mounted);
    mounted.shell("echo y > other");
    let two = now(&mounted);
    let number = |path: PathBuf| {
        let found = fs::metadata(path).unwrap();
        (found.dev(), found.ino(), found.nlink())
    };
    let at = |time: &str, path: &str| number(mounted.then(time).join(path));
    let first = at(&one, "d/f");
    assert_eq!(first.0, fs::metadata(&mounted.mountpoint).unwrap().dev());
    assert_eq!((at(&one, "d/hard"), first.2), (first, 2));
    let others = [at(&one, "d/copy"), at(&two, "d/f"), number(mounted.at("d/f")), at(&one, "d")];
    assert!(others.iter().all(|other| other.1 != first.1), "{first:?}: {others:?}");
    mounted.wait_for("forgetting", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        mounted.status()["nodes"] == 0
    });
    assert_eq!(at(&one, "d/f"), first);
    must(Command::new("diff").arg("-r").args([mounted.then(&one), mounted.then(&one)]));
}

#[test]
fn a_handle_of_the_past_is_good_as_long_as_the_kernel_knows_it() {
    use horace::sys::handle::{self, HandleUse};
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.at("d")).unwrap();
    fs::write(mounted.at("d/f"), "content").unwrap();
    let dir = mounted.then(&now(&mounted)).join("d");
    let file = File::open(dir.join("f")).unwrap();
    let (root, dir) = (File::open(&mounted.mountpoint).unwrap(), File::open(dir).unwrap());
    let handle = handle::of(dir.as_fd(), c"f", HandleUse::Open).unwrap();
    let open = || handle::open(root.as_fd(), &handle, rustix::fs::OFlags::RDONLY).map(File::from);
    let mut read = String::new();
    open().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "content");
    drop((file, dir));
    mounted.wait_for("forgetting", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        open().is_err_and(|error| error == rustix::io::Errno::STALE)
    });
}

#[test]
fn a_very_deep_tree_is_shown_to_its_end() {
    if !can_mount() {
        return;
    }
    const DEPTH: usize = 1000;
    let mounted = Mounted::new();
    let script = r#"
import os, sys
def descend(top, make):
    os.chdir(top)
    for n in range(int(sys.argv[2])):
        if make:
            os.mkdir("deeply")
        os.chdir("deeply")
if sys.argv[3] == "make":
    descend(sys.argv[1], True)
    open("f", "w").write("bottom")
    # A live file is found by its path, and no call takes one that long.
    os.remove("f")
else:
    descend(sys.argv[1], False)
    print(open(sys.argv[3]).read() if os.path.isfile(sys.argv[3]) else "directory")
"#;
    let run = |top: &Path, what: &str| {
        let mut command = Command::new("python3");
        must(command.args(["-c", script]).arg(top).arg(DEPTH.to_string()).arg(what))
    };
    run(&mounted.mountpoint, "make");
    fs::rename(mounted.at("deeply"), mounted.at("moved")).unwrap();
    fs::rename(mounted.at("moved"), mounted.at("deeply")).unwrap();
    assert_eq!(run(&mounted.then(&now(&mounted)), "."), "directory\n");
    assert_eq!(run(&mounted.at(".horace/versions"), "f/1"), "bottom\n");
    mounted.wait_for("forgetting", || {
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        mounted.status()["nodes"] == 0
    });
}

#[test]
fn an_unmount_waits_for_who_reads_the_past() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::write(mounted.at("f"), noise(1, 100_000)).unwrap();
    let time = now(&mounted);
    fs::remove_file(mounted.at("f")).unwrap();
    let file = File::open(mounted.then(&time).join("f")).unwrap();
    let refused =
        mounted.command().arg("umount").arg(&mounted.mountpoint).current_dir("/").output().unwrap();
    assert!(!refused.status.success(), "{}", told(&refused));
    assert!(read_anew(&file, 100_000).unwrap() == noise(1, 100_000));
    drop(file);
    mounted.umount();
    mounted.start();
    assert_eq!(fs::read(mounted.then(&time).join("f")).unwrap(), noise(1, 100_000));
}

#[test]
fn large_directories_are_listed_page_by_page() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        mounted.shell("mkdir d; cd d; seq 3000 | while read n; do : > file$n; done");
        let time = now(&mounted);
        mounted.shell("rm -r d; mkdir d; touch d/new");
        let then = mounted.then(&time);
        let expected = mounted.shell("seq 3000 | sed s/^/file/ | sort");
        assert_eq!(script_in(&then.join("d"), "ls -U | sort"), expected);
        assert_eq!(script_in(&then, "ls -lR d | grep -c file"), "3000\n");
        // Back to the middle.
        let mut dir = rustix::fs::Dir::read_from(File::open(then.join("d")).unwrap()).unwrap();
        let first: Vec<_> = dir.by_ref().take(1500).map(Result::unwrap).collect();
        let rest = dir.by_ref().count();
        dir.seek(first[999].offset()).unwrap();
        assert_eq!(dir.next().unwrap().unwrap().file_name(), first[1000].file_name());
        assert_eq!((rest, dir.count()), (1502, 2001));
        assert_eq!(names(&mounted.at(".horace/versions/d")).len(), 3001);
    }
}
