//! `restore`, `undelete`, `rewind` and undoing what somebody did: the plan.
//!
//! Owns what of a plan the asker may see and have: contents they could read then, and names in directories
//! that they could list. What they may change, the mount decides when it is done.

use super::{Ids, Query, QueryError};
use crate::catalog::{ByWhom, When};
use crate::content::Contents;
use crate::query::access::Want;
use crate::query::records::Users;
use crate::query::request::BringBack;
use crate::restore::{Action, Planner, Scope, Step, Way};
use crate::types::path::parent;
use crate::types::{Kind, Seq};

impl Query<'_, '_> {
    /// The steps of a request that brings something back.
    pub(super) fn plan(
        &mut self,
        contents: &Contents,
        what: &BringBack,
    ) -> Result<(Vec<Step>, Ids), QueryError> {
        let ids = self.ids()?;
        let steps = match what {
            BringBack::Restore { path, version, at_ns: None, to } => {
                let name = version.as_deref().unwrap_or("head");
                let (_, version) = self.version_named(&path.0, name)?;
                let to = to.as_ref().map_or(&path.0, |to| &to.0);
                // That it may be read was looked at for the version.
                let steps = Planner::new(self.reader, contents).version(&version, to)?;
                return Ok((steps, ids));
            }
            BringBack::Restore { path, at_ns: Some(at_ns), to, .. } => {
                let at = self.seq_of(*at_ns)?;
                let top = self.top(&path.0, When::At(at))?;
                let mut planner = Planner::new(self.reader, contents);
                match to {
                    None if top.kind == Kind::Dir => {
                        planner.back(&path.0, &Scope { since: at, by: ByWhom::default() }, Way::Add)
                    }
                    None => planner.copy(top.id, at, &path.0),
                    Some(to) => planner.copy(top.id, at, &to.0),
                }?
            }
            BringBack::Undelete { path } => {
                Planner::new(self.reader, contents).undelete(&path.0)?
            }
            BringBack::Rewind { path, at_ns } => {
                let since = self.seq_of(*at_ns)?;
                self.top(&path.0, When::At(since))?;
                let scope = Scope { since, by: ByWhom::default() };
                Planner::new(self.reader, contents).back(&path.0, &scope, Way::Rewind)?
            }
            BringBack::Undo { path, since_ns, pid, user } => {
                let since = match since_ns {
                    Some(ns) => self.reader.seq_at(*ns)?.unwrap_or_default(),
                    None => Seq(0),
                };
                let by = ByWhom { pid: *pid, uid: user.as_deref().map(uid_of).transpose()? };
                if by == ByWhom::default() {
                    return Err(QueryError::Nobody);
                }
                let scope = Scope { since, by };
                Planner::new(self.reader, contents).back(&path.0, &scope, Way::Rewind)?
            }
        };
        let mut allowed = Vec::with_capacity(steps.len());
        for step in steps {
            allowed.extend(self.allow(step)?);
        }
        Ok((allowed, ids))
    }

    fn seq_of(&mut self, at_ns: i64) -> Result<Seq, QueryError> {
        self.reader.seq_at(at_ns)?.ok_or(QueryError::TooEarly)
    }

    /// The step, if the asker may know of it.
    fn allow(&mut self, mut step: Step) -> Result<Option<Step>, QueryError> {
        let was = self.reader.path_of(step.file, step.at)?;
        let path = was.as_deref().unwrap_or(&step.path);
        let at = if was.is_some() { step.at } else { self.reader.seq()? };
        if !self.guard.listing_at(self.reader, parent(path), at)? {
            return Ok(None);
        }
        if matches!(step.action, Action::File { .. })
            && !self.guard.node_at(self.reader, step.file, Want::Read, step.at)?
        {
            step.action = Action::Impossible("permission denied".into());
        }
        Ok(Some(step))
    }
}

fn uid_of(name: &str) -> Result<u32, QueryError> {
    Users::read().number_of(name).ok_or_else(|| QueryError::NoUser { name: name.into() })
}
