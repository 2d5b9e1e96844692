//! `horace changes`.

use std::path::PathBuf;

use crate::catalog::ChangeOp;
use crate::clock::now_ns;
use crate::query::records::ChangeRecord;
use crate::query::request::{Follow, PathField, Request};
use crate::types::Seq;

use super::ask::Shown;
use super::output::{Output, Style, ago, escape, who};
use super::{Context, Outcome};

/// List what happened, oldest first
#[derive(Debug, clap::Args)]
pub(super) struct Changes {
    /// Only what happened to this file or directory and below it [default: the working directory]
    path: Option<PathBuf>,
    /// Only changes after this sequence number [default: all, or with --follow those to come]
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
    /// Wait for more, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Stop after this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Changes {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = match &self.path {
            Some(path) => context.target(path)?,
            None => context.dir_target(None)?,
        };
        let (follow, since) = match (self.follow, self.since) {
            (true, since) => (Follow::Yes, since.map(Seq)),
            (false, since) => (Follow::No, Some(Seq(since.unwrap_or(0)))),
        };
        let request = Request::Changes {
            path: PathField(target.path().into()),
            since,
            follow,
            limit: self.limit,
        };
        let shown = context.shown(&target);
        context.ask(&target, &request, |out, change| print(out, &shown, &change))?;
        Ok(Outcome::Complete)
    }
}

/// Lines rather than a table: they must come out one by one, however many there are.
fn print(out: &mut Output, shown: &Shown, change: &ChangeRecord) -> anyhow::Result<()> {
    let when = ago(&change.time, now_ns());
    let who = escape(who(change.writer.as_ref()).as_bytes());
    let op = format!("{:<8}", op_word(change.op));
    let op = out.styled(&op, Style::Bold);
    let mut line = format!("{:>8}  {when:<16}  {op}  {who:<20}  ", change.seq).into_bytes();
    if let Some(from) = &change.from_path {
        line.extend_from_slice(&out.name(&shown.path(&from.0)));
        line.extend_from_slice(b" -> ");
    }
    if let Some(path) = &change.path {
        line.extend_from_slice(&out.name(&shown.path(&path.0)));
    }
    out.line(&line)
}

/// The word for a kind of change.
pub(super) fn op_word(op: ChangeOp) -> &'static str {
    match op {
        ChangeOp::Create => "create",
        ChangeOp::Write => "write",
        ChangeOp::Rename => "rename",
        ChangeOp::Replace => "replace",
        ChangeOp::Link => "link",
        ChangeOp::Unlink => "delete",
        ChangeOp::Attr => "attr",
        ChangeOp::Exchange => "exchange",
    }
}
