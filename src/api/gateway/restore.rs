//! `POST /restore_version`: brings a version back, which the predecessor could not.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::State;
use super::super::caller::Caller;
use super::search::digest;
use super::{Given, Refusal, Wrong, checksum, or_no_file};
use crate::catalog::Content;
use crate::keys::Scope;
use crate::query::records::{Outcome, RestoreRecord, VersionRecord};
use crate::query::request::{BringBack, PathField, Request, Run, ToPathField};

pub(super) async fn restore_version(
    state: State,
    caller: Caller,
    given: Given,
) -> Result<Json<Value>, Refusal> {
    let text = given.required("path")?;
    let path = super::path(&state, text)?;
    caller.need_path(&path)?;
    let number = given.number("version_id", 1, u64::MAX)?;
    let wanted = match (given.get("checksum"), number) {
        (Some(sum), _) => Some(digest(sum)?),
        (None, Some(_)) => None,
        (None, None) => return Err(Wrong::missing("checksum").into()),
    };
    let to = given.get("as_path").map(|to| super::path(&state, to)).transpose()?;
    let dry_run = given.switch("dry_run");
    if !dry_run {
        caller.need(Scope::Restore)?;
    }
    if let Some(to) = &to {
        caller.need_path(to)?;
    }
    let log = || Request::Log { path: PathField(path.clone()) };
    let versions = state.records::<VersionRecord>(&caller, log(), usize::MAX).await;
    let versions = versions.map_err(|problem| or_no_file(problem, text))?;
    let is_meant = |version: &&VersionRecord| match number {
        Some(number) => version.number == number,
        None => version.sha256 == wanted,
    };
    let mut meant = versions.iter().filter(is_meant);
    let found = meant.clone().find(|version| version.content != Content::None).or(meant.next());
    let version = found.ok_or_else(|| {
        Refusal::Known(StatusCode::NOT_FOUND, format!("Version not found in catalog: {text}"))
    })?;
    if version.content == Content::None {
        let reason = version.content_reason.map(|reason| format!(": {reason}"));
        let told =
            format!("The content of this version was not kept{}", reason.unwrap_or_default());
        return Err(Refusal::Known(StatusCode::GONE, told));
    }
    let what = BringBack::Restore {
        path: PathField(path.clone()),
        version: Some(version.number.to_string()),
        at_ns: None,
        to: to.clone().map(ToPathField),
    };
    if !dry_run {
        caller.audit("restore", &path);
    }
    let run = if dry_run { Run::Plan } else { Run::Do };
    let request = Request::BringBack { what, run };
    let steps: Vec<RestoreRecord> = state.records(&caller, request, usize::MAX).await?;
    if let Some(failed) = steps.iter().find(|step| step.outcome == Outcome::Failed) {
        let reason = failed.reason.clone().unwrap_or_else(|| "it could not be done".into());
        return Err(Refusal::Known(StatusCode::CONFLICT, reason));
    }
    let target = to.as_ref().unwrap_or(&path);
    let request = Request::Log { path: PathField(target.clone()) };
    let now = state.records::<VersionRecord>(&caller, request, 1).await.unwrap_or_default();
    let previous = versions.first().and_then(|version| version.sha256).map(checksum);
    Ok(Json(json!({
        "path": String::from_utf8_lossy(target),
        "checksum": version.sha256.map(checksum),
        "size_bytes": version.size,
        "restored_from": version.number,
        "version_id": now.first().map(|version| version.number),
        "previous_checksum": previous,
        "dry_run": dry_run,
    })))
}
