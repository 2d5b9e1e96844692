//! What goes over the socket: one line of JSON as the request, lines of JSON as the answer.
//!
//! Owns the framing and its limits. An answer is any number of records, which are the public
//! `--json` records, and one last line: `{"end":…}` or `{"error":…}`; no record starts with either
//! key.

use std::collections::VecDeque;
use std::io::{self, BufRead, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::query::request::{End, Failure, Request};

/// The longest request in bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// One line of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum AnswerLine<'l> {
    /// A record.
    Record(&'l [u8]),
    /// The end of a whole answer.
    End(End),
    /// The end of one that is not.
    Failure(Failure),
}

#[derive(Serialize, Deserialize)]
enum Last<E, F> {
    #[serde(rename = "end")]
    End(E),
    #[serde(rename = "error")]
    Failure(F),
}

impl<'l> AnswerLine<'l> {
    /// Reads a line without its line feed.
    ///
    /// # Errors
    /// For a last line that is none; records are not looked into.
    pub fn parse(line: &'l [u8]) -> Result<Self, serde_json::Error> {
        if !line.starts_with(b"{\"end\":") && !line.starts_with(b"{\"error\":") {
            return Ok(Self::Record(line));
        }
        Ok(match serde_json::from_slice::<Last<End, Failure>>(line)? {
            Last::End(end) => Self::End(end),
            Last::Failure(failure) => Self::Failure(failure),
        })
    }
}

/// The last line of an answer, without its line feed.
pub(super) fn last_line(result: Result<End, &Failure>) -> String {
    let last = match result {
        Ok(end) => Last::End(end),
        Err(failure) => Last::Failure(failure),
    };
    serde_json::to_string(&last).expect("plain structs with text keys serialise")
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The line is too long.
    #[error("the request is longer than {MAX_REQUEST} bytes")]
    TooLong,
    /// The client hung up before the line ended.
    #[error("the request ends before its line does")]
    Cut,
    /// It is not a request.
    #[error("the request cannot be understood: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It did not arrive.
    #[error("the request did not arrive: {0}")]
    Io(#[from] io::Error),
}

/// Reads one request line.
///
/// # Errors
/// If it is too long, cut, or no request.
pub fn read_request(input: impl BufRead) -> Result<Request, RequestError> {
    let mut line = Vec::new();
    input.take(MAX_REQUEST).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(if line.len() as u64 == MAX_REQUEST {
            RequestError::TooLong
        } else {
            RequestError::Cut
        });
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Sends bytes with an open file.
///
/// # Errors
/// The socket's.
pub(super) fn send_with_file(stream: &UnixStream, bytes: &[u8], file: &OwnedFd) -> io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&files));
    let parts = [IoSlice::new(bytes)];
    rustix::net::sendmsg(stream, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A connection whose bytes may come with open files.
pub(super) struct Receiver {
    stream: UnixStream,
    files: VecDeque<OwnedFd>,
}

impl Receiver {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, files: VecDeque::new() }
    }

    /// The file that came first of those not taken yet.
    pub(super) fn file(&mut self) -> Option<OwnedFd> {
        self.files.pop_front()
    }
}

impl io::Read for Receiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = rustix::net::recvmsg(&self.stream, &mut parts, &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.files.extend(files);
            }
        }
        Ok(message.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::LabelChange;
    use crate::query::filter::SearchFilter;
    use crate::query::request::{
        Collect, FailureCode, Follow, Mark, PathField, PruneCap, PruneMode, Wait,
    };
    use crate::types::Seq;
    use proptest::prelude::*;

    fn round_trip(request: &Request) -> Request {
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        read_request(&line[..]).unwrap()
    }

    fn log(path: &[u8]) -> Request {
        Request::Log { path: PathField(path.to_vec()) }
    }

    #[test]
    fn a_name_that_is_not_text_has_its_exact_bytes_beside_it() {
        let text = serde_json::to_string(&log(b"a\xff")).unwrap();
        assert_eq!(text, "{\"request\":\"log\",\"path\":\"a\u{fffd}\",\"path_base64\":\"Yf8=\"}");
        let plain = serde_json::to_string(&log("ä\n".as_bytes())).unwrap();
        assert_eq!(plain, "{\"request\":\"log\",\"path\":\"ä\\n\"}");
    }

    #[test]
    fn every_request_survives_the_wire() {
        let path = PathField(b"d/\xf0".to_vec());
        let requests = [
            Request::Status,
            Request::Sync,
            Request::Manifest { path: path.clone(), at_ns: Some(i64::MIN) },
            Request::Search { path: path.clone(), filter: SearchFilter::default() },
            Request::Changes {
                path: path.clone(),
                since: Some(Seq(u64::MAX)),
                follow: Follow::Yes,
                limit: None,
            },
            Request::Blame { path },
            Request::Reconcile { wait: Wait::No },
            Request::Prune {
                path: PathField::default(),
                mode: PruneMode::DryRun,
                cap: PruneCap::Lifted,
            },
            Request::Mark {
                path: PathField(b"f".to_vec()),
                version: Some("3".into()),
                mark: Mark::Note("text".into()),
            },
            Request::Label {
                path: PathField(b"f".to_vec()),
                change: LabelChange { add_tags: vec!["a".into()], ..LabelChange::default() },
            },
            Request::FileWith { file_id: uuid::Uuid::nil() },
            Request::Collections { path: PathField::default(), after: "a".into(), limit: 1 },
            Request::Collect {
                name: "c".into(),
                what: Collect { add: vec![PathField(b"\xff".to_vec())], ..Collect::default() },
            },
        ];
        for request in requests {
            assert_eq!(round_trip(&request), request);
        }
    }

    #[test]
    fn a_bad_request_is_named() {
        let error = |bytes: &[u8]| read_request(bytes).unwrap_err().to_string();
        assert!(error(b"{\"request\":\"log\",\"path\":\"a\"}").contains("ends before"));
        assert!(error(&vec![b' '; 70_000]).contains("longer than"));
        assert!(error(b"{\"request\":\"fly\"}\n").contains("unknown variant `fly`"));
        let bad = b"{\"request\":\"log\",\"path\":\"a\",\"path_base64\":\"!\"}\n";
        assert!(error(bad).contains("cannot be understood"));
    }

    #[test]
    fn last_lines_are_told_from_records() {
        let end = End { records: 3, unknown: 1 };
        let line = last_line(Ok(end));
        assert_eq!(AnswerLine::parse(line.as_bytes()).unwrap(), AnswerLine::End(end));
        let failure = Failure { code: FailureCode::NotFound, message: "x".into() };
        let line = last_line(Err(&failure));
        assert_eq!(AnswerLine::parse(line.as_bytes()).unwrap(), AnswerLine::Failure(failure));
        let record = b"{\"path\":\"end\"}";
        assert_eq!(AnswerLine::parse(record).unwrap(), AnswerLine::Record(record));
    }

    proptest! {
        #[test]
        fn any_path_survives_the_wire(path: Vec<u8>) {
            let request = log(&path);
            prop_assert_eq!(round_trip(&request), request);
        }

        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes: Vec<u8>) {
            let _ = read_request(&bytes[..]);
            let _ = AnswerLine::parse(&bytes);
        }

        #[test]
        fn nearly_requests_do_not_panic(
            request in "log|manifest|search|changes|blame|status|sync",
            key in "path|path_base64|since|at_ns|follow|query|limit",
            value in "(\"[a-z=/]{0,8}\"|-?[0-9]{1,25}|null|\\{\\}|\\[\\]|true)",
        ) {
            let line = format!("{{\"request\":\"{request}\",\"{key}\":{value}}}\n");
            let _ = read_request(line.as_bytes());
        }
    }
}
