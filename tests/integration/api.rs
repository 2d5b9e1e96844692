//! The HTTP API, asked by curl as anybody would.

mod access;
mod attacks;
mod files;
mod gateway;
mod labels;
mod live;
mod mcp;
mod page;
mod reports;
mod slow;
mod snapshots;
mod tls;
mod tools;
mod webhooks;

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::mounted::Mounted;
use crate::tools::told;

/// A mount with its API.
pub(crate) struct Served {
    pub(crate) mounted: Mounted,
    pub(crate) url: String,
    pub(crate) socket: Option<PathBuf>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_string())
        };
        Self { status, headers: lines.map(header).collect(), body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error}: {} {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

impl Served {
    pub(crate) fn new() -> Self {
        Self::with_options("")
    }

    /// On a free port of loopback.
    pub(crate) fn with_options(options: &str) -> Self {
        let mounted = Mounted::with_options(&format!("api=127.0.0.1:0,{options}"));
        let url = mounted.status()["api"].as_str().unwrap().to_string();
        Self { mounted, url, socket: None }
    }

    /// At a path.
    pub(crate) fn at_socket() -> Self {
        let mut mounted = Mounted::unmounted("");
        let socket = mounted.scratch("api.sock");
        mounted.set_options(&format!("api=unix:{}", socket.display()));
        mounted.start();
        Self { mounted, url: "http://localhost".into(), socket: Some(socket) }
    }

    /// A key with options of `horace key create`.
    pub(crate) fn key(&self, name: &str, options: &[&str]) -> String {
        let args = [&["key", "create", name, "."], options].concat();
        self.mounted.ok(&args).trim().to_string()
    }

    /// Asks as root.
    pub(crate) fn ask(&self, place: &str, options: &[&str]) -> Answer {
        self.ask_by(Command::new("curl"), place, options)
    }

    /// Asks with a command that runs curl.
    pub(crate) fn ask_by(&self, mut curl: Command, place: &str, options: &[&str]) -> Answer {
        curl.args(["-sS", "-i", "--path-as-is", "--max-time", "60"]).args(options);
        if let Some(socket) = &self.socket {
            curl.arg("--unix-socket").arg(socket);
        }
        let output = curl.arg(format!("{}{place}", self.url)).output().unwrap();
        assert!(output.status.success(), "{}\n{}", told(&output), self.mounted.log());
        Answer::parse(&output.stdout)
    }

    /// Gets something that is there.
    pub(crate) fn get(&self, place: &str) -> Value {
        let answer = self.ask(place, &[]);
        assert_eq!(answer.status, 200, "{place}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Posts JSON with a key.
    pub(crate) fn post(&self, key: &str, place: &str, body: &Value) -> Answer {
        self.post_with(key, place, body, &[])
    }

    pub(crate) fn post_with(&self, key: &str, place: &str, body: &Value, more: &[&str]) -> Answer {
        let (key, body) = (format!("Authorization: Bearer {key}"), body.to_string());
        let options = ["-H", &key, "-H", "Content-Type: application/json", "-d", &body];
        self.ask(place, &[&options, more].concat())
    }
}

/// The names of records.
pub(crate) fn names<'v>(page: &'v Value, field: &str) -> Vec<&'v str> {
    page["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

/// A path or text as part of an address.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}
