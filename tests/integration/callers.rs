//! Whoever calls gets what the kernel would give on the backing directory: owners, modes, refusals,
//! and answers of the catalog.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, sha256, told};

pub(crate) const USER: u32 = 61_234;
const GROUP: u32 = 61_777;
/// A user with a name, which fusermount3 asks for.
const NOBODY: u32 = 65_534;

/// A command as a user with one supplementary group.
pub(crate) fn as_user(uid: u32, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={uid}"), format!("--regid={uid}"), format!("--groups={GROUP}")])
        .args(["--inh-caps=-all", "--bounding-set=-all", "--"])
        .arg(program.as_ref())
        .current_dir("/");
    command
}

/// Directories of every kind that decides on new inodes.
const PREPARE: &str = r#"
    umask 022
    mkdir own shared setgid sticky acl secret
    chown 61234:61234 own
    chgrp 61777 shared setgid; chmod 775 shared; chmod 2775 setgid
    chmod 1777 sticky; echo root > sticky/of-root; chmod 666 sticky/of-root
    chmod 777 acl; setfacl -m u:61235:r acl; setfacl -d -m u::rwx,g::rwx,o::rx,u:61235:rw,m::rwx acl
    chmod 700 secret; echo secret > secret/f
    echo readable > readable; echo unreadable > unreadable; chmod 600 unreadable
    echo group > group; chgrp 61777 group; chmod 664 group
    echo suid > suid; chmod 6777 suid; echo sgid > sgid; chmod 2777 sgid
    echo trunc > cut; chmod 6777 cut; echo program > program; chmod 4775 program; chgrp 61777 program
"#;

#[rstest]
#[case::files("echo x > own/f; mkdir own/d; ln -s t own/l; mkfifo own/p; ln own/f own/h")]
#[case::modes("umask 077; echo x > own/f; mkdir own/d; umask 0; echo x > own/g; mkdir own/e")]
#[case::exact_modes("mkdir -m 1753 own/d; install -m 4711 /dev/null own/f; mkfifo -m 604 own/p")]
#[case::group_writable("echo x > shared/f; mkdir shared/d; echo y >> group")]
#[case::setgid("echo x > setgid/f; mkdir setgid/d; echo y > setgid/d/f; mkdir -m 700 setgid/d/e")]
#[case::sticky("echo y >> sticky/of-root; rm -f sticky/of-root; mv sticky/of-root sticky/x")]
#[case::acl(
    "umask 077; echo x > acl/f; mkdir acl/d; echo y > acl/d/g; mkfifo acl/p; getfacl -c acl/*"
)]
#[case::denied(
    "echo x > new; echo x > unreadable; cat unreadable; ls secret; cat secret/f; mkdir d"
)]
#[case::denied_changes(
    "chmod 777 readable; chown 61234 readable; touch -d @0 readable; rm readable"
)]
#[case::denied_names(
    "ln readable hard; mv readable own/r; mv own/none x; rmdir own; truncate -s 0 readable"
)]
#[case::touched("touch -d @5 own; touch group; touch -d @5 group; truncate -s 2 group")]
#[case::suid_cleared_by_a_write("echo more >> suid; echo more >> sgid; printf x 1<>program")]
#[case::suid_cleared_by_a_cut(": > cut; truncate -s 1 suid; truncate -s 0 sgid")]
#[case::suid_cleared_by_a_chown(
    "echo x > own/f; chmod 6755 own/f; chgrp 61777 own/f; chmod 2755 own/f"
)]
#[case::foreign_groups(
    "echo x > own/f; chgrp 0 own/f; chgrp 61777 own/f; mkdir own/d; chgrp 61777 own/d; chmod 2770 own/d; echo > own/d/f"
)]
#[case::xattrs(
    "echo x > own/f; setfattr -n user.a -v b own/f; setfattr -n trusted.a -v b own/f; setfattr -n user.a -v b readable; getfattr -d own/f"
)]
#[case::special("mknod own/null c 1 3; mknod own/s p; cp -a /dev/null own/n")]
fn users_get_what_a_plain_directory_gives(
    #[case] script: &str,
    #[values("", "passthrough=off")] options: &str,
) {
    if !can_mount() || !have(&["setpriv", "setfacl", "setfattr"]) {
        return;
    }
    let mounted = Mounted::with_options(options);
    let plain = mounted.scratch("plain");
    fs::create_dir(&plain).unwrap();
    let [expected, found] = [&plain, &mounted.mountpoint].map(|dir| {
        must(Command::new("bash").args(["-euc", PREPARE]).current_dir(dir));
        // One after the other, with what each says: a refusal must be the same refusal.
        let script = format!("cd \"$1\"; {}", script.replace("; ", " 2>&1 || echo \"code $?\"; "));
        let output = as_user(USER, "bash").args(["-c", &script, "-"]).arg(dir).output().unwrap();
        let list = must(
            Command::new("bash")
                .args(["-c", "find . -mindepth 1 -printf '%P %y %m %U:%G %n %l\\n' | sort; find . ! -type l | sort | getfacl - 2>/dev/null; cat $(find . -type f | sort)"])
                .current_dir(dir),
        );
        format!("{}\n{list}", told(&output))
    });
    assert_eq!(found, expected);
    mounted.assert_catalog_is_true();
}

#[test]
fn what_users_make_is_theirs_in_the_catalog() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.at("open")).unwrap();
    mounted.shell("chmod 777 open");
    let file = mounted.at("open/f");
    must(as_user(USER, "tee").arg(&file).stdin(std::process::Stdio::null()));
    let version = &mounted.log_of("open/f")[0];
    assert_eq!(version["writer"]["uid"], USER);
    assert_eq!(version["writer"]["gid"], USER);
    assert_eq!(version["writer"]["comm"], "tee");
}

/// A copy of the program that every user may run.
pub(crate) fn program(mounted: &Mounted) -> PathBuf {
    let copy = mounted.scratch("horace");
    fs::copy(env!("CARGO_BIN_EXE_horace"), &copy).unwrap();
    must(Command::new("chmod").arg("755").arg(&copy));
    copy
}

#[test]
fn users_are_answered_what_they_may_read_and_nothing_else() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    let program = program(&mounted);
    mounted.shell(
        "mkdir d secret; for f in d/open d/closed d/grouped secret/open; do echo $f > $f; done
         chmod 600 d/closed; chgrp 61777 d/grouped; chmod 640 d/grouped; chmod 700 secret
         echo gone > d/gone; rm d/gone; echo gone > secret/gone; rm secret/gone
         (umask 077; echo gone > d/closed-gone; rm d/closed-gone)",
    );
    let ask = |uid: u32, args: &[&str]| -> Output {
        let mut command = as_user(uid, &program);
        command.env("HORACE_RUNTIME_DIR", &mounted.runtime).args(args);
        command.current_dir(&mounted.mountpoint).output().unwrap()
    };
    let text = |args: &[&str]| {
        let output = ask(USER, args);
        assert!(output.status.success(), "{args:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // The file behind the answers is root's.
    let catalog = mounted.backing.join(".horace/catalog.db");
    assert!(!as_user(USER, "cat").arg(catalog).output().unwrap().status.success());
    assert!(text(&["log", "--json", "d/open"]).contains(&sha256("d/open\n")));
    assert!(text(&["log", "--json", "d/grouped"]).contains(&sha256("d/grouped\n")));
    assert!(text(&["blame", "d/open"]).contains("root"));
    for denied in ["d/closed", "secret/open", "secret/gone", "d/closed-gone"] {
        for command in ["log", "blame"] {
            let output = ask(USER, &[command, "--json", denied]);
            assert_eq!(output.status.code(), Some(1), "{command} {denied}: {}", told(&output));
            assert!(output.stdout.is_empty(), "{command} {denied}: {}", told(&output));
        }
    }
    let manifest = text(&["manifest", "."]);
    let names: Vec<_> = manifest.lines().filter_map(|line| line.split("  ").nth(1)).collect();
    assert_eq!(names, ["d/grouped", "d/open"]);
    let found = text(&["search", "--deleted", "--json", "o"]);
    assert!(found.contains("d/open") && !found.contains("secret/"), "{found}");
    for digest in ["d/closed\n", "secret/open\n"].map(sha256) {
        for args in [&["search", "--json", "-d", "."][..], &["changes", "--json"]] {
            let all = text(args);
            assert!(!all.contains(&digest), "{args:?}");
            assert!(!all.contains("secret/"), "{args:?}: {all}");
        }
    }
    // What a user may see is not what another may.
    assert!(ask(0, &["log", "secret/open"]).status.success());
    let stopped = ask(USER, &["status", "--json"]);
    assert!(stopped.status.success(), "{}", told(&stopped));
}

#[test]
fn a_user_mounts_for_himself() {
    if !can_mount() || !have(&["setpriv", "fusermount3", "unshare"]) {
        return;
    }
    let dirs = Mounted::unmounted("");
    program(&dirs);
    for dir in [&dirs.backing, &dirs.mountpoint, &dirs.runtime] {
        must(Command::new("chown").arg(format!("{NOBODY}:{NOBODY}")).arg(dir));
    }
    // In mounts of its own, with a device that everybody may open, as udev makes it.
    let script = format!(
        r#"
        mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse
        trap 'umount -l "$PWD/mount" 2>/dev/null || true' EXIT
        user() {{ setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --inh-caps=-all -- "$@"; }}
        user ./horace mount -o api=off backing mount 2> start.log || {{ cat start.log; exit 1; }}
        user sh -c 'cd mount; echo one > f; echo two > f; mkdir d; mv f d; echo x > g; rm g; cat d/f'
        user ./horace log --json mount/d/f
        user ./horace manifest mount
        user ./horace status mount
        findmnt -n -o FSTYPE,OPTIONS "$PWD/mount"
        user ./horace umount mount
        ! findmnt "$PWD/mount" || exit 1
        "#
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "bash", "-euc", &script]);
    let scratch = dirs.mountpoint.parent().unwrap();
    let text = must(command.current_dir(scratch).env("HORACE_RUNTIME_DIR", &dirs.runtime));
    for expected in [
        sha256("one\n"),
        format!("{}  mount/d/f", sha256("two\n")),
        "no kernel passthrough: the daemon lacks CAP_SYS_ADMIN".into(),
        format!("user_id={NOBODY},group_id={NOBODY},default_permissions"),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
    assert!(!text.contains("allow_other"), "{text}");
}
