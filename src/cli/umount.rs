//! `horace umount`.
//!
//! Owns the end of a mount as its user sees it: the kernel lets go of it first, then the daemon
//! commits what it has, and only then does this return.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::ProgressBar;
use rustix::mount::UnmountFlags;

use crate::control::registry::{self, Record};
use crate::sys::Errno;

use super::{Advised, Context, Outcome, Progress, busy};

/// Unmount, and return when everything is in the catalog
#[derive(Debug, clap::Args)]
pub(super) struct Umount {
    /// Where it is mounted
    mountpoint: PathBuf,
}

/// Whether to wait for users of the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Refused while it is used.
    Clean,
    /// At once, for a mount that nobody serves.
    Detach,
}

impl Umount {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let (mountpoint, life) = mountpoint_of(&context.working_dir.join(&self.mountpoint))?;
        let record = registry::find_mountpoint(&context.runtime_dirs, &mountpoint);
        if record.is_none() {
            must_be_mounted(&mountpoint)?;
        }
        match life {
            Life::Dead => unmount(&mountpoint, Manner::Detach)?,
            Life::Alive => unmount(&mountpoint, Manner::Clean)?,
        }
        if let Some(record) = record {
            wait_for_end(context, &record);
        }
        Ok(Outcome::Complete)
    }
}

/// Whether somebody serves a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// Its daemon is gone, and every access fails.
    Dead,
}

/// A directory without symlinks in its path, also if it is a mountpoint that nobody serves.
pub(super) fn mountpoint_of(path: &Path) -> anyhow::Result<(PathBuf, Life)> {
    let error = |path: &Path| format!("cannot use {} as a directory", path.display());
    match path.canonicalize() {
        // The kernel may know the root of a dead mount for a while, but has no figures of it.
        Ok(mountpoint) => match rustix::fs::statfs(&mountpoint) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => Ok((mountpoint, Life::Dead)),
            _ => Ok((mountpoint, Life::Alive)),
        },
        Err(cause) if matches!(cause.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)) => {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(cause).with_context(|| error(path));
            };
            let parent = parent.canonicalize().with_context(|| error(path))?;
            Ok((parent.join(name), Life::Dead))
        }
        Err(cause) => Err(cause).with_context(|| error(path)),
    }
}

/// Finds that the kernel has a Horace mount there, or says what to do.
pub(super) fn must_be_mounted(mountpoint: &Path) -> anyhow::Result<()> {
    if is_horace(mountpoint) {
        return Ok(());
    }
    let message = format!("no Horace mount at {}", mountpoint.display());
    Err(Advised::new(message, "`horace status` lists what is mounted").into())
}

fn is_horace(mountpoint: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The lines have the form of fstab.
    mounts.lines().any(|line| {
        let kind = line.split(' ').nth(2);
        kind == Some("fuse.horace")
            && crate::config::MountConfig::mountpoint_in(line).as_deref() == Some(mountpoint)
    })
}

fn unmount(mountpoint: &Path, manner: Manner) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        let flags = match manner {
            Manner::Clean => UnmountFlags::NOFOLLOW,
            Manner::Detach => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
        };
        return match rustix::mount::unmount(mountpoint, flags) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => Err(busy_error(mountpoint)),
            Err(Errno::INVAL) => Err(Advised::new(
                format!("nothing is mounted at {} any more", mountpoint.display()),
                "its daemon may still be committing: `horace status` shows it while it does",
            )
            .into()),
            Err(error) => {
                Err(error).with_context(|| format!("cannot unmount {}", mountpoint.display()))
            }
        };
    }
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if manner == Manner::Detach {
        command.arg("-z");
    }
    let output = match command.arg("--").arg(mountpoint).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_fusermount()),
        Err(error) => return Err(error).context("cannot run fusermount3"),
    };
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if told.to_lowercase().contains("busy") {
        return Err(busy_error(mountpoint));
    }
    anyhow::bail!("cannot unmount {}: {told}", mountpoint.display())
}

/// Neither root nor the helper that mounts for others.
pub(super) fn no_fusermount() -> anyhow::Error {
    Advised::new(
        "only root can mount and unmount without fusermount3, which is not installed",
        "install the package fuse3, or run as root",
    )
    .into()
}

fn busy_error(mountpoint: &Path) -> anyhow::Error {
    let users = busy::users_of(mountpoint);
    let names: Vec<String> = users.iter().take(5).map(ToString::to_string).collect();
    let more = match users.len().saturating_sub(names.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let by =
        if names.is_empty() { String::new() } else { format!(" by {}{more}", names.join(", ")) };
    Advised::new(
        format!("{} is in use{by}", mountpoint.display()),
        "end what uses it and try again, or leave its directories",
    )
    .into()
}

/// Waits until the daemon has committed everything: then its entry goes, or its process.
fn wait_for_end(context: &Context, record: &Record) {
    let bar = match context.progress {
        Progress::Shown => ProgressBar::new_spinner().with_message("committing to the catalog"),
        Progress::Hidden => ProgressBar::hidden(),
    };
    let registered = || {
        registry::find_mountpoint(&context.runtime_dirs, &record.mountpoint)
            .is_some_and(|now| now.pid == record.pid)
    };
    while registered() && record.process_exists() {
        bar.tick();
        std::thread::sleep(Duration::from_millis(20));
    }
    bar.finish_and_clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symlink_leads_to_the_mountpoint() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("m");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("m", dir.path().join("link")).unwrap();
        let found = mountpoint_of(&dir.path().join("link")).unwrap();
        assert_eq!(found, (real, Life::Alive));
        let error = mountpoint_of(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("as a directory"), "{error:#}");
    }

    #[test]
    fn only_horace_is_unmounted() {
        assert!(!is_horace(Path::new("/proc")));
        assert!(!is_horace(Path::new("/none")));
    }
}
