//! The log of changes: page by page, and as it grows.
//!
//! Events are server-sent: `id` is the number of the change, so that a client that lost the connection goes on
//! behind what it has seen, and misses nothing. A client that falls far behind is told so and cut off, and the
//! server cuts off one that reads nothing: when it comes back, it goes on in the same way.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::StreamExt;
use serde::Deserialize;
use utoipa::IntoParams;

use super::super::caller::Caller;
use super::super::log_parts::{Part, Wanted};
use super::super::problem::{Code, Problem};
use super::super::{Api, State};
use super::{Params, Written, first, limit, path};
use crate::query::records::ChangeRecord;
use crate::query::request::{Follow, PathField, Request};
use crate::types::Seq;

/// How often an idle stream shows that it lives.
const ALIVE: Duration = Duration::from_secs(15);
/// Changes that go to a client at once.
const BURST: usize = 256;
/// A client that has this many changes to read after it had read all of them is too slow.
const FAR_BEHIND: u64 = 100_000;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ChangesParams {
    /// Only what concerns this path and what is below it.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// What came after the change with this number.
    #[serde(default)]
    since: u64,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A part of the log.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(super) struct Changes {
    /// Changes, in their order.
    #[schema(value_type = Vec<ChangeRecord>)]
    items: Vec<Written>,
    /// What to give as `since` for the next part; null if there is no more yet.
    next: Option<Seq>,
}

/// What has changed, in the order in which it did.
#[utoipa::path(
    get, path = "/api/v1/changes", tag = "changes", params(ChangesParams),
    responses((status = 200, body = Changes), Problem),
)]
pub(super) async fn changes(
    state: State,
    caller: Caller,
    Params(params): Params<ChangesParams>,
) -> Result<Json<Changes>, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let limit = limit(params.limit)?;
    let request = Request::Changes {
        path: PathField(path),
        since: Some(Seq(params.since)),
        follow: Follow::No,
        limit: Some(limit as u64 + 1),
    };
    let (items, last) = first(state.records(&caller, request, limit + 1).await?, limit)?;
    let next = last.map(|change: ChangeRecord| change.seq);
    Ok(Json(Changes { items, next }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsParams {
    /// Only what concerns this path and what is below it.
    path: Option<String>,
    /// Its exact bytes in Base64, instead.
    path_base64: Option<String>,
    /// What came after the change with this number; what is to come if left out. A header `Last-Event-ID` goes over it.
    since: Option<u64>,
}

/// What changes, as it does: server-sent events `change` with the change's number as their id.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "changes", params(EventsParams),
    responses(
        (status = 200, body = ChangeRecord, content_type = "text/event-stream"),
        Problem,
    ),
)]
pub(super) async fn events(
    state: State,
    caller: Caller,
    Params(params): Params<EventsParams>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let path = path(&caller, params.path.as_deref(), params.path_base64.as_deref())?;
    let last = match headers.get("last-event-id") {
        None => None,
        Some(id) => {
            let id = id.to_str().ok().and_then(|id| id.parse().ok());
            Some(
                id.ok_or_else(|| Problem::bad_request("`Last-Event-ID` is no number of a change"))?,
            )
        }
    };
    let since = match last.or(params.since) {
        Some(since) => Seq(since),
        None => state.log_end().await?,
    };
    let events =
        Feed { api: Arc::clone(&state), caller, path: PathField(path), since, caught_up: false };
    let events = futures::stream::unfold(Some(events), |feed| async move {
        let mut feed = feed?;
        let (part, more) = feed.next().await;
        let events =
            (0..part.events.len()).map(move |n| Ok::<_, Infallible>(part.events[n].clone()));
        Some((futures::stream::iter(events), more.then_some(feed)))
    });
    Ok(Sse::new(events.flatten()).keep_alive(KeepAlive::new().interval(ALIVE)))
}

/// The log on its way to one client.
struct Feed {
    api: Arc<Api>,
    caller: Caller,
    path: PathField,
    since: Seq,
    /// Whether the client has had everything once.
    caught_up: bool,
}

impl Feed {
    /// The next events, at least one, and whether more follow.
    async fn next(&mut self) -> (Arc<Part>, bool) {
        match self.wait().await {
            Ok(part) => (part, true),
            Err(problem) => {
                let events = vec![problem_event(&problem)];
                (Arc::new(Part { events, last: None }), false)
            }
        }
    }

    async fn wait(&mut self) -> Result<Arc<Part>, Problem> {
        loop {
            let end = self.api.log_end_after(self.since).await?;
            if self.caught_up && end.0 - self.since.0 > FAR_BEHIND {
                let detail = "too slow: go on with `/api/v1/changes`, or come back here";
                return Err(Problem::new(Code::TooMany, detail));
            }
            let wanted = Wanted {
                actor: self.caller.actor.clone(),
                path: self.path.0.clone(),
                since: self.since,
                end,
            };
            let part = self.api.log_parts.get(wanted, self.read()).await?;
            let whole = part.events.len() < BURST;
            self.caught_up |= whole;
            // What others may see and this one not is behind it, too.
            let last = part.last;
            self.since =
                if whole { end.max(last.unwrap_or_default()) } else { last.unwrap_or(end) };
            if !part.events.is_empty() {
                return Ok(part);
            }
        }
    }

    async fn read(&self) -> Result<Part, Problem> {
        let request = Request::Changes {
            path: self.path.clone(),
            since: Some(self.since),
            follow: Follow::No,
            limit: Some(BURST as u64),
        };
        let changes: Vec<ChangeRecord> = self.api.records(&self.caller, request, BURST).await?;
        let last = changes.last().map(|change| change.seq);
        Ok(Part { events: changes.iter().map(event).collect(), last })
    }
}

fn event(change: &ChangeRecord) -> Event {
    let event = Event::default().event("change").id(change.seq.to_string());
    event.json_data(change).unwrap_or_else(|error| problem_event(&Problem::internal(error)))
}

fn problem_event(problem: &Problem) -> Event {
    Event::default().event("problem").json_data(problem).unwrap_or_default()
}
