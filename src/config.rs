//! What a mount is asked to be, as plain values.
//!
//! Owns the settings of a mount with their defaults, and their text forms: the words after `-o`, the
//! lines of fstab and the configuration file. Never reads the environment, a file or a clock.

mod file;
mod fstab;
mod options;
mod snapshots;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use file::{ConfigFile, ConfigFileError};
pub use fstab::FstabError;
pub use options::OptionError;
pub use snapshots::SnapshotSettings;

use crate::retention::Retention;
use crate::sizespec::Rate;
use crate::snapshots::Require;
use crate::timespec::Span;

/// Name of the directory at the root of the backing directory that is Horace's own.
pub const OWN_DIR: &str = ".horace";

/// The configuration file that is read if none is named, and it is there.
pub const DEFAULT_FILE: &str = "/etc/horace/horace.toml";

/// Everything that `horace mount` can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountConfig {
    /// The real directory.
    pub backing: PathBuf,
    /// Where it is shown; may be the same.
    pub mountpoint: PathBuf,
    /// Whether it is mounted already.
    pub occasion: Occasion,
    /// Where the catalog lies; `None` for `.horace` in the backing directory.
    pub state: Option<PathBuf>,
    /// Whether the mount can be written.
    pub access: Access,
    /// Whether other users may use the mount; `None` for yes as root and no otherwise.
    pub allow_other: Option<bool>,
    /// Threads that serve the kernel; `None` for a number that fits the machine.
    pub threads: Option<NonZeroUsize>,
    /// How many descriptors may stay open for files that nobody has open; `None` for as many as help
    /// and the limit of the process allows.
    pub descriptors: Option<NonZeroUsize>,
    /// How written bytes travel.
    pub io: IoMode,
    /// Whether the kernel may go to the backing files by itself.
    pub passthrough: KernelPassthrough,
    /// What is done with content that is replaced.
    pub keep: Keep,
    /// How long after it was kept a content is packed; `None` for as long as is sensible.
    pub pack_after: Option<Duration>,
    /// How large packs become, in bytes; `None` for as large as is sensible.
    pub pack_limit: Option<NonZeroUsize>,
    /// Where the HTTP API listens.
    pub api: Api,
    /// Where it listens, too.
    pub api_also: Vec<Api>,
    /// The user with whose eyes those see through the API who show no key and are no users of this machine.
    pub api_guest: Option<String>,
    /// Names by which the API is reached, beside addresses and `localhost`.
    pub api_hosts: Vec<String>,
    /// The file with the certificate of the API; over the network it is served with TLS if there is one.
    pub api_cert: Option<PathBuf>,
    /// The file with its private key; `None` if that is in the same file.
    pub api_cert_key: Option<PathBuf>,
    /// How long the kernel may trust attributes and names.
    pub attr_timeout: Duration,
    /// Whether the backing directory is watched for changes around the mount.
    pub watch: Watch,
    /// A configuration file in place of the usual one.
    pub config: Option<PathBuf>,
    /// How often history is pruned without being asked.
    pub prune: Repeat,
    /// How often the catalog is copied.
    pub backup: Repeat,
    /// How often the backing directory is compared with the catalog, beside each start.
    pub reconcile: Repeat,
    /// Threads that do so; `None` for a number that suits the disk.
    pub reconcile_threads: Option<NonZeroUsize>,
    /// How fast they read content; `None` for a rate that suits the disk.
    pub reconcile_rate: Option<Rate>,
    /// What the backing directory lies on; `None` to find it out.
    pub disk: Option<Disk>,
    /// Which history is kept.
    pub retention: Arc<Retention>,
    /// What the backing directory has to lie on.
    pub require: Require,
    /// The dataset that it has to be; `None` for any.
    pub dataset: Option<String>,
    /// Whether snapshots are taken without being asked.
    pub snapshots: Snapshots,
    /// When, and how many stay.
    pub snapshot_settings: Arc<SnapshotSettings>,
    /// Words that are the kernel's business.
    pub flags: MountFlags,
}

impl MountConfig {
    /// A mount with every setting at its default.
    pub fn new(backing: impl Into<PathBuf>, mountpoint: impl Into<PathBuf>) -> Self {
        Self {
            backing: backing.into(),
            mountpoint: mountpoint.into(),
            occasion: Occasion::default(),
            state: None,
            access: Access::default(),
            allow_other: None,
            threads: None,
            descriptors: None,
            io: IoMode::default(),
            passthrough: KernelPassthrough::default(),
            keep: Keep::default(),
            pack_after: None,
            pack_limit: None,
            api: Api::default(),
            api_also: Vec::new(),
            api_guest: None,
            api_hosts: Vec::new(),
            api_cert: None,
            api_cert_key: None,
            attr_timeout: Duration::from_secs(1),
            watch: Watch::default(),
            config: None,
            prune: Repeat::default(),
            backup: Repeat::default(),
            reconcile: Repeat::Off,
            reconcile_threads: None,
            reconcile_rate: None,
            disk: None,
            retention: Arc::default(),
            require: Require::default(),
            dataset: None,
            snapshots: Snapshots::default(),
            snapshot_settings: Arc::default(),
            flags: MountFlags::default(),
        }
    }

    /// The state directory, given or by default.
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.backing.join(OWN_DIR))
    }

    /// Makes every path absolute, so that the daemon can leave its working directory.
    pub fn resolve_paths(&mut self, working_dir: &Path) {
        for path in [&mut self.backing, &mut self.mountpoint]
            .into_iter()
            .chain(&mut self.state)
            .chain(&mut self.config)
            .chain(&mut self.api_cert)
            .chain(&mut self.api_cert_key)
        {
            *path = working_dir.join(&*path);
        }
        for api in std::iter::once(&mut self.api).chain(&mut self.api_also) {
            if let Api::Unix(path) = api {
                *path = working_dir.join(&*path);
            }
        }
    }
}

/// What is asked for: a mount, or other flags for one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Occasion {
    /// It is to be mounted.
    #[default]
    Mount,
    /// It is mounted, and the kernel is to know other flags. What is the daemon's stays as it is.
    Remount,
}

/// Whether the mount can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Yes.
    #[default]
    ReadWrite,
    /// No: every change is refused with `EROFS`.
    ReadOnly,
}

/// How written bytes travel to the backing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoMode {
    /// As fits each open.
    #[default]
    Auto,
    /// Through the daemon, hashed as they pass.
    Stream,
    /// Inside the kernel, hashed after the close.
    Passthrough,
}

impl IoMode {
    /// The word for it, in options and in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Stream => "stream",
            Self::Passthrough => "passthrough",
        }
    }
}

/// Whether the kernel may go to the backing files by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KernelPassthrough {
    /// Where it can.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Whether the backing directory is watched for changes around the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watch {
    /// No: a start and a reconcile find them. The kernel can only watch the whole filesystem, and whoever
    /// writes to it pays for that.
    #[default]
    Off,
    /// Where the kernel can.
    Auto,
    /// Yes, or it is not mounted.
    On,
}

/// What is done with content that is replaced or deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// It is preserved.
    #[default]
    Content,
    /// It is let go; versions are recorded all the same.
    None,
}

/// How often something is done without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Never.
    Off,
    /// Each time that this has passed.
    Every(Span),
}

impl Default for Repeat {
    fn default() -> Self {
        Self::Every(Span::days(1))
    }
}

/// What the backing directory lies on, as far as it matters how hard it may be read in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Something that reads anything as fast as anything else.
    Ssd,
    /// Something with heads that move.
    Hdd,
    /// Another machine.
    Network,
}

impl Disk {
    /// The word for it, in options and in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ssd => "ssd",
            Self::Hdd => "hdd",
            Self::Network => "network",
        }
    }
}

/// Whether snapshots are taken without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Snapshots {
    /// Where the backing filesystem has some.
    #[default]
    On,
    /// Never.
    Off,
}

/// Where the HTTP API listens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Api {
    /// At no address, only at the daemon's own socket.
    Off,
    /// At the usual address, unless somebody else has it.
    #[default]
    Usual,
    /// At this address.
    Listen(SocketAddr),
    /// At this path.
    Unix(PathBuf),
}

impl Api {
    /// Where the API listens if nobody says where.
    pub const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
}

/// Words that are passed on to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountFlags {
    /// Set-user-id bits do not count.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Programs cannot be run.
    pub noexec: bool,
    /// Reading does not change access times.
    pub noatime: bool,
    /// Changes of directories are synchronous.
    pub dirsync: bool,
    /// Everything is synchronous.
    pub sync: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_taken_from_the_working_directory() {
        let mut config = MountConfig::new("data", "/mnt");
        config.state = Some("state".into());
        config.resolve_paths(Path::new("/srv"));
        assert_eq!(config.backing, Path::new("/srv/data"));
        assert_eq!(config.mountpoint, Path::new("/mnt"));
        assert_eq!(config.state_dir(), Path::new("/srv/state"));
        config.state = None;
        assert_eq!(config.state_dir(), Path::new("/srv/data/.horace"));
    }
}
