//! Names that match.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::{Page, Params, bad_cursor, limit, path, time};
use crate::query::filter::{Detail, Names, Pattern, SearchFilter};
use crate::query::records::SearchRecord;
use crate::query::request::{PathField, QueryField, Request};
use crate::types::Kind;

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
    /// Saved or deleted before or at this time.
    until: Option<String>,
    /// What names end with after a dot.
    ext: Option<String>,
    /// Who saved or deleted it: the name or number of a user, or a program as the kernel calls it.
    by: Option<String>,
    /// The beginning of the digest.
    sha256: Option<String>,
    /// What has the name.
    kind: Option<Kind>,
    /// Tags that a file has, all of them, with commas between them.
    tags: Option<String>,
    /// The collection that a file is in.
    collection: Option<String>,
    /// Whether labels, times and versions of files are told, too.
    #[serde(default)]
    details: bool,
    /// Where another answer ended.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Tags with commas between them.
pub(in crate::api) fn tags(text: Option<&str>) -> Vec<String> {
    let tags = text.unwrap_or_default().split(',').map(str::trim);
    tags.filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// Names that match.
#[utoipa::path(
    get, path = "/api/v1/search", tag = "files", params(SearchParams),
    responses((status = 200, body = Page<SearchRecord>), Problem),
)]
pub(super) async fn search(
    state: State,
    caller: Caller,
    Params(params): Params<SearchParams>,
) -> Result<Json<Page<SearchRecord>>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
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
        until_ns: time(params.until.as_deref())?,
        extension: params.ext,
        by: params.by,
        sha256: params.sha256,
        kind: params.kind,
        tags: tags(params.tags.as_deref()),
        collection: params.collection,
        detail: if params.details { Detail::Whole } else { Detail::Usual },
        limit: Some(limit as u64 + 1),
        after: params.after.map(|after| after.parse()).transpose().map_err(|_| bad_cursor())?,
    };
    let request = Request::Search { path: PathField(path), filter };
    let items = state.records(&caller, request, limit + 1).await?;
    let cursor = |last: &SearchRecord| last.cursor.as_ref().map(ToString::to_string);
    Ok(Json(Page::named(items, limit, |last| cursor(last).unwrap_or_default())?))
}
