//! `horace rewind`.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::clock::now_ns;
use crate::query::request::{BringBack, PathField, Run};

use super::bring_back::bring_back;
use super::{Context, Outcome, typed_time};

/// Take a file or directory back to what it was; what was not there then goes into history
#[derive(Debug, clap::Args)]
pub(super) struct Rewind {
    /// The directory or file
    path: PathBuf,
    /// To this time: 10m, 2h, `yesterday 14:00`, `2026-01-31 14:00` or RFC 3339
    #[arg(long, value_name = "T")]
    to: String,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Rewind {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let at_ns = typed_time(Some(&self.to), now_ns())?.context("no time is given")?;
        let target = context.target(&self.path)?;
        let what = BringBack::Rewind { path: PathField(target.path().into()), at_ns };
        let run = if self.dry_run { Run::Plan } else { Run::Do };
        bring_back(context, &target, what, run)
    }
}
