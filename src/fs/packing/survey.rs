//! Looking through the store for what it takes.
//!
//! Owns the figures that nobody can keep up to date: what files take on the disk, how much of it is shared,
//! and what all kept versions would take without each other. They are found out now and then.

use std::os::fd::{AsFd, OwnedFd};

use super::pace::Throttle;
use crate::catalog::event::Op;
use crate::catalog::{Amount, CatalogError, ObjectTotals, Reader, Survey};
use crate::fs::Fs;
use crate::store::Store;
use crate::store::pack::{PackError, PackTotals};
use crate::sys::{Errno, extents, stat};
use crate::types::{FileId, Seq};

/// Files whose versions are added up at a time.
const FILES: u32 = 1000;

/// What the figures depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen(Seq, ObjectTotals, Option<PackTotals>);

impl Fs {
    /// Looks through the store, if anything has changed since the last time.
    pub(super) fn survey(
        &self,
        store: &Store,
        last: &mut Option<Seen>,
        throttle: &Throttle<'_>,
    ) -> Result<(), PackError> {
        let index = |error: CatalogError| PackError::Index(error.into());
        let read = |reader: &Reader| Ok((reader.seq()?, reader.object_totals()?));
        let (seq, totals) = self.catalog.read(read).map_err(index)?;
        let seen = Seen(seq, totals, store.packs().map(|packs| packs.totals()));
        if *last == Some(seen) {
            return Ok(());
        }
        let mut survey = Survey { time_ns: crate::clock::now_ns(), ..Survey::default() };
        self.look_through(store, &mut survey, throttle)?;
        let mut after = FileId(0);
        loop {
            let sum = &mut survey.versions;
            let next = self.catalog.read_committed(|reader| reader.add_kept(after, FILES, sum));
            let Some(next) = next.map_err(index)? else { break };
            after = next;
            if !throttle.keep(1) {
                return Err(PackError::Stopped);
            }
        }
        self.tell(Op::Surveyed(survey));
        *last = Some(seen);
        Ok(())
    }

    fn look_through(
        &self,
        store: &Store,
        survey: &mut Survey,
        throttle: &Throttle<'_>,
    ) -> Result<(), PackError> {
        let unreadable = |error: Errno| {
            tracing::warn!(%error, "cannot look through the store");
            PackError::Stopped
        };
        for id in store.incoming().map_err(unreadable)? {
            add(survey, store.open_incoming(id));
        }
        for first in 0..=u8::MAX {
            for (hash, _) in store.objects_beginning(first).map_err(unreadable)? {
                add(survey, store.open_object(hash));
                if !throttle.keep(1) {
                    return Err(PackError::Stopped);
                }
            }
        }
        Ok(())
    }
}

/// Adds a file, unless it has gone.
fn add(survey: &mut Survey, file: Result<OwnedFd, Errno>) {
    let Ok(file) = file else { return };
    let Ok(stat) = stat::fstat(&file) else { return };
    let Amount { count, bytes } = &mut survey.loose;
    *count += 1;
    *bytes += stat.attr.blocks * 512;
    survey.shared_bytes += extents::of(file.as_fd()).map_or(0, |found| found.shared_bytes);
}
