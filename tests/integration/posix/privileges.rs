//! Setuid, setgid and file capabilities go away when somebody changes the file who could not have set
//! them: in the same cases as on a plain directory, whoever changes it by whatever call.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, Mode, OFlags, XattrFlags};
use rustix::thread::CapabilitySet;

use super::actors::{Actor, GROUP, OTHER, ROOT, USER, loner, mode_of, root_without, user};
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount, scratch};
use crate::tools::WAYS;

/// Modes that grant something, all writable for everybody.
const MODES: [u32; 5] = [0o4777, 0o6777, 0o2767, 0o6767, 0o2666];

/// Owners and groups.
const OWNERS: [(u32, u32); 3] = [(0, 0), (USER, GROUP), (OTHER, OTHER)];

const ACTORS: [Actor; 5] =
    [ROOT, root_without(CapabilitySet::FSETID), user(USER), loner(USER), loner(OTHER)];

/// A way of changing an open file.
type Change = fn(&File) -> rustix::io::Result<()>;

/// Every way of changing the content of a file that is open for writing.
const CHANGES: [(&str, Change); 8] = [
    ("write", |file| rustix::io::write(file, b"more").map(drop)),
    ("pwrite", |file| rustix::io::pwrite(file, b"more", 2).map(drop)),
    ("nothing", |file| rustix::io::write(file, b"").map(drop)),
    ("cut", |file| rustix::fs::ftruncate(file, 2)),
    ("grow", |file| rustix::fs::ftruncate(file, 9_000)),
    ("keep", |file| rustix::fs::ftruncate(file, 7)),
    ("allocate", |file| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, 9_000)),
    ("copy", |file| {
        // From another file beside it, or the kernel would not ask the filesystem.
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let from = File::open(path.with_file_name("source")).unwrap();
        rustix::fs::copy_file_range(from, Some(&mut 0), file, Some(&mut 0), 100).map(drop)
    }),
];

fn make(file: &Path, (uid, gid): (u32, u32)) {
    // A new inode each time: nothing may be left of the one before.
    let _ = fs::remove_file(file);
    fs::write(file, "content").unwrap();
    fs::write(file.with_file_name("source"), "what is copied").unwrap();
    std::os::unix::fs::chown(file, Some(uid), Some(gid)).unwrap();
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, Permissions::from_mode(mode)).unwrap();
}

/// Every mode, owner and actor, with what `case` says of each.
fn every_case(dir: &Path, case: impl Fn(&Path, Actor) -> String) -> Vec<String> {
    set_mode(dir, 0o777);
    let file = dir.join("f");
    let mut said = Vec::new();
    for owner in OWNERS {
        for mode in MODES {
            for actor in ACTORS {
                make(&file, owner);
                set_mode(&file, mode);
                let told = case(&file, actor);
                let now = mode_of(&file);
                said.push(format!("{mode:o} of {owner:?} by {actor:?}: {told} {now}"));
            }
        }
    }
    said
}

/// The same cases in every way as on plain, of which only what differs is shown.
#[track_caller]
fn same_cases(work: impl Fn(&Path) -> Vec<String>) {
    if !can_mount() {
        return;
    }
    let plain = scratch();
    let expected = work(plain.path());
    assert!(expected.len() > 1);
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        let found = work(&mounted.mountpoint);
        let differ = found.iter().zip(&expected).filter(|(found, expected)| found != expected);
        let differ: Vec<_> =
            differ.map(|(found, plain)| format!("{found}, on plain {plain}")).collect();
        assert!(differ.is_empty(), "-o {way}: {differ:#?}");
        assert_eq!(found.len(), expected.len());
        mounted.assert_catalog_is_true();
    }
}

fn change_while_open(flags: OFlags) {
    let open = |file: &Path| File::from(rustix::fs::open(file, flags, Mode::empty()).unwrap());
    same_cases(|dir| {
        let mut said = Vec::new();
        for (name, change) in CHANGES {
            said.extend(every_case(dir, |file, actor| {
                actor.does(|| format!("{name} {:?}", change(&open(file))))
            }));
            // The same where the bits come after the open.
            said.extend(every_case(dir, |file, actor| {
                let mode = fs::metadata(file).unwrap().permissions();
                set_mode(file, 0o777);
                let open = actor.does(|| open(file));
                fs::set_permissions(file, mode).unwrap();
                actor.does(|| format!("{name} later {:?}", change(&open)))
            }));
        }
        said
    });
}

#[test]
fn a_change_by_a_write_only_file_takes_privileges() {
    change_while_open(OFlags::WRONLY);
}

#[test]
fn a_change_by_a_readable_file_takes_privileges() {
    change_while_open(OFlags::RDWR);
}

#[test]
fn a_change_by_an_appending_file_takes_privileges() {
    change_while_open(OFlags::WRONLY | OFlags::APPEND);
}

#[test]
fn a_change_by_name_takes_privileges() {
    same_cases(|dir| {
        let mut said = Vec::new();
        let mut note = |by: fn(&Path) -> rustix::io::Result<()>| {
            said.extend(every_case(dir, |file, actor| actor.does(|| format!("{:?}", by(file)))));
        };
        note(|file| open(file, OFlags::WRONLY | OFlags::TRUNC));
        note(|file| open(file, OFlags::RDWR | OFlags::TRUNC));
        note(|file| open(file, OFlags::RDWR | OFlags::CREATE));
        note(|file| truncate(file, 3));
        note(|file| truncate(file, 7));
        note(|file| truncate(file, 70));
        said
    });
}

fn open(file: &Path, flags: OFlags) -> rustix::io::Result<()> {
    rustix::fs::open(file, flags, Mode::empty()).map(drop)
}

fn truncate(file: &Path, size: u64) -> rustix::io::Result<()> {
    let path = std::ffi::CString::new(file.as_os_str().as_encoded_bytes()).unwrap();
    #[expect(unsafe_code, reason = "truncate(2) has no safe wrapper")]
    // SAFETY: `path` ends with a NUL and lives across the call.
    match unsafe { libc::truncate(path.as_ptr(), i64::try_from(size).unwrap()) } {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
    }
}

#[test]
fn a_change_of_owner_takes_privileges() {
    same_cases(|dir| {
        let mut said = Vec::new();
        for (uid, gid) in [
            (None, None),
            (Some(USER), None),
            (None, Some(USER)),
            (None, Some(GROUP)),
            (Some(0), Some(0)),
        ] {
            said.extend(every_case(dir, |file, actor| {
                let changed = actor.does(|| {
                    let (uid, gid) = (
                        uid.map(rustix::process::Uid::from_raw),
                        gid.map(rustix::process::Gid::from_raw),
                    );
                    rustix::fs::chownat(CWD, file, uid, gid, rustix::fs::AtFlags::empty())
                });
                format!("{uid:?} {gid:?} {changed:?}")
            }));
        }
        said
    });
}

#[test]
fn setgid_is_for_members_of_the_group() {
    same_cases(|dir| {
        let mut said = Vec::new();
        for mode in [0o2755, 0o2744, 0o6755, 0o2000, 0o1777] {
            said.extend(every_case(dir, |file, actor| {
                let changed =
                    actor.does(|| fs::set_permissions(file, Permissions::from_mode(mode)));
                format!("{mode:o} {changed:?}")
            }));
        }
        said
    });
}

/// `cap_net_raw+ep`, as the kernel stores it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn has_capability(file: &Path) -> String {
    let mut value = [0; 64];
    let got = rustix::fs::getxattr(file, "security.capability", &mut value[..]);
    format!("{:?}", got.map(|length| value[..length].to_vec()))
}

/// What somebody does to an open file.
type Deed<'a> = &'a (dyn Fn(File) -> String + Sync);

/// Whether a file keeps its capabilities when it is changed, given before or after the open.
fn capability_after(file: &Path, flags: OFlags, actor: Actor, deed: Deed<'_>) -> Vec<String> {
    let with = |given_late: bool| {
        make(file, (USER, USER));
        set_mode(file, 0o777);
        let give = || {
            let (name, flags) = ("security.capability", XattrFlags::empty());
            rustix::fs::setxattr(file, name, &CAPABILITY, flags).unwrap();
        };
        if !given_late {
            give();
        }
        let open = || File::from(rustix::fs::open(file, flags, Mode::empty()).unwrap());
        let open = actor.does(open);
        if given_late {
            give();
        }
        let before = has_capability(file);
        let told = actor.does(|| deed(open));
        format!("{flags:?} by {actor:?} {before} {told} {}", has_capability(file))
    };
    [false, true].map(with).to_vec()
}

#[test]
fn a_change_takes_file_capabilities() {
    let flags = [
        OFlags::WRONLY,
        OFlags::RDWR,
        OFlags::WRONLY | OFlags::APPEND,
        OFlags::WRONLY | OFlags::TRUNC,
    ];
    same_cases(|dir| {
        set_mode(dir, 0o777);
        let file = dir.join("f");
        let mut said = Vec::new();
        for (actor, flags) in ACTORS.into_iter().flat_map(|a| flags.map(|f| (a, f))) {
            let mut note =
                |deed: Deed<'_>| said.extend(capability_after(&file, flags, actor, deed));
            for (name, change) in CHANGES {
                note(&|open| format!("{name} {:?}", change(&open)));
            }
            note(&|open| format!("{:?}", std::os::unix::fs::fchown(&open, Some(USER), Some(USER))));
            note(&|open| format!("{:?}", open.set_permissions(Permissions::from_mode(0o755))));
        }
        said
    });
}

#[test]
fn a_store_to_a_mapping_takes_nothing() {
    same_cases(|dir| {
        every_case(dir, |file, actor| {
            actor.does(|| {
                let open = File::options().read(true).write(true).open(file).unwrap();
                let map = Mapping::of(&open, 7);
                map.store(0, b"mapped!");
                drop(map);
                let mut content = [0; 7];
                open.read_exact_at(&mut content, 0).unwrap();
                format!("{content:?}")
            })
        })
    });
}

#[test]
fn who_writes_counts_and_not_who_opened() {
    same_cases(|dir| {
        every_case(dir, |file, actor| {
            let mut open = File::options().append(true).open(file).unwrap();
            let told = actor.does(|| open.write_all(b"by another than who opened it"));
            format!("{told:?}")
        })
    });
}

#[test]
fn privileges_given_around_the_mount_go_with_the_next_write() {
    if !can_mount() {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        for flags in [OFlags::WRONLY, OFlags::RDWR, OFlags::WRONLY | OFlags::APPEND] {
            fs::write(mounted.at("f"), "content").unwrap();
            set_mode(&mounted.at("f"), 0o666);
            let open = || rustix::fs::open(mounted.at("f"), flags, Mode::empty()).unwrap();
            let open = user(USER).does(open);
            // The kernel has not heard of it when the user writes.
            set_mode(&mounted.backing.join("f"), 0o6777);
            user(USER).does(|| rustix::io::write(&open, b"mine")).unwrap();
            assert_eq!(mode_of(&mounted.backing.join("f")), "100777 0:0", "{way} {flags:?}");
            fs::remove_file(mounted.at("f")).unwrap();
        }
    }
}
