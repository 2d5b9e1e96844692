//! Labels and collections: who may see them, and who may change what.
//!
//! Owns their records and limits. What is said of a file is for those who may read it; a collection is for who
//! made it, and for those who may see a file in it. Labels are given by root, the user who mounted and the owner of
//! the file; a collection is changed by root, the user who mounted and who made it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::{Guard, Want};
use super::records::Users;
use super::request::{Collect, PathField};
use super::{Answer, Query, QueryError};
use crate::catalog::{
    CatalogError, Collection, CollectionChange, LabelChange, Labels, NodeInfo, Reader, When,
};
use crate::file_id;
use crate::sys::creds::Identity;
use crate::timespec::rfc3339;
use crate::types::path::{is_below, parent};
use crate::types::{ContentHash, FileId, Kind, Seq};

/// Collections and tags that are read at a time.
const PAGE: usize = 256;
/// Tags of one file.
const MAX_TAGS: usize = 64;
/// Letters of a tag, and of the name of a collection.
const MAX_NAME: usize = 128;
/// Letters of another text.
const MAX_TEXT: usize = 4096;
/// Later than every change.
const NOW: Seq = Seq(i64::MAX.cast_unsigned());

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileRecord {
    /// Where it is, or was last.
    #[serde(flatten)]
    pub path: PathField,
    /// Its identity.
    pub file_id: Uuid,
    /// Whether it is gone.
    pub deleted: bool,
    /// Size in bytes.
    pub size: u64,
    /// Digest, once it is known.
    pub sha256: Option<ContentHash>,
    /// Modification time.
    pub mtime: String,
    /// What else is known.
    #[serde(flatten)]
    pub details: FileDetails,
}

/// What is known of a file beside what a search tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileDetails {
    /// The number of its newest version in its file; 0 if it has none yet.
    pub file_number: u32,
    /// When it was first seen.
    pub created: String,
    /// When it was saved last.
    pub updated: String,
    /// What is said of it.
    #[serde(flatten)]
    pub labels: Labels,
    /// The collections that it is in.
    pub collections: Vec<CollectionName>,
}

/// What a collection is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CollectionName {
    /// Its identity.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// A tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TagRecord {
    /// Its text.
    pub tag: String,
    /// How many of the files that the caller may see have it.
    pub files: u64,
}

/// A collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CollectionRecord {
    /// Its identity.
    pub id: Uuid,
    /// What it is called; no other is called the same.
    pub name: String,
    /// What it is.
    pub description: String,
    /// How many files it has that the caller may see.
    pub files: u64,
    /// When it was made.
    pub created: String,
    /// When it or its list of files was changed.
    pub updated: String,
    /// Who made it.
    pub uid: u32,
    /// Their name, where this machine has one.
    pub user: Option<String>,
}

impl FileDetails {
    /// What is known of a file.
    pub(super) fn read(reader: &Reader, node: &NodeInfo) -> Result<Self, CatalogError> {
        let saved_ns = reader.saved_ns(node.id)?.unwrap_or(node.mtime_ns);
        let collections = reader.collections_with(node.id)?.into_iter();
        Ok(Self {
            file_number: node.version,
            created: rfc3339(reader.born_ns(node.id)?.unwrap_or(saved_ns)),
            updated: rfc3339(saved_ns),
            labels: reader.labels(node.id)?,
            collections: collections.map(|c| CollectionName { id: c.id, name: c.name }).collect(),
        })
    }
}

/// What of the live files below a directory somebody may list and read.
struct Sight<'s> {
    guard: &'s mut Guard,
    reader: &'s Reader,
    top: &'s [u8],
    /// Which directories may be listed, with all above them.
    listable: HashMap<Vec<u8>, bool>,
}

impl<'s> Sight<'s> {
    fn new(guard: &'s mut Guard, reader: &'s Reader, top: &'s [u8]) -> Self {
        Self { guard, reader, top, listable: HashMap::new() }
    }

    /// Whether nothing is hidden, and nothing is elsewhere.
    fn is_everything(&self) -> bool {
        self.guard.sees_everything() && self.top.is_empty()
    }

    /// How many of these files can be seen.
    fn count(&mut self, files: &[FileId]) -> Result<u64, CatalogError> {
        let mut seen = 0;
        for file in files {
            seen += u64::from(self.sees(*file)?);
        }
        Ok(seen)
    }

    fn sees(&mut self, file: FileId) -> Result<bool, CatalogError> {
        let names = self.reader.names_at(file, NOW)?;
        Ok(names.iter().any(|name| {
            let path = &name.path[..];
            is_below(path, self.top)
                && self.may_list(parent(path))
                && self.guard.live_path(path, Want::Read)
        }))
    }

    fn may_list(&mut self, dir: &[u8]) -> bool {
        if self.guard.sees_everything() {
            return true;
        }
        if let Some(known) = self.listable.get(dir) {
            return *known;
        }
        let may =
            (dir.is_empty() || self.may_list(parent(dir))) && self.guard.live_path(dir, Want::List);
        self.listable.insert(dir.to_vec(), may);
        may
    }
}

impl Query<'_, '_> {
    /// The file that a path has, or had last.
    fn file_at(&mut self, path: &[u8]) -> Result<NodeInfo, QueryError> {
        self.require(path, Want::Read)?;
        let not_found = || QueryError::NotFound { path: path.into() };
        let located = self.reader.locate(path)?.ok_or_else(not_found)?;
        let node = self.reader.node(located.file, When::Now)?.ok_or_else(not_found)?;
        match node.kind {
            Kind::File => Ok(node),
            _ => Err(QueryError::NotAFile { path: path.into() }),
        }
    }

    /// What is known of the file at a path.
    pub(super) fn file(&mut self, path: &[u8]) -> Result<(), QueryError> {
        let node = self.file_at(path)?;
        let record = FileRecord {
            path: PathField(path.into()),
            file_id: self.ids()?.uuid(node.id),
            deleted: self.reader.resolve(path, When::Now)? != Some(node.id),
            size: node.size,
            sha256: node.hash,
            mtime: rfc3339(node.mtime_ns),
            details: FileDetails::read(self.reader, &node)?,
        };
        Ok(self.answer.record(&record)?)
    }

    /// What is known of the file with an identity, by a path at which the asker may read it.
    pub(super) fn file_with(&mut self, id: Uuid) -> Result<(), QueryError> {
        let unknown = || QueryError::NoFile { id };
        let file = file_id::from_uuid(&self.reader.catalog_id()?, id).ok_or_else(unknown)?;
        let mut paths: Vec<Vec<u8>> =
            self.reader.names_at(file, NOW)?.into_iter().map(|name| name.path).collect();
        if paths.is_empty() {
            paths.extend(self.reader.last_path(file)?);
        }
        for path in paths {
            match self.file_at(&path) {
                Ok(node) if node.id == file => return self.file(&path),
                Ok(_)
                | Err(
                    QueryError::Denied { .. }
                    | QueryError::NotAFile { .. }
                    | QueryError::NotFound { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Err(unknown())
    }

    /// The file at a path, if `user` may say something of it, and that is within limits.
    pub(super) fn labellable(
        &mut self,
        path: &[u8],
        change: &LabelChange,
        user: &Identity,
    ) -> Result<FileId, QueryError> {
        let node = self.file_at(path)?;
        if !self.guard.sees_everything() && node.uid != user.uid {
            let what = format!("only root and the owner may label {}", super::shown(path));
            return Err(QueryError::Denied { what });
        }
        check_labels(change)?;
        let has = self.reader.labels(node.id)?.tags.len();
        let tags = change.tags.as_ref().map_or(has, Vec::len) + change.add_tags.len();
        if tags > MAX_TAGS {
            return Err(bad(format!("a file has at most {MAX_TAGS} tags")));
        }
        Ok(node.id)
    }

    /// The tags after one that files at and below a path have.
    pub(super) fn tags(&mut self, top: &[u8], after: &str, limit: u64) -> Result<(), QueryError> {
        self.top(top, When::Now)?;
        let mut sight = Sight::new(self.guard, self.reader, top);
        let answer = &mut *self.answer;
        self.reader.tags(after, |tag, files| {
            let files = sight.count(files)?;
            if files > 0 {
                answer.record(&TagRecord { tag: tag.into(), files })?;
            }
            Ok(answer.records() < limit)
        })
    }

    /// The collections after a name that have files at and below a path; at the root also those that have none,
    /// for who made them.
    pub(super) fn collections(
        &mut self,
        top: &[u8],
        after: &str,
        limit: u64,
        user: Option<&Identity>,
    ) -> Result<(), QueryError> {
        self.top(top, When::Now)?;
        let users = Users::read();
        let mut sight = Sight::new(self.guard, self.reader, top);
        let mut after = after.to_owned();
        while self.answer.records() < limit {
            let page = self.reader.collections(&after, PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for collection in page {
                tell(&mut sight, self.answer, &collection, &users, user)?;
                if self.answer.records() >= limit {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One collection by its name or identity, if the asker may see it.
    pub(super) fn collection(
        &mut self,
        name: &str,
        user: Option<&Identity>,
    ) -> Result<(), QueryError> {
        let unknown = || QueryError::NoCollection { name: name.into() };
        let collection = match (self.reader.collection(name)?, name.parse()) {
            (None, Ok(id)) => self.reader.collection_with(id)?,
            (named, _) => named,
        };
        let collection = collection.ok_or_else(unknown)?;
        let mut sight = Sight::new(self.guard, self.reader, b"");
        match tell(&mut sight, self.answer, &collection, &Users::read(), user)? {
            true => Ok(()),
            false => Err(unknown()),
        }
    }

    /// What a request does to a collection, if `user` may have that done.
    pub(super) fn collectable(
        &mut self,
        name: &str,
        what: &Collect,
        user: &Identity,
    ) -> Result<CollectionChange, QueryError> {
        check("the name of a collection", name, MAX_NAME)?;
        check_text("a description", what.description.as_deref().unwrap_or_default(), MAX_TEXT)?;
        if let Some(known) = self.reader.collection(name)? {
            self.check_mine(&known, user)?;
        }
        Ok(CollectionChange::Save {
            id: Uuid::new_v4(),
            description: what.description.as_deref().map(Into::into),
            add: self.files_at(&what.add)?,
            remove: self.files_at(&what.remove)?,
        })
    }

    /// Writes what a collection is, if `user` may have it taken away.
    pub(super) fn forgettable(&mut self, name: &str, user: &Identity) -> Result<(), QueryError> {
        let known = self.reader.collection(name)?;
        let known = known.ok_or_else(|| QueryError::NoCollection { name: name.into() })?;
        self.check_mine(&known, user)?;
        self.collection(name, Some(user))
    }

    fn check_mine(&self, collection: &Collection, user: &Identity) -> Result<(), QueryError> {
        if self.guard.sees_everything() || collection.uid == user.uid {
            return Ok(());
        }
        let name = &collection.name;
        let what = format!("only root and who made it may change the collection `{name}`");
        Err(QueryError::Denied { what })
    }

    fn files_at(&mut self, paths: &[PathField]) -> Result<Vec<FileId>, QueryError> {
        paths.iter().map(|path| Ok(self.file_at(&path.0)?.id)).collect()
    }
}

/// Writes the record of a collection; whether the asker may see it.
fn tell(
    sight: &mut Sight<'_>,
    answer: &mut Answer<'_>,
    collection: &Collection,
    users: &Users,
    user: Option<&Identity>,
) -> Result<bool, QueryError> {
    let files = match sight.is_everything() {
        true => sight.reader.live_collected(&collection.name)?,
        false => sight.count(&sight.reader.collected(&collection.name)?)?,
    };
    let is_mine = user.is_some_and(|user| user.uid == collection.uid);
    let is_theirs = sight.top.is_empty() && (sight.guard.sees_everything() || is_mine);
    if files == 0 && !is_theirs {
        return Ok(false);
    }
    answer.record(&CollectionRecord {
        id: collection.id,
        name: collection.name.clone(),
        description: collection.description.clone(),
        files,
        created: rfc3339(collection.created_ns),
        updated: rfc3339(collection.updated_ns),
        uid: collection.uid,
        user: users.name_of(collection.uid),
    })?;
    Ok(true)
}

fn bad(reason: String) -> QueryError {
    QueryError::BadLabel { reason }
}

fn check_labels(change: &LabelChange) -> Result<(), QueryError> {
    let named = change.tags.iter().flatten().chain(&change.add_tags).chain(&change.remove_tags);
    for tag in named {
        check("a tag", tag, MAX_NAME)?;
        if tag.contains(',') {
            return Err(bad("a tag has no comma".into()));
        }
    }
    for (name, text) in change.texts() {
        check_text(&format!("`{name}`"), text.unwrap_or_default(), MAX_TEXT)?;
    }
    Ok(())
}

/// A name: a text that is seen when it is read.
fn check(what: &str, name: &str, most: usize) -> Result<(), QueryError> {
    check_text(what, name, most)?;
    if name.is_empty() || name.trim() != name {
        return Err(bad(format!("{what} has letters, and no space before or after them")));
    }
    Ok(())
}

fn check_text(what: &str, text: &str, most: usize) -> Result<(), QueryError> {
    let is_bad = |c: char| c.is_control() && c != '\n' && c != '\t';
    if text.chars().count() > most || text.contains(is_bad) {
        let reason = format!("{what} has at most {most} letters, and no control characters");
        return Err(bad(reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("plan", true)]
    #[case("zwei Wörter", true)]
    #[case("", false)]
    #[case(" plan", false)]
    #[case("a,b", false)]
    #[case("a\u{7}", false)]
    #[case(&"x".repeat(129), false)]
    fn tags_are_words_that_can_be_read(#[case] tag: &str, #[case] good: bool) {
        let change = LabelChange { add_tags: vec![tag.into()], ..LabelChange::default() };
        assert_eq!(check_labels(&change).is_ok(), good);
    }

    #[test]
    fn an_empty_text_is_one_that_goes() {
        let change = LabelChange { owner: Some(String::new()), ..LabelChange::default() };
        assert!(check_labels(&change).is_ok());
        let change = LabelChange { owner: Some("x".repeat(5000)), ..LabelChange::default() };
        assert!(check_labels(&change).is_err());
    }
}
