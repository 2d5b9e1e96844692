//! A server over a catalog that is filled by events, asked over its socket.

mod fixture;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::catalog::event::{Born, Op};
use crate::control::client::{ClientError, ask_catalog};
use crate::query::filter::{Names, SearchFilter};
use crate::query::records::{BlameRecord, ChangeRecord, ManifestRecord, SearchRecord};
use crate::query::records::{SyncRecord, VersionRecord};
use crate::query::request::{Follow, PathField, QueryField, Request, Wait};
use crate::query::status::{ReconcileProgress, ReconcileState, StatusRecord};
use crate::types::{Origin, Seq, SessionId};
use fixture::{Fixture, Lines, digest, set_mode};

fn at(path: &str) -> PathField {
    PathField(path.into())
}

fn log(path: &str) -> Request {
    Request::Log { path: at(path) }
}

fn manifest(path: &str) -> Request {
    Request::Manifest { path: at(path), at_ns: None }
}

fn search(query: &str, names: Names) -> Request {
    Request::Search {
        path: at(""),
        filter: SearchFilter { query: QueryField(query.into()), names, ..SearchFilter::default() },
    }
}

fn changes(path: &str, since: Option<Seq>, follow: Follow) -> Request {
    Request::Changes { path: at(path), since, follow, limit: None }
}

fn message<R: std::fmt::Debug>(result: Result<R, ClientError>) -> String {
    result.unwrap_err().to_string()
}

fn paths(records: &[SearchRecord]) -> Vec<String> {
    let path = |record: &SearchRecord| String::from_utf8_lossy(&record.path.0).into_owned();
    records.iter().map(path).collect()
}

#[test]
fn the_versions_of_a_path_come_newest_first() {
    let mut fixture = Fixture::new();
    fixture.mkdir("d", 0o755);
    fixture.write("d/f", "one", 0o644);
    fixture.write("d/f", "three", 0o644);
    let (versions, end) = fixture.ask::<VersionRecord>(&log("d/f")).unwrap();
    assert_eq!(end.records, 2);
    assert_eq!(versions[0].number, 2);
    assert_eq!(versions[0].sha256, Some(digest("three")));
    assert_eq!(versions[1].sha256, Some(digest("one")));
    let writer = versions[0].writer.as_ref().unwrap();
    assert_eq!((writer.uid, writer.pid, &*writer.comm), (0, 99, "test"));

    let blame = Request::Blame { path: at("d/f") };
    let (rows, _) = fixture.ask::<BlameRecord>(&blame).unwrap();
    let deltas: Vec<_> = rows.iter().map(|row| (row.number, row.size_delta)).collect();
    assert_eq!(deltas, [(2, 2), (1, 3)]);

    fixture.remove("d/f");
    let (versions, _) = fixture.ask::<VersionRecord>(&log("d/f")).unwrap();
    assert_eq!(versions.len(), 2);
    let none = message(fixture.ask::<VersionRecord>(&log("d/g")));
    assert_eq!(none, "the catalog has no file or directory `/d/g`");
    let dir = message(fixture.ask::<VersionRecord>(&log("d")));
    assert!(dir.contains("no regular file"), "{dir}");
}

#[test]
fn a_manifest_has_every_regular_file_and_remembers() {
    let mut fixture = Fixture::new();
    fixture.mkdir("d", 0o755);
    let odd = Path::new(std::ffi::OsStr::from_bytes(b"d/\xff\n"));
    fixture.write(odd, "odd", 0o644);
    fixture.write("a", "old", 0o644);
    let before = fixture.clock;
    fixture.write("a", "new", 0o644);
    let (files, end) = fixture.ask::<ManifestRecord>(&manifest("")).unwrap();
    assert_eq!((end.records, end.unknown), (2, 0));
    assert_eq!(files[0].path, at("a"));
    assert_eq!(files[0].sha256, Some(digest("new")));
    assert_eq!(files[1].path.0, b"d/\xff\n");

    let (files, _) = fixture.ask::<ManifestRecord>(&manifest("a")).unwrap();
    assert_eq!(files.len(), 1);
    let past = |at_ns| Request::Manifest { path: at("a"), at_ns: Some(at_ns) };
    let (files, _) = fixture.ask::<ManifestRecord>(&past(before)).unwrap();
    assert_eq!(files[0].sha256, Some(digest("old")));
    let early = message(fixture.ask::<ManifestRecord>(&past(-1)));
    assert!(early.contains("nothing was catalogued"), "{early}");
}

#[test]
fn a_file_without_a_digest_is_counted() {
    let mut fixture = Fixture::new();
    std::fs::write(fixture.backing("f"), "x").unwrap();
    let inode = fixture.inode("f");
    fixture.push(Op::Create { at: fixture.place(Path::new("f")), inode, born: Born::Bare });
    fixture.push(Op::Seal {
        inode,
        session: SessionId(9),
        digest: None,
        prefix: None,
        origin: Origin::Write,
    });
    let (files, end) = fixture.ask::<ManifestRecord>(&manifest("")).unwrap();
    assert_eq!((files[0].sha256, end.unknown), (None, 1));
}

#[test]
fn a_search_finds_live_and_deleted_names() {
    let mut fixture = Fixture::new();
    fixture.mkdir("docs", 0o755);
    fixture.write("docs/Readme", "x", 0o644);
    fixture.write("docs/gone", "x", 0o644);
    fixture.remove("docs/gone");
    let find = |query, names| {
        let (found, _) = fixture.ask::<SearchRecord>(&search(query, names)).unwrap();
        paths(&found)
    };
    assert_eq!(find("readme", Names::Live), ["docs/Readme"]);
    assert_eq!(find("docs/", Names::Live), ["docs/Readme"]);
    assert_eq!(find("docs/", Names::AndDeleted), ["docs/Readme", "docs/gone"]);
    let mut limited = search("", Names::AndDeleted);
    if let Request::Search { filter, .. } = &mut limited {
        filter.limit = Some(2);
    }
    let (found, end) = fixture.ask::<SearchRecord>(&limited).unwrap();
    assert_eq!((paths(&found), end.records), (vec!["docs".into(), "docs/Readme".into()], 2));
}

#[test]
fn the_log_of_changes_can_be_limited_to_a_directory() {
    let mut fixture = Fixture::new();
    fixture.mkdir("d", 0o755);
    fixture.write("d/f", "x", 0o644);
    fixture.write("df", "x", 0o644);
    let all = changes("d", Some(Seq(0)), Follow::No);
    let (found, _) = fixture.ask::<ChangeRecord>(&all).unwrap();
    assert!(!found.is_empty());
    for change in &found {
        let path = &change.path.as_ref().unwrap().0;
        assert!(path == b"d" || path.starts_with(b"d/"), "{change:?}");
    }
    let last = found.last().unwrap().seq;
    let (found, _) = fixture.ask::<ChangeRecord>(&changes("d", Some(last), Follow::No)).unwrap();
    assert!(found.is_empty());
    let never = changes("", Some(Seq(u64::MAX)), Follow::No);
    assert!(fixture.ask::<ChangeRecord>(&never).unwrap().0.is_empty());
}

#[test]
fn following_shows_what_happens_until_the_server_stops() {
    let mut fixture = Fixture::new();
    fixture.write("before", "x", 0o644);
    fixture.catalog.barrier();
    let mut stream = UnixStream::connect(fixture.dir.path().join("sock")).unwrap();
    let request = serde_json::to_string(&changes("", None, Follow::Yes)).unwrap();
    writeln!(stream, "{request}").unwrap();
    // The request must have begun before there is something that comes after it.
    std::thread::sleep(Duration::from_millis(300));
    fixture.write("after", "x", 0o644);
    let mut lines = BufReader::new(&stream).lines();
    let first: ChangeRecord = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first.path, Some(at("after")));

    let began = Instant::now();
    fixture.server.take().unwrap().stop();
    assert!(began.elapsed() < Duration::from_secs(2));
    // What was on its way still comes, and then the connection ends.
    assert!(lines.count() < 10);
}

#[test]
fn a_follower_that_hangs_up_is_let_go() {
    let fixture = Fixture::new();
    let mut stream = UnixStream::connect(fixture.dir.path().join("sock")).unwrap();
    let request = serde_json::to_string(&changes("", None, Follow::Yes)).unwrap();
    writeln!(stream, "{request}").unwrap();
    let open = || {
        let shared = &fixture.server.as_ref().unwrap().shared;
        shared.open.lock().connections.len()
    };
    let wait_for = |count| {
        let began = Instant::now();
        while open() != count && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(open(), count);
    };
    wait_for(1);
    drop(stream);
    wait_for(0);
}

#[test]
fn status_sync_and_reconcile_come_from_the_host() {
    let mut fixture = Fixture::new();
    fixture.write("f", "x", 0o644);
    fixture.catalog.barrier();
    let (status, _) = fixture.ask::<StatusRecord>(&Request::Status).unwrap();
    assert!(status[0].running && status[0].degraded.is_none());
    assert_eq!((status[0].entries, status[0].versions), (1, 1));
    assert_eq!(status[0].mount.as_ref().unwrap().pid, 7);
    let (reached, _) = fixture.ask::<SyncRecord>(&Request::Sync).unwrap();
    assert_eq!(reached[0].seq, Seq(42));
    let wait = Request::Reconcile { wait: Wait::Yes };
    let (progress, _) = fixture.ask::<ReconcileProgress>(&wait).unwrap();
    let states: Vec<_> = progress.iter().map(|p| p.state).collect();
    use ReconcileState::{Check, Done};
    assert_eq!(states, [Check, Check, Done]);
}

#[test]
fn a_bad_request_has_a_clean_answer() {
    let fixture = Fixture::new();
    for (bytes, expected) in [
        (&b"nonsense\n"[..], "bad-request"),
        (b"{\"request\":\"log\"}\n", "bad-request"),
        (b"{\"request\":\"log\",\"path\":\"../../etc\"}\n", "not-found"),
        (
            b"{\"request\":\"search\",\"path\":\"\",\"query\":\"[\",\"pattern\":\"glob\"}\n",
            "bad-request",
        ),
    ] {
        let mut stream = UnixStream::connect(fixture.dir.path().join("sock")).unwrap();
        stream.write_all(bytes).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["error"]["code"], expected, "{text}");
    }
}

/// What the server says to these bytes.
fn said_to(fixture: &Fixture, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(fixture.dir.path().join("sock")).unwrap();
    // A request that is too long is answered before all of it was sent.
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn nothing_that_is_asked_ends_the_server() {
    let mut fixture = Fixture::new();
    fixture.write("f", "x", 0o644);
    let glob = |glob: String| {
        let mut request = search(&glob, Names::AndDeleted);
        if let Request::Search { filter, .. } = &mut request {
            filter.pattern = crate::query::filter::Pattern::Glob;
        }
        serde_json::to_vec(&request).unwrap()
    };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let seeds = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
    let mut asked: Vec<Vec<u8>> = seeds.map(|path| std::fs::read(path).unwrap()).collect();
    asked.extend([
        // The parser of globs goes as deep as they do.
        glob("{a,".repeat(15_000) + &"}".repeat(15_000)),
        glob("{".repeat(30_000)),
        glob("?".repeat(60_000)),
        glob("**/".repeat(20_000)),
        b"[".repeat(60_000),
        b"{\"request\":".repeat(4000),
        vec![0; 100_000],
        b"{\"request\":\"cat\",\"path\":\"f\",\"version\":\"~~~~~~~~\"}".to_vec(),
        b"{\"request\":\"log\",\"path\":\"a\\u0000b\"}".to_vec(),
        serde_json::to_vec(&log(&"a/".repeat(20_000))).unwrap(),
        serde_json::to_vec(&log("//f/.")).unwrap(),
    ]);
    for mut bytes in asked {
        bytes.push(b'\n');
        let text = said_to(&fixture, &bytes);
        for line in text.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
    }
    let (versions, _) = fixture.ask::<VersionRecord>(&log("f")).unwrap();
    assert_eq!(versions.len(), 1);
    let open = &fixture.server.as_ref().unwrap().shared.open;
    let began = Instant::now();
    while !open.lock().connections.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(5), "connections stay on the list");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_user_who_takes_every_place_is_in_nobody_elses_way() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let mut fixture = Fixture::new();
    set_mode(&fixture.backing(""), 0o755);
    fixture.write("f", "x", 0o644);
    let connect = |uid| {
        let user = crate::sys::creds::Identity { uid, gid: uid, groups: Vec::new() };
        let _identity = crate::sys::creds::AsUser::become_user(&user).unwrap();
        UnixStream::connect(fixture.dir.path().join("sock")).unwrap()
    };
    let idle: Vec<_> = (0..500).map(|_| connect(61_234)).collect();
    let told = idle.iter().filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut line = String::new();
        BufReader::new(*stream).read_line(&mut line).is_ok() && line.contains("busy")
    });
    assert!(told.count() >= 500 - MAX_PER_USER - 1);
    let (versions, _) = fixture.ask::<VersionRecord>(&log("f")).unwrap();
    assert_eq!(versions.len(), 1);
    let lines = fixture.ask_as_nobody(&log("f"));
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn without_a_daemon_the_same_questions_go_to_the_catalog() {
    let mut fixture = Fixture::new();
    fixture.write("f", "x", 0o644);
    fixture.server.take().unwrap().stop();
    fixture.catalog.close(fixture.clock);
    let path = fixture.dir.path().join("state/catalog.db");
    let ask = |request: &Request| {
        let mut lines = Lines::default();
        ask_catalog(path.parent().unwrap(), &path, request, &mut lines).map(|_| lines)
    };
    let files = ask(&manifest("")).unwrap().parsed::<ManifestRecord>();
    assert_eq!(files[0].sha256, Some(digest("x")));
    let status = ask(&Request::Status).unwrap().parsed::<StatusRecord>();
    assert!(!status[0].running && status[0].mount.is_none());
    let refused = ask(&Request::Sync).err().unwrap();
    assert_eq!(refused.to_string(), "no daemon serves this mount");
}

#[test]
fn an_ordinary_user_sees_only_what_the_mount_would_show() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let mut fixture = Fixture::new();
    set_mode(&fixture.backing(""), 0o755);
    fixture.mkdir("shut", 0o700);
    fixture.write("shut/file", "s", 0o644);
    fixture.write("public", "p", 0o644);
    fixture.write("private", "secret", 0o600);
    fixture.write("reused", "secret", 0o600);
    fixture.remove("reused");
    fixture.write("gone", "secret", 0o600);
    fixture.remove("gone");
    let ask = |request: &Request| fixture.ask_as_nobody(request);
    let names = |request: &Request, key: &str| -> Vec<String> {
        let lines = ask(request);
        let found = lines.iter().filter_map(|line| line[key].as_str());
        found.map(String::from).collect()
    };
    let code = |request: &Request| {
        let lines = ask(request);
        lines.last().unwrap()["error"]["code"].clone()
    };
    assert_eq!(names(&manifest(""), "path"), ["public"]);
    let found = names(&search("", Names::AndDeleted), "path");
    assert_eq!(found, ["private", "public", "shut", "gone", "reused"]);
    assert_eq!(names(&search("", Names::AndDeleted), "sha256").len(), 1);
    assert_eq!(code(&log("private")), "denied");
    assert_eq!(code(&log("gone")), "denied");
    assert_eq!(code(&log("shut/file")), "denied");
    assert_eq!(code(&log("shut/none")), "denied");
    assert_eq!(code(&log("none")), "not-found");
    assert_eq!(code(&manifest("shut")), "denied");
    assert_eq!(code(&Request::Reconcile { wait: Wait::No }), "denied");
    let seen = names(&changes("", Some(Seq(0)), Follow::No), "path");
    assert!(seen.contains(&"private".into()) && !seen.contains(&"shut/file".into()));
    assert_eq!(names(&log("public"), "sha256").len(), 1);
    assert_eq!(code(&Request::Status), serde_json::Value::Null);

    // The same name for everybody now: what it was in its earlier life stays private.
    let before = fixture.clock;
    fixture.write("reused", "open", 0o644);
    let (all, _) = fixture.ask::<VersionRecord>(&log("reused")).unwrap();
    assert_eq!(all.len(), 2);
    let lines = fixture.ask_as_nobody(&log("reused"));
    assert_eq!(lines[0]["sha256"], digest("open").to_string());
    assert_eq!((lines.len(), &lines[0]["number"]), (2, &2.into()));
    let past = Request::Manifest { path: at(""), at_ns: Some(before) };
    let lines = fixture.ask_as_nobody(&past);
    assert_eq!((lines.len(), &lines[0]["path"]), (2, &"public".into()));

    set_mode(&fixture.backing(""), 0o700);
    let lines = fixture.ask_as_nobody(&log("public"));
    assert_eq!(lines.last().unwrap()["error"]["code"], "denied");
}
