//! From a path that a user types to a mount and a path in it.
//!
//! Owns the rule. The path may name something that is gone, or a symlink that is meant itself, so
//! only the directory above the last name is resolved, as far as it exists. That directory decides:
//! by its device if it lies in a mount, else by the backing directory or catalog above it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::registry::Record;
use crate::catalog;
use crate::config::OWN_DIR;

/// Where a question about a path goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To the daemon that serves it.
    Served {
        /// The mount.
        record: Record,
        /// The path from its root; empty for the root itself.
        path: Vec<u8>,
    },
    /// To the catalog file itself, since nobody serves it.
    Stopped {
        /// The backing directory.
        backing: PathBuf,
        /// The database.
        catalog: PathBuf,
        /// The path from the root; empty for the root itself.
        path: Vec<u8>,
    },
}

impl Target {
    /// The path from the root.
    pub fn path(&self) -> &[u8] {
        match self {
            Self::Served { path, .. } | Self::Stopped { path, .. } => path,
        }
    }
}

/// A path leads to no mount.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("no Horace mount at or above {}", path.display())]
    NoMount {
        /// The path as it was typed.
        path: PathBuf,
    },
    /// There is a catalog, but the user may not read it, and no daemon answers in its place.
    #[error("the mount of {} is not running, and its catalog is not yours to read", backing.display())]
    NotReadable {
        /// The backing directory.
        backing: PathBuf,
    },
    /// The mount's daemon died.
    #[error("the mount at {} is dead: its daemon is gone", mountpoint.display())]
    Dead {
        /// Where.
        mountpoint: PathBuf,
    },
}

/// A directory that exists, and the names below it that were not looked at.
#[derive(Debug, PartialEq, Eq)]
struct Resolved {
    dir: PathBuf,
    rest: Vec<OsString>,
}

/// Finds the mount that a path lies in; `working_dir` is where a relative one begins.
///
/// # Errors
/// If it lies in none, or in one that cannot be asked.
pub fn find(path: &Path, working_dir: &Path, served: &[Record]) -> Result<Target, LookupError> {
    let resolved = resolve(&working_dir.join(path))?;
    let by_device = served.iter().find_map(|record| {
        let found = std::fs::metadata(&resolved.dir).ok()?;
        let inside = found.dev() == record.mount_dev;
        Some((record, mount_root(&resolved.dir, record).filter(|_| inside)?))
    });
    let by_backing = || {
        served.iter().find_map(|record| {
            Some((record, ancestor(&resolved.dir, |dir| is_backing(dir, record))?))
        })
    };
    if let Some((record, root)) = by_device.or_else(by_backing) {
        return Ok(Target::Served { record: record.clone(), path: resolved.below(&root) });
    }
    let has_catalog = |dir: &Path| catalog_in(dir).symlink_metadata().is_ok();
    let may_have = |dir: &Path| is_denied(&catalog_in(dir)) || has_catalog(dir);
    let Some(backing) = ancestor(&resolved.dir, may_have) else {
        return Err(LookupError::NoMount { path: path.into() });
    };
    let catalog = catalog_in(&backing);
    if std::fs::File::open(&catalog).is_err() {
        return Err(LookupError::NotReadable { backing });
    }
    Ok(Target::Stopped { path: resolved.below(&backing), backing, catalog })
}

fn catalog_in(dir: &Path) -> PathBuf {
    dir.join(OWN_DIR).join(catalog::FILE_NAME)
}

/// Whether an own directory is there but shut, so that only its owner knows of a catalog in it.
fn is_denied(catalog: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    catalog.symlink_metadata().is_err_and(refused)
        && catalog.parent().is_some_and(|own| own.symlink_metadata().is_ok())
}

fn is_backing(dir: &Path, record: &Record) -> bool {
    std::fs::metadata(dir)
        .is_ok_and(|found| (found.dev(), found.ino()) == (record.backing_dev, record.backing_ino))
}

/// The root of the mount above a directory in it, by whichever way it was reached: through a bind
/// mount the path has nothing to do with the registered one.
fn mount_root(dir: &Path, record: &Record) -> Option<PathBuf> {
    if dir.starts_with(&record.mountpoint) {
        return Some(record.mountpoint.clone());
    }
    ancestor(dir, |dir| {
        std::fs::metadata(dir)
            .is_ok_and(|found| (found.dev(), found.ino()) == (record.mount_dev, record.backing_ino))
    })
}

fn ancestor(dir: &Path, is_it: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    dir.ancestors().find(|dir| is_it(dir)).map(Path::to_path_buf)
}

impl Resolved {
    /// The whole path from `root`, which `dir` is or lies below.
    fn below(&self, root: &Path) -> Vec<u8> {
        let inside = self.dir.strip_prefix(root).unwrap_or(Path::new(""));
        let mut path = inside.as_os_str().as_bytes().to_vec();
        for name in &self.rest {
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
        }
        path
    }
}

/// Resolves an absolute path as far as its directories exist, but not its last name.
fn resolve(path: &Path) -> Result<Resolved, LookupError> {
    let mut dir = PathBuf::from("/");
    let mut rest: Vec<OsString> = Vec::new();
    let names: Vec<Component<'_>> = path.components().collect();
    // `Path` drops a trailing slash, by which a symlink's target is meant rather than the symlink.
    let bytes = path.as_os_str().as_bytes();
    let is_dir = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    for (index, component) in names.iter().enumerate() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                if rest.pop().is_none() {
                    dir.pop();
                }
            }
            Component::Normal(name) => {
                let last = index + 1 == names.len() && !is_dir;
                match descend(&dir, name, &rest)? {
                    Step::Directory(next) => dir = next,
                    Step::Link(Some(next)) if !last => dir = next,
                    Step::Link(_) | Step::Other => rest.push(name.into()),
                }
            }
        }
    }
    Ok(Resolved { dir, rest })
}

enum Step {
    /// A directory.
    Directory(PathBuf),
    /// A symlink, with the directory that it leads to.
    Link(Option<PathBuf>),
    /// Something else, or nothing.
    Other,
}

fn descend(dir: &Path, name: &OsStr, rest: &[OsString]) -> Result<Step, LookupError> {
    if !rest.is_empty() {
        return Ok(Step::Other);
    }
    let path = dir.join(name);
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => Ok(Step::Directory(path)),
        Ok(found) if found.is_symlink() => {
            let target = path.canonicalize().ok().filter(|target| target.is_dir());
            Ok(Step::Link(target))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            Err(LookupError::Dead { mountpoint: path })
        }
        _ => Ok(Step::Other),
    }
}

/// The path by which a user reaches a path of the catalog: relative where the working directory
/// lies in the mount and above it, else absolute.
pub fn shown(path: &[u8], root: &Path, working_dir: &Path) -> Vec<u8> {
    let absolute = root.join(OsStr::from_bytes(path));
    match absolute.strip_prefix(working_dir) {
        Ok(relative) if working_dir.starts_with(root) => relative.as_os_str().as_bytes().to_vec(),
        _ => absolute.into_os_string().into_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree {
        _dir: tempfile::TempDir,
        root: PathBuf,
    }

    fn tree() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("b/sub")).unwrap();
        std::fs::write(root.join("b/sub/file"), "").unwrap();
        symlink("b/sub", root.join("way")).unwrap();
        symlink("sub", root.join("b/inner")).unwrap();
        symlink("nowhere", root.join("b/dangling")).unwrap();
        Tree { _dir: dir, root }
    }

    fn record(backing: &Path) -> Record {
        let found = std::fs::metadata(backing).unwrap();
        Record {
            pid: 1,
            backing: backing.into(),
            mountpoint: "/nonexistent".into(),
            mount_dev: u64::MAX,
            backing_dev: found.dev(),
            backing_ino: found.ino(),
            socket: "/nonexistent".into(),
            state_dir: "/nonexistent".into(),
        }
    }

    #[test]
    fn paths_lead_to_where_they_lie_in_the_backing_directory() {
        let tree = tree();
        let served = [record(&tree.root.join("b"))];
        let inside = |path: &str| {
            let target = find(Path::new(path), &tree.root, &served).unwrap();
            String::from_utf8(target.path().to_vec()).unwrap()
        };
        assert_eq!(inside("b"), "");
        assert_eq!(inside("b/."), "");
        assert_eq!(inside("b/sub/file"), "sub/file");
        assert_eq!(inside("b//sub/../sub/file"), "sub/file");
        assert_eq!(inside("way/file"), "sub/file");
        assert_eq!(inside("way/gone/deeper"), "sub/gone/deeper");
        assert_eq!(inside("way/gone/../file"), "sub/file");
        assert_eq!(inside("b/inner"), "inner");
        assert_eq!(inside("b/inner/"), "sub");
        assert_eq!(inside("b/dangling"), "dangling");
        assert_eq!(inside("b/sub/file/was/a/dir"), "sub/file/was/a/dir");
        let absolute = tree.root.join("b/sub");
        let target = find(&absolute, Path::new("/"), &served).unwrap();
        assert_eq!(target.path(), b"sub");
    }

    #[test]
    fn the_device_of_a_mount_counts_however_it_was_reached() {
        let tree = tree();
        let mut served = record(&tree.root.join("b"));
        served.mount_dev = served.backing_dev;
        served.backing_dev = u64::MAX;
        let target = find(Path::new("way/x"), &tree.root, &[served]).unwrap();
        assert_eq!(target.path(), b"sub/x");
    }

    #[test]
    fn without_a_daemon_the_catalog_above_answers() {
        let tree = tree();
        let own = tree.root.join("b/.horace");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("catalog.db"), "").unwrap();
        let target = find(Path::new("b/sub/gone"), &tree.root, &[]).unwrap();
        let expected = Target::Stopped {
            backing: tree.root.join("b"),
            catalog: own.join("catalog.db"),
            path: b"sub/gone".to_vec(),
        };
        assert_eq!(target, expected);
    }

    #[test]
    fn a_path_outside_is_named_in_the_error() {
        let tree = tree();
        let error = find(Path::new("way/x"), &tree.root, &[]).unwrap_err();
        assert_eq!(error.to_string(), "no Horace mount at or above way/x");
    }

    #[test]
    fn paths_are_shown_from_the_working_directory() {
        let shown = |path: &str, from: &str| {
            String::from_utf8(shown(path.as_bytes(), Path::new("/m"), Path::new(from))).unwrap()
        };
        assert_eq!(shown("a/b", "/m"), "a/b");
        assert_eq!(shown("a/b", "/m/a"), "b");
        assert_eq!(shown("a/b", "/m/c"), "/m/a/b");
        assert_eq!(shown("a/b", "/"), "/m/a/b");
    }
}
