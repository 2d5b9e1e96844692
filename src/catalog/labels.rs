//! What people say of files: labels, and collections of files.
//!
//! Owns their tables. As marks they are no changes of the tree, and are in no log. They hang on the file, and
//! so go where it goes, and stay while it is deleted, unless somebody else makes a file in its place. Limits are a
//! matter of whoever hands them in.

use rusqlite::{OptionalExtension, Params, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::CatalogError;
use super::apply::Apply;
use super::read::Reader;
use super::rows::get_u64;
use crate::types::{FileId, Seq};

/// What is said of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Labels {
    /// Words, in their order.
    pub tags: Vec<String>,
    /// Whose it is.
    pub owner: Option<String>,
    /// What it is for.
    pub purpose: Option<String>,
    /// What has become of it.
    pub status: Option<String>,
    /// What it belongs to elsewhere.
    pub correlation_id: Option<String>,
}

/// What is to be said of a file from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelChange {
    /// These tags, in the place of all that it has.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
    /// These tags too.
    #[serde(default)]
    pub add_tags: Vec<String>,
    /// These tags no more.
    #[serde(default)]
    pub remove_tags: Vec<String>,
    /// Its owner; nothing takes it away, and so it is with the others.
    #[serde(default)]
    pub owner: Option<String>,
    /// Its purpose.
    #[serde(default)]
    pub purpose: Option<String>,
    /// Its status.
    #[serde(default)]
    pub status: Option<String>,
    /// Its correlation.
    #[serde(default)]
    pub correlation_id: Option<String>,
}

impl LabelChange {
    /// The texts, by what they are called in the catalog.
    pub fn texts(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("owner", self.owner.as_deref()),
            ("purpose", self.purpose.as_deref()),
            ("status", self.status.as_deref()),
            ("correlation_id", self.correlation_id.as_deref()),
        ]
    }
}

/// What becomes of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CollectionChange {
    /// It is made if there is none, and described, and its files change.
    Save {
        /// Its identity, if it is made.
        id: Uuid,
        /// What it is; as it was, or nothing, if left out.
        description: Option<Box<str>>,
        /// Files that it gets.
        add: Vec<FileId>,
        /// Files that it loses.
        remove: Vec<FileId>,
    },
    /// It goes; its files stay.
    Delete,
}

/// A collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    /// Its identity.
    pub id: Uuid,
    /// What it is called; no other is called the same.
    pub name: String,
    /// What it is.
    pub description: String,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: i64,
    /// When it or its list of files was changed, in nanoseconds since 1970.
    pub updated_ns: i64,
    /// Who made it.
    pub uid: u32,
}

const COLLECTION_COLUMNS: &str = "c.uuid, c.name, c.description, c.created_ns, c.updated_ns, c.uid";

impl Collection {
    fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: Uuid::from_bytes(row.get(0)?),
            name: row.get(1)?,
            description: row.get(2)?,
            created_ns: row.get(3)?,
            updated_ns: row.get(4)?,
            uid: row.get(5)?,
        })
    }
}

impl Apply<'_, '_> {
    pub(super) fn label(&mut self, file: FileId, change: &LabelChange) -> rusqlite::Result<()> {
        let (id, time, uid) = (file.0.cast_signed(), self.time_ns, self.uid());
        if change.tags.is_some() {
            self.run("DELETE FROM tag WHERE file = ?1", [id])?;
        }
        for tag in change.tags.iter().flatten().chain(&change.add_tags) {
            let sql = "INSERT OR IGNORE INTO tag (tag, file, time_ns, uid) VALUES (?1, ?2, ?3, ?4)";
            self.run(sql, params![tag, id, time, uid])?;
        }
        for tag in &change.remove_tags {
            self.run("DELETE FROM tag WHERE tag = ?1 AND file = ?2", params![tag, id])?;
        }
        for (name, text) in change.texts() {
            match text {
                None => {}
                Some("") => {
                    self.run("DELETE FROM label WHERE file = ?1 AND name = ?2", params![id, name])?;
                }
                Some(text) => {
                    let sql = "INSERT OR REPLACE INTO label (file, name, text, time_ns, uid)
                               VALUES (?1, ?2, ?3, ?4, ?5)";
                    self.run(sql, params![id, name, text, time, uid])?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn collect(
        &mut self,
        name: &str,
        change: &CollectionChange,
    ) -> rusqlite::Result<()> {
        let (time, uid) = (self.time_ns, self.uid());
        let CollectionChange::Save { id, description, add, remove } = change else {
            let files = "DELETE FROM collected
                         WHERE collection = (SELECT id FROM collection WHERE name = ?1)";
            self.run(files, [name])?;
            return self.run("DELETE FROM collection WHERE name = ?1", [name]);
        };
        let sql = "INSERT INTO collection (uuid, name, description, created_ns, updated_ns, uid)
                   VALUES (?1, ?2, coalesce(?3, ''), ?4, ?4, ?5)
                   ON CONFLICT (name) DO UPDATE
                   SET description = coalesce(?3, description), updated_ns = ?4";
        self.run(sql, params![id.as_bytes(), name, description, time, uid])?;
        for file in add {
            let sql = "INSERT OR IGNORE INTO collected (collection, file, time_ns, uid)
                       SELECT id, ?2, ?3, ?4 FROM collection WHERE name = ?1";
            self.run(sql, params![name, file.0.cast_signed(), time, uid])?;
        }
        for file in remove {
            let sql = "DELETE FROM collected
                       WHERE file = ?2 AND collection = (SELECT id FROM collection WHERE name = ?1)";
            self.run(sql, params![name, file.0.cast_signed()])?;
        }
        Ok(())
    }

    /// Takes back everything that was said of a file.
    pub(super) fn unlabel(&mut self, file: FileId) -> rusqlite::Result<()> {
        for table in ["tag", "label", "collected"] {
            self.run(&format!("DELETE FROM {table} WHERE file = ?1"), [file.0.cast_signed()])?;
        }
        Ok(())
    }

    fn run(&self, sql: &str, values: impl Params) -> rusqlite::Result<()> {
        self.rows.db.prepare_cached(sql)?.execute(values).map(|_| ())
    }
}

impl Reader {
    /// What is said of a file.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn labels(&self, file: FileId) -> Result<Labels, CatalogError> {
        let id = file.0.cast_signed();
        let mut query =
            self.db.prepare_cached("SELECT tag FROM tag WHERE file = ?1 ORDER BY tag")?;
        let tags = query.query_map([id], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut labels = Labels { tags, ..Labels::default() };
        let mut query = self.db.prepare_cached("SELECT name, text FROM label WHERE file = ?1")?;
        let mut rows = query.query([id])?;
        while let Some(row) = rows.next()? {
            let text = Some(row.get(1)?);
            match row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)? {
                "owner" => labels.owner = text,
                "purpose" => labels.purpose = text,
                "status" => labels.status = text,
                "correlation_id" => labels.correlation_id = text,
                _ => {}
            }
        }
        Ok(labels)
    }

    /// Every tag after one, with the files that have it, until `visit` has enough.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `visit` fails with.
    pub fn tags<E: From<CatalogError>>(
        &self,
        after: &str,
        mut visit: impl FnMut(&str, &[FileId]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut after = after.to_owned();
        loop {
            let sql = "SELECT min(tag) FROM tag WHERE tag > ?1";
            let next = self.one(sql, [&after], |row| row.get::<_, Option<String>>(0))?;
            let Some(tag) = next.flatten() else { return Ok(()) };
            let files = self.files("SELECT file FROM tag WHERE tag = ?1", [&tag])?;
            if !visit(&tag, &files)? {
                return Ok(());
            }
            after = tag;
        }
    }

    /// The files that have all of these tags and are in a collection, if one is named.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn labelled(
        &self,
        tags: &[String],
        collection: Option<&str>,
    ) -> Result<Vec<FileId>, CatalogError> {
        let mut sets = Vec::new();
        for tag in tags {
            sets.push(self.files("SELECT file FROM tag WHERE tag = ?1 ORDER BY file", [tag])?);
        }
        if let Some(name) = collection {
            sets.push(self.collected(name)?);
        }
        let Some(mut files) = sets.pop() else { return Ok(Vec::new()) };
        // Each is in the order of the numbers.
        files.retain(|file| sets.iter().all(|set| set.binary_search(file).is_ok()));
        Ok(files)
    }

    /// The files of a collection, in the order of their numbers; none if there is no such collection.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn collected(&self, collection: &str) -> Result<Vec<FileId>, CatalogError> {
        let sql = "SELECT m.file FROM collected m JOIN collection c ON c.id = m.collection
                   WHERE c.name = ?1 ORDER BY m.file";
        self.files(sql, [collection])
    }

    /// How many of them live.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn live_collected(&self, collection: &str) -> Result<u64, CatalogError> {
        let sql = "SELECT count(*) FROM collected m JOIN collection c ON c.id = m.collection
                   JOIN file f ON f.id = m.file AND f.ended_seq IS NULL WHERE c.name = ?1";
        Ok(self.one(sql, [collection], |row| get_u64(row, 0))?.unwrap_or(0))
    }

    /// The path that a file had when it ended.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn last_path(&self, file: FileId) -> Result<Option<Vec<u8>>, CatalogError> {
        match self.ended_seq(file)? {
            Some(ended) => self.path_of(file, Seq(ended.saturating_sub(1))),
            None => Ok(None),
        }
    }

    /// The collection of a name.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn collection(&self, name: &str) -> Result<Option<Collection>, CatalogError> {
        let sql = format!("SELECT {COLLECTION_COLUMNS} FROM collection c WHERE c.name = ?1");
        self.one(&sql, [name], Collection::from_row)
    }

    /// The collection of an identity.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn collection_with(&self, id: Uuid) -> Result<Option<Collection>, CatalogError> {
        let sql = format!("SELECT {COLLECTION_COLUMNS} FROM collection c WHERE c.uuid = ?1");
        self.one(&sql, [id.as_bytes()], Collection::from_row)
    }

    /// The collections after a name, in the order of their names.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn collections(&self, after: &str, limit: usize) -> Result<Vec<Collection>, CatalogError> {
        let sql = format!(
            "SELECT {COLLECTION_COLUMNS} FROM collection c WHERE c.name > ?1 ORDER BY c.name LIMIT ?2"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let found = query.query_map(params![after, limit], Collection::from_row)?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// The collections that a file is in, in the order of their names.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn collections_with(&self, file: FileId) -> Result<Vec<Collection>, CatalogError> {
        let sql = format!(
            "SELECT {COLLECTION_COLUMNS} FROM collected m JOIN collection c ON c.id = m.collection
             WHERE m.file = ?1 ORDER BY c.name"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let found = query.query_map([file.0.cast_signed()], Collection::from_row)?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// When a file was first seen, in nanoseconds since 1970.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn born_ns(&self, file: FileId) -> Result<Option<i64>, CatalogError> {
        let sql =
            "SELECT c.time_ns FROM file f JOIN change c ON c.seq = f.born_seq WHERE f.id = ?1";
        self.one(sql, [file.0.cast_signed()], |row| row.get(0))
    }

    fn one<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, CatalogError> {
        Ok(self.db.prepare_cached(sql)?.query_row(values, read).optional()?)
    }

    fn files(&self, sql: &str, values: impl Params) -> Result<Vec<FileId>, CatalogError> {
        let mut query = self.db.prepare_cached(sql)?;
        let files = query.query_map(values, |row| get_u64(row, 0).map(FileId))?;
        Ok(files.collect::<Result<_, _>>()?)
    }
}
