//! Rewinding whatever was done at random.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use horace::catalog::{CatalogError, Descend, When};
use horace::types::{FileId, Kind};

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, noise};

use super::describe;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    /// A path that may be there or not.
    fn path(&mut self) -> String {
        let name = |n| ["a", "b", "c", "d"][usize::try_from(n).unwrap()];
        let depth = 1 + self.roll(3);
        let names: Vec<_> = (0..depth).map(|_| name(self.roll(4))).collect();
        format!("r/{}", names.join("/"))
    }
}

/// Does something, which may fail as it may for anybody.
fn something(mounted: &Mounted, dice: &mut Dice) {
    let (path, other) = (mounted.at(dice.path()), mounted.at(dice.path()));
    let bytes = noise(dice.0, usize::try_from(dice.roll(9000)).unwrap());
    let _ = match dice.roll(16) {
        0..=3 => fs::write(&path, bytes),
        4 => File::options().append(true).open(&path).and_then(|mut f| f.write_all(&bytes)),
        5 => File::options().write(true).open(&path).and_then(|f| f.write_all_at(&bytes, 100)),
        6 => fs::remove_file(&path),
        7 => fs::remove_dir_all(&path),
        8 | 9 => fs::create_dir(&path),
        10 => fs::rename(&path, &other),
        11 => fs::hard_link(&path, &other),
        12 => symlink(format!("target {}", dice.roll(9)), &path),
        13 => fs::metadata(&path).and_then(|_| {
            let mode = [0o644, 0o600, 0o4755, 0o777][usize::try_from(dice.roll(4)).unwrap()];
            fs::set_permissions(&path, PermissionsExt::from_mode(mode))
        }),
        14 => fs::symlink_metadata(&path).and_then(|found| {
            // A symlink would lead elsewhere.
            if found.is_symlink() { Ok(()) } else { chown(&path, Some(61_000), Some(61_001)) }
        }),
        _ => {
            let value = dice.roll(100).to_string();
            let mut set = Command::new("setfattr");
            set.args(["-h", "-n", "user.x", "-v", &value]).arg(&path).output().map(drop)
        }
    };
}

fn exchange(mounted: &Mounted, dice: &mut Dice) {
    let paths: [PathBuf; 2] = [dice.path(), dice.path()].map(|path| mounted.at(path));
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let at = rustix::fs::CWD;
    let _ = rustix::fs::renameat_with(at, &paths[0], at, &paths[1], flags);
}

/// The catalog has the modes, owners and times that are there.
fn assert_attributes_are_true(mounted: &Mounted, when: &str) {
    mounted.sync();
    let mut wrong = Vec::new();
    let reader = mounted.catalog();
    let walked = reader.walk::<CatalogError>(FileId::ROOT, When::Now, |path, node| {
        let found = fs::symlink_metadata(mounted.backing.join(OsStr::from_bytes(path))).unwrap();
        let mtime_ns = found.mtime() * 1_000_000_000 + found.mtime_nsec();
        let there = (found.mode() & 0o7777, found.uid(), found.gid(), mtime_ns);
        let known = (node.mode, node.uid, node.gid, node.mtime_ns);
        let is_dir = node.kind == Kind::Dir;
        if there != known && !(is_dir && (there.0, there.1) == (known.0, known.1)) {
            wrong.push(format!("{}: {known:?} is {there:?}", path.escape_ascii()));
        }
        Ok(Descend::Yes)
    });
    walked.unwrap();
    assert!(wrong.is_empty(), "{when}: {wrong:#?}");
}

#[test]
fn a_tree_is_rewound_to_any_moment_and_back_again() {
    if !can_mount() || !have(&["getfattr", "setfattr"]) {
        return;
    }
    let number = |name, usual| std::env::var(name).map_or(usual, |n| n.parse().unwrap());
    let (first, cases) = (number("HORACE_MODEL_SEED", 1), number("HORACE_MODEL_CASES", 6));
    for seed in first..first + cases {
        let mounted = Mounted::new();
        fs::create_dir(mounted.at("r")).unwrap();
        fs::write(mounted.at("beside"), "untouched").unwrap();
        let mut dice = Dice(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let mut states = Vec::new();
        for _ in 0..4 {
            for _ in 0..25 {
                something(&mounted, &mut dice);
            }
            exchange(&mounted, &mut dice);
            assert_attributes_are_true(&mounted, &format!("seed {seed}, made"));
            states.push((mounted.moment(), describe(&mounted.at("r"))));
        }
        // To and fro: what a rewind displaces is history, too.
        for to in [3, 0, 3, 1, 2, 3, 0] {
            let (moment, state): &(String, String) = &states[to];
            let plan = mounted.ok(&["rewind", "r", "--to", moment, "--dry-run"]);
            let output = mounted.run(&["rewind", "r", "--to", moment]);
            let found = describe(&mounted.at("r"));
            assert_attributes_are_true(&mounted, &format!("seed {seed}, rewound to {to}"));
            assert!(
                output.status.success() && found == *state,
                "seed {seed}, to {to}:\n{plan}\n{}\nexpected:\n{state}\nfound:\n{found}\n{}",
                String::from_utf8_lossy(&output.stdout),
                mounted.ok(&["changes", "--json", "r"])
            );
        }
        mounted.assert_catalog_is_true();
        assert_eq!(fs::read(mounted.at("beside")).unwrap(), b"untouched");
    }
}

#[test]
fn moves_across_the_border_are_taken_back_too() {
    if !can_mount() || !have(&["getfattr"]) {
        return;
    }
    let mounted = Mounted::new();
    must(Command::new("mkdir").args(["-p", "in/d", "out/e"]).current_dir(&mounted.mountpoint));
    for path in ["in/d/f", "out/e/g", "in/h"] {
        fs::write(mounted.at(path), path).unwrap();
    }
    let (moment, before) = (mounted.moment(), describe(&mounted.mountpoint));
    fs::rename(mounted.at("in/d"), mounted.at("out/d")).unwrap();
    fs::rename(mounted.at("out/e"), mounted.at("in/e")).unwrap();
    fs::rename(mounted.at("in/h"), mounted.at("h")).unwrap();
    mounted.ok(&["rewind", "in", "--to", &moment]);
    assert_eq!(describe(&mounted.mountpoint), before);
}
