//! One client of the socket: its request and its answer.
//!
//! Owns the time limits.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Shared, feed};
use crate::control::wire::{RequestError, last_line, read_request, send_with_file};
use crate::query::request::{Failure, FailureCode};
use crate::query::{Listener, SendError, Sink};
use crate::store::Packed;
use crate::sys::creds::Actor;

/// How long a request may take to arrive.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave an answer unread.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Answers one request; every trouble ends on the socket, or with it.
pub(super) fn serve(shared: &Arc<Shared>, stream: &UnixStream, peer: &Actor) {
    if let Err(error) = try_serve(shared, stream, peer) {
        tracing::debug!(%error, "a client of the control socket went away");
    }
}

fn try_serve(shared: &Shared, stream: &UnixStream, peer: &Actor) -> io::Result<()> {
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut out = SocketSink(BufWriter::with_capacity(64 * 1024, stream));
    let result = match read_request(BufReader::new(InTime::new(stream, REQUEST_TIMEOUT))) {
        Ok(request) => {
            let result = shared.service.answer(peer, &request, &mut out, &Peer { shared, stream });
            result.map_err(|error| error.to_failure())
        }
        // Somebody looked whether anyone is there.
        Err(RequestError::Cut) => return Ok(()),
        Err(error) => Err(Failure { code: FailureCode::BadRequest, message: error.to_string() }),
    };
    let last = last_line(result.as_ref().map(|end| *end));
    out.line(last.as_bytes())?;
    out.flush()
}

/// The bytes of a stream that come before a deadline, however slowly.
struct InTime<'s> {
    stream: &'s UnixStream,
    deadline: Instant,
}

impl<'s> InTime<'s> {
    fn new(stream: &'s UnixStream, time: Duration) -> Self {
        Self { stream, deadline: Instant::now() + time }
    }
}

impl Read for InTime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

/// Lines for the other end.
pub(super) struct SocketSink<'s>(pub(super) BufWriter<&'s UnixStream>);

impl Sink for SocketSink<'_> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.0.write_all(line)?;
        self.0.write_all(b"\n")
    }

    fn file(&mut self, line: &[u8], file: OwnedFd) -> io::Result<()> {
        // The file goes with the first byte of its line.
        self.0.flush()?;
        send_with_file(self.0.get_ref(), &line[..1], &file)?;
        self.line(&line[1..])
    }

    fn packed(&mut self, line: &[u8], content: &Packed, size: u64) -> Result<(), SendError> {
        feed::send(self, line, content, size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The other end, and this one.
struct Peer<'c> {
    shared: &'c Shared,
    stream: &'c UnixStream,
}

impl Listener for Peer<'_> {
    fn is_gone(&self, wait: Duration) -> io::Result<bool> {
        self.stream.set_read_timeout(Some(wait))?;
        let mut stream = self.stream;
        let closed = match stream.read(&mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ),
        };
        Ok(closed || self.shared.stopping.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_trickles_in_has_no_more_time_than_others() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let trickle = std::thread::spawn(move || {
            while theirs.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let began = Instant::now();
        let stream = InTime::new(&ours, Duration::from_millis(200));
        let error = read_request(BufReader::new(stream)).unwrap_err();
        assert!(matches!(error, RequestError::Io(_)), "{error}");
        assert!(began.elapsed() < Duration::from_secs(5));
        drop(ours);
        trickle.join().unwrap();
    }
}
