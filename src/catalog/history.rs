//! Queries of what happened: the versions of a file, and the log of changes.

use rusqlite::{OptionalExtension, Row, params};

use super::marks::{NOTE_COLUMN, PINNED_COLUMN};
use super::names::NameKey;
use super::preserve::{OBJECT, PREFIX, SOURCE_COLUMNS, Source};
use super::read::Reader;
use super::rows::{ChangeOp, get_hash, get_u64};
use super::{CatalogError, When};
use crate::types::path::join;
use crate::types::{ContentHash, FileId, Kind, Loss, Name, Origin, Seq, Writer};

/// Where the content of a version can be had.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// It is the live file.
    Head,
    /// It was kept.
    Object,
    /// It is what the next version of its file begins with.
    Prefix,
    /// Nowhere: it was not kept.
    None,
}

/// One version of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// Which file.
    pub file: FileId,
    /// Its number in that file, from 1.
    pub number: u32,
    /// The change that made it.
    pub seq: Seq,
    /// When, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds.
    pub mtime_ns: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Digest; `None` while it is on its way, or if the bytes were gone before they could be read.
    pub hash: Option<ContentHash>,
    /// Where it came from.
    pub origin: Origin,
    /// Who wrote it; `None` for what was found.
    pub writer: Option<Writer>,
    /// Where its content is.
    pub source: Source,
    /// Whether somebody wants it to stay.
    pub pinned: bool,
    /// What somebody said of it.
    pub note: Option<String>,
}

impl VersionInfo {
    /// Where its content is, and why it is lost.
    pub fn content(&self) -> (Content, Option<Loss>) {
        match self.source {
            Source::Head => (Content::Head, None),
            Source::Empty | Source::Object(_) | Source::Incoming(_) | Source::Continued(..) => {
                (Content::Object, None)
            }
            Source::Prefix => (Content::Prefix, None),
            Source::Lost(loss) => (Content::None, Some(loss)),
        }
    }
}

/// A name at which a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The name.
    pub key: NameKey,
    /// The change that had given it.
    pub from: Seq,
    /// The change that took it away.
    pub ended: Seq,
    /// What ended.
    pub file: FileId,
    /// The path that it had then.
    pub path: Vec<u8>,
}

/// One row of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeInfo {
    /// Its number.
    pub seq: Seq,
    /// When, in nanoseconds since 1970.
    pub time_ns: i64,
    /// What kind.
    pub op: ChangeOp,
    /// Of which file.
    pub file: FileId,
    /// What kind of thing the file is.
    pub kind: Kind,
    /// The path after the change, or before it if the change ended it.
    pub path: Option<Vec<u8>>,
    /// The path before, where the change moved something.
    pub from_path: Option<Vec<u8>>,
    /// The version that the change made, with size and digest.
    pub version: Option<(u32, u64, Option<ContentHash>)>,
    /// Who did it; `None` for what was found.
    pub writer: Option<Writer>,
}

impl Reader {
    pub(super) fn ended_seq(&self, file: FileId) -> Result<Option<u64>, CatalogError> {
        let sql = "SELECT ended_seq FROM file WHERE id = ?1";
        let seq: Option<Option<i64>> = self
            .db
            .prepare_cached(sql)?
            .query_row([file.0.cast_signed()], |row| row.get(0))
            .optional()?;
        Ok(seq.flatten().map(i64::cast_unsigned))
    }

    /// The versions of one file, oldest first.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn versions(&self, file: FileId) -> Result<Vec<VersionInfo>, CatalogError> {
        let sql = format!(
            "SELECT v.file, v.number, v.seq, c.time_ns, v.size, v.mtime_ns, v.mode, v.uid, v.gid,
                    v.sha256, v.origin, w.uid, w.gid, w.pid, w.comm,
                    {PINNED_COLUMN}, {NOTE_COLUMN}, {SOURCE_COLUMNS}
             FROM version v JOIN change c ON c.seq = v.seq JOIN file f ON f.id = v.file
             LEFT JOIN writer w ON w.id = c.writer
             WHERE v.file = ?1 ORDER BY v.number"
        );
        let mut versions: Vec<VersionInfo> = self
            .db
            .prepare_cached(&sql)?
            .query_map([file.0.cast_signed()], |row| {
                Ok(VersionInfo {
                    file: FileId(get_u64(row, 0)?),
                    number: row.get(1)?,
                    seq: Seq(get_u64(row, 2)?),
                    time_ns: row.get(3)?,
                    size: get_u64(row, 4)?,
                    mtime_ns: row.get(5)?,
                    mode: row.get(6)?,
                    uid: row.get(7)?,
                    gid: row.get(8)?,
                    hash: get_hash(row, 9)?,
                    origin: Origin::from_code(row.get(10)?).unwrap_or(Origin::External),
                    writer: writer_from_row(row, 11)?,
                    pinned: row.get(15)?,
                    note: row.get(16)?,
                    source: Source::from_row(row, 17)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        self.tell_lost(&mut versions)?;
        Ok(versions)
    }

    /// How many versions of a file are not its newest and have their content kept, and their sizes in bytes.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn kept_of(&self, file: FileId) -> Result<(u64, u64), CatalogError> {
        let sql = "SELECT count(*), coalesce(sum(size), 0) FROM version
                   WHERE file = ?1 AND kept IN (?2, ?3)
                     AND number < (SELECT head FROM file WHERE id = ?1)";
        let mut query = self.db.prepare_cached(sql)?;
        let of = params![file.0.cast_signed(), OBJECT, PREFIX];
        Ok(query.query_row(of, |row| Ok((get_u64(row, 0)?, get_u64(row, 1)?)))?)
    }

    /// Up to `limit` changes after `since`, in order.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn changes(&self, since: Seq, limit: usize) -> Result<Vec<ChangeInfo>, CatalogError> {
        self.in_one_state(|reader| {
            let rows = reader.change_rows(since, limit)?.into_iter();
            rows.map(|(change, other)| reader.with_paths(change, other)).collect()
        })
    }

    /// The same without paths, with the other file that each was about.
    fn change_rows(
        &self,
        since: Seq,
        limit: usize,
    ) -> Result<Vec<(ChangeInfo, Option<FileId>)>, CatalogError> {
        let sql = "SELECT c.seq, c.time_ns, c.op, c.file, c.other, f.kind, v.number, v.size,
                          v.sha256, w.uid, w.gid, w.pid, w.comm
                   FROM change c JOIN file f ON f.id = c.file
                   LEFT JOIN version v ON v.file = c.file AND v.number = c.number
                   LEFT JOIN writer w ON w.id = c.writer
                   WHERE c.seq > ?1 ORDER BY c.seq LIMIT ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![since.0.cast_signed(), limit], |row| {
            let number: Option<u32> = row.get(6)?;
            let version = match number {
                Some(number) => Some((number, get_u64(row, 7)?, get_hash(row, 8)?)),
                None => None,
            };
            let change = ChangeInfo {
                seq: Seq(get_u64(row, 0)?),
                time_ns: row.get(1)?,
                op: ChangeOp::from_code(row.get(2)?).unwrap_or(ChangeOp::Attr),
                file: FileId(get_u64(row, 3)?),
                kind: Kind::from_code(row.get(5)?).unwrap_or(Kind::File),
                path: None,
                from_path: None,
                version,
                writer: writer_from_row(row, 9)?,
            };
            Ok((change, row.get::<_, Option<i64>>(4)?.map(|id| FileId(id.cast_unsigned()))))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn with_paths(
        &self,
        mut change: ChangeInfo,
        other: Option<FileId>,
    ) -> Result<ChangeInfo, CatalogError> {
        let before = Seq(change.seq.0.saturating_sub(1));
        let (file, seq) = (change.file, change.seq);
        match change.op {
            ChangeOp::Unlink => change.path = self.name_closed(file, seq)?,
            ChangeOp::Link => change.path = self.name_opened(file, seq)?,
            ChangeOp::Rename | ChangeOp::Exchange => {
                change.path = self.name_opened(file, seq)?;
                change.from_path = self.name_closed(file, seq)?;
            }
            ChangeOp::Replace => {
                change.path = self.path_of(file, seq)?;
                if let Some(source) = other {
                    change.from_path = self.name_closed(source, seq)?;
                }
            }
            ChangeOp::Create | ChangeOp::Write | ChangeOp::Attr => {
                change.path = self.path_of(file, seq)?;
            }
        }
        if change.path.is_none() {
            change.path = self.path_of(file, before)?;
        }
        Ok(change)
    }

    /// The path of the name that a change took away.
    fn name_closed(&self, file: FileId, seq: Seq) -> Result<Option<Vec<u8>>, CatalogError> {
        let sql = "SELECT parent, name FROM entry_past WHERE child = ?1 AND to_seq = ?2 LIMIT 1";
        self.named(sql, file, seq, Seq(seq.0.saturating_sub(1)))
    }

    /// The path of the name that a change gave.
    fn name_opened(&self, file: FileId, seq: Seq) -> Result<Option<Vec<u8>>, CatalogError> {
        let sql = "SELECT parent, name FROM entry WHERE child = ?1 AND from_seq = ?2
                   UNION ALL
                   SELECT parent, name FROM entry_past WHERE child = ?1 AND from_seq = ?2 LIMIT 1";
        self.named(sql, file, seq, seq)
    }

    fn named(
        &self,
        sql: &str,
        file: FileId,
        seq: Seq,
        at: Seq,
    ) -> Result<Option<Vec<u8>>, CatalogError> {
        let found = self
            .db
            .prepare_cached(sql)?
            .query_row(params![file.0.cast_signed(), seq.0.cast_signed()], |row| {
                Ok((FileId(get_u64(row, 0)?), row.get::<_, Vec<u8>>(1)?))
            })
            .optional()?;
        let Some((parent, name)) = found else {
            return Ok(None);
        };
        Ok(self.path_of(parent, at)?.map(|path| join(&path, &name)))
    }

    /// Names at which a file ended and that are free now, in the order of their directories' numbers and
    /// of their bytes, after one of them. Reads all names that were ever taken away: some seconds for
    /// millions.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `visit` fails with.
    pub fn deleted<E: From<CatalogError>>(
        &self,
        after: Option<(NameKey, Seq)>,
        mut visit: impl FnMut(&Gone) -> Result<(), E>,
    ) -> Result<(), E> {
        const PAGE: usize = 1024;
        let sql = "SELECT p.parent, p.name, p.to_seq, p.child, p.from_seq FROM entry_past p
                   JOIN file f ON f.id = p.child AND f.ended_seq = p.to_seq
                   WHERE (p.parent, p.name, p.from_seq) > (?1, ?2, ?3)
                   ORDER BY p.parent, p.name, p.from_seq LIMIT ?4";
        let mut after = match after {
            Some((key, from)) => {
                (key.parent.0.cast_signed(), key.name.into_vec(), from.0.cast_signed())
            }
            None => (i64::MIN, Vec::new(), i64::MIN),
        };
        loop {
            let page: Vec<(i64, Vec<u8>, u64, FileId, i64)> = self
                .db
                .prepare_cached(sql)
                .and_then(|mut query| {
                    query
                        .query_map(params![after.0, after.1, after.2, PAGE], |row| {
                            let file = FileId(get_u64(row, 3)?);
                            Ok((row.get(0)?, row.get(1)?, get_u64(row, 2)?, file, row.get(4)?))
                        })?
                        .collect()
                })
                .map_err(CatalogError::from)?;
            let last = page.len() < PAGE;
            for (parent, name, to, file, from) in page {
                let dir = FileId(parent.cast_unsigned());
                if self.child(dir, &name, When::Now)?.is_none()
                    && let Some(path) = self.path_of(dir, Seq(to.saturating_sub(1)))?
                {
                    let key = NameKey { parent: dir, name: name.clone().into() };
                    let from = Seq(from.cast_unsigned());
                    visit(&Gone { path: join(&path, &name), key, from, ended: Seq(to), file })?;
                }
                after = (parent, name, from);
            }
            if last {
                return Ok(());
            }
        }
    }

    /// What kind of change this was; `None` if there was no such change.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn op_of(&self, seq: Seq) -> Result<Option<ChangeOp>, CatalogError> {
        let sql = "SELECT op FROM change WHERE seq = ?1";
        let code: Option<u8> = self
            .db
            .prepare_cached(sql)?
            .query_row([seq.0.cast_signed()], |row| row.get(0))
            .optional()?;
        Ok(code.and_then(ChangeOp::from_code))
    }

    /// When the newest unbroken life of a file began: a file that was deleted and created again has
    /// had several. `None` for the root, and for what never had a name.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn alive_since(&self, file: FileId) -> Result<Option<Seq>, CatalogError> {
        self.alive_since_before(file, Seq(i64::MAX.cast_unsigned()))
    }

    /// As [`Reader::alive_since`], of the life that it had after the change `at`.
    pub(super) fn alive_since_before(
        &self,
        file: FileId,
        at: Seq,
    ) -> Result<Option<Seq>, CatalogError> {
        let sql = "SELECT from_seq, to_seq FROM entry_past WHERE child = ?1 AND from_seq <= ?2
                   UNION ALL
                   SELECT from_seq, NULL FROM entry WHERE child = ?1 AND from_seq <= ?2
                   ORDER BY from_seq";
        let mut query = self.db.prepare_cached(sql)?;
        let mut stays = query.query(params![file.0.cast_signed(), at.0.cast_signed()])?;
        let (mut since, mut until) = (None, -1_i64);
        while let Some(row) = stays.next()? {
            let from: i64 = row.get(0)?;
            if from > until {
                since = Some(Seq(from.cast_unsigned()));
            }
            until = until.max(row.get::<_, Option<i64>>(1)?.unwrap_or(i64::MAX));
        }
        Ok(since)
    }

    /// When the newest version of a file was saved, in nanoseconds since 1970; `None` if it was
    /// found by the first walk, whose time says nothing of the file, or has no version.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn saved_ns(&self, file: FileId) -> Result<Option<i64>, CatalogError> {
        let sql = "SELECT c.time_ns FROM file f
                   JOIN version v ON v.file = f.id AND v.number = f.head
                   JOIN change c ON c.seq = v.seq
                   WHERE f.id = ?1 AND v.origin <> ?2";
        Ok(self
            .db
            .prepare_cached(sql)?
            .query_row(params![file.0.cast_signed(), Origin::Import.code()], |row| row.get(0))
            .optional()?)
    }

    /// Who saved the newest version of a file; `None` for what was found or has no version.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn saved_by(&self, file: FileId) -> Result<Option<Writer>, CatalogError> {
        let sql = "SELECT w.uid, w.gid, w.pid, w.comm FROM file f
                   JOIN version v ON v.file = f.id AND v.number = f.head
                   JOIN change c ON c.seq = v.seq JOIN writer w ON w.id = c.writer WHERE f.id = ?1";
        self.writer_by(sql, file.0)
    }

    /// Who made a change; `None` for what was found.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn writer_of(&self, seq: Seq) -> Result<Option<Writer>, CatalogError> {
        let sql = "SELECT w.uid, w.gid, w.pid, w.comm FROM change c
                   JOIN writer w ON w.id = c.writer WHERE c.seq = ?1";
        self.writer_by(sql, seq.0)
    }

    fn writer_by(&self, sql: &str, key: u64) -> Result<Option<Writer>, CatalogError> {
        let mut query = self.db.prepare_cached(sql)?;
        let found = query.query_row([key.cast_signed()], |row| writer_from_row(row, 0));
        Ok(found.optional()?.flatten())
    }

    /// When a change happened, in nanoseconds since 1970.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn time_of(&self, seq: Seq) -> Result<i64, CatalogError> {
        let sql = "SELECT time_ns FROM change WHERE seq = ?1";
        Ok(self.db.prepare_cached(sql)?.query_row([seq.0.cast_signed()], |row| row.get(0))?)
    }
}

pub(super) fn writer_from_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Option<Writer>> {
    let Some(uid) = row.get::<_, Option<u32>>(first)? else {
        return Ok(None);
    };
    let comm: Name = row.get::<_, Vec<u8>>(first + 3)?.into();
    Ok(Some(Writer { uid, gid: row.get(first + 1)?, pid: row.get(first + 2)?, comm }))
}
