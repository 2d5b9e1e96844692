//! `horace log`.

use std::path::PathBuf;

use crate::catalog::Content;
use crate::clock::now_ns;
use crate::query::records::VersionRecord;
use crate::query::request::{PathField, Request};

use super::output::{Column, Format, ago, short, size, who};
use super::{Context, Outcome};

/// List the versions of a file, newest first
#[derive(Debug, clap::Args)]
pub(super) struct Log {
    /// The file, which may be gone
    path: PathBuf,
}

impl Log {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.target(&self.path)?;
        let request = Request::Log { path: PathField(target.path().into()) };
        let now = now_ns();
        let mut rows = Vec::new();
        let mut has_notes = false;
        context.ask(&target, &request, |_, version: VersionRecord| {
            has_notes |= version.note.is_some();
            let content = match (version.content, version.content_reason) {
                (Content::Head, _) => "head".into(),
                (Content::Object, _) => "kept".into(),
                (Content::Prefix, _) => "kept in the next".into(),
                (Content::None, Some(reason)) => format!("not kept: {reason}"),
                (Content::None, None) => "not kept".into(),
            };
            rows.push(vec![
                version.number.to_string(),
                ago(&version.time, now),
                size(version.size),
                short(version.sha256),
                who(version.writer.as_ref()),
                version.origin.to_string(),
                if version.pinned { content + ", pinned" } else { content },
                version.note.unwrap_or_default(),
            ]);
            Ok(())
        })?;
        if context.out.format == Format::Human {
            const COLUMNS: [Column; 8] = [
                Column::Right("VERSION"),
                Column::Left("TIME"),
                Column::Right("SIZE"),
                Column::Left("SHA256"),
                Column::Left("WRITER"),
                Column::Left("ORIGIN"),
                Column::Left("CONTENT"),
                Column::Left("NOTE"),
            ];
            let shown = if has_notes { COLUMNS.len() } else { COLUMNS.len() - 1 };
            rows.iter_mut().for_each(|row| row.truncate(shown));
            context.out.table(&COLUMNS[..shown], &rows)?;
        }
        Ok(Outcome::Complete)
    }
}
