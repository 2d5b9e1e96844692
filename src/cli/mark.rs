//! `horace pin`, `horace unpin` and `horace note`.

use std::path::{Path, PathBuf};

use crate::query::records::VersionRecord;
use crate::query::request::{Mark, PathField, Request};

use super::cat::split_version;
use super::{Context, Outcome};

/// Keep the content of a version whatever the retention policy says
#[derive(Debug, clap::Args)]
pub(super) struct Pin {
    /// The file, which may be gone; with @VERSION: a number, the beginning of a SHA-256, or `head`
    #[arg(value_name = "PATH[@VERSION]")]
    path: PathBuf,
}

/// Leave a version to the retention policy again
#[derive(Debug, clap::Args)]
pub(super) struct Unpin {
    /// The file, which may be gone; with @VERSION: a number, the beginning of a SHA-256, or `head`
    #[arg(value_name = "PATH[@VERSION]")]
    path: PathBuf,
}

/// Say something of a version, which `horace log` shows
#[derive(Debug, clap::Args)]
pub(super) struct Note {
    /// The file, which may be gone; with @VERSION: a number, the beginning of a SHA-256, or `head`
    #[arg(value_name = "PATH[@VERSION]")]
    path: PathBuf,
    /// What to say; an empty text takes back what was said
    text: String,
}

impl Pin {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        mark(context, &self.path, Mark::Pin)
    }
}

impl Unpin {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        mark(context, &self.path, Mark::Unpin)
    }
}

impl Note {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        mark(context, &self.path, Mark::Note(self.text))
    }
}

fn mark(context: &mut Context, path: &Path, mark: Mark) -> anyhow::Result<Outcome> {
    let (path, version) = split_version(path);
    let target = context.target(path)?;
    let shown = context.shown(&target).path(target.path());
    let request = Request::Mark { path: PathField(target.path().into()), version, mark };
    context.ask(&target, &request, |out, version: VersionRecord| {
        let pinned = if version.pinned { "pinned" } else { "not pinned" };
        let note = version.note.map(|note| format!(", note: {}", note.escape_debug()));
        let told = format!("@{}: {pinned}{}", version.number, note.unwrap_or_default());
        let line = [&*out.name(&shown), told.as_bytes()].concat();
        out.line(&line)
    })?;
    Ok(Outcome::Complete)
}
