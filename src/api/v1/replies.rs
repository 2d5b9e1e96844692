//! Requests that are done once, however often they come.
//!
//! Owns the answers of those that had an `Idempotency-Key`, for who did not get theirs: the newest ones, in memory, as
//! many as there is room for.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use super::super::problem::{Code, Problem};
use super::restore::Steps;

/// Answers that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Steps in all of them together; the newest answer stays, however many it has.
const STEPS: usize = 50_000;

/// Answers that somebody may ask for again.
#[derive(Debug)]
pub(in crate::api) struct Replies(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    replies: LruCache<String, Reply>,
    /// Steps of all replies.
    steps: usize,
}

impl Default for Replies {
    fn default() -> Self {
        Self(Mutex::new(Remembered { replies: LruCache::new(REMEMBERED), steps: 0 }))
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
        let mut remembered = self.0.lock();
        match remembered.replies.get(key) {
            None => {
                remembered.begin(key, request);
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
        let mut remembered = self.0.lock();
        match done {
            Ok(steps) => remembered.end(key, steps),
            Err(_) => drop(remembered.replies.pop(key)),
        }
    }
}

impl Remembered {
    fn begin(&mut self, key: &str, request: &str) {
        let reply = Reply { request: request.to_owned(), steps: None };
        if let Some((_, oldest)) = self.replies.push(key.to_owned(), reply) {
            self.steps -= oldest.len();
        }
    }

    fn end(&mut self, key: &str, steps: &Steps) {
        let Some(reply) = self.replies.get_mut(key) else { return };
        reply.steps = Some(steps.clone());
        self.steps += reply.len();
        while self.steps > STEPS
            && self.replies.len() > 1
            && let Some((_, oldest)) = self.replies.pop_lru()
        {
            self.steps -= oldest.len();
        }
    }
}

impl Reply {
    fn len(&self) -> usize {
        self.steps.as_ref().map_or(0, Steps::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(replies: &Replies, key: &str, steps: usize) {
        assert!(replies.begin(key, "request").unwrap().is_none());
        replies.end(key, Ok(&Steps::of(steps)));
    }

    fn known(replies: &Replies, key: &str) -> Option<usize> {
        let found = replies.begin(key, "request").unwrap();
        if found.is_none() {
            replies.end(key, Err(&Problem::new(Code::Conflict, "forget it")));
        }
        found.map(|steps| steps.len())
    }

    #[test]
    fn the_newest_are_remembered_as_long_as_there_is_room() {
        let replies = Replies::default();
        answer(&replies, "a", STEPS / 2);
        answer(&replies, "b", STEPS / 2);
        assert_eq!(known(&replies, "a"), Some(STEPS / 2));
        answer(&replies, "c", 1);
        let of = ["a", "b", "c"].map(|key| known(&replies, key));
        assert_eq!(of, [Some(STEPS / 2), None, Some(1)], "b was asked for longest ago");
        answer(&replies, "d", STEPS * 2);
        let of = ["a", "c", "d"].map(|key| known(&replies, key));
        assert_eq!(of, [None, None, Some(STEPS * 2)]);
        for n in 0..2 * REMEMBERED.get() {
            answer(&replies, &n.to_string(), 10);
        }
        assert_eq!(replies.0.lock().steps, 10 * REMEMBERED.get());
        assert_eq!((known(&replies, "d"), known(&replies, "0")), (None, None));
    }
}
