//! MCP, asked by hand and by the official SDK.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::Served;
use crate::callers::{USER, as_user};
use crate::mounted::can_mount;
use crate::tools::told;

/// A Python with the packages that tests need, which `scripts/test` sets up.
pub(crate) fn python() -> Option<PathBuf> {
    let python = std::env::var_os("HORACE_TEST_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("SKIPPED: HORACE_TEST_PYTHON names no Python with mcp and schemathesis");
    }
    python
}

fn with_notes() -> Served {
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir(m.at("d")).unwrap();
    fs::write(m.at("d/notes.txt"), "one\ntwo\n").unwrap();
    fs::write(m.at("d/notes.txt"), "one\n2\n").unwrap();
    m.sync();
    served
}

#[test]
fn the_official_client_finds_reads_and_restores() {
    if !can_mount() {
        return;
    }
    let Some(python) = python() else { return };
    let served = with_notes();
    let key = served.key("assistant", &["--scope", "restore"]);
    let output = Command::new(python)
        .args(["tests/mcp/client.py", &served.url, &key])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", told(&output), served.mounted.log());
    assert_eq!(fs::read_to_string(served.mounted.at("d/notes.txt")).unwrap(), "one\ntwo\n");
    assert_eq!(served.mounted.log_of("d/notes.txt").last().unwrap()["origin"], "restore");
}

/// Sends one message.
fn call(
    served: &Served,
    curl: Command,
    key: Option<&str>,
    method: &str,
    params: &Value,
) -> (u16, Value) {
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let (message, key) =
        (message.to_string(), key.map(|key| format!("Authorization: Bearer {key}")));
    let mut options = vec![
        "-H",
        "Content-Type: application/json",
        "-H",
        "Accept: application/json, text/event-stream",
        "-d",
        &message,
    ];
    options.extend(key.iter().flat_map(|key| ["-H", key.as_str()]));
    let answer = served.ask_by(curl, "/mcp", &options);
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

#[test]
fn nobody_gets_more_by_a_tool_than_by_asking() {
    if !can_mount() {
        return;
    }
    let served = with_notes();
    let m = &served.mounted;
    fs::write(m.at("shut"), "root").unwrap();
    fs::set_permissions(m.at("shut"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let tool = |curl: Command, key: Option<&str>, name: &str, arguments: Value| {
        let params = json!({ "name": name, "arguments": arguments });
        call(&served, curl, key, "tools/call", &params)
    };
    let user = || as_user(USER, "curl");
    let root = || Command::new("curl");
    let (status, read) = tool(user(), None, "read", json!({ "path": "shut" }));
    assert_eq!(status, 200, "{read}");
    assert_eq!(read["result"]["isError"], true, "{read}");
    assert_eq!(read["result"]["structuredContent"]["code"], "forbidden", "{read}");
    let (_, read) = tool(root(), None, "read", json!({ "path": "shut" }));
    assert_eq!(read["result"]["structuredContent"]["text"], "root", "{read}");
    let change = json!({ "path": "d/notes.txt", "version": "1", "dry_run": false });
    let (_, refused) = tool(root(), None, "restore", change.clone());
    assert_eq!(refused["result"]["structuredContent"]["code"], "forbidden", "{refused}");
    let key = served.key("r", &["--scope", "read"]);
    let (_, refused) = tool(root(), Some(&key), "restore", change);
    assert_eq!(refused["result"]["structuredContent"]["code"], "forbidden", "{refused}");
    let (_, wrong) = tool(root(), None, "read", json!({ "path": "shut", "limit": 0 }));
    assert_eq!(wrong["result"]["isError"], true, "{wrong}");
    let (_, out) = tool(root(), None, "read", json!({ "path": "../../etc/passwd" }));
    assert_eq!(out["result"]["isError"], true, "{out}");
    let (_, none) = tool(root(), None, "delete_everything", json!({}));
    assert!(none["error"]["code"].is_number(), "{none}");
    assert_eq!(call(&served, root(), Some("horace_0"), "tools/list", &json!({})).0, 401);
    let (_, tools) = call(&served, root(), None, "tools/list", &json!({}));
    assert!(tools["result"]["tools"].as_array().unwrap().len() > 10, "{tools}");
}

#[test]
fn whoever_tries_everything_that_is_described_finds_nothing() {
    if !can_mount() {
        return;
    }
    let Some(python) = python() else { return };
    let served = with_notes();
    served.mounted.wait_reconciled();
    let key = format!("Authorization: Bearer {}", served.key("tester", &["--scope", "restore"]));
    let output = Command::new(python.with_file_name("schemathesis"))
        .args(["run", &format!("{}/openapi.json", served.url), "--header", &key])
        .args(["--exclude-path", "/api/v1/events", "--max-examples", "30", "--seed", "1"])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance", "--request-timeout", "30"])
        .current_dir(served.mounted.scratch(""))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", told(&output), served.mounted.log());
}
