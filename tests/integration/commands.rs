//! The command line as scripts and people use it: records, tables, exit codes, advice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Output, Stdio};

use rstest::rstest;
use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, sha256, told};

/// A mount with a small history.
fn sample() -> Mounted {
    let mounted = Mounted::new();
    mounted.shell(
        "mkdir -p d/e; echo one > d/f; echo two > d/f; mv d/f d/g; echo x > d/e/small
         head -c 100000 /dev/zero > large; echo gone > Gone.TXT; rm Gone.TXT; ln -s d/g link; ln d/g hard",
    );
    mounted
}

fn fields(record: &Value) -> Vec<&str> {
    record.as_object().unwrap().keys().map(String::as_str).collect()
}

fn names(records: &[Value]) -> Vec<&str> {
    let mut names: Vec<_> = records.iter().map(|r| r["path"].as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}", told(output)))
}

#[test]
fn records_have_their_fields() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let has = |record: &Value, expected: &[&str]| {
        let found = fields(record);
        for field in expected {
            assert!(found.contains(field), "{field} in {record:#}");
        }
    };
    let writer = ["uid", "user", "gid", "pid", "comm"];
    let log = mounted.records(&["log", "d/g"]);
    assert_eq!(log.len(), 2);
    for version in &log {
        let expected = [
            "number",
            "file_number",
            "file_id",
            "seq",
            "time",
            "size",
            "sha256",
            "origin",
            "writer",
            "mode",
            "mtime",
            "content",
        ];
        has(version, &expected);
        has(&version["writer"], &writer);
    }
    assert_eq!((&log[0]["number"], &log[1]["number"]), (&2.into(), &1.into()), "newest first");
    assert_eq!((&log[0]["content"], &log[1]["content"]), (&"head".into(), &"object".into()));
    assert_eq!(log[0]["writer"]["user"], "root");
    assert_eq!(log[0]["mode"], 0o644);
    let manifest = mounted.records(&["manifest", "d"]);
    has(&manifest[0], &["path", "sha256", "size", "file_id"]);
    assert_eq!(names(&manifest), ["d/e/small", "d/g"]);
    let found = mounted.records(&["search", "--deleted", "gone"]);
    has(&found[0], &["path", "kind", "size", "mtime", "sha256", "file_id", "deleted"]);
    let changes = mounted.records(&["changes", "."]);
    for change in &changes {
        has(change, &["seq", "time", "op", "path", "kind", "file_id", "writer"]);
    }
    let blame = mounted.records(&["blame", "d/g"]);
    has(&blame[0], &["number", "seq", "time", "op", "origin", "writer", "size", "size_delta"]);
    let status = mounted.status();
    has(
        &status,
        &[
            "running",
            "version",
            "pid",
            "backing",
            "mountpoint",
            "state_dir",
            "uptime_s",
            "io",
            "passthrough",
            "threads",
            "open_files",
            "refused",
            "nodes",
            "seq",
            "entries",
            "versions",
            "objects",
            "object_bytes",
            "queue",
            "wal_bytes",
            "degraded",
            "backups",
            "reconcile",
        ],
    );
    has(
        &status["reconcile"],
        &[
            "state",
            "directories",
            "files",
            "read_files",
            "read_bytes",
            "total_files",
            "left",
            "errors",
            "started_ns",
            "finished_ns",
            "files_per_s",
            "bytes_per_s",
            "eta_s",
            "asked",
            "slowed",
            "every",
            "limits",
        ],
    );
    has(&status["reconcile"]["limits"], &["disk", "threads", "bytes_per_s"]);
    has(&status["backups"], &["every", "dir", "count", "bytes", "last", "failed", "error"]);
    let time: String = log[0]["time"].as_str().unwrap().into();
    assert!(time.contains('T') && time.ends_with("+00:00"), "RFC 3339 in UTC: {time}");
}

#[test]
fn every_change_is_told_with_its_kind() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let begin = mounted.ok(&["sync", "."]).trim().to_owned();
    mounted.shell(
        "echo a > f; echo b >> f; mv f g; echo c > t; mv t g; ln g h; rm h; chmod 600 g
         mkdir d; rmdir d; ln -s g s; rm s; mkfifo p; rm p; echo x > x",
    );
    let cwd = rustix::fs::CWD;
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    rustix::fs::renameat_with(cwd, mounted.at("g"), cwd, mounted.at("x"), flags).unwrap();
    let changes = mounted.records(&["changes", "--since", &begin]);
    let ops: Vec<_> = changes.iter().map(|c| c["op"].as_str().unwrap()).collect();
    let distinct: std::collections::BTreeSet<_> = ops.iter().copied().collect();
    for op in ["create", "write", "rename", "replace", "link", "unlink", "attr", "exchange"] {
        assert!(distinct.contains(op), "{op}: {ops:?}");
    }
    let seqs: Vec<_> = changes.iter().map(|c| c["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    let rename = changes.iter().find(|c| c["op"] == "rename").unwrap();
    assert_eq!((&rename["from_path"], &rename["path"]), (&"f".into(), &"g".into()));
    // Of a directory, and of what is below it only.
    mounted.shell("mkdir -p a b; echo x > a/f; echo x > b/f");
    let of_a = mounted.records(&["changes", "a"]);
    let paths: Vec<_> = of_a.iter().map(|c| c["path"].as_str().unwrap()).collect();
    assert!(paths.iter().all(|path| path.starts_with('a')), "{paths:?}");
    assert!(paths.contains(&"a/f"));
    assert_eq!(mounted.records(&["changes", "--limit", "2"]).len(), 2);
}

#[test]
fn tables_are_aligned_and_plain() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let table = mounted.ok(&["log", "d/g"]);
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for head in ["VERSION", "TIME", "SIZE", "SHA256", "WRITER", "ORIGIN", "CONTENT"] {
        assert!(lines[0].contains(head), "{table}");
    }
    let column = lines[0].find("SHA256").unwrap();
    assert!(lines[1][column..].starts_with(&sha256("two\n")[..12]), "{table}");
    assert!(lines[2][column..].starts_with(&sha256("one\n")[..12]), "{table}");
    assert!(lines[1].contains("now") || lines[1].contains("s ago"), "{table}");
    let blame = mounted.ok(&["blame", "d/g"]);
    assert!(blame.lines().next().unwrap().contains("COMMAND"), "{blame}");
    let changes = mounted.ok(&["changes"]);
    assert!(changes.contains("d/f -> d/g"), "{changes}");
    let search = mounted.ok(&["search", "--deleted", "gone"]);
    assert!(search.contains("Gone.TXT (deleted)"), "{search}");
    let status = mounted.ok(&["status"]);
    for word in ["serving", "backing", "kernel passthrough", "catalog", "reconcile"] {
        assert!(status.contains(word), "{status}");
    }
    for command in [&["log", "d/g"][..], &["status"], &["changes"], &["search", "g"]] {
        assert!(!mounted.ok(command).contains('\u{1b}'), "no colours in a pipe: {command:?}");
        let colored = mounted.ok(&[&["--color=always"], command].concat());
        assert!(command[0] == "search" || colored.contains('\u{1b}'), "{command:?}: {colored}");
    }
}

#[rstest]
#[case(&["small"], &["d/e/small"])]
#[case(&["SMALL"], &["d/e/small"])]
#[case(&["e/sm"], &["d/e/small"])]
#[case(&["gone"], &[])]
#[case(&["-d", "gone"], &["Gone.TXT"])]
#[case(&["--glob", "*a*"], &["d/e/small", "hard", "large"])]
#[case(&["--glob", "d/**/s*"], &["d/e/small"])]
#[case(&["--glob", "*.TXT", "--deleted"], &["Gone.TXT"])]
#[case(&["--size", "+10k", ""], &["large"])]
#[case(&["--size", "2", ""], &["d/e/small"])]
#[case(&["--size", "1..5", ""], &["d/e/small", "d/g", "hard"])]
#[case(&["--since", "1h", "a"], &["d/e/small", "hard", "large"])]
#[case(&["--since", "2100-01-01", "a"], &[])]
#[case(&["small", "d"], &["d/e/small"])]
#[case(&["large", "d"], &[])]
fn searches_find(#[case] args: &[&str], #[case] expected: &[&str]) {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let found = mounted.records(&[&["search"], args].concat());
    assert_eq!(names(&found), expected);
    let limited = mounted.records(&[&["search", "--limit", "1"], args].concat());
    assert_eq!(limited.len(), expected.len().min(1));
}

#[test]
fn a_manifest_of_the_past() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("mkdir d; echo one > d/f; echo other > g");
    let time =
        |path: &str| mounted.log_of(path).last().unwrap()["time"].as_str().unwrap().to_owned();
    let then = time("g");
    // A tick later, so that what follows is after that time, not at it.
    mounted.wait_for("next moment", || {
        mounted.shell("echo tick > tick");
        time("tick") > then
    });
    mounted.shell("echo two > d/f; mv d e; rm g; echo new > h");
    let past = mounted.records(&["manifest", ".", "--at", &then]);
    assert_eq!(names(&past), ["d/f", "g"]);
    assert_eq!(past.iter().find(|r| r["path"] == "d/f").unwrap()["sha256"], sha256("one\n"));
    assert_eq!(names(&mounted.records(&["manifest", "."])), ["e/f", "h", "tick"]);
    let before = mounted.run(&["manifest", "--at", "2001-01-01", "."]);
    assert_eq!(code(&before), 1);
    assert!(told(&before).contains("nothing was catalogued at that time"), "{}", told(&before));
    let future = mounted.records(&["manifest", "--at", "2100-01-01", "."]);
    assert_eq!(future, mounted.records(&["manifest", "."]));
}

#[test]
fn changes_are_followed_as_they_happen() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("before"), "x").unwrap();
    let since = mounted.ok(&["sync", "."]).trim().to_owned();
    let mut follower = mounted
        .command()
        .args(["changes", "--follow", "--json", "--since", &since, "."])
        .current_dir(&mounted.mountpoint)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    for n in 0..5 {
        fs::create_dir(mounted.at(format!("d{n}"))).unwrap();
        let change: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(change["path"], format!("d{n}"));
        assert_eq!(change["op"], "create");
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn paths_are_taken_from_where_one_is() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let absolute = mounted.at("d/g");
    let expected = mounted.ok(&["log", "--json", "d/g"]);
    let from = |dir: &str, path: &str| {
        let mut command = mounted.command();
        must(command.args(["log", "--json", path]).current_dir(mounted.at(dir)))
    };
    assert_eq!(from("d", "g"), expected);
    assert_eq!(from("d/e", "../g"), expected);
    assert_eq!(from("d/e", absolute.to_str().unwrap()), expected);
    let mut outside = mounted.command();
    assert_eq!(must(outside.args(["log", "--json"]).arg(&absolute).current_dir("/")), expected);
    let mut backing = mounted.command();
    backing.args(["log", "--json"]).arg(mounted.backing.join("d/g")).current_dir("/");
    assert_eq!(must(&mut backing), expected, "by the backing directory, too");
    // What was there is asked by the name it had.
    assert_eq!(mounted.digests("d/f").len(), 2);
    assert_eq!(mounted.digests("Gone.TXT"), [sha256("gone\n")]);
    assert_eq!(mounted.digests("hard").len(), 2, "with what the file was before it had the name");
}

#[rstest]
#[case::no_command(&[], 2, "Usage")]
#[case::no_such_command(&["frobnicate"], 2, "Usage")]
#[case::no_such_option(&["log", "--none", "x"], 2, "--none")]
#[case::no_path(&["log"], 2, "PATH")]
#[case::bad_size(&["search", "--size", "x", "y"], 2, "size")]
#[case::unknown_mount_option(&["mount", "-o", "bogus=1", "/", "/"], 2, "`bogus=1`")]
#[case::bad_option_value(&["mount", "-o", "io=fast", "/", "/"], 2, "auto|stream|passthrough")]
#[case::missing_option_value(&["mount", "-o", "state", "/", "/"], 2, "state=DIR")]
#[case::help(&["--help"], 0, "Usage")]
#[case::version(&["--version"], 0, "horace")]
#[case::missing_backing(&["mount", "missing", "."], 1, "missing")]
#[case::no_mount(&["log", "/"], 1, "hint:")]
#[case::nothing_to_unmount(&["umount", "/"], 1, "hint:")]
fn mistakes_are_told(#[case] args: &[&str], #[case] expected: i32, #[case] text: &str) {
    let dirs = Mounted::unmounted("");
    let output = dirs.run(args);
    assert_eq!(code(&output), expected, "{}", told(&output));
    assert!(told(&output).contains(text), "{}", told(&output));
    assert_eq!(output.stdout.is_empty(), expected != 0, "errors go to stderr: {}", told(&output));
}

#[test]
fn errors_say_what_to_do() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let refused = |args: &[&str], texts: &[&str]| {
        let output = mounted.run(args);
        assert_eq!(code(&output), 1, "{args:?} {}", told(&output));
        let all = told(&output);
        assert!(texts.iter().all(|text| all.contains(text)), "{args:?} {all}");
        assert!(output.stdout.is_empty(), "{args:?} {all}");
    };
    refused(&["log", "nothing/here"], &["nothing/here"]);
    refused(&["log", "d"], &["hint:", "horace changes"]);
    refused(&["manifest", "nothing"], &["nothing"]);
    refused(&["manifest", "--at", "someday", "."], &["someday"]);
    refused(&["mount", "d/g", "."], &["no directory", "hint:"]);
    let dirs = Mounted::unmounted("");
    let state = format!("api=off,state={}", dirs.backing.join("state").display());
    let output = dirs.run(&["mount", "-o", &state, "../backing", "."]);
    assert_eq!(code(&output), 1);
    assert!(told(&output).contains("put it elsewhere"), "{}", told(&output));
}

#[test]
fn a_catalog_of_a_newer_version_is_left_alone() {
    if !can_mount() || !have(&["sqlite3"]) {
        return;
    }
    let mut mounted = sample();
    mounted.umount();
    let catalog = mounted.backing.join(".horace/catalog.db");
    let sql = |text: &str| must(std::process::Command::new("sqlite3").arg(&catalog).arg(text));
    let version = sql("pragma user_version").trim().to_owned();
    sql("pragma user_version = 9999");
    let before = fs::read(&catalog).unwrap();
    for args in [&["mount", "-o", "api=off"][..], &["mount", "-f", "-o", "api=off"]] {
        let mut command = mounted.command();
        let output = command.args(args).args([&mounted.backing, &mounted.mountpoint]).output();
        let output = output.unwrap();
        assert_eq!(code(&output), 1, "{}", told(&output));
        let text = told(&output);
        assert!(text.contains("newer") && text.contains("9999"), "{text}");
        assert!(!mounted.is_mounted());
    }
    assert!(fs::read(&catalog).unwrap() == before);
    sql(&format!("pragma user_version = {version}"));
    mounted.start();
    assert_eq!(mounted.digests("d/g").len(), 2);
}

#[test]
fn a_damaged_catalog_is_a_clear_error() {
    if !can_mount() {
        return;
    }
    let mut mounted = sample();
    mounted.umount();
    let catalog = mounted.backing.join(".horace/catalog.db");
    fs::write(&catalog, vec![b'x'; 10_000]).unwrap();
    let mut command = mounted.command();
    command.args(["mount", "-o", "api=off"]).args([&mounted.backing, &mounted.mountpoint]);
    let output = command.output().unwrap();
    assert_eq!(code(&output), 1, "{}", told(&output));
    assert!(told(&output).contains("catalog"), "{}", told(&output));
    assert_eq!(fs::read(&catalog).unwrap(), vec![b'x'; 10_000], "it is not replaced");
}

#[test]
fn a_stopped_mount_is_asked_by_its_catalog() {
    if !can_mount() {
        return;
    }
    let mut mounted = sample();
    mounted.umount();
    let ask = |args: &[&str]| {
        let mut command = mounted.command();
        must(command.args(args).current_dir(&mounted.backing))
    };
    assert_eq!(ask(&["log", "--json", "d/g"]).lines().count(), 2);
    assert_eq!(ask(&["manifest", "d"]).lines().count(), 2);
    assert!(ask(&["search", "small"]).contains("d/e/small"));
    assert!(ask(&["changes"]).contains("d/f -> d/g"));
    assert!(ask(&["status", "."]).contains("not running"));
    assert!(ask(&["status"]).contains("nothing is mounted"));
    let mut reconcile = mounted.command();
    let output = reconcile.arg("reconcile").current_dir(&mounted.backing).output().unwrap();
    assert_eq!(code(&output), 1);
    assert!(told(&output).contains("hint: start it"), "{}", told(&output));
}

#[test]
fn a_digest_that_is_not_known_makes_an_answer_partial() {
    if !can_mount() {
        return;
    }
    let mut mounted = sample();
    mounted.umount();
    // Found by the next start, which has not come yet.
    let catalog = mounted.backing.join(".horace/catalog.db");
    let sql = "update version set sha256 = null where size = 100000";
    let mut sqlite = std::process::Command::new("sqlite3");
    must(sqlite.arg(&catalog).arg(sql));
    let mut command = mounted.command();
    let output = command.args(["manifest", "."]).current_dir(&mounted.backing).output().unwrap();
    assert_eq!(code(&output), 3, "{}", told(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no digest is known"));
}

#[test]
fn sync_and_reconcile_tell_how_far_they_came() {
    if !can_mount() {
        return;
    }
    let mounted = sample();
    let first: u64 = mounted.ok(&["sync"]).trim().parse().unwrap();
    fs::write(mounted.at("more"), "x").unwrap();
    let record = &mounted.records(&["sync", "."])[0];
    assert!(record["seq"].as_u64().unwrap() > first);
    let told = mounted.ok(&["reconcile"]);
    assert!(told.contains("done") && told.contains("files"), "{told}");
    let records = mounted.records(&["reconcile", "--no-wait"]);
    assert!(records[0]["state"].is_string(), "{records:?}");
    let last = mounted.records(&["reconcile", "."]);
    assert_eq!(last.last().unwrap()["state"], "done");
}

#[test]
fn the_fallback_says_why_it_is_one() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("passthrough=off");
    let status = mounted.status();
    assert_eq!(status["passthrough"]["enabled"], false);
    let reason = status["passthrough"]["reason"].as_str().unwrap();
    assert!(reason.contains("passthrough=off"), "{reason}");
    assert!(mounted.ok(&["status"]).contains("no kernel passthrough"));
    let with = Mounted::new();
    assert_eq!(with.status()["passthrough"]["enabled"], true, "{:#}", with.status());
}
