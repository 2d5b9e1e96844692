//! What a verify has found: what is wrong, who needs it, and who else has it.

use std::os::fd::OwnedFd;

use super::{Healing, Run, Told, VerifyError};
use crate::catalog::event::Op;
use crate::catalog::{Head, VersionKey};
use crate::store::Store;
use crate::store::pack::{PackError, PackId};
use crate::types::{ContentHash, IncomingId};

/// Copies that are tried for one damage.
const COPIES: usize = 16;

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// An object.
    Object,
    /// A live file, by its path from the root.
    File(Vec<u8>),
    /// A pack, by its name.
    Pack(String),
}

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// A live file has other bytes, although size and times are what they were.
    BitRot,
    /// A live file was changed around the mount. That is no damage.
    External,
    /// It is not there.
    Missing,
    /// It has other bytes, or not all.
    Damaged,
    /// It cannot be read.
    Unreadable,
}

/// Who else has the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// The object with that digest.
    Object(ContentHash),
    /// A version, by path and number.
    Version(Vec<u8>, u64),
    /// A version that goes on behind them, by path and number.
    Longer(Vec<u8>, u64),
    /// A file in a snapshot of the backing filesystem, by its path from the root of that. It has the size, and
    /// perhaps the bytes.
    Snapshot(Vec<u8>),
}

/// What became of a damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is none.
    Harmless,
    /// It remains: no copy is what it should be.
    Lost,
    /// It remains, but could be undone.
    Healable(Copy),
    /// It was to be undone, which failed.
    Failed(Copy, String),
    /// It was undone.
    Healed(Copy),
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub subject: Subject,
    /// What is wrong with it.
    pub trouble: Trouble,
    /// That in words.
    pub detail: String,
    /// Digest and size in bytes that it should have.
    pub content: Option<(ContentHash, u64)>,
    /// The versions that need it, by path and number.
    pub versions: Vec<(Vec<u8>, u64)>,
    /// What else has the same bytes, by the catalog.
    pub copies: Vec<Copy>,
    /// What became of it.
    pub outcome: Outcome,
}

/// A copy, and where it is.
pub(super) type Candidate = (Copy, Place);

/// Where a copy is.
#[derive(Debug)]
pub(super) enum Place {
    /// Among the objects.
    Object,
    /// With a version.
    Version(VersionKey),
    /// In this file.
    File(OwnedFd),
}

impl Run<'_, '_> {
    pub(super) fn found_pack(&self, pack: PackId, error: &PackError) -> Result<(), VerifyError> {
        self.state.borrow_mut().pack_damages += 1;
        let trouble = match error {
            PackError::Missing { .. } => Trouble::Missing,
            PackError::Io { .. } => Trouble::Unreadable,
            _ => Trouble::Damaged,
        };
        self.tell_found(&Finding {
            subject: Subject::Pack(pack.to_string()),
            trouble,
            detail: error.to_string(),
            content: None,
            versions: Vec::new(),
            copies: Vec::new(),
            // What that costs shows when the objects are read.
            outcome: Outcome::Harmless,
        })
    }

    pub(super) fn found_object(
        &self,
        store: &Store,
        (hash, size): (ContentHash, u64),
        trouble: Trouble,
        detail: String,
    ) -> Result<(), VerifyError> {
        if self.ask(|reader| reader.stored_size(hash))?.is_none() {
            // It was given up meanwhile.
            return Ok(());
        }
        let candidates = self.candidates(hash, size, None)?;
        let outcome = self.outcome(&candidates, (hash, size), |content| {
            let mut read = |buffer: &mut [u8], offset| content.read_at(buffer, offset);
            store.mend(hash, size, &mut read).map_err(|error| error.to_string())?;
            // It has a file of its own again, should it have been packed.
            let (id, content) = (IncomingId(0), Some((hash, size)));
            self.fs.push(None, Op::Stored { id, content, original: false, prefix: None });
            Ok(())
        })?;
        let needed = self.ask(|reader| reader.need_object(hash))?;
        self.tell_damage(
            Subject::Object,
            (trouble, detail),
            (hash, size),
            &needed,
            candidates,
            outcome,
        )
    }

    pub(super) fn found_rot(
        &self,
        head: &Head,
        path: &[u8],
        hash: ContentHash,
        (trouble, detail): (Trouble, String),
    ) -> Result<(), VerifyError> {
        let content = (hash, head.stamp.size);
        let candidates = self.candidates(hash, content.1, Some(head.version))?;
        let outcome =
            self.outcome(&candidates, content, |copy| self.heal_file(head, path, hash, copy))?;
        let needed = self.ask(|reader| reader.need_file(head.version))?;
        let subject = Subject::File(path.into());
        self.tell_damage(subject, (trouble, detail), content, &needed, candidates, outcome)
    }

    pub(super) fn found_external(&self, path: &[u8], detail: &str) -> Result<(), VerifyError> {
        self.state.borrow_mut().external += 1;
        self.tell_found(&Finding {
            subject: Subject::File(path.into()),
            trouble: Trouble::External,
            detail: detail.into(),
            content: None,
            versions: Vec::new(),
            copies: Vec::new(),
            outcome: Outcome::Harmless,
        })
    }

    fn tell_damage(
        &self,
        subject: Subject,
        (trouble, detail): (Trouble, String),
        content: (ContentHash, u64),
        needed: &[VersionKey],
        candidates: Vec<Candidate>,
        outcome: Outcome,
    ) -> Result<(), VerifyError> {
        {
            let mut state = self.state.borrow_mut();
            match outcome {
                Outcome::Healed(_) => state.healed += 1,
                _ => state.damaged += 1,
            }
        }
        let mut versions = Vec::new();
        for version in needed {
            versions.extend(self.ask(|reader| reader.shown_as(*version))?);
        }
        let copies = candidates.into_iter().map(|(copy, _)| copy).collect();
        let content = Some(content);
        self.tell_found(&Finding { subject, trouble, detail, content, versions, copies, outcome })
    }

    fn tell_found(&self, finding: &Finding) -> Result<(), VerifyError> {
        tracing::warn!(
            subject = ?finding.subject,
            trouble = ?finding.trouble,
            detail = finding.detail,
            outcome = ?finding.outcome,
            "verify has found something"
        );
        self.report(Told::Found(finding))
    }

    /// What has a content by the catalog, or begins with it, but for the version `but`; and what may have it
    /// in a snapshot.
    fn candidates(
        &self,
        hash: ContentHash,
        size: u64,
        but: Option<VersionKey>,
    ) -> Result<Vec<Candidate>, VerifyError> {
        let mut paths = Vec::new();
        let mut found = self.ask(|reader| {
            let mut found = Vec::new();
            let same = reader.versions_with(hash)?;
            if but.is_some() && reader.stored_size(hash)?.is_some() {
                found.push((Copy::Object(hash), Place::Object));
            }
            for version in same.iter().take(COPIES) {
                paths.extend(reader.shown_as(*version)?.map(|(path, _)| path));
            }
            for version in &same {
                let is_head =
                    reader.head_of(version.0)?.is_some_and(|head| head.version == *version);
                if is_head
                    && but != Some(*version)
                    && let Some((path, number)) = reader.shown_as(*version)?
                {
                    found.push((Copy::Version(path, number), Place::Version(*version)));
                }
            }
            for (file, number) in same {
                let next = (file, number + 1);
                let longer = reader.version_facts(next)?.is_some_and(|facts| facts.size >= size);
                if longer && let Some((path, number)) = reader.shown_as(next)? {
                    found.push((Copy::Longer(path, number), Place::Version(next)));
                }
            }
            found.truncate(COPIES);
            Ok(found)
        })?;
        paths.sort_unstable();
        paths.dedup();
        let snapshots = self.fs.in_snapshots(&paths, size).into_iter();
        found.extend(snapshots.map(|(path, file)| (Copy::Snapshot(path), Place::File(file))));
        Ok(found)
    }

    /// Tries the copies one after the other: to heal with `heal`, or only whether one would do.
    fn outcome(
        &self,
        candidates: &[Candidate],
        (hash, size): (ContentHash, u64),
        heal: impl Fn(&crate::content::Content) -> Result<(), String>,
    ) -> Result<Outcome, VerifyError> {
        let mut failed = None;
        for (copy, place) in candidates {
            let Some(content) = self.open_copy(hash, place)? else { continue };
            if !self.is_content(&content, (hash, size))? {
                continue;
            }
            if self.options.healing == Healing::Report {
                return Ok(Outcome::Healable(copy.clone()));
            }
            match heal(&content) {
                Ok(()) => return Ok(Outcome::Healed(copy.clone())),
                Err(error) => failed = Some(Outcome::Failed(copy.clone(), error)),
            }
        }
        Ok(failed.unwrap_or(Outcome::Lost))
    }
}
