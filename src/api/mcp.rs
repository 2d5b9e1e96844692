//! MCP, by which assistants ask: at `/mcp`, over Streamable HTTP.
//!
//! Owns which of the API's questions are tools, and their bounds. A tool is an endpoint of `/api/v1`: what it takes
//! and gives comes from that description, and a call is a request to it by whoever calls, so that nobody gets
//! more by this way than by that. What changes something says only what it would do unless it is told
//! otherwise. No session is kept.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RANGE};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use data_encoding::BASE64;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, Implementation, JsonObject,
    ListResourceTemplatesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ResourceContents,
    ResourceTemplate, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tower::ServiceExt;
use utoipa::openapi::OpenApi;

use super::caller::Caller;
use super::{Api, State};

/// Bytes of a content that are read at once, if nobody says how many, and at most.
const READ: (u64, u64) = (64 * 1024, 256 * 1024);
/// The largest answer of an endpoint in bytes.
const MOST: usize = 4 << 20;
/// Names of a listing, if nobody says how many, and at most.
const NAMES: (u64, u64) = (200, 1000);
/// How deep a listing may go.
const DEPTH: u64 = 10;

const INSTRUCTIONS: &str = "Horace remembers every version of every file in a mount: who wrote it, when, and \
    its bytes. Paths are relative to the root of the mount. `restore`, `undelete`, `rewind` and `undo` only say what \
    they would do; show that to the user before calling them again with `dry_run` false, which takes a key with the \
    scope `restore`.";

/// Whether a tool changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It only reads.
    Reads,
    /// It adds what was not there.
    Adds,
    /// It puts something in the place of something else, which stays in the history.
    Replaces,
}

/// An endpoint that is a tool, with what it does.
const ENDPOINTS: [(&str, &str, Effect); 14] = [
    ("search", "/api/v1/search", Effect::Reads),
    ("list_versions", "/api/v1/versions", Effect::Reads),
    ("diff", "/api/v1/diff", Effect::Reads),
    ("blame", "/api/v1/blame", Effect::Reads),
    ("changes", "/api/v1/changes", Effect::Reads),
    ("usage", "/api/v1/usage", Effect::Reads),
    ("duplicates", "/api/v1/duplicates", Effect::Reads),
    ("writers", "/api/v1/writers", Effect::Reads),
    ("status", "/api/v1/status", Effect::Reads),
    ("restore", "/api/v1/restore", Effect::Replaces),
    ("undelete", "/api/v1/undelete", Effect::Adds),
    ("rewind", "/api/v1/rewind", Effect::Replaces),
    ("undo", "/api/v1/undo", Effect::Replaces),
    ("mark", "/api/v1/marks", Effect::Adds),
];

/// Every request to `/mcp`, by those who are known.
pub(super) fn router(endpoints: Router, description: &OpenApi) -> Router<Arc<Api>> {
    let server = Server { endpoints, tools: tools(description).into() };
    let mut config = StreamableHttpServerConfig::default();
    config.legacy_session_mode = false;
    config.json_response = true;
    // That is looked at for every request, here and elsewhere.
    let config = config.disable_allowed_hosts();
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    let answer = async move |_: State, _: Caller, request: Request| -> Response {
        service.handle(request).await.map(Body::new)
    };
    Router::new().route("/mcp", any(answer))
}

/// The tools, and what answers them.
#[derive(Clone)]
struct Server {
    endpoints: Router,
    tools: Arc<[Tool]>,
}

fn tools(description: &OpenApi) -> Vec<Tool> {
    let whole = serde_json::to_value(description).unwrap_or_default();
    let mut tools: Vec<Tool> = ENDPOINTS
        .iter()
        .map(|(name, place, effect)| {
            let (_, operation) = operation(&whole, place);
            let told = ["summary", "description"].map(|key| operation[key].as_str().unwrap_or(""));
            let output = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            let mut tool =
                Tool::new(*name, told.join("\n\n").trim().to_owned(), input(&whole, operation));
            if let Value::Object(output) = resolved(&whole, output) {
                tool = tool.with_raw_output_schema(Arc::new(output));
            }
            tool.with_annotations(annotations(*effect))
        })
        .collect();
    tools.push(
        Tool::new(
            "read",
            "Reads a part of a version of a file: as text, or as Base64 where it is none.",
            object(json!({
                "path": { "type": "string", "description": "The file" },
                "path_base64": { "type": "string", "description": "Its exact bytes in Base64, instead" },
                "version": { "type": "string", "description": "A number, the beginning of a digest, or `head`" },
                "at": { "type": "string", "description": "The time as of which it is wanted, instead" },
                "offset": { "type": "integer", "minimum": 0, "default": 0 },
                "limit": { "type": "integer", "minimum": 1, "maximum": READ.1, "default": READ.0,
                    "description": "Bytes to read at most" },
            })),
        )
        .with_annotations(annotations(Effect::Reads)),
    );
    tools.push(
        Tool::new(
            "list_tree",
            "Lists a directory and what is below it, now or as of a time. `truncated` says that there is more.",
            object(json!({
                "path": { "type": "string", "description": "The directory; the root if left out" },
                "at": { "type": "string", "description": "As of when" },
                "depth": { "type": "integer", "minimum": 1, "maximum": DEPTH, "default": 1 },
                "limit": { "type": "integer", "minimum": 1, "maximum": NAMES.1, "default": NAMES.0,
                    "description": "Names at most" },
            })),
        )
        .with_annotations(annotations(Effect::Reads)),
    );
    tools
}

fn annotations(effect: Effect) -> ToolAnnotations {
    ToolAnnotations::new()
        .read_only(effect == Effect::Reads)
        .destructive(effect == Effect::Replaces)
        .idempotent(effect == Effect::Reads)
        .open_world(false)
}

fn object(properties: Value) -> Arc<JsonObject> {
    let schema =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    let Value::Object(schema) = schema else { return Arc::default() };
    Arc::new(schema)
}

/// The method of an endpoint, and what it is.
fn operation<'v>(whole: &'v Value, place: &str) -> (Method, &'v Value) {
    let methods = &whole["paths"][place];
    match methods.get("post") {
        Some(post) => (Method::POST, post),
        None => (Method::GET, &methods["get"]),
    }
}

/// What an endpoint takes: its body, or its parameters.
fn input(whole: &Value, operation: &Value) -> Arc<JsonObject> {
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if let Value::Object(body) = resolved(whole, body) {
        return Arc::new(body);
    }
    let mut properties = Map::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        if parameter["in"] == "query"
            && let Some(name) = parameter["name"].as_str()
            && let Value::Object(mut schema) = resolved(whole, &parameter["schema"])
        {
            schema.insert("description".into(), parameter["description"].clone());
            properties.insert(name.into(), schema.into());
        }
    }
    object(properties.into())
}

/// A schema with what it refers to in its place.
fn resolved(whole: &Value, schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => match fields.get("$ref").and_then(Value::as_str) {
            Some(name) => {
                let found = name.strip_prefix('#').and_then(|pointer| whole.pointer(pointer));
                found.map_or(Value::Bool(true), |found| resolved(whole, found))
            }
            None => {
                fields.iter().map(|(key, value)| (key.clone(), resolved(whole, value))).collect()
            }
        },
        Value::Array(items) => items.iter().map(|item| resolved(whole, item)).collect(),
        plain => plain.clone(),
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let mut info = ServerConfig::new(capabilities).with_instructions(INSTRUCTIONS);
        info.server_info = Implementation::new("horace", env!("CARGO_PKG_VERSION"));
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.to_vec()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asker = Asker::new(self, &context)?;
        let arguments = request.arguments.unwrap_or_default();
        let answered = match &*request.name {
            "read" => asker.read(&arguments).await,
            "list_tree" => asker.list_tree(&arguments).await,
            name => match ENDPOINTS.iter().find(|(known, ..)| *known == name) {
                Some((_, place, _)) => asker.ask(place, &arguments).await,
                None => {
                    let told = format!("there is no tool `{name}`");
                    return Err(ErrorData::invalid_params(told, None));
                }
            },
        };
        let result = match answered {
            Ok(value) => CallToolResult::structured(value),
            Err(Refused(value)) => CallToolResult::structured_error(value),
        };
        Ok(result.into())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = ResourceTemplate::new("horace:///{+path}{?version,at}", "version")
            .with_description(
                "A version of a file: the newest, one by its number or digest, or that of a time",
            );
        Ok(ListResourceTemplatesResult::with_all_items(vec![template]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let asker = Asker::new(self, &context)?;
        let bad = || ErrorData::invalid_params("a resource is `horace:///PATH?version=V`", None);
        let place = request.uri.strip_prefix("horace:///").ok_or_else(bad)?;
        let (path, query) = place.split_once('?').unwrap_or((place, ""));
        let path = format!("path={}", path.replace('+', "%2B").replace('&', "%26"));
        let query = if query.is_empty() { path } else { format!("{path}&{query}") };
        let part = asker.part(&query, 0, READ.1).await;
        let part = part.map_err(|Refused(value)| {
            let told = value["detail"].as_str().unwrap_or("it cannot be read").to_owned();
            ErrorData::resource_not_found(told, Some(value))
        })?;
        let uri = request.uri;
        let contents = match String::from_utf8(part.bytes) {
            Ok(text) => ResourceContents::text(text, uri),
            Err(error) => ResourceContents::blob(BASE64.encode(error.as_bytes()), uri),
        };
        Ok(ReadResourceResult::new(vec![contents]).into())
    }
}

/// A problem, as the endpoint told it.
struct Refused(Value);

impl Refused {
    fn because(detail: impl std::fmt::Display) -> Self {
        Self(json!({ "detail": detail.to_string() }))
    }
}

/// Whoever calls a tool, asking an endpoint.
struct Asker<'s> {
    server: &'s Server,
    /// Of the request that brought the call.
    parts: Parts,
}

/// A part of a content.
struct Part {
    bytes: Vec<u8>,
    size: Option<u64>,
    tag: Option<String>,
}

impl<'s> Asker<'s> {
    fn new(server: &'s Server, context: &RequestContext<RoleServer>) -> Result<Self, ErrorData> {
        let parts = context.extensions.get::<Parts>().cloned();
        let parts = parts.ok_or_else(|| ErrorData::internal_error("a call from nowhere", None))?;
        Ok(Self { server, parts })
    }

    /// Asks an endpoint, by whoever has sent the call.
    async fn send(
        &self,
        (method, place): (Method, &str),
        range: Option<String>,
        body: Body,
    ) -> Result<Response, Refused> {
        let mut request = Request::builder().method(method).uri(place);
        for name in [AUTHORIZATION, HOST] {
            if let Some(value) = self.parts.headers.get(&name) {
                request = request.header(name, value);
            }
        }
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let mut request = request.map_err(Refused::because)?;
        *request.extensions_mut() = self.parts.extensions.clone();
        let answered = self.server.endpoints.clone().oneshot(request).await;
        let Ok(response) = answered;
        Ok(response)
    }

    async fn bytes(response: Response) -> Result<Vec<u8>, Refused> {
        let bytes = axum::body::to_bytes(response.into_body(), MOST).await;
        bytes.map(Into::into).map_err(|_| Refused::because("the answer is too large: ask for less"))
    }

    async fn json(response: Response) -> Result<Value, Refused> {
        let well = response.status().is_success();
        let bytes = Self::bytes(response).await?;
        let value = serde_json::from_slice(&bytes).map_err(Refused::because)?;
        if well { Ok(value) } else { Err(Refused(value)) }
    }

    async fn ask(&self, place: &str, arguments: &JsonObject) -> Result<Value, Refused> {
        let posts =
            ENDPOINTS.iter().any(|(_, known, effect)| *known == place && *effect != Effect::Reads);
        if posts {
            let body = serde_json::to_vec(arguments).map_err(Refused::because)?;
            return Self::json(self.send((Method::POST, place), None, body.into()).await?).await;
        }
        let place = format!("{place}?{}", query(arguments));
        Self::json(self.send((Method::GET, &place), None, Body::empty()).await?).await
    }

    async fn part(&self, query: &str, offset: u64, limit: u64) -> Result<Part, Refused> {
        let place = format!("/api/v1/content?{query}");
        let range = format!("bytes={offset}-{}", offset.saturating_add(limit - 1));
        let response = self.send((Method::GET, &place), Some(range), Body::empty()).await?;
        let headers = response.headers().clone();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let size = header("content-range").and_then(|range| range.rsplit('/').next()?.parse().ok());
        let tag = header("etag").map(|tag| tag.trim_matches('"').to_owned());
        match response.status() {
            // There is nothing from there on, or nothing at all.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Part { bytes: Vec::new(), size, tag }),
            status if status.is_success() => {
                let mut bytes = Self::bytes(response).await?;
                bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
                Ok(Part { bytes, size, tag })
            }
            _ => {
                Self::json(response).await.and_then(|_| Err(Refused::because("it cannot be read")))
            }
        }
    }

    async fn read(&self, arguments: &JsonObject) -> Result<Value, Refused> {
        let mut arguments = arguments.clone();
        let offset = number(&mut arguments, "offset", 0, (0, u64::MAX))?;
        let limit = number(&mut arguments, "limit", READ.0, (1, READ.1))?;
        let part = self.part(&query(&arguments), offset, limit).await?;
        let length = part.bytes.len() as u64;
        let (text, base64) = match String::from_utf8(part.bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64.encode(error.as_bytes()))),
        };
        let size = part.size.unwrap_or(offset + length);
        Ok(json!({
            "offset": offset, "length": length, "size": size, "sha256": part.tag,
            "truncated": offset + length < size, "text": text, "base64": base64,
        }))
    }

    async fn list_tree(&self, arguments: &JsonObject) -> Result<Value, Refused> {
        let mut arguments = arguments.clone();
        let depth = number(&mut arguments, "depth", 1, (1, DEPTH))?;
        let limit = number(&mut arguments, "limit", NAMES.0, (1, NAMES.1))?;
        let top = arguments.get("path").and_then(Value::as_str).unwrap_or("");
        let top = top.trim_matches('/').to_owned();
        let (mut found, mut truncated) = (Vec::new(), false);
        let mut left = vec![(top.clone(), depth)];
        while let Some((path, depth)) = left.pop() {
            let room = limit - found.len() as u64;
            if room == 0 {
                truncated = true;
                break;
            }
            arguments.insert("path".into(), path.clone().into());
            arguments.insert("limit".into(), room.into());
            let page = match self.ask("/api/v1/tree", &arguments).await {
                // What may not be listed is named by its directory.
                Err(_) if path != top => continue,
                page => page?,
            };
            truncated |= !page["next"].is_null();
            let mut below = Vec::new();
            for mut item in page["items"].as_array().cloned().unwrap_or_default() {
                let name = item["name"].as_str().unwrap_or_default();
                let whole =
                    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                // A name that is no text leads nowhere by its text.
                if depth > 1 && item["kind"] == "dir" && item["name_base64"].is_null() {
                    below.push((whole.clone(), depth - 1));
                }
                item["path"] = whole.into();
                found.push(item);
            }
            below.reverse();
            left.extend(below);
        }
        Ok(json!({ "items": found, "truncated": truncated }))
    }
}

/// Takes a number out of arguments.
fn number(
    arguments: &mut JsonObject,
    name: &str,
    usual: u64,
    (least, most): (u64, u64),
) -> Result<u64, Refused> {
    match arguments.remove(name) {
        None | Some(Value::Null) => Ok(usual),
        Some(value) => {
            value.as_u64().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
                Refused::because(format!("`{name}` is a number from {least} to {most}"))
            })
        }
    }
}

/// Arguments as the parameters of an address.
fn query(arguments: &JsonObject) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in arguments {
        match value {
            Value::Null => {}
            Value::String(text) => drop(query.append_pair(name, text)),
            other => drop(query.append_pair(name, &other.to_string())),
        }
    }
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_have_what_they_refer_to_in_its_place() {
        let whole = json!({ "components": { "schemas": { "Kind": { "enum": ["file"] } } } });
        let schema =
            json!({ "items": [{ "$ref": "#/components/schemas/Kind" }, { "type": "null" }] });
        let expected = json!({ "items": [{ "enum": ["file"] }, { "type": "null" }] });
        assert_eq!(resolved(&whole, &schema), expected);
    }

    #[test]
    fn arguments_become_parameters() {
        let Value::Object(arguments) = json!({ "a": "x&y", "b": 3, "c": null, "d": true }) else {
            panic!("it is an object")
        };
        assert_eq!(query(&arguments), "a=x%26y&b=3&d=true");
    }
}
