//! `horace reconcile`.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::ReconcileProgress;
use crate::control::wire::{Request, Wait};

use super::output::Format;
use super::status::told;
use super::{Context, Outcome, Progress};

/// Record what was changed around the mount
#[derive(Debug, clap::Args)]
pub(super) struct Reconcile {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Return at once instead of when it is done
    #[arg(long)]
    no_wait: bool,
}

impl Reconcile {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
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

fn bar() -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {bar:30} {percent:>3} %  {msg}")?;
    Ok(ProgressBar::new(0).with_style(style))
}
