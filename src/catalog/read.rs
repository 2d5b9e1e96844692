//! Queries of the tree, now or as of any sequence number.
//!
//! Owns one read-only connection each; many may read beside the writer. Every public call is a short
//! read transaction of its own unless it says otherwise, so that no reader holds the log back for long.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::cmp::Ordering;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows::{get_hash, get_u64};
use super::{CatalogError, IMPORTED, INCARNATION, Past, STOPPED, schema};
use crate::types::path::components;
use crate::types::{ContentHash, FileId, InodeKey, Kind, Seq, Stamp};

/// Which state of the tree is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The newest.
    Now,
    /// As it was after this change.
    At(Seq),
}

/// A file, directory or symlink as it was at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its identity.
    pub id: FileId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds.
    pub mtime_ns: i64,
    /// Digest of its content; `None` for what is no regular file, and while it is on its way.
    pub hash: Option<ContentHash>,
    /// Number of its newest version; 0 if it has none.
    pub version: u32,
}

/// One live entry with what a walk compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownEntry {
    /// Its identity.
    pub id: FileId,
    /// What it is.
    pub kind: Kind,
    /// Its inode.
    pub key: InodeKey,
    /// Size and times that its digest stands for; `ctime_ns` is 0 if the content is not known.
    pub stamp: Stamp,
    /// Permission bits, owner and group.
    pub owner: (u32, u32, u32),
}

const KNOWN_ENTRY: &str =
    "SELECT e.name, f.id, f.kind, f.ino, f.generation, f.size, f.mtime_ns, f.ctime_ns,
            f.mode, f.uid, f.gid
     FROM entry e JOIN file f ON f.id = e.child";

impl KnownEntry {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: FileId(get_u64(row, 1)?),
            kind: Kind::from_code(row.get(2)?).unwrap_or(Kind::File),
            key: InodeKey { ino: get_u64(row, 3)?, generation: get_u64(row, 4)? },
            stamp: Stamp { size: get_u64(row, 5)?, mtime_ns: row.get(6)?, ctime_ns: row.get(7)? },
            owner: (row.get(8)?, row.get(9)?, row.get(10)?),
        })
    }
}

/// The live entries of one directory, to be taken one by one.
///
/// There may be very many, so the names lie in one piece, in the order of the index.
#[derive(Debug, Default)]
pub struct KnownEntries {
    names: Vec<u8>,
    /// Where each name ends, and what is left under it.
    entries: Vec<(usize, Option<KnownEntry>)>,
}

impl KnownEntries {
    /// Adds an entry, whose name comes after all those before.
    fn push(&mut self, name: &[u8], entry: KnownEntry) {
        self.names.extend_from_slice(name);
        self.entries.push((self.names.len(), Some(entry)));
    }

    fn name(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].0);
        &self.names[start..self.entries[index].0]
    }

    /// Takes the entry of a name out, if there is one and it has not been taken.
    pub fn take(&mut self, name: &[u8]) -> Option<KnownEntry> {
        let (mut low, mut high) = (0, self.entries.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return self.entries[middle].1.take(),
            }
        }
        None
    }

    /// The entries that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = (&[u8], KnownEntry)> {
        let left = |(index, (_, entry)): (usize, &(usize, Option<KnownEntry>))| {
            entry.map(|entry| (self.name(index), entry))
        };
        self.entries.iter().enumerate().filter_map(left)
    }
}

/// Totals for `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Live names.
    pub entries: u64,
    /// Versions of all files, live or not.
    pub versions: u64,
    /// Contents that were preserved, each counted once.
    pub objects: u64,
    /// Their sizes in bytes.
    pub object_bytes: u64,
}

/// A read-only connection to a catalog.
pub struct Reader {
    pub(super) db: Connection,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Opens a catalog file for queries.
    ///
    /// # Errors
    /// If it is missing, is no catalog, or has a newer schema.
    pub fn open(path: &Path) -> Result<Self, CatalogError> {
        schema::open_reader(path).map(|db| Self { db })
    }

    /// Answers several questions from one state, also within others. It must not take long: the log is held
    /// back meanwhile.
    ///
    /// Each question by itself would lock the database and unlock it again, which takes longer than
    /// most answers, and would read its pages again if there was a commit meanwhile.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `query` fails with.
    pub fn in_one_state<T, E: From<CatalogError>>(
        &self,
        query: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.db.is_autocommit() {
            return query(self);
        }
        let run = |sql| self.db.prepare_cached(sql)?.execute([]);
        run("BEGIN").map_err(CatalogError::from)?;
        let result = query(self);
        run("COMMIT").map_err(CatalogError::from)?;
        result
    }

    /// What the last run left behind.
    pub(super) fn past(&self) -> Result<Past, CatalogError> {
        let stopped = self.meta(STOPPED)?;
        let trusted_until_ns = match stopped {
            Some(ns) if ns != 0 => ns,
            _ => self
                .db
                .query_row("SELECT time_ns FROM change ORDER BY seq DESC LIMIT 1", [], |row| {
                    row.get(0)
                })
                .optional()?
                .unwrap_or(0),
        };
        let was_orderly = stopped != Some(0);
        let imported = self.meta(IMPORTED)? == Some(1);
        let incarnation = self.meta(INCARNATION)?;
        let root = self
            .db
            .query_row(
                "SELECT ino, generation FROM file WHERE id = ?1",
                [FileId::ROOT.0.cast_signed()],
                |row| Ok(InodeKey { ino: get_u64(row, 0)?, generation: get_u64(row, 1)? }),
            )
            .optional()?;
        Ok(Past { imported, was_orderly, trusted_until_ns, incarnation, root })
    }

    pub(super) fn meta<T: rusqlite::types::FromSql>(
        &self,
        key: &str,
    ) -> Result<Option<T>, CatalogError> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        Ok(self.db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
    }

    /// The random identity of this catalog, from which the UUIDs of its files are made.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn catalog_id(&self) -> Result<[u8; 16], CatalogError> {
        let sql = "SELECT value FROM meta WHERE key = 'catalog_id'";
        Ok(self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    /// The last sequence number; 0 in an empty catalog.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn seq(&self) -> Result<Seq, CatalogError> {
        let sql = "SELECT coalesce(max(seq), 0) FROM change";
        Ok(self.db.prepare_cached(sql)?.query_row([], |row| get_u64(row, 0).map(Seq))?)
    }

    /// Totals for `status`. Counts rows: some 0.1 s per million.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn totals(&self) -> Result<Totals, CatalogError> {
        let count = |table: &str| {
            self.db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| get_u64(row, 0))
        };
        let (objects, object_bytes) = self.objects()?;
        let (entries, versions) = (count("entry")?, count("version")?);
        Ok(Totals { entries, versions, objects, object_bytes })
    }

    /// The last change at or before a time; `None` before the first.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn seq_at(&self, time_ns: i64) -> Result<Option<Seq>, CatalogError> {
        let mut epochs: Vec<u64> = self
            .db
            .prepare_cached("SELECT seq FROM epoch ORDER BY seq")?
            .query_map([], |row| get_u64(row, 0))?
            .collect::<Result<_, _>>()?;
        epochs.push(self.seq()?.0 + 1);
        let mut time_of = self.db.prepare_cached("SELECT time_ns FROM change WHERE seq = ?1")?;
        let mut before = |seq: u64| -> rusqlite::Result<bool> {
            let at: i64 = time_of.query_row([seq.cast_signed()], |row| row.get(0))?;
            Ok(at <= time_ns)
        };
        // Newest epoch first: where the clock was set back, the later history of a time counts.
        for range in epochs.windows(2).rev() {
            let (mut low, mut high) = (range[0], range[1]);
            if low >= high || !before(low)? {
                continue;
            }
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if before(middle)? {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            return Ok(Some(Seq(low)));
        }
        Ok(None)
    }

    /// What has a name in a directory at some time.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn child(
        &self,
        dir: FileId,
        name: &[u8],
        when: When,
    ) -> Result<Option<FileId>, CatalogError> {
        let dir = dir.0.cast_signed();
        let found = match when {
            When::Now => self
                .db
                .prepare_cached("SELECT child FROM entry WHERE parent = ?1 AND name = ?2")?
                .query_row(params![dir, name], |row| get_u64(row, 0))
                .optional()?,
            When::At(seq) => {
                let sql = "SELECT child FROM entry
                           WHERE parent = ?1 AND name = ?2 AND from_seq <= ?3
                           UNION ALL
                           SELECT child FROM entry_past
                           WHERE parent = ?1 AND name = ?2 AND from_seq <= ?3 AND to_seq > ?3
                           LIMIT 1";
                self.db
                    .prepare_cached(sql)?
                    .query_row(params![dir, name, seq.0.cast_signed()], |row| get_u64(row, 0))
                    .optional()?
            }
        };
        Ok(found.map(FileId))
    }

    /// What a path from the root leads to at some time.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn resolve(&self, path: &[u8], when: When) -> Result<Option<FileId>, CatalogError> {
        let mut at = FileId::ROOT;
        for name in components(path) {
            match self.child(at, name, when)? {
                Some(child) => at = child,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// A file as it was at some time.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn node(&self, id: FileId, when: When) -> Result<Option<NodeInfo>, CatalogError> {
        match when {
            When::Now => self.newest_node(id),
            When::At(seq) => self.node_since(id, Seq(0), seq),
        }
    }

    /// A file as it was after `at`, under a name that it had had since the change `since`.
    ///
    /// What was created where a file had been deleted continues that file; but until it is closed, it
    /// has no version of its own, and shows none of those before.
    pub(super) fn node_since(
        &self,
        id: FileId,
        since: Seq,
        at: Seq,
    ) -> Result<Option<NodeInfo>, CatalogError> {
        let Some(mut node) = self.newest_node(id)? else { return Ok(None) };
        let sealed = self.rewind_node(&mut node, at)?;
        if let Some(sealed) = sealed.filter(|sealed| *sealed < since)
            && node.kind == Kind::File
            && self.alive_since_before(id, at)? > Some(sealed)
        {
            (node.size, node.hash, node.version) = (0, None, 0);
        }
        Ok(Some(node))
    }

    fn newest_node(&self, id: FileId) -> Result<Option<NodeInfo>, CatalogError> {
        let sql = "SELECT f.id, f.kind, f.mode, f.uid, f.gid, f.size, f.mtime_ns,
                          CASE WHEN f.ctime_ns <> 0 THEN v.sha256 END, f.head
                   FROM file f LEFT JOIN version v ON v.file = f.id AND v.number = f.head
                   WHERE f.id = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([id.0.cast_signed()], node_from_row).optional()?)
    }

    /// Replaces the attributes of a node by those it had after `seq`; returns the change that made its
    /// version of that time.
    fn rewind_node(&self, node: &mut NodeInfo, seq: Seq) -> Result<Option<Seq>, CatalogError> {
        let key = params![node.id.0.cast_signed(), seq.0.cast_signed()];
        let sql = "SELECT seq, mode, uid, gid, mtime_ns, size, sha256, number FROM version
                   WHERE file = ?1 AND seq <= ?2 ORDER BY number DESC LIMIT 1";
        let version = self
            .db
            .prepare_cached(sql)?
            .query_row(key, |row| {
                let owner: (u32, u32, u32, i64) =
                    (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                let content = (get_u64(row, 5)?, get_hash(row, 6)?, row.get(7)?);
                Ok((get_u64(row, 0)?, owner, content))
            })
            .optional()?;
        let sql = "SELECT seq, mode, uid, gid, mtime_ns FROM attr
                   WHERE file = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT 1";
        let attr = self
            .db
            .prepare_cached(sql)?
            .query_row(key, |row| {
                let owner: (u32, u32, u32, i64) =
                    (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                Ok((get_u64(row, 0)?, owner))
            })
            .optional()?;
        if node.kind == Kind::File {
            (node.size, node.hash, node.version) = version.map_or((0, None, 0), |v| v.2);
        }
        let from_version = version.map(|(seq, owner, ..)| (seq, owner));
        if let Some((_, owner)) = from_version.into_iter().chain(attr).max_by_key(|(seq, _)| *seq) {
            (node.mode, node.uid, node.gid, node.mtime_ns) = owner;
        }
        Ok(version.map(|(seq, ..)| Seq(seq)))
    }

    /// A path from the root by which a file could be reached after a change; `None` if there was none.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn path_of(&self, file: FileId, at: Seq) -> Result<Option<Vec<u8>>, CatalogError> {
        let sql = "SELECT parent, name FROM entry WHERE child = ?1 AND from_seq <= ?2
                   UNION ALL
                   SELECT parent, name FROM entry_past
                   WHERE child = ?1 AND from_seq <= ?2 AND to_seq > ?2
                   LIMIT 1";
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut file = file;
        while file != FileId::ROOT {
            let up = self
                .db
                .prepare_cached(sql)?
                .query_row(params![file.0.cast_signed(), at.0.cast_signed()], |row| {
                    Ok((FileId(get_u64(row, 0)?), row.get(1)?))
                })
                .optional()?;
            let Some((parent, name)) = up else {
                return Ok(None);
            };
            names.push(name);
            file = parent;
        }
        names.reverse();
        Ok(Some(names.join(&b'/')))
    }

    /// The live entries of a directory, for comparison with the backing directory.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn known_entries(&self, dir: FileId) -> Result<KnownEntries, CatalogError> {
        let sql = format!("{KNOWN_ENTRY} WHERE e.parent = ?1 ORDER BY e.name");
        let mut query = self.db.prepare_cached(&sql)?;
        let mut rows = query.query([dir.0.cast_signed()])?;
        let mut known = KnownEntries::default();
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
            known.push(name, KnownEntry::from_row(row)?);
        }
        Ok(known)
    }

    /// One of them.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn known_entry(
        &self,
        dir: FileId,
        name: &[u8],
    ) -> Result<Option<KnownEntry>, CatalogError> {
        let sql = format!("{KNOWN_ENTRY} WHERE e.parent = ?1 AND e.name = ?2");
        Ok(self
            .db
            .prepare_cached(&sql)?
            .query_row(params![dir.0.cast_signed(), name], KnownEntry::from_row)
            .optional()?)
    }

    /// Live regular files whose content is not known, with the paths they have.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn unsettled(&self) -> Result<Vec<Vec<u8>>, CatalogError> {
        self.paths_where("ctime_ns = 0", [])
    }

    /// Paths of the live files that a condition is true of.
    fn paths_where(
        &self,
        condition: &str,
        values: impl rusqlite::Params,
    ) -> Result<Vec<Vec<u8>>, CatalogError> {
        let sql = format!("SELECT id FROM file WHERE ended_seq IS NULL AND {condition}");
        let ids: Vec<FileId> = self
            .db
            .prepare_cached(&sql)?
            .query_map(values, |row| get_u64(row, 0).map(FileId))?
            .collect::<Result<_, _>>()?;
        let now = self.seq()?;
        let mut paths = Vec::new();
        for id in ids {
            paths.extend(self.path_of(id, now)?);
        }
        Ok(paths)
    }

    /// Paths of the live files that have an inode number: one, but for what a walk has yet to find.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn paths_of_inode(&self, ino: u64) -> Result<Vec<Vec<u8>>, CatalogError> {
        self.paths_where("ino = ?1", [ino.cast_signed()])
    }

    /// The live file of an inode with the digest of its content, if both are known.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn by_inode(&self, key: InodeKey) -> Result<Option<NodeInfo>, CatalogError> {
        let sql = "SELECT id FROM file WHERE ino = ?1 AND generation = ?2 AND ended_seq IS NULL";
        let id = self
            .db
            .prepare_cached(sql)?
            .query_row(params![key.ino.cast_signed(), key.generation.cast_signed()], |row| {
                get_u64(row, 0)
            })
            .optional()?;
        match id {
            Some(id) => self.node(FileId(id), When::Now),
            None => Ok(None),
        }
    }

    /// The size in bytes of the newest version of a live file, by its inode, of which the digest is known: the
    /// head or the one before it.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn known_size(&self, key: InodeKey) -> Result<Option<u64>, CatalogError> {
        let sql = "SELECT v.size FROM file f JOIN version v ON v.file = f.id
                   WHERE f.ino = ?1 AND f.generation = ?2 AND f.ended_seq IS NULL
                   AND v.number >= f.head - 1 AND v.sha256 IS NOT NULL
                   ORDER BY v.number DESC LIMIT 1";
        Ok(self
            .db
            .prepare_cached(sql)?
            .query_row(params![key.ino.cast_signed(), key.generation.cast_signed()], |row| {
                get_u64(row, 0)
            })
            .optional()?)
    }
}

pub(super) fn node_from_row(row: &Row<'_>) -> rusqlite::Result<NodeInfo> {
    let kind = Kind::from_code(row.get(1)?).unwrap_or(Kind::File);
    Ok(NodeInfo {
        id: FileId(get_u64(row, 0)?),
        kind,
        mode: row.get(2)?,
        uid: row.get(3)?,
        gid: row.get(4)?,
        size: get_u64(row, 5)?,
        mtime_ns: row.get(6)?,
        hash: if kind == Kind::File { get_hash(row, 7)? } else { None },
        version: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_entries_are_taken_once_and_the_others_are_left() {
        let names: [&[u8]; 5] = [b"", b"a", b"a\xff", b"ab", b"b"];
        let entry = |ino| KnownEntry {
            id: FileId(ino),
            kind: Kind::File,
            key: InodeKey { ino, generation: 0 },
            stamp: Stamp::default(),
            owner: (0, 0, 0),
        };
        let mut known = KnownEntries::default();
        assert_eq!(known.take(b"a"), None);
        let mut sorted = names;
        sorted.sort_unstable();
        for (name, ino) in sorted.into_iter().zip(1..) {
            known.push(name, entry(ino));
        }
        for absent in [&b"aa"[..], b"c", b"a\xfe"] {
            assert_eq!(known.take(absent), None);
        }
        assert_eq!(known.take(b"b"), Some(entry(5)));
        assert_eq!(known.take(b""), Some(entry(1)));
        assert_eq!(known.take(b"ab"), Some(entry(3)));
        assert_eq!(known.take(b"ab"), None);
        let left: Vec<_> = known.left().map(|(name, entry)| (name, entry.id.0)).collect();
        assert_eq!(left, [(&b"a"[..], 2), (b"a\xff", 4)]);
    }
}
