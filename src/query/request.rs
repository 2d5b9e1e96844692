//! What can be asked, and how an answer ends.
//!
//! Owns the words of a request, which the socket's clients send and the HTTP API builds. Names are bytes: a
//! field like `path` is text, with U+FFFD for what is not UTF-8, and then a field like `path_base64` has
//! the exact bytes.

use data_encoding::BASE64;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::filter::SearchFilter;
use super::reports::usage::UsageQuery;
use super::snapshots::SnapshotOrder;
use super::verify::VerifyRequest;
use crate::catalog::LabelChange;
use crate::types::Seq;

/// Defines a newtype of bytes that is two JSON fields when flattened into a struct.
macro_rules! byte_field {
    ($(#[$doc:meta])* $name:ident, $text:literal, $exact:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name(pub Vec<u8>);

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some("With U+FFFD for what is not UTF-8"));
                let exact = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some("The exact bytes in Base64, where they are not UTF-8"));
                // Some records leave out what is not known.
                ObjectBuilder::new().property($text, text).property($exact, exact).into()
            }
        }

        impl ToSchema for $name {}

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text = String::from_utf8_lossy(&self.0);
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry($text, &text)?;
                if text.as_bytes() != self.0 {
                    map.serialize_entry($exact, &BASE64.encode(&self.0))?;
                }
                map.end()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    #[serde(rename = $text)]
                    text: String,
                    #[serde(rename = $exact, default)]
                    exact: Option<String>,
                }
                let fields = Fields::deserialize(deserializer)?;
                match fields.exact {
                    Some(exact) => BASE64
                        .decode(exact.as_bytes())
                        .map(Self)
                        .map_err(serde::de::Error::custom),
                    None => Ok(Self(fields.text.into_bytes())),
                }
            }
        }
    };
}

byte_field! {
    /// A path from the root of the mount.
    PathField, "path", "path_base64"
}
byte_field! {
    /// The path that something had before.
    FromPathField, "from_path", "from_path_base64"
}
byte_field! {
    /// Where something is to be put.
    ToPathField, "to_path", "to_path_base64"
}
byte_field! {
    /// A name in a directory.
    NameField, "name", "name_base64"
}
byte_field! {
    /// What is searched for.
    QueryField, "query", "query_base64"
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How the daemon is.
    Status,
    /// To make everything closed so far durable.
    Sync,
    /// The versions of a path.
    Log {
        /// Which.
        #[serde(flatten)]
        path: PathField,
    },
    /// The content of one version, as an open file that comes with its record.
    Cat {
        /// Of which path.
        #[serde(flatten)]
        path: PathField,
        /// Its number, the beginning of its digest, or `head`; the head if left out.
        #[serde(default)]
        version: Option<String>,
        /// What the path had then, in nanoseconds since 1970, instead of a version.
        #[serde(default)]
        at_ns: Option<i64>,
    },
    /// The digests of the files in a directory, or of one file.
    Manifest {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// As of when, in nanoseconds since 1970; now if left out.
        #[serde(default)]
        at_ns: Option<i64>,
    },
    /// How much is in a directory.
    Usage {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// What of it.
        #[serde(flatten)]
        query: UsageQuery,
    },
    /// Files that have the same content.
    Duplicates {
        /// At and below what.
        #[serde(flatten)]
        path: PathField,
        /// Of so many bytes at least.
        min_size: u64,
        /// Contents at most.
        limit: usize,
    },
    /// Who wrote the most.
    Writers {
        /// At and below what.
        #[serde(flatten)]
        path: PathField,
        /// Since when, in nanoseconds since 1970; ever if left out.
        #[serde(default)]
        since_ns: Option<i64>,
        /// Users and programs at most.
        limit: usize,
    },
    /// What is in a directory, by name.
    Tree {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// As of when, in nanoseconds since 1970; now if left out.
        #[serde(default)]
        at_ns: Option<i64>,
        /// What comes after this name.
        #[serde(flatten)]
        after: NameField,
        /// At most so many.
        limit: u64,
    },
    /// Names that match.
    Search {
        /// The directory to look in.
        #[serde(flatten)]
        path: PathField,
        /// What to look for.
        #[serde(flatten)]
        filter: SearchFilter,
    },
    /// The log of changes.
    Changes {
        /// Changes of this path and of what is below it.
        #[serde(flatten)]
        path: PathField,
        /// Changes after this one; `None` for those to come.
        since: Option<Seq>,
        /// Whether to wait for more.
        follow: Follow,
        /// At most so many.
        #[serde(default)]
        limit: Option<u64>,
    },
    /// Who made the versions of a path.
    Blame {
        /// Which.
        #[serde(flatten)]
        path: PathField,
    },
    /// To bring something back.
    BringBack {
        /// What.
        #[serde(flatten)]
        what: BringBack,
        /// Whether to do it.
        run: Run,
    },
    /// To decide about history as the policy says, and drop what it does not keep.
    Prune {
        /// Of what is below this path, or has it; everything for the root.
        #[serde(flatten)]
        path: PathField,
        /// Whether anything is to go.
        mode: PruneMode,
        /// Whether the policy's cap holds.
        cap: PruneCap,
    },
    /// To mark a version.
    Mark {
        /// Of which path.
        #[serde(flatten)]
        path: PathField,
        /// Which, as for [`Request::Cat`].
        #[serde(default)]
        version: Option<String>,
        /// How.
        mark: Mark,
    },
    /// What is known of a file, with what is said of it.
    File {
        /// Which.
        #[serde(flatten)]
        path: PathField,
    },
    /// The same of a file by its identity.
    FileWith {
        /// Which.
        file_id: Uuid,
    },
    /// To say something of a file.
    Label {
        /// Of which.
        #[serde(flatten)]
        path: PathField,
        /// What.
        change: LabelChange,
    },
    /// The tags that files have.
    Tags {
        /// Of files at and below this path.
        #[serde(flatten)]
        path: PathField,
        /// What comes after this tag.
        after: String,
        /// At most so many.
        limit: u64,
    },
    /// The collections that have files.
    Collections {
        /// At and below this path.
        #[serde(flatten)]
        path: PathField,
        /// What comes after this name.
        after: String,
        /// At most so many.
        limit: u64,
    },
    /// One of them.
    Collection {
        /// Its name, or its identity.
        name: String,
    },
    /// To make a collection, or change it.
    Collect {
        /// Which.
        name: String,
        /// How.
        what: Collect,
    },
    /// To take a collection away; its files stay.
    Forget {
        /// Which.
        name: String,
    },
    /// To compare the backing directory with the catalog.
    Reconcile {
        /// Whether to report until it is done.
        wait: Wait,
    },
    /// Something about snapshots of the backing filesystem.
    Snapshots {
        /// What.
        #[serde(flatten)]
        what: SnapshotOrder,
    },
    /// To read everything again and compare it with its digests.
    Verify(VerifyRequest),
}

/// Whether a prune drops anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PruneMode {
    /// It does.
    Drop,
    /// It only tells what it would do.
    DryRun,
}

/// Whether the cap on what one prune may drop holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PruneCap {
    /// It does.
    Holds,
    /// Somebody has seen what would go.
    Lifted,
}

/// What somebody wants of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// That its content stays.
    Pin,
    /// That it need not stay.
    Unpin,
    /// That this is said of it; nothing takes back what was said.
    Note(String),
}

/// What becomes of a collection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collect {
    /// What it is; as it was if left out.
    #[serde(default)]
    pub description: Option<String>,
    /// It gets these.
    #[serde(default)]
    pub add: Vec<PathField>,
    /// It loses these.
    #[serde(default)]
    pub remove: Vec<PathField>,
}

/// What happens at the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// The answer ends.
    No,
    /// The answer goes on with what happens.
    Yes,
}

/// What is to be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum BringBack {
    /// A version of a file, or a file or directory as it was at a time.
    Restore {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// The version, as [`Request::Cat`] has it.
        #[serde(default)]
        version: Option<String>,
        /// The time, in nanoseconds since 1970, instead of a version.
        #[serde(default)]
        at_ns: Option<i64>,
        /// Where to, if not in place.
        #[serde(flatten)]
        to: Option<ToPathField>,
    },
    /// What was deleted.
    Undelete {
        /// What had this path.
        #[serde(flatten)]
        path: PathField,
    },
    /// A file or directory as it was at a time, and nothing else.
    Rewind {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// When, in nanoseconds since 1970.
        at_ns: i64,
    },
    /// What somebody changed.
    Undo {
        /// At and below this path.
        #[serde(flatten)]
        path: PathField,
        /// Since when, in nanoseconds since 1970; ever, if left out.
        #[serde(default)]
        since_ns: Option<i64>,
        /// By which process.
        #[serde(default)]
        pid: Option<u32>,
        /// By which user: a name or number.
        #[serde(default)]
        user: Option<String>,
    },
}

/// Whether a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// It is only told.
    Plan,
    /// It is carried out.
    Do,
}

/// Whether a request returns before what it started is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It does.
    No,
    /// It reports until it is done.
    Yes,
}

/// The last line of an answer that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct End {
    /// Records before this line.
    pub records: u64,
    /// How many of them lack the digest that was asked for.
    #[serde(default)]
    pub unknown: u64,
}

/// The last line of an answer that is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// What kind, for programs.
    pub code: FailureCode,
    /// What happened, for people.
    pub message: String,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The request makes no sense.
    BadRequest,
    /// The catalog knows no such path.
    NotFound,
    /// The path is of a kind that has no such answer.
    WrongKind,
    /// The content of the version is lost.
    NotKept,
    /// The caller may not.
    Denied,
    /// Too much would go.
    Capped,
    /// It cannot be done as things are.
    Impossible,
    /// Too many clients at once.
    Busy,
    /// Nothing serves the mount.
    NotRunning,
    /// The daemon could not.
    Internal,
}
