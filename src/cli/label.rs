//! `horace label` and `horace collection`.

use std::path::PathBuf;

use crate::catalog::LabelChange;
use crate::query::labels::{CollectionRecord, FileRecord};
use crate::query::request::{Collect, PathField, Request};

use super::ask::Shown;
use super::output::Output;
use super::{Context, Outcome};

/// Say something of a file, or show what was said
#[derive(Debug, clap::Args)]
pub(super) struct Label {
    /// The file
    path: PathBuf,
    /// Give it this tag; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Take this tag from it; may be given several times
    #[arg(long = "untag", value_name = "TAG")]
    untags: Vec<String>,
    /// Whose it is; an empty text takes that away, and so it is with the others
    #[arg(long)]
    owner: Option<String>,
    /// What it is for
    #[arg(long)]
    purpose: Option<String>,
    /// What has become of it
    #[arg(long)]
    status: Option<String>,
    /// What it belongs to elsewhere
    #[arg(long)]
    correlation_id: Option<String>,
}

/// Put files together under a name
#[derive(Debug, clap::Args)]
pub(super) struct Collection {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(List),
    Set(Set),
    Delete(Delete),
}

/// List collections; `horace search --collection NAME ''` lists the files of one
#[derive(Debug, clap::Args)]
struct List {
    /// Only those with files in this directory [default: everywhere in the mount]
    dir: Option<PathBuf>,
}

/// Make a collection, or change it
#[derive(Debug, clap::Args)]
struct Set {
    /// What it is called
    name: String,
    /// What it is
    #[arg(long)]
    description: Option<String>,
    /// It gets this file; may be given several times
    #[arg(long, value_name = "PATH")]
    add: Vec<PathBuf>,
    /// It loses this file; may be given several times
    #[arg(long, value_name = "PATH")]
    remove: Vec<PathBuf>,
}

/// Take a collection away; its files stay
#[derive(Debug, clap::Args)]
struct Delete {
    /// What it is called
    name: String,
}

impl Label {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let target = context.target(&self.path)?;
        let shown = context.shown(&target);
        let path = PathField(target.path().into());
        let change = LabelChange {
            tags: None,
            add_tags: self.tags,
            remove_tags: self.untags,
            owner: self.owner,
            purpose: self.purpose,
            status: self.status,
            correlation_id: self.correlation_id,
        };
        let request = match change == LabelChange::default() {
            true => Request::File { path },
            false => Request::Label { path, change },
        };
        context.ask(&target, &request, |out, file| print(out, &shown, &file))?;
        Ok(Outcome::Complete)
    }
}

fn print(out: &mut Output, shown: &Shown, file: &FileRecord) -> anyhow::Result<()> {
    let labels = &file.details.labels;
    let texts = [
        ("owner", &labels.owner),
        ("purpose", &labels.purpose),
        ("status", &labels.status),
        ("correlation id", &labels.correlation_id),
    ];
    let names: Vec<&str> = file.details.collections.iter().map(|c| &*c.name).collect();
    let lists = [("tags", labels.tags.join(", ")), ("collections", names.join(", "))];
    let lists = lists.into_iter().filter(|(_, text)| !text.is_empty());
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?)));
    out.line(&out.name(&shown.path(&file.path.0)))?;
    for (name, text) in lists.chain(texts) {
        out.line(format!("  {name}: {}", text.escape_debug()).as_bytes())?;
    }
    Ok(())
}

impl Collection {
    pub(super) fn run(self, context: &mut Context) -> anyhow::Result<Outcome> {
        let (target, request) = match self.command {
            Command::List(List { dir }) => {
                let target = context.dir_target(dir.as_deref())?;
                let path = dir.map_or(&b""[..], |_| target.path());
                let path = PathField(path.into());
                let after = String::new();
                (target, Request::Collections { path, after, limit: u64::MAX })
            }
            Command::Set(set) => {
                let target = match set.add.iter().chain(&set.remove).next() {
                    Some(path) => context.target(path)?,
                    None => context.dir_target(None)?,
                };
                let (add, remove) = (paths(context, &set.add)?, paths(context, &set.remove)?);
                let what = Collect { description: set.description, add, remove };
                (target, Request::Collect { name: set.name, what })
            }
            Command::Delete(Delete { name }) => {
                (context.dir_target(None)?, Request::Forget { name })
            }
        };
        context.ask(&target, &request, |out, collection: CollectionRecord| {
            let CollectionRecord { name, description, files, .. } = collection;
            let (name, description) = (name.escape_debug(), description.escape_debug());
            out.line(format!("{name}  {files} files  {description}").trim_end().as_bytes())
        })?;
        Ok(Outcome::Complete)
    }
}

fn paths(context: &Context, paths: &[PathBuf]) -> anyhow::Result<Vec<PathField>> {
    let path = |path: &PathBuf| Ok(PathField(context.target(path)?.path().to_vec()));
    paths.iter().map(path).collect()
}
