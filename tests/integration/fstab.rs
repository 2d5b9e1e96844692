//! Mounts that mount(8) makes.

use std::fs;
use std::process::Command;

use horace::config::MountConfig;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must, sha256, told};

fn example() -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fstab.example")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(str::to_owned).collect()
}

#[test]
fn every_line_of_the_example_is_understood() {
    let lines = example();
    assert!(lines.len() >= 2);
    for line in lines {
        MountConfig::from_fstab_line(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn a_line_like_the_example_mounts() {
    if !can_mount() || !have(&["unshare", "mount"]) {
        return;
    }
    let dirs = Mounted::unmounted("");
    let scratch = dirs.mountpoint.parent().unwrap().to_path_buf();
    for (n, line) in example().into_iter().enumerate() {
        let mut fields: Vec<_> = line.split_ascii_whitespace().map(str::to_owned).collect();
        let (backing, mountpoint) = (format!("photo archive {n}"), format!("mount {n}"));
        let over_itself = fields[0] == fields[1];
        let escaped = |name: &str| format!("{}/{}", scratch.display(), name).replace(' ', "\\040");
        fields[0] = escaped(&backing);
        fields[1] = escaped(if over_itself { &backing } else { &mountpoint });
        fields[3] += ",api=off";
        fs::write(scratch.join("fstab"), fields.join(" ") + "\n").unwrap();
        // mount(8) looks for helpers in /sbin only, so in mounts of its own this has one there.
        let script = format!(
            r#"
            B="$PWD/photo archive {n}"; M="$PWD/mount {n}"; mkdir "$B" "$M"
            if [ {over_itself} = true ]; then M=$B; fi
            trap 'umount -l "$M" 2>/dev/null || true' EXIT
            mkdir -p up{n} work{n} s{n}
            real=$(readlink -f /sbin); cp -a "$real/." s{n}/
            ln -s "$HORACE" s{n}/mount.fuse.horace; mount --bind s{n} "$real"
            mount -T fstab "$M" 2> start.log || {{ cat start.log; exit 1; }}
            findmnt -n -o FSTYPE "$M"
            echo one > "$M/f"; echo two > "$M/f"
            "$HORACE" log --json "$M/f"
            umount "$M"
            "#
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "bash", "-euc", &script]);
        command
            .env("HORACE_RUNTIME_DIR", &dirs.runtime)
            .env("HORACE", env!("CARGO_BIN_EXE_horace"));
        let text = must(command.current_dir(&scratch));
        assert!(text.starts_with("fuse.horace\n"), "{line}: {text}");
        for content in ["one\n", "two\n"].map(sha256) {
            assert!(text.contains(&content), "{line}: {text}");
        }
    }
}

#[test]
fn the_program_mounts_as_a_helper_does() {
    if !can_mount() {
        return;
    }
    let dirs = Mounted::unmounted("");
    let helper = dirs.scratch("mount.fuse.horace");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_horace"), &helper).unwrap();
    let log = fs::File::create(dirs.scratch("start.log")).unwrap();
    let status = Command::new(&helper)
        .args([&dirs.backing, &dirs.mountpoint])
        .args(["-s", "-n", "-o", "rw,noatime,_netdev,x-systemd.automount,api=off,dev,suid"])
        .env("HORACE_RUNTIME_DIR", &dirs.runtime)
        .stderr(log)
        .status()
        .unwrap();
    assert!(status.success(), "{}", fs::read_to_string(dirs.scratch("start.log")).unwrap());
    fs::write(dirs.at("f"), "text").unwrap();
    assert_eq!(dirs.digests("f"), [sha256("text")]);
    must(Command::new("umount").arg(&dirs.mountpoint));
}

#[test]
fn a_read_only_mount_refuses_every_change() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::prepared("ro", |dir| fs::write(dir.join("f"), "text").unwrap());
    mounted.wait_reconciled();
    let error = fs::write(mounted.at("f"), "x").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::remove_file(mounted.at("f")).unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(mounted.digests("f"), [sha256("text")]);
}

#[test]
fn flags_of_the_kernel_reach_it() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options("nosuid,nodev,noexec,noatime");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mountpoint = mounted.mountpoint.to_str().unwrap();
    let line = mounts.lines().find(|line| line.contains(mountpoint)).unwrap();
    for flag in ["nosuid", "nodev", "noexec", "noatime", "default_permissions", "allow_other"] {
        assert!(line.split([' ', ',']).any(|word| word == flag), "{flag}: {line}");
    }
    mounted.shell("printf '#!/bin/sh\n' > run; chmod +x run; ! ./run 2>/dev/null || exit 1");
}

#[test]
fn a_misspelt_option_is_named() {
    let dirs = Mounted::unmounted("");
    let output = dirs
        .command()
        .args(["mount", "-o", "api=off,noatme"])
        .args([&dirs.backing, &dirs.mountpoint])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = told(&output);
    assert!(text.contains("`noatme`") && text.contains("hint:"), "{text}");
}

#[test]
fn a_remount_changes_what_is_the_kernels_and_keeps_the_daemon() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let pid = mounted.status()["pid"].clone();
    let helper = mounted.scratch("mount.fuse.horace");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_horace"), &helper).unwrap();
    let remount = |word: &str| {
        // These words mount(8) takes from /proc/self/mountinfo.
        let words = ["relatime,remount,user_id=0,group_id=0,default_permissions,allow_other", word];
        must(
            Command::new(&helper)
                .args([&mounted.backing, &mounted.mountpoint])
                .args(["-o", &words.join(",")])
                .env("HORACE_RUNTIME_DIR", &mounted.runtime),
        );
    };
    fs::write(mounted.at("f"), "one").unwrap();
    remount("ro,io=auto");
    let error = fs::write(mounted.at("f"), "two").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(fs::read(mounted.at("f")).unwrap(), b"one");
    remount("rw");
    fs::write(mounted.at("f"), "two").unwrap();
    assert_eq!(mounted.digests("f"), ["one", "two"].map(sha256));
    assert_eq!(mounted.status()["pid"], pid);
    let elsewhere = mounted.scratch("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let output = mounted
        .command()
        .args(["mount", "-o", "remount,ro"])
        .args([&mounted.backing, &elsewhere])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("no Horace mount at"), "{}", told(&output));
}
