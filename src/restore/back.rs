//! Taking a directory, or what somebody did in it, back to an earlier state.
//!
//! Owns the order of the steps. Only what the log names is looked at, so that going back a minute in a
//! tree of a million files is quick. Names that were not there go first, then directories come to where
//! they were, from the top down, then files that were moved; only now is a directory that was not there
//! empty and can go; what is in the way meanwhile is put aside. Then come contents, and last the attributes of directories, from the bottom up. A
//! move across the border of the directory is undone like any other.

use std::collections::{HashSet, VecDeque};

use super::{Action, PlanError, Planner, Step};
use crate::catalog::{ByWhom, Named, NodeInfo, Touched, When};
use crate::types::path::is_below;
use crate::types::{FileId, Kind, Seq};

/// How far to go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// To what was after this change.
    pub since: Seq,
    /// Only what these did.
    pub by: ByWhom,
}

/// What is done with what was not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It goes: into history, not into nothing.
    Rewind,
    /// It stays, and nothing is moved.
    Add,
}

/// A file on the list.
struct Item {
    file: FileId,
    /// The last change that stays.
    then: Seq,
    /// Somebody else has changed it since.
    others: bool,
}

/// The steps by their order.
#[derive(Default)]
struct Phases {
    removals: Vec<Step>,
    dirs: Vec<Step>,
    moves: Vec<Step>,
    dir_removals: Vec<Step>,
    contents: Vec<Step>,
    dir_attributes: Vec<Step>,
    impossible: Vec<Step>,
}

/// The plan that is being made.
struct Back<'b> {
    base: &'b [u8],
    now: Seq,
    way: Way,
    phases: Phases,
    /// Items that are on the list or were.
    listed: HashSet<FileId>,
    list: VecDeque<Item>,
}

/// A file as it was and as it is.
struct Compared {
    then: Option<NodeInfo>,
    now: Option<NodeInfo>,
    names_then: Vec<Named>,
    names_now: Vec<Named>,
}

impl Planner<'_> {
    /// Takes back, at and below a path, what was changed since.
    ///
    /// # Errors
    /// If the catalog or attributes cannot be read.
    pub fn back(&mut self, base: &[u8], scope: &Scope, way: Way) -> Result<Vec<Step>, PlanError> {
        let now = self.reader.seq()?;
        let touched = self.reader.touched(scope.since, now, &scope.by)?;
        let mut back = Back {
            base,
            now,
            way,
            phases: Phases::default(),
            listed: touched.keys().copied().collect(),
            list: touched.into_iter().map(|(file, t)| Item::new(file, t, scope)).collect(),
        };
        while let Some(item) = back.list.pop_front() {
            self.take_back(&mut back, &item)?;
        }
        let mut steps = Vec::new();
        if back.phases.has_something_to_make() {
            steps = self.missing_parents(base, scope.since)?;
        }
        steps.extend(back.phases.in_order());
        Ok(steps)
    }

    fn take_back(&mut self, back: &mut Back<'_>, item: &Item) -> Result<(), PlanError> {
        let file = item.file;
        let mut it = Compared {
            then: self.reader.node(file, When::At(item.then))?,
            now: self.reader.node(file, When::At(back.now))?,
            names_then: self.reader.names_at(file, item.then)?,
            names_now: self.reader.names_at(file, back.now)?,
        };
        let concerns = |names: &[Named]| names.iter().any(|name| is_below(&name.path, back.base));
        let concerned = match back.way {
            Way::Rewind => concerns(&it.names_then) || concerns(&it.names_now),
            Way::Add => concerns(&it.names_then),
        };
        if !concerned || file == FileId::ROOT {
            return Ok(());
        }
        if back.way == Way::Add {
            it.names_now.retain(|now| it.names_then.iter().any(|then| then.path == now.path));
        }
        if item.others && it.is_different() {
            let name = it.names_then.first().or(it.names_now.first());
            let path = name.map(|name| name.path.clone()).unwrap_or_default();
            let action = Action::Impossible("somebody else has changed it since".into());
            back.phases.impossible.push(item.step(&path, action));
            return Ok(());
        }
        match (it.names_then.is_empty(), it.names_now.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => self.take_away(back, item, &it),
            (false, true) => self.bring_back(back, item, &it),
            (false, false) => self.put_right(back, item, &it),
        }
    }

    /// It was not there.
    fn take_away(
        &mut self,
        back: &mut Back<'_>,
        item: &Item,
        it: &Compared,
    ) -> Result<(), PlanError> {
        if back.way == Way::Add {
            return Ok(());
        }
        let is_dir = it.now.as_ref().is_some_and(|node| node.kind == Kind::Dir);
        for Named { path, .. } in &it.names_now {
            let action = if is_dir { Action::RemoveDir } else { Action::Remove };
            let step = item.step(path, action);
            if is_dir {
                back.phases.dir_removals.push(step);
            } else {
                back.phases.removals.push(step);
            }
        }
        if is_dir {
            // What came along with it has no change of its own.
            for (_, child) in self.reader.all_children_at(item.file, back.now)? {
                back.list_also(child.id, item);
            }
        }
        Ok(())
    }

    /// It is not there any more.
    fn bring_back(
        &mut self,
        back: &mut Back<'_>,
        item: &Item,
        it: &Compared,
    ) -> Result<(), PlanError> {
        let Some(then) = &it.then else { return Ok(()) };
        let (first, others) = it.names_then.split_first().expect("it had a name");
        let step = self.create(&first.path, then, item.then)?;
        if then.kind == Kind::Dir {
            back.phases.dirs.push(step);
            // What went along with it has no change of its own.
            for (_, child) in self.reader.all_children_at(item.file, item.then)? {
                back.list_also(child.id, item);
            }
            return Ok(());
        }
        back.phases.contents.push(step);
        for other in others {
            back.phases.contents.push(item.link(&first.path, &other.path));
        }
        Ok(())
    }

    /// It was there and is.
    fn put_right(
        &mut self,
        back: &mut Back<'_>,
        item: &Item,
        it: &Compared,
    ) -> Result<(), PlanError> {
        let (Some(then), Some(now)) = (&it.then, &it.now) else { return Ok(()) };
        let first = it.names_then.first().expect("it had a name");
        let common = it.names_then.iter().find(|name| it.names_now.contains(name));
        if common.is_none() {
            let from = it.names_now.first().expect("it has a name").path.clone();
            let step = item.step(&first.path, Action::Move { from });
            if now.kind == Kind::Dir {
                back.phases.dirs.push(step);
            } else {
                back.phases.moves.push(step);
            }
        }
        let stays = &common.unwrap_or(first).path;
        // By a move the first of the names it has becomes the first that it had.
        let moved = usize::from(common.is_none());
        for extra in it.names_now.iter().skip(moved).filter(|name| !it.names_then.contains(name)) {
            back.phases.removals.push(item.step(&extra.path, Action::Remove));
        }
        let same_bytes = then.version == now.version
            || (then.hash.is_some() && then.hash == now.hash && then.size == now.size);
        let new_inode = now.kind == Kind::File && !same_bytes;
        if new_inode {
            back.phases.contents.push(self.create(stays, then, item.then)?);
        }
        for other in it.names_then.iter().filter(|name| name.path != *stays) {
            let is_there = it.names_now.contains(other);
            if is_there && new_inode {
                back.phases.contents.push(item.step(&other.path, Action::Remove));
            }
            if !is_there || new_inode {
                back.phases.contents.push(item.link(stays, &other.path));
            }
        }
        if new_inode {
            return Ok(());
        }
        let (facts, facts_now) = (self.facts(then, item.then)?, self.facts(now, back.now)?);
        let mut wanted = facts.clone();
        if now.kind == Kind::Dir {
            // Its time tells of the names in it, which the catalog has better.
            wanted.mtime = facts_now.mtime;
        }
        if wanted != facts_now {
            let step = item.step(stays, Action::Attributes(facts));
            if now.kind == Kind::Dir {
                back.phases.dir_attributes.push(step);
            } else {
                back.phases.contents.push(step);
            }
        }
        Ok(())
    }
}

impl Item {
    fn new(file: FileId, touched: Touched, scope: &Scope) -> Self {
        if scope.by == ByWhom::default() {
            return Self { file, then: scope.since, others: false };
        }
        let then = Seq(touched.first.0.saturating_sub(1));
        Self { file, then, others: touched.others.is_some() }
    }

    fn step(&self, path: &[u8], action: Action) -> Step {
        Step { path: path.into(), file: self.file, at: self.then, action }
    }

    fn link(&self, from: &[u8], to: &[u8]) -> Step {
        self.step(to, Action::Link { from: from.into() })
    }
}

impl Back<'_> {
    /// Puts on the list what has no change of its own.
    fn list_also(&mut self, file: FileId, with: &Item) {
        if self.listed.insert(file) {
            self.list.push_back(Item { file, then: with.then, others: false });
        }
    }
}

impl Compared {
    fn is_different(&self) -> bool {
        self.names_then != self.names_now || self.then != self.now
    }
}

impl Phases {
    fn has_something_to_make(&self) -> bool {
        !(self.dirs.is_empty() && self.moves.is_empty() && self.contents.is_empty())
    }

    fn in_order(mut self) -> Vec<Step> {
        let depth = |step: &Step| step.path.iter().filter(|byte| **byte == b'/').count();
        self.dirs.sort_by_key(depth);
        self.moves.sort_by(|a, b| a.path.cmp(&b.path));
        self.dir_removals.sort_by_key(|step| std::cmp::Reverse(depth(step)));
        self.dir_attributes.sort_by_key(|step| std::cmp::Reverse(depth(step)));
        let phases = [
            self.removals,
            self.dirs,
            self.moves,
            self.dir_removals,
            self.contents,
            self.dir_attributes,
            self.impossible,
        ];
        phases.into_iter().flatten().collect()
    }
}
