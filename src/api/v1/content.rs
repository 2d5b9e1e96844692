//! The bytes of versions.
//!
//! A whole content is compared with its digest on its way, and its last part is held back until that is known to be
//! right: who gets all bytes that were promised got the right ones. What a browser would run is shown to it
//! in a sandbox.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use similar::TextDiff;
use utoipa::{IntoParams, ToSchema};

use super::super::caller::Caller;
use super::super::problem::{Code, Problem};
use super::super::{Api, State};
use super::{Params, path, time};
use crate::content::Content;
use crate::query::records::ContentRecord;
use crate::types::ContentHash;

/// Bytes that are read at once.
const PART: usize = 256 * 1024;
/// The largest contents that are compared, in bytes.
const MOST_TO_COMPARE: u64 = 4 << 20;
/// The most lines of contents that are compared: each takes more memory than its bytes.
const MOST_LINES: usize = 200_000;
/// What a preview may not do.
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ContentParams {
    /// The file.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// The version; the head if left out. Or
    version: Option<String>,
    /// the time as of which its content is wanted.
    at: Option<String>,
}

/// A content that was found.
struct Found {
    record: ContentRecord,
    content: Arc<Content>,
}

/// The bytes of a version, whole or in part; its digest is the `ETag`.
#[utoipa::path(
    get, path = "/api/v1/content", tag = "files", params(ContentParams),
    responses(
        (status = 200, body = Vec<u8>, content_type = "*/*"),
        (status = 206, body = Vec<u8>, content_type = "*/*"),
        (status = 304),
        Problem,
    ),
)]
pub(super) async fn content(
    state: State,
    caller: Caller,
    method: Method,
    headers: HeaderMap,
    Params(params): Params<ContentParams>,
) -> Result<Response, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let media_type = media_type(&path);
    let at_ns = time(params.at.as_deref())?;
    let found = find(&state, &caller, path, params.version, at_ns).await?;
    let mut response = answer(found, &headers, &method)?;
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(response);
    }
    let fixed = [
        (CONTENT_TYPE, media_type),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX)),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

async fn find(
    state: &Arc<Api>,
    caller: &Caller,
    path: Vec<u8>,
    version: Option<String>,
    at_ns: Option<i64>,
) -> Result<Found, Problem> {
    if version.is_some() && at_ns.is_some() {
        return Err(Problem::bad_request("either `version` or `at`, not both"));
    }
    let actor = caller.actor.clone();
    let open = move |service: &crate::query::Service| {
        service.open(&actor, &path, version.as_deref(), at_ns)
    };
    let (record, content) = state.block(open).await?;
    Ok(Found { record, content: Arc::new(content) })
}

fn answer(found: Found, headers: &HeaderMap, method: &Method) -> Result<Response, Problem> {
    let size = found.record.size;
    let tag = found.record.sha256.map(|hash| format!("\"{hash}\""));
    let names_it = |name: HeaderName| {
        let value = headers.get(name)?.to_str().ok()?;
        let tag = tag.as_deref()?;
        Some(
            value
                .split(',')
                .map(str::trim)
                .any(|one| one == "*" || one.trim_start_matches("W/") == tag),
        )
    };
    let mut response = if names_it(IF_NONE_MATCH) == Some(true) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let wanted = headers.get(RANGE).filter(|_| names_it(IF_RANGE) != Some(false));
        match wanted.and_then(|range| range.to_str().ok()).map_or(Part::Whole, |r| part(r, size)) {
            Part::Whole => {
                let hash = found.record.sha256;
                let body = body(found.content, 0..size, hash, method);
                (StatusCode::OK, [(CONTENT_LENGTH, size)], body).into_response()
            }
            Part::Of(range) => {
                let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
                let length = range.end - range.start;
                let headers = [(CONTENT_LENGTH, length.to_string()), (CONTENT_RANGE, told)];
                let body = body(found.content, range, None, method);
                (StatusCode::PARTIAL_CONTENT, headers, body).into_response()
            }
            Part::None => {
                let detail = format!("there are {size} bytes");
                let mut refused = Problem::new(Code::RangeNotSatisfiable, detail).into_response();
                let told = HeaderValue::try_from(format!("bytes */{size}"));
                refused.headers_mut().extend(told.ok().map(|told| (CONTENT_RANGE, told)));
                return Ok(refused);
            }
        }
    };
    let tag = tag.and_then(|tag| HeaderValue::try_from(tag).ok());
    response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
    Ok(response)
}

/// Which bytes are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Of(Range<u64>),
    None,
}

/// Reads a `Range`; what is not understood, or is more than one, means the whole.
fn part(range: &str, size: u64) -> Part {
    let Some(spec) = range.strip_prefix("bytes=") else { return Part::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Part::Whole };
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    match (first, last) {
        ("", last) => match number(last) {
            Some(0) => Part::None,
            Some(count) if size > 0 => Part::Of(size.saturating_sub(count)..size),
            Some::<u64>(_) => Part::None,
            None => Part::Whole,
        },
        (first, last) => match (number(first), last) {
            (Some::<u64>(first), _) if first >= size => Part::None,
            (Some(first), "") => Part::Of(first..size),
            (Some(first), last) => match number(last) {
                Some::<u64>(last) if last >= first => {
                    Part::Of(first..size.min(last.saturating_add(1)))
                }
                _ => Part::Whole,
            },
            (None, _) => Part::Whole,
        },
    }
}

/// What is read, part by part.
struct Reading {
    content: Arc<Content>,
    left: Range<u64>,
    /// What it is to be, and what it was so far.
    digest: Option<(ContentHash, Sha256)>,
}

impl Reading {
    /// The next part, and whether it is the last one.
    fn next(&mut self) -> io::Result<Bytes> {
        let room = usize::try_from(self.left.end - self.left.start).unwrap_or(PART).min(PART);
        let mut part = vec![0; room];
        let mut filled = 0;
        while filled < room {
            match self.content.read_at(&mut part[filled..], self.left.start + filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        self.left.start += room as u64;
        if let Some((wanted, mut hasher)) = self.digest.take() {
            hasher.update(&part);
            if self.left.is_empty() {
                let found: ContentHash = hasher.into();
                if found != wanted {
                    tracing::error!(%wanted, %found, "a content is not what it should be");
                    return Err(io::ErrorKind::InvalidData.into());
                }
            } else {
                self.digest = Some((wanted, hasher));
            }
        }
        Ok(part.into())
    }
}

/// The bytes of a range, as they are read.
fn body(
    content: Arc<Content>,
    range: Range<u64>,
    hash: Option<ContentHash>,
    method: &Method,
) -> Body {
    if method == Method::HEAD || range.is_empty() {
        return Body::empty();
    }
    let reading = Reading { content, left: range, digest: hash.map(|hash| (hash, Sha256::new())) };
    Body::from_stream(futures::stream::try_unfold(reading, |mut reading| async move {
        if reading.left.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        let read = tokio::task::spawn_blocking(move || reading.next().map(|part| (part, reading)));
        Ok(Some(read.await.map_err(io::Error::other)??))
    }))
}

/// What a name says that a content is.
fn media_type(path: &[u8]) -> HeaderValue {
    let name = String::from_utf8_lossy(path);
    let guess = mime_guess::from_path(&*name).first_or_octet_stream();
    let text = match guess.type_() {
        mime_guess::mime::TEXT => format!("{}; charset=utf-8", guess.essence_str()),
        _ => guess.essence_str().to_owned(),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffParams {
    /// The file.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// The older version; the one before the newer if left out.
    a: Option<String>,
    /// The newer version; the head if left out.
    b: Option<String>,
}

/// What changed between two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Difference {
    /// The older version.
    a: Side,
    /// The newer version.
    b: Side,
    /// Whether the contents are the same; null where that is not known.
    same: Option<bool>,
    /// The lines that changed, as `diff -u` writes them; null if one is no text, or they are too large.
    unified: Option<String>,
}

/// One of two versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Side {
    /// As it was named.
    version: String,
    /// Size in bytes.
    size: u64,
    /// Digest, if it is known.
    sha256: Option<ContentHash>,
}

/// What changed between two versions of a path.
#[utoipa::path(
    get, path = "/api/v1/diff", tag = "files", params(DiffParams),
    responses((status = 200, body = Difference), Problem),
)]
pub(super) async fn diff(
    state: State,
    caller: Caller,
    Params(params): Params<DiffParams>,
) -> Result<Json<Difference>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let newer = params.b.unwrap_or_else(|| "head".into());
    let older = params.a.unwrap_or_else(|| format!("{newer}~"));
    let a = find(&state, &caller, path.clone(), Some(older.clone()), None).await?;
    let b = find(&state, &caller, path.clone(), Some(newer.clone()), None).await?;
    let side = |version, found: &Found| Side {
        version,
        size: found.record.size,
        sha256: found.record.sha256,
    };
    let (left, right) = (side(older, &a), side(newer, &b));
    let name = String::from_utf8_lossy(&path).into_owned();
    let labels = (format!("{name}@{}", left.version), format!("{name}@{}", right.version));
    let same = a.record.sha256.zip(b.record.sha256).map(|(a, b)| a == b);
    let compared = state.block(move |_| Ok(compare(&a, &b, &labels)));
    let unified = compared.await?.map_err(Problem::internal)?;
    Ok(Json(Difference { a: left, b: right, same, unified }))
}

fn compare(a: &Found, b: &Found, labels: &(String, String)) -> io::Result<Option<String>> {
    let (Some(old), Some(new)) = (text(a)?, text(b)?) else { return Ok(None) };
    let diff =
        TextDiff::configure().timeout(std::time::Duration::from_secs(2)).diff_lines(&*old, &*new);
    let mut unified = diff.unified_diff();
    Ok(Some(unified.context_radius(3).header(&labels.0, &labels.1).to_string()))
}

/// The content as text; nothing if it is none, or too much.
fn text(found: &Found) -> io::Result<Option<String>> {
    if found.record.size > MOST_TO_COMPARE {
        return Ok(None);
    }
    let digest = found.record.sha256.map(|hash| (hash, Sha256::new()));
    let content = Arc::clone(&found.content);
    let mut reading = Reading { content, left: 0..found.record.size, digest };
    let mut bytes = Vec::new();
    while !reading.left.is_empty() {
        bytes.extend_from_slice(&reading.next()?);
    }
    let is_binary = bytes.iter().take(8192).any(|byte| *byte == 0);
    let is_long = memchr::memchr_iter(b'\n', &bytes).nth(MOST_LINES).is_some();
    Ok(String::from_utf8(bytes).ok().filter(|_| !is_binary && !is_long))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("bytes=0-3", Part::Of(0..4))]
    #[case("bytes=4-", Part::Of(4..10))]
    #[case("bytes=-3", Part::Of(7..10))]
    #[case("bytes=-30", Part::Of(0..10))]
    #[case("bytes=8-100", Part::Of(8..10))]
    #[case("bytes=10-", Part::None)]
    #[case("bytes=-0", Part::None)]
    #[case("bytes=3-2", Part::Whole)]
    #[case("bytes=0-1,3-4", Part::Whole)]
    #[case("bytes=+1-2", Part::Whole)]
    #[case("lines=1-2", Part::Whole)]
    #[case("bytes=a-b", Part::Whole)]
    fn ranges_are_read(#[case] text: &str, #[case] expected: Part) {
        assert_eq!(part(text, 10), expected);
    }

    #[test]
    fn of_nothing_there_is_no_part() {
        assert_eq!(part("bytes=0-", 0), Part::None);
        assert_eq!(part("bytes=-1", 0), Part::None);
    }

    #[test]
    fn names_say_what_contents_are() {
        assert_eq!(media_type(b"a/b.txt"), "text/plain; charset=utf-8");
        assert_eq!(media_type(b"photo.JPG"), "image/jpeg");
        assert_eq!(media_type(b"\xff"), "application/octet-stream");
    }
}
