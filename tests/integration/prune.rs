//! Pruning: what the policy drops goes, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{files_below, have, must, noise, sha256, told};

/// Keeps two versions of each file.
const TWO: &str = "[retention.default]\nkeep = { last = 2 }\nlimit = {}\n";

impl Mounted {
    /// The objects in the store, with their sizes.
    pub(crate) fn objects(&self) -> BTreeMap<String, u64> {
        let dir = self.backing.join(".horace/store/objects");
        let digest = |name: &[u8]| String::from_utf8_lossy(name).replace('/', "");
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        files_below(&dir).iter().map(|(name, path)| (digest(name), size(path))).collect()
    }

    /// What `prune` decides, by `PATH@NUMBER`, and the totals.
    fn prune(&self, args: &[&str]) -> (BTreeMap<String, String>, Value) {
        let records = self.records(&[&["prune"], args].concat());
        let (last, decisions) = records.split_last().unwrap();
        let decision = |record: &Value| {
            let text = |field: &str| record[field].as_str().unwrap().to_owned();
            let name = format!("{}@{}", text("path"), record["number"]);
            (name, format!("{}: {}", text("decision"), text("reason")))
        };
        (decisions.iter().map(decision).collect(), last["total"].clone())
    }

    /// Where the contents of a path are, oldest first.
    fn contents(&self, path: &str) -> Vec<String> {
        let content = |version: Value| version["content"].as_str().unwrap().to_owned();
        self.log_of(path).into_iter().map(content).collect()
    }
}

fn append(path: impl AsRef<Path>, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn what_the_policy_drops_goes_and_stays_in_the_log() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::configured("", TWO);
    for n in 0..4 {
        fs::write(mounted.at("f"), noise(n, 1000)).unwrap();
        fs::write(mounted.at("gone"), noise(10 + n, 2000)).unwrap();
    }
    fs::remove_file(mounted.at("gone")).unwrap();
    fs::write(mounted.at("one version"), "x").unwrap();
    let digests = mounted.digests("f");
    let (decisions, total) = mounted.prune(&[]);
    let expected = [
        ("f@1", "drop: older than every rule"),
        ("f@2", "drop: older than every rule"),
        ("f@3", "keep: last 2"),
        ("f@4", "keep: head, last 2"),
        ("gone@1", "drop: older than every rule"),
        ("gone@2", "drop: older than every rule"),
        ("gone@3", "keep: last 2"),
        ("gone@4", "keep: last 2"),
    ];
    let expected = expected.map(|(name, decision)| (name.to_owned(), decision.to_owned()));
    assert_eq!(decisions, BTreeMap::from(expected));
    let figures =
        ["versions", "dropped", "freed_bytes"].map(|field| total[field].as_u64().unwrap());
    assert_eq!(figures, [7, 4, 6000]);
    assert_eq!(mounted.contents("f"), ["none", "none", "object", "head"]);
    assert_eq!(mounted.contents("gone"), ["none", "none", "object", "object"]);
    let log = mounted.log_of("f");
    assert_eq!(log[0]["content_reason"], "pruned");
    assert_eq!(mounted.digests("f"), digests, "versions and digests stay");
    // The last of what was deleted comes when the kernel has forgotten it.
    mounted.wait_for("objects", || mounted.objects().values().sum::<u64>() == 5000);
    assert!(told(&mounted.run(&["cat", "f@1"])).contains("was not kept: pruned"));
    assert_eq!(mounted.prune(&[]).1["dropped"], 0, "it is done");
    let status = mounted.status();
    assert_eq!(
        (&status["last_prune"]["dropped"], &status["last_prune"]["error"]),
        (&0.into(), &Value::Null)
    );
}

#[test]
fn a_dry_run_changes_nothing() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::configured("", TWO);
    for n in 0..4 {
        fs::write(mounted.at("f"), noise(n, 1000)).unwrap();
    }
    mounted.sync();
    let state = || {
        let catalog = mounted.shell(
            "python3 - <<'E'\nimport sqlite3, hashlib\ndb = sqlite3.connect('file:../backing/.horace/catalog.db?mode=ro', uri=True)\nprint(hashlib.sha256(repr(list(db.iterdump())).encode()).hexdigest())\nE",
        );
        (catalog, mounted.objects())
    };
    let before = state();
    let (decisions, total) = mounted.prune(&["--dry-run"]);
    assert_eq!(decisions.values().filter(|d| d.starts_with("drop")).count(), 2);
    assert_eq!((&total["dropped"], &total["freed_bytes"]), (&2.into(), &2000.into()));
    let text = mounted.ok(&["prune", "-n"]);
    assert!(text.contains("drop  f@1  1000 B  older than every rule\n"), "{text}");
    assert!(text.ends_with("would drop 2 of 3 old versions and free 1.95 KiB\n"), "{text}");
    mounted.sync();
    assert_eq!(state(), before);
    mounted.assert_kept("f");
}

/// What shares its bytes with something that is kept stays, however it shares them.
#[test]
fn a_content_that_something_kept_needs_stays() {
    if !can_mount() {
        return;
    }
    let policy = "[retention.default]\nkeep = { last = 1 }\nlimit = {}\n\
                  [[retention.rule]]\nglobs = [\"keep*\"]\nkeep = { last = \"all\" }\nlimit = {}\n";
    let mounted = Mounted::configured("", policy);
    // The same bytes in a file of which everything is kept.
    for name in ["keep-same", "same"] {
        fs::write(mounted.at(name), noise(1, 1000)).unwrap();
        fs::write(mounted.at(name), noise(2, 1000)).unwrap();
    }
    // The beginning of what is dropped, pinned.
    fs::write(mounted.at("log"), "one").unwrap();
    append(mounted.at("log"), b" two");
    append(mounted.at("log"), b" three");
    fs::write(mounted.at("log"), "new").unwrap();
    assert_eq!(mounted.contents("log"), ["prefix", "prefix", "object", "head"]);
    mounted.ok(&["pin", "log@1"]);
    // Only the beginning of what is live, and there is an object with the same bytes.
    fs::write(mounted.at("grows"), "begins").unwrap();
    append(mounted.at("grows"), b" and grows");
    fs::write(mounted.at("short"), "begins").unwrap();
    fs::write(mounted.at("short"), "new").unwrap();
    // Moved over another file, of which everything is kept; the first is nothing of its own.
    fs::write(mounted.at("moved"), noise(3, 1000)).unwrap();
    fs::write(mounted.at("keep-moved"), "old").unwrap();
    fs::rename(mounted.at("moved"), mounted.at("keep-moved")).unwrap();
    fs::write(mounted.at("keep-moved"), "new").unwrap();
    fs::write(mounted.at("moved"), "new").unwrap();
    // A live file has the same bytes as what is kept.
    fs::write(mounted.at("keep-head"), noise(4, 1000)).unwrap();
    fs::write(mounted.at("keep-head"), "new").unwrap();
    fs::write(mounted.at("live"), noise(4, 1000)).unwrap();
    let (decisions, total) = mounted.prune(&[]);
    assert_eq!(decisions["same@1"], "keep: takes no space of its own");
    assert_eq!(decisions["log@1"], "keep: pinned");
    assert_eq!(decisions["log@2"], "keep: takes no space of its own");
    assert_eq!(decisions["log@3"], "keep: takes no space of its own");
    assert_eq!(decisions["grows@1"], "keep: takes no space of its own");
    assert_eq!(decisions["moved@1"], "keep: takes no space of its own");
    assert!(decisions["short@1"].starts_with("drop"));
    assert_eq!(total["dropped"], 1, "{decisions:#?}");
    for name in ["keep-same", "same", "log", "grows", "keep-moved", "moved", "keep-head", "live"] {
        mounted.assert_kept(name);
    }
    // Once nothing needs them, they go, and the bytes count once.
    mounted.ok(&["unpin", "log@1"]);
    let (decisions, total) = mounted.prune(&["log"]);
    assert!(decisions["log@1"].starts_with("drop") && decisions["log@3"].starts_with("drop"));
    assert_eq!((&total["dropped"], &total["freed_bytes"]), (&3.into(), &13.into()));
    assert_eq!(mounted.contents("log"), ["none", "none", "none", "head"]);
}

/// Though its bytes can be had already: it would come back.
#[test]
fn what_is_on_its_way_to_the_store_is_not_dropped_yet() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::configured("", "[retention.default]\nkeep = { last = 1 }\nlimit = {}\n");
    let replace = |name: &str| {
        fs::write(mounted.at("new"), noise(2, 1000)).unwrap();
        fs::rename(mounted.at("new"), mounted.at(name)).unwrap();
    };
    for name in ["stored", "open"] {
        fs::write(mounted.at(name), noise(1, 1000)).unwrap();
    }
    let open = fs::File::open(mounted.at("open")).unwrap();
    replace("stored");
    replace("open");
    mounted.wait_for("object", || mounted.objects().len() == 1);
    assert_eq!(mounted.contents("open"), ["object", "head"]);
    let (decisions, _) = mounted.prune(&[]);
    assert!(decisions["stored@1"].starts_with("drop"), "{decisions:#?}");
    assert_eq!(decisions["open@1"], "keep: in use");
    mounted.assert_kept("open");
    drop(open);
    mounted.wait_for("object", || mounted.objects().len() == 1);
    assert!(mounted.prune(&[]).0["open@1"].starts_with("drop"));
    assert_eq!(mounted.contents("open"), ["none", "head"]);
    assert_eq!(mounted.objects().len(), 0);
}

#[test]
fn a_part_of_the_tree_can_be_pruned() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::configured("", TWO);
    for dir in ["a", "ab"] {
        fs::create_dir(mounted.at(dir)).unwrap();
        for n in 0..3 {
            fs::write(mounted.at(dir).join("f"), noise(n, 100)).unwrap();
        }
    }
    let (decisions, total) = mounted.prune(&["a"]);
    assert!(decisions.keys().all(|name| name.starts_with("a/")), "{decisions:?}");
    assert_eq!(decisions["a/f@1"], "keep: takes no space of its own", "`ab/f` has the same");
    assert_eq!(total["dropped"], 0);
    assert_eq!(mounted.prune(&["--dry-run", "."]).1["dropped"], 2);
    mounted.assert_kept("ab/f");
}

#[test]
fn a_run_that_would_drop_too_much_is_refused() {
    if !can_mount() {
        return;
    }
    let policy = format!("{TWO}[retention.cap]\nshare_from = 0\nshare = \"40%\"\n");
    let mounted = Mounted::configured("", &policy);
    for n in 0..4 {
        fs::write(mounted.at("f"), noise(n, 1000)).unwrap();
    }
    let output = mounted.run(&["prune"]);
    assert_eq!(output.status.code(), Some(1));
    let text = told(&output);
    let error =
        "nothing was dropped: would drop 2 of 3 (67%), and `cap.share` allows 40% in one run";
    assert!(text.contains(error) && text.contains("`--no-cap` lets it go"), "{text}");
    assert!(mounted.ok(&["prune", "-n"]).contains("would be refused: would drop 2 of 3 (67%)"));
    mounted.assert_kept("f");
    assert!(mounted.status()["last_prune"]["error"].as_str().unwrap().contains("would drop 2"));
    assert!(mounted.ok(&["status", "."]).contains("not done, would drop 2 of 3"));
    let done = mounted.ok(&["prune", "--no-cap"]);
    assert!(done.ends_with("dropped 2 of 3 old versions, freed 1.95 KiB\n"), "{done}");
    assert_eq!(mounted.contents("f"), ["none", "none", "object", "head"]);
}

fn as_user(mounted: &Mounted, uid: u32, args: &[&str]) -> Output {
    let uid = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    command.arg(env!("CARGO_BIN_EXE_horace")).args(args);
    command.env("HORACE_RUNTIME_DIR", &mounted.runtime).current_dir(&mounted.mountpoint);
    command.output().unwrap()
}

#[test]
fn pins_and_notes_are_shown_and_hold() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::configured("", TWO);
    for n in 0..5 {
        fs::write(mounted.at("f"), noise(n, 1000)).unwrap();
    }
    let second = sha256(noise(1, 1000));
    assert_eq!(mounted.ok(&["pin", "f@1"]), "f@1: pinned\n");
    assert_eq!(mounted.ok(&["pin", &format!("f@{}", &second[..8])]), "f@2: pinned\n");
    let told_note = mounted.ok(&["note", "f@2", "sent to the printer"]);
    assert_eq!(told_note, "f@2: pinned, note: sent to the printer\n");
    mounted.ok(&["note", "f", "the newest"]);
    let text = mounted.ok(&["log", "f"]);
    assert!(text.contains("NOTE") && text.contains("kept, pinned  sent to the printer"), "{text}");
    let log = mounted.log_of("f");
    assert_eq!((&log[1]["pinned"], &log[2]["pinned"]), (&true.into(), &false.into()));
    assert_eq!(
        (&log[1]["note"], &log[4]["note"]),
        (&"sent to the printer".into(), &"the newest".into())
    );
    mounted.sync();
    mounted.kill();
    mounted.start();
    mounted.wait_reconciled();
    let (decisions, _) = mounted.prune(&["--no-cap"]);
    assert_eq!(decisions["f@2"], "keep: pinned");
    assert_eq!(mounted.contents("f"), ["object", "object", "none", "object", "head"]);
    assert_eq!(mounted.ok(&["unpin", "f@1"]), "f@1: not pinned\n");
    assert_eq!(mounted.ok(&["note", "f@2", ""]), "f@2: pinned\n");
    mounted.ok(&["prune"]);
    assert_eq!(mounted.contents("f"), ["none", "object", "none", "object", "head"]);
    let refused = told(&mounted.run(&["pin", "f@3"]));
    assert!(refused.contains("the content of this version was not kept: pruned"), "{refused}");
    assert_eq!(mounted.log_of("f")[2]["pinned"], false);
}

/// Root and the owner, as of now or when the file was deleted.
#[test]
fn only_the_owner_and_root_may_pin() {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::configured("", TWO);
    fs::set_permissions(mounted.at(""), PermissionsExt::from_mode(0o755)).unwrap();
    for name in ["f", "gone"] {
        fs::write(mounted.at(name), "one").unwrap();
        fs::write(mounted.at(name), "two").unwrap();
        chown(mounted.at(name), Some(4711), Some(4711)).unwrap();
    }
    fs::remove_file(mounted.at("gone")).unwrap();
    for name in ["f@1", "gone@1"] {
        for args in [vec!["pin", name], vec!["note", name, "mine"], vec!["unpin", name]] {
            let output = as_user(&mounted, 4712, &args);
            let error = told(&output);
            assert!(error.contains("only root and the owner may mark versions"), "{error}");
            let output = as_user(&mounted, 4711, &args);
            assert!(output.status.success(), "{args:?}: {}", told(&output));
        }
    }
    let output = as_user(&mounted, 4711, &["prune", "."]);
    assert!(told(&output).contains("only root and the user who mounted may prune"));
    let output = as_user(&mounted, 4711, &["prune", "--dry-run", "."]);
    assert!(!output.status.success(), "it tells of everybody's files");
}

/// A pin holds although the policy leaves the file out.
#[test]
fn what_is_pinned_keeps_what_it_is_the_beginning_of() {
    if !can_mount() {
        return;
    }
    let policy = "[retention.default]\nkeep = { last = \"all\" }\nlimit = { size = \"1K\" }\n";
    let mounted = Mounted::configured("prune=off", policy);
    let f = mounted.at("f");
    fs::write(&f, noise(1, 1000)).unwrap();
    append(&f, &noise(2, 50));
    mounted.ok(&["pin", "f@1"]);
    fs::write(&f, "new").unwrap();
    assert_eq!(mounted.cat(&["f@1"]), noise(1, 1000));
}

#[test]
fn what_is_pinned_while_it_is_the_newest_is_kept_when_it_is_replaced() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::configured("", "[retention]\nexclude = [\"*.tmp\"]\n");
    for name in ["f.tmp", "pinned.tmp"] {
        fs::write(mounted.at(name), format!("one of {name}")).unwrap();
    }
    mounted.ok(&["pin", "pinned.tmp"]);
    for name in ["f.tmp", "pinned.tmp"] {
        fs::write(mounted.at(name), "two").unwrap();
    }
    assert_eq!(mounted.contents("f.tmp"), ["none", "head"]);
    assert_eq!(mounted.contents("pinned.tmp"), ["object", "head"]);
}

#[test]
fn the_daemon_prunes_by_itself_and_remembers_when() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::configured("prune=2s", TWO);
    for n in 0..4 {
        fs::write(mounted.at("f"), noise(n, 1000)).unwrap();
    }
    mounted.wait_for("prune", || mounted.objects().len() == 1);
    mounted.wait_for("word of it", || !mounted.status()["last_prune"].is_null());
    let text = mounted.ok(&["status", "."]);
    assert!(text.contains("pruned"), "{text}");
    mounted.umount();
    let stopped =
        mounted.command().args(["status", "--json"]).arg(&mounted.backing).output().unwrap();
    let status: Value = serde_json::from_slice(&stopped.stdout).unwrap();
    assert!(status["last_prune"]["time"].is_string(), "{status:#}");
}

/// What a crash leaves between an object and the word of it is found by the next start, wherever the
/// crash came.
#[test]
fn an_object_that_nobody_has_told_of_is_adopted() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::configured("", TWO);
    for n in 0..4 {
        fs::write(mounted.at("f"), noise(n, 1000)).unwrap();
    }
    mounted.sync();
    let objects = mounted.backing.join(".horace/store/objects");
    let digest = sha256(noise(0, 1000));
    let object = objects.join(&digest[..2]).join(&digest[2..]);
    mounted.wait_for("object", || object.exists());
    let bytes = fs::read(&object).unwrap();
    mounted.ok(&["prune"]);
    assert!(!object.exists());
    mounted.sync();
    mounted.kill();
    // As if it had come before the object was removed.
    fs::write(&object, &bytes).unwrap();
    mounted.start();
    mounted.wait_for("adoption", || mounted.contents("f")[0] == "object");
    assert_eq!(mounted.contents("f"), ["object", "none", "object", "head"]);
    mounted.ok(&["prune"]);
    assert!(!object.exists());
}

/// Such as a crash leaves: until then, what needs it may be on its way to the catalog.
#[test]
fn what_nobody_needs_goes_after_a_day() {
    if !can_mount() || !have(&["sqlite3"]) {
        return;
    }
    let mut mounted = Mounted::configured("", TWO);
    fs::write(mounted.at("f"), "one").unwrap();
    fs::write(mounted.at("f"), "two").unwrap();
    mounted.wait_for("object", || mounted.objects().len() == 1);
    mounted.sync();
    mounted.kill();
    let digest = sha256("of no file");
    let dir = mounted.backing.join(".horace/store/objects").join(&digest[..2]);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(&digest[2..]), "of no file").unwrap();
    let catalog = mounted.backing.join(".horace/catalog.db");
    let known = || {
        let sql = "SELECT count(*) FROM object";
        must(Command::new("sqlite3").arg("-readonly").arg(&catalog).arg(sql)).trim().to_owned()
    };
    mounted.start();
    mounted.wait_for("adoption", || known() == "2");
    mounted.ok(&["prune"]);
    assert_eq!(mounted.objects().len(), 2, "it is young");
    mounted.umount();
    let older = "UPDATE object SET stored_ns = stored_ns - 86400000000000";
    must(Command::new("sqlite3").arg(&catalog).arg(older));
    mounted.start();
    mounted.ok(&["prune"]);
    assert_eq!(mounted.objects().into_keys().collect::<Vec<_>>(), [sha256("one")]);
    mounted.assert_kept("f");
}

/// Bytes that move between two names do not lead in a circle once they are gone.
#[test]
fn a_content_that_was_moved_to_and_fro_is_lost_in_order() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::configured("", "[retention.default]\nkeep = { last = 1 }\nlimit = {}\n");
    fs::write(mounted.at("a"), "same").unwrap();
    fs::write(mounted.at("b"), "same").unwrap();
    fs::rename(mounted.at("b"), mounted.at("a")).unwrap();
    fs::write(mounted.at("b"), "same").unwrap();
    fs::rename(mounted.at("a"), mounted.at("b")).unwrap();
    fs::write(mounted.at("b"), "other").unwrap();
    fs::write(mounted.at("b"), "newest").unwrap();
    mounted.assert_kept("b");
    mounted.ok(&["prune", "--no-cap"]);
    mounted.log_of("a");
    mounted.log_of("b");
}
