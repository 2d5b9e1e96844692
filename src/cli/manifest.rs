//! `horace manifest`.
//!
//! Owns the format of `sha256sum`, escapes included.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::clock::now_ns;
use crate::query::records::ManifestRecord;
use crate::query::request::{PathField, Request};
use crate::types::ContentHash;

use super::output::{Format, escape};
use super::{Context, Outcome, typed_time};

/// Print the digests of files, as `sha256sum -c` reads them
#[derive(Debug, clap::Args)]
pub(super) struct Manifest {
    /// A directory or file
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// As of this time: 10m, 2h, `yesterday 14:00`, `2026-01-31 14:00` or RFC 3339
    #[arg(long, value_name = "T")]
    at: Option<String>,
}

impl Manifest {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.dir_target(Some(&self.dir))?;
        let at_ns = typed_time(self.at.as_deref(), now_ns())?;
        let request = Request::Manifest { path: PathField(target.path().into()), at_ns };
        let (typed, below) = (typed_prefix(&self.dir), target.path().to_vec());
        let end = context.ask(&target, &request, |out, record: ManifestRecord| {
            let name = name(&typed, &below, &record.path.0);
            match &record.sha256 {
                Some(sha256) => {
                    let line = line(sha256, &name);
                    let line = out.name(&line).into_owned();
                    out.line(&line)
                }
                None => {
                    tell_unknown(&name);
                    Ok(())
                }
            }
        })?;
        if end.unknown > 0 {
            if context.out.format == Format::Json {
                tracing::warn!(files = end.unknown, "some digests are not known");
            }
            return Ok(Outcome::Partial);
        }
        Ok(Outcome::Complete)
    }
}

#[expect(clippy::print_stderr, reason = "what is missing is told beside the answer")]
fn tell_unknown(name: &[u8]) {
    eprintln!("horace: no digest is known of {}", escape(name));
}

/// The directory as it was typed, without what says nothing.
fn typed_prefix(dir: &Path) -> Vec<u8> {
    let mut typed = dir.as_os_str().as_bytes();
    while let Some(rest) = typed.strip_prefix(b"./") {
        typed = rest;
    }
    while typed.len() > 1
        && let Some(rest) = typed.strip_suffix(b"/")
    {
        typed = rest;
    }
    if typed == b"." { Vec::new() } else { typed.into() }
}

/// The name of a file as reached by the directory that was typed.
fn name(typed: &[u8], below: &[u8], path: &[u8]) -> Vec<u8> {
    let rest = path.strip_prefix(below).unwrap_or(path);
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    let mut name = typed.to_vec();
    if !name.is_empty() && !rest.is_empty() && !name.ends_with(b"/") {
        name.push(b'/');
    }
    name.extend_from_slice(rest);
    // `sha256sum` takes this one for its standard input.
    if name == b"-" { b"./-".to_vec() } else { name }
}

/// One line as GNU `sha256sum` prints it.
fn line(sha256: &ContentHash, name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            _ => escaped.push(*byte),
        }
    }
    let mark = if escaped.len() > name.len() { "\\" } else { "" };
    let mut line = format!("{mark}{sha256}  ").into_bytes();
    line.append(&mut escaped);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(".", "", "a/b", "a/b")]
    #[case("./", "sub", "sub/b", "b")]
    #[case("sub", "sub", "sub/x", "sub/x")]
    #[case("./sub/", "sub", "sub/x", "sub/x")]
    #[case("..", "", "a", "../a")]
    #[case("/mnt/sub", "sub", "sub/x", "/mnt/sub/x")]
    #[case("/", "", "x", "/x")]
    #[case("sub/file", "sub/file", "sub/file", "sub/file")]
    #[case(".", "", "-", "./-")]
    #[case(".", "", "a/-", "a/-")]
    fn names_are_reached_by_what_was_typed(
        #[case] dir: &str,
        #[case] below: &str,
        #[case] path: &str,
        #[case] expected: &str,
    ) {
        let typed = typed_prefix(Path::new(dir));
        let name = name(&typed, below.as_bytes(), path.as_bytes());
        assert_eq!(String::from_utf8(name).unwrap(), expected);
    }

    #[test]
    fn sha256sum_accepts_every_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut manifest = Vec::new();
        let names: [&[u8]; 7] = [
            b"plain",
            b" two  spaces ",
            b"back\\slash",
            b"line\nfeed",
            b"car\rriage",
            b"\\",
            b"\xff\x01*",
        ];
        for name in names {
            std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
            manifest.extend(line(&ContentHash::EMPTY, name));
            manifest.push(b'\n');
        }
        std::fs::write(dir.path().join("manifest"), manifest).unwrap();
        let check = std::process::Command::new("sha256sum")
            .args(["--strict", "-c", "manifest"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(check.status.success(), "{check:?}");
    }
}
