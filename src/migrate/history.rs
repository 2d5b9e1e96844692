//! What a predecessor's rows say happened, in the order in which it did.
//!
//! Owns the reading of its texts, with everything that can be wrong in them. Pure: no file is looked at.
//!
//! The predecessor had the digest as the key of a version. So of two files with the same bytes only one has
//! a version, and a file that went back to older bytes has none for that: what a file has last is in its own
//! row, and stands for a version where the newest one says otherwise.

use std::collections::HashMap;
use std::fmt;

use jiff::tz::TimeZone;

use crate::catalog::predecessor::{OldCatalog, OldFile};
use crate::timespec::parse_absolute;
use crate::types::ContentHash;

/// The longest name in a directory, in bytes.
const LONGEST_NAME: usize = 255;

/// Something that happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Which of the paths.
    pub path: usize,
    /// What.
    pub what: What,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It had a content.
    Version {
        /// Its digest.
        hash: ContentHash,
        /// Its size in bytes, if that was told.
        size: Option<u64>,
        /// Whether it was the last of a file that was not deleted.
        standing: Standing,
    },
    /// It was deleted.
    Gone,
}

/// Whether a content was the last that the predecessor saw of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was, and the file was there.
    Head,
    /// Another came after it, or the file was deleted.
    Past,
}

/// Why something of a predecessor's catalog is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeftOut {
    /// Its path leads out of the tree.
    Outside,
    /// Its path has a name that no file can have.
    BadName,
    /// It lies where Horace has its own files.
    Own,
    /// What should be its digest is none.
    BadDigest,
    /// Nothing is said of any content.
    NoContent,
    /// Nobody knows how large it was.
    NoSize,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "lies outside of the tree",
            Self::BadName => "cannot be the name of a file",
            Self::Own => "lies where Horace has its own files",
            Self::BadDigest => "has no SHA-256",
            Self::NoContent => "has no content",
            Self::NoSize => "has an unknown size",
        })
    }
}

/// All that is to be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Paths from the root of the tree.
    pub paths: Vec<Vec<u8>>,
    /// What happened to them, in the order of times.
    pub steps: Vec<Step>,
    /// What cannot be taken over, by the path as it is written there.
    pub left_out: Vec<(Vec<u8>, LeftOut)>,
}

/// Reads what happened to the files of a catalog in which the root of the tree has one of the names
/// `known_as`, if its paths are absolute. No time is later than `now_ns`.
pub fn history(old: &OldCatalog, known_as: &[Vec<u8>], now_ns: i64) -> History {
    let versions = || old.files.iter().flat_map(|file| &file.versions);
    let sizes =
        versions().filter_map(|version| Some((version.checksum.parse().ok()?, version.size?)));
    let sizes: HashMap<ContentHash, u64> = sizes.collect();
    let mut history = History::default();
    for file in &old.files {
        match tree_path(&file.path, known_as) {
            Ok(path) => {
                let index = history.paths.len();
                history.paths.push(path);
                history.take(file, index, &sizes, now_ns);
            }
            Err(why) => history.left_out.push((file.path.clone(), why)),
        }
    }
    // What happened at the same time stays in the order in which it was written down.
    history.steps.sort_by_key(|step| step.time_ns);
    history
}

impl History {
    fn take(
        &mut self,
        file: &OldFile,
        path: usize,
        sizes: &HashMap<ContentHash, u64>,
        now_ns: i64,
    ) {
        let time = |text: &str| parse_time(text).map(|time_ns| time_ns.min(now_ns));
        let created = time(&file.created).or_else(|| time(&file.updated)).unwrap_or(now_ns);
        let mut last_ns = None;
        let mut versions = Vec::new();
        for version in &file.versions {
            let Ok(hash) = version.checksum.parse::<ContentHash>() else {
                self.left_out.push((file.path.clone(), LeftOut::BadDigest));
                continue;
            };
            let time_ns = time(&version.time).or(last_ns).unwrap_or(created);
            last_ns = Some(time_ns);
            versions.push((time_ns, hash, version.size));
        }
        versions.sort_by_key(|(time_ns, ..)| *time_ns);
        let newest = versions.last().map(|(time_ns, hash, _)| (*time_ns, *hash));
        let updated = time(&file.updated).unwrap_or(created);
        let end_ns = newest.map_or(updated, |(time_ns, _)| updated.max(time_ns));
        match file.checksum.parse::<ContentHash>() {
            Ok(hash) if newest.is_none_or(|(_, newest)| newest != hash) => {
                versions.push((end_ns, hash, sizes.get(&hash).copied()));
            }
            Err(_) if !file.checksum.is_empty() => {
                self.left_out.push((file.path.clone(), LeftOut::BadDigest));
            }
            Err(_) if versions.is_empty() => {
                self.left_out.push((file.path.clone(), LeftOut::NoContent));
            }
            _ => {}
        }
        let count = versions.len();
        for (index, (time_ns, hash, size)) in versions.into_iter().enumerate() {
            let is_head = index + 1 == count && !file.is_deleted;
            let standing = if is_head { Standing::Head } else { Standing::Past };
            self.steps.push(Step { time_ns, path, what: What::Version { hash, size, standing } });
        }
        if file.is_deleted && count > 0 {
            self.steps.push(Step { time_ns: end_ns, path, what: What::Gone });
        }
    }
}

/// Where in the tree something is that the predecessor has under a path, which may be absolute.
fn tree_path(path: &[u8], known_as: &[Vec<u8>]) -> Result<Vec<u8>, LeftOut> {
    let below = |top: &Vec<u8>| {
        let top = top.strip_suffix(b"/").unwrap_or(top);
        path.strip_prefix(top).filter(|rest| rest.first() == Some(&b'/'))
    };
    let path = match path.first() {
        Some(b'/') => known_as.iter().find_map(below).ok_or(LeftOut::Outside)?,
        _ => path,
    };
    let parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let parts: Vec<&[u8]> = parts.collect();
    if parts.is_empty() || parts.contains(&b"..".as_slice()) {
        return Err(LeftOut::Outside);
    }
    if parts.iter().any(|part| part.len() > LONGEST_NAME || part.contains(&0)) {
        return Err(LeftOut::BadName);
    }
    if parts[0] == super::OWN_DIR.as_bytes() {
        return Err(LeftOut::Own);
    }
    Ok(parts.join(&b'/'))
}

/// A time as the predecessor wrote it: of UTC if it does not say, with a space or a `T`.
fn parse_time(text: &str) -> Option<i64> {
    parse_absolute(text.trim(), &TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::catalog::predecessor::OldVersion;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_800_000_000 * SECOND;

    fn sum(n: u8) -> ContentHash {
        ContentHash::new([n; 32])
    }

    /// So many seconds after a moment of the past, as the predecessor writes it.
    fn at(seconds: i64) -> String {
        format!("2026-01-01 00:00:{seconds:02}.500000")
    }

    fn at_ns(seconds: i64) -> i64 {
        1_767_225_600 * SECOND + seconds * SECOND + SECOND / 2
    }

    fn file(path: &str, current: u8, updated: i64, versions: &[(u8, i64)]) -> OldFile {
        OldFile {
            path: path.into(),
            checksum: format!("sha256:{}", sum(current)),
            is_deleted: false,
            created: at(0),
            updated: at(updated),
            versions: versions
                .iter()
                .map(|(n, seconds)| OldVersion {
                    checksum: sum(*n).to_string(),
                    size: Some(u64::from(*n) * 10),
                    time: at(*seconds),
                })
                .collect(),
        }
    }

    fn of(files: Vec<OldFile>) -> History {
        history(&OldCatalog { files, strays: 0 }, &[b"/mnt/files".to_vec()], NOW)
    }

    /// Seconds, path, and of a version the beginning of its digest, its size and whether it is the head.
    type Told<'h> = (i64, &'h [u8], Option<(u8, Option<u64>, bool)>);

    fn told(history: &History) -> Vec<Told<'_>> {
        let told = |step: &Step| {
            let what = match step.what {
                What::Version { hash, size, standing } => {
                    Some((hash.as_bytes()[0], size, standing == Standing::Head))
                }
                What::Gone => None,
            };
            ((step.time_ns - at_ns(0)) / SECOND, &*history.paths[step.path], what)
        };
        history.steps.iter().map(told).collect()
    }

    #[test]
    fn versions_that_the_key_made_impossible_come_from_the_rows_of_the_files() {
        let mut gone = file("d/gone", 3, 7, &[(3, 4)]);
        gone.is_deleted = true;
        let history = of(vec![
            // Went back to its first bytes.
            file("back", 1, 5, &[(1, 1), (2, 3)]),
            // Has the same bytes as another.
            file("/mnt/files/twin", 2, 6, &[]),
            gone,
        ]);
        assert_eq!(
            told(&history),
            [
                (1, b"back".as_slice(), Some((1, Some(10), false))),
                (3, b"back", Some((2, Some(20), false))),
                (4, b"d/gone", Some((3, Some(30), false))),
                (5, b"back", Some((1, Some(10), true))),
                (6, b"twin", Some((2, Some(20), true))),
                (7, b"d/gone", None),
            ]
        );
        assert_eq!(history.left_out, []);
    }

    #[test]
    fn times_that_cannot_be_are_put_right() {
        let mut odd = file("odd", 2, 1, &[(1, 5), (2, 3)]);
        odd.versions[0].time = "yesterday".into();
        odd.versions[1].time = "2199-01-01T00:00:00Z".into();
        let mut gone = file("gone", 3, 2, &[(3, 9)]);
        gone.is_deleted = true;
        let history = of(vec![odd, gone]);
        let times: Vec<_> = history.steps.iter().map(|step| step.time_ns).collect();
        // No earlier than it was made, no later than now, and not deleted before it had its content.
        assert_eq!(times, [at_ns(0), at_ns(9), at_ns(9), NOW]);
        assert_eq!(history.steps[2].what, What::Gone);
    }

    #[rstest]
    #[case("../x", LeftOut::Outside)]
    #[case("a/../../x", LeftOut::Outside)]
    #[case("/etc/passwd", LeftOut::Outside)]
    #[case("/mnt/filesystem/x", LeftOut::Outside)]
    #[case("", LeftOut::Outside)]
    #[case("a\0b", LeftOut::BadName)]
    #[case(".horace/catalog.db", LeftOut::Own)]
    fn paths_that_are_none_of_the_tree_are_left_out(#[case] path: &str, #[case] why: LeftOut) {
        let history = of(vec![file(path, 1, 1, &[(1, 1)])]);
        assert_eq!(history.left_out, [(path.as_bytes().to_vec(), why)]);
        assert_eq!(history.steps, []);
    }

    #[test]
    fn what_says_nothing_of_a_content_is_left_out_alone() {
        let mut bad = file("bad", 1, 4, &[(1, 1), (2, 2)]);
        bad.checksum = "md5:1".into();
        bad.versions[0].checksum = "sha256:1".into();
        let mut empty = file("empty", 1, 4, &[]);
        empty.checksum = String::new();
        let mut sizeless = file("sizeless", 9, 5, &[]);
        sizeless.path = b"./s//t\xff".to_vec();
        let history = of(vec![bad, empty, sizeless]);
        assert_eq!(
            told(&history),
            [
                (2, b"bad".as_slice(), Some((2, Some(20), true))),
                (5, b"s/t\xff", Some((9, None, true)))
            ]
        );
        let why: Vec<_> = history.left_out.iter().map(|(_, why)| *why).collect();
        assert_eq!(why, [LeftOut::BadDigest, LeftOut::BadDigest, LeftOut::NoContent]);
    }

    #[rstest]
    #[case("2026-11-21 02:47:42.409632", 1_795_229_262_409_632_000)]
    #[case("2026-11-21T02:47:42", 1_795_229_262_000_000_000)]
    #[case("2026-11-21 03:47:42+01:00", 1_795_229_262_000_000_000)]
    #[case("2026-11-21T02:47:42.409632+00:00", 1_795_229_262_409_632_000)]
    fn times_are_of_utc(#[case] text: &str, #[case] time_ns: i64) {
        assert_eq!(parse_time(text), Some(time_ns));
    }
}
