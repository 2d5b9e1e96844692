//! `GET /health`.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::State;
use crate::timespec::rfc3339;

/// Takes no key: it says how the daemon is, and nothing of what is in the mount.
pub(super) async fn health(state: State) -> (StatusCode, Json<Value>) {
    let service = &state.config.service;
    let catalog = service.catalog.status();
    let reconcile = service.host.reconcile_progress();
    let last_commit = state.block(|service| {
        Ok(service.catalog.read_committed(|reader| {
            let seq = reader.seq()?;
            reader.time_of(seq)
        })?)
    });
    let last_commit = last_commit.await.ok().map(|ns| super::stamp(&rfc3339(ns)));
    let well = catalog.degraded.is_none();
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = json!({
        "status": if well { "ok" } else { "degraded" },
        "degraded": catalog.degraded,
        "version": env!("CARGO_PKG_VERSION"),
        "mount": "serving",
        "catalog_queue": catalog.queue,
        "last_commit": last_commit,
        "snapshot_scheduler": null,
        "reconcile": {
            "state": reconcile.state.as_str(),
            "done": reconcile.files,
            "total": reconcile.total_files,
            "eta_s": reconcile.eta_s,
        },
    });
    (status, Json(answer))
}
