//! Names are bytes: whatever the kernel takes goes through every interface unharmed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, path_of, sha256, told};

/// Names that something might stumble over.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"\xff\xfe not UTF-8"[..],
        b"half \xc3",
        b"\xed\xa0\x80 surrogate",
        b"line\nfeed",
        b"\n",
        b"two\n\nlines\n",
        b"carriage\rreturn",
        b"back\\slash",
        b"\\n",
        b"\\",
        b"tab\there",
        b"\x01\x1b[31mred\x1b[0m\x07",
        b"-",
        b"--json",
        b"-rf",
        b" leading and trailing ",
        b"'quotes\" and $HOME `x` *?[a]{b}",
        b"%s%n",
        b"#comment",
        b"...",
        b"..a",
        b"a:b|c;d&e<f>g",
        b"\xe2\x80\xaereversed",
        b"\xc3\xa9 composed",
        b"e\xcc\x81 decomposed",
        b".hidden",
        b"name@2",
        b"*binary",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.push(vec![b'x'; 255]);
    names.push(vec![0xff; 255]);
    names
}

#[rstest]
fn odd_names_round_trip(#[values("", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    let names = odd_names();
    for (n, name) in names.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        fs::write(mounted.at(name), format!("{n}")).unwrap();
        fs::create_dir(mounted.at("d").join(name))
            .or_else(|_| fs::create_dir_all(mounted.at("d").join(name)))
            .unwrap();
        fs::write(mounted.at("d").join(name).join(name), format!("deep {n}")).unwrap();
        std::os::unix::fs::symlink(name, mounted.at("l")).unwrap();
        assert_eq!(fs::read_link(mounted.at("l")).unwrap().as_os_str(), name);
        fs::remove_file(mounted.at("l")).unwrap();
    }
    let listed: BTreeSet<_> = fs::read_dir(&mounted.mountpoint)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().as_bytes().to_vec())
        .filter(|name| name != b"d")
        .collect();
    assert_eq!(listed, names.iter().cloned().collect());
    let known = mounted.manifest(".");
    assert_eq!(known.len(), 2 * names.len());
    for (n, name) in names.iter().enumerate() {
        assert_eq!(known[name], sha256(format!("{n}")), "{}", name.escape_ascii());
        let deep = [b"d/", &name[..], b"/", name].concat();
        assert_eq!(known[&deep], sha256(format!("deep {n}")), "{}", name.escape_ascii());
        // Over the socket, asked by name.
        for path in [name, &deep] {
            let output =
                mounted.run(&[b"log".as_slice(), b"--json", b"--", path].map(OsStr::from_bytes));
            assert!(output.status.success(), "{}: {}", path.escape_ascii(), told(&output));
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text.lines().count(), 1, "{}", path.escape_ascii());
            assert!(text.contains(&known[path]), "{}", path.escape_ascii());
        }
    }
    // Records name what they are about, exactly.
    for args in [&["search", "-d", ""][..], &["changes"]] {
        let told: BTreeSet<_> = mounted
            .records(args)
            .iter()
            .filter(|record| record["path"].is_string() || record["path_base64"].is_string())
            .map(path_of)
            .collect();
        for name in &names {
            assert!(told.contains(name), "{args:?} {}", name.escape_ascii());
        }
    }
    mounted.assert_survives_remount();
}

#[test]
fn a_manifest_of_odd_names_is_what_sha256sum_prints() {
    if !can_mount() || !have(&["sha256sum"]) {
        return;
    }
    let mounted = Mounted::new();
    // Of a file called `-` sha256sum cannot be asked by that name.
    for name in odd_names().iter().filter(|name| *name != b"-") {
        fs::write(mounted.at(OsStr::from_bytes(name)), name).unwrap();
    }
    let script = r#"
        diff <("$HORACE" manifest . | LC_ALL=C sort) \
             <(find . -type f -printf '%P\0' | xargs -0 sha256sum -- | LC_ALL=C sort) >&2"#;
    mounted.shell(script);
}

#[test]
fn odd_names_move_and_end_as_others_do() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let mut last = mounted.at("start");
    fs::write(&last, "text").unwrap();
    for name in odd_names() {
        let next = mounted.at(OsStr::from_bytes(&name));
        fs::rename(&last, &next).unwrap();
        last = next;
    }
    fs::remove_file(&last).unwrap();
    assert_eq!(mounted.digests("start"), [sha256("text")]);
    let moved = mounted.records(&["changes"]);
    let moved: Vec<_> = moved.iter().filter(|change| change["op"] == "rename").collect();
    assert_eq!(moved.len(), odd_names().len());
    let from = |change: &serde_json::Value| {
        change["from_path"].is_string() || change["from_path_base64"].is_string()
    };
    assert!(moved.iter().all(|change| from(change)), "{moved:#?}");
}

#[test]
fn names_cannot_command_a_terminal() {
    if !can_mount() || !have(&["script"]) {
        return;
    }
    let mounted = Mounted::new();
    let name = OsStr::from_bytes(b"a\x1b]0;title\x07\x1b[2J\nb\xff");
    fs::write(mounted.at(name), "x").unwrap();
    for command in ["search ''", "changes", "manifest .", "status ."] {
        // `script` gives it a terminal.
        let line = format!("{} --color=never {command}", env!("CARGO_BIN_EXE_horace"));
        let text = must(
            std::process::Command::new("script")
                .args(["-qec", &line, "/dev/null"])
                .env("HORACE_RUNTIME_DIR", &mounted.runtime)
                .current_dir(&mounted.mountpoint),
        );
        let bad = text.chars().find(|c| c.is_control() && !"\r\n".contains(*c));
        assert_eq!(bad, None, "{command}: {text:?}");
        assert!(!text.contains("\r\nb"), "{command}: {text:?}");
    }
}

#[test]
fn names_that_are_too_long_are_refused_as_always() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let error = fs::write(mounted.at("x".repeat(256)), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    // A path may be longer than any call takes at once.
    mounted.shell(
        r#"
        for n in $(seq 40); do d=$(printf 'd%.0s' $(seq 200)); mkdir $d; cd $d; done
        echo deep > f
        "#,
    );
    assert_eq!(mounted.manifest(".").len(), 1);
    let deep = mounted.records(&["search", "f"]);
    assert_eq!(deep.len(), 1);
}

#[test]
fn errors_and_logs_cannot_command_a_terminal_either() {
    if !can_mount() {
        return;
    }
    const ODD: &str = "a\u{1b}[2J\u{7}\u{202e}\u{9b}31m\r";
    let mut mounted = Mounted::unmounted("");
    // The log names it, and a line of its own must not come of that.
    mounted.mountpoint = mounted.scratch(&format!("m{ODD}\nn"));
    fs::create_dir(&mounted.mountpoint).unwrap();
    mounted.start_in_background();
    fs::write(mounted.at("f"), "x").unwrap();
    for args in [
        &["log", ODD][..],
        &["cat", "--at", ODD, "f"],
        &["cat", &format!("f@{ODD}")],
        &["diff", "f", ODD],
        &["restore", "--by-user", ODD, "."],
        &["restore", "f", "--version", "1", "--to", &format!("none/{ODD}")],
        &["search", "--size", ODD, ""],
        &["search", "--glob", &format!("{ODD}[")],
        &["manifest", ODD],
        &["status", ODD],
        &["umount", ODD],
        &["mount", "-o", ODD, "/", "/"],
        &["mount", ODD, ODD],
        &["verify", "--rate", ODD],
        &[ODD],
        &[&format!("--{ODD}")],
        &["--color", ODD, "status"],
    ] {
        let output = mounted.run(args);
        let told = told(&output);
        let bad = told.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(bad, None, "{args:?}: {told:?}");
    }
    let ended =
        mounted.command().arg("umount").arg(&mounted.mountpoint).current_dir("/").output().unwrap();
    assert!(ended.status.success(), "{}", told(&ended));
    let log = fs::read_to_string(mounted.backing.join(".horace/horace.log")).unwrap();
    assert!(log.contains("stopped"), "{log}");
    for line in log.lines() {
        assert!(line.starts_with("20"), "{log:?}");
        assert!(!line.chars().any(char::is_control), "{log:?}");
    }
}
