//! Programs of others that are run.
//!
//! Owns the one thread that starts them, by vectors of arguments and never by a shell, in an environment
//! that makes their words the same everywhere, and for so long only. What the thread may do, the programs
//! may: it is started before the daemon gives up what its other threads don't need.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::MemfdFlags;

/// Where programs are looked for, whatever the path of whoever started the daemon.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How often it is looked whether a program is done, at first and at most.
const FIRST_LOOK: Duration = Duration::from_micros(500);
const LAST_LOOK: Duration = Duration::from_millis(20);

/// Why a program did not do what it was run for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// It is not there.
    #[error("there is no program `{program}` here")]
    Missing {
        /// Which.
        program: String,
    },
    /// It could not be run.
    #[error("cannot run `{program}`: {reason}")]
    Start {
        /// Which.
        program: String,
        /// Why.
        reason: String,
    },
    /// It failed.
    #[error("`{line}` failed: {said}")]
    Failed {
        /// The program and its arguments.
        line: String,
        /// What it said of it.
        said: String,
    },
    /// It was not done in time. It was killed, but what it asked of the kernel may be done later.
    #[error("`{line}` was not done in {seconds} s")]
    TimedOut {
        /// The program and its arguments.
        line: String,
        /// How long it had.
        seconds: u64,
    },
}

/// Runs programs.
pub(super) trait Run: fmt::Debug + Send + Sync {
    /// Runs one, and returns what it wrote to stdout.
    fn run(&self, program: &str, args: &[&str], patience: Duration)
    -> Result<String, ProgramError>;
}

/// The thread that runs programs, one at a time. It ends with the last who could ask it.
pub struct Programs {
    jobs: Mutex<mpsc::Sender<Job>>,
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Programs").finish_non_exhaustive()
    }
}

struct Job {
    program: String,
    args: Vec<String>,
    patience: Duration,
    reply: mpsc::Sender<Result<String, ProgramError>>,
}

impl Programs {
    /// Starts the thread, which first does `prepare`.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(prepare: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("programs".into()).spawn(move || {
            prepare();
            for Job { program, args, patience, reply } in todo {
                // Who asked may have lost patience.
                let _ = reply.send(run_here(&program, &args, patience));
            }
        })?;
        Ok(Self { jobs: Mutex::new(jobs) })
    }
}

impl Programs {
    /// Runs one for what it does.
    ///
    /// # Errors
    /// If it failed, or was not done in time.
    pub fn run_for(
        &self,
        program: &str,
        args: &[&str],
        patience: Duration,
    ) -> Result<(), ProgramError> {
        self.run(program, args, patience).map(drop)
    }
}

impl Run for Programs {
    fn run(
        &self,
        program: &str,
        args: &[&str],
        patience: Duration,
    ) -> Result<String, ProgramError> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let (reply, answer) = mpsc::channel();
        let late = timed_out(program, &args, patience);
        let gone = || ProgramError::Start {
            program: program.into(),
            reason: "nobody runs programs".into(),
        };
        let job = Job { program: program.into(), args, patience, reply };
        self.jobs.lock().send(job).map_err(|_| gone())?;
        match answer.recv_timeout(patience.saturating_add(LAST_LOOK)) {
            Ok(result) => result,
            // One that the kernel does not let go cannot even be killed.
            Err(mpsc::RecvTimeoutError::Timeout) => Err(late),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

fn line(program: &str, args: &[String]) -> String {
    format!("{program} {}", args.join(" "))
}

fn timed_out(program: &str, args: &[String], patience: Duration) -> ProgramError {
    ProgramError::TimedOut { line: line(program, args), seconds: patience.as_secs() }
}

fn run_here(program: &str, args: &[String], patience: Duration) -> Result<String, ProgramError> {
    let start = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing { program: program.into() },
        _ => ProgramError::Start { program: program.into(), reason: error.to_string() },
    };
    // Files in memory: nobody has to read while it writes.
    let (mut out, mut err) = (memory().map_err(start)?, memory().map_err(start)?);
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).env("LC_ALL", "C").env("TZ", "UTC");
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(out.try_clone().map_err(start)?).stderr(err.try_clone().map_err(start)?);
    let mut child = command.spawn().map_err(start)?;
    let until = Instant::now() + patience;
    let mut pause = FIRST_LOOK;
    let status: ExitStatus = loop {
        if let Some(status) = child.try_wait().map_err(start)? {
            break status;
        }
        if Instant::now() >= until {
            // It may be done at this very moment, which is the same.
            let _ = child.kill();
            let _ = child.wait();
            return Err(timed_out(program, args, patience));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_LOOK);
    };
    if !status.success() {
        let said = text(&mut err).map_err(start)?;
        let said = said.lines().next().map_or_else(|| status.to_string(), str::to_owned);
        return Err(ProgramError::Failed { line: line(program, args), said });
    }
    text(&mut out).map_err(start)
}

fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("horace", MemfdFlags::CLOEXEC)?.into())
}

fn text(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_program_gets_its_arguments_as_they_are() {
        let programs = Programs::start(|| {}).unwrap();
        let said = programs.run("printf", &["%s|", "$HOME", "a b", ";ls"], LONG);
        assert_eq!(said, Ok("$HOME|a b|;ls|".into()));
        let said = programs.run("env", &[], LONG).unwrap();
        let names = said.lines().filter_map(|line| Some(line.split_once('=')?.0));
        let names: std::collections::BTreeSet<_> = names.collect();
        assert_eq!(names, ["LC_ALL", "PATH", "TZ"].into());
    }

    #[test]
    fn what_fails_is_told_in_its_own_words() {
        let programs = Programs::start(|| {}).unwrap();
        let failed = programs.run("sh", &["-c", "echo no such pool >&2; exit 1"], LONG);
        let failed = failed.unwrap_err().to_string();
        assert!(failed.ends_with("exit 1` failed: no such pool"), "{failed}");
        let silent = programs.run("false", &[], LONG).unwrap_err().to_string();
        assert_eq!(silent, "`false ` failed: exit status: 1");
        let missing = programs.run("no-such-program", &[], LONG);
        assert_eq!(missing, Err(ProgramError::Missing { program: "no-such-program".into() }));
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let programs = Programs::start(|| {}).unwrap();
        let began = Instant::now();
        let hung = programs.run("sleep", &["60"], Duration::from_millis(100));
        assert!(matches!(hung, Err(ProgramError::TimedOut { .. })), "{hung:?}");
        // And the next one is run.
        assert_eq!(programs.run("echo", &["x"], LONG), Ok("x\n".into()));
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn much_output_is_read() {
        let programs = Programs::start(|| {}).unwrap();
        let said = programs.run("seq", &["1", "200000"], LONG).unwrap();
        assert_eq!(said.lines().count(), 200_000);
    }
}
