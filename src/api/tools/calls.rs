//! What the tools do: each asks what the API asks, by whoever calls.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use super::params::{
    Create, Info, List, Metadata, Order, Query, Register, Restore, Search, SortBy, Update, Wanted,
    read,
};
use super::{Failure, ToolCode};
use crate::api::Api;
use crate::api::caller::Caller;
use crate::api::gateway::{self, checksum, stamp};
use crate::api::problem::{Code, Problem};
use crate::catalog::{Content, LabelChange};
use crate::clock::now_ns;
use crate::keys::Scope;
use crate::query::filter::{Detail, Pattern, SearchFilter};
use crate::query::labels::{CollectionName, CollectionRecord, FileDetails, FileRecord};
use crate::query::records::{Outcome, RestoreRecord, SearchRecord, VersionRecord};
use crate::query::request::{BringBack, Collect, PathField, QueryField, Request, Run};
use crate::timespec::{parse_time, rfc3339};
use crate::types::{ContentHash, Kind};

/// Entries of a list at most.
const MAX_LIMIT: usize = 1000;
/// Files that are put in order at most.
const MOST: usize = 100_000;
/// What has become of a file of which nobody said anything.
const ACTIVE: &str = "active";

/// A call of a tool.
pub(super) struct Call<'c> {
    pub(super) api: &'c Arc<Api>,
    pub(super) caller: &'c Caller,
}

impl Call<'_> {
    pub(super) async fn run(&self, tool: &str, params: Value) -> Result<Value, Failure> {
        match tool {
            "register_file" => self.register(read(params)?).await,
            "search_files" => self.search(read(params)?).await,
            "get_file_info" => self.info(read(params)?).await,
            "create_collection" => self.create_collection(read(params)?).await,
            "list_collections" => self.list_collections(read(params)?).await,
            "update_file" => self.update(read(params)?).await,
            "restore_version" => self.restore(read(params)?).await,
            _ => Err(Failure::new(ToolCode::ToolNotFound, format!("there is no tool `{tool}`"))),
        }
    }

    /// The filesystem has the file in the catalog already: only what is said of it is new.
    async fn register(&self, register: Register) -> Result<Value, Failure> {
        let file = self.file_at(&register.file_path).await?;
        let tags = register.metadata.tags.clone().unwrap_or_default();
        let metadata = Metadata { tags: None, ..register.metadata };
        let file = self.say(file, metadata, tags).await?;
        Ok(json!({
            "file_id": file.file_id,
            "checksum": file.sha256.map(checksum),
            "size": file.size,
            "mime_type": mime(&file.path.0),
            "registered_at": stamp(&file.details.created),
            "version": file.details.file_number,
        }))
    }

    async fn update(&self, update: Update) -> Result<Value, Failure> {
        let file = self.file(&update.file_id).await?;
        let fields = [
            ("owner", update.metadata.owner.is_some()),
            ("purpose", update.metadata.purpose.is_some()),
            ("status", update.metadata.status.is_some()),
            ("correlation_id", update.metadata.correlation_id.is_some()),
            ("tags", update.metadata.tags.is_some()),
            ("collection", update.metadata.collection.is_some()),
        ];
        let updated: Vec<&str> =
            fields.into_iter().filter_map(|(name, given)| given.then_some(name)).collect();
        let file = self.say(file, update.metadata, Vec::new()).await?;
        Ok(json!({
            "file_id": file.file_id,
            "updated_fields": updated,
            // A close makes a version, and nothing else does.
            "version_created": false,
            "current_version": file.details.file_number,
        }))
    }

    /// Says something of a file, and puts it into a collection, if there is one.
    async fn say(
        &self,
        file: FileRecord,
        metadata: Metadata,
        add_tags: Vec<String>,
    ) -> Result<FileRecord, Failure> {
        if metadata == Metadata::default() && add_tags.is_empty() {
            return Ok(file);
        }
        let path = || PathField(file.path.0.clone());
        self.caller.need(Scope::Restore)?;
        let collection = match &metadata.collection {
            Some(name) => {
                self.caller.need_everything()?;
                Some(self.collection(name).await?)
            }
            None => None,
        };
        self.caller.audit("label", &file.path.0);
        let Metadata { owner, purpose, status, correlation_id, tags, .. } = metadata;
        let remove_tags = Vec::new();
        let change =
            LabelChange { tags, add_tags, remove_tags, owner, purpose, status, correlation_id };
        if let Some(CollectionRecord { name, .. }) = collection {
            let what = Collect { add: vec![path()], ..Collect::default() };
            self.record::<CollectionRecord>(Request::Collect { name, what }).await?;
        }
        if change == LabelChange::default() {
            return self.record(Request::File { path: path() }).await;
        }
        self.record(Request::Label { path: path(), change }).await
    }

    async fn search(&self, search: Search) -> Result<Value, Failure> {
        let (text, wanted) = match search.query {
            Some(Query::Text(text)) => (text, search.wanted),
            Some(Query::Wanted(wanted)) => (String::new(), *wanted),
            None => (String::new(), search.wanted),
        };
        check_limit(search.limit)?;
        let collection = match &wanted.collection {
            Some(name) => Some(self.collection(name).await?.name),
            None => None,
        };
        let extension = wanted.file_type.as_deref().filter(|kind| !kind.contains('/'));
        let size = (wanted.min_size.is_some() || wanted.max_size.is_some())
            .then(|| wanted.min_size.unwrap_or(0)..=wanted.max_size.unwrap_or(u64::MAX));
        let filter = SearchFilter {
            query: QueryField(text.into_bytes()),
            pattern: Pattern::Substring,
            size,
            extension: extension.map(|text| text.trim_start_matches('.').to_owned()),
            kind: Some(Kind::File),
            tags: wanted.tags.clone(),
            collection,
            detail: Detail::Whole,
            ..SearchFilter::default()
        };
        let born = Born::new(&wanted)?;
        let mut found = Vec::new();
        for top in self.caller.tops() {
            let request = Request::Search { path: PathField(top), filter: filter.clone() };
            let some: Vec<SearchRecord> = self.api.records(self.caller, request, MOST).await?;
            let has = |record: SearchRecord| Found::new(record).filter(|f| f.is(&wanted, &born));
            found.extend(some.into_iter().filter_map(has));
        }
        found.sort_by(|a, b| {
            let order = a.cmp_by(b, search.sort_by);
            let order = if search.order == Order::Asc { order } else { order.reverse() };
            order.then_with(|| a.record.path.0.cmp(&b.record.path.0))
        });
        let page = found.iter().skip(search.offset).take(search.limit);
        let results: Vec<Value> = page.map(|found| self.row(&found.told())).collect();
        Ok(json!({
            "total_count": found.len(), "results": results,
            "limit": search.limit, "offset": search.offset,
        }))
    }

    async fn info(&self, info: Info) -> Result<Value, Failure> {
        let file = self.file(&info.file_id).await?;
        let mut row = self.row(&Told {
            path: &file.path.0,
            id: file.file_id,
            size: file.size,
            hash: file.sha256,
            details: &file.details,
        });
        if info.include_versions {
            let versions = self.versions(&file).await?;
            let told = |version: &VersionRecord| {
                json!({
                    "version": version.file_number,
                    "checksum": version.sha256.map(checksum),
                    "size": version.size,
                    "timestamp": stamp(&version.time),
                    "content_available": version.content != Content::None,
                })
            };
            row["versions"] = versions.iter().map(told).collect();
        }
        Ok(row)
    }

    async fn create_collection(&self, create: Create) -> Result<Value, Failure> {
        self.caller.need_everything()?;
        self.caller.need(Scope::Restore)?;
        let mut add = Vec::new();
        for id in &create.file_ids {
            add.push(self.file(id).await?.path);
        }
        self.caller.audit("collection", create.name.as_bytes());
        let what = Collect { description: create.description, add, remove: Vec::new() };
        let made = self.record(Request::Collect { name: create.name, what }).await?;
        Ok(collection_row(&made))
    }

    async fn list_collections(&self, list: List) -> Result<Value, Failure> {
        self.caller.need_everything()?;
        check_limit(list.limit)?;
        let (path, after) = (PathField::default(), String::new());
        let request = Request::Collections { path, after, limit: MOST as u64 };
        let all: Vec<CollectionRecord> = self.api.records(self.caller, request, MOST).await?;
        let page = all.iter().skip(list.offset).take(list.limit);
        Ok(json!({
            "total_count": all.len(),
            "collections": page.map(collection_row).collect::<Vec<_>>(),
        }))
    }

    async fn restore(&self, restore: Restore) -> Result<Value, Failure> {
        let file = self.file(&restore.file_id).await?;
        self.caller.need(Scope::Restore)?;
        let gone = |message: String| Failure::new(ToolCode::VersionNotFound, message);
        let versions = self.versions(&file).await?;
        let meant = versions.iter().find(|version| version.file_number == restore.version);
        let meant =
            meant.ok_or_else(|| gone(format!("the file has no version {}", restore.version)))?;
        if meant.content == Content::None {
            return Err(gone("the content of this version was not kept".into()));
        }
        let what = BringBack::Restore {
            path: file.path.clone(),
            version: Some(meant.number.to_string()),
            at_ns: None,
            to: None,
        };
        self.caller.audit("restore", &file.path.0);
        let request = Request::BringBack { what, run: Run::Do };
        let steps: Vec<RestoreRecord> = self.api.records(self.caller, request, usize::MAX).await?;
        if let Some(failed) = steps.iter().find(|step| step.outcome == Outcome::Failed) {
            let reason = failed.reason.as_deref().unwrap_or("it could not be done");
            return Err(Failure::new(ToolCode::FileLock, reason));
        }
        let now: FileRecord = self.record(Request::File { path: file.path.clone() }).await?;
        let number = now.details.file_number;
        let is_new = number != file.details.file_number;
        Ok(json!({
            "file_id": now.file_id,
            "restored_to_version": restore.version,
            // None if the content was the same.
            "new_version_created": is_new.then_some(number),
            "current_path": self.absolute(&now.path.0),
        }))
    }

    async fn record<R>(&self, request: Request) -> Result<R, Failure>
    where
        R: serde::de::DeserializeOwned + Send + 'static,
    {
        Ok(self.api.record(self.caller, request).await?)
    }

    /// The versions of a file, newest first, as its path shows them.
    async fn versions(&self, file: &FileRecord) -> Result<Vec<VersionRecord>, Failure> {
        let request = Request::Log { path: file.path.clone() };
        let mut versions: Vec<VersionRecord> =
            self.api.records(self.caller, request, usize::MAX).await?;
        versions.retain(|version| version.file_id == file.file_id);
        Ok(versions)
    }

    /// The file that is meant by an identity or a path.
    async fn file(&self, text: &str) -> Result<FileRecord, Failure> {
        if let Ok(file_id) = text.parse::<Uuid>() {
            let found = self.api.record(self.caller, Request::FileWith { file_id }).await;
            match found {
                Err(problem) if problem.code() == Code::NotFound => {}
                found => {
                    let file: FileRecord = found?;
                    self.caller.need_path(&file.path.0)?;
                    return Ok(file);
                }
            }
        }
        self.file_at(text).await
    }

    async fn file_at(&self, text: &str) -> Result<FileRecord, Failure> {
        let invalid = |problem: Problem| Failure::new(ToolCode::InvalidPath, problem.detail());
        let path = gateway::path(self.api, text).map_err(invalid)?;
        self.caller.need_path(&path)?;
        let found = self.api.record(self.caller, Request::File { path: PathField(path) }).await;
        found.map_err(|problem| match problem.code() {
            // A directory, for one.
            Code::BadRequest => invalid(problem),
            _ => problem.into(),
        })
    }

    /// The collection that is meant by a name or an identity.
    async fn collection(&self, name: &str) -> Result<CollectionRecord, Failure> {
        let found = self.api.record(self.caller, Request::Collection { name: name.into() }).await;
        found.map_err(|problem| match problem.code() {
            Code::NotFound => Failure::new(ToolCode::CollectionNotFound, problem.detail()),
            _ => problem.into(),
        })
    }

    /// A path as users of the mount have it.
    fn absolute(&self, path: &[u8]) -> String {
        let root = self.api.config.roots.first().cloned().unwrap_or_default();
        root.join(OsStr::from_bytes(path)).to_string_lossy().into_owned()
    }

    fn row(&self, told: &Told<'_>) -> Value {
        let labels = &told.details.labels;
        let collection: Option<&CollectionName> = told.details.collections.first();
        json!({
            "file_id": told.id,
            "path": self.absolute(told.path),
            "owner": labels.owner,
            "purpose": labels.purpose,
            "tags": labels.tags,
            "status": labels.status.as_deref().unwrap_or(ACTIVE),
            "correlation_id": labels.correlation_id,
            "size": told.size,
            "mime_type": mime(told.path),
            "created_at": stamp(&told.details.created),
            "updated_at": stamp(&told.details.updated),
            "version": told.details.file_number,
            "checksum": told.hash.map(checksum),
            "collection_id": collection.map(|collection| collection.id),
        })
    }
}

/// What a row tells of.
struct Told<'t> {
    path: &'t [u8],
    id: Uuid,
    size: u64,
    hash: Option<ContentHash>,
    details: &'t FileDetails,
}

/// When a file may have been seen first, as RFC 3339 in UTC, which is in the order of the times.
struct Born {
    after: Option<String>,
    before: Option<String>,
}

impl Born {
    fn new(wanted: &Wanted) -> Result<Self, Failure> {
        let time = |text: &Option<String>| {
            let parse = |text: &String| match parse_time(text, now_ns(), &TimeZone::UTC) {
                Ok(ns) => Ok(rfc3339(ns)),
                Err(error) => Err(Failure::new(ToolCode::InvalidParams, error.to_string())),
            };
            text.as_ref().map(parse).transpose()
        };
        Ok(Self { after: time(&wanted.created_after)?, before: time(&wanted.created_before)? })
    }
}

/// A file that was found and that the caller may read.
struct Found {
    record: SearchRecord,
    details: FileDetails,
}

impl Found {
    fn new(mut record: SearchRecord) -> Option<Self> {
        let details = record.details.take()?;
        Some(Self { record, details })
    }

    /// Whether it is what is wanted beyond what the search looks for.
    fn is(&self, wanted: &Wanted, born: &Born) -> bool {
        let (labels, created) = (&self.details.labels, &self.details.created);
        let status = labels.status.as_deref().unwrap_or(ACTIVE);
        status == wanted.status.as_deref().unwrap_or(ACTIVE)
            && (wanted.owner.is_none() || wanted.owner == labels.owner)
            && born.after.as_ref().is_none_or(|after| created >= after)
            && born.before.as_ref().is_none_or(|before| created <= before)
            && wanted.file_type.as_deref().is_none_or(|kind| self.has_type(kind))
    }

    fn has_type(&self, kind: &str) -> bool {
        let is = mime(&self.record.path.0);
        match kind.strip_suffix('*') {
            Some(group) if group.ends_with('/') => is.starts_with(group),
            _ => !kind.contains('/') || kind.eq_ignore_ascii_case(&is),
        }
    }

    fn cmp_by(&self, other: &Self, by: SortBy) -> Ordering {
        match by {
            SortBy::CreatedAt => self.details.created.cmp(&other.details.created),
            SortBy::UpdatedAt => self.details.updated.cmp(&other.details.updated),
            SortBy::Size => self.record.size.cmp(&other.record.size),
            SortBy::Path => self.record.path.0.cmp(&other.record.path.0),
        }
    }

    fn told(&self) -> Told<'_> {
        let record = &self.record;
        Told {
            path: &record.path.0,
            id: record.file_id,
            size: record.size,
            hash: record.sha256,
            details: &self.details,
        }
    }
}

fn check_limit(limit: usize) -> Result<(), Failure> {
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(());
    }
    let message = format!("`limit` is a number from 1 to {MAX_LIMIT}");
    Err(Failure::new(ToolCode::InvalidParams, message))
}

fn mime(path: &[u8]) -> String {
    let name = String::from_utf8_lossy(path);
    mime_guess::from_path(&*name).first_or_octet_stream().essence_str().to_owned()
}

fn collection_row(collection: &CollectionRecord) -> Value {
    json!({
        "collection_id": collection.id,
        "name": collection.name,
        "description": collection.description,
        "file_count": collection.files,
        "created_at": stamp(&collection.created),
        "updated_at": stamp(&collection.updated),
    })
}
