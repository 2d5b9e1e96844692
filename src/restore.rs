//! Bringing things back: what is to be done, and doing it.
//!
//! Owns the plans behind `restore`, `undelete` and `rewind`. A plan is made from the catalog alone and says
//! of everything what will be done, or why it cannot be. It is carried out step by step, by operations of
//! the mount that are handed in as a [`Tree`]: each is catalogued, and what it displaces is history that
//! can be brought back in turn. A crash leaves some steps done and others not; to plan again is to go on.

mod back;
mod copy;
mod plan;
mod undelete;

use std::collections::HashSet;

use crate::catalog::{Catalog, CatalogError, Reader, When};
use crate::causes::with_cause;
use crate::content::{ContentError, Contents, Wanted};
use crate::sys::creds::Actor;
use crate::types::{ContentHash, Facts, FileId, Kind, Seq};

pub use back::{Scope, Way};
pub use plan::Planner;

/// The operations of the mount by which a plan is carried out. Paths are from its root. Errors are
/// words for the user.
pub trait Tree: Send + Sync {
    /// Makes a file, in place of whatever has the name but a directory.
    ///
    /// # Errors
    /// Why it could not.
    fn file(&self, by: &Actor, path: &[u8], wanted: &Wanted<'_>, facts: &Facts) -> Done;
    /// Makes a directory.
    ///
    /// # Errors
    /// Why it could not.
    fn dir(&self, by: &Actor, path: &[u8], facts: &Facts) -> Done;
    /// Makes a symlink.
    ///
    /// # Errors
    /// Why it could not.
    fn symlink(&self, by: &Actor, path: &[u8], to: &[u8], facts: &Facts) -> Done;
    /// Makes a pipe, a socket or a device node; `rdev` is a device's number in the kernel's encoding.
    ///
    /// # Errors
    /// Why it could not.
    fn special(&self, by: &Actor, path: &[u8], kind: Kind, rdev: u32, facts: &Facts) -> Done;
    /// Gives what is there other attributes.
    ///
    /// # Errors
    /// Why it could not.
    fn attributes(&self, by: &Actor, path: &[u8], facts: &Facts) -> Done;
    /// Takes a name away, of an empty directory or anything else.
    ///
    /// # Errors
    /// Why it could not.
    fn remove(&self, by: &Actor, path: &[u8]) -> Done;
    /// Moves a name to one that is free.
    ///
    /// # Errors
    /// Why it could not.
    fn rename(&self, by: &Actor, from: &[u8], to: &[u8]) -> Done;
    /// Gives a file another name.
    ///
    /// # Errors
    /// Why it could not.
    fn link(&self, by: &Actor, from: &[u8], to: &[u8]) -> Done;
    /// Writes everything that was done through to the disk.
    ///
    /// # Errors
    /// Why it could not.
    fn sync(&self) -> Done;
}

/// How an operation ended.
pub type Done = Result<(), String>;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The catalog cannot be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Attributes cannot be read.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// There is nothing to undelete: it is there.
    #[error("`/{}` is there: it was not deleted", shown(path))]
    Live {
        /// What.
        path: Vec<u8>,
    },
    /// It was not deleted but moved.
    #[error("`/{}` was not deleted but moved to `/{}`", shown(path), shown(to))]
    Moved {
        /// What.
        path: Vec<u8>,
        /// Where it is.
        to: Vec<u8>,
    },
    /// The catalog has never heard of it, or not at that time.
    #[error("the catalog has no file or directory `/{}`", shown(path))]
    NotFound {
        /// What.
        path: Vec<u8>,
    },
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The path that it is about.
    pub path: Vec<u8>,
    /// What is there in the end, or is taken away.
    pub file: FileId,
    /// As of which change it is brought back.
    pub at: Seq,
    /// What to do.
    pub action: Action,
}

/// What to do with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A name that was not there goes.
    Remove,
    /// So does a directory.
    RemoveDir,
    /// A directory is made.
    Dir(Facts),
    /// What has another name now gets its former one.
    Move {
        /// That other name.
        from: Vec<u8>,
    },
    /// A file gets back another of its names.
    Link {
        /// A name that it has.
        from: Vec<u8>,
    },
    /// A content is brought back.
    File {
        /// That of this version of the file.
        number: u32,
        /// Its size in bytes.
        size_bytes: u64,
        /// Its digest, if it is known.
        hash: Option<ContentHash>,
        /// What else the file is to have.
        facts: Facts,
    },
    /// A symlink is made.
    Symlink {
        /// Where it leads.
        to: Vec<u8>,
        /// What else it is to have.
        facts: Facts,
    },
    /// A pipe, a socket or a device node is made.
    Special {
        /// Which of them.
        kind: Kind,
        /// The number of a device, in the kernel's encoding.
        rdev: u32,
        /// What else it is to have.
        facts: Facts,
    },
    /// Only attributes are brought back.
    Attributes(Facts),
    /// Nothing can be done.
    Impossible(String),
}

/// What a plan is carried out with.
#[derive(Clone, Copy)]
pub struct Means<'m> {
    /// For whom.
    pub by: &'m Actor,
    /// By what.
    pub tree: &'m dyn Tree,
    /// Where things are.
    pub catalog: &'m Catalog,
    /// Where contents are.
    pub contents: &'m Contents,
}

/// Carries out a plan; tells of each step when it is over.
///
/// # Errors
/// What `tell` fails with; nothing more is done then.
pub fn carry_out<E>(
    steps: &[Step],
    means: Means<'_>,
    mut tell: impl FnMut(&Step, Done) -> Result<(), E>,
) -> Result<(), E> {
    let leaves = |step: &&Step| matches!(step.action, Action::Move { .. } | Action::RemoveDir);
    let leaving: HashSet<FileId> = steps.iter().filter(leaves).map(|step| step.file).collect();
    let mut made = Vec::new();
    for run in steps.chunk_by(|a, b| a.action == b.action && a.action == Action::RemoveDir) {
        let [one] = run else {
            remove_dirs(run, means, &mut tell)?;
            continue;
        };
        let room = match one.action {
            Action::Dir(_) | Action::Move { .. } => make_room(one, &leaving, means),
            _ => Ok(()),
        };
        let done = room.and_then(|()| one.carry_out(means));
        if let (Action::Dir(facts), Ok(())) = (&one.action, &done) {
            made.push((&one.path, facts));
        }
        tell(one, done)?;
    }
    // What was made in them has moved their times; those in them come first.
    for (path, facts) in made.into_iter().rev() {
        if let Err(reason) = means.tree.attributes(means.by, path, facts) {
            tracing::warn!(path = %shown(path), %reason, "a directory does not get its time back");
        }
    }
    Ok(())
}

/// Puts aside what has the name that something is to get, if it has yet to go from there.
fn make_room(step: &Step, leaving: &HashSet<FileId>, means: Means<'_>) -> Done {
    let path = &step.path;
    let there = means.catalog.read(|reader| reader.resolve(path, When::Now));
    let there = there.map_err(|error: CatalogError| with_cause(&error))?;
    match there.filter(|there| *there != step.file && leaving.contains(there)) {
        Some(there) => {
            let aside = [path, format!(".restoring-{}", there.0).as_bytes()].concat();
            means.tree.rename(means.by, path, &aside)
        }
        None => Ok(()),
    }
}

/// Removes directories of which some may have come to lie in others.
fn remove_dirs<E>(
    steps: &[Step],
    means: Means<'_>,
    tell: &mut impl FnMut(&Step, Done) -> Result<(), E>,
) -> Result<(), E> {
    let mut left: Vec<&Step> = steps.iter().collect();
    loop {
        let before = left.len();
        let mut kept = Vec::new();
        for step in left {
            match step.carry_out(means) {
                Ok(()) => tell(step, Ok(()))?,
                Err(reason) => kept.push((step, reason)),
            }
        }
        if kept.len() == before || kept.is_empty() {
            return kept.into_iter().try_for_each(|(step, reason)| tell(step, Err(reason)));
        }
        left = kept.into_iter().map(|(step, _)| step).collect();
    }
}

impl Step {
    fn carry_out(&self, means: Means<'_>) -> Done {
        let Means { by, tree, catalog, contents } = means;
        let (step, path) = (self, &self.path);
        match &step.action {
            Action::Remove => tree.remove(by, path),
            // Directories above it may have been moved meanwhile.
            Action::RemoveDir => tree.remove(by, &path_now(catalog, step.file)?),
            Action::Dir(facts) => tree.dir(by, path, facts),
            Action::Move { .. } => tree.rename(by, &path_now(catalog, step.file)?, path),
            Action::Link { from } => tree.link(by, from, path),
            Action::File { number, size_bytes, hash, facts } => {
                let open = |reader: &Reader| contents.open(reader, (step.file, *number));
                let content =
                    catalog.read(open).map_err(|error: ContentError| with_cause(&error))?;
                let wanted = Wanted { content: &content, size_bytes: *size_bytes, hash: *hash };
                tree.file(by, path, &wanted, facts)
            }
            Action::Symlink { to, facts } => tree.symlink(by, path, to, facts),
            Action::Special { kind, rdev, facts } => tree.special(by, path, *kind, *rdev, facts),
            Action::Attributes(facts) => tree.attributes(by, path, facts),
            Action::Impossible(reason) => Err(reason.clone()),
        }
    }
}

fn path_now(catalog: &Catalog, file: FileId) -> Result<Vec<u8>, String> {
    let path = catalog.read(|reader| {
        let now = reader.seq()?;
        reader.path_of(file, now)
    });
    path.map_err(|error: CatalogError| with_cause(&error))?.ok_or_else(|| "it is gone".into())
}
