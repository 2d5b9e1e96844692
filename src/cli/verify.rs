//! `horace verify`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::lookup::Target;
use crate::query::request::Request;
use crate::query::verify::{
    CopyRecord, FindingRecord, ShownVersion, VerifyProgress, VerifyRecord, VerifyRequest,
};
use crate::sizespec::Rate;

use super::ask::Shown;
use super::output::{Format, Output, Style, escape, size};
use super::{Context, Outcome, Progress};

/// Read everything again and compare it with its digests
#[derive(Debug, clap::Args)]
pub(super) struct Verify {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Read so many bytes in a second: 50M, 1G, or `max`
    #[arg(long, default_value = "32M", value_name = "BYTES")]
    rate: Rate,
    /// Begin anew instead of where the last run was broken off
    #[arg(long)]
    restart: bool,
    /// Undo damage where another copy of the same bytes is left
    #[arg(long)]
    repair: bool,
}

impl Verify {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.dir_target(self.mountpoint.as_deref())?;
        let shows = context.progress == Progress::Shown && context.out.format == Format::Human;
        let bar = if shows { bar()? } else { ProgressBar::hidden() };
        let request = Request::Verify(VerifyRequest {
            rate: self.rate.0.map_or(0, NonZeroU64::get),
            restart: self.restart,
            repair: self.repair,
            progress: shows,
        });
        let shown = context.shown(&target);
        let summary = ask(context, &target, &request, &bar, &shown)?;
        bar.finish_and_clear();
        Ok(if summary.damaged > 0 { Outcome::Damaged } else { Outcome::Complete })
    }
}

fn ask(
    context: &mut Context,
    target: &Target,
    request: &Request,
    bar: &ProgressBar,
    shown: &Shown,
) -> anyhow::Result<VerifyProgress> {
    let mut summary = VerifyProgress::default();
    let format = context.out.format;
    context.ask_and_look(target, request, |out, record: VerifyRecord| {
        match record {
            VerifyRecord::Progress(progress) => {
                bar.set_length(progress.total_bytes.max(progress.bytes));
                bar.set_position(progress.bytes);
                bar.set_message(told(&progress));
            }
            VerifyRecord::Finding(finding) if format == Format::Human => {
                bar.suspend(|| print(out, &finding, shown))?;
            }
            VerifyRecord::Finding(_) => {}
            VerifyRecord::Summary(last) => {
                if format == Format::Human {
                    bar.suspend(|| out.line(told(&last).as_bytes()))?;
                }
                summary = last;
            }
        }
        Ok(())
    })?;
    Ok(summary)
}

fn bar() -> anyhow::Result<ProgressBar> {
    let template = "{spinner} {bar:30} {percent:>3} %  {bytes_per_sec}  {msg}";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?))
}

fn print(out: &mut Output, finding: &FindingRecord, shown: &Shown) -> anyhow::Result<()> {
    let name = match (&finding.path, &finding.pack, finding.sha256) {
        (Some(path), ..) => escape(&shown.path(&path.0)),
        (_, Some(pack), _) => format!("pack {pack}"),
        (_, _, Some(hash)) => format!("object {hash}"),
        _ => String::new(),
    };
    let style = match finding.outcome.as_str() {
        "harmless" => Style::Dim,
        "healed" => Style::Good,
        _ => Style::Bad,
    };
    let trouble = out.styled(&finding.trouble, style);
    out.line(format!("{trouble}  {name}: {}", escape(finding.detail.as_bytes())).as_bytes())?;
    for version in &finding.versions {
        out.line(format!("  needed by  {}", named(version, shown)).as_bytes())?;
    }
    if let Some(line) = outcome(finding, shown) {
        out.line(format!("  {line}").as_bytes())?;
    }
    out.flush()
}

fn outcome(finding: &FindingRecord, shown: &Shown) -> Option<String> {
    let from = finding.from.as_ref().map(|copy| copied(copy, shown)).unwrap_or_default();
    Some(match finding.outcome.as_str() {
        "healed" => format!("healed from {from}"),
        "healable" => format!("`--repair` can heal it from {from}"),
        "failed" => {
            let error = finding.error.as_deref().unwrap_or_default();
            format!("cannot heal it from {from}: {error}")
        }
        "lost" => "no other copy is left".into(),
        _ => return None,
    })
}

fn copied(copy: &CopyRecord, shown: &Shown) -> String {
    if let Some(path) = &copy.snapshot {
        return escape(&path.0).to_string();
    }
    match (&copy.version, copy.sha256) {
        (Some(version), _) if copy.kind == "longer" => {
            format!("the beginning of {}", named(version, shown))
        }
        (Some(version), _) => named(version, shown),
        (None, Some(hash)) => format!("object {hash}"),
        (None, None) => copy.kind.clone(),
    }
}

fn named(version: &ShownVersion, shown: &Shown) -> String {
    format!("{}@{}", escape(&shown.path(&version.path.0)), version.number)
}

/// How far a verify is, or how it ended, in words.
pub(super) fn told(progress: &VerifyProgress) -> String {
    let mut text = format!(
        "{} objects, {} packs and {} files read ({})",
        progress.objects,
        progress.packs,
        progress.files,
        size(progress.bytes)
    );
    let parts = [
        (progress.damaged, "damaged"),
        (progress.healed, "healed"),
        (progress.external, "changed around the mount"),
        (progress.skipped, "left out"),
    ];
    for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
        text += &format!(", {count} {what}");
    }
    if progress.damaged + progress.healed == 0 {
        text += ", no damage";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_what_matters() {
        let mut progress = VerifyProgress { objects: 2, files: 3, ..VerifyProgress::default() };
        assert_eq!(told(&progress), "2 objects, 0 packs and 3 files read (0 B), no damage");
        (progress.damaged, progress.skipped) = (1, 4);
        assert!(told(&progress).ends_with("(0 B), 1 damaged, 4 left out"));
    }
}
