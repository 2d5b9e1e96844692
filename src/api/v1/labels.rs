//! What people say of files: labels, tags and collections.

use axum::Json as Answer;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::{Json, Page, Params, bad_cursor, clean, cursor, limit, path};
use crate::catalog::LabelChange;
use crate::keys::Scope;
use crate::query::labels::{CollectionRecord, FileRecord, TagRecord};
use crate::query::request::{Collect, PathField, Request};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FileParams {
    /// The file.
    path: Option<String>,
    /// Its exact bytes in Base64, instead; or
    path_base64: Option<String>,
    /// its identity, wherever it is.
    file_id: Option<Uuid>,
}

/// What is known of a file: where it is, and what is said of it.
#[utoipa::path(
    get, path = "/api/v1/labels", tag = "labels", params(FileParams),
    responses((status = 200, body = FileRecord), Problem),
)]
pub(super) async fn labels(
    state: State,
    caller: Caller,
    Params(params): Params<FileParams>,
) -> Result<Answer<FileRecord>, Problem> {
    let named = params.path.is_some() || params.path_base64.is_some();
    let request = match params.file_id {
        Some(_) if named => return Err(Problem::bad_request("either `path` or `file_id`")),
        Some(file_id) => Request::FileWith { file_id },
        None => {
            let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
            Request::File { path: PathField(path) }
        }
    };
    let file: FileRecord = state.record(&caller, request).await?;
    caller.need_path(&file.path.0)?;
    Ok(Answer(file))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelsBody {
    /// The file.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Its tags from now on, all of them; at most 64 words without commas.
    tags: Option<Vec<String>>,
    /// Tags that it gets.
    #[serde(default)]
    add_tags: Vec<String>,
    /// Tags that it loses.
    #[serde(default)]
    remove_tags: Vec<String>,
    /// Whose it is; an empty text takes that away, and so it is with the others.
    owner: Option<String>,
    /// What it is for.
    purpose: Option<String>,
    /// What has become of it.
    status: Option<String>,
    /// What it belongs to elsewhere.
    correlation_id: Option<String>,
}

/// Says something of a file. What is left out stays as it is.
#[utoipa::path(
    post, path = "/api/v1/labels", tag = "labels", request_body = LabelsBody,
    responses((status = 200, body = FileRecord), Problem),
)]
pub(super) async fn label(
    state: State,
    caller: Caller,
    Json(body): Json<LabelsBody>,
) -> Result<Answer<FileRecord>, Problem> {
    let path = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    caller.need(Scope::Restore)?;
    caller.audit("label", &path);
    let change = LabelChange {
        tags: body.tags,
        add_tags: body.add_tags,
        remove_tags: body.remove_tags,
        owner: body.owner,
        purpose: body.purpose,
        status: body.status,
        correlation_id: body.correlation_id,
    };
    Ok(Answer(state.record(&caller, Request::Label { path: PathField(path), change }).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only of files at and below this path.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Where another answer ended.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

impl ListParams {
    /// The path that is meant, the text after which the list goes on, and how much of it is wanted.
    fn read(&self, caller: &Caller) -> Result<(PathField, String, usize), Problem> {
        let path = path(caller, self.path.as_deref(), self.path_base64.as_deref())?;
        let after = cursor(self.after.as_deref())?;
        let after = String::from_utf8(after).map_err(|_| bad_cursor())?;
        Ok((PathField(path), after, limit(self.limit)?))
    }
}

/// The tags of live files that the caller may see, in the order of their letters.
#[utoipa::path(
    get, path = "/api/v1/tags", tag = "labels", params(ListParams),
    responses((status = 200, body = Page<TagRecord>), Problem),
)]
pub(super) async fn tags(
    state: State,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<TagRecord>>, Problem> {
    let (path, after, limit) = params.read(&caller)?;
    let request = Request::Tags { path, after, limit: limit as u64 + 1 };
    let records = state.records(&caller, request, limit + 1).await?;
    Ok(Answer(Page::new(records, limit, |record: &TagRecord| record.tag.clone().into_bytes())?))
}

/// Collections in which the caller may see a live file, and those that they have made, in the order of their names.
/// `/api/v1/search?collection=NAME` lists the files of one.
#[utoipa::path(
    get, path = "/api/v1/collections", tag = "labels", params(ListParams),
    responses((status = 200, body = Page<CollectionRecord>), Problem),
)]
pub(super) async fn collections(
    state: State,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<CollectionRecord>>, Problem> {
    let (path, after, limit) = params.read(&caller)?;
    let request = Request::Collections { path, after, limit: limit as u64 + 1 };
    let records = state.records(&caller, request, limit + 1).await?;
    let name = |record: &CollectionRecord| record.name.clone().into_bytes();
    Ok(Answer(Page::new(records, limit, name)?))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CollectionBody {
    /// What it is called.
    name: String,
    /// What it is; left out, it stays as it was.
    description: Option<String>,
    /// Paths of files that it gets.
    #[serde(default)]
    add: Vec<String>,
    /// Paths of files that it loses; those stay where they are.
    #[serde(default)]
    remove: Vec<String>,
}

/// Makes a collection, or describes it anew, and changes which files are in it.
#[utoipa::path(
    post, path = "/api/v1/collections", tag = "labels", request_body = CollectionBody,
    responses((status = 200, body = CollectionRecord), Problem),
)]
pub(super) async fn collect(
    state: State,
    caller: Caller,
    Json(body): Json<CollectionBody>,
) -> Result<Answer<CollectionRecord>, Problem> {
    caller.need_everything()?;
    caller.need(Scope::Restore)?;
    let paths = |texts: Vec<String>| -> Result<Vec<PathField>, Problem> {
        texts.iter().map(|text| Ok(PathField(clean(text.as_bytes())?))).collect()
    };
    let (add, remove) = (paths(body.add)?, paths(body.remove)?);
    caller.audit("collection", body.name.as_bytes());
    let what = Collect { description: body.description, add, remove };
    let request = Request::Collect { name: body.name, what };
    Ok(Answer(state.record(&caller, request).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NameParams {
    /// What it is called.
    name: String,
}

/// Takes a collection away; its files stay. The answer is what it was.
#[utoipa::path(
    delete, path = "/api/v1/collections", tag = "labels", params(NameParams),
    responses((status = 200, body = CollectionRecord), Problem),
)]
pub(super) async fn forget(
    state: State,
    caller: Caller,
    Params(params): Params<NameParams>,
) -> Result<Answer<CollectionRecord>, Problem> {
    caller.need_everything()?;
    caller.need(Scope::Restore)?;
    caller.audit("delete collection", params.name.as_bytes());
    Ok(Answer(state.record(&caller, Request::Forget { name: params.name }).await?))
}
