//! The log, as text and as JSON.

use std::fs;

use serde_json::{Value, json};

use crate::api::Served;
use crate::mounted::{Mounted, can_mount};

/// The lines of a log, each of which is an object.
fn objects(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    log.lines().map(parse).collect()
}

#[test]
fn every_line_is_an_object_if_that_is_wanted() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    mounted.set_options("api=127.0.0.1:0");
    let mut command = mounted.command();
    command.env("HORACE_LOG_FORMAT", "json");
    mounted.start_by(command);
    let url = mounted.status()["api"].as_str().unwrap().to_string();
    let mut served = Served { mounted, url, socket: None };
    let m = &served.mounted;
    let name = "a \"b\"\nc";
    for text in ["one", "two"] {
        fs::write(m.at(name), text).unwrap();
    }
    let key = served.key("helper", &["--scope", "restore"]);
    let order = json!({ "path": name, "version": "1", "dry_run": false });
    assert_eq!(served.post(&key, "/api/v1/restore", &order).status, 200);
    served.mounted.umount();
    let lines = objects(&served.mounted.log());
    let is_line = |line: &&Value| line["timestamp"].is_string() && line["message"].is_string();
    let audit: Vec<_> = lines.iter().filter(|line| line["target"] == "horace::audit").collect();
    assert_eq!(audit.len(), 1, "{lines:?}");
    let audit = audit[0];
    assert_eq!((&audit["by"], &audit["uid"]), (&json!("key helper"), &json!(0)), "{audit}");
    assert_eq!((&audit["what"], &audit["path"]), (&json!("restore"), &json!(name)), "{audit}");
    assert_eq!(audit["level"], "INFO");
    assert!(lines.iter().filter(is_line).any(|line| line["message"] == "serving"), "{lines:?}");
}

#[test]
fn why_a_mount_cannot_be_is_an_object_too() {
    if !can_mount() {
        return;
    }
    let dir = Mounted::unmounted("");
    let output = dir
        .command()
        .args(["--log-format", "json", "mount", "-o", "api=off", "/nonexistent"])
        .arg(&dir.mountpoint)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let lines = objects(std::str::from_utf8(&output.stderr).unwrap());
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["message"].as_str().unwrap().contains("/nonexistent"), "{last}");
}
