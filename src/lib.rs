//! Horace: a filesystem that remembers.
pub mod catalog;
pub mod clock;
pub mod sys;
pub mod types;
