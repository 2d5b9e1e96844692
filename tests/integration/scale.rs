//! Many files, many names, many open files.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{files_below, sha256};

/// Rows of every table of the catalog.
fn rows(mounted: &Mounted) -> Vec<(String, u64)> {
    mounted.sync();
    let path = mounted.backing.join(".horace/catalog.db");
    let path = path.to_str().unwrap();
    let ask = |query: &str| {
        let mut command = std::process::Command::new("sqlite3");
        crate::tools::must(command.args(["-readonly", path, query]))
    };
    let tables =
        ask("select name from sqlite_schema where type = 'table' and name not like 'sqlite%'");
    tables
        .lines()
        .map(|table| {
            let count = ask(&format!("select count(*) from \"{table}\""));
            (table.to_owned(), count.trim().parse().unwrap())
        })
        .collect()
}

#[test]
fn a_directory_of_100000_files_moves_as_cheaply_as_an_empty_one() {
    if !can_mount() || !crate::tools::have(&["sqlite3"]) {
        return;
    }
    const FILES: usize = 100_000;
    let mounted = Mounted::prepared("", |dir| {
        fs::create_dir(dir.join("empty")).unwrap();
        for n in 0..FILES {
            let sub = dir.join(format!("full/d{}", n / 1_000));
            if n % 1_000 == 0 {
                fs::create_dir_all(&sub).unwrap();
            }
            File::create(sub.join(format!("f{n}"))).unwrap();
        }
    });
    mounted.wait_reconciled();
    assert!(mounted.status()["entries"].as_u64().unwrap() > FILES as u64);
    // The first change tells who this is.
    fs::create_dir(mounted.at("another")).unwrap();
    let start = rows(&mounted);
    fs::rename(mounted.at("empty"), mounted.at("empty-moved")).unwrap();
    let after_empty = rows(&mounted);
    fs::rename(mounted.at("full"), mounted.at("full-moved")).unwrap();
    let after_full = rows(&mounted);
    let growth = |before: &[(String, u64)], after: &[(String, u64)]| {
        before.iter().zip(after).map(|(b, a)| (a.0.clone(), a.1 - b.1)).collect::<Vec<_>>()
    };
    assert_eq!(growth(&after_empty, &after_full), growth(&start, &after_empty));
    assert!(growth(&after_empty, &after_full).iter().map(|row| row.1).sum::<u64>() <= 3);
    let last: Vec<_> = mounted.records(&["changes"]).into_iter().rev().take(2).collect();
    assert!(last.iter().all(|change| change["op"] == "rename"), "{last:?}");
    assert_eq!(last[0]["seq"].as_u64().unwrap(), last[1]["seq"].as_u64().unwrap() + 1);
    // And everything is where it is now.
    assert_eq!(mounted.manifest("full-moved").len(), FILES);
    assert_eq!(mounted.log_of("full-moved/d99/f99999").len(), 1);
    let found = mounted.records(&["search", "f77777"]);
    assert_eq!(found[0]["path"], "full-moved/d77/f77777");
}

#[rstest]
fn a_large_directory_is_listed_whole(#[values("", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    const NAMES: usize = 20_000;
    let mounted = Mounted::prepared(options, |dir| {
        for n in 0..NAMES {
            File::create(dir.join(format!("{n}-{}", "x".repeat(n % 100)))).unwrap();
        }
    });
    let list = || {
        let entries = fs::read_dir(&mounted.mountpoint).unwrap().map(|entry| entry.unwrap());
        let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        let unique: BTreeSet<_> = names.iter().cloned().collect();
        assert_eq!(unique.len(), names.len(), "no name comes twice");
        unique
    };
    assert_eq!(list().len(), NAMES);
    assert_eq!(mounted.shell("ls -lU | grep -c ^-").trim(), NAMES.to_string());
    // Names that come and go meanwhile leave the others alone.
    let mut entries = fs::read_dir(&mounted.mountpoint).unwrap();
    let mut seen = BTreeSet::new();
    for n in 0..100 {
        seen.insert(entries.next().unwrap().unwrap().file_name());
        fs::remove_file(mounted.at(format!("{n}-{}", "x".repeat(n % 100)))).unwrap();
        File::create(mounted.at(format!("new-{n}"))).unwrap();
    }
    seen.extend(entries.map(|entry| entry.unwrap().file_name()));
    for n in 100..NAMES {
        let name = format!("{n}-{}", "x".repeat(n % 100));
        assert!(seen.contains(std::ffi::OsStr::new(&name)), "{name}");
    }
    assert_eq!(list().len(), NAMES);
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
}

#[rstest]
fn a_thousand_files_are_open_at_once(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    const FILES: usize = 1_000;
    let mounted = Mounted::with_options(options);
    let files: Vec<_> = (0..FILES)
        .map(|n| {
            let mut open = File::options();
            open.create_new(true).write(true).read(n % 2 == 0);
            open.open(mounted.at(format!("f{n}"))).unwrap()
        })
        .collect();
    for round in 0..3_u64 {
        for (n, file) in files.iter().enumerate() {
            file.write_at(format!("{n:5} {round}").as_bytes(), round * 7).unwrap();
        }
    }
    assert_eq!(mounted.status()["open_files"], FILES);
    for n in (0..FILES).step_by(3) {
        fs::rename(mounted.at(format!("f{n}")), mounted.at(format!("moved-{n}"))).unwrap();
    }
    drop(files);
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.digests("moved-999"), [sha256("  999 0  999 1  999 2")]);
    mounted.wait_for("release of every file", || mounted.status()["open_files"] == 0);
}

#[test]
fn many_writers_at_once_are_all_heard() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let dir = mounted.at(format!("t{thread}"));
            scope.spawn(move || {
                fs::create_dir(&dir).unwrap();
                for n in 0..200 {
                    let file = dir.join(format!("f{}", n % 20));
                    match n % 4 {
                        0 | 1 => fs::write(&file, format!("{thread} {n}")).unwrap(),
                        2 => {
                            let mut file = File::options().append(true).create(true).open(&file);
                            file.as_mut().unwrap().write_all(b"more").unwrap();
                        }
                        _ => {
                            fs::write(dir.join("temp"), format!("{thread} {n}")).unwrap();
                            fs::rename(dir.join("temp"), &file).unwrap();
                        }
                    }
                }
            });
        }
    });
    mounted.assert_catalog_is_true();
    assert_eq!(files_below(&mounted.backing).len(), 8 * 20);
    // 200 saves each, over 20 names: every one of them is a version.
    let versions: usize = (0..20).map(|n| mounted.log_of(&format!("t0/f{n}")).len()).sum();
    assert_eq!(versions, 200);
    mounted.assert_survives_remount();
}

#[test]
fn deep_trees_are_walked() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::prepared("", |dir| {
        let deep: std::path::PathBuf = (0..300).map(|n| format!("d{n}")).collect();
        fs::create_dir_all(dir.join(&deep)).unwrap();
        fs::write(dir.join(&deep).join("f"), "deep").unwrap();
    });
    mounted.wait_reconciled();
    mounted.assert_survives_remount();
    fs::rename(mounted.at("d0"), mounted.at("e0")).unwrap();
    mounted.assert_survives_remount();
}
