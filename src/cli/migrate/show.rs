//! What `horace migrate` prints.

use std::path::Path;

use serde::Serialize;

use super::super::output::{Format, Output, Style, escape, size};
use super::shown;
use crate::migrate::advice::command;
use crate::migrate::compare::{Compared, Difference};
use crate::migrate::copy::arguments;
use crate::migrate::import::Imported;
use crate::migrate::mark::Progress;
use crate::migrate::plan::Plan;
use crate::query::request::PathField;

/// What is to be done.
#[derive(Serialize)]
struct PlanRecord {
    source: PathField,
    source_filesystem: String,
    target: PathField,
    target_filesystem: String,
    state: PathField,
    files: u64,
    directories: u64,
    bytes: u64,
    allocated_bytes: u64,
    available_bytes: u64,
    catalog: Option<PathField>,
    resumes: bool,
    commands: Vec<String>,
    notes: Vec<String>,
    problems: Vec<String>,
}

/// What is not the same.
#[derive(Serialize)]
struct DifferenceRecord {
    #[serde(flatten)]
    path: PathField,
    difference: String,
}

/// What could not be copied.
#[derive(Serialize)]
struct ComplaintRecord<'c> {
    complaint: &'c str,
}

/// What was left out of a history.
#[derive(Serialize)]
struct LeftOutRecord {
    #[serde(flatten)]
    path: PathField,
    left_out: String,
}

/// What was done.
#[derive(Serialize)]
struct DoneRecord {
    names: u64,
    files: u64,
    bytes: u64,
    differences: u64,
    versions: u64,
    deletions: u64,
    left_out: usize,
}

/// What comes next.
#[derive(Serialize)]
struct AdviceRecord<'a> {
    advice: &'a str,
    commands: &'a [String],
}

fn field(path: &Path) -> PathField {
    PathField(path.as_os_str().as_encoded_bytes().to_vec())
}

fn record(out: &mut Output, record: &impl Serialize) -> anyhow::Result<()> {
    out.line(serde_json::to_string(record)?.as_bytes())
}

/// The commands that a plan runs.
fn commands(plan: &Plan) -> Vec<String> {
    let datasets = plan.datasets.iter().filter_map(|dataset| dataset.create.as_ref());
    let mut commands: Vec<String> = datasets.map(|words| command("zfs", words)).collect();
    let words = arguments(&plan.source, &plan.target, plan.changed());
    commands.push(command("rsync", &words));
    commands
}

/// Prints what would be done.
pub(super) fn plan(out: &mut Output, plan: &Plan) -> anyhow::Result<()> {
    if out.format == Format::Json {
        return record(out, &plan_record(plan));
    }
    let found = &plan.survey;
    let mut line = |head: &str, text: String| {
        let head = out.styled(&format!("{head:9}"), Style::Bold);
        out.line(format!("{head} {text}").as_bytes())
    };
    let files = format!("{} files, {} directories", found.files, found.dirs);
    let bytes = format!("{}, {} on the disk", size(found.bytes), size(found.allocated));
    line("from", format!("{} ({}): {files}, {bytes}", shown(&plan.source), plan.from.kind))?;
    let free = size(plan.to.available);
    line("to", format!("{} ({}, {free} free)", shown(&plan.target), plan.to.kind))?;
    if let Some(state) = &plan.state {
        line("catalog", shown(state))?;
    }
    match &plan.catalog {
        Some((path, totals)) => {
            let rows = format!("{} files, {} versions", totals.files, totals.versions);
            line("history", format!("{}: {rows}", shown(path)))?;
        }
        None => line("history", "none".into())?,
    }
    if plan.progress != Progress::None {
        line("resumes", "what an earlier run has copied stays".into())?;
    }
    for command in commands(plan) {
        line("run", command)?;
    }
    line("then", "read both sides and compare everything".into())?;
    for note in &plan.notes {
        line("note", escape(note.as_bytes()))?;
    }
    for problem in &plan.problems {
        line("refused", escape(problem.to_string().as_bytes()))?;
    }
    Ok(())
}

fn plan_record(plan: &Plan) -> PlanRecord {
    PlanRecord {
        source: field(&plan.source),
        source_filesystem: plan.from.kind.clone(),
        target: field(&plan.target),
        target_filesystem: plan.to.kind.clone(),
        state: field(&plan.state_dir()),
        files: plan.survey.files,
        directories: plan.survey.dirs,
        bytes: plan.survey.bytes,
        allocated_bytes: plan.survey.allocated,
        available_bytes: plan.to.available,
        catalog: plan.catalog.as_ref().map(|(path, _)| field(path)),
        resumes: plan.progress != Progress::None,
        commands: commands(plan),
        notes: plan.notes.clone(),
        problems: plan.problems.iter().map(ToString::to_string).collect(),
    }
}

/// Prints what could not be copied.
pub(super) fn complaint(out: &mut Output, complaint: &str) -> anyhow::Result<()> {
    if out.format == Format::Json {
        return record(out, &ComplaintRecord { complaint });
    }
    out.line(escape(complaint.as_bytes()).as_bytes())
}

/// Prints what is not the same.
pub(super) fn difference(out: &mut Output, found: &Difference) -> anyhow::Result<()> {
    if out.format == Format::Json {
        let difference = found.what.to_string();
        return record(out, &DifferenceRecord { path: field(&found.path), difference });
    }
    let head = out.styled("differs", Style::Bad);
    let what = escape(found.what.to_string().as_bytes());
    out.line(format!("{head}  {}: {what}", shown(&found.path)).as_bytes())
}

/// Prints what was done.
pub(super) fn done(
    out: &mut Output,
    plan: &Plan,
    compared: &Compared,
    imported: Option<&Imported>,
) -> anyhow::Result<()> {
    let left_out = imported.map_or(&[][..], |imported| &imported.left_out);
    if out.format == Format::Json {
        for (path, why) in left_out {
            record(
                out,
                &LeftOutRecord { path: PathField(path.clone()), left_out: why.to_string() },
            )?;
        }
        let Compared { names, files, bytes, differences } = *compared;
        let (versions, deletions) = imported.map_or((0, 0), |i| (i.versions, i.deletions));
        let left_out = left_out.len();
        let done = DoneRecord { names, files, bytes, differences, versions, deletions, left_out };
        return record(out, &done);
    }
    for (path, why) in left_out {
        out.line(format!("left out  {}: {why}", escape(path)).as_bytes())?;
    }
    let files = format!("{} files with {}", compared.files, size(compared.bytes));
    out.line(format!("compared {} names, {files}", compared.names).as_bytes())?;
    if let (Some(imported), Some((path, _))) = (imported, &plan.catalog) {
        let told = format!("{} versions and {} deletions", imported.versions, imported.deletions);
        out.line(format!("took over {told} from {}", shown(path)).as_bytes())?;
    }
    let told = match compared.differences {
        0 => "both sides are the same".to_owned(),
        n => format!("{n} differences: run it again, when nobody changes the source any more"),
    };
    out.line(told.as_bytes())
}

/// Prints commands for people.
pub(super) fn lines(out: &mut Output, head: &str, commands: &[String]) -> anyhow::Result<()> {
    if out.format == Format::Json {
        return record(out, &AdviceRecord { advice: head, commands });
    }
    out.line(format!("{head}:").as_bytes())?;
    commands.iter().try_for_each(|line| out.line(format!("  {line}").as_bytes()))
}
