//! Files that have the same content.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Counted;
use crate::catalog::{NodeInfo, When};
use crate::query::request::PathField;
use crate::query::{Query, QueryError};
use crate::types::{ContentHash, FileId, Kind};

/// Paths that are told of one content at most.
const PATHS: usize = 100;

/// Files that have the same content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DuplicateRecord {
    /// Its digest.
    pub sha256: ContentHash,
    /// Its size in bytes.
    pub size: u64,
    /// How many files have it; one with several names counts once.
    pub files: u64,
    /// The bytes that all of them but one have: what could be freed at most, for some may share blocks already.
    pub reclaimable: u64,
    /// Where they are, a hundred at most, in the order of the paths' bytes.
    pub paths: Vec<PathField>,
}

/// The first bytes of a digest, by which contents are told apart before they are told of.
type Short = [u8; 8];

/// One content, and how many files have it.
struct Group {
    size: u64,
    files: u64,
    paths: Vec<PathField>,
}

impl Query<'_, '_> {
    /// The contents of at least `min_size` bytes that several files at and below a path have: those that take the
    /// most first, `limit` at most.
    pub(in crate::query) fn duplicates(
        &mut self,
        path: &[u8],
        min_size: u64,
        limit: usize,
    ) -> Result<(), QueryError> {
        let content = |node: &NodeInfo| {
            let large = node.kind == Kind::File && node.size >= min_size.max(1);
            node.hash.filter(|_| large)
        };
        // Whether more than one file has a content; a name of the same file is no other file.
        let mut seen: HashMap<Short, (FileId, bool)> = HashMap::new();
        self.walk(path, When::Now, |_, _, _, node| {
            if let Some(hash) = content(node) {
                let first = seen.entry(short(hash)).or_insert((node.id, false));
                first.1 |= first.0 != node.id;
            }
            Ok(())
        })?;
        seen.retain(|_, (_, several)| *several);
        let (mut groups, mut counted) = (HashMap::<ContentHash, Group>::new(), Counted::default());
        self.walk(path, When::Now, |_, _, found, node| {
            let Some(hash) = content(node).filter(|hash| seen.contains_key(&short(*hash))) else {
                return Ok(());
            };
            let new = || Group { size: node.size, files: 0, paths: Vec::new() };
            let group = groups.entry(hash).or_insert_with(new);
            if counted.add(node.id) {
                group.files += 1;
            }
            if group.paths.len() < PATHS {
                group.paths.push(PathField(found.into()));
            }
            Ok(())
        })?;
        let mut records: Vec<_> = groups.into_iter().filter_map(record).collect();
        records.sort_by(|a, b| b.reclaimable.cmp(&a.reclaimable).then(a.sha256.cmp(&b.sha256)));
        for record in records.iter().take(limit) {
            self.answer.record(record)?;
        }
        Ok(())
    }
}

fn short(hash: ContentHash) -> Short {
    let mut short = Short::default();
    short.copy_from_slice(&hash.as_bytes()[..8]);
    short
}

fn record((sha256, group): (ContentHash, Group)) -> Option<DuplicateRecord> {
    let Group { size, files, paths } = group;
    let reclaimable = size.saturating_mul(files.checked_sub(1).filter(|others| *others > 0)?);
    Some(DuplicateRecord { sha256, size, files, reclaimable, paths })
}
