//! The asking end of the socket, and the same questions to a catalog file.
//!
//! Owns sending a request and reading its answer line by line.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::wire::{AnswerLine, Receiver};
use crate::catalog::{CatalogError, ChunkDb, Reader, chunks};
use crate::config::OWN_DIR;
use crate::content::Contents;
use crate::query::request::{End, Failure, Request};
use crate::query::{QueryError, Sink, answer_from_catalog};
use crate::store::Store;

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon cannot be reached.
    #[error("cannot reach the daemon at {}", socket.display())]
    Connect {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the daemon stopped before its answer was complete")]
    Broken(#[source] io::Error),
    /// The answer is none.
    #[error("the daemon's answer cannot be understood")]
    Answer(#[from] serde_json::Error),
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The catalog cannot be opened.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The backing directory cannot be opened.
    #[error("cannot open the backing directory")]
    Backing(#[source] io::Error),
    /// Whoever asked wants no more.
    #[error(transparent)]
    Sink(io::Error),
}

/// Asks a daemon; its records go to `sink` as they come.
///
/// # Errors
/// If the answer is not whole, after the records that came.
pub fn ask_daemon(
    socket: &Path,
    request: &Request,
    sink: &mut dyn Sink,
) -> Result<End, ClientError> {
    let mut stream = UnixStream::connect(socket)
        .map_err(|source| ClientError::Connect { socket: socket.into(), source })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A daemon that refuses at once has hung up already: its reason is still there to be read.
    let sent = stream.write_all(&line);
    let mut answer = BufReader::with_capacity(64 * 1024, Receiver::new(stream));
    loop {
        if answer.buffer().is_empty() {
            sink.flush().map_err(ClientError::Sink)?;
        }
        line.clear();
        answer.read_until(b'\n', &mut line).map_err(ClientError::Broken)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            let cut = sent.err().unwrap_or(io::ErrorKind::UnexpectedEof.into());
            return Err(ClientError::Broken(cut));
        };
        match AnswerLine::parse(text)? {
            AnswerLine::Record(record) => match answer.get_mut().file() {
                Some(file) => sink.file(record, file),
                None => sink.line(record),
            }
            .map_err(ClientError::Sink)?,
            AnswerLine::End(end) => return Ok(end),
            AnswerLine::Failure(failure) => return Err(failure.into()),
        }
    }
}

/// Asks a catalog file that no daemon serves.
///
/// # Errors
/// If it cannot be read, or the request needs a daemon.
pub fn ask_catalog(
    backing: &Path,
    catalog: &Path,
    request: &Request,
    sink: &mut dyn Sink,
) -> Result<End, ClientError> {
    let reader = Reader::open(catalog)?;
    // Without one, what was preserved cannot be read.
    let own = std::fs::File::open(backing.join(OWN_DIR)).ok();
    let store = own.and_then(|own| open_store(own.as_fd(), catalog));
    let backing: OwnedFd = std::fs::File::open(backing).map_err(ClientError::Backing)?.into();
    let contents = Contents::new(Arc::new(backing), store.map(Arc::new));
    let answered = answer_from_catalog(&reader, &contents, request, sink);
    answered.map_err(|error| match error {
        QueryError::Sink(error) => ClientError::Sink(error),
        QueryError::Catalog(error) => error.into(),
        error => error.to_failure().into(),
    })
}

/// The store as it is. Nothing in it is cleaned up: a daemon may have started meanwhile.
fn open_store(own: BorrowedFd<'_>, catalog: &Path) -> Option<Store> {
    let store = Store::open(own).ok()?;
    let open = || -> Result<Store, Box<dyn std::error::Error + Send + Sync>> {
        let index = ChunkDb::open_to_read(&catalog.with_file_name(chunks::FILE_NAME))?;
        Ok(Store::open(own)?.with_packs_to_read(Arc::new(index))?)
    };
    match open() {
        Ok(store) => Some(store),
        Err(error) => {
            tracing::warn!(error, "packed contents cannot be read");
            Some(store)
        }
    }
}
