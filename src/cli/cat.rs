//! `horace cat`.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::fs::SeekFrom;
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use crate::clock::now_ns;
use crate::control::lookup::Target;
use crate::query::records::ContentRecord;
use crate::query::request::{PathField, Request};
use crate::query::{SendError, Sink};
use crate::store::Packed;
use crate::sys::Errno;
use crate::types::ContentHash;

use super::ask::ask;
use super::{Context, Outcome, typed_time};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// Print the content of a version of a file
#[derive(Debug, clap::Args)]
pub(super) struct Cat {
    /// The file, which may be gone; with @VERSION: a number, the beginning of a SHA-256, `head`, or one
    /// of these with `~` for the one before it
    #[arg(value_name = "PATH[@VERSION]")]
    path: PathBuf,
    /// As of this time: 10m, 2h, `yesterday 14:00`, `2026-01-31 14:00` or RFC 3339
    #[arg(long, value_name = "T")]
    at: Option<String>,
}

impl Cat {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let (path, version) = split_version(&self.path);
        if version.is_some() && self.at.is_some() {
            bail!("a version and a time are given: leave one out");
        }
        let at_ns = typed_time(self.at.as_deref(), now_ns())?;
        let target = context.target(path)?;
        let request = Request::Cat { path: PathField(target.path().into()), version, at_ns };
        read(&target, &request, |_| Ok(()), |bytes| context.out.bytes(bytes))?;
        Ok(Outcome::Complete)
    }
}

/// Reads the content that a request is about, in parts, after its record; fails if it is not the version in
/// the end.
pub(super) fn read(
    target: &Target,
    request: &Request,
    mut begin: impl FnMut(&ContentRecord) -> anyhow::Result<()>,
    mut take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reading =
        Reading { begin: &mut begin, take: &mut take, hasher: Sha256::new(), done: None };
    let answered = ask(target, request, &mut reading);
    let (record, rest) = match reading.done.take() {
        Some((_, Err(error))) => return Err(error),
        Some((record, Ok(rest))) => (record, rest),
        None => {
            answered?;
            bail!("the answer has no content");
        }
    };
    answered?;
    let read = ContentHash::from(reading.hasher);
    if rest > 0 || record.sha256.is_some_and(|known| known != read) {
        bail!("what was read is not the version: its bytes have changed since");
    }
    Ok(())
}

/// Takes the version off a path, unless something of that whole name is there.
pub(super) fn split_version(path: &Path) -> (&Path, Option<String>) {
    let bytes = path.as_os_str().as_bytes();
    let Some(at) = bytes.iter().rposition(|byte| *byte == b'@') else { return (path, None) };
    let (before, version) = (&bytes[..at], &bytes[at + 1..]);
    let named = version.strip_suffix(b"~").unwrap_or(version);
    let hex = named.len() >= 6 && named.iter().all(u8::is_ascii_hexdigit);
    let number = !named.is_empty() && named.iter().all(u8::is_ascii_digit);
    let is_version = named == b"head" || hex || number;
    if !is_version || before.is_empty() || path.symlink_metadata().is_ok() {
        return (path, None);
    }
    let version = String::from_utf8_lossy(version).into_owned();
    (Path::new(OsStr::from_bytes(before)), Some(version))
}

/// Hands the content on as it comes: what is handed over through a pipe is followed by the end of the
/// answer, which says what is wrong with it.
struct Reading<'r> {
    begin: &'r mut dyn FnMut(&ContentRecord) -> anyhow::Result<()>,
    take: &'r mut dyn FnMut(&[u8]) -> anyhow::Result<()>,
    hasher: Sha256,
    /// What came, and how many bytes of it were missing.
    done: Option<(ContentRecord, anyhow::Result<u64>)>,
}

impl Reading<'_> {
    /// Hands on what `read` fills a buffer with, given the offset, up to the size of the record.
    fn pass(
        &mut self,
        line: &[u8],
        mut read: impl FnMut(&mut [u8], u64) -> anyhow::Result<usize>,
    ) -> io::Result<()> {
        let record: ContentRecord = serde_json::from_slice(line)?;
        let mut rest = record.size;
        let mut buffer = vec![0; CHUNK];
        let mut copy = || -> anyhow::Result<u64> {
            (self.begin)(&record)?;
            while rest > 0 {
                let room = usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK);
                let n = read(&mut buffer[..room], record.size - rest)?;
                if n == 0 {
                    break;
                }
                self.hasher.update(&buffer[..n]);
                (self.take)(&buffer[..n])?;
                rest -= n as u64;
            }
            Ok(rest)
        };
        let done = copy();
        self.done = Some((record, done));
        Ok(())
    }
}

impl Sink for Reading<'_> {
    fn line(&mut self, _line: &[u8]) -> io::Result<()> {
        Err(io::Error::other("the answer came without the file"))
    }

    fn file(&mut self, line: &[u8], file: OwnedFd) -> io::Result<()> {
        let piped = rustix::fs::seek(&file, SeekFrom::Current(0)) == Err(Errno::SPIPE);
        self.pass(line, |buffer, at| {
            let read = retry_on_intr(|| match piped {
                true => rustix::io::read(&file, &mut *buffer),
                false => rustix::io::pread(&file, &mut *buffer, at),
            });
            read.context("cannot read the content")
        })
    }

    fn packed(&mut self, line: &[u8], content: &Packed, _size: u64) -> Result<(), SendError> {
        Ok(self.pass(line, |buffer, at| {
            content.read_at(buffer, at).context("cannot read the content")
        })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_what_follows_the_last_at_sign() {
        let split = |path: &'static str| {
            let (path, version) = split_version(Path::new(path));
            (path.to_str().unwrap(), version)
        };
        let version = |v: &str| Some(v.to_owned());
        assert_eq!(split("d/f@3"), ("d/f", version("3")));
        assert_eq!(split("f@head"), ("f", version("head")));
        assert_eq!(split("me@home@e3b0c4"), ("me@home", version("e3b0c4")));
        assert_eq!(split("me@home"), ("me@home", None));
        assert_eq!(split("f@3~"), ("f", version("3~")));
        assert_eq!(split("f@head~"), ("f", version("head~")));
        assert_eq!(split("f@~"), ("f@~", None));
        assert_eq!(split("f@"), ("f@", None));
        assert_eq!(split("@3"), ("@3", None));
    }
}
