//! Making room when space runs low.
//!
//! Owns the order in which history goes then: first what the policy would drop anyway, in the whole
//! store, and then the rest, what stopped being current longest ago before what is younger. Pinned
//! contents never go. It works page by page along the age of what is stored, with a cursor; where
//! somebody is waiting for room already, the oldest go at once, in each page what the policy drops first.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

use super::Fs;
use super::keeper::Untold;
use crate::catalog::{CatalogError, Reader, StoredContent};
use crate::pruning::Judge;
use crate::store::Store;
use crate::store::pack::PackError;

/// Contents looked at together.
const PAGE: usize = 512;
/// How long what was found to be wanted by the policy is taken to be.
const SWEPT: Duration = Duration::from_secs(3600);

/// How far making room has come.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    pass: Pass,
    /// Where to go on.
    after: Option<StoredContent>,
    /// When the whole store was last gone through for what the policy drops.
    swept: Option<Instant>,
}

/// What goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pass {
    /// What the policy drops.
    #[default]
    Unwanted,
    /// The oldest.
    Oldest,
}

impl Pressure {
    fn begin(&mut self, pass: Pass) {
        (self.pass, self.after) = (pass, None);
    }
}

impl Fs {
    /// Gives up history while there is little space.
    pub(super) fn make_room(&self, store: &Store) {
        self.tell_untold();
        let mut gone = 0;
        while !self.hashers.is_stopping() {
            let Some(lacking) = self.lacking() else { break };
            if lacking == 0 {
                self.keeper.is_urgent.store(false, Ordering::Relaxed);
                self.keeper.pressure.lock().begin(Pass::Unwanted);
                break;
            }
            // What was given up and was packed takes space still.
            match self.free_packs(store) {
                Ok(0) => {}
                Ok(_) => continue,
                Err(PackError::Stopped) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot give back the space of what was packed");
                    break;
                }
            }
            if !self.keeper.gives.load(Ordering::Relaxed) {
                break;
            }
            match self.give_some(store, lacking) {
                Ok(Some(bytes)) => {
                    gone += bytes;
                    self.wait_for_blocks(lacking, bytes);
                }
                Ok(None) => self.keeper.gives.store(false, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(error, "cannot make room");
                    break;
                }
            }
        }
        if gone > 0 {
            tracing::info!(bytes = gone, "the disk is nearly full: gave up history");
        }
    }

    /// Looks at one page, and gives up of it what must go; returns the bytes, or nothing at the end.
    fn give_some(&self, store: &Store, lacking: u64) -> Result<Option<u64>, String> {
        let _planning = self.keeper.plan();
        let mut pressure = self.keeper.pressure.lock();
        let is_swept = pressure.swept.is_some_and(|swept| swept.elapsed() < SWEPT);
        if pressure.pass == Pass::Unwanted
            && (is_swept || self.keeper.is_urgent.load(Ordering::Relaxed))
        {
            pressure.begin(Pass::Oldest);
        }
        let now_ns = crate::clock::now_ns();
        let judge = Judge::new(&self.options.retention, now_ns, TimeZone::system());
        let looked = self.catalog.read(|reader: &Reader| {
            let page = reader.contents_by_age(pressure.after.as_ref(), PAGE)?;
            let candidates = judge.candidates(reader, &page)?;
            Ok::<_, CatalogError>((page, candidates))
        });
        let (page, candidates) = looked.map_err(|error| error.to_string())?;
        let Some(last) = page.last().copied() else {
            if pressure.pass == Pass::Oldest {
                pressure.begin(Pass::Unwanted);
                return Ok(None);
            }
            pressure.swept = Some(Instant::now());
            pressure.begin(Pass::Oldest);
            return Ok(Some(0));
        };
        let mut bytes = 0_u64;
        let mut going = Vec::new();
        for candidate in candidates {
            if bytes >= lacking || (pressure.pass == Pass::Unwanted && candidate.is_wanted) {
                break;
            }
            bytes = bytes.saturating_add(candidate.item.size_bytes);
            going.push(candidate.key);
        }
        if bytes < lacking {
            pressure.after = Some(last);
        }
        self.give_up(store, going, Untold::Goes).map_err(|error| error.to_string())?;
        Ok(Some(bytes))
    }

    /// Some filesystems free blocks only with their next commit.
    fn wait_for_blocks(&self, lacking: u64, given_up: u64) {
        let still = lacking.saturating_sub(given_up / 2);
        if given_up > 0 && self.lacking().is_some_and(|lacking| lacking > still) {
            let _ = rustix::fs::syncfs(&*self.root);
        }
    }
}
