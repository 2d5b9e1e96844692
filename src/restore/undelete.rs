//! Undoing a deletion.
//!
//! Owns what belongs to one: a file is as it was just before. A directory is emptied before it goes, so
//! what it had is what the same program took from it, one soon after the other.

use super::{PlanError, Planner, Step};
use crate::catalog::When;
use crate::types::{FileId, Kind, Seq};

/// Two deletions that are further apart are not one, in nanoseconds.
const PAUSE_NS: i64 = 60_000_000_000;

impl Planner<'_> {
    /// Brings back what had a path last, with everything that went with it.
    ///
    /// # Errors
    /// If it was not deleted; if the catalog or attributes cannot be read.
    pub fn undelete(&mut self, path: &[u8]) -> Result<Vec<Step>, PlanError> {
        let path_given = || path.to_vec();
        let located = self.reader.locate(path)?;
        let located = located.ok_or_else(|| PlanError::NotFound { path: path_given() })?;
        if located.live {
            return Err(PlanError::Live { path: path_given() });
        }
        let Some(end) = self.reader.end_of(located.file)? else {
            let now = self.reader.seq()?;
            let to = self.reader.path_of(located.file, now)?.unwrap_or_default();
            return Err(PlanError::Moved { path: path_given(), to });
        };
        let node = self.reader.node(located.file, When::Now)?;
        let begin = match node.map(|node| node.kind) {
            Some(Kind::Dir) => self.begin_of_deletion(located.file, end)?,
            _ => end,
        };
        self.copy(located.file, Seq(begin.0.saturating_sub(1)), path)
    }

    /// The first change of the deletion of which `end` is the last.
    fn begin_of_deletion(&mut self, top: FileId, end: Seq) -> Result<Seq, PlanError> {
        let mut losses = Vec::new();
        let mut dirs = vec![top];
        while let Some(dir) = dirs.pop() {
            for (seq, child) in self.reader.losses(dir, end)? {
                losses.push(seq);
                let node = self.reader.node(child, When::Now)?;
                // A directory that was only moved away took its content along.
                if node.is_some_and(|node| node.kind == Kind::Dir)
                    && self.reader.end_of(child)? == Some(seq)
                {
                    dirs.push(child);
                }
            }
        }
        losses.sort_unstable_by(|a, b| b.cmp(a));
        let (mut begin, mut time_ns) = (end, self.reader.time_of(end)?);
        for seq in losses {
            let earlier_ns = self.reader.time_of(seq)?;
            if time_ns.saturating_sub(earlier_ns) > PAUSE_NS {
                break;
            }
            (begin, time_ns) = (seq, earlier_ns);
        }
        Ok(begin)
    }
}
