//! `/api/v1`: what is there and what was, and how it is brought back.

use std::fs;

use rstest::rstest;
use serde_json::json;

use super::{Served, names, quoted};
use crate::mounted::can_mount;
use crate::tools::{noise, sha256};

#[test]
fn a_tree_is_listed_now_and_as_it_was_page_by_page() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir(m.at("d")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(m.at("d").join(name), name).unwrap();
    }
    m.sync();
    let before = m.log_of("d/c").last().unwrap()["time"].as_str().unwrap().to_string();
    fs::remove_file(m.at("d/b")).unwrap();
    fs::write(m.at("d/e"), "new").unwrap();
    let now = served.get("/api/v1/tree?path=d");
    assert_eq!(names(&now, "name"), ["a", "c", "e"]);
    assert_eq!(now["items"][0]["sha256"], sha256("a"));
    assert!(now["next"].is_null());
    let then = served.get(&format!("/api/v1/tree?path=/d/&at={}", quoted(before.as_bytes())));
    assert_eq!(names(&then, "name"), ["a", "b", "c"]);
    let first = served.get("/api/v1/tree?path=d&limit=2");
    assert_eq!(names(&first, "name"), ["a", "c"]);
    let next = first["next"].as_str().unwrap();
    let second = served.get(&format!("/api/v1/tree?path=d&limit=2&after={next}"));
    assert_eq!((names(&second, "name"), &second["next"]), (vec!["e"], &json!(null)));
    for (place, status) in [
        ("/api/v1/tree?path=d/a", 400),
        ("/api/v1/tree?path=none", 404),
        ("/api/v1/tree?path=d/../..", 400),
        ("/api/v1/tree?limit=0", 400),
        ("/api/v1/tree?limit=x", 400),
        ("/api/v1/tree?after=!", 400),
        ("/api/v1/tree?at=never", 400),
        ("/api/v1/tree?colour=red", 400),
        ("/api/v1/nothing", 404),
    ] {
        let answer = served.ask(place, &[]);
        assert_eq!(answer.status, status, "{place}");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{place}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
    }
    assert_eq!(served.ask("/api/v1/tree", &["-X", "DELETE"]).status, 405);
}

#[test]
fn versions_and_their_contents_are_handed_out() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    let large = noise(1, 3_000_000);
    fs::write(m.at("f.txt"), "one\ntwo\n").unwrap();
    fs::write(m.at("f.txt"), "one\n2\n").unwrap();
    fs::write(m.at("large"), &large).unwrap();
    let versions = served.get("/api/v1/versions?path=f.txt");
    let numbers: Vec<_> =
        versions["items"].as_array().unwrap().iter().map(|v| v["number"].clone()).collect();
    assert_eq!(numbers, [2, 1]);
    let page = served.get("/api/v1/versions?path=f.txt&limit=1");
    let rest = page["next"].as_str().unwrap();
    let rest = served.get(&format!("/api/v1/versions?path=f.txt&limit=1&after={rest}"));
    assert_eq!((&rest["items"][0]["number"], &rest["next"]), (&json!(1), &json!(null)));
    assert_eq!(served.get("/api/v1/blame?path=f.txt")["items"][0]["size_delta"], -2);
    let old = served.ask("/api/v1/content?path=f.txt&version=1", &[]);
    assert_eq!((old.status, &*old.body), (200, b"one\ntwo\n".as_slice()));
    assert_eq!(old.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(old.header("etag"), format!("\"{}\"", sha256("one\ntwo\n")));
    let tag = format!("If-None-Match: {}", old.header("etag"));
    let again = served.ask("/api/v1/content?path=f.txt&version=1", &["-H", &tag]);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let whole = served.ask("/api/v1/content?path=large", &[]);
    assert_eq!(whole.header("content-length"), "3000000");
    assert!(whole.body == large);
    let part = served.ask("/api/v1/content?path=large", &["-H", "Range: bytes=1000000-1000009"]);
    assert_eq!((part.status, &*part.body), (206, &large[1_000_000..1_000_010]));
    assert_eq!(part.header("content-range"), "bytes 1000000-1000009/3000000");
    let beyond = served.ask("/api/v1/content?path=large", &["-H", "Range: bytes=3000000-"]);
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */3000000"));
    let types = beyond.headers.iter().filter(|(name, _)| name == "content-type").count();
    assert_eq!((types, beyond.header("content-type")), (1, "application/problem+json"));
    let head = served.ask("/api/v1/content?path=large", &["-I"]);
    assert_eq!((head.status, head.header("content-length")), (200, "3000000"));
    let diff = served.get("/api/v1/diff?path=f.txt");
    assert!(diff["unified"].as_str().unwrap().contains("-two\n+2\n"), "{diff}");
    let none = served.ask("/api/v1/content?path=f.txt&version=9", &[]);
    assert_eq!(none.status, 404);
    let both = served.ask("/api/v1/content?path=f.txt&version=1&at=1h", &[]);
    assert_eq!(both.status, 400);
}

#[test]
fn names_that_are_no_text_are_reached_by_their_bytes() {
    if !can_mount() {
        return;
    }
    use std::os::unix::ffi::OsStrExt;
    let served = Served::new();
    let name = std::ffi::OsStr::from_bytes(b"a\xff");
    fs::write(served.mounted.mountpoint.join(name), "odd").unwrap();
    let tree = served.get("/api/v1/tree");
    let exact = tree["items"][0]["name_base64"].as_str().unwrap();
    let place = format!("/api/v1/content?path_base64={}", quoted(exact.as_bytes()));
    assert_eq!(served.ask(&place, &[]).body, b"odd");
    assert_eq!(served.ask("/api/v1/content?path_base64=%21", &[]).status, 400);
    let both = format!("{place}&path=a");
    assert_eq!(served.ask(&both, &[]).status, 400);
}

#[test]
fn what_was_there_is_brought_back_once() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    let key = served.key("restorer", &["--scope", "restore"]);
    fs::write(m.at("f"), "one").unwrap();
    fs::write(m.at("f"), "two").unwrap();
    fs::write(m.at("gone"), "gone").unwrap();
    fs::remove_file(m.at("gone")).unwrap();
    let place = "/api/v1/restore";
    let plan = served.post(&key, place, &json!({ "path": "f", "version": "1" }));
    let plan = (plan.status, plan.json());
    assert_eq!((plan.0, &plan.1["dry_run"]), (200, &json!(true)));
    assert_eq!(plan.1["steps"][0]["outcome"], "planned", "{}", plan.1);
    assert_eq!(fs::read_to_string(m.at("f")).unwrap(), "two");
    let body = json!({ "path": "f", "version": "1", "dry_run": false });
    let once = ["-H", "Idempotency-Key: once"];
    let done = served.post_with(&key, place, &body, &once);
    assert_eq!((done.status, &done.json()["failed"]), (200, &json!(0)));
    assert_eq!(fs::read_to_string(m.at("f")).unwrap(), "one");
    assert_eq!(m.log_of("f").last().unwrap()["origin"], "restore");
    fs::write(m.at("f"), "three").unwrap();
    let again = served.post_with(&key, place, &body, &once);
    assert_eq!(again.json(), done.json());
    assert_eq!(fs::read_to_string(m.at("f")).unwrap(), "three", "it was done once");
    let other = json!({ "path": "f", "version": "2", "dry_run": false });
    assert_eq!(served.post_with(&key, place, &other, &once).status, 422);
    let back = served.post(&key, "/api/v1/undelete", &json!({ "path": "gone", "dry_run": false }));
    assert_eq!(back.json()["failed"], 0, "{}", back.json());
    assert_eq!(fs::read_to_string(m.at("gone")).unwrap(), "gone");
    let marked = served.post(&key, "/api/v1/marks", &json!({ "path": "f", "pinned": true }));
    assert_eq!(marked.json()["pinned"], true);
    assert!(m.log().contains("horace::audit"), "{}", m.log());
    for body in [json!({ "path": "f", "version": "1", "at": "1h" }), json!({ "path": 7 })] {
        assert_eq!(served.post(&key, place, &body).status, 400, "{body}");
    }
}

#[test]
fn who_lost_the_connection_gets_the_answer_of_what_was_done() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    let key = served.key("restorer", &["--scope", "restore"]);
    for n in 0..1000 {
        fs::write(m.at(format!("{n}")), "one").unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    let then = horace::timespec::rfc3339(horace::clock::now_ns());
    std::thread::sleep(std::time::Duration::from_millis(20));
    for n in 0..1000 {
        fs::write(m.at(format!("{n}")), "two").unwrap();
    }
    m.sync();
    let (authorization, once) = (format!("Authorization: Bearer {key}"), "Idempotency-Key: a");
    let body = json!({ "path": "", "to": then, "dry_run": false });
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-H", &authorization, "-H", once, "-H", "Content-Type: application/json"]);
    curl.args(["-d", &body.to_string()]).arg(format!("{}/api/v1/rewind", served.url));
    let mut curl = curl.stdout(std::process::Stdio::null()).spawn().unwrap();
    while fs::read_to_string(m.at("0")).unwrap() == "two" {
        std::thread::yield_now();
    }
    curl.kill().unwrap();
    assert!(!curl.wait().unwrap().success(), "it had its answer before it could lose it");
    let again = || served.post_with(&key, "/api/v1/rewind", &body, &["-H", once]);
    let began = std::time::Instant::now();
    let mut answer = again();
    while answer.status == 409 && began.elapsed() < std::time::Duration::from_secs(60) {
        std::thread::sleep(std::time::Duration::from_millis(50));
        answer = again();
    }
    assert_eq!((answer.status, answer.json()["steps"].as_array().unwrap().len()), (200, 1000));
    assert_eq!(m.log_of("999").len(), 3, "it was done once");
}

#[rstest]
fn everything_that_is_described_answers(
    #[values("", "?path=f&path_base64=Zg", "?limit=-1", "?since=x&at=x&a=%00&b=%ff")] query: &str,
) {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    fs::write(served.mounted.at("f"), "x").unwrap();
    served.mounted.wait_reconciled();
    let description = served.get("/openapi.json");
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{description}");
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 15, "{}", paths.len());
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys().filter(|method| *method == "get") {
            let events = path.ends_with("/events");
            let most = if events { "0.5" } else { "60" };
            let mut curl = std::process::Command::new("curl");
            curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", most]);
            let told = curl.arg(format!("{}{path}{query}", served.url)).output().unwrap();
            let status = String::from_utf8(told.stdout).unwrap();
            // Root shows a key for that, too.
            let refused = status == "403" && path.ends_with("/webhooks");
            let answered = refused || ["200", "400", "404"].contains(&&*status);
            assert!(answered, "{method} {path}{query}: {status}");
        }
    }
    for place in ["/docs", "/docs/page.js", "/healthz", "/readyz", "/metrics"] {
        assert_eq!(served.ask(place, &[]).status, 200, "{place}");
    }
}
