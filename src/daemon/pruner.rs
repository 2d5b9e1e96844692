//! Pruning history from time to time.
//!
//! It has no more leave than anybody: what the policy's cap refuses waits for somebody to look at it, and
//! `status` says so.

use std::sync::Arc;

use super::periodic::Task;
use crate::catalog::{Catalog, CatalogError, Reader};
use crate::fs::{Aim, Cut, Fs, PruneError, PruneOrder};
use crate::pruning::Scope;

/// Prunes everything, as the catalog remembers.
#[derive(Debug)]
pub(super) struct Pruner {
    pub(super) fs: Arc<Fs>,
    pub(super) catalog: Arc<Catalog>,
}

impl Task for Pruner {
    fn last_ns(&self) -> Option<i64> {
        let last = self.catalog.read_committed(|reader: &Reader| reader.last_prune());
        let last = last.unwrap_or_else(|error: CatalogError| {
            tracing::warn!(%error, "cannot tell when history was pruned last");
            None
        });
        last.map(|last| last.time_ns)
    }

    fn run(&self) {
        let order = PruneOrder { scope: Scope::Everything, aim: Aim::Drop, cut: Cut::Capped };
        match self.fs.prune(&order, &mut |_, _, _| Ok(())) {
            Ok(outcome) => {
                let dropped = outcome.plan.tally.dropped;
                match outcome.refused {
                    Some(reason) => {
                        tracing::error!(%reason, "history was not pruned: too much at once");
                    }
                    None => {
                        tracing::info!(dropped, bytes = outcome.freed_bytes, "history was pruned");
                    }
                }
            }
            Err(PruneError::Stopped | PruneError::NothingKept) => {}
            Err(error) => tracing::error!(%error, "history was not pruned"),
        }
    }
}
