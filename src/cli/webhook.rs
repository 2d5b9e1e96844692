//! `horace webhook`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::catalog::ChangeOp;
use crate::clock::now_ns;
use crate::control::lookup::Target;
use crate::query::request::Request;
use crate::query::status::StatusRecord;
use crate::types::Seq;
use crate::webhooks::{NewWebhook, WebhookRecord, WebhookState, Webhooks};

use super::ask::collect;
use super::key::state_dir;
use super::output::Format;
use super::{Context, Outcome};

/// Have changes posted to somebody else, list and stop that
#[derive(Debug, clap::Args)]
pub(super) struct Webhook {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
    List(List),
    Remove(Remove),
}

/// Have changes posted from now on, and print the secret of the signatures: it cannot be shown again
#[derive(Debug, clap::Args)]
struct Add {
    /// What to call it
    name: String,
    /// Where to: `http://HOST/…` or `https://HOST/…`
    url: String,
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Only what is at and below this path of the mount; may be given several times
    #[arg(long, value_name = "PATH")]
    below: Vec<String>,
    /// Only changes of this kind, as `horace changes` calls it; may be given several times
    #[arg(long = "op", value_name = "OP", value_parser = op)]
    ops: Vec<ChangeOp>,
    /// Also what came after the change with this number
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
}

/// List webhooks, and how far each is
#[derive(Debug, clap::Args)]
struct List {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

/// Post no more
#[derive(Debug, clap::Args)]
struct Remove {
    /// Which
    name: String,
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

#[derive(Serialize)]
struct AddedRecord<'a> {
    name: &'a str,
    secret: &'a str,
}

impl Webhook {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Add(add) => add.run(context)?,
            Command::List(list) => list.run(context)?,
            Command::Remove(Remove { name, mountpoint }) => {
                webhooks(context, mountpoint.as_deref())?.0.remove(&name)?;
            }
        }
        Ok(Outcome::Complete)
    }
}

impl Add {
    fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let (webhooks, target) = webhooks(context, self.mountpoint.as_deref())?;
        let since = match self.since {
            Some(since) => Seq(since),
            None => end_of_log(&target)?,
        };
        let Self { name, url, below, ops, .. } = self;
        let new = NewWebhook { name: name.clone(), url, below, ops, since };
        let secret = webhooks.add(new, now_ns())?;
        match context.out.format {
            Format::Json => {
                let record = AddedRecord { name: &name, secret: &secret };
                context.out.line(&serde_json::to_vec(&record)?)
            }
            Format::Human => context.out.line(secret.as_bytes()),
        }
    }
}

impl List {
    fn run(self, context: &mut Context) -> anyhow::Result<()> {
        let (webhooks, target) = webhooks(context, self.mountpoint.as_deref())?;
        let (end, now_ns) = (end_of_log(&target)?, now_ns());
        for (webhook, sent) in webhooks.list()? {
            let record = WebhookRecord::new(&webhook, &sent, end, now_ns);
            match context.out.format {
                Format::Json => context.out.line(&serde_json::to_vec(&record)?)?,
                Format::Human => context.out.line(line(&record).as_bytes())?,
            }
        }
        Ok(())
    }
}

fn line(record: &WebhookRecord) -> String {
    let WebhookRecord { name, url, state, behind, .. } = record;
    let mut line = match state {
        WebhookState::Well => format!("{name}  {url}  {behind} behind"),
        WebhookState::Failing => format!("{name}  {url}  failing, {behind} behind"),
        WebhookState::Paused => format!("{name}  {url}  paused, {behind} behind"),
    };
    if let Some(error) = &record.error {
        line += &format!(": {}", error.escape_debug());
    }
    line
}

/// The webhooks of a mount, which lie where only its owner gets.
fn webhooks(context: &Context, mountpoint: Option<&Path>) -> anyhow::Result<(Webhooks, Target)> {
    let target = context.dir_target(mountpoint)?;
    let dir = state_dir(&target, "only root and the user who mounted have to do with webhooks")?;
    Ok((Webhooks::new(dir), target))
}

/// The last change of a mount.
fn end_of_log(target: &Target) -> anyhow::Result<Seq> {
    let status: Vec<StatusRecord> = collect(target, &Request::Status)?;
    Ok(status.last().map(|status| status.seq).unwrap_or_default())
}

fn op(text: &str) -> Result<ChangeOp, String> {
    serde_json::from_value(text.into()).map_err(|_| "there is no such kind of change".into())
}
