//! `horace diff`.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use similar::TextDiff;

use crate::control::lookup::Target;
use crate::query::records::ContentRecord;
use crate::query::request::{PathField, Request};

use super::cat::read;
use super::output::{Style, size};
use super::{Context, Outcome};

/// Larger contents are only told apart, in bytes.
const MOST: u64 = 64 << 20;

/// Show what changed between two versions of a file
#[derive(Debug, clap::Args)]
pub(super) struct Diff {
    /// The file, which may be gone
    path: PathBuf,
    /// The older version: a number, the beginning of a SHA-256, or `head` [default: the one before B]
    a: Option<String>,
    /// The newer version [default: head]
    b: Option<String>,
    /// Lines around each change
    #[arg(short = 'U', long, value_name = "N", default_value_t = 3)]
    unified: usize,
}

/// One side.
struct Side {
    label: String,
    record: ContentRecord,
    bytes: Option<Vec<u8>>,
}

impl Diff {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.target(&self.path)?;
        let newer = self.b.unwrap_or_else(|| "head".into());
        let older = self.a.unwrap_or_else(|| format!("{newer}~"));
        let name = context.out.name(self.path.as_os_str().as_bytes()).into_owned();
        let name = String::from_utf8_lossy(&name).into_owned();
        let side = |version: &str| fetch(&target, version, format!("{name}@{version}"));
        let (a, b) = (side(&older)?, side(&newer)?);
        let (Some(old), Some(new)) = (text(&a), text(&b)) else {
            return tell_binary(context, &a, &b);
        };
        let diff = TextDiff::from_lines(old, new);
        let mut unified = diff.unified_diff();
        unified.context_radius(self.unified).header(&a.label, &b.label);
        let mut whole = Vec::new();
        unified.to_writer(&mut whole)?;
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            let shown = context.out.name(line.strip_suffix(b"\n").unwrap_or(line)).into_owned();
            let style = match line.first() {
                _ if line.starts_with(b"+++") || line.starts_with(b"---") => Some(Style::Bold),
                Some(b'+') => Some(Style::Good),
                Some(b'-') => Some(Style::Bad),
                Some(b'@') => Some(Style::Dim),
                _ => None,
            };
            match style {
                Some(style) => {
                    let text = String::from_utf8_lossy(&shown).into_owned();
                    let styled = context.out.styled(&text, style);
                    context.out.line(styled.as_bytes())?;
                }
                None => context.out.line(&shown)?,
            }
        }
        Ok(Outcome::Complete)
    }
}

fn fetch(target: &Target, version: &str, label: String) -> anyhow::Result<Side> {
    let path = PathField(target.path().into());
    let request = Request::Cat { path, version: Some(version.into()), at_ns: None };
    let (mut record, mut bytes) = (None, Vec::new());
    let begin = |found: &ContentRecord| {
        record = Some(found.clone());
        Ok(())
    };
    let whole = read(target, &request, begin, |part| {
        let room = usize::try_from(MOST).unwrap_or(usize::MAX).saturating_sub(bytes.len());
        Ok(bytes.write_all(&part[..part.len().min(room)])?)
    });
    whole?;
    let record = record.expect("what was read had a record");
    let bytes = Some(bytes).filter(|_| record.size < MOST);
    Ok(Side { label, record, bytes })
}

/// The content as lines; `None` if it is no text, or too much.
fn text(side: &Side) -> Option<&str> {
    let bytes = side.bytes.as_deref()?;
    let is_binary = bytes.iter().take(8192).any(|byte| *byte == 0);
    std::str::from_utf8(bytes).ok().filter(|_| !is_binary)
}

fn tell_binary(context: &mut Context, a: &Side, b: &Side) -> anyhow::Result<Outcome> {
    let differ = match (&a.bytes, &b.bytes) {
        (Some(old), Some(new)) => {
            let same = old.iter().zip(new).take_while(|(x, y)| x == y).count();
            (old != new).then(|| format!(", first at byte {same}"))
        }
        _ => (a.record.sha256 != b.record.sha256).then(String::new),
    };
    let line = match differ {
        Some(place) => {
            let sizes = format!("{} and {}", size(a.record.size), size(b.record.size));
            format!("Binary contents {} and {} differ: {sizes}{place}", a.label, b.label)
        }
        None => format!("Contents {} and {} are the same", a.label, b.label),
    };
    context.out.line(line.as_bytes())?;
    Ok(Outcome::Complete)
}
