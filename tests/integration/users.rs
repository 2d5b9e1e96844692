//! The daemon ends and starts again, and those who use the mount stay: what they get, and from when on
//! they are served again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::fs::inotify;
use rustix::mount::UnmountFlags;

use crate::disk::Disk;
use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::restart::terminate;
use crate::stress::setting;
use crate::tools::{have, must, sha256, told};

/// How the daemon ends while the mount is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Signal,
    Kill,
}

impl Mounted {
    fn end(&mut self, end: End) {
        match end {
            End::Kill => self.kill(),
            End::Signal => {
                terminate(self.pid());
                self.wait_for_end();
            }
        }
    }

    fn start_again(&mut self) {
        self.start();
        self.wait_reconciled();
    }

    fn served_by_the_kernel(&self) -> bool {
        self.status()["passthrough"]["enabled"].as_bool().unwrap()
    }
}

/// A shell that somebody works in.
struct Shell {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Shell {
    fn by(command: &mut Command) -> Self {
        let loop_ =
            "while read -r command; do eval \"$command\" 2>&1; s=$?; echo; echo \"= $s\"; done";
        let mut child = command
            .args(["sh", "-c", loop_])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, answers }
    }

    fn at(dir: &Path) -> Self {
        Self::by(Command::new("env").current_dir(dir))
    }

    /// With mounts of its own, to which those of the others come, as in a container.
    fn apart() -> Self {
        Self::by(Command::new("unshare").args(["--mount", "--propagation", "slave"]))
    }

    /// What a command prints; fails unless it ends as it should.
    #[track_caller]
    fn ask(&mut self, command: &str, ends_well: bool) -> String {
        writeln!(self.commands, "{command}").unwrap();
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the shell is gone: {text}");
            match line.strip_prefix("= ") {
                Some(status) => {
                    assert_eq!(status.trim() == "0", ends_well, "{command}: {text}");
                    return text.trim_end().to_owned();
                }
                None => text.push_str(&line),
            }
        }
    }

    #[track_caller]
    fn ok(&mut self, command: &str) -> String {
        self.ask(command, true)
    }

    #[track_caller]
    fn assert_dead(&mut self, command: &str) {
        let text = self.ask(command, false);
        assert!(text.contains("Transport endpoint is not connected"), "{command}: {text}");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn assert_dead<T: std::fmt::Debug>(result: std::io::Result<T>) {
    let error = result.unwrap_err().raw_os_error();
    assert_eq!(error, Some(libc::ENOTCONN));
}

#[rstest]
fn what_is_open_is_dead_but_for_what_the_kernel_serves(
    #[values(End::Signal, End::Kill)] end: End,
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    let by_kernel = mounted.served_by_the_kernel();
    fs::write(mounted.at("old"), "old").unwrap();
    let reading = File::open(mounted.at("old")).unwrap();
    let mut streamed = File::create(mounted.at("streamed")).unwrap();
    streamed.write_all(b"before").unwrap();
    let open =
        |name: &str| File::options().create(true).append(true).open(mounted.at(name)).unwrap();
    let mut appended = open("appended");
    appended.write_all(b"before").unwrap();
    let dir = File::open(&mounted.mountpoint).unwrap();
    mounted.end(end);
    for started_again in [false, true] {
        if started_again {
            mounted.start_again();
        }
        assert_dead(streamed.write_all(b" after"));
        assert_dead(streamed.sync_all());
        assert_dead(appended.sync_all());
        assert_dead(reading.metadata());
        assert_dead(
            rustix::fs::openat(&dir, "old", rustix::fs::OFlags::RDONLY, 0.into())
                .map_err(Into::into),
        );
        if by_kernel {
            let mut bytes = [0; 3];
            reading.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes, b"old");
            appended.write_all(b" after").unwrap();
        } else {
            assert_dead(appended.write_all(b" after"));
        }
    }
    assert_eq!(mounted.digests("streamed"), [sha256("before")], "nothing is lost");
    // After a kill the start finds the file as it is by then.
    let unseen = by_kernel && end == End::Kill;
    let first = if unseen { "before after" } else { "before" };
    assert_eq!(mounted.digests("appended")[0], sha256(first));
    drop((streamed, appended));
    mounted.ok(&["reconcile", "."]);
    mounted.assert_catalog_is_true();
    if by_kernel {
        let log = mounted.log_of("appended");
        assert_eq!(log.last().unwrap()["sha256"], sha256("before after after"));
        assert_eq!(log.last().unwrap()["origin"], "external");
    } else {
        assert_eq!(mounted.digests("appended"), [sha256("before")]);
    }
}

#[rstest]
fn a_mapping_goes_on_where_the_kernel_serves_it(#[values(End::Signal, End::Kill)] end: End) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    if !mounted.served_by_the_kernel() {
        eprintln!("SKIPPED: no kernel passthrough");
        return;
    }
    fs::write(mounted.at("f"), vec![b'.'; 10_000]).unwrap();
    let file = File::options().read(true).write(true).open(mounted.at("f")).unwrap();
    let map = Mapping::of(&file, 10_000);
    map.store(0, b"before");
    mounted.end(end);
    map.store(10, b"dead");
    mounted.start_again();
    map.store(20, b"after");
    let bytes = fs::read(mounted.backing.join("f")).unwrap();
    assert_eq!(&bytes[..26], b"before....dead......after.");
    mounted.ok(&["reconcile", "."]);
    mounted.wait_for("the truth", || mounted.compare_catalog().is_ok());
    // And once more, without a pause.
    map.store(30, b"again");
    mounted.ok(&["reconcile", "."]);
    mounted.wait_for("the truth", || mounted.compare_catalog().is_ok());
}

#[rstest]
fn a_mapping_whose_file_was_closed_goes_on_and_is_found(
    #[values(End::Signal, End::Kill)] end: End,
) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    if !mounted.served_by_the_kernel() {
        eprintln!("SKIPPED: no kernel passthrough");
        return;
    }
    fs::write(mounted.at("f"), vec![b'.'; 10_000]).unwrap();
    let file = File::options().read(true).write(true).open(mounted.at("f")).unwrap();
    let map = Mapping::of(&file, 10_000);
    map.store(0, b"before");
    drop(file);
    let unknown = || mounted.digests("f").last().unwrap() == "unknown";
    mounted.wait_for("end of the digest", unknown);
    mounted.end(end);
    map.store(10, b"dead");
    mounted.start_again();
    mounted.assert_catalog_is_true();
    map.store(20, b"after");
    mounted.ok(&["reconcile", "."]);
    mounted.assert_catalog_is_true();
}

/// Somebody who stores to a mapping all the time, until told to stop; the mapping stays until dropped.
struct Storer {
    commands: Option<Sender<()>>,
    stopped: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Storer {
    /// Starts on a file of 10,000 bytes, which stays open if it is to be kept.
    fn start(path: &Path, keep_open: bool) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let (commands, told) = channel();
        let (tell, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let map = Mapping::of(&file, 10_000);
            let _file = Some(file).filter(|_| keep_open);
            for n in 0_u32.. {
                map.store(100, &n.to_le_bytes());
                if n % 50 == 0 {
                    std::thread::sleep(Duration::from_micros(u64::from(n % 7) * 100));
                }
                if told.try_recv() != Err(TryRecvError::Empty) {
                    break;
                }
            }
            // Who has dropped the other end waits for neither.
            let _ = tell.send(());
            let _ = told.recv();
        });
        Self { commands: Some(commands), stopped, thread: Some(thread) }
    }

    /// Returns when the last store is over.
    fn stop(&self) {
        self.commands.as_ref().unwrap().send(()).unwrap();
        self.stopped.recv().unwrap();
    }
}

impl Drop for Storer {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.thread.take().unwrap().join();
    }
}

/// Whatever moment the last store comes at, the next look at the file has it.
#[rstest]
fn stores_while_the_daemon_ends_and_looks_are_found(#[values(End::Signal, End::Kill)] end: End) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    if !mounted.served_by_the_kernel() {
        eprintln!("SKIPPED: no kernel passthrough");
        return;
    }
    for round in 0..setting("HORACE_STRESS_ROUNDS", 4) {
        let f = mounted.at(format!("f{round}"));
        fs::write(&f, vec![b'.'; 10_000]).unwrap();
        let storer = Storer::start(&f, end == End::Signal && round % 2 == 0);
        if end == End::Kill {
            // What was told of a file before its mapping was noticed, nobody takes back after a kill.
            let digests = || mounted.digests(&format!("f{round}"));
            mounted.wait_for("end of the digest", || digests().last().unwrap() == "unknown");
        }
        std::thread::sleep(Duration::from_millis(round % 5 * 100));
        let pid = mounted.pid();
        // The second signal does not wait for users to go.
        let hurry = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            if end == End::Signal {
                terminate(pid);
            }
        });
        mounted.end(end);
        hurry.join().unwrap();
        std::thread::sleep(Duration::from_millis(round % 3));
        let stops_before = round % 4 < 2;
        if stops_before {
            storer.stop();
        }
        mounted.start_again();
        if !stops_before {
            storer.stop();
            mounted.ok(&["reconcile", "."]);
        }
        if let Err(untrue) = mounted.compare_catalog() {
            panic!("round {round}: {untrue}\n{:#?}", mounted.log_of(&format!("f{round}")));
        }
    }
}

#[test]
fn what_was_stored_to_a_mapping_is_written_before_the_end() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("passthrough=off");
    fs::write(mounted.at("f"), vec![b'.'; 10_000]).unwrap();
    let file = File::options().read(true).write(true).open(mounted.at("f")).unwrap();
    let map = Mapping::of(&file, 10_000);
    map.store(0, b"stored");
    mounted.end(End::Signal);
    assert_eq!(&fs::read(mounted.backing.join("f")).unwrap()[..10], b"stored....");
    mounted.start_again();
    mounted.assert_catalog_is_true();
}

#[rstest]
fn who_works_in_the_mount_has_to_come_in_again(#[values(End::Signal, End::Kill)] end: End) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::create_dir(mounted.at("work")).unwrap();
    fs::write(mounted.at("work/f"), "text").unwrap();
    let mut shell = Shell::at(&mounted.at("work"));
    assert_eq!(shell.ok("cat f"), "text");
    mounted.end(end);
    shell.assert_dead("cat f");
    shell.assert_dead("ls .");
    shell.assert_dead("/bin/echo new > g");
    // The dead mount is still held, and the new one serves all the same.
    mounted.start();
    shell.assert_dead("cat f");
    assert_eq!(shell.ok(&format!("cat {}", mounted.at("work/f").display())), "text");
    shell.ok(&format!("cd {}", mounted.at("work").display()));
    shell.ok("echo new > g");
    assert_eq!(mounted.digests("work/g"), [sha256("new\n")]);
    drop(shell);
    mounted.assert_catalog_is_true();
}

#[rstest]
fn a_program_runs_on_and_a_watch_hears_nothing_more(#[values(End::Signal, End::Kill)] end: End) {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::create_dir(mounted.at("d")).unwrap();
    must(Command::new("cp").arg("/bin/sleep").arg(mounted.at("d")));
    let mut program = Command::new(mounted.at("d/sleep")).arg("1000").spawn().unwrap();
    let watcher = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watcher, mounted.at("d"), inotify::WatchFlags::CREATE).unwrap();
    fs::write(mounted.at("d/before"), "").unwrap();
    assert_eq!(heard(&watcher), ["before"]);
    mounted.end(end);
    mounted.start_again();
    fs::write(mounted.at("d/after"), "").unwrap();
    assert_eq!(heard(&watcher), [""; 0]);
    inotify::add_watch(&watcher, mounted.at("d"), inotify::WatchFlags::CREATE).unwrap();
    fs::write(mounted.at("d/watched"), "").unwrap();
    assert_eq!(heard(&watcher), ["watched"]);
    let ran_on = program.try_wait().unwrap().is_none();
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(ran_on);
}

/// The names in the events that came, and nothing but names.
fn heard(watcher: &OwnedFd) -> Vec<String> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watcher, &mut buffer);
    let mut names = Vec::new();
    while let Ok(event) = reader.next() {
        names.push(event.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names
}

#[test]
fn paths_lead_into_the_mount_until_everything_is_committed() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let open = File::create(mounted.at("open")).unwrap();
    terminate(mounted.pid());
    let start = Instant::now();
    let mut written = 0;
    let refused = loop {
        match fs::write(mounted.at(format!("f{written}")), format!("{written}")) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(start.elapsed() > Duration::from_secs(1), "users have a moment: {written} files");
    let code = refused.raw_os_error();
    assert!(matches!(code, Some(libc::ENOTCONN | libc::ECONNABORTED)), "{refused}");
    mounted.wait_for_end();
    assert!(!mounted.is_mounted(), "the mount point is free");
    let beneath = fs::read_dir(&mounted.mountpoint).unwrap().count();
    assert_eq!(beneath, 0, "nothing was written beneath the mount");
    drop(open);
    mounted.start_again();
    let manifest = mounted.manifest(".");
    for n in 0..written {
        let name = format!("f{n}");
        assert_eq!(manifest.get(name.as_bytes()), Some(&sha256(n.to_string())), "{name}");
    }
    let origins = mounted.records(&["changes"]);
    assert!(origins.iter().all(|change| change["origin"] != "external"), "all was committed");
    mounted.assert_catalog_is_true();
}

#[test]
fn a_second_signal_does_not_wait_for_users() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let mut open = File::create(mounted.at("f")).unwrap();
    open.write_all(b"before").unwrap();
    let start = Instant::now();
    terminate(mounted.pid());
    std::thread::sleep(Duration::from_millis(100));
    terminate(mounted.pid());
    mounted.wait_for_end();
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    mounted.start_again();
    assert_eq!(mounted.digests("f"), [sha256("before")]);
}

#[test]
fn a_user_who_finishes_in_time_sees_no_error() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    let mut open = File::create(mounted.at("f")).unwrap();
    open.write_all(b"before").unwrap();
    terminate(mounted.pid());
    std::thread::sleep(Duration::from_millis(300));
    open.write_all(b" and after").unwrap();
    open.sync_all().unwrap();
    drop(open);
    mounted.wait_for_end();
    assert!(!mounted.log().contains("in use"), "{}", mounted.log());
    mounted.start_again();
    assert_eq!(mounted.digests("f"), [sha256("before and after")]);
}

/// A filesystem in memory whose mounts others get, gone when dropped.
struct Shared(PathBuf);

impl Shared {
    fn at(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        must(Command::new("mount").args(["-t", "tmpfs", "shared"]).arg(&dir));
        must(Command::new("mount").arg("--make-rshared").arg(&dir));
        Self(dir)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[rstest]
fn a_container_with_the_directory_above_sees_the_new_mount(
    #[values(End::Signal, End::Kill)] end: End,
) {
    if !can_mount() || !have(&["unshare"]) {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    let host = Shared::at(mounted.scratch("host"));
    mounted.mountpoint = host.0.join("files");
    fs::create_dir(&mounted.mountpoint).unwrap();
    let inside = mounted.scratch("inside");
    fs::create_dir(&inside).unwrap();
    mounted.start();
    fs::write(mounted.at("f"), "text").unwrap();
    let mut container = Shell::apart();
    container.ok(&format!("mkdir {0}/above {0}/mount", inside.display()));
    container.ok(&format!("mount --rbind {} {}/above", host.0.display(), inside.display()));
    container.ok(&format!(
        "mount --bind {} {}/mount",
        mounted.mountpoint.display(),
        inside.display()
    ));
    let above = format!("cat {}/above/files/f", inside.display());
    let bound = format!("cat {}/mount/f", inside.display());
    assert_eq!(container.ok(&above), "text");
    assert_eq!(container.ok(&bound), "text");
    // It works there, which keeps the old mount.
    container.ok(&format!("cd {}/above/files", inside.display()));
    mounted.end(end);
    mounted.start();
    assert_eq!(container.ok(&above), "text");
    container.assert_dead("cat f");
    container.assert_dead(&bound);
    let again = format!("mount --bind {} {}/mount", mounted.mountpoint.display(), inside.display());
    container.ok(&again);
    assert_eq!(container.ok(&bound), "text");
    drop(container);
    mounted.umount();
}

#[test]
fn nothing_is_written_beneath_a_mount_whose_directory_is_immutable() {
    if !can_mount() || !have(&["chattr", "mkfs.ext4"]) {
        return;
    }
    let disk = Disk::new("ext4", 16, &["-q"], "").unwrap();
    let mut mounted = Mounted::unmounted("");
    mounted.mountpoint = disk.path().join("files");
    fs::create_dir(&mounted.mountpoint).unwrap();
    must(Command::new("chattr").arg("+i").arg(&mounted.mountpoint));
    mounted.start();
    fs::write(mounted.at("f"), "served").unwrap();
    mounted.umount();
    let error = fs::write(mounted.at("f"), "beneath").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    mounted.start();
    assert_eq!(fs::read(mounted.at("f")).unwrap(), b"served");
}

#[test]
fn a_signal_takes_away_no_mount_but_its_own() {
    if !can_mount() || !have(&["mkfs.ext4"]) {
        return;
    }
    let disk = Disk::new("ext4", 16, &["-q"], "").unwrap();
    let mut mounted = Mounted::unmounted_on(disk.path(), "");
    mounted.mountpoint = disk.path();
    mounted.start();
    let open = File::create(mounted.at("f")).unwrap();
    must(Command::new("umount").arg("--lazy").arg(&mounted.mountpoint));
    terminate(mounted.pid());
    mounted.wait_for_end();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = |line: &str| line.contains(&format!(" {} ext4 ", disk.path().display()));
    assert!(mounts.lines().any(line), "the disk is gone:\n{mounts}");
    drop(open);
}

#[test]
fn umount_leaves_a_mount_alone_that_a_container_uses() {
    if !can_mount() || !have(&["unshare"]) {
        return;
    }
    let mut mounted = Mounted::unmounted("");
    let host = Shared::at(mounted.scratch("host"));
    mounted.mountpoint = host.0.join("files");
    fs::create_dir(&mounted.mountpoint).unwrap();
    mounted.start();
    fs::write(mounted.at("f"), "text").unwrap();
    let mut container = Shell::apart();
    container.ok(&format!("cd {}", mounted.mountpoint.display()));
    let output = mounted.command().arg("umount").arg(&mounted.mountpoint).output().unwrap();
    assert!(told(&output).contains("in use"), "{}", told(&output));
    assert_eq!(container.ok("cat f"), "text");
    drop(container);
    mounted.umount();
}
