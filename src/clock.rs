//! The only reader of the clock.
//!
//! Owns the conversion from the system clock to integer nanoseconds. Everything else takes the
//! time as an argument, so that tests can set it and policies stay pure.
#![expect(clippy::disallowed_methods, reason = "this module is the owner of the clock")]

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01 UTC, negative before; saturates in 1677 and 2262.
pub fn now_ns() -> i64 {
    let saturate = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => saturate(after),
        Err(before) => -saturate(before.duration()),
    }
}

/// How many nanoseconds the clock is ahead of a time that nobody sets: it stays the same, but for what reading two
/// clocks takes, until somebody sets the clock or the machine sleeps.
pub fn ahead_ns() -> i64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let running = i64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(i64::MAX);
    now_ns().saturating_sub(running)
}
