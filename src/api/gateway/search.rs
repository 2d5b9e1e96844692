//! `GET /search`: a list of files whose path has a text in it.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::super::State;
use super::super::caller::Caller;
use super::{Given, Refusal, Wrong, checksum, stamp};
use crate::query::filter::{Names, Pattern, SearchFilter};
use crate::query::records::SearchRecord;
use crate::query::request::{PathField, QueryField, Request};
use crate::timespec::parse_time;
use crate::types::{ContentHash, Kind};

/// Files of an answer, if nobody says how many, and at most.
const LIMITS: (u64, u64) = (100, 1000);
/// Files that are put in order at most.
const MOST: usize = 100_000;

pub(super) async fn search(
    state: State,
    caller: Caller,
    given: Given,
) -> Result<Response, Refusal> {
    let query = match given.get("q") {
        None => return Err(Wrong::missing("q").into()),
        Some("") => {
            let message = "String should have at least 1 character";
            return Err(Wrong::new("string_too_short", "q", message, "").into());
        }
        Some(query) => query,
    };
    let limit = given.number("limit", 1, LIMITS.1)?.unwrap_or(LIMITS.0);
    let offset = given.number("offset", 0, u64::MAX)?.unwrap_or(0);
    let wanted = Wanted::read(&given)?;
    let prefix = super::path(&state, given.get("prefix").unwrap_or(""))?;
    caller.need_path(&prefix)?;
    let filter = SearchFilter {
        query: QueryField(given.get("glob").unwrap_or(query).as_bytes().to_vec()),
        pattern: if given.get("glob").is_some() { Pattern::Glob } else { Pattern::Substring },
        names: if given.switch("include_deleted") { Names::AndDeleted } else { Names::Live },
        size: wanted.size(),
        since_ns: wanted.since_ns,
        until_ns: wanted.until_ns,
        sha256: wanted.checksum.map(|checksum| checksum.to_string()),
        kind: Some(Kind::File),
        tags: crate::api::v1::tags(given.get("tags")),
        collection: given.get("collection").map(str::to_owned),
        ..SearchFilter::default()
    };
    let request = Request::Search { path: PathField(prefix), filter };
    let mut found: Vec<SearchRecord> = state.records(&caller, request, MOST).await?;
    if given.get("glob").is_some() {
        found.retain(|record| has_text(record, query));
    }
    found.sort_by(|a, b| {
        let (a, b) = if wanted.ascending { (b, a) } else { (a, b) };
        let times = updated(b).cmp(updated(a));
        if wanted.by_path { b.path.0.cmp(&a.path.0) } else { times.then(a.path.0.cmp(&b.path.0)) }
    });
    let total = found.len();
    let page = found.iter().skip(usize::try_from(offset).unwrap_or(usize::MAX));
    let items: Vec<Value> =
        page.take(usize::try_from(limit).unwrap_or(usize::MAX)).map(item).collect();
    Ok(([("x-total-count", total.to_string())], Json(items)).into_response())
}

/// What is wanted beyond what the catalog looks for.
struct Wanted {
    min_size: Option<u64>,
    max_size: Option<u64>,
    since_ns: Option<i64>,
    until_ns: Option<i64>,
    checksum: Option<ContentHash>,
    by_path: bool,
    ascending: bool,
}

impl Wanted {
    fn read(given: &Given) -> Result<Self, Refusal> {
        let now = crate::clock::now_ns();
        let time = |name: &str| -> Result<Option<i64>, Refusal> {
            let Some(text) = given.get(name) else { return Ok(None) };
            let parsed = parse_time(text, now, &jiff::tz::TimeZone::UTC);
            let wrong =
                |_| Wrong::new("datetime_parsing", name, "Input should be a valid datetime", text);
            Ok(Some(parsed.map_err(wrong)?))
        };
        let checksum = given.get("checksum").map(digest).transpose()?;
        let sort = given.get("sort").unwrap_or("updated_at");
        if !["updated_at", "path"].contains(&sort) {
            let message = "Input should be 'updated_at' or 'path'";
            return Err(Wrong::new("literal_error", "sort", message, sort).into());
        }
        Ok(Self {
            min_size: given.number("min_size", 0, u64::MAX)?,
            max_size: given.number("max_size", 0, u64::MAX)?,
            since_ns: time("since")?,
            until_ns: time("until")?,
            checksum,
            by_path: sort == "path",
            ascending: given.get("order") == Some("asc"),
        })
    }

    fn size(&self) -> Option<std::ops::RangeInclusive<u64>> {
        (self.min_size.is_some() || self.max_size.is_some())
            .then(|| self.min_size.unwrap_or(0)..=self.max_size.unwrap_or(u64::MAX))
    }
}

/// Whether a text is in a path; the case does not count.
fn has_text(record: &SearchRecord, text: &str) -> bool {
    String::from_utf8_lossy(&record.path.0).to_lowercase().contains(&text.to_lowercase())
}

/// A digest, with or without its `sha256:`.
pub(super) fn digest(text: &str) -> Result<ContentHash, Refusal> {
    let bare = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
    let message = "Input should be a SHA-256: 64 hexadecimal digits, with or without `sha256:`";
    Ok(bare.parse().map_err(|_| Wrong::new("value_error", "checksum", message, text))?)
}

/// RFC 3339 in UTC is in the order of the times.
fn updated(record: &SearchRecord) -> &str {
    record.deleted.as_deref().unwrap_or(&record.mtime)
}

fn item(record: &SearchRecord) -> Value {
    let path = String::from_utf8_lossy(&record.path.0);
    let sum = record.sha256.map(checksum);
    json!({
        "path": path,
        "current_checksum": sum,
        "checksum": sum,
        "updated_at": stamp(updated(record)),
        "version_created_at": stamp(&record.mtime),
        "size_bytes": record.size,
        "file_id": record.file_id,
        "is_deleted": record.deleted.is_some(),
    })
}
