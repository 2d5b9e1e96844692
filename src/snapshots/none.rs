//! No snapshots.
//!
//! Owns the words for why there are none.

use std::os::fd::OwnedFd;

use super::backend::{Backend, BackendError, BackendKind, Mark, Snapshot};

/// A backing directory on something that has no snapshots, or none that are ours to take.
#[derive(Debug)]
pub(super) struct None {
    pub(super) reason: String,
}

impl None {
    fn impossible(&self) -> BackendError {
        BackendError::Impossible { reason: self.reason.clone() }
    }
}

impl Backend for None {
    fn kind(&self) -> BackendKind {
        BackendKind::None
    }

    fn reason(&self) -> Option<String> {
        Some(self.reason.clone())
    }

    fn dataset(&self) -> &'static str {
        ""
    }

    fn list(&self) -> Result<Vec<Snapshot>, BackendError> {
        Ok(Vec::new())
    }

    fn create(&self, _: &str, _: &Mark) -> Result<(), BackendError> {
        Err(self.impossible())
    }

    fn destroy<'n>(&self, names: &[&'n str]) -> Vec<(&'n str, Result<(), BackendError>)> {
        names.iter().map(|name| (*name, Err(self.impossible()))).collect()
    }

    fn hold(&self, _: &str) -> Result<(), BackendError> {
        Err(self.impossible())
    }

    fn release(&self, _: &str) -> Result<(), BackendError> {
        Err(self.impossible())
    }

    fn open(&self, _: &str) -> Result<OwnedFd, BackendError> {
        Err(self.impossible())
    }
}
