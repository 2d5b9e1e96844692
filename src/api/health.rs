//! Whether the mount is well, for those who restart or balance what is not.
//!
//! `/healthz` says that the daemon answers; `/readyz` that it does its work: the catalog takes what comes, and
//! knows what was there before. Both take no key, and say nothing else.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::{Api, State};
use crate::query::status::ReconcileState;

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz))
}

async fn readyz(state: State) -> (StatusCode, String) {
    let service = &state.config.service;
    if service.catalog.status().degraded.is_some() {
        return (StatusCode::SERVICE_UNAVAILABLE, "degraded: `horace status` says why\n".into());
    }
    match service.host.reconcile_progress().state {
        ReconcileState::Import => {
            (StatusCode::SERVICE_UNAVAILABLE, "the directory is being catalogued\n".into())
        }
        _ => (StatusCode::OK, "ok\n".into()),
    }
}
