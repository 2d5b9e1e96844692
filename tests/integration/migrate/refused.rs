//! What is not moved, and why.

use super::*;
use crate::disk::Disk;

impl Move {
    #[track_caller]
    fn refused(&self, why: &str) -> String {
        let output = self.run(&["--yes"]);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(why), "{text}");
        text
    }
}

#[test]
fn a_target_that_is_used_for_something_is_left_alone() {
    if !can_move() {
        return;
    }
    let mut this = Move::of("echo x > f");
    fs::write(this.target().join("mine"), "mine").unwrap();
    this.refused("the target is not empty, and not what an earlier run has left");
    fs::remove_file(this.target().join("mine")).unwrap();
    this.done(&[]);

    let source = std::mem::replace(&mut this.source, this.mounted.scratch("other"));
    script_in(&this.mounted.scratch(""), "mkdir other; echo y > other/g");
    let text = this.refused("the target has what was moved there from");
    assert!(text.contains(source.to_str().unwrap()), "{text}");
    this.source = source;
    this.done(&[]);

    this.mounted.start();
    this.mounted.wait_reconciled();
    this.refused("is already served by process");
    let third = this.mounted.scratch("third");
    let mut served = this.mounted.command();
    served.args(["migrate", "--yes"]).args([this.target(), &third]);
    let text = told(&served.output().unwrap());
    assert!(text.contains("is already served by process") && !third.exists(), "{text}");
    fs::write(this.mounted.at("new"), "written since").unwrap();
    this.mounted.umount();
    this.refused("the target has been mounted since: what has changed there would be lost");
    assert_eq!(fs::read(this.target().join("new")).unwrap(), b"written since");
}

#[test]
fn neither_may_lie_in_the_other() {
    if !can_move() {
        return;
    }
    let mut this = Move::of("mkdir -p in/side; echo x > in/f");
    let alias = this.mounted.scratch("alias");
    std::os::unix::fs::symlink(this.source.join("in/side"), &alias).unwrap();
    this.mounted.backing = alias.join("new");
    this.refused("the source and the target lie in one another");
    this.mounted.backing = this.source.clone();
    this.source = this.source.join("in");
    this.refused("the source and the target lie in one another");
    assert!(!this.source.join("side/new").exists());
}

#[test]
fn what_cannot_be_read_is_named_before_anything_is_copied() {
    if !can_move() || !have(&["setpriv"]) {
        return;
    }
    let this = Move::of("mkdir closed d; echo x > d/secret; echo y > f; chmod 0 closed d/secret");
    must(Command::new("chmod").arg("777").args([this.target(), &this.mounted.runtime]));
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    command.arg(env!("CARGO_BIN_EXE_horace")).args(["migrate", "--yes"]).current_dir("/");
    let output = command.args([&this.source, this.target()]).output().unwrap();
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("names of the source cannot be read, as "), "{text}");
    assert!(text.contains("Permission denied"), "{text}");
    assert!(text.contains("only root can keep owners"), "{text}");
    assert_eq!(fs::read_dir(this.target()).unwrap().count(), 0);
}

#[test]
fn what_does_not_fit_is_not_begun() {
    if !can_move() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 16, &["-q", "-N", "64"], "") else { return };
    let mut this = Move::new();
    this.mounted.backing = disk.path();
    fs::write(this.source.join("large"), noise(1, 20 << 20)).unwrap();
    this.refused("bytes free, and ");
    fs::remove_file(this.source.join("large")).unwrap();
    for number in 0..80 {
        fs::write(this.source.join(number.to_string()), "").unwrap();
    }
    this.refused("inodes free, and 81 are needed");
    let names = || fs::read_dir(disk.path()).unwrap().count();
    assert_eq!(names(), 1, "only lost+found");
    for number in 20..80 {
        fs::remove_file(this.source.join(number.to_string())).unwrap();
    }
    this.done(&[]);
    // What the filesystem has for itself stays.
    assert!(disk.path().join("lost+found").exists());
    assert_eq!(names(), 22);
}

#[test]
fn a_disk_that_becomes_full_is_told_and_more_room_lets_it_go_on() {
    if !can_move() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 32, &["-q"], "") else { return };
    let mut this = Move::new();
    this.mounted.backing = disk.path().join("target");
    for number in 0..8 {
        fs::write(this.source.join(number.to_string()), noise(number, 2 << 20)).unwrap();
    }
    // What somebody else puts there while it runs, as far as the plan can know.
    let stop = AtomicBool::new(false);
    let output = std::thread::scope(|scope| {
        let mut command = this.command(&["--yes"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        scope.spawn(|| {
            while !this.mounted.backing.join("0").exists() && !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let file = File::create(disk.path().join("filler")).unwrap();
            let mut at = 0;
            while file.write_all_at(&[1; 1 << 16], at).is_ok() {
                at += 1 << 16;
            }
        });
        let output = command.output().unwrap();
        stop.store(true, Ordering::Relaxed);
        output
    });
    let text = told(&output);
    if output.status.success() {
        eprintln!("it was faster than the disk became full");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains("the same command goes on from there"), "{text}");
    fs::remove_file(disk.path().join("filler")).unwrap();
    this.done(&[]);
}

#[test]
fn a_filesystem_that_cannot_have_everything_is_refused() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo x > f; setfacl -m u:1:rw f; setfattr -n user.x -v y f");
    let mount = must(Command::new("mount").args(["-t", "ramfs", "none"]).arg(this.target()));
    let output = this.run(&["--dry-run"]);
    must(Command::new("umount").arg(this.target()));
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{mount}{text}");
    for what in ["ACLs", "extended attributes"] {
        let why = format!("refused   the source has {what}, which the target's filesystem has not");
        assert!(text.contains(&why), "{text}");
    }
}

#[test]
fn what_a_new_dataset_cannot_have_is_seen_before_anything_is_copied_there() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo x > f; setfattr -n user.x -v y f");
    let bin = this.mounted.scratch("bin");
    fs::create_dir(&bin).unwrap();
    let zfs = ZFS.replace(
        "mkdir -p \"$at\"",
        "mkdir -p \"$at\"; mount -t tmpfs -o size=4k none \"$at\"; mkdir -p",
    );
    fs::write(bin.join("zfs"), zfs).unwrap();
    must(Command::new("chmod").arg("+x").arg(bin.join("zfs")));
    fs::write(this.source.join("large"), noise(1, 100_000)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = this.command(&["--yes", "--files-dataset", "tank/f"]);
    let text = told(&command.env("PATH", path).output().unwrap());
    must(Command::new("umount").arg(this.target()));
    assert!(text.contains("nothing was copied: the target has "), "{text}");
}

#[test]
fn without_rsync_it_says_so() {
    if !can_move() {
        return;
    }
    let this = Move::of("echo x > f");
    let output = this.command(&["--yes"]).env("PATH", "/nonexistent").output().unwrap();
    let text = told(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("there is no rsync, which copies links"), "{text}");
    assert_eq!(fs::read_dir(this.target()).unwrap().count(), 0);
}
