//! A moment in which nothing changes.
//!
//! Owns the gate: the exclusive side of the tree lock, which every operation that changes names or attributes and
//! every seal shares. It costs them nothing that they don't pay already. What is closed before the moment is
//! in the catalog and on the backing filesystem; what is written to files that are open goes on, and is
//! sealed later.
//!
//! # Order of steps
//! What was written is handed to the disk and the catalog is committed while everybody goes on, so that little
//! is left for the moment itself; then the gate is closed, the rest of the queue is committed and made
//! durable, and what is to be done is done.

use super::Fs;
use crate::catalog::CatalogError;
use crate::sys::Errno;
use crate::types::Seq;

/// Why there is no such moment.
#[derive(Debug, thiserror::Error)]
pub enum StillError {
    /// The backing filesystem cannot be written.
    #[error("cannot write to the disk")]
    Disk(#[from] Errno),
    /// The catalog does not have everything.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Fs {
    /// Has nothing change while something is done, which gets to know the last change before it. Operations
    /// wait until it is over.
    ///
    /// # Errors
    /// If the catalog is not sure to have everything.
    pub fn hold_still<T>(&self, during: impl FnOnce(Seq) -> T) -> Result<T, StillError> {
        self.settle_soon();
        self.write_through()?;
        self.catalog.sync()?;
        let _tree = self.tree.write();
        let seq = self.catalog.sync()?;
        Ok(during(seq))
    }

    /// Whether some file may be changing without the catalog having heard of it yet.
    pub fn is_being_written(&self) -> bool {
        self.files.all().iter().any(|file| file.session.is_some()) || self.has_mapped()
    }
}
