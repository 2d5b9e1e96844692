//! Whether the files of an open catalog are still where they were opened.
//!
//! Owns their names, identities and times. SQLite goes on with files that have lost their names, which the next
//! start would not find; so it is looked now and then, and the writer writes everything again when they have. Nor
//! does it see that a filesystem was rolled back under it, and what its files have is not what it knows of them
//! any more: their time of change goes back then, which it does by nothing else but a clock that was set back.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file that SQLite has beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which files were opened: the database, its log, and the index of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place([Option<Opened>; 3]);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opened {
    /// Device and inode.
    id: (u64, u64),
    /// When it was changed, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Place {
    /// What is there now.
    pub(super) fn of(path: &Path) -> Self {
        Self(["", "-wal", "-shm"].map(|suffix| {
            let found = std::fs::metadata(beside(path, suffix)).ok()?;
            let changed = (found.ctime(), found.ctime_nsec());
            Some(Opened { id: (found.dev(), found.ino()), changed })
        }))
    }

    /// The same files, as they are by now.
    pub(super) fn by_now(&self, path: &Path) -> Self {
        let now = Self::of(path);
        Self(std::array::from_fn(|n| {
            now.0[n].filter(|now| self.0[n].is_some_and(|o| o.id == now.id))
        }))
    }

    /// Whether the files have the contents of an earlier moment.
    pub(super) fn is_rolled_back(&self, path: &Path) -> bool {
        // The index is only memory that they share.
        let pairs = self.0.iter().zip(Self::of(path).0).take(2);
        pairs.into_iter().any(|(opened, now)| {
            opened.zip(now).is_some_and(|(o, now)| o.id == now.id && now.changed < o.changed)
        })
    }

    /// Whether a file that was opened is not there any more.
    pub(super) fn is_lost(&self, path: &Path) -> bool {
        let now = Self::of(path);
        let id = |file: Option<Opened>| file.map(|file| file.id);
        self.0.iter().zip(now.0).any(|(opened, now)| opened.is_some() && id(*opened) != id(now))
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

    #[test]
    fn a_file_whose_time_of_change_goes_back_was_rolled_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        std::fs::write(&path, "").unwrap();
        let place = Place::of(&path);
        assert!(!place.is_rolled_back(&path));
        std::fs::write(&path, "more").unwrap();
        assert!(!place.is_rolled_back(&path));
        let mut later = place.by_now(&path);
        later.0[0].as_mut().unwrap().changed.0 += 1;
        assert!(later.is_rolled_back(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!later.is_rolled_back(&path), "that is lost");
    }
}
