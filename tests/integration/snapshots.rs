//! Snapshots of the backing filesystem, on the real thing: zfs-fuse on a file, btrfs on a loop device.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use horace::snapshots::{Backend, BackendKind, Mark, Programs, Snapshot, probe};
use horace::types::Seq;
use rstest::rstest;
use uuid::Uuid;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::pool::Pool;
use crate::tools::{have, must, told};

/// Nothing is taken soon after a start.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

const CATALOG: Uuid = Uuid::from_u128(42);

fn mark(seq: u64) -> Mark {
    Mark { seq: Seq(seq), catalog: CATALOG }
}

/// A filesystem with snapshots.
pub(crate) enum Volume {
    Zfs(Pool),
    Btrfs(Disk),
}

impl Volume {
    /// One of a kind; says loudly if there cannot be one.
    pub(crate) fn new(kind: BackendKind) -> Option<Self> {
        if !can_mount() {
            return None;
        }
        if kind == BackendKind::Zfs {
            return Pool::new().map(Self::Zfs);
        }
        if !have(&["btrfs"]) {
            return None;
        }
        let disk = Disk::new("btrfs", 512, &["-q"], "")?;
        must(Command::new("btrfs").args(["subvolume", "create"]).arg(disk.path().join("volume")));
        Some(Self::Btrfs(disk))
    }

    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Zfs(pool) => pool.path(),
            Self::Btrfs(disk) => disk.path().join("volume"),
        }
    }

    /// Whether anybody can look into its snapshots.
    fn has_way_in(&self) -> bool {
        match self {
            Self::Zfs(pool) => !pool.is_fuse(),
            Self::Btrfs(_) => true,
        }
    }

    /// Has somebody else take a snapshot.
    fn foreign(&self, name: &str) {
        match self {
            Self::Zfs(pool) => drop(pool.zfs(&["snapshot"], &format!("/files@{name}"))),
            Self::Btrfs(_) => {
                let to = self.path().join(".horace/snapshots").join(name);
                let mut btrfs = Command::new("btrfs");
                btrfs.args(["subvolume", "snapshot", "-r"]).arg(self.path()).arg(to);
                must(&mut btrfs);
            }
        }
    }

    fn backend(&self) -> Arc<dyn Backend> {
        let programs = Programs::start(|| {}).unwrap();
        probe(&open(&self.path()), ".horace", Some(Arc::new(programs)))
    }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn names(list: &[Snapshot]) -> Vec<&str> {
    list.iter().map(|snapshot| &*snapshot.name).collect()
}

#[rstest]
fn snapshots_are_taken_listed_held_and_destroyed(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let backend = volume.backend();
    assert_eq!((backend.kind(), backend.reason()), (kind, None));
    assert_eq!(backend.list().unwrap(), []);
    fs::write(volume.path().join("f"), "one").unwrap();
    backend.create("hourly-20260131-140000", &mark(7)).unwrap();
    fs::write(volume.path().join("f"), "two").unwrap();
    backend.create("daily-20260131-140000", &mark(8)).unwrap();
    volume.foreign("hourly-20200101-000000");
    let list = backend.list().unwrap();
    let taken = ["hourly-20260131-140000", "daily-20260131-140000", "hourly-20200101-000000"];
    assert_eq!(names(&list), taken, "in the order in which they were taken");
    assert_eq!([list[0].mark, list[1].mark, list[2].mark], [Some(mark(7)), Some(mark(8)), None]);
    assert_ne!(list[0].guid, list[1].guid);
    assert!(backend.create(taken[0], &mark(9)).is_err(), "there is one of that name");
    backend.hold(taken[0]).unwrap();
    assert!(backend.hold(taken[0]).is_err() && backend.hold("nothing").is_err());
    assert_eq!(backend.list().unwrap()[0].holds, 1);
    let done = backend.destroy(&[taken[0], taken[1], "nothing"]);
    let gone: Vec<_> = done.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(gone, [false, true, false], "{done:?}");
    backend.release(taken[0]).unwrap();
    assert!(backend.release(taken[0]).is_err());
    assert!(backend.destroy(&[taken[0]])[0].1.is_ok());
    assert_eq!(names(&backend.list().unwrap()), [taken[2]]);
}

#[test]
fn a_snapshot_of_btrfs_shows_what_was_there() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let backend = volume.backend();
    fs::create_dir(volume.path().join("d")).unwrap();
    fs::write(volume.path().join("d/f"), "one").unwrap();
    backend.create("a", &mark(1)).unwrap();
    fs::write(volume.path().join("d/f"), "two").unwrap();
    let snapshot = backend.open("a").unwrap();
    let root = format!("/proc/self/fd/{}", snapshot.as_raw_fd());
    assert_eq!(fs::read_to_string(format!("{root}/d/f")).unwrap(), "one");
    assert!(fs::write(format!("{root}/d/f"), "three").is_err(), "nobody can write to it");
    assert!(!Path::new(&format!("{root}/.horace/snapshots/a/d")).exists(), "none is in another");
    assert!(backend.open("b").is_err());
}

#[test]
fn what_was_cloned_is_told() {
    let Some(volume) = Volume::new(BackendKind::Zfs) else { return };
    let Volume::Zfs(pool) = &volume else { return };
    let backend = volume.backend();
    backend.create("a", &mark(1)).unwrap();
    let clone = format!("{}-clone", pool.dataset());
    let of = format!("{}@a", pool.dataset());
    must(Command::new("zfs").args(["clone", "-o", "mountpoint=none", &of, &clone]));
    assert_eq!(backend.list().unwrap()[0].clones, [&*clone]);
    assert!(backend.destroy(&["a"])[0].1.is_err());
    must(Command::new("zfs").args(["destroy", &clone]));
    assert!(backend.destroy(&["a"])[0].1.is_ok());
}

#[test]
fn a_mount_that_requires_snapshots_starts_only_where_there_are_some() {
    if !can_mount() {
        return;
    }
    for (kind, required) in [(BackendKind::Zfs, "zfs"), (BackendKind::Btrfs, "btrfs")] {
        let refused = Mounted::unmounted(&format!("require={required}"));
        let output = refused
            .command()
            .args(["mount", "-o", &format!("api=off,require={required}")])
            .args([&refused.backing, &refused.mountpoint])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let said = told(&output);
        assert!(said.contains(&format!("horace: `require={required}`: ")), "{said}");
        assert!(!refused.backing.join(".horace").exists(), "nothing is left behind");
        let Some(volume) = Volume::new(kind) else { continue };
        let mut mounted = Mounted::unmounted_on(volume.path(), &format!("require={required}"));
        mounted.start();
        mounted.wait_reconciled();
        fs::write(mounted.at("f"), "one").unwrap();
        assert_eq!(mounted.digests("f").len(), 1);
        mounted.umount();
    }
}

/// "The variables `ENABLE_ZFS_SNAPSHOTS` and `ZFS_DATASET` count as they did."
#[test]
fn variables_of_the_predecessor_name_the_dataset_that_is_mounted() {
    if !can_mount() {
        return;
    }
    let refused = |mounted: &Mounted, enable: &str, dataset: &str| -> String {
        let mut command = mounted.command();
        command.envs([("ENABLE_ZFS_SNAPSHOTS", enable), ("ZFS_DATASET", dataset)]);
        command.args(["mount", "-o", "api=off"]).args([&mounted.backing, &mounted.mountpoint]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        told(&output)
    };
    let plain = Mounted::unmounted("");
    let said = refused(&plain, "true", "tank/horace/files");
    let lies = "`dataset=tank/horace/files`: the backing directory lies on none: ";
    assert!(said.contains(lies), "{said}");
    assert!(refused(&plain, "maybe", "").contains("takes true or false, not `maybe`"));
    assert!(!plain.backing.join(".horace").exists(), "nothing is left behind");
    let start = |mounted: &mut Mounted, enable: &str, dataset: &str| {
        let mut command = mounted.command();
        command.envs([("ENABLE_ZFS_SNAPSHOTS", enable), ("ZFS_DATASET", dataset)]);
        mounted.start_by(command);
        mounted.status()["snapshots"].clone()
    };
    let mut without = plain;
    let snapshots = start(&mut without, "false", "tank/horace/files");
    assert_eq!(snapshots["backend"], "none", "nobody asked for the dataset");
    without.umount();
    let Some(volume) = Volume::new(BackendKind::Zfs) else { return };
    let Volume::Zfs(pool) = &volume else { return };
    let mut mounted = Mounted::unmounted_on(volume.path(), "");
    let said = refused(&mounted, "true", "tank/horace/files");
    let found =
        format!("`dataset=tank/horace/files`: the backing directory lies on `{}`", pool.dataset());
    assert!(said.contains(&found), "{said}");
    let snapshots = start(&mut mounted, "true", &pool.dataset());
    assert_eq!((&snapshots["backend"], &snapshots["enabled"]), (&"zfs".into(), &true.into()));
    mounted.umount();
}

#[test]
fn a_directory_of_a_subvolume_is_none_of_its_own() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let inside = volume.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let backend = probe(&open(&inside), ".horace", None);
    assert_eq!(backend.kind(), BackendKind::None);
    assert!(backend.reason().unwrap().contains("no subvolume of its own"));
}

impl Volume {
    /// A mount over it.
    pub(crate) fn mounted(&self, options: &str) -> Mounted {
        let mut mounted = Mounted::unmounted_on(self.path(), &format!("snapshots=off,{options}"));
        mounted.start();
        mounted.wait_reconciled();
        mounted
    }
}

impl Mounted {
    fn snapshots(&self) -> Vec<serde_json::Value> {
        self.records(&["snapshot", "list"])
    }

    fn take(&self, class: &str) -> serde_json::Value {
        self.records(&["snapshot", "create", "--class", class]).remove(0)
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

/// "A snapshot has everything that was closed before it, and says which change was the last."
#[rstest]
fn a_snapshot_lies_between_two_changes(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let mut mounted = volume.mounted("");
    mounted.shell("mkdir d; echo one > d/f; echo gone > d/gone; echo same > same");
    let taken = mounted.take("hourly");
    let seq: u64 = mounted.ok(&["sync"]).trim().parse().unwrap();
    assert_eq!(taken["seq"], seq, "nothing was in its way: {taken:#}");
    let name = text(&taken["name"]);
    assert!(name.starts_with("hourly-") && name.len() == "hourly-YYYYMMDD-HHMMSS".len());
    mounted.shell("echo two > d/f; rm d/gone; echo new > d/new; mv same other");
    let second = mounted.take("daily");
    mounted.shell("echo three > d/f");
    // Told by the catalog, without a look into either.
    let diff = |args: &[&str]| mounted.ok(&[&["snapshot", "diff"], args].concat());
    let names = [&*name, &text(&second["name"])];
    assert_eq!(diff(&names), "M d/f\n- d/gone\n+ d/new\nR same -> other\n");
    assert_eq!(diff(&names[1..]), "M d/f\n");
    assert_eq!(diff(&[names[1], names[0]]), "M d/f\n+ d/gone\n- d/new\nR other -> same\n");
    let unknown = mounted.run(&["snapshot", "diff", "hourly-20000101-000000"]);
    assert!(told(&unknown).contains("there is no snapshot `hourly-20000101-000000`"));
    let facts = |list: &[serde_json::Value]| -> Vec<_> {
        list.iter().map(|s| (s["name"].clone(), s["seq"].clone(), s["guid"].clone())).collect()
    };
    let listed = mounted.snapshots();
    assert_eq!(facts(&listed), facts(&[taken, second]));
    // What the catalog remembers is there without a daemon, too.
    mounted.umount();
    let backing = mounted.backing.to_str().unwrap();
    let remembered = mounted.records(&["snapshot", "list", backing]);
    assert_eq!(facts(&remembered), facts(&listed));
}

/// "Whatever is being written meanwhile: a name that is in the catalog at that change is in the snapshot, and no
/// other."
#[test]
fn a_snapshot_under_load_is_what_the_catalog_says() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mounted = volume.mounted("");
    let backend = volume.backend();
    let stop = mounted.scratch("stop");
    let load = r#"
        n=0; while ! test -e "$0"; do n=$((n+1)); mkdir -p w$1/d$((n%7)); echo $n > w$1/d$((n%7))/f$((n%13))
        mv w$1/d$((n%7))/f$((n%13)) w$1/d$((n%7))/g$((n%5)); rm -f w$1/d$((n%3))/g$((n%4)); done"#;
    let writers: Vec<_> = (0..3)
        .map(|n| {
            let mut sh = Command::new("bash");
            sh.args(["-c", load]).arg(&stop).arg(n.to_string()).current_dir(&mounted.mountpoint);
            sh.spawn().unwrap()
        })
        .collect();
    let mut taken = Vec::new();
    for _ in 0..5 {
        std::thread::sleep(std::time::Duration::from_millis(300));
        taken.push(mounted.take("frequent"));
    }
    fs::write(&stop, "").unwrap();
    for mut writer in writers {
        writer.wait().unwrap();
    }
    mounted.sync();
    let catalog = mounted.catalog();
    for snapshot in taken {
        let root = backend.open(&text(&snapshot["name"])).unwrap();
        let root = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let seq = Seq(snapshot["seq"].as_u64().unwrap());
        let there: std::collections::BTreeMap<_, _> = crate::tools::files_below(&root)
            .into_iter()
            .map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect();
        assert!(there.len() > 5, "{there:?}");
        for (name, content) in &there {
            let (name, path) = (String::from_utf8_lossy(name), name);
            let at = horace::catalog::When::At(seq);
            let file = catalog.resolve(path, at).unwrap();
            let file = file.unwrap_or_else(|| panic!("{name:?} is not in the catalog at {seq:?}"));
            let node = catalog.node(file, at).unwrap().unwrap();
            // What is open is in it as far as it was written.
            if let Some(hash) = node.hash.filter(|_| content.len() as u64 == node.size) {
                assert_eq!(hash.to_string(), crate::tools::sha256(content), "{name:?}");
            }
        }
        // What was written over before anybody could read it has no digest.
        let manifest = mounted.ok_or_partial(&["manifest", "--at", &text(&snapshot["time"])]);
        assert!(!manifest.is_empty());
    }
}

/// "What is held, somebody else's or the newest stays, and one that cannot go does not keep the others."
#[rstest]
fn only_what_the_policy_names_goes(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let mounted = volume.mounted("");
    let mut names = Vec::new();
    for n in 0..5 {
        fs::write(mounted.at("f"), n.to_string()).unwrap();
        names.push(text(&mounted.take("hourly")["name"]));
    }
    volume.foreign("hourly-20200101-000000");
    names.push("hourly-20200101-000000".into());
    mounted.ok(&["snapshot", "hold", &names[1]]);
    let shown = mounted.ok(&["snapshot", "show", &names[1]]);
    assert!(shown.contains("held"), "{shown}");
    let prune = |more: &[&str]| -> Vec<(String, bool, String)> {
        let args = [&["snapshot", "prune", "--keep", "hourly=2"], more].concat();
        let records = mounted.records(&args);
        records.iter().map(|r| (text(&r["name"]), r["drop"] == true, text(&r["reason"]))).collect()
    };
    let decided = [
        (true, "older than every rule"),
        (false, "held"),
        (true, "older than every rule"),
        (false, "last 2"),
        (false, "the newest"),
        (false, "not ours"),
    ];
    let decided = names.iter().zip(decided);
    let decided: Vec<_> = decided.map(|(n, (drop, why))| (n.clone(), drop, why.into())).collect();
    assert_eq!(prune(&["--dry-run"]), decided);
    assert_eq!(mounted.snapshots().len(), 6, "nothing has gone");
    assert_eq!(prune(&[]), decided);
    let left: Vec<_> = mounted.snapshots().iter().map(|s| text(&s["name"])).collect();
    assert_eq!(left, [&names[1], &names[3], &names[4], &names[5]].map(Clone::clone));
    mounted.ok(&["snapshot", "release", &names[1]]);
    assert!(prune(&[])[0].1, "released, it goes");
    assert_eq!(mounted.snapshots().len(), 3);
    // Nobody else may, and a plan does nothing.
    let plan = mounted.ok(&["snapshot", "rollback-plan", &names[4]]);
    assert!(plan.contains("horace umount") && plan.contains("horace mount"), "{plan}");
    assert_eq!(mounted.snapshots().len(), 3);
}

#[test]
fn the_schedule_takes_the_first_of_each_class_and_monitoring_hears_of_it() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let log = volume.path().join("../hooks");
    let hook = format!("echo \"$1 $2\" >> {}", log.display());
    let script = volume.path().join("../hook");
    fs::write(&script, format!("#!/bin/sh\n{hook}\n")).unwrap();
    must(Command::new("chmod").arg("+x").arg(&script));
    let mut mounted = Mounted::unmounted_on(volume.path(), "");
    let script = script.display();
    mounted.configure(&format!(
        "[snapshots]\nbefore = [\"{script}\", \"before\"]\nafter = [\"{script}\", \"after\"]\n\
         [snapshots.schedule]\nweekly = \"off\"\nmonthly = \"off\""
    ));
    mounted.start();
    mounted.wait_reconciled();
    fs::write(mounted.at("f"), "one").unwrap();
    let classes = |mounted: &Mounted| mounted.status()["snapshots"]["classes"].clone();
    assert_eq!(classes(&mounted)[0]["class"], "hourly");
    assert_eq!(classes(&mounted).as_array().unwrap().len(), 2);
    let check = mounted.run(&["check", "snapshots"]);
    assert_eq!(check.status.code(), Some(0), "{}", told(&check));
    mounted.wait_up_to(PATIENCE, "the first snapshots", || mounted.snapshots().len() == 2);
    let names: Vec<_> = mounted.snapshots().iter().map(|s| text(&s["name"])).collect();
    assert!(names[0].starts_with("hourly-") && names[1].starts_with("daily-"), "{names:?}");
    let hooks = fs::read_to_string(&log).unwrap();
    let expected: String = names.iter().map(|n| format!("before {n}\nafter {n}\n")).collect();
    assert_eq!(hooks, expected);
    mounted.wait_for("the status", || classes(&mounted)[1]["last"].is_string());
    let check = mounted.run(&["check", "snapshots"]);
    assert!(told(&check).contains("SNAPSHOTS OK - btrfs of"), "{}", told(&check));
    // A program that fails means that there is none.
    fs::write(volume.path().join("../hook"), "#!/bin/sh\nexit 1\n").unwrap();
    let refused = mounted.run(&["snapshot", "create"]);
    assert!(told(&refused).contains("the program that is to be run before it failed"));
    assert_eq!(mounted.snapshots().len(), 2);
    mounted.umount();
    let check = mounted.run(&["check", "snapshots", mounted.backing.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(3), "{}", told(&check));
}

/// Keeps nothing but the newest version of each file.
const ONE: &str = "[retention]\nexclude = [\"*.tmp\"]\n\
                   [retention.default]\nkeep = { last = 1 }\nlimit = {}\n";

impl Volume {
    /// A mount over it that keeps one version of each file, and no `*.tmp`.
    fn forgetful(&self, options: &str) -> Mounted {
        let options = format!("snapshots=off,{options}");
        let mut mounted = Mounted::unmounted_on(self.path(), &options);
        mounted.configure(ONE);
        mounted.start();
        mounted.wait_reconciled();
        mounted
    }

    /// Does something in a snapshot as root can, although nobody should.
    fn tamper(&self, snapshot: &str, script: &str) {
        let at = self.path().join(".horace/snapshots").join(snapshot);
        let set = |value: &str| {
            let mut btrfs = Command::new("btrfs");
            must(
                btrfs.args(["property", "set", "-f", "-t", "subvol"]).arg(&at).args(["ro", value]),
            );
        };
        set("false");
        must(Command::new("bash").args(["-euc", script]).current_dir(&at));
        set("true");
    }
}

impl Mounted {
    /// Takes a snapshot; its name.
    fn snap(&self) -> String {
        text(&self.take("frequent")["name"])
    }

    /// Gives up what is not the newest version.
    fn prune_all(&self) {
        self.ok(&["prune"]);
        self.sync();
    }

    /// Why something did not work.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(output.stdout.is_empty(), "nothing is given out: {}", told(&output));
        told(&output)
    }
}

/// "The content of a version that was not kept is read from a snapshot that has it."
#[rstest]
fn a_version_that_was_pruned_is_read_and_restored_from_a_snapshot(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    if !volume.has_way_in() {
        eprintln!("SKIPPED: zfs-fuse has no way into snapshots");
        return;
    }
    let mounted = volume.forgetful("");
    let large = crate::tools::noise(1, 9 << 20);
    fs::create_dir(mounted.at("d")).unwrap();
    fs::write(mounted.at("d/f"), "one").unwrap();
    fs::write(mounted.at("large"), &large).unwrap();
    fs::write(mounted.at("gone.tmp"), "gone").unwrap();
    let first = mounted.snap();
    mounted.shell("echo two > d/f; echo two > large; rm gone.tmp; echo three > d/f");
    mounted.prune_all();
    let log = mounted.log_of("d/f");
    assert_eq!((&log[0]["content"], &log[0]["content_reason"]), (&"none".into(), &"pruned".into()));
    assert_eq!(mounted.ok(&["cat", "d/f@1"]), "one");
    assert_eq!(mounted.ok(&["cat", "gone.tmp"]), "gone", "of a file that is gone");
    assert!(mounted.refused(&["cat", "d/f@2"]).contains("was not kept: pruned\n"), "in none");
    let read = mounted.run(&["cat", "large@1"]);
    assert!(read.status.success() && read.stdout == large, "{:?}", read.status);
    mounted.ok(&["restore", "d/f@1"]);
    mounted.ok(&["restore", "large@1"]);
    mounted.ok(&["undelete", "gone.tmp"]);
    assert_eq!(fs::read_to_string(mounted.at("d/f")).unwrap(), "one");
    assert_eq!(fs::read(mounted.at("large")).unwrap(), large);
    assert_eq!(fs::read_to_string(mounted.at("gone.tmp")).unwrap(), "gone");
    mounted.sync();
    let elsewhere = mounted.scratch("elsewhere");
    mounted.ok(&["restore", "d/f@1", "--to", elsewhere.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "one");
    // A whole directory, as it was.
    mounted.shell("echo four > d/f");
    mounted.prune_all();
    let then = mounted.snapshots().iter().find(|s| s["name"] == *first).unwrap()["time"].clone();
    mounted.ok(&["restore", "d", "--at", &text(&then)]);
    assert_eq!(fs::read_to_string(mounted.at("d/f")).unwrap(), "one");
}

#[test]
fn a_version_that_nobody_kept_is_restored_over_http_from_a_snapshot() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mut mounted = Mounted::unmounted_on(volume.path(), "");
    mounted.set_all_options("api=127.0.0.1:0,snapshots=off,keep=content");
    mounted.configure(ONE);
    mounted.start();
    mounted.wait_reconciled();
    fs::write(mounted.at("f"), "one").unwrap();
    mounted.snap();
    fs::write(mounted.at("f"), "two").unwrap();
    mounted.prune_all();
    let url = text(&mounted.status()["api"]);
    let content = format!("{url}/api/v1/content?path=f&version=1");
    let mut curl = Command::new("curl");
    assert_eq!(must(curl.args(["-sS", "--fail", "--max-time", "60", &content])), "one");
    let key = mounted.ok(&["key", "create", "test", ".", "--scope", "restore"]);
    let header = format!("Authorization: Bearer {}", key.trim());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--max-time", "60", "-H", &header]);
    curl.args([
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"path":"f","version":"1","dry_run":false}"#,
    ]);
    must(curl.arg(format!("{url}/api/v1/restore")));
    assert_eq!(fs::read_to_string(mounted.at("f")).unwrap(), "one");
}

/// "All of it is compared with the digest first: what is something else, by whatever path, is not used."
#[test]
fn what_a_snapshot_has_in_place_of_a_version_is_not_used() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mounted = volume.forgetful("");
    mounted
        .shell("mkdir d; for f in d/same d/size d/link d/pipe d/missing a; do echo one > $f; done");
    let older = mounted.snap();
    mounted.shell("touch x");
    let newer = mounted.snap();
    mounted.shell("for f in d/same d/size d/link d/pipe d/missing a; do echo two > $f; done");
    mounted.prune_all();
    let others = "echo eno > d/same; echo longer > d/size; ln -sf ../a d/link; rm d/pipe d/missing; mkfifo d/pipe";
    volume.tamper(&newer, others);
    // Where the newer one is wrong, the older one still is right.
    for name in ["same", "size", "link", "pipe", "missing"] {
        assert_eq!(mounted.ok(&["cat", &format!("d/{name}@1")]), "one\n", "{name}");
    }
    volume.tamper(&older, others);
    for name in ["same", "size", "link", "pipe", "missing"] {
        let said = mounted.refused(&["cat", &format!("d/{name}@1")]);
        let reason = format!("was not kept: pruned, and the snapshot `{newer}` has other bytes");
        assert!(said.contains(&reason), "{name}: {said}");
        let refused = mounted.run(&["restore", &format!("d/{name}@1")]);
        assert!(!refused.status.success() && told(&refused).contains(&reason), "{name}");
        assert_eq!(fs::read_to_string(mounted.at("d").join(name)).unwrap(), "two\n");
    }
    assert_eq!(mounted.ok(&["cat", "a@1"]), "one\n", "the others are as they were");
    // The same bytes behind a symlink are not looked for.
    for snapshot in [&newer, &older] {
        volume.tamper(snapshot, "mv a b; mkdir e; mv b e/a; rm -r d; ln -s e d; cp e/a e/same");
    }
    assert!(mounted.refused(&["cat", "d/same@1"]).contains("has other bytes in its place"));
}

#[test]
fn a_file_is_found_in_a_snapshot_by_the_name_that_it_had() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mounted = volume.forgetful("");
    mounted.shell("mkdir -p old/deep; echo one > old/deep/f; echo other > old/deep/g");
    let snapshot = mounted.snap();
    mounted.shell("mv old new; mv new/deep/f new/f; mv new/deep/g new/deep/f; echo two > new/f; echo two > new/deep/f");
    mounted.prune_all();
    assert_eq!(mounted.ok(&["cat", "new/f@1"]), "one\n");
    assert_eq!(mounted.ok(&["cat", "new/deep/f@1"]), "one\n", "it had the name first");
    assert_eq!(mounted.ok(&["cat", "new/deep/f@2"]), "other\n");
    // The snapshot goes, and the old reason is given.
    let at = volume.path().join(".horace/snapshots").join(&snapshot);
    must(Command::new("btrfs").args(["subvolume", "delete"]).arg(&at));
    assert!(mounted.refused(&["cat", "new/f@1"]).contains("was not kept: pruned\n"));
    mounted.snapshots();
    assert!(mounted.refused(&["cat", "new/f@1"]).contains("was not kept: pruned\n"));
}

#[test]
fn the_beginning_of_what_grew_is_in_a_snapshot_of_that() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mut mounted = volume.forgetful("");
    mounted.shell("echo one > log; echo two >> log");
    mounted.snap();
    mounted.shell("echo new > log");
    mounted.prune_all();
    assert_eq!(mounted.log_of("log")[0]["content"], "none");
    assert_eq!(mounted.ok(&["cat", "log@1"]), "one\n");
    assert_eq!(mounted.ok(&["cat", "log@2"]), "one\ntwo\n");
    // The daemon alone looks there, and not for views.
    assert!(fs::read(mounted.at(".horace/versions/log/2")).is_err());
    mounted.umount();
    let log = mounted.backing.join("log@2");
    assert!(mounted.refused(&["cat", log.to_str().unwrap()]).contains("was not kept: pruned\n"));
}

/// "`horace snapshot find PATH[@VERSION]` tells which of them have a version, and where."
#[test]
fn the_snapshots_that_have_a_version_are_told() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mut mounted = volume.forgetful("");
    mounted.shell("mkdir d; echo one > d/f");
    let mut names = vec![mounted.snap()];
    mounted.shell("mv d/f g");
    names.push(mounted.snap());
    mounted.shell("echo two > g");
    names.push(mounted.snap());
    mounted.shell("echo three > g");
    let find = |mounted: &Mounted, what: &str| -> Vec<(u64, String, String)> {
        let found = mounted.records(&["snapshot", "find", what]);
        let one = |r: &serde_json::Value| {
            (r["number"].as_u64().unwrap(), text(&r["snapshot"]), text(&r["path"]))
        };
        found.iter().map(one).collect()
    };
    let found = |number, snapshot: &str, path: &str| (number, snapshot.into(), path.into());
    let first = [found(1, &names[1], "g"), found(1, &names[0], "d/f")];
    let second = [found(2, &names[2], "g")];
    assert_eq!(find(&mounted, "g@1"), first);
    assert_eq!(find(&mounted, "g@2"), second);
    assert_eq!(find(&mounted, "g"), [&second[..], &first].concat());
    assert_eq!(find(&mounted, "g@3"), []);
    let shown = mounted.ok(&["snapshot", "find", "g"]);
    let lines: Vec<_> = shown.lines().collect();
    assert!(
        lines.len() == 4 && lines[0].contains("SNAPSHOT") && lines[3].ends_with("d/f"),
        "{shown}"
    );
    let unknown = mounted.run(&["snapshot", "find", "none"]);
    assert_eq!(unknown.status.code(), Some(1), "{}", told(&unknown));
    mounted.umount();
    let path = mounted.backing.join("g@1");
    assert_eq!(find(&mounted, path.to_str().unwrap()), first, "also without a daemon");
}

/// "`show` tells also what would be lost with a snapshot."
#[test]
fn what_only_one_snapshot_has_is_told() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let mut mounted = volume.forgetful("");
    fs::write(mounted.at("f"), vec![b'1'; 3000]).unwrap();
    fs::write(mounted.at("g"), vec![b'2'; 500]).unwrap();
    let first = mounted.snap();
    mounted.shell("echo two > g");
    let second = mounted.snap();
    let only = |mounted: &Mounted, args: &[&str]| {
        let shown = mounted.records(&[&["snapshot", "show"], args].concat()).remove(0);
        assert_eq!(shown["name"], args[0]);
        let only = &shown["only"];
        (only["versions"].as_u64().unwrap(), only["bytes"].as_u64().unwrap())
    };
    assert_eq!(only(&mounted, &[&first]), (0, 0), "the store has it");
    mounted.prune_all();
    assert_eq!((only(&mounted, &[&first]), only(&mounted, &[&second])), ((1, 500), (0, 0)));
    mounted.shell("echo three > f; echo three > g");
    mounted.prune_all();
    let shown = mounted.ok(&["snapshot", "show", &first]);
    assert!(shown.contains("\n  only here: 1 version, 500 B\n"), "{shown}");
    assert_eq!((only(&mounted, &[&first]), only(&mounted, &[&second])), ((1, 500), (1, 4)));
    let at = volume.path().join(".horace/snapshots").join(&second);
    must(Command::new("btrfs").args(["subvolume", "delete"]).arg(&at));
    assert_eq!(only(&mounted, &[&first]), (2, 3500), "what both had is in this one alone now");
    mounted.ok(&["restore", "f@1"]);
    mounted.sync();
    assert_eq!(only(&mounted, &[&first]), (1, 500), "it is live again");
    // Somebody else's has nothing that is known, and one that has gone is not there.
    volume.foreign("theirs");
    let theirs = mounted.records(&["snapshot", "show", "theirs"]).remove(0);
    assert_eq!((&theirs["only"], &theirs["seq"]), (&serde_json::Value::Null, &theirs["only"]));
    let gone = mounted.run(&["snapshot", "show", &second]);
    let advised = format!("there is no snapshot `{second}`\nhint: `horace snapshot list`");
    assert!(told(&gone).contains(&advised), "{}", told(&gone));
    mounted.umount();
    let backing = mounted.backing.to_str().unwrap();
    assert_eq!(only(&mounted, &[&first, backing]), (1, 500), "also without a daemon");
}

#[test]
fn where_there_is_no_way_into_snapshots_it_is_as_without_them() {
    let Some(volume) = Volume::new(BackendKind::Zfs) else { return };
    if volume.has_way_in() {
        eprintln!("SKIPPED: the kernel has ZFS, and with it a way into snapshots");
        return;
    }
    let mounted = volume.forgetful("");
    fs::write(mounted.at("f.tmp"), "one").unwrap();
    let taken = mounted.snap();
    fs::write(mounted.at("f.tmp"), "two").unwrap();
    assert_eq!(mounted.records(&["snapshot", "find", "f.tmp@1"])[0]["snapshot"], *taken);
    let (cat, restore) = (mounted.refused(&["cat", "f.tmp@1"]), ["restore", "f.tmp@1"]);
    assert!(cat.contains("the content of this version was not kept: ") && !cat.contains(&taken));
    let restored = mounted.run(&restore);
    assert!(!restored.status.success() && told(&restored).contains("was not kept: "));
    assert_eq!(fs::read_to_string(mounted.at("f.tmp")).unwrap(), "two");
}
