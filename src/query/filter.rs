//! What a search looks for.
//!
//! Owns the filters and their matching, which is pure. Never reads the catalog.

mod cursor;

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;

use globset::GlobSet;
use serde::{Deserialize, Serialize};

use super::request::QueryField;
use crate::globspec;
use crate::types::{ContentHash, Kind};

pub use cursor::{Cursor, ParseCursorError};

/// Everything a search can be limited to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SearchFilter {
    /// Part of the path, or a glob.
    #[serde(flatten)]
    pub query: QueryField,
    /// How the query is meant.
    #[serde(default)]
    pub pattern: Pattern,
    /// Whether names that are gone count too.
    #[serde(default)]
    pub names: Names,
    /// Sizes of files; anything that is no regular file is then left out.
    #[serde(default)]
    pub size: Option<RangeInclusive<u64>>,
    /// Saved or deleted at or after this time, in nanoseconds since 1970.
    #[serde(default)]
    pub since_ns: Option<i64>,
    /// Saved or deleted before or at this time, in nanoseconds since 1970.
    #[serde(default)]
    pub until_ns: Option<i64>,
    /// What names end with after a dot; the case of ASCII letters does not count.
    #[serde(default)]
    pub extension: Option<String>,
    /// Who saved or deleted it: the name or number of a user, or a program as the kernel calls it.
    #[serde(default)]
    pub by: Option<String>,
    /// The beginning of the digest, in hex.
    #[serde(default)]
    pub sha256: Option<String>,
    /// What has the name.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Tags that a file has, all of them.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The collection that a file is in.
    #[serde(default)]
    pub collection: Option<String>,
    /// Whether everything is told of files.
    #[serde(default)]
    pub detail: Detail,
    /// At most so many.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Only what comes after the record with this cursor.
    #[serde(default)]
    pub after: Option<Cursor>,
}

impl SearchFilter {
    /// Whether a name ends as it should, and belongs to what it should.
    pub(super) fn fits_name(&self, name: &[u8], kind: Kind) -> bool {
        let ends = |extension: &String| {
            let start = name.len().checked_sub(extension.len() + 1).filter(|start| *start > 0);
            start.is_some_and(|start| {
                name[start] == b'.' && name[start + 1..].eq_ignore_ascii_case(extension.as_bytes())
            })
        };
        self.kind.is_none_or(|wanted| wanted == kind) && self.extension.as_ref().is_none_or(ends)
    }

    /// Whether it is as large as it should be; only regular files have a size.
    pub(super) fn fits_size(&self, kind: Kind, size: u64) -> bool {
        self.size.as_ref().is_none_or(|range| kind == Kind::File && range.contains(&size))
    }

    /// Whether labels count.
    pub(super) fn has_labels(&self) -> bool {
        !self.tags.is_empty() || self.collection.is_some()
    }

    /// Whether times count.
    pub(super) fn has_times(&self) -> bool {
        self.since_ns.is_some() || self.until_ns.is_some()
    }

    /// Whether it was saved or deleted when it should.
    pub(super) fn fits_time(&self, time_ns: i64) -> bool {
        self.since_ns.is_none_or(|since| time_ns >= since)
            && self.until_ns.is_none_or(|until| time_ns <= until)
    }

    /// Whether its digest begins as it should.
    pub(super) fn fits_digest(&self, hash: Option<ContentHash>) -> bool {
        let begins = |prefix: &String| {
            let hex = hash.map(|hash| data_encoding::HEXLOWER.encode(hash.as_bytes()));
            hex.is_some_and(|hex| hex.starts_with(&prefix.to_ascii_lowercase()))
        };
        self.sha256.as_ref().is_none_or(begins)
    }
}

/// How a query is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// It is part of the path; the case of ASCII letters does not count.
    #[default]
    Substring,
    /// It is a glob over the path, or over the last name if it has no slash.
    Glob,
}

/// How much is told of what is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// What every record has.
    #[default]
    Usual,
    /// Also versions, times and labels of files that the asker may read.
    Whole,
}

/// Which names are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Names {
    /// Those that live.
    #[default]
    Live,
    /// Those that are gone too.
    AndDeleted,
}

/// The glob cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("bad glob: {0}")]
pub struct GlobError(#[from] globspec::GlobError);

/// A query that is ready to be matched.
#[derive(Debug)]
pub(super) enum Matcher {
    Substring(Vec<u8>),
    Name(GlobSet),
    Path(GlobSet),
}

impl Matcher {
    /// Prepares the query of a filter.
    pub(super) fn new(filter: &SearchFilter) -> Result<Self, GlobError> {
        let query = &filter.query.0;
        if filter.pattern == Pattern::Substring {
            return Ok(Self::Substring(query.to_ascii_lowercase()));
        }
        let text = String::from_utf8_lossy(query);
        let glob = globspec::compile(&text)?;
        Ok(if query.contains(&b'/') { Self::Path(glob) } else { Self::Name(glob) })
    }

    /// Whether a path matches.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Substring(part) => contains_ignoring_case(path, part),
            Self::Name(glob) => {
                let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
                glob.is_match(OsStr::from_bytes(name))
            }
            Self::Path(glob) => glob.is_match(OsStr::from_bytes(path)),
        }
    }
}

fn contains_ignoring_case(path: &[u8], lower: &[u8]) -> bool {
    lower.is_empty() || path.windows(lower.len()).any(|window| window.eq_ignore_ascii_case(lower))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Pattern::Substring, "READ", "docs/readme.md", true)]
    #[case(Pattern::Substring, "s/r", "docs/readme.md", true)]
    #[case(Pattern::Substring, "", "x", true)]
    #[case(Pattern::Substring, "*.md", "docs/readme.md", false)]
    #[case(Pattern::Glob, "*.md", "docs/readme.md", true)]
    #[case(Pattern::Glob, "*.MD", "docs/readme.md", false)]
    #[case(Pattern::Glob, "docs/*.md", "docs/readme.md", true)]
    #[case(Pattern::Glob, "docs/*.md", "docs/a/readme.md", false)]
    #[case(Pattern::Glob, "**/*.md", "docs/a/readme.md", true)]
    fn queries_match(
        #[case] pattern: Pattern,
        #[case] query: &str,
        #[case] path: &str,
        #[case] expected: bool,
    ) {
        let filter =
            SearchFilter { query: QueryField(query.into()), pattern, ..SearchFilter::default() };
        let matcher = Matcher::new(&filter).unwrap();
        assert_eq!(matcher.matches(path.as_bytes()), expected);
    }

    #[test]
    fn names_that_are_no_text_match_by_their_bytes() {
        let filter =
            SearchFilter { query: QueryField(b"\xff".to_vec()), ..SearchFilter::default() };
        assert!(Matcher::new(&filter).unwrap().matches(b"a\xffb"));
        assert!(!Matcher::new(&filter).unwrap().matches("a\u{ff}".as_bytes()));
    }

    #[test]
    fn a_bad_glob_is_an_error() {
        let filter = SearchFilter {
            query: QueryField(b"a[".to_vec()),
            pattern: Pattern::Glob,
            ..SearchFilter::default()
        };
        assert!(Matcher::new(&filter).is_err());
    }
}
