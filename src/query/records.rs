//! The records of answers, which are what `--json` prints.
//!
//! Owns their fields and how they are made of what the catalog says. They only ever gain fields:
//! scripts read them. Times are RFC 3339 in UTC, sizes bytes, digests bare hexadecimal.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::filter::Cursor;
use super::labels::FileDetails;
use super::request::{FromPathField, NameField, PathField};
use super::status::PruneTotals;
use crate::catalog::backup::Rebuilt;
use crate::catalog::{ChangeOp, Content, VersionInfo};
use crate::restore::{Action, Step};
use crate::timespec::rfc3339;
use crate::types::{ContentHash, Kind, Loss, Origin, Seq, Writer};

/// Who caused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WriterRecord {
    /// User.
    pub uid: u32,
    /// Its name, where this machine has one.
    pub user: Option<String>,
    /// Group.
    pub gid: u32,
    /// Process; 0 where the kernel did not say.
    pub pid: u32,
    /// Command name of the process.
    pub comm: String,
}

/// One version of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionRecord {
    /// Its position in the path's own history, from 1 for the oldest.
    pub number: u64,
    /// Its number in its file, from 1.
    pub file_number: u32,
    /// Its file.
    pub file_id: Uuid,
    /// The change that made it.
    pub seq: Seq,
    /// When.
    pub time: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest, once it is known.
    pub sha256: Option<ContentHash>,
    /// Where it came from.
    pub origin: Origin,
    /// Who wrote it; null for what was found.
    pub writer: Option<WriterRecord>,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: String,
    /// Where its content is.
    pub content: Content,
    /// Why it is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_reason: Option<Loss>,
    /// Whether somebody wants its content to stay.
    #[serde(default)]
    pub pinned: bool,
    /// What somebody said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a prune decides about one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PruneRecord {
    /// Of what, as it is called now or was last.
    #[serde(flatten)]
    pub path: PathField,
    /// Its position in the path's own history; null if the path does not show it.
    pub number: Option<u64>,
    /// Its number in its file.
    pub file_number: u32,
    /// Its file.
    pub file_id: Uuid,
    /// When it was made.
    pub time: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest, if it is known.
    pub sha256: Option<ContentHash>,
    /// What becomes of its content.
    pub decision: PruneDecision,
    /// Why.
    pub reason: String,
    /// Bytes that are free once it has gone; what several versions share counts with one of them.
    pub frees: u64,
}

/// What becomes of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PruneDecision {
    /// It stays.
    Keep,
    /// It goes.
    Drop,
}

/// The last record of a prune.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PruneTotalRecord {
    /// What it came to.
    pub total: PruneTotals,
}

/// The content of a version, which comes with it as an open file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContentRecord {
    /// How many bytes of the file it is, from its beginning.
    pub size: u64,
    /// Their digest, if it is known.
    pub sha256: Option<ContentHash>,
    /// Permission bits.
    pub mode: u32,
}

/// One file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestRecord {
    /// Where.
    #[serde(flatten)]
    pub path: PathField,
    /// Digest; null if it is not known.
    pub sha256: Option<ContentHash>,
    /// Size in bytes.
    pub size: u64,
    /// Its identity.
    pub file_id: Uuid,
}

/// What has a name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeRecord {
    /// The name.
    #[serde(flatten)]
    pub name: NameField,
    /// What.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Its name, where this machine has one.
    pub user: Option<String>,
    /// Group.
    pub gid: u32,
    /// How many names it has.
    pub links: u32,
    /// Digest of a regular file that the caller may read, once it is known.
    pub sha256: Option<ContentHash>,
    /// The number of its version in its file.
    pub file_number: Option<u32>,
    /// Its identity.
    pub file_id: Uuid,
}

/// One name that matches a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SearchRecord {
    /// Where.
    #[serde(flatten)]
    pub path: PathField,
    /// What.
    pub kind: Kind,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: String,
    /// Digest of a regular file that the caller may read, once it is known.
    pub sha256: Option<ContentHash>,
    /// Its identity.
    pub file_id: Uuid,
    /// When the name went away; null if it has not.
    pub deleted: Option<String>,
    /// What else is known of a file that the caller may read, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<FileDetails>,
    /// Where a search goes on that is to find what comes after this.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub cursor: Option<Cursor>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeRecord {
    /// Its number.
    pub seq: Seq,
    /// When.
    pub time: String,
    /// What happened.
    pub op: ChangeOp,
    /// To what, as it is called after the change.
    #[serde(flatten)]
    pub path: Option<PathField>,
    /// What it was called before, where that differs.
    #[serde(flatten)]
    pub from_path: Option<FromPathField>,
    /// What it is.
    pub kind: Kind,
    /// Its identity.
    pub file_id: Uuid,
    /// The version of the file that the change made.
    pub file_number: Option<u32>,
    /// Size in bytes of that version.
    pub size: Option<u64>,
    /// Digest of that version, for those who may read the file.
    pub sha256: Option<ContentHash>,
    /// Who did it; null for what was found.
    pub writer: Option<WriterRecord>,
}

/// Who made one version of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlameRecord {
    /// The version's position in the path's history, from 1 for the oldest.
    pub number: u64,
    /// The change.
    pub seq: Seq,
    /// When.
    pub time: String,
    /// What was done.
    pub op: Option<ChangeOp>,
    /// Where the version came from.
    pub origin: Origin,
    /// Who did it; null for what was found.
    pub writer: Option<WriterRecord>,
    /// Size in bytes after it.
    pub size: u64,
    /// By how many bytes the size changed.
    pub size_delta: i64,
}

/// One step of bringing something back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreRecord {
    /// What is done.
    pub action: RestoreAction,
    /// With which path.
    #[serde(flatten)]
    pub path: PathField,
    /// Where it is, if it is moved or gets another name.
    #[serde(flatten)]
    pub from_path: Option<FromPathField>,
    /// With which file.
    pub file_id: Uuid,
    /// The version of the file whose content is brought back.
    pub file_number: Option<u32>,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its digest, if it is known.
    pub sha256: Option<ContentHash>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed.
    pub reason: Option<String>,
}

/// What is done to bring something back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreAction {
    /// A name goes.
    Remove,
    /// A directory is made.
    Dir,
    /// A name moves.
    Move,
    /// A file gets another name.
    Link,
    /// A content is brought back.
    File,
    /// A symlink is made.
    Symlink,
    /// A pipe, a socket or a device node is made.
    Special,
    /// Only attributes are brought back.
    Attributes,
    /// Nothing.
    None,
}

/// How one step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It would be done.
    Planned,
    /// It was done.
    Done,
    /// It was not.
    Failed,
}

impl RestoreRecord {
    /// The record of a step.
    pub(super) fn new(
        file_id: Uuid,
        step: &Step,
        outcome: Outcome,
        reason: Option<String>,
    ) -> Self {
        let mut this = Self {
            action: RestoreAction::None,
            path: PathField(step.path.clone()),
            from_path: None,
            file_id,
            file_number: None,
            size: None,
            sha256: None,
            outcome,
            reason,
        };
        this.action = match &step.action {
            Action::Remove | Action::RemoveDir => RestoreAction::Remove,
            Action::Dir(_) => RestoreAction::Dir,
            Action::Symlink { .. } => RestoreAction::Symlink,
            Action::Special { .. } => RestoreAction::Special,
            Action::Attributes(_) => RestoreAction::Attributes,
            Action::Impossible(_) => RestoreAction::None,
            Action::Move { from } | Action::Link { from } => {
                this.from_path = Some(FromPathField(from.clone()));
                let moves = matches!(step.action, Action::Move { .. });
                if moves { RestoreAction::Move } else { RestoreAction::Link }
            }
            Action::File { number, size_bytes, hash, .. } => {
                (this.file_number, this.size) = (Some(*number), Some(*size_bytes));
                this.sha256 = *hash;
                RestoreAction::File
            }
        };
        this
    }
}

/// What a sync reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncRecord {
    /// The last change that is durable.
    pub seq: Seq,
}

/// What a catalog was rebuilt from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebuildRecord {
    /// The backup, if there was one.
    pub backup: Option<PathField>,
    /// When that was made.
    pub time: Option<String>,
    /// Where the files are that were there.
    pub aside: Option<PathField>,
    /// Backups that are not whole.
    pub refused: Vec<PathField>,
}

impl RebuildRecord {
    /// The record of a rebuilt catalog.
    pub fn new(rebuilt: &Rebuilt) -> Self {
        let field = |path: &Path| PathField(path.as_os_str().as_encoded_bytes().to_vec());
        Self {
            backup: rebuilt.from.as_ref().map(|backup| field(&backup.path)),
            time: rebuilt.from.as_ref().map(|backup| rfc3339(backup.time_ns)),
            aside: rebuilt.aside.as_deref().map(field),
            refused: rebuilt.refused.iter().map(|(path, _)| field(path)).collect(),
        }
    }
}

impl VersionRecord {
    /// The record of a version at a position of a path's history.
    pub(super) fn new(number: u64, file_id: Uuid, version: &VersionInfo, users: &Users) -> Self {
        let (content, content_reason) = version.content();
        Self {
            number,
            file_number: version.number,
            file_id,
            seq: version.seq,
            time: rfc3339(version.time_ns),
            size: version.size,
            sha256: version.hash,
            origin: version.origin,
            writer: version.writer.as_ref().map(|writer| users.record(writer)),
            mode: version.mode,
            mtime: rfc3339(version.mtime_ns),
            content,
            content_reason,
            pinned: version.pinned,
            note: version.note.clone(),
        }
    }
}

/// Names of users, as `/etc/passwd` has them.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<u32, String>);

impl Users {
    /// Reads the names anew; none if that fails, since they are only shown.
    pub(super) fn read() -> Self {
        let text = std::fs::read("/etc/passwd").unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&text))
    }

    fn parse(passwd: &str) -> Self {
        let mut names = HashMap::new();
        for line in passwd.lines() {
            let mut fields = line.split(':');
            if let (Some(name), Some(_), Some(uid)) = (fields.next(), fields.next(), fields.next())
                && let Ok(uid) = uid.parse()
            {
                names.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Self(names)
    }

    /// The name of a user.
    pub(super) fn name_of(&self, uid: u32) -> Option<String> {
        self.0.get(&uid).cloned()
    }

    /// The user with a name or number.
    pub(super) fn number_of(&self, user: &str) -> Option<u32> {
        let named = self.0.iter().find(|(_, name)| *name == user).map(|(uid, _)| *uid);
        named.or_else(|| user.parse().ok())
    }

    /// The record of a writer.
    pub(super) fn record(&self, writer: &Writer) -> WriterRecord {
        WriterRecord {
            uid: writer.uid,
            user: self.name_of(writer.uid),
            gid: writer.gid,
            pid: writer.pid,
            comm: String::from_utf8_lossy(&writer.comm).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_the_first_name_of_their_number() {
        let users = Users::parse("root:x:0:0::/root:/bin/sh\ntoor:x:0:0\nbad\nann:x:1000:1000\n");
        let name = |uid| {
            let writer = Writer { uid, gid: 0, pid: 0, comm: Box::default() };
            users.record(&writer).user
        };
        assert_eq!(name(0).as_deref(), Some("root"));
        assert_eq!(name(1000).as_deref(), Some("ann"));
        assert_eq!(name(7), None);
    }

    #[test]
    fn a_change_without_a_path_survives_json() {
        let change = ChangeRecord {
            seq: Seq(4),
            time: rfc3339(0),
            op: ChangeOp::Rename,
            path: Some(PathField(b"b\xff".to_vec())),
            from_path: None,
            kind: Kind::File,
            file_id: Uuid::nil(),
            file_number: None,
            size: None,
            sha256: Some(ContentHash::EMPTY),
            writer: None,
        };
        let text = serde_json::to_string(&change).unwrap();
        assert!(text.contains("\"time\":\"1970-01-01T00:00:00+00:00\""));
        assert!(text.contains("\"path_base64\":\"Yv8=\""));
        assert_eq!(serde_json::from_str::<ChangeRecord>(&text).unwrap(), change);
    }
}
