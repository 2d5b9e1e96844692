//! Getting rid of what nobody needs any more.
//!
//! Owns two things: the decision which packs are worth rewriting, which is a pure function, and the
//! rewriting. Who still needs what is the caller's knowledge.
//!
//! The order of durable steps: the new packs are written, synced and named; one change of the index makes
//! them known and the old ones unknown; then the old ones are removed. A crash before that change leaves
//! new packs that the index does not know, one behind it old packs that it does not know any more. Either
//! way [`recover`](super::recover()) removes those of which every item is known elsewhere, and makes known
//! those that have more: the next round gets rid of it.

use std::collections::HashSet;

use super::coding::Decoder;
use super::dir::{Maintenance, Step};
use super::error::{Fault, PackError};
use super::file::PackFile;
use super::frame;
use super::index::ChunkIndex;
use super::pace::{self, Pacer};
use super::packer::PackOptions;
use super::types::{Entry, Key, PackId, PackIndex};
use super::writer::PackWriter;

/// How much of a pack is still needed, in bytes before compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUsage {
    /// Which pack.
    pub pack: PackId,
    /// Its size on disk.
    pub size_bytes: u64,
    /// Everything in it.
    pub total_bytes: u64,
    /// What of that somebody needs.
    pub live_bytes: u64,
}

impl PackUsage {
    /// Counts what is needed of a pack.
    pub fn count(index: &PackIndex, live: &dyn Fn(&Key) -> bool) -> Self {
        let length = |entry: &Entry| u64::from(entry.place.length);
        let needed = index.entries.iter().filter(|entry| live(&entry.key));
        Self {
            pack: index.pack,
            size_bytes: index.size_bytes,
            total_bytes: index.entries.iter().map(length).sum(),
            live_bytes: needed.map(length).sum(),
        }
    }

    fn dead_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.live_bytes)
    }

    /// What rewriting it would free on disk, about.
    fn waste_bytes(&self) -> u64 {
        match self.total_bytes {
            0 => self.size_bytes,
            total => share(self.size_bytes, self.dead_bytes(), total),
        }
    }
}

/// What is tolerated, and what one round may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcPolicy {
    /// So much of all packs may be waste before anything is rewritten for it.
    pub waste_percent: u64,
    /// So many bytes may be rewritten in one round.
    pub rewrite_bytes: u64,
    /// Packs smaller than this are put together where there are at least two of them, in bytes.
    pub small_bytes: u64,
}

impl Default for GcPolicy {
    /// A twentieth of waste and a gibibyte of work.
    fn default() -> Self {
        Self { waste_percent: 5, rewrite_bytes: 1 << 30, small_bytes: 16 << 20 }
    }
}

/// What is to be done with a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody needs anything in it: it goes.
    Remove,
    /// What is needed of it goes to another pack.
    Rewrite(Why),
    /// It stays as it is.
    Keep(WhyNot),
}

/// Why a pack is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Too much of all packs is waste, and no pack that stays has a larger share of it.
    Waste,
    /// It is small, and so are others.
    Small,
}

/// Why a pack stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// All of it is needed.
    Needed,
    /// Its waste is tolerated.
    Tolerated,
    /// It would have been too much work for one round.
    Later,
}

/// Decides for each pack, in the order given, what to do with it.
pub fn choose(packs: &[PackUsage], policy: &GcPolicy) -> Vec<Verdict> {
    let kept = || packs.iter().filter(|pack| pack.live_bytes > 0);
    let mut waste: u64 = kept().map(PackUsage::waste_bytes).sum();
    let tolerated = share(kept().map(|pack| pack.size_bytes).sum(), policy.waste_percent, 100);
    let is_small = |pack: &PackUsage| pack.live_bytes > 0 && pack.size_bytes < policy.small_bytes;
    let several_small = packs.iter().filter(|pack| is_small(pack)).count() > 1;

    let mut worst_first: Vec<usize> = (0..packs.len()).collect();
    worst_first.sort_by_key(|n| {
        let pack = &packs[*n];
        std::cmp::Reverse(share(1 << 20, pack.dead_bytes(), pack.total_bytes.max(1)))
    });
    let mut budget = policy.rewrite_bytes;
    let mut verdicts = vec![Verdict::Remove; packs.len()];
    for n in worst_first {
        let pack = &packs[n];
        let why = if pack.dead_bytes() > 0 && waste > tolerated {
            Some(Why::Waste)
        } else {
            (several_small && is_small(pack)).then_some(Why::Small)
        };
        verdicts[n] = match why {
            _ if pack.live_bytes == 0 => Verdict::Remove,
            Some(_) if pack.size_bytes > budget => Verdict::Keep(WhyNot::Later),
            Some(why) => {
                budget -= pack.size_bytes;
                waste = waste.saturating_sub(pack.waste_bytes());
                Verdict::Rewrite(why)
            }
            None if pack.dead_bytes() == 0 => Verdict::Keep(WhyNot::Needed),
            None => Verdict::Keep(WhyNot::Tolerated),
        };
    }
    verdicts
}

/// `part / whole` of `of`.
fn share(of: u64, part: u64, whole: u64) -> u64 {
    let share = u128::from(of) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// What [`rewrite`] has done.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// Packs that were written.
    pub added: Vec<PackId>,
    /// Their bytes.
    pub added_bytes: u64,
    /// Packs that are gone.
    pub removed: Vec<PackId>,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Packs that were left alone because part of them is damaged.
    pub damaged: Vec<(PackId, PackError)>,
}

/// Copies what is `live` of some packs to new packs made as `options` say, and removes the old ones.
///
/// `live` must have been found out while `right` was held. A damaged pack is left alone: cleaning up
/// must not destroy what somebody may still want to rescue. Keeps the indices of these packs in memory.
///
/// # Errors
/// The filesystem's, the index's, [`PackError::Stopped`]. Nothing is lost, and nothing known has changed
/// unless the index has taken the change.
pub fn rewrite(
    right: &Maintenance<'_>,
    index: &dyn ChunkIndex,
    packs: &[PackId],
    live: &dyn Fn(&Key) -> bool,
    pacer: &Pacer<'_>,
    options: &PackOptions,
) -> Result<Rewritten, PackError> {
    let mut done = Rewritten::default();
    let mut copier = Copier {
        right,
        index,
        pacer,
        options: *options,
        decoder: Decoder::new().map_err(PackError::Compress)?,
        old: packs.iter().copied().collect(),
        seen: HashSet::new(),
        writer: None,
        finished: Vec::new(),
    };
    for pack in packs {
        match copier.check(*pack, live) {
            Ok((file, wanted)) => {
                copier.copy(&file, &wanted)?;
                done.removed.push(*pack);
                done.removed_bytes += file.size_bytes();
            }
            Err(error @ (PackError::Io { .. } | PackError::Index(_) | PackError::Stopped)) => {
                return Err(error);
            }
            Err(error) => {
                // What was to come from here is no longer elsewhere by rewriting the others.
                copier.old.remove(pack);
                done.damaged.push((*pack, error));
            }
        }
    }
    copier.finish_pack()?;
    let added = copier.finished;
    // The same bytes have the same name: what came out as it was stays.
    done.removed.retain(|pack| added.iter().all(|index| index.pack != *pack));
    index.replace(&added, &done.removed).map_err(PackError::Index)?;
    right.dir.passed(Step::Published)?;
    for pack in &done.removed {
        right.dir.remove(*pack)?;
    }
    done.added = added.iter().map(|index| index.pack).collect();
    done.added_bytes = added.iter().map(|index| index.size_bytes).sum();
    Ok(done)
}

/// The frames of a pack with what is wanted of each.
type Wanted = Vec<(Vec<Entry>, Vec<Entry>)>;

struct Copier<'a> {
    right: &'a Maintenance<'a>,
    index: &'a dyn ChunkIndex,
    pacer: &'a Pacer<'a>,
    options: PackOptions,
    decoder: Decoder,
    old: HashSet<PackId>,
    seen: HashSet<Key>,
    writer: Option<PackWriter<'a>>,
    finished: Vec<PackIndex>,
}

impl Copier<'_> {
    /// Finds out what is wanted of a pack, and that it can be read.
    fn check(
        &mut self,
        pack: PackId,
        live: &dyn Fn(&Key) -> bool,
    ) -> Result<(PackFile, Wanted), PackError> {
        let file = self.right.dir.open_pack(pack)?;
        let index = file.index()?;
        let mut wanted = Wanted::new();
        for items in index.entries.chunk_by(|a, b| a.place.frame == b.place.frame) {
            let mut some = Vec::new();
            for entry in items.iter().filter(|entry| live(&entry.key)) {
                if !self.is_elsewhere(entry)? {
                    some.push(*entry);
                }
            }
            if let Some(entry) = some.first() {
                file.frame(&entry.place, &mut self.decoder).and_then(|frame| {
                    let sound = |entry: &Entry| {
                        let item = frame.item(entry.place.start, entry.place.length);
                        item.and_then(|item| frame::name(frame.sort, item)) == Some(entry.key)
                    };
                    match some.iter().find(|entry| !sound(entry)) {
                        Some(entry) => {
                            let fault = Fault::Chunk(entry.key.hash);
                            Err(file.damaged(u64::from(entry.place.frame), fault))
                        }
                        None => Ok(()),
                    }
                })?;
                wanted.push((some, items.to_vec()));
            }
            pace::keep(self.pacer, u64::from(items[0].place.frame_bytes))?;
        }
        Ok((file, wanted))
    }

    /// Whether an item has another place that stays.
    fn is_elsewhere(&self, entry: &Entry) -> Result<bool, PackError> {
        let place = self.index.find(&entry.key).map_err(PackError::Index)?;
        Ok(place.is_some_and(|place| !self.old.contains(&place.pack)))
    }

    fn copy(&mut self, file: &PackFile, wanted: &Wanted) -> Result<(), PackError> {
        for (some, all) in wanted {
            let is_new = some.iter().all(|entry| !self.seen.contains(&entry.key));
            let plain: usize = all.iter().map(|entry| entry.place.length as usize).sum();
            self.seen.extend(some.iter().map(|entry| entry.key));
            let place = &some[0].place;
            let mut writer = match self.writer.take() {
                Some(writer) => writer,
                None => PackWriter::create(self.right.dir, self.options.frame_bytes)?,
            };
            if is_new && some.len() == all.len() && plain >= self.options.frame_bytes / 2 {
                writer.add_frame(&file.frame_bytes(place)?, some)?;
            } else {
                let frame = file.frame(place, &mut self.decoder)?;
                for entry in some {
                    let item = frame.item(entry.place.start, entry.place.length);
                    let item = item.ok_or_else(|| {
                        file.damaged(u64::from(entry.place.frame), Fault::Inconsistent)
                    })?;
                    writer.add(entry.key, item)?;
                }
            }
            let full = writer.size_bytes() >= self.options.limit_bytes;
            self.writer = Some(writer);
            if full {
                self.finish_pack()?;
            }
            pace::keep(self.pacer, u64::from(place.frame_bytes))?;
        }
        Ok(())
    }

    fn finish_pack(&mut self) -> Result<(), PackError> {
        if let Some(writer) = self.writer.take() {
            self.finished.push(writer.finish()?);
        }
        Ok(())
    }
}
