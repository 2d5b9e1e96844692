//! Who may ask what, and what was tried to get around it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::json;

use super::Served;
use crate::callers::{USER, as_user};
use crate::mounted::can_mount;

fn with_secret() -> Served {
    let served = Served::new();
    hide(&served);
    served
}

fn hide(served: &Served) {
    let m = &served.mounted;
    fs::create_dir(m.at("secret")).unwrap();
    fs::write(m.at("secret/plan"), "nobody else").unwrap();
    fs::write(m.at("open"), "everybody").unwrap();
    fs::write(m.at("shut"), "root").unwrap();
    fs::set_permissions(m.at("secret"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(m.at("shut"), PermissionsExt::from_mode(0o600)).unwrap();
}

#[rstest]
fn users_of_this_machine_see_what_they_may_see_in_the_mount(
    #[values("loopback", "socket")] way: &str,
) {
    if !can_mount() {
        return;
    }
    let served = if way == "socket" { Served::at_socket() } else { Served::new() };
    hide(&served);
    let ask = |place: &str| served.ask_by(as_user(USER, "curl"), place, &[]);
    assert_eq!(ask("/api/v1/content?path=open").body, b"everybody");
    for hidden in
        ["content?path=shut", "versions?path=shut", "tree?path=secret", "versions?path=secret/plan"]
    {
        assert_eq!(ask(&format!("/api/v1/{hidden}")).status, 403, "{hidden}");
    }
    let found = ask("/search?q=plan").json();
    assert_eq!(found, json!([]));
    let sync = served.ask_by(as_user(USER, "curl"), "/api/v1/sync", &["-X", "POST"]);
    assert_eq!(sync.status, 403);
    // Root may read over both, and change something at the socket only.
    assert_eq!(served.ask("/api/v1/content?path=secret/plan", &[]).body, b"nobody else");
    let expected = if way == "socket" { 200 } else { 403 };
    assert_eq!(served.ask("/api/v1/sync", &["-X", "POST"]).status, expected);
}

#[test]
fn a_key_is_good_for_what_it_was_made_for() {
    if !can_mount() {
        return;
    }
    let served = with_secret();
    let m = &served.mounted;
    fs::create_dir(m.at("team")).unwrap();
    fs::write(m.at("team/f"), "one").unwrap();
    let [read, restore, admin] =
        ["read", "restore", "admin"].map(|s| served.key(s, &["--scope", s]));
    let team = served.key("team", &["--scope", "restore", "--below", "/team/"]);
    let nobody = served.key("nobody", &["--scope", "admin", "--user", "nobody"]);
    let short = served.key("short", &["--expires", "1s"]);
    let get = |key: &str, place: &str| {
        served.ask(place, &["-H", &format!("Authorization: Bearer {key}")]).status
    };
    let post =
        |key: &str, place: &str, body: serde_json::Value| served.post(key, place, &body).status;
    assert_eq!(get(&read, "/api/v1/content?path=secret/plan"), 200);
    assert_eq!(get(&nobody, "/api/v1/content?path=secret/plan"), 403, "as its user may");
    assert_eq!(get(&team, "/api/v1/content?path=team/f"), 200);
    for beyond in ["content?path=open", "tree", "search?q=a", "changes", "tree?path=teams"] {
        assert_eq!(get(&team, &format!("/api/v1/{beyond}")), 403, "{beyond}");
    }
    let undelete = json!({ "path": "open", "dry_run": false });
    assert_eq!(post(&read, "/api/v1/undelete", undelete.clone()), 403);
    assert_eq!(post(&team, "/api/v1/undelete", undelete), 403);
    let away = json!({ "path": "team/f", "version": "1", "to": "away", "dry_run": false });
    assert_eq!(post(&team, "/api/v1/restore", away.clone()), 403);
    assert_eq!(post(&restore, "/api/v1/restore", away), 200);
    for (place, body) in [("reconcile", json!({})), ("verify", json!({})), ("prune", json!({}))] {
        let place = format!("/api/v1/{place}");
        assert_eq!(post(&restore, &place, body.clone()), 403, "{place}");
        assert_eq!(post(&nobody, &place, body.clone()), 403, "{place}");
        assert!([200, 202].contains(&post(&admin, &place, body)), "{place}");
    }
    m.wait_for("the key's end", || get(&short, "/api/v1/tree") == 401);
    m.ok(&["key", "revoke", "read", "."]);
    assert_eq!(get(&read, "/api/v1/tree"), 401, "it is revoked");
    let listed = m.ok(&["key", "list", "."]);
    assert!(listed.contains("team  restore  as root  below /team/"), "{listed}");
    assert!(!listed.contains(&admin[10..]), "a key is shown once");
    let denied = as_user(USER, env!("CARGO_BIN_EXE_horace"))
        .env("HORACE_RUNTIME_DIR", &m.runtime)
        .args(["key", "create", "mine"])
        .arg(&m.mountpoint)
        .output()
        .unwrap();
    assert!(!denied.status.success());
}

#[test]
fn who_guesses_keys_has_to_wait() {
    if !can_mount() {
        return;
    }
    let served = with_secret();
    let guess = || served.ask("/api/v1/tree", &["-H", "Authorization: Bearer horace_0"]);
    let mut answers = (0..40).map(|_| guess());
    assert_eq!(answers.next().unwrap().status, 401);
    let late = answers.find(|answer| answer.status == 429).expect("there is an end to it");
    assert_eq!(late.header("retry-after"), "60");
    let basic = served.ask("/api/v1/tree", &["-H", "Authorization: Basic eDp5"]);
    assert_eq!((basic.status, basic.header("www-authenticate")), (401, "Bearer realm=\"horace\""));
}

#[rstest]
#[case("Host: evil.example", 421)]
#[case("Host: localhost.evil.example:8000", 421)]
#[case("Host:", 400)]
#[case("Origin: http://evil.example", 403)]
#[case("Origin: null", 403)]
fn pages_of_the_web_do_not_get_here(#[case] header: &str, #[case] status: u16) {
    if !can_mount() {
        return;
    }
    let served = with_secret();
    for place in ["/api/v1/tree", "/search?q=a", "/healthz"] {
        let answer = served.ask(place, &["-H", header]);
        assert_eq!(answer.status, status, "{place} {header}");
        assert_eq!(answer.header("access-control-allow-origin"), "");
    }
}

#[rstest]
#[case("/api/v1/content?path=../../etc/passwd")]
#[case("/api/v1/content?path=%2e%2e/%2e%2e/etc/passwd")]
#[case("/api/v1/content?path=..%2f..%2fetc%2fpasswd")]
#[case("/api/v1/content?path=link/passwd")]
#[case("/api/v1/content?path=link")]
#[case("/api/v1/content?path=.horace/catalog.db")]
#[case("/api/v1/tree?path=.horace")]
#[case("/info?path=/etc/passwd")]
#[case("/info?path=../../etc/passwd")]
#[case("/../../etc/passwd")]
#[case("/docs/../../../etc/passwd")]
fn no_path_leads_out_of_the_mount(#[case] place: &str) {
    if !can_mount() {
        return;
    }
    let served = with_secret();
    std::os::unix::fs::symlink("/etc", served.mounted.at("link")).unwrap();
    let answer = served.ask(place, &[]);
    assert!([400, 404].contains(&answer.status), "{place}: {}", answer.status);
    assert!(!String::from_utf8_lossy(&answer.body).contains("root:x"), "{place}");
}

#[test]
fn what_goes_into_answers_breaks_neither_headers_nor_queries() {
    if !can_mount() {
        return;
    }
    let served = with_secret();
    let m = &served.mounted;
    let names = ["a\r\nSet-Cookie: x=1", "%", "_", "'; DROP TABLE entry; --", "<script>"];
    for name in names {
        fs::write(m.at(name), "x").unwrap();
    }
    for name in names {
        let name = super::quoted(name.as_bytes());
        let answer = served.ask(&format!("/api/v1/content?path={name}"), &[]);
        assert_eq!((answer.status, answer.header("set-cookie")), (200, ""), "{name}");
        let found = served.get(&format!("/api/v1/search?q={name}"));
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found}");
    }
    let page = served.ask("/api/v1/content?path=%3Cscript%3E", &[]);
    assert!(page.header("content-security-policy").starts_with("sandbox"));
    assert_eq!(page.header("x-content-type-options"), "nosniff");
}

#[test]
fn slow_and_large_requests_are_cut_off() {
    if !can_mount() {
        return;
    }
    let served = with_secret();
    let address = served.url.strip_prefix("http://").unwrap();
    let began = Instant::now();
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ").unwrap();
    slow.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let key = served.key("admin", &["--scope", "admin"]);
    let large = json!({ "path": "x".repeat(100_000) });
    assert_eq!(served.post(&key, "/api/v1/undelete", &large).status, 413);
    let long = format!("/api/v1/tree?path={}", "a/".repeat(6000));
    assert!([404, 414, 431].contains(&served.ask(&long, &[]).status));
    let deep = "[".repeat(20_000);
    let (key, json) = (format!("Authorization: Bearer {key}"), "Content-Type: application/json");
    let nested = served.ask("/api/v1/undelete", &["-H", &key, "-H", json, "-d", &deep]);
    assert_eq!(nested.status, 400);
    assert_eq!(served.ask("/healthz", &[]).status, 200, "it goes on");
}
