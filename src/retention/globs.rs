//! Globs over the paths of a mount.
//!
//! Owns what a glob in a policy means.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use globset::GlobSet;
use serde::{Deserialize, Serialize};

use crate::globspec::{self, GlobError};

/// A list of globs, as a list of texts.
///
/// A glob without a slash is matched against the last name of a path, one with a slash against the
/// whole path below the mount, whether or not it begins with one. `*` stays within a name, `**`
/// crosses them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Globs {
    texts: Vec<Arc<str>>,
    set: GlobSet,
}

/// What is wrong with a list of globs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobsError {
    /// A glob cannot be understood.
    #[error("bad glob `{glob}`: {reason}")]
    Syntax {
        /// The glob.
        glob: String,
        /// What is wrong with it.
        reason: GlobError,
    },
    /// A glob matches directories only, and policies are about files.
    #[error("the glob `{glob}` matches no file: write `{glob}**` for everything below")]
    Directory {
        /// The glob, which ends in a slash.
        glob: String,
    },
    /// A glob is empty.
    #[error("an empty glob matches no file: leave it out, or write `**` for all files")]
    Empty,
}

impl Globs {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The first glob that matches a path below the mount, given without a leading slash.
    pub fn matching(&self, path: &[u8]) -> Option<&Arc<str>> {
        let first = self.set.matches(OsStr::from_bytes(path)).into_iter().min()?;
        self.texts.get(first)
    }
}

impl TryFrom<Vec<String>> for Globs {
    type Error = GlobsError;

    fn try_from(texts: Vec<String>) -> Result<Self, Self::Error> {
        let mut builder = GlobSet::builder();
        for text in &texts {
            let pattern = match text.strip_prefix('/') {
                Some(path) => path.to_string(),
                None if text.contains('/') => text.clone(),
                None => format!("**/{text}"),
            };
            if text.trim_start_matches('/').is_empty() {
                return Err(GlobsError::Empty);
            }
            if text.ends_with('/') {
                return Err(GlobsError::Directory { glob: text.clone() });
            }
            let syntax = |reason| GlobsError::Syntax { glob: text.clone(), reason };
            builder.add(globspec::read(&pattern).map_err(syntax)?);
        }
        let too_much = |error: globset::Error| GlobsError::Syntax {
            glob: error.glob().unwrap_or_default().to_string(),
            reason: error.into(),
        };
        Ok(Self {
            set: builder.build().map_err(too_much)?,
            texts: texts.into_iter().map(Arc::from).collect(),
        })
    }
}

impl From<Globs> for Vec<String> {
    fn from(globs: Globs) -> Self {
        globs.texts.iter().map(ToString::to_string).collect()
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Eq for Globs {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn globs(texts: &[&str]) -> Result<Globs, GlobsError> {
        Globs::try_from(texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[rstest]
    #[case("*.log", "a.log", true)]
    #[case("*.log", "var/log/a.log", true)]
    #[case("*.log", "a.log/b", false)]
    #[case("/*.log", "a.log", true)]
    #[case("/*.log", "var/a.log", false)]
    #[case("var/*.log", "var/a.log", true)]
    #[case("var/*.log", "x/var/a.log", false)]
    #[case("var/*.log", "var/x/a.log", false)]
    #[case("var/**", "var/x/a.log", true)]
    #[case("**/.cache/**", ".cache/a", true)]
    #[case("**/.cache/**", "home/u/.cache/a/b", true)]
    #[case("**/.cache/**", "home/cache/a", false)]
    #[case("**", "a/b", true)]
    #[case("*", "a/b", true)]
    #[case("*.{tmp,swp}", "a/.b.swp", true)]
    #[case("*.TMP", "a.tmp", false)]
    fn globs_match_names_or_paths(#[case] glob: &str, #[case] path: &str, #[case] expected: bool) {
        assert_eq!(globs(&[glob]).unwrap().matching(path.as_bytes()).is_some(), expected);
    }

    #[test]
    fn the_first_that_matches_is_told() {
        let globs = globs(&["*.x", "b/*", "*.log"]).unwrap();
        assert_eq!(globs.matching(b"b/a.log").map(AsRef::as_ref), Some("b/*"));
        assert_eq!(globs.matching(b"b/a.x").map(AsRef::as_ref), Some("*.x"));
        assert_eq!(globs.matching(b"c"), None);
        assert!(Globs::default().is_empty());
        assert_eq!(Globs::default().matching(b"c"), None);
    }

    #[test]
    fn names_that_are_no_text_match() {
        assert!(globs(&["*.log"]).unwrap().matching(b"\xff.log").is_some());
    }

    #[rstest]
    #[case("a[", "bad glob `a[`: unclosed character class")]
    #[case("cache/", "the glob `cache/` matches no file: write `cache/**` for everything below")]
    #[case("", "an empty glob matches no file")]
    #[case("/", "an empty glob matches no file")]
    fn a_wrong_glob_is_named(#[case] glob: &str, #[case] message: &str) {
        let error = globs(&["*.ok", glob]).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    proptest! {
        #[test]
        fn no_glob_panics(glob in ".*", path: Vec<u8>) {
            if let Ok(globs) = globs(&[&glob]) {
                let _ = globs.matching(&path);
            }
        }
    }
}
