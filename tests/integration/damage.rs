//! Damage of every kind to every kind of file that the store has: what it costs is told by name, and
//! everything else stays readable.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, sha256, told};
use crate::verify::versions;

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Delete,
    Truncate,
    Flip,
}

impl Damage {
    fn happens_to(self, path: &Path) {
        let open = || File::options().read(true).write(true).open(path).unwrap();
        match self {
            Self::Delete => fs::remove_file(path).unwrap(),
            Self::Truncate => {
                let length = path.metadata().unwrap().len();
                open().set_len(length / 2).unwrap();
            }
            Self::Flip => {
                let (file, mut byte) = (open(), [0]);
                file.read_exact_at(&mut byte, 5).unwrap();
                file.write_all_at(&[byte[0] ^ 16], 5).unwrap();
            }
        }
    }
}

/// Whether the daemon runs meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Runs,
    Stopped,
}

impl Mounted {
    fn damaged(&mut self, damage: Damage, daemon: Daemon, path: &Path) {
        if daemon == Daemon::Stopped {
            self.umount();
        }
        damage.happens_to(path);
        if daemon == Daemon::Stopped {
            self.start();
            self.wait_reconciled();
        }
    }

    #[track_caller]
    fn assert_reads(&self, version: &str, content: impl AsRef<[u8]>) {
        let output = self.run(&["cat", version]);
        assert!(output.stdout == content.as_ref(), "{version}: {}\n{}", told(&output), self.log());
    }

    /// A file with a version that is kept and one that is there, twice.
    fn with_history() -> Self {
        let mounted = Self::new();
        for (n, name) in (0_u64..).zip(["f", "g"]) {
            fs::write(mounted.at(name), noise(n, 9000)).unwrap();
            fs::write(mounted.at(name), noise(n + 100, 9000)).unwrap();
            mounted.object_of(noise(n, 9000));
        }
        mounted.sync();
        mounted
    }

    /// All that `with_history` has made is there, but for one version.
    #[track_caller]
    fn assert_the_rest_reads(&self, but: &str) {
        for (n, name) in (0_u64..).zip(["f", "g"]) {
            for (number, seed) in [(1, n), (2, n + 100)] {
                let version = format!("{name}@{number}");
                if version != but {
                    self.assert_reads(&version, noise(seed, 9000));
                }
            }
        }
    }
}

#[rstest]
fn of_an_object(
    #[values(Damage::Delete, Damage::Truncate, Damage::Flip)] damage: Damage,
    #[values(Daemon::Runs, Daemon::Stopped)] daemon: Daemon,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_history();
    let object = mounted.object_of(noise(0, 9000));
    mounted.damaged(damage, daemon, &object);
    let output = mounted.run(&["cat", "f@1"]);
    let text = told(&output);
    assert!(!output.status.success(), "{text}");
    let expected = if damage == Damage::Delete { "cannot open" } else { "its bytes have changed" };
    assert!(text.contains(expected), "{text}");
    let (well, findings, _) = mounted.verify(&[]);
    assert!(!well && findings.len() == 1, "{findings:#?}");
    assert_eq!(versions(&findings[0]), ["f@1"]);
    mounted.assert_the_rest_reads("f@1");
}

#[rstest]
fn of_what_waits_to_be_an_object(
    #[values(Damage::Delete, Damage::Truncate, Damage::Flip)] damage: Damage,
    #[values(Daemon::Runs, Daemon::Stopped)] daemon: Daemon,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_history();
    let mut open = File::create(mounted.at("open")).unwrap();
    open.write_all(&noise(7, 9000)).unwrap();
    drop(open.try_clone().unwrap());
    fs::remove_file(mounted.at("open")).unwrap();
    mounted.sync();
    let incoming = mounted.backing.join(".horace/store/incoming");
    let waiting = || fs::read_dir(&incoming).unwrap().map(|entry| entry.unwrap().path()).next();
    let waits = waiting().unwrap();
    if daemon == Daemon::Stopped {
        mounted.kill();
    }
    damage.happens_to(&waits);
    drop(open);
    if daemon == Daemon::Stopped {
        mounted.start();
        mounted.wait_reconciled();
    }
    mounted.wait_for("it was looked at", || waiting().is_none());
    mounted.wait_for("word of it", || mounted.log_of("open")[0]["content"] == "none");
    let log = mounted.log_of("open");
    let reason = if damage == Damage::Delete { "gone" } else { "overwritten" };
    assert_eq!((&log[0]["content"], &log[0]["content_reason"]), (&"none".into(), &reason.into()));
    let text = told(&mounted.run(&["cat", "open@1"]));
    assert!(text.contains("was not kept"), "{text}");
    assert!(mounted.verify(&[]).0, "what is known to be lost is no damage");
    mounted.assert_the_rest_reads("");
}

#[rstest]
fn of_the_catalog(#[values(Damage::Truncate, Damage::Flip)] damage: Damage) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_history();
    mounted.umount();
    let path = mounted.backing.join(".horace/catalog.db");
    damage.happens_to(&path);
    let before = fs::read(&path).unwrap();
    let text = mounted.refused_start();
    assert!(text.contains("cannot open the catalog"), "{text}");
    assert!(fs::read(&path).unwrap() == before, "it is not replaced");
    // One can always begin anew by hand.
    for name in ["catalog.db", "catalog.db-wal", "catalog.db-shm"] {
        let _ = fs::rename(path.with_file_name(name), mounted.scratch(name));
    }
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_reads("f@1", noise(100, 9000));
    mounted.assert_catalog_is_true();
}

#[test]
fn a_catalog_that_was_cut_off_to_nothing_is_not_taken_for_a_new_one() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_history();
    mounted.umount();
    File::create(mounted.backing.join(".horace/catalog.db")).unwrap();
    let text = mounted.refused_start();
    assert!(text.contains("cannot open the catalog"), "{text}");
}

#[rstest]
fn of_the_log_of_the_catalog(
    #[values(Damage::Delete, Damage::Truncate, Damage::Flip)] damage: Damage,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_history();
    fs::write(mounted.at("late"), "late").unwrap();
    mounted.ok(&["log", "late"]);
    mounted.kill();
    let wal = mounted.backing.join(".horace/catalog.db-wal");
    assert!(wal.metadata().unwrap().len() > 0);
    damage.happens_to(&wal);
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    // What was synced is in the database itself.
    mounted.assert_the_rest_reads("");
    mounted.assert_reads("late", "late");
    assert!(mounted.verify(&[]).0);
    assert_eq!(mounted.log_of("late")[0]["sha256"], sha256("late"));
}

#[rstest]
fn of_a_pack(
    #[values(Damage::Delete, Damage::Truncate, Damage::Flip)] damage: Damage,
    #[values(Daemon::Runs, Daemon::Stopped)] daemon: Daemon,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("pack_after=0,pack_limit=20000");
    for (n, name) in (0_u64..).zip(["f", "g"]) {
        fs::write(mounted.at(name), noise(n, 19_000)).unwrap();
        fs::remove_file(mounted.at(name)).unwrap();
        fs::write(mounted.at(name), noise(n + 100, 9000)).unwrap();
    }
    let store = mounted.backing.join(".horace/store");
    let below = |dir: &str| crate::tools::files_below(&store.join(dir)).into_values();
    mounted.wait_for("packs", || below("objects").next().is_none() && below("packs").count() > 0);
    let all: Vec<PathBuf> = below("packs").collect();
    for pack in &all {
        mounted.damaged(damage, daemon, pack);
    }
    let (well, findings, _) = mounted.verify(&[]);
    let told_of = findings.iter().filter_map(|finding| finding["pack"].as_str());
    let told_of: BTreeSet<&str> = told_of.collect();
    // A start forgets packs that are not there: only what was in them is missed then.
    let forgotten = (damage, daemon) == (Damage::Delete, Daemon::Stopped);
    assert_eq!(told_of.len(), if forgotten { 0 } else { all.len() }, "{findings:#?}");
    // A bit in the head of a pack costs nothing.
    assert_eq!(well, damage == Damage::Flip, "{findings:#?}");
    let lost: Vec<String> = findings.iter().flat_map(versions).collect();
    for (n, name) in (0_u64..).zip(["f", "g"]) {
        let version = format!("{name}@1");
        let output = mounted.run(&["cat", &version]);
        let there = output.stdout == noise(n, 19_000);
        assert!(there || lost.contains(&version), "{version} of {lost:?}: {}", told(&output));
        assert_eq!(output.status.success(), there, "{}", told(&output));
        mounted.assert_reads(&format!("{name}@2"), noise(n + 100, 9000));
    }
}

#[rstest]
fn of_the_index_of_chunks(
    #[values(Damage::Delete, Damage::Truncate, Damage::Flip)] damage: Damage,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_history();
    let index = chunk_index(&mounted);
    mounted.damaged(damage, Daemon::Stopped, &index);
    mounted.assert_the_rest_reads("");
    assert!(mounted.verify(&[]).0, "{}", mounted.log());
}

fn chunk_index(mounted: &Mounted) -> PathBuf {
    mounted.backing.join(".horace").join(horace::catalog::chunks::FILE_NAME)
}

impl Mounted {
    /// Starts the daemon, which must say why it cannot; returns what it said.
    pub(crate) fn refused_start(&self) -> String {
        let output = self
            .command()
            .args(["mount", "--foreground", "-o", "api=off"])
            .args([&self.backing, &self.mountpoint])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        told(&output)
    }
}
