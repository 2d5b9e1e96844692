//! `horace undelete`.

use std::path::PathBuf;

use crate::query::request::{BringBack, PathField, Run};

use super::bring_back::bring_back;
use super::{Context, Outcome};

/// Bring back what was deleted: a file, or a directory with everything that was deleted with it
#[derive(Debug, clap::Args)]
pub(super) struct Undelete {
    /// What is gone
    path: PathBuf,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Undelete {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.target(&self.path)?;
        let what = BringBack::Undelete { path: PathField(target.path().into()) };
        let run = if self.dry_run { Run::Plan } else { Run::Do };
        bring_back(context, &target, what, run)
    }
}
