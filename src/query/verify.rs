//! The words of `verify`: what is asked of a mount, and what it tells.
//!
//! Owns the records, which are those that `--json` prints.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::PathField;
use crate::types::ContentHash;

/// How everything is to be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyRequest {
    /// Bytes to read in a second; 0 as fast as it goes.
    pub rate: u64,
    /// Whether to begin anew instead of where the last run was broken off.
    pub restart: bool,
    /// Whether damage is undone where that is possible.
    pub repair: bool,
    /// Whether to tell how far it is, too.
    pub progress: bool,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum VerifyRecord {
    /// How far it is.
    Progress(VerifyProgress),
    /// Something is not as it should be.
    Finding(Box<FindingRecord>),
    /// How it ended.
    Summary(VerifyProgress),
}

/// How far a run is, or how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct VerifyProgress {
    /// Whether it runs at the moment.
    pub running: bool,
    /// When it began.
    pub started: Option<String>,
    /// When it ended; null as long as it has not.
    pub finished: Option<String>,
    /// Objects that were read.
    pub objects: u64,
    /// Packs that were read.
    pub packs: u64,
    /// Live files that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes that there were to read at the start.
    pub total_bytes: u64,
    /// Files left out: in use, or without a digest yet.
    pub skipped: u64,
    /// Files that were changed around the mount.
    pub external: u64,
    /// Objects and files that are damaged, and remain so.
    pub damaged: u64,
    /// Objects and files that were put right.
    pub healed: u64,
    /// Damages of packs, which count as objects where they cost something.
    pub pack_damages: u64,
}

/// What is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FindingRecord {
    /// What kind of thing: `object`, `file` or `pack`.
    pub kind: String,
    /// What is wrong: `bit-rot`, `external`, `missing`, `damaged` or `unreadable`.
    pub trouble: String,
    /// That in words.
    pub detail: String,
    /// Which file.
    #[serde(flatten)]
    pub path: Option<PathField>,
    /// Which pack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<String>,
    /// The digest that it should have.
    pub sha256: Option<ContentHash>,
    /// The size that it should have in bytes.
    pub size: Option<u64>,
    /// The versions that need it.
    pub versions: Vec<ShownVersion>,
    /// What else has the same bytes.
    pub copies: Vec<CopyRecord>,
    /// What became of it: `harmless`, `lost`, `healable`, `failed` or `healed`.
    pub outcome: String,
    /// The copy that it was or could be healed from.
    pub from: Option<CopyRecord>,
    /// Why that failed.
    pub error: Option<String>,
}

/// A version as `log` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShownVersion {
    /// Its path.
    #[serde(flatten)]
    pub path: PathField,
    /// Its position in the path's own history.
    pub number: u64,
}

/// Something with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyRecord {
    /// What: `object`, `version`, `longer`, a version that goes on behind the same bytes, or `snapshot`, a
    /// file in one that has the size.
    pub kind: String,
    /// Which object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<ContentHash>,
    /// Which version.
    #[serde(flatten)]
    pub version: Option<ShownVersion>,
    /// Which file in a snapshot, from the root of the backing filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<PathField>,
}
