//! What one post has in it.
//!
//! Owns which changes are of interest, and the body: records of `/api/v1/changes`, as many as are there and fit.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::json;
use uuid::Uuid;

use super::Webhook;
use crate::catalog::CatalogError;
use crate::query::records::ChangeRecord;
use crate::query::request::{Follow, PathField, Request};
use crate::query::{Listener, QueryError, Service, Sink};
use crate::sys::creds::{Actor, Identity};
use crate::timespec::rfc3339;
use crate::types::Seq;
use crate::types::path::is_below;

/// Changes that are looked at for one post.
const LOOKED_AT: u64 = 1000;
/// Bytes of records after which no more are added.
const ENOUGH: usize = 512 * 1024;

/// A part of the log.
pub(super) struct Batch {
    /// Where it ends.
    pub(super) until: Seq,
    /// When that change happened, in nanoseconds since 1970.
    pub(super) time_ns: i64,
    /// What is to be posted, if anything in it is of interest.
    pub(super) post: Option<Post>,
}

/// What is posted, each time the same.
pub(super) struct Post {
    /// By which a receiver knows that it has had it.
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// Reads on after a change, as root sees it.
pub(super) fn read(service: &Service, webhook: &Webhook, since: Seq) -> Result<Batch, QueryError> {
    // What comes while the log is read is for the next time.
    let (end, catalog) = service.catalog.read::<_, CatalogError>(|reader| {
        Ok((reader.seq()?, Uuid::from_bytes(reader.catalog_id()?)))
    })?;
    let request = Request::Changes {
        path: PathField::default(),
        since: Some(since),
        follow: Follow::No,
        limit: Some(LOOKED_AT),
    };
    let root = Identity { uid: 0, gid: 0, groups: Vec::new() };
    let root = Actor { identity: root, pid: 0 };
    let mut chosen =
        Chosen { webhook, records: Vec::new(), first: None, last: since, looked_at: 0 };
    match service.answer(&root, &request, &mut chosen, &Nobody) {
        Ok(_) => {}
        Err(QueryError::Sink(_)) if chosen.records.len() >= ENOUGH => {}
        Err(error) => return Err(error),
    }
    let is_all = chosen.looked_at < LOOKED_AT && chosen.records.len() < ENOUGH;
    let until = if is_all { chosen.last.max(end) } else { chosen.last };
    let time_ns =
        service.catalog.read_committed::<_, CatalogError>(|reader| reader.time_of(until))?;
    let post = chosen.first.map(|first| Post {
        id: format!("{}-{first}-{}", catalog.simple(), chosen.last),
        body: body(webhook, (first, chosen.last), time_ns, &chosen.records),
    });
    Ok(Batch { until, time_ns, post })
}

/// The body of a post, as the specification of Standard Webhooks has it.
fn body(webhook: &Webhook, (first, last): (Seq, Seq), time_ns: i64, records: &[u8]) -> Bytes {
    let head = json!({
        "type": "changes",
        "timestamp": rfc3339(time_ns),
        "data": { "webhook": webhook.name, "first": first, "last": last, "items": [] },
    });
    let head = head.to_string().into_bytes();
    // The records are JSON already.
    let at = head.windows(2).position(|two| two == b"[]").map_or(head.len(), |at| at + 1);
    let (head, tail) = head.split_at(at);
    [head, records, tail].concat().into()
}

/// The changes that are of interest, with commas between them.
struct Chosen<'c> {
    webhook: &'c Webhook,
    records: Vec<u8>,
    first: Option<Seq>,
    last: Seq,
    looked_at: u64,
}

impl Sink for Chosen<'_> {
    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.records.len() >= ENOUGH {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let change: ChangeRecord = serde_json::from_slice(line)?;
        self.looked_at += 1;
        self.last = change.seq;
        if is_wanted(self.webhook, &change) {
            if self.first.is_some() {
                self.records.push(b',');
            }
            self.first.get_or_insert(change.seq);
            self.records.extend_from_slice(line);
        }
        Ok(())
    }
}

fn is_wanted(webhook: &Webhook, change: &ChangeRecord) -> bool {
    let paths = [change.path.as_ref().map(|p| &p.0), change.from_path.as_ref().map(|p| &p.0)];
    let mut paths = paths.into_iter().flatten();
    let is_there = webhook.below.is_empty()
        || paths.any(|path| webhook.below.iter().any(|top| is_below(path, top.as_bytes())));
    is_there && (webhook.ops.is_empty() || webhook.ops.contains(&change.op))
}

/// Who does not wait.
struct Nobody;

impl Listener for Nobody {
    fn is_gone(&self, _: Duration) -> io::Result<bool> {
        Ok(true)
    }
}
