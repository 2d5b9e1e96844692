//! Webhooks, with receivers of all kinds.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::Served;
use super::mcp::python;
use crate::mounted::{Mounted, can_mount};
use crate::tools::told;

/// What a receiver got.
#[derive(Debug, Clone)]
struct Got {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    taken: bool,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        &self.headers.iter().find(|(known, _)| known == name).unwrap().1
    }

    fn items(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["type"], "changes");
        body["data"]["items"].as_array().unwrap().clone()
    }
}

/// A receiver that answers what it is told to, and 200 after that.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
    answers: Arc<Mutex<VecDeque<String>>>,
}

impl Receiver {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (got, answers) = (Arc::default(), Arc::default());
        let this = Self { url, got: Arc::clone(&got), answers: Arc::clone(&answers) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever asks may have gone.
                let _ = answer(&stream.unwrap(), &got, &answers);
            }
        });
        this
    }

    fn will(&self, status: &str, times: usize) {
        self.answers.lock().unwrap().extend(std::iter::repeat_n(status.to_string(), times));
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// The changes that it took, in the order in which they came.
    fn taken(&self) -> Vec<Value> {
        self.got().iter().filter(|got| got.taken).flat_map(Got::items).collect()
    }

    fn has(&self, path: &str) -> bool {
        self.taken().iter().any(|change| change["path"] == path)
    }
}

fn answer(
    mut stream: &TcpStream,
    got: &Mutex<Vec<Got>>,
    answers: &Mutex<VecDeque<String>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().unwrap();
        }
        headers.push((name.to_lowercase(), value.to_string()));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let status = answers.lock().unwrap().pop_front().unwrap_or_else(|| "200 OK".into());
    got.lock().unwrap().push(Got { headers, body, taken: status.starts_with('2') });
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

fn add(mounted: &Mounted, name: &str, url: &str, options: &[&str]) -> String {
    mounted.ok(&[&["webhook", "add", name, url, "."], options].concat()).trim().to_string()
}

fn listed(mounted: &Mounted, name: &str) -> Value {
    let all = mounted.records(&["webhook", "list"]);
    all.into_iter().find(|webhook| webhook["name"] == name).unwrap_or_default()
}

fn is_in_order(changes: &[Value]) -> bool {
    changes.is_sorted_by_key(|change| change["seq"].as_u64().unwrap())
}

#[test]
fn changes_are_posted_signed_and_in_order() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    fs::write(m.at("before"), "x").unwrap();
    fs::create_dir(m.at("d")).unwrap();
    let (all, some, late) = (Receiver::new(), Receiver::new(), Receiver::new());
    let secret = add(m, "all", &all.url, &[]);
    add(m, "some", &some.url, &["--below", "/d/", "--op", "unlink"]);
    for n in 0..300 {
        fs::write(m.at(format!("d/{n}")), "x").unwrap();
    }
    fs::remove_file(m.at("d/7")).unwrap();
    fs::remove_file(m.at("before")).unwrap();
    m.wait_for("the last change", || all.has("before"));
    let (got, taken) = (all.got(), all.taken());
    assert!(is_in_order(&taken) && got.iter().all(|got| got.taken));
    let first = taken[0]["seq"].as_u64().unwrap() - 1;
    let page = served.get(&format!("/api/v1/changes?since={first}&limit=1000"));
    for (posted, told) in taken.iter().zip(page["items"].as_array().unwrap()) {
        let mut posted = posted.clone();
        // A digest may have been on its way.
        posted["sha256"] = told["sha256"].clone();
        assert_eq!(&posted, told);
    }
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap().as_bytes()).unwrap();
    for got in &got {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        let (id, time) = (got.header("webhook-id"), got.header("webhook-timestamp"));
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(&got.body);
        let expected = format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()));
        assert_eq!(got.header("webhook-signature"), expected);
        assert_eq!(got.header("content-type"), "application/json");
    }
    m.wait_for("the one that is wanted", || some.has("d/7"));
    assert_eq!(some.taken().len(), 1, "{:#?}", some.taken());
    add(m, "late", &late.url, &["--since", "0"]);
    m.wait_for("what was before", || late.has("before"));
    m.wait_for("no more", || listed(m, "all")["behind"] == 0 && listed(m, "some")["behind"] == 0);
    m.ok(&["webhook", "remove", "all", "."]);
    std::thread::sleep(Duration::from_millis(1500));
    let before = all.got().len();
    fs::write(m.at("after"), "x").unwrap();
    m.wait_for("another", || late.has("after"));
    assert_eq!(all.got().len(), before);
}

#[test]
fn what_is_not_taken_comes_again_also_after_a_kill() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let (receiver, elsewhere) = (Receiver::new(), Receiver::new());
    receiver.will("500 Internal Server Error", 1);
    receiver.will(&format!("302 Found\r\nLocation: {}", elsewhere.url), 1);
    add(&mounted, "hook", &receiver.url, &[]);
    // Nobody listens there.
    let down = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = down.local_addr().unwrap();
    drop(down);
    add(&mounted, "down", &format!("http://{address}/"), &[]);
    fs::write(mounted.at("first"), "x").unwrap();
    mounted.wait_for("the third try", || receiver.has("first"));
    let got = receiver.got();
    assert!(got.len() >= 3, "{got:#?}");
    assert_eq!(
        (got[0].header("webhook-id"), &got[0].body),
        (got[2].header("webhook-id"), &got[2].body)
    );
    assert!(elsewhere.got().is_empty(), "no redirect is followed");
    mounted.wait_for("an error", || listed(&mounted, "down")["state"] == "failing");
    let down = listed(&mounted, "down");
    assert!(down["error"].as_str().unwrap().contains("cannot be reached"), "{down}");
    assert!(down["behind"].as_u64().unwrap() > 0 && down["failures"].as_u64().unwrap() > 0);
    mounted.wait_for("success", || listed(&mounted, "hook")["state"] == "well");
    // What came while it failed and the daemon was killed is not lost.
    receiver.will("503 Service Unavailable", 100_000);
    fs::write(mounted.at("second"), "x").unwrap();
    let known = got.len();
    mounted.wait_for("a failure", || receiver.got().len() > known);
    mounted.sync();
    mounted.kill();
    receiver.answers.lock().unwrap().clear();
    let listener = TcpListener::bind(address).unwrap();
    mounted.start();
    fs::write(mounted.at("third"), "x").unwrap();
    mounted.wait_for("the last one", || receiver.has("third"));
    assert!(receiver.has("second") && is_in_order(&receiver.taken()), "{:#?}", receiver.taken());
    let seqs: Vec<u64> = receiver.taken().iter().map(|c| c["seq"].as_u64().unwrap()).collect();
    let whole: Vec<u64> = (seqs[0]..=*seqs.last().unwrap()).collect();
    let mut unique = seqs.clone();
    unique.dedup();
    assert_eq!(unique, whole, "each is there");
    // And what was down all the time begins where it was.
    let (got, answers) = (Mutex::default(), Mutex::default());
    answer(&listener.accept().unwrap().0, &got, &answers).unwrap();
    let got = got.into_inner().unwrap();
    assert_eq!(got[0].items()[0]["seq"], seqs[0]);
}

#[test]
fn a_receiver_that_is_silent_holds_nothing_up() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    add(&mounted, "silent", &format!("http://{}/", silent.local_addr().unwrap()), &[]);
    let receiver = Receiver::new();
    add(&mounted, "other", &receiver.url, &[]);
    let began = Instant::now();
    for n in 0..500 {
        fs::write(mounted.at(format!("f{n}")), "x").unwrap();
    }
    mounted.wait_for("the other one", || receiver.has("f499"));
    mounted.umount();
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}

#[test]
fn only_root_has_to_do_with_webhooks_and_nobody_sees_their_secrets() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    let place = "/api/v1/webhooks";
    let body =
        json!({ "name": "hook", "url": "http://127.0.0.1:1/", "below": ["d"], "ops": ["write"] });
    let header = |key: &str| format!("Authorization: Bearer {key}");
    for (name, options) in [
        ("restore", &["--scope", "restore"][..]),
        ("nobody", &["--scope", "admin", "--user", "nobody"]),
        ("below", &["--scope", "admin", "--below", "d"]),
    ] {
        let key = served.key(name, options);
        assert_eq!(served.post(&key, place, &body).status, 403, "{name}");
        assert_eq!(served.ask(place, &["-H", &header(&key)]).status, 403, "{name}");
    }
    assert_eq!(served.ask(place, &[]).status, 403, "root over the network shows a key");
    let admin = served.key("admin", &["--scope", "admin"]);
    let made = served.post(&admin, place, &body);
    assert_eq!(made.status, 200, "{}", made.json());
    let secret = made.json()["secret"].as_str().unwrap().to_string();
    let list = served.ask(place, &["-H", &header(&admin)]);
    let record = &list.json()["items"][0];
    assert_eq!((&record["name"], &record["below"]), (&json!("hook"), &json!(["d"])));
    assert_eq!(listed(m, "hook")["url"], record["url"]);
    let hidden = &secret[6..];
    assert!(!String::from_utf8_lossy(&list.body).contains(hidden));
    assert!(!m.log().contains(hidden) && !m.ok(&["webhook", "list", "."]).contains(hidden));
    let file = m.backing.join(".horace/webhooks.json");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(served.post(&admin, place, &body).status, 409, "the name is taken");
    for url in ["ftp://h/", "h", "http://u:p@h/", "file:///etc/passwd"] {
        let bad = json!({ "name": "bad", "url": url });
        assert_eq!(served.post(&admin, place, &bad).status, 400, "{url}");
    }
    let remove = |name: &str| {
        let place = format!("{place}?name={name}");
        served.ask(&place, &["-X", "DELETE", "-H", &header(&admin)]).status
    };
    assert_eq!((remove("hook"), remove("hook")), (204, 404));
}

#[test]
fn a_receiver_shows_a_certificate_that_this_machine_trusts() {
    if !can_mount() {
        return;
    }
    let Some(python) = python() else { return };
    let mut mounted = Mounted::unmounted("");
    let (cert, key) = (mounted.scratch("cert.pem"), mounted.scratch("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", told(&made));
    let script = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[1:])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";
    let mut receiver = Command::new(python)
        .args(["-c", script])
        .args([&cert, &key])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    BufReader::new(receiver.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let start = |mounted: &mut Mounted, trusted: &std::path::Path| {
        let mut command = mounted.command();
        command.env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR");
        mounted.start_by(command);
    };
    start(&mut mounted, &cert);
    add(&mounted, "tls", &format!("https://localhost:{}/", port.trim()), &[]);
    fs::write(mounted.at("f"), "x").unwrap();
    mounted.wait_for("a post over TLS", || listed(&mounted, "tls")["success"].is_string());
    mounted.umount();
    // Without trust there is no post.
    let other = mounted.scratch("other.pem");
    fs::copy("/etc/ssl/certs/ca-certificates.crt", &other).unwrap();
    start(&mut mounted, &other);
    fs::write(mounted.at("g"), "x").unwrap();
    mounted.wait_for("a failure", || listed(&mounted, "tls")["state"] == "failing");
    let error = listed(&mounted, "tls")["error"].as_str().unwrap().to_string();
    assert!(error.contains("certificate"), "{error}");
    receiver.kill().unwrap();
    receiver.wait().unwrap();
}

#[test]
fn a_catalog_that_begins_anew_is_posted_from_its_beginning() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("backup=off");
    let receiver = Receiver::new();
    add(&mounted, "hook", &receiver.url, &[]);
    fs::write(mounted.at("old"), "x").unwrap();
    mounted
        .wait_for("everything", || receiver.has("old") && listed(&mounted, "hook")["behind"] == 0);
    let known = receiver.taken().len();
    mounted.remount();
    fs::write(mounted.at("more"), "x").unwrap();
    mounted.wait_for("what is new", || receiver.has("more"));
    let again = &receiver.taken()[known..];
    assert!(again.iter().all(|change| change["path"] == "more"), "{again:#?}");
    mounted.umount();
    fs::write(mounted.backing.join(".horace/catalog.db"), "damaged").unwrap();
    let rebuilt =
        mounted.command().args(["reconcile", "--rebuild"]).arg(&mounted.backing).output().unwrap();
    assert!(rebuilt.status.success(), "{}", told(&rebuilt));
    let known = receiver.taken().len();
    mounted.start();
    let has = |path: &str| receiver.taken()[known..].iter().any(|change| change["path"] == path);
    mounted.wait_for("what the new catalog has", || has("old") && has("more"));
}
