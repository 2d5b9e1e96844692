//! From a path and a question to an answer on stdout.
//!
//! Owns which mount is meant, and the choice between the daemon and the catalog file.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::control::client::{ClientError, ask_catalog, ask_daemon};
use crate::control::lookup::{self, LookupError, Target};
use crate::control::registry;
use crate::query::Sink;
use crate::query::request::{End, Request};

use super::output::{Format, Output};
use super::{Advised, Context};

impl Context {
    /// Where a path lies; a symlink is meant itself.
    pub(super) fn target(&self, path: &Path) -> anyhow::Result<Target> {
        let served = registry::load(&self.runtime_dirs);
        Ok(lookup::find(path, &self.working_dir, &served)?)
    }

    /// Where a directory lies; without one, that of the working directory, or else the root of the
    /// only mount there is.
    pub(super) fn dir_target(&self, dir: Option<&Path>) -> anyhow::Result<Target> {
        let served = registry::load(&self.runtime_dirs);
        // With a slash at the end, what a symlink leads to is meant.
        let path = dir.unwrap_or(Path::new(".")).join("");
        match lookup::find(&path, &self.working_dir, &served) {
            Err(LookupError::NoMount { .. }) if dir.is_none() => match <[_; 1]>::try_from(served) {
                Ok([record]) => Ok(Target::Served { record, path: Vec::new() }),
                Err(served) => Err(which_mount(&served)),
            },
            found => Ok(found?),
        }
    }

    /// Asks, and prints each record: as it came with `--json`, else as `human` says.
    pub(super) fn ask<R: DeserializeOwned>(
        &mut self,
        target: &Target,
        request: &Request,
        human: impl FnMut(&mut Output, R) -> anyhow::Result<()>,
    ) -> anyhow::Result<End> {
        self.ask_for(target, request, Sees::ForPeople, human)
    }

    /// Asks as [`Context::ask`] does; `each` sees every record, also what is printed as it came.
    pub(super) fn ask_and_look<R: DeserializeOwned>(
        &mut self,
        target: &Target,
        request: &Request,
        each: impl FnMut(&mut Output, R) -> anyhow::Result<()>,
    ) -> anyhow::Result<End> {
        self.ask_for(target, request, Sees::Everything, each)
    }

    fn ask_for<R: DeserializeOwned>(
        &mut self,
        target: &Target,
        request: &Request,
        sees: Sees,
        human: impl FnMut(&mut Output, R) -> anyhow::Result<()>,
    ) -> anyhow::Result<End> {
        let (failed, _record) = (None, std::marker::PhantomData);
        let mut printer = Printer { out: &mut self.out, sees, human, failed, _record };
        let answer = ask(target, request, &mut printer);
        match (answer, printer.failed) {
            (Err(ClientError::Sink(_)), Some(error)) => Err(error),
            (answer, _) => Ok(answer?),
        }
    }

    /// A path of the catalog as this user reaches it from here.
    pub(super) fn shown(&self, target: &Target) -> Shown {
        let root = match target {
            Target::Served { record, .. } => {
                let through_backing = self.working_dir.starts_with(&record.backing)
                    && !self.working_dir.starts_with(&record.mountpoint);
                if through_backing { record.backing.clone() } else { record.mountpoint.clone() }
            }
            Target::Stopped { backing, .. } => backing.clone(),
        };
        Shown { root, working_dir: self.working_dir.clone() }
    }
}

/// Asks whoever can answer.
pub(super) fn ask(
    target: &Target,
    request: &Request,
    sink: &mut dyn Sink,
) -> Result<End, ClientError> {
    match target {
        Target::Served { record, .. } => ask_daemon(&record.socket, request, sink),
        Target::Stopped { backing, catalog, .. } => ask_catalog(backing, catalog, request, sink),
    }
}

/// Asks, and collects the records.
pub(super) fn collect<R: DeserializeOwned>(
    target: &Target,
    request: &Request,
) -> anyhow::Result<Vec<R>> {
    struct Records<R>(Vec<R>);
    impl<R: DeserializeOwned> Sink for Records<R> {
        fn line(&mut self, line: &[u8]) -> io::Result<()> {
            self.0.push(serde_json::from_slice(line)?);
            Ok(())
        }
    }
    let mut records = Records(Vec::new());
    ask(target, request, &mut records)?;
    Ok(records.0)
}

/// How paths of a catalog are shown.
pub(super) struct Shown {
    root: PathBuf,
    working_dir: PathBuf,
}

impl Shown {
    pub(super) fn path(&self, path: &[u8]) -> Vec<u8> {
        let shown = lookup::shown(path, &self.root, &self.working_dir);
        if shown.is_empty() { b".".to_vec() } else { shown }
    }
}

fn which_mount(served: &[registry::Record]) -> anyhow::Error {
    if served.is_empty() {
        return Advised::new(
            "nothing is mounted here",
            "mount something with `horace mount BACKING MOUNTPOINT`",
        )
        .into();
    }
    let names: Vec<String> =
        served.iter().map(|record| record.mountpoint.display().to_string()).collect();
    Advised::new(
        "the working directory lies in no Horace mount, and there are several",
        format!("name one of {}", names.join(", ")),
    )
    .into()
}

/// Which records somebody sees beside the one who prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// Those that are not printed as they came.
    ForPeople,
    /// All.
    Everything,
}

/// Prints the records of an answer.
struct Printer<'o, R, F> {
    out: &'o mut Output,
    sees: Sees,
    human: F,
    /// What went wrong here rather than at the other end.
    failed: Option<anyhow::Error>,
    _record: std::marker::PhantomData<fn(R)>,
}

impl<R: DeserializeOwned, F: FnMut(&mut Output, R) -> anyhow::Result<()>> Printer<'_, R, F> {
    fn print(&mut self, line: &[u8]) -> anyhow::Result<()> {
        match self.out.format {
            Format::Json if self.sees == Sees::ForPeople => self.out.line(line),
            Format::Json => {
                self.out.line(line)?;
                (self.human)(self.out, serde_json::from_slice(line)?)
            }
            Format::Human => (self.human)(self.out, serde_json::from_slice(line)?),
        }
    }

    fn keep(&mut self, result: anyhow::Result<()>) -> io::Result<()> {
        result.map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the answer could not be printed")
        })
    }
}

impl<R: DeserializeOwned, F: FnMut(&mut Output, R) -> anyhow::Result<()>> Sink
    for Printer<'_, R, F>
{
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let result = self.print(line);
        self.keep(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.keep(result)
    }
}
