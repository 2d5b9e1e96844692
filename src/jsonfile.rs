//! Small files of the state directory that people and the daemon change.
//!
//! Owns how they are read and replaced: as a whole and privately, so that a crash leaves the old one or the new
//! one. Who changes one holds a lock on the directory; who reads one reads it again when it is another.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a file cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum JsonFileError {
    /// It cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is none.
    #[error("{} cannot be understood: move it away to begin without it", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

/// A file with a value in JSON; if it is not there, the value is the default.
#[derive(Debug)]
pub struct JsonFile<T> {
    dir: PathBuf,
    name: &'static str,
    /// Locked alone.
    read: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// What tells one file from the next: each is written anew.
type Stamp = (u64, u64, i64, i64);

impl<T: Default + Clone + Serialize + DeserializeOwned> JsonFile<T> {
    /// The file of a name in a directory.
    pub fn new(dir: impl Into<PathBuf>, name: &'static str) -> Self {
        Self { dir: dir.into(), name, read: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// What is in it.
    ///
    /// # Errors
    /// If it cannot be read. That there is none is fine.
    pub fn read(&self) -> Result<Arc<T>, JsonFileError> {
        let path = self.path();
        let error = |source| JsonFileError::Io { path: path.clone(), source };
        let mut read = self.read.lock();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                *read = None;
                return Ok(Arc::default());
            }
            Err(other) => return Err(error(other)),
        };
        let found = file.metadata().map_err(error)?;
        let stamp = (found.ino(), found.size(), found.ctime(), found.ctime_nsec());
        if let Some((known, value)) = &*read
            && *known == stamp
        {
            return Ok(Arc::clone(value));
        }
        let value: T = serde_json::from_reader(io::BufReader::new(file))
            .map_err(|source| JsonFileError::Damaged { path: path.clone(), source })?;
        let value = Arc::new(value);
        *read = Some((stamp, Arc::clone(&value)));
        Ok(value)
    }

    /// Changes it while nobody else does.
    ///
    /// # Errors
    /// If it cannot be read or written, or what `change` fails with: then it stays as it was.
    pub fn change<R, E: From<JsonFileError>>(
        &self,
        change: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let error = |source| JsonFileError::Io { path: self.path(), source };
        let dir = File::open(&self.dir).map_err(error)?;
        rustix::fs::flock(&dir, FlockOperation::LockExclusive).map_err(|e| error(e.into()))?;
        let mut value = T::clone(&*self.read()?);
        let result = change(&mut value)?;
        self.write(&value, &dir).map_err(error)?;
        Ok(result)
    }

    fn write(&self, value: &T, dir: &File) -> io::Result<()> {
        let temporary = self.dir.join(format!("{}.new", self.name));
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.path())?;
        dir.sync_all()
    }
}
