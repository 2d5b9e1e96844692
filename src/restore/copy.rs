//! Making something anew as it was: a version, or a whole directory.

use std::collections::HashMap;

use super::{Action, PlanError, Planner, Step};
use crate::catalog::{NodeInfo, VersionInfo, When};
use crate::types::{FileId, Kind, Seq};

impl Planner<'_> {
    /// Brings back one version of a file at a path, with the attributes that the file had last with
    /// that version.
    ///
    /// # Errors
    /// If the catalog or attributes cannot be read.
    pub fn version(&mut self, version: &VersionInfo, path: &[u8]) -> Result<Vec<Step>, PlanError> {
        let not_found = || PlanError::NotFound { path: path.into() };
        let (node, at) = self.last_with(version)?.ok_or_else(not_found)?;
        let mut steps = self.missing_parents(path, at)?;
        steps.extend(self.create_unless_there(path, &node, at)?);
        Ok(steps)
    }

    /// A file as it was last with a version, and as of which change that is.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn last_with(
        &mut self,
        version: &VersionInfo,
    ) -> Result<Option<(NodeInfo, Seq)>, PlanError> {
        let next = self.reader.versions(version.file)?;
        let next = next.into_iter().find(|v| v.number > version.number);
        let at = match next {
            Some(next) => Seq(next.seq.0.saturating_sub(1)),
            None => self.last_of(version.file)?,
        };
        let node = self.reader.node(version.file, When::At(at))?;
        let Some(mut node) = node.filter(|node| node.kind == Kind::File) else { return Ok(None) };
        (node.version, node.size) = (version.number, version.size);
        node.hash = version.hash;
        Ok(Some((node, at)))
    }

    /// Brings back at a path what a file, symlink or directory was after a change, with everything
    /// that was in it. What is there already stays.
    ///
    /// # Errors
    /// If the catalog or attributes cannot be read.
    pub fn copy(&mut self, top: FileId, at: Seq, path: &[u8]) -> Result<Vec<Step>, PlanError> {
        let node = self.reader.node(top, When::At(at))?;
        let node = node.ok_or_else(|| PlanError::NotFound { path: path.into() })?;
        let mut steps = self.missing_parents(path, at)?;
        self.copy_below(&node, at, path, &mut steps, &mut HashMap::new())?;
        Ok(steps)
    }

    fn copy_below(
        &mut self,
        node: &NodeInfo,
        at: Seq,
        path: &[u8],
        steps: &mut Vec<Step>,
        linked: &mut HashMap<FileId, Vec<u8>>,
    ) -> Result<(), PlanError> {
        if let Some(first) = linked.get(&node.id) {
            let action = Action::Link { from: first.clone() };
            steps.push(Step { path: path.into(), file: node.id, at, action });
            return Ok(());
        }
        steps.extend(self.create_unless_there(path, node, at)?);
        if node.kind == Kind::File && self.reader.names_at(node.id, at)?.len() > 1 {
            linked.insert(node.id, path.into());
        }
        if node.kind == Kind::Dir {
            for (name, child) in self.reader.all_children_at(node.id, at)? {
                let below = [path, b"/", &name].concat();
                let below = below.strip_prefix(b"/").unwrap_or(&below);
                self.copy_below(&child, at, below, steps, linked)?;
            }
        }
        Ok(())
    }

    /// What brings a file back at a path: nothing for a directory that is there, and for the same
    /// bytes what else of it differs.
    fn create_unless_there(
        &mut self,
        path: &[u8],
        node: &NodeInfo,
        at: Seq,
    ) -> Result<Option<Step>, PlanError> {
        let there = match self.reader.resolve(path, When::Now)? {
            Some(there) => self.reader.node(there, When::Now)?.filter(|now| now.kind == node.kind),
            None => None,
        };
        let Some(there) = there else { return self.create(path, node, at).map(Some) };
        let same_bytes = there.hash.is_some() && there.hash == node.hash;
        if node.kind == Kind::Dir {
            return Ok(None);
        }
        if node.kind != Kind::File || !same_bytes {
            return self.create(path, node, at).map(Some);
        }
        let now = self.reader.seq()?;
        let facts = self.facts(node, at)?;
        let differs = facts != self.facts(&there, now)?;
        let action = Action::Attributes(facts);
        Ok(differs.then(|| Step { path: path.into(), file: node.id, at, action }))
    }
}
