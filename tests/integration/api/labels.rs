//! Labels, tags and collections.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use super::{Served, names};
use crate::callers::{USER, as_user};
use crate::mounted::{Mounted, can_mount};

fn with_files() -> Served {
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir(m.at("d")).unwrap();
    for name in ["d/a", "d/b", "c"] {
        fs::write(m.at(name), name).unwrap();
    }
    served
}

fn collection(served: &Served, name: &str) -> Value {
    let all = served.get("/api/v1/collections");
    let found = all["items"].as_array().unwrap().iter().find(|item| item["name"] == name);
    found.cloned().unwrap_or_default()
}

#[test]
fn labels_go_where_the_file_goes_and_are_searched() {
    if !can_mount() {
        return;
    }
    let mut served = with_files();
    let key = served.key("r", &["--scope", "restore"]);
    let change = json!({
        "path": "d/a", "tags": ["draft", "zwei Wörter"], "owner": "ann", "purpose": "plan",
        "status": "active", "correlation_id": "x-1",
    });
    let said = served.post(&key, "/api/v1/labels", &change);
    assert_eq!(said.status, 200, "{}", said.json());
    let said = said.json();
    assert_eq!(said["tags"], json!(["draft", "zwei Wörter"]));
    let m = &served.mounted;
    fs::rename(m.at("d"), m.at("e")).unwrap();
    fs::write(m.at("e/tmp"), "saved anew").unwrap();
    fs::rename(m.at("e/tmp"), m.at("e/a")).unwrap();
    let known = served.get("/api/v1/labels?path=e/a");
    for field in ["file_id", "tags", "owner", "purpose", "status", "correlation_id", "created"] {
        assert_eq!(known[field], said[field], "{field}");
    }
    assert_eq!((&known["file_number"], &known["deleted"]), (&json!(2), &json!(false)));
    let by_id =
        served.get(&format!("/api/v1/labels?file_id={}", known["file_id"].as_str().unwrap()));
    assert_eq!(by_id, known);
    let found = served.get("/api/v1/search?tags=draft,zwei%20W%C3%B6rter&details=true");
    assert_eq!(names(&found, "path"), ["e/a"]);
    assert_eq!(found["items"][0]["details"]["owner"], "ann");
    assert!(names(&served.get("/api/v1/search?tags=draft,none"), "path").is_empty());
    assert_eq!(served.get("/search?q=a&tags=draft")[0]["path"], "e/a");
    served.post(&key, "/api/v1/labels", &json!({ "path": "c", "add_tags": ["draft"] }));
    let tags = served.get("/api/v1/tags");
    assert_eq!(tags["items"][0], json!({ "tag": "draft", "files": 2 }));
    assert_eq!(names(&served.get("/api/v1/tags?path=e&limit=1"), "tag"), ["draft"]);
    let next = served.get("/api/v1/tags?limit=1")["next"].as_str().unwrap().to_string();
    assert_eq!(names(&served.get(&format!("/api/v1/tags?after={next}")), "tag"), ["zwei Wörter"]);
    // What is deleted has its labels when it comes back, and a restart forgets nothing.
    fs::remove_file(served.mounted.at("e/a")).unwrap();
    assert!(names(&served.get("/api/v1/search?tags=draft"), "path") == ["c"]);
    let gone = served.get("/api/v1/search?tags=draft&deleted=true");
    assert_eq!(names(&gone, "path"), ["c", "e/a"]);
    served.mounted.kill();
    served.mounted.start();
    served.url = served.mounted.status()["api"].as_str().unwrap().to_string();
    served.mounted.ok(&["undelete", "e/a"]);
    let back = served.get("/api/v1/labels?path=e/a");
    assert_eq!((&back["tags"], &back["file_id"]), (&known["tags"], &known["file_id"]));
    let change = json!({ "path": "e/a", "remove_tags": ["draft"], "owner": "" });
    let less = served.post(&key, "/api/v1/labels", &change).json();
    assert_eq!((&less["tags"], &less["owner"]), (&json!(["zwei Wörter"]), &json!(null)));
    assert_eq!(less["purpose"], "plan");
}

#[test]
fn collections_are_made_changed_and_taken_away() {
    if !can_mount() {
        return;
    }
    let served = with_files();
    let key = served.key("r", &["--scope", "restore"]);
    let post = |body: Value| served.post(&key, "/api/v1/collections", &body);
    let made = post(json!({ "name": "plans", "description": "ours", "add": ["d/a", "/c"] }));
    assert_eq!(made.status, 200, "{}", made.json());
    assert_eq!((&made.json()["files"], &made.json()["description"]), (&json!(2), &json!("ours")));
    let again = post(json!({ "name": "plans", "add": ["d/b", "c"], "remove": ["d/a"] })).json();
    assert_eq!((&again["id"], &again["description"]), (&made.json()["id"], &json!("ours")));
    let listed = served.get("/api/v1/search?collection=plans");
    assert_eq!(names(&listed, "path"), ["c", "d/b"]);
    let page = served.get("/api/v1/search?collection=plans&limit=1");
    assert_eq!(names(&page, "path"), ["c"]);
    let next = page["next"].as_str().unwrap();
    let rest = served.get(&format!("/api/v1/search?collection=plans&after={next}"));
    assert_eq!(names(&rest, "path"), ["d/b"]);
    let known = served.get("/api/v1/labels?path=c");
    assert_eq!(known["collections"], json!([{ "id": again["id"], "name": "plans" }]));
    fs::remove_file(served.mounted.at("c")).unwrap();
    assert_eq!(collection(&served, "plans")["files"], 1);
    assert_eq!(names(&served.get("/api/v1/collections?path=d"), "name"), ["plans"]);
    post(json!({ "name": "empty" }));
    assert_eq!(names(&served.get("/api/v1/collections?limit=1"), "name"), ["empty"]);
    assert_eq!(names(&served.get("/api/v1/collections?path=d"), "name"), ["plans"]);
    let header = format!("Authorization: Bearer {key}");
    let forget = |name: &str| {
        let place = format!("/api/v1/collections?name={name}");
        served.ask(&place, &["-X", "DELETE", "-H", &header]).status
    };
    assert_eq!((forget("plans"), forget("plans")), (200, 404));
    assert!(names(&served.get("/api/v1/search?collection=plans"), "path").is_empty());
    assert_eq!(served.get("/api/v1/labels?path=d/b")["collections"], json!([]));
    for (body, status) in [
        (json!({ "name": "" }), 400),
        (json!({ "name": "x", "add": ["none"] }), 404),
        (json!({ "name": "x", "add": ["d"] }), 400),
        (json!({ "name": "x", "add": ["../etc"] }), 400),
        (json!({ "name": "x", "colour": 1 }), 400),
    ] {
        assert_eq!(post(body.clone()).status, status, "{body}");
    }
    assert_eq!(collection(&served, "x"), json!(null), "all or nothing");
    for body in [
        json!({ "path": "d/b", "add_tags": ["a,b"] }),
        json!({ "path": "d/b", "tags": vec!["x"; 65] }),
        json!({ "path": "d", "owner": "ann" }),
    ] {
        assert_eq!(served.post(&key, "/api/v1/labels", &body).status, 400, "{body}");
    }
}

#[test]
fn labels_and_collections_show_nobody_what_he_may_not_see() {
    if !can_mount() {
        return;
    }
    let served = with_files();
    let m = &served.mounted;
    fs::write(m.at("mine"), "of the user").unwrap();
    std::os::unix::fs::chown(m.at("mine"), Some(USER), Some(USER)).unwrap();
    fs::set_permissions(m.at("d"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(m.at("c"), PermissionsExt::from_mode(0o600)).unwrap();
    m.sync();
    let root = served.key("root", &["--scope", "restore"]);
    for path in ["d/a", "c"] {
        served.post(&root, "/api/v1/labels", &json!({ "path": path, "add_tags": ["secret"] }));
    }
    let both = json!({ "name": "both", "add": ["d/a", "mine"] });
    assert_eq!(served.post(&root, "/api/v1/collections", &both).status, 200);
    let hidden = json!({ "name": "hidden", "add": ["d/a", "c"] });
    assert_eq!(served.post(&root, "/api/v1/collections", &hidden).status, 200);
    let see = |place: &str| served.ask_by(as_user(USER, "curl"), place, &[]);
    let listed = see("/api/v1/collections").json();
    assert_eq!(names(&listed, "name"), ["both"], "{listed}");
    assert_eq!(listed["items"][0]["files"], 1);
    assert_eq!(names(&see("/api/v1/search?collection=both").json(), "path"), ["mine"]);
    assert!(names(&see("/api/v1/search?collection=hidden").json(), "path").is_empty());
    assert!(names(&see("/api/v1/search?tags=secret&deleted=true").json(), "path").is_empty());
    assert!(names(&see("/api/v1/tags").json(), "tag").is_empty());
    assert_eq!(see("/api/v1/labels?path=d/a").status, 403);
    let id = served.get("/api/v1/labels?path=d/a")["file_id"].as_str().unwrap().to_string();
    assert_eq!(see(&format!("/api/v1/labels?file_id={id}")).status, 404);
    // The owner of a file labels it; who made a collection changes it.
    let own = served.key("own", &["--scope", "restore", "--user", &USER.to_string()]);
    let label = |key: &str, path: &str| {
        served.post(key, "/api/v1/labels", &json!({ "path": path, "owner": "me" })).status
    };
    assert_eq!((label(&own, "mine"), label(&own, "c")), (200, 403));
    fs::write(m.at("open"), "of root").unwrap();
    assert_eq!(label(&own, "open"), 403);
    let collect = |body: Value| served.post(&own, "/api/v1/collections", &body).status;
    assert_eq!(collect(json!({ "name": "both", "description": "theirs" })), 403);
    assert_eq!(collect(json!({ "name": "ours", "add": ["c"] })), 403);
    assert_eq!(collect(json!({ "name": "ours" })), 200);
    assert_eq!(names(&see("/api/v1/collections").json(), "name"), ["both", "ours"]);
    let read = served.key("read", &["--scope", "read"]);
    assert_eq!(label(&read, "mine"), 403);
    let below = served.key("below", &["--scope", "restore", "--below", "/d"]);
    assert_eq!((label(&below, "d/a"), label(&below, "mine")), (200, 403));
    assert_eq!(served.post(&below, "/api/v1/collections", &json!({ "name": "n" })).status, 403);
    let header = format!("Authorization: Bearer {below}");
    let mine = served.get("/api/v1/labels?path=mine")["file_id"].as_str().unwrap().to_string();
    let elsewhere = format!("/api/v1/labels?file_id={mine}");
    assert_eq!(served.ask(&elsewhere, &["-H", &header]).status, 403);
    assert_eq!(served.ask("/api/v1/collections", &["-H", &header]).status, 403);
    // Somebody else who makes a file in the place of one that is gone gets nothing of what was said of it.
    fs::remove_file(m.at("c")).unwrap();
    fs::set_permissions(&m.mountpoint, PermissionsExt::from_mode(0o777)).unwrap();
    let made = as_user(USER, "cp").arg(m.at("mine")).arg(m.at("c")).status().unwrap();
    assert!(made.success());
    let after = see("/api/v1/labels?path=c").json();
    assert_eq!((&after["tags"], &after["collections"]), (&json!([]), &json!([])), "{after}");
}

#[test]
fn the_command_line_labels_and_collects_with_a_daemon_and_reads_without() {
    if !can_mount() {
        return;
    }
    let mut served = with_files();
    let m = &mut served.mounted;
    let said = m.ok(&["label", "d/a", "--tag", "draft", "--tag", "old", "--owner", "ann"]);
    assert!(said.contains("tags: draft, old") && said.contains("owner: ann"), "{said}");
    m.ok(&["label", "d/a", "--untag", "old"]);
    let made = m.ok(&["collection", "set", "plans", "--description", "ours", "--add", "d/a"]);
    assert_eq!(made.trim(), "plans  1 files  ours");
    assert_eq!(m.ok(&["collection", "list"]), made);
    assert!(m.ok(&["search", "", "--collection", "plans", "--tag", "draft"]).contains("d/a"));
    m.umount();
    let ask = |args: &[&str]| -> String {
        let output = m.command().args(args).current_dir(&m.backing).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&["label", "d/a"]).contains("collections: plans"));
    assert_eq!(ask(&["collection", "list"]), made);
    let refused = m.command().args(["label", "d/a", "--tag", "x"]).current_dir(&m.backing).output();
    assert_eq!(refused.unwrap().status.code(), Some(1));
}

#[test]
fn labels_and_collections_are_in_the_backup_of_the_catalog() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("backup=1s");
    fs::write(mounted.at("f"), "one").unwrap();
    mounted.ok(&["label", "f", "--tag", "draft"]);
    mounted.ok(&["collection", "set", "plans", "--add", "f"]);
    let backups = mounted.backing.join(".horace/backups");
    let count = || fs::read_dir(&backups).map_or(0, Iterator::count);
    let known = count();
    mounted.wait_for("two more backups", || count() >= known + 2);
    mounted.set_options("backup=off");
    mounted.remount();
    mounted.umount();
    fs::write(mounted.backing.join(".horace/catalog.db"), "damaged").unwrap();
    let mut rebuild: Command = mounted.command();
    assert!(
        rebuild.args(["reconcile", "--rebuild"]).arg(&mounted.backing).status().unwrap().success()
    );
    mounted.start();
    mounted.wait_reconciled();
    let said = mounted.ok(&["label", "f"]);
    assert!(said.contains("tags: draft") && said.contains("collections: plans"), "{said}");
}
