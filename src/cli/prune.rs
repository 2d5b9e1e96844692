//! `horace prune`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::query::records::{PruneDecision, PruneRecord, PruneTotalRecord};
use crate::query::request::{PathField, PruneCap, PruneMode, Request};
use crate::query::status::PruneTotals;

use super::output::{Output, Style, short, size};
use super::{Context, Outcome};

/// Drop the history that the retention policy does not keep, and print every decision
#[derive(Debug, clap::Args)]
pub(super) struct Prune {
    /// The mount, or a directory or file in it [default: the mount of the working directory]
    dir: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Drop more than the policy lets one run drop
    #[arg(long)]
    no_cap: bool,
}

/// A record of the answer.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Total(PruneTotalRecord),
    Decision(PruneRecord),
}

impl Prune {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = match &self.dir {
            // What is gone can be named, too.
            Some(path) if !path.is_dir() => context.target(path)?,
            dir => context.dir_target(dir.as_deref())?,
        };
        // Without a name, all of the mount is meant, wherever in it this runs.
        let path = if self.dir.is_some() { target.path().into() } else { Vec::new() };
        let mode = if self.dry_run { PruneMode::DryRun } else { PruneMode::Drop };
        let cap = if self.no_cap { PruneCap::Lifted } else { PruneCap::Holds };
        let request = Request::Prune { path: PathField(path), mode, cap };
        let shown = context.shown(&target);
        context.ask(&target, &request, |out, line: Line| match line {
            Line::Decision(record) => print(out, &shown.path(&record.path.0), &record),
            Line::Total(PruneTotalRecord { total }) => print_total(out, mode, &total),
        })?;
        Ok(Outcome::Complete)
    }
}

/// `drop  a/f@3  1.50 KiB  older than every rule`.
fn print(out: &mut Output, path: &[u8], record: &PruneRecord) -> anyhow::Result<()> {
    let (word, style) = match record.decision {
        PruneDecision::Keep => ("keep", Style::Dim),
        PruneDecision::Drop => ("drop", Style::Bold),
    };
    let version = record.number.map_or_else(|| short(record.sha256), |n| n.to_string());
    let mut line = out.styled(word, style).into_bytes();
    line.extend_from_slice(b"  ");
    line.extend_from_slice(&out.name(path));
    line.extend_from_slice(format!("@{version}  ").as_bytes());
    if record.decision == PruneDecision::Drop {
        line.extend_from_slice(format!("{}  ", size(record.frees)).as_bytes());
    }
    line.extend_from_slice(record.reason.as_bytes());
    out.line(&line)
}

fn print_total(out: &mut Output, mode: PruneMode, total: &PruneTotals) -> anyhow::Result<()> {
    let PruneTotals { versions, dropped, freed_bytes, refused } = total;
    let bytes = size(*freed_bytes);
    let text = match (mode, refused) {
        (PruneMode::Drop, None) => {
            format!("dropped {dropped} of {versions} old versions, freed {bytes}")
        }
        (PruneMode::DryRun, None) => {
            format!("would drop {dropped} of {versions} old versions and free {bytes}")
        }
        (PruneMode::DryRun, Some(reason)) => {
            format!("would be refused: {reason}; it would free {bytes}")
        }
        // The error says it.
        (PruneMode::Drop, Some(_)) => return Ok(()),
    };
    out.line(text.as_bytes())
}
