//! What was tried to get out of the mount, into answers and logs, or at the memory of the daemon.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::{Value, json};

use super::{Served, names, quoted};
use crate::mounted::{Mounted, can_mount};

#[test]
fn nothing_is_brought_back_out_of_the_mount() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    let outside = m.scratch("outside");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(m.at("d")).unwrap();
    fs::write(m.at("d/f"), "one").unwrap();
    fs::write(m.at("d/f"), "two").unwrap();
    fs::write(m.at("gone"), "three").unwrap();
    symlink(&outside, m.at("link")).unwrap();
    let key = served.key("r", &["--scope", "restore"]);
    for to in ["link/f", "../outside/f", "d/../../outside/f", "link/../f", ".horace/f"] {
        let order = json!({ "path": "d/f", "version": "1", "to": to, "dry_run": false });
        let answer = served.post(&key, "/api/v1/restore", &order);
        let failed = answer.status >= 400 || answer.json()["failed"].as_u64() > Some(0);
        assert!(failed, "{to}: {} {:?}", answer.status, answer.json());
    }
    // A directory that has become a symlink since.
    fs::rename(m.at("d"), m.at("e")).unwrap();
    symlink(&outside, m.at("d")).unwrap();
    fs::write(outside.join("f"), "outside").unwrap();
    let order = json!({ "path": "d/f", "version": "1", "dry_run": false });
    served.post(&key, "/api/v1/restore", &order);
    let order = json!({ "path": "d", "to": "2000-01-01T00:00:00Z", "dry_run": false });
    served.post(&key, "/api/v1/rewind", &order);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing else is there");
    for place in ["content?path=d/f", "content?path=d/f&version=head", "content?path=link/f"] {
        let answer = served.ask(&format!("/api/v1/{place}"), &[]);
        assert_ne!(answer.body, b"outside", "{place}");
    }
    assert!(!m.scratch("f").exists());
}

#[rstest]
#[case("horace:///../../etc/passwd")]
#[case("horace:///%2e%2e/%2e%2e/etc/passwd")]
#[case("horace:///link/passwd")]
#[case("horace:///x?path=/etc/passwd")]
#[case("file:///etc/passwd")]
fn no_resource_is_out_of_the_mount(#[case] uri: &str) {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    symlink("/etc", served.mounted.at("link")).unwrap();
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": { "uri": uri },
    });
    let answer = served.ask(
        "/mcp",
        &[
            "-H",
            "Content-Type: application/json",
            "-H",
            "Accept: application/json, text/event-stream",
            "-d",
            &message.to_string(),
        ],
    );
    assert!(answer.json()["error"]["code"].is_number(), "{}", answer.json());
}

#[test]
fn names_break_neither_headers_nor_lines_of_the_log() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    let name = "a\r\nSet-Cookie: x=1\r\n\r\nFORGED";
    for text in ["one", "two"] {
        fs::write(m.at(name), text).unwrap();
    }
    let key = served.key("r", &["--scope", "restore"]);
    let order = json!({ "path": name, "version": "1", "dry_run": false });
    let restored = served.post(&key, "/api/v1/restore", &order);
    assert_eq!((restored.status, restored.header("set-cookie")), (200, ""));
    let log = m.log();
    assert!(log.lines().any(|line| line.contains("horace::audit") && line.contains("FORGED")));
    assert!(!log.lines().any(|line| line.trim_start().starts_with("FORGED")), "{log}");
    // What is not there is told of in the same way.
    let quoted = quoted(name.as_bytes());
    for place in [
        format!("/api/v1/content?path={quoted}none"),
        format!("/api/v1/content?path=x&version={quoted}"),
        format!("/api/v1/search?q=x&after={quoted}"),
        format!("/info?path={quoted}none"),
        format!("/{quoted}"),
    ] {
        let answer = served.ask(&place, &[]);
        assert!(answer.status >= 400, "{place}");
        assert_eq!(answer.header("set-cookie"), "", "{place}");
    }
}

#[rstest]
#[case("ext=%25")]
#[case("ext=_")]
#[case("by=%25")]
#[case("by=%27%20OR%201%3D1%20--")]
#[case("sha256=%25")]
#[case("sha256=%27%20OR%201%3D1%20--")]
#[case("path=%25")]
#[case("path=_")]
#[case("q=%25")]
#[case("q=_")]
#[case("q=%27%20OR%20%271%27%3D%271")]
#[case("q=%3Bx&glob=true")]
fn no_word_of_a_search_means_more_than_itself(#[case] query: &str) {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    fs::create_dir(served.mounted.at("d")).unwrap();
    fs::write(served.mounted.at("d/a.b"), "x").unwrap();
    served.mounted.sync();
    assert_eq!(names(&served.get("/api/v1/search?q=a.b"), "path"), ["d/a.b"], "it is there");
    let answer = served.ask(&format!("/api/v1/search?{query}"), &[]);
    match answer.status {
        200 => assert_eq!(answer.json()["items"], json!([]), "{query}"),
        status => assert!([400, 404].contains(&status), "{query}: {status}"),
    }
}

#[test]
fn a_body_that_trickles_in_is_cut_off() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let mut slow = TcpStream::connect(served.url.strip_prefix("http://").unwrap()).unwrap();
    let head = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 60000\r\n\r\n";
    slow.write_all(head.as_bytes()).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let began = Instant::now();
    let mut answer = [0; 12];
    loop {
        match slow.read(&mut answer) {
            Ok(count) => break assert!(count == 0 || answer.ends_with(b"408"), "{answer:?}"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        assert!(began.elapsed() < Duration::from_secs(30), "it may trickle for ever");
        // Each comes before anybody loses patience over it.
        let _ = slow.write_all(b" ");
    }
    let large = ["-H", "Content-Type: application/json", "-d", &" ".repeat(70_000)];
    assert_eq!(served.ask("/mcp", &large).status, 413);
}

/// A figure of a process, in KiB.
fn kib(m: &Mounted, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", m.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// The most memory that the daemon takes for some work, in MiB beside what it has before.
fn memory_of(m: &Mounted, work: impl FnOnce()) -> u64 {
    let before = kib(m, "VmRSS:");
    fs::write(format!("/proc/{}/clear_refs", m.pid()), "5").unwrap();
    work();
    kib(m, "VmHWM:").saturating_sub(before) / 1024
}

/// Reads so many bytes of an answer, of several at once, and hangs up.
fn read_at_once(served: &Served, place: &str, bytes: u64) {
    let address = served.url.strip_prefix("http://").unwrap();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            write!(stream, "GET {place} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || {
                let mut start = [0; 15];
                (&client).read_exact(&mut start).unwrap();
                assert!(start.starts_with(b"HTTP/1.0 20"), "{place}: {start:?}");
                let read = std::io::copy(&mut client.take(bytes), &mut std::io::sink()).unwrap();
                assert!(read == bytes, "{place}: {read} bytes");
            });
        }
    });
}

#[test]
fn contents_that_unpack_to_much_take_no_memory() {
    const SIZE: u64 = 100 << 20;
    if !can_mount() {
        return;
    }
    let served = Served::with_options("pack_after=0");
    let m = &served.mounted;
    // A version that takes almost nothing once it is packed.
    let zeros = vec![0; 1 << 20];
    let mut file = File::create(m.at("zeros")).unwrap();
    for _ in 0..SIZE >> 20 {
        file.write_all(&zeros).unwrap();
    }
    drop(file);
    fs::write(m.at("small"), "small").unwrap();
    fs::rename(m.at("small"), m.at("zeros")).unwrap();
    m.sync();
    m.wait_up_to(Duration::from_secs(300), "packing", || {
        let stored = crate::tools::files_below(&m.backing.join(".horace/store"));
        let sizes = stored.values().filter_map(|path| fs::metadata(path).ok());
        sizes.map(|found| found.len()).sum::<u64>() < SIZE / 10
    });
    File::create(m.at("sparse")).unwrap().set_len(1 << 40).unwrap();
    let start = ["-H", "Range: bytes=0-0"];
    m.wait_up_to(Duration::from_secs(300), "version", || {
        served.ask("/api/v1/content?path=sparse", &start).status == 206
    });
    let took = memory_of(m, || {
        read_at_once(&served, "/api/v1/content?path=zeros&version=1", SIZE);
        read_at_once(&served, "/api/v1/content?path=sparse", 64 << 20);
        let far = ["-H", "Range: bytes=1000000000000-1000000099999"];
        let part = served.ask("/api/v1/content?path=sparse", &far);
        assert_eq!((part.status, part.body.len()), (206, 100_000));
        let difference = served.get("/api/v1/diff?path=zeros");
        assert!(difference["unified"].is_null(), "{difference}");
    });
    assert!(took < 90, "{took} MiB");
}

#[test]
fn differences_of_much_take_little_memory() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let m = &served.mounted;
    // As many lines as fit into what is compared, and lines that all differ.
    let lines = |seed: u64| -> Vec<u8> {
        (0..700_000u64).flat_map(|n| format!("{:x}\n", n * 2 + seed).into_bytes()).collect()
    };
    for seed in [0, 1] {
        let mut text = lines(seed);
        text.truncate(4 << 20);
        fs::write(m.at("many"), text).unwrap();
        fs::write(m.at("long"), vec![b'a' + u8::try_from(seed).unwrap(); 4 << 20]).unwrap();
        fs::write(m.at("few"), &lines(seed)[..1_000_000]).unwrap();
    }
    m.sync();
    let took = memory_of(m, || {
        std::thread::scope(|scope| {
            for name in ["many", "many", "many", "many", "long", "few", "few"] {
                let (place, served) = (format!("/api/v1/diff?path={name}"), &served);
                scope.spawn(move || {
                    let difference: Value = served.get(&place);
                    let told = difference["unified"].is_string();
                    assert_eq!(told, !place.ends_with("many"), "{place}");
                });
            }
        });
    });
    assert!(took < 200, "{took} MiB");
}
