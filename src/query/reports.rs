//! Reports: what takes the space, what is there twice, and who writes.
//!
//! Owns the sums. Each takes a walk or a pass over the log, a second or so for a million of files or changes,
//! and needs memory for what it tells, not for what it looks at.

pub mod duplicates;
pub mod usage;
pub mod writers;
