//! Faults at every single step: the daemon is killed between every two durable system calls of an
//! operation, and each call fails once as on a full, failing or read-only disk.
//!
//! strace counts the calls and does the harm, so nothing in the program is made for it. One run notes
//! which calls an operation takes in which thread; then it is done again for each of them.
//! `HORACE_FAULT_STRIDE=1` tries all steps, 5 every fifth.

mod operations;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rstest::rstest;
use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::strace::{Calls, READING, Step, Tracer};
use crate::stress::{End, start_and_check};
use crate::tools::{have, sha256};
use operations::{OPERATIONS, Operation, Parts, prepare};

/// Of so many steps one is tried, unless the environment says otherwise.
const STRIDE: usize = 8;

/// What disks fail with; the first when they are read.
const ERRORS: [&str; 4] = ["EIO", "ENOSPC", "EROFS", "EDQUOT"];

/// What happens at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Error,
}

impl Fault {
    /// The calls it is tried with.
    fn calls(self) -> Calls {
        match self {
            Self::Kill => Calls::Durable,
            Self::Error => Calls::Fallible,
        }
    }
}

/// What follows an operation in the background comes within this.
const MOMENT: Duration = Duration::from_millis(150);

fn stride() -> usize {
    std::env::var("HORACE_FAULT_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(STRIDE)
}

/// What users see of a directory: every name with what it stands for.
fn look(dir: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        let meta = fs::symlink_metadata(&path).unwrap();
        let (mode, links) = (meta.permissions().mode(), meta.nlink());
        let what = if meta.is_dir() {
            seen.extend(
                look(&path).into_iter().map(|(below, what)| (format!("{name}/{below}"), what)),
            );
            format!("{mode:o} {}:{}", meta.uid(), meta.gid())
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            let mut note = [0; 64];
            let note = rustix::fs::getxattr(&path, "user.note", &mut note).is_ok();
            let digest = sha256(fs::read(&path).unwrap());
            format!("{mode:o} {}:{} {links} {note} {digest}", meta.uid(), meta.gid())
        };
        seen.insert(name, what);
    }
    seen
}

/// An operation, and what users see before and after it.
struct Trial {
    operation: &'static Operation,
    before: BTreeMap<String, String>,
    after: BTreeMap<String, String>,
}

impl Trial {
    fn of(name: &str) -> Self {
        let operation = OPERATIONS.iter().find(|operation| operation.name == name).unwrap();
        let plain = crate::mounted::scratch();
        let dir = plain.path().join("d");
        prepare(&dir);
        let before = look(&dir);
        (operation.act)(&dir).unwrap();
        let after = look(&dir);
        Self { operation, before, after }
    }

    /// A new mount with a directory to work on.
    fn begin(&self) -> (Mounted, PathBuf) {
        // With one thread for requests each call is always in the same one.
        let mut mounted = Mounted::with_options("threads=1");
        let dir = mounted.at("d");
        prepare(&dir);
        assert!(settle(&mut mounted));
        (mounted, dir)
    }

    /// Which calls the operation takes, and what follows it in the background.
    fn record(&self, fault: Fault) -> Vec<Step> {
        let (mut mounted, dir) = self.begin();
        let tracer = Tracer::record(&mounted, fault.calls());
        (self.operation.act)(&dir).unwrap();
        match fault {
            Fault::Kill => assert!(settle(&mut mounted)),
            Fault::Error => std::thread::sleep(MOMENT),
        }
        let steps = tracer.steps();
        assert_eq!(look(&dir), self.after, "{}", self.operation.name);
        steps
    }

    /// Why a content may be lost.
    fn excuses(&self) -> Vec<&'static str> {
        match self.operation.name {
            // The word that it is too large to copy may be what is lost.
            name if name.contains("large") => vec!["too-large", "unseen"],
            // Somebody goes on writing whom nobody watches any more.
            "delete_while_open" => vec!["overwritten", "unseen"],
            _ => Vec::new(),
        }
    }

    /// What users see is what there was or what there was to be, and nothing of before is lost, but for
    /// these reasons.
    fn assert_whole(
        &self,
        mounted: &Mounted,
        result: &std::io::Result<()>,
        step: &Step,
        excuses: &[&str],
    ) {
        let name = self.operation.name;
        let found = look(&mounted.at("d"));
        let whole = found == self.before || found == self.after;
        assert!(
            whole || self.operation.parts == Parts::Any,
            "{name}, at {step}:\n{found:#?}\nneither {:#?}\nnor {:#?}",
            self.before,
            self.after
        );
        assert!(result.is_err() || found == self.after, "{name}, at {step}: {found:#?}");
        for (file, what) in &self.before {
            let Some((_, digest)) = what.rsplit_once(' ').filter(|(_, last)| last.len() == 64)
            else {
                continue;
            };
            let log = mounted.log_of(&format!("d/{file}"));
            let has = |v: &Value| v["sha256"] == digest && v["content"] != "none";
            let excused = |v: &Value| excuses.iter().any(|reason| v["content_reason"] == *reason);
            let kept = log.iter().any(|v| has(v) || excused(v));
            assert!(kept, "{name}, at {step}: {file} has lost {digest}:\n{log:#?}");
        }
    }
}

/// What a disk said.
fn errno_name(error: &std::io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EIO) => "EIO",
        Some(libc::ENOSPC) => "ENOSPC",
        Some(libc::EROFS) => "EROFS",
        Some(libc::EDQUOT) => "EDQUOT",
        _ => panic!("{error:?}"),
    }
}

/// Waits until nothing is left to do in the background; whether the daemon lives.
fn settle(mounted: &mut Mounted) -> bool {
    let incoming = mounted.backing.join(".horace/store/incoming");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let synced = mounted.run_at_root(&[OsStr::new("sync"), mounted.mountpoint.as_ref()]);
        if mounted.has_ended() {
            return false;
        }
        let waiting = fs::read_dir(&incoming).map_or(0, Iterator::count);
        if synced.status.success() && waiting == 0 {
            return true;
        }
        assert!(Instant::now() < deadline, "nothing settles:\n{}", mounted.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a call leaves everything as it is.
fn reads(step: &Step) -> bool {
    READING.contains(&&*step.call) || step.call == "openat" && !step.arguments.contains("O_CREAT")
}

/// Of many writes of a thread to one file in a row, which are one to those who read it, only some, and
/// for a kill nothing that leaves no trace.
fn worth_a_fault(steps: Vec<Step>, fault: Fault) -> Vec<Step> {
    let mut rows = HashMap::new();
    let worth = |step: &Step| {
        let file = step.arguments.split([',', ' ', ')']).next().unwrap_or_default().to_owned();
        let row = rows.entry(step.thread.clone()).or_insert((String::new(), 0));
        if step.call != "pwrite64" || row.0 != file {
            *row = (file, 0);
        }
        row.1 += 1;
        let counts = fault == Fault::Error || !reads(step);
        counts && (row.1 <= 2 || row.1 % 5 == 0)
    };
    steps.into_iter().filter(worth).collect()
}

/// Kills the daemon at every step of an operation.
fn kill_at_every_step(name: &str) {
    let trial = Trial::of(name);
    let steps = worth_a_fault(trial.record(Fault::Kill), Fault::Kill);
    let tried: Vec<_> = steps.iter().step_by(stride()).collect();
    let mut reached = 0;
    for step in &tried {
        let (mut mounted, dir) = trial.begin();
        let tracer = Tracer::inject(&mounted, step, "signal=KILL");
        let result = (trial.operation.act)(&dir);
        let lives = settle(&mut mounted);
        tracer.stop();
        if lives {
            continue;
        }
        reached += 1;
        mounted.kill();
        start_and_check(&mut mounted, End::Kill);
        trial.assert_whole(&mounted, &result, step, &trial.excuses());
    }
    eprintln!("{name}: killed at {reached} of {} steps", steps.len());
    assert!(reached * 3 >= tried.len().max(3), "{reached} of {} steps were reached", tried.len());
}

/// Lets every step of an operation fail once.
fn fail_at_every_step(name: &str) {
    let trial = Trial::of(name);
    let steps = worth_a_fault(trial.record(Fault::Error), Fault::Error);
    let tried: Vec<_> = steps.iter().enumerate().step_by(stride()).collect();
    // What cannot be kept must say so.
    let excuses = [&["failed", "no-space"], &*trial.excuses()].concat();
    let mut reached = 0;
    for (index, step) in &tried {
        let errno = ERRORS[if reads(step) { 0 } else { index / stride() % ERRORS.len() }];
        let (mut mounted, dir) = trial.begin();
        let tracer = Tracer::inject(&mounted, step, &format!("error={errno}"));
        let result = (trial.operation.act)(&dir);
        // In a thread that begins meanwhile it fails each time.
        std::thread::sleep(MOMENT);
        let failed = tracer.stop();
        assert!(settle(&mut mounted), "the daemon ended at {step} with {errno}");
        if !failed {
            continue;
        }
        reached += 1;
        let what = format!("recovery from {errno} at {step}");
        mounted.wait_for(&what, || {
            let compared = mounted.compare_catalog();
            eprintln!("{what}: {compared:?}");
            mounted.status()["degraded"].is_null() && compared.is_ok()
        });
        if let Err(error) = &result {
            assert_eq!(errno_name(error), errno, "{name}, at {step}");
        }
        trial.assert_whole(&mounted, &result, step, &excuses);
        mounted.remount();
        mounted.assert_catalog_is_true();
        let (well, findings, _) = mounted.verify(&["--restart"]);
        assert!(well && findings.is_empty(), "{name}, {errno} at {step}: {findings:#?}");
    }
    eprintln!("{name}: {reached} of {} steps failed", steps.len());
    assert!(reached * 3 >= tried.len().max(3), "{reached} of {} steps were reached", tried.len());
}

#[rstest]
fn nothing_is_lost_by_a_kill_between_two_steps_or_by_a_step_that_fails(
    #[values(
        "create",
        "create_large",
        "replace_content",
        "replace_large",
        "change_in_place",
        "change_large_in_place",
        "append",
        "truncate_by_path",
        "punch_a_hole",
        "save_atomically",
        "replace_by_rename",
        "replace_a_link_by_rename",
        "exchange",
        "rename",
        "rename_a_directory",
        "delete",
        "delete_large",
        "delete_one_of_two_names",
        "delete_while_open",
        "delete_a_directory",
        "make_a_directory",
        "link",
        "make_a_symlink",
        "change_mode",
        "change_owner",
        "set_an_attribute"
    )]
    name: &str,
    #[values(Fault::Kill, Fault::Error)] fault: Fault,
) {
    if !can_mount() || !have(&["strace"]) {
        return;
    }
    match fault {
        Fault::Kill => kill_at_every_step(name),
        Fault::Error => fail_at_every_step(name),
    }
}
