//! Mounting, serving and unmounting.
//!
//! Owns the mount point: the mount itself, its options, cleaning up a dead one. As root it mounts by
//! itself, with the type `fuse.horace`; as another user by `fusermount3`.
//!
//! # Why a restart ends what is open
//! The kernel's end of a connection can outlive the daemon whose end it was, if that hands `/dev/fuse` to the next.
//! But fuser begins every session, also that of a descriptor that it is given, with the greeting that the kernel sends
//! once in the life of a connection, and takes any other request for an error. So the next daemon mounts anew.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use super::Adapter;
use super::offload::Offload;
use crate::config::{Access, KernelPassthrough, MountConfig};
use crate::fs::{Fs, NodeId, Passthrough, Transport};
use crate::sys::{Errno, fuse_dev};

/// Why a mount failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no FUSE for us.
    #[error(
        "/dev/fuse cannot be opened: load the kernel module with `modprobe fuse`, and let whoever \
         mounts read and write the device"
    )]
    NoDevice(#[source] std::io::Error),
    /// The mount point cannot be used.
    #[error("cannot use the mount point {}", path.display())]
    Mountpoint {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel or fusermount refused.
    #[error("cannot mount at {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel and we do not understand each other.
    #[error("the kernel did not accept the FUSE connection")]
    Handshake(#[source] std::io::Error),
}

/// Whether the kernel serves files without us, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassthroughStatus {
    /// It does.
    pub enabled: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// What the kernel is told unasked.
#[derive(Debug)]
struct Notifications(fuser::Notifier);

impl Transport for Notifications {
    fn forget_attributes(&self, node: NodeId) {
        // No pages, for which the kernel would wait; what it does not know it cannot forget.
        if let Err(error) = self.0.inval_inode(fuser::INodeNo(node.0), -1, 0) {
            tracing::debug!(%error, "the kernel keeps the attributes of an inode");
        }
    }

    fn forget_content(&self, node: NodeId) {
        if let Err(error) = self.0.inval_inode(fuser::INodeNo(node.0), 0, 0) {
            tracing::debug!(%error, "the kernel keeps the content of an inode");
        }
    }

    fn forget_name(&self, parent: NodeId, name: &[u8]) {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(name);
        if let Err(error) = self.0.inval_entry(fuser::INodeNo(parent.0), name) {
            tracing::debug!(%error, "the kernel did not know a name");
        }
    }
}

/// A filesystem that is mounted and about to be served.
#[derive(Debug)]
pub struct Session {
    inner: fuser::Session<Adapter>,
    passthrough: PassthroughStatus,
}

impl Session {
    /// Mounts `fs` where `config` says, for `threads` threads. `probe` is some regular file on the
    /// backing filesystem, to ask the kernel whether it would serve it.
    ///
    /// # Errors
    /// See [`MountError`].
    pub fn mount(
        fs: Arc<Fs>,
        config: &MountConfig,
        threads: usize,
        probe: Option<OwnedFd>,
    ) -> Result<Self, MountError> {
        let path = &config.mountpoint;
        let adapter = Adapter {
            fs: Arc::clone(&fs),
            timeout: config.attr_timeout,
            wants_passthrough: config.passthrough == KernelPassthrough::Auto,
            offload: Offload::start().map_err(MountError::Handshake)?,
        };
        let root = rustix::process::geteuid().is_root();
        let mut options = fuser::Config::default();
        options.n_threads = Some(threads);
        options.clone_fd = threads > 1;
        let others = config.allow_other.unwrap_or(root);
        options.acl = if others { fuser::SessionACL::All } else { fuser::SessionACL::Owner };
        let inner = if root {
            let device = mount_as_root(config, others)?;
            fuser::Session::from_fd(adapter, device, options.acl, options).map_err(|error| {
                // Best effort: the error that counts is the other one.
                let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
                MountError::Handshake(error)
            })?
        } else {
            let read_write = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
            rustix::fs::access("/dev/fuse", read_write)
                .map_err(|error| MountError::NoDevice(error.into()))?;
            options.mount_options = user_options(config);
            fuser::Session::new(adapter, path, &options)
                .map_err(|source| MountError::Mount { path: path.clone(), source })?
        };
        fs.set_transport(Box::new(Notifications(inner.notifier())));
        let passthrough = probe_passthrough(&inner, &fs, config, probe);
        let possible =
            if passthrough.enabled { Passthrough::Possible } else { Passthrough::Impossible };
        fs.set_passthrough(possible);
        Ok(Self { inner, passthrough })
    }

    /// Whether the kernel serves files without us.
    pub fn passthrough(&self) -> &PassthroughStatus {
        &self.passthrough
    }

    /// Serves until the filesystem is unmounted.
    ///
    /// # Errors
    /// What ended the connection, if that was not an unmount.
    pub fn serve(self) -> std::io::Result<()> {
        self.inner.run().or_else(|error| match Errno::from_io_error(&error) {
            // It was cut off in the moment in which a request was taken.
            Some(Errno::CONNABORTED) => Ok(()),
            _ => Err(error),
        })
    }
}

fn mount_as_root(config: &MountConfig, others: bool) -> Result<OwnedFd, MountError> {
    let path = &config.mountpoint;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())
        .map_err(|error| MountError::NoDevice(error.into()))?;
    let at = rustix::fs::stat(path)
        .map_err(|error| MountError::Mountpoint { path: path.clone(), source: error.into() })?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&device);
    let mut data = format!(
        "fd={number},rootmode={:o},user_id=0,group_id=0,default_permissions",
        at.st_mode & libc::S_IFMT
    );
    if others {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).unwrap_or_default();
    let source = config.backing.as_os_str().as_bytes();
    rustix::mount::mount(source, path, "fuse.horace", mount_flags(config), data.as_c_str())
        .map_err(|error| MountError::Mount { path: path.clone(), source: error.into() })?;
    Ok(device)
}

/// Gives a mount that is there the flags of `config`.
///
/// # Errors
/// The kernel's.
pub fn remount(config: &MountConfig) -> Result<(), MountError> {
    let path = &config.mountpoint;
    rustix::mount::mount_remount(path, mount_flags(config), c"")
        .map_err(|error| MountError::Mount { path: path.clone(), source: error.into() })
}

fn mount_flags(config: &MountConfig) -> MountFlags {
    let f = &config.flags;
    let mut flags = MountFlags::empty();
    for (on, flag) in [
        (config.access == Access::ReadOnly, MountFlags::RDONLY),
        (f.nosuid, MountFlags::NOSUID),
        (f.nodev, MountFlags::NODEV),
        (f.noexec, MountFlags::NOEXEC),
        (f.noatime, MountFlags::NOATIME),
        (f.dirsync, MountFlags::DIRSYNC),
        (f.sync, MountFlags::SYNCHRONOUS),
    ] {
        flags.set(flag, on);
    }
    flags
}

fn user_options(config: &MountConfig) -> Vec<fuser::MountOption> {
    use fuser::MountOption as O;
    let f = &config.flags;
    // fuser passes the name on to fusermount, which splits at commas.
    let name = config.backing.to_string_lossy().replace(',', "\\,");
    let mut options = vec![O::FSName(name), O::Subtype("horace".into()), O::DefaultPermissions];
    for (on, option) in [
        (config.access == Access::ReadOnly, O::RO),
        (f.noexec, O::NoExec),
        (f.noatime, O::NoAtime),
        (f.dirsync, O::DirSync),
        (f.sync, O::Sync),
    ] {
        if on {
            options.push(option);
        }
    }
    options
}

/// Asks the kernel to serve a file, to find out whether it would.
fn probe_passthrough(
    session: &fuser::Session<Adapter>,
    fs: &Fs,
    config: &MountConfig,
    probe: Option<OwnedFd>,
) -> PassthroughStatus {
    let no = |reason: &str| PassthroughStatus { enabled: false, reason: Some(reason.into()) };
    if config.passthrough == KernelPassthrough::Off {
        return no("switched off by `passthrough=off`");
    }
    if !fs.kernel_serves() {
        return no("this kernel has no FUSE passthrough: Linux 6.9 or newer has");
    }
    let Some(probe) = probe else {
        return no("no file could be made in the backing directory to try it with");
    };
    match fuser::BackingId::create_raw(session.as_fd(), &probe) {
        Ok(id) => {
            if let Err(error) = fuse_dev::backing_close(session.as_fd(), id) {
                tracing::debug!(%error, "the file of the trial stays registered");
            }
            PassthroughStatus { enabled: true, reason: None }
        }
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::PERM) => no("the daemon lacks CAP_SYS_ADMIN"),
            Some(Errno::LOOP) => no("the backing filesystem is stacked too deeply"),
            Some(Errno::OPNOTSUPP | Errno::INVAL) => no("the backing filesystem refuses it"),
            _ => no(&format!("the kernel refused a backing file: {error}")),
        },
    }
}

/// Whether something is mounted at a path whose server is gone.
///
/// `stat` would not do: the kernel answers it by itself while it trusts what it was told.
pub fn is_dead(path: &Path) -> bool {
    matches!(rustix::fs::statfs(path), Err(Errno::NOTCONN | Errno::CONNABORTED))
}

/// The kernel's number of what is mounted at a path, also of a dead mount; `None` before Linux 5.8.
pub fn mount_id(path: &Path) -> Option<u64> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(CWD, path, flags, StatxFlags::MNT_ID).ok()?;
    let told = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
    told.then_some(found.stx_mnt_id)
}

/// Has the kernel hand over what users have stored to mapped files: it drops that with the connection.
///
/// # Errors
/// The kernel's.
pub fn write_back(path: &Path) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(rustix::fs::syncfs(root)?)
}

/// Takes away a mount, as hard as `how` says.
///
/// # Errors
/// `EBUSY` if it is in use; the kernel's or `fusermount3`'s.
pub fn unmount(path: &Path, how: Unmount) -> std::io::Result<()> {
    let flags = match how {
        Unmount::IfFree => UnmountFlags::NOFOLLOW,
        Unmount::Abort => UnmountFlags::NOFOLLOW | UnmountFlags::FORCE,
        Unmount::Detach => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    match rustix::mount::unmount(path, flags) {
        // It is in use, but dead.
        Err(Errno::BUSY) if how == Unmount::Abort => Ok(()),
        Err(Errno::PERM) => unmount_as_user(path, how),
        result => Ok(result?),
    }
}

/// How hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    IfFree,
    /// Break the connection to the kernel, and leave the mount in the tree if somebody uses it: everything
    /// then fails with `ENOTCONN`. `fusermount3` can only detach.
    Abort,
    /// Take it out of the tree now, and let its users finish.
    Detach,
}

fn unmount_as_user(path: &Path, how: Unmount) -> std::io::Result<()> {
    let mut command = std::process::Command::new("fusermount3");
    command.arg("-u");
    if how != Unmount::IfFree {
        command.arg("-z");
    }
    let output = command.arg("--").arg(path).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("busy") {
        return Err(Errno::BUSY.into());
    }
    Err(std::io::Error::other(text))
}
