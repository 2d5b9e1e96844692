//! The tables, and opening the database file.
//!
//! Owns the SQL of the schema, its migrations and the connection settings. Migrations are only ever
//! appended; each start runs the missing ones in one transaction. A file of a newer schema is refused, and
//! queries refuse an older one, which only the writer brings up to date. After a crash SQLite's WAL
//! brings the last commits back; with `synchronous=NORMAL` a power cut may lose the last of them,
//! whole, and the next reconcile finds again what they said.
//!
//! # Order of steps
//! A new database: `tables under another name → sync → name`, since one that is found empty is refused.
//! A crash before the name leaves a file that the next start removes. An old one: `missing steps and
//! user_version in one commit`; a crash or an error before it leaves the database as it was.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::io;
use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::CatalogError;
use super::place::beside;

/// Steps from an empty file to the newest schema; `user_version` counts those that were taken.
///
/// Measured on a prototype with 11 million versions: integer keys and WITHOUT ROWID trees commit three
/// times as much as UUID keys; live and past entries in two tables keep a directory fast through
/// which hundreds of thousands of temporary names have passed.
const MIGRATIONS: &[&str] = &["
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- Every file, directory, symlink and special file that ever had a name. Size and times are what
-- the digest of the head stands for; ctime_ns = 0 marks content that is not known (yet).
CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    ino INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    links INTEGER NOT NULL,
    born_seq INTEGER NOT NULL,
    ended_seq INTEGER,
    head INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX file_by_inode ON file (ino) WHERE ended_seq IS NULL;
CREATE INDEX file_unsettled ON file (id) WHERE ended_seq IS NULL AND ctime_ns = 0;

-- Names that live now.
CREATE TABLE entry (
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    child INTEGER NOT NULL REFERENCES file (id),
    from_seq INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_by_child ON entry (child);

-- Names that lived in [from_seq, to_seq).
CREATE TABLE entry_past (
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq INTEGER NOT NULL,
    child INTEGER NOT NULL,
    PRIMARY KEY (parent, name, from_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_past_by_child ON entry_past (child);
CREATE INDEX entry_past_by_end ON entry_past (parent, to_seq);

-- A NULL digest is still on its way, or the bytes were gone before they could be read.
CREATE TABLE version (
    file INTEGER NOT NULL REFERENCES file (id),
    number INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    sha256 BLOB,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;

-- Attributes that changed without a new version; directories and symlinks have only these.
CREATE TABLE attr (
    file INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    PRIMARY KEY (file, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE symlink (
    file INTEGER PRIMARY KEY,
    target BLOB NOT NULL
) STRICT;

CREATE TABLE writer (
    id INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    gid INTEGER NOT NULL,
    comm BLOB NOT NULL,
    UNIQUE (pid, comm, uid, gid)
) STRICT;

CREATE TABLE change (
    seq INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL,
    op INTEGER NOT NULL,
    file INTEGER NOT NULL,
    other INTEGER,
    number INTEGER,
    writer INTEGER
) STRICT;

-- Where the clock was set back: change.time_ns never falls between two of these.
CREATE TABLE epoch (
    seq INTEGER PRIMARY KEY,
    time_ns INTEGER NOT NULL
) STRICT;
", "
-- Preserved content, by its digest.
CREATE TABLE object (
    sha256 BLOB PRIMARY KEY,
    size INTEGER NOT NULL,
    stored_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX object_by_age ON object (stored_ns);

-- Content that was preserved and waits to become an object.
CREATE TABLE incoming (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,
    number INTEGER NOT NULL
) STRICT;
CREATE INDEX incoming_by_version ON incoming (file, number);

-- Heads that became versions of the files they were moved over, and whose content went on there.
CREATE TABLE continued (
    file INTEGER NOT NULL,
    number INTEGER NOT NULL,
    to_file INTEGER NOT NULL,
    to_number INTEGER NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;

-- What became of the content of a version that is no head any more: 1 an object, 2 it is the beginning
-- of the next version, from 16 on why it is lost. NULL was never asked for.
ALTER TABLE version ADD COLUMN kept INTEGER;
", "
-- Extended attributes that a file had until a change.
CREATE TABLE xattr_past (
    file INTEGER NOT NULL,
    until_seq INTEGER NOT NULL,
    xattrs BLOB NOT NULL,
    PRIMARY KEY (file, until_seq)
) STRICT, WITHOUT ROWID;
", "
-- What is packed has no file of its own, or soon will have none. From due_ns on it is looked at for that;
-- NULL is never again.
ALTER TABLE object ADD COLUMN packed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE object ADD COLUMN due_ns INTEGER;
UPDATE object SET due_ns = stored_ns;
CREATE INDEX object_by_due ON object (due_ns) WHERE due_ns IS NOT NULL;

-- Whose an object is. Heads have no entry, so that an import costs nothing.
CREATE INDEX version_by_content ON version (sha256) WHERE kept = 1;

-- Objects by `packed`, and as 2 those that were packed when they were given up.
CREATE TABLE object_total (
    what INTEGER PRIMARY KEY,
    objects INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO object_total SELECT 0, count(*), coalesce(sum(size), 0) FROM object;
INSERT INTO object_total VALUES (1, 0, 0), (2, 0, 0);
CREATE TRIGGER object_added AFTER INSERT ON object BEGIN
    UPDATE object_total SET objects = objects + 1, bytes = bytes + new.size
    WHERE what = new.packed;
END;
CREATE TRIGGER object_dropped AFTER DELETE ON object BEGIN
    UPDATE object_total SET objects = objects - 1, bytes = bytes - old.size
    WHERE what = old.packed;
    UPDATE object_total SET objects = objects + 1, bytes = bytes + old.size
    WHERE what = 2 AND old.packed = 1;
END;
CREATE TRIGGER object_packed AFTER UPDATE OF packed ON object WHEN old.packed <> new.packed BEGIN
    UPDATE object_total SET objects = objects - 1, bytes = bytes - old.size
    WHERE what = old.packed;
    UPDATE object_total SET objects = objects + 1, bytes = bytes + new.size
    WHERE what = new.packed;
END;
", "
-- Versions that somebody wants to stay, and what somebody said of one.
CREATE TABLE pin (
    file INTEGER NOT NULL,
    number INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE note (
    file INTEGER NOT NULL,
    number INTEGER NOT NULL,
    text TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (file, number)
) STRICT, WITHOUT ROWID;
", "
-- The numbers of device nodes, as the kernel encodes them.
CREATE TABLE device (
    file INTEGER PRIMARY KEY,
    rdev INTEGER NOT NULL
) STRICT;
", "
-- What people say of files: tags, and a text by each of a few names.
CREATE TABLE tag (
    tag TEXT NOT NULL,
    file INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (tag, file)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_file ON tag (file);
CREATE TABLE label (
    file INTEGER NOT NULL,
    name TEXT NOT NULL,
    text TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (file, name)
) STRICT, WITHOUT ROWID;

-- Files that people have put together.
CREATE TABLE collection (
    id INTEGER PRIMARY KEY,
    uuid BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    created_ns INTEGER NOT NULL,
    updated_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL
) STRICT;
CREATE TABLE collected (
    collection INTEGER NOT NULL,
    file INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    PRIMARY KEY (collection, file)
) STRICT, WITHOUT ROWID;
CREATE INDEX collected_by_file ON collected (file);
", "
-- Snapshots of the backing filesystem: each has the changes up to seq. What is gone stays here.
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY,
    backend TEXT NOT NULL,
    dataset TEXT NOT NULL,
    guid TEXT NOT NULL,
    name TEXT NOT NULL,
    class TEXT,
    createtxg INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    time_ns INTEGER NOT NULL,
    held INTEGER NOT NULL,
    gone_ns INTEGER,
    UNIQUE (backend, guid)
) STRICT;
CREATE INDEX snapshot_by_seq ON snapshot (seq) WHERE gone_ns IS NULL;
CREATE INDEX snapshot_by_name ON snapshot (name);
", "
-- Whether it is the inode itself that waits, and not a copy: whoever has it open writes to it.
ALTER TABLE incoming ADD COLUMN is_inode INTEGER NOT NULL DEFAULT 0;
"];

/// The newest schema this program knows.
pub(super) const VERSION: usize = MIGRATIONS.len();

/// What a new database is called, beside its place, until it is whole.
const UNFINISHED: &str = "catalog.new";

/// Opens the database for the writer, creating or migrating it.
pub(super) fn open_writer(path: &Path) -> Result<Connection, CatalogError> {
    match path.metadata() {
        Ok(found) if found.len() == 0 => return Err(CatalogError::Empty { path: path.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path)?,
        _ => {}
    }
    let mut db = connect_writer(path).map_err(|source| CatalogError::open(path, source))?;
    let found = user_version(&db).map_err(|source| CatalogError::open(path, source))?;
    check_not_newer(path, found)?;
    migrate(&mut db, found).map_err(|source| match source.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            CatalogError::open(path, source)
        }
        _ => CatalogError::Migrate { path: path.into(), found, known: VERSION, source },
    })?;
    Ok(db)
}

/// Makes a database where there is none.
fn create(path: &Path) -> Result<(), CatalogError> {
    let error = |source| CatalogError::Create { path: path.into(), source };
    let unfinished = path.with_file_name(UNFINISHED);
    remove_database(&unfinished).map_err(error)?;
    // Not yet with a log of its own: the commit is in the file, and synced.
    let made = Connection::open(&unfinished).and_then(|mut db| migrate(&mut db, 0));
    made.map_err(|source| error(io::Error::other(source)))?;
    // The log of a database that is gone belongs to no other.
    remove_database(path).and_then(|()| std::fs::rename(&unfinished, path)).map_err(error)
}

/// Removes a database and the files that SQLite has beside it, as far as they are there.
pub(super) fn remove_database(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match std::fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Opens the database for queries only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, CatalogError> {
    let db = open_of_any_schema(path)?;
    let found = user_version(&db).map_err(|source| CatalogError::open(path, source))?;
    if usize::try_from(found).is_ok_and(|found| found < VERSION) {
        return Err(CatalogError::Older { path: path.into(), found, known: VERSION });
    }
    Ok(db)
}

/// Opens a database that may be older, for what does not depend on its tables.
pub(super) fn open_of_any_schema(path: &Path) -> Result<Connection, CatalogError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let error = |source| CatalogError::open(path, source);
    let db = Connection::open_with_flags(path, flags).map_err(error)?;
    settings(&db, READER_CACHE_KIB).map_err(error)?;
    check_not_newer(path, user_version(&db).map_err(error)?)?;
    Ok(db)
}

/// Pages that the writer keeps: the inner ones of every index it adds to.
const WRITER_CACHE_KIB: i64 = 65_536;

/// Pages that each of several readers keeps; the kernel has the others.
const READER_CACHE_KIB: i64 = 8_192;

fn connect_writer(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    settings(&db, WRITER_CACHE_KIB)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    // Measured: FULL costs nothing at large batches and 2x to 3x at small ones. `horace sync`
    // is the durable point.
    db.pragma_update(None, "synchronous", "normal")?;
    // A checkpoint in the writer stalls it for 80 to 120 ms; another thread does it.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db)
}

fn settings(db: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(64);
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "cache_size", -cache_kib)?;
    db.pragma_update(None, "temp_store", "memory")
}

fn user_version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn check_not_newer(path: &Path, found: i64) -> Result<(), CatalogError> {
    if usize::try_from(found).is_ok_and(|found| found <= VERSION) {
        return Ok(());
    }
    Err(CatalogError::Newer { path: path.into(), found, known: VERSION })
}

fn migrate(db: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let taken = usize::try_from(found).unwrap_or(VERSION);
    if taken == VERSION {
        return Ok(());
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &MIGRATIONS[taken..] {
        tx.execute_batch(step)?;
    }
    if taken == 0 {
        let id = uuid::Uuid::new_v4();
        tx.execute("INSERT INTO meta (key, value) VALUES ('catalog_id', ?1)", [id.as_bytes()])?;
    }
    tx.pragma_update(None, "user_version", i64::try_from(VERSION).unwrap_or(i64::MAX))?;
    tx.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_of_every_older_schema_is_brought_up_to_date() {
        for taken in 0..VERSION {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("catalog.db");
            let mut old = Connection::open(&path).unwrap();
            let tx = old.transaction().unwrap();
            MIGRATIONS[..taken].iter().for_each(|step| tx.execute_batch(step).unwrap());
            tx.pragma_update(None, "user_version", i64::try_from(taken).unwrap()).unwrap();
            tx.commit().unwrap();
            drop(old);
            let db = open_writer(&path).unwrap();
            assert_eq!(user_version(&db).unwrap(), i64::try_from(VERSION).unwrap());
            let columns = "SELECT count(*) FROM pragma_table_info('version') WHERE name = 'kept'";
            let found: i64 = db.query_row(columns, [], |row| row.get(0)).unwrap();
            assert_eq!(found, 1, "from schema {taken}");
            let marks = "SELECT (SELECT count(*) FROM pin) + (SELECT count(*) FROM note)
                         + (SELECT count(*) FROM tag) + (SELECT count(*) FROM collected)";
            let found: i64 = db.query_row(marks, [], |row| row.get(0)).unwrap();
            assert_eq!(found, 0, "from schema {taken}");
        }
    }
}
