//! `horace mount`.
//!
//! Owns the start of a daemon in the background. There is no fork: this program starts itself again
//! with a pipe as stdout, in a session of its own, and waits there for one line that says that the
//! mount serves. Until then the daemon's errors go to the stderr of whoever started it; from then on
//! to the log file in the state directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags};

use crate::config::{ConfigFile, DEFAULT_FILE, MountConfig, OWN_DIR, Occasion};

use super::logging::LogFormat;
use super::umount::{Life, mountpoint_of, must_be_mounted, no_fusermount};
use super::{Advised, Context, Global, Outcome};

/// What the daemon says when the mount serves.
const READY: &str = "ready";
/// Name of the daemon's log in the state directory.
const LOG_FILE: &str = "horace.log";

/// Mount a directory, and return when the mount serves
#[derive(Debug, clap::Args)]
#[command(after_help = OPTIONS)]
pub(super) struct Mount {
    /// Stay in the foreground, and log to stderr
    #[arg(short, long)]
    foreground: bool,
    /// Set options, separated by commas; may be repeated
    #[arg(short, value_name = "OPT[,OPT...]")]
    options: Vec<String>,
    /// Be the daemon that another `horace mount` waits for
    #[arg(long, hide = true, conflicts_with = "foreground")]
    serve: bool,
    /// The directory to remember
    backing: PathBuf,
    /// Where to show it; may be BACKING itself
    mountpoint: PathBuf,
}

const OPTIONS: &str = "\
Options for -o (for each NAME=VALUE there is a variable HORACE_NAME, too):
  state=DIR           keep the catalog there [default: BACKING/.horace]
  ro, rw              mount for reading only, or for writing [default: rw]
  allow_other         let other users use the mount [default: as root]
  io=MODE             how written bytes travel: auto, stream or passthrough [default: auto]
  passthrough=MODE    let the kernel go to the backing files: auto or off [default: auto]
  keep=WHAT           preserve replaced content, or let it go: content or none [default: content]
  threads=N           serve with so many threads
  descriptors=N       keep so many open for files that nobody uses [default: 16384, or a
                      quarter of the limit of open files]
  prune=SPAN, prune=off  prune history that often by itself, or never [default: 1d]
  backup=SPAN, backup=off  copy the catalog that often, or never [default: 1d]
  reconcile=SPAN, reconcile=off  compare the directory with the catalog that often,
                      beside each start, or only then [default: off]
  disk=KIND           what the directory lies on: ssd, hdd or network, by which a
                      reconcile takes its threads and rate [default: network on NFS,
                      SMB and the like, else ssd]
  reconcile_threads=N  let N threads compare [default: ssd one a core up to 4, hdd 1,
                      network 4]
  reconcile_rate=BYTES  let them read so much in a second, 50M, or max [default: ssd
                      max, hdd 64M, network 32M]
  attr_timeout=SECONDS  let the kernel trust attributes for so long [default: 1]
  watch=WHEN          find changes around the mount at once: off, auto (where the kernel can) or
                      on (or do not mount) [default: off]
  snapshots=on|off    take snapshots by a schedule where the filesystem has some [default: on]
  dataset=POOL/NAME   mount only that ZFS dataset
  require=KIND        mount only what lies on zfs or btrfs, so that snapshots can be taken
  api=WHERE           serve the HTTP API there: ADDRESS:PORT, unix:PATH, or off [default:
                      127.0.0.1:8000 if it is free]
  api_also=ADDRESS:PORT|unix:PATH
                      serve it there, too; may be given several times
  api_guest=USER      let who shows no key and is no user of this machine see what USER may
  api_host=NAME       the API is reached by that name, too; may be given several times
  api_cert=FILE       serve the API over TLS, with the certificates in this PEM file
  api_cert_key=FILE   the private key is in that PEM file [default: in the same]
  config=FILE         read settings from there [default: /etc/horace/horace.toml]
  nosuid, nodev, noexec, noatime, dirsync, sync, remount  as for any mount
Words of fstab for others (_netdev, nofail, x-systemd.*, ...) are ignored.";

/// The daemon in the background failed, and has said why.
#[derive(Debug, thiserror::Error)]
#[error("the daemon ended with code {0}")]
pub(super) struct ChildFailed(pub(super) u8);

impl Mount {
    pub(super) fn run(
        self,
        context: &Context,
        global: &Global,
        environment: &[String],
    ) -> anyhow::Result<Outcome> {
        if self.serve || self.foreground {
            // A descriptor of somebody else's would stay open for as long as the mount serves.
            crate::sys::privileges::close_inherited();
        }
        let mut config = self.config(&context.working_dir, environment)?;
        check(&mut config)?;
        if config.occasion == Occasion::Remount {
            must_be_mounted(&config.mountpoint)?;
            crate::daemon::remount(&config)?;
            return Ok(Outcome::Complete);
        }
        let runtime_dir = context.own_runtime_dir.clone().ok_or_else(|| {
            Advised::new(
                "there is no directory for the daemon's socket",
                "set XDG_RUNTIME_DIR or HORACE_RUNTIME_DIR to a directory of your own",
            )
        })?;
        if self.serve {
            // A session of its own: nothing that ends a terminal ends the daemon. It fails only
            // where it already leads one.
            let _ = rustix::process::setsid();
            // The kernel calls it `exe` after the link it was started by.
            let _ = rustix::thread::set_name(c"horace");
            let log = LogDir::open(&config);
            crate::daemon::run(config, runtime_dir, move || detach(&log))?;
        } else if self.foreground {
            crate::daemon::run(config, runtime_dir, || tracing::info!("the mount serves"))?;
        } else {
            self.start(&config, global, &runtime_dir)?;
        }
        Ok(Outcome::Complete)
    }

    /// Everything that was asked for, with absolute paths.
    fn config(&self, working_dir: &Path, environment: &[String]) -> anyhow::Result<MountConfig> {
        let given = |mut config: MountConfig| -> anyhow::Result<MountConfig> {
            for words in environment.iter().chain(&self.options) {
                config.apply_options(words)?;
            }
            config.resolve_paths(working_dir);
            Ok(config)
        };
        let mut config = MountConfig::new(&self.backing, &self.mountpoint);
        // Which file it is has to be known before what is in it, over which the others go.
        let named = given(config.clone())?.config;
        if let Some(file) = read_file(named.as_deref())? {
            file.apply(&mut config);
        }
        given(config)
    }

    /// Starts the daemon and waits for it.
    fn start(
        &self,
        config: &MountConfig,
        global: &Global,
        runtime_dir: &Path,
    ) -> anyhow::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("horace").args(["mount", "--serve"]);
        // Secrets of whoever starts it are not for a process that stays.
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| is_for_daemon(name)));
        if global.quiet {
            command.arg("--quiet");
        }
        command.args((0..global.verbose).map(|_| "--verbose"));
        if global.log_format == LogFormat::Json {
            command.args(["--log-format", "json"]);
        }
        command.arg("--runtime-dir").arg(runtime_dir);
        for words in &self.options {
            command.arg("-o").arg(words);
        }
        // Relative paths in the options stay right: the daemon leaves the directory only later.
        let mut child = command
            .arg("--")
            .args([&config.backing, &config.mountpoint])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the daemon")?;
        let stdout = child.stdout.take().context("the daemon has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("cannot hear from the daemon")?;
        if line.trim_end() == READY {
            return Ok(());
        }
        let status = child.wait().context("cannot wait for the daemon")?;
        match status.code().map(u8::try_from) {
            Some(Ok(code)) if code != 0 => Err(ChildFailed(code).into()),
            _ => anyhow::bail!("the daemon ended before the mount served: {status}"),
        }
    }
}

/// Whether the daemon has a use for a variable: its own settings but no key, the place of `fusermount3`, the time
/// zone, and what helps to find an error.
fn is_for_daemon(name: &OsStr) -> bool {
    const KNOWN: [&str; 9] = [
        "PATH",
        "TZ",
        "XDG_RUNTIME_DIR",
        "NO_COLOR",
        "RUST_BACKTRACE",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "ENABLE_ZFS_SNAPSHOTS",
        "ZFS_DATASET",
    ];
    (name.as_bytes().starts_with(b"HORACE_") && name != "HORACE_KEY")
        || KNOWN.iter().any(|known| name == *known)
}

/// Reads the configuration file that was named, or the usual one if it is there.
fn read_file(named: Option<&Path>) -> anyhow::Result<Option<ConfigFile>> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(ConfigFile::parse(path, &text)?)),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error)
            .with_context(|| format!("cannot read the configuration file {}", path.display())),
    }
}

/// Finds what the user can mend before a daemon starts, and takes the symlinks out of the paths.
fn check(config: &mut MountConfig) -> anyhow::Result<()> {
    for dir in [&mut config.backing, &mut config.mountpoint] {
        // What a dead mount covers is seen only once the daemon has cleared it away.
        let (path, life) = mountpoint_of(dir)?;
        if life == Life::Alive && !path.is_dir() {
            return Err(Advised::new(
                format!("{} is no directory", path.display()),
                "BACKING comes first, then MOUNTPOINT; both must be directories",
            )
            .into());
        }
        *dir = path;
    }
    if !rustix::process::geteuid().is_root()
        && let Err(error) = Command::new("fusermount3").arg("-V").output()
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return Err(no_fusermount());
    }
    Ok(())
}

/// The directory of the log, opened before the mount may cover it.
struct LogDir {
    dir: Option<OwnedFd>,
    /// The log's path in it.
    path: PathBuf,
}

impl LogDir {
    fn open(config: &MountConfig) -> Self {
        let (dir, path) = match &config.state {
            Some(state) => (Path::new("/"), state.join(LOG_FILE)),
            None => (&*config.backing, Path::new(OWN_DIR).join(LOG_FILE)),
        };
        Self {
            dir: rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok(),
            path,
        }
    }

    fn create(&self) -> Option<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
        let path = self.path.strip_prefix("/").unwrap_or(&self.path);
        let file = rustix::fs::openat(self.dir.as_ref()?, path, flags, Mode::RUSR | Mode::WUSR);
        file.ok().map(File::from)
    }
}

/// Says that the mount serves, and lets go of the terminal.
fn detach(log: &LogDir) {
    // Whoever waited may be gone; the mount serves all the same.
    let _ = writeln!(std::io::stdout(), "{READY}");
    let _ = std::env::set_current_dir("/");
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else {
        return;
    };
    let log = log.create().or_else(|| null.try_clone().ok());
    let redirected = rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null)));
    if let Err(error) = redirected {
        tracing::warn!(%error, "cannot let go of the terminal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mount: Mount,
    }

    fn parse(line: &str) -> Mount {
        Line::parse_from(line.split(' ')).mount
    }

    #[test]
    fn options_come_over_the_environment() {
        let mount = parse("mount -o ro,threads=2 -o threads=3 data /m");
        let environment = ["threads=1".into(), "io=stream".into()];
        let config = mount.config(Path::new("/w"), &environment).unwrap();
        assert_eq!(config.threads.map(std::num::NonZeroUsize::get), Some(3));
        assert_eq!(config.io, crate::config::IoMode::Stream);
        assert_eq!(config.access, crate::config::Access::ReadOnly);
        assert_eq!(config.backing, Path::new("/w/data"));
    }

    #[test]
    fn bad_directories_are_told_before_anything_starts() {
        let told = |backing: &str| {
            let error = check(&mut MountConfig::new(backing, "/")).unwrap_err();
            format!("{error:#}")
        };
        let missing = "cannot use /nonexistent/b as a directory: No such file or directory";
        assert!(told("/nonexistent/b").starts_with(missing));
        assert_eq!(told("/dev/null"), "/dev/null is no directory");
    }

    #[test]
    fn the_log_lies_in_the_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = MountConfig::new(dir.path(), "/m");
        let log = LogDir::open(&config);
        assert!(log.create().is_none());
        std::fs::create_dir(dir.path().join(OWN_DIR)).unwrap();
        assert!(log.create().is_some());
        config.state = Some(dir.path().into());
        assert!(LogDir::open(&config).create().is_some());
        assert!(dir.path().join(LOG_FILE).exists());
    }
}
