//! Pruning history as the policy says, and what people say of versions and files.
//!
//! Owns the run: plan in one state of the catalog, check the cap, and then give contents up, a few at a
//! time. A run that is broken off, by a crash or in order, has given up some
//! of what it was to give up; the next run goes on. The steps for each content are the keeper's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::tz::TimeZone;

use super::Fs;
use super::keeper::{GiveUpError, Untold};
use crate::catalog::event::{Op, Pin};
use crate::catalog::{
    CatalogError, CollectionChange, FileHistory, LabelChange, LastPrune, Reader, Source, VersionKey,
};
use crate::pruning::{Judge, Plan, Scope, Step, Verdict};
use crate::retention::CapError;
use crate::types::{FileId, InodeKey, Loss, Writer};

/// Contents given up before anybody else may come in between.
const AT_ONCE: usize = 64;

/// Gets the decisions about one file: its path, its history, and the decisions, newest first.
pub type Report<'r> = dyn FnMut(&[u8], &FileHistory, &[Verdict]) -> io::Result<()> + 'r;

/// What a prune is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneOrder {
    /// Where.
    pub scope: Scope,
    /// What for.
    pub aim: Aim,
    /// How much of it at most.
    pub cut: Cut,
}

/// What a prune is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// To see what would go.
    Show,
    /// To have it go.
    Drop,
}

/// How much a prune may drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// What the policy's cap allows.
    Capped,
    /// All that the policy drops.
    Any,
}

/// What a prune has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneOutcome {
    /// The plan.
    pub plan: Plan,
    /// Bytes of the contents that went; for a plan alone, of those that would.
    pub freed_bytes: u64,
    /// Why the cap does not let it go on.
    pub refused: Option<CapError>,
}

/// Why history was not pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Nothing is kept here.
    #[error("nothing is kept here: the mount has `keep=none`, or no store")]
    NothingKept,
    /// Another one is under way.
    #[error("another prune is under way")]
    Busy,
    /// The daemon stops, or whoever asked went away.
    #[error("broken off")]
    Stopped,
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Something could not go.
    #[error(transparent)]
    GiveUp(#[from] GiveUpError),
}

/// What somebody wants of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// That its content stays.
    Pin,
    /// That it need not stay any more.
    Unpin,
    /// That this is said of it; nothing takes back what was said.
    Note(Box<str>),
}

/// Why a version was not marked.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// There is nothing to keep.
    #[error("the content of this version was not kept: {0}")]
    Lost(Loss),
    /// The catalog cannot be read or written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Fs {
    /// Decides about the history of all files, and gives up what is to go.
    ///
    /// `report` gets every decision, file by file, before anything goes; what it fails with breaks the run
    /// off.
    ///
    /// # Errors
    /// If it cannot be planned, or not be done to the end.
    pub fn prune(
        &self,
        order: &PruneOrder,
        report: &mut Report<'_>,
    ) -> Result<PruneOutcome, PruneError> {
        let _alone = self.keeper.pruning.try_lock().ok_or(PruneError::Busy)?;
        let result = self.prune_alone(order, report);
        if order.aim == Aim::Drop && order.scope == Scope::Everything {
            self.remember(&result);
        }
        result
    }

    fn prune_alone(
        &self,
        order: &PruneOrder,
        report: &mut Report<'_>,
    ) -> Result<PruneOutcome, PruneError> {
        let store = self.keeping().ok_or(PruneError::NothingKept)?;
        let _planning = self.keeper.plan();
        let now_ns = crate::clock::now_ns();
        let judge = Judge::new(&self.options.retention, now_ns, TimeZone::system());
        let plan = self.catalog.read(|reader: &Reader| {
            reader.in_one_state(|reader| {
                judge.plan(reader, &order.scope, |step| {
                    if self.keeper.stops_pruning.load(Ordering::Relaxed) {
                        return Err(PruneError::Stopped);
                    }
                    match step {
                        Step::Looked => Ok(()),
                        Step::Decided(path, history, verdicts) => {
                            report(path, history, verdicts).map_err(|_| PruneError::Stopped)
                        }
                    }
                })
            })
        })?;
        let refused = match order.cut {
            Cut::Capped => self.options.retention.cap.check(&plan.tally).err(),
            Cut::Any => None,
        };
        let mut outcome = PruneOutcome { freed_bytes: plan.bytes(), plan, refused };
        if order.aim == Aim::Show || outcome.refused.is_some() {
            return Ok(outcome);
        }
        outcome.freed_bytes = 0;
        for batch in outcome.plan.contents.chunks(AT_ONCE) {
            if self.keeper.stops_pruning.load(Ordering::Relaxed) {
                return Err(PruneError::Stopped);
            }
            let contents = batch.iter().map(|(hash, _)| *hash);
            let gone = self.give_up(store, contents, Untold::Stays)?;
            let went = batch.iter().filter(|(hash, _)| gone.contains(hash));
            outcome.freed_bytes += went.map(|(_, size)| size).sum::<u64>();
        }
        Ok(outcome)
    }

    /// Has a prune that is under way, and any that is to come, break off.
    pub fn stop_prune(&self) {
        self.keeper.stops_pruning.store(true, Ordering::Relaxed);
    }

    fn remember(&self, result: &Result<PruneOutcome, PruneError>) {
        let time_ns = crate::clock::now_ns();
        let (dropped, freed_bytes, error) = match result {
            Ok(PruneOutcome { refused: Some(cap), .. }) => (0, 0, Some(cap.to_string())),
            Ok(done) => (done.plan.tally.dropped, done.freed_bytes, None),
            Err(PruneError::Stopped | PruneError::NothingKept) => return,
            Err(error) => (0, 0, Some(error.to_string())),
        };
        let outcome = LastPrune { time_ns, dropped, freed_bytes, error };
        self.push(None, Op::Pruned { outcome });
    }

    /// Marks a version, for somebody who may.
    ///
    /// # Errors
    /// If there is nothing to keep, or the catalog cannot be read.
    pub fn mark(&self, version: VersionKey, mark: Mark, by: Writer) -> Result<(), MarkError> {
        let by = Some(Arc::new(by));
        match mark {
            Mark::Note(text) => self.push(by, Op::Note { version, text }),
            Mark::Unpin => {
                self.push(by, Op::Pin { version, pin: Pin::Cleared });
                self.keeper.gives.store(true, Ordering::Relaxed);
            }
            Mark::Pin => {
                self.keeper.has_pins.store(true, Ordering::Relaxed);
                self.push(by.clone(), Op::Pin { version, pin: Pin::Set });
                // A plan that was made before has not seen the pin. Either it finds the content spared, or
                // it has given it up by now.
                if let Source::Object(hash) = self.place_of(version)? {
                    self.keeper.spare(hash);
                }
                if let Source::Lost(loss) = self.place_of(version)? {
                    self.push(by, Op::Pin { version, pin: Pin::Cleared });
                    return Err(MarkError::Lost(loss));
                }
            }
        }
        self.catalog.barrier();
        Ok(())
    }

    /// Says something of a file, for somebody who may.
    pub fn label(&self, file: FileId, change: LabelChange, by: Writer) {
        self.push(Some(Arc::new(by)), Op::Label { file, change });
        self.catalog.barrier();
    }

    /// Changes a collection, for somebody who may.
    pub fn collect(&self, name: &str, change: CollectionChange, by: Writer) {
        self.push(Some(Arc::new(by)), Op::Collect { name: name.into(), change });
        self.catalog.barrier();
    }

    /// Where the bytes of a version are, as everything pushed so far has it.
    fn place_of(&self, version: VersionKey) -> Result<Source, CatalogError> {
        self.catalog.read(|reader| {
            let found = reader.bytes_of(version)?;
            Ok(found.map_or(Source::Lost(Loss::Unseen), |(_, source)| source))
        })
    }

    /// Whether somebody wants the newest version of a live file to stay, or one that is its beginning or
    /// went on as it.
    pub(super) fn has_pinned_head(&self, key: InodeKey) -> bool {
        let pinned = |reader: &Reader| {
            let Some(node) = reader.by_inode(key)? else { return Ok(false) };
            for pin in reader.pins()? {
                if reader.bytes_of(pin)?.is_some_and(|(at, _)| at == (node.id, node.version)) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        self.keeper.has_pins.load(Ordering::Relaxed)
            && self.catalog.read_committed::<_, CatalogError>(pinned).unwrap_or(false)
    }
}
