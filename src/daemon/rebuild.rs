//! Putting a backup in the place of a catalog that is damaged.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::lock::BackingLock;
use super::{open_backing, open_state_dir};
use crate::catalog::backup::{self, Rebuilt};
use crate::config::MountConfig;

/// Puts the newest backup that is whole in the place of the catalog of a directory that nobody serves; the
/// next mount compares it with the directory and the store.
///
/// # Errors
/// If there never was one, a daemon serves the directory, or a file cannot be moved or made.
pub fn rebuild(backing: &Path, state: Option<PathBuf>) -> anyhow::Result<Rebuilt> {
    let mut config = MountConfig::new(backing, "");
    config.state = state;
    let root = open_backing(backing)?;
    if !config.state_dir().is_dir() {
        bail!("{} has no catalog that could be damaged", backing.display());
    }
    let _lock = BackingLock::take(&root, backing)?;
    let state = open_state_dir(&config, &root)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", state.as_raw_fd()));
    let mut rebuilt = backup::rebuild(&path, crate::clock::now_ns())
        .with_context(|| format!("state directory {}", config.state_dir().display()))?;
    let named = |found: &mut PathBuf| {
        if let Ok(below) = found.strip_prefix(&path) {
            *found = config.state_dir().join(below);
        }
    };
    rebuilt.from.iter_mut().for_each(|backup| named(&mut backup.path));
    rebuilt.aside.iter_mut().for_each(named);
    rebuilt.refused.iter_mut().for_each(|(path, _)| named(path));
    Ok(rebuilt)
}
