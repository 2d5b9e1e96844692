//! A directory that is moved into, for as long as that takes.
//!
//! Owns the lock on it, the same that a daemon takes: nobody serves it meanwhile, and nobody else moves into it.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::lock::BackingLock;
use super::{open_backing, open_state_dir};
use crate::config::MountConfig;

/// A directory that is this process's alone, with a state directory.
#[derive(Debug)]
#[must_use]
pub struct Claim {
    _lock: BackingLock,
    /// Where the catalog is to be.
    pub state_dir: PathBuf,
}

/// Makes a directory and its state directory, unless they are there, and locks it.
///
/// # Errors
/// If a daemon serves it, or something cannot be made.
pub fn claim(backing: &Path, state: Option<PathBuf>) -> anyhow::Result<Claim> {
    std::fs::create_dir_all(backing)
        .with_context(|| format!("cannot make {}", backing.display()))?;
    let root = open_backing(backing)?;
    let lock = BackingLock::take(&root, backing)?;
    let mut config = MountConfig::new(backing, "");
    config.state = state;
    open_state_dir(&config, &root)?;
    Ok(Claim { _lock: lock, state_dir: config.state_dir() })
}

/// Makes sure that no daemon serves a directory.
///
/// # Errors
/// If one does.
pub fn must_be_free(backing: &Path) -> anyhow::Result<()> {
    let root = open_backing(backing)?;
    BackingLock::take(&root, backing).map(drop)
}
