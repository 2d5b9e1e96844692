//! The log, on stderr.
//!
//! Owns how much is told, and its form: a line of text for people, or an object of JSON a line for programs,
//! which then also have a panic and the last error in that form.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

use super::output::escape;
use super::{Color, Global};

/// What lines of the log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LogFormat {
    /// Text.
    #[default]
    Text,
    /// An object of JSON each.
    Json,
}

/// Begins to log; who serves a mount tells more.
pub(super) fn start(global: &Global, serves: bool) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) if serves => "info,fuser=warn",
        (false, 0) => "warn",
        (false, 1) => "debug,fuser=info",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("HORACE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if global.log_format == LogFormat::Json {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::capture().to_string();
            tracing::error!(backtrace, "{panic}");
        }));
        return;
    }
    // A line each, whatever is in the names that it tells of.
    let fields = debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        let value = escape(value.as_bytes());
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    });
    log.fmt_fields(fields.delimited(" "))
        .with_ansi(std::io::stderr().is_terminal() && global.color != Color::Never)
        .init();
}
