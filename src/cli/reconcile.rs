//! `horace reconcile`.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::query::records::RebuildRecord;
use crate::query::request::{Request, Wait};
use crate::query::status::ReconcileProgress;

use super::output::{Format, escape};
use super::status::told;
use super::{Context, Outcome, Progress};
use crate::timespec::rfc3339;

/// Record what was changed around the mount
#[derive(Debug, clap::Args)]
pub(super) struct Reconcile {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Return at once instead of when it is done
    #[arg(long)]
    no_wait: bool,
    /// Put the newest backup in the place of a damaged catalog of BACKING, which must not be mounted
    #[arg(long, value_name = "BACKING", conflicts_with_all = ["mountpoint", "no_wait"])]
    rebuild: Option<PathBuf>,
    /// Where the catalog is, if it was mounted with `-o state=DIR`
    #[arg(long, value_name = "DIR", requires = "rebuild")]
    state: Option<PathBuf>,
}

impl Reconcile {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        if let Some(backing) = &self.rebuild {
            return rebuild(context, backing, self.state);
        }
        let target = context.dir_target(self.mountpoint.as_deref())?;
        let wait = if self.no_wait { Wait::No } else { Wait::Yes };
        let bar = match context.progress {
            Progress::Shown if wait == Wait::Yes => bar()?,
            _ => ProgressBar::hidden(),
        };
        let mut last = ReconcileProgress::default();
        let request = Request::Reconcile { wait };
        context.ask(&target, &request, |_, progress: ReconcileProgress| {
            if let Some(total) = progress.total_files {
                bar.set_length(total.max(progress.files));
            }
            bar.set_position(progress.files);
            bar.set_message(told(&progress));
            last = progress;
            Ok(())
        })?;
        bar.finish_and_clear();
        if context.out.format == Format::Human {
            context.out.line(told(&last).as_bytes())?;
        }
        Ok(Outcome::Complete)
    }
}

fn rebuild(
    context: &mut Context,
    backing: &Path,
    state: Option<PathBuf>,
) -> anyhow::Result<Outcome> {
    let rebuilt = crate::daemon::rebuild(backing, state)?;
    if context.out.format == Format::Json {
        let record = serde_json::to_string(&RebuildRecord::new(&rebuilt))?;
        context.out.line(record.as_bytes())?;
        return Ok(Outcome::Complete);
    }
    let shown = |path: &Path| escape(path.as_os_str().as_encoded_bytes());
    for (path, reason) in &rebuilt.refused {
        context.out.line(format!("not whole: {} ({reason})", shown(path)).as_bytes())?;
    }
    if let Some(aside) = &rebuilt.aside {
        context.out.line(format!("what was there is in {}", shown(aside)).as_bytes())?;
    }
    let done = match &rebuilt.from {
        Some(backup) => format!("the catalog is as of {} again", rfc3339(backup.time_ns)),
        None => "there is no backup: the next mount begins a new catalog".into(),
    };
    context.out.line(done.as_bytes())?;
    context.out.line(b"mount it: what has happened since is found in the directory")?;
    Ok(Outcome::Complete)
}

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {bar:30} {percent:>3} %  {msg}")?;
    Ok(ProgressBar::new(0).with_style(style))
}
