//! Moving in: a directory of somebody else's copied, compared, and its history taken over.
//!
//! Owns what `horace migrate` looks at and does. Never changes anything of where it moves from, and nothing
//! of where it moves to but what it copies there; whoever calls it holds the lock on that directory.
//!
//! # Order of durable steps
//! `mark that names the move → copy → sync → compare → catalog with the history → mark that says how it went`.
//! After a crash at any point the same move goes on: files that are there already are not copied again,
//! everything is compared again, and the catalog is made anew, unless a mount has used it.

pub mod advice;
pub mod compare;
pub mod copy;
pub mod history;
pub mod import;
pub mod mark;
pub mod place;
pub mod plan;
pub mod survey;
pub mod zfs;

mod digest;

/// What belongs to Horace in a directory, and is neither copied nor compared.
const OWN_DIR: &str = ".horace";

/// What some filesystems have in their roots for themselves.
const LOST_FOUND: &str = "lost+found";
