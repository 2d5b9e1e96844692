//! What `restore`, `undelete` and `rewind` have in common: asking for it, and telling what was done.

use crate::control::lookup::Target;
use crate::query::records::{Outcome as Ended, RestoreAction, RestoreRecord};
use crate::query::request::{BringBack, Request, Run};

use super::ask::Shown;
use super::output::{Format, Output, Style, size};
use super::{Context, Outcome};

/// Asks for a plan or for its being carried out, and prints each step.
pub(super) fn bring_back(
    context: &mut Context,
    target: &Target,
    what: BringBack,
    run: Run,
) -> anyhow::Result<Outcome> {
    let request = Request::BringBack { what, run };
    let shown = context.shown(target);
    let (mut steps, mut failed) = (0_u64, 0_u64);
    context.ask(target, &request, |out, record: RestoreRecord| {
        steps += 1;
        failed += u64::from(record.outcome == Ended::Failed);
        print(out, &shown, &record)
    })?;
    if context.out.format == Format::Human {
        let summary = summary(steps, failed, run);
        context.out.line(summary.as_bytes())?;
    }
    Ok(if failed > 0 { Outcome::Partial } else { Outcome::Complete })
}

fn summary(steps: u64, failed: u64, run: Run) -> String {
    let things = |n: u64| if n == 1 { "1 thing".into() } else { format!("{n} things") };
    match (steps, failed, run) {
        (0, _, _) => "nothing to do: it is as it was".into(),
        (_, 0, Run::Plan) => format!("{} to do; nothing was changed", things(steps)),
        (_, 0, Run::Do) => format!("{} done", things(steps)),
        (_, _, Run::Plan) => {
            format!(
                "{} to do, {failed} that cannot be; nothing was changed",
                things(steps - failed)
            )
        }
        (_, _, Run::Do) => format!("{} done, {failed} failed", things(steps - failed)),
    }
}

fn print(out: &mut Output, shown: &Shown, record: &RestoreRecord) -> anyhow::Result<()> {
    let (word, style) = match record.outcome {
        Ended::Failed => ("failed", Style::Bad),
        _ => (word(record.action), Style::Bold),
    };
    let mut line = out.styled(&format!("{word:<10}"), style).into_bytes();
    line.push(b' ');
    if let Some(from) = &record.from_path {
        line.extend_from_slice(&out.name(&shown.path(&from.0)));
        line.extend_from_slice(b" -> ");
    }
    line.extend_from_slice(&out.name(&shown.path(&record.path.0)));
    if let (Some(bytes), Ended::Planned | Ended::Done) = (record.size, record.outcome) {
        line.extend_from_slice(format!(" ({})", size(bytes)).as_bytes());
    }
    if let Some(reason) = &record.reason {
        line.extend_from_slice(format!(": {reason}").as_bytes());
    }
    out.line(&line)
}

fn word(action: RestoreAction) -> &'static str {
    match action {
        RestoreAction::Remove => "remove",
        RestoreAction::Dir => "mkdir",
        RestoreAction::Move => "move",
        RestoreAction::Link => "link",
        RestoreAction::File => "restore",
        RestoreAction::Symlink => "symlink",
        RestoreAction::Special => "mknod",
        RestoreAction::Attributes => "attributes",
        RestoreAction::None => "nothing",
    }
}
