//! The body of a request, which is small.
//!
//! Owns how large it may be and how long it may take to come: all of it is here before anybody looks at it, so that
//! nobody holds a place by sending a byte now and then.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::{Code, Problem};

/// The largest body, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the whole body.
pub(super) async fn take_in(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let problem = match tokio::time::timeout(PATIENCE, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(bytes)) => return next.run(Request::from_parts(parts, Body::from(bytes))).await,
        // Where the connection broke, nobody reads this.
        Ok(Err(_)) => {
            let detail = format!("the body of a request has at most {MAX_BODY} bytes");
            Problem::new(Code::TooLarge, detail)
        }
        Err(_) => Problem::new(Code::TooSlow, "the body of the request took too long"),
    };
    problem.into_response()
}
