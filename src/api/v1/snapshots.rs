//! Snapshots of the backing filesystem: for root and the user who mounted, and keys of theirs that see everything.

use std::collections::BTreeMap;

use axum::Json as Answer;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use super::{Json, Named, Page, Params, Written, bad_cursor, cursor, limit, only_plan, read};
use crate::keys::Scope;
use crate::query::request::{PruneMode, Request};
use crate::query::snapshots::{
    Class, Count, KeepField, SnapshotDiffPlace, SnapshotDiffRecord, SnapshotOrder,
    SnapshotPruneRecord, SnapshotRecord, SnapshotShowRecord,
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Where another answer ended.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Where a snapshot stands in the list.
type Place = (u64, String);

fn place(record: &SnapshotRecord) -> Place {
    (record.createtxg, record.name.clone())
}

/// What a cursor says that was made by [`name_of`].
fn place_after<T: serde::de::DeserializeOwned>(after: Option<&str>) -> Result<Option<T>, Problem> {
    let said = cursor(after)?;
    let read = |_| serde_json::from_slice(&said).map_err(|_| bad_cursor());
    after.map(read).transpose()
}

/// What a cursor says of a place.
fn name_of(place: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(place).unwrap_or_default()
}

/// Snapshots in the order in which they were taken, also those that others took; `/api/v1/status` says why there
/// are none, and when the next are due.
#[utoipa::path(
    get, path = "/api/v1/snapshots", tag = "snapshots", params(ListParams),
    responses((status = 200, body = Page<SnapshotRecord>), Problem),
)]
pub(super) async fn snapshots(
    state: State,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Answer<Page<SnapshotRecord>>, Problem> {
    let (after, limit) = (place_after::<Place>(params.after.as_deref())?, limit(params.limit)?);
    let mut items = Vec::new();
    for written in list::<Written>(&state, &caller).await? {
        let place = place(&read(&written)?);
        if after.as_ref().is_none_or(|after| place > *after) {
            items.push((place, written));
        }
    }
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    let items = items.into_iter().take(limit + 1).map(|(_, written)| written).collect();
    let name = |record: &SnapshotRecord| name_of(&place(record));
    Ok(Answer(Page::new(items, limit, name)?))
}

/// Every snapshot.
async fn list<R: serde::de::DeserializeOwned + Send + 'static>(
    state: &State,
    caller: &Caller,
) -> Result<Vec<R>, Problem> {
    caller.need_everything()?;
    state.records(caller, Request::Snapshots { what: SnapshotOrder::List }, usize::MAX).await
}

/// One snapshot, and what would be lost with it.
#[utoipa::path(
    get, path = "/api/v1/snapshots/{name}", tag = "snapshots",
    params(("name" = String, Path, description = "Which.")),
    responses((status = 200, body = SnapshotShowRecord), Problem),
)]
pub(super) async fn snapshot(
    state: State,
    caller: Caller,
    Named(name): Named,
) -> Result<Answer<SnapshotShowRecord>, Problem> {
    caller.need_everything()?;
    let request = Request::Snapshots { what: SnapshotOrder::Show { name } };
    Ok(Answer(state.record(&caller, request).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffParams {
    /// To which snapshot; to now if left out.
    to: Option<String>,
    /// Where another answer ended.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// What has changed from one snapshot to another, or to now, in the order of the paths. Each page takes a look at
/// everything that has changed between them.
#[utoipa::path(
    get, path = "/api/v1/snapshots/{name}/diff", tag = "snapshots",
    params(("name" = String, Path, description = "From which."), DiffParams),
    responses((status = 200, body = Page<SnapshotDiffRecord>), Problem),
)]
pub(super) async fn diff(
    state: State,
    caller: Caller,
    Named(from): Named,
    Params(params): Params<DiffParams>,
) -> Result<Answer<Page<SnapshotDiffRecord>>, Problem> {
    caller.need_everything()?;
    let after = place_after::<SnapshotDiffPlace>(params.after.as_deref())?;
    let limit = limit(params.limit)?;
    let what = SnapshotOrder::Diff { from, to: params.to, after, limit: Some(limit as u64 + 1) };
    let records = state.records(&caller, Request::Snapshots { what }, limit + 1).await?;
    let name = |record: &SnapshotDiffRecord| name_of(&record.place());
    Ok(Answer(Page::new(records, limit, name)?))
}

/// Refuses those who may not have snapshots changed.
fn check(caller: &Caller) -> Result<(), Problem> {
    caller.need_everything()?;
    caller.need(Scope::Admin)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotBody {
    /// Its class, by which it is named and kept.
    #[serde(default = "hourly")]
    #[schema(default = "hourly")]
    class: Class,
}

fn hourly() -> Class {
    Class::Hourly
}

/// Takes a snapshot, with everything in it that was closed before.
#[utoipa::path(
    post, path = "/api/v1/snapshots", tag = "snapshots", request_body = SnapshotBody,
    responses((status = 200, body = SnapshotRecord), Problem),
)]
pub(super) async fn create(
    state: State,
    caller: Caller,
    Json(body): Json<SnapshotBody>,
) -> Result<Answer<SnapshotRecord>, Problem> {
    check(&caller)?;
    let class = body.class;
    caller.audit("take snapshot", class.as_str().as_bytes());
    let request = Request::Snapshots { what: SnapshotOrder::Create { class } };
    Ok(Answer(state.record(&caller, request).await?))
}

/// Has a snapshot stay until it is released, whoever wants to destroy it.
#[utoipa::path(
    post, path = "/api/v1/snapshots/{name}/hold", tag = "snapshots",
    params(("name" = String, Path, description = "Which.")),
    responses((status = 200, body = SnapshotRecord), Problem),
)]
pub(super) async fn hold(
    state: State,
    caller: Caller,
    Named(name): Named,
) -> Result<Answer<SnapshotRecord>, Problem> {
    check(&caller)?;
    caller.audit("hold snapshot", name.as_bytes());
    let request = Request::Snapshots { what: SnapshotOrder::Hold { name } };
    Ok(Answer(state.record(&caller, request).await?))
}

/// Lets a snapshot go again that was held here; what others hold stays.
#[utoipa::path(
    post, path = "/api/v1/snapshots/{name}/release", tag = "snapshots",
    params(("name" = String, Path, description = "Which.")),
    responses((status = 200, body = SnapshotRecord), Problem),
)]
pub(super) async fn release(
    state: State,
    caller: Caller,
    Named(name): Named,
) -> Result<Answer<SnapshotRecord>, Problem> {
    check(&caller)?;
    caller.audit("release snapshot", name.as_bytes());
    let request = Request::Snapshots { what: SnapshotOrder::Release { name } };
    Ok(Answer(state.record(&caller, request).await?))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotPruneBody {
    /// How many of a class stay, in place of what the configuration says: numbers, or `all`.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "hourly": 24, "monthly": "all" }))]
    keep: BTreeMap<Class, Count>,
    /// Whether only to say what would go.
    #[serde(default = "only_plan")]
    #[schema(default = true)]
    dry_run: bool,
}

/// What becomes of snapshots.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SnapshotFates {
    /// Every one, in the order in which they were taken.
    items: Vec<SnapshotPruneRecord>,
}

/// Decides about each snapshot, and destroys those that need not be kept. One that cannot go does not keep the
/// others: its record says why.
#[utoipa::path(
    post, path = "/api/v1/snapshots/prune", tag = "snapshots", request_body = SnapshotPruneBody,
    responses((status = 200, body = SnapshotFates), Problem),
)]
pub(super) async fn prune(
    state: State,
    caller: Caller,
    Json(body): Json<SnapshotPruneBody>,
) -> Result<Answer<SnapshotFates>, Problem> {
    check(&caller)?;
    let mode = if body.dry_run { PruneMode::DryRun } else { PruneMode::Drop };
    if mode == PruneMode::Drop {
        caller.audit("prune snapshots", b"");
    }
    let keep = body.keep.into_iter().map(|(class, count)| KeepField { class, count }).collect();
    let request = Request::Snapshots { what: SnapshotOrder::Prune { keep, mode } };
    Ok(Answer(SnapshotFates { items: state.records(&caller, request, usize::MAX).await? }))
}
