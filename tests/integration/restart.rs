//! Starts and stops: what happened while nobody looked is found, and nothing that was told is lost.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::{Mounted, can_mount};
use crate::tools::{must, noise, sha256, told};

fn fill(dir: &Path) {
    for n in 0..30 {
        let sub = dir.join(format!("d{}", n % 3));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("f{n}")), format!("content {n}")).unwrap();
    }
    std::os::unix::fs::symlink("d0/f0", dir.join("link")).unwrap();
    fs::hard_link(dir.join("d0/f0"), dir.join("hard")).unwrap();
}

fn origins(mounted: &Mounted, path: &str) -> Vec<String> {
    let versions = mounted.log_of(path);
    versions.iter().map(|version| version["origin"].as_str().unwrap().to_owned()).collect()
}

fn file_id(mounted: &Mounted, path: &str) -> String {
    mounted.log_of(path).last().unwrap()["file_id"].as_str().unwrap().to_owned()
}

pub(crate) fn terminate(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::TERM).unwrap();
}

#[test]
fn a_directory_with_files_is_imported() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::prepared("", fill);
    mounted.wait_reconciled();
    assert_eq!(origins(&mounted, "d1/f1"), ["import"]);
    assert!(mounted.log_of("d1/f1")[0]["writer"].is_null());
    let status = mounted.status();
    assert_eq!(status["reconcile"]["files"], 35, "directories are counted, too");
    assert_eq!(status["reconcile"]["read_files"].as_u64(), Some(31), "each name is read once");
    assert_eq!(status["reconcile"]["directories"], 4);
    mounted.assert_survives_remount();
    assert_eq!(origins(&mounted, "d1/f1"), ["import"], "and once only");
}

#[test]
fn what_is_written_during_the_import_is_not_overwritten_by_it() {
    if !can_mount() {
        return;
    }
    const FILES: usize = 3_000;
    let name = |n: usize| format!("d{}/f{n}", n % 20);
    let mut mounted = Mounted::prepared("", |dir| {
        for n in 0..20 {
            fs::create_dir(dir.join(format!("d{n}"))).unwrap();
        }
        for n in 0..FILES {
            fs::write(dir.join(name(n)), format!("old {n}")).unwrap();
        }
    });
    // Changes of every kind, all over the tree, while the walk is under way.
    let mut saved = Vec::new();
    for n in (0..FILES).rev().step_by(3) {
        let path = mounted.at(name(n));
        match n % 5 {
            0 => fs::write(&path, format!("new {n}")).unwrap(),
            1 => fs::remove_file(&path).unwrap(),
            2 => fs::rename(&path, mounted.at(format!("moved-{n}"))).unwrap(),
            3 => {
                fs::write(mounted.at("temp"), format!("new {n}")).unwrap();
                fs::rename(mounted.at("temp"), &path).unwrap();
            }
            _ => {
                let mut file = File::options().append(true).open(&path).unwrap();
                file.write_all(b" and more").unwrap();
            }
        }
        if n % 5 == 0 || n % 5 == 3 {
            saved.push(n);
        }
    }
    fs::rename(mounted.at("d7"), mounted.at("d7-moved")).unwrap();
    fs::rename(mounted.at("d8"), mounted.at("d9/d8")).unwrap();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    for n in saved.into_iter().filter(|n| ![7, 8].contains(&(n % 20))).step_by(50) {
        let digests = mounted.digests(&name(n));
        assert_eq!(digests.last(), Some(&sha256(format!("new {n}"))), "{}", name(n));
        if n % 5 == 0 {
            // The old content is known, too: it was small enough to be read before the change.
            assert_eq!(digests[0], sha256(format!("old {n}")), "{}", name(n));
        }
    }
    mounted.assert_survives_remount();
}

#[test]
fn changes_while_it_was_off_are_found() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fill(&mounted.mountpoint);
    let before = file_id(&mounted, "d0/f3");
    mounted.umount();
    let off = mounted.backing.clone();
    fs::write(off.join("d0/f3"), "changed").unwrap();
    fs::write(off.join("d1/new"), "created").unwrap();
    fs::remove_file(off.join("d2/f2")).unwrap();
    fs::rename(off.join("d1/f1"), off.join("moved")).unwrap();
    fs::write(off.join("temp"), "saved").unwrap();
    fs::rename(off.join("temp"), off.join("d0/f6")).unwrap();
    fs::remove_file(off.join("d0/f9")).unwrap();
    fs::create_dir(off.join("d0/f9")).unwrap();
    fs::remove_file(off.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", off.join("link")).unwrap();
    fs::set_permissions(off.join("d0/f12"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.digests("d0/f3"), ["content 3", "changed"].map(sha256));
    assert_eq!(origins(&mounted, "d0/f3"), ["write", "external"]);
    assert_eq!(file_id(&mounted, "d0/f3"), before);
    assert_eq!(origins(&mounted, "d1/new"), ["external"]);
    assert_eq!(mounted.digests("moved"), [sha256("content 1")]);
    assert_eq!(mounted.digests("d0/f6"), ["content 6", "saved"].map(sha256), "a replaced inode");
    assert_eq!(origins(&mounted, "d0/f6"), ["write", "external"]);
    assert_eq!(mounted.digests("d2/f2"), [sha256("content 2")], "the past of what is gone");
    let deleted = mounted.records(&["search", "--deleted", "f2"]);
    assert!(deleted.iter().any(|found| found["path"] == "d2/f2" && found["deleted"].is_string()));
    mounted.assert_survives_remount();
}

#[test]
fn a_directory_moved_while_it_was_off_keeps_its_files() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::create_dir_all(mounted.at("a/b/c")).unwrap();
    for name in ["a/1", "a/b/2", "a/b/c/3"] {
        fs::write(mounted.at(name), name).unwrap();
    }
    let ids = ["a/1", "a/b/2", "a/b/c/3"].map(|name| file_id(&mounted, name));
    mounted.umount();
    let off = mounted.backing.clone();
    fs::create_dir(off.join("z")).unwrap();
    fs::rename(off.join("a/b"), off.join("z/y")).unwrap();
    fs::rename(off.join("a"), off.join("z/x")).unwrap();
    // Something else has the old name by now.
    fs::create_dir(off.join("a")).unwrap();
    fs::write(off.join("a/1"), "another").unwrap();
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    assert_eq!(ids, ["z/x/1", "z/y/2", "z/y/c/3"].map(|name| file_id(&mounted, name)));
    assert_eq!(origins(&mounted, "z/y/c/3"), ["write"], "a move makes no version");
    assert_eq!(mounted.status()["reconcile"]["read_files"], 1, "only what is new is read");
    assert_ne!(file_id(&mounted, "a/1"), ids[0]);
}

#[rstest]
fn a_change_that_leaves_size_and_time_is_found(
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    // Just before the end and just after it, as fast as it goes: as with git's index.
    for round in 0..5 {
        let [old, new] = ["a", "b"].map(|text| format!("{text}{round}"));
        fs::write(mounted.at("f"), &old).unwrap();
        let time = fs::metadata(mounted.at("f")).unwrap().modified().unwrap();
        mounted.umount();
        fs::write(mounted.backing.join("f"), &new).unwrap();
        let file = File::options().write(true).open(mounted.backing.join("f")).unwrap();
        file.set_modified(time).unwrap();
        mounted.start();
        mounted.wait_reconciled();
        assert_eq!(mounted.digests("f").last(), Some(&sha256(new)));
    }
}

#[test]
fn a_change_around_the_mount_is_found_when_asked() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), "through the mount").unwrap();
    mounted.wait_reconciled();
    fs::write(mounted.backing.join("f"), "around it").unwrap();
    fs::write(mounted.backing.join("g"), "around it").unwrap();
    mounted.ok(&["reconcile", "."]);
    assert_eq!(mounted.digests("f"), ["through the mount", "around it"].map(sha256));
    assert_eq!(origins(&mounted, "f"), ["write", "external"]);
    assert_eq!(origins(&mounted, "g"), ["external"]);
}

#[rstest]
fn files_that_exchange_or_pass_on_their_names_around_the_mount_are_recognised(
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    let names = ["a", "b", "log", "log.1", "log.2"];
    for name in names {
        fs::write(mounted.at(name), format!("first {name}")).unwrap();
        fs::write(mounted.at(name), name).unwrap();
    }
    let ids = names.map(|name| file_id(&mounted, name));
    mounted.wait_reconciled();
    mounted.umount();
    let script =
        "mv a x; mv b a; mv x b; mv log.2 log.3; mv log.1 log.2; mv log log.1; echo new > log";
    must(Command::new("sh").args(["-ec", script]).current_dir(&mounted.backing));
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    let now = ["b", "a", "log.1", "log.2", "log.3"];
    assert_eq!(now.map(|name| file_id(&mounted, name)), ids);
    for name in names {
        let before = mounted.digests(name);
        let expected = [format!("first {name}"), name.into()].map(sha256);
        assert_eq!(before[..2], expected, "{name}");
        mounted.assert_kept(name);
    }
    assert!(!ids.contains(&file_id(&mounted, "log")));
}

#[test]
fn a_signal_drains_and_unmounts() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    for n in 0..300 {
        fs::write(mounted.at(format!("f{n}")), noise(n, 100)).unwrap();
    }
    fs::write(mounted.at("large"), noise(1, 30_000_000)).unwrap();
    terminate(mounted.pid());
    mounted.wait_for_end();
    assert!(!mounted.is_mounted());
    mounted.start();
    mounted.wait_reconciled();
    assert_eq!(mounted.status()["reconcile"]["read_files"], 0, "everything was committed");
    mounted.assert_catalog_is_true();
}

#[test]
fn a_signal_while_a_file_is_open_keeps_what_was_written() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let mut file = File::create(mounted.at("f")).unwrap();
    file.write_all(b"written before").unwrap();
    terminate(mounted.pid());
    mounted.wait_for_end();
    assert!(!mounted.is_mounted());
    drop(file);
    assert_eq!(fs::read(mounted.backing.join("f")).unwrap(), b"written before");
    mounted.start();
    mounted.wait_reconciled();
    assert_eq!(mounted.digests("f"), [sha256("written before")]);
}

#[test]
fn umount_returns_when_everything_is_committed() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::write(mounted.at("f"), noise(1, 40_000_000)).unwrap();
    let appended = File::options().append(true).open(mounted.at("f")).unwrap();
    (&appended).write_all(b"end").unwrap();
    drop(appended);
    mounted.umount();
    // Without a daemon the catalog answers by itself.
    let output =
        mounted.command().args(["log", "--json"]).arg(mounted.backing.join("f")).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let newest: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let bytes = [noise(1, 40_000_000), b"end".to_vec()].concat();
    assert_eq!(newest["sha256"], sha256(bytes));
}

#[test]
fn umount_names_who_uses_the_mount() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let file = File::create(mounted.at("f")).unwrap();
    let output = mounted.command().arg("umount").arg(&mounted.mountpoint).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = told(&output);
    assert!(text.contains("in use") && text.contains(&std::process::id().to_string()), "{text}");
    assert!(text.contains("hint:"), "{text}");
    drop(file);
    mounted.umount();
}

#[test]
fn an_unmount_by_others_ends_the_daemon_in_order() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::write(mounted.at("f"), "text").unwrap();
    must(Command::new("umount").arg(&mounted.mountpoint));
    mounted.wait_for_end();
    mounted.start();
    mounted.wait_reconciled();
    assert_eq!(mounted.status()["reconcile"]["read_files"], 0);
    assert_eq!(mounted.digests("f"), [sha256("text")]);
}

#[rstest]
fn a_kill_loses_nothing(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    fs::create_dir(mounted.at("d")).unwrap();
    for n in 0..50 {
        fs::write(mounted.at(format!("d/f{n}")), format!("{n}")).unwrap();
    }
    fs::rename(mounted.at("d"), mounted.at("e")).unwrap();
    fs::write(mounted.at("large"), noise(1, 5_000_000)).unwrap();
    fs::remove_file(mounted.at("e/f7")).unwrap();
    let mut open = File::create(mounted.at("open")).unwrap();
    open.write_all(b"not closed").unwrap();
    mounted.kill();
    drop(open);
    assert!(mounted.is_mounted(), "the mount is dead, but there");
    let error = fs::metadata(&mounted.mountpoint).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    // The command line says so rather than failing by it.
    let output = mounted.command().arg("log").arg(mounted.at("e/f1")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("hint:"), "{}", told(&output));
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.digests("open"), [sha256("not closed")]);
    mounted.assert_survives_remount();
}

#[test]
fn kills_at_any_moment_leave_a_catalog_that_can_be_mended() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    for round in 0..6 {
        let work = format!(
            "n=0; while n=$((n + 1)); do echo {round} $n > f$((n % 50)) || exit 0
             mkdir -p d$((n % 7)) && echo x >> d$((n % 7))/log || exit 0
             mv f$((n % 50)) d$((n % 7))/ || exit 0; rm -f d$((n % 7))/f$((n % 13)); done"
        );
        let mut worker = Command::new("sh")
            .args(["-c", &work])
            .current_dir(&mounted.mountpoint)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let seq = mounted.ok(&["sync", "."]).trim().parse::<u64>().unwrap();
        mounted.wait_for("some changes", || {
            mounted.ok(&["sync", "."]).trim().parse::<u64>().unwrap() > seq + 100 + round * 37
        });
        mounted.kill();
        worker.wait().unwrap();
        mounted.start();
        mounted.wait_reconciled();
        mounted.assert_catalog_is_true();
    }
    mounted.assert_survives_remount();
}

#[test]
fn umount_clears_a_dead_mount_away() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.kill();
    must(mounted.command().arg("umount").arg(&mounted.mountpoint));
    assert!(!mounted.is_mounted());
    mounted.start();
}

#[test]
fn a_second_daemon_is_told_of_the_first() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let other = mounted.scratch("other");
    fs::create_dir(&other).unwrap();
    let output = mounted
        .command()
        .args(["mount", "-o", "api=off"])
        .args([&mounted.backing, &other])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = told(&output);
    assert!(text.contains(&format!("process {}", mounted.pid())), "{text}");
    fs::write(mounted.at("f"), "served as before").unwrap();
    assert_eq!(mounted.digests("f").len(), 1);
}

#[test]
fn mount_returns_when_the_mount_serves() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    for _ in 0..3 {
        mounted.start_in_background();
        fs::write(mounted.at("f"), "at once").unwrap();
        assert_eq!(mounted.digests("f"), [sha256("at once")]);
        let log = mounted.backing.join(".horace/horace.log");
        assert!(log.exists(), "the log goes on in the state directory");
        must(mounted.command().arg("umount").arg(&mounted.mountpoint));
        assert!(!mounted.is_mounted());
    }
}

#[test]
fn times_of_the_future_and_of_long_ago_do_not_confuse_a_start() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let day = Duration::from_secs(86_400);
    let epoch = SystemTime::UNIX_EPOCH;
    for (name, time) in [
        ("old", epoch - day * 365),
        ("first", epoch),
        ("future", epoch + day * 365 * 100),
        ("odd", epoch - Duration::from_nanos(1)),
    ] {
        let file = File::create(mounted.at(name)).unwrap();
        (&file).write_all(name.as_bytes()).unwrap();
        file.set_modified(time).unwrap();
        assert_eq!(fs::metadata(mounted.at(name)).unwrap().modified().unwrap(), time);
    }
    mounted.assert_survives_remount();
}
