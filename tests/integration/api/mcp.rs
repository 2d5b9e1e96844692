//! MCP, asked by hand and by the official SDK.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Served;
use crate::callers::{USER, as_user, program};
use crate::mounted::{Mounted, can_mount};
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
    fill(&served.mounted);
    served
}

fn fill(m: &Mounted) {
    fs::create_dir(m.at("d")).unwrap();
    fs::write(m.at("d/notes.txt"), "one\ntwo\n").unwrap();
    fs::write(m.at("d/notes.txt"), "one\n2\n").unwrap();
    m.sync();
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
        .args(["tests/mcp/client.py", "http", &served.url, &key])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", told(&output), served.mounted.log());
    assert_eq!(fs::read_to_string(served.mounted.at("d/notes.txt")).unwrap(), "one\ntwo\n");
    assert_eq!(served.mounted.log_of("d/notes.txt").last().unwrap()["origin"], "restore");
}

/// The same over stdin and stdout of a program.
#[test]
fn the_official_client_starts_a_program_that_finds_reads_and_restores() {
    if !can_mount() {
        return;
    }
    let Some(python) = python() else { return };
    // Whether the API is served at an address does not matter.
    let mounted = Mounted::with_options("");
    let notes = Served { mounted, url: "http://localhost".into(), socket: None };
    fill(&notes.mounted);
    let m = &notes.mounted;
    let key = notes.key("assistant", &["--scope", "restore"]);
    let mut client = as_user(USER, &python);
    let program = program(m);
    client.args(["tests/mcp/client.py", "stdio", program.to_str().unwrap()]).arg(&m.mountpoint);
    let output = client
        .envs([("HORACE_RUNTIME_DIR", m.runtime.to_str().unwrap()), ("HORACE_KEY", &key)])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", told(&output), m.log());
    assert_eq!(fs::read_to_string(m.at("d/notes.txt")).unwrap(), "one\ntwo\n");
}

/// Sends messages to `horace mcp` as a user; returns what it answers, by the messages' numbers.
fn relayed(m: &Mounted, uid: u32, key: Option<&str>, calls: &[(&str, Value)]) -> Vec<Value> {
    let mut command = as_user(uid, program(m));
    command.env("HORACE_RUNTIME_DIR", &m.runtime).arg("mcp").arg(&m.mountpoint);
    command.envs(key.map(|key| ("HORACE_KEY", key)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let hello = json!({
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    let begin = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello });
    let begun = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{begin}\n{begun}").unwrap();
    for (id, (method, params)) in calls.iter().enumerate() {
        let id = id + 1;
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        writeln!(stdin, "{call}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    // Nothing else may be there.
    let mut answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{}", told(&output))))
        .collect();
    assert!(answers.iter().all(|answer| answer["jsonrpc"] == "2.0"), "{answers:?}");
    answers.sort_by_key(|answer| answer["id"].as_u64());
    answers
}

#[test]
fn a_program_gets_what_whoever_runs_it_may_have() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("");
    fill(&mounted);
    let m = &mounted;
    fs::write(m.at("shut"), "root").unwrap();
    fs::set_permissions(m.at("shut"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    m.sync();
    let tool = |name: &str, arguments: Value| {
        ("tools/call", json!({ "name": name, "arguments": arguments }))
    };
    let change = json!({ "path": "d/notes.txt", "version": "1", "dry_run": false });
    let calls = [
        ("tools/list", json!({})),
        tool("read", json!({ "path": "shut" })),
        tool("read", json!({ "path": "d/notes.txt" })),
        tool("restore", change),
        ("nonsense/none", json!({})),
    ];
    let answers = relayed(m, USER, None, &calls);
    assert_eq!(answers.len(), 6, "{answers:?}");
    assert_eq!(answers[0]["result"]["serverInfo"]["name"], "horace");
    assert!(answers[1]["result"]["tools"].as_array().unwrap().len() > 10);
    let content = |n: usize| &answers[n]["result"]["structuredContent"];
    assert_eq!(content(2)["code"], "forbidden", "{answers:?}");
    assert_eq!(content(3)["text"], "one\n2\n", "{answers:?}");
    assert_eq!(content(4)["code"], "forbidden", "{answers:?}");
    assert!(answers[5]["error"]["code"].is_number(), "{answers:?}");
    // Root may.
    let answers = relayed(m, 0, None, &calls);
    assert_eq!(answers[2]["result"]["structuredContent"]["text"], "root", "{answers:?}");
    assert_eq!(fs::read_to_string(m.at("d/notes.txt")).unwrap(), "one\ntwo\n");
    // A key that is none is told of.
    let answers = relayed(m, USER, Some("horace_0"), &[]);
    assert!(answers[0]["error"]["message"].is_string(), "{answers:?}");
    let away = as_user(USER, program(m))
        .env("HORACE_RUNTIME_DIR", m.scratch("nowhere"))
        .arg("mcp")
        .output()
        .unwrap();
    assert_eq!(away.status.code(), Some(1));
    assert!(away.stdout.is_empty() && told(&away).contains("hint:"), "{}", told(&away));
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
