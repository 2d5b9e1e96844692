//! The packs of one store, with their index: where packed contents are had from.
//!
//! Owns bringing directory and index together, at the start, with each reconcile, and again whenever an answer
//! shows that the index is not what it was. Who looks for a content meanwhile waits: the packs have everything,
//! only finding it takes until the index is whole. Never decides what is packed or what goes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::pack::{
    ChunkIndex, Maintenance, PackDir, PackError, PackReader, PackTotals, Recipe, Recovery, learn,
    recover,
};
use crate::types::ContentHash;

/// Bytes of decompressed frames that are kept for all readers together.
const CACHE_BYTES: usize = 32 << 20;

/// The packs of one store.
pub struct Packs {
    dir: Arc<PackDir>,
    index: Arc<dyn ChunkIndex>,
    reader: PackReader,
    settled: Mutex<Settled>,
    changed: Condvar,
}

/// Whether the index knows all packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// Not yet; somebody will see to it.
    No,
    /// Yes, as far as anybody knows.
    Yes,
    /// It cannot be brought to.
    Never,
}

impl fmt::Debug for Packs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packs").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Packs {
    /// Opens the packs in a directory, which is made if it is missing, for the one process that changes
    /// them. [`Packs::recover`] must be called soon.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn open(path: &Path, index: Arc<dyn ChunkIndex>) -> Result<Self, PackError> {
        Ok(Self::new(PackDir::open(path)?, index, Settled::No))
    }

    /// Opens the packs in a directory without changing anything there. An index that does not know just
    /// those packs is told anew.
    ///
    /// # Errors
    /// The filesystem's or the index's.
    pub fn open_to_read(path: &Path, index: Arc<dyn ChunkIndex>) -> Result<Self, PackError> {
        let this = Self::new(PackDir::open_to_read(path)?, index, Settled::Never);
        let mut known = this.index.packs().map_err(PackError::Index)?;
        known.sort_unstable();
        if known != this.dir.list()? {
            this.learn()?;
        }
        Ok(this)
    }

    fn new(dir: PackDir, index: Arc<dyn ChunkIndex>, settled: Settled) -> Self {
        let dir = Arc::new(dir);
        let reader = PackReader::new(Arc::clone(&dir), Arc::clone(&index), CACHE_BYTES);
        let (settled, changed) = (Mutex::new(settled), Condvar::new());
        Self { dir, index, reader, settled, changed }
    }

    /// Whether [`Packs::recover`] is to be called.
    pub fn wants_recovery(&self) -> bool {
        *self.settled.lock() == Settled::No
    }

    /// Has [`Packs::recover`] called once more: a filesystem that was rolled back has other packs than the index
    /// knows.
    pub fn look_again(&self) {
        let mut settled = self.settled.lock();
        if *settled == Settled::Yes {
            *settled = Settled::No;
        }
    }

    /// Makes the index know the packs that are there.
    ///
    /// # Errors
    /// The filesystem's or the index's. Who waits is told then that nothing is found.
    pub fn recover(&self, right: &Maintenance<'_>) -> Result<Recovery, PackError> {
        let cleared = if self.index.is_damaged() { self.index.clear() } else { Ok(()) };
        let done = cleared.map_err(PackError::Index).and_then(|()| recover(right, self.index()));
        self.reader.close_packs();
        *self.settled.lock() = if done.is_ok() { Settled::Yes } else { Settled::Never };
        self.changed.notify_all();
        done
    }

    /// Has those who wait for a recovery wait no more, since nobody is left to see to it.
    pub fn give_up(&self) {
        let mut settled = self.settled.lock();
        if *settled == Settled::No {
            *settled = Settled::Never;
        }
        self.changed.notify_all();
    }

    /// Opens a content; `None` if it is not packed.
    ///
    /// # Errors
    /// What the damage is, if it cannot be read.
    pub fn open_content(
        self: &Arc<Self>,
        object: ContentHash,
    ) -> Result<Option<Packed>, PackError> {
        let packs = Arc::clone(self);
        Ok(self.ask(|| self.reader.recipe(object))?.map(|recipe| Packed { packs, recipe }))
    }

    /// Asks the reader, and again once the index is whole if it was not.
    fn ask<T>(
        &self,
        question: impl Fn() -> Result<Option<T>, PackError>,
    ) -> Result<Option<T>, PackError> {
        match question() {
            Ok(None) if self.wait_settled() => question(),
            Err(error) if self.index.is_damaged() => {
                tracing::warn!(%error, "the index of chunks is damaged: telling it anew");
                self.mend()?;
                question()
            }
            answer => answer,
        }
    }

    /// Sees to it that a damaged index is whole again.
    fn mend(&self) -> Result<(), PackError> {
        {
            let mut settled = self.settled.lock();
            match *settled {
                Settled::Never => {
                    drop(settled);
                    return self.learn();
                }
                Settled::Yes | Settled::No => *settled = Settled::No,
            }
        }
        self.wait_settled();
        Ok(())
    }

    /// Waits for a recovery; whether there was one to wait for.
    fn wait_settled(&self) -> bool {
        let mut settled = self.settled.lock();
        let waited = *settled == Settled::No;
        while *settled == Settled::No {
            self.changed.wait(&mut settled);
        }
        waited
    }

    fn learn(&self) -> Result<(), PackError> {
        self.index.clear().map_err(PackError::Index)?;
        learn(&self.dir, self.index())
    }

    /// Waits for the right to change what is packed.
    pub fn maintain(&self) -> Maintenance<'_> {
        self.dir.maintain()
    }

    /// The directory.
    pub fn dir(&self) -> &PackDir {
        &self.dir
    }

    /// Where everything is.
    pub fn index(&self) -> &dyn ChunkIndex {
        &*self.index
    }

    /// What reads.
    pub fn reader(&self) -> &PackReader {
        &self.reader
    }

    /// A reader that has nothing in memory yet, for who wants to know what is on the disk.
    pub fn fresh_reader(&self) -> PackReader {
        /// A frame or two.
        const LITTLE: usize = 1 << 20;
        PackReader::new(Arc::clone(&self.dir), Arc::clone(&self.index), LITTLE)
    }

    /// How many packs there are, and how large they are.
    pub fn totals(&self) -> PackTotals {
        self.index.totals()
    }
}

/// A packed content that is open for reading.
#[derive(Debug, Clone)]
pub struct Packed {
    packs: Arc<Packs>,
    recipe: Recipe,
}

impl Packed {
    /// Its length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.recipe.size_bytes
    }

    /// Reads from `offset` on until `buffer` is full or the content ends; returns the number of bytes.
    ///
    /// # Errors
    /// What the damage is, if a part cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, PackError> {
        match self.packs.reader.read_at(&self.recipe, offset, buffer) {
            Err(error) if self.packs.index.is_damaged() => {
                tracing::warn!(%error, "the index of chunks is damaged: telling it anew");
                self.packs.mend()?;
                self.packs.reader.read_at(&self.recipe, offset, buffer)
            }
            read => read,
        }
    }
}
