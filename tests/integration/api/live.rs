//! Changes as they happen.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Served;
use crate::mounted::can_mount;

/// A client that follows.
struct Follower {
    curl: Child,
    events: mpsc::Receiver<(String, Value)>,
}

impl Follower {
    fn new(served: &Served, query: &str, options: &[&str]) -> Self {
        let mut curl = Command::new("curl");
        curl.args(["-sSN"]).args(options).arg(format!("{}/api/v1/events{query}", served.url));
        let mut curl = curl.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(curl.stdout.take().unwrap());
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || read(lines, &sender));
        Self { curl, events }
    }

    fn next(&self) -> (String, Value) {
        self.events.recv_timeout(Duration::from_secs(30)).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.curl.kill().unwrap();
        self.curl.wait().unwrap();
    }
}

fn read(lines: BufReader<ChildStdout>, sender: &mpsc::Sender<(String, Value)>) {
    let mut id = String::new();
    for line in lines.lines().map_while(Result::ok) {
        match line.split_once(": ") {
            Some(("id", number)) => id = number.into(),
            // Whoever wanted it may have enough.
            Some(("data", text)) => {
                let _ = sender.send((id.clone(), serde_json::from_str(text).unwrap()));
            }
            _ => {}
        }
    }
}

#[test]
fn changes_come_as_they_happen_and_none_is_missed() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::create_dir(m.at("d")).unwrap();
    fs::write(m.at("before"), "x").unwrap();
    m.sync();
    let start = served.get("/api/v1/status")["seq"].as_u64().unwrap();
    let follower = Follower::new(&served, &format!("?since={start}&path=d"), &[]);
    fs::write(m.at("elsewhere"), "x").unwrap();
    let mut seen = Vec::new();
    for n in 0..300 {
        fs::write(m.at(format!("d/{n}")), "x").unwrap();
    }
    while seen.last() != Some(&"d/299".to_string()) {
        let (id, change) = follower.next();
        assert_eq!(id, change["seq"].to_string());
        if change["op"] == "create" {
            seen.push(change["path"].as_str().unwrap().to_string());
        }
    }
    let all: Vec<String> = (0..300).map(|n| format!("d/{n}")).collect();
    assert_eq!(seen, all);
    // Whoever lost the connection goes on.
    let (last, _) = follower.next();
    drop(follower);
    fs::remove_file(m.at("d/7")).unwrap();
    let header = format!("Last-Event-ID: {last}");
    let follower = Follower::new(&served, "?path=d", &["-H", &header]);
    let (_, change) = follower.next();
    assert_eq!((&change["op"], &change["path"]), (&json!("unlink"), &json!("d/7")));
    let page = served.get(&format!("/api/v1/changes?since={last}&path=d"));
    assert_eq!(page["items"][0]["seq"], change["seq"]);
    let bad = served.ask("/api/v1/events", &["-H", "Last-Event-ID: soon"]);
    assert_eq!(bad.status, 400);
}

#[test]
fn the_end_of_the_daemon_is_not_held_up() {
    if !can_mount() {
        return;
    }
    let mut served = Served::new();
    let followers: Vec<_> = (0..20).map(|_| Follower::new(&served, "", &[])).collect();
    let began = std::time::Instant::now();
    served.mounted.umount();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(followers);
}

#[test]
fn figures_move_with_what_happens() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    m.wait_reconciled();
    let figure = |name: &str| -> f64 {
        let answer = served.ask("/metrics", &[]);
        assert_eq!(answer.status, 200);
        let text = String::from_utf8(answer.body).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    };
    let grow = [
        "horace_operation_seconds_count{operation=\"create\"}",
        "horace_operation_seconds_count{operation=\"write\"}",
        "horace_hashed_bytes_total{how=\"stream\"}",
        "horace_hashed_bytes_total{how=\"read\"}",
        "horace_catalog_events_total",
        "horace_catalog_commit_seconds_count",
        "horace_http_requests_total{status=\"200\"}",
        "horace_http_request_seconds_count",
        "horace_versions",
        "horace_seq",
        "horace_store_objects",
        "horace_mount_nodes",
    ];
    // Each is there once it was counted.
    let before = grow.map(|name| if name.contains("200") { 0.0 } else { figure(name) });
    fs::write(m.at("f"), "one").unwrap();
    fs::write(m.at("f"), "other").unwrap();
    let appended = fs::OpenOptions::new().append(true).open(m.at("f")).unwrap();
    std::io::Write::write_all(&mut &appended, b"more").unwrap();
    drop(appended);
    m.sync();
    m.wait_for("object", || figure("horace_store_objects") > 0.0);
    for (name, before) in grow.iter().zip(before) {
        assert!(figure(name) > before, "{name}");
    }
    for name in
        ["horace_catalog_degraded", "horace_catalog_queue_waits_total", "horace_reconcile_running"]
    {
        assert!(figure(name).abs() < f64::EPSILON, "{name}");
    }
    assert!(figure("horace_reconcile_end_timestamp_seconds") > 1.7e9);
    assert!(
        figure(&format!("horace_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))) > 0.0
    );
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_figures_that_there_are() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    // Answers are counted by their status, once there was one.
    served.ask("/healthz", &[]);
    let text = String::from_utf8(served.ask("/metrics", &[]).body).unwrap();
    let known: std::collections::HashSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let contrib = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib");
    let dashboard = fs::read_to_string(contrib.join("grafana/horace.json")).unwrap();
    let rules = fs::read_to_string(contrib.join("prometheus/horace.rules.yml")).unwrap();
    let panels: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(panels["panels"].as_array().unwrap().len() > 10);
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut asked = 0;
    for text in [&dashboard, &rules] {
        for word in text.split(|c| !is_name(c)).filter(|word| word.starts_with("horace_")) {
            let of = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
            assert!(known.contains(word) || of.is_some_and(|of| known.contains(of)), "{word}");
            asked += 1;
        }
    }
    assert!(asked > 25, "{asked}");
    let rules: Value = serde_yaml_ng::from_str(&rules).unwrap();
    for rule in rules["groups"][0]["rules"].as_array().unwrap() {
        assert!(rule["alert"].is_string() && rule["expr"].is_string(), "{rule}");
        assert!(rule["annotations"]["description"].is_string(), "{rule}");
    }
}
