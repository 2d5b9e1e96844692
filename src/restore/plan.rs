//! What all plans are made of.

use super::{Action, PlanError, Step};
use crate::catalog::{NodeInfo, Reader, When};
use crate::content::Contents;
use crate::types::{Facts, FileId, Kind, Seq, Timestamp};

/// Makes plans.
#[derive(Debug)]
pub struct Planner<'p> {
    pub(super) reader: &'p Reader,
    pub(super) contents: &'p Contents,
}

impl<'p> Planner<'p> {
    /// Plans from a catalog, which must have everything that was told it.
    pub fn new(reader: &'p Reader, contents: &'p Contents) -> Self {
        Self { reader, contents }
    }

    /// The step that brings back, at `path`, what a file was after the change `at`: a version of a regular
    /// file, a symlink, or a directory without what was in it.
    pub(super) fn create(
        &mut self,
        path: &[u8],
        node: &NodeInfo,
        at: Seq,
    ) -> Result<Step, PlanError> {
        let impossible = |reason: &str| Action::Impossible(reason.into());
        let action = match node.kind {
            Kind::File if node.version == 0 => impossible("it had not been closed by then"),
            Kind::File => match self.contents.why_lost(self.reader, (node.id, node.version))? {
                Some(reason) => Action::Impossible(reason.to_string()),
                None => Action::File {
                    number: node.version,
                    size_bytes: node.size,
                    hash: node.hash,
                    facts: self.facts(node, at)?,
                },
            },
            Kind::Dir => Action::Dir(self.facts(node, at)?),
            Kind::Symlink => match self.reader.target_of(node.id)? {
                Some(to) => Action::Symlink { to, facts: self.facts(node, at)? },
                None => impossible("nobody knows where it led"),
            },
            kind @ (Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice) => {
                let rdev = self.reader.device_of(node.id)?;
                match rdev.or((!kind.is_device()).then_some(0)) {
                    Some(rdev) => Action::Special { kind, rdev, facts: self.facts(node, at)? },
                    None => impossible("nobody knows which device it was"),
                }
            }
        };
        Ok(Step { path: path.into(), file: node.id, at, action })
    }

    /// What a file had besides its content after a change.
    pub(super) fn facts(&mut self, node: &NodeInfo, at: Seq) -> Result<Facts, PlanError> {
        let xattrs = match node.kind {
            Kind::File | Kind::Dir => self.contents.xattrs(self.reader, node.id, at)?,
            _ => crate::types::Xattrs::default(),
        };
        let names_ns = match node.kind {
            Kind::Dir => self.reader.names_changed_ns(node.id, at)?,
            _ => None,
        };
        let mtime = Timestamp::from_ns(names_ns.unwrap_or(node.mtime_ns));
        Ok(Facts { mode: node.mode, uid: node.uid, gid: node.gid, mtime, xattrs })
    }

    /// The directories above a path that are not there now, as they were after a change or, if they were
    /// not there then either, when they were last.
    pub(super) fn missing_parents(&mut self, path: &[u8], at: Seq) -> Result<Vec<Step>, PlanError> {
        let mut steps = Vec::new();
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let above = &path[..end];
            if self.reader.resolve(above, When::Now)?.is_some() {
                continue;
            }
            let then = self.reader.resolve(above, When::At(at))?;
            let last = self.reader.locate(above)?.map(|located| located.file);
            let Some(dir) = then.or(last) else {
                return Err(PlanError::NotFound { path: above.into() });
            };
            let at = if then.is_some() { at } else { self.last_of(dir)? };
            if let Some(node) = self.reader.node(dir, When::At(at))? {
                steps.push(self.create(above, &node, at)?);
            }
        }
        Ok(steps)
    }

    /// The last change before a file ended; the newest of all if it lives.
    pub(super) fn last_of(&mut self, file: FileId) -> Result<Seq, PlanError> {
        Ok(match self.reader.end_of(file)? {
            Some(end) => Seq(end.0.saturating_sub(1)),
            None => self.reader.seq()?,
        })
    }
}
