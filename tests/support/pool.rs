//! ZFS for tests, wherever they run: a pool in a file, served by the kernel if it has ZFS, and else by zfs-fuse.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::tools::{have, must};

/// Where zfs-fuse listens. There can be one on a machine.
const SOCKET: &str = "/var/run/zfs/zfs_socket";

/// A pool of its own. Make it before what uses it, so that it goes after.
pub(crate) struct Pool {
    name: String,
    served: Option<Child>,
    dir: tempfile::TempDir,
    _one: File,
}

impl Pool {
    /// A pool with a dataset `files`; says loudly if there is no ZFS.
    pub(crate) fn new() -> Option<Self> {
        let in_kernel = Path::new("/dev/zfs").exists();
        if !have(&["zfs", "zpool"]) || !(in_kernel || have(&["zfs-fuse"])) {
            return None;
        }
        // One at a time, also of tests in other processes.
        let one = File::create(std::env::temp_dir().join("horace-zfs-fuse.lock")).unwrap();
        one.lock().unwrap();
        let dir = tempfile::Builder::new().prefix("horace-pool-").tempdir().unwrap();
        let served = (!in_kernel).then(|| {
            std::fs::create_dir_all("/var/run/zfs").unwrap();
            std::fs::create_dir_all("/var/lock/zfs").unwrap();
            let mut serve = Command::new("zfs-fuse");
            serve.args(["--no-daemon", "--no-kstat-mount"]).stdin(Stdio::null());
            serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let pool = Self { name, served, dir, _one: one };
        pool.wait();
        let image = pool.dir.path().join("image");
        File::create(&image).unwrap().set_len(4 << 30).unwrap();
        let mut create = Command::new("zpool");
        create.args(["create", "-m"]).arg(pool.dir.path().join("pool")).arg(&pool.name);
        must(create.arg(&image));
        pool.zfs(&["create"], "/files");
        Some(pool)
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !Command::new("zpool").arg("list").output().unwrap().status.success() {
            assert!(Instant::now() < until, "zfs-fuse does not listen at {SOCKET}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs `zfs` on something in the pool (`/files@NAME`), and returns what that printed.
    pub(crate) fn zfs(&self, args: &[&str], what: &str) -> String {
        must(Command::new("zfs").args(args).arg(format!("{}{what}", self.name)))
    }

    /// Whether it is served by zfs-fuse.
    pub(crate) fn is_fuse(&self) -> bool {
        self.served.is_some()
    }

    /// The dataset's name.
    pub(crate) fn dataset(&self) -> String {
        format!("{}/files", self.name)
    }

    /// The root of the dataset.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("pool/files")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // A file that was closed a moment ago keeps it busy.
        for _ in 0..100 {
            let mut destroy = Command::new("zpool");
            let destroyed = destroy.args(["destroy", "-f", &self.name]).output();
            if destroyed.is_ok_and(|output| output.status.success()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if let Some(mut served) = self.served.take() {
            let _ = served.kill();
            let _ = served.wait();
            let _ = std::fs::remove_file(SOCKET);
        }
    }
}
