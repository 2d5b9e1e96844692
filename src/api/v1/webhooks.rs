//! Webhooks: for root, and keys with the scope `admin` that see everything.

use axum::Json as Answer;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::{Code, Problem};
use super::{Json, Params};
use crate::catalog::ChangeOp;
use crate::clock::now_ns;
use crate::keys::Scope;
use crate::types::Seq;
use crate::webhooks::{NewWebhook, WebhookError, WebhookRecord};

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookList {
    /// In the order in which they were made.
    items: Vec<WebhookRecord>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookBody {
    /// What to call it: one word.
    name: String,
    /// Where to: `http://HOST/…` or `https://HOST/…`.
    url: String,
    /// Only what is at and below these paths; everything if there are none.
    #[serde(default)]
    below: Vec<String>,
    /// Only changes of these kinds; all if there are none.
    #[serde(default)]
    ops: Vec<ChangeOp>,
    /// What came after the change with this number; what is to come if left out.
    since: Option<u64>,
}

/// A webhook that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WebhookMade {
    /// What it is called.
    name: String,
    /// What posts are signed with, which is shown this once.
    secret: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NameParams {
    /// What it is called.
    name: String,
}

/// What is posted shows everything, so only those who see everything have to do with it.
fn check(caller: &Caller) -> Result<(), Problem> {
    caller.need(Scope::Admin)?;
    caller.need_everything()?;
    if caller.actor.is_privileged() {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "webhooks are for keys of root, who sees what they post"))
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        let code = match &error {
            WebhookError::Unknown(_) => Code::NotFound,
            WebhookError::Taken(_) | WebhookError::TooMany => Code::Conflict,
            WebhookError::BadName(_) | WebhookError::BadUrl => Code::BadRequest,
            WebhookError::File(_) | WebhookError::Random => return Self::internal(error),
        };
        Self::new(code, error.to_string())
    }
}

/// Where changes are posted, and how far that is.
#[utoipa::path(
    get, path = "/api/v1/webhooks", tag = "changes",
    responses((status = 200, body = WebhookList), Problem),
)]
pub(super) async fn webhooks(state: State, caller: Caller) -> Result<Answer<WebhookList>, Problem> {
    check(&caller)?;
    let (end, api) = (state.log_end().await?, state.clone());
    let all = state.block(move |_| Ok(api.config.webhooks.list())).await??;
    let now_ns = now_ns();
    let record = |(webhook, sent)| WebhookRecord::new(&webhook, &sent, end, now_ns);
    Ok(Answer(WebhookList { items: all.into_iter().map(record).collect() }))
}

/// Has changes posted, signed as the specification of Standard Webhooks says: records of `/api/v1/changes`, in order,
/// each at least once.
#[utoipa::path(
    post, path = "/api/v1/webhooks", tag = "changes", request_body = WebhookBody,
    responses((status = 200, body = WebhookMade), Problem),
)]
pub(super) async fn add(
    state: State,
    caller: Caller,
    Json(body): Json<WebhookBody>,
) -> Result<Answer<WebhookMade>, Problem> {
    check(&caller)?;
    let since = match body.since {
        Some(since) => Seq(since),
        None => state.log_end().await?,
    };
    caller.audit("add webhook", body.name.as_bytes());
    let WebhookBody { name, url, below, ops, .. } = body;
    let new = NewWebhook { name: name.clone(), url, below, ops, since };
    let api = state.clone();
    let secret = state.block(move |_| Ok(api.config.webhooks.add(new, now_ns()))).await??;
    Ok(Answer(WebhookMade { name, secret }))
}

/// Has nothing posted by a webhook any more.
#[utoipa::path(
    delete, path = "/api/v1/webhooks", tag = "changes", params(NameParams),
    responses((status = 204), Problem),
)]
pub(super) async fn remove(
    state: State,
    caller: Caller,
    Params(params): Params<NameParams>,
) -> Result<axum::http::StatusCode, Problem> {
    check(&caller)?;
    caller.audit("remove webhook", params.name.as_bytes());
    let api = state.clone();
    state.block(move |_| Ok(api.config.webhooks.remove(&params.name))).await??;
    Ok(axum::http::StatusCode::NO_CONTENT)
}
