//! Directories of every older Horace: what they remember is there after an upgrade, however that ends.
//!
//! The fixtures are made by `tests/fixtures/make`: filesystems, so that the inodes are those of then.
#![expect(clippy::disallowed_types, reason = "what is in the database is looked at from outside")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use horace::catalog::Catalog;
use horace::store::pack::format;
use rstest::rstest;
use rusqlite::Connection;
use rusqlite::types::Value as Cell;
use serde_json::Value;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{files_below, have, must, sha256, sha256_of, told};

/// How the program of the time ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Orderly,
    Killed,
}

/// A directory as an older program has left it.
struct Old {
    mounted: Mounted,
    schema: usize,
    /// What that program told of it.
    told: PathBuf,
    _disk: Disk,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn archive(schema: usize, end: End) -> PathBuf {
    let suffix = if end == End::Killed { "-killed" } else { "" };
    fixtures().join(format!("schema-{schema}{suffix}.tar.zst"))
}

/// The schema of the program that is tested.
fn current() -> usize {
    let dir = tempfile::tempdir().unwrap();
    Catalog::open(dir.path()).unwrap().close(1);
    schema_of(&dir.path().join("catalog.db"))
}

fn schema_of(catalog: &Path) -> usize {
    let copy = copy_of(catalog);
    let db = Connection::open(copy.path().join("catalog.db")).unwrap();
    db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

impl Old {
    /// Unpacks a fixture; nothing is mounted.
    fn unpack(schema: usize, end: End) -> Self {
        let disk = Disk::unpack(&archive(schema, end));
        let backing = disk.path().join("backing");
        let mounted = Mounted::unmounted_on(backing, "prune=off,backup=off");
        Self { mounted, schema, told: disk.path().join("told"), _disk: disk }
    }

    fn state(&self) -> PathBuf {
        self.mounted.backing.join(".horace")
    }

    fn catalog(&self) -> PathBuf {
        self.state().join("catalog.db")
    }

    /// What the old program told, a record a line.
    fn told(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.told.join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What it told of moments: the time, and the lines of the manifest.
    fn manifests(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(&self.told).unwrap().map(Result::unwrap);
        let named = files.filter_map(|file| {
            let time = file.file_name().to_str()?.strip_prefix("manifest.")?.to_owned();
            Some((time, fs::read(file.path()).unwrap()))
        });
        named.collect()
    }

    /// The files as they were unpacked.
    fn tree(&self) -> BTreeMap<Vec<u8>, String> {
        let files = files_below(&self.mounted.backing);
        files.into_iter().map(|(name, path)| (name, sha256_of(&path))).collect()
    }

    /// A mount of it tells everything that the old program told, and prints every content that it had.
    #[track_caller]
    fn assert_remembered(&self) {
        self.assert_changes_are_there();
        let live: BTreeSet<String> = self.tree().into_values().collect();
        for old in self.told("log.jsonl") {
            let path = old["path"].as_str().unwrap();
            let log = self.mounted.log_of(path);
            let new = log.iter().find(|new| new["number"] == old["number"]);
            let new = new.unwrap_or_else(|| panic!("{old:#}\nis not in {log:#?}"));
            for field in ["time", "size", "sha256", "origin", "writer", "mode", "mtime"] {
                assert_eq!(new[field], old[field], "{field} of {old:#}");
            }
            assert!(old["pinned"].is_null() || new["pinned"] == old["pinned"], "{new:#}");
            assert_eq!(new["note"], old["note"]);
            let head = old["content"] == "head";
            if head && self.schema == 1 && !live.contains(old["sha256"].as_str().unwrap()) {
                // The program that kept nothing has let go of what it changed before it was killed.
                continue;
            }
            if old["content"] != "none" {
                let name = format!("{path}@{}", old["number"]);
                let content = self.mounted.cat(&[name.as_str()]);
                assert_eq!(Some(&*sha256(content)), old["sha256"].as_str(), "{name}");
            }
        }
        if self.schema >= 7 {
            let labels = self.mounted.records(&["label", "papers/plan.txt"]);
            assert_eq!(labels, self.told("labels.jsonl"));
            let collections = self.mounted.records(&["collection", "list"]);
            assert_eq!(collections, self.told("collections.jsonl"));
        }
        self.assert_moments_are_there();
    }

    #[track_caller]
    fn assert_moments_are_there(&self) {
        for (time, manifest) in self.manifests() {
            let told = self.mounted.ok(&["manifest", "--at", time.as_str()]);
            assert_eq!(told, String::from_utf8_lossy(&manifest), "at {time}");
        }
    }

    #[track_caller]
    fn assert_changes_are_there(&self) {
        let new = self.mounted.records(&["changes"]);
        let by_seq: BTreeMap<u64, &Value> =
            new.iter().map(|change| (change["seq"].as_u64().unwrap(), change)).collect();
        let old = self.told("changes.jsonl");
        assert!(!old.is_empty());
        for old in old {
            let new = by_seq[&old["seq"].as_u64().unwrap()];
            for (field, value) in old.as_object().unwrap() {
                assert_eq!(&new[field], value, "{field} of {old:#}");
            }
        }
    }

    /// Whatever the log says is there can be printed, and is what its digest says.
    #[track_caller]
    fn assert_nothing_is_promised_in_vain(&self) {
        let changed = self.mounted.records(&["changes"]);
        let paths: BTreeSet<&str> =
            changed.iter().filter_map(|change| change["path"].as_str()).collect();
        for path in paths {
            let output = self.mounted.run(&["log", "--json", path]);
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                let version: Value = serde_json::from_str(line).unwrap();
                if version["content"] != "none" {
                    let name = format!("{path}@{}", version["number"]);
                    let content = self.mounted.cat(&[name.as_str()]);
                    assert_eq!(Some(&*sha256(content)), version["sha256"].as_str(), "{name}");
                }
            }
        }
    }
}

/// What a migration does to the disk.
const STEPS: &str = "pwrite64,fsync,fdatasync,ftruncate,fallocate,rename,unlink";

/// What a table has: its columns, and its rows as text in order.
type Table = (Vec<String>, Vec<String>);

/// A copy of a database with its log: to open the database itself would change it.
fn copy_of(catalog: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["catalog.db", "catalog.db-wal"] {
        let from = catalog.with_file_name(name);
        if from.exists() {
            fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    copy
}

/// Everything in a database but what each start notes.
fn rows_of(catalog: &Path) -> BTreeMap<String, Table> {
    let copy = copy_of(catalog);
    let db = Connection::open(copy.path().join("catalog.db")).unwrap();
    let whole: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    let column = |sql: &str| -> Vec<String> {
        let mut query = db.prepare(sql).unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let tables = column("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'meta'");
    let read = |table: &String| {
        let columns = column(&format!("SELECT name FROM pragma_table_info('{table}')"));
        (columns.clone(), rows(&db, table, &columns))
    };
    tables.iter().map(|table| (table.clone(), read(table))).collect()
}

fn rows(db: &Connection, table: &str, columns: &[String]) -> Vec<String> {
    let mut query = db.prepare(&format!("SELECT {} FROM {table}", columns.join(", "))).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        let cells = (0..columns.len()).map(|n| row.get::<_, Cell>(n));
        Ok(format!("{:?}", cells.collect::<Result<Vec<_>, _>>()?))
    };
    let mut rows: Vec<_> = query.query_map([], row).unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}

/// A catalog is as it was, or of the newest schema with every row that it had.
#[track_caller]
fn assert_whole(catalog: &Path, old: &BTreeMap<String, Table>, from: usize) {
    let now = rows_of(catalog);
    let schema = schema_of(catalog);
    if schema == from {
        assert_eq!(&now, old, "an old schema with something new");
        return;
    }
    assert_eq!(schema, current());
    for (table, (columns, rows_before)) in old {
        let (columns_now, rows_now) = &now[table];
        let added = columns_now.len() - columns.len();
        assert_eq!(&columns_now[..columns.len()], columns, "{table}");
        assert_eq!(rows_now.len(), rows_before.len(), "{table}");
        if added == 0 {
            assert_eq!(rows_now, rows_before, "{table}");
        }
    }
}

impl Mounted {
    /// Starts the daemon under a fault; returns how it ended, or nothing if it came to serve.
    fn start_under(&mut self, fault: &str) -> Option<Output> {
        let horace = self.command();
        let mut command = Command::new("strace");
        command
            // The first thread alone, which migrates.
            .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={STEPS}")])
            .args(["-e", &format!("inject={STEPS}:{fault}")])
            .arg(horace.get_program())
            .envs(horace.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .args(["mount", "--foreground", "-o", "api=off,prune=off,backup=off"])
            .args([&self.backing, &self.mountpoint])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut serves = false;
        self.wait_for("an end of the start", || {
            serves = self.is_mounted();
            serves || child.try_wait().unwrap().is_some()
        });
        if serves {
            self.detach();
        }
        let output = child.wait_with_output().unwrap();
        // It may have been mounted and killed between two looks.
        let serves = serves || self.is_mounted();
        self.detach();
        (!serves).then_some(output)
    }
}

#[test]
fn every_schema_and_every_format_of_packs_has_its_fixtures() {
    let newest = current();
    for schema in 1..=newest {
        for end in [End::Orderly, End::Killed] {
            let archive = archive(schema, end);
            assert!(
                archive.exists(),
                "{} is missing: tests/fixtures/README.md says how it is made",
                archive.display()
            );
        }
    }
    let formats: BTreeSet<u16> = (1..=newest).flat_map(formats_of).collect();
    assert_eq!(formats, (1..=format::VERSION).collect(), "formats of packs in the fixtures");
}

/// The formats of the packs in a fixture: the number behind the magic one.
fn formats_of(schema: usize) -> Vec<u16> {
    let old = Old::unpack(schema, End::Orderly);
    let Ok(packs) = fs::read_dir(old.state().join("store/packs")) else { return Vec::new() };
    let packs = packs.map(|pack| pack.unwrap().path());
    packs
        .filter(|pack| pack.extension().is_some_and(|e| e == "pack"))
        .map(|pack| {
            let bytes = fs::read(pack).unwrap();
            u16::from_le_bytes([bytes[8], bytes[9]])
        })
        .collect()
}

#[test]
fn a_fixture_has_the_schema_that_it_is_named_for() {
    for schema in 1..=current() {
        for end in [End::Orderly, End::Killed] {
            let old = Old::unpack(schema, end);
            assert_eq!(schema_of(&old.catalog()), schema, "{end:?}");
        }
    }
}

#[rstest]
fn a_directory_of_an_older_program_tells_what_it_told(
    #[values(End::Orderly, End::Killed)] end: End,
) {
    if !can_mount() || !have(&["zstd"]) {
        return;
    }
    for schema in 1..=current() {
        let mut old = Old::unpack(schema, end);
        let tree = old.tree();
        old.mounted.start();
        old.mounted.wait_reconciled();
        assert_eq!(old.tree(), tree, "schema {schema}: nothing in the directory changes");
        old.mounted.assert_catalog_is_true();
        old.assert_remembered();
        old.assert_nothing_is_promised_in_vain();
        let (whole, found, _) = old.mounted.verify(&["--restart"]);
        assert!(whole, "schema {schema}: {found:#?}");
        old.mounted.assert_survives_remount();
        old.assert_remembered();
        assert_eq!(schema_of(&old.catalog()), current());
    }
}

#[test]
fn a_copy_of_an_older_directory_promises_nothing_in_vain() {
    if !can_mount() || !have(&["zstd"]) {
        return;
    }
    for schema in 1..=current() {
        let mut old = Old::unpack(schema, End::Orderly);
        let tree = old.tree();
        // Elsewhere every inode is another.
        let copy = old.mounted.scratch("copy");
        must(Command::new("cp").arg("-a").arg(&old.mounted.backing).arg(&copy));
        old.mounted.backing = copy;
        old.mounted.start();
        old.mounted.wait_reconciled();
        assert_eq!(old.tree(), tree);
        old.mounted.assert_catalog_is_true();
        old.assert_changes_are_there();
        old.assert_moments_are_there();
        old.assert_nothing_is_promised_in_vain();
        for gone in old.told("log.jsonl").iter().filter(|version| version["content"] == "object") {
            let path = gone["path"].as_str().unwrap();
            if path.starts_with("docs/") || path == "gone.txt" {
                let content = old.mounted.cat(&[&format!("{path}@{}", gone["number"])]);
                assert_eq!(Some(&*sha256(content)), gone["sha256"].as_str(), "{gone:#}");
            }
        }
    }
}

#[test]
fn what_was_kept_by_an_older_program_comes_back() {
    if !can_mount() || !have(&["zstd"]) {
        return;
    }
    for schema in 2..=current() {
        let mut old = Old::unpack(schema, End::Orderly);
        old.mounted.start();
        old.mounted.wait_reconciled();
        let m = &old.mounted;
        m.ok(&["undelete", "gone.txt"]);
        assert_eq!(fs::read(m.at("gone.txt")).unwrap(), b"and back\n");
        m.ok(&["restore", "data.txt", "--version", "1"]);
        let numbers: String = (1..=9000).map(|n| format!("{n}\n")).collect();
        assert_eq!(fs::read(m.at("data.txt")).unwrap(), numbers.as_bytes());
        fs::write(m.at("gone.txt"), "new").unwrap();
        assert_eq!(m.digests("gone.txt").last(), Some(&sha256("new")));
        m.assert_catalog_is_true();
    }
}

#[test]
fn without_a_daemon_an_older_catalog_is_named_and_left_alone() {
    for schema in 1..=current() {
        let old = Old::unpack(schema, End::Orderly);
        let before = fs::read(old.catalog()).unwrap();
        let output = old
            .mounted
            .command()
            .arg("log")
            .arg(old.mounted.backing.join("data.txt"))
            .output()
            .unwrap();
        let text = told(&output);
        if schema == current() {
            assert!(output.status.success(), "{text}");
        } else {
            assert_eq!(output.status.code(), Some(1), "{text}");
            let advice = format!("has the older schema {schema}");
            assert!(text.contains(&advice), "{text}");
            assert!(text.contains("mount its directory once"), "{text}");
        }
        assert!(fs::read(old.catalog()).unwrap() == before);
    }
}

#[rstest]
fn a_kill_during_a_migration_leaves_the_old_catalog_or_the_new_one(
    #[values(End::Orderly, End::Killed)] end: End,
) {
    if !can_mount() || !have(&["strace", "zstd"]) {
        return;
    }
    for schema in 1..current() {
        let pristine = rows_of(&Old::unpack(schema, end).catalog());
        let mut kills = 0;
        loop {
            let mut old = Old::unpack(schema, end);
            let fault = format!("signal=SIGKILL:when={}", kills + 1);
            if old.mounted.start_under(&fault).is_none() {
                break;
            }
            kills += 1;
            assert_whole(&old.catalog(), &pristine, schema);
            // The whole way through, now and then: it takes a start each.
            if kills % 10 == 0 {
                old.mounted.start();
                old.mounted.wait_reconciled();
                old.assert_remembered();
            }
        }
        eprintln!("schema {schema}, {end:?}: {kills} kills");
        assert!(kills >= 10, "only {kills} kills: is the migration seen?");
    }
}

#[test]
fn a_disk_that_is_full_during_a_migration_leaves_the_old_catalog() {
    if !can_mount() || !have(&["strace", "zstd"]) {
        return;
    }
    for schema in 1..current() {
        let pristine = rows_of(&Old::unpack(schema, End::Orderly).catalog());
        let (mut step, mut stayed) = (1, 0);
        loop {
            let mut old = Old::unpack(schema, End::Orderly);
            let Some(output) = old.mounted.start_under(&format!("error=ENOSPC:when={step}+"))
            else {
                break;
            };
            let text = told(&output);
            assert_eq!(output.status.code(), Some(1), "step {step}: {text}");
            assert!(text.contains("catalog.db"), "step {step}: {text}");
            assert_whole(&old.catalog(), &pristine, schema);
            if text.contains("cannot be brought from schema") {
                assert!(text.contains("stays as it was"), "{text}");
                assert!(!text.contains("--rebuild"), "nothing is damaged: {text}");
                assert_eq!(schema_of(&old.catalog()), schema);
                stayed += 1;
            }
            step += 1;
        }
        // The step from 8 only adds a column, and writes little.
        let least = if schema == 8 { 5 } else { 6 };
        assert!(stayed >= least, "{stayed} of {step}: is the migration seen?");
    }
}

#[test]
fn a_kill_during_the_first_start_leaves_nothing_in_the_way_of_the_next() {
    if !can_mount() || !have(&["strace"]) {
        return;
    }
    let mut kills = 0;
    loop {
        let mut new = Mounted::unmounted("");
        fs::write(new.backing.join("f"), "there before").unwrap();
        if new.start_under(&format!("signal=SIGKILL:when={}", kills + 1)).is_none() {
            break;
        }
        kills += 1;
        new.start();
        new.wait_reconciled();
        assert_eq!(new.digests("f"), [sha256("there before")]);
        assert!(!new.backing.join(".horace/catalog.new").exists());
    }
    assert!(kills >= 10, "only {kills} kills");
}

#[test]
fn a_backup_of_an_older_schema_takes_the_place_of_a_damaged_catalog() {
    if !can_mount() || !have(&["zstd"]) {
        return;
    }
    for schema in 1..=current() {
        let mut old = Old::unpack(schema, End::Orderly);
        let backups = old.state().join("backups");
        fs::create_dir(&backups).unwrap();
        fs::rename(old.catalog(), backups.join("1000.db")).unwrap();
        fs::write(old.catalog(), "damaged").unwrap();
        let output = old
            .mounted
            .command()
            .args(["reconcile", "--rebuild"])
            .arg(&old.mounted.backing)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", told(&output));
        old.mounted.start();
        old.mounted.wait_reconciled();
        old.assert_remembered();
        old.mounted.assert_catalog_is_true();
    }
}
