//! A catalog that begins with what somebody else knew.
//!
//! Owns the new catalog until it is whole. What is older than the present can only come before it: the
//! changes go into an empty catalog, in the order of their times, and the first mount compares what they
//! come to with the directory.
//!
//! # Order of steps
//! `changes into a catalog of another place → sync → name`. A crash before the name leaves a directory that
//! the next import removes, and the state directory without a catalog, or with the one of an earlier import.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::event::{Event, Op};
use super::schema::remove_database;
use super::{Catalog, CatalogError, FILE_NAME, Reader};
use crate::types::{Inode, Seq};

/// Name of the directory in the state directory where the new catalog is made.
const DIR: &str = "import";

/// What stands for the boot and mount of a catalog that was never served.
const NEVER_SERVED: i64 = 0;

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The new catalog cannot be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A file or directory cannot be made or moved.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A catalog that is being made.
#[derive(Debug)]
pub struct Import {
    state_dir: PathBuf,
    catalog: Catalog,
}

impl Import {
    /// Begins a new catalog, with a root that is there since a time in nanoseconds since 1970.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin(state_dir: &Path, root: Inode, time_ns: i64) -> Result<Self, ImportError> {
        let dir = state_dir.join(DIR);
        let made = match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&dir),
        };
        made.map_err(|source| ImportError::File { path: dir.clone(), source })?;
        let import = Self { state_dir: state_dir.into(), catalog: Catalog::open(&dir)? };
        import.push(time_ns, Op::Root { inode: root, incarnation: NEVER_SERVED });
        Ok(import)
    }

    /// Adds what happened at a time in nanoseconds since 1970, which is no earlier than what was added before.
    pub fn push(&self, time_ns: i64, op: Op) {
        self.catalog.push([Event { time_ns, writer: None, op }]);
    }

    /// Puts the catalog in its place and returns its last sequence number.
    ///
    /// # Errors
    /// If some of it could not be written: then nothing is put in its place.
    pub fn finish(self, now_ns: i64) -> Result<Seq, ImportError> {
        let seq = self.catalog.sync()?;
        self.catalog.close(now_ns);
        drop(self.catalog);
        let dir = self.state_dir.join(DIR);
        let place = self.state_dir.join(FILE_NAME);
        let put = || {
            let new = dir.join(FILE_NAME);
            File::open(&new)?.sync_all()?;
            remove_database(&place)?;
            fs::rename(&new, &place)?;
            File::open(&self.state_dir)?.sync_all()?;
            fs::remove_dir_all(&dir)
        };
        put().map_err(|source| ImportError::File { path: place.clone(), source })?;
        Ok(seq)
    }
}

/// Whether the catalog in a state directory, if there is one, is as an import has left it.
///
/// # Errors
/// If there is one that cannot be read.
pub fn was_never_served(state_dir: &Path) -> Result<bool, CatalogError> {
    let path = state_dir.join(FILE_NAME);
    if !path.exists() {
        return Ok(true);
    }
    Ok(Reader::open(&path)?.past()?.incarnation == Some(NEVER_SERVED))
}

#[cfg(test)]
mod tests {
    use super::super::event::{Found, Place};
    use super::super::tests::root_inode;
    use super::*;
    use crate::types::{ContentHash, InodeKey, Kind, Origin};

    #[test]
    fn an_import_that_was_broken_off_leaves_no_catalog_and_the_next_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = root_inode();
        let broken_off = Import::begin(dir.path(), root, 5).unwrap();
        broken_off.push(6, observed(root.key, 1));
        drop(broken_off);
        assert!(!dir.path().join(FILE_NAME).exists());
        assert!(was_never_served(dir.path()).unwrap());

        for file in [2, 3] {
            let import = Import::begin(dir.path(), root, 5).unwrap();
            import.push(6, observed(root.key, file));
            assert_eq!(import.finish(100).unwrap(), Seq(2));
            assert!(was_never_served(dir.path()).unwrap());
            let reader = Reader::open(&dir.path().join(FILE_NAME)).unwrap();
            let changes = reader.changes(Seq(0), 10).unwrap();
            assert_eq!(changes.iter().map(|c| c.time_ns).collect::<Vec<_>>(), [5, 6]);
            assert_eq!(changes[1].path.as_deref(), Some(format!("f{file}").as_bytes()));
        }
        assert!(!dir.path().join(DIR).exists());

        let catalog = Catalog::open(dir.path()).unwrap();
        let op = Op::Root { inode: root, incarnation: 7 };
        catalog.push([Event { time_ns: 101, writer: None, op }]);
        catalog.close(102);
        assert!(!was_never_served(dir.path()).unwrap());
    }

    fn observed(parent: InodeKey, number: u64) -> Op {
        let mut inode = root_inode();
        inode.key.ino = 100 + number;
        inode.attr.kind = Kind::File;
        let at = Place { parent, name: format!("f{number}").into_bytes().into() };
        let found = Found::Content(ContentHash::EMPTY, None);
        Op::Observe { at, inode, found, origin: Origin::Migrated }
    }
}
