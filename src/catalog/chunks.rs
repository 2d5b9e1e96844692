//! The index of packed chunks: which pack has each of them, and where.
//!
//! Owns `chunks.db`, a database of its own beside the catalog: a pack brings tens of thousands of rows, which
//! would hold up the catalog's one writer, and unlike the catalog it can be lost. Everything in it is in the
//! packs too: a file that is missing, damaged, or of another schema is replaced by an empty one, and
//! [`recover`](crate::store::pack::recover()) fills that again. Never decides what is packed.
//!
//! Keys are whole digests, since a chunk that is taken for another one would be lost. A row keeps the
//! pack's short number; rows of packs that have gone are nobody's, and are swept out together.
//!
//! A filesystem that is rolled back under the daemon takes the file back to what it was. No connection notices that,
//! so nothing is written to such a file any more: it counts as damaged.
//!
//! A change is one transaction, synced before [`ChunkIndex::replace`] returns; a crash leaves all of it or
//! nothing. Readers have connections of their own, which nothing holds up but the moment of a commit.
//!
//! # Measured
//! By `benches/packs.rs`, which asks for everything in random order, on two shared EPYC cores: 47,271 items of
//! four Linux source trees take 60 bytes each, a twentieth of what the packs take; 900,000 are inserted a second of
//! processor time, and 270,000 found. The reader asks for few of them, since a pack's own index tells it the others.
#![expect(clippy::disallowed_types, reason = "the catalog owns its databases")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use super::place::Place as FilePlace;
use super::rows::{get_hash, get_u64};
use crate::store::pack::error::IndexError;
use crate::store::pack::types::Sort;
use crate::store::pack::{ChunkIndex, Key, PackId, PackIndex, PackTotals, Place};
use crate::types::ContentHash;

/// Name of the database file in the state directory.
pub const FILE_NAME: &str = "chunks.db";

/// The schema below. A file with another number is built anew.
const VERSION: i64 = 1;

const SCHEMA: &str = "
-- Numbers are not used again: rows of `item` may outlive the pack that they are of.
CREATE TABLE pack (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    items INTEGER NOT NULL
) STRICT;

-- The key of a chunk is its digest, that of a recipe the digest of the content and a byte behind it.
CREATE TABLE item (
    key BLOB NOT NULL,
    pack INTEGER NOT NULL,
    frame INTEGER NOT NULL,
    frame_bytes INTEGER NOT NULL,
    start INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (key, pack)
) STRICT, WITHOUT ROWID;

-- How many rows of `item` are nobody's.
CREATE TABLE stale (items INTEGER NOT NULL) STRICT;
INSERT INTO stale (items) VALUES (0);
";

/// Fewer rows that are nobody's are left where they are.
const WORTH_A_SWEEP: u64 = 10_000;

/// Pages that the writer keeps in memory.
const WRITER_CACHE_KIB: i64 = 32_768;
/// Pages that each reader keeps in memory: the inner ones of ten million rows.
const READER_CACHE_KIB: i64 = 16_384;
/// Connections for readers that are kept open.
const READERS: usize = 4;

/// The index as a database.
#[derive(Debug)]
pub struct ChunkDb {
    /// Changes things; looks things up too where there are no others. Lock order: before `packs`.
    main: Mutex<Main>,
    /// The packs that are known, by their numbers. Who looks something up holds it, and so does a commit:
    /// so it always fits the rows.
    packs: RwLock<Known>,
    /// Locked last.
    readers: Mutex<Pool>,
    damaged: AtomicBool,
}

/// Packs by their numbers.
type Known = HashMap<i64, KnownPack>;

#[derive(Debug, Clone, Copy)]
struct KnownPack {
    pack: PackId,
    size: u64,
    items: u64,
}

/// Connections that wait for readers, all of them to the file that is there now.
#[derive(Debug, Default)]
struct Pool {
    /// Counts how often the file was made anew.
    generation: u64,
    idle: Vec<Connection>,
}

#[derive(Debug)]
struct Main {
    db: Connection,
    home: Home,
    /// The file as it was when it was last written, of [`Home::File`].
    place: FilePlace,
}

/// Where the database lies.
#[derive(Debug, Clone)]
enum Home {
    /// In a file that others may open too.
    File(PathBuf),
    /// In a file that is only read; what is changed goes to [`Home::Private`].
    ReadOnly(PathBuf),
    /// In a temporary file of this connection.
    Private,
}

impl ChunkDb {
    /// Opens the index in a file, which is made anew if it is missing or cannot be used.
    ///
    /// # Errors
    /// If there can be no such file.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let home = Home::File(path.into());
        let main = match Main::open(home.clone()) {
            Ok(main) => main,
            Err(error) => {
                tracing::warn!(%error, "the index of chunks cannot be used: making it anew");
                remove(path)?;
                Main::open(home)?
            }
        };
        Ok(Self::new(main)?)
    }

    /// Opens the index in a file for looking things up alone. One that cannot be used seems empty.
    ///
    /// # Errors
    /// If there can be no temporary file either.
    pub fn open_to_read(path: &Path) -> Result<Self, IndexError> {
        match Main::open(Home::ReadOnly(path.into())).and_then(Self::new) {
            Ok(index) => Ok(index),
            Err(error) => {
                tracing::debug!(%error, "the index of chunks cannot be used");
                Ok(Self::new(Main::open(Home::Private)?)?)
            }
        }
    }

    fn new(main: Main) -> rusqlite::Result<Self> {
        let packs = RwLock::new(known_packs(&main.db)?);
        let (readers, damaged) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { main: Mutex::new(main), packs, readers, damaged })
    }

    /// Notes an error that says that the file is not what it should be.
    fn judge<T>(&self, result: rusqlite::Result<T>) -> Result<T, IndexError> {
        result.map_err(|error| {
            let code = error.sqlite_error_code();
            if matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)) {
                self.damaged.store(true, Ordering::Relaxed);
            }
            error.into()
        })
    }

    /// The first item with a key from `first` to `last`.
    fn find_between(&self, first: &Key, last: &Key) -> Result<Option<(Sort, Place)>, IndexError> {
        let (generation, pooled) = {
            let mut readers = self.readers.lock();
            (readers.generation, readers.idle.pop())
        };
        let db = match pooled {
            Some(db) => db,
            None => {
                let main = self.main.lock();
                match &main.home {
                    Home::File(path) | Home::ReadOnly(path) => {
                        let path = path.clone();
                        drop(main);
                        self.judge(open_reader(&path))?
                    }
                    Home::Private => return self.judge(self.find_by(&main.db, first, last)),
                }
            }
        };
        let found = self.judge(self.find_by(&db, first, last));
        let mut readers = self.readers.lock();
        if found.is_ok() && readers.generation == generation && readers.idle.len() < READERS {
            readers.idle.push(db);
        }
        found
    }

    fn find_by(
        &self,
        db: &Connection,
        first: &Key,
        last: &Key,
    ) -> rusqlite::Result<Option<(Sort, Place)>> {
        let sql = "SELECT pack, frame, frame_bytes, start, length, length(key) FROM item
                   WHERE key BETWEEN ?1 AND ?2";
        let mut query = db.prepare_cached(sql)?;
        let mut rows = with_key(first, |first| with_key(last, |last| query.query([first, last])))?;
        // Nothing is asked of the database before the packs are held as they are.
        let packs = self.packs.read();
        while let Some(row) = rows.next()? {
            if let Some(KnownPack { pack, .. }) = packs.get(&row.get(0)?) {
                let place = Place {
                    pack: *pack,
                    frame: row.get(1)?,
                    frame_bytes: row.get(2)?,
                    start: row.get(3)?,
                    length: row.get(4)?,
                };
                let is_chunk = row.get::<_, i64>(5)? == 32;
                return Ok(Some((if is_chunk { Sort::Chunk } else { Sort::Recipe }, place)));
            }
        }
        Ok(None)
    }
}

impl ChunkIndex for ChunkDb {
    fn find(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        Ok(self.find_between(key, key)?.map(|(_, place)| place))
    }

    fn find_content(&self, object: ContentHash) -> Result<Option<(Key, Place)>, IndexError> {
        // The key of the recipe is the next one.
        let found = self.find_between(&Key::chunk(object), &Key::recipe(object))?;
        Ok(found.map(|(sort, place)| (Key { sort, hash: object }, place)))
    }

    fn replace(&self, added: &[PackIndex], removed: &[PackId]) -> Result<(), IndexError> {
        let mut main = self.main.lock();
        if main.is_rolled_back() {
            self.damaged.store(true, Ordering::Relaxed);
            return Err("the filesystem was rolled back under the index of chunks".into());
        }
        let change = |db: &mut Connection| {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            forget(&tx, removed)?;
            added.iter().try_for_each(|index| insert(&tx, index))?;
            sweep(&tx)?;
            let known = known_packs(&tx)?;
            let mut packs = self.packs.write();
            tx.commit()?;
            *packs = known;
            Ok(())
        };
        self.judge(change(&mut main.db))?;
        main.look();
        Ok(())
    }

    fn packs(&self) -> Result<Vec<PackId>, IndexError> {
        Ok(self.packs.read().values().map(|known| known.pack).collect())
    }

    fn totals(&self) -> PackTotals {
        let packs = self.packs.read();
        PackTotals {
            packs: packs.len() as u64,
            bytes: packs.values().map(|known| known.size).sum(),
            items: packs.values().map(|known| known.items).sum(),
        }
    }

    fn count_smaller(&self, bytes: u64) -> usize {
        self.packs.read().values().filter(|known| known.size < bytes).count()
    }

    fn clear(&self) -> Result<(), IndexError> {
        let mut main = self.main.lock();
        let mut packs = self.packs.write();
        let generation = self.readers.lock().generation + 1;
        *self.readers.lock() = Pool { generation, idle: Vec::new() };
        let home = match &main.home {
            Home::File(path) => {
                let path = path.clone();
                // Nothing may be left of the old file when the new one takes its name.
                main.db = Connection::open_in_memory()?;
                remove(&path)?;
                Home::File(path)
            }
            Home::ReadOnly(_) | Home::Private => Home::Private,
        };
        *main = Main::open(home)?;
        packs.clear();
        self.damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed) || self.main.lock().is_rolled_back()
    }
}

impl Main {
    fn open(home: Home) -> rusqlite::Result<Self> {
        let db = match &home {
            Home::File(path) => {
                let db = Connection::open(path)?;
                db.pragma_update(None, "journal_mode", "wal")?;
                db.pragma_update(None, "synchronous", "full")?;
                prepare(&db, WRITER_CACHE_KIB)?;
                create(&db)?;
                db
            }
            Home::ReadOnly(path) => open_reader(path)?,
            Home::Private => {
                let db = Connection::open("")?;
                db.pragma_update(None, "journal_mode", "off")?;
                db.pragma_update(None, "synchronous", "off")?;
                prepare(&db, WRITER_CACHE_KIB)?;
                create(&db)?;
                db
            }
        };
        let mut main = Self { db, home, place: FilePlace::default() };
        main.look();
        Ok(main)
    }

    /// Notes the file as it is now.
    fn look(&mut self) {
        if let Home::File(path) = &self.home {
            self.place = FilePlace::of(path);
        }
    }

    /// Whether the file is what it was before it was last written.
    fn is_rolled_back(&self) -> bool {
        matches!(&self.home, Home::File(path) if self.place.is_rolled_back(&FilePlace::of(path)))
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    prepare(&db, READER_CACHE_KIB)?;
    check_version(&db)?;
    Ok(db)
}

fn prepare(db: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    db.pragma_update(None, "cache_size", -cache_kib)
}

/// Makes the tables in a new file, and refuses one that has others.
fn create(db: &Connection) -> rusqlite::Result<()> {
    let tables = "SELECT count(*) FROM sqlite_schema";
    let count: u64 = db.query_row(tables, [], |row| get_u64(row, 0))?;
    if count == 0 {
        let version = format!("BEGIN; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;");
        db.execute_batch(&version)?;
    }
    check_version(db)
}

fn check_version(db: &Connection) -> rusqlite::Result<()> {
    let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // What SQLite would say of a schema that is not the one expected.
    if found == VERSION { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
}

/// Removes a database with all that belongs to it.
fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["-wal", "-shm", "-journal", ""] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn known_packs(db: &Connection) -> rusqlite::Result<Known> {
    let mut query = db.prepare_cached("SELECT id, sha256, size, items FROM pack")?;
    let mut rows = query.query([])?;
    let mut packs = Known::new();
    while let Some(row) = rows.next()? {
        let hash = get_hash(row, 1)?.ok_or(rusqlite::Error::InvalidQuery)?;
        let (size, items) = (get_u64(row, 2)?, get_u64(row, 3)?);
        packs.insert(row.get(0)?, KnownPack { pack: PackId(hash), size, items });
    }
    Ok(packs)
}

fn forget(tx: &Transaction<'_>, packs: &[PackId]) -> rusqlite::Result<()> {
    let mut delete = tx.prepare_cached("DELETE FROM pack WHERE sha256 = ?1 RETURNING items")?;
    let mut note = tx.prepare_cached("UPDATE stale SET items = items + ?1")?;
    for PackId(hash) in packs {
        let items: Option<i64> =
            delete.query_row([hash.as_bytes()], |row| row.get(0)).optional()?;
        note.execute([items.unwrap_or(0)])?;
    }
    Ok(())
}

fn insert(tx: &Transaction<'_>, index: &PackIndex) -> rusqlite::Result<()> {
    let items = i64::try_from(index.entries.len()).unwrap_or(i64::MAX);
    let sql = "INSERT OR IGNORE INTO pack (sha256, size, items) VALUES (?1, ?2, ?3)";
    let hash = index.pack.0.as_bytes();
    let size = index.size_bytes.cast_signed();
    if tx.prepare_cached(sql)?.execute(params![hash, size, items])? == 0 {
        return Ok(());
    }
    let pack = tx.last_insert_rowid();
    let mut put = tx.prepare_cached(
        "INSERT OR IGNORE INTO item (key, pack, frame, frame_bytes, start, length)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    // In the order of the tree, neighbours cost little.
    let mut entries: Vec<_> = index.entries.iter().collect();
    entries.sort_unstable_by_key(|entry| (entry.key.hash.as_bytes(), entry.key.sort));
    for entry in entries {
        let Place { frame, frame_bytes, start, length, .. } = entry.place;
        with_key(&entry.key, |key| {
            put.execute(params![key, pack, frame, frame_bytes, start, length])
        })?;
    }
    Ok(())
}

/// Removes the rows that are nobody's once there are many of them.
fn sweep(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let stale = tx.query_row("SELECT items FROM stale", [], |row| get_u64(row, 0))?;
    let sum = "SELECT coalesce(sum(items), 0) FROM pack";
    let live = tx.query_row(sum, [], |row| get_u64(row, 0))?;
    if stale < WORTH_A_SWEEP || stale < live / 4 {
        return Ok(());
    }
    tx.execute("DELETE FROM item WHERE pack NOT IN (SELECT id FROM pack)", [])?;
    tx.execute("UPDATE stale SET items = 0", []).map(drop)
}

/// The key as it is in the table.
fn with_key<T>(key: &Key, with: impl FnOnce(&[u8]) -> T) -> T {
    match key.sort {
        Sort::Chunk => with(key.hash.as_bytes()),
        Sort::Recipe => {
            let mut bytes = [key.sort.code(); 33];
            bytes[..32].copy_from_slice(key.hash.as_bytes());
            with(&bytes)
        }
    }
}

#[cfg(test)]
mod tests;
