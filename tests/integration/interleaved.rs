//! Writers, prunes, pins and crashes in any order: what should be readable is, with its digest, and what
//! is not says so.
//!
//! A version that was seen to be readable stays so until a prune has said that it drops it, or was
//! killed when it could have, or the policy left it out when it was replaced; what is pinned stays so
//! until it is unpinned. `HORACE_PRUNE_CASES` asks for
//! more cases.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, sha256};

const CASES: u32 = 6;
const OPERATIONS: usize = 40;
const NAMES: [&str; 4] = ["a", "b", "c.tmp", "d"];

/// Small policies, so that something goes with every run.
const POLICIES: [&str; 5] = [
    "[retention.default]\nkeep = { last = 1 }\nlimit = {}\n",
    "[retention.default]\nkeep = { last = 2 }\nlimit = {}\n",
    "[retention.default]\nkeep = { last = \"all\" }\nlimit = { size = \"1K\" }\n",
    "[retention]\nexclude = [\"*.tmp\"]\n[retention.default]\nkeep = { last = 3 }\nlimit = {}\n",
    "[retention.default]\nkeep = { within = \"1s\" }\nlimit = { deleted = \"1s\" }\n",
];

#[derive(Debug, Clone)]
enum Operation {
    /// Writes one of a few contents, so that some are the same.
    Write {
        name: usize,
        content: u8,
    },
    Append {
        name: usize,
        content: u8,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Unlink {
        name: usize,
    },
    Pin {
        name: usize,
        version: usize,
    },
    Unpin {
        name: usize,
        version: usize,
    },
    Prune,
    /// Kills the daemon in the midst of a prune, after so many microseconds.
    KillPrune {
        after: u64,
        policy: usize,
    },
    Kill {
        policy: usize,
    },
    Restart {
        policy: usize,
    },
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::{Append, Kill, KillPrune, Pin, Prune, Rename, Restart, Unlink, Unpin, Write};
    let (name, version) = (0..NAMES.len(), 0..6_usize);
    let (content, policy) = (0..8_u8, 0..POLICIES.len());
    prop_oneof![
        8 => (name.clone(), content.clone()).prop_map(|(name, content)| Write { name, content }),
        4 => (name.clone(), content).prop_map(|(name, content)| Append { name, content }),
        4 => (name.clone(), name.clone()).prop_map(|(from, to)| Rename { from, to }),
        3 => name.clone().prop_map(|name| Unlink { name }),
        2 => (name.clone(), version.clone()).prop_map(|(name, version)| Pin { name, version }),
        1 => (name, version).prop_map(|(name, version)| Unpin { name, version }),
        3 => Just(Prune),
        1 => (0..4000_u64, policy.clone()).prop_map(|(after, policy)| KillPrune { after, policy }),
        1 => policy.clone().prop_map(|policy| Kill { policy }),
        1 => policy.prop_map(|policy| Restart { policy }),
    ]
}

/// A file and the number of its version.
type Key = (String, u64);

struct World {
    mounted: Mounted,
    /// What was seen to be readable, with its digest.
    readable: BTreeMap<Key, String>,
    /// What a prune that was killed may have dropped.
    uncertain: BTreeSet<Key>,
    pinned: BTreeSet<Key>,
    /// Whether the policy leaves something out: the word of that must be there before a crash.
    is_choosy: bool,
}

fn key(version: &Value) -> Key {
    let file = version["file_id"].as_str().unwrap().to_owned();
    (file, version["file_number"].as_u64().unwrap())
}

impl World {
    fn new() -> Self {
        let mounted = Mounted::configured("prune=off", POLICIES[1]);
        let (readable, uncertain, pinned) = Default::default();
        Self { mounted, readable, uncertain, pinned, is_choosy: false }
    }

    fn apply(&mut self, operation: &Operation) {
        let at = |name: usize| self.mounted.at(NAMES[name]);
        // Not all of it can be done at all times.
        match *operation {
            Operation::Write { name, content } => {
                fs::write(at(name), noise(content.into(), 100 + 300 * usize::from(content)))
                    .unwrap();
            }
            Operation::Append { name, content } => {
                if let Ok(mut file) = OpenOptions::new().append(true).open(at(name)) {
                    file.write_all(&noise(content.into(), 50)).unwrap();
                }
            }
            Operation::Rename { from, to } => drop(fs::rename(at(from), at(to))),
            Operation::Unlink { name } => drop(fs::remove_file(at(name))),
            Operation::Pin { name, version } => self.mark("pin", name, version),
            Operation::Unpin { name, version } => self.mark("unpin", name, version),
            Operation::Prune => self.prune(),
            Operation::KillPrune { after, policy } => self.kill_prune(after, policy),
            Operation::Kill { policy } => {
                self.sync_if_needed();
                self.mounted.kill();
                self.start(policy);
            }
            Operation::Restart { policy } => {
                self.mounted.umount();
                self.start(policy);
            }
        }
    }

    fn sync_if_needed(&mut self) {
        if self.is_choosy {
            self.mounted.sync();
        }
    }

    fn start(&mut self, policy: usize) {
        fs::write(self.mounted.scratch("horace.toml"), POLICIES[policy]).unwrap();
        self.mounted.start();
        self.mounted.wait_reconciled();
        self.is_choosy = POLICIES[policy].contains("exclude") || POLICIES[policy].contains("size");
    }

    fn mark(&mut self, how: &str, name: usize, version: usize) {
        if !self.mounted.run(&["log", NAMES[name]]).status.success() {
            return;
        }
        let log = self.mounted.log_of(NAMES[name]);
        let Some(version) = log.get(version) else { return };
        let spec = format!("{}@{}", NAMES[name], version["number"]);
        let output = self.mounted.run(&[how, &spec]);
        assert_eq!(output.status.success(), how == "unpin" || version["content"] != "none");
        if how == "pin" && output.status.success() {
            self.pinned.insert(key(version));
        } else {
            self.pinned.remove(&key(version));
        }
    }

    /// The versions that a prune says it drops.
    fn dropped(&self, args: &[&str]) -> BTreeSet<Key> {
        let records = self.mounted.records(&[&["prune", "--no-cap"], args].concat());
        records.iter().filter(|record| record["decision"] == "drop").map(key).collect()
    }

    fn prune(&mut self) {
        self.check();
        let dropped = self.dropped(&[]);
        assert!(dropped.is_disjoint(&self.pinned), "{dropped:?}");
        self.readable.retain(|key, _| !dropped.contains(key));
        let versions = self.versions();
        for version in versions.iter().filter(|version| dropped.contains(&key(version))) {
            // What is dropped can still be had as long as another version has the same bytes.
            let is_kept_for = |other: &Value| {
                other["sha256"] == version["sha256"]
                    && other["content"] != "none"
                    && !dropped.contains(&key(other))
            };
            let is_kept = version["content"] != "none";
            assert!(!is_kept || versions.iter().any(is_kept_for), "{version:#}");
        }
        self.check();
    }

    fn kill_prune(&mut self, after: u64, policy: usize) {
        self.sync_if_needed();
        self.check();
        self.uncertain.extend(self.dropped(&["--dry-run"]));
        let mut command = self.mounted.command();
        command.args(["prune", "--no-cap", "."]).current_dir(&self.mounted.mountpoint);
        let mut prune = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Any moment will do.
        std::thread::sleep(Duration::from_micros(after));
        self.mounted.kill();
        prune.wait().unwrap();
        self.start(policy);
    }

    /// Every version that any name shows or has shown.
    fn versions(&self) -> Vec<Value> {
        let known = |name: &&&str| self.mounted.run(&["log", name]).status.success();
        let mut all = Vec::new();
        for name in NAMES.iter().filter(known) {
            for mut version in self.mounted.log_of(name) {
                version["spec"] = format!("{name}@{}", version["number"]).into();
                all.push(version);
            }
        }
        all
    }

    fn check(&mut self) {
        let mut missing: BTreeSet<Key> = self.readable.keys().cloned().collect();
        for version in self.versions() {
            let (key, spec) = (key(&version), version["spec"].as_str().unwrap());
            missing.remove(&key);
            let output = self.mounted.run(&["cat", spec]);
            if output.status.success() {
                assert_eq!(version["sha256"], sha256(&output.stdout), "{spec}: {version:#}");
            }
            // What was being given up in a crash is found again a moment after the start, and the same bytes
            // may have been kept again just now.
            let is_back = output.status.success();
            if version["content"] == "none" && !is_back {
                let may = !self.readable.contains_key(&key)
                    || self.uncertain.contains(&key)
                    || version["content_reason"] == "excluded";
                let error = String::from_utf8_lossy(&output.stderr);
                assert!(may && !self.pinned.contains(&key), "{spec} is lost: {version:#}");
                assert!(error.contains("was not kept: "), "{spec}: {error}");
                self.readable.remove(&key);
                continue;
            }
            assert!(output.status.success(), "{spec}: {version:#}");
            let digest = version["sha256"].as_str().unwrap().to_owned();
            let before = self.readable.insert(key, digest.clone());
            assert!(before.is_none_or(|before| before == digest), "{spec}: {version:#}");
        }
        assert!(missing.is_empty(), "no name shows {missing:?} any more");
    }
}

#[test]
fn what_should_be_readable_is_whatever_came_in_between() {
    if !can_mount() {
        return;
    }
    let cases = std::env::var("HORACE_PRUNE_CASES").ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: cases.unwrap_or(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/integration/interleaved.regressions.txt",
        ))),
        max_shrink_iters: 100,
        ..Config::default()
    };
    let operations = proptest::collection::vec(operation(), 1..OPERATIONS);
    let result = TestRunner::new(config).run(&operations, |operations| {
        let mut world = World::new();
        for operation in &operations {
            world.apply(operation);
        }
        world.check();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
