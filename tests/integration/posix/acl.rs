//! Access control lists.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::actors::loner;
use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, same_in_every_way, told};

#[test]
fn access_control_lists_decide() {
    if !can_mount() || !have(&["setfacl", "getfacl", "setpriv"]) {
        return;
    }
    same_in_every_way(|dir| {
        let script = r#"
            cd "$1"; echo x > f; chmod 600 f; setfacl -m u:61234:r f; getfacl -c f; stat -c %A f
            setpriv --reuid=61234 --clear-groups -- cat f; chmod 640 f; getfacl -c f
            setpriv --reuid=61235 --clear-groups -- cat f 2>&1
            setfacl -b f; getfacl -c f; mkdir d; setfacl -d -m u:61234:rwx d; mkdir d/e; getfacl -c d/e
            setfacl -m u:61234:--- f; chmod 666 f; setpriv --reuid=61234 --clear-groups -- cat f 2>&1"#;
        told(&Command::new("bash").args(["-c", script, "-"]).arg(dir).output().unwrap())
    });
}

/// Shows the ACLs of everything in directories, in an order that is not the directories' own.
const ACLS: &str = "acls() { find \"$@\" ! -type l | LC_ALL=C sort | getfacl -; };";

/// What a directory gives to all that is made in it, in scripts, so that `setfacl` and `getfacl` are
/// tried as well.
const SCRIPTS: [(&str, &str); 9] = [
    (
        "default ACLs go to everything new, whatever the umask",
        "for mask in 000 022 077; do
            mkdir d; setfacl -d -m u::rwx,u:61234:rwx,g::rx,g:61777:rw,m::rwx,o::r d; umask $mask
            mkdir d/dir; echo x > d/file; mkfifo d/fifo; mknod d/null c 1 3; ln -s x d/link
            ln d/file d/hard; (umask 0; install -m 4711 /dev/null d/exact; mkdir -m 700 d/private)
            python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"d/socket\")'
            acls d; stat -c '%A %n' d/*; umask 022; rm -r d
         done",
    ),
    (
        "the mask follows chmod",
        "echo x > f; setfacl -m u:61234:rwx,g:61777:rw f; getfacl f
         for mode in 600 640 660 677 700 007; do chmod $mode f; getfacl f; stat -c %A f; done
         setfacl -m m::r f; stat -c %A f; setfacl -n -m u:61234:rwx f; getfacl f
         setfacl -x u:61234 f; getfacl f; setfacl -b f; getfacl f; stat -c %A f",
    ),
    (
        "entries decide",
        "echo x > f; for acl in u:61234:r g:61777:r u:61234:-,g:61777:r g:61777:-,o::r m::-,u:61234:r; do
            setfacl -b f; chmod 600 f; setfacl -m $acl f
            for user in 61234 61235; do for groups in 61777 61888; do
                setpriv --reuid=$user --regid=$user --groups=$groups -- cat f
                setpriv --reuid=$user --regid=$user --groups=$groups -- bash -c 'echo y >> f'
                setpriv --reuid=$user --regid=$user --groups=$groups -- test -r f; echo $acl $user $groups $?
            done; done
         done",
    ),
    (
        "who may set one",
        "echo x > f; chown 61234 f; chmod 666 f
         for user in 61234 61235; do
            setpriv --reuid=$user --clear-groups -- setfacl -m u:7:r f
            setpriv --reuid=$user --clear-groups -- setfacl -b f; getfacl f
         done",
    ),
    (
        "a rename keeps, a copy that is asked to, too",
        "mkdir d; setfacl -d -m u:61234:r d; echo x > f; setfacl -m u:61235:rw,g:61777:r f; mv f d/f
         getfacl d/f; cp -a d e; cp -r d g; rsync -aA d/ h; rsync -a d/ i; acls d e g h i
         tar --acls -cf t d; mkdir j; tar --acls -xf t -C j; rm t; acls j",
    ),
    (
        "recursion",
        "mkdir -p d/e/f; echo x > d/e/g; ln -s /etc d/l; setfacl -R -m u:61234:rX,d:u:61234:rwX d
         acls d; setfacl -R -x u:61234 d; setfacl -R -k d; acls d; getfacl -R d > l
         setfacl -R -b d; setfacl --restore=l; acls d",
    ),
    (
        "large ones",
        "echo x > f; setfacl -m $(seq -s, -f 'u:%g:r' 1000 1030) f; getfacl f
         mkdir d; setfacl -d -m $(seq -s, -f 'g:%g:rx' 1000 1040) d; echo x > d/g; acls d
         setfacl -m $(seq -s, -f 'u:%g:rw' 1000 1480) f; getfacl f | wc -l",
    ),
    (
        "mistakes",
        "echo x > f; ln -s f l; ln -s none n; setfacl -m u:nobody-such:r f; setfacl -d -m u:7:r f
         setfacl -m u:7:r none; setfacl -m u:7:r l; getfacl f; setfacl -m u:7:r n; getfacl none
         setfattr -n system.posix_acl_access -v 0x00 f; setfattr -n system.posix_acl_access f
         setfattr -n system.posix_acl_access -v 0x0200000001000700ffffffff f
         setfattr -n system.posix_acl_default -v 0x0200000001000700ffffffff04000500ffffffff20000500ffffffff f
         setfattr -x system.posix_acl_access f; setfattr -x system.posix_acl_default f; getfattr -d -m - f
         setpriv --reuid=61234 --clear-groups -- setfacl -m u:7:r f; getfacl f",
    ),
    (
        "setgid goes where who sets one is no member",
        "for groups in 61777 61888; do for acl in u:7:r g:7:rwx o::- m::rx; do for mode in 2755 2745 6770; do
            echo x > f; chown 61234:61777 f; chmod $mode f
            setpriv --reuid=61234 --regid=61234 --groups=$groups -- setfacl -m $acl f
            echo $groups $acl $mode $(stat -c %a f)
            setpriv --reuid=61234 --regid=61234 --groups=$groups -- chmod 2750 f; stat -c %a f
            setpriv --reuid=61234 --regid=61234 --groups=$groups -- setfacl -b f; stat -c %a f; rm f
         done; done; done",
    ),
];

#[test]
fn access_control_lists_do_what_they_do_anywhere() {
    if !can_mount() || !have(&["setfacl", "setfattr", "setpriv", "rsync", "tar", "python3"]) {
        return;
    }
    for (what, script) in SCRIPTS {
        same_in_every_way(|dir| {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
            let script = format!("{ACLS} cd \"$1\"; {script}");
            let output = Command::new("bash").args(["-c", &script, "-"]).arg(dir).output().unwrap();
            let text = told(&output);
            assert!(text.len() > 100, "{what}: {text}");
            format!("{what}: {text}")
        });
    }
}

#[test]
fn access_control_lists_survive_a_remount() {
    if !can_mount() || !have(&["setfacl", "getfacl"]) {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.shell("mkdir d; setfacl -d -m u:61234:rwx d; echo x > d/f; setfacl -m g:61777:rw d/f");
    let before = mounted.shell("getfacl -R d");
    assert!(before.contains("default:user:61234:rwx") && before.contains("group:61777:rw-"));
    mounted.remount();
    assert_eq!(mounted.shell("getfacl -R d"), before);
    let backing = must(Command::new("getfacl").args(["-R", "d"]).current_dir(&mounted.backing));
    assert_eq!(backing, before);
}

/// The kernel gives the ACLs of FUSE filesystems one page.
#[test]
fn access_control_lists_have_at_most_a_page() {
    if !can_mount() || !have(&["setfacl", "getfacl", "setpriv"]) {
        return;
    }
    let Some(disk) = Disk::new("xfs", 320, &["-q"], "") else { return };
    let mut mounted = Mounted::on(&disk.path(), "");
    fs::write(mounted.at("f"), "content").unwrap();
    let set = |path: &std::path::Path, last: u32| {
        let entries: Vec<_> = (1_000..=last).map(|uid| format!("u:{uid}:r")).collect();
        Command::new("setfacl").arg("-m").arg(entries.join(",")).arg(path).output().unwrap()
    };
    // 507 entries and the four that every such list has are 4,092 bytes.
    assert!(set(&mounted.at("f"), 1_506).status.success());
    let refused = set(&mounted.at("f"), 1_507);
    assert!(told(&refused).contains("Argument list too long"), "{}", told(&refused));
    // One that has been given around the mount lets nobody in but who needs none.
    let longer = set(&mounted.backing.join("f"), 1_600);
    assert!(longer.status.success(), "{}", told(&longer));
    mounted.remount();
    let read = loner(1_600).does(|| fs::read(mounted.at("f"))).unwrap_err();
    assert_eq!(read.raw_os_error(), Some(libc::E2BIG));
    assert_eq!(fs::read(mounted.at("f")).unwrap(), b"content");
}
