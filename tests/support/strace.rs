//! Stops or disturbs a daemon at an exact step: its system calls, counted by strace.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::mounted::Mounted;

/// Calls that change what a crash leaves.
const CHANGING: &[&str] = &[
    "openat",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat2",
    "ftruncate",
    "fallocate",
    "pwrite64",
    "pwritev2",
    "ioctl",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "syncfs",
    "fsetxattr",
    "setxattr",
    "lsetxattr",
    "fremovexattr",
    "removexattr",
    "lremovexattr",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "utimensat",
];

/// Calls that only look.
pub(crate) const READING: &[&str] = &[
    "pread64",
    "preadv2",
    "statx",
    "newfstatat",
    "fstat",
    "open_by_handle_at",
    "getdents64",
    "readlinkat",
    "fgetxattr",
    "flistxattr",
    "name_to_handle_at",
];

/// Which calls are noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Those that change what a crash leaves, and the replies in between.
    Durable,
    /// Those that a failing disk lets fail.
    Fallible,
}

impl Calls {
    fn list(self) -> String {
        let more = match self {
            Self::Durable => &["writev"],
            Self::Fallible => READING,
        };
        [CHANGING, more].concat().join(",")
    }
}

/// One call of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// The thread's name; nothing for one that began meanwhile.
    pub(crate) thread: Option<String>,
    /// The system call.
    pub(crate) call: String,
    /// Which of this thread's calls of this name it is, from 1.
    pub(crate) nth: usize,
    /// Its arguments, as strace prints them.
    pub(crate) arguments: String,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let thread = self.thread.as_deref().unwrap_or("a new thread");
        write!(f, "{thread}, {} number {}: {}", self.call, self.nth, self.arguments)
    }
}

/// A strace that is attached to the daemon.
pub(crate) struct Tracer {
    strace: Child,
    _told: BufReader<ChildStderr>,
    log: PathBuf,
    threads: HashMap<u32, String>,
}

impl Tracer {
    /// Notes every one of these calls.
    pub(crate) fn record(mounted: &Mounted, calls: Calls) -> Self {
        Self::attach(mounted, mounted.pid(), &["-f", "-e", &format!("trace={}", calls.list())])
    }

    /// Has `fault` happen at a step, in the words of strace: `signal=KILL`, `error=EIO`.
    pub(crate) fn inject(mounted: &Mounted, step: &Step, fault: &str) -> Self {
        let threads = threads(mounted.pid());
        let thread = step.thread.as_ref();
        let thread = thread.and_then(|name| threads.iter().find(|(_, comm)| *comm == name));
        let trace = format!("trace={}", step.call);
        let inject = format!("inject={}:{fault}:when={}", step.call, step.nth);
        let mut words = vec!["-e", &trace, "-e", &inject];
        let tid = match thread {
            Some((tid, _)) => *tid,
            None => {
                words.push("-f");
                mounted.pid()
            }
        };
        Self::attach(mounted, tid, &words)
    }

    /// Has every call of a name fail in a thread.
    pub(crate) fn fail(mounted: &Mounted, thread: &str, call: &str, errno: &str) -> Self {
        let threads = threads(mounted.pid());
        let (tid, _) = threads.iter().find(|(_, comm)| *comm == thread).unwrap();
        let inject = format!("inject={call}:error={errno}");
        Self::attach(mounted, *tid, &["-e", &format!("trace={call}"), "-e", &inject])
    }

    /// Has every call of these names take longer in a thread, by milliseconds.
    pub(crate) fn slow(mounted: &Mounted, thread: &str, calls: &str, delay_ms: u64) -> Self {
        let threads = threads(mounted.pid());
        let (tid, _) = threads.iter().find(|(_, comm)| *comm == thread).unwrap();
        let inject = format!("inject={calls}:delay_enter={delay_ms}ms");
        Self::attach(mounted, *tid, &["-e", &format!("trace={calls}"), "-e", &inject])
    }

    fn attach(mounted: &Mounted, id: u32, words: &[&str]) -> Self {
        let log = mounted.scratch("strace.log");
        let mut strace = Command::new("strace")
            .arg("-o")
            .arg(&log)
            .args(words)
            .args(["-p", &id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        if !line.contains("attached") {
            told.read_to_string(&mut line).unwrap();
            panic!("strace: {line}");
        }
        Self { strace, _told: told, log, threads: threads(mounted.pid()) }
    }

    /// Leaves the daemon alone; whether something was injected that it lived through.
    pub(crate) fn stop(mut self) -> bool {
        self.detach().contains("(INJECTED)")
    }

    /// Leaves the daemon alone; every call of each thread, in order.
    pub(crate) fn steps(mut self) -> Vec<Step> {
        let log = self.detach();
        let mut counts = BTreeMap::new();
        log.lines()
            .filter_map(|line| {
                let (tid, said) = line.split_once(' ')?;
                let (call, arguments) = said.trim_start().split_once('(')?;
                // The rest of a call that others came between, a signal, an exit.
                let is_call = call.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !is_call {
                    return None;
                }
                let nth = counts.entry((tid, call)).or_insert(0);
                *nth += 1;
                let thread = self.threads.get(&tid.parse().ok()?).cloned();
                let arguments: String = arguments.chars().take(120).collect();
                Some(Step { thread, call: call.into(), nth: *nth, arguments })
            })
            .collect()
    }

    fn detach(&mut self) -> String {
        let pid = Pid::from_child(&self.strace);
        // It may have ended with the daemon.
        let _ = kill_process(pid, Signal::TERM);
        self.strace.wait().unwrap();
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// The names of a process' threads.
fn threads(pid: u32) -> HashMap<u32, String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let comm = std::fs::read_to_string(task.path().join("comm")).ok()?;
            Some((task.file_name().to_str()?.parse().ok()?, comm.trim().to_owned()))
        })
        .collect()
}
