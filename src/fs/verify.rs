//! Verify: reading everything again, and comparing it with its digests.
//!
//! Owns a run from its start to its end, its speed and where it goes on after it was broken off. What is
//! found is told with the versions that need it and with what else has the same bytes; only
//! [`Healing::Repair`] changes anything. A file that somebody is changing is left out.
//!
//! # Order of steps
//! Packs, objects, heads, each in the order of their names. The place is told to the catalog every few
//! seconds and at the end; a crash repeats what came after the last time.

mod finding;
mod heal;
mod look;
mod snapshots;

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Fs;
use super::load::Bandwidth;
use crate::catalog::event::Op;
use crate::catalog::{CatalogError, Reader};
use crate::content::Contents;
use crate::store::pack::{Pace, PackError, PackId};
use crate::types::{ContentHash, FileId};

pub use finding::{Copy, Finding, Outcome, Subject, Trouble};

/// How often it is told how far a run is.
const TOLD: Duration = Duration::from_millis(200);
/// How often the catalog is told.
const NOTED: Duration = Duration::from_secs(5);
/// Rows asked for at a time.
const PAGE: u32 = 256;

/// How a run is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Bytes to read in a second; `None` as fast as it goes.
    pub rate: Option<std::num::NonZeroU64>,
    /// Where it begins.
    pub begin: Begin,
    /// What becomes of damage.
    pub healing: Healing,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Where the last one was broken off, if it was.
    WhereItStopped,
    /// At the beginning.
    Anew,
}

/// What becomes of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healing {
    /// It is reported.
    Report,
    /// It is undone where another copy of the same bytes is left.
    Repair,
}

/// Whether a run is to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// It is.
    On,
    /// It is not.
    Stop,
}

/// What a run tells.
#[derive(Debug)]
pub enum Told<'t> {
    /// How far it is.
    Progress(&'t Verified),
    /// Something is not as it should be.
    Found(&'t Finding),
}

/// Who is told.
pub type Report<'r> = dyn FnMut(Told<'_>) -> Go + 'r;

/// What a run goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
enum Phase {
    #[default]
    Packs,
    Objects,
    Heads,
}

/// How far a run is, with its interruptions, or how the last one ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verified {
    phase: Phase,
    /// The last name in the phase that was dealt with.
    after: String,
    /// When it began, in nanoseconds since 1970.
    pub started_ns: i64,
    /// When it ended; 0 as long as it has not.
    pub finished_ns: i64,
    /// Packs that were read.
    pub packs: u64,
    /// Objects.
    pub objects: u64,
    /// Live files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Bytes that there were to read, by the count at the start.
    pub expected_bytes: u64,
    /// Files without a digest, or in use.
    pub skipped: u64,
    /// Files that were changed around the mount.
    pub external: u64,
    /// Objects and files that are damaged or missing, and remain so.
    pub damaged: u64,
    /// Objects and files that were put right.
    pub healed: u64,
    /// Damages of packs; what that costs is counted by objects.
    pub pack_damages: u64,
}

/// Why a run ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// Another one is under way.
    #[error("another verify is under way")]
    Busy,
    /// It was not to go on.
    #[error("stopped: the next verify goes on from here")]
    Stopped,
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The packs could not be listed.
    #[error("the packs cannot be listed: {0}")]
    Packs(String),
}

/// The newest run.
#[derive(Debug, Default)]
pub(super) struct State {
    running: Mutex<()>,
    now: Mutex<Option<Verified>>,
}

impl Fs {
    /// How far the newest verify is or was, and whether it is running.
    pub fn verified(&self) -> (Option<Verified>, bool) {
        let running = self.verify.running.is_locked();
        if let Some(now) = self.verify.now.lock().clone() {
            return (Some(now), running);
        }
        let read: Result<_, CatalogError> = self.catalog.read_committed(|r| r.verified());
        (read.ok().flatten().and_then(|text| serde_json::from_str(&text).ok()), running)
    }

    /// Reads all packs, objects and heads of live files and compares them with their digests.
    ///
    /// # Errors
    /// If a run is under way, `report` says stop, or the catalog cannot be read.
    pub fn verify(
        &self,
        options: VerifyOptions,
        report: &mut Report<'_>,
    ) -> Result<Verified, VerifyError> {
        let Some(_one) = self.verify.running.try_lock() else { return Err(VerifyError::Busy) };
        let left = self.verified().0.filter(|last| last.finished_ns == 0);
        let state = match left.filter(|_| options.begin == Begin::WhereItStopped) {
            Some(left) => left,
            None => self.new_run()?,
        };
        let contents = Contents::new(self.root.clone(), self.store.clone());
        let run = Run {
            fs: self,
            options,
            contents,
            report: RefCell::new(report),
            state: RefCell::new(state),
            bandwidth: Bandwidth::new(options.rate),
            told: Cell::new(Instant::now()),
            noted: Cell::new(Instant::now()),
        };
        let result = run.go();
        if result.is_ok() {
            run.state.borrow_mut().finished_ns = crate::clock::now_ns();
        }
        run.note();
        self.catalog.barrier();
        result.map(|()| run.state.take())
    }

    fn new_run(&self) -> Result<Verified, VerifyError> {
        let expected_bytes = self.catalog.read(|reader| {
            Ok::<_, CatalogError>(reader.totals()?.object_bytes + reader.live_bytes()?)
        })?;
        let started_ns = crate::clock::now_ns();
        Ok(Verified { started_ns, expected_bytes, ..Verified::default() })
    }
}

/// One run.
struct Run<'r, 'f> {
    fs: &'r Fs,
    options: VerifyOptions,
    contents: Contents,
    report: RefCell<&'r mut Report<'f>>,
    state: RefCell<Verified>,
    bandwidth: Bandwidth,
    told: Cell<Instant>,
    noted: Cell<Instant>,
}

impl Run<'_, '_> {
    fn go(&self) -> Result<(), VerifyError> {
        self.tell()?;
        if self.state.borrow().phase == Phase::Packs {
            self.packs()?;
            self.begin(Phase::Objects);
        }
        if self.state.borrow().phase == Phase::Objects {
            self.objects()?;
            self.begin(Phase::Heads);
        }
        self.heads()
    }

    fn begin(&self, phase: Phase) {
        let mut state = self.state.borrow_mut();
        (state.phase, state.after) = (phase, String::new());
    }

    /// Notes that everything up to a name is dealt with.
    fn passed(&self, name: &impl ToString) -> Result<(), VerifyError> {
        self.state.borrow_mut().after = name.to_string();
        if self.noted.get().elapsed() > NOTED {
            self.note();
        }
        self.tick(0)
    }

    fn note(&self) {
        self.noted.set(Instant::now());
        let state = self.state.borrow().clone();
        if let Ok(text) = serde_json::to_string(&state) {
            self.fs.push(None, Op::Verified { state: text.into() });
        }
        *self.fs.verify.now.lock() = Some(state);
    }

    fn tell(&self) -> Result<(), VerifyError> {
        self.told.set(Instant::now());
        let state = self.state.borrow().clone();
        *self.fs.verify.now.lock() = Some(state.clone());
        self.report(Told::Progress(&state))
    }

    fn report(&self, told: Told<'_>) -> Result<(), VerifyError> {
        let go = (self.report.borrow_mut())(told);
        let stops = go == Go::Stop || self.fs.hashers.is_stopping();
        if stops { Err(VerifyError::Stopped) } else { Ok(()) }
    }

    /// Counts bytes, and waits as the bandwidth wants it.
    fn tick(&self, bytes: u64) -> Result<(), VerifyError> {
        self.bandwidth.count(bytes);
        self.state.borrow_mut().bytes += bytes;
        loop {
            if self.told.get().elapsed() > TOLD {
                self.tell()?;
            }
            let wait = self.bandwidth.early();
            if wait.is_zero() {
                return Ok(());
            }
            std::thread::sleep(wait.min(TOLD));
        }
    }

    fn ask<T>(
        &self,
        query: impl FnOnce(&Reader) -> Result<T, CatalogError>,
    ) -> Result<T, VerifyError> {
        Ok(self.fs.catalog.read_committed(query)?)
    }

    fn packs(&self) -> Result<(), VerifyError> {
        let Some(packs) = self.fs.store.as_ref().and_then(|store| store.packs()) else {
            return Ok(());
        };
        let after: Option<ContentHash> = self.state.borrow().after.parse().ok();
        let list = || {
            let mut all = packs.dir().list()?;
            all.extend(packs.index().packs().map_err(PackError::Index)?);
            Ok::<_, PackError>(all)
        };
        let mut all = list().map_err(|error| VerifyError::Packs(error.to_string()))?;
        all.sort_unstable();
        all.dedup();
        for pack in all.into_iter().filter(|pack| after.is_none_or(|after| pack.0 > after)) {
            for error in self.check_pack(pack)? {
                if packs.index().packs().is_ok_and(|known| !known.contains(&pack)) {
                    // It was cleaned up meanwhile.
                    break;
                }
                self.found_pack(pack, &error)?;
            }
            self.state.borrow_mut().packs += 1;
            self.passed(&pack)?;
        }
        Ok(())
    }

    fn check_pack(&self, pack: PackId) -> Result<Vec<PackError>, VerifyError> {
        let Some(packs) = self.fs.store.as_ref().and_then(|store| store.packs()) else {
            return Ok(Vec::new());
        };
        let stopped = RefCell::new(Ok(()));
        let pace = |bytes| match self.tick(bytes) {
            Ok(()) => Pace::Go,
            Err(error) => {
                *stopped.borrow_mut() = Err(error);
                Pace::Stop
            }
        };
        let checked = packs.dir().open_pack(pack).and_then(|pack| pack.check(&pace));
        stopped.into_inner()?;
        Ok(match checked {
            Ok(damages) => damages.into_iter().map(|damage| damage.error).collect(),
            Err(error) => vec![error],
        })
    }

    fn objects(&self) -> Result<(), VerifyError> {
        let Some(store) = &self.fs.store else { return Ok(()) };
        loop {
            let after = self.state.borrow().after.parse().ok();
            let page = self.ask(|reader| reader.objects_after(after, PAGE))?;
            if page.is_empty() {
                return Ok(());
            }
            for (hash, size) in page {
                if let Some((trouble, detail)) = self.look_at_object(store, hash, size)? {
                    self.found_object(store, (hash, size), trouble, detail)?;
                }
                self.state.borrow_mut().objects += 1;
                self.passed(&hash)?;
            }
        }
    }

    fn heads(&self) -> Result<(), VerifyError> {
        loop {
            let after = FileId(self.state.borrow().after.parse().unwrap_or(0));
            let page = self.ask(|reader| reader.heads_after(after, PAGE))?;
            if page.is_empty() {
                return Ok(());
            }
            for head in page {
                self.look_at_head(&head)?;
                self.passed(&head.version.0.0)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_of_a_run_is_understood_by_the_next() {
        let state = Verified { phase: Phase::Heads, after: "7".into(), ..Verified::default() };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Verified>(&text).unwrap(), state);
    }
}
