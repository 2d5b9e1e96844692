//! Files that are immutable or append-only on the backing filesystem.

use std::path::Path;
use std::process::Command;

use rstest::rstest;

use super::operations;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must};

/// Takes the flags away again, or nobody could remove the directory.
struct Flagged<'a>(&'a Path);

impl Drop for Flagged<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").args(["-R", "-i", "-a"]).arg(self.0).output();
    }
}

#[rstest]
fn flags_of_the_backing_file_refuse_the_same(
    #[values("+i", "+a")] flag: &str,
    #[values(&["."], &["write", "append", "cut", "over", "attr", "linked", "read", "full"])]
    names: &[&str],
) {
    if !can_mount() || !have(&["chattr", "lsattr"]) {
        return;
    }
    let try_with = |real: &Path, seen: &Path| {
        operations::prepare(seen);
        let flagged = Flagged(real);
        must(Command::new("chattr").arg(flag).args(names).current_dir(real));
        let refused = operations::try_all(seen);
        drop(flagged);
        refused
    };
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        let plain = mounted.scratch("plain");
        std::fs::create_dir(&plain).unwrap();
        let expected = try_with(&plain, &plain);
        assert!(expected.iter().any(|(_, told)| told == "errno 1"), "{expected:?}");
        assert_eq!(try_with(&mounted.backing, &mounted.mountpoint), expected, "{way}");
        mounted.assert_catalog_is_true();
    }
}

/// There are no flags to ask for, which programs know from filesystems that have none.
#[test]
fn flags_are_not_seen_through_the_mount() {
    if !can_mount() || !have(&["chattr", "lsattr"]) {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("echo x > f");
    for program in [&["lsattr"][..], &["chattr", "+i"], &["chattr", "+a"]] {
        let mut command = Command::new(program[0]);
        let output = command.args(&program[1..]).arg(mounted.at("f")).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains("Operation not supported"), "{program:?}: {told}");
    }
    mounted.shell("echo y > f; rm f");
}
