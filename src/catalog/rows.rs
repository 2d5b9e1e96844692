//! Single rows: what the writer reads, keeps in memory and writes back.
//!
//! Owns the file rows, the log and the caches of the writer. A file row is changed in memory and written
//! once per batch, however many events of the batch touch it; everything else is written at once.
//! After a failed batch the caches must be thrown away, since they hold what was rolled back.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::collections::HashMap;
use std::num::NonZeroUsize;

use lru::LruCache;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::names::NameChange;
use super::preserve::VersionKey;
use crate::types::{Attr, ContentHash, FileId, InodeKey, Kind, Seq, SessionId, Stamp, Writer};

/// File rows kept in memory after a batch, some 200 bytes each.
const FILES_KEPT: usize = 100_000;

/// What kind of change a row of the log is; the numbers are in every catalog.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeOp {
    /// A file, directory, symlink or special file came to be.
    Create,
    /// A version was sealed.
    Write,
    /// A name moved.
    Rename,
    /// A file was saved by moving another one over it.
    Replace,
    /// A file got another name.
    Link,
    /// A name went away.
    Unlink,
    /// Attributes changed.
    Attr,
    /// Two names changed places.
    Exchange,
}

impl ChangeOp {
    const ALL: [Self; 8] = [
        Self::Create,
        Self::Write,
        Self::Rename,
        Self::Replace,
        Self::Link,
        Self::Unlink,
        Self::Attr,
        Self::Exchange,
    ];

    pub(super) fn code(self) -> u8 {
        self as u8 + 1
    }

    /// The inverse of the number in the catalog.
    pub(super) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// A row of the log before it has its number.
pub(super) struct Change {
    pub(super) op: ChangeOp,
    pub(super) file: FileId,
    pub(super) other: Option<FileId>,
    pub(super) number: Option<u32>,
}

/// The digest of a file's head, read from the database when first needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadHash {
    NotRead,
    Read(Option<ContentHash>),
}

/// One row of `file`, with what the writer must remember beside it.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileRow {
    pub(super) id: FileId,
    pub(super) kind: Kind,
    pub(super) key: InodeKey,
    pub(super) links: u32,
    pub(super) born: Seq,
    pub(super) ended: Option<Seq>,
    /// Number of the newest version; 0 if there is none.
    pub(super) head: u32,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) stamp: Stamp,
    pub(super) head_hash: HeadHash,
    /// The session that made the head, if that was since the daemon started.
    pub(super) sealed_by: Option<SessionId>,
    dirty: bool,
}

impl FileRow {
    pub(super) fn new(id: FileId, key: InodeKey, attr: &Attr, born: Seq) -> Self {
        let mut row = Self {
            id,
            kind: attr.kind,
            key,
            links: 0,
            born,
            ended: None,
            head: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            stamp: Stamp::default(),
            head_hash: HeadHash::Read(None),
            sealed_by: None,
            dirty: false,
        };
        row.take_attr(attr);
        row
    }

    /// Takes over attributes and leaves the content unknown, for regular files, or known.
    pub(super) fn take_attr(&mut self, attr: &Attr) {
        (self.mode, self.uid, self.gid) = (attr.mode, attr.uid, attr.gid);
        self.stamp = attr.stamp();
        if self.kind == Kind::File {
            self.stamp.ctime_ns = 0;
        }
    }

    /// Takes over attributes together with a content that is known.
    pub(super) fn settle(&mut self, attr: &Attr) {
        self.take_attr(attr);
        self.stamp = attr.stamp();
    }

    /// Whether the catalog's head is what the stamp stands for.
    pub(super) fn settled(&self) -> bool {
        self.stamp.ctime_ns != 0
    }

    /// Follows a change of the inode that left the content alone: without it, the next start
    /// would read the file again to find out.
    pub(super) fn follow_ctime(&mut self, attr: &Attr) {
        let same = self.stamp.size == attr.size && self.stamp.mtime_ns == attr.mtime.as_ns();
        if self.settled() && (same || self.kind != Kind::File) {
            self.stamp = attr.stamp();
        }
    }

    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: FileId(get_u64(row, 0)?),
            kind: Kind::from_code(row.get(1)?).unwrap_or(Kind::File),
            key: InodeKey { ino: get_u64(row, 2)?, generation: get_u64(row, 3)? },
            links: row.get(4)?,
            born: Seq(get_u64(row, 5)?),
            ended: row.get::<_, Option<i64>>(6)?.map(|seq| Seq(seq.cast_unsigned())),
            head: row.get(7)?,
            mode: row.get(8)?,
            uid: row.get(9)?,
            gid: row.get(10)?,
            stamp: Stamp {
                size: get_u64(row, 11)?,
                mtime_ns: row.get(12)?,
                ctime_ns: row.get(13)?,
            },
            head_hash: HeadHash::NotRead,
            sealed_by: None,
            dirty: false,
        })
    }
}

const FILE_COLUMNS: &str = "id, kind, ino, generation, links, born_seq, ended_seq, head, mode, uid, \
                            gid, size, mtime_ns, ctime_ns";

/// SQLite's integers are signed; identities use all 64 bits.
pub(super) fn get_u64(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index).map(i64::cast_unsigned)
}

/// A digest column; a value of the wrong length counts as none.
pub(super) fn get_hash(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<ContentHash>> {
    let bytes: Option<[u8; 32]> = row.get(index)?;
    Ok(bytes.map(ContentHash::new))
}

/// One live entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryRow {
    pub(super) child: FileId,
    pub(super) from: Seq,
}

/// What a session has made of files.
#[derive(Debug, Clone, Default)]
pub(super) struct Made {
    /// Its versions: one, but for those of a file that was moved over another. The current last.
    pub(super) versions: Vec<(FileId, u32)>,
    /// Digests that will follow.
    pub(super) awaited: u32,
    /// Whether the session itself is over.
    pub(super) ended: bool,
}

/// What the writer keeps in memory between batches.
pub(super) struct State {
    pub(super) next_seq: u64,
    next_file: u64,
    last_time_ns: i64,
    files: LruCache<FileId, FileRow>,
    by_key: LruCache<InodeKey, FileId>,
    writers: LruCache<Writer, i64>,
    dirty: Vec<FileId>,
    /// What open sessions made, and ended ones whose digest is still on its way.
    pub(super) sessions: HashMap<SessionId, Made>,
    /// Nameless inodes that are still open, and the file and newest version they were, if they were any.
    pub(super) orphans: HashMap<InodeKey, Option<VersionKey>>,
    /// Files whose name was taken by another inode, until a walk finds them again or not.
    pub(super) limbo: Vec<FileId>,
    /// What the batch has done to names so far.
    pub(super) names: Vec<NameChange>,
    /// An event named something unknown, so something went around the mount.
    pub(super) wants_reconcile: bool,
}

impl State {
    /// Reads where the last run stopped.
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let max = |table: &str, column: &str| {
            let sql = format!("SELECT coalesce(max({column}), 0) FROM {table}");
            db.query_row(&sql, [], |row| get_u64(row, 0))
        };
        let last = max("change", "seq")?;
        let time = "SELECT time_ns FROM change WHERE seq = ?1";
        let last_time_ns =
            db.query_row(time, [last.cast_signed()], |row| row.get(0)).optional()?.unwrap_or(0);
        let small = NonZeroUsize::new(4096).expect("4096 is not zero");
        Ok(Self {
            next_seq: last + 1,
            next_file: max("file", "id")?.max(FileId::ROOT.0) + 1,
            last_time_ns,
            files: LruCache::unbounded(),
            by_key: LruCache::unbounded(),
            writers: LruCache::new(small),
            dirty: Vec::new(),
            sessions: HashMap::new(),
            orphans: HashMap::new(),
            limbo: Vec::new(),
            names: Vec::new(),
            wants_reconcile: false,
        })
    }
}

/// The rows of one batch: the database in a transaction, and the writer's memory.
pub(super) struct Rows<'a> {
    pub(super) db: &'a Connection,
    pub(super) state: &'a mut State,
}

impl Rows<'_> {
    /// The sequence number that the next change will get.
    pub(super) fn seq(&self) -> Seq {
        Seq(self.state.next_seq)
    }

    /// Appends to the log and takes a sequence number for it.
    pub(super) fn record(
        &mut self,
        time_ns: i64,
        writer: Option<&Writer>,
        change: &Change,
    ) -> rusqlite::Result<Seq> {
        let seq = self.state.next_seq;
        let time_ns = self.monotone(seq, time_ns)?;
        let writer = writer.map(|w| self.writer_id(w)).transpose()?;
        let sql = "INSERT INTO change (seq, time_ns, op, file, other, number, writer)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.db.prepare_cached(sql)?.execute(params![
            seq.cast_signed(),
            time_ns,
            change.op.code(),
            change.file.0.cast_signed(),
            change.other.map(|f| f.0.cast_signed()),
            change.number,
            writer,
        ])?;
        self.state.next_seq += 1;
        Ok(Seq(seq))
    }

    /// Small disorder between threads is smoothed, so that times rise with sequence numbers and a
    /// time can be looked up by bisection. A clock that was set back begins a new epoch.
    fn monotone(&mut self, seq: u64, time_ns: i64) -> rusqlite::Result<i64> {
        const DISORDER_NS: i64 = 10_000_000_000;
        let last = self.state.last_time_ns;
        let time_ns = if time_ns < last && last - time_ns <= DISORDER_NS { last } else { time_ns };
        if time_ns < last || seq == 1 {
            let sql = "INSERT INTO epoch (seq, time_ns) VALUES (?1, ?2)";
            self.db.prepare_cached(sql)?.execute(params![seq.cast_signed(), time_ns])?;
        }
        self.state.last_time_ns = time_ns;
        Ok(time_ns)
    }

    fn writer_id(&mut self, writer: &Writer) -> rusqlite::Result<i64> {
        if let Some(id) = self.state.writers.get(writer) {
            return Ok(*id);
        }
        let Writer { pid, comm, uid, gid } = writer;
        let find = "SELECT id FROM writer WHERE pid = ?1 AND comm = ?2 AND uid = ?3 AND gid = ?4";
        let known = self
            .db
            .prepare_cached(find)?
            .query_row(params![pid, comm, uid, gid], |row| row.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => {
                let add = "INSERT INTO writer (pid, comm, uid, gid) VALUES (?1, ?2, ?3, ?4)";
                self.db.prepare_cached(add)?.insert(params![pid, comm, uid, gid])?
            }
        };
        self.state.writers.put(writer.clone(), id);
        Ok(id)
    }

    /// The live file that has an inode now.
    pub(super) fn find(&mut self, key: InodeKey) -> rusqlite::Result<Option<FileRow>> {
        if let Some(id) = self.state.by_key.get(&key).copied() {
            return self.file(id).map(|f| Some(f).filter(|f| f.ended.is_none() && f.key == key));
        }
        let sql = "SELECT id FROM file WHERE ino = ?1 AND ended_seq IS NULL";
        let ids: Vec<FileId> = self
            .db
            .prepare_cached(sql)?
            .query_map([key.ino.cast_signed()], |row| get_u64(row, 0).map(FileId))?
            .collect::<Result<_, _>>()?;
        for id in ids {
            // The row in the database may be older than the one in memory.
            let file = self.file(id)?;
            if file.key == key && file.ended.is_none() {
                self.state.by_key.put(key, id);
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// The row of a file that exists.
    pub(super) fn file(&mut self, id: FileId) -> rusqlite::Result<FileRow> {
        if let Some(row) = self.state.files.get(&id) {
            return Ok(*row);
        }
        let sql = format!("SELECT {FILE_COLUMNS} FROM file WHERE id = ?1");
        let row =
            self.db.prepare_cached(&sql)?.query_row([id.0.cast_signed()], FileRow::from_row)?;
        self.state.files.put(id, row);
        Ok(row)
    }

    /// Keeps a changed row, to be written with the batch.
    pub(super) fn put(&mut self, mut row: FileRow) {
        if !row.dirty {
            row.dirty = true;
            self.state.dirty.push(row.id);
        }
        if row.ended.is_none() {
            self.state.by_key.put(row.key, row.id);
        }
        self.state.files.put(row.id, row);
    }

    /// Ends a file: its inode means nothing any more.
    pub(super) fn end(&mut self, mut row: FileRow, seq: Seq) {
        row.links = 0;
        row.ended = Some(seq);
        self.state.by_key.pop(&row.key);
        if row.kind == Kind::Dir {
            self.state.names.push(NameChange::End(row.id));
        }
        self.put(row);
    }

    /// Inserts a file that gets its first name.
    pub(super) fn insert_file(&mut self, key: InodeKey, attr: &Attr) -> rusqlite::Result<FileRow> {
        let id = FileId(self.state.next_file);
        let mut row = FileRow::new(id, key, attr, self.seq());
        row.links = 1;
        self.insert_row(row)?;
        if row.kind.is_device() {
            self.insert_device(id, attr.rdev)?;
        }
        self.state.next_file += 1;
        Ok(row)
    }

    /// Inserts a row as it is.
    pub(super) fn insert_row(&mut self, row: FileRow) -> rusqlite::Result<()> {
        let sql = format!(
            "INSERT INTO file ({FILE_COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        );
        self.write_row(&sql, &row)?;
        self.state.by_key.put(row.key, row.id);
        self.state.files.put(row.id, row);
        Ok(())
    }

    fn write_row(&self, sql: &str, row: &FileRow) -> rusqlite::Result<()> {
        self.db.prepare_cached(sql)?.execute(params![
            row.id.0.cast_signed(),
            row.kind.code(),
            row.key.ino.cast_signed(),
            row.key.generation.cast_signed(),
            row.links,
            row.born.0.cast_signed(),
            row.ended.map(|seq| seq.0.cast_signed()),
            row.head,
            row.mode,
            row.uid,
            row.gid,
            row.stamp.size.cast_signed(),
            row.stamp.mtime_ns,
            row.stamp.ctime_ns,
        ])?;
        Ok(())
    }

    /// Writes every changed row; the last step of a batch.
    pub(super) fn flush(&mut self) -> rusqlite::Result<()> {
        let sql = "UPDATE file SET kind = ?2, ino = ?3, generation = ?4, links = ?5, born_seq = ?6,
                   ended_seq = ?7, head = ?8, mode = ?9, uid = ?10, gid = ?11, size = ?12,
                   mtime_ns = ?13, ctime_ns = ?14 WHERE id = ?1";
        for id in std::mem::take(&mut self.state.dirty) {
            let mut row = self.file(id)?;
            row.dirty = false;
            self.write_row(sql, &row)?;
            self.state.files.put(id, row);
        }
        while self.state.files.len() > FILES_KEPT {
            self.state.files.pop_lru();
        }
        while self.state.by_key.len() > FILES_KEPT {
            self.state.by_key.pop_lru();
        }
        Ok(())
    }
}
