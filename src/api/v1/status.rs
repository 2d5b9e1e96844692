//! How the mount is.

use axum::Json;

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use crate::keys::Scope;
use crate::query::records::SyncRecord;
use crate::query::request::Request;
use crate::query::status::StatusRecord;

/// How the mount is: how it serves, how far the catalog is, and what is wrong.
#[utoipa::path(
    get, path = "/api/v1/status", tag = "mount",
    responses((status = 200, body = StatusRecord), Problem),
)]
pub(super) async fn status(state: State, caller: Caller) -> Result<Json<StatusRecord>, Problem> {
    Ok(Json(state.record(&caller, Request::Status).await?))
}

/// Waits until everything that was closed before is committed and on the disk.
#[utoipa::path(
    post, path = "/api/v1/sync", tag = "mount",
    responses((status = 200, body = SyncRecord), Problem),
)]
pub(super) async fn sync(state: State, caller: Caller) -> Result<Json<SyncRecord>, Problem> {
    caller.need(Scope::Restore)?;
    Ok(Json(state.record(&caller, Request::Sync).await?))
}
