//! `horace key`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::control::lookup::Target;
use crate::keys::{Key as Known, KeyFile, NewKey, Scope};
use crate::sys::users;
use crate::timespec::{Span, rfc3339};

use super::output::{Format, ago};
use super::{Advised, Context, Outcome};

/// Make, list and revoke keys of the HTTP API
#[derive(Debug, clap::Args)]
pub(super) struct Key {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a key, and print it: it cannot be shown again
#[derive(Debug, clap::Args)]
struct Create {
    /// What to call it
    name: String,
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// What it is good for
    #[arg(long, value_enum, default_value_t = Scope::Read)]
    scope: Scope,
    /// The user with whose eyes it sees and as whom it acts
    #[arg(long, default_value = "root")]
    user: String,
    /// It is good at and below this path of the mount only; may be given several times
    #[arg(long, value_name = "PATH")]
    below: Vec<String>,
    /// It ends after this time
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
}

/// List keys
#[derive(Debug, clap::Args)]
struct List {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

/// Take a key away
#[derive(Debug, clap::Args)]
struct Revoke {
    /// Which
    name: String,
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

#[derive(Serialize)]
struct CreatedRecord<'a> {
    name: &'a str,
    key: &'a str,
}

#[derive(Serialize)]
struct KeyRecord<'a> {
    name: &'a str,
    scope: Scope,
    user: &'a str,
    below: &'a [String],
    created: String,
    expires: Option<String>,
}

impl Key {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        match self.command {
            Command::Create(create) => create.run(context),
            Command::List(list) => list.run(context),
            Command::Revoke(revoke) => revoke.run(context),
        }
    }
}

impl Create {
    fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let file = key_file(context, self.mountpoint.as_deref())?;
        if users::uid_of(&self.user).is_none() {
            anyhow::bail!("there is no user `{}`", self.user);
        }
        let now_ns = crate::clock::now_ns();
        let expires_ns = self.expires.map(|span| now_ns.saturating_add(span.as_ns()));
        let (name, scope, user, below) = (self.name.clone(), self.scope, self.user, self.below);
        let key = file.create(NewKey { name, scope, user, below, expires_ns }, now_ns)?;
        match context.out.format {
            Format::Json => {
                let record = CreatedRecord { name: &self.name, key: &key };
                context.out.line(&serde_json::to_vec(&record)?)?;
            }
            Format::Human => context.out.line(key.as_bytes())?,
        }
        Ok(Outcome::Complete)
    }
}

impl List {
    fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let keys = key_file(context, self.mountpoint.as_deref())?.list()?;
        let now_ns = crate::clock::now_ns();
        for key in keys.iter() {
            match context.out.format {
                Format::Json => context.out.line(&serde_json::to_vec(&record(key))?)?,
                Format::Human => context.out.line(line(key, now_ns).as_bytes())?,
            }
        }
        Ok(Outcome::Complete)
    }
}

impl Revoke {
    fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        key_file(context, self.mountpoint.as_deref())?.revoke(&self.name)?;
        Ok(Outcome::Complete)
    }
}

fn record(key: &Known) -> KeyRecord<'_> {
    KeyRecord {
        name: &key.name,
        scope: key.scope,
        user: &key.user,
        below: &key.below,
        created: rfc3339(key.created_ns),
        expires: key.expires_ns.map(rfc3339),
    }
}

fn line(key: &Known, now_ns: i64) -> String {
    let scope = match key.scope {
        Scope::Read => "read",
        Scope::Restore => "restore",
        Scope::Admin => "admin",
    };
    let mut line = format!("{}  {scope}  as {}", key.name, key.user);
    if !key.below.is_empty() {
        line += &format!("  below {}", key.below.join(", "));
    }
    line += &format!("  made {}", ago(&rfc3339(key.created_ns), now_ns));
    match key.expires_ns {
        Some(end) if end <= now_ns => line += "  ended",
        Some(end) => line += &format!("  until {}", rfc3339(end)),
        None => {}
    }
    line
}

/// The keys of a mount, which lie where only its owner gets.
fn key_file(context: &Context, mountpoint: Option<&Path>) -> anyhow::Result<KeyFile> {
    let target = context.dir_target(mountpoint)?;
    let dir = state_dir(&target, "only root and the user who mounted may make keys")?;
    Ok(KeyFile::new(dir))
}

/// The state directory of a mount, or advice for those who do not get there.
pub(super) fn state_dir(target: &Target, hint: &str) -> anyhow::Result<PathBuf> {
    let dir = match target {
        Target::Served { record, .. } => record.state_dir.clone(),
        Target::Stopped { catalog, .. } => catalog.parent().map(PathBuf::from).unwrap_or_default(),
    };
    match std::fs::read_dir(&dir) {
        Ok(_) => Ok(dir),
        Err(_) => Err(Advised::new(format!("cannot get to {}", dir.display()), hint).into()),
    }
}
