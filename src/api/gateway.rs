//! The endpoints of the predecessor, for its clients.
//!
//! Owns their forms: answers, errors, times and digests as its HTTP interface had them. `/search` is a list,
//! `checksum` is `sha256:` and 64 digits, a missing parameter is 422, and every error is `{"detail": ...}`.

mod collections;
mod health;
mod info;
mod restore;
mod search;

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Api;
use super::problem::{Code, Problem};
use crate::types::ContentHash;

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new()
        .route("/health", get(health::health))
        .route("/search", get(search::search))
        .route("/info", get(info::info))
        .route("/restore_version", post(restore::restore_version))
        .route("/collections", get(collections::collections))
        .layer(middleware::from_fn(in_its_form))
}

/// Every problem in the predecessor's form.
async fn in_its_form(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>() else { return response };
    let status = response.status();
    let mut told = detail(status, problem.detail());
    let keep = ["retry-after", "www-authenticate"];
    for name in keep {
        if let Some(value) = response.headers().get(name) {
            told.headers_mut().insert(name, value.clone());
        }
    }
    told
}

fn detail(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "detail": text }))).into_response()
}

/// There is nothing at a path.
pub(super) fn not_found() -> Response {
    detail(StatusCode::NOT_FOUND, "Not Found")
}

/// What is at a path does not take a method.
pub(super) fn method_not_allowed() -> Response {
    detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// The parameters of a request, by name; the last of a name counts.
pub(super) struct Given(Vec<(String, String)>);

impl FromRequestParts<Arc<Api>> for Given {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let given = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        given.map(|Query(given)| Self(given)).map_err(|e| Problem::bad_request(e.body_text()))
    }
}

impl Given {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that must be there.
    fn required(&self, name: &str) -> Result<&str, Wrong> {
        self.get(name).ok_or_else(|| Wrong::missing(name))
    }

    /// A number within bounds.
    fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Wrong> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            Ok(_) => {
                let message = format!("Input should be from {least} to {most}");
                Err(Wrong::new("value_error", name, message, text))
            }
            Err(_) => {
                let message =
                    "Input should be a valid integer, unable to parse string as an integer";
                Err(Wrong::new("int_parsing", name, message, text))
            }
        }
    }

    fn switch(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true" | "True" | "yes" | "on"))
    }
}

/// What is wrong with parameters, as `FastAPI` tells it.
struct Wrong(Value);

impl Wrong {
    fn new(kind: &str, name: &str, message: impl Into<String>, input: &str) -> Self {
        let message = message.into();
        Self(json!({ "type": kind, "loc": ["query", name], "msg": message, "input": input }))
    }

    fn missing(name: &str) -> Self {
        let (kind, message) = ("missing", "Field required");
        Self(json!({ "type": kind, "loc": ["query", name], "msg": message, "input": null }))
    }
}

/// Why there is no answer.
enum Refusal {
    Wrong(Wrong),
    Problem(Problem),
    /// In words that clients know.
    Known(StatusCode, String),
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Wrong(Wrong(wrong)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "detail": [wrong] })))
                    .into_response()
            }
            Self::Problem(problem) => problem.into_response(),
            Self::Known(status, text) => detail(status, &text),
        }
    }
}

/// What a client of the predecessor calls a file that is not there.
fn no_file(path: &str) -> Refusal {
    Refusal::Known(StatusCode::NOT_FOUND, format!("File not found in catalog: {path}"))
}

/// A missing path in the words that clients know.
fn or_no_file(problem: Problem, path: &str) -> Refusal {
    match problem.code() {
        Code::NotFound => no_file(path),
        _ => problem.into(),
    }
}

/// The path from the root that is meant: relative, or absolute below the mount or the backing directory.
pub(super) fn path(api: &Api, text: &str) -> Result<Vec<u8>, Problem> {
    let below = api.config.roots.iter().find_map(|root| {
        let rest = text.strip_prefix(root.to_str()?)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    });
    super::v1::clean(below.unwrap_or(text).as_bytes())
}

/// A time as clients can read it: Python up to 3.10 takes six digits of a second, or none.
pub(super) fn stamp(time: &str) -> String {
    let Some((whole, rest)) = time.split_once('.') else { return time.to_owned() };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (fraction, zone) = rest.split_at(digits);
    format!("{whole}.{fraction:0<6.6}{zone}")
}

/// A digest as clients know it.
pub(super) fn checksum(hash: ContentHash) -> String {
    format!("sha256:{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_or_none() {
        for (time, expected) in [
            ("1970-01-01T00:00:00+00:00", "1970-01-01T00:00:00+00:00"),
            ("1970-01-01T00:00:00.5+00:00", "1970-01-01T00:00:00.500000+00:00"),
            ("1970-01-01T00:00:00.123456789+00:00", "1970-01-01T00:00:00.123456+00:00"),
        ] {
            assert_eq!(stamp(time), expected);
        }
    }
}
