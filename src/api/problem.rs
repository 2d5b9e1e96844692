//! What is wrong with a request, in the form of RFC 9457.
//!
//! Owns the one table from errors to status codes. What went wrong inside is logged, and not told. The
//! predecessor's endpoints have a form of their own, which [`gateway`] makes of this.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Answer, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::gateway;
use crate::query::QueryError;
use crate::query::request::FailureCode;

const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: `code` says more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What kind of trouble it is, for programs.
    #[schema(value_type = String)]
    code: Code,
    /// What happened, for people.
    detail: String,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Code {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    Gone,
    TooLarge,
    TooSlow,
    Unprocessable,
    TooMany,
    Misdirected,
    RangeNotSatisfiable,
    Unavailable,
    Internal,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Gone => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Problem {
    pub(super) fn new(code: Code, detail: impl Into<String>) -> Self {
        let status = code.status();
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            retry_after: None,
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, detail)
    }

    /// Something is wrong here: the cause goes to the log alone.
    pub(super) fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "cannot answer a request");
        Self::new(Code::Internal, "this is a fault of the server, and its log says more")
    }

    /// The same, for who may try again after a while.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let seconds = self.retry_after.map(|wait| HeaderValue::from(wait.as_secs().max(1)));
        let bearer = HeaderValue::from_static("Bearer realm=\"horace\"");
        let wants_key = (self.code == Code::Unauthorized).then_some(bearer);
        let retry = seconds.map(|seconds| (RETRY_AFTER, seconds));
        retry.into_iter().chain(wants_key.map(|scheme| (WWW_AUTHENTICATE, scheme)))
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let failure = error.to_failure();
        let code = match failure.code {
            FailureCode::BadRequest | FailureCode::WrongKind => Code::BadRequest,
            FailureCode::NotFound => Code::NotFound,
            FailureCode::NotKept => Code::Gone,
            FailureCode::Denied => Code::Forbidden,
            FailureCode::Capped | FailureCode::Impossible => Code::Conflict,
            FailureCode::Busy | FailureCode::NotRunning => Code::Unavailable,
            FailureCode::Internal => return Self::internal(failure.message),
        };
        Self::new(code, failure.message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let headers: Vec<_> = self.headers().collect();
        let status = self.code.status();
        let mut response = (status, Json(&self)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response.headers_mut().extend(headers);
        // For who says it in another form.
        response.extensions_mut().insert(self);
        response
    }
}

/// What the description of every endpoint says of its troubles.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<Answer>> {
        let problem = Ref::from_schema_name(Self::name());
        let content = ContentBuilder::new().schema(Some(problem)).build();
        let answer = ResponseBuilder::new().description("").content(MEDIA_TYPE, content).build();
        BTreeMap::from([("4XX".to_owned(), answer.into())])
    }
}

/// There is nothing at a path.
pub(super) async fn no_such_place(uri: Uri) -> Response {
    if uri.path().starts_with("/api/") {
        return Problem::new(Code::NotFound, "there is nothing at this path").into_response();
    }
    gateway::not_found()
}

/// What is at a path does not take a method.
pub(super) async fn no_such_method(uri: Uri, method: Method) -> Response {
    if uri.path().starts_with("/api/") {
        let detail = format!("this path does not take {method}");
        return Problem::new(Code::MethodNotAllowed, detail).into_response();
    }
    gateway::method_not_allowed()
}

/// A handler panicked.
pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    Problem::internal(text).into_response()
}

/// Headers that every answer has.
pub(super) async fn tidy(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // What somebody may see today, nobody else need find in a cache tomorrow.
    let cache = HeaderName::from_static("cache-control");
    headers.entry(cache).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}
