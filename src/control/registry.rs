//! Which mounts are served, by which daemon.
//!
//! Owns the runtime directory: each daemon has `<id>.json` there, which everybody may read, and
//! `<id>.sock` and `<id>.api` beside it, where it answers. The id comes from the backing directory's device and inode, so a daemon
//! that starts after a crash replaces what the old one left. What a crash leaves otherwise is seen
//! by nobody answering at the socket: readers ignore it and remove it where they may.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where root's daemons register.
const SYSTEM_DIR: &str = "/run/horace";

/// An entry cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot register the mount in {}", path.display())]
pub struct RegistryError {
    path: PathBuf,
    source: io::Error,
}

/// One mount that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The daemon's process.
    pub pid: u32,
    /// The backing directory.
    #[serde(with = "exact")]
    pub backing: PathBuf,
    /// Where it is shown.
    #[serde(with = "exact")]
    pub mountpoint: PathBuf,
    /// `st_dev` of the mount.
    pub mount_dev: u64,
    /// `st_dev` of the backing directory.
    pub backing_dev: u64,
    /// `st_ino` of the backing directory, which the root of the mount has too.
    pub backing_ino: u64,
    /// Where the daemon answers.
    #[serde(with = "exact")]
    pub socket: PathBuf,
    /// Where the catalog lies.
    #[serde(with = "exact")]
    pub state_dir: PathBuf,
}

/// The name of a daemon's files in the runtime directory, from its open backing directory.
///
/// # Errors
/// The kernel's.
pub fn id_of(backing: impl AsFd) -> io::Result<String> {
    let stat = rustix::fs::fstat(backing)?;
    Ok(format!("{:x}-{:x}", stat.st_dev, stat.st_ino))
}

/// Where the daemon with this id answers.
pub fn socket_path(runtime_dir: &Path, id: &str) -> PathBuf {
    runtime_dir.join(format!("{id}.sock"))
}

/// Where the daemon that has this socket speaks HTTP, wherever else it may do so.
pub fn api_socket(socket: &Path) -> PathBuf {
    socket.with_extension("api")
}

/// Makes the runtime directory: everybody may look into it, only its owner may change it.
///
/// # Errors
/// If it cannot be made, or belongs to somebody else.
pub fn create_runtime_dir(path: &Path) -> Result<(), RegistryError> {
    let error = |source| RegistryError { path: path.into(), source };
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        create_for_all(dir).map_err(error)?;
    }
    let owner = std::fs::metadata(path).map_err(error)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(error(io::Error::other("it belongs to another user")));
    }
    Ok(())
}

/// Makes a directory into which everybody may look, whatever the umask.
fn create_for_all(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        // Another daemon was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => {
            result.and_then(|()| std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)))
        }
    }
}

/// The runtime directory for the daemons of a user; `None` if that user has none.
pub fn runtime_dir_of(uid: u32, xdg_runtime_dir: Option<&OsStr>) -> Option<PathBuf> {
    if uid == 0 {
        return Some(SYSTEM_DIR.into());
    }
    let dir = Path::new(xdg_runtime_dir?);
    dir.is_absolute().then(|| dir.join("horace"))
}

/// A daemon's entry, removed with its sockets when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Registration {
    file: PathBuf,
    socket: PathBuf,
}

impl Registration {
    /// Enters a mount that is served by this process, once its socket answers and it is mounted.
    ///
    /// # Errors
    /// If the mount cannot be looked at, or the file not written.
    pub fn publish(
        runtime_dir: &Path,
        backing: &Path,
        backing_fd: impl AsFd,
        mountpoint: &Path,
        state_dir: &Path,
    ) -> Result<Self, RegistryError> {
        let publish = || -> io::Result<Self> {
            let id = id_of(&backing_fd)?;
            let stat = rustix::fs::fstat(&backing_fd)?;
            let record = Record {
                pid: std::process::id(),
                backing: backing.into(),
                mountpoint: mountpoint.into(),
                mount_dev: std::fs::metadata(mountpoint)?.dev(),
                backing_dev: stat.st_dev,
                backing_ino: stat.st_ino,
                socket: socket_path(runtime_dir, &id),
                state_dir: state_dir.into(),
            };
            record.write(&runtime_dir.join(format!("{id}.json")))
        };
        publish().map_err(|source| RegistryError { path: runtime_dir.into(), source })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // What stays behind is taken for what a crash leaves.
        let _ = std::fs::remove_file(&self.file);
        let _ = std::fs::remove_file(&self.socket);
        let _ = std::fs::remove_file(api_socket(&self.socket));
    }
}

impl Record {
    /// Writes the entry under a temporary name first: a reader sees all of it or nothing.
    fn write(&self, file: &Path) -> io::Result<Registration> {
        let new = file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o644))?;
        std::fs::rename(&new, file)?;
        Ok(Registration { file: file.into(), socket: self.socket.clone() })
    }

    /// Whether somebody answers.
    pub fn is_served(&self) -> bool {
        match UnixStream::connect(&self.socket) {
            Ok(_) => true,
            // A full backlog or a refusal is an answer too.
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
            }
        }
    }

    /// Whether the daemon's process exists.
    pub fn process_exists(&self) -> bool {
        Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

/// Every entry in these directories, of daemons that answer and of those that do not any more.
fn read_all(runtime_dirs: &[PathBuf]) -> Vec<(PathBuf, Record)> {
    let mut found = Vec::new();
    for dir in runtime_dirs {
        let Ok(files) = std::fs::read_dir(dir) else {
            continue;
        };
        for file in files.flatten().map(|entry| entry.path()) {
            if file.extension() == Some(OsStr::new("json"))
                && let Ok(text) = std::fs::read(&file)
                && let Ok(record) = serde_json::from_slice(&text)
            {
                found.push((file, record));
            }
        }
    }
    found
}

/// The mounts that are served, in the order of their mountpoints; removes what is not.
pub fn load(runtime_dirs: &[PathBuf]) -> Vec<Record> {
    let mut served = Vec::new();
    for (file, record) in read_all(runtime_dirs) {
        if record.is_served() {
            served.push(record);
        } else if !record.process_exists() {
            tracing::debug!(file = %file.display(), "removing what a daemon left behind");
            let _ = std::fs::remove_file(&file);
            let _ = std::fs::remove_file(&record.socket);
            let _ = std::fs::remove_file(api_socket(&record.socket));
        }
    }
    served.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    served
}

/// The entry for a mountpoint, whether its daemon answers or not.
pub fn find_mountpoint(runtime_dirs: &[PathBuf], mountpoint: &Path) -> Option<Record> {
    read_all(runtime_dirs)
        .into_iter()
        .map(|(_, record)| record)
        .find(|record| record.mountpoint == mountpoint)
}

/// A path as text, or as `base64:` and its bytes: another process must get exactly this path.
mod exact {
    use super::*;

    const PREFIX: &str = "base64:";

    pub(super) fn serialize<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) if !text.starts_with(PREFIX) => s.serialize_str(text),
            _ => {
                let bytes = BASE64.encode(path.as_os_str().as_bytes());
                s.serialize_str(&format!("{PREFIX}{bytes}"))
            }
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(d)?;
        match text.strip_prefix(PREFIX) {
            None => Ok(text.into()),
            Some(encoded) => {
                let bytes = BASE64.decode(encoded.as_bytes()).map_err(serde::de::Error::custom)?;
                Ok(OsStr::from_bytes(&bytes).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn publish(dir: &Path, backing: &Path) -> (Registration, UnixListener) {
        let fd = std::fs::File::open(backing).unwrap();
        let listener = UnixListener::bind(socket_path(dir, &id_of(&fd).unwrap())).unwrap();
        let state = backing.join(".horace");
        let entry = Registration::publish(dir, backing, &fd, backing, &state).unwrap();
        (entry, listener)
    }

    #[test]
    fn a_mount_is_found_while_it_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join(OsStr::from_bytes(b"b\xff"));
        std::fs::create_dir(&backing).unwrap();
        let runtime = dir.path().join("run/horace");
        create_runtime_dir(&runtime).unwrap();
        let dirs = [dir.path().join("none"), runtime.clone()];
        let (entry, listener) = publish(&runtime, &backing);

        let found = load(&dirs);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].backing, backing);
        assert_eq!(found[0].pid, std::process::id());
        assert_eq!(find_mountpoint(&dirs, &backing), Some(found[0].clone()));

        drop(listener);
        assert_eq!(load(&dirs), []);
        drop(entry);
        assert_eq!(std::fs::read_dir(&runtime).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_daemon_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (entry, listener) = publish(dir.path(), dir.path());
        std::mem::forget(entry);
        drop(listener);
        let (file, mut record) = read_all(&[dir.path().into()]).remove(0);
        // No process has a number above the kernel's limit of 2^22.
        record.pid = u32::MAX;
        std::fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(load(&[dir.path().into()]), []);
        assert!(!file.exists() && !record.socket.exists());
    }

    #[test]
    fn runtime_dirs_follow_the_user() {
        let dir = |uid, xdg: Option<&str>| runtime_dir_of(uid, xdg.map(OsStr::new));
        assert_eq!(dir(0, Some("/run/user/7")).unwrap(), Path::new(SYSTEM_DIR));
        assert_eq!(dir(7, Some("/run/user/7")).unwrap(), Path::new("/run/user/7/horace"));
        assert_eq!(dir(7, None), None);
        assert_eq!(dir(7, Some("relative")), None);
    }
}
