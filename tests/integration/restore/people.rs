//! Who may bring back what, and taking back what one of them did.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Output};

use crate::callers::as_user;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, told};

const USER: u32 = 61_234;

impl Mounted {
    /// Runs the program as an ordinary user.
    pub(super) fn run_as(&self, uid: u32, args: &[&str]) -> Output {
        let mut command = as_user(uid, env!("CARGO_BIN_EXE_horace"));
        command.env("HORACE_RUNTIME_DIR", &self.runtime).args(args);
        command.current_dir(&self.mountpoint).output().unwrap()
    }
}

fn changing(mounted: &Mounted, script: &str) -> String {
    let script = format!("echo $$; {script}");
    must(Command::new("bash").args(["-c", &script]).current_dir(&mounted.mountpoint)).trim().into()
}

#[test]
fn users_bring_back_what_they_could_read_to_where_they_may_write() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    let make = |path: &str, owner: u32, mode: u32| {
        fs::write(mounted.at(path), format!("old {path}")).unwrap();
        chown(mounted.at(path), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(mounted.at(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    for (dir, owner, mode) in [("own", USER, 0o755), ("roots", 0, 0o755), ("sticky", 0, 0o1777)] {
        fs::create_dir(mounted.at(dir)).unwrap();
        chown(mounted.at(dir), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(mounted.at(dir), PermissionsExt::from_mode(mode)).unwrap();
    }
    make("own/mine", USER, 0o4711);
    make("own/roots", 0, 0o6755);
    make("own/secret", 0, 0o600);
    make("roots/f", USER, 0o644);
    make("sticky/roots", 0, 0o666);
    make("sticky/mine", USER, 0o644);
    mounted.sync();
    for path in ["own/mine", "own/roots", "own/secret", "roots/f", "sticky/roots", "sticky/mine"] {
        let new = mounted.at("new");
        fs::write(&new, "new").unwrap();
        let is_mine = path.ends_with("mine") || path == "roots/f";
        let owner = if is_mine { USER } else { 0 };
        chown(&new, Some(owner), Some(owner)).unwrap();
        let mode = if path == "own/secret" { 0o600 } else { 0o644 };
        fs::set_permissions(&new, PermissionsExt::from_mode(mode)).unwrap();
        fs::rename(&new, mounted.at(path)).unwrap();
    }
    let found = |path: &str| {
        let stat = fs::metadata(mounted.at(path)).unwrap();
        (fs::read_to_string(mounted.at(path)).unwrap(), stat.uid(), stat.mode() & 0o7777)
    };
    for (path, expected) in [
        ("own/mine", Some((USER, 0o4711))),
        // It becomes theirs, without the rights of whom it was.
        ("own/roots", Some((USER, 0o755))),
        ("own/secret", None),
        ("roots/f", None),
        ("sticky/roots", None),
        ("sticky/mine", Some((USER, 0o644))),
    ] {
        let output = mounted.run_as(USER, &["restore", &format!("{path}@1")]);
        match expected {
            Some((uid, mode)) => {
                assert!(output.status.success(), "{path}: {}", told(&output));
                assert_eq!(found(path), (format!("old {path}"), uid, mode));
            }
            None => {
                assert!(!output.status.success(), "{path}: {}", told(&output));
                assert!(
                    told(&output).to_lowercase().contains("permi"),
                    "{path}: {}",
                    told(&output)
                );
                assert_eq!(found(path).0, "new", "{path}");
            }
        }
    }
    // Nobody is told of names that they could not list.
    fs::create_dir(mounted.at("own/private")).unwrap();
    fs::set_permissions(mounted.at("own/private"), PermissionsExt::from_mode(0o700)).unwrap();
    let moment = mounted.moment();
    fs::write(mounted.at("own/private/hidden"), "x").unwrap();
    fs::write(mounted.at("own/shown"), "x").unwrap();
    let plan = mounted.run_as(USER, &["rewind", "own", "--to", &moment, "--dry-run"]);
    let told = told(&plan);
    assert!(told.contains("own/shown") && !told.contains("hidden"), "{told}");
}

#[test]
fn what_one_process_did_is_taken_back_and_nothing_else() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    changing(
        &mounted,
        "mkdir d e; for n in changed deleted moved both other; do echo $n > d/$n; done; echo x > e/x",
    );
    // Each command of a shell is a process of its own, but for what the shell writes itself.
    let culprit = changing(
        &mounted,
        "echo bad > d/changed; echo bad > d/both; echo bad > d/created; echo bad > e/created",
    );
    changing(&mounted, "echo good > d/both; echo good > d/other; echo good > d/new");
    let plan = mounted.ok_or_partial(&["restore", "d", "--by-pid", &culprit, "--dry-run"]);
    assert!(plan.contains("d/both: somebody else has changed it since"), "{plan}");
    let output = mounted.run(&["restore", "d", "--by-pid", &culprit]);
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let read = |path: &str| fs::read_to_string(mounted.at(path)).unwrap();
    assert_eq!((read("d/changed").as_str(), read("d/both").as_str()), ("changed\n", "good\n"));
    assert_eq!((read("d/other").as_str(), read("d/new").as_str()), ("good\n", "good\n"));
    assert!(!mounted.at("d/created").exists());
    assert_eq!(read("e/created"), "bad\n", "it lies elsewhere");
}

#[test]
fn what_one_user_did_is_taken_back() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    changing(
        &mounted,
        "umask 0; mkdir d d/sub; for n in changed deleted moved; do echo $n > d/$n; done; echo b > d/sub/b",
    );
    let moment = mounted.moment();
    let script =
        "echo bad > changed; rm deleted; mv moved elsewhere; rm -r sub; mkdir new; echo > new/f";
    must(as_user(USER, "bash").args(["-c", script]).current_dir(mounted.at("d")));
    changing(&mounted, "echo good > d/good");
    mounted.ok(&["restore", ".", "--by-user", &USER.to_string(), "--since", &moment]);
    let names = must(Command::new("find").arg(".").current_dir(mounted.at("d")));
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, [".", "./changed", "./deleted", "./good", "./moved", "./sub", "./sub/b"]);
    for name in ["changed", "deleted", "moved"] {
        assert_eq!(fs::read_to_string(mounted.at("d").join(name)).unwrap(), format!("{name}\n"));
    }
    let nobody = mounted.run(&["restore", ".", "--by-user", "nobody-of-this-name"]);
    assert!(told(&nobody).contains("there is no user"), "{}", told(&nobody));
}
