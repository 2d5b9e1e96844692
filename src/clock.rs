//! The only reader of the clock.
//!
//! Owns the conversion from the system clock to integer nanoseconds. Everything else takes the
//! time as an argument, so that tests can set it and policies stay pure.
#![expect(clippy::disallowed_methods, reason = "this module is the owner of the clock")]

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970-01-01 UTC, negative before; saturates in 1677 and 2262.
pub fn now_ns() -> i64 {
    let saturate = |d: std::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => saturate(after),
        Err(before) => -saturate(before.duration()),
    }
}
