//! Who keeps a mount busy.
//!
//! Owns the scan of `/proc`. Names are compared, never looked up: a look-up could wait for the mount.

use std::fs;
use std::path::Path;

/// A process with something open in a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pid: u32,
    comm: String,
    what: String,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}, {})", self.comm, self.pid, self.what)
    }
}

/// The processes that have their working directory, root or a file at or below `mountpoint`, as
/// far as this user may see.
pub(super) fn users_of(mountpoint: &Path) -> Vec<User> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let what = holds(&process.path(), mountpoint)?;
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            Some(User { pid, comm: comm.trim_end().into(), what })
        })
        .collect()
}

fn holds(process: &Path, mountpoint: &Path) -> Option<String> {
    let inside = |link: &Path| fs::read_link(link).ok().filter(|to| to.starts_with(mountpoint));
    if inside(&process.join("cwd")).is_some() {
        return Some("works there".into());
    }
    if inside(&process.join("root")).is_some() {
        return Some("has its root there".into());
    }
    let files = fs::read_dir(process.join("fd")).ok()?;
    let file = files.flatten().find_map(|file| inside(&file.path()))?;
    Some(format!("has {} open", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_names_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let dir_path = dir.path().canonicalize().unwrap();
        assert_eq!(users_of(&dir_path), []);
        let file = fs::File::create(dir_path.join("f")).unwrap();
        let users = users_of(&dir_path);
        drop(file);
        assert_eq!(users.len(), 1);
        assert_eq!(users[0].pid, std::process::id());
        assert!(users[0].to_string().ends_with("/f open)"), "{}", users[0]);
    }
}
