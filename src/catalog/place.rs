//! Whether the files of an open catalog are still where they were opened.
//!
//! Owns their names and identities. SQLite goes on with files that have lost their names, which the next start
//! would not find; so it is looked now and then, and the writer writes everything again when they have.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that SQLite has beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which files were opened: the database, its log, and the index of that, by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place([Option<(u64, u64)>; 3]);

impl Place {
    /// What is there now.
    pub(super) fn of(path: &Path) -> Self {
        Self(["", "-wal", "-shm"].map(|suffix| {
            let found = std::fs::metadata(beside(path, suffix)).ok()?;
            Some((found.dev(), found.ino()))
        }))
    }

    /// Whether a file that was opened is not there any more.
    pub(super) fn is_lost(&self, path: &Path) -> bool {
        let now = Self::of(path);
        self.0.iter().zip(now.0).any(|(opened, now)| opened.is_some() && *opened != now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_deleted_or_replaced_is_lost_and_a_new_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        std::fs::write(&path, "").unwrap();
        let place = Place::of(&path);
        assert!(!place.is_lost(&path));
        let log = dir.path().join("catalog.db-wal");
        std::fs::write(&log, "").unwrap();
        assert!(!place.is_lost(&path), "it is opened later");
        let place = Place::of(&path);
        std::fs::remove_file(&log).unwrap();
        assert!(place.is_lost(&path));
        std::fs::write(&log, "").unwrap();
        let place = Place::of(&path);
        std::fs::rename(&log, &path).unwrap();
        assert!(place.is_lost(&path));
    }
}
