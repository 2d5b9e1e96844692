//! What the HTTP API costs the mount.
//!
//! Mounts a directory with some thousand files and versions. In turns, files are created for some seconds with and
//! without a thousand requests a second beside it: trees, versions, searches and contents. Then a thousand
//! clients follow all changes, and each is to have all of them. The load comes from this machine, and what
//! it takes itself is counted as a cost of the API. `scripts/bench-api` builds and runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "nobody else runs this")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures to look at"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Requests in a second.
const RATE: u64 = 1000;
/// Connections over which they come.
const CONNECTIONS: u64 = 20;
/// Clients that follow all changes.
const FOLLOWERS: usize = 1000;
/// Files that are created while they do.
const FOLLOWED: u64 = 1000;
/// Directories with a hundred files each, to ask for.
const DIRS: u64 = 30;

/// A mount, gone when dropped.
struct Mount {
    _dir: tempfile::TempDir,
    mountpoint: PathBuf,
    runtime: PathBuf,
    daemon: Child,
    address: String,
}

impl Mount {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [backing, mountpoint, runtime] =
            ["backing", "mount", "run"].map(|name| dir.path().join(name));
        for path in [&backing, &mountpoint, &runtime] {
            fs::create_dir(path).unwrap();
        }
        let daemon = Command::new(env!("CARGO_BIN_EXE_horace"))
            .env("HORACE_RUNTIME_DIR", &runtime)
            .args(["--quiet", "mount", "--foreground", "-o", "api=127.0.0.1:0"])
            .args([&backing, &mountpoint])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut mount = Self { _dir: dir, mountpoint, runtime, daemon, address: String::new() };
        while mount.address.is_empty() {
            std::thread::sleep(Duration::from_millis(50));
            let told = mount.run(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
            let url = status["api"].as_str().and_then(|url| url.strip_prefix("http://"));
            mount.address = url.unwrap_or_default().into();
        }
        mount
    }

    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_horace"));
        command.env("HORACE_RUNTIME_DIR", &self.runtime).args(args);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    fn fill(&self) {
        for dir in 0..DIRS {
            let dir = self.mountpoint.join(format!("dir{dir}"));
            fs::create_dir(&dir).unwrap();
            for file in 0..100 {
                let file = dir.join(format!("report{file}.txt"));
                for version in 1..4 {
                    fs::write(&file, format!("version {version}\n").repeat(500)).unwrap();
                }
            }
        }
        self.sync();
    }

    fn sync(&self) -> u64 {
        self.run(&["sync", self.mountpoint.to_str().unwrap()]).trim().parse().unwrap()
    }

    /// A figure of the daemon's memory, in MiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap() / 1024
    }

    /// Seconds of processor time that the daemon has taken.
    fn processor(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.run(&["umount", self.mountpoint.to_str().unwrap()]);
        let _ = self.daemon.wait();
    }
}

/// Creates files for a while; returns how many in a second.
fn create(dir: &Path, time: Duration) -> f64 {
    fs::create_dir(dir).unwrap();
    let began = Instant::now();
    let mut files = 0u64;
    while began.elapsed() < time {
        fs::write(dir.join(files.to_string()), [b'x'; 4096]).unwrap();
        files += 1;
    }
    files as f64 / began.elapsed().as_secs_f64()
}

/// The addresses that are asked for, in turns.
fn place(n: u64) -> String {
    let (dir, file) = (n / 4 % DIRS, n % 100);
    match n % 4 {
        0 => format!("/api/v1/tree?path=dir{dir}&limit=100"),
        1 => format!("/api/v1/versions?path=dir{dir}/report{file}.txt"),
        2 => format!("/api/v1/search?q=report{file}.t&limit=20"),
        _ => format!("/api/v1/content?path=dir{dir}/report{file}.txt&version=1"),
    }
}

/// Asks once, and reads the whole answer.
async fn ask(stream: &mut BufReader<TcpStream>, place: &str) {
    let request = format!("GET {place} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut line, mut length) = (String::new(), None);
    stream.read_line(&mut line).await.unwrap();
    assert!(line.starts_with("HTTP/1.1 200"), "{place}: {line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await.unwrap();
        let value = line.strip_prefix("content-length: ").map(str::trim);
        length = value.map_or(length, |value| value.parse().ok());
    }
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).await.unwrap();
}

/// Requests at an even rate, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    slowest_us: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<()>>,
    began: Instant,
}

impl Load {
    fn start(address: &str) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            asked: Arc::default(),
            slowest_us: Arc::default(),
            clients: Vec::new(),
            began: Instant::now(),
        };
        for client in 0..CONNECTIONS {
            let address = address.to_string();
            let (stop, asked, slowest) =
                (Arc::clone(&load.stop), Arc::clone(&load.asked), Arc::clone(&load.slowest_us));
            load.clients.push(tokio::spawn(async move {
                let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
                let mut ticks =
                    tokio::time::interval(Duration::from_micros(1_000_000 * CONNECTIONS / RATE));
                let mut n = client * 7919;
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let began = Instant::now();
                    ask(&mut stream, &place(n)).await;
                    slowest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
                    asked.fetch_add(1, Ordering::Relaxed);
                    n += 1;
                }
            }));
        }
        load
    }

    /// Returns how many were answered in a second, and the longest wait in milliseconds.
    async fn stop(self) -> (f64, f64) {
        let rate = self.asked.load(Ordering::Relaxed) as f64 / self.began.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        (rate, self.slowest_us.load(Ordering::Relaxed) as f64 / 1000.0)
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

async fn creating(mount: &Mount, name: String, time: Duration) -> f64 {
    let dir = mount.mountpoint.join(name);
    tokio::task::spawn_blocking(move || create(&dir, time)).await.unwrap()
}

async fn compare(mount: &Mount, rounds: usize, time: Duration) {
    let (mut alone, mut loaded) = (Vec::new(), Vec::new());
    creating(mount, "warm".into(), Duration::from_secs(1)).await;
    for round in 0..rounds {
        let without = creating(mount, format!("alone{round}"), time).await;
        let (load, before) = (Load::start(&mount.address), mount.processor());
        let with = creating(mount, format!("loaded{round}"), time).await;
        let (rate, slowest) = load.stop().await;
        let cores = (mount.processor() - before) / time.as_secs_f64();
        println!(
            "{without:8.0} files/s alone, {with:8.0} with {rate:5.0} requests/s (slowest {slowest:.0} ms; \
             daemon {cores:.2} cores)"
        );
        alone.push(without);
        loaded.push(with);
    }
    let (alone, loaded) = (median(alone), median(loaded));
    println!("median {alone:.0} alone, {loaded:.0} with requests: {:.3}", loaded / alone);
}

/// Follows until it has seen the last change; returns how many it has seen.
async fn follow(
    address: String,
    since: u64,
    last: Arc<AtomicU64>,
    connected: Arc<AtomicU64>,
) -> u64 {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let request = format!("GET /api/v1/events?since={since} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut line, mut seen) = (String::new(), 0);
    loop {
        line.clear();
        assert!(stream.read_line(&mut line).await.unwrap() > 0, "cut off after {seen}");
        if line == "\r\n" {
            connected.fetch_add(1, Ordering::Relaxed);
        }
        let Some(id) = line.strip_prefix("id: ") else { continue };
        seen += 1;
        if id.trim().parse::<u64>().unwrap() >= last.load(Ordering::Relaxed) {
            return seen;
        }
    }
}

async fn follow_all(mount: &Mount) {
    let (since, before) = (mount.sync(), mount.memory());
    let (last, connected) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let follower = || {
        let (last, connected) = (Arc::clone(&last), Arc::clone(&connected));
        tokio::spawn(follow(mount.address.clone(), since, last, connected))
    };
    let followers: Vec<_> = (0..FOLLOWERS).map(|_| follower()).collect();
    while connected.load(Ordering::Relaxed) < FOLLOWERS as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let idle = mount.memory();
    let began = Instant::now();
    let dir = mount.mountpoint.join("followed");
    let made = tokio::task::spawn_blocking(move || {
        fs::create_dir(&dir).unwrap();
        for n in 0..FOLLOWED {
            fs::write(dir.join(n.to_string()), "x").unwrap();
        }
        fs::create_dir(dir.join("end")).unwrap();
    });
    made.await.unwrap();
    let created = FOLLOWED as f64 / began.elapsed().as_secs_f64();
    // The change after this one tells everybody that they have had it all.
    last.store(mount.sync(), Ordering::Relaxed);
    fs::create_dir(mount.mountpoint.join("over")).unwrap();
    let mut seen = Vec::new();
    for follower in followers {
        seen.push(follower.await.unwrap());
    }
    let took = began.elapsed().as_secs_f64();
    let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
    println!(
        "{FOLLOWERS} followers had {least} to {most} changes each after {took:.1} s, of files created at \
         {created:.0} a second; daemon {before} MiB before, {idle} with them, {} after",
        mount.memory()
    );
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let rounds = args.next().map_or(5, |rounds| rounds.parse().unwrap());
    let seconds = args.next().map_or(5, |seconds| seconds.parse().unwrap());
    horace::sys::process::raise_descriptor_limit();
    let mount = Mount::new();
    mount.fill();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        compare(&mount, rounds, Duration::from_secs(seconds)).await;
        follow_all(&mount).await;
    });
}
