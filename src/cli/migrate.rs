//! `horace migrate`.
//!
//! Owns the order of a move, the question before it, and its progress. What is found out and done is in
//! `migrate`.

mod show;

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::output::escape;
use super::{Advised, Context, Outcome, Progress as Shown};
use crate::catalog::predecessor;
use crate::daemon::{Claim, claim, must_be_free};
use crate::migrate::advice;
use crate::migrate::compare::{Compared, RootOwner, compare};
use crate::migrate::copy::copy;
use crate::migrate::history::history;
use crate::migrate::import::{Imported, Owner, import};
use crate::migrate::mark::{Mark, Progress};
use crate::migrate::plan::{Catalog, Plan, Wanted};
use crate::migrate::zfs;

/// Move a directory in: copy it, compare the copy, and take over a predecessor's history
#[derive(Debug, clap::Args)]
pub(super) struct Migrate {
    /// The directory to move in; it stays as it is
    source: PathBuf,
    /// Where it goes: an empty directory, or one to be made [default: where the dataset is]
    target: Option<PathBuf>,
    /// Make this ZFS dataset for the files, or use it [default without TARGET: tank/horace/files]
    #[arg(long, value_name = "DATASET")]
    files_dataset: Option<String>,
    /// Make this ZFS dataset for the catalog, or use it [default without TARGET:
    /// tank/horace/metadata]
    #[arg(long, value_name = "DATASET", conflicts_with = "state")]
    metadata_dataset: Option<String>,
    /// Where the catalog is to be, if TARGET will be mounted with `-o state=DIR`
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Give TARGET itself to this user, and the history of files that are gone
    #[arg(long)]
    uid: Option<u32>,
    /// Give them to this group
    #[arg(long)]
    gid: Option<u32>,
    /// The predecessor's catalog [default: .horace/catalog.db in SOURCE or beside it, if it is there]
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Take over no history
    #[arg(long, conflicts_with = "catalog")]
    no_catalog: bool,
    /// What the predecessor called SOURCE, if its catalog has absolute paths; may be repeated
    #[arg(long, value_name = "DIR")]
    known_as: Vec<PathBuf>,
    /// Show the plan, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Migrate {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let plan = self.plan(context)?;
        show::plan(&mut context.out, &plan)?;
        if !plan.problems.is_empty() {
            context.out.flush()?;
            return Err(Advised::new(
                "nothing was changed: it cannot be done like this",
                "the lines with `refused` say why",
            )
            .into());
        }
        if self.dry_run {
            return Ok(Outcome::Complete);
        }
        context.out.flush()?;
        if !self.yes {
            ask()?;
        }
        self.move_in(context, &plan)
    }

    fn plan(&self, context: &Context) -> anyhow::Result<Plan> {
        let absolute = |path: &PathBuf| std::path::absolute(path).context("no working directory");
        let wanted = Wanted {
            source: absolute(&self.source)?,
            target: self.target.as_ref().map(absolute).transpose()?,
            files_dataset: self.files_dataset.clone(),
            metadata_dataset: self.metadata_dataset.clone(),
            state: self.state.as_ref().map(absolute).transpose()?,
            catalog: match &self.catalog {
                Some(path) => Catalog::At(absolute(path)?),
                None if self.no_catalog => Catalog::None,
                None => Catalog::Usual,
            },
        };
        let bar = bar(context, 0, "{spinner} {pos} names looked at")?;
        let served = |dir: &Path| must_be_free(dir).map_err(|error| format!("{error:#}"));
        let plan = Plan::make(&wanted, served, || bar.inc(1));
        bar.finish_and_clear();
        match plan {
            Err(crate::migrate::plan::PlanError::NoTarget) => Err(Advised::new(
                "there is no `zfs` here, and no TARGET was named",
                "name a directory: `horace migrate SOURCE TARGET`",
            )
            .into()),
            plan => Ok(plan?),
        }
    }

    fn move_in(&self, context: &mut Context, plan: &Plan) -> anyhow::Result<Outcome> {
        for dataset in &plan.datasets {
            zfs::create(dataset)?;
        }
        let claim = claim(&plan.target, plan.state.clone())?;
        // Whoever was asked may have taken his time, and what was made may be other than it was thought to be.
        if let Some(problem) = plan.look_again()?.first() {
            bail!("nothing was copied: {problem}");
        }
        let mark =
            |progress| Mark::new(&plan.source, &plan.target, progress).write(&claim.state_dir);
        // What was found to differ is found so until it was copied by its content.
        if plan.progress != Progress::Differs {
            mark(Progress::Copying)?;
        }
        let is_whole = self.copy(context, plan)?;
        let compared = self.compare(context, plan)?;
        let imported = self.import(context, plan, &claim)?;
        show::done(&mut context.out, plan, &compared, imported.as_ref())?;
        let is_same = is_whole && compared.differences == 0;
        mark(if is_same { Progress::Done } else { Progress::Differs })?;
        if !is_same {
            return Ok(Outcome::Partial);
        }
        let lines = advice::next_steps(&plan.target, plan.state.as_deref());
        show::lines(&mut context.out, "to go on", &lines)?;
        let lines = advice::way_back(&plan.source, &plan.target, &plan.datasets);
        show::lines(&mut context.out, "to go back", &lines)?;
        Ok(Outcome::Complete)
    }

    /// Copies everything and brings it to the disk; whether nothing was left out.
    fn copy(&self, context: &mut Context, plan: &Plan) -> anyhow::Result<bool> {
        let bar = bytes_bar(context, plan, "copy")?;
        let copied =
            copy(&plan.source, &plan.target, plan.changed(), |bytes| bar.set_position(bytes));
        bar.finish_and_clear();
        let copied =
            copied.context("what was copied stays: the same command goes on from there")?;
        for complaint in &copied.complaints {
            show::complaint(&mut context.out, complaint)?;
        }
        if self.uid.is_some() || self.gid.is_some() {
            std::os::unix::fs::chown(&plan.target, self.uid, self.gid)
                .with_context(|| format!("cannot give {} away", plan.target.display()))?;
        }
        let target = std::fs::File::open(&plan.target)?;
        rustix::fs::syncfs(&target).context("cannot write everything to the disk")?;
        Ok(copied.complaints.is_empty())
    }

    fn compare(&self, context: &mut Context, plan: &Plan) -> anyhow::Result<Compared> {
        let bar = bytes_bar(context, plan, "compare")?;
        let owner = match (self.uid, self.gid) {
            (None, None) => RootOwner::Compared,
            _ => RootOwner::Given,
        };
        let mut told = Ok(());
        let compared = compare(
            &plan.source,
            &plan.target,
            owner,
            |difference| {
                let print = || show::difference(&mut context.out, &difference);
                if told.is_ok() {
                    told = bar.suspend(print);
                }
            },
            |bytes| bar.inc(bytes),
        );
        bar.finish_and_clear();
        told?;
        compared.context("cannot compare the directories")
    }

    fn import(
        &self,
        context: &Context,
        plan: &Plan,
        claim: &Claim,
    ) -> anyhow::Result<Option<Imported>> {
        let Some((path, totals)) = &plan.catalog else { return Ok(None) };
        // Everybody's history is not for everybody, wherever the catalog lies.
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        let bar = bar(context, totals.versions, "{spinner} history")?;
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        let old = predecessor::read(path, &claim.state_dir)?;
        let mut known_as = vec![plan.source.clone(), std::path::absolute(&self.source)?];
        known_as.extend(self.known_as.iter().cloned());
        let known_as: Vec<Vec<u8>> =
            known_as.into_iter().map(|path| path.into_os_string().into_encoded_bytes()).collect();
        let now_ns = crate::clock::now_ns();
        let history = history(&old, &known_as, now_ns);
        let found = std::os::unix::fs::MetadataExt::uid;
        let group = std::os::unix::fs::MetadataExt::gid;
        let root = plan.target.metadata()?;
        let owner = Owner {
            uid: self.uid.unwrap_or_else(|| found(&root)),
            gid: self.gid.unwrap_or_else(|| group(&root)),
        };
        let imported = import(&claim.state_dir, &plan.target, history, owner, now_ns)?;
        bar.finish_and_clear();
        Ok(Some(imported))
    }
}

/// Asks whether to go on, on a terminal.
#[expect(clippy::print_stderr, reason = "this is where it is asked")]
fn ask() -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Advised::new(
            "nothing was changed: nobody can be asked, since stdin is no terminal",
            "`--yes` goes on without asking, `--dry-run` only shows the plan",
        )
        .into());
    }
    eprint!("Go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed");
    }
    Ok(())
}

fn bytes_bar(context: &Context, plan: &Plan, what: &str) -> anyhow::Result<ProgressBar> {
    let template =
        format!("{{spinner}} {what} {{bar:30}} {{percent:>3}} %  {{bytes_per_sec}}  {{eta}} left");
    bar(context, plan.survey.bytes, &template)
}

fn bar(context: &Context, length: u64, template: &str) -> anyhow::Result<ProgressBar> {
    if context.progress == Shown::Hidden {
        return Ok(ProgressBar::hidden());
    }
    Ok(ProgressBar::new(length).with_style(ProgressStyle::with_template(template)?))
}

/// A path as people read it.
fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}
