//! Searching through a mount, and what the README says of it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use horace::catalog::{CatalogError, Descend, When};
use horace::types::{FileId, Kind};
use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{path_of, told};

/// The README, without its line breaks.
fn readme() -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn says(sentence: &str) {
    assert!(readme().contains(sentence), "the README says: {sentence}");
}

fn paths(mounted: &Mounted, args: &[&str]) -> Vec<String> {
    let found = mounted.records(&[&["search"], args].concat());
    found.iter().map(|record| String::from_utf8(path_of(record)).unwrap()).collect()
}

/// The same every time, and different every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn name(&mut self) -> OsString {
        const PARTS: [&[u8]; 9] =
            [b"abc", b"ABC", b"read", b"me", b".md", b"-", b"x", b"\xff", b"7"];
        let name: Vec<u8> =
            (0..=self.below(3)).flat_map(|_| PARTS[self.below(9)]).copied().collect();
        OsStr::from_bytes(&name).to_owned()
    }
}

/// Makes, moves and removes things at random, and returns the directories.
fn scramble(mounted: &Mounted, dice: &mut Dice, steps: usize) -> Vec<PathBuf> {
    let mut dirs = vec![mounted.at("")];
    for _ in 0..steps {
        let place = dirs[dice.below(dirs.len())].join(dice.name());
        match dice.below(10) {
            0..4 => drop(fs::write(&place, "text")),
            4..7 => {
                if fs::create_dir(&place).is_ok() {
                    dirs.push(place);
                }
            }
            7 if dirs.len() > 1 => {
                let from = dirs[1 + dice.below(dirs.len() - 1)].clone();
                if fs::rename(&from, &place).is_ok() {
                    let moved = |dir: &PathBuf| match dir.strip_prefix(&from) {
                        Ok(below) => place.join(below),
                        Err(_) => dir.clone(),
                    };
                    dirs = dirs.iter().map(moved).collect();
                    dirs.dedup();
                }
            }
            8 => {
                let from = dirs[dice.below(dirs.len())].join(dice.name());
                drop(fs::rename(from, &place));
            }
            _ => drop(fs::remove_file(&place)),
        }
        dirs.retain(|dir| dir.is_dir());
    }
    dirs
}

/// What a walk over the catalog finds: each path, whether it is a directory.
fn walked(mounted: &Mounted, top: &[u8]) -> Vec<(Vec<u8>, bool)> {
    let mut all = Vec::new();
    let catalog = mounted.catalog();
    let top: FileId = catalog.resolve(top, When::Now).unwrap().unwrap();
    let walked = catalog.walk::<CatalogError>(top, When::Now, |path, node| {
        all.push((path.to_vec(), node.kind == Kind::Dir));
        Ok(Descend::Yes)
    });
    walked.unwrap();
    all
}

fn contains(path: &[u8], text: &[u8]) -> bool {
    let (path, text) = (path.to_ascii_lowercase(), text.to_ascii_lowercase());
    text.is_empty() || path.windows(text.len()).any(|part| part == text)
}

#[test]
fn a_search_finds_what_a_walk_finds() {
    says("A search finds the same with a daemon and without one");
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let mut dice = Dice(42);
    let dirs = scramble(&mounted, &mut dice, 600);
    mounted.sync();
    let root = mounted.at("");
    let below = |dir: &PathBuf| dir.strip_prefix(&root).unwrap().as_os_str().to_owned();
    let tops = [OsString::new(), below(&dirs[1]), below(&dirs[dirs.len() / 2])];
    let texts =
        ["", "abc", "abcm", "/", "x/", "/re", "c/read", "me-", ".MD", "abc/abc", "zzz", "7"];
    let globs = ["*abc*", "*.md", "**/*read*", "abc*/**", "*{x,7}", "[a-c]*", "**/abc/*"];
    let ask = |mounted: &Mounted, glob: bool, text: &str, top: &OsStr| {
        let mut args: Vec<OsString> = ["search", "--json"].map(OsString::from).into();
        args.extend(glob.then(|| "--glob".into()));
        args.extend(["--".into(), text.into(), mounted.at("").join(top).into_os_string()]);
        let output = mounted.run_at_root(&args);
        assert!(output.status.success(), "{}", told(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        let records = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        records.map(|record: Value| path_of(&record)).collect::<Vec<_>>()
    };
    let mut asked = Vec::new();
    for top in &tops {
        let all = walked(&mounted, top.as_bytes());
        let whole = |path: &[u8]| match top.is_empty() {
            true => path.to_vec(),
            false => [top.as_bytes(), path].join(&b'/'),
        };
        for text in texts {
            let found = ask(&mounted, false, text, top);
            let expected: BTreeSet<_> = all
                .iter()
                .filter(|p| contains(&p.0, text.as_bytes()))
                .map(|p| whole(&p.0))
                .collect();
            assert_eq!(found.len(), expected.len(), "{text:?} each once");
            assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{text:?}");
            asked.push((false, text, top, found));
        }
        for glob in globs {
            let set = horace::globspec::compile(glob).unwrap();
            let is_match = |path: &[u8]| {
                let name = path.rsplit(|b| *b == b'/').next().unwrap();
                set.is_match(OsStr::from_bytes(if glob.contains('/') { path } else { name }))
            };
            let found = ask(&mounted, true, glob, top);
            let expected: BTreeSet<_> =
                all.iter().filter(|p| is_match(&p.0)).map(|p| whole(&p.0)).collect();
            assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{glob:?}");
            asked.push((true, glob, top, found));
        }
    }
    // The same after a restart, and where no daemon is, in the same order.
    mounted.remount();
    for (glob, text, top, found) in &asked {
        assert_eq!(ask(&mounted, *glob, text, top), *found, "{text:?} after a restart");
    }
    mounted.umount();
    for (glob, text, top, found) in asked.iter().filter(|(.., top, _)| top.is_empty()) {
        let backing = mounted.backing.clone();
        let mut args: Vec<OsString> = ["search", "--json"].map(OsString::from).into();
        args.extend(glob.then(|| "--glob".into()));
        args.extend(["--".into(), (*text).into(), backing.join(top).into_os_string()]);
        let output = mounted.run_at_root(&args);
        assert!(output.status.success(), "{}", told(&output));
        let lines = String::from_utf8(output.stdout).unwrap();
        let records = lines.lines().map(|line| path_of(&serde_json::from_str(line).unwrap()));
        assert_eq!(records.collect::<Vec<_>>(), *found, "{text:?} without a daemon");
    }
}

#[test]
fn what_was_closed_renamed_or_removed_before_is_known() {
    says("It knows whatever was closed, renamed or removed before it was asked");
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.at("d")).unwrap();
    for n in 0..20 {
        let (old, new) = (format!("d/before {n}"), format!("d/after {n}"));
        fs::write(mounted.at(&old), "text").unwrap();
        assert_eq!(paths(&mounted, &[&format!("BEFORE {n}")]), std::slice::from_ref(&old));
        fs::rename(mounted.at(&old), mounted.at(&new)).unwrap();
        assert_eq!(paths(&mounted, &[&format!("before {n}")]), [""; 0]);
        assert_eq!(paths(&mounted, &[&format!("after {n}")]), std::slice::from_ref(&new));
        fs::remove_file(mounted.at(&new)).unwrap();
        assert_eq!(paths(&mounted, &[&format!("after {n}")]), [""; 0]);
        assert_eq!(paths(&mounted, &["-d", &format!("after {n}")]), [new]);
    }
}

#[test]
fn names_in_a_renamed_directory_are_found_by_its_new_name() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted
        .shell("mkdir -p old/sub; cd old/sub; seq -f 'file %04.0f' 1 2000 | xargs -d '\\n' touch");
    assert_eq!(paths(&mounted, &["old/sub/file 1234"]), ["old/sub/file 1234"]);
    fs::rename(mounted.at("old"), mounted.at("new")).unwrap();
    assert_eq!(paths(&mounted, &["new/sub/file 1234"]), ["new/sub/file 1234"]);
    assert_eq!(paths(&mounted, &["old"]), [""; 0]);
    assert_eq!(paths(&mounted, &["new"]).len(), 2002);
}

#[test]
fn a_search_goes_on_where_it_stopped() {
    says("`--after` with the `cursor` of a record goes on behind it, whatever came or went since");
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted
        .shell("for d in a b c; do mkdir $d; touch $d/{1,2,3,4,5}.txt; done; rm b/2.txt c/3.txt");
    let all = paths(&mounted, &["-d", "txt"]);
    assert_eq!(all.len(), 15);
    let (mut found, mut after) = (Vec::new(), None::<String>);
    for round in 0.. {
        let mut args = vec!["search", "-d", "txt", "--limit", "4"];
        args.extend(after.iter().flat_map(|after| ["--after", after]));
        let page = mounted.records(&args);
        found.extend(page.iter().map(|r| String::from_utf8(path_of(r)).unwrap()));
        let Some(last) = page.last() else { break };
        after = Some(last["cursor"].as_str().unwrap().to_owned());
        if round == 0 {
            fs::write(mounted.at("a/0 earlier.text"), "").unwrap();
            fs::rename(mounted.at("a"), mounted.at("z")).unwrap();
        }
    }
    // By the directories as they came, and by name; then what is gone.
    assert_eq!(found[..4], all[..4]);
    let now: Vec<_> = all[4..].iter().map(|path| path.replace("a/", "z/")).collect();
    assert_eq!(found[4..], now);
    says(
        "in the order in which directories were first seen, and of the names in each; what is gone comes last",
    );
    assert_eq!(all[13..], ["b/2.txt", "c/3.txt"]);
    let refused = mounted.run(&["search", "txt", "--after", "nonsense"]);
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
}

#[test]
fn a_search_is_narrowed_by_what_a_file_is() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("mkdir d.rs; cp /dev/null .rs; echo a > a.rs; echo b > b.RS; echo c > d.rs/c.txt; ln -s a.rs e.rs");
    let found = |args: &[&str]| -> BTreeSet<String> { paths(&mounted, args).into_iter().collect() };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(found(&["", "--ext", "rs"]), set(&["d.rs", "a.rs", "b.RS", "e.rs"]));
    assert_eq!(found(&["", "--ext", ".rs", "--kind", "file"]), set(&["a.rs", "b.RS"]));
    assert_eq!(found(&["", "--kind", "symlink"]), set(&["e.rs"]));
    assert_eq!(found(&["", "--kind", "dir"]), set(&["d.rs"]));
    assert_eq!(found(&["d.rs", "--ext", "txt"]), set(&["d.rs/c.txt"]));
    mounted.sync();
    let digest = mounted.log_of("a.rs")[0]["sha256"].as_str().unwrap().to_owned();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    assert_eq!(found(&["", "--sha256", &hex[..7]]), set(&["a.rs"]));
    assert_eq!(found(&["", "--sha256", &digest]), set(&["a.rs"]));
    assert_eq!(found(&["b", "--sha256", &hex[..7]]), set(&[]));
    assert_eq!(found(&["c", "--by", "root"]), set(&["d.rs/c.txt"]));
    assert_eq!(found(&["c", "--by", "0"]), set(&["d.rs/c.txt"]));
    assert_eq!(found(&["rs", "--by", "cp"]), set(&[".rs"]));
    assert_eq!(found(&["c", "--by", "nobody-at-all"]), set(&[]));
    assert_eq!(found(&["c", "--until", "1h"]), set(&[]));
    assert_eq!(found(&["c", "--since", "1h", "--until", "2100-01-01"]), set(&["d.rs/c.txt"]));
    mounted.shell("rm a.rs");
    assert_eq!(found(&["-d", "a", "--ext", "rs", "--by", "rm"]), set(&["a.rs"]));
    assert_eq!(found(&["-d", "a", "--sha256", &hex[..7]]), set(&["a.rs"]));
    for wrong in [["--kind", "thing"], ["--sha256", "xyz"], ["--until", "soonish"]] {
        let refused = mounted.run(&[&["search", ""], &wrong[..]].concat());
        assert!(!refused.status.success(), "{wrong:?}");
    }
}

#[test]
fn names_that_are_no_text_are_found_by_their_bytes() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let name = OsStr::from_bytes(b"odd \xff\xfe name");
    fs::write(mounted.at(name), "text").unwrap();
    for query in [&b"\xff\xfe"[..], b"d \xff", b"ODD"] {
        let args = [OsStr::new("search"), OsStr::new("--json"), OsStr::from_bytes(query)];
        let output = mounted.run(&args);
        let record: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(path_of(&record), name.as_bytes(), "{}", query.escape_ascii());
    }
}
