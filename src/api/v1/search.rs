//! Names that match.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::{Page, Params, limit, path, time};
use crate::query::filter::{Names, Pattern, SearchFilter};
use crate::query::records::SearchRecord;
use crate::query::request::{PathField, QueryField, Request};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SearchParams {
    /// Part of the path, or a glob.
    q: Option<String>,
    /// Whether it is a glob: over the last name, or over the path if it has a slash.
    #[serde(default)]
    glob: bool,
    /// The directory to look in; everywhere if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Whether names that are gone count too.
    #[serde(default)]
    deleted: bool,
    /// Smallest size in bytes; only regular files have one.
    min_size: Option<u64>,
    /// Largest size in bytes; only regular files have one.
    max_size: Option<u64>,
    /// Saved or deleted at or after this time.
    since: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Names that match.
#[utoipa::path(
    get, path = "/api/v1/search", tag = "files", params(SearchParams),
    responses((status = 200, body = Page<SearchRecord>), (status = "4XX", body = Problem)),
)]
pub(super) async fn search(
    state: State,
    caller: Caller,
    Params(params): Params<SearchParams>,
) -> Result<Json<Page<SearchRecord>>, Problem> {
    let path = path(params.path.as_deref(), params.path_base64.as_deref())?;
    caller.need_path(&path)?;
    let limit = limit(params.limit)?;
    let size = match (params.min_size, params.max_size) {
        (None, None) => None,
        (min, max) => Some(min.unwrap_or(0)..=max.unwrap_or(u64::MAX)),
    };
    let filter = SearchFilter {
        query: QueryField(params.q.unwrap_or_default().into_bytes()),
        pattern: if params.glob { Pattern::Glob } else { Pattern::Substring },
        names: if params.deleted { Names::AndDeleted } else { Names::Live },
        size,
        since_ns: time(params.since.as_deref())?,
        limit: Some(limit as u64 + 1),
    };
    let request = Request::Search { path: PathField(path), filter };
    let records = state.records(&caller, request, limit + 1).await?;
    Ok(Json(Page::new(records, limit, |record: &SearchRecord| record.path.0.clone())))
}
