//! The answering end of the socket.
//!
//! Owns the listener and one blocking thread per connection, of which there are only so many, and
//! fewer per user. A connection is one request and its answer. Whoever reads an answer too slowly is
//! cut off, since a walk holds back the catalog's log while it lasts. Stopping hangs up on everyone
//! and joins every thread.

mod connection;
mod feed;

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::wire::last_line;
use crate::query::Service;
use crate::query::request::{Failure, FailureCode};

/// Connections of all ordinary users together.
const MAX_CONNECTIONS: usize = 64;
/// Connections of one ordinary user.
const MAX_PER_USER: usize = 16;

/// The socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {}", path.display())]
pub struct ServerError {
    path: PathBuf,
    source: io::Error,
}

/// What a server serves.
pub struct ServerConfig {
    /// Where to listen; what lies there is replaced.
    pub socket: PathBuf,
    /// Who is asked.
    pub service: Arc<Service>,
}

/// A socket that is served until this is stopped or dropped.
#[must_use]
pub struct Server {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// What the threads have in common.
struct Shared {
    service: Arc<Service>,
    stopping: AtomicBool,
    /// Locked alone, and never during a query.
    open: Mutex<Open>,
}

/// The connections that are open.
#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Connection>,
    finished: Vec<JoinHandle<()>>,
}

struct Connection {
    uid: u32,
    stream: UnixStream,
    /// Only `None` while the thread is being started.
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Begins to answer.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let path = config.socket;
        let listen = || -> io::Result<Arc<UnixListener>> {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(&path)?;
            // Everybody may ask; what they get is decided by who they are.
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666))?;
            Ok(Arc::new(listener))
        };
        let error = |source| ServerError { path: path.clone(), source };
        let listener = listen().map_err(error)?;
        let shared = Arc::new(Shared {
            service: config.service,
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let thread = {
            let (shared, listener) = (Arc::clone(&shared), Arc::clone(&listener));
            std::thread::Builder::new()
                .name("control".into())
                .spawn(move || accept(&shared, &listener))
                .map_err(error)?
        };
        Ok(Self { shared, listener, thread: Some(thread) })
    }

    /// Hangs up on every client and waits until nothing runs any more.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // On Linux this wakes a thread that waits in accept.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        join(thread);
        let mut threads = Vec::new();
        {
            let mut open = self.shared.open.lock();
            threads.append(&mut open.finished);
            for connection in open.connections.values_mut() {
                let _ = connection.stream.shutdown(Shutdown::Both);
                threads.extend(connection.thread.take());
            }
        }
        threads.into_iter().for_each(join);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shut_down();
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the control socket panicked");
    }
}

fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    loop {
        let stream = match listener.accept() {
            _ if shared.stopping.load(Ordering::SeqCst) => return,
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: they come back as others close theirs.
                tracing::warn!(%error, "cannot accept on the control socket");
                std::thread::sleep(std::time::Duration::from_millis(100));
                continue;
            }
        };
        if let Err(error) = admit(shared, stream) {
            tracing::debug!(%error, "connection to the control socket failed");
        }
        let finished = std::mem::take(&mut shared.open.lock().finished);
        finished.into_iter().for_each(join);
    }
}

/// Starts the thread of a connection, or says that there are too many.
fn admit(shared: &Arc<Shared>, stream: UnixStream) -> io::Result<()> {
    let peer = crate::sys::process::peer(stream.as_fd())?;
    let (uid, privileged) = (peer.identity.uid, peer.is_privileged());
    let mut open = shared.open.lock();
    let of_user = open.connections.values().filter(|c| c.uid == uid).count();
    if !privileged && (of_user >= MAX_PER_USER || open.connections.len() >= MAX_CONNECTIONS) {
        drop(open);
        return refuse(&stream);
    }
    let number = open.next;
    open.next += 1;
    let connection = Connection { uid, stream: stream.try_clone()?, thread: None };
    open.connections.insert(number, connection);
    let spawned = {
        let shared = Arc::clone(shared);
        std::thread::Builder::new().name("control-client".into()).spawn(move || {
            // Also after a panic.
            let _listed = Listed { shared: &shared, number };
            connection::serve(&shared, &stream, &peer);
        })
    };
    // The thread cannot leave before the lock is free, so its connection is still there.
    match (spawned, open.connections.get_mut(&number)) {
        (Ok(thread), Some(connection)) => connection.thread = Some(thread),
        (Err(error), _) => {
            open.connections.remove(&number);
            return Err(error);
        }
        (Ok(_), None) => {}
    }
    Ok(())
}

fn refuse(mut stream: &UnixStream) -> io::Result<()> {
    let failure =
        Failure { code: FailureCode::Busy, message: "too many clients ask at once".into() };
    let line = last_line(Err(&failure)) + "\n";
    io::Write::write_all(&mut stream, line.as_bytes())
}

/// A connection on the list. Its own thread takes it off by dropping this, and is joined by the next
/// one.
struct Listed<'s> {
    shared: &'s Shared,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock();
        if let Some(connection) = open.connections.remove(&self.number) {
            open.finished.extend(connection.thread);
        }
    }
}

#[cfg(test)]
mod tests;
