//! `horace restore`.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::clock::now_ns;
use crate::control::lookup::Target;
use crate::query::records::ContentRecord;
use crate::query::request::{BringBack, PathField, Request, Run, ToPathField};

use super::bring_back::bring_back;
use super::cat::{read, split_version};
use super::{Advised, Context, Outcome, typed_time};

/// Bring back a version of a file, a file or directory as it was, or what somebody changed
#[derive(Debug, clap::Args)]
pub(super) struct Restore {
    /// The file or directory, which may be gone; @VERSION as in `horace cat`
    #[arg(value_name = "PATH[@VERSION]")]
    path: PathBuf,
    /// This version: a number, the beginning of a SHA-256, or `head`
    #[arg(long, value_name = "V", conflicts_with_all = ["at", "by_pid", "by_user"])]
    version: Option<String>,
    /// As of this time: 10m, 2h, `yesterday 14:00`, `2026-01-31 14:00` or RFC 3339
    #[arg(long, value_name = "T", conflicts_with_all = ["by_pid", "by_user"])]
    at: Option<String>,
    /// Put it there instead; into it, if that is a directory
    #[arg(long, value_name = "DEST", conflicts_with_all = ["by_pid", "by_user"])]
    to: Option<PathBuf>,
    /// Take back what this process changed at and below PATH
    #[arg(long, value_name = "PID")]
    by_pid: Option<u32>,
    /// Take back what this user changed at and below PATH
    #[arg(long, value_name = "USER")]
    by_user: Option<String>,
    /// Only what they changed since then
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Only tell what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Restore {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let run = if self.dry_run { Run::Plan } else { Run::Do };
        if self.by_pid.is_some() || self.by_user.is_some() {
            let target = context.target(&self.path)?;
            let path = PathField(target.path().into());
            let since_ns = typed_time(self.since.as_deref(), now_ns())?;
            let (pid, user) = (self.by_pid, self.by_user);
            return bring_back(
                context,
                &target,
                BringBack::Undo { path, since_ns, pid, user },
                run,
            );
        }
        if self.since.is_some() {
            bail!("`--since` says whose changes by `--by-pid` or `--by-user`: neither is given");
        }
        let (path, version) = split_version(&self.path);
        let version = match (version, self.version) {
            (Some(_), Some(_)) => bail!("two versions are given: leave one out"),
            (one, other) => one.or(other),
        };
        let at_ns = typed_time(self.at.as_deref(), now_ns())?;
        match (&version, at_ns) {
            (Some(_), Some(_)) => bail!("a version and a time are given: leave one out"),
            (None, None) => {
                let hint =
                    "`--version V` or `--at T` says which; `horace log PATH` lists what there is";
                return Err(Advised::new("which version is to be restored?", hint).into());
            }
            _ => {}
        }
        let target = context.target(path)?;
        let source = PathField(target.path().into());
        let Some(to) = &self.to else {
            let what = BringBack::Restore { path: source, version, at_ns, to: None };
            return bring_back(context, &target, what, run);
        };
        let to =
            if to.is_dir() { to.join(path.file_name().unwrap_or_default()) } else { to.clone() };
        match (context.target(&to), &target) {
            (
                Ok(Target::Served { record: there, path: to }),
                Target::Served { record: here, .. },
            ) if there.socket == here.socket => {
                let to = Some(ToPathField(to));
                let what = BringBack::Restore { path: source, version, at_ns, to };
                bring_back(context, &target, what, run)
            }
            _ if run == Run::Plan => {
                let line = format!("restore {} to {}", path.display(), to.display());
                context.out.line(line.as_bytes())?;
                Ok(Outcome::Complete)
            }
            _ => write_elsewhere(&target, &Request::Cat { path: source, version, at_ns }, &to),
        }
    }
}

/// Writes a version outside of the mount, whole or not at all.
fn write_elsewhere(target: &Target, request: &Request, to: &Path) -> anyhow::Result<Outcome> {
    let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = to.file_name().with_context(|| format!("{} names no file", to.display()))?;
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".horace-{}", std::process::id()));
    let unfinished = dir.join(unfinished);
    let written = write_file(target, request, &unfinished)
        .and_then(|()| Ok(std::fs::rename(&unfinished, to)?))
        .with_context(|| format!("cannot restore to {}", to.display()));
    if written.is_err() {
        // What could not be made need not be removed.
        let _ = std::fs::remove_file(&unfinished);
    }
    written.map(|()| Outcome::Complete)
}

fn write_file(target: &Target, request: &Request, path: &Path) -> anyhow::Result<()> {
    let mut file: Option<File> = None;
    let mut mode = 0;
    let begin = |record: &ContentRecord| {
        mode = record.mode & 0o777;
        Ok(())
    };
    read(target, request, begin, |bytes| {
        let file = match &mut file {
            Some(file) => file,
            None => file.insert(private(path)?),
        };
        Ok(file.write_all(bytes)?)
    })?;
    let file = match file {
        Some(file) => file,
        None => private(path)?,
    };
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    Ok(file.sync_all()?)
}

/// A new file that only its owner can read as long as it is not whole.
fn private(path: &Path) -> std::io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}
