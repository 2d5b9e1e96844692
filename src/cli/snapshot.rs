//! `horace snapshot`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::clock::now_ns;
use crate::config::OWN_DIR;
use crate::control::client::ClientError;
use crate::control::lookup::Target;
use crate::migrate::advice::quoted;
use crate::query::request::{FailureCode, PathField, PruneMode, Request};
use crate::query::snapshots::{
    KeepField, SnapshotChange, SnapshotDiffRecord, SnapshotOrder, SnapshotPruneRecord,
    SnapshotRecord, SnapshotShowRecord, SnapshotVersionRecord,
};
use crate::retention::Count;
use crate::snapshots::{Class, ClassError};

use super::cat::split_version;
use super::output::{Column, Format, Output, Style, ago, escape, short, size};
use super::{Advised, Context, Outcome};

/// Take, list, compare and destroy snapshots of the backing filesystem
#[derive(Debug, clap::Args)]
pub(super) struct Snapshot {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Show(Named),
    Find(Find),
    Diff(Diff),
    Prune(Prune),
    Hold(Named),
    Release(Named),
    RollbackPlan(Named),
}

/// Take a snapshot, with everything in it that was closed before
#[derive(Debug, clap::Args)]
struct Create {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Its class, by which it is named and kept: frequent, hourly, daily, weekly, monthly or yearly
    #[arg(long, default_value = "hourly")]
    class: Class,
}

/// List snapshots in the order in which they were taken, also those that others took
#[derive(Debug, clap::Args)]
struct List {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

/// Name one snapshot: `show` it and what would be lost with it, `hold` it so that nothing destroys it,
/// `release` it, or print how to go back to it
#[derive(Debug, clap::Args)]
struct Named {
    /// Which
    name: String,
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

/// Find the snapshots that have a version of a file, the newest first
#[derive(Debug, clap::Args)]
struct Find {
    /// The file, which may be gone; with @VERSION as in `horace cat` [default: all its versions]
    #[arg(value_name = "PATH[@VERSION]")]
    path: PathBuf,
}

/// Tell what has changed from one snapshot to another, or to now
#[derive(Debug, clap::Args)]
struct Diff {
    /// From which
    from: String,
    /// To which [default: to now]
    to: Option<String>,
    /// The mount, or any path in it [default: that of the working directory]
    #[arg(long, value_name = "PATH")]
    mountpoint: Option<PathBuf>,
}

/// Destroy the snapshots that need not be kept, and print every decision
#[derive(Debug, clap::Args)]
struct Prune {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Keep so many of a class, in place of what the configuration says; may be given several times
    #[arg(long, value_name = "CLASS=N")]
    keep: Vec<Kept>,
    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// `hourly=24`, or `monthly=all`.
#[derive(Debug, Clone)]
struct Kept(KeepField);

/// The text says of no class how many are kept.
#[derive(Debug, thiserror::Error)]
enum KeptError {
    #[error(transparent)]
    Class(#[from] ClassError),
    #[error("use CLASS=N, as hourly=24, or CLASS=all")]
    Form,
}

impl FromStr for Kept {
    type Err = KeptError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (class, count) = text.split_once('=').ok_or(KeptError::Form)?;
        let count = match count {
            "all" => Count::All,
            _ => Count::UpTo(count.parse().map_err(|_| KeptError::Form)?),
        };
        Ok(Self(KeepField { class: class.parse()?, count }))
    }
}

impl Snapshot {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Create(Create { mountpoint, class }) => {
                one(context, mountpoint, SnapshotOrder::Create { class })
            }
            Command::Hold(Named { name, mountpoint }) => {
                one(context, mountpoint, SnapshotOrder::Hold { name })
            }
            Command::Release(Named { name, mountpoint }) => {
                one(context, mountpoint, SnapshotOrder::Release { name })
            }
            Command::List(List { mountpoint }) => one(context, mountpoint, SnapshotOrder::List),
            Command::Show(Named { name, mountpoint }) => {
                let target = context.dir_target(mountpoint.as_deref())?;
                let what = SnapshotOrder::Show { name: name.clone() };
                let request = Request::Snapshots { what };
                match context.ask(&target, &request, |out, record| show(out, &record)) {
                    Err(error) if is_not_found(&error) => Err(no_snapshot(&name).into()),
                    asked => asked.map(|_| Outcome::Complete),
                }
            }
            Command::Find(find) => find.run(context),
            Command::Diff(diff) => diff.run(context),
            Command::Prune(prune) => prune.run(context),
            Command::RollbackPlan(named) => plan(context, &named),
        }
    }
}

fn one(
    context: &mut Context,
    mountpoint: Option<PathBuf>,
    what: SnapshotOrder,
) -> anyhow::Result<Outcome> {
    let target = context.dir_target(mountpoint.as_deref())?;
    context.ask(&target, &Request::Snapshots { what }, |out, record| print(out, &record))?;
    Ok(Outcome::Complete)
}

/// `hourly-20260131-140000  seq 42  1.50 KiB  held`.
fn print(out: &mut Output, record: &SnapshotRecord) -> anyhow::Result<()> {
    let mut line = out.styled(&record.name.escape_debug().to_string(), Style::Bold);
    match record.seq {
        Some(seq) => line += &format!("  seq {seq}"),
        None => line += "  not ours",
    }
    if let Some(used) = record.used {
        line += &format!("  {}", size(used));
    }
    line += &remarks(record).iter().map(|remark| format!("  {remark}")).collect::<String>();
    out.line(line.as_bytes())
}

/// Why it cannot go.
fn remarks(record: &SnapshotRecord) -> Vec<String> {
    let held = (record.holds > 0).then(|| "held".to_owned());
    let base = record.base.then(|| "a replication goes on from it".to_owned());
    let clones = record.clones.iter().map(|clone| format!("cloned as {}", clone.escape_debug()));
    held.into_iter().chain(base).chain(clones).collect()
}

fn show(out: &mut Output, shown: &SnapshotShowRecord) -> anyhow::Result<()> {
    let record = &shown.snapshot;
    print(out, record)?;
    let at = match &*record.backend {
        "zfs" => format!("{}@{}", record.dataset, record.name),
        _ => format!("{}/.horace/snapshots/{}", record.dataset, record.name),
    };
    let only = shown.only.map(|only| {
        let versions = if only.versions == 1 { "version" } else { "versions" };
        format!("{} {versions}, {}", only.versions, size(only.bytes))
    });
    let facts = [
        ("taken", Some(record.time.clone())),
        ("of", Some(record.dataset.clone())),
        ("is", Some(at)),
        ("guid", Some(record.guid.clone())),
        ("class", Some(record.class.clone().unwrap_or_else(|| "none".into()))),
        ("only here", only),
    ];
    for (name, text) in facts {
        if let Some(text) = text {
            out.line(format!("  {name}: {}", text.escape_debug()).as_bytes())?;
        }
    }
    Ok(())
}

/// The snapshot of a name, and where it was found.
fn find(context: &mut Context, named: &Named) -> anyhow::Result<(Target, SnapshotRecord)> {
    let target = context.dir_target(named.mountpoint.as_deref())?;
    let request = Request::Snapshots { what: SnapshotOrder::List };
    let records: Vec<SnapshotRecord> = super::ask::collect(&target, &request)?;
    let found = records.into_iter().find(|record| record.name == named.name);
    Ok((target, found.ok_or_else(|| no_snapshot(&named.name))?))
}

fn no_snapshot(name: &str) -> Advised {
    Advised::new(format!("there is no snapshot `{name}`"), "`horace snapshot list` names them")
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<ClientError>();
    matches!(refused, Some(ClientError::Refused(failure)) if failure.code == FailureCode::NotFound)
}

impl Find {
    fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let (path, version) = split_version(&self.path);
        let target = context.target(path)?;
        let what = SnapshotOrder::Find { path: PathField(target.path().into()), version };
        let now = now_ns();
        let mut rows = Vec::new();
        let request = Request::Snapshots { what };
        context.ask(&target, &request, |_, found: SnapshotVersionRecord| {
            rows.push(vec![
                found.number.to_string(),
                size(found.size),
                short(found.sha256),
                found.snapshot,
                ago(&found.time, now),
                escape(&found.path.0),
            ]);
            Ok(())
        })?;
        if context.out.format == Format::Human {
            const COLUMNS: [Column; 6] = [
                Column::Right("VERSION"),
                Column::Right("SIZE"),
                Column::Left("SHA256"),
                Column::Left("SNAPSHOT"),
                Column::Left("TAKEN"),
                Column::Left("PATH IN IT"),
            ];
            context.out.table(&COLUMNS, &rows)?;
        }
        Ok(Outcome::Complete)
    }
}

impl Diff {
    fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.dir_target(self.mountpoint.as_deref())?;
        let shown = context.shown(&target);
        let (from, to) = (self.from, self.to);
        let what = SnapshotOrder::Diff { from, to, after: None, limit: None };
        let request = Request::Snapshots { what };
        context.ask(&target, &request, |out, record: SnapshotDiffRecord| {
            let sign: &[u8] = match record.change {
                SnapshotChange::Added => b"+ ",
                SnapshotChange::Removed => b"- ",
                SnapshotChange::Modified => b"M ",
                SnapshotChange::Renamed => b"R ",
            };
            let mut line = sign.to_vec();
            if let Some(from) = &record.from {
                line.extend_from_slice(&out.name(&shown.path(&from.0)));
                line.extend_from_slice(b" -> ");
            }
            line.extend_from_slice(&out.name(&shown.path(&record.path.0)));
            out.line(&line)
        })?;
        Ok(Outcome::Complete)
    }
}

impl Prune {
    fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.dir_target(self.mountpoint.as_deref())?;
        let mode = if self.dry_run { PruneMode::DryRun } else { PruneMode::Drop };
        let keep = self.keep.into_iter().map(|Kept(field)| field).collect();
        let request = Request::Snapshots { what: SnapshotOrder::Prune { keep, mode } };
        let mut failed = false;
        context.ask_and_look(&target, &request, |out, record: SnapshotPruneRecord| {
            failed |= record.error.is_some();
            if out.format == Format::Json {
                return Ok(());
            }
            let (word, style) =
                if record.drop { ("drop", Style::Bold) } else { ("keep", Style::Dim) };
            let name = record.snapshot.name.escape_debug();
            let mut line = format!("{}  {name}  {}", out.styled(word, style), record.reason);
            if let Some(error) = &record.error {
                line += &format!("  but it is still there: {}", error.escape_debug());
            }
            out.line(line.as_bytes())
        })?;
        Ok(if failed { Outcome::Partial } else { Outcome::Complete })
    }
}

/// Prints the way back to a snapshot, and does none of it.
fn plan(context: &mut Context, named: &Named) -> anyhow::Result<Outcome> {
    let (target, found) = find(context, named)?;
    let Target::Served { record, .. } = &target else {
        return Err(Advised::new("nothing serves this mount", "mount it first").into());
    };
    let (mountpoint, backing) = (&record.mountpoint, &record.backing);
    let SnapshotRecord { name, dataset, .. } = &found;
    let shown = |path: &Path| quoted(path.as_os_str());
    let mut steps = vec![
        "# What would be undone:".to_owned(),
        format!("horace snapshot diff {name} --mountpoint {}", shown(mountpoint)),
        "# One file or directory is brought back without any of this:".to_owned(),
        format!("horace restore {} --at {}", shown(&mountpoint.join("PATH")), found.time),
        "# Everything, and whatever came after the snapshot is lost:".to_owned(),
        format!("horace umount {}", shown(mountpoint)),
    ];
    if found.backend == "zfs" {
        steps.push("# Newer snapshots are in the way; -r destroys them:".into());
        steps.push(format!("zfs rollback {}", quoted(format!("{dataset}@{name}").as_ref())));
    } else {
        let mut old = backing.clone().into_os_string();
        old.push(".old");
        let from = Path::new(&old).join(OWN_DIR).join("snapshots").join(name);
        steps.push(format!("mv {} {}", shown(backing), quoted(&old)));
        steps.push(format!("btrfs subvolume snapshot {} {}", shown(&from), shown(backing)));
    }
    steps.push(format!("horace mount {} {}", shown(backing), shown(mountpoint)));
    for step in steps {
        context.out.line(step.as_bytes())?;
    }
    Ok(Outcome::Complete)
}
