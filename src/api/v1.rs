//! `/api/v1`: one file per kind of question.
//!
//! Owns what is common to them: how paths, times and pages are written. Answers consist of the records that
//! the command line prints with `--json`.

mod changes;
mod content;
mod files;
mod jobs;
mod labels;
mod replies;
mod reports;
mod restore;
mod search;
mod snapshots;
mod status;
mod webhooks;

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use jiff::tz::TimeZone;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::caller::Caller;
use super::problem::Problem;
use crate::clock::now_ns;
use crate::timespec;
pub(super) use replies::Replies;
pub(super) use search::tags;

/// Records of one page, if nobody says how many.
const PAGE: usize = 100;
/// Records of one page at most.
const MAX_PAGE: usize = 1000;

#[derive(OpenApi)]
#[openapi(
    components(schemas(Problem)),
    info(
        title = "Horace",
        description = "What is in a mount, what was there, who did it, and how to bring it back.\n\n\
        Paths are relative to the root of the mount. A path that is not UTF-8 has its bytes in Base64 in \
        the field or parameter `path_base64`. Times are RFC 3339, or `10m`, `2h`, `yesterday 14:00` (UTC). \
        A version is a number, the beginning of a digest, `head`, or one of these with `~` for the one before."
    )
)]
struct Description;

/// Every endpoint, with its description.
pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(status::status))
        .routes(routes!(status::sync))
        .routes(routes!(files::tree))
        .routes(routes!(files::versions))
        .routes(routes!(files::blame))
        .routes(routes!(files::manifest))
        .routes(routes!(content::content))
        .routes(routes!(content::diff))
        .routes(routes!(search::search))
        .routes(routes!(reports::usage))
        .routes(routes!(reports::duplicates))
        .routes(routes!(reports::writers))
        .routes(routes!(changes::changes))
        .routes(routes!(changes::events))
        .routes(routes!(restore::restore))
        .routes(routes!(restore::undelete))
        .routes(routes!(restore::rewind))
        .routes(routes!(restore::undo))
        .routes(routes!(restore::mark))
        .routes(routes!(labels::labels, labels::label))
        .routes(routes!(labels::tags))
        .routes(routes!(labels::collections, labels::collect, labels::forget))
        .routes(routes!(jobs::reconcile_progress, jobs::reconcile))
        .routes(routes!(jobs::verify))
        .routes(routes!(webhooks::webhooks, webhooks::add, webhooks::remove))
        .routes(routes!(jobs::prune))
        .routes(routes!(snapshots::snapshots, snapshots::create))
        .routes(routes!(snapshots::snapshot))
        .routes(routes!(snapshots::diff))
        .routes(routes!(snapshots::hold))
        .routes(routes!(snapshots::release))
        .routes(routes!(snapshots::prune))
}

/// A record as it was written, which need not be read to be passed on.
type Written = Box<RawValue>;

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// Its records.
    #[schema(value_type = Vec<T>)]
    items: Vec<Written>,
    /// What to give as `after` for the next part; null if this is the last one.
    next: Option<String>,
    #[serde(skip)]
    of: PhantomData<T>,
}

impl<T> Page<T> {
    fn part(items: Vec<Written>, next: Option<String>) -> Self {
        Self { items, next, of: PhantomData }
    }
}

impl<T: DeserializeOwned> Page<T> {
    /// The first `limit` of records of which one more was asked for; `name` is what a cursor says of one.
    fn new(
        items: Vec<Written>,
        limit: usize,
        name: impl Fn(&T) -> Vec<u8>,
    ) -> Result<Self, Problem> {
        Self::named(items, limit, |last| BASE64URL_NOPAD.encode(&name(last)))
    }

    /// The same with whole cursors.
    fn named(
        items: Vec<Written>,
        limit: usize,
        cursor: impl Fn(&T) -> String,
    ) -> Result<Self, Problem> {
        let (items, last) = first(items, limit)?;
        Ok(Self::part(items, last.as_ref().map(cursor)))
    }
}

/// The first `limit` of records, and the last of these if there are more.
fn first<T: DeserializeOwned>(
    mut items: Vec<Written>,
    limit: usize,
) -> Result<(Vec<Written>, Option<T>), Problem> {
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more).map(|last| read(last)).transpose()?;
    Ok((items, last))
}

fn read<T: DeserializeOwned>(written: &RawValue) -> Result<T, Problem> {
    serde_json::from_str(written.get()).map_err(Problem::internal)
}

/// What a cursor says.
fn cursor(after: Option<&str>) -> Result<Vec<u8>, Problem> {
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| bad_cursor());
    after.map_or(Ok(Vec::new()), decode)
}

fn bad_cursor() -> Problem {
    Problem::bad_request("`after` is not what another answer had as `next`")
}

/// How many records are wanted.
fn limit(wanted: Option<usize>) -> Result<usize, Problem> {
    match wanted {
        None => Ok(PAGE),
        Some(limit @ 1..=MAX_PAGE) => Ok(limit),
        Some(_) => Err(Problem::bad_request(format!("`limit` is a number from 1 to {MAX_PAGE}"))),
    }
}

/// What a body means that does not say whether it is only to be tried.
fn only_plan() -> bool {
    true
}

/// The path that is meant, as the catalog has it, if the caller's key is good for it.
fn path(caller: &Caller, text: Option<&str>, exact: Option<&str>) -> Result<Vec<u8>, Problem> {
    let path = any_path(text, exact)?;
    caller.need_path(&path)?;
    Ok(path)
}

fn any_path(text: Option<&str>, exact: Option<&str>) -> Result<Vec<u8>, Problem> {
    let bytes = match (text, exact) {
        (Some(_), Some(_)) => {
            return Err(Problem::bad_request("either `path` or `path_base64`, not both"));
        }
        (None, Some(exact)) => BASE64
            .decode(exact.as_bytes())
            .map_err(|_| Problem::bad_request("`path_base64` is not Base64"))?,
        (text, None) => text.unwrap_or("").as_bytes().to_vec(),
    };
    clean(&bytes)
}

/// A path from the root, without what would lead elsewhere.
pub(super) fn clean(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut names = Vec::new();
    for name in bytes.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(Problem::bad_request("a path has no `..`")),
            name if name.contains(&0) => {
                return Err(Problem::bad_request("a path has no zero byte"));
            }
            name => names.push(name),
        }
    }
    Ok(names.join(&b'/'))
}

/// A time in nanoseconds since 1970.
fn time(text: Option<&str>) -> Result<Option<i64>, Problem> {
    let parse = |text| {
        timespec::parse_time(text, now_ns(), &TimeZone::UTC)
            .map_err(|error| Problem::bad_request(error.to_string()))
    };
    text.map(parse).transpose()
}

/// The parameters of a request.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let parsed = Query::try_from_uri(&parts.uri);
        let Query(params) = parsed.map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(Self(params))
    }
}

/// What stands in the place of a request, as `{name}` does.
pub(super) struct Named(pub(super) String);

impl FromRequestParts<Arc<Api>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let parsed = Path::from_request_parts(parts, api).await;
        let Path(name) = parsed.map_err(|error| Problem::bad_request(error.body_text()))?;
        Ok(Self(name))
    }
}

/// The body of a request.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Problem> {
        use super::problem::Code;
        use axum::extract::rejection::JsonRejection;
        use axum::http::StatusCode;
        let parsed: Result<axum::Json<T>, JsonRejection> =
            axum::Json::from_request(request, api).await;
        match parsed {
            Ok(axum::Json(body)) => Ok(Self(body)),
            Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::new(Code::TooLarge, error.body_text()))
            }
            Err(error) => Err(Problem::bad_request(error.body_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", Some(""))]
    #[case("/", Some(""))]
    #[case("/a//b/./c/", Some("a/b/c"))]
    #[case("...", Some("..."))]
    #[case("a/../b", None)]
    #[case("..", None)]
    #[case("a\0b", None)]
    fn paths_lead_nowhere_else(#[case] text: &str, #[case] expected: Option<&str>) {
        let cleaned = clean(text.as_bytes()).ok();
        assert_eq!(cleaned.as_deref(), expected.map(str::as_bytes));
    }

    #[test]
    fn a_cursor_survives_its_way_through_a_client() {
        let written = |names: &[&str]| -> Vec<Written> {
            names.iter().map(|name| serde_json::value::to_raw_value(name).unwrap()).collect()
        };
        let page = |names| {
            let name = |name: &String| [name.as_bytes(), b"\xff"].concat();
            Page::<String>::new(written(names), 1, name).unwrap()
        };
        let first = page(&["a", "b"]);
        assert_eq!(serde_json::to_value(&first.items).unwrap(), serde_json::json!(["a"]));
        assert_eq!(cursor(first.next.as_deref()).unwrap(), b"a\xff");
        assert!(page(&["a"]).next.is_none());
        assert!(cursor(Some("!")).is_err());
        assert!(cursor(None).unwrap().is_empty());
    }
}
