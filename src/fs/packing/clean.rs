//! Getting rid of what nobody needs of the packs.
//!
//! Owns when that is worth it. Packs of which nothing is needed go first, and cost nothing; then packs are
//! rewritten as far as there is room for what is needed of them.

use std::sync::atomic::Ordering;

use super::pace::Throttle;
use crate::catalog::event::Op;
use crate::catalog::{CatalogError, ObjectTotals, Reader};
use crate::causes::with_causes;
use crate::fs::Fs;
use crate::store::pack::{
    LiveSet, Maintenance, PackError, PackId, PackUsage, Verdict, choose, rewrite,
};
use crate::store::{Packs, Store};
use crate::types::ContentHash;

/// Objects that are asked for at a time.
const ROWS: u32 = 1000;
/// So many small packs are put together.
const MANY_SMALL: usize = 8;
/// Space that rewriting leaves free, in bytes.
const LEAST_LEFT: u64 = 16 << 20;

impl Fs {
    /// Whether so much of what is packed was given up that packs are worth rewriting.
    pub(super) fn wants_cleaning(&self, packs: &Packs) -> bool {
        let ObjectTotals { packed, dropped, .. } = self.object_totals();
        let policy = self.options.packing.gc_policy();
        let share = (packed.bytes + dropped.bytes).saturating_mul(policy.waste_percent) / 100;
        let is_worth_it = dropped.count > 0 && dropped.bytes >= share;
        is_worth_it || small_packs(packs, policy.small_bytes) >= MANY_SMALL
    }

    fn object_totals(&self) -> ObjectTotals {
        let totals = self.catalog.read(|reader: &Reader| reader.object_totals());
        totals.unwrap_or_else(|error: CatalogError| {
            tracing::warn!(%error, "cannot tell how much is kept");
            ObjectTotals::default()
        })
    }

    /// Gives back the space of packed objects that were given up, if they may have as much as there is too
    /// little, or all that there is to give has been given up; returns the bytes.
    ///
    /// # Errors
    /// If that is not possible now: then there is no use in giving up more.
    pub(in crate::fs) fn free_packs(&self, store: &Store) -> Result<u64, PackError> {
        let Some(packs) = store.packs() else { return Ok(0) };
        if packs.wants_recovery() {
            return Err(PackError::Stopped);
        }
        let ObjectTotals { packed, dropped, loose } = self.object_totals();
        if dropped.count == 0 {
            return Ok(0);
        }
        let all = (packed.bytes + dropped.bytes).max(1);
        let share = u128::from(packs.totals().bytes) * u128::from(dropped.bytes) / u128::from(all);
        // Pinned contents stay, however many there are.
        let more = packed.count + loose.count > 0 && self.keeper.gives.load(Ordering::Relaxed);
        if more && share < u128::from(self.lacking().unwrap_or(0)) {
            return Ok(0);
        }
        self.packing.makes_way.store(true, Ordering::Relaxed);
        let right = packs.maintain();
        self.packing.makes_way.store(false, Ordering::Relaxed);
        self.clean_packs(packs, &right, &Throttle::urgent(self))
    }

    /// Removes and rewrites packs as is worth it; returns how many bytes that has freed.
    pub(super) fn clean_packs(
        &self,
        packs: &Packs,
        right: &Maintenance<'_>,
        throttle: &Throttle<'_>,
    ) -> Result<u64, PackError> {
        let before = packs.totals().bytes;
        // What a power cut brought back must not have lost its content.
        if let Err(error) = self.catalog.sync() {
            tracing::warn!(%error, "packs are not cleaned up for now");
            return Ok(0);
        }
        let dropped = self.object_totals().dropped;
        let live = self.find_live(packs, throttle)?;
        let mut usage = Vec::new();
        for pack in packs.index().packs().map_err(PackError::Index)? {
            // Of a damaged one nobody knows.
            match packs.dir().open_pack(pack).and_then(|file| file.index()) {
                Ok(index) => usage.push(PackUsage::count(&index, &|key| live.contains(key))),
                Err(error) => tracing::warn!(%error, "a pack is not cleaned up"),
            }
            if !throttle.keep(1) {
                return Err(PackError::Stopped);
            }
        }
        let policy = self.options.packing.gc_policy();
        let verdicts = choose(&usage, &policy);
        let chosen = |wanted: fn(&Verdict) -> bool| {
            let chosen = usage.iter().zip(&verdicts).filter(move |(_, verdict)| wanted(verdict));
            chosen.map(|(usage, _)| *usage).collect::<Vec<_>>()
        };
        let dead = chosen(|verdict| *verdict == Verdict::Remove);
        let worn = chosen(|verdict| matches!(verdict, Verdict::Rewrite(_)));
        let rewrite = |packs_to: &[PackUsage]| {
            let ids: Vec<PackId> = packs_to.iter().map(|usage| usage.pack).collect();
            let (is_live, pacer) = (|key: &_| live.contains(key), |bytes| throttle.pace(bytes));
            let options = &self.options.packing.packs;
            let done = rewrite(right, packs.index(), &ids, &is_live, &pacer, options)?;
            packs.reader().forget(&done.removed);
            for (pack, error) in &done.damaged {
                tracing::error!(%pack, %error, "a damaged pack is left as it is");
            }
            Ok::<_, PackError>(())
        };
        rewrite(&dead)?;
        let needed: u64 = worn.iter().map(|usage| usage.size_bytes).sum();
        let is_done = needed == 0 || self.free_space() > needed + LEAST_LEFT;
        if is_done && !worn.is_empty() {
            rewrite(&worn)?;
        }
        if is_done {
            self.tell(Op::Cleaned { dropped });
        }
        let freed = before.saturating_sub(packs.totals().bytes);
        tracing::info!(dead = dead.len(), worn = worn.len(), freed, "cleaned up the packs");
        Ok(freed)
    }

    /// Everything that some object of the catalog needs.
    fn find_live(&self, packs: &Packs, throttle: &Throttle<'_>) -> Result<LiveSet, PackError> {
        let mut live = LiveSet::with_room(packs.totals().items);
        let mut after = None;
        loop {
            let next = self.catalog.read_committed(|reader| reader.objects_after(after, ROWS));
            let next = next.map_err(|error: CatalogError| PackError::Index(error.into()))?;
            let Some((last, _)) = next.last() else { return Ok(live) };
            after = Some(*last);
            for (object, _) in next {
                match add_needs(packs, object, &mut live) {
                    // It can be read no more, and when space is needed now, others come first.
                    Err(error @ PackError::Object { .. }) if throttle.is_urgent() => {
                        let error = with_causes(&error);
                        tracing::error!(error, "what is damaged is not kept from going");
                    }
                    result => result?,
                }
                if !throttle.keep(1) {
                    return Err(PackError::Stopped);
                }
            }
        }
    }
}

fn add_needs(packs: &Packs, object: ContentHash, live: &mut LiveSet) -> Result<(), PackError> {
    match packs.reader().recipe(object)? {
        Some(recipe) => packs.reader().needs(&recipe, &mut |key| live.insert(&key)),
        None => Ok(()),
    }
}

fn small_packs(packs: &Packs, small_bytes: u64) -> usize {
    packs.index().count_smaller(small_bytes)
}
