//! Whether the files of an open database are still where they were opened.
//!
//! Owns their names, identities and times. SQLite goes on with files that have lost their names, which the next
//! start would not find; so it is looked now and then, and the writer writes everything again when they have. Nor
//! does it see that a filesystem was rolled back under it, and what its files have is not what it knows of them
//! any more: their time of change goes back then, and no clock that was set back is the reason.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::clock::ahead_ns;

/// A file that SQLite has beside a database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which files were opened: the database, its log, and the index of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    files: [Option<Opened>; 3],
    /// How far ahead the clock was, in nanoseconds.
    ahead_ns: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Opened {
    /// Device and inode.
    id: (u64, u64),
    /// When it was changed, in nanoseconds since 1970.
    changed_ns: i64,
}

impl Place {
    /// What is there now.
    pub(super) fn of(path: &Path) -> Self {
        let files = ["", "-wal", "-shm"].map(|suffix| {
            let found = std::fs::metadata(beside(path, suffix)).ok()?;
            let seconds = found.ctime().saturating_mul(1_000_000_000);
            let changed_ns = seconds.saturating_add(found.ctime_nsec());
            Some(Opened { id: (found.dev(), found.ino()), changed_ns })
        });
        Self { files, ahead_ns: ahead_ns() }
    }

    /// The same files, as they are by now.
    pub(super) fn by(&self, now: &Self) -> Self {
        let same = |n: usize| now.files[n].filter(|now| self.id(n) == Some(now.id));
        Self { files: std::array::from_fn(same), ahead_ns: now.ahead_ns }
    }

    /// Whether the files now have the contents of an earlier moment.
    pub(super) fn is_rolled_back(&self, now: &Self) -> bool {
        let set_ns = now.ahead_ns.saturating_sub(self.ahead_ns);
        // The index is only memory that they share.
        let pairs = self.files.iter().zip(now.files).take(2);
        pairs.into_iter().any(|(opened, now)| {
            opened.zip(now).is_some_and(|(opened, now)| {
                // What was changed after the clock was set back has an earlier time, too.
                let unset_ns = now.changed_ns.saturating_sub(set_ns);
                opened.id == now.id && now.changed_ns.max(unset_ns) < opened.changed_ns
            })
        })
    }

    /// Whether a file that was opened is not there any more.
    pub(super) fn is_lost(&self, now: &Self) -> bool {
        (0..self.files.len()).any(|n| self.id(n).is_some() && self.id(n) != now.id(n))
    }

    /// The same files, changed an hour later.
    #[cfg(test)]
    pub(super) fn later(mut self) -> Self {
        for file in self.files.iter_mut().flatten() {
            file.changed_ns += 3_600_000_000_000;
        }
        self
    }

    fn id(&self, n: usize) -> Option<(u64, u64)> {
        self.files[n].map(|file| file.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_file_that_was_deleted_or_replaced_is_lost_and_a_new_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        std::fs::write(&path, "").unwrap();
        let place = Place::of(&path);
        assert!(!place.is_lost(&Place::of(&path)));
        let log = dir.path().join("catalog.db-wal");
        std::fs::write(&log, "").unwrap();
        assert!(!place.is_lost(&Place::of(&path)), "it is opened later");
        let place = Place::of(&path);
        std::fs::remove_file(&log).unwrap();
        assert!(place.is_lost(&Place::of(&path)));
        std::fs::write(&log, "").unwrap();
        let place = Place::of(&path);
        std::fs::rename(&log, &path).unwrap();
        assert!(place.is_lost(&Place::of(&path)));
    }

    #[test]
    fn a_file_that_is_written_or_deleted_was_not_rolled_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        std::fs::write(&path, "").unwrap();
        let place = Place::of(&path);
        assert!(!place.is_rolled_back(&Place::of(&path)));
        std::fs::write(&path, "more").unwrap();
        assert!(!place.is_rolled_back(&Place::of(&path)));
        std::fs::remove_file(&path).unwrap();
        assert!(!place.is_rolled_back(&Place::of(&path)), "that is lost");
    }

    /// By how many seconds the time of change and the clock went on.
    #[rstest]
    #[case::unchanged(0, 0, false)]
    #[case::changed(5, 0, false)]
    #[case::back(-5, 0, true)]
    #[case::back_and_read_a_little_later(-5, -1, true)]
    #[case::changed_after_the_clock_was_set_back(-3600 + 5, -3600, false)]
    #[case::unchanged_and_the_clock_was_set_back(0, -3600, false)]
    #[case::unchanged_and_the_clock_was_set_forward(0, 3600, false)]
    #[case::changed_before_the_clock_was_set_forward(5, 3600, false)]
    #[case::back_although_the_clock_was_set_forward(-5, 3600, true)]
    fn a_file_whose_time_of_change_goes_back_was_rolled_back(
        #[case] changed: i64,
        #[case] clock: i64,
        #[case] expected: bool,
    ) {
        const SECOND: i64 = 1_000_000_000;
        let at = |changed: i64, clock: i64| {
            let opened = Some(Opened { id: (1, 2), changed_ns: changed * SECOND });
            Place { files: [opened, None, None], ahead_ns: clock * SECOND }
        };
        let (before, now) = (at(100_000, 7), at(100_000 + changed, 7 + clock));
        assert_eq!(before.is_rolled_back(&now), expected);
    }
}
