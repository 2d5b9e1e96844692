//! The index beside a catalog that is written to.
//!
//! Owns the way from committed changes to the index. It is built by a thread of its own, page by page, while
//! the writer goes on; what the writer commits meanwhile is put down and applied afterwards. That a page
//! may have it already does no harm, since the last change of a name decides. Until it is built, and while
//! it is built anew after a trouble, there is none, and whoever searches reads the catalog.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::super::{CatalogError, Reader};
use super::{FoundName, NameChange, NameIndex, NameSearch};

/// Changes that are applied before readers have their turn: some tenths of a millisecond.
const SLICE: usize = 512;
/// Changes put down up to which the build goes on; beyond, it begins again.
const PUT_DOWN: usize = 2_000_000;
/// How long after a failed build the next one begins.
const AGAIN: Duration = Duration::from_secs(2);

/// Figures of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameStats {
    /// Live names.
    pub names: u64,
    /// Memory in bytes.
    pub bytes: u64,
    /// Names put or taken away since it was begun.
    pub changed: u64,
}

#[derive(Debug)]
enum State {
    /// None yet; what was committed since its build began.
    Building(Vec<NameChange>),
    Ready(Box<NameIndex>),
}

#[derive(Debug, Default)]
struct Wish {
    build: bool,
    stop: bool,
}

/// The index of a catalog that is open for writing.
#[derive(Debug)]
pub struct LiveNames {
    /// Taken after `wish`.
    state: RwLock<State>,
    wish: Mutex<Wish>,
    changed: Condvar,
}

impl LiveNames {
    /// One that is not built yet. What is committed from now on will be in it.
    pub(in crate::catalog) fn new() -> Self {
        Self {
            state: RwLock::new(State::Building(Vec::new())),
            wish: Mutex::new(Wish { build: true, stop: false }),
            changed: Condvar::new(),
        }
    }

    /// Starts the thread that builds it from the database at `path`.
    pub(in crate::catalog) fn start(
        self: &Arc<Self>,
        path: &Path,
    ) -> Result<JoinHandle<()>, CatalogError> {
        let (this, path) = (Arc::clone(self), path.to_path_buf());
        std::thread::Builder::new()
            .name("names".into())
            .spawn(move || this.run(&path))
            .map_err(CatalogError::Thread)
    }

    /// Has the thread end.
    pub(in crate::catalog) fn stop(&self) {
        self.wish.lock().stop = true;
        self.changed.notify_all();
    }

    /// Takes over what a batch did, once it is committed.
    pub(in crate::catalog) fn committed(&self, changes: Vec<NameChange>) {
        let mut rest = changes.into_iter().peekable();
        while rest.peek().is_some() {
            let mut state = self.state.write();
            for (count, change) in (1..).zip(rest.by_ref()) {
                // Never between the halves of a rename, when the name would be in neither place.
                let is_whole = matches!(change, NameChange::Whole);
                match &mut *state {
                    State::Building(put_down) => put_down.push(change),
                    State::Ready(index) => index.apply(&change),
                }
                if is_whole && count >= SLICE {
                    break;
                }
            }
        }
    }

    /// Throws the index away and has it built again, after a trouble of the catalog.
    pub(in crate::catalog) fn rebuild(&self) {
        let mut wish = self.wish.lock();
        wish.build = true;
        let old = std::mem::replace(&mut *self.state.write(), State::Building(Vec::new()));
        drop(wish);
        self.changed.notify_all();
        drop(old);
    }

    fn run(&self, path: &Path) {
        loop {
            {
                let mut wish = self.wish.lock();
                while !wish.build && !wish.stop {
                    self.changed.wait(&mut wish);
                }
                if wish.stop {
                    return;
                }
                wish.build = false;
            }
            let began = Instant::now();
            match self.build(path) {
                Ok(Some(index)) => {
                    let names = index.len();
                    if self.finish(index) {
                        let duration_ms = began.elapsed().as_millis();
                        tracing::debug!(names, duration_ms, "names are ready to be searched");
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "names cannot be read for searches, which take longer");
                    let mut wish = self.wish.lock();
                    wish.build = true;
                    if !wish.stop {
                        self.changed.wait_for(&mut wish, AGAIN);
                    }
                }
            }
        }
    }

    /// Reads every name; `None` if it is not wanted any more.
    fn build(&self, path: &Path) -> Result<Option<NameIndex>, CatalogError> {
        let overrun = matches!(&*self.state.read(), State::Building(put) if put.len() > PUT_DOWN);
        if overrun {
            *self.state.write() = State::Building(Vec::new());
        }
        let reader = Reader::open(path)?;
        let mut index = NameIndex::default();
        let mut after = None;
        loop {
            after = reader.name_page(after, &mut index)?;
            let wish = self.wish.lock();
            if wish.stop || wish.build {
                return Ok(None);
            }
            drop(wish);
            let put_down = matches!(&*self.state.read(), State::Building(p) if p.len() > PUT_DOWN);
            if put_down {
                self.wish.lock().build = true;
                return Ok(None);
            }
            if after.is_none() {
                return Ok(Some(index));
            }
        }
    }

    /// Applies what was put down, and lets everybody have it; false if it is to be built again.
    fn finish(&self, mut index: NameIndex) -> bool {
        loop {
            let wish = self.wish.lock();
            let mut state = self.state.write();
            let State::Building(put_down) = &mut *state else { return false };
            if wish.build {
                return false;
            }
            let changes = std::mem::take(put_down);
            if changes.len() < SLICE {
                changes.iter().for_each(|change| index.apply(change));
                *state = State::Ready(Box::new(index));
                return true;
            }
            drop((state, wish));
            changes.iter().for_each(|change| index.apply(change));
        }
    }

    /// Goes on with a search for a slice, or until some more than `want` names were found; `None`
    /// while there is no index.
    pub fn step(&self, search: &mut NameSearch<'_>, want: usize) -> Option<Vec<FoundName>> {
        match &*self.state.read() {
            State::Building(_) => None,
            State::Ready(index) => Some(search.step(index, want)),
        }
    }

    /// Figures of the index; `None` while there is none. Looks at every block.
    pub fn stats(&self) -> Option<NameStats> {
        match &*self.state.read() {
            State::Building(_) => None,
            State::Ready(index) => Some(NameStats {
                names: index.len() as u64,
                bytes: index.memory() as u64,
                changed: index.changed(),
            }),
        }
    }
}
