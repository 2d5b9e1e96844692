//! Bringing things back, and marking versions.
//!
//! Every request only says what it would do unless it has `"dry_run": false`. One that has an `Idempotency-Key` is
//! done once: who did not get the answer asks again with the same key, and gets that answer.

use std::sync::Arc;

use axum::Json as Answer;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::caller::Caller;
use super::super::problem::Problem;
use super::super::{Api, State};
use super::{Json, only_plan, path, time};
use crate::keys::Scope;
use crate::query::records::{Outcome, RestoreRecord, VersionRecord};
use crate::query::request::{self, BringBack, PathField, Request, Run, ToPathField};

/// The longest `Idempotency-Key` in bytes.
const MAX_KEY: usize = 255;

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreBody {
    /// What to bring back.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// The version of a file; or
    version: Option<String>,
    /// the time as of which a file or directory is to be brought back.
    at: Option<String>,
    /// Where to, if not in place.
    to: Option<String>,
    /// Whether only to say what would be done.
    #[serde(default = "only_plan")]
    #[schema(default = true)]
    dry_run: bool,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndeleteBody {
    /// What was deleted.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Whether only to say what would be done.
    #[serde(default = "only_plan")]
    #[schema(default = true)]
    dry_run: bool,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RewindBody {
    /// A file or directory.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// The time that it is taken back to.
    to: String,
    /// Whether only to say what would be done.
    #[serde(default = "only_plan")]
    #[schema(default = true)]
    dry_run: bool,
}

#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndoBody {
    /// At and below this path; everywhere if left out.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// Whose changes: a user by name or number; or
    user: Option<String>,
    /// those of a process.
    pid: Option<u32>,
    /// Since when; ever, if left out.
    since: Option<String>,
    /// Whether only to say what would be done.
    #[serde(default = "only_plan")]
    #[schema(default = true)]
    dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Steps {
    /// Whether nothing was done.
    dry_run: bool,
    /// How many steps failed.
    failed: usize,
    /// One after the other.
    steps: Vec<RestoreRecord>,
}

impl Steps {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    #[cfg(test)]
    pub(super) fn of(count: usize) -> Self {
        let step = RestoreRecord {
            action: crate::query::records::RestoreAction::None,
            path: PathField(b"f".as_slice().into()),
            from_path: None,
            file_id: uuid::Uuid::nil(),
            file_number: None,
            size: None,
            sha256: None,
            outcome: Outcome::Done,
            reason: None,
        };
        Self { dry_run: false, failed: 0, steps: vec![step; count] }
    }
}

/// Brings back a version of a file, or a file or directory as it was.
#[utoipa::path(
    post, path = "/api/v1/restore", tag = "bringing back", request_body = RestoreBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "So that it is done once")),
    responses((status = 200, body = Steps), Problem),
)]
pub(super) async fn restore(
    state: State,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<RestoreBody>,
) -> Result<Answer<Steps>, Problem> {
    let to = body.to.as_deref().map(|to| path(&caller, Some(to), None)).transpose()?;
    if body.version.is_some() && body.at.is_some() {
        return Err(Problem::bad_request("either `version` or `at`, not both"));
    }
    let top = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    let what = BringBack::Restore {
        path: PathField(top.clone()),
        version: body.version.clone(),
        at_ns: time(body.at.as_deref())?,
        to: to.map(ToPathField),
    };
    once(&state, &caller, &headers, ("restore", &top, &body, body.dry_run), what).await
}

/// Brings back what was deleted, a directory with everything that it had.
#[utoipa::path(
    post, path = "/api/v1/undelete", tag = "bringing back", request_body = UndeleteBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "So that it is done once")),
    responses((status = 200, body = Steps), Problem),
)]
pub(super) async fn undelete(
    state: State,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<UndeleteBody>,
) -> Result<Answer<Steps>, Problem> {
    let top = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    let what = BringBack::Undelete { path: PathField(top.clone()) };
    once(&state, &caller, &headers, ("undelete", &top, &body, body.dry_run), what).await
}

/// Takes a file or directory back to what it was, and nothing else.
#[utoipa::path(
    post, path = "/api/v1/rewind", tag = "bringing back", request_body = RewindBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "So that it is done once")),
    responses((status = 200, body = Steps), Problem),
)]
pub(super) async fn rewind(
    state: State,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<RewindBody>,
) -> Result<Answer<Steps>, Problem> {
    let top = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    let at_ns = time(Some(&body.to))?.unwrap_or_default();
    let what = BringBack::Rewind { path: PathField(top.clone()), at_ns };
    once(&state, &caller, &headers, ("rewind", &top, &body, body.dry_run), what).await
}

/// Takes back what a user or process has changed.
#[utoipa::path(
    post, path = "/api/v1/undo", tag = "bringing back", request_body = UndoBody,
    params(("Idempotency-Key" = Option<String>, Header, description = "So that it is done once")),
    responses((status = 200, body = Steps), Problem),
)]
pub(super) async fn undo(
    state: State,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<UndoBody>,
) -> Result<Answer<Steps>, Problem> {
    let top = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    let what = BringBack::Undo {
        path: PathField(top.clone()),
        since_ns: time(body.since.as_deref())?,
        pid: body.pid,
        user: body.user.clone(),
    };
    once(&state, &caller, &headers, ("undo", &top, &body, body.dry_run), what).await
}

/// Brings something back, or gives the answer of the time when that was done.
async fn once(
    state: &Arc<Api>,
    caller: &Caller,
    headers: &HeaderMap,
    (word, top, body, dry_run): (&str, &[u8], &impl Serialize, bool),
    what: BringBack,
) -> Result<Answer<Steps>, Problem> {
    if dry_run {
        return Ok(Answer(bring_back(state, caller, what, Run::Plan).await?));
    }
    caller.need(Scope::Restore)?;
    let Some(key) = headers.get("idempotency-key") else {
        caller.audit(word, top);
        return Ok(Answer(bring_back(state, caller, what, Run::Do).await?));
    };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY);
    let key =
        key.ok_or_else(|| Problem::bad_request("`Idempotency-Key` is at most 255 letters"))?;
    let key = format!("{} {key}", caller.name());
    let request = format!("{word} {}", serde_json::to_string(body).map_err(Problem::internal)?);
    if let Some(steps) = state.replies.begin(&key, &request)? {
        return Ok(Answer(steps));
    }
    caller.audit(word, top);
    let (state, caller) = (Arc::clone(state), caller.clone());
    // Goes on, and its answer is remembered, also when nobody waits for it any more.
    let doing = tokio::spawn(async move {
        let done = bring_back(&state, &caller, what, Run::Do).await;
        state.replies.end(&key, done.as_ref());
        done
    });
    Ok(Answer(doing.await.map_err(Problem::internal)??))
}

async fn bring_back(
    state: &Arc<Api>,
    caller: &Caller,
    what: BringBack,
    run: Run,
) -> Result<Steps, Problem> {
    let request = Request::BringBack { what, run };
    let steps: Vec<RestoreRecord> = state.records(caller, request, usize::MAX).await?;
    let failed = steps.iter().filter(|step| step.outcome == Outcome::Failed).count();
    Ok(Steps { dry_run: run == Run::Plan, failed, steps })
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MarkBody {
    /// The file.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// The version; the head if left out.
    version: Option<String>,
    /// Whether its content is to stay whatever the policy says; or
    pinned: Option<bool>,
    /// what is to be said of it.
    note: Option<String>,
}

/// Pins a version, or says something of it.
#[utoipa::path(
    post, path = "/api/v1/marks", tag = "files", request_body = MarkBody,
    responses((status = 200, body = VersionRecord), Problem),
)]
pub(super) async fn mark(
    state: State,
    caller: Caller,
    Json(body): Json<MarkBody>,
) -> Result<Answer<VersionRecord>, Problem> {
    let path = path(&caller, body.path.as_deref(), body.path_base64.as_deref())?;
    caller.need(Scope::Restore)?;
    let mark = match (body.pinned, body.note) {
        (Some(true), None) => request::Mark::Pin,
        (Some(false), None) => request::Mark::Unpin,
        (None, Some(note)) => request::Mark::Note(note),
        _ => return Err(Problem::bad_request("either `pinned` or `note`")),
    };
    caller.audit("mark", &path);
    let request = Request::Mark { path: PathField(path), version: body.version, mark };
    Ok(Answer(state.record(&caller, request).await?))
}
