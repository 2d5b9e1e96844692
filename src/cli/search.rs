//! `horace search`.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::clock::now_ns;
use crate::query::filter::{Cursor, Detail, Names, Pattern, SearchFilter};
use crate::query::records::SearchRecord;
use crate::query::request::{PathField, QueryField, Request};
use crate::sizespec::Size;
use crate::types::Kind;

use super::ask::Shown;
use super::output::{Output, Style, ago, size};
use super::{Context, Outcome, typed_time};

/// Find names that contain a text
#[derive(Debug, clap::Args)]
pub(super) struct Search {
    /// Part of the path below DIR; the case of ASCII letters does not count
    query: OsString,
    /// Where to look [default: the working directory]
    dir: Option<PathBuf>,
    /// Take QUERY as a glob over the whole path, or over the last name if it has no slash
    #[arg(short, long)]
    glob: bool,
    /// Find names that are gone, too
    #[arg(short, long)]
    deleted: bool,
    /// Only files of this size: +1M for more, -10k for less, 1M..5M between, 0 exactly
    #[arg(long, value_name = "RANGE", allow_hyphen_values = true, value_parser = size_range)]
    size: Option<RangeInclusive<u64>>,
    /// Only what was saved or deleted since this time: 10m, 2h, `yesterday 14:00`, RFC 3339
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Only what was saved or deleted until this time
    #[arg(long, value_name = "T")]
    until: Option<String>,
    /// Only names that end with a dot and this; the case of ASCII letters does not count
    #[arg(long, value_name = "EXTENSION")]
    ext: Option<String>,
    /// Only what this user or program saved or deleted: a name or number, or what `ps` calls it
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// Only files whose content has a digest that begins so
    #[arg(long, value_name = "HEX", value_parser = hex)]
    sha256: Option<String>,
    /// Only what is a file, dir, symlink, fifo, socket, char-device or block-device
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<Kind>,
    /// Only files that have this tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only files of this collection
    #[arg(long, value_name = "NAME")]
    collection: Option<String>,
    /// Go on after the record with this `cursor`, as `--json` shows it
    #[arg(long, value_name = "CURSOR")]
    after: Option<Cursor>,
    /// Stop after this many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

impl Search {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.dir_target(self.dir.as_deref())?;
        let now = now_ns();
        let since_ns = typed_time(self.since.as_deref(), now)?;
        let until_ns = typed_time(self.until.as_deref(), now)?;
        let extension = self.ext.map(|ext| ext.strip_prefix('.').unwrap_or(&ext).to_owned());
        let request = Request::Search {
            path: PathField(target.path().into()),
            filter: SearchFilter {
                query: QueryField(self.query.into_vec()),
                pattern: if self.glob { Pattern::Glob } else { Pattern::Substring },
                names: if self.deleted { Names::AndDeleted } else { Names::Live },
                size: self.size,
                since_ns,
                until_ns,
                extension,
                by: self.by,
                sha256: self.sha256,
                kind: self.kind,
                tags: self.tags,
                collection: self.collection,
                detail: Detail::Usual,
                limit: self.limit,
                after: self.after,
            },
        };
        let shown = context.shown(&target);
        context.ask(&target, &request, |out, found| print(out, &shown, &found, now))?;
        Ok(Outcome::Complete)
    }
}

/// Lines rather than a table: they must come out one by one, however many there are.
fn print(out: &mut Output, shown: &Shown, found: &SearchRecord, now: i64) -> anyhow::Result<()> {
    let bytes = match found.kind {
        Kind::File => size(found.size),
        _ => "-".into(),
    };
    let when = match &found.deleted {
        Some(time) => ago(time, now),
        None => ago(&found.mtime, now),
    };
    let mut line = format!("{bytes:>11}  {when:<16}  ").into_bytes();
    line.extend_from_slice(&out.name(&shown.path(&found.path.0)));
    if found.kind == Kind::Dir {
        line.push(b'/');
    }
    if found.deleted.is_some() {
        line.extend_from_slice(out.styled(" (deleted)", Style::Dim).as_bytes());
    }
    out.line(&line)
}

/// Reads `+1M`, `-10k`, `1M..5M` or `100`.
fn size_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let range = if let Some(least) = text.strip_prefix('+') {
        bytes(least)?.saturating_add(1)..=u64::MAX
    } else if let Some(most) = text.strip_prefix('-') {
        let most = bytes(most)?;
        0..=most.checked_sub(1).ok_or("nothing is smaller than 0")?
    } else if let Some((from, to)) = text.split_once("..") {
        let open = |text: &str, end| {
            if text.is_empty() { Ok(end) } else { bytes(text) }
        };
        open(from, 0)?..=open(to, u64::MAX)?
    } else {
        let exactly = bytes(text)?;
        exactly..=exactly
    };
    if range.is_empty() {
        return Err("the range is upside down".into());
    }
    Ok(range)
}

/// Reads the beginning of a digest, with or without `sha256:`.
fn hex(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let is_hex = (1..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hex { Ok(hex) } else { Err("a digest has up to 64 digits and letters a to f".into()) }
}

/// Reads what something is, as records call it.
fn kind(text: &str) -> Result<Kind, String> {
    serde_json::from_value(text.into()).map_err(|_| "there is no such kind".into())
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse::<Size>().map(|size| size.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(size_range("+1M"), Ok(1_048_577..=u64::MAX));
        assert_eq!(size_range("-10k"), Ok(0..=10_239));
        assert_eq!(size_range("1KiB..2GB"), Ok(1024..=2_147_483_648));
        assert_eq!(size_range("..5"), Ok(0..=5));
        assert_eq!(size_range("0"), Ok(0..=0));
        for bad in ["", "-0", "x", "1Q", "5..1", "99999999999T", "+"] {
            assert!(size_range(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_range_is_read_or_refused(text in ".*") {
            let _ = size_range(&text);
        }
    }
}
