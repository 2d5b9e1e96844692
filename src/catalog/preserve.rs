//! What became of the content of versions.
//!
//! Owns the tables of objects and of what waits to become one, and where the content of a version is to
//! be had. A content is looked for by its digest, so whatever has the same bytes serves: that a row
//! was lost in a crash loses no content.

use rusqlite::{OptionalExtension, params};

use super::CatalogError;
use super::apply::Apply;
use super::event::{Kept, Prefix};
use super::history::VersionInfo;
use super::packing::ObjectTotals;
use super::read::Reader;
use super::rows::{Rows, get_hash, get_u64};
use crate::types::{ContentHash, FileId, IncomingId, InodeKey, Loss};

/// `version.kept` of a content that is an object, or will be.
pub(super) const OBJECT: u8 = 1;
/// `version.kept` of a content that is the beginning of the next version's.
pub(super) const PREFIX: u8 = 2;

/// A file and the number of one of its versions.
pub type VersionKey = (FileId, u32);

/// What waits to become an object, with digest and size in bytes if they are known.
pub type Awaited = (IncomingId, Option<(ContentHash, u64)>);

/// The version for which something was preserved, as long as its digest is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// The modification time that its content had, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Size in bytes of the version before it, if that has a digest.
    pub before: Option<u64>,
}

/// Where the content of one version is to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// In the file itself.
    Head,
    /// Nowhere, and nowhere needed: there are no bytes.
    Empty,
    /// It is an object.
    Object(ContentHash),
    /// It waits to become one.
    Incoming(IncomingId),
    /// It is what the next version begins with.
    Prefix,
    /// It is that of another file's version, over which this one was moved.
    Continued(FileId, u32),
    /// It is lost.
    Lost(Loss),
}

/// The columns from which [`Source`] follows, for a `version v` and its `file f`.
pub(super) const SOURCE_COLUMNS: &str = "f.head = v.number AND f.ended_seq IS NULL, v.size,
     (SELECT o.sha256 FROM object o WHERE o.sha256 = v.sha256),
     (SELECT i.id FROM incoming i WHERE i.file = v.file AND i.number = v.number
      ORDER BY i.is_inode, i.id LIMIT 1), v.kept,
     (SELECT c.to_file FROM continued c WHERE c.file = v.file AND c.number = v.number),
     (SELECT c.to_number FROM continued c WHERE c.file = v.file AND c.number = v.number)";

impl Source {
    /// Reads [`SOURCE_COLUMNS`] that begin at `first`.
    pub(super) fn from_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let kept: Option<u8> = row.get(first + 4)?;
        // A head whose content was kept is about to be replaced by what has its name already.
        if row.get(first)? && kept != Some(OBJECT) {
            return Ok(Self::Head);
        }
        if get_u64(row, first + 1)? == 0 {
            return Ok(Self::Empty);
        }
        if let Some(hash) = get_hash(row, first + 2)? {
            return Ok(Self::Object(hash));
        }
        if let Some(id) = row.get::<_, Option<i64>>(first + 3)? {
            return Ok(Self::Incoming(IncomingId(id.cast_unsigned())));
        }
        Ok(match (Self::elsewhere(row, first)?, kept) {
            (Some(elsewhere), _) => elsewhere,
            // What was kept in case that it is replaced is given up, or gone: the file itself is left.
            (None, _) if row.get(first)? => Self::Head,
            // It was an object once.
            (None, Some(OBJECT)) => Self::Lost(Loss::Pruned),
            (None, kept) => Self::Lost(kept.and_then(Loss::from_code).unwrap_or(Loss::Unseen)),
        })
    }

    /// Reads from [`SOURCE_COLUMNS`] that begin at `first` whether something that was preserved for the
    /// version waits to become an object, though there may be one already.
    pub(super) fn waits(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<bool> {
        row.get::<_, Option<i64>>(first + 3).map(|id| id.is_some())
    }

    /// Reads from [`SOURCE_COLUMNS`] that begin at `first` where the content is to be had beside the store,
    /// with another version.
    pub(super) fn elsewhere(
        row: &rusqlite::Row<'_>,
        first: usize,
    ) -> rusqlite::Result<Option<Self>> {
        if let Some(file) = row.get::<_, Option<i64>>(first + 5)? {
            let number = row.get(first + 6)?;
            return Ok(Some(Self::Continued(FileId(file.cast_unsigned()), number)));
        }
        let kept: Option<u8> = row.get(first + 4)?;
        Ok((kept == Some(PREFIX)).then_some(Self::Prefix))
    }
}

impl Apply<'_, '_> {
    pub(super) fn preserve(&mut self, key: InodeKey, kept: Kept) -> rusqlite::Result<()> {
        let Some(file) = self.rows.find(key)? else { return Ok(()) };
        let is_kept = self.rows.is_kept(file.id, file.head)?;
        // Without a version yet, what is kept becomes the first when it is sealed.
        match kept {
            // What it has was sealed before it lost its name.
            Kept::Inode(id) => self.rows.insert_incoming(id, (file.id, file.head), true),
            // What has the name now is no version yet.
            Kept::Copy(_) | Kept::Lost(_) if is_kept => Ok(()),
            Kept::Copy(id) => self.rows.insert_incoming(id, (file.id, file.head), false),
            Kept::Lost(loss) => self.rows.set_kept(file.id, file.head, loss.code()),
        }
    }

    pub(super) fn stored(
        &mut self,
        id: IncomingId,
        content: Option<(ContentHash, u64)>,
        original: bool,
        prefix: Option<Prefix>,
    ) -> rusqlite::Result<()> {
        let version = self.rows.take_incoming(id)?;
        let Some((hash, size)) = content else {
            let Some((file, number)) = version else { return Ok(()) };
            // A crash may have come between the object and the word of it.
            if let Some(hash) = self.rows.version_hash(file, number)?
                && self.rows.has_object(hash)?
            {
                return Ok(());
            }
            return self.rows.set_kept(file, number, Loss::Gone.code());
        };
        self.rows.insert_object(hash, size, self.time_ns)?;
        let Some((file, number)) = version else { return Ok(()) };
        match self.rows.version_facts(file, number)? {
            Some((Some(known), _)) if known == hash => Ok(()),
            // The bytes were gone before they could be read, but not lost.
            Some((None, known)) if original && known == size => {
                self.rows.fill_hash(file, number, hash)?;
                self.rows.tell_prefix(file, number - 1, prefix)
            }
            _ if self.rows.waits(file, number)? => Ok(()),
            _ => self.rows.set_kept(file, number, Loss::Overwritten.code()),
        }
    }

    pub(super) fn dropped(&mut self, hash: ContentHash) -> rusqlite::Result<()> {
        let sql = "DELETE FROM object WHERE sha256 = ?1";
        self.rows.db.prepare_cached(sql)?.execute([hash.as_bytes()]).map(|_| ())
    }

    pub(super) fn perished(&mut self, hash: ContentHash) -> rusqlite::Result<()> {
        // 1 is OBJECT: the index is of these alone, which SQLite must see.
        let sql = "UPDATE version SET kept = ?2 WHERE sha256 = ?1 AND kept = 1";
        let values = params![hash.as_bytes(), Loss::Gone.code()];
        self.rows.db.prepare_cached(sql)?.execute(values)?;
        self.dropped(hash)
    }
}

impl Rows<'_> {
    fn is_kept(&self, file: FileId, number: u32) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM version WHERE file = ?1 AND number = ?2 AND kept = ?3";
        self.db.prepare_cached(sql)?.exists(params![file.0.cast_signed(), number, OBJECT])
    }

    /// The digest and size of a version; `None` if there is no such version.
    pub(super) fn version_facts(
        &self,
        file: FileId,
        number: u32,
    ) -> rusqlite::Result<Option<(Option<ContentHash>, u64)>> {
        let sql = "SELECT sha256, size FROM version WHERE file = ?1 AND number = ?2";
        self.db
            .prepare_cached(sql)?
            .query_row(params![file.0.cast_signed(), number], |row| {
                Ok((get_hash(row, 0)?, get_u64(row, 1)?))
            })
            .optional()
    }

    fn set_kept(&self, file: FileId, number: u32, code: u8) -> rusqlite::Result<()> {
        let sql = "UPDATE version SET kept = ?3 WHERE file = ?1 AND number = ?2";
        self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), number, code])?;
        Ok(())
    }

    fn insert_incoming(
        &self,
        id: IncomingId,
        (file, number): VersionKey,
        is_inode: bool,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO incoming (id, file, number, is_inode)
                   VALUES (?1, ?2, ?3, ?4)";
        let values = params![id.0.cast_signed(), file.0.cast_signed(), number, is_inode];
        self.db.prepare_cached(sql)?.execute(values)?;
        self.set_kept(file, number, OBJECT)
    }

    /// Notes where the content of a version goes on.
    pub(super) fn insert_continued(
        &self,
        (file, number): (FileId, u32),
        (to_file, to_number): (FileId, u32),
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO continued (file, number, to_file, to_number)
                   VALUES (?1, ?2, ?3, ?4)";
        self.db.prepare_cached(sql)?.execute(params![
            file.0.cast_signed(),
            number,
            to_file.0.cast_signed(),
            to_number
        ])?;
        Ok(())
    }

    /// What a version went on as has another content by now.
    pub(super) fn lose_continued(&self, file: FileId, number: u32) -> rusqlite::Result<()> {
        self.delete_continued((file, number))?;
        self.set_kept(file, number, Loss::Overwritten.code())
    }

    /// What nobody replaced after all is no longer about to be: a crash came before the replacement.
    pub(super) fn unkeep_heads(&self) -> rusqlite::Result<()> {
        let sql = "UPDATE version SET kept = NULL WHERE kept = ?1 AND number =
                   (SELECT f.head FROM file f WHERE f.id = version.file AND f.ended_seq IS NULL)";
        self.db.execute(sql, [OBJECT]).map(|_| ())
    }

    /// Forgets where the content of a version goes on.
    pub(super) fn delete_continued(&self, (file, number): VersionKey) -> rusqlite::Result<()> {
        let sql = "DELETE FROM continued WHERE file = ?1 AND number = ?2";
        self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), number])?;
        Ok(())
    }

    fn take_incoming(&self, id: IncomingId) -> rusqlite::Result<Option<(FileId, u32)>> {
        let sql = "DELETE FROM incoming WHERE id = ?1 RETURNING file, number";
        self.db
            .prepare_cached(sql)?
            .query_row([id.0.cast_signed()], |row| Ok((FileId(get_u64(row, 0)?), row.get(1)?)))
            .optional()
    }

    fn has_object(&self, hash: ContentHash) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM object WHERE sha256 = ?1";
        self.db.prepare_cached(sql)?.exists([hash.as_bytes()])
    }

    /// Notes an object. One that was there already has been lost again just now, so it is as young as
    /// what that loss ended; if it was packed, it has a file of its own again, of which packing must hear.
    pub(super) fn insert_object(
        &self,
        hash: ContentHash,
        size: u64,
        now_ns: i64,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT INTO object (sha256, size, stored_ns, due_ns) VALUES (?1, ?2, ?3, ?3)
                   ON CONFLICT (sha256) DO UPDATE SET stored_ns = max(stored_ns, ?3), packed = 0,
                   due_ns = CASE WHEN packed = 1 THEN ?3 ELSE due_ns END";
        self.db.prepare_cached(sql)?.execute(params![
            hash.as_bytes(),
            size.cast_signed(),
            now_ns
        ])?;
        Ok(())
    }

    /// Whether something waits to become the object of a version.
    fn waits(&self, file: FileId, number: u32) -> rusqlite::Result<bool> {
        let sql = "SELECT 1 FROM incoming WHERE file = ?1 AND number = ?2";
        self.db.prepare_cached(sql)?.exists(params![file.0.cast_signed(), number])
    }

    /// An inode that waits has another version of its file by now: somebody went on writing to it after it
    /// had lost its name, or it is back to what it was.
    pub(super) fn move_inode(&self, (file, from): VersionKey, to: u32) -> rusqlite::Result<()> {
        let sql = "UPDATE incoming SET number = ?3 WHERE id =
                   (SELECT max(id) FROM incoming WHERE file = ?1 AND number = ?2 AND is_inode)";
        let moved =
            self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), from, to])?;
        if moved > 0 {
            if !self.waits(file, from)? {
                self.set_kept(file, from, Loss::Overwritten.code())?;
            }
            self.set_kept(file, to, OBJECT)?;
        }
        Ok(())
    }

    /// A content that was kept is still there after all, unless only the inode is.
    pub(super) fn unkeep(&self, file: FileId, number: u32) -> rusqlite::Result<()> {
        let sql = "UPDATE version SET kept = NULL
                   WHERE file = ?1 AND number = ?2 AND kept IS NOT NULL AND NOT EXISTS
                   (SELECT 1 FROM incoming i WHERE i.file = ?1 AND i.number = ?2 AND i.is_inode)";
        self.db.prepare_cached(sql)?.execute(params![file.0.cast_signed(), number])?;
        Ok(())
    }

    /// A version gets another content: copies that were made of it are not of that. An inode that waits is.
    pub(super) fn forget_copies(&self, file: FileId, number: u32) -> rusqlite::Result<()> {
        let copies = "DELETE FROM incoming WHERE file = ?1 AND number = ?2 AND NOT is_inode";
        let key = (file.0.cast_signed(), number);
        self.db.prepare_cached(copies)?.execute(key)?;
        let sql = "UPDATE version SET kept = NULL WHERE file = ?1 AND number = ?2 AND kept = ?3
                   AND NOT EXISTS (SELECT 1 FROM incoming i WHERE i.file = ?1 AND i.number = ?2)";
        self.db.prepare_cached(sql)?.execute((key.0, key.1, OBJECT)).map(drop)
    }

    /// Notes whether a version is what the next one begins with; `prefix` is of that next one. Until its
    /// digest is known nobody knows.
    pub(super) fn tell_prefix(
        &self,
        file: FileId,
        number: u32,
        prefix: Option<Prefix>,
    ) -> rusqlite::Result<()> {
        let lost = "UPDATE version SET kept = ?3 WHERE file = ?1 AND number = ?2 AND kept = ?4";
        let key = (file.0.cast_signed(), number);
        let values = params![key.0, key.1, Loss::Overwritten.code(), PREFIX];
        self.db.prepare_cached(lost)?.execute(values)?;
        let Some(prefix) = prefix else { return Ok(()) };
        let is = "UPDATE version SET kept = ?5
                  WHERE file = ?1 AND number = ?2 AND size = ?3 AND sha256 = ?4";
        let (size, hash) = (prefix.size.cast_signed(), prefix.hash.as_bytes());
        self.db.prepare_cached(is)?.execute(params![key.0, key.1, size, hash, PREFIX])?;
        Ok(())
    }
}

impl Reader {
    /// Where the content of a version is to be had; `None` if there is no such version.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn source(&self, file: FileId, number: u32) -> Result<Option<Source>, CatalogError> {
        let sql = format!(
            "SELECT {SOURCE_COLUMNS} FROM version v JOIN file f ON f.id = v.file
             WHERE v.file = ?1 AND v.number = ?2"
        );
        Ok(self
            .db
            .prepare_cached(&sql)?
            .query_row(params![file.0.cast_signed(), number], |row| Source::from_row(row, 0))
            .optional()?)
    }

    /// The version that has the bytes of one, which may be itself, and where they are to be had; `None`
    /// if there is no such version any more.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn bytes_of(
        &self,
        version: VersionKey,
    ) -> Result<Option<(VersionKey, Source)>, CatalogError> {
        let source = self.source(version.0, version.1)?;
        source.map(|source| self.place(version, source)).transpose()
    }

    /// The version whose content one at `at` with this source shares, and where that one's is; `None` if
    /// the source says it itself.
    fn follow(
        &self,
        (file, number): VersionKey,
        source: Source,
    ) -> Result<Option<(VersionKey, Source)>, CatalogError> {
        let (at, found) = match source {
            Source::Prefix => ((file, number + 1), self.source(file, number + 1)?),
            Source::Continued(to, next) => match self.heir((file, number), (to, next))? {
                Some(heir) => (heir, self.source(heir.0, heir.1)?),
                None => ((to, next), Some(Source::Lost(Loss::Overwritten))),
            },
            _ => return Ok(None),
        };
        Ok(Some((at, found.unwrap_or(Source::Lost(Loss::Unseen)))))
    }

    /// The version that has the bytes of one, which went on as `to`. That may have been taken back since,
    /// for it had the bytes of the one before it, and its number given to another.
    fn heir(&self, of: VersionKey, to: VersionKey) -> Result<Option<VersionKey>, CatalogError> {
        let hash_of = |key| Ok::<_, CatalogError>(self.version_facts(key)?.map(|v| v.hash));
        let wanted = hash_of(of)?.flatten();
        let mut perhaps = None;
        for key in [to, (to.0, to.1.saturating_sub(1))] {
            match hash_of(key)? {
                Some(hash) if hash.is_some() && hash == wanted => return Ok(Some(key)),
                Some(hash) if hash.is_none() || wanted.is_none() => perhaps = perhaps.or(Some(key)),
                _ => {}
            }
        }
        Ok(perhaps)
    }

    /// Where the bytes of a version at `at` with this source are in the end, and whose they are there.
    pub(super) fn place(
        &self,
        at: VersionKey,
        source: Source,
    ) -> Result<(VersionKey, Source), CatalogError> {
        self.place_by(at, source, |_| {})
    }

    /// The same; `pass` hears of every other version on the way there.
    pub(super) fn place_by(
        &self,
        at: VersionKey,
        source: Source,
        mut pass: impl FnMut(VersionKey),
    ) -> Result<(VersionKey, Source), CatalogError> {
        /// What was moved from file to file more often goes in a circle.
        const MOST: u32 = 1000;
        let (mut at, mut source, mut moves) = (at, source, 0);
        while let Some(step) = self.follow(at, source)? {
            moves += u32::from(matches!(source, Source::Continued(..)));
            if moves > MOST {
                return Ok((at, Source::Lost(Loss::Unseen)));
            }
            (at, source) = step;
            pass(at);
        }
        Ok((at, source))
    }

    /// What is to be had from other versions is lost with them. `versions` are all of one file.
    pub(super) fn tell_lost(&self, versions: &mut [VersionInfo]) -> Result<(), CatalogError> {
        let mut next = Source::Lost(Loss::Unseen);
        for version in versions.iter_mut().rev() {
            if version.source != Source::Prefix {
                (_, next) = self.place((version.file, version.number), version.source)?;
            }
            if matches!(next, Source::Lost(_)) {
                version.source = next;
            }
        }
        Ok(())
    }

    /// What was preserved and has not become an object yet, with digest and size in bytes of the version
    /// for which it was, if they are known.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn incoming(&self) -> Result<Vec<Awaited>, CatalogError> {
        let sql = "SELECT i.id, v.sha256, coalesce(v.size, 0) FROM incoming i
                   LEFT JOIN version v ON v.file = i.file AND v.number = i.number";
        let mut query = self.db.prepare_cached(sql)?;
        let found = query.query_map([], |row| {
            let size = get_u64(row, 2)?;
            Ok((IncomingId(get_u64(row, 0)?), get_hash(row, 1)?.map(|hash| (hash, size))))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// What is known of the version for which something was preserved; `None` if there is none, or it has
    /// its digest.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn unread(&self, id: IncomingId) -> Result<Option<Unread>, CatalogError> {
        let sql = "SELECT v.mtime_ns, (SELECT b.size FROM version b WHERE b.file = v.file
                       AND b.number = v.number - 1 AND b.sha256 IS NOT NULL)
                   FROM incoming i JOIN version v ON v.file = i.file AND v.number = i.number
                   WHERE i.id = ?1 AND v.sha256 IS NULL";
        let read = |row: &rusqlite::Row<'_>| {
            let before: Option<i64> = row.get(1)?;
            Ok(Unread { mtime_ns: row.get(0)?, before: before.map(i64::cast_unsigned) })
        };
        Ok(self.db.prepare_cached(sql)?.query_row([id.0.cast_signed()], read).optional()?)
    }

    /// The contents of versions that are no objects, with their sizes in bytes, for which `is_wanted`.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn contents_without_objects(
        &self,
        is_wanted: impl Fn(ContentHash) -> bool,
    ) -> Result<Vec<(ContentHash, u64)>, CatalogError> {
        let sql = "SELECT v.sha256, v.size FROM version v WHERE v.sha256 IS NOT NULL
                   AND NOT EXISTS (SELECT 1 FROM object o WHERE o.sha256 = v.sha256)";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([])?;
        let mut found = std::collections::BTreeMap::new();
        while let Some(row) = rows.next()? {
            let Some(hash) = get_hash(row, 0)? else { continue };
            if !found.contains_key(&hash) && is_wanted(hash) {
                found.insert(hash, get_u64(row, 1)?);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// How many objects there are, and how many bytes.
    pub(super) fn objects(&self) -> Result<(u64, u64), CatalogError> {
        let ObjectTotals { loose, packed, .. } = self.object_totals()?;
        Ok((loose.count + packed.count, loose.bytes + packed.bytes))
    }
}
