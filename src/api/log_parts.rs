//! Parts of the log that several clients want at the same moment.
//!
//! Owns what was read last. Who follow the log as the same user are at the same place in it most of the time: one
//! question to the catalog then answers all of them, however many they are.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::response::sse::Event;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::problem::Problem;
use crate::sys::creds::Actor;
use crate::types::Seq;

/// Parts that are remembered.
const RECENT: usize = 32;

/// Which part of the log is wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By whom: they see what they may.
    pub(super) actor: Actor,
    /// What it is about.
    pub(super) path: Vec<u8>,
    /// What it comes after.
    pub(super) since: Seq,
    /// The last change at the time.
    pub(super) end: Seq,
}

/// A part of the log.
#[derive(Debug)]
pub(super) struct Part {
    /// Changes, as they are sent.
    pub(super) events: Vec<Event>,
    /// The last of them, if there is one.
    pub(super) last: Option<Seq>,
}

/// A part that is read once, by whoever wants it first.
type Cell = Arc<OnceCell<Arc<Part>>>;

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct LogParts {
    /// The newest first. Locked alone.
    recent: Mutex<VecDeque<(Wanted, Cell)>>,
}

impl LogParts {
    /// A part that somebody else has read or reads just now, or else reads it.
    pub(super) async fn get(
        &self,
        wanted: Wanted,
        read: impl Future<Output = Result<Part, Problem>>,
    ) -> Result<Arc<Part>, Problem> {
        let cell = self.cell(wanted);
        let part = cell.get_or_try_init(async || Ok(Arc::new(read.await?))).await;
        part.map(Arc::clone)
    }

    fn cell(&self, wanted: Wanted) -> Cell {
        let mut recent = self.recent.lock();
        if let Some((_, cell)) = recent.iter().find(|(known, _)| *known == wanted) {
            return Arc::clone(cell);
        }
        let cell = Arc::default();
        recent.push_front((wanted, Arc::clone(&cell)));
        recent.truncate(RECENT);
        cell
    }
}
