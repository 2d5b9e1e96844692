//! The HTTP API: the questions of [`query`](crate::query), asked from anywhere.
//!
//! Owns the listener, who may ask what (`caller`), and the form of answers. One router serves `/api/v1`,
//! the endpoints and tools of the predecessor (`gateway`, `tools`), events, metrics and the web page. Sits beside fuse under
//! daemon: never changes anything itself. Handlers are async; whatever reads the catalog or a file
//! crosses to a thread of its own in one place, `ask`.

mod ask;
mod body;
mod caller;
mod docs;
mod gateway;
mod health;
mod log_end;
mod log_parts;
mod mcp;
mod metrics;
mod page;
mod peer;
mod problem;
mod server;
mod tls;
mod tools;
mod v1;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

use crate::keys::KeyFile;
use crate::query::Service;
use crate::webhooks::Webhooks;

pub use peer::Peer;
pub use server::{Patience, Server, ServerError};
pub use tls::{CertFiles, Tls, TlsError};

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// At an address of the network.
    Tcp(SocketAddr),
    /// At a path of the filesystem; what lies there is replaced.
    Unix(PathBuf),
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What an API serves.
#[derive(Debug)]
pub struct ApiConfig {
    /// Who is asked.
    pub service: Arc<Service>,
    /// Where the keys are.
    pub keys: KeyFile,
    /// Where changes are posted.
    pub webhooks: Webhooks,
    /// The user with whose eyes those see who show no key and are no users of this machine.
    pub guest: Option<String>,
    /// Names by which the API is reached, beside addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The first part of paths that name what is served: the mount and the backing directory.
    pub roots: Vec<PathBuf>,
}

/// What handlers have in common.
#[derive(Debug)]
struct Api {
    config: ApiConfig,
    gate: ask::Gate,
    log_end: log_end::LogEnd,
    log_parts: log_parts::LogParts,
    replies: v1::Replies,
    connections: tools::Connections,
}

type State = axum::extract::State<Arc<Api>>;

/// Every endpoint.
pub fn router(config: ApiConfig) -> Router {
    let api = Arc::new(Api {
        config,
        gate: ask::Gate::new(),
        log_end: log_end::LogEnd::default(),
        log_parts: log_parts::LogParts::default(),
        replies: v1::Replies::default(),
        connections: tools::Connections::default(),
    });
    let (v1, description) = v1::router().split_for_parts();
    Router::new()
        .merge(mcp::router(v1.clone().with_state(Arc::clone(&api)), &description))
        .merge(v1)
        .merge(docs::router(description))
        .merge(gateway::router())
        .merge(page::router())
        .merge(tools::router())
        .merge(health::router())
        .route("/metrics", get(metrics::answer))
        .fallback(problem::no_such_place)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(middleware::from_fn(body::take_in))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), caller::check_host))
        .layer(middleware::map_response(problem::tidy))
        .layer(middleware::from_fn(metrics::count))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .with_state(api)
}
