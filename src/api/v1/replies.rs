//! Requests that are done once, however often they come.
//!
//! Owns the answers of those that had an `Idempotency-Key`, for who did not get theirs: the newest ones, in memory.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use super::super::problem::{Code, Problem};
use super::restore::Steps;

/// Answers that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Answers that somebody may ask for again.
#[derive(Debug)]
pub(in crate::api) struct Replies(Mutex<LruCache<String, Reply>>);

impl Default for Replies {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

#[derive(Debug, Clone)]
struct Reply {
    /// What was asked.
    request: String,
    /// What was answered; nothing while it is being done.
    steps: Option<Steps>,
}

impl Replies {
    /// The answer that a key had, or nothing if it is new: then it is to be done, and [`end`](Self::end) to be told.
    pub(super) fn begin(&self, key: &str, request: &str) -> Result<Option<Steps>, Problem> {
        let mut replies = self.0.lock();
        match replies.get(key) {
            None => {
                replies.put(key.to_owned(), Reply { request: request.to_owned(), steps: None });
                Ok(None)
            }
            Some(reply) if reply.request != request => {
                let detail = "this `Idempotency-Key` was for another request";
                Err(Problem::new(Code::Unprocessable, detail))
            }
            Some(Reply { steps: Some(steps), .. }) => Ok(Some(steps.clone())),
            Some(_) => Err(Problem::new(Code::Conflict, "that request is still being done")),
        }
    }

    /// Remembers what was answered; what failed may be tried again.
    pub(super) fn end(&self, key: &str, done: Result<&Steps, &Problem>) {
        let mut replies = self.0.lock();
        match done {
            Ok(steps) => {
                if let Some(reply) = replies.get_mut(key) {
                    reply.steps = Some(steps.clone());
                }
            }
            Err(_) => drop(replies.pop(key)),
        }
    }
}
