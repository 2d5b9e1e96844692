//! The description of `/api/v1`, made from the code, and a page to read it.

use std::sync::Arc;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::openapi::OpenApi;

use super::Api;

/// It runs its own script only, and asks nobody but the server it came from.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'";

pub(super) fn router(description: OpenApi) -> Router<Arc<Api>> {
    let page = async || {
        let headers =
            [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
        (headers, include_str!("docs/page.html"))
    };
    let script = async || {
        let headers = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];
        (headers, include_str!("docs/page.js"))
    };
    let description = Arc::new(description);
    let json = async move || Json(Arc::unwrap_or_clone(Arc::clone(&description))).into_response();
    Router::new()
        .route("/openapi.json", get(json))
        .route("/docs", get(page))
        .route("/redoc", get(page))
        .route("/docs/page.js", get(script))
}
