//! What a move would do, and why it cannot.
//!
//! Owns everything that is found out before anything is changed. What it means is decided by pure functions over
//! what was found.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::copy::{self, Changed, CopyError};
use super::mark::{Mark, Progress};
use super::place::{self, Place, Support};
use super::survey::{Survey, survey};
use super::zfs::{self, Dataset, ZfsError};
use super::{LOST_FOUND, OWN_DIR};
use crate::catalog::CatalogError;
use crate::catalog::import::was_never_served;
use crate::catalog::predecessor::{self, OldTotals, PredecessorError};
use crate::jsonfile::JsonFileError;

/// The predecessor's datasets.
const DATASETS: [&str; 2] = ["tank/horace/files", "tank/horace/metadata"];

/// What is asked for, with absolute paths.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// What is moved.
    pub source: PathBuf,
    /// Where to; without it, where the files dataset is.
    pub target: Option<PathBuf>,
    /// The dataset for the files.
    pub files_dataset: Option<String>,
    /// The dataset for the catalog.
    pub metadata_dataset: Option<String>,
    /// Where the catalog is to be, if not in the target.
    pub state: Option<PathBuf>,
    /// The predecessor's catalog.
    pub catalog: Catalog,
}

/// Which catalog of a predecessor is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Catalog {
    /// The one that is in its usual place, if there is one.
    #[default]
    Usual,
    /// This one.
    At(PathBuf),
    /// None.
    None,
}

/// Why a move cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The source cannot be looked at.
    #[error("cannot read {}", path.display())]
    Source {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The target cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Target {
        /// Which directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody said where to, and there is no ZFS.
    #[error("there is no `zfs` here, and no TARGET was named")]
    NoTarget,
    /// ZFS said no.
    #[error(transparent)]
    Zfs(#[from] ZfsError),
    /// The mark of an earlier move cannot be read.
    #[error(transparent)]
    Mark(#[from] JsonFileError),
    /// The catalog of the target cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The predecessor's catalog is none, or cannot be read.
    #[error(transparent)]
    Predecessor(#[from] PredecessorError),
}

/// Everything that was found out.
#[derive(Debug)]
pub struct Plan {
    /// What is moved, without symlinks on the way.
    pub source: PathBuf,
    /// Where to.
    pub target: PathBuf,
    /// Where the catalog is to be, if not in the target.
    pub state: Option<PathBuf>,
    /// What is in the source.
    pub survey: Survey,
    /// What filesystem that is on.
    pub from: Place,
    /// What filesystem the target is on, or its nearest directory that is there.
    pub to: Place,
    /// What an earlier run has copied.
    pub present: Survey,
    /// Datasets that are used or made, the one of the files first.
    pub datasets: Vec<Dataset>,
    /// The predecessor's catalog, and how much is in it.
    pub catalog: Option<(PathBuf, OldTotals)>,
    /// How an earlier run ended.
    pub progress: Progress,
    /// Why it cannot be done.
    pub problems: Vec<Problem>,
    /// What should be known.
    pub notes: Vec<String>,
}

/// Why a move cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// One lies in the other.
    Nested,
    /// Something is there.
    NotEmpty,
    /// Something else was moved there.
    OtherMove {
        /// From where.
        source: String,
    },
    /// It was mounted since.
    InUse,
    /// Some of the source cannot be read.
    Unreadable {
        /// How many names.
        count: u64,
        /// Some of them, and why.
        named: Vec<(PathBuf, String)>,
    },
    /// It does not fit.
    TooLittleSpace {
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// There are too few inodes.
    TooFewInodes {
        /// So many it takes.
        needed: u64,
        /// So many are free.
        available: u64,
    },
    /// The target cannot have what the source has.
    Unsupported(&'static str),
    /// There is nothing that copies.
    NoCopy(String),
    /// A daemon has it.
    Served(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nested => f.write_str("the source and the target lie in one another"),
            Self::NotEmpty => {
                f.write_str("the target is not empty, and not what an earlier run has left")
            }
            Self::OtherMove { source } => {
                write!(f, "the target has what was moved there from {source}")
            }
            Self::InUse => f.write_str(
                "the target has been mounted since: what has changed there would be lost",
            ),
            Self::Unreadable { count, named } => {
                write!(f, "{count} names of the source cannot be read")?;
                let first = named.first().map(|(path, why)| (path.display(), why));
                first.map_or(Ok(()), |(path, why)| write!(f, ", as {path}: {why}"))
            }
            Self::TooLittleSpace { needed, available } => {
                write!(f, "the target has {available} bytes free, and {needed} are needed")
            }
            Self::TooFewInodes { needed, available } => {
                write!(f, "the target has {available} inodes free, and {needed} are needed")
            }
            Self::Unsupported(what) => {
                write!(f, "the source has {what}, which the target's filesystem has not")
            }
            Self::NoCopy(why) | Self::Served(why) => f.write_str(why),
        }
    }
}

impl Plan {
    /// Finds everything out and changes nothing; `progress` hears of every name of the source. Whether a
    /// daemon serves one of the directories is asked by `served`, which says what is wrong then.
    ///
    /// # Errors
    /// If there is nothing to decide on.
    pub fn make(
        wanted: &Wanted,
        served: impl Fn(&Path) -> Result<(), String>,
        progress: impl FnMut(),
    ) -> Result<Self, PlanError> {
        let error = |path: &Path, source| PlanError::Source { path: path.into(), source };
        let source = wanted.source.canonicalize().map_err(|e| error(&wanted.source, e))?;
        let (target, state, datasets, mut notes) = places(wanted)?;
        let from = place::look(&source).map_err(|e| error(&source, e))?;
        let near = place::nearest(&target);
        let unseen = |source| PlanError::Target { path: target.clone(), source };
        let mut to = place::look(&near).map_err(unseen)?;
        if let Some(dataset) = datasets.first().filter(|dataset| dataset.create.is_some()) {
            // What it is to be is not what its parent directory is on now.
            let kind = "zfs".into();
            let available = dataset.available.unwrap_or(u64::MAX);
            let (acls, xattrs) = (Support::Yes, Support::Yes);
            to = Place { kind, available, inodes: None, acls, xattrs };
        }
        let mut problems = Vec::new();
        if place::lies_in(&source, &target) || place::lies_in(&target, &source) {
            problems.push(Problem::Nested);
        }
        let state_dir = state.clone().unwrap_or_else(|| target.join(OWN_DIR));
        let mark = Mark::read(&state_dir)?;
        let this = Mark::new(&source, &target, Progress::None);
        let is_empty = is_empty(&target).map_err(unseen)?;
        let never_served = was_never_served(&state_dir)?;
        problems.extend(occupied(&mark, &this, is_empty, never_served));
        for dir in [&source, &target].into_iter().filter(|dir| dir.is_dir()) {
            problems.extend(served(dir).err().map(Problem::Served));
        }
        let found = survey(&source, progress).map_err(|e| error(&source, e))?;
        let present = match is_empty || !problems.is_empty() {
            true => Survey::default(),
            false => survey(&target, || ()).map_err(unseen)?,
        };
        problems.extend(lacking(&found, &present, &to));
        problems.extend(copy::check().err().map(|error| no_copy(&error)));
        let catalog = catalog_of(wanted, &source)?;
        notes.extend(remarks(&found, catalog.as_ref().map(|(path, _)| &**path)));
        let progress = mark.progress;
        Ok(Self {
            source,
            target,
            state,
            survey: found,
            from,
            to,
            present,
            datasets,
            catalog,
            progress,
            problems,
            notes,
        })
    }

    /// What is in the way after all, now that the target is there and nobody else can use it.
    ///
    /// # Errors
    /// If the target cannot be looked at.
    pub fn look_again(&self) -> Result<Vec<Problem>, PlanError> {
        let unseen = |source| PlanError::Target { path: self.target.clone(), source };
        let state_dir = self.state_dir();
        let this = Mark::new(&self.source, &self.target, Progress::None);
        let is_empty = is_empty(&self.target).map_err(unseen)?;
        let never_served = was_never_served(&state_dir)?;
        let mut problems = Vec::new();
        problems.extend(occupied(&Mark::read(&state_dir)?, &this, is_empty, never_served));
        // What a new dataset can have shows only when it is there.
        let to = place::look(&self.target).map_err(unseen)?;
        problems.extend(lacking(&self.survey, &self.present, &to));
        Ok(problems)
    }

    /// How the copy finds out what has changed.
    pub fn changed(&self) -> Changed {
        match self.progress {
            Progress::Differs => Changed::ByContent,
            _ => Changed::ByTime,
        }
    }

    /// Where the catalog is to be.
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.target.join(OWN_DIR))
    }
}

type Places = (PathBuf, Option<PathBuf>, Vec<Dataset>, Vec<String>);

/// Where it goes, and which datasets that takes.
fn places(wanted: &Wanted) -> Result<Places, PlanError> {
    let Wanted { target, files_dataset, metadata_dataset, state, .. } = wanted;
    let [usual_files, usual_metadata] = match target {
        Some(_) => [None, None],
        None => DATASETS.map(|name| Some(name.to_owned())),
    };
    let files = files_dataset.clone().or(usual_files);
    let metadata = metadata_dataset.clone().or(usual_metadata).filter(|_| state.is_none());
    let mut notes = Vec::new();
    if files.is_none() && metadata.is_none() {
        return plain(target.clone(), state.clone(), notes);
    }
    let Some(known) = zfs::properties().map_err(ZfsError::from)? else {
        notes.push("there is no `zfs` here: TARGET is a plain directory".into());
        return plain(target.clone(), state.clone(), notes);
    };
    let mut datasets = Vec::new();
    let target = match &files {
        Some(name) => {
            let dataset = zfs::plan(name, target.as_deref(), &known)?;
            let mountpoint = dataset.mountpoint.clone();
            datasets.push(dataset);
            Some(mountpoint)
        }
        None => target.clone(),
    };
    let mut state = state.clone();
    if let Some(name) = metadata {
        let dataset = zfs::plan(&name, None, &known)?;
        state = Some(dataset.mountpoint.clone());
        datasets.push(dataset);
    }
    let (target, state, _, notes) = plain(target, state, notes)?;
    Ok((target, state, datasets, notes))
}

fn plain(
    target: Option<PathBuf>,
    state: Option<PathBuf>,
    notes: Vec<String>,
) -> Result<Places, PlanError> {
    let target = target.ok_or(PlanError::NoTarget)?;
    // What is there already is known without symlinks on the way, as the mount will name it.
    let near = place::nearest(&target);
    let real = near.canonicalize();
    let real = real.map_err(|source| PlanError::Target { path: target.clone(), source })?;
    let rest = target.strip_prefix(&near).unwrap_or(Path::new(""));
    let target = if rest.as_os_str().is_empty() { real } else { real.join(rest) };
    Ok((target, state, Vec::new(), notes))
}

fn is_empty(target: &Path) -> io::Result<bool> {
    let entries = match std::fs::read_dir(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != OWN_DIR && name != LOST_FOUND {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is wrong with a target that something was done with before.
fn occupied(mark: &Mark, this: &Mark, is_empty: bool, never_served: bool) -> Option<Problem> {
    if !never_served {
        return Some(Problem::InUse);
    }
    if mark.progress == Progress::None {
        return (!is_empty).then_some(Problem::NotEmpty);
    }
    (!mark.is_of(this)).then(|| Problem::OtherMove { source: mark.source.clone() })
}

/// What is wrong with what is there, and what there is for it.
fn lacking(source: &Survey, present: &Survey, to: &Place) -> Vec<Problem> {
    let mut problems = Vec::new();
    if source.unreadable > 0 {
        let named = source.unreadable_named.clone();
        problems.push(Problem::Unreadable { count: source.unreadable, named });
    }
    let needed = source.allocated.saturating_sub(present.allocated);
    if needed > to.available {
        problems.push(Problem::TooLittleSpace { needed, available: to.available });
    }
    let needed = source.inodes().saturating_sub(present.inodes());
    if let Some(available) = to.inodes.filter(|available| needed > *available) {
        problems.push(Problem::TooFewInodes { needed, available });
    }
    if source.has_acls && to.acls == Support::No {
        problems.push(Problem::Unsupported("ACLs"));
    }
    if source.has_xattrs && to.xattrs == Support::No {
        problems.push(Problem::Unsupported("extended attributes"));
    }
    problems
}

fn no_copy(error: &CopyError) -> Problem {
    Problem::NoCopy(error.to_string())
}

fn remarks(source: &Survey, catalog: Option<&Path>) -> Vec<String> {
    let mut notes = Vec::new();
    for mount in &source.mounts {
        let path = mount.display();
        notes.push(format!(
            "another filesystem is mounted at {path} in the source: it is copied, too"
        ));
    }
    if catalog.is_some_and(predecessor::has_log) {
        notes.push("the predecessor may still run: what it writes later is not taken over".into());
    }
    if !rustix::process::geteuid().is_root() {
        notes.push("only root can keep owners and device nodes".into());
    }
    notes
}

/// The predecessor's catalog. It had it beside the files.
fn catalog_of(wanted: &Wanted, source: &Path) -> Result<Option<(PathBuf, OldTotals)>, PlanError> {
    let usual = [source.join(OWN_DIR), source.with_file_name(OWN_DIR)];
    match &wanted.catalog {
        Catalog::None => Ok(None),
        Catalog::At(path) => Ok(Some((path.clone(), predecessor::count(path)?))),
        Catalog::Usual => Ok(usual.iter().find_map(|dir| {
            let path = dir.join(crate::catalog::FILE_NAME);
            let totals = path.is_file().then(|| predecessor::count(&path).ok())??;
            Some((path, totals))
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            kind: "ext4".into(),
            available: 1000,
            inodes: Some(10),
            acls: Support::No,
            xattrs: Support::No,
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_but_what_is_there_need_not_fit() {
        let source = Survey { files: 11, allocated: 1500, has_acls: true, ..Survey::default() };
        let none = Survey::default();
        assert_eq!(
            lacking(&source, &none, &place()),
            [
                Problem::TooLittleSpace { needed: 1500, available: 1000 },
                Problem::TooFewInodes { needed: 11, available: 10 },
                Problem::Unsupported("ACLs"),
            ]
        );
        let present = Survey { files: 1, allocated: 500, ..Survey::default() };
        assert_eq!(lacking(&source, &present, &place()), [Problem::Unsupported("ACLs")]);
        let able = Place { acls: Support::Yes, inodes: None, ..place() };
        assert_eq!(lacking(&source, &present, &able), []);
        let marked = Survey { has_xattrs: true, ..Survey::default() };
        let told = lacking(&marked, &none, &place());
        assert_eq!(told, [Problem::Unsupported("extended attributes")]);
    }

    #[test]
    fn a_target_is_empty_or_of_the_same_move() {
        let mark = |source: &str, progress| Mark::new(Path::new(source), Path::new("/t"), progress);
        let this = mark("/s", Progress::None);
        let none = Mark::default();
        assert_eq!(occupied(&none, &this, true, true), None);
        assert_eq!(occupied(&none, &this, false, true), Some(Problem::NotEmpty));
        for progress in [Progress::Copying, Progress::Differs, Progress::Done] {
            assert_eq!(occupied(&mark("/s", progress), &this, false, true), None);
            assert_eq!(occupied(&mark("/s", progress), &this, false, false), Some(Problem::InUse));
            let other = Problem::OtherMove { source: "/other".into() };
            assert_eq!(occupied(&mark("/other", progress), &this, false, true), Some(other));
        }
        assert_eq!(occupied(&none, &this, true, false), Some(Problem::InUse));
    }
}
