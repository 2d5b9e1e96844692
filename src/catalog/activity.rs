//! Who changed what, in sums.

use rusqlite::params;

use super::CatalogError;
use super::history::writer_from_row;
use super::read::Reader;
use super::rows::get_u64;
use crate::types::{FileId, Kind, Seq, Writer};

/// What somebody did to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// The file.
    pub file: FileId,
    /// What kind of thing it is.
    pub kind: Kind,
    /// Who; `None` for what was found.
    pub writer: Option<Writer>,
    /// How many changes.
    pub changes: u64,
    /// Versions that these made, and their sizes in bytes.
    pub versions: (u64, u64),
    /// The last of the changes, and its time in nanoseconds since 1970.
    pub last: (Seq, i64),
}

impl Reader {
    /// Calls `visit` with what everybody did to every file in the changes after `since` up to `until`; files come
    /// in the order of their numbers.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `visit` fails with.
    pub fn activity<E: From<CatalogError>>(
        &self,
        since: Seq,
        until: Seq,
        mut visit: impl FnMut(Activity) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = "SELECT c.file, f.kind, count(*), count(v.number), coalesce(sum(v.size), 0),
                          max(c.seq), max(c.time_ns), w.uid, w.gid, w.pid, w.comm
                   FROM change c JOIN file f ON f.id = c.file
                   LEFT JOIN version v ON v.file = c.file AND v.number = c.number AND v.seq = c.seq
                   LEFT JOIN writer w ON w.id = c.writer
                   WHERE c.seq > ?1 AND c.seq <= ?2 GROUP BY c.file, c.writer ORDER BY c.file";
        let mut query = self.db.prepare_cached(sql).map_err(CatalogError::from)?;
        let range = params![since.0.cast_signed(), until.0.cast_signed()];
        let mut rows = query.query(range).map_err(CatalogError::from)?;
        while let Some(row) = rows.next().map_err(CatalogError::from)? {
            visit(from_row(row).map_err(CatalogError::from)?)?;
        }
        Ok(())
    }
}

fn from_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Activity> {
    Ok(Activity {
        file: FileId(get_u64(row, 0)?),
        kind: Kind::from_code(row.get(1)?).unwrap_or(Kind::File),
        changes: get_u64(row, 2)?,
        versions: (get_u64(row, 3)?, get_u64(row, 4)?),
        last: (Seq(get_u64(row, 5)?), row.get(6)?),
        writer: writer_from_row(row, 7)?,
    })
}
