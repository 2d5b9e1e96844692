//! The predecessor's tools over WebSocket, for its clients: at `/ws`, and at `/` for who asks for an upgrade.
//!
//! Owns the connections and the two forms of a message, which are told apart message by message:
//! `{"tool", "params"}`, and JSON-RPC 2.0. Who asks is looked at anew with every message, so that a key ends when it
//! is revoked. One message is answered after the other; who does not read the answer, or does not show for a
//! minute that he is there, is cut off. Pages of other origins do not get here, as they get nowhere else.

mod calls;
mod described;
mod params;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts, Request};
use axum::http::header::UPGRADE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, timeout};

use super::body::MAX_BODY;
use super::caller::Caller;
use super::peer::{Peer, Source};
use super::problem::{Code, Problem};
use super::{Api, State, page};
use calls::Call;

/// How often a client is asked whether it is there.
const PING: Duration = Duration::from_secs(20);
/// How long nothing may be heard of a client.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may take to read what was sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once, and of one source.
const CONNECTIONS: (usize, usize) = (256, 64);
/// What the predecessor said of itself, by which clients know the tools.
const VERSION: &str = "2.1.0";
const PROTOCOL: &str = "2024-11-05";

pub(super) fn router() -> Router<Arc<Api>> {
    Router::new().route("/ws", get(open)).route("/", get(open_or_page))
}

/// Connections by where they come from.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<HashMap<Source, usize>>);

/// A connection that counts until it is dropped.
struct Counted {
    api: Arc<Api>,
    source: Source,
}

impl Counted {
    fn new(api: &Arc<Api>, source: Source) -> Result<Self, Problem> {
        let mut all = api.connections.0.lock();
        let total: usize = all.values().sum();
        let of_one = all.get(&source).copied().unwrap_or(0);
        if total >= CONNECTIONS.0 || of_one >= CONNECTIONS.1 {
            let busy = Problem::new(Code::Unavailable, "too many connections: close some");
            return Err(busy.retry_after(PATIENCE));
        }
        all.insert(source, of_one + 1);
        Ok(Self { api: Arc::clone(api), source })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.api.connections.0.lock();
        if let Some(count) = all.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.source);
            }
        }
    }
}

async fn open_or_page(state: State, request: Request) -> Response {
    if request.headers().contains_key(UPGRADE) {
        return open(state, request).await;
    }
    page::index().into_response()
}

async fn open(state: State, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    match upgrade(&state, &mut parts).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn upgrade(api: &Arc<Api>, parts: &mut Parts) -> Result<Response, Problem> {
    Caller::from_request_parts(parts, api).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(parts, api).await;
    let upgrade = upgrade.map_err(|error| Problem::bad_request(error.body_text()))?;
    let peer = parts.extensions.get::<Arc<Peer>>();
    let source = peer.ok_or_else(|| Problem::internal("a request from nowhere"))?.source();
    let counted = Counted::new(api, source)?;
    let asker = parts.clone();
    let upgrade = upgrade.max_message_size(MAX_BODY).max_frame_size(MAX_BODY);
    Ok(upgrade.on_upgrade(move |socket| async move {
        serve(socket, &counted.api, asker).await;
    }))
}

/// Answers one message after the other until either end has enough.
async fn serve(mut socket: WebSocket, api: &Arc<Api>, mut asker: Parts) {
    let mut ping = interval_at(Instant::now() + PING, PING);
    let mut heard = Instant::now();
    loop {
        let answer = tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => answer(api, &mut asker, text.as_bytes()).await,
                Some(Ok(Message::Binary(bytes))) => answer(api, &mut asker, &bytes).await,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                Some(Ok(Message::Close(_))) | None => return,
                Some(Err(error)) => return close(socket, &error).await,
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE || !send(&mut socket, Message::Ping(Default::default())).await {
                    return;
                }
                continue;
            }
        };
        heard = Instant::now();
        if let Some(answer) = answer
            && !send(&mut socket, Message::Text(answer.to_string().into())).await
        {
            return;
        }
    }
}

/// Whether a client took a message.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(PATIENCE, socket.send(message)).await, Ok(Ok(())))
}

/// Says why nothing more is read, if anybody still listens.
async fn close(mut socket: WebSocket, error: &axum::Error) {
    tracing::debug!(%error, "a connection of the tools broke");
    let reason = format!("a message is at most {MAX_BODY} bytes of WebSocket frames");
    let frame = CloseFrame { code: close_code::SIZE, reason: reason.into() };
    send(&mut socket, Message::Close(Some(frame))).await;
}

/// Answers a message in its form.
async fn answer(api: &Arc<Api>, asker: &mut Parts, message: &[u8]) -> Option<Value> {
    let message = match serde_json::from_slice(message) {
        Ok(message) => message,
        Err(error) => return Some(rpc_error(&Value::Null, -32700, &error.to_string(), None)),
    };
    let Value::Object(mut message) = message else {
        return Some(rpc_error(&Value::Null, -32600, "a message is an object", None));
    };
    if let Some(tool) = message.remove("tool") {
        let params = message.remove("params").unwrap_or_default();
        return Some(match call(api, asker, tool.as_str().unwrap_or(""), params).await {
            Ok(data) => json!({ "status": "success", "data": data }),
            Err(Failure { code, message }) => {
                json!({ "status": "error", "error": { "code": code.as_str(), "message": message } })
            }
        });
    }
    let id = message.get("id").cloned();
    let answer = rpc(api, asker, &message).await;
    // What has no identity wants no answer.
    let id = id?;
    Some(match answer {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(RpcError { code, message, data }) => rpc_error(&id, code, &message, data),
    })
}

struct RpcError {
    code: i32,
    message: String,
    data: Option<&'static str>,
}

fn rpc_error(id: &Value, code: i32, message: &str, data: Option<&str>) -> Value {
    let mut error = json!({ "code": code, "message": message });
    if let Some(data) = data {
        error["data"] = json!({ "code": data });
    }
    json!({ "jsonrpc": "2.0", "id": id, "error": error })
}

async fn rpc(
    api: &Arc<Api>,
    asker: &mut Parts,
    message: &serde_json::Map<String, Value>,
) -> Result<Value, RpcError> {
    let wrong = |code, message: &str| Err(RpcError { code, message: message.into(), data: None });
    if message.get("jsonrpc") != Some(&json!("2.0")) {
        return wrong(-32600, "a message has `tool`, or `jsonrpc`: \"2.0\"");
    }
    let Some(method) = message.get("method").and_then(Value::as_str) else {
        return wrong(-32600, "a message has a `method`");
    };
    match method {
        "initialize" => Ok(json!({
            "protocolVersion": PROTOCOL,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "horace", "version": VERSION },
        })),
        "ping" => Ok(json!({})),
        "tools/list" => Ok(json!({ "tools": described::tools() })),
        "tools/call" => {
            let params = message.get("params").unwrap_or(&Value::Null);
            let Some(name) = params["name"].as_str() else {
                return wrong(
                    -32602,
                    "`tools/call` takes the `name` of a tool, and its `arguments`",
                );
            };
            match call(api, asker, name, params["arguments"].clone()).await {
                Ok(mut data) => {
                    let text = data.to_string();
                    data["content"] = json!([{ "type": "text", "text": text }]);
                    Ok(data)
                }
                Err(failure) => Err(failure.into()),
            }
        }
        _ if method.starts_with("notifications/") => Ok(Value::Null),
        _ => wrong(-32601, &format!("there is no method `{method}`")),
    }
}

async fn call(
    api: &Arc<Api>,
    asker: &mut Parts,
    tool: &str,
    params: Value,
) -> Result<Value, Failure> {
    let tool = tool.strip_prefix("horace_").unwrap_or(tool);
    let caller = Caller::from_request_parts(asker, api).await?;
    Call { api, caller: &caller }.run(tool, params).await
}

/// Why a tool did not do what was asked.
#[derive(Debug)]
struct Failure {
    code: ToolCode,
    message: String,
}

/// What kind of trouble it is, in the words of the predecessor. It knew no rights and looked at no parameters:
/// `INVALID_PARAMS` and `PERMISSION_DENIED` are new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ToolCode {
    InvalidPath,
    FileNotFound,
    VersionNotFound,
    CollectionNotFound,
    FileLock,
    ToolNotFound,
    InvalidParams,
    PermissionDenied,
    Internal,
}

impl ToolCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidPath => "INVALID_PATH",
            Self::FileNotFound => "FILE_NOT_FOUND",
            Self::VersionNotFound => "VERSION_NOT_FOUND",
            Self::CollectionNotFound => "COLLECTION_NOT_FOUND",
            Self::FileLock => "FILE_LOCK_ERROR",
            Self::ToolNotFound => "TOOL_NOT_FOUND",
            Self::InvalidParams => "INVALID_PARAMS",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::Internal => "INTERNAL_SERVER_ERROR",
        }
    }
}

impl Failure {
    fn new(code: ToolCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match problem.code() {
            Code::BadRequest | Code::Unprocessable | Code::TooLarge => ToolCode::InvalidParams,
            Code::Unauthorized | Code::Forbidden => ToolCode::PermissionDenied,
            Code::NotFound => ToolCode::FileNotFound,
            Code::Gone => ToolCode::VersionNotFound,
            Code::Conflict => ToolCode::FileLock,
            _ => ToolCode::Internal,
        };
        Self::new(code, problem.detail())
    }
}

impl From<Failure> for RpcError {
    fn from(failure: Failure) -> Self {
        let code = match failure.code {
            ToolCode::ToolNotFound => -32601,
            ToolCode::InvalidParams => -32602,
            ToolCode::Internal => -32603,
            _ => -32000,
        };
        Self { code, message: failure.message, data: Some(failure.code.as_str()) }
    }
}
