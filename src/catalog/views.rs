//! What the views of past times ask beyond the tree itself.
//!
//! Owns the times at which something changed, thinned out, and what somebody must have been allowed who
//! is to see all that a directory ever had.

use rusqlite::{OptionalExtension, Params, Row, params};

use super::CatalogError;
use super::preserve::VersionKey;
use super::read::{NodeInfo, Reader, When, node_from_row};
use super::rows::{get_hash, get_u64};
use crate::types::{ContentHash, FileId, InodeKey, Kind, Name, Seq, Stamp};

const SECOND: i64 = 1_000_000_000;

/// Lengths of time in seconds, and for how many of them, from the newest on, the last change counts.
const THINNING: [(i64, usize); 6] =
    [(1, 60), (60, 60), (3600, 48), (86_400, 60), (7 * 86_400, 52), (30 * 86_400, 120)];

/// A file, directory or symlink as a directory of some time shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// What it was.
    pub node: NodeInfo,
    /// How many names it had; 1 for a directory.
    pub links: u32,
    /// The version that it had.
    pub version: Option<VersionFacts>,
}

/// Who may do what with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionFacts {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds.
    pub mtime_ns: i64,
    /// Digest; `None` while it is on its way, or if the bytes were gone before they could be read.
    pub hash: Option<ContentHash>,
}

/// The inode of a live file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveHead {
    /// Which.
    pub key: InodeKey,
    /// Size and times that it has as long as its content is that of the newest version; `None` while
    /// the digest is on its way.
    pub stamp: Option<Stamp>,
    /// Size and modification time of the newest version in nanoseconds.
    pub sealed: (u64, i64),
}

impl Glimpse {
    /// From the columns of a node, and then its name, the change that gave it, that of its newest version, its size,
    /// its time, and how many names it has.
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut node = node_from_row(row)?;
        let hash = node.hash;
        let version = match (node.kind, row.get::<_, Option<i64>>(11)?) {
            (Kind::File, Some(_)) => {
                Some(VersionFacts { size: get_u64(row, 12)?, mtime_ns: row.get(13)?, hash })
            }
            _ => None,
        };
        if node.kind == Kind::File {
            // What is written but not sealed is no version yet.
            node.size = version.map_or(0, |version| version.size);
        }
        let links = if node.kind == Kind::Dir { 1 } else { row.get::<_, u32>(14)?.max(1) };
        Ok(Self { node, links, version })
    }
}

impl Reader {
    /// What had a name in a directory after a change.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn glimpse(
        &self,
        dir: FileId,
        name: &[u8],
        at: Seq,
    ) -> Result<Option<Glimpse>, CatalogError> {
        let sql = "SELECT child, from_seq FROM entry
                   WHERE parent = ?1 AND name = ?2 AND from_seq <= ?3
                   UNION ALL
                   SELECT child, from_seq FROM entry_past
                   WHERE parent = ?1 AND name = ?2 AND from_seq <= ?3 AND to_seq > ?3
                   LIMIT 1";
        let found = self
            .db
            .prepare_cached(sql)?
            .query_row(params![dir.0.cast_signed(), name, at.0.cast_signed()], |row| {
                Ok((FileId(get_u64(row, 0)?), Seq(get_u64(row, 1)?)))
            })
            .optional()?;
        let node = match found {
            Some((id, since)) => self.node_since(id, since, at)?,
            None => None,
        };
        node.map(|node| self.as_shown(node, at)).transpose()
    }

    /// The root as it was after a change.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn glimpse_root(&self, at: Seq) -> Result<Option<Glimpse>, CatalogError> {
        let node = self.node(FileId::ROOT, When::At(at))?;
        node.map(|node| self.as_shown(node, at)).transpose()
    }

    /// Up to `limit` names of a directory as it was after a change, in byte order after the name
    /// `after`, which is empty for the beginning.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn glimpses(
        &self,
        dir: FileId,
        at: Seq,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Name, Glimpse)>, CatalogError> {
        self.in_one_state(|reader| {
            let page = reader.children_at(dir, at, after, limit)?;
            page.into_iter().map(|(name, node)| Ok((name, reader.as_shown(node, at)?))).collect()
        })
    }

    /// The same of now, and faster: what is newest need not be looked for.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn glimpses_now(
        &self,
        dir: FileId,
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Name, Glimpse)>, CatalogError> {
        let sql = "SELECT f.id, f.kind, f.mode, f.uid, f.gid, f.size, f.mtime_ns, v.sha256, f.head,
                          e.name, e.from_seq, v.seq, v.size, v.mtime_ns,
                          (SELECT count(*) FROM entry WHERE child = f.id)
                   FROM entry e JOIN file f ON f.id = e.child
                   LEFT JOIN version v ON v.file = f.id AND v.number = f.head
                   WHERE e.parent = ?1 AND e.name > ?2 ORDER BY e.name LIMIT ?3";
        self.in_one_state(|reader| {
            let now = reader.seq()?;
            let mut query = reader.db.prepare_cached(sql)?;
            let mut rows = query.query(params![dir.0.cast_signed(), after, limit])?;
            let mut page = Vec::new();
            while let Some(row) = rows.next()? {
                let (since, sealed): (i64, Option<i64>) = (row.get(10)?, row.get(11)?);
                let mut shown = Glimpse::from_row(row)?;
                let id = shown.node.id;
                if shown.node.kind == Kind::Dir {
                    shown.node = reader.with_names_changed(shown.node, now)?;
                } else if sealed.is_some_and(|sealed| sealed < since) {
                    // Its newest version may be one of an earlier life.
                    match reader.node_since(id, Seq(since.cast_unsigned()), now)? {
                        Some(node) => shown = reader.as_shown(node, now)?,
                        None => continue,
                    }
                }
                page.push((row.get::<_, Vec<u8>>(9)?.into(), shown));
            }
            Ok(page)
        })
    }

    /// A directory with the time when its names changed, if that is known.
    fn with_names_changed(&self, mut dir: NodeInfo, at: Seq) -> Result<NodeInfo, CatalogError> {
        if let Some(time_ns) = self.names_changed_ns(dir.id, at)? {
            dir.mtime_ns = time_ns;
        }
        Ok(dir)
    }

    fn as_shown(&self, node: NodeInfo, at: Seq) -> Result<Glimpse, CatalogError> {
        let key = params![node.id.0.cast_signed(), at.0.cast_signed()];
        if node.kind == Kind::Dir {
            let node = self.with_names_changed(node, at)?;
            return Ok(Glimpse { node, links: 1, version: None });
        }
        let sql = "SELECT (SELECT count(*) FROM entry WHERE child = ?1 AND from_seq <= ?2)
                        + (SELECT count(*) FROM entry_past
                           WHERE child = ?1 AND from_seq <= ?2 AND to_seq > ?2)";
        let links: u32 = self.db.prepare_cached(sql)?.query_row(key, |row| row.get(0))?;
        let version = match (node.kind, node.version) {
            (Kind::File, 1..) => self.version_facts((node.id, node.version))?,
            _ => None,
        };
        Ok(Glimpse { node, links: links.max(1), version })
    }

    /// When the names in a directory changed last up to a change, in nanoseconds since 1970, if that was
    /// after its attributes did, and was seen: what a walk finds says nothing of the time.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn names_changed_ns(&self, dir: FileId, at: Seq) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT c.time_ns FROM change c WHERE c.writer IS NOT NULL AND c.seq = max(
                       coalesce((SELECT max(from_seq) FROM entry
                                 WHERE parent = ?1 AND from_seq <= ?2), 0),
                       coalesce((SELECT max(from_seq) FROM entry_past
                                 WHERE parent = ?1 AND to_seq > ?2 AND from_seq <= ?2), 0),
                       coalesce((SELECT max(to_seq) FROM entry_past
                                 WHERE parent = ?1 AND to_seq <= ?2), 0))
                   AND c.seq > coalesce((SELECT max(seq) FROM attr
                                         WHERE file = ?1 AND seq <= ?2), 0)";
        let mut query = self.db.prepare_cached(sql)?;
        let key = params![dir.0.cast_signed(), at.0.cast_signed()];
        Ok(query.query_row(key, |row| row.get(0)).optional()?)
    }

    /// Where a symlink leads, byte for byte; `None` for what is none.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn target_of(&self, file: FileId) -> Result<Option<Vec<u8>>, CatalogError> {
        let sql = "SELECT target FROM symlink WHERE file = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([file.0.cast_signed()], |row| row.get(0)).optional()?)
    }

    /// The number of a device node, as the kernel encodes it; `None` if that was never told.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn device_of(&self, file: FileId) -> Result<Option<u32>, CatalogError> {
        let sql = "SELECT rdev FROM device WHERE file = ?1";
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([file.0.cast_signed()], |row| row.get(0)).optional()?)
    }

    /// All the owners, groups and modes that a directory has had.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn rights_ever(&self, dir: FileId) -> Result<Vec<Rights>, CatalogError> {
        let sql = "SELECT mode, uid, gid FROM attr WHERE file = ?1
                   UNION SELECT mode, uid, gid FROM file WHERE id = ?1";
        let rights = |row: &rusqlite::Row<'_>| {
            Ok(Rights { mode: row.get(0)?, uid: row.get(1)?, gid: row.get(2)? })
        };
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_map([dir.0.cast_signed()], rights)?.collect::<Result<_, _>>()?)
    }

    /// The directories in which a file has a name or had one; only after the change `at`, if given.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn parents_of(&self, file: FileId, at: Option<Seq>) -> Result<Vec<FileId>, CatalogError> {
        let file = file.0.cast_signed();
        match at {
            None => self.file_ids(
                "SELECT parent FROM entry WHERE child = ?1
                 UNION SELECT parent FROM entry_past WHERE child = ?1",
                [file],
            ),
            Some(at) => self.file_ids(
                "SELECT parent FROM entry WHERE child = ?1 AND from_seq <= ?2
                 UNION SELECT parent FROM entry_past
                 WHERE child = ?1 AND from_seq <= ?2 AND to_seq > ?2",
                params![file, at.0.cast_signed()],
            ),
        }
    }

    fn file_ids(&self, sql: &str, values: impl Params) -> Result<Vec<FileId>, CatalogError> {
        let mut query = self.db.prepare_cached(sql)?;
        let ids = query.query_map(values, |row| get_u64(row, 0).map(FileId))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// What a version is; `None` if there is none any more.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn version_facts(
        &self,
        (file, number): VersionKey,
    ) -> Result<Option<VersionFacts>, CatalogError> {
        let sql = "SELECT size, mtime_ns, sha256 FROM version WHERE file = ?1 AND number = ?2";
        let facts = |row: &rusqlite::Row<'_>| {
            let (size, mtime_ns) = (get_u64(row, 0)?, row.get(1)?);
            Ok(VersionFacts { size, mtime_ns, hash: get_hash(row, 2)? })
        };
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row(params![file.0.cast_signed(), number], facts).optional()?)
    }

    /// The inode of a live file that has a version.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn live_head(&self, file: FileId) -> Result<Option<LiveHead>, CatalogError> {
        let sql = "SELECT f.ino, f.generation, f.size, f.mtime_ns, f.ctime_ns, v.size, v.mtime_ns
                   FROM file f JOIN version v ON v.file = f.id AND v.number = f.head
                   WHERE f.id = ?1 AND f.ended_seq IS NULL";
        let head = |row: &rusqlite::Row<'_>| {
            let stamp =
                Stamp { size: get_u64(row, 2)?, mtime_ns: row.get(3)?, ctime_ns: row.get(4)? };
            Ok(LiveHead {
                key: InodeKey { ino: get_u64(row, 0)?, generation: get_u64(row, 1)? },
                stamp: (stamp.ctime_ns != 0).then_some(stamp),
                sealed: (get_u64(row, 5)?, row.get(6)?),
            })
        };
        let mut query = self.db.prepare_cached(sql)?;
        Ok(query.query_row([file.0.cast_signed()], head).optional()?)
    }

    /// Seconds in which something changed, newest first, in nanoseconds since 1970: all of the last
    /// ones, and further back the last one of each minute, hour, day, week and month. So they stay a few
    /// hundred, and each costs one search in the log.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn changed_seconds(&self) -> Result<Vec<i64>, CatalogError> {
        let mut seconds = Vec::new();
        let mut next = Some(self.seq()?).filter(|seq| seq.0 > 0);
        for (width, count) in THINNING {
            for _ in 0..count {
                let Some(seq) = next else { return Ok(seconds) };
                let time_ns = self.time_of(seq)?;
                seconds.push(time_ns - time_ns.rem_euclid(SECOND));
                let before = time_ns - time_ns.rem_euclid(width * SECOND);
                next = self.seq_at(before - 1)?;
            }
        }
        Ok(seconds)
    }
}
