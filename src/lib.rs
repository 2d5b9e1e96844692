//! Horace: a filesystem that remembers.
pub mod catalog;
pub mod clock;
pub mod config;
pub mod control;
pub mod file_id;
pub mod sys;
pub mod timespec;
pub mod types;
