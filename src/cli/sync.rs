//! `horace sync`.

use std::path::PathBuf;

use crate::query::records::SyncRecord;
use crate::query::request::Request;

use super::{Context, Outcome};

/// Make everything that was closed durable, and print the sequence number
#[derive(Debug, clap::Args)]
pub(super) struct Sync {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

impl Sync {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.dir_target(self.mountpoint.as_deref())?;
        context.ask(&target, &Request::Sync, |out, reached: SyncRecord| {
            out.line(reached.seq.to_string().as_bytes())
        })?;
        Ok(Outcome::Complete)
    }
}
