//! The history that a predecessor had, in ours.
#![expect(clippy::disallowed_types, reason = "the predecessor's catalog is made here")]

use rusqlite::Connection;

use super::*;
use crate::tools::sha256;

/// The predecessor's tables.
const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA foreign_keys = ON;
    CREATE TABLE schema_version (
        version INTEGER PRIMARY KEY,
        created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
    );
    INSERT INTO schema_version (version) VALUES (1);
    CREATE TABLE files (
        file_id TEXT PRIMARY KEY,
        path TEXT NOT NULL UNIQUE,
        current_checksum TEXT,
        is_deleted BOOLEAN DEFAULT 0,
        created_at TIMESTAMP,
        updated_at TIMESTAMP
    );
    CREATE TABLE file_versions (
        checksum TEXT PRIMARY KEY,
        file_id TEXT NOT NULL,
        size_bytes INTEGER,
        timestamp TIMESTAMP,
        FOREIGN KEY (file_id) REFERENCES files (file_id) ON DELETE CASCADE
    );";

struct Predecessor(Connection);

impl Predecessor {
    /// A catalog beside the source, as the predecessor had it.
    fn beside(source: &Path) -> Self {
        let dir = source.with_file_name(".horace");
        fs::create_dir(&dir).unwrap();
        let db = Connection::open(dir.join("catalog.db")).unwrap();
        db.execute_batch(SCHEMA).unwrap();
        Self(db)
    }

    /// A file that has a content now, whether it is there or not.
    fn file(&self, path: &str, content: &str, is_deleted: bool, updated: &str) {
        let sql = "INSERT INTO files VALUES (?1, ?1, ?2, ?3, '2024-01-01 00:00:00', ?4)";
        let sum = format!("sha256:{}", sha256(content));
        self.0.execute(sql, rusqlite::params![path, sum, is_deleted, updated]).unwrap();
    }

    fn version(&self, path: &str, content: &str, time: &str) {
        let sql = "INSERT INTO file_versions VALUES (?1, ?2, ?3, ?4)";
        let sum = format!("sha256:{}", sha256(content));
        self.0.execute(sql, rusqlite::params![sum, path, content.len(), time]).unwrap();
    }
}

/// The versions of a path as `time digest origin content`, oldest first.
fn versions(mounted: &Mounted, path: &str) -> Vec<String> {
    let told = |v: &Value| {
        let reason = v["content_reason"].as_str().map(|r| format!(" ({r})")).unwrap_or_default();
        let text = |name: &str| v[name].as_str().unwrap().to_owned();
        let sum = text("sha256");
        format!("{} {} {} {}{reason}", text("time"), &sum[..8], text("origin"), text("content"))
    };
    mounted.log_of(path).iter().map(told).collect()
}

fn short(content: &str) -> String {
    sha256(content)[..8].to_owned()
}

/// A source with a predecessor's catalog that has everything that such a catalog can have.
fn with_history() -> (Move, Predecessor) {
    let this = Move::of(
        "mkdir -p d; printf three > d/f; printf one > back; printf same > a; printf same > b
         printf changed > behind; printf new > new; printf x > linked; ln linked other
         touch -d '2025-03-03 02:59:00Z' d/f; chmod 640 d/f",
    );
    let old = Predecessor::beside(&this.source);
    old.file("d/f", "three", false, "2025-03-03 03:00:00.250000");
    old.version("d/f", "one", "2025-01-01 01:00:00.500000");
    old.version("d/f", "second", "2025-02-02 02:00:00");
    old.version("d/f", "three", "2025-03-03 03:00:00.250000");
    // The digest is the key: `one` is `d/f`'s already, and a file that goes back to it has no version of it.
    old.file("back", "one", false, "2025-04-04 04:00:00");
    old.version("back", "between", "2025-04-01 00:00:00");
    old.file("a", "same", false, "2025-05-01 00:00:00");
    old.version("a", "same", "2025-05-01 00:00:00");
    old.file("b", "same", false, "2025-05-02 00:00:00");
    old.file("behind", "as it was", false, "2025-06-01 00:00:00");
    old.version("behind", "as it was", "2025-06-01 00:00:00");
    old.file("gone/deleted", "deleted", true, "2025-07-02 00:00:00");
    old.version("gone/deleted", "deleted", "2025-07-01 00:00:00");
    old.file("lost", "lost", false, "2025-08-01 00:00:00");
    old.version("lost", "lost", "2025-08-01 00:00:00");
    old.file("linked", "x", false, "2025-09-01 00:00:00");
    old.version("linked", "x", "2025-09-01 00:00:00");
    old.file("other", "x", false, "2025-09-01 00:00:00");
    old.file("/srv/files/d/absolute", "abs", true, "2025-09-03 00:00:00");
    old.version("/srv/files/d/absolute", "abs", "2025-09-02 00:00:00");
    for (number, path) in ["../outside", "/etc/passwd", ".horace/catalog.db"].iter().enumerate() {
        old.file(path, "bad", false, "2025-09-09 00:00:00");
        old.version(path, &format!("bad {number}"), "2025-09-09 00:00:00");
    }
    (this, old)
}

#[test]
fn the_history_of_a_predecessor_is_taken_over() {
    if !can_move() || !have(&["curl"]) {
        return;
    }
    let (mut this, old) = with_history();
    let files = || {
        let dir = this.source.with_file_name(".horace");
        let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        found.sort();
        found.into_iter().map(|path| (fs::read(&path).unwrap().len(), path)).collect::<Vec<_>>()
    };
    let before = files();
    let records = this.done(&["--known-as", "/srv/files", "--uid", "1000"]);
    assert_eq!(files(), before, "the predecessor's catalog is as it was");
    drop(old);
    let catalog = fs::metadata(this.target().join(".horace/catalog.db")).unwrap();
    assert_eq!(catalog.mode() & 0o077, 0, "it is private");
    let done = records.iter().find(|record| record["differences"] == 0).unwrap();
    assert_eq!((&done["versions"], &done["deletions"]), (&13.into(), &2.into()), "{done:#}");
    let left_out = records.iter().filter(|record| !record["left_out"].is_null());
    let left_out: Vec<_> = left_out.filter_map(|record| record["path"].as_str()).collect();
    assert_eq!(left_out, ["../outside", "/etc/passwd", ".horace/catalog.db"]);

    let socket = this.mounted.scratch("api.sock");
    this.mounted.set_options(&format!("api=unix:{}", socket.display()));
    this.mounted.start();
    this.mounted.wait_reconciled();
    this.mounted.assert_catalog_is_true();
    let m = &this.mounted;
    let unseen = "migrated none (unseen)";
    assert_eq!(
        versions(m, "d/f"),
        [
            format!("2025-01-01T01:00:00.5+00:00 {} {unseen}", short("one")),
            format!("2025-02-02T02:00:00+00:00 {} {unseen}", short("second")),
            format!("2025-03-03T03:00:00.25+00:00 {} migrated head", short("three")),
        ]
    );
    let head = &m.log_of("d/f")[2];
    assert_eq!((&head["size"], &head["mtime"]), (&5.into(), &"2025-03-03T02:59:00+00:00".into()));
    assert_eq!(
        versions(m, "back"),
        [
            format!("2025-04-01T00:00:00+00:00 {} {unseen}", short("between")),
            format!("2025-04-04T04:00:00+00:00 {} migrated head", short("one")),
        ]
    );
    assert_eq!(
        versions(m, "b"),
        [format!("2025-05-02T00:00:00+00:00 {} migrated head", short("same"))]
    );
    let behind = versions(m, "behind");
    assert_eq!(behind[0], format!("2025-06-01T00:00:00+00:00 {} {unseen}", short("as it was")));
    assert!(behind[1].ends_with(&format!("{} import head", short("changed"))), "{behind:?}");
    assert_eq!(versions(m, "gone/deleted").len(), 1);
    let gone = m.records(&["changes", "."]).into_iter().filter(|c| c["op"] == "unlink");
    let gone: Vec<_> =
        gone.map(|c| format!("{} {}", &c["time"].text()[..10], c["path"].text())).collect();
    let gone: Vec<_> = gone.iter().map(String::as_str).collect();
    let deleted = ["2025-07-02 gone/deleted", "2025-07-02 gone", "2025-09-03 d/absolute"];
    assert_eq!(gone[..3], deleted, "{gone:?}");
    assert!(gone[3..].iter().all(|line| line.ends_with(" lost")), "the walk saw that: {gone:?}");
    assert_eq!(versions(m, "lost").len(), 1);
    assert_eq!(versions(m, "d/absolute").len(), 1);
    assert_eq!(versions(m, "new").len(), 1);
    for name in ["linked", "other"] {
        let log = versions(m, name);
        assert!(log.iter().all(|line| line.contains(&short("x"))), "{name}: {log:?}");
        assert!(log.last().unwrap().ends_with("migrated head"), "{name}: {log:?}");
    }
    // The times are those of the predecessor, so the past can be looked at.
    let past = m.ok(&["manifest", ".", "--at", "2025-02-10T00:00:00Z"]);
    assert_eq!(past, format!("{}  d/f\n", sha256("second")));
    let found = m.ok(&["search", "deleted", "--deleted"]);
    assert!(found.contains("gone/deleted"), "{found}");
    let info = |path: &str| -> Value {
        let url = format!("http://localhost/info?path={path}");
        let mut curl = Command::new("curl");
        let text = must(curl.args(["-s", "--unix-socket"]).arg(&socket).arg(url));
        serde_json::from_str(&text).unwrap()
    };
    let told = info("d/f");
    let times: Vec<_> =
        told["versions"].as_array().unwrap().iter().map(|v| v["timestamp"].text()).collect();
    assert_eq!(told["versions"][2]["checksum"], format!("sha256:{}", sha256("one")), "{told:#}");
    assert_eq!(told["versions"][2]["size_bytes"], 3);
    assert!(times[2].starts_with("2025-01-01T01:00:00.5"), "{times:?}");
    assert!(told["created_at"].text().starts_with("2025-01-01T01:00:00.5"), "{told:#}");
    let changes = m.records(&["changes", "."]);
    let times: Vec<_> = changes.iter().map(|c| c["time"].text().to_owned()).collect();
    assert!(times.is_sorted(), "{times:#?}");
    // A save makes a version after them.
    fs::write(m.at("d/f"), "four").unwrap();
    assert_eq!(versions(m, "d/f").len(), 4);
    this.mounted.assert_survives_remount();
}

#[test]
fn who_can_read_a_file_sees_its_history_and_nobody_that_of_what_is_gone() {
    if !can_move() || !have(&["setpriv"]) {
        return;
    }
    let (mut this, _old) = with_history();
    this.done(&["--known-as", "/srv/files"]);
    this.mounted.set_options("allow_other");
    this.mounted.start();
    this.mounted.wait_reconciled();
    let as_nobody = |path: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        command.env("HORACE_RUNTIME_DIR", &this.mounted.runtime);
        command.arg(env!("CARGO_BIN_EXE_horace")).args(["log", "--json"]);
        let output = command.arg(this.mounted.at(path)).current_dir("/").output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().count()
    };
    assert_eq!(as_nobody("back"), 2);
    assert_eq!(as_nobody("d/f"), 0, "it is not for everybody");
    assert_eq!(as_nobody("gone/deleted"), 0);
}

#[test]
fn what_is_imported_again_is_imported_anew_and_a_foreign_catalog_is_refused() {
    if !can_move() {
        return;
    }
    let (this, old) = with_history();
    let notes = this.done(&[])[0]["notes"].to_string();
    assert!(notes.contains("the predecessor may still run"), "{notes}");
    old.version("back", "one more", "2025-04-02 00:00:00");
    let records = this.done(&[]);
    let done = records.iter().find(|record| record["differences"] == 0).unwrap();
    // Absolute paths are those of another place now.
    assert_eq!((&done["versions"], &done["left_out"]), (&13.into(), &4.into()), "{done:#}");
    let other = this.mounted.scratch("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE files (path)").unwrap();
    let output = this.run(&["--yes", "--catalog", other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let why = "is no catalog of the predecessor: it has no table `file_versions`";
    assert!(told(&output).contains(why), "{}", told(&output));
}
