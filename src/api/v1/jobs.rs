//! What takes a while: to compare, to read again, to drop history.

use axum::Json as Answer;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::files::lines;
use super::{Json, only_plan, path};
use crate::keys::Scope;
use crate::query::records::PruneRecord;
use crate::query::request::{PathField, PruneCap, PruneMode, Request, Wait};
use crate::query::status::ReconcileProgress;
use crate::query::verify::{VerifyRecord, VerifyRequest};

/// How far the newest comparison of the backing directory with the catalog is.
#[utoipa::path(
    get, path = "/api/v1/reconcile", tag = "mount",
    responses((status = 200, body = ReconcileProgress), Problem),
)]
pub(super) async fn reconcile_progress(state: State, _: Caller) -> Answer<ReconcileProgress> {
    Answer(state.config.service.host.reconcile_progress())
}

/// Begins to compare the backing directory with the catalog, or lets a comparison go on that does.
#[utoipa::path(
    post, path = "/api/v1/reconcile", tag = "mount",
    responses((status = 202, body = ReconcileProgress), Problem),
)]
pub(super) async fn reconcile(
    state: State,
    caller: Caller,
) -> Result<(StatusCode, Answer<ReconcileProgress>), Problem> {
    caller.need(Scope::Admin)?;
    caller.need_everything()?;
    caller.audit("reconcile", b"");
    let progress = state.record(&caller, Request::Reconcile { wait: Wait::No }).await?;
    Ok((StatusCode::ACCEPTED, Answer(progress)))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyBody {
    /// Bytes to read in a second; 0 as fast as it goes.
    #[serde(default)]
    rate: u64,
    /// Whether to begin anew instead of where the last run was broken off.
    #[serde(default)]
    restart: bool,
    /// Whether damage is undone where that is possible.
    #[serde(default)]
    repair: bool,
}

/// Reads everything again and compares it with its digests, for as long as somebody reads the answer: how far it
/// is, what is found, and how it ended, one record a line.
#[utoipa::path(
    post, path = "/api/v1/verify", tag = "mount", request_body = VerifyBody,
    responses(
        (status = 200, body = VerifyRecord, content_type = "application/x-ndjson"),
        Problem,
    ),
)]
pub(super) async fn verify(
    state: State,
    caller: Caller,
    Json(body): Json<VerifyBody>,
) -> Result<impl IntoResponse, Problem> {
    caller.need(Scope::Admin)?;
    caller.need_everything()?;
    caller.audit("verify", b"");
    let VerifyBody { rate, restart, repair } = body;
    let request = Request::Verify(VerifyRequest { rate, restart, repair, progress: true });
    Ok(lines(state.stream(&caller, request).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneBody {
    /// Only of what is at and below this path; everything if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Whether only to say what would go.
    #[serde(default = "only_plan")]
    #[schema(default = true)]
    dry_run: bool,
    /// Whether more may go than the policy's cap lets.
    #[serde(default)]
    no_cap: bool,
}

/// Decides about history as the policy says, and drops what it does not keep: every decision, one record a line, and
/// a last one with the key `total`.
#[utoipa::path(
    post, path = "/api/v1/prune", tag = "mount", request_body = PruneBody,
    responses(
        (status = 200, body = PruneRecord, content_type = "application/x-ndjson"),
        Problem,
    ),
)]
pub(super) async fn prune(
    state: State,
    caller: Caller,
    Json(body): Json<PruneBody>,
) -> Result<impl IntoResponse, Problem> {
    let path = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    caller.need(Scope::Admin)?;
    let mode = if body.dry_run { PruneMode::DryRun } else { PruneMode::Drop };
    let cap = if body.no_cap { PruneCap::Lifted } else { PruneCap::Holds };
    if mode == PruneMode::Drop {
        caller.audit("prune", &path);
    }
    let request = Request::Prune { path: PathField(path), mode, cap };
    Ok(lines(state.stream(&caller, request).await?))
}
