//! The command line.
//!
//! Owns the arguments, the environment, exit codes and how errors are told. One file per subcommand
//! turns arguments into one request or action and prints the answer. Answers go to stdout, everything
//! else to stderr.
//!
//! Exit codes: 0 fine, 1 an error or damage, 2 wrong usage, 3 an answer that is not whole. `horace check` has those
//! of monitoring: 0 well, 1 a warning, 2 critical, 3 unknown.
#![expect(
    clippy::disallowed_methods,
    reason = "the command line reads the environment, for everybody else"
)]

mod ask;
mod blame;
mod bring_back;
mod busy;
mod cat;
mod changes;
mod check;
mod diff;
mod key;
mod label;
mod log;
mod logging;
mod manifest;
mod mark;
mod mcp;
mod migrate;
mod mount;
mod output;
mod prune;
mod reconcile;
mod restore;
mod rewind;
mod search;
mod snapshot;
mod status;
mod sync;
mod umount;
mod undelete;
mod verify;
mod webhook;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::config::{ConfigFileError, OptionError};
use crate::control::client::ClientError;
use crate::control::lookup::LookupError;
use crate::control::registry;
use crate::query::request::{Failure, FailureCode};
use crate::timespec::{TimeError, parse_time};
use logging::LogFormat;
use output::{Format, Output, OutputClosed, escape};

/// Mount a directory so that every version of every file in it is remembered
#[derive(Debug, Parser)]
#[command(name = "horace", version, max_term_width = 100)]
struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Global {
    /// Print one JSON object per line, with absolute times and exact names
    #[arg(long, global = true)]
    json: bool,
    /// Log more; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log errors only, and show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Write the log as lines of text or of JSON
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "HORACE_LOG_FORMAT",
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// Colour the output: always, never, or on a terminal unless `NO_COLOR` is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// Find daemons in this directory instead of the usual ones
    #[arg(long, global = true, hide = true, env = "HORACE_RUNTIME_DIR", value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mount(mount::Mount),
    Umount(umount::Umount),
    Status(status::Status),
    Sync(sync::Sync),
    Log(log::Log),
    Cat(cat::Cat),
    Diff(diff::Diff),
    Restore(restore::Restore),
    Undelete(undelete::Undelete),
    Rewind(rewind::Rewind),
    Manifest(manifest::Manifest),
    Search(search::Search),
    Changes(changes::Changes),
    Blame(blame::Blame),
    Pin(mark::Pin),
    Unpin(mark::Unpin),
    Note(mark::Note),
    Label(label::Label),
    Collection(label::Collection),
    Prune(prune::Prune),
    Reconcile(reconcile::Reconcile),
    Snapshot(snapshot::Snapshot),
    Check(check::Check),
    Verify(verify::Verify),
    Key(key::Key),
    Webhook(webhook::Webhook),
    Mcp(mcp::Mcp),
    Migrate(migrate::Migrate),
}

/// How a command ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All of it was done.
    Complete,
    /// Some of the answer is missing.
    Partial,
    /// What was looked at is damaged.
    Damaged,
    /// What monitoring is to hear, by its own code.
    Checked(u8),
}

/// What every command works with.
struct Context {
    out: Output,
    /// Where daemons are looked for.
    runtime_dirs: Vec<PathBuf>,
    /// Where this user's daemons register.
    own_runtime_dir: Option<PathBuf>,
    working_dir: PathBuf,
    progress: Progress,
}

/// Whether progress is shown on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Shown,
    Hidden,
}

/// An error with advice.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Advised {
    message: String,
    hint: String,
}

impl Advised {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into() }
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse_from(command_line(std::env::args_os())) {
        Ok(args) => args,
        Err(error) => {
            print_usage(&error);
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    logging::start(&args.global, matches!(args.command, Command::Mount(_)));
    let log_format = args.global.log_format;
    match run(args) {
        Ok(Outcome::Complete) => ExitCode::SUCCESS,
        Ok(Outcome::Partial) => ExitCode::from(3),
        Ok(Outcome::Damaged) => ExitCode::from(1),
        Ok(Outcome::Checked(code)) => ExitCode::from(code),
        Err(error) => report(&error, log_format),
    }
}

fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut context = Context::new(&args.global)?;
    let outcome = match args.command {
        Command::Mount(command) => command.run(&context, &args.global, &environment_options()?),
        Command::Umount(command) => command.run(&context),
        Command::Status(command) => command.run(&mut context),
        Command::Sync(command) => command.run(&mut context),
        Command::Log(command) => command.run(&mut context),
        Command::Cat(command) => command.run(&mut context),
        Command::Diff(command) => command.run(&mut context),
        Command::Restore(command) => command.run(&mut context),
        Command::Undelete(command) => command.run(&mut context),
        Command::Rewind(command) => command.run(&mut context),
        Command::Manifest(command) => command.run(&mut context),
        Command::Search(command) => command.run(&mut context),
        Command::Changes(command) => command.run(&mut context),
        Command::Blame(command) => command.run(&mut context),
        Command::Pin(command) => command.run(&mut context),
        Command::Unpin(command) => command.run(&mut context),
        Command::Note(command) => command.run(&mut context),
        Command::Label(command) => command.run(&mut context),
        Command::Collection(command) => command.run(&mut context),
        Command::Prune(command) => command.run(&mut context),
        Command::Reconcile(command) => command.run(&mut context),
        Command::Snapshot(command) => command.run(&mut context),
        Command::Check(command) => command.run(&mut context),
        Command::Verify(command) => command.run(&mut context),
        Command::Key(command) => command.run(&mut context),
        Command::Webhook(command) => command.run(&mut context),
        Command::Mcp(command) => command.run(&context),
        Command::Migrate(command) => command.run(&mut context),
    }?;
    context.out.flush()?;
    Ok(outcome)
}

impl Context {
    fn new(global: &Global) -> anyhow::Result<Self> {
        let terminal = std::io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colors = match global.color {
            Color::Auto => terminal && !no_color,
            Color::Always => true,
            Color::Never => false,
        };
        let format = if global.json { Format::Json } else { Format::Human };
        let xdg = std::env::var_os("XDG_RUNTIME_DIR");
        let uid = rustix::process::geteuid().as_raw();
        let own_runtime_dir = match &global.runtime_dir {
            Some(dir) => Some(std::path::absolute(dir).context("no working directory")?),
            None => registry::runtime_dir_of(uid, xdg.as_deref()),
        };
        let mut runtime_dirs: Vec<PathBuf> = own_runtime_dir.iter().cloned().collect();
        if global.runtime_dir.is_none() {
            runtime_dirs.extend(registry::runtime_dir_of(0, None));
            runtime_dirs.dedup();
        }
        let progress = if std::io::stderr().is_terminal() && !global.quiet {
            Progress::Shown
        } else {
            Progress::Hidden
        };
        Ok(Self {
            out: Output::new(format, terminal, colors),
            runtime_dirs,
            own_runtime_dir,
            working_dir: std::env::current_dir().context("no working directory")?,
            progress,
        })
    }
}

/// A time as it was typed, if one was, in nanoseconds since 1970.
fn typed_time(text: Option<&str>, now_ns: i64) -> Result<Option<i64>, TimeError> {
    text.map(|text| parse_time(text, now_ns, &jiff::tz::TimeZone::system())).transpose()
}

/// Options of a mount that have a variable, too.
const VARIABLES: [&str; 24] = [
    "state",
    "io",
    "passthrough",
    "keep",
    "threads",
    "descriptors",
    "prune",
    "backup",
    "reconcile",
    "disk",
    "reconcile_threads",
    "reconcile_rate",
    "attr_timeout",
    "watch",
    "snapshots",
    "dataset",
    "require",
    "api",
    "api_also",
    "api_guest",
    "api_host",
    "api_cert",
    "api_cert_key",
    "config",
];

/// Variables of the predecessor's that still count.
const PREDECESSORS: [&str; 2] = ["ENABLE_ZFS_SNAPSHOTS", "ZFS_DATASET"];

/// The option words that these variables mean, in the same order: the one is a switch in any case of letters, the
/// other names the dataset, which nobody asked about where the switch was off.
fn predecessors([enable, dataset]: [Option<String>; 2]) -> anyhow::Result<Vec<String>> {
    let is_on = match enable.as_deref() {
        None | Some("") => None,
        Some(on) if on.eq_ignore_ascii_case("true") => Some(true),
        Some(off) if off.eq_ignore_ascii_case("false") => Some(false),
        Some(other) => {
            anyhow::bail!("the variable {} takes true or false, not `{other}`", PREDECESSORS[0])
        }
    };
    let switch = is_on.map(|is_on| if is_on { "snapshots=on" } else { "snapshots=off" });
    let dataset = dataset.filter(|dataset| !dataset.is_empty() && is_on != Some(false));
    let dataset = dataset.map(|dataset| word("dataset", &dataset));
    Ok(switch.map(str::to_owned).into_iter().chain(dataset).collect())
}

/// The settings in the environment as option words, which those of `-o` come after.
fn environment_options() -> anyhow::Result<Vec<String>> {
    let [enable, dataset] = PREDECESSORS;
    let mut words = predecessors([variable(enable)?, variable(dataset)?])?;
    for name in VARIABLES {
        if let Some(value) = variable(&format!("HORACE_{}", name.to_ascii_uppercase()))? {
            words.push(word(name, &value));
        }
    }
    Ok(words)
}

fn variable(name: &str) -> anyhow::Result<Option<String>> {
    let value = std::env::var_os(name).map(OsString::into_string).transpose();
    value.map_err(|_| anyhow::anyhow!("the variable {name} is not UTF-8"))
}

/// A setting as an option word.
fn word(name: &str, value: &str) -> String {
    format!("{name}={}", value.replace('\\', r"\\").replace(',', r"\,"))
}

/// The arguments as clap wants them: mount(8) runs `mount.horace` without a subcommand, and
/// mount.fuse runs `horace BACKING MOUNTPOINT -o …`.
fn command_line(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_else(|| "horace".into());
    let mut rest: Vec<OsString> = args.collect();
    let helper = Path::new(&program)
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"mount."));
    let bare = rest.first().is_some_and(|arg| Path::new(arg).is_absolute());
    if helper {
        // mount(8) passes its own switches on; `-t` and `-N` have a value.
        let mut kept = Vec::new();
        let mut given = rest.into_iter();
        while let Some(arg) = given.next() {
            match arg.as_encoded_bytes() {
                b"-s" | b"-n" | b"-v" | b"-f" => {}
                b"-t" | b"-N" => {
                    given.next();
                }
                _ => kept.push(arg),
            }
        }
        rest = kept;
    }
    let mut line = vec![program];
    if helper || bare {
        line.push("mount".into());
    }
    line.append(&mut rest);
    line
}

/// Tells of an error; nobody is told where nobody reads on.
#[expect(clippy::print_stderr, reason = "this is where errors are told")]
fn report(error: &anyhow::Error, log_format: LogFormat) -> ExitCode {
    if error.is::<OutputClosed>() {
        return ExitCode::SUCCESS;
    }
    if let Some(mount::ChildFailed(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let (message, hint) = (message(error), hint(error));
    match log_format {
        LogFormat::Json => tracing::error!(hint, "{message}"),
        LogFormat::Text => {
            eprintln!("horace: {message}");
            if let Some(hint) = hint {
                eprintln!("hint: {}", escape(hint.as_bytes()));
            }
        }
    }
    let usage = error.is::<OptionError>() || error.is::<ConfigFileError>();
    ExitCode::from(if usage { 2 } else { 1 })
}

/// The chain of causes on one line, without what a cause only repeats and what a terminal would obey.
fn message(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.is_empty() {
            line = text;
        } else if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
    }
    escape(line.replace('\n', " ").as_bytes())
}

/// Prints help, or what is wrong with the arguments, which may be anything.
#[expect(clippy::print_stderr, reason = "this is where errors are told")]
fn print_usage(error: &clap::Error) {
    let is_plain =
        |arg: OsString| escape(arg.as_encoded_bytes()).as_bytes() == arg.as_encoded_bytes();
    if !error.use_stderr() || std::env::args_os().all(is_plain) {
        // Where even this cannot be printed, the code must do.
        let _ = error.print();
        return;
    }
    for line in error.to_string().lines() {
        eprintln!("{}", escape(line.as_bytes()));
    }
}

fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(advised) = cause.downcast_ref::<Advised>() {
            return Some(advised.hint.clone());
        }
        if let Some(lookup) = cause.downcast_ref::<LookupError>() {
            return Some(match lookup {
                LookupError::NoMount { .. } => {
                    "mount one with `horace mount BACKING MOUNTPOINT`, or see `horace status`".into()
                }
                LookupError::NotReadable { backing } => format!(
                    "ask as root, or start it with `horace mount {} MOUNTPOINT`",
                    backing.display()
                ),
                LookupError::Dead { mountpoint } => format!(
                    "`horace umount {0}` clears it away, `horace mount BACKING {0}` starts it again",
                    mountpoint.display()
                ),
            });
        }
        if cause.downcast_ref::<OptionError>().is_some() {
            return Some("`horace mount --help` lists the options".into());
        }
        let failure = match cause.downcast_ref::<ClientError>() {
            Some(ClientError::Refused(failure)) => Some(failure),
            _ => cause.downcast_ref::<Failure>(),
        };
        match failure?.code {
            FailureCode::NotRunning => Some("start it with `horace mount BACKING MOUNTPOINT`".into()),
            FailureCode::WrongKind => Some("`horace changes DIR` tells what happened in a directory".into()),
            FailureCode::Capped => Some(
                "see what would go with `horace prune --dry-run`; `--no-cap` lets it go, or give \
                 `[retention.cap]` other limits"
                    .into(),
            ),
            FailureCode::Busy => Some("try again when other queries are done".into()),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn variables_of_the_predecessor_mean_options() {
        let words = |enable: &str, dataset: &str| {
            let set = |value: &str| (value != "unset").then(|| value.to_owned());
            predecessors([set(enable), set(dataset)]).map_err(|error| error.to_string())
        };
        let is = |words: &[&str]| Ok(words.iter().map(|&word| word.to_owned()).collect());
        assert_eq!(words("unset", "unset"), is(&[]));
        assert_eq!(words("", ""), is(&[]));
        assert_eq!(words("True", "tank/files"), is(&["snapshots=on", "dataset=tank/files"]));
        assert_eq!(words("unset", "tank/a,b"), is(&[r"dataset=tank/a\,b"]));
        assert_eq!(words("FALSE", "tank/files"), is(&["snapshots=off"]));
        let wrong = "the variable ENABLE_ZFS_SNAPSHOTS takes true or false, not `1`";
        assert_eq!(words("1", "unset"), Err(wrong.to_owned()));
    }

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_option_with_a_value_has_a_variable() {
        let args = Args::command();
        let help = args.find_subcommand("mount").unwrap().get_after_help().unwrap().to_string();
        let named: Vec<_> = help
            .lines()
            .filter_map(|line| Some(line.strip_prefix("  ")?.split_once('=')?.0))
            .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            .collect();
        assert_eq!(named, VARIABLES);
    }

    #[test]
    fn help_texts_have_no_full_stop() {
        for command in Args::command().get_subcommands() {
            let about = command.get_about().unwrap().to_string();
            assert!(!about.ends_with('.'), "{about}");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let help = arg.get_help().map(ToString::to_string);
                assert!(help.is_some_and(|text| !text.ends_with('.')), "{arg}");
            }
        }
    }

    #[test]
    fn mount_helpers_get_their_subcommand() {
        let line = |args: &[&str]| {
            let line = command_line(args.iter().map(OsString::from));
            line.join(" ".as_ref()).into_string().unwrap()
        };
        assert_eq!(
            line(&["/sbin/mount.horace", "/b", "/m", "-n", "-t", "horace", "-o", "rw,api=off"]),
            "/sbin/mount.horace mount /b /m -o rw,api=off"
        );
        assert_eq!(line(&["horace", "/b", "/m"]), "horace mount /b /m");
        assert_eq!(line(&["horace", "log", "/m/x"]), "horace log /m/x");
        assert_eq!(line(&[]), "horace");
    }

    #[test]
    fn a_chain_of_causes_is_one_line() {
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(message(&error), "cannot write: disk full");
        let error = anyhow::anyhow!("b").context("a");
        assert_eq!(message(&error), "a: b");
        let error = anyhow::anyhow!("\u{1b}[2J").context("a\nb");
        assert_eq!(message(&error), "a b: \\u{1b}[2J");
    }

    #[test]
    fn hints_fit_the_error() {
        let error = anyhow::Error::new(LookupError::NoMount { path: "/x".into() }).context("log");
        assert!(hint(&error).unwrap().contains("horace mount BACKING MOUNTPOINT"));
        let failure = Failure { code: FailureCode::WrongKind, message: String::new() };
        assert!(hint(&ClientError::from(failure).into()).unwrap().contains("changes"));
        assert_eq!(hint(&anyhow::anyhow!("x")), None);
    }
}
