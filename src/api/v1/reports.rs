//! What takes the space, what is there twice, and who writes.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::{Params, limit, path, time};
use crate::query::reports::duplicates::DuplicateRecord;
use crate::query::reports::usage::{UsageQuery, UsageRecord};
use crate::query::reports::writers::TopWriterRecord;
use crate::query::request::{PathField, Request};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// The directory; the root if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// As of when.
    at: Option<String>,
    /// An earlier time to compare with.
    since: Option<String>,
    /// Entries at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// How much is in a directory, by what is in it, and how much that has grown since a time. Goes through everything
/// below it, twice if it is to compare.
#[utoipa::path(
    get, path = "/api/v1/usage", tag = "reports", params(UsageParams),
    responses((status = 200, body = UsageRecord), Problem),
)]
pub(super) async fn usage(
    state: State,
    caller: Caller,
    Params(params): Params<UsageParams>,
) -> Result<Json<UsageRecord>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let (at_ns, since_ns) = (time(params.at.as_deref())?, time(params.since.as_deref())?);
    let query = UsageQuery { at_ns, since_ns, limit: limit(params.limit)? };
    Ok(Json(state.record(&caller, Request::Usage { path: PathField(path), query }).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DuplicatesParams {
    /// At and below this path; everywhere if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Only files of at least so many bytes.
    #[serde(default)]
    min_size: u64,
    /// Contents at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Contents that several files have.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Duplicates {
    /// Those that take the most first.
    items: Vec<DuplicateRecord>,
}

/// Files that have the same content, and what could be freed. Goes through everything below the path.
#[utoipa::path(
    get, path = "/api/v1/duplicates", tag = "reports", params(DuplicatesParams),
    responses((status = 200, body = Duplicates), Problem),
)]
pub(super) async fn duplicates(
    state: State,
    caller: Caller,
    Params(params): Params<DuplicatesParams>,
) -> Result<Json<Duplicates>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let (limit, min_size) = (limit(params.limit)?, params.min_size);
    let request = Request::Duplicates { path: PathField(path), min_size, limit };
    Ok(Json(Duplicates { items: state.records(&caller, request, limit).await? }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WritersParams {
    /// Only of what was at or below this path when it was changed last; everywhere if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Since when; ever if left out.
    since: Option<String>,
    /// Users and programs at most.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Who writes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Writers {
    /// A program of a user each: those that wrote the most bytes first.
    items: Vec<TopWriterRecord>,
}

/// Which programs of which users wrote the most. Goes through all changes since then.
#[utoipa::path(
    get, path = "/api/v1/writers", tag = "reports", params(WritersParams),
    responses((status = 200, body = Writers), Problem),
)]
pub(super) async fn writers(
    state: State,
    caller: Caller,
    Params(params): Params<WritersParams>,
) -> Result<Json<Writers>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let (limit, since_ns) = (limit(params.limit)?, time(params.since.as_deref())?);
    let request = Request::Writers { path: PathField(path), since_ns, limit };
    Ok(Json(Writers { items: state.records(&caller, request, limit).await? }))
}
