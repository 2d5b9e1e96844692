//! Locks and leases between processes.

use std::fs::{self, File};
use std::process::Command;

use rstest::rstest;
use rustix::fs::FlockOperation;

use crate::mounted::{Mounted, can_mount};
use crate::tools::have;

#[rstest]
fn locks_hold_between_processes(#[values("", "passthrough=off")] options: &str) {
    if !can_mount() || !have(&["flock", "python3"]) {
        return;
    }
    let mounted = Mounted::with_options(options);
    let file = File::create(mounted.at("f")).unwrap();
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    let tried = || {
        let mut command = Command::new("flock");
        command.args(["--nonblock", "f", "true"]).current_dir(&mounted.mountpoint);
        command.status().unwrap().success()
    };
    assert!(!tried());
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    assert!(tried());
    drop(file);
    let posix = r#"
import fcntl, os, subprocess, sys
child = "import fcntl\nf = open('f', 'r+')\ntry:\n fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, %d)\nexcept OSError as e:\n print(e.errno)\nelse:\n print('free')"
def ask(start): return subprocess.check_output([sys.executable, '-c', child % start]).decode().strip()
f = open('f', 'r+')
fcntl.lockf(f, fcntl.LOCK_EX, 10, 0)
assert ask(5) == '11', ask(5)
assert ask(20) == 'free'
g = open('f'); g.close()  # closing any descriptor of the file gives POSIX locks back
assert ask(5) == 'free'
"#;
    let script = mounted.scratch("locks.py");
    fs::write(&script, posix).unwrap();
    mounted.shell(&format!("python3 {}", script.display()));
}
