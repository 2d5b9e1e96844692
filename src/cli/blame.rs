//! `horace blame`.

use std::path::PathBuf;

use crate::clock::now_ns;
use crate::query::records::BlameRecord;
use crate::query::request::{PathField, Request};

use super::changes::op_word;
use super::output::{Column, Format, ago};
use super::{Context, Outcome};

/// Show who made each version of a file, newest first
#[derive(Debug, clap::Args)]
pub(super) struct Blame {
    /// The file, which may be gone
    path: PathBuf,
}

impl Blame {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.target(&self.path)?;
        let request = Request::Blame { path: PathField(target.path().into()) };
        let now = now_ns();
        let mut rows = Vec::new();
        context.ask(&target, &request, |_, change: BlameRecord| {
            let (user, pid, comm) = match &change.writer {
                Some(writer) => (
                    writer.user.clone().unwrap_or(writer.uid.to_string()),
                    writer.pid.to_string(),
                    writer.comm.clone(),
                ),
                None => (change.origin.to_string(), "-".into(), "-".into()),
            };
            rows.push(vec![
                change.number.to_string(),
                ago(&change.time, now),
                change.op.map_or("-", op_word).into(),
                user,
                pid,
                comm,
                format!("{:+}", change.size_delta),
            ]);
            Ok(())
        })?;
        if context.out.format == Format::Human {
            const COLUMNS: [Column; 7] = [
                Column::Right("VERSION"),
                Column::Left("TIME"),
                Column::Left("OP"),
                Column::Left("USER"),
                Column::Right("PID"),
                Column::Left("COMMAND"),
                Column::Right("BYTES"),
            ];
            context.out.table(&COLUMNS, &rows)?;
        }
        Ok(Outcome::Complete)
    }
}
