//! The endpoints of the predecessor: a client of it works unchanged.

use std::fs;

use serde_json::{Value, json};

use super::Served;
use crate::mounted::can_mount;
use crate::tools::sha256;

fn sum(content: &str) -> String {
    format!("sha256:{}", sha256(content))
}

#[test]
fn searches_answer_with_a_list() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir(m.at("team")).unwrap();
    for (name, content) in [("team/p_c.txt", "one"), ("team/pxc.txt", "two"), ("other", "three")] {
        fs::write(m.at(name), content).unwrap();
    }
    let paths = |place: &str| -> Vec<String> {
        let found = served.get(place);
        let path = |item: &Value| item["path"].as_str().unwrap().to_string();
        found.as_array().unwrap().iter().map(path).collect()
    };
    let found = served.get("/search?q=p_c");
    assert_eq!(found.as_array().unwrap().len(), 1, "`_` stands for itself: {found}");
    assert_eq!(found[0]["current_checksum"], sum("one"));
    assert_eq!((&found[0]["checksum"], &found[0]["size_bytes"]), (&json!(sum("one")), &json!(3)));
    let time = found[0]["updated_at"].as_str().unwrap();
    assert!(time.ends_with("+00:00") && time.contains('T'), "{time}");
    assert!(paths("/search?q=%25").is_empty(), "and so does `%`");
    assert_eq!(paths("/search?q=TEAM&sort=path&order=asc"), ["team/p_c.txt", "team/pxc.txt"]);
    let limited = served.ask("/search?q=team&limit=1&offset=1", &[]);
    assert_eq!((limited.header("x-total-count"), limited.status), ("2", 200));
    assert_eq!(limited.json().as_array().unwrap().len(), 1);
    assert_eq!(paths(&format!("/search?q=e&checksum={}", sha256("three"))), ["other"]);
    fs::remove_file(m.at("other")).unwrap();
    assert!(paths("/search?q=other").is_empty());
    assert_eq!(paths("/search?q=other&include_deleted=1"), ["other"]);
    for (place, kind, name) in [
        ("/search", "missing", "q"),
        ("/search?q=", "string_too_short", "q"),
        ("/search?q=a&limit=x", "int_parsing", "limit"),
        ("/info", "missing", "path"),
    ] {
        let answer = served.ask(place, &[]);
        let wrong = &answer.json()["detail"][0];
        assert_eq!((answer.status, &wrong["type"]), (422, &json!(kind)), "{place}");
        assert_eq!(wrong["loc"], json!(["query", name]), "{place}");
    }
}

#[test]
fn a_file_has_its_versions_and_they_come_back() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::write(m.at("f.txt"), "one").unwrap();
    fs::write(m.at("f.txt"), "two").unwrap();
    let info = served.get("/info?path=f.txt");
    assert_eq!((&info["path"], &info["is_deleted"]), (&json!("f.txt"), &json!(false)));
    assert_eq!(info["current_checksum"], sum("two"));
    let sums: Vec<_> =
        info["versions"].as_array().unwrap().iter().map(|v| &v["checksum"]).collect();
    assert_eq!(sums, [&json!(sum("two")), &json!(sum("one"))], "newest first");
    assert_eq!(info["versions"][1]["content_available"], true);
    for root in [&m.mountpoint, &m.backing] {
        let place = format!("/info?path={}/f.txt", root.display());
        assert_eq!(served.get(&place)["file_id"], info["file_id"]);
    }
    assert_eq!(served.get("/info?path=/f.txt")["file_id"], info["file_id"]);
    let missing = served.ask("/info?path=none", &[]);
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json(), json!({ "detail": "File not found in catalog: none" }));

    let place = format!("/restore_version?path=f.txt&checksum={}", sum("one"));
    let refused = served.ask(&place, &["-X", "POST"]);
    assert_eq!(refused.status, 403);
    assert!(refused.json()["detail"].is_string(), "{}", refused.json());
    let key = format!("Authorization: Bearer {}", served.key("r", &["--scope", "restore"]));
    let done = served.ask(&place, &["-X", "POST", "-H", &key]);
    assert_eq!(done.status, 200, "{}", done.json());
    let done = done.json();
    assert_eq!((&done["checksum"], &done["restored_from"]), (&json!(sum("one")), &json!(1)));
    assert_eq!((&done["previous_checksum"], &done["version_id"]), (&json!(sum("two")), &json!(3)));
    assert_eq!(fs::read_to_string(m.at("f.txt")).unwrap(), "one");
    let unknown = format!("/restore_version?path=f.txt&checksum={}", "0".repeat(64));
    assert_eq!(served.ask(&unknown, &["-X", "POST", "-H", &key]).status, 404);
    for place in ["/restore_version?path=f.txt", "/restore_version?path=f.txt&checksum=zz"] {
        assert_eq!(served.ask(place, &["-X", "POST", "-H", &key]).status, 422, "{place}");
    }
    let aside = format!("/restore_version?path=f.txt&checksum={}&as_path=g.txt", sha256("two"));
    assert_eq!(served.ask(&aside, &["-X", "POST", "-H", &key]).status, 200);
    assert_eq!(fs::read_to_string(m.at("g.txt")).unwrap(), "two");
    fs::remove_file(m.at("g.txt")).unwrap();
    assert_eq!(served.ask("/info?path=g.txt", &[]).status, 404);
    assert_eq!(served.get("/info?path=g.txt&include_deleted=1")["is_deleted"], true);
}

#[test]
fn collections_health_and_errors_have_their_old_forms() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    for name in ["b", "a"] {
        fs::create_dir(m.at(name)).unwrap();
    }
    std::os::unix::fs::symlink("a", m.at("link")).unwrap();
    fs::write(m.at("a/f"), "1234").unwrap();
    let found = served.get("/collections");
    assert_eq!(found["collections"], json!(["a", "b"]));
    assert_eq!(found["details"][0]["file_count"], 1);
    assert_eq!(found["details"][0]["total_bytes"], 4);
    let health = served.get("/health");
    assert_eq!(health["status"], "ok");
    assert!(health["reconcile"]["state"].is_string(), "{health}");
    let scheduler = &health["snapshot_scheduler"];
    assert_eq!((&scheduler["state"], &scheduler["backend"]), (&json!("none"), &json!("none")));
    let none = served.ask("/nothing", &[]);
    assert_eq!((none.status, none.json()), (404, json!({ "detail": "Not Found" })));
    let wrong = served.ask("/search?q=a", &["-X", "POST"]);
    assert_eq!((wrong.status, wrong.json()), (405, json!({ "detail": "Method Not Allowed" })));
}
