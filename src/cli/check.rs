//! `horace check`, for monitoring.
//!
//! Owns the one line and the exit codes that Nagios and its kin read: 0 well, 1 a warning, 2 critical, 3
//! unknown. Whatever goes wrong while asking is unknown.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::query::request::Request;
use crate::query::snapshots::SnapshotsStatus;
use crate::query::status::StatusRecord;
use crate::timespec::Span;

use super::{Context, Outcome};

/// Tell monitoring how something is, by a line and an exit code
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Snapshots(Snapshots),
}

/// Check that snapshots are taken when they are due
#[derive(Debug, clap::Args)]
struct Snapshots {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
    /// Warn if one is overdue for so long
    #[arg(long, value_name = "SPAN", default_value = "15m")]
    warning: Span,
    /// Call it critical if one is overdue for so long
    #[arg(long, value_name = "SPAN", default_value = "2h")]
    critical: Span,
}

/// How bad it is; the number is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

impl Check {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let What::Snapshots(check) = self.what;
        let (level, text) = match check.status(context) {
            Ok(status) => check.judge(&status),
            Err(error) => (Level::Unknown, super::message(&error)),
        };
        context.out.line(format!("SNAPSHOTS {} - {text}", level.word()).as_bytes())?;
        Ok(Outcome::Checked(level.code()))
    }
}

impl Snapshots {
    fn status(&self, context: &Context) -> anyhow::Result<SnapshotsStatus> {
        let target = context.dir_target(self.mountpoint.as_deref())?;
        let status: Vec<StatusRecord> = super::ask::collect(&target, &Request::Status)?;
        let status = status.into_iter().next().context("there is no status")?;
        let mount = status.mount.ok_or_else(|| anyhow::anyhow!("no daemon serves this mount"))?;
        Ok(mount.snapshots)
    }

    /// What there is to say, and how bad it is.
    fn judge(&self, status: &SnapshotsStatus) -> (Level, String) {
        if let Some(reason) = &status.reason {
            return (Level::Critical, format!("there are none: {reason}"));
        }
        if !status.enabled || status.classes.is_empty() {
            return (Level::Warning, "none are taken: they are switched off".into());
        }
        let (mut level, mut troubles, mut figures) = (Level::Ok, Vec::new(), String::new());
        for class in &status.classes {
            let overdue_ns = i64::try_from(class.overdue_s).unwrap_or(i64::MAX);
            let overdue_ns = overdue_ns.saturating_mul(1_000_000_000);
            let its = match overdue_ns {
                ns if ns >= self.critical.as_ns() => Level::Critical,
                ns if ns >= self.warning.as_ns() || class.failures > 0 => Level::Warning,
                _ => Level::Ok,
            };
            level = level.max(its);
            if its != Level::Ok {
                let why = class.error.as_deref().unwrap_or("one is due");
                troubles.push(format!("{}: {why}", class.class));
            }
            figures += &format!(" {}_overdue={}s", class.class, class.overdue_s);
        }
        let text = match troubles.is_empty() {
            true => format!("{} of {}", status.backend, status.dataset),
            false => troubles.join("; "),
        };
        (level, format!("{} |{figures}", text.replace('|', "/").escape_debug()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::snapshots::SnapshotClassStatus;
    use rstest::rstest;

    fn judge(overdue_s: u64, failures: u32) -> (Level, String) {
        let class = SnapshotClassStatus {
            class: "hourly".into(),
            schedule: "hourly".into(),
            keep: "24".into(),
            last: None,
            next: None,
            overdue_s,
            failures,
            error: (failures > 0).then(|| "no | space".into()),
        };
        let status = SnapshotsStatus {
            backend: "zfs".into(),
            dataset: "tank/files".into(),
            reason: None,
            enabled: true,
            classes: vec![class],
        };
        check().judge(&status)
    }

    fn check() -> Snapshots {
        let span = |text: &str| text.parse().unwrap();
        Snapshots { mountpoint: None, warning: span("15m"), critical: span("2h") }
    }

    #[rstest]
    #[case(0, 0, Level::Ok, "zfs of tank/files | hourly_overdue=0s")]
    #[case(899, 0, Level::Ok, "zfs of tank/files | hourly_overdue=899s")]
    #[case(900, 0, Level::Warning, "hourly: one is due | hourly_overdue=900s")]
    #[case(60, 1, Level::Warning, "hourly: no / space | hourly_overdue=60s")]
    #[case(7200, 9, Level::Critical, "hourly: no / space | hourly_overdue=7200s")]
    fn what_is_overdue_is_told(
        #[case] overdue_s: u64,
        #[case] failures: u32,
        #[case] level: Level,
        #[case] text: &str,
    ) {
        assert_eq!(judge(overdue_s, failures), (level, text.into()));
    }

    #[test]
    fn where_there_are_none_somebody_hears_of_it() {
        let none = SnapshotsStatus { reason: Some("ext4".into()), ..SnapshotsStatus::default() };
        assert_eq!(check().judge(&none), (Level::Critical, "there are none: ext4".into()));
        assert_eq!(check().judge(&SnapshotsStatus::default()).0, Level::Warning);
        let codes = [Level::Ok, Level::Warning, Level::Critical, Level::Unknown].map(Level::code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }
}
