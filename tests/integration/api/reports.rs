//! What takes the space, what is there twice, and who writes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::Served;
use crate::callers::{USER, as_user};
use crate::mounted::can_mount;

fn now() -> String {
    let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
    pause();
    let now = horace::timespec::rfc3339(horace::clock::now_ns());
    pause();
    super::quoted(now.as_bytes())
}

/// Asks as an ordinary user.
fn ask_as_user(served: &Served, place: &str) -> Value {
    let answer = served.ask_by(as_user(USER, "curl"), place, &[]);
    assert_eq!(answer.status, 200, "{place}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn entry<'v>(usage: &'v Value, name: &str) -> &'v Value {
    let mut entries = usage["entries"].as_array().unwrap().iter();
    entries.find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name}: {usage:#}"))
}

#[test]
fn how_much_is_in_a_directory_and_how_much_it_grew() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir_all(m.at("a/deep")).unwrap();
    fs::create_dir(m.at("b")).unwrap();
    fs::write(m.at("a/one"), [1; 1000]).unwrap();
    fs::write(m.at("a/deep/two"), [2; 500]).unwrap();
    fs::write(m.at("gone"), [3; 70]).unwrap();
    let then = now();
    fs::remove_file(m.at("gone")).unwrap();
    fs::write(m.at("a/one"), [4; 3000]).unwrap();
    fs::write(m.at("b/linked"), [5; 200]).unwrap();
    fs::hard_link(m.at("b/linked"), m.at("b/again")).unwrap();
    m.sync();
    let usage = served.get("/api/v1/usage");
    let figures = |at: &Value| -> Vec<u64> {
        let names = ["files", "directories", "bytes", "kept_versions", "kept_bytes"];
        names.map(|name| at[name].as_u64().unwrap()).to_vec()
    };
    assert_eq!(figures(&usage), [3, 4, 3700, 1, 1000], "{usage:#}");
    assert_eq!(figures(entry(&usage, "a")), [2, 2, 3500, 1, 1000]);
    assert_eq!(figures(entry(&usage, "b")), [1, 1, 200, 0, 0], "{usage:#}");
    assert_eq!(usage["entries"][0]["name"], "a", "the largest comes first");
    assert!(usage["then"].is_null());
    let grown = served.get(&format!("/api/v1/usage?since={then}"));
    assert_eq!((&grown["bytes"], &grown["then"]["bytes"]), (&json!(3700), &json!(1570)));
    assert_eq!(entry(&grown, "gone")["then"]["bytes"], 70);
    assert_eq!(entry(&grown, "gone")["bytes"], 0);
    assert_eq!(entry(&grown, "b")["then"]["bytes"], 0);
    let past = served.get(&format!("/api/v1/usage?path=a&at={then}"));
    assert_eq!(figures(&past)[..3], [2, 2, 1500]);
    let new = served.get(&format!("/api/v1/usage?path=b&since={then}"));
    assert_eq!((&new["bytes"], &new["then"]["bytes"]), (&json!(200), &json!(0)));
    let one = served.get("/api/v1/usage?limit=1");
    assert_eq!((one["entries"].as_array().unwrap().len(), &one["left_out"]), (1, &json!(1)));
    assert_eq!(served.get("/api/v1/usage?path=a/one")["bytes"], 3000);
    assert_eq!(served.ask("/api/v1/usage?path=none", &[]).status, 404);
    fs::set_permissions(m.at("a"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(ask_as_user(&served, "/api/v1/usage")["bytes"], 200, "what is theirs to see");
}

#[test]
fn what_is_there_twice() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    for (name, byte, size) in [("a", 1, 1000), ("b", 1, 1000), ("c", 1, 1000), ("d", 2, 9000)] {
        fs::write(m.at(name), vec![byte; size]).unwrap();
    }
    fs::create_dir(m.at("private")).unwrap();
    fs::set_permissions(m.at("private"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(m.at("private/d"), [2; 9000]).unwrap();
    fs::hard_link(m.at("c"), m.at("c again")).unwrap();
    fs::write(m.at("alone"), [3; 50_000]).unwrap();
    fs::hard_link(m.at("alone"), m.at("alone again")).unwrap();
    for empty in ["e", "f"] {
        fs::write(m.at(empty), "").unwrap();
    }
    let found = served.get("/api/v1/duplicates");
    let figures: Vec<[u64; 3]> = found["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| ["size", "files", "reclaimable"].map(|name| item[name].as_u64().unwrap()))
        .collect();
    assert_eq!(figures, [[9000, 2, 9000], [1000, 3, 2000]], "{found:#}");
    let paths = |item: &Value| -> Vec<String> {
        let paths = item["paths"].as_array().unwrap().iter();
        paths.map(|path| path["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths(&found["items"][0]), ["d", "private/d"]);
    assert_eq!(paths(&found["items"][1]), ["a", "b", "c", "c again"]);
    let large = served.get("/api/v1/duplicates?min_size=1001");
    assert_eq!(large["items"].as_array().unwrap().len(), 1);
    assert_eq!(served.get("/api/v1/duplicates?limit=1")["items"][0]["size"], 9000);
    assert_eq!(served.get("/api/v1/duplicates?path=private")["items"], json!([]));
    let theirs = ask_as_user(&served, "/api/v1/duplicates");
    assert_eq!(theirs["items"][0]["size"], 1000, "others' files are not told of: {theirs:#}");
}

#[test]
fn who_wrote_the_most() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir(m.at("private")).unwrap();
    fs::set_permissions(m.at("private"), PermissionsExt::from_mode(0o700)).unwrap();
    m.shell("head -c 5000 /dev/zero | tee private/much > /dev/null");
    let then = now();
    m.shell("for n in 1 2 3; do head -c 100 /dev/zero | dd of=few-$n status=none; done; rm few-3");
    m.sync();
    let all = served.get("/api/v1/writers");
    let of = |answer: &Value, comm: &str| -> Option<Value> {
        let mut items = answer["items"].as_array().unwrap().iter();
        items.find(|item| item["comm"] == comm).cloned()
    };
    assert_eq!(all["items"][0]["comm"], "tee", "{all:#}");
    let dd = of(&all, "dd").unwrap();
    assert_eq!((&dd["files"], &dd["versions"], &dd["bytes"]), (&json!(3), &json!(3), &json!(300)));
    assert_eq!((&dd["uid"], &dd["user"]), (&json!(0), &json!("root")));
    assert_eq!(of(&all, "rm").unwrap()["changes"], 1);
    let new = served.get(&format!("/api/v1/writers?since={then}"));
    assert_eq!(new["items"][0]["comm"], "dd", "{new:#}");
    assert_eq!(of(&new, "tee"), None);
    let private = served.get("/api/v1/writers?path=private");
    assert_eq!((of(&private, "dd"), &private["items"][0]["bytes"]), (None, &json!(5000)));
    let theirs = ask_as_user(&served, "/api/v1/writers");
    assert_eq!((of(&theirs, "tee"), theirs["items"][0]["comm"].as_str()), (None, Some("dd")));
}
