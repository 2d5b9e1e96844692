//! The listener.
//!
//! Owns the runtime's threads, which are its own, and how many connections there are. Who is slow to send a
//! request is cut off. Stopping ends every connection, also those that would follow events for ever.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Listen, Peer};
use crate::sys::process;

/// Connections at once.
const MAX_CONNECTIONS: usize = 2048;
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections have to end when the daemon does.
const GRACE: Duration = Duration::from_secs(2);
/// How long nothing is accepted when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// The API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Its threads cannot be started.
    #[error("cannot start the threads of the HTTP API")]
    Threads(#[source] io::Error),
    /// Its address cannot be had.
    #[error("cannot listen on {at} for the HTTP API")]
    Listen {
        /// Where.
        at: String,
        /// Why.
        source: io::Error,
    },
}

/// An API that is served until this is stopped or dropped.
#[must_use]
#[derive(Debug)]
pub struct Server {
    runtime: Option<Runtime>,
    stop: CancellationToken,
    address: Option<SocketAddr>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Begins to serve, at one place and at others too.
    ///
    /// # Errors
    /// If there are no threads, or an address cannot be had.
    pub fn start(listen: &Listen, also: &[Listen], router: &Router) -> Result<Self, ServerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(64)
            .thread_name("api")
            .enable_all()
            .build()
            .map_err(ServerError::Threads)?;
        let (stop, room) = (CancellationToken::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        let mut addresses = Vec::new();
        for listen in std::iter::once(listen).chain(also) {
            let at = listen.to_string();
            let listener = runtime
                .block_on(open(listen))
                .map_err(|source| ServerError::Listen { at: at.clone(), source })?;
            let address = match &listener {
                Listener::Tcp(listener) => listener.local_addr().ok(),
                Listener::Unix(_) => None,
            };
            addresses.push(address);
            runtime.spawn(accept(listener, Arc::clone(&room), router.clone(), stop.clone()));
            tracing::info!(at = address.map_or(at, |address| address.to_string()), "serving HTTP");
        }
        Ok(Self { runtime: Some(runtime), stop, address: addresses[0] })
    }

    /// Where it listens on the network first.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Ends every connection.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        self.stop.cancel();
        // What runs on another thread ends by itself.
        runtime.shutdown_timeout(GRACE);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

async fn open(listen: &Listen) -> io::Result<Listener> {
    Ok(match listen {
        Listen::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?),
        Listen::Unix(path) => Listener::Unix(open_unix(path)?),
    })
}

fn open_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // Everybody may ask; what they get is decided by who they are.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
    Ok(listener)
}

async fn accept(listener: Listener, room: Arc<Semaphore>, router: Router, stop: CancellationToken) {
    loop {
        // Closed never.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accept_one(&listener, &router, &stop, permit) => accepted,
        };
        if let Err(error) = accepted {
            // Out of descriptors, most likely: they come back as others close theirs.
            tracing::warn!(%error, "cannot accept a connection of the HTTP API");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn accept_one(
    listener: &Listener,
    router: &Router,
    stop: &CancellationToken,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    let (router, stop) = (router.clone(), stop.clone());
    match listener {
        Listener::Tcp(listener) => {
            let (stream, remote) = listener.accept().await?;
            let peer = Peer::tcp(remote, stream.local_addr()?);
            // Answers go out as they are written.
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream, peer, router, stop, permit));
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::Process(process::peer(stream.as_fd())?);
            tokio::spawn(serve(stream, peer, router, stop, permit));
        }
    }
    Ok(())
}

/// Serves one connection until either end has enough.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
) {
    let peer = Arc::new(peer);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Arc::clone(&peer));
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => if let Err(error) = ended {
            tracing::debug!(error, "a connection of the HTTP API broke");
        },
    }
}
