//! What a directory says of a move into it.
//!
//! Owns `migration.json` in the state directory: by it a move that was broken off is known, and goes on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::jsonfile::{JsonFile, JsonFileError};

/// Name of the file in the state directory.
const FILE_NAME: &str = "migration.json";

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// There is none.
    #[default]
    None,
    /// It has begun.
    Copying,
    /// The copy was found to differ.
    Differs,
    /// Everything was copied and compared.
    Done,
}

/// A move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Mark {
    /// From where, as text for people.
    pub source: String,
    /// To where.
    pub target: String,
    /// How far it is.
    pub progress: Progress,
}

impl Mark {
    /// The mark of a move.
    pub fn new(source: &Path, target: &Path, progress: Progress) -> Self {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self { source: text(source), target: text(target), progress }
    }

    /// Whether it is of the same move.
    pub fn is_of(&self, other: &Self) -> bool {
        (&self.source, &self.target) == (&other.source, &other.target)
    }

    /// What a state directory says; that it is not there says nothing.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(state_dir: &Path) -> Result<Self, JsonFileError> {
        Ok(Self::clone(&*JsonFile::<Self>::new(state_dir, FILE_NAME).read()?))
    }

    /// Writes it to a state directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(self, state_dir: &Path) -> Result<(), JsonFileError> {
        JsonFile::<Self>::new(state_dir, FILE_NAME).change(|mark| {
            *mark = self;
            Ok(())
        })
    }
}
