//! Which objects are packed, and how much there is of everything that is kept.
//!
//! Owns what the catalog knows of packing: whether an object has a file of its own, when it is to be
//! looked at, and totals that triggers keep, so that nobody need count. That an object is packed is
//! only a hint as to where to look first: a content is wherever it is found.

use std::ops::Range;

use rusqlite::{OptionalExtension, params};

use super::CatalogError;
use super::event::Packing;
use super::preserve::{SOURCE_COLUMNS, Source};
use super::read::Reader;
use super::rows::{Rows, get_hash, get_u64};
use crate::types::{ContentHash, FileId};

/// Names of the facts of a [`Survey`].
const SURVEY: &str = "survey";

/// An object that is due to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueObject {
    /// Which.
    pub hash: ContentHash,
    /// Its size in bytes.
    pub size: u64,
    /// Since when.
    pub due_ns: i64,
    /// It is packed; only its own file may be left.
    pub packed: bool,
}

/// A number of contents and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// How much is kept, each content counted once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ObjectTotals {
    /// Objects with a file of their own.
    pub loose: Amount,
    /// Objects that are packed.
    pub packed: Amount,
    /// Packed objects that were given up since packs were cleaned up.
    pub dropped: Amount,
}

/// What the store was found to take when it was last looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Survey {
    /// When that was, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Kept versions that are no heads, with what they would take as plain files.
    pub versions: Amount,
    /// Objects with a file of their own, with what these take on the disk.
    pub loose: Amount,
    /// How many of those bytes live files or other objects have too.
    pub shared_bytes: u64,
}

impl Rows<'_> {
    pub(super) fn set_packing(
        &self,
        hash: ContentHash,
        packing: Packing,
        now_ns: i64,
    ) -> rusqlite::Result<()> {
        let sql = match packing {
            Packing::Done => "UPDATE object SET packed = 1 WHERE sha256 = ?1 AND ?2 IS NOT NULL",
            Packing::Alone => {
                "UPDATE object SET due_ns = NULL
                 WHERE sha256 = ?1 AND packed = 1 AND ?2 IS NOT NULL"
            }
            Packing::Later => "UPDATE object SET due_ns = ?2 WHERE sha256 = ?1",
            Packing::Again => {
                "UPDATE object SET due_ns = ?2
                 WHERE sha256 = ?1 AND due_ns IS NULL AND packed = 0"
            }
            Packing::Needless => {
                "UPDATE object SET due_ns = NULL WHERE sha256 = ?1 AND ?2 IS NOT NULL"
            }
        };
        self.db.prepare_cached(sql)?.execute(params![hash.as_bytes(), now_ns]).map(drop)
    }

    /// Notes that what was given up is cleaned up.
    pub(super) fn set_cleaned(&self, dropped: Amount) -> rusqlite::Result<()> {
        let sql = "UPDATE object_total SET objects = objects - ?1, bytes = bytes - ?2
                   WHERE what = 2";
        let (count, bytes) = (dropped.count.cast_signed(), dropped.bytes.cast_signed());
        self.db.prepare_cached(sql)?.execute([count, bytes]).map(drop)
    }

    pub(super) fn set_survey(&self, survey: &Survey) -> rusqlite::Result<()> {
        let Survey { time_ns, versions, loose, shared_bytes } = *survey;
        let facts = [versions.count, versions.bytes, loose.count, loose.bytes, shared_bytes];
        let mut text = time_ns.to_string();
        facts.iter().for_each(|fact| text += &format!(" {fact}"));
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        self.db.prepare_cached(sql)?.execute(params![SURVEY, text]).map(drop)
    }
}

impl Reader {
    /// The next `limit` objects that are due to be looked at before `before_ns`, the oldest first,
    /// behind those that `after` stands for.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn due_objects(
        &self,
        before_ns: i64,
        after: Option<(i64, ContentHash)>,
        limit: u32,
    ) -> Result<Vec<DueObject>, CatalogError> {
        let sql = "SELECT sha256, size, due_ns, packed FROM object
                   WHERE due_ns <= ?1 AND (due_ns, sha256) > (?2, ?3)
                   ORDER BY due_ns, sha256 LIMIT ?4";
        let mut query = self.db.prepare_cached(sql)?;
        let (after_ns, after) =
            after.map_or((i64::MIN, [0; 32]), |(ns, hash)| (ns, *hash.as_bytes()));
        let rows = query.query_map(params![before_ns, after_ns, after, limit], |row| {
            let hash = get_hash(row, 0)?.ok_or(rusqlite::Error::InvalidQuery)?;
            let (size, due_ns, packed) = (get_u64(row, 1)?, row.get(2)?, row.get(3)?);
            Ok(DueObject { hash, size, due_ns, packed })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Other contents of about this size that were kept of a file that has had this one, up to a hundred.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn kin(&self, hash: ContentHash, size: u64) -> Result<Vec<ContentHash>, CatalogError> {
        let sql = "SELECT DISTINCT o.sha256 FROM version v JOIN version w ON w.file = v.file
                   JOIN object o ON o.sha256 = w.sha256
                   WHERE v.sha256 = ?1 AND v.kept = 1 AND w.kept = 1 AND w.sha256 <> ?1
                   AND w.size BETWEEN ?2 AND ?3 LIMIT 100";
        let (least, most) = (size / 2, size.saturating_mul(2).min(i64::MAX.unsigned_abs()));
        let (least, most) = (least.cast_signed(), most.cast_signed());
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map(params![hash.as_bytes(), least, most], |row| {
            get_hash(row, 0)?.ok_or(rusqlite::Error::InvalidQuery)
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The next `limit` objects behind `after` in the order of their digests, with their sizes in bytes.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn objects_after(
        &self,
        after: Option<ContentHash>,
        limit: u32,
    ) -> Result<Vec<(ContentHash, u64)>, CatalogError> {
        let sql = "SELECT sha256, size FROM object WHERE sha256 > ?1 ORDER BY sha256 LIMIT ?2";
        let mut query = self.db.prepare_cached(sql)?;
        // Nothing at all comes before every digest.
        let after = after.as_ref().map_or(&[][..], |hash| &hash.as_bytes()[..]);
        let rows = query.query_map(params![after, limit], object_from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The objects with files of their own that came into the store within a time, in nanoseconds since
    /// 1970, with their sizes in bytes.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn stored_within(
        &self,
        time_ns: Range<i64>,
    ) -> Result<Vec<(ContentHash, u64)>, CatalogError> {
        let sql = "SELECT sha256, size FROM object
                   WHERE stored_ns >= ?1 AND stored_ns < ?2 AND packed = 0";
        let mut query = self.db.prepare_cached(sql)?;
        let rows = query.query_map([time_ns.start, time_ns.end], object_from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The one of them that came last.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn newest_object(&self) -> Result<Option<ContentHash>, CatalogError> {
        let sql = "SELECT sha256, size FROM object WHERE packed = 0
                   ORDER BY stored_ns DESC LIMIT 1";
        let newest = self.db.prepare_cached(sql)?.query_row([], object_from_row).optional()?;
        Ok(newest.map(|(hash, _)| hash))
    }

    /// How much is kept. Costs nothing.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn object_totals(&self) -> Result<ObjectTotals, CatalogError> {
        let sql = "SELECT objects, bytes FROM object_total ORDER BY what";
        let mut query = self.db.prepare_cached(sql)?;
        let amounts = query
            .query_map([], |row| Ok(Amount { count: get_u64(row, 0)?, bytes: get_u64(row, 1)? }))?;
        let amounts: Vec<_> = amounts.collect::<Result<_, _>>()?;
        let [loose, packed, dropped] = amounts[..] else { return Ok(ObjectTotals::default()) };
        Ok(ObjectTotals { loose, packed, dropped })
    }

    /// What the store was found to take when it was last looked through, if it ever was.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn survey(&self) -> Result<Option<Survey>, CatalogError> {
        let sql = "SELECT value FROM meta WHERE key = ?1";
        let text: Option<String> =
            self.db.prepare_cached(sql)?.query_row([SURVEY], |row| row.get(0)).optional()?;
        Ok(text.as_deref().and_then(parse_survey))
    }

    /// Adds up the kept versions that are no heads, of the next `limit` files behind `after`; returns the
    /// last file, if there may be more.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn add_kept(
        &self,
        after: FileId,
        limit: u32,
        sum: &mut Amount,
    ) -> Result<Option<FileId>, CatalogError> {
        let last = "SELECT max(id) FROM
                    (SELECT id FROM file WHERE id > ?1 ORDER BY id LIMIT ?2)";
        let after = after.0.cast_signed();
        let last: Option<i64> =
            self.db.prepare_cached(last)?.query_row(params![after, limit], |row| row.get(0))?;
        let Some(last) = last else { return Ok(None) };
        let sql = format!(
            "SELECT {SOURCE_COLUMNS}, v.file, v.number FROM version v JOIN file f ON f.id = v.file
             WHERE v.file > ?1 AND v.file <= ?2 ORDER BY v.file, v.number DESC"
        );
        let mut query = self.db.prepare_cached(&sql)?;
        let mut rows = query.query([after, last])?;
        // A version that is the beginning of the next one is kept if that one is.
        let mut next = None;
        while let Some(row) = rows.next()? {
            let (file, number, size) = (get_u64(row, 7)?, row.get(8)?, get_u64(row, 1)?);
            let source = Source::from_row(row, 0)?;
            let kept = match source {
                Source::Prefix => next == Some((file, number)),
                Source::Continued(..) => {
                    let (_, place) = self.place((FileId(file), number), source)?;
                    !matches!(place, Source::Lost(_))
                }
                Source::Lost(_) => false,
                Source::Head | Source::Empty | Source::Object(_) | Source::Incoming(_) => true,
            };
            next = kept.then(|| (file, number.wrapping_sub(1)));
            if kept && source != Source::Head {
                sum.count += 1;
                sum.bytes += size;
            }
        }
        Ok(Some(FileId(last.cast_unsigned())))
    }
}

fn parse_survey(text: &str) -> Option<Survey> {
    let mut words = text.split(' ');
    let time_ns = words.next()?.parse().ok()?;
    let facts: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [versions, version_bytes, loose, loose_bytes, shared_bytes] = facts[..] else {
        return None;
    };
    Some(Survey {
        time_ns,
        versions: Amount { count: versions, bytes: version_bytes },
        loose: Amount { count: loose, bytes: loose_bytes },
        shared_bytes,
    })
}

/// Digest and size of an object.
fn object_from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(ContentHash, u64)> {
    let hash = get_hash(row, 0)?.ok_or(rusqlite::Error::InvalidQuery)?;
    Ok((hash, get_u64(row, 1)?))
}

#[cfg(test)]
mod tests {
    use super::super::Catalog;
    use super::super::event::{Event, Op};
    use super::*;
    use crate::types::IncomingId;

    fn hash(n: u8) -> ContentHash {
        ContentHash::new([n; 32])
    }

    /// Pushes events that are a second apart.
    fn push(catalog: &Catalog, from_s: i64, ops: impl IntoIterator<Item = Op>) {
        let events = (from_s..).zip(ops).map(|(s, op)| Event {
            time_ns: s * 1_000_000_000,
            writer: None,
            op,
        });
        catalog.push(events);
    }

    fn stored(n: u8) -> Op {
        let content = Some((hash(n), u64::from(n) * 10));
        Op::Stored { id: IncomingId(n.into()), content, original: false, prefix: None }
    }

    fn due(catalog: &Catalog) -> Vec<(u8, bool)> {
        let due = catalog.read(|reader| reader.due_objects(i64::MAX, None, 10));
        let due: Result<_, CatalogError> = due;
        due.unwrap().iter().map(|object| (object.hash.as_bytes()[0], object.packed)).collect()
    }

    fn totals(catalog: &Catalog) -> [(u64, u64); 3] {
        let totals: Result<_, CatalogError> = catalog.read(|reader| reader.object_totals());
        let ObjectTotals { loose, packed, dropped } = totals.unwrap();
        [loose, packed, dropped].map(|amount| (amount.count, amount.bytes))
    }

    #[test]
    fn objects_are_due_until_they_are_packed_or_need_not_be() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let packing = |n, packing| Op::Packing { hash: hash(n), packing };
        push(&catalog, 1, [stored(3), stored(1), stored(2)]);
        assert_eq!(due(&catalog), [(3, false), (1, false), (2, false)]);
        assert_eq!(totals(&catalog), [(3, 60), (0, 0), (0, 0)]);
        push(&catalog, 10, [packing(3, Packing::Done), packing(1, Packing::Needless)]);
        assert_eq!(due(&catalog), [(3, true), (2, false)]);
        assert_eq!(totals(&catalog), [(2, 30), (1, 30), (0, 0)]);
        push(&catalog, 20, [packing(3, Packing::Alone), packing(2, Packing::Later)]);
        assert_eq!(due(&catalog), [(2, false)]);
        // Another file with the same bytes was kept; and one that had been needless is not any more.
        push(&catalog, 30, [stored(3), packing(1, Packing::Again), packing(3, Packing::Alone)]);
        assert_eq!(due(&catalog), [(2, false), (3, false), (1, false)]);
        assert_eq!(totals(&catalog), [(3, 60), (0, 0), (0, 0)]);
        push(&catalog, 40, [packing(3, Packing::Done), Op::Dropped { hash: hash(3) }]);
        assert_eq!(totals(&catalog), [(2, 30), (0, 0), (1, 30)]);
        push(&catalog, 50, [Op::Cleaned { dropped: Amount { count: 1, bytes: 30 } }]);
        assert_eq!(totals(&catalog), [(2, 30), (0, 0), (0, 0)]);
        let all: Result<_, CatalogError> =
            catalog.read(|reader| Ok((reader.objects_after(None, 9)?, reader.survey()?)));
        assert_eq!(all.unwrap(), (vec![(hash(1), 10), (hash(2), 20)], None));
        catalog.close(0);
    }

    #[test]
    fn a_survey_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let survey = Survey {
            time_ns: 7,
            versions: Amount { count: 1, bytes: 2 },
            loose: Amount { count: 3, bytes: 4 },
            shared_bytes: 5,
        };
        push(&catalog, 1, [Op::Surveyed(survey)]);
        let found: Result<_, CatalogError> = catalog.read(|reader| reader.survey());
        assert_eq!(found.unwrap(), Some(survey));
        catalog.close(0);
    }
}
