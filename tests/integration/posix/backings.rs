//! Backing directories on filesystems that are not like ext4: stacked ones, ones without handles, ones
//! that the kernel does not serve by itself, ones that cannot be written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount, scratch};
use crate::tools::{have, must, sha256, sha256_of};

/// A mounted filesystem, which is taken away in the end.
struct Stacked {
    mountpoint: PathBuf,
    // What lies below goes after it.
    _below: Below,
}

/// What a filesystem is made of.
struct Below {
    dir: tempfile::TempDir,
    #[expect(dead_code, reason = "held until the filesystem above it is gone")]
    under: Option<Under>,
}

#[expect(dead_code, reason = "held until the filesystem above it is gone")]
enum Under {
    Disk(Disk),
    Stacked(Box<Stacked>),
}

impl Stacked {
    fn mount(below: Below, args: &[&str]) -> Self {
        let dir = below.dir.path();
        let mountpoint = dir.join("stacked");
        fs::create_dir(&mountpoint).unwrap();
        must(Command::new(args[0]).args(&args[1..]).arg(&mountpoint).current_dir(dir));
        Self { mountpoint, _below: below }
    }

    /// An overlay whose lower directory has what `prepare` makes.
    fn overlay(options: &str, prepare: impl FnOnce(&Path)) -> Self {
        let dir = scratch();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        prepare(&dir.path().join("lower"));
        let at = |name: &str| dir.path().join(name).display().to_string();
        let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}{options}");
        Self::mount(
            Below { dir, under: None },
            &["mount", "-t", "overlay", "overlay", "-o", &options],
        )
    }

    /// An overlay whose lower directory lies on another filesystem than the upper one.
    fn overlay_of_two(prepare: impl FnOnce(&Path)) -> Option<Self> {
        let disk = Disk::new("ext4", 64, &["-q"], "")?;
        prepare(&disk.path());
        let dir = scratch();
        for name in ["upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lower = disk.path().display().to_string();
        let options = format!("lowerdir={lower},upperdir=upper,workdir=work");
        let args = ["mount", "-t", "overlay", "overlay", "-o", &options];
        Some(Self::mount(Below { dir, under: Some(Under::Disk(disk)) }, &args))
    }

    fn tmpfs() -> Self {
        Self::mount(Below { dir: scratch(), under: None }, &["mount", "-t", "tmpfs", "tmpfs"])
    }

    /// An overlay in an overlay: as deep as the kernel goes.
    fn overlay_of_overlay() -> Self {
        let below = Self::overlay("", |lower| fs::write(lower.join("below"), "below").unwrap());
        let dir = scratch();
        for name in ["upper", "work"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let lower = below.mountpoint.display();
        let options = format!("lowerdir={lower},upperdir=upper,workdir=work");
        let args = ["mount", "-t", "overlay", "overlay", "-o", &options];
        Self::mount(Below { dir, under: Some(Under::Stacked(Box::new(below))) }, &args)
    }
}

impl Drop for Stacked {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mountpoint, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Which filesystem to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Tmpfs,
    Overlay,
    OverlayOfTwo,
    ExportedOverlay,
    OverlayOfOverlay,
    Bindfs,
}

impl On {
    /// Mounts it; nothing where the tools are missing.
    fn mount(self) -> Option<Stacked> {
        Some(match self {
            On::Tmpfs => Stacked::tmpfs(),
            On::Overlay => Stacked::overlay("", |_| {}),
            On::ExportedOverlay => Stacked::overlay(",index=on,nfs_export=on", |_| {}),
            On::OverlayOfTwo => Stacked::overlay_of_two(|_| {})?,
            On::OverlayOfOverlay => Stacked::overlay_of_overlay(),
            On::Bindfs => {
                if !have(&["bindfs"]) {
                    return None;
                }
                let dir = scratch();
                fs::create_dir(dir.path().join("below")).unwrap();
                Stacked::mount(Below { dir, under: None }, &["bindfs", "below"])
            }
        })
    }

    /// Whether the kernel serves files of it, or the reason why not.
    fn passthrough(self) -> Option<&'static str> {
        (self == On::OverlayOfOverlay).then_some("the backing filesystem is stacked too deeply")
    }

    fn inodes_by(self) -> &'static str {
        match self {
            On::Tmpfs | On::ExportedOverlay => "handles",
            _ => "paths",
        }
    }
}

/// What everybody does with files; says what is there then.
fn work(dir: &Path) -> BTreeMap<PathBuf, String> {
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    for n in 0..60 {
        fs::create_dir(dir.join(format!("d{n}"))).unwrap();
        for m in 0..4 {
            fs::write(dir.join(format!("d{n}/f{m}")), format!("{n} {m}")).unwrap();
        }
    }
    // Held while everything else pushes its descriptors out.
    let mut held = File::options().read(true).write(true).open(dir.join("d3/f3")).unwrap();
    let gone = File::open(dir.join("d4/f0")).unwrap();
    fs::remove_file(dir.join("d4/f0")).unwrap();
    fs::rename(dir.join("d0"), dir.join("a/b/c/moved")).unwrap();
    fs::rename(dir.join("a/b"), dir.join("there")).unwrap();
    for n in 1..60 {
        let mut file = File::options().append(true).open(dir.join(format!("d{n}/f1"))).unwrap();
        file.write_all(b" more").unwrap();
    }
    fs::write(dir.join("there/c/moved/f2"), "changed under another name").unwrap();
    fs::rename(dir.join("there/c/moved/f3"), dir.join("there/f3")).unwrap();
    fs::hard_link(dir.join("d5/f0"), dir.join("hard")).unwrap();
    fs::remove_file(dir.join("d5/f0")).unwrap();
    std::os::unix::fs::symlink("hard", dir.join("link")).unwrap();
    fs::write(dir.join("save.tmp"), "saved").unwrap();
    fs::rename(dir.join("save.tmp"), dir.join("d6/f0")).unwrap();
    fs::remove_dir_all(dir.join("d7")).unwrap();
    fs::rename(dir.join("d3"), dir.join("d3-moved")).unwrap();
    held.write_all(b"held").unwrap();
    let mut text = String::new();
    (&gone).read_to_string(&mut text).unwrap();
    assert_eq!(text, "4 0");
    drop(gone);
    drop(held);
    // Names and numbers that come again.
    for n in 0..40 {
        fs::write(dir.join("again"), format!("number {n}")).unwrap();
        fs::remove_file(dir.join("again")).unwrap();
    }
    let sparse = File::create(dir.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 20).unwrap();
    drop(sparse);
    listing(dir)
}

/// Everything below a directory, with what it is and has.
fn listing(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(next) = dirs.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(dir).unwrap().to_path_buf();
            if name == Path::new(".horace") {
                continue;
            }
            let what = if meta.is_file() {
                format!("{} bytes, {}, {} links", meta.size(), sha256_of(&path), meta.nlink())
            } else if meta.is_dir() {
                dirs.push(path);
                String::from("a directory")
            } else {
                format!("{:?}", fs::read_link(&path).ok())
            };
            found.insert(name, format!("{:o} {what}", meta.mode()));
        }
    }
    found
}

#[rstest]
fn every_backing_filesystem_serves(
    #[values(
        On::Tmpfs,
        On::Overlay,
        On::OverlayOfTwo,
        On::ExportedOverlay,
        On::OverlayOfOverlay,
        On::Bindfs
    )]
    on: On,
    #[values("", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let Some(stacked) = on.mount() else { return };
    let plain = scratch();
    let expected = work(plain.path());
    let mut mounted = Mounted::unmounted_on(stacked.mountpoint.join("backing"), options);
    fs::create_dir(&mounted.backing).unwrap();
    mounted.start_with_limit(160);
    let same = |mut found: BTreeMap<PathBuf, String>| {
        if on == On::Bindfs {
            // It goes on for a second with the number of links that it has told once.
            let hard = found.get_mut(Path::new("hard")).unwrap();
            *hard = hard.replace("2 links", "1 links");
        }
        assert_eq!(found, expected);
    };
    same(work(&mounted.mountpoint));
    same(listing(&mounted.backing));
    let status = mounted.status();
    let passthrough = &status["passthrough"];
    let reason = match options {
        "" => on.passthrough(),
        _ => Some("switched off by `passthrough=off`"),
    };
    assert_eq!(passthrough["reason"].as_str(), reason, "{status:#}");
    assert_eq!(passthrough["enabled"], reason.is_none(), "{status:#}");
    assert_eq!(status["inodes_by"], on.inodes_by(), "{status:#}");
    mounted.assert_catalog_is_true();
    if on == On::Bindfs {
        // It has told old times of the file with two names, too, which is read again for that.
        mounted.remount();
        mounted.assert_manifest_passes();
    } else {
        mounted.assert_survives_remount();
    }
    // Around the mount, and seen by a reconcile.
    fs::write(mounted.backing.join("d8/f0"), "around the mount").unwrap();
    fs::rename(mounted.backing.join("d9"), mounted.backing.join("d9-moved")).unwrap();
    fs::remove_file(mounted.backing.join("d10/f0")).unwrap();
    mounted.remount();
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.log_of("d8/f0").last().unwrap()["sha256"], sha256("around the mount"));
    let versions = mounted.log_of("d9-moved/f1");
    assert_eq!(versions.last().unwrap()["sha256"], sha256("9 1 more"), "{versions:#?}");
}

/// What lies in the lower directory of an overlay becomes another file when it is first changed.
#[rstest]
fn files_from_below_an_overlay_keep_their_history(
    #[values("", "passthrough=off")] options: &str,
    #[values(On::Overlay, On::OverlayOfTwo)] on: On,
) {
    if !can_mount() {
        return;
    }
    let prepare = |lower: &Path| {
        fs::create_dir_all(lower.join("backing/d")).unwrap();
        for name in ["changed", "appended", "moved", "gone", "chmod", "cut", "d/f"] {
            fs::write(lower.join("backing").join(name), format!("below: {name}")).unwrap();
        }
    };
    let stacked = match on {
        On::Overlay => Stacked::overlay("", prepare),
        _ => Stacked::overlay_of_two(prepare).unwrap(),
    };
    let mut mounted = Mounted::unmounted_on(stacked.mountpoint.join("backing"), options);
    mounted.start();
    mounted.wait_reconciled();
    let reader = File::open(mounted.at("appended")).unwrap();
    mounted.shell(
        "printf changed 1<>changed; echo more >> appended; mv moved moved-away; rm gone
         chmod 600 chmod; : > cut; echo x > cut; echo new > new; mv d e 2> /dev/null || cp -r d e",
    );
    drop(reader);
    mounted.assert_catalog_is_true();
    let first = |path: &str| mounted.log_of(path)[0]["sha256"].as_str().unwrap().to_owned();
    for name in ["changed", "appended", "chmod", "cut"] {
        assert_eq!(first(name), sha256(format!("below: {name}")), "{name}");
    }
    assert_eq!(mounted.log_of("changed").len(), 2);
    assert_eq!(mounted.log_of("chmod").len(), 1);
    mounted.assert_survives_remount();
}

/// What nobody can write can still be read and catalogued, by a mount that says so.
#[test]
fn a_filesystem_that_is_never_written_is_served_read_only() {
    if !can_mount() || !have(&["mksquashfs"]) {
        return;
    }
    let dir = scratch();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    must(Command::new("bash").current_dir(&source).args([
        "-c",
        "mkdir -p a/b; echo one > a/f; echo two > a/b/g; ln a/f hard; ln -s a/f link; mkfifo fifo",
    ]));
    let image = dir.path().join("image");
    must(Command::new("mksquashfs").arg(&source).arg(&image).args(["-quiet", "-no-progress"]));
    let stacked = Stacked::mount(Below { dir, under: None }, &["mount", "-o", "loop", "image"]);
    let below = |options: &str| Mounted::unmounted_on(stacked.mountpoint.clone(), options);
    // There is no room for the catalog, which it says, with what to do.
    let refused = below("");
    let mut command = refused.command();
    command.arg("mount").args([&refused.backing, &refused.mountpoint]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && told.contains("`-o state=DIR`"), "{told}");
    for options in ["ro", "ro,passthrough=off", "rw"] {
        let state = tempfile::tempdir().unwrap();
        let mut mounted = below(&format!("{options},state={}", state.path().display()));
        mounted.start();
        mounted.wait_reconciled();
        assert_eq!(fs::read(mounted.at("a/b/g")).unwrap(), b"two\n");
        assert_eq!(listing(&mounted.mountpoint), listing(&mounted.backing));
        let refused = fs::write(mounted.at("new"), "x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "{options}");
        let refused = fs::remove_file(mounted.at("hard")).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS), "{options}");
        mounted.assert_catalog_is_true();
        mounted.assert_survives_remount();
    }
}
