//! The listeners.
//!
//! Owns the runtime's threads, which are its own, and how many connections each listener has. Who is slow to greet
//! or to send a request is cut off, and so is who reads nothing of what is there for them. Over the network there
//! is TLS if there is a certificate, and only TLS then. Stopping ends every connection, also those that would
//! follow events for ever.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::tls::{LOOK, Tls};
use super::{Listen, Peer};
use crate::sys::process;

/// Connections at once.
const MAX_CONNECTIONS: usize = 2048;
/// What the first byte of TLS is: a record of a handshake.
const HANDSHAKE: u8 = 22;
/// What is told to who speaks HTTP where TLS is spoken.
const SPEAK_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    This is served over TLS: ask for https:// instead of http://\n";
/// How long connections have to end when the daemon does.
const GRACE: Duration = Duration::from_secs(2);
/// How long nothing is accepted when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// How long clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To agree on how to encrypt.
    pub greeting: Duration,
    /// To send the head of a request.
    pub head: Duration,
    /// To make room for more of an answer, however little.
    pub stalled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let [greeting, head, stalled] = [10, 10, 60].map(Duration::from_secs);
        Self { greeting, head, stalled }
    }
}

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
    serving: Serving,
}

enum Listener {
    Tcp(TcpListener, Option<Arc<Tls>>),
    Unix(UnixListener),
}

/// What serves connections.
#[derive(Debug, Clone)]
struct Serving {
    router: Router,
    patience: Patience,
    stop: CancellationToken,
}

impl Server {
    /// Starts its threads. It is asked nothing before it listens.
    ///
    /// # Errors
    /// If there are no threads.
    pub fn start(router: Router, patience: Patience) -> Result<Self, ServerError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(64)
            .thread_name("api")
            .enable_all()
            .build()
            .map_err(ServerError::Threads)?;
        let serving = Serving { router, patience, stop: CancellationToken::new() };
        Ok(Self { runtime: Some(runtime), serving })
    }

    /// Begins to serve, over TLS where it is given and this is the network. Returns the address there.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn listen(
        &self,
        listen: &Listen,
        tls: Option<Arc<Tls>>,
    ) -> Result<Option<SocketAddr>, ServerError> {
        let at = listen.to_string();
        let Some(runtime) = &self.runtime else { return Ok(None) };
        let listener = runtime
            .block_on(open(listen, tls))
            .map_err(|source| ServerError::Listen { at: at.clone(), source })?;
        let address = match &listener {
            Listener::Tcp(listener, _) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        };
        if let Listener::Tcp(_, Some(tls)) = &listener
            && tls.is_left_alone()
        {
            runtime.spawn(keep_up(Arc::clone(tls), self.serving.stop.clone()));
        }
        runtime.spawn(accept(listener, self.serving.clone()));
        tracing::info!(at = address.map_or(at, |address| address.to_string()), "serving HTTP");
        Ok(address)
    }

    /// Ends every connection.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        self.serving.stop.cancel();
        // What runs on another thread ends by itself.
        runtime.shutdown_timeout(GRACE);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

async fn open(listen: &Listen, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
    Ok(match listen {
        Listen::Tcp(address) => Listener::Tcp(TcpListener::bind(address).await?, tls),
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

/// Looks at the files of a certificate from time to time.
async fn keep_up(tls: Arc<Tls>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        let tls = Arc::clone(&tls);
        // It has told what is wrong.
        let _ = tokio::task::spawn_blocking(move || tls.look()).await;
    }
}

async fn accept(listener: Listener, serving: Serving) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Closed never.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = serving.stop.cancelled() => return,
            accepted = accept_one(&listener, &serving, permit) => accepted,
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
    serving: &Serving,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    let serving = serving.clone();
    match listener {
        Listener::Tcp(listener, tls) => {
            let (stream, remote) = listener.accept().await?;
            let peer = Peer::tcp(remote, stream.local_addr()?);
            // Answers go out as they are written.
            let _ = stream.set_nodelay(true);
            match tls {
                Some(tls) => {
                    tokio::spawn(serve_tls(stream, Arc::clone(tls), peer, serving, permit));
                }
                None => {
                    let stream = impatient(stream, serving.patience);
                    tokio::spawn(serve(stream, peer, serving, permit));
                }
            }
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            let peer = Peer::Process(process::peer(stream.as_fd())?);
            let stream = impatient(stream, serving.patience);
            tokio::spawn(serve(stream, peer, serving, permit));
        }
    }
    Ok(())
}

/// Greets a client, and serves it.
async fn serve_tls(
    stream: TcpStream,
    tls: Arc<Tls>,
    peer: Peer,
    serving: Serving,
    permit: OwnedSemaphorePermit,
) {
    let stop = serving.stop.clone();
    let patience = serving.patience;
    let greeted = tokio::time::timeout(patience.greeting, greet(stream, &tls, patience));
    match stop.run_until_cancelled(greeted).await {
        Some(Ok(Ok(stream))) => serve(stream, peer, serving, permit).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "a client of the HTTP API speaks no TLS"),
        Some(Err(_)) => tracing::debug!("a client of the HTTP API is slow to greet"),
        None => {}
    }
}

async fn greet(
    mut stream: TcpStream,
    tls: &Tls,
    patience: Patience,
) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
        // What is left unread would take the answer away with it.
        let _ = stream.read(&mut [0; 4096]).await?;
        stream.write_all(SPEAK_TLS).await?;
        stream.shutdown().await?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    tls.acceptor().accept(impatient(stream, patience)).await
}

/// A stream that breaks when the other end takes nothing for too long.
fn impatient<S: AsyncRead + AsyncWrite>(
    stream: S,
    patience: Patience,
) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(patience.stalled));
    Box::pin(stream)
}

/// Serves one connection until either end has enough.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    Serving { router, patience, stop }: Serving,
    _permit: OwnedSemaphorePermit,
) {
    let (source, peer) = (peer.source(), Arc::new(peer));
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Arc::clone(&peer));
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        ended = connection => match ended {
            Ok(()) => {}
            Err(error) if is_stalled(&*error) => {
                tracing::info!(?source, "cut off a client of the HTTP API that does not read");
            }
            Err(error) => tracing::debug!(error, "a connection of the HTTP API broke"),
        },
    }
}

/// Whether a connection broke because the other end did not read.
fn is_stalled(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::TimedOut)
}
