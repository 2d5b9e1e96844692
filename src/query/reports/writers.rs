//! Who wrote the most.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::{Activity, CatalogError, Reader};
use crate::query::access::Guard;
use crate::query::records::Users;
use crate::query::{Query, QueryError};
use crate::timespec::rfc3339;
use crate::types::path::is_below;
use crate::types::{FileId, Seq};

/// What a program of a user did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopWriterRecord {
    /// The user; null for what nobody did through the mount.
    pub uid: Option<u32>,
    /// Its name, where this machine has one.
    pub user: Option<String>,
    /// The program, as the kernel names it: 15 bytes at most; empty where nobody knows.
    pub comm: String,
    /// Files that it changed.
    pub files: u64,
    /// Changes that it made.
    pub changes: u64,
    /// Versions that it made.
    pub versions: u64,
    /// The sizes of these versions in bytes.
    pub bytes: u64,
    /// When it changed something last.
    pub last: String,
}

/// What was added up of one of them.
#[derive(Debug, Default)]
struct Sums {
    files: u64,
    last_file: Option<FileId>,
    changes: u64,
    versions: u64,
    bytes: u64,
    last_ns: i64,
}

impl Sums {
    fn add(&mut self, activity: &Activity) {
        // Several processes of a program are one; the files come in order.
        if self.last_file.replace(activity.file) != Some(activity.file) {
            self.files += 1;
        }
        self.changes += activity.changes;
        self.versions += activity.versions.0;
        self.bytes += activity.versions.1;
        self.last_ns = self.last_ns.max(activity.last.1);
    }
}

impl Query<'_, '_> {
    /// Who wrote the most bytes since a time to what is, or was last, at and below a path: `limit` at most.
    pub(in crate::query) fn writers(
        &mut self,
        path: &[u8],
        since_ns: Option<i64>,
        limit: usize,
    ) -> Result<(), QueryError> {
        let since = match since_ns {
            None => Seq(0),
            Some(ns) => self.reader.seq_at(ns)?.unwrap_or_default(),
        };
        let until = self.reader.seq()?;
        let everything = path.is_empty() && self.guard.sees_everything();
        let mut sums: HashMap<(Option<u32>, Vec<u8>), Sums> = HashMap::new();
        let (reader, guard) = (self.reader, &mut *self.guard);
        reader.activity(since, until, |activity| {
            if everything || counts(guard, reader, path, &activity)? {
                let writer = activity.writer.as_ref();
                let comm = writer.map_or_else(Vec::new, |writer| writer.comm.to_vec());
                let who = (writer.map(|writer| writer.uid), comm);
                sums.entry(who).or_default().add(&activity);
            }
            Ok::<_, QueryError>(())
        })?;
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by(|(a, x), (b, y)| {
            y.bytes.cmp(&x.bytes).then(y.changes.cmp(&x.changes)).then(a.cmp(b))
        });
        let users = Users::read();
        for ((uid, comm), sums) in sums.into_iter().take(limit) {
            self.answer.record(&TopWriterRecord {
                uid,
                user: uid.and_then(|uid| users.name_of(uid)),
                comm: String::from_utf8_lossy(&comm).into_owned(),
                files: sums.files,
                changes: sums.changes,
                versions: sums.versions,
                bytes: sums.bytes,
                last: rfc3339(sums.last_ns),
            })?;
        }
        Ok(())
    }
}

/// Whether something was at or below a path when somebody changed it last, and the asker may see that.
fn counts(
    guard: &mut Guard,
    reader: &Reader,
    path: &[u8],
    activity: &Activity,
) -> Result<bool, CatalogError> {
    let (seq, _) = activity.last;
    let before = Seq(seq.0.saturating_sub(1));
    let place = match reader.path_of(activity.file, seq)? {
        None => reader.path_of(activity.file, before)?,
        place => place,
    };
    match place.filter(|place| is_below(place, path)) {
        Some(place) => guard.name_at(reader, &place, seq),
        None => Ok(false),
    }
}
