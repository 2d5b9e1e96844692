//! `prune`: the decisions as records.
//!
//! Owns the names under which versions are told: those that `log` and `cat` of their path have.

use std::collections::HashMap;
use std::io;

use super::{Answer, Ids};
use crate::catalog::{CatalogError, FileHistory, Reader};
use crate::pruning::Verdict;
use crate::query::records::{PruneDecision, PruneRecord};
use crate::query::request::PathField;
use crate::retention::Decision;
use crate::timespec::rfc3339;

/// Writes decisions.
pub(super) struct PruneRecords<'q, 'a> {
    reader: &'q Reader,
    ids: Ids,
    answer: &'q mut Answer<'a>,
}

impl<'q, 'a> PruneRecords<'q, 'a> {
    pub(super) fn new(
        reader: &'q Reader,
        answer: &'q mut Answer<'a>,
    ) -> Result<Self, CatalogError> {
        Ok(Self { ids: Ids(reader.catalog_id()?), reader, answer })
    }

    /// Writes the decisions about one file.
    pub(super) fn write(
        &mut self,
        path: &[u8],
        history: &FileHistory,
        verdicts: &[Verdict],
    ) -> io::Result<()> {
        let numbers = self.numbers(path, history).map_err(io::Error::other)?;
        for Verdict { index, decision, frees } in verdicts {
            let version = &history.versions[*index];
            let (word, reason) = match decision {
                Decision::Keep(_) => (PruneDecision::Keep, decision.reasons()),
                Decision::Drop(_) => (PruneDecision::Drop, decision.reasons()),
            };
            self.answer.record(&PruneRecord {
                path: PathField(path.into()),
                number: numbers.get(&version.number).copied(),
                file_number: version.number,
                file_id: self.ids.uuid(history.file),
                time: rfc3339(version.time_ns),
                size: version.size,
                sha256: version.hash,
                decision: word,
                reason,
                frees: *frees,
            })?;
        }
        Ok(())
    }

    /// The numbers that a path gives to the versions of a file.
    fn numbers(
        &mut self,
        path: &[u8],
        history: &FileHistory,
    ) -> Result<HashMap<u32, u64>, CatalogError> {
        let lineage = self.reader.lineage(path)?;
        let own = lineage.into_iter().filter(|(_, version)| version.file == history.file);
        Ok(own.map(|(number, version)| (version.number, number)).collect())
    }
}
