//! A mount for tests: its own directories, its own daemon process, gone when dropped.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use horace::catalog::Reader;

/// Says loudly that a test cannot run here, or fails where it must.
pub(crate) fn can_mount() -> bool {
    let can = rustix::process::geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        assert!(
            std::env::var_os("REQUIRE_FUSE").is_none(),
            "REQUIRE_FUSE is set, but this is not root or there is no /dev/fuse"
        );
        eprintln!("SKIPPED: mount tests need root and /dev/fuse");
    }
    can
}

/// A mounted directory and the process that serves it.
pub(crate) struct Mounted {
    dir: tempfile::TempDir,
    pub(crate) backing: PathBuf,
    pub(crate) mountpoint: PathBuf,
    pub(crate) runtime: PathBuf,
    options: String,
    daemon: Option<Child>,
}

/// Where the scratch directories of tests lie: `HORACE_TEST_DIR`, or the usual place.
pub(crate) fn scratch() -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("horace-");
    match std::env::var_os("HORACE_TEST_DIR") {
        Some(dir) => builder.tempdir_in(dir).unwrap(),
        None => builder.tempdir().unwrap(),
    }
}

impl Mounted {
    /// Mounts an empty directory.
    pub(crate) fn new() -> Self {
        Self::with_options("")
    }

    /// Mounts an empty directory with words for `-o`.
    pub(crate) fn with_options(options: &str) -> Self {
        Self::prepared(options, |_| {})
    }

    /// Mounts a directory that `prepare` has filled.
    pub(crate) fn prepared(options: &str, prepare: impl FnOnce(&Path)) -> Self {
        let mut mounted = Self::unmounted(options);
        prepare(&mounted.backing);
        mounted.start();
        mounted
    }

    /// Mounts an empty directory with a configuration file.
    pub(crate) fn configured(options: &str, text: &str) -> Self {
        let mut mounted = Self::unmounted(options);
        mounted.configure(text);
        mounted.start();
        mounted
    }

    /// Gives the next start a configuration file.
    pub(crate) fn configure(&mut self, text: &str) {
        let file = self.scratch("horace.toml");
        std::fs::write(&file, text).unwrap();
        self.options = format!("{},config={}", self.options, file.display());
    }

    /// Mounts a directory that `prepare` has filled over itself.
    pub(crate) fn over_itself(options: &str, prepare: impl FnOnce(&Path)) -> Self {
        let mut mounted = Self::unmounted(options);
        prepare(&mounted.backing);
        mounted.mountpoint = mounted.backing.clone();
        mounted.start();
        mounted
    }

    /// Mounts an empty directory of another filesystem.
    pub(crate) fn on(filesystem: &Path, options: &str) -> Self {
        let mut mounted = Self::unmounted_on(filesystem.join("backing"), options);
        std::fs::create_dir(&mounted.backing).unwrap();
        mounted.start();
        mounted
    }

    /// The directories only, with a backing directory that is somewhere else.
    pub(crate) fn unmounted_on(backing: PathBuf, options: &str) -> Self {
        let mut mounted = Self::unmounted(options);
        mounted.backing = backing;
        mounted
    }

    /// The directories only.
    pub(crate) fn unmounted(options: &str) -> Self {
        let dir = scratch();
        let [backing, mountpoint, runtime] =
            ["backing", "mount", "run"].map(|name| dir.path().join(name));
        for path in [&backing, &mountpoint, &runtime] {
            std::fs::create_dir(path).unwrap();
        }
        // Other users' tests must get in.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let options = format!("api=off,{options}");
        Self { dir, backing, mountpoint, runtime, options, daemon: None }
    }

    /// Another place in the scratch directory.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program with this mount's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_horace"));
        command.env("HORACE_RUNTIME_DIR", &self.runtime).env("NO_COLOR", "1");
        command
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) fn start(&mut self) {
        self.start_by(self.command());
    }

    /// Starts the daemon with a limit of open files.
    pub(crate) fn start_with_limit(&mut self, limit: u64) {
        let horace = self.command();
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(horace.get_program());
        command.envs(horace.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.start_by(command);
    }

    /// Starts the daemon by a command that runs the program.
    pub(crate) fn start_by(&mut self, mut command: Command) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.scratch("daemon.log"))
            .unwrap();
        let child = command
            .args(["mount", "--foreground", "-o", &self.options])
            .args([&self.backing, &self.mountpoint])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemon = Some(child);
        self.wait_for("mount", || self.is_mounted() && self.is_registered());
    }

    /// Starts the daemon as a user does, in the background; whoever calls this unmounts it.
    pub(crate) fn start_in_background(&mut self) {
        // The daemon has the log's descriptor until it serves.
        let log = std::fs::File::create(self.scratch("start.log")).unwrap();
        let status = self
            .command()
            .args(["mount", "-o", &self.options])
            .args([&self.backing, &self.mountpoint])
            .stderr(log)
            .status()
            .unwrap();
        let told = std::fs::read_to_string(self.scratch("start.log")).unwrap();
        assert!(status.success(), "{told}");
    }

    /// Waits until the daemon has ended by itself, in order.
    pub(crate) fn wait_for_end(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let mut status = None;
        self.wait_for("end of the daemon", || {
            status = daemon.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "the daemon ended with {status:?}:\n{}", self.log());
    }

    fn is_registered(&self) -> bool {
        std::fs::read_dir(&self.runtime)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
            // One that was killed has left its entry there.
            .any(|record: serde_json::Value| record["pid"] == self.pid())
    }

    /// Whether the kernel has a Horace mount there.
    pub(crate) fn is_mounted(&self) -> bool {
        let mounts = std::fs::read("/proc/self/mountinfo").unwrap();
        let at = [b" ".as_slice(), self.mountpoint.as_os_str().as_bytes(), b" "].concat();
        mounts.split(|b| *b == b'\n').any(|line| {
            line.windows(at.len()).any(|w| w == at)
                && line.windows(13).any(|w| w == b" fuse.horace ")
        })
    }

    /// Waits for a condition; a test that waits too long fails with the daemon's log.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        self.wait_up_to(Duration::from_secs(60), what, condition);
    }

    /// Waits for a condition that may take its time.
    #[track_caller]
    pub(crate) fn wait_up_to(
        &self,
        time: Duration,
        what: &str,
        mut condition: impl FnMut() -> bool,
    ) {
        let deadline = Instant::now() + time;
        while !condition() {
            assert!(Instant::now() < deadline, "no {what} within {time:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What the daemon has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.scratch("daemon.log")).unwrap_or_default()
    }

    /// Runs the program and returns what it printed.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Output {
        self.command().args(args).current_dir(&self.mountpoint).output().unwrap()
    }

    /// Runs the program where no mount is needed.
    pub(crate) fn run_at_root<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Output {
        self.command().args(args).current_dir("/").output().unwrap()
    }

    /// Mounts with other words for `-o` from now on.
    pub(crate) fn set_options(&mut self, options: &str) {
        self.options = format!("api=off,{options}");
    }

    /// Mounts with these words for `-o` and no others from now on.
    pub(crate) fn set_all_options(&mut self, options: &str) {
        self.options = options.into();
    }

    /// Runs the program, which may do only a part, and returns its standard output.
    pub(crate) fn ok_or_partial<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> String {
        let output = self.run(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 3)), "{told}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs the program, which must succeed, and returns its standard output.
    pub(crate) fn ok<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> String {
        let output = self.run(args);
        assert!(
            output.status.success(),
            "{:?} failed: {}\n{}",
            args.iter().map(AsRef::as_ref).collect::<Vec<_>>(),
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until everything that was closed is in the catalog.
    pub(crate) fn sync(&self) {
        self.ok(&["sync", "."]);
    }

    /// A connection to the catalog, which sees what was synced.
    pub(crate) fn catalog(&self) -> Reader {
        Reader::open(&self.backing.join(".horace/catalog.db")).unwrap()
    }

    /// Waits until the comparison with the backing directory is over.
    pub(crate) fn wait_reconciled(&self) {
        self.wait_for("end of the reconcile", || self.status()["reconcile"]["state"] == "done");
    }

    /// What `status` says.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.ok(&["status", "--json", "."])).unwrap()
    }

    /// Whether the daemon is dead.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.daemon.as_mut().is_none_or(|daemon| matches!(daemon.try_wait(), Ok(Some(_))))
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// Unmounts in order and waits for the daemon's end.
    pub(crate) fn umount(&mut self) {
        // A child of another test has our descriptors until it runs its program.
        let mut tries = 0;
        loop {
            let umount = &["umount".as_ref(), self.mountpoint.as_os_str()];
            let output = self.run_at_root(umount);
            let told = String::from_utf8_lossy(&output.stderr);
            if output.status.success() {
                break;
            }
            tries += 1;
            assert!(told.contains(" is in use by ") && tries < 20, "{told}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let status = self.daemon.take().unwrap().wait().unwrap();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
    }

    /// Unmounts, and mounts again as a user does; whoever calls this unmounts it.
    pub(crate) fn remount_in_background(&mut self) {
        self.umount();
        self.start_in_background();
    }

    /// Unmounts and mounts again.
    pub(crate) fn remount(&mut self) {
        self.umount();
        self.start();
        self.wait_reconciled();
    }

    /// Kills the daemon, leaving a dead mount.
    pub(crate) fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }
}

impl Mounted {
    /// Takes every mount away from the mountpoint.
    pub(crate) fn detach(&self) {
        while self.is_mounted() {
            let flags = rustix::mount::UnmountFlags::DETACH;
            if rustix::mount::unmount(&self.mountpoint, flags).is_err() {
                break;
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Also after a failed assertion no mount and no daemon may be left behind.
        self.detach();
        if let Some(mut daemon) = self.daemon.take() {
            let deadline = Instant::now() + Duration::from_secs(5);
            while Instant::now() < deadline && matches!(daemon.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
            // It may have been about to mount.
            self.detach();
        }
        if std::thread::panicking() {
            eprintln!("daemon log:\n{}", self.log());
        }
    }
}
