//! The writer's statements on entries, versions and the small tables.
//!
//! Owns the SQL of one row each; what the rows mean for each other is for `apply` to know.

use rusqlite::{OptionalExtension, params};

use super::names::NameChange;
use super::preserve::VersionKey;
use super::rows::{ChangeOp, EntryRow, FileRow, HeadHash, Rows, get_hash, get_u64};
use crate::types::{Attr, ContentHash, FileId, Origin, Seq};

impl Rows<'_> {
    /// What has a name now.
    pub(super) fn entry(&self, parent: FileId, name: &[u8]) -> rusqlite::Result<Option<EntryRow>> {
        let sql = "SELECT child, from_seq FROM entry WHERE parent = ?1 AND name = ?2";
        self.db
            .prepare_cached(sql)?
            .query_row(params![parent.0.cast_signed(), name], |row| {
                Ok(EntryRow { child: FileId(get_u64(row, 0)?), from: Seq(get_u64(row, 1)?) })
            })
            .optional()
    }

    /// The file that had a name last, if that name was its end.
    pub(super) fn ended_at(
        &mut self,
        parent: FileId,
        name: &[u8],
    ) -> rusqlite::Result<Option<FileRow>> {
        let sql = "SELECT child, to_seq FROM entry_past WHERE parent = ?1 AND name = ?2
                   ORDER BY from_seq DESC LIMIT 1";
        let last = self
            .db
            .prepare_cached(sql)?
            .query_row(params![parent.0.cast_signed(), name], |row| {
                Ok((FileId(get_u64(row, 0)?), Seq(get_u64(row, 1)?)))
            })
            .optional()?;
        let Some((id, to)) = last else {
            return Ok(None);
        };
        let file = self.file(id)?;
        Ok(Some(file).filter(|f| f.ended == Some(to)))
    }

    /// Gives a file a name.
    pub(super) fn open_entry(
        &mut self,
        parent: FileId,
        name: &[u8],
        child: FileId,
    ) -> rusqlite::Result<()> {
        let kind = self.file(child)?.kind;
        self.state.names.push(NameChange::Open { parent, name: name.into(), child, kind });
        let sql = "INSERT INTO entry (parent, name, child, from_seq) VALUES (?1, ?2, ?3, ?4)";
        self.db.prepare_cached(sql)?.execute(params![
            parent.0.cast_signed(),
            name,
            child.0.cast_signed(),
            self.state.next_seq.cast_signed(),
        ])?;
        Ok(())
    }

    /// Makes a live name a past one.
    pub(super) fn close_entry(
        &mut self,
        parent: FileId,
        name: &[u8],
        entry: EntryRow,
    ) -> rusqlite::Result<()> {
        self.state.names.push(NameChange::Close { parent, name: name.into() });
        let sql = "DELETE FROM entry WHERE parent = ?1 AND name = ?2";
        self.db.prepare_cached(sql)?.execute(params![parent.0.cast_signed(), name])?;
        if entry.from == self.seq() {
            return Ok(());
        }
        let sql = "INSERT INTO entry_past (parent, name, from_seq, to_seq, child)
                   VALUES (?1, ?2, ?3, ?4, ?5)";
        self.db.prepare_cached(sql)?.execute(params![
            parent.0.cast_signed(),
            name,
            entry.from.0.cast_signed(),
            self.state.next_seq.cast_signed(),
            entry.child.0.cast_signed(),
        ])?;
        Ok(())
    }

    /// The live names of a file or directory's inode.
    pub(super) fn names(&self, child: FileId) -> rusqlite::Result<Vec<(FileId, Vec<u8>, Seq)>> {
        let sql = "SELECT parent, name, from_seq FROM entry WHERE child = ?1";
        self.db
            .prepare_cached(sql)?
            .query_map([child.0.cast_signed()], |row| {
                Ok((FileId(get_u64(row, 0)?), row.get(1)?, Seq(get_u64(row, 2)?)))
            })?
            .collect()
    }

    /// The live entries of a directory.
    pub(super) fn children(&self, parent: FileId) -> rusqlite::Result<Vec<(Vec<u8>, EntryRow)>> {
        let sql = "SELECT name, child, from_seq FROM entry WHERE parent = ?1";
        self.db
            .prepare_cached(sql)?
            .query_map([parent.0.cast_signed()], |row| {
                let from = Seq(get_u64(row, 2)?);
                Ok((row.get(0)?, EntryRow { child: FileId(get_u64(row, 1)?), from }))
            })?
            .collect()
    }

    /// The digest of the newest version.
    pub(super) fn head_hash(&mut self, row: &mut FileRow) -> rusqlite::Result<Option<ContentHash>> {
        if let HeadHash::Read(hash) = row.head_hash {
            return Ok(hash);
        }
        let hash = self.version_hash(row.id, row.head)?;
        row.head_hash = HeadHash::Read(hash);
        Ok(hash)
    }

    /// The digest of one version; `None` if it is not known, or there is no such version.
    pub(super) fn version_hash(
        &self,
        file: FileId,
        number: u32,
    ) -> rusqlite::Result<Option<ContentHash>> {
        let sql = "SELECT sha256 FROM version WHERE file = ?1 AND number = ?2";
        let hash = self
            .db
            .prepare_cached(sql)?
            .query_row(params![file.0.cast_signed(), number], |row| get_hash(row, 0))
            .optional()?;
        Ok(hash.flatten())
    }

    /// Inserts version `row.head + 1` and makes it the head.
    pub(super) fn insert_version(
        &self,
        row: &mut FileRow,
        attr: &Attr,
        hash: Option<ContentHash>,
        origin: Origin,
    ) -> rusqlite::Result<u32> {
        let sql = "INSERT INTO version
                   (file, number, seq, sha256, size, mtime_ns, mode, uid, gid, origin)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let number = row.head + 1;
        self.db.prepare_cached(sql)?.execute(params![
            row.id.0.cast_signed(),
            number,
            self.state.next_seq.cast_signed(),
            hash.as_ref().map(ContentHash::as_bytes),
            attr.size.cast_signed(),
            attr.mtime.as_ns(),
            attr.mode,
            attr.uid,
            attr.gid,
            origin.code(),
        ])?;
        row.head = number;
        row.head_hash = HeadHash::Read(hash);
        row.sealed_by = None;
        Ok(number)
    }

    /// Brings a version to a later state of the same session.
    pub(super) fn update_version(
        &self,
        (file, number): VersionKey,
        attr: &Attr,
        hash: Option<ContentHash>,
    ) -> rusqlite::Result<()> {
        let sql = "UPDATE version SET sha256 = ?3, size = ?4, mtime_ns = ?5, mode = ?6, uid = ?7,
                   gid = ?8 WHERE file = ?1 AND number = ?2";
        self.db.prepare_cached(sql)?.execute(params![
            file.0.cast_signed(),
            number,
            hash.as_ref().map(ContentHash::as_bytes),
            attr.size.cast_signed(),
            attr.mtime.as_ns(),
            attr.mode,
            attr.uid,
            attr.gid,
        ])?;
        Ok(())
    }

    /// Fills in a digest that was on its way.
    pub(super) fn fill_hash(
        &self,
        file: FileId,
        number: u32,
        hash: ContentHash,
    ) -> rusqlite::Result<()> {
        let sql = "UPDATE version SET sha256 = ?3 WHERE file = ?1 AND number = ?2
                   AND sha256 IS NULL";
        let bytes = hash.as_bytes();
        self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), number, bytes])?;
        Ok(())
    }

    /// Takes back the head, which turned out to have the bytes of the version before it.
    pub(super) fn retract_version(&mut self, row: &mut FileRow) -> rusqlite::Result<()> {
        let (file, number) = (row.id.0.cast_signed(), row.head);
        let log = "UPDATE change SET op = ?3, number = NULL
                   WHERE seq = (SELECT seq FROM version WHERE file = ?1 AND number = ?2)";
        self.db.prepare_cached(log)?.execute(params![file, number, ChangeOp::Attr.code()])?;
        let sql = "DELETE FROM version WHERE file = ?1 AND number = ?2";
        self.db.prepare_cached(sql)?.execute(params![file, number])?;
        self.move_marks(row.id, row.head)?;
        self.forget_copies(row.id, row.head)?;
        self.move_inode((row.id, row.head), row.head - 1)?;
        // The number will be another session's.
        for made in self.state.sessions.values_mut() {
            made.versions.retain(|version| *version != (row.id, row.head));
        }
        row.head -= 1;
        row.head_hash = HeadHash::NotRead;
        row.sealed_by = None;
        Ok(())
    }

    /// The origin, size and modification time of the newest version.
    pub(super) fn head_facts(&self, row: &FileRow) -> rusqlite::Result<Option<(Origin, u64, i64)>> {
        let sql = "SELECT origin, size, mtime_ns FROM version WHERE file = ?1 AND number = ?2";
        self.db
            .prepare_cached(sql)?
            .query_row(params![row.id.0.cast_signed(), row.head], |r| {
                let origin = Origin::from_code(r.get(0)?).unwrap_or(Origin::External);
                Ok((origin, get_u64(r, 1)?, r.get(2)?))
            })
            .optional()
    }

    /// Mode, owner, group and modification time as they were recorded last with the head or after it.
    pub(super) fn recorded_attr(
        &self,
        row: &FileRow,
    ) -> rusqlite::Result<Option<(u32, u32, u32, i64)>> {
        let sql = "SELECT mode, uid, gid, mtime_ns FROM (
                       SELECT seq, mode, uid, gid, mtime_ns FROM version
                       WHERE file = ?1 AND number = ?2
                       UNION ALL
                       SELECT * FROM (SELECT seq, mode, uid, gid, mtime_ns FROM attr
                                      WHERE file = ?1 ORDER BY seq DESC LIMIT 1)
                   ) ORDER BY seq DESC LIMIT 1";
        self.db
            .prepare_cached(sql)?
            .query_row(params![row.id.0.cast_signed(), row.head], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
            })
            .optional()
    }

    /// Records attributes that changed without a new version.
    pub(super) fn insert_attr(&self, file: FileId, attr: &Attr) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO attr (file, seq, mode, uid, gid, mtime_ns)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.db.prepare_cached(sql)?.execute(params![
            file.0.cast_signed(),
            self.state.next_seq.cast_signed(),
            attr.mode,
            attr.uid,
            attr.gid,
            attr.mtime.as_ns(),
        ])?;
        Ok(())
    }

    /// Records where a symlink points.
    pub(super) fn insert_target(&self, file: FileId, target: &[u8]) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO symlink (file, target) VALUES (?1, ?2)";
        self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), target])?;
        Ok(())
    }

    /// Records which device a node stands for.
    pub(super) fn insert_device(&self, file: FileId, rdev: u32) -> rusqlite::Result<()> {
        let sql = "INSERT INTO device (file, rdev) VALUES (?1, ?2)";
        self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), rdev])?;
        Ok(())
    }

    /// Live files without a name, which a walk is to find again or not.
    pub(super) fn nameless(&self) -> rusqlite::Result<Vec<FileId>> {
        let sql = "SELECT id FROM file WHERE ended_seq IS NULL AND links = 0";
        self.db.prepare(sql)?.query_map([], |row| get_u64(row, 0).map(FileId))?.collect()
    }

    /// A fact about the whole catalog.
    pub(super) fn meta(&self, key: &str) -> rusqlite::Result<Option<i64>> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        self.db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
    }

    /// Sets a fact about the whole catalog.
    pub(super) fn set_meta(&self, key: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        self.db.prepare_cached(sql)?.execute(params![key, value])?;
        Ok(())
    }
}
