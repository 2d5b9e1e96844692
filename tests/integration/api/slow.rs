//! Clients that do not read, and clients that all do.

use std::convert::Infallible;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use horace::api::{Listen, Patience, Server};

use super::{Served, names};
use crate::mounted::can_mount;

/// Serves bytes without an end, as events are; whoever holds a copy of the token is served.
fn endless(stalled: Duration) -> (Server, SocketAddr, Arc<()>) {
    let token = Arc::new(());
    let held = Arc::clone(&token);
    let endless = move || {
        let held = Arc::clone(&held);
        let part = Bytes::from(vec![b'x'; 64 * 1024]);
        let parts = futures::stream::repeat_with(move || {
            let _ = &held;
            Ok::<_, Infallible>(part.clone())
        });
        async { Body::from_stream(parts) }
    };
    let router = Router::new().route("/", get(endless));
    let server = Server::start(router, Patience { stalled, ..Patience::default() }).unwrap();
    let address = server.listen(&Listen::Tcp("127.0.0.1:0".parse().unwrap()), None).unwrap();
    (server, address.unwrap(), token)
}

fn client(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    client
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_stops_to_read_is_cut_off() {
    let (server, address, token) = endless(Duration::from_millis(500));
    let mut client = client(address);
    let mut first = [0; 1024];
    client.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"));
    let served = || Arc::strong_count(&token) > 2;
    wait_until(served);
    wait_until(|| !served());
    // What was on its way may still come, and then the connection is at its end.
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = client.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    server.stop();
}

#[test]
fn who_reads_slowly_but_reads_is_served() {
    let (server, address, token) = endless(Duration::from_millis(500));
    let mut client = client(address);
    let mut part = vec![0; 2 << 20];
    for _ in 0..15 {
        client.read_exact(&mut part).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(Arc::strong_count(&token), 3, "it is still served");
    server.stop();
}

/// Follows all changes after one, until something of this name was made; returns the numbers of all.
fn follow(address: &str, since: u64, last: &str) -> Vec<u64> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // Of the older version, in which nothing stands between the lines of a body.
    write!(stream, "GET /api/v1/events?since={since} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let last = format!("\"path\":\"{last}\"");
    let mut seen = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(id) = line.strip_prefix("id: ") {
            seen.push(id.parse().unwrap());
        }
        if line.starts_with("data: ") && line.contains(&last) {
            break;
        }
    }
    seen
}

#[test]
fn two_hundred_who_follow_all_get_every_change() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    m.sync();
    let since = served.get("/api/v1/status")["seq"].as_u64().unwrap();
    let address = served.url.strip_prefix("http://").unwrap();
    let all = std::thread::scope(|scope| {
        let follow = || scope.spawn(|| follow(address, since, "last"));
        let followers: Vec<_> = (0..200).map(|_| follow()).collect();
        for n in 0..200 {
            fs::write(m.at(format!("f{n}")), "x").unwrap();
        }
        fs::create_dir(m.at("last")).unwrap();
        followers.into_iter().map(|follower| follower.join().unwrap()).collect::<Vec<_>>()
    });
    m.sync();
    let page = served.get(&format!("/api/v1/changes?since={since}&limit=1000"));
    let end = names(&page, "path").iter().position(|path| *path == "last").unwrap();
    let expected: Vec<u64> = page["items"].as_array().unwrap()[..=end]
        .iter()
        .map(|change| change["seq"].as_u64().unwrap())
        .collect();
    assert!(expected.len() > 400, "{}", expected.len());
    for seen in &all {
        assert_eq!(*seen, expected);
    }
}
