//! Moving in: a tree of somebody else's with the history that a predecessor had of it.

mod history;
mod refused;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, noise, script_in, told};

/// A tree with everything that a copy can lose.
const EVERYTHING: &str = r#"
    mkdir -p d/deep/er empty
    echo plain > plain
    echo linked > d/one
    ln d/one two
    ln d/one d/deep/three
    truncate -s 64M sparse
    printf end | dd of=sparse bs=1M seek=32 conv=notrunc status=none
    ln -s ../plain d/link
    ln -s /nowhere dangling
    mkfifo fifo
    mknod null c 1 3
    printf x > $'new\nline'
    printf y > $'not\xffutf8'
    printf z > -dash
    printf '' > nothing
    setfattr -n user.colour -v blue plain
    setfattr -n trusted.secret -v s d
    setfacl -m u:1234:rw plain
    setfacl -d -m g:4321:rx d
    chown 1000:1001 plain d
    chmod 4755 two
    chmod 2770 d
    touch -d '2020-01-02 03:04:05.123456789' plain d/deep/er
    touch -h -d '2019-01-01' dangling
"#;

/// Everything that can be told of a tree, but for the bytes that are looked at otherwise.
const TOLD: &str = r#"
    find . -path ./.horace -prune -o -printf '%P %y %m %U:%G %s %n %l ' \
        \( -name . -printf '\n' -o -printf '%T@\n' \) | LC_ALL=C sort | cat -A
    each() { find . -path ./.horace -prune -o "$1" "$2" -print0 | LC_ALL=C sort -z; }
    each -type d,f,p,c | xargs -0 getfacl -n
    each -name '*' | xargs -0 getfattr -h -m- -d
    each -type f | xargs -0 sha256sum
    find . -path ./.horace -prune -o -samefile two -print | LC_ALL=C sort
"#;

struct Move {
    mounted: Mounted,
    source: PathBuf,
}

impl Move {
    /// An empty source, and an empty target beside it.
    fn new() -> Self {
        let mounted = Mounted::unmounted("");
        let source = mounted.scratch("source");
        fs::create_dir(&source).unwrap();
        Self { mounted, source }
    }

    fn of(script: &str) -> Self {
        let this = Self::new();
        script_in(&this.source, script);
        this
    }

    fn target(&self) -> &Path {
        &self.mounted.backing
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.mounted.command();
        command.arg("migrate").args(args).arg("--").arg(&self.source).arg(self.target());
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Moves, with everything the same, and returns the records.
    #[track_caller]
    fn done(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(&[args, &["--yes", "--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        records(&output)
    }
}

fn records(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The differences among records, as `path: difference`.
fn differences(records: &[Value]) -> Vec<String> {
    let found = records.iter().filter(|record| !record["difference"].is_null());
    found.map(|r| format!("{}: {}", r["path"], r["difference"]).replace('"', "")).collect()
}

fn can_move() -> bool {
    can_mount() && have(&["rsync", "setfacl", "setfattr", "getfacl", "getfattr"])
}

#[test]
fn a_tree_comes_over_with_everything_that_it_has() {
    if !can_move() {
        return;
    }
    let mut this = Move::of(EVERYTHING);
    script_in(&this.source, "mkdir .horace; echo mine > .horace/notes; touch -d 2020-01-01 .");
    let before = script_in(&this.source, TOLD);
    let target = this.target().to_path_buf();
    let records = this.done(&[]);
    assert_eq!(script_in(&target, TOLD), before);
    assert_eq!(script_in(&this.source, TOLD), before, "the source is as it was");
    let sparse = fs::metadata(target.join("sparse")).unwrap();
    assert!(sparse.blocks() < 1 << 15, "the hole is still one: {} blocks", sparse.blocks());
    assert!(!target.join(".horace/notes").exists());
    let done = records.iter().find(|record| record["differences"] == 0).unwrap();
    assert_eq!(done["files"], 9, "{done:#}");
    let advice: Vec<_> = records.iter().filter(|r| !r["advice"].is_null()).collect();
    let heads: Vec<_> = advice.iter().map(|record| record["advice"].text()).collect();
    assert_eq!(heads, ["to go on", "to go back"]);
    let back = advice[1]["commands"].to_string();
    assert!(
        back.contains("rsync -aHAXS --numeric-ids --modify-window=-1 --delete --exclude=/.horace"),
        "{back}"
    );

    this.mounted.start();
    this.mounted.wait_reconciled();
    this.mounted.assert_catalog_is_true();
    this.mounted.assert_survives_remount();
    assert_eq!(this.mounted.log_of("plain")[0]["origin"], "import");
}

trait Text {
    fn text(&self) -> &str;
}

impl Text for Value {
    fn text(&self) -> &str {
        self.as_str().unwrap()
    }
}

#[test]
fn a_move_that_is_killed_goes_on_where_it_was() {
    if !can_move() {
        return;
    }
    let this = Move::new();
    for number in 0..60 {
        fs::write(this.source.join(format!("f{number:02}")), noise(number, 2 << 20)).unwrap();
    }
    let mut child = this.command(&["--yes"]).stdout(Stdio::null()).spawn().unwrap();
    let copied = || fs::read_dir(this.target()).unwrap().count();
    this.mounted.wait_for("some of the copy", || copied() > 8);
    child.kill().unwrap();
    child.wait().unwrap();
    // What copies ends with it, and nobody else has the target.
    let name = format!("{}/", this.target().display());
    this.mounted.wait_for("end of rsync", || {
        let found = Command::new("pgrep").args(["-f", &format!("^rsync .*{name}$")]).output();
        !found.unwrap().status.success()
    });
    let there = copied();
    assert!(there < 61, "it was killed in the midst of it: {there}");
    let first = this.target().join("f00");
    let inode = first.metadata().map(|found| found.ino()).ok();
    let plan = records(&this.run(&["--dry-run", "--json"]));
    assert_eq!(plan[0]["resumes"], true, "{plan:#?}");
    let records = this.done(&[]);
    assert_eq!(differences(&records), [] as [&str; 0]);
    if let Some(inode) = inode {
        assert_eq!(first.metadata().unwrap().ino(), inode, "it was not copied again");
    }
    assert_eq!(copied(), 61);
}

#[test]
fn a_file_that_changes_meanwhile_is_named_and_comes_with_the_next_run() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo quiet > quiet");
    fs::write(this.source.join("busy"), noise(1, 8 << 20)).unwrap();
    let busy = File::options().write(true).open(this.source.join("busy")).unwrap();
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            for byte in (0..=u8::MAX).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                busy.write_all_at(&[byte; 100], 4 << 20).unwrap();
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let output = this.run(&["--yes", "--json"]);
        stop.store(true, Ordering::Relaxed);
        output
    });
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    let found = differences(&records(&output));
    assert!(found.iter().all(|line| line.starts_with("busy: ")), "{found:?}");
    assert!(found.iter().any(|line| line.contains("content") || line.contains("changed")));
    assert_eq!(differences(&this.done(&[])), [] as [&str; 0]);
}

#[test]
fn a_copy_that_was_spoiled_is_found_by_its_bytes_and_made_good() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo whole > f; touch -d 2020-01-01 f; echo other > g");
    this.done(&[]);
    script_in(this.target(), "echo spoil > f; touch -d 2020-01-01 f; chmod 600 g; echo > more");
    let output = this.run(&["--yes", "--json"]);
    // Size and time are those of the source, so rsync takes it for the same.
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert_eq!(differences(&records(&output)), ["f: other content"]);
    assert_eq!(differences(&this.done(&[])), [] as [&str; 0]);
    assert_eq!(fs::read(this.target().join("f")).unwrap(), b"whole\n");
    assert!(!this.target().join("more").exists());
}

#[test]
fn a_dry_run_changes_nothing_and_nobody_is_moved_without_a_word() {
    if !can_move() {
        return;
    }
    let this = Move::of("mkdir d; echo x > d/f");
    let new = this.mounted.scratch("new/target");
    for args in [&["--dry-run"][..], &[]] {
        for target in [this.target(), &new] {
            let mut command = this.mounted.command();
            command.arg("migrate").args(args).args([&this.source, target]);
            let output = command.stdin(Stdio::null()).output().unwrap();
            let text = told(&output);
            assert!(text.contains("1 files, 2 directories, 2 B"), "{text}");
            assert!(text.contains("run       rsync -aHAXS --numeric-ids"), "{text}");
            if args.is_empty() {
                assert_eq!(output.status.code(), Some(1), "{text}");
                assert!(text.contains("nobody can be asked, since stdin is no terminal"), "{text}");
            } else {
                assert_eq!(output.status.code(), Some(0), "{text}");
            }
        }
    }
    assert_eq!(fs::read_dir(this.target()).unwrap().count(), 0);
    assert!(!this.mounted.scratch("new").exists());
    assert_eq!(fs::read_dir(&this.source).unwrap().count(), 1);
}

#[test]
fn who_is_asked_can_say_no() {
    if !can_move() || !have(&["script"]) {
        return;
    }
    let this = Move::of("echo x > f");
    for (answer, files) in [("n\n", 0), ("\n", 0), ("y\n", 2)] {
        let command = format!(
            "{} migrate {} {}",
            env!("CARGO_BIN_EXE_horace"),
            this.source.display(),
            this.target().display()
        );
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = script.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.as_ref().unwrap(), answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = told(&output);
        assert!(text.contains("Go on? [y/N]"), "{text}");
        assert_eq!(fs::read_dir(this.target()).unwrap().count(), files, "{answer:?} {text}");
    }
}

/// A `zfs` that makes directories, and says what it was told.
const ZFS: &str = r#"#!/bin/bash
    echo "$*" >> "$0.log"
    name="${@: -1}"
    made="$0.made/$name"
    case "$1" in
        get) if [ "$#" = 1 ]; then 
                 printf '\t%s\n' 'acltype  YES  YES  off | posix' 'atime  YES  YES  on | off' >&2
                 printf '\t%s\n' 'compression  YES  YES  on | off | lz4' >&2; exit 2; fi
             [ "$name" = tank ] && echo 1000000000 ;;
        list) [ -e "$made" ] || { echo "cannot open '$name': dataset does not exist" >&2; exit 1; }
            printf 'yes\t%s\n' "$(cat "$made")" ;;
        create) [ -e "$0.full" ] && { echo "cannot create: out of space" >&2; exit 1; }
            for word; do case "$word" in mountpoint=*) at="${word#*=}" ;; esac; done
            mkdir -p "$at" "$(dirname "$made")"; echo "$at" > "$made" ;;
        *) exit 3 ;;
    esac
"#;

#[test]
fn datasets_are_shown_and_made_and_used() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo x > f");
    let bin = this.mounted.scratch("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("zfs"), ZFS).unwrap();
    must(Command::new("chmod").arg("+x").arg(bin.join("zfs")));
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let target = this.mounted.scratch("files");
    let migrate = |args: &[&str]| {
        let mut command = this.mounted.command();
        command.env("PATH", &path).arg("migrate").args(args).args(["--uid", "1000"]);
        command.args(["--files-dataset", "tank/h/files"]).args([&this.source, &target]);
        command.stdin(Stdio::null()).output().unwrap()
    };
    let create = format!(
        "create -p -o compression=lz4 -o atime=off -o acltype=posix -o mountpoint={} tank/h/files",
        target.display()
    );
    let output = migrate(&["--dry-run"]);
    assert!(told(&output).contains(&format!("run       zfs {create}\n")), "{}", told(&output));
    assert!(told(&output).contains("(zfs, 953.67 MiB free)"), "{}", told(&output));
    let log = || fs::read_to_string(bin.join("zfs.log")).unwrap();
    assert!(!log().contains("create"), "{}", log());
    // As the predecessor's script had it.
    let mut usual = this.mounted.command();
    usual.env("PATH", &path).args(["migrate", "--dry-run"]).arg(&this.source);
    let text = told(&usual.output().unwrap());
    assert!(text.contains("o mountpoint=/mnt/tank/horace/files tank/horace/files\n"), "{text}");
    assert!(text.contains("catalog   /mnt/tank/horace/metadata\n"), "{text}");
    assert!(!log().contains("create"), "{}", log());
    fs::write(bin.join("zfs.full"), "").unwrap();
    let output = migrate(&["--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("failed: cannot create: out of space"), "{}", told(&output));
    fs::remove_file(bin.join("zfs.full")).unwrap();
    let output = migrate(&["--yes"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(log().contains(&create), "{}", log());
    assert!(told(&output).contains("zfs destroy tank/h/files"), "{}", told(&output));
    assert_eq!(fs::read(target.join("f")).unwrap(), b"x\n");
    assert_eq!(target.metadata().unwrap().uid(), 1000);
    // It is there now.
    let creations = log().matches("create").count();
    assert!(migrate(&["--yes"]).status.success());
    assert_eq!(log().matches("create").count(), creations);
}

#[test]
fn without_zfs_the_target_is_a_plain_directory() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo x > f");
    let bin = this.mounted.scratch("bin");
    fs::create_dir(&bin).unwrap();
    let rsync = must(Command::new("bash").args(["-c", "type -P rsync"]));
    std::os::unix::fs::symlink(rsync.trim(), bin.join("rsync")).unwrap();
    let mut nowhere = this.mounted.command();
    let output = nowhere.env("PATH", &bin).arg("migrate").arg(&this.source).output().unwrap();
    let text = told(&output);
    assert!(text.contains("there is no `zfs` here, and no TARGET was named"), "{text}");
    let datasets = ["--files-dataset", "tank/f", "--metadata-dataset", "tank/m", "--yes"];
    let output = this.command(&datasets).env("PATH", &bin).output().unwrap();
    let text = told(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("there is no `zfs` here: TARGET is a plain directory"), "{text}");
    assert_eq!(fs::read(this.target().join("f")).unwrap(), b"x\n");
}
