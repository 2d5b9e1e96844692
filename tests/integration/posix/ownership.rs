//! Whose new files are, who may take names away, and what root is without some of its rights.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::thread::CapabilitySet as Caps;

use super::actors::{Actor, GROUP, OTHER, ROOT, USER, loner, mode_of, root_without, user};
use crate::mounted::can_mount;
use crate::tools::{have, same_in_every_way, told};

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

/// A directory with an owner and a mode.
fn dir_of(path: PathBuf, uid: u32, gid: u32, mode: u32) -> PathBuf {
    fs::create_dir(&path).unwrap();
    chown(&path, Some(uid), Some(gid)).unwrap();
    set_mode(&path, mode);
    path
}

fn errno<T>(result: rustix::io::Result<T>) -> i32 {
    result.err().map_or(0, rustix::io::Errno::raw_os_error)
}

/// Makes one of everything with a mode, and tells whose it is.
fn make_all(dir: &Path, mode: u32) -> Vec<String> {
    let bits = Mode::from_raw_mode(mode);
    let mut codes = Vec::new();
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::EXCL;
    codes.push(errno(rustix::fs::open(dir.join("file"), flags, bits)));
    codes.push(errno(rustix::fs::mkdir(dir.join("dir"), bits)));
    codes.push(errno(rustix::fs::symlink("target", dir.join("link"))));
    for (name, kind) in [
        ("regular", FileType::RegularFile),
        ("fifo", FileType::Fifo),
        ("socket", FileType::Socket),
        ("char", FileType::CharacterDevice),
        ("block", FileType::BlockDevice),
    ] {
        codes.push(errno(rustix::fs::mknodat(CWD, dir.join(name), kind, bits, 0x103)));
    }
    codes.push(errno(rustix::fs::link(dir.join("file"), dir.join("hard"))));
    let names = ["file", "dir", "link", "regular", "fifo", "socket", "char", "block", "hard"];
    let modes = names.map(|name| mode_of(&dir.join(name)));
    [vec![format!("{codes:?}")], modes.to_vec()].concat()
}

#[test]
fn new_inodes_get_owner_group_and_mode_as_anywhere() {
    let actors =
        [ROOT, root_without(Caps::FSETID), root_without(Caps::all()), user(USER), loner(OTHER)];
    same_in_every_way(|dir| {
        let mut said = Vec::new();
        for (dir_mode, gid) in
            [(0o777, 0), (0o2777, 0), (0o2777, GROUP), (0o1777, GROUP), (0o3777, USER)]
        {
            for (number, actor) in actors.into_iter().enumerate() {
                for mode in [0o644, 0o7777, 0o2745, 0o2644, 0o0] {
                    let name = format!("{dir_mode:o}-{gid}-{number}-{mode:o}");
                    let made = dir_of(dir.join(&name), 0, gid, dir_mode);
                    said.push(format!("{name}: {:?}", actor.does(|| make_all(&made, mode))));
                }
            }
        }
        said
    });
}

#[test]
fn in_a_sticky_directory_only_owners_take_names_away() {
    same_in_every_way(|dir| {
        let mut said = Vec::new();
        for (owner, mode) in [(0, 0o1777), (USER, 0o1777), (0, 0o777), (OTHER, 0o1775)] {
            for (number, actor) in
                [ROOT, root_without(Caps::FOWNER), user(USER), loner(OTHER)].into_iter().enumerate()
            {
                let shared =
                    dir_of(dir.join(format!("{owner}-{mode:o}-{number}")), owner, GROUP, mode);
                for name in ["a", "b", "c", "mine"] {
                    fs::write(shared.join(name), name).unwrap();
                    set_mode(&shared.join(name), 0o666);
                    chown(shared.join(name), Some(USER), Some(USER)).unwrap();
                }
                chown(shared.join("mine"), Some(actor.uid), Some(actor.uid)).unwrap();
                dir_of(shared.join("d"), USER, USER, 0o777);
                symlink("a", shared.join("l")).unwrap();
                let at = |name: &str| shared.join(name);
                let codes = actor.does(|| {
                    [
                        errno(rustix::fs::unlink(at("a"))),
                        errno(rustix::fs::rename(at("b"), at("moved"))),
                        errno(rustix::fs::rename(at("mine"), at("c"))),
                        errno(rustix::fs::renameat_with(
                            CWD,
                            at("mine"),
                            CWD,
                            at("l"),
                            RenameFlags::EXCHANGE,
                        )),
                        errno(rustix::fs::rmdir(at("d"))),
                        errno(rustix::fs::unlink(at("l"))),
                        errno(rustix::fs::rename(at("mine"), at("d/x"))),
                        errno(rustix::fs::link(at("c"), at("hard"))),
                    ]
                });
                let mut left: Vec<_> =
                    fs::read_dir(&shared).unwrap().map(|e| e.unwrap().file_name()).collect();
                left.sort();
                said.push(format!("{owner} {mode:o} {actor:?} {codes:?} {left:?}"));
            }
        }
        said
    });
}

/// What root may do without each of its rights.
#[test]
fn root_without_a_right_is_refused_as_anywhere() {
    let rights = [
        Caps::CHOWN,
        Caps::DAC_OVERRIDE | Caps::DAC_READ_SEARCH,
        Caps::DAC_OVERRIDE,
        Caps::FOWNER,
        Caps::FSETID,
        Caps::MKNOD,
        Caps::SYS_ADMIN,
        Caps::LINUX_IMMUTABLE,
        Caps::all(),
        Caps::empty(),
    ];
    same_in_every_way(|dir| {
        let mut said = Vec::new();
        for (number, without) in rights.into_iter().enumerate() {
            let actor = root_without(without);
            let private = dir_of(dir.join(format!("{number}")), USER, USER, 0o700);
            let open = dir_of(dir.join(format!("open-{number}")), 0, GROUP, 0o2777);
            for file in [private.join("f"), open.join("f"), open.join("g")] {
                fs::write(&file, "content").unwrap();
                set_mode(&file, 0o600);
                chown(&file, Some(USER), Some(GROUP)).unwrap();
            }
            said.push(format!("{without:?} {:?}", actor.does(|| deeds(&private, &open))));
            said.push(format!("{} {}", mode_of(&open.join("f")), mode_of(&open.join("g"))));
        }
        said
    });
}

/// Things that take rights, with what comes of them.
fn deeds(private: &Path, open: &Path) -> Vec<i32> {
    let (secret, file) = (private.join("f"), open.join("f"));
    let io =
        |result: std::io::Result<()>| result.err().map_or(0, |error| error.raw_os_error().unwrap());
    let set = |name: &str, value: &[u8]| {
        errno(rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()))
    };
    let node = |name: &str, kind| {
        errno(rustix::fs::mknodat(CWD, open.join(name), kind, Mode::from_raw_mode(0o666), 0x103))
    };
    let mut trusted = [0; 8];
    vec![
        io(fs::read(&secret).map(drop)),
        io(fs::write(private.join("new"), "x")),
        io(fs::read_dir(private).map(drop)),
        io(fs::read(&file).map(drop)),
        io(fs::write(&file, "x")),
        io(File::options().append(true).open(&file).map(drop)),
        io(fs::set_permissions(&file, Permissions::from_mode(0o2755))),
        io(fs::set_permissions(&file, Permissions::from_mode(0o4755))),
        io(chown(&file, Some(0), None)),
        io(chown(&file, None, Some(OTHER))),
        io(chown(&file, Some(USER), Some(USER))),
        io(fs::set_permissions(&file, Permissions::from_mode(0o6755))),
        set("user.a", b"x"),
        set("trusted.a", b"x"),
        set("security.a", b"x"),
        errno(rustix::fs::getxattr(&file, "trusted.a", &mut trusted[..])),
        errno(rustix::fs::removexattr(&file, "trusted.a")),
        node("fifo", FileType::Fifo),
        node("char", FileType::CharacterDevice),
        node("block", FileType::BlockDevice),
        io(File::open(&file).and_then(|f| f.set_modified(std::time::UNIX_EPOCH))),
        io(fs::rename(open.join("g"), open.join("h"))),
        io(fs::hard_link(open.join("h"), open.join("g"))),
        errno(rustix::fs::open(open.join("g"), OFlags::RDONLY | OFlags::NOATIME, Mode::empty())),
    ]
}

#[test]
fn groups_beside_the_own_count() {
    same_in_every_way(|dir| {
        let shared = dir_of(dir.join("shared"), 0, GROUP, 0o770);
        fs::write(shared.join("f"), "for the group").unwrap();
        chown(shared.join("f"), Some(0), Some(GROUP)).unwrap();
        set_mode(&shared.join("f"), 0o660);
        [user(USER), loner(USER), user(OTHER)].map(|actor| {
            actor.does(|| {
                let code = |result: std::io::Result<()>| {
                    result.err().map_or(0, |error| error.raw_os_error().unwrap())
                };
                let name = shared.join(format!("by-{}", actor.uid));
                [
                    code(fs::read(shared.join("f")).map(drop)),
                    code(File::options().append(true).open(shared.join("f")).map(drop)),
                    code(fs::write(&name, "x")),
                    code(chown(&name, None, Some(GROUP))),
                    code(chown(&name, None, Some(USER))),
                    code(chown(&name, None, Some(OTHER))),
                    code(fs::remove_file(&name)),
                ]
            })
        })
    });
}

#[test]
fn symlinks_have_owners_of_their_own() {
    same_in_every_way(|dir| {
        set_mode(dir, 0o1777);
        fs::write(dir.join("f"), "x").unwrap();
        user(USER).does(|| symlink("f", dir.join("l")).unwrap());
        let before = mode_of(&dir.join("l"));
        let refused = loner(OTHER).does(|| lchown(dir.join("l"), Some(OTHER), None).is_err());
        lchown(dir.join("l"), Some(OTHER), Some(GROUP)).unwrap();
        // Where links are protected, others than its owner may not follow it in such a directory.
        let followed = [loner(USER), loner(OTHER), ROOT].map(|actor: Actor| {
            actor.does(|| fs::read(dir.join("l")).map_err(|e| e.raw_os_error()))
        });
        (before, refused, mode_of(&dir.join("l")), mode_of(&dir.join("f")), followed)
    });
}

/// Root in a namespace of users is an ordinary user outside, whatever its capabilities there.
#[test]
fn root_of_a_namespace_is_an_ordinary_user() {
    if !can_mount() || !have(&["unshare", "setpriv"]) {
        return;
    }
    same_in_every_way(|dir| {
        set_mode(dir, 0o777);
        fs::write(dir.join("of-root"), "x").unwrap();
        set_mode(&dir.join("of-root"), 0o6777);
        let script = r#"
            cd "$1"; id -u; echo x > f; chmod 6755 f; echo y >> f; stat -c '%a %u' f; mkdir d
            chown 7 f; chmod 4755 f; truncate -s 1 f; mknod null c 1 3; mkfifo p; stat -c '%a %u' *
            echo z >> of-root; truncate -s 1 of-root; rm of-root; setfattr -n trusted.a -v b f
            setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 f
            getfattr -d -m - f; echo w >> f; getfattr -d -m - f"#;
        let mut command = Command::new("setpriv");
        let user = USER.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--", "unshare"]);
        command.args(["--user", "--map-root-user", "bash", "-c", script, "-"]).arg(dir);
        let inside = told(&command.output().unwrap());
        (inside, mode_of(&dir.join("f")), mode_of(&dir.join("of-root")), mode_of(&dir.join("p")))
    });
}
