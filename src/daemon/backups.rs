//! Copying the catalog from time to time.
//!
//! Owns which of the copies stay: the two newest, the last of each of seven days and of four weeks; and what
//! `status` says of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use parking_lot::Mutex;

use super::host::every;
use super::periodic::Task;
use crate::catalog::Catalog;
use crate::catalog::backup::{self, Backup};
use crate::causes::with_causes;
use crate::clock::now_ns;
use crate::config::MountConfig;
use crate::query::status::BackupRecord;
use crate::retention::{Count, Decision, History, Item, Keep, Life, Limit, Policy};
use crate::timespec::rfc3339;

/// Copies the catalog into its state directory.
#[derive(Debug)]
pub(super) struct Backups {
    pub(super) catalog: Arc<Catalog>,
    pub(super) state_dir: PathBuf,
    /// What went wrong the last time; `None` if it went well.
    pub(super) failed: Arc<Mutex<Option<Failure>>>,
}

/// Why the catalog was not copied.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    time_ns: i64,
    error: String,
}

/// What there is to say of the copies of a catalog.
pub(super) fn describe(
    config: &MountConfig,
    state_path: &Path,
    failed: Option<Failure>,
) -> BackupRecord {
    let (found, unread) = match backup::list(state_path) {
        Ok(found) => (found, None),
        Err(error) => (Vec::new(), Some(Failure { time_ns: now_ns(), error: with_causes(&error) })),
    };
    let (failed, error) = match failed.or(unread) {
        Some(failure) => (Some(rfc3339(failure.time_ns)), Some(failure.error)),
        None => (None, None),
    };
    BackupRecord {
        every: every(config.backup),
        dir: backup::dir(&config.state_dir()),
        count: found.len() as u64,
        bytes: found.iter().map(|backup| backup.size).sum(),
        last: found.last().map(|backup| rfc3339(backup.time_ns)),
        failed,
        error,
    }
}

impl Task for Backups {
    fn last_ns(&self) -> Option<i64> {
        let found = backup::list(&self.state_dir).unwrap_or_else(|error| {
            tracing::warn!(
                error = with_causes(&error),
                "cannot tell when the catalog was copied last"
            );
            Vec::new()
        });
        found.last().map(|backup| backup.time_ns)
    }

    fn run(&self) {
        if self.catalog.status().degraded.is_some() {
            // What is being repaired is no copy to keep.
            return self.fail(now_ns(), "the catalog is degraded".into());
        }
        let now = now_ns();
        let copied = self.catalog.back_up(now).and_then(|made| {
            tracing::info!(path = %made.path.display(), bytes = made.size, "the catalog was copied");
            let outlived = outlived(&backup::list(&self.state_dir)?, now);
            for path in outlived {
                if let Err(error) = std::fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "cannot remove an old copy");
                }
            }
            Ok(())
        });
        match copied {
            Ok(()) => *self.failed.lock() = None,
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(error, "the catalog was not copied");
                self.fail(now, error);
            }
        }
    }
}

impl Backups {
    fn fail(&self, time_ns: i64, error: String) {
        *self.failed.lock() = Some(Failure { time_ns, error });
    }
}

/// The backups, given oldest first, that need not be kept.
fn outlived(backups: &[Backup], now_ns: i64) -> Vec<PathBuf> {
    let item = |(number, backup): (usize, &Backup)| Item {
        number: number as u64,
        time_ns: backup.time_ns,
        life: Life::Until(backup.time_ns),
        size_bytes: backup.size,
        pinned: false,
    };
    let items: Vec<_> = backups.iter().enumerate().map(item).collect();
    let keep = Keep {
        last: Count::UpTo(2),
        daily: Count::UpTo(7),
        weekly: Count::UpTo(4),
        ..Keep::default()
    };
    let policy = Policy { keep, limit: Limit::default() };
    let history = History { items: &items, deleted_ns: None };
    let decisions = policy.decide(&history, now_ns, &TimeZone::system());
    let drops = |(_, decision): &(&Backup, Decision)| matches!(decision, Decision::Drop(_));
    backups.iter().zip(decisions).filter(drops).map(|(backup, _)| backup.path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_grow_sparse_with_age() {
        const HOUR: i64 = 3_600_000_000_000;
        let all: Vec<_> = (0..24 * 60)
            .map(|hour| Backup { time_ns: hour * HOUR, path: hour.to_string().into(), size: 1 })
            .collect();
        let gone = outlived(&all, 24 * 60 * HOUR);
        let kept = all.len() - gone.len();
        assert!((10..=13).contains(&kept), "{kept}");
        let newest = [1439, 1438].map(|hour: i64| PathBuf::from(hour.to_string()));
        assert!(newest.iter().all(|path| !gone.contains(path)));
        let left: Vec<_> = all.iter().filter(|b| !gone.contains(&b.path)).cloned().collect();
        assert!(outlived(&left, 24 * 60 * HOUR).is_empty(), "once is enough");
    }
}
