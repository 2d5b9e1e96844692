//! Reading everything again: what is damaged is told with the versions that need it, and undone where
//! another copy is left.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::callers::as_user;
use crate::disk::{Dataset, Disk};
use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, noise, sha256, told};

impl Mounted {
    /// Verifies; whether no damage remains, what was found, and the summary.
    pub(crate) fn verify(&self, args: &[&str]) -> (bool, Vec<Value>, Value) {
        let args = [&["verify", "--json", "--rate", "max"], args].concat();
        let output = self.run(&args);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut records: Vec<Value> = lines.collect();
        let summary = records.pop().unwrap_or_else(|| panic!("{}\n{}", told(&output), self.log()));
        assert_eq!(summary["record"], "summary", "{}\n{}", told(&output), self.log());
        assert!([0, 1].contains(&output.status.code().unwrap()), "{}", told(&output));
        (output.status.success(), records, summary)
    }

    /// Where the object with a content lies, once it does.
    pub(crate) fn object_of(&self, content: impl AsRef<[u8]>) -> PathBuf {
        let digest = sha256(content);
        let object =
            self.backing.join(".horace/store/objects").join(&digest[..2]).join(&digest[2..]);
        self.wait_for("object", || object.exists());
        object
    }
}

/// What a finding says of versions, as `path@number`.
pub(crate) fn versions(finding: &Value) -> Vec<String> {
    let name = |v: &Value| format!("{}@{}", v["path"].as_str().unwrap(), v["number"]);
    finding["versions"].as_array().unwrap().iter().map(name).collect()
}

fn is(finding: &Value, kind: &str, trouble: &str, outcome: &str) {
    let found = [&finding["kind"], &finding["trouble"], &finding["outcome"]];
    assert_eq!(found, [&json!(kind), &json!(trouble), &json!(outcome)], "{finding:#}");
}

#[test]
fn what_a_snapshot_has_undoes_damage() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let Some(dataset) = Dataset::name_of(&mounted.backing) else {
        eprintln!("SKIPPED: HORACE_TEST_DIR is on no ZFS, or there is no `zfs`");
        return;
    };
    let content = noise(1, 300_000);
    fs::create_dir(mounted.at("d")).unwrap();
    fs::write(mounted.at("d/f"), &content).unwrap();
    mounted.ok(&["sync"]);
    let snapshots = ["a-first", "b-second"].map(|name| format!("{dataset}@horace-{name}"));
    mounted.shell(&format!("zfs snapshot {}", snapshots[0]));
    fs::write(mounted.at("d/f"), noise(2, 300_000)).unwrap();
    let object = mounted.object_of(&content);
    mounted.shell(&format!("sync && zfs snapshot {}", snapshots[1]));
    fs::write(&object, noise(3, 300_000)).unwrap();
    let (well, findings, _) = mounted.verify(&["--restart"]);
    assert!(!well);
    assert_eq!((&findings[0]["outcome"], findings.len()), (&json!("healable"), 1), "{findings:#?}");
    let found = findings[0]["from"]["snapshot"]["path"].as_str().unwrap().to_string();
    assert!(
        found.starts_with(".zfs/snapshot/horace-a-first/") && found.ends_with("/d/f"),
        "{found}"
    );
    let told = mounted.run(&["verify", "--restart", "--rate", "max"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains(&found), "{told:?}");
    let (well, findings, _) = mounted.verify(&["--restart", "--repair"]);
    assert!(well && findings[0]["outcome"] == "healed", "{findings:#?}");
    assert_eq!(mounted.cat(&["d/f@1"]), content);
    snapshots.iter().for_each(|name| drop(mounted.shell(&format!("zfs destroy {name}"))));
}

#[test]
fn what_is_well_has_no_finding_and_is_not_touched() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    assert!(mounted.status()["verify"].is_null(), "{:#}", mounted.status());
    fs::write(mounted.at("f"), "one").unwrap();
    fs::write(mounted.at("f"), "two").unwrap();
    fs::write(mounted.at("g"), noise(1, 3_000_000)).unwrap();
    mounted.object_of("one");
    let times =
        || ["f", "g"].map(|name| fs::metadata(mounted.backing.join(name)).unwrap().atime_nsec());
    let before = times();
    let (well, findings, summary) = mounted.verify(&[]);
    assert!(well && findings.is_empty(), "{findings:#?}");
    assert_eq!((&summary["objects"], &summary["files"]), (&json!(1), &json!(2)), "{summary:#}");
    assert_eq!((&summary["bytes"], &summary["skipped"]), (&json!(3_000_006), &json!(0)));
    assert_eq!(times(), before, "that it was read does not show");
    mounted.remount();
    let status = mounted.status();
    assert_eq!(status["verify"]["finished"], summary["finished"], "{status:#}");
    assert!(mounted.ok(&["status", "."]).contains("1 objects, 0 packs and 2 files read"));
    assert!(mounted.ok(&["verify", "."]).contains("no damage"));
}

#[test]
fn bits_that_rot_in_a_live_file_are_told_apart_from_changes_around_the_mount() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 1024, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "");
    for name in ["rotten", "changed", "well"] {
        fs::write(mounted.at(name), noise(1, 10_000)).unwrap();
    }
    OpenOptions::new().append(true).open(mounted.at("rotten")).unwrap().write_all(b"more").unwrap();
    disk.rot(&mounted.backing.join("rotten"), 5000);
    fs::write(mounted.backing.join("changed"), "around the mount").unwrap();
    let (well, findings, summary) = mounted.verify(&[]);
    assert!(!well, "{findings:#?}");
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let by_path = |path: &str| findings.iter().find(|f| f["path"] == path).unwrap();
    is(by_path("rotten"), "file", "bit-rot", "lost");
    assert_eq!(versions(by_path("rotten")), ["rotten@1", "rotten@2"], "its beginning, too");
    is(by_path("changed"), "file", "external", "harmless");
    assert_eq!((&summary["damaged"], &summary["external"]), (&json!(1), &json!(1)));
    assert_eq!(mounted.log_of("changed").last().unwrap()["origin"], "external");
    let (_, findings, _) = mounted.verify(&[]);
    assert_eq!(findings.len(), 1, "the change is known by now");
    assert_eq!(mounted.log_of("rotten").len(), 2, "damage is no version");
}

#[rstest]
fn a_rotten_file_is_healed_in_its_own_inode(#[values("file", "object")] from: &str) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 1024, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "");
    let content = noise(1, 3_000_000);
    for name in ["f", "copy"] {
        fs::write(mounted.at(name), &content).unwrap();
    }
    fs::hard_link(mounted.at("f"), mounted.at("other name")).unwrap();
    if from == "object" {
        fs::remove_file(mounted.at("copy")).unwrap();
        mounted.object_of(&content);
    }
    disk.rot(&mounted.backing.join("f"), 2_500_000);
    let facts = || {
        let found = fs::metadata(mounted.backing.join("f")).unwrap();
        (found.ino(), found.nlink(), found.mtime(), found.mtime_nsec())
    };
    let before = facts();
    let (well, findings, _) = mounted.verify(&[]);
    assert!(!well);
    is(&findings[0], "file", "bit-rot", "healable");
    assert_ne!(fs::read(mounted.backing.join("f")).unwrap(), content, "not without being asked");
    let kind = if from == "object" { "object" } else { "version" };
    assert_eq!(findings[0]["from"]["kind"], kind, "{findings:#?}");
    let (well, findings, summary) = mounted.verify(&["--repair"]);
    assert!(well, "{findings:#?}");
    is(&findings[0], "file", "bit-rot", "healed");
    assert_eq!(summary["healed"], 1);
    assert!(fs::read(mounted.backing.join("f")).unwrap() == content);
    assert_eq!(facts(), before);
    assert_eq!(mounted.log_of("f").len(), 1, "the same bytes make no version");
    assert!(mounted.verify(&[]).0);
    mounted.ok(&["reconcile", "."]);
    assert_eq!(mounted.status()["reconcile"]["read_files"], 0, "the catalog knows its times");
}

#[test]
fn a_file_that_somebody_writes_to_is_left_alone() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 1024, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "");
    for name in ["f", "copy"] {
        fs::write(mounted.at(name), noise(1, 10_000)).unwrap();
    }
    disk.rot(&mounted.backing.join("f"), 5000);
    let file = OpenOptions::new().append(true).open(mounted.at("f")).unwrap();
    let (well, findings, summary) = mounted.verify(&["--repair"]);
    assert!(well && findings.is_empty(), "{findings:#?}");
    assert_eq!(summary["skipped"], 1);
    drop(file);
    // The kernel gives up a closed file some time later.
    let mut last = None;
    mounted.wait_for("end of the file", || {
        let (well, findings, summary) = mounted.verify(&["--repair"]);
        last = Some((well, findings));
        summary["skipped"] == 0
    });
    let (well, findings) = last.unwrap();
    assert!(well && findings.len() == 1, "{findings:#?}");
}

type Damaging = fn(&Path);

/// How an object can be damaged.
const DAMAGES: [(&str, Damaging); 3] = [
    ("missing", |path| fs::remove_file(path).unwrap()),
    ("damaged", |path| File::options().write(true).open(path).unwrap().set_len(7).unwrap()),
    ("damaged", |path| {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 11).unwrap();
        file.write_all_at(&[byte[0] ^ 4], 11).unwrap();
    }),
];

#[rstest]
fn a_damaged_object_is_rebuilt_from_whatever_has_its_bytes(
    #[values(0, 1, 2)] damage: usize,
    #[values("nothing", "file", "longer")] from: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let content = noise(7, 20_000);
    fs::write(mounted.at("f"), &content).unwrap();
    let expected = match from {
        "longer" => {
            // Not as an appending program does it: so the old content is kept for itself.
            let mut file = OpenOptions::new().write(true).open(mounted.at("f")).unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(b"and on").unwrap();
            "healable"
        }
        "file" => {
            fs::write(mounted.at("g"), &content).unwrap();
            fs::write(mounted.at("f"), "new").unwrap();
            "healable"
        }
        _ => {
            fs::write(mounted.at("f"), "new").unwrap();
            "lost"
        }
    };
    let object = mounted.object_of(&content);
    mounted.sync();
    let (trouble, damaging) = DAMAGES[damage];
    damaging(&object);
    let (well, findings, _) = mounted.verify(&[]);
    assert!(!well);
    is(&findings[0], "object", trouble, expected);
    assert_eq!(versions(&findings[0]), ["f@1"]);
    let (well, findings, _) = mounted.verify(&["--repair"]);
    assert_eq!(well, from != "nothing", "{findings:#?}");
    if !well {
        is(&findings[0], "object", trouble, "lost");
        assert_eq!(object.exists(), damage != 0, "what is left of it stays");
        return;
    }
    is(&findings[0], "object", trouble, "healed");
    assert!(mounted.run(&["cat", "f@1"]).stdout == content);
    let aside = crate::tools::files_below(&mounted.backing.join(".horace/store/damaged"));
    assert_eq!(aside.len(), usize::from(damage != 0), "it went aside");
    assert!(mounted.verify(&[]).0);
}

#[rstest]
fn what_the_disk_cannot_read_is_told_and_healed(#[values("file", "object")] what: &str) {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("btrfs", 1024, &["-q"], "") else { return };
    let mounted = Mounted::on(&disk.path(), "");
    let content = noise(3, 65_536);
    fs::write(mounted.at("f"), &content).unwrap();
    if what == "object" {
        fs::remove_file(mounted.at("f")).unwrap();
        mounted.object_of(&content);
    }
    disk.damage(&content[8192..12288]);
    let (well, findings, _) = mounted.verify(&["--restart"]);
    assert!(!well);
    is(&findings[0], what, "unreadable", "lost");
    assert_eq!(versions(&findings[0]), ["f@1"]);
    fs::write(mounted.at("again"), &content).unwrap();
    let (well, findings, _) = mounted.verify(&["--repair"]);
    assert!(well, "{findings:#?}");
    is(&findings[0], what, "unreadable", "healed");
    disk.sync();
    assert!(mounted.run(&["cat", "f@1"]).stdout == content);
    assert!(mounted.verify(&[]).0);
}

#[test]
fn a_run_that_is_broken_off_goes_on_where_it_stopped() {
    if !can_mount() {
        return;
    }
    const FILES: u64 = 40;
    let mut mounted = Mounted::new();
    for n in 0..FILES {
        fs::write(mounted.at(format!("f{n}")), noise(n, 10_000)).unwrap();
    }
    let begin = |mounted: &Mounted| {
        let mut command = mounted.command();
        command.args(["verify", "--rate", "10k"]).arg(&mounted.mountpoint).current_dir("/");
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let files = |mounted: &Mounted| mounted.status()["verify"]["files"].as_u64().unwrap_or(0);
    // As Ctrl-C would, which a shell makes its background jobs ignore.
    let mut client = begin(&mounted);
    mounted.wait_for("some files", || files(&mounted) > 2);
    let second = mounted.run(&["verify"]);
    assert!(told(&second).contains("another verify is under way"), "{}", told(&second));
    kill_process(Pid::from_child(&client), Signal::TERM).unwrap();
    client.wait().unwrap();
    mounted.wait_for("its end", || mounted.status()["verify"]["running"] == false);
    let first = mounted.status()["verify"].clone();
    assert!(first["finished"].is_null(), "{first:#}");
    assert!(mounted.ok(&["status", "."]).contains("broken off"));
    // An unmount.
    let mut client = begin(&mounted);
    let before = files(&mounted);
    mounted.wait_for("more files", || files(&mounted) > before);
    mounted.remount();
    client.wait().unwrap();
    assert!(files(&mounted) > before, "it went on");
    let (well, _, summary) = mounted.verify(&[]);
    assert!(well);
    assert_eq!((&summary["files"], &summary["started"]), (&json!(FILES), &first["started"]));
    let (_, _, anew) = mounted.verify(&["--restart"]);
    assert_eq!(anew["files"], FILES);
    assert_ne!(anew["started"], first["started"]);
}

#[test]
fn only_root_may_have_everything_read() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::new();
    for (command, what) in [("verify", "verify everything"), ("reconcile", "start a reconcile")] {
        let mut user = as_user(65_534, env!("CARGO_BIN_EXE_horace"));
        user.arg(command).arg(&mounted.mountpoint).env("HORACE_RUNTIME_DIR", &mounted.runtime);
        let output = user.output().unwrap();
        let denied = format!("only root and the user who mounted may {what}");
        assert!(told(&output).contains(&denied), "{}", told(&output));
        assert_eq!(output.status.code(), Some(1));
    }
}

#[rstest]
fn a_damaged_pack_costs_what_is_in_the_frame_and_that_can_be_rebuilt(
    #[values("flip", "delete")] damage: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("pack_after=0");
    let contents: Vec<Vec<u8>> =
        (0_u64..).zip(40..46).map(|(n, kilobytes)| noise(n / 3, kilobytes * 1000)).collect();
    for content in &contents {
        fs::write(mounted.at("f"), content).unwrap();
    }
    fs::remove_file(mounted.at("f")).unwrap();
    let store = mounted.backing.join(".horace/store");
    let below = |dir: &str| crate::tools::files_below(&store.join(dir));
    let packed = || below("objects").is_empty() && below("incoming").is_empty();
    mounted.wait_for("packs", || packed() && !below("packs").is_empty());
    let (well, findings, summary) = mounted.verify(&[]);
    assert!(well && findings.is_empty(), "{findings:#?}");
    assert_eq!((&summary["objects"], summary["packs"].as_u64() > Some(0)), (&json!(6), true));
    let pack = below("packs").into_values().max_by_key(|p| p.metadata().unwrap().len()).unwrap();
    if damage == "delete" {
        fs::remove_file(&pack).unwrap();
    } else {
        let file = File::options().read(true).write(true).open(&pack).unwrap();
        let (middle, mut byte) = (pack.metadata().unwrap().len() / 2, [0]);
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
    }
    let (well, findings, _) = mounted.verify(&[]);
    assert!(!well);
    assert_eq!(findings[0]["kind"], "pack", "{findings:#?}");
    let lost: Vec<String> = findings.iter().flat_map(versions).collect();
    for number in 1..=contents.len() {
        let version = format!("f@{number}");
        let there = mounted.run(&["cat", &version]).stdout == contents[number - 1];
        // What a reader has in memory may still be had.
        assert!(there || lost.contains(&version), "{version} of {lost:?}");
    }
    for (n, content) in contents.iter().enumerate() {
        fs::write(mounted.at(format!("again {n}")), content).unwrap();
    }
    let (well, findings, summary) = mounted.verify(&["--repair"]);
    assert!(well, "{findings:#?}");
    assert_eq!(summary["healed"], lost.len(), "{findings:#?}");
    // What was put right is packed again, and not into what is damaged.
    for _ in 0..10 {
        let (well, findings, _) = mounted.verify(&[]);
        assert!(well, "{findings:#?}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    for number in 1..=contents.len() {
        let output = mounted.run(&["cat", &format!("f@{number}")]);
        assert!(output.stdout == contents[number - 1], "{}", told(&output));
    }
}
