//! How much is in a directory, by what is in it, and how much that has grown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Counted;
use crate::catalog::When;
use crate::query::request::{NameField, PathField};
use crate::query::{Query, QueryError};
use crate::types::{Kind, Name};

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Amounts {
    /// Regular files; one with several names counts once.
    pub files: u64,
    /// Directories, the one itself too.
    pub directories: u64,
    /// The sizes of the files in bytes.
    pub bytes: u64,
    /// Versions of these files that are not their newest and whose content is kept; told of the present only.
    pub kept_versions: u64,
    /// The sizes of these versions in bytes; what they take is less where they share content.
    pub kept_bytes: u64,
}

/// How much there is of a directory's entry and below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageEntry {
    /// Its name.
    #[serde(flatten)]
    pub name: NameField,
    /// What it is now, or was then if it is not there now.
    pub kind: Kind,
    /// Now, or as of the time that was asked for.
    #[serde(flatten)]
    pub now: Amounts,
    /// At the earlier time, if one was given.
    pub then: Option<Amounts>,
}

/// How much there is of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageRecord {
    /// Which.
    #[serde(flatten)]
    pub path: PathField,
    /// Of all that the asker may see in it.
    #[serde(flatten)]
    pub now: Amounts,
    /// At the earlier time, if one was given.
    pub then: Option<Amounts>,
    /// What is in it: the largest, or with an earlier time what has grown or shrunk most, first.
    pub entries: Vec<UsageEntry>,
    /// How many more entries there are.
    pub left_out: usize,
}

/// What is asked of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageQuery {
    /// As of when, in nanoseconds since 1970; now if left out.
    #[serde(default)]
    pub at_ns: Option<i64>,
    /// An earlier time to compare with.
    #[serde(default)]
    pub since_ns: Option<i64>,
    /// Entries to tell of at most.
    pub limit: usize,
}

/// What was found below one directory.
#[derive(Debug, Default)]
struct Sums {
    whole: Amounts,
    entries: BTreeMap<Name, (Kind, Amounts)>,
}

impl Amounts {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.bytes += other.bytes;
        self.kept_versions += other.kept_versions;
        self.kept_bytes += other.kept_bytes;
    }
}

impl Query<'_, '_> {
    /// How much is in a directory.
    pub(in crate::query) fn usage(
        &mut self,
        path: &[u8],
        query: &UsageQuery,
    ) -> Result<(), QueryError> {
        let now = self.sums(path, query.at_ns)?;
        let then = match query.since_ns {
            None => None,
            Some(_) => Some(match self.sums(path, query.since_ns) {
                // It has come since.
                Err(QueryError::NotFound { .. } | QueryError::TooEarly) => Sums::default(),
                sums => sums?,
            }),
        };
        let whole = (now.whole, then.as_ref().map(|then| then.whole));
        let mut entries = merge(now, then);
        let growth = |entry: &UsageEntry| match entry.then {
            None => entry.now.bytes,
            Some(then) => entry.now.bytes.abs_diff(then.bytes),
        };
        entries.sort_by(|a, b| growth(b).cmp(&growth(a)).then(a.name.0.cmp(&b.name.0)));
        let left_out = entries.len().saturating_sub(query.limit);
        entries.truncate(query.limit);
        let (path, (now, then)) = (PathField(path.into()), whole);
        Ok(self.answer.record(&UsageRecord { path, now, then, entries, left_out })?)
    }

    fn sums(&mut self, path: &[u8], at_ns: Option<i64>) -> Result<Sums, QueryError> {
        let when = self.when(at_ns)?;
        let (mut sums, mut counted) = (Sums::default(), Counted::default());
        self.walk(path, when, |_, reader, found, node| {
            let below = found.get(path.len()..).unwrap_or_default();
            let below = below.strip_prefix(b"/").unwrap_or(below);
            let entry = below.split(|byte| *byte == b'/').next().unwrap_or_default();
            let mut amounts = Amounts::default();
            match node.kind {
                Kind::Dir => amounts.directories = 1,
                _ if counted.add(node.id) => {
                    (amounts.files, amounts.bytes) = (1, node.size);
                    if when == When::Now && node.version > 1 {
                        (amounts.kept_versions, amounts.kept_bytes) = reader.kept_of(node.id)?;
                    }
                }
                _ => return Ok(()),
            }
            sums.whole.add(amounts);
            if !entry.is_empty() {
                let known =
                    sums.entries.entry(entry.into()).or_insert((node.kind, Amounts::default()));
                known.1.add(amounts);
            }
            Ok(())
        })?;
        Ok(sums)
    }
}

fn merge(now: Sums, then: Option<Sums>) -> Vec<UsageEntry> {
    let compared = then.is_some();
    let mut before = then.unwrap_or_default().entries;
    let mut entries = Vec::new();
    for (name, (kind, now)) in now.entries {
        let then = before.remove(&name).map(|(_, then)| then).unwrap_or_default();
        let then = compared.then_some(then);
        entries.push(UsageEntry { name: NameField(name.to_vec()), kind, now, then });
    }
    entries.extend(before.into_iter().map(|(name, (kind, then))| UsageEntry {
        name: NameField(name.to_vec()),
        kind,
        now: Amounts::default(),
        then: Some(then),
    }));
    entries
}
