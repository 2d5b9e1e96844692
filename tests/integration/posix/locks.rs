//! Locks and leases between processes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use rustix::fs::FlockOperation;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, python_in, same_in_every_way};

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

/// What the scripts below have in common: children that hold and try locks.
const CHILDREN: &str = r"
import errno, fcntl, os, signal, struct, time
F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38

def lock(file, kind, start, length, command=fcntl.F_SETLK):
    request = struct.pack('hhqqi4x', kind, os.SEEK_SET, start, length, 0)
    return struct.unpack('hhqqi4x', fcntl.fcntl(file, command, request))

# A process that does what it is told and answers.
class Child:
    def __init__(self, work):
        asked, self.ask = os.pipe()
        self.answer, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.ask); os.close(self.answer)
            steps = work()
            while os.read(asked, 1):
                os.write(answer, (str(next(steps)) + '\n').encode())
            os._exit(0)
        os.close(asked); os.close(answer)
    def go(self):
        os.write(self.ask, b'x')
    def told(self):
        return os.read(self.answer, 1000).decode().strip()
    def step(self):
        self.go()
        return self.told()
    def end(self):
        os.kill(self.pid, signal.SIGKILL); os.waitpid(self.pid, 0)
        os.close(self.ask); os.close(self.answer)

# Until somebody sleeps in a lock of the file.
def wait_until_blocked():
    at = ':%d ' % os.stat('f').st_ino
    while not any('->' in line and at in line for line in open('/proc/locks')):
        time.sleep(0.001)

open('f', 'w').close()
";

#[track_caller]
fn same_locks(script: &str) {
    if have(&["python3"]) {
        same_in_every_way(|dir: &Path| python_in(dir, &format!("{CHILDREN}\n{script}")));
    }
}

#[test]
fn whole_files_are_locked_by_open_files() {
    same_locks(
        r"
def holder():
    f = open('f')
    yield done(fcntl.flock, f, fcntl.LOCK_SH)
    yield done(fcntl.flock, f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    yield done(fcntl.flock, f, fcntl.LOCK_UN)
    yield done(fcntl.flock, f, fcntl.LOCK_EX)
def waiter():
    # What it has from its parent would be the lock's, too.
    two.close()
    f = open('f')
    yield done(fcntl.flock, f, fcntl.LOCK_EX)
NOW = fcntl.LOCK_NB
child = Child(holder)
one, two = open('f', 'r+'), open('f')
print(child.step())
for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):
    print(done(fcntl.flock, one, how | NOW), done(fcntl.flock, two, how | NOW))
print(child.step())
fcntl.flock(one, fcntl.LOCK_UN); fcntl.flock(two, fcntl.LOCK_UN)
print(child.step(), child.step())
print(done(fcntl.flock, one, fcntl.LOCK_SH | NOW))
# A dead holder's lock is free at once.
child.end()
print(done(fcntl.flock, one, fcntl.LOCK_EX | NOW))
# A duplicate shares the lock, and keeps it until its own close.
copy = os.dup(one.fileno()); one.close()
print(done(fcntl.flock, two, fcntl.LOCK_EX | NOW))
os.close(copy)
print(done(fcntl.flock, two, fcntl.LOCK_EX | NOW))
# Who waits gets it when it is given back.
waiting = Child(waiter)
waiting.go(); wait_until_blocked()
two.close()
print(waiting.told())
waiting.end()
",
    );
}

#[test]
fn ranges_are_locked_by_processes() {
    same_locks(
        r"
def holder():
    f = open('f', 'r+')
    yield done(lock, f, fcntl.F_WRLCK, 10, 10)
    yield done(lock, f, fcntl.F_RDLCK, 100, 0)
    yield done(lock, f, fcntl.F_UNLCK, 12, 2)
    # Any close of the file gives everything back.
    open('f').close()
    yield 'closed'
    yield done(lock, f, fcntl.F_WRLCK, 0, 0)
child = Child(holder)
f = open('f', 'r+')
RANGES = (0, 10), (0, 11), (12, 2), (13, 1), (19, 1), (20, 80), (50, 1000), (1 << 40, 1)
def probe():
    for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK):
        for start, length in RANGES:
            found, whence, at, count, pid = lock(f, kind, start, length, fcntl.F_GETLK)
            who = {0: 0, child.pid: 'child'}[pid]
            taken = done(lock, f, kind, start, length)
            print(kind, start, length, found, at, count, who, taken)
            lock(f, fcntl.F_UNLCK, 0, 0)
for step in range(4):
    print(child.step()); probe()
print(child.step())
print(done(lock, f, fcntl.F_RDLCK, 5, 1))
child.end()
print(done(lock, f, fcntl.F_WRLCK, 0, 0))
# What a handle may not do, it may not lock for.
print(done(lock, open('f'), fcntl.F_WRLCK, 0, 1))
print(done(lock, open('f', 'w'), fcntl.F_RDLCK, 0, 1))
print(done(lock, f, fcntl.F_WRLCK, -1, 1), done(lock, f, fcntl.F_WRLCK, (1 << 63) - 1, 1))
",
    );
}

#[test]
fn waiting_for_each_other_is_refused() {
    same_locks(
        r"
f = open('f', 'r+')
def crosswise():
    g = open('f', 'r+')
    yield done(lock, g, fcntl.F_WRLCK, 1, 1)
    yield done(lock, g, fcntl.F_WRLCK, 0, 1, fcntl.F_SETLKW)
child = Child(crosswise)
lock(f, fcntl.F_WRLCK, 0, 1)
print(child.step())
child.go(); wait_until_blocked()
print(done(lock, f, fcntl.F_WRLCK, 1, 1, fcntl.F_SETLKW))
lock(f, fcntl.F_UNLCK, 0, 0)
print(child.told())
# Who waits for a process that is killed, goes on.
def waits():
    g = open('f', 'r+')
    yield done(lock, g, fcntl.F_WRLCK, 0, 0, fcntl.F_SETLKW)
waiting = Child(waits)
waiting.go(); wait_until_blocked()
child.end()
print(waiting.told())
waiting.end()
",
    );
}

#[test]
fn ranges_are_locked_by_open_files_too() {
    same_locks(
        r"
one, two = open('f', 'r+'), open('f', 'r+')
print(done(lock, one, fcntl.F_WRLCK, 0, 10, F_OFD_SETLK))
print(done(lock, two, fcntl.F_WRLCK, 5, 10, F_OFD_SETLK))
print(lock(two, fcntl.F_WRLCK, 5, 10, F_OFD_GETLK))
print(done(lock, two, fcntl.F_RDLCK, 5, 10), done(lock, two, fcntl.F_WRLCK, 10, 5, F_OFD_SETLK))
# Another close of the file gives nothing back.
open('f').close()
def tries():
    one.close(); two.close()
    f = open('f', 'r+')
    yield done(lock, f, fcntl.F_WRLCK, 0, 1, F_OFD_SETLK)
    yield done(lock, f, fcntl.F_WRLCK, 0, 1, F_OFD_SETLKW)
child = Child(tries)
print(child.step())
child.go(); wait_until_blocked()
one.close()
print(child.told())
child.end()
print(done(lock, two, fcntl.F_WRLCK, 0, 10, F_OFD_SETLK))
",
    );
}

#[test]
fn leases_and_notifications_of_directories_work() {
    same_locks(
        r"
def lease(file, kind):
    return done(fcntl.fcntl, file, fcntl.F_SETLEASE, kind)
reader, writer = open('f'), open('f', 'r+')
print(lease(reader, fcntl.F_RDLCK), lease(writer, fcntl.F_WRLCK))
writer.close()
print(lease(reader, fcntl.F_RDLCK), fcntl.fcntl(reader, fcntl.F_GETLEASE))
print(lease(reader, fcntl.F_WRLCK), lease(reader, fcntl.F_UNLCK))
# Who holds a lease hears of an open that breaks it, and the open waits.
broken = []
def give_back(number, frame):
    broken.append(fcntl.fcntl(reader, fcntl.F_GETLEASE))
    lease(reader, fcntl.F_UNLCK)
signal.signal(signal.SIGIO, give_back)
def opens():
    yield done(lambda: os.close(os.open('f', os.O_RDONLY)))
    yield done(lambda: os.close(os.open('f', os.O_WRONLY | os.O_NONBLOCK)))
    yield done(lambda: os.close(os.open('f', os.O_WRONLY)))
child = Child(opens)
print(lease(reader, fcntl.F_RDLCK), child.step(), broken)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
print(child.step(), broken)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGIO])
print(broken, child.step(), lease(reader, fcntl.F_RDLCK))
child.end()
directory = os.open('.', os.O_RDONLY)
signal.signal(signal.SIGIO, lambda number, frame: broken.append('directory'))
print(done(fcntl.fcntl, directory, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_DELETE))
open('g', 'w').close()
print(broken)
",
    );
}
