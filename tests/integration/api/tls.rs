//! The API over TLS, with certificates of an authority of our own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Answer, Served};
use crate::callers::{USER, as_user};
use crate::mounted::{Mounted, can_mount};
use crate::tools::{must, told};

/// An authority, and what it has certified.
struct Authority {
    dir: PathBuf,
}

impl Authority {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        // curl runs as other users, too.
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
        let authority = Self { dir };
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
             -keyout ca.key -out ca.pem",
        );
        authority
    }

    fn openssl(&self, arguments: &str) {
        must(Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.dir));
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes `NAME.pem` and `NAME.key`, which only root may read.
    fn certify(&self, name: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} \
             -addext subjectAltName=IP:127.0.0.1,DNS:localhost -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy \
             -out {name}.pem"
        ));
        for file in [".pem", ".key"] {
            let file = self.at(&format!("{name}{file}"));
            fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
        }
    }

    /// Puts another certificate in the place of one.
    fn replace(&self, name: &str, by: &str) {
        for file in ["key", "pem"] {
            let new = self.at("new");
            fs::copy(self.at(&format!("{by}.{file}")), &new).unwrap();
            fs::rename(new, self.at(&format!("{name}.{file}"))).unwrap();
        }
    }

    fn options(&self, name: &str) -> String {
        let [cert, key] = ["pem", "key"].map(|file| self.at(&format!("{name}.{file}")));
        format!("api_cert={},api_cert_key={}", cert.display(), key.display())
    }
}

fn served() -> (Authority, Served) {
    let mut mounted = Mounted::unmounted("");
    let authority = Authority::new(mounted.scratch("certs"));
    authority.certify("first");
    mounted.set_options(&format!("api=127.0.0.1:0,{}", authority.options("first")));
    mounted.start();
    let url = mounted.status()["api"].as_str().unwrap().to_string();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    (authority, Served { mounted, url, socket: None })
}

fn ask(authority: &Authority, served: &Served, place: &str) -> Answer {
    served.ask(place, &["--cacert", authority.at("ca.pem").to_str().unwrap()])
}

/// What the certificate is called that a server shows.
fn shown(served: &Served) -> String {
    let address = served.url.strip_prefix("https://").unwrap();
    let output = Command::new("openssl")
        .args(["s_client", "-connect", address])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let told = told(&output);
    let subject = told.lines().find_map(|line| line.strip_prefix("subject="));
    subject.unwrap_or_else(|| panic!("{told}")).replace(' ', "").replace("CN=", "")
}

#[test]
fn whoever_trusts_the_authority_is_answered_over_tls() {
    if !can_mount() {
        return;
    }
    let (authority, served) = served();
    let m = &served.mounted;
    fs::write(m.at("open"), "everybody").unwrap();
    fs::write(m.at("shut"), "root").unwrap();
    fs::set_permissions(m.at("shut"), PermissionsExt::from_mode(0o600)).unwrap();
    let ask = |curl: Command, place: &str, options: &[&str]| {
        let ca = authority.at("ca.pem");
        served.ask_by(curl, place, &[&["--cacert", ca.to_str().unwrap()], options].concat())
    };
    // Who asks is known as without TLS.
    let user = || as_user(USER, "curl");
    assert_eq!(ask(user(), "/api/v1/content?path=open", &[]).body, b"everybody");
    assert_eq!(ask(user(), "/api/v1/content?path=shut", &[]).status, 403);
    let root = || Command::new("curl");
    assert_eq!(ask(root(), "/api/v1/content?path=shut", &["--tlsv1.3"]).body, b"root");
    assert_eq!(ask(root(), "/healthz", &["--tls-max", "1.2"]).status, 200);
    assert_eq!(ask(root(), "/api/v1/sync", &["-X", "POST"]).status, 403);
    let key = format!("Authorization: Bearer {}", served.key("k", &["--scope", "admin"]));
    assert_eq!(ask(root(), "/api/v1/sync", &["-X", "POST", "-H", &key]).status, 200);
    let origin = format!("Origin: {}", served.url);
    assert_eq!(ask(root(), "/healthz", &["-H", &origin]).status, 200, "its own page");
    // Who does not trust the authority hears nothing.
    let url = format!("{}/healthz", served.url);
    let stranger = Command::new("curl").args(["-sS", &url]).output().unwrap();
    assert_eq!(stranger.status.code(), Some(60), "{}", told(&stranger));
    let status = m.ok(&["status", "."]);
    assert!(status.contains(&served.url), "{status}");
}

#[test]
fn whoever_speaks_no_tls_is_told_so() {
    if !can_mount() {
        return;
    }
    let (authority, served) = served();
    let plain = served.url.replace("https://", "http://");
    let output = Command::new("curl").args(["-sS", "-i", &plain]).output().unwrap();
    let answer = told(&output);
    assert!(answer.contains("400 Bad Request") && answer.contains("https://"), "{answer}");
    assert_eq!(ask(&authority, &served, "/healthz").status, 200);
}

#[test]
fn a_certificate_that_is_replaced_serves_whoever_comes_next() {
    if !can_mount() {
        return;
    }
    let (authority, served) = served();
    let m = &served.mounted;
    assert_eq!(shown(&served), "first");
    // A connection that is open goes on, whatever happens to the files.
    let url = format!("{}/api/v1/events", served.url);
    let mut follower = Command::new("curl")
        .args(["-sSN", "--cacert", authority.at("ca.pem").to_str().unwrap(), &url])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    authority.certify("second");
    authority.replace("first", "second");
    m.wait_for("the new certificate", || shown(&served) == "second");
    assert!(m.log().contains("the HTTP API has a new certificate"), "{}", m.log());

    // What is no good is told, and what was good goes on.
    let problem = || m.status()["api_cert"]["problem"].clone();
    assert!(problem().is_null());
    fs::write(authority.at("first.pem"), "no certificate").unwrap();
    m.wait_for("the problem", || !problem().is_null());
    assert!(problem().as_str().unwrap().contains("has no certificate"), "{}", problem());
    assert!(m.log().contains("goes on with the certificate it has"), "{}", m.log());
    let status = m.ok(&["status", "."]);
    assert!(status.contains("an older one serves"), "{status}");
    assert_eq!(shown(&served), "second");
    // One without its key is no good either.
    authority.certify("third");
    fs::copy(authority.at("third.pem"), authority.at("first.pem")).unwrap();
    m.wait_for("the pair", || problem().to_string().contains("cannot be used with the key"));
    assert_eq!(ask(&authority, &served, "/healthz").status, 200);
    fs::copy(authority.at("third.key"), authority.at("first.key")).unwrap();
    m.wait_for("the third certificate", || shown(&served) == "third");
    assert!(problem().is_null());

    fs::write(m.at("late"), "x").unwrap();
    let mut seen = Vec::new();
    let mut stdout = follower.stdout.take().unwrap();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("late") {
        let count = stdout.read(&mut part).unwrap();
        assert!(count > 0, "the connection broke");
        seen.extend_from_slice(&part[..count]);
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn who_greets_slowly_is_cut_off_and_holds_up_nobody() {
    if !can_mount() {
        return;
    }
    let (authority, served) = served();
    let address = served.url.strip_prefix("https://").unwrap();
    let began = Instant::now();
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut slow = TcpStream::connect(address).unwrap();
    slow.write_all(&[22, 3, 1]).unwrap();
    assert_eq!(ask(&authority, &served, "/healthz").status, 200);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    for mut stream in silent.into_iter().chain([slow]) {
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut rest = Vec::new();
        // A reset is an end, too.
        let ended = stream.read_to_end(&mut rest).map_err(|error| error.kind());
        assert!(!matches!(ended, Err(std::io::ErrorKind::WouldBlock)), "it is still there");
    }
    assert!(began.elapsed() < Duration::from_secs(35), "{:?}", began.elapsed());
}

/// What `horace mount` says of options, which cannot serve.
fn refused(dir: &Mounted, options: &str) -> String {
    let output = dir
        .command()
        .args(["mount", "--foreground", "-o", options])
        .args([&dir.backing, &dir.mountpoint])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(!dir.is_mounted());
    told(&output)
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_before_anything_is_mounted() {
    if !can_mount() {
        return;
    }
    let dir = Mounted::unmounted("");
    let authority = Authority::new(dir.scratch("certs"));
    authority.certify("first");
    authority.certify("second");
    let with = |cert: &str, key: &str| {
        let (cert, key) = (authority.at(cert), authority.at(key));
        let options =
            format!("api=127.0.0.1:0,api_cert={},api_cert_key={}", cert.display(), key.display());
        refused(&dir, &options)
    };
    let told = with("none.pem", "first.key");
    assert!(told.contains("for `api_cert=`") && told.contains("No such file"), "{told}");
    let told = with("first.pem", "none.key");
    assert!(told.contains("for `api_cert_key=`") && told.contains("name another file"), "{told}");
    let told = with("first.key", "first.key");
    assert!(told.contains("first.key has no certificate: `api_cert=` takes"), "{told}");
    let told = with("first.pem", "first.pem");
    assert!(told.contains("first.pem has no private key"), "{told}");
    let told = with("first.pem", "second.key");
    assert!(told.contains("take a pair"), "{told}");
    let told = with("", "first.key");
    assert!(told.contains("it is no file"), "{told}");
    let key = authority.at("first.key");
    let told = refused(&dir, &format!("api=127.0.0.1:0,api_cert_key={}", key.display()));
    assert!(told.contains("is of no use without `api_cert=`"), "{told}");
}

#[test]
fn a_key_of_another_user_is_read_again_too() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    let authority = Authority::new(mounted.scratch("certs"));
    let both = authority.at("both.pem");
    let combine = |name: &str, to: &Path| {
        let parts = ["pem", "key"].map(|file| fs::read(authority.at(&format!("{name}.{file}"))));
        fs::write(to, parts.map(Result::unwrap).concat()).unwrap();
        fs::set_permissions(to, PermissionsExt::from_mode(0o600)).unwrap();
        chown(to, Some(USER), Some(USER)).unwrap();
    };
    for name in ["first", "second"] {
        authority.certify(name);
    }
    combine("first", &both);
    mounted.set_options(&format!("api=127.0.0.1:0,api_cert={}", both.display()));
    mounted.start();
    let url = mounted.status()["api"].as_str().unwrap().to_string();
    let served = Served { mounted, url, socket: None };
    assert_eq!(shown(&served), "first");
    combine("second", &both);
    served.mounted.wait_for("the new certificate", || shown(&served) == "second");
}
