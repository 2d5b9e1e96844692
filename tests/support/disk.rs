//! Filesystems of their own for tests: a disk in a file, mounted, gone when dropped.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;

use crate::tools::{have, must};

/// A mounted filesystem on a loop device. Make it before what uses it, so that it goes after.
pub(crate) struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// A filesystem of a kind (`ext4`, `xfs`, `btrfs`) and size, made with `mkfs` and mounted with
    /// `-o options`; nothing where the tools are missing.
    pub(crate) fn new(kind: &str, mebibytes: u64, mkfs: &[&str], options: &str) -> Option<Self> {
        Self::within(None, kind, mebibytes, mkfs, options)
    }

    /// The same in a directory of a filesystem, from which it can be [copied](Disk::copy) at one moment
    /// while it is in use, if blocks can be shared there.
    pub(crate) fn within(
        dir: Option<PathBuf>,
        kind: &str,
        mebibytes: u64,
        mkfs: &[&str],
        options: &str,
    ) -> Option<Self> {
        let program = format!("mkfs.{kind}");
        if !have(&[&program]) {
            return None;
        }
        let dir = Self::new_dir(dir.as_deref());
        let image = dir.path().join("image");
        std::fs::File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        must(Command::new(program).args(mkfs).arg(&image));
        let disk = Self { dir };
        std::fs::create_dir(disk.path()).unwrap();
        let options = format!("loop,{options}");
        must(Command::new("mount").args(["-o", &options]).arg(&image).arg(disk.path()));
        Some(disk)
    }

    /// A filesystem whose image is packed in an archive, under the name `image`.
    pub(crate) fn unpack(archive: &Path) -> Self {
        let disk = Self { dir: Self::new_dir(None) };
        let mut tar = Command::new("tar");
        tar.args(["--zstd", "--extract", "--file"]).arg(archive);
        must(tar.arg("--directory").arg(disk.dir.path()));
        std::fs::create_dir(disk.path()).unwrap();
        disk.mount();
        disk
    }

    fn new_dir(within: Option<&Path>) -> tempfile::TempDir {
        let mut builder = tempfile::Builder::new();
        builder.prefix("horace-disk-");
        within.map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir)).unwrap()
    }

    /// A disk with what is on this one at the moment, and not what only the kernel has yet.
    pub(crate) fn copy(&self) -> Self {
        let copy = self.cut();
        copy.mount();
        copy
    }

    /// What a power cut leaves on the disk, not mounted yet.
    pub(crate) fn cut(&self) -> Self {
        let copy = Self { dir: Self::new_dir(self.dir.path().parent()) };
        let mut cp = Command::new("cp");
        cp.args(["--sparse=always", "--reflink=auto"]).arg(self.dir.path().join("image"));
        must(cp.arg(copy.dir.path().join("image")));
        std::fs::create_dir(copy.path()).unwrap();
        copy
    }

    /// Mounts what is not mounted yet.
    pub(crate) fn mount(&self) {
        let image = self.dir.path().join("image");
        must(Command::new("mount").args(["-o", "loop"]).arg(image).arg(self.path()));
    }

    /// Takes it away and mounts it again.
    pub(crate) fn remount(&mut self) {
        must(Command::new("umount").arg(self.path()));
        self.mount();
    }

    /// Its root.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Writes everything to the disk, and has nothing in memory that it could be read from instead.
    pub(crate) fn sync(&self) {
        must(Command::new("sync").arg("-f").arg(self.path()));
        std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    }

    /// Spoils some content where the disk has it, so that it cannot be read any more on a filesystem
    /// with checksums.
    pub(crate) fn damage(&self, content: &[u8]) {
        self.sync();
        let path = self.dir.path().join("image");
        let image = std::fs::read(&path).unwrap();
        let find = |block: &&[u8]| *block == content;
        let at = image.chunks(content.len()).position(|block| find(&block)).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let offset = (at * content.len()) as u64;
        file.write_all_at(&vec![0; content.len()], offset).unwrap();
        file.sync_all().unwrap();
    }

    /// Inverts a byte of a file where the disk has it: nothing of the filesystem shows it.
    pub(crate) fn rot(&self, file: &Path, offset: u64) {
        self.sync();
        let extents = must(Command::new("filefrag").args(["-v", "-b1"]).arg(file));
        // `0:        0..    4095:    8704..   12799:   4096: ...`, in bytes.
        let place = extents.lines().find_map(|line| {
            let numbers = line.split([':', '.', ' ']).filter(|word| !word.is_empty());
            let numbers: Vec<u64> = numbers.map_while(|word| word.parse().ok()).collect();
            let &[_, first, last, physical, ..] = &*numbers else { return None };
            (first..=last).contains(&offset).then(|| physical + offset - first)
        });
        let at = place.unwrap_or_else(|| panic!("no such byte of {}:\n{extents}", file.display()));
        let image = self.dir.path().join("image");
        let image = std::fs::File::options().read(true).write(true).open(image).unwrap();
        let mut byte = [0];
        image.read_exact_at(&mut byte, at).unwrap();
        image.write_all_at(&[!byte[0]], at).unwrap();
        image.sync_all().unwrap();
        self.sync();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The loop device goes with the last user.
        let _ = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// A ZFS dataset of its own, where tests run on ZFS. Make it before what uses it, so that it goes after.
pub(crate) struct Dataset {
    name: String,
}

impl Dataset {
    /// A dataset below the one that a directory lies on; says loudly if that is on no ZFS.
    pub(crate) fn below(dir: &Path) -> Option<Self> {
        let Some(parent) = Self::name_of(dir) else {
            eprintln!("SKIPPED: HORACE_TEST_DIR is on no ZFS, or there is no `zfs`");
            return None;
        };
        let unique = tempfile::Builder::new().prefix("horace-").tempdir_in(dir).unwrap();
        let unique = unique.path().file_name().unwrap().to_str().unwrap().to_owned();
        let dataset = Self { name: format!("{parent}/{unique}") };
        dataset.zfs(&["create"], "");
        Some(dataset)
    }

    /// The dataset that a directory lies on.
    pub(crate) fn name_of(dir: &Path) -> Option<String> {
        let listed = Command::new("zfs").args(["list", "-Ho", "name"]).arg(dir).output();
        let listed = listed.ok().filter(|output| output.status.success());
        let is_zfs = rustix::fs::statfs(dir).unwrap().f_type == 0x2fc1_2fc1;
        listed.filter(|_| is_zfs).map(|o| String::from_utf8(o.stdout).unwrap().trim().to_string())
    }

    /// Runs `zfs` on it, or on one of its snapshots (`@NAME`), and returns what that printed.
    pub(crate) fn zfs(&self, args: &[&str], suffix: &str) -> String {
        must(Command::new("zfs").args(args).arg(format!("{}{suffix}", self.name)))
    }

    /// Its root.
    pub(crate) fn path(&self) -> PathBuf {
        self.zfs(&["get", "-Ho", "value", "mountpoint"], "").trim().into()
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        // A file that was closed a moment ago keeps it busy.
        for _ in 0..50 {
            let mut destroy = Command::new("zfs");
            if destroy.args(["destroy", "-rf", &self.name]).status().is_ok_and(|s| s.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
