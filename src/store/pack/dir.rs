//! The directory of packs.
//!
//! Owns the names in it: a pack is named after the SHA-256 of its bytes with `.pack` behind it, so that
//! `sha256sum` alone can check it, and a pack that is being written is `N.tmp`. One process at a time
//! may write; whoever opens the directory in it removes what an earlier one left half-written.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::error::PackError;
use super::file::PackFile;
use super::types::PackId;

/// What a pack's name ends with.
const SUFFIX: &str = ".pack";
/// What the name of a half-written pack ends with.
const UNFINISHED: &str = ".tmp";

/// A directory of packs, held open.
#[derive(Debug)]
pub struct PackDir {
    path: PathBuf,
    dir: File,
    next: AtomicU64,
    maintenance: Mutex<()>,
    #[cfg(test)]
    pub(crate) crash: Crash,
}

/// The right to change what is packed, which one thread at a time has.
///
/// Whoever packs takes chunks that are there already for granted, and whoever cleans up removes chunks
/// that nobody refers to: the two must not meet. So what is alive must be asked while this is held.
#[must_use]
pub struct Maintenance<'a> {
    pub(super) dir: &'a PackDir,
    _lock: MutexGuard<'a, ()>,
}

/// Where a crash can leave something half-done. Each is behind the step that it is named after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Created,
    Written,
    Synced,
    Renamed,
    DirSynced,
    Published,
    Removed,
}

impl PackDir {
    /// Opens the directory, which is created if it does not exist, and removes half-written packs: to be
    /// called by the one process that writes.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PackError::io("create", path)(error));
            }
            _ => {}
        }
        let this = Self::open_to_read(path)?;
        for name in this.names()?.iter().filter(|name| name.ends_with(UNFINISHED)) {
            let path = this.path.join(name);
            fs::remove_file(&path).map_err(PackError::io("remove", &path))?;
        }
        Ok(this)
    }

    /// Opens the directory and leaves it as it is: somebody else may be writing.
    ///
    /// # Errors
    /// The filesystem's, [`PackError::Missing`] if there is none.
    pub fn open_to_read(path: &Path) -> Result<Self, PackError> {
        let dir = File::open(path).map_err(PackError::io("open", path))?;
        Ok(Self {
            // Its path may come to be hidden by a mount; what is open stays.
            path: format!("/proc/self/fd/{}", dir.as_raw_fd()).into(),
            dir,
            next: AtomicU64::new(0),
            maintenance: Mutex::new(()),
            #[cfg(test)]
            crash: Crash::default(),
        })
    }

    /// All packs that are there, in the order of their names.
    ///
    /// # Errors
    /// The filesystem's.
    pub fn list(&self) -> Result<Vec<PackId>, PackError> {
        let names = self.names()?;
        let hashes = names.iter().filter_map(|name| name.strip_suffix(SUFFIX)?.parse().ok());
        let mut packs: Vec<_> = hashes.map(PackId).collect();
        packs.sort_unstable();
        Ok(packs)
    }

    /// Opens a pack for reading.
    ///
    /// # Errors
    /// [`PackError::Missing`], or the filesystem's.
    pub fn open_pack(&self, pack: PackId) -> Result<PackFile, PackError> {
        PackFile::open(self.pack_path(pack), pack)
    }

    /// Where a pack is or would be.
    pub fn pack_path(&self, pack: PackId) -> PathBuf {
        self.path.join(format!("{}{SUFFIX}", pack.0))
    }

    /// Waits for the right to change what is packed.
    pub fn maintain(&self) -> Maintenance<'_> {
        Maintenance { dir: self, _lock: self.maintenance.lock() }
    }

    fn names(&self) -> Result<Vec<String>, PackError> {
        let entries = fs::read_dir(&self.path).map_err(PackError::io("list", &self.path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(PackError::io("list", &self.path))?;
            names.extend(entry.file_name().into_string());
        }
        Ok(names)
    }

    /// Called behind each step, for tests to crash there.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only tests crash")]
    pub(super) fn passed(&self, _step: Step) -> Result<(), PackError> {
        Ok(())
    }

    /// Makes a pack that is no longer known go away.
    pub(super) fn remove(&self, pack: PackId) -> Result<(), PackError> {
        let path = self.pack_path(pack);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(PackError::io("remove", &path)(error))
            }
            _ => self.passed(Step::Removed),
        }
    }
}

/// A pack that is being written; removed unless it is finished.
pub(super) struct Unfinished<'a> {
    dir: &'a PackDir,
    path: PathBuf,
    file: File,
    finished: bool,
}

impl<'a> Unfinished<'a> {
    pub(super) fn create(dir: &'a PackDir) -> Result<Self, PackError> {
        let number = dir.next.fetch_add(1, Ordering::Relaxed);
        let path = dir.path.join(format!("{number}{UNFINISHED}"));
        let mut options = File::options();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(PackError::io("create", &path))?;
        dir.passed(Step::Created)?;
        Ok(Self { dir, path, file, finished: false })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.file.write_all(bytes).map_err(PackError::io("write", &self.path))
    }

    /// Makes what was written durable, and then gives it its name, durably.
    pub(super) fn finish(mut self, pack: PackId) -> Result<(), PackError> {
        self.dir.passed(Step::Written)?;
        self.file.sync_all().map_err(PackError::io("sync", &self.path))?;
        self.dir.passed(Step::Synced)?;
        let path = self.dir.pack_path(pack);
        fs::rename(&self.path, &path).map_err(PackError::io("rename", &self.path))?;
        self.finished = true;
        self.dir.passed(Step::Renamed)?;
        self.dir.dir.sync_all().map_err(PackError::io("sync", &self.dir.path))?;
        self.dir.passed(Step::DirSynced)
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.dir.crash.happened() {
            return;
        }
        if !self.finished
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "a half-written pack remains");
        }
    }
}

/// Ends everything behind a chosen step, as a crash would.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct Crash(Mutex<Option<(Step, usize)>>, std::sync::atomic::AtomicBool);

#[cfg(test)]
impl Crash {
    /// Crashes when `step` has been passed `times` more times.
    pub(crate) fn after(&self, step: Step, times: usize) {
        *self.0.lock() = Some((step, times));
    }

    pub(crate) fn happened(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
impl PackDir {
    pub(super) fn passed(&self, step: Step) -> Result<(), PackError> {
        let mut planned = self.crash.0.lock();
        match &mut *planned {
            Some((at, times)) if *at == step && *times <= 1 => {
                self.crash.1.store(true, Ordering::Relaxed);
                Err(PackError::Stopped)
            }
            Some((at, times)) if *at == step => {
                *times -= 1;
                Ok(())
            }
            _ if self.crash.happened() => Err(PackError::Stopped),
            _ => Ok(()),
        }
    }
}
