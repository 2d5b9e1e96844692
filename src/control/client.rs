//! The asking end of the socket, and the same questions to a catalog file.
//!
//! Owns sending a request and reading its answer line by line.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::access::Guard;
pub use super::query::Sink;
use super::query::{Answer, Query, answer_from_catalog};
use super::wire::{AnswerLine, End, Failure, Request};
use crate::catalog::{CatalogError, Reader};

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
    let mut answer = BufReader::with_capacity(64 * 1024, stream);
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
            AnswerLine::Record(record) => sink.line(record).map_err(ClientError::Sink)?,
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
    catalog: &Path,
    request: &Request,
    sink: &mut dyn Sink,
) -> Result<End, ClientError> {
    let mut main = Reader::open(catalog)?;
    let mut side = Reader::open(catalog)?;
    let mut answer = Answer::new(sink);
    let mut query = Query {
        main: &mut main,
        side: &mut side,
        guard: &mut Guard::Everything,
        answer: &mut answer,
    };
    match answer_from_catalog(&mut query, request) {
        Ok(()) => Ok(answer.end()),
        Err(super::query::QueryError::Sink(error)) => Err(ClientError::Sink(error)),
        Err(super::query::QueryError::Catalog(error)) => Err(error.into()),
        Err(error) => Err(error.to_failure().into()),
    }
}
