//! The predecessor's tools over WebSocket, called by a client of another make.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use super::Served;
use super::mcp::python;
use crate::callers::USER;
use crate::mounted::{Mounted, can_mount};
use crate::tools::told;

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn every_tool_works_in_both_forms_and_nobody_gets_more_by_them() {
    if !can_mount() {
        return;
    }
    let Some(python) = python() else { return };
    let port = free_port();
    let served = Served::with_options(&format!("api_also=127.0.0.1:{port}"));
    let key = served.key("restore", &["--scope", "restore"]);
    let user = served.key("user", &["--scope", "restore", "--user", &USER.to_string()]);
    let read = served.key("read", &["--scope", "read"]);
    let output = Command::new(python)
        .args(["tests/tools/client.py", &format!("ws://127.0.0.1:{port}"), &key, &user, &read])
        .arg(&served.mounted.mountpoint)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}\n{}", told(&output), served.mounted.log());
    let log = served.mounted.log();
    assert!(log.contains("horace::audit") && log.contains("key restore"), "{log}");
    assert_eq!(served.mounted.log_of("tool/moved.md").last().unwrap()["origin"], "restore");
    // The page is at the same place.
    let page = served.ask("/", &[]);
    assert!(String::from_utf8_lossy(&page.body).contains("<html"), "{page:?}");
    assert_eq!(served.ask("/ws", &[]).status, 400);
}

#[test]
fn who_finds_the_usual_address_taken_goes_on_without() {
    if !can_mount() {
        return;
    }
    // By us, or by somebody else.
    let _taken = TcpListener::bind("127.0.0.1:8000");
    let mut mounted = Mounted::unmounted("");
    let port = free_port();
    mounted.set_all_options(&format!("api_also=127.0.0.1:{port}"));
    mounted.start();
    fs::write(mounted.at("f"), "served all the same").unwrap();
    assert!(mounted.status()["api"].is_null(), "{}", mounted.status());
    assert!(mounted.log().contains("no HTTP API: `api=ADDRESS:PORT` says where"));
    // What else was asked for is there.
    let url = format!("http://127.0.0.1:{port}/health");
    let health = Command::new("curl").args(["-sS", "--max-time", "60", &url]).output().unwrap();
    assert!(told(&health).contains("\"status\":\"ok\""), "{}", told(&health));
}

#[test]
fn a_key_that_is_revoked_ends_with_the_next_message() {
    if !can_mount() {
        return;
    }
    let Some(python) = python() else { return };
    let served = Served::new();
    fs::write(served.mounted.at("f"), "one").unwrap();
    let key = served.key("short", &["--scope", "read"]);
    let script = "
import json, sys
from websockets.sync.client import connect
url, key = sys.argv[1:]
with connect(url, additional_headers={'Authorization': f'Bearer {key}'}) as socket:
    for _ in range(2):
        socket.send(json.dumps({'tool': 'get_file_info', 'params': {'file_id': 'f'}}))
        print(json.loads(socket.recv())['status'], flush=True)
        sys.stdin.readline()
";
    let url = served.url.replace("http://", "ws://") + "/ws";
    let mut client = Command::new(python)
        .args(["-c", script, &url, &key])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = std::io::BufReader::new(client.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut answers, &mut line).unwrap();
        line
    };
    assert_eq!(next(), "success\n");
    served.mounted.ok(&["key", "revoke", "short", "."]);
    let mut go_on = client.stdin.take().unwrap();
    std::io::Write::write_all(&mut go_on, b"\n").unwrap();
    assert_eq!(next(), "error\n");
    drop(go_on);
    assert!(client.wait().unwrap().success());
}
