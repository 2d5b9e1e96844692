//! `horace status`.

use std::path::PathBuf;

use crate::clock::now_ns;
use crate::control::lookup::Target;
use crate::control::registry;
use crate::query::request::Request;
use crate::query::snapshots::{SnapshotClassStatus, SnapshotsStatus};
use crate::query::status::{BackupRecord, LimitsRecord, ReconcileProgress, StatusRecord};
use crate::query::verify::VerifyProgress;
use crate::timespec::rfc3339;

use super::output::{Format, Output, Style, ago, duration, escape, size};
use super::{Context, Outcome};

/// Show how mounts are
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// The mount, or any path in it [default: every mount]
    mountpoint: Option<PathBuf>,
}

impl Status {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let targets = match &self.mountpoint {
            Some(path) => vec![context.dir_target(Some(path))?],
            None => registry::load(&context.runtime_dirs)
                .into_iter()
                .map(|record| Target::Served { record, path: Vec::new() })
                .collect(),
        };
        if targets.is_empty() && context.out.format == Format::Human {
            context.out.line(b"nothing is mounted")?;
        }
        for target in targets {
            context.ask(&target, &Request::Status, |out, status| print(out, &target, &status))?;
        }
        Ok(Outcome::Complete)
    }
}

fn print(out: &mut Output, target: &Target, status: &StatusRecord) -> anyhow::Result<()> {
    let name = match target {
        Target::Served { record, .. } => &record.mountpoint,
        Target::Stopped { backing, .. } => backing,
    };
    let name = escape(name.as_os_str().as_encoded_bytes());
    let state = if !status.running {
        out.styled("not running", Style::Dim)
    } else if status.degraded.is_some() {
        out.styled("degraded", Style::Bad)
    } else {
        out.styled("serving", Style::Good)
    };
    let name = out.styled(&name, Style::Bold);
    out.line(format!("{name}  {state}").as_bytes())?;
    for (key, value) in facts(status) {
        let key = out.styled(&format!("{key:<11}"), Style::Dim);
        out.line(format!("  {key}  {}", escape(value.as_bytes())).as_bytes())?;
    }
    Ok(())
}

fn facts(status: &StatusRecord) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(reason) = &status.degraded {
        facts.push(("degraded", reason.clone()));
    }
    if let Some(mount) = &status.mount {
        facts.push(("backing", mount.backing.display().to_string()));
        facts.push(("state", mount.state_dir.display().to_string()));
        facts.push((
            "daemon",
            format!(
                "pid {}, version {}, up {}, {} threads",
                mount.pid,
                mount.version,
                duration(mount.uptime_s),
                mount.threads
            ),
        ));
        let passthrough = match (&mount.passthrough.enabled, &mount.passthrough.reason) {
            (true, _) => "kernel passthrough".into(),
            (false, Some(reason)) => format!("no kernel passthrough: {reason}"),
            (false, None) => "no kernel passthrough".into(),
        };
        facts.push(("io", format!("{}, {passthrough}", mount.io)));
        let watch = &mount.watch;
        let watched = match &watch.reason {
            None => format!(
                "{} names looked at around the mount, {} files read",
                watch.names, watch.read_files
            ),
            Some(reason) => format!("no: {reason}"),
        };
        facts.push(("watch", watched));
        facts.push((
            "open",
            format!(
                "{} files, {} inodes known, found again by {}",
                mount.open_files, mount.nodes, mount.inodes_by
            ),
        ));
        facts.push(("api", mount.api.clone().unwrap_or_else(|| "none".into())));
        if let Some(problem) = mount.api_cert.as_ref().and_then(|cert| cert.problem.as_ref()) {
            facts.push(("certificate", format!("an older one serves: {problem}")));
        }
        for refused in &mount.refused {
            let other = format!("{}: another filesystem is mounted there", refused.display());
            facts.push(("not served", other));
        }
    }
    facts.push((
        "catalog",
        format!(
            "sequence {}, {} names, {} versions, queue {}, log {}",
            status.seq,
            status.entries,
            status.versions,
            status.queue,
            size(status.wal_bytes)
        ),
    ));
    facts.extend(kept(status));
    if let Some(last) = &status.last_prune {
        let when = ago(&last.time, now_ns());
        let what = match &last.error {
            Some(error) => format!("{when}: not done, {error}"),
            None => format!("{when}, {} versions, {}", last.dropped, size(last.freed_bytes)),
        };
        facts.push(("pruned", what));
    }
    if let Some(backups) = status.mount.as_ref().and_then(|mount| mount.backups.as_ref()) {
        facts.push(("backups", copied(backups, now_ns())));
    }
    if let Some(mount) = &status.mount {
        facts.push(("snapshots", taken(&mount.snapshots, now_ns())));
    }
    if let Some(progress) = &status.reconcile {
        let when = progress.finished_ns.map(|ns| format!(", {}", ago(&rfc3339(ns), now_ns())));
        facts.push(("reconcile", told(progress) + &when.unwrap_or_default()));
        facts.push(("", held(progress)));
    }
    if status.running {
        facts.push(("verify", verified(status.verify.as_ref())));
    }
    facts
}

/// What is kept and what it takes, in words.
fn kept(status: &StatusRecord) -> Vec<(&'static str, String)> {
    let space = &status.space;
    let mut kept = format!("{} contents, {}", status.objects, size(status.object_bytes));
    if let Some(found) = &space.surveyed {
        let (versions, bytes) = (found.kept_versions, size(found.kept_version_bytes));
        kept = format!("{versions} versions, {bytes}, in {kept}");
    }
    let mut facts = vec![("kept", kept)];
    if let Some(found) = &space.surveyed {
        let mut files =
            format!("{} files, {} on disk", space.loose_objects, size(found.loose_disk_bytes));
        if found.loose_shared_bytes > 0 {
            files += &format!(", {} of it shared", size(found.loose_shared_bytes));
        }
        let packs = format!(
            "{} contents in {} packs, {} on disk",
            space.packed_objects,
            space.packs,
            size(space.pack_bytes)
        );
        let ratio = found.ratio.map(|ratio| format!("; 1/{ratio:.1} of the versions"));
        let ago = crate::clock::now_ns().saturating_sub(found.time_ns) / 1_000_000_000;
        let ago = duration(u64::try_from(ago).unwrap_or(0));
        let text = format!("{files}; {packs}{}, {ago} ago", ratio.unwrap_or_default());
        facts.push(("store", text));
    }
    if let Some(mount) = &status.mount
        && !matches!(mount.packing.as_str(), "" | "off")
    {
        facts.push(("packing", mount.packing.clone()));
    }
    facts
}

/// When everything was read last, and what that found.
fn verified(verify: Option<&VerifyProgress>) -> String {
    let Some(verify) = verify else { return "never".into() };
    let state = match &verify.finished {
        Some(time) => ago(time, now_ns()),
        None if verify.running => "under way".into(),
        None => "broken off".into(),
    };
    format!("{state}, {}", super::verify::told(verify))
}

/// What is taken, when it was last, and what went wrong.
fn taken(snapshots: &SnapshotsStatus, now_ns: i64) -> String {
    if let Some(reason) = &snapshots.reason {
        return format!("none, {reason}");
    }
    let what = format!("{} of {}", snapshots.backend, snapshots.dataset);
    if !snapshots.enabled {
        return format!("{what}, when somebody asks");
    }
    let class = |class: &SnapshotClassStatus| {
        let last = class.last.as_deref().map_or_else(|| "never".into(), |last| ago(last, now_ns));
        let error = class.error.as_deref().map(|error| format!(", failed: {error}"));
        format!("{} {last}{}", class.class, error.unwrap_or_default())
    };
    let classes: Vec<String> = snapshots.classes.iter().map(class).collect();
    format!("{what}: {}", classes.join("; "))
}

/// How the copying of the catalog goes, in words.
fn copied(backups: &BackupRecord, now_ns: i64) -> String {
    let mut text = match &backups.every {
        Some(every) => format!("each {every}"),
        None => "off".into(),
    };
    match &backups.last {
        Some(last) => {
            let (count, bytes) = (backups.count, size(backups.bytes));
            text += &format!(", {count} there, {bytes}, the last {}", ago(last, now_ns));
        }
        None => text += ", none yet",
    }
    if let (Some(failed), Some(error)) = (&backups.failed, &backups.error) {
        text += &format!(", failed {}: {error}", ago(failed, now_ns));
    }
    format!("{text}, in {}", backups.dir.display())
}

/// When a reconcile comes by itself and what it is held to, in words.
fn held(progress: &ReconcileProgress) -> String {
    let when = match &progress.every {
        Some(every) => format!("each {every} and at a start"),
        None => "at a start".into(),
    };
    let LimitsRecord { disk, threads, bytes_per_s } = &progress.limits;
    let threads = if *threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
    let rate = bytes_per_s.map(|rate| format!(", {} a second", size(rate)));
    format!("{when}, {threads}{} ({disk})", rate.unwrap_or_default())
}

/// How far a reconcile is, in words.
pub(super) fn told(progress: &ReconcileProgress) -> String {
    let mut text = progress.state.as_str().to_owned();
    if progress.files > 0 || progress.state.is_running() {
        let of = progress.total_files.filter(|_| progress.state.is_running());
        let of = of.map(|total| format!(" of {total}")).unwrap_or_default();
        text += &format!(
            ", {}{of} files, {} read ({})",
            progress.files,
            progress.read_files,
            size(progress.read_bytes)
        );
    }
    if progress.state.is_running() {
        text += &format!(", {:.0} files/s", progress.files_per_s);
        if progress.left > 0 {
            text += &format!(", {} to be looked at again", progress.left);
        }
        if let Some(eta) = progress.eta_s {
            text += &format!(", {} left", duration(eta));
        }
        if progress.slowed {
            text += ", makes way for the mount";
        }
    }
    if progress.errors > 0 {
        text += &format!(", {} could not be looked at", progress.errors);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::status::ReconcileState;

    #[test]
    fn progress_is_told_with_what_is_left() {
        let mut progress = ReconcileProgress {
            state: ReconcileState::Import,
            files: 10,
            read_files: 4,
            read_bytes: 2048,
            total_files: Some(100),
            files_per_s: 5.4,
            eta_s: Some(90),
            ..ReconcileProgress::default()
        };
        assert_eq!(
            told(&progress),
            "import, 10 of 100 files, 4 read (2.00 KiB), 5 files/s, 1 min 30 s left"
        );
        (progress.left, progress.slowed, progress.eta_s) = (7, true, None);
        let end = "5 files/s, 7 to be looked at again, makes way for the mount";
        assert!(told(&progress).ends_with(end), "{}", told(&progress));
        progress.state = ReconcileState::Done;
        assert_eq!(told(&progress), "done, 10 files, 4 read (2.00 KiB)");
        progress.errors = 3;
        assert!(told(&progress).ends_with(", 3 could not be looked at"));
        assert_eq!(told(&ReconcileProgress::default()), "idle");
    }

    #[test]
    fn limits_and_times_of_a_reconcile_are_told() {
        let limits = LimitsRecord { disk: "hdd".into(), threads: 1, bytes_per_s: Some(1 << 20) };
        let mut progress = ReconcileProgress { limits, ..ReconcileProgress::default() };
        assert_eq!(held(&progress), "at a start, 1 thread, 1.00 MiB a second (hdd)");
        progress.every = Some("1d".into());
        (progress.limits.threads, progress.limits.bytes_per_s) = (2, None);
        assert_eq!(held(&progress), "each 1d and at a start, 2 threads (hdd)");
    }

    #[test]
    fn copies_of_the_catalog_are_told() {
        let mut backups = BackupRecord {
            every: None,
            dir: "/s/backups".into(),
            count: 0,
            bytes: 0,
            last: None,
            failed: None,
            error: None,
        };
        assert_eq!(copied(&backups, 0), "off, none yet, in /s/backups");
        let minute = 60_000_000_000;
        (backups.count, backups.bytes) = (2, 4096);
        (backups.every, backups.last) = (Some("1d".into()), Some(rfc3339(0)));
        let well = "each 1d, 2 there, 4.00 KiB, the last 5 min ago";
        assert_eq!(copied(&backups, 5 * minute), format!("{well}, in /s/backups"));
        (backups.failed, backups.error) = (Some(rfc3339(3 * minute)), Some("no room".into()));
        let failed = format!("{well}, failed 2 min ago: no room, in /s/backups");
        assert_eq!(copied(&backups, 5 * minute), failed);
    }
}
