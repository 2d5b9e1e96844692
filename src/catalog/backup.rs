//! Copies of the catalog, and putting one in its place.
//!
//! Owns the files of the backups and their names. A copy is made by SQLite's online backup, in one step, so
//! that it is of one moment and the writer goes on; only a whole one gets its name.
//!
//! # Order of steps
//! Backing up: `copy → fsync → name`. A crash before the name leaves a file that the next one overwrites.
//! Putting in place: `check → damaged files aside → copy → fsync → name`. A crash after the second leaves no
//! catalog, and the backups: to do it again is to go on.
#![expect(clippy::disallowed_types, reason = "the catalog owns the database")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::Backup as Copying;
use rusqlite::{Connection, OpenFlags};

use super::place::beside;
use super::{Catalog, CatalogError, FILE_NAME, INCARNATION, STOPPED, schema};
use crate::sys::dir::make_private;

/// Name of the directory of the backups in the state directory.
const DIR: &str = "backups";
const SUFFIX: &str = ".db";
/// What is not whole yet.
const UNFINISHED: &str = "unfinished";

/// A backup of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backup {
    /// When it was made, in nanoseconds since 1970.
    pub time_ns: i64,
    /// Its file.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

/// Why there is no backup, or none was put in place.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be copied.
    #[error("cannot copy the catalog")]
    Copy(#[from] rusqlite::Error),
    /// A file cannot be made, moved or read.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The filesystem's reason.
        source: io::Error,
    },
}

/// What became of a catalog that was to be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// The backup that has taken its place; `None` if there was none that is whole.
    pub from: Option<Backup>,
    /// Where the files are that were there, if there were any.
    pub aside: Option<PathBuf>,
    /// Backups that are not whole, and why.
    pub refused: Vec<(PathBuf, String)>,
}

/// Where the backups of a state directory are.
pub fn dir(state_dir: &Path) -> PathBuf {
    state_dir.join(DIR)
}

/// The backups in a state directory, oldest first.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(state_dir: &Path) -> Result<Vec<Backup>, BackupError> {
    let dir = dir(state_dir);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(at(&dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(at(&dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(stem) = name.and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
        let Ok(time_ns) = stem.parse() else { continue };
        let size = fs::metadata(&path).map_err(at(&path))?.len();
        found.push(Backup { time_ns, path, size });
    }
    found.sort();
    Ok(found)
}

impl Catalog {
    /// Copies the catalog as it is committed to a file of its own.
    ///
    /// # Errors
    /// If it cannot be read, or the copy not written.
    pub fn back_up(&self, now_ns: i64) -> Result<Backup, BackupError> {
        let state_dir = parent(&self.path);
        let dir = dir(state_dir);
        let made = File::open(state_dir).and_then(|own| Ok(make_private(own, DIR)?));
        made.map_err(at(&dir))?;
        let path = dir.join(format!("{now_ns}{SUFFIX}"));
        copy(&self.path, &dir, &path, |_| Ok(()))?;
        let size = fs::metadata(&path).map_err(at(&path))?.len();
        Ok(Backup { time_ns: now_ns, path, size })
    }
}

/// Puts the newest backup that is whole in the place of the catalog in a state directory, which nobody may
/// have open. The next run finds out what has happened since.
///
/// # Errors
/// If a file cannot be moved or made.
pub fn rebuild(state_dir: &Path, now_ns: i64) -> Result<Rebuilt, BackupError> {
    let (mut from, mut refused) = (None, Vec::new());
    for backup in list(state_dir)?.into_iter().rev() {
        match check(&backup.path) {
            Ok(()) => {
                from = Some(backup);
                break;
            }
            Err(reason) => refused.push((backup.path, reason)),
        }
    }
    let aside = put_aside(state_dir, now_ns)?;
    if let Some(backup) = &from {
        // The next run looks at everything as after a power cut.
        let mark = |db: &Connection| {
            let stopped = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, 0)";
            db.execute(stopped, [STOPPED])?;
            db.execute("DELETE FROM meta WHERE key = ?1", [INCARNATION]).map(|_| ())
        };
        copy(&backup.path, state_dir, &state_dir.join(FILE_NAME), mark)?;
    }
    Ok(Rebuilt { from, aside, refused })
}

/// The directory of a file.
fn parent(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("."))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_path_buf();
    |source| BackupError::File { path, source }
}

fn copy(
    from: &Path,
    dir: &Path,
    to: &Path,
    mark: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), BackupError> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    give_name(&write_copy(&source, dir, mark)?, to)
}

/// Writes a copy that has no name yet.
fn write_copy(
    source: &Connection,
    dir: &Path,
    mark: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<PathBuf, BackupError> {
    let unfinished = dir.join(UNFINISHED);
    schema::remove_database(&unfinished).map_err(at(&unfinished))?;
    let mut db = Connection::open(&unfinished)?;
    // -1 is everything: what is copied in several steps begins anew with each change.
    Copying::new(source, &mut db)?.step(-1)?;
    mark(&db)?;
    finish_copy(db, &unfinished)?;
    Ok(unfinished)
}

/// Has a copy in one file, private and on the disk.
fn finish_copy(db: Connection, unfinished: &Path) -> Result<(), BackupError> {
    db.pragma_update(None, "journal_mode", "delete")?;
    drop(db);
    let file = File::open(unfinished).map_err(at(unfinished))?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    file.set_permissions(private).map_err(at(unfinished))?;
    file.sync_all().map_err(at(unfinished))
}

/// Gives a whole copy its name.
fn give_name(unfinished: &Path, to: &Path) -> Result<(), BackupError> {
    fs::rename(unfinished, to).map_err(at(to))?;
    let dir = parent(to);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// Writes a catalog whose files are not in their place any more there again, from who has it open.
/// What else is there goes aside.
pub(super) fn write_again(db: &Connection, path: &Path, now_ns: i64) -> Result<(), BackupError> {
    let state_dir = parent(path);
    let unfinished = write_copy(db, state_dir, |_| Ok(()))?;
    put_aside(state_dir, now_ns)?;
    give_name(&unfinished, path)
}

/// Puts a copy of what the files of a catalog have by now in their place, for those who have had them open since
/// they had something else. What was there goes aside.
pub(super) fn take_over(path: &Path, now_ns: i64) -> Result<(), BackupError> {
    let state_dir = parent(path);
    let unfinished = state_dir.join(UNFINISHED);
    schema::remove_database(&unfinished).map_err(at(&unfinished))?;
    for suffix in ["-wal", ""] {
        match fs::copy(beside(path, suffix), beside(&unfinished, suffix)) {
            Err(error) if suffix.is_empty() || error.kind() != io::ErrorKind::NotFound => {
                return Err(at(path)(error));
            }
            _ => {}
        }
    }
    // Not by way of the old files: SQLite takes what it finds in the log for what it is.
    let db = Connection::open(&unfinished)?;
    finish_copy(db, &unfinished)?;
    put_aside(state_dir, now_ns)?;
    give_name(&unfinished, path)
}

/// Why a backup cannot be used.
fn check(path: &Path) -> Result<(), String> {
    let check = || -> Result<Option<String>, CatalogError> {
        // An older one is brought up to date by the next run.
        let db = schema::open_of_any_schema(path)?;
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((found != "ok").then_some(found))
    };
    match check() {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(found),
        Err(CatalogError::Query(source) | CatalogError::Open { source, .. }) => {
            Err(source.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Moves the files of a catalog into a directory of their own.
fn put_aside(state_dir: &Path, now_ns: i64) -> Result<Option<PathBuf>, BackupError> {
    let aside = state_dir.join(format!("damaged-{now_ns}"));
    let mut moved = false;
    // The log goes last: without the database nobody reads it.
    for suffix in ["", "-shm", "-wal"] {
        let name = format!("{FILE_NAME}{suffix}");
        let path = state_dir.join(&name);
        if !path.exists() {
            continue;
        }
        if !moved {
            fs::create_dir(&aside).map_err(at(&aside))?;
            moved = true;
        }
        fs::rename(&path, aside.join(name)).map_err(at(&path))?;
    }
    Ok(moved.then_some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Reader;

    fn seq(dir: &Path) -> u64 {
        Reader::open(&dir.join(FILE_NAME)).unwrap().seq().unwrap().0
    }

    #[test]
    fn the_newest_backup_that_is_whole_takes_the_place_of_the_catalog() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(dir.path()).unwrap();
        let first = catalog.back_up(10).unwrap();
        let second = catalog.back_up(20).unwrap();
        let third = catalog.back_up(30).unwrap();
        catalog.close(40);
        fs::write(dir.path().join(DIR).join("notes"), "no backup").unwrap();
        assert_eq!(list(dir.path()).unwrap(), [first, second.clone(), third.clone()]);
        let before = seq(dir.path());
        fs::write(dir.path().join(FILE_NAME), "damaged").unwrap();
        let bytes = fs::read(&third.path).unwrap();
        fs::write(&third.path, &bytes[..bytes.len() / 2]).unwrap();
        let rebuilt = rebuild(dir.path(), 50).unwrap();
        assert_eq!(rebuilt.from, Some(second));
        assert_eq!(rebuilt.refused.len(), 1, "{rebuilt:?}");
        assert_eq!(fs::read(rebuilt.aside.unwrap().join(FILE_NAME)).unwrap(), b"damaged");
        assert_eq!(seq(dir.path()), before);
        let catalog = Catalog::open(dir.path()).unwrap();
        assert!(!catalog.past().was_orderly && catalog.past().incarnation.is_none());
        catalog.close(60);
    }

    #[test]
    fn without_a_backup_the_next_run_begins_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), "damaged").unwrap();
        let rebuilt = rebuild(dir.path(), 1).unwrap();
        assert_eq!((rebuilt.from, rebuilt.refused.len()), (None, 0));
        assert!(rebuilt.aside.is_some() && !dir.path().join(FILE_NAME).exists());
        assert_eq!(rebuild(dir.path(), 2).unwrap().aside, None);
        Catalog::open(dir.path()).unwrap().close(3);
    }
}
