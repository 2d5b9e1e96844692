//! What is there, what was there, and who made it.

use axum::Json;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::{Page, Params, Written, bad_cursor, cursor, first, limit, path, read, time};
use crate::api::ask::Stream;
use crate::query::records::{BlameRecord, ManifestRecord, TreeRecord, VersionRecord};
use crate::query::request::{NameField, PathField, Request};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TreeParams {
    /// The directory; the root if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// As of when.
    at: Option<String>,
    /// Where another answer ended.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// What is in a directory, now or at a time, in the order of the names' bytes.
#[utoipa::path(
    get, path = "/api/v1/tree", tag = "files", params(TreeParams),
    responses((status = 200, body = Page<TreeRecord>), Problem),
)]
pub(super) async fn tree(
    state: State,
    caller: Caller,
    Params(params): Params<TreeParams>,
) -> Result<Json<Page<TreeRecord>>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let limit = limit(params.limit)?;
    let after = NameField(cursor(params.after.as_deref())?);
    let (path, at_ns) = (PathField(path), time(params.at.as_deref())?);
    let request = Request::Tree { path, at_ns, after, limit: limit as u64 + 1 };
    let records = state.records(&caller, request, limit + 1).await?;
    Ok(Json(Page::new(records, limit, |record: &TreeRecord| record.name.0.clone())?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionsParams {
    /// The file.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Where another answer ended.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Every version that a path has shown, newest first.
#[utoipa::path(
    get, path = "/api/v1/versions", tag = "files", params(VersionsParams),
    responses((status = 200, body = Page<VersionRecord>), Problem),
)]
pub(super) async fn versions(
    state: State,
    caller: Caller,
    Params(params): Params<VersionsParams>,
) -> Result<Json<Page<VersionRecord>>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let request = Request::Log { path: PathField(path) };
    numbered(&state, &caller, request, (params.after, params.limit)).await
}

/// Who made the versions of a path, newest first.
#[utoipa::path(
    get, path = "/api/v1/blame", tag = "files", params(VersionsParams),
    responses((status = 200, body = Page<BlameRecord>), Problem),
)]
pub(super) async fn blame(
    state: State,
    caller: Caller,
    Params(params): Params<VersionsParams>,
) -> Result<Json<Page<BlameRecord>>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let request = Request::Blame { path: PathField(path) };
    numbered(&state, &caller, request, (params.after, params.limit)).await
}

/// What such a record has among others.
#[derive(Deserialize)]
struct Numbered {
    number: u64,
}

/// A page of records with falling numbers, which are what cursors say.
async fn numbered<R>(
    state: &State,
    caller: &Caller,
    request: Request,
    (after, wanted): (Option<String>, Option<usize>),
) -> Result<Json<Page<R>>, Problem> {
    let limit = limit(wanted)?;
    let after = cursor(after.as_deref())?;
    let text = std::str::from_utf8(&after).map_err(|_| bad_cursor())?;
    // A path has a few hundred versions at most times, and its numbers are only known with all of them.
    let mut records: Vec<Written> = state.records(caller, request, usize::MAX).await?;
    if !text.is_empty() {
        let below: u64 = text.parse().map_err(|_| bad_cursor())?;
        let numbers: Vec<Numbered> = records.iter().map(|r| read(r)).collect::<Result<_, _>>()?;
        records.drain(..numbers.partition_point(|record| record.number >= below));
    }
    records.truncate(limit + 1);
    let (items, last) = first(records, limit)?;
    let next = |last: Numbered| BASE64URL_NOPAD.encode(last.number.to_string().as_bytes());
    Ok(Json(Page::part(items, last.map(next))))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ManifestParams {
    /// The directory or file; the root if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// As of when.
    at: Option<String>,
}

/// The digests of all regular files at and below a path, one record a line. A last line with the key `problem`
/// says that the answer is not whole.
#[utoipa::path(
    get, path = "/api/v1/manifest", tag = "files", params(ManifestParams),
    responses(
        (status = 200, body = ManifestRecord, content_type = "application/x-ndjson"),
        Problem,
    ),
)]
pub(super) async fn manifest(
    state: State,
    caller: Caller,
    Params(params): Params<ManifestParams>,
) -> Result<impl IntoResponse, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let at_ns = time(params.at.as_deref())?;
    let request = Request::Manifest { path: PathField(path), at_ns };
    Ok(lines(state.stream(&caller, request).await?))
}

/// An answer of one record a line.
pub(super) fn lines(stream: Stream) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(stream))
}
