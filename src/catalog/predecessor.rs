//! The catalog of the predecessor, the "NAS Gateway", as rows.
//!
//! Owns the SQL on its two tables. Never changes anything of it: its file is either opened as one that cannot
//! change, which makes no lock and no log beside it, or copied with its log, and the copy is read. A crash
//! leaves a copy, in the directory that was named for it or the one for temporary files. What the rows mean is
//! for others to say: texts come as they were written.
#![expect(clippy::disallowed_types, reason = "the catalog owns all SQL")]

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::place::beside;
use super::schema::remove_database;

/// Why the catalog of the predecessor cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PredecessorError {
    /// It cannot be copied.
    #[error("cannot copy the predecessor's catalog {}", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be read as a database.
    #[error("cannot read the predecessor's catalog {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// It has not the predecessor's tables.
    #[error("{} is no catalog of the predecessor: it has no table `{table}`", path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// What it lacks.
        table: &'static str,
    },
    /// The copy is not whole.
    #[error("the predecessor's catalog {} is damaged, or in use: {reason}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What SQLite found.
        reason: String,
    },
}

/// A row of `files`, with its versions in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OldFile {
    /// The path, as bytes of whatever form it has.
    pub path: Vec<u8>,
    /// The digest of the newest content, as text.
    pub checksum: String,
    /// Whether it was deleted.
    pub is_deleted: bool,
    /// When it was first seen, as text.
    pub created: String,
    /// When it was last seen to change, as text.
    pub updated: String,
    /// Its rows of `file_versions`.
    pub versions: Vec<OldVersion>,
}

/// A row of `file_versions`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OldVersion {
    /// The digest, as text.
    pub checksum: String,
    /// Its size, if that is a number.
    pub size: Option<u64>,
    /// When it was seen, as text.
    pub time: String,
}

/// What is in the predecessor's catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OldCatalog {
    /// The files, in the order in which they were added.
    pub files: Vec<OldFile>,
    /// Versions of no file.
    pub strays: u64,
}

/// How many rows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OldTotals {
    /// Files, also deleted ones.
    pub files: u64,
    /// Versions.
    pub versions: u64,
}

/// Counts what is in a catalog without anything being made beside it.
///
/// # Errors
/// If it is none of the predecessor's.
pub fn count(path: &Path) -> Result<OldTotals, PredecessorError> {
    let error = |source| PredecessorError::Read { path: path.into(), source };
    let totals = |db: &Connection| {
        must_be_predecessors(db, path)?;
        let rows = |table: &str| {
            let sql = format!("SELECT count(*) FROM {table}");
            db.query_row(&sql, [], |row| super::rows::get_u64(row, 0)).map_err(error)
        };
        Ok(OldTotals { files: rows("files")?, versions: rows("file_versions")? })
    };
    if has_log(path) {
        // What is only in the log counts, too.
        let dir = std::env::temp_dir().join(format!("horace-{}", uuid::Uuid::new_v4()));
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|source| PredecessorError::Copy { path: path.into(), source })?;
        let copy = Copy::make(path, &dir);
        let totals = copy.and_then(|copy| totals(&copy.open(path)?));
        // Nothing of use is left there.
        let _ = fs::remove_dir(&dir);
        return totals;
    }
    totals(&open_unchanging(path).map_err(error)?)
}

/// Whether a catalog has changes in its log: it is in use, or whoever used it did not end in order.
pub fn has_log(path: &Path) -> bool {
    beside(path, "-wal").metadata().is_ok_and(|log| log.len() > 0)
}

/// Copies a catalog with its log into `dir`, reads the copy and removes it.
///
/// # Errors
/// If it cannot be copied, is none of the predecessor's, or is not whole, as it may be while it is written.
pub fn read(path: &Path, dir: &Path) -> Result<OldCatalog, PredecessorError> {
    let copy = Copy::make(path, dir)?;
    let error = |source| PredecessorError::Read { path: path.into(), source };
    let db = copy.open(path)?;
    must_be_predecessors(&db, path)?;
    let told: String =
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(error)?;
    if told != "ok" {
        return Err(PredecessorError::Damaged { path: path.into(), reason: told });
    }
    rows(&db).map_err(error)
}

/// A copy of a catalog, removed when this is dropped.
struct Copy {
    path: PathBuf,
}

impl Copy {
    fn make(of: &Path, dir: &Path) -> Result<Self, PredecessorError> {
        let error = |source| PredecessorError::Copy { path: of.into(), source };
        let copy = Self { path: dir.join("predecessor.db") };
        remove_database(&copy.path).map_err(error)?;
        for suffix in ["", "-wal"] {
            match fs::copy(beside(of, suffix), beside(&copy.path, suffix)) {
                Err(missing) if suffix == "-wal" && missing.kind() == io::ErrorKind::NotFound => {}
                copied => copied.map(|_| ()).map_err(error)?,
            }
        }
        Ok(copy)
    }

    fn open(&self, of: &Path) -> Result<Connection, PredecessorError> {
        let error = |source| PredecessorError::Read { path: of.into(), source };
        Connection::open(&self.path).map_err(error)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = remove_database(&self.path) {
            tracing::warn!(%error, "a copy of the predecessor's catalog is left");
        }
    }
}

fn open_unchanging(path: &Path) -> rusqlite::Result<Connection> {
    let mut uri = b"file:".to_vec();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(*byte),
            other => uri.extend_from_slice(format!("%{other:02x}").as_bytes()),
        }
    }
    uri.extend_from_slice(b"?immutable=1");
    let uri = String::from_utf8_lossy(&uri).into_owned();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

fn must_be_predecessors(db: &Connection, path: &Path) -> Result<(), PredecessorError> {
    for table in ["files", "file_versions"] {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let found: u64 = db
            .query_row(sql, [table], |row| super::rows::get_u64(row, 0))
            .map_err(|source| PredecessorError::Read { path: path.into(), source })?;
        if found == 0 {
            return Err(PredecessorError::Other { path: path.into(), table });
        }
    }
    Ok(())
}

fn rows(db: &Connection) -> rusqlite::Result<OldCatalog> {
    // Whatever type an identity has, it is the same in both tables.
    let sql =
        "SELECT f.rowid, f.path, f.current_checksum, f.is_deleted, f.created_at, f.updated_at,
                      v.checksum, v.size_bytes, v.timestamp
               FROM files f LEFT JOIN file_versions v ON v.file_id = f.file_id
               ORDER BY f.rowid, v.rowid";
    let mut query = db.prepare(sql)?;
    let mut found = query.query([])?;
    let mut catalog = OldCatalog::default();
    let mut last = None;
    while let Some(row) = found.next()? {
        let id: i64 = row.get(0)?;
        if last.replace(id) != Some(id) {
            catalog.files.push(file_from_row(row)?);
        }
        if let Some(file) = catalog.files.last_mut()
            && row.get_ref(6)? != ValueRef::Null
        {
            let size = match row.get_ref(7)? {
                ValueRef::Integer(size) => u64::try_from(size).ok(),
                _ => None,
            };
            let (checksum, time) = (text(row, 6)?, text(row, 8)?);
            file.versions.push(OldVersion { checksum, size, time });
        }
    }
    let strays = "SELECT count(*) FROM file_versions v
                  WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.file_id = v.file_id)";
    catalog.strays = db.query_row(strays, [], |row| super::rows::get_u64(row, 0))?;
    Ok(catalog)
}

fn file_from_row(row: &Row<'_>) -> rusqlite::Result<OldFile> {
    let path = match row.get_ref(1)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        _ => Vec::new(),
    };
    let is_deleted = match row.get_ref(3)? {
        ValueRef::Integer(number) => number != 0,
        ValueRef::Text(text) => matches!(text, b"1" | b"true" | b"True"),
        _ => false,
    };
    Ok(OldFile {
        path,
        checksum: text(row, 2)?,
        is_deleted,
        created: text(row, 4)?,
        updated: text(row, 5)?,
        versions: Vec::new(),
    })
}

/// A text, or nothing for what is none.
fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<String> {
    Ok(match row.get_ref(index)? {
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        _ => String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The predecessor's own statements.
    const SCHEMA: &str = "
        PRAGMA journal_mode = wal;
        PRAGMA foreign_keys = off;
        CREATE TABLE schema_version (version INTEGER PRIMARY KEY, created_at TIMESTAMP);
        CREATE TABLE files (file_id TEXT PRIMARY KEY, path TEXT NOT NULL UNIQUE,
            current_checksum TEXT, is_deleted BOOLEAN DEFAULT 0, created_at TIMESTAMP,
            updated_at TIMESTAMP);
        CREATE TABLE file_versions (checksum TEXT PRIMARY KEY, file_id TEXT NOT NULL,
            size_bytes INTEGER, timestamp TIMESTAMP,
            FOREIGN KEY (file_id) REFERENCES files (file_id) ON DELETE CASCADE);
        INSERT INTO files VALUES ('u1', 'a/b', 'sha256:02', 0, 't0', 't2'),
            ('u2', x'ff', NULL, 1, 5, 't3');
        INSERT INTO file_versions VALUES ('sha256:01', 'u1', 7, 't1'), ('02', 'u1', 'x', 't2'),
            ('03', 'nobody', 1, 't1');";

    #[test]
    fn rows_are_read_whatever_is_in_them_and_the_file_stays_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(SCHEMA).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        // It is open, and all of it is in the log still.
        let found = read(&path, scratch.path()).unwrap();
        let version = |checksum: &str, size, time: &str| OldVersion {
            checksum: checksum.into(),
            size,
            time: time.into(),
        };
        let first = OldFile {
            path: b"a/b".to_vec(),
            checksum: "sha256:02".into(),
            is_deleted: false,
            created: "t0".into(),
            updated: "t2".into(),
            versions: vec![version("sha256:01", Some(7), "t1"), version("02", None, "t2")],
        };
        let second = OldFile {
            path: vec![0xff],
            is_deleted: true,
            updated: "t3".into(),
            ..OldFile::default()
        };
        assert_eq!(found, OldCatalog { files: vec![first, second], strays: 1 });
        assert_eq!(count(&path).unwrap(), OldTotals { files: 2, versions: 3 });
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        assert!(has_log(&path));
        drop(db);
        assert!(!has_log(&path));
        assert_eq!(count(&path).unwrap(), OldTotals { files: 2, versions: 3 });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was made beside it");
    }

    #[test]
    fn what_is_no_catalog_of_the_predecessor_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE files (a)").unwrap();
        let told = count(&path).unwrap_err().to_string();
        assert!(
            told.ends_with("is no catalog of the predecessor: it has no table `file_versions`")
        );
        fs::write(&path, "no database at all, but text that is long enough for one").unwrap();
        assert!(matches!(read(&path, dir.path()), Err(PredecessorError::Read { .. })));
        assert!(matches!(
            read(&dir.path().join("missing"), dir.path()),
            Err(PredecessorError::Copy { .. })
        ));
    }
}
