//! What the daemon may do and shows of itself where it runs as root: no more than it needs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use horace::daemon::privileges::CAPABILITIES;
use rustix::thread::{CapabilitySet, capabilities};

use crate::mounted::{Mounted, can_mount};
use crate::tools::files_below;

/// The lines of `/proc/PID/task/TID/status`, by thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: PathBuf| {
        // A thread may have ended meanwhile.
        let text = fs::read_to_string(task.join("status")).ok()?;
        let pair = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Some(text.lines().filter_map(pair).collect())
    };
    tasks.filter_map(|task| status(task.unwrap().path())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Starts the daemon by a line of shell that ends in running it.
fn start_by_shell(mounted: &mut Mounted, line: &str) {
    let horace = mounted.command();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{line} exec \"$0\" \"$@\"")]).arg(horace.get_program());
    command.envs(horace.get_envs().filter_map(|(name, value)| Some((name, value?))));
    mounted.start_by(command);
}

#[test]
fn every_thread_has_the_listed_capabilities_and_no_others() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    // Threads that have acted for others, and all that are started later.
    mounted.shell(
        "chmod 1777 .; setpriv --reuid 61234 --regid 61234 --clear-groups \
         sh -c 'echo x > f; echo y > f; mkdir d; mv f d; rm -r d'
         \"$HORACE\" sync; \"$HORACE\" verify; \"$HORACE\" undelete d; \"$HORACE\" prune",
    );
    let listed = CAPABILITIES.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    // A container may have fewer to give.
    let expected = (listed & capabilities(None).unwrap().permitted).bits();
    let threads = threads(mounted.pid());
    assert!(threads.len() > 10, "{threads:?}");
    for thread in threads {
        let set = |name: &str| u64::from_str_radix(&thread[name], 16).unwrap();
        let name = &thread["Name"];
        assert_eq!(set("CapPrm"), expected, "{name}");
        assert_eq!(set("CapEff"), expected, "{name}");
        assert_eq!((set("CapInh"), set("CapAmb"), set("CapBnd")), (0, 0, 0), "{name}");
        assert_eq!(thread["NoNewPrivs"], "1", "{name}");
        assert_eq!(thread["Groups"], "", "{name}");
        // Those that serve the kernel make files for callers, whose umask they then have.
        let serves = ["fuser-", "slow-", "fuse"].iter().any(|prefix| name.starts_with(prefix));
        assert!(serves || thread["Umask"] == "0077", "{name}: {}", thread["Umask"]);
    }
}

#[test]
fn the_readme_lists_the_capabilities() {
    let readme = fs::read_to_string("README.md").unwrap();
    let lines = readme.lines().filter_map(|line| line.strip_prefix("- `CAP_"));
    let named: Vec<_> = lines.filter_map(|line| Some(line.split_once("`: ")?.0)).collect();
    let name = |set: CapabilitySet| set.iter_names().next().unwrap().0.to_owned();
    let listed: Vec<_> = CAPABILITIES.iter().map(|(set, _)| name(*set)).collect();
    assert_eq!(named, listed);
}

#[test]
fn a_crash_writes_no_memory_out() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    let limits = fs::read_to_string(format!("/proc/{}/limits", mounted.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"]);
    // Nobody without the right to trace everything sees what is open.
    let dir = fs::metadata(format!("/proc/{}/fd", mounted.pid())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&dir), 0);
    let tracer = Command::new("setpriv")
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", "ls", "-l"])
        .arg(format!("/proc/{}/fd/", mounted.pid()))
        .output()
        .unwrap();
    assert!(!tracer.status.success(), "{tracer:?}");
}

#[test]
fn what_the_daemon_makes_for_itself_is_private_whatever_the_umask() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    start_by_shell(&mut mounted, "umask 0;");
    fs::write(mounted.at("f"), "one").unwrap();
    fs::write(mounted.at("f"), "two").unwrap();
    fs::write(mounted.at("f"), vec![7; 5 << 20]).unwrap();
    mounted.sync();
    let own = files_below(&mounted.backing.join(".horace"));
    assert!(own.len() > 3, "{own:?}");
    for path in own.values() {
        assert_eq!(mode(path) & 0o077, 0, "{}", path.display());
    }
    assert_eq!(mode(&mounted.backing.join(".horace")), 0o700);
    // And the files of users are as they were made.
    assert_eq!(mode(&mounted.at("f")) & 0o600, 0o600);
}

#[test]
fn everybody_finds_the_daemon_whatever_the_umask() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    mounted.runtime = mounted.scratch("new/run");
    mounted.start_in_background();
    for dir in ["new", "new/run"] {
        assert_eq!(mode(&mounted.scratch(dir)), 0o755, "{dir}");
    }
    for entry in fs::read_dir(&mounted.runtime).unwrap() {
        let path = entry.unwrap().path();
        let answers = ["api", "sock"].iter().any(|ending| path.extension().unwrap() == *ending);
        let expected = if answers { 0o666 } else { 0o644 };
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    let ended = mounted.command().arg("umount").arg(&mounted.mountpoint).status().unwrap();
    assert!(ended.success());
}

#[test]
fn what_somebody_left_open_is_closed_and_his_secrets_are_left_behind() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    let foreign = mounted.scratch("foreign");
    fs::write(&foreign, "").unwrap();
    start_by_shell(&mut mounted, &format!("exec 7<'{0}' 9>>'{0}';", foreign.display()));
    let open = fs::read_dir(format!("/proc/{}/fd", mounted.pid())).unwrap();
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).collect();
    assert!(open.len() > 10 && !open.contains(&foreign), "{open:?}");
    mounted.umount();

    let line = format!("exec 7<'{}'; exec \"$0\" \"$@\"", foreign.display());
    let mut command = Command::new("sh");
    command.args(["-c", &line, env!("CARGO_BIN_EXE_horace"), "mount", "-o", "api=off"]);
    command.args([&mounted.backing, &mounted.mountpoint]);
    command.env("HORACE_RUNTIME_DIR", &mounted.runtime).env("TOKEN", "secret").env("TZ", "UTC");
    assert!(command.status().unwrap().success());
    let pid = mounted.status()["pid"].as_u64().unwrap();
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let names = environment.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let names: Vec<_> = names
        .map(|name| String::from_utf8_lossy(name.split(|b| *b == b'=').next().unwrap()))
        .collect();
    assert!(names.iter().any(|name| name == "HORACE_RUNTIME_DIR"), "{names:?}");
    assert!(names.iter().any(|name| name == "TZ"), "{names:?}");
    assert!(!names.iter().any(|name| name == "TOKEN" || name == "HOME"), "{names:?}");
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).collect();
    assert!(!open.contains(&foreign), "{open:?}");
    let ended = mounted.command().arg("umount").arg(&mounted.mountpoint).status().unwrap();
    assert!(ended.success());
}

#[test]
fn no_log_has_what_is_in_files() {
    if !can_mount() {
        return;
    }
    const SECRET: &str = "what-only-the-owner-may-read";
    let mut mounted = Mounted::unmounted("");
    let mut command = mounted.command();
    command.env("HORACE_LOG", "trace");
    mounted.start_by(command);
    for text in ["one", "two"] {
        fs::write(mounted.at("f"), format!("{text} {SECRET}")).unwrap();
    }
    mounted.shell(
        "cp f g; setfattr -n user.note -v what-only-the-owner-may-read f; cat f > h; rm g; \"$HORACE\" sync
         \"$HORACE\" cat f@1 > /dev/null; \"$HORACE\" undelete g; \"$HORACE\" verify; \"$HORACE\" diff f",
    );
    let log = mounted.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains("119, 104, 97, 116, 45"), "{log}");
}
