//! What goes over the socket: one line of JSON as the request, lines of JSON as the answer.
//!
//! Owns the framing and its limits. An answer is any number of records, which are the public
//! `--json` records, and one last line: `{"end":…}` or `{"error":…}`; no record starts with either
//! key. Names are bytes: a field like `path` is text, with U+FFFD for what is not UTF-8, and then a
//! field like `path_base64` has the exact bytes.

use std::collections::VecDeque;
use std::io::{self, BufRead, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use data_encoding::BASE64;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::search::SearchFilter;
use super::verify::VerifyRequest;
use crate::types::Seq;

/// The longest request in bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// Defines a newtype of bytes that is two JSON fields when flattened into a struct.
macro_rules! byte_field {
    ($(#[$doc:meta])* $name:ident, $text:literal, $exact:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name(pub Vec<u8>);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text = String::from_utf8_lossy(&self.0);
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry($text, &text)?;
                if text.as_bytes() != self.0 {
                    map.serialize_entry($exact, &BASE64.encode(&self.0))?;
                }
                map.end()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                struct Fields {
                    #[serde(rename = $text)]
                    text: String,
                    #[serde(rename = $exact, default)]
                    exact: Option<String>,
                }
                let fields = Fields::deserialize(deserializer)?;
                match fields.exact {
                    Some(exact) => BASE64
                        .decode(exact.as_bytes())
                        .map(Self)
                        .map_err(serde::de::Error::custom),
                    None => Ok(Self(fields.text.into_bytes())),
                }
            }
        }
    };
}

byte_field! {
    /// A path from the root of the mount.
    PathField, "path", "path_base64"
}
byte_field! {
    /// The path that something had before.
    FromPathField, "from_path", "from_path_base64"
}
byte_field! {
    /// Where something is to be put.
    ToPathField, "to_path", "to_path_base64"
}
byte_field! {
    /// What is searched for.
    QueryField, "query", "query_base64"
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// How the daemon is.
    Status,
    /// To make everything closed so far durable.
    Sync,
    /// The versions of a path.
    Log {
        /// Which.
        #[serde(flatten)]
        path: PathField,
    },
    /// The content of one version, as an open file that comes with its record.
    Cat {
        /// Of which path.
        #[serde(flatten)]
        path: PathField,
        /// Its number, the beginning of its digest, or `head`; the head if left out.
        #[serde(default)]
        version: Option<String>,
        /// What the path had then, in nanoseconds since 1970, instead of a version.
        #[serde(default)]
        at_ns: Option<i64>,
    },
    /// The digests of the files in a directory, or of one file.
    Manifest {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// As of when, in nanoseconds since 1970; now if left out.
        #[serde(default)]
        at_ns: Option<i64>,
    },
    /// Names that match.
    Search {
        /// The directory to look in.
        #[serde(flatten)]
        path: PathField,
        /// What to look for.
        #[serde(flatten)]
        filter: SearchFilter,
    },
    /// The log of changes.
    Changes {
        /// Changes of this path and of what is below it.
        #[serde(flatten)]
        path: PathField,
        /// Changes after this one; `None` for those to come.
        since: Option<Seq>,
        /// Whether to wait for more.
        follow: Follow,
        /// At most so many.
        #[serde(default)]
        limit: Option<u64>,
    },
    /// Who made the versions of a path.
    Blame {
        /// Which.
        #[serde(flatten)]
        path: PathField,
    },
    /// To bring something back.
    BringBack {
        /// What.
        #[serde(flatten)]
        what: BringBack,
        /// Whether to do it.
        run: Run,
    },
    /// To decide about history as the policy says, and drop what it does not keep.
    Prune {
        /// Of what is below this path, or has it; everything for the root.
        #[serde(flatten)]
        path: PathField,
        /// Whether anything is to go.
        mode: PruneMode,
        /// Whether the policy's cap holds.
        cap: PruneCap,
    },
    /// To mark a version.
    Mark {
        /// Of which path.
        #[serde(flatten)]
        path: PathField,
        /// Which, as for [`Request::Cat`].
        #[serde(default)]
        version: Option<String>,
        /// How.
        mark: Mark,
    },
    /// To compare the backing directory with the catalog.
    Reconcile {
        /// Whether to report until it is done.
        wait: Wait,
    },
    /// To read everything again and compare it with its digests.
    Verify(VerifyRequest),
}

/// Whether a prune drops anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PruneMode {
    /// It does.
    Drop,
    /// It only tells what it would do.
    DryRun,
}

/// Whether the cap on what one prune may drop holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PruneCap {
    /// It does.
    Holds,
    /// Somebody has seen what would go.
    Lifted,
}

/// What somebody wants of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// That its content stays.
    Pin,
    /// That it need not stay.
    Unpin,
    /// That this is said of it; nothing takes back what was said.
    Note(String),
}

/// What happens at the end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Follow {
    /// The answer ends.
    No,
    /// The answer goes on with what happens.
    Yes,
}

/// What is to be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum BringBack {
    /// A version of a file, or a file or directory as it was at a time.
    Restore {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// The version, as [`Request::Cat`] has it.
        #[serde(default)]
        version: Option<String>,
        /// The time, in nanoseconds since 1970, instead of a version.
        #[serde(default)]
        at_ns: Option<i64>,
        /// Where to, if not in place.
        #[serde(flatten)]
        to: Option<ToPathField>,
    },
    /// What was deleted.
    Undelete {
        /// What had this path.
        #[serde(flatten)]
        path: PathField,
    },
    /// A file or directory as it was at a time, and nothing else.
    Rewind {
        /// Which.
        #[serde(flatten)]
        path: PathField,
        /// When, in nanoseconds since 1970.
        at_ns: i64,
    },
    /// What somebody changed.
    Undo {
        /// At and below this path.
        #[serde(flatten)]
        path: PathField,
        /// Since when, in nanoseconds since 1970; ever, if left out.
        #[serde(default)]
        since_ns: Option<i64>,
        /// By which process.
        #[serde(default)]
        pid: Option<u32>,
        /// By which user: a name or number.
        #[serde(default)]
        user: Option<String>,
    },
}

/// Whether a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// It is only told.
    Plan,
    /// It is carried out.
    Do,
}

/// Whether a request returns before what it started is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// It does.
    No,
    /// It reports until it is done.
    Yes,
}

/// The last line of an answer that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct End {
    /// Records before this line.
    pub records: u64,
    /// How many of them lack the digest that was asked for.
    #[serde(default)]
    pub unknown: u64,
}

/// The last line of an answer that is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// What kind, for programs.
    pub code: FailureCode,
    /// What happened, for people.
    pub message: String,
}

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The request makes no sense.
    BadRequest,
    /// The catalog knows no such path.
    NotFound,
    /// The path is of a kind that has no such answer.
    WrongKind,
    /// The content of the version is lost.
    NotKept,
    /// The caller may not.
    Denied,
    /// Too much would go.
    Capped,
    /// Too many clients at once.
    Busy,
    /// Nothing serves the mount.
    NotRunning,
    /// The daemon could not.
    Internal,
}

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
