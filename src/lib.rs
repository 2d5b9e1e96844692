//! Horace: a filesystem that remembers.
pub mod catalog;
pub mod clock;
pub mod config;
pub mod sys;
pub mod types;
