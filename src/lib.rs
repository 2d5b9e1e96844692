//! Horace: a filesystem that remembers.
//!
//! It is mounted over a directory and passes every operation through to it; while programs write, it
//! hashes the bytes and commits a version when the file is closed. This page is the map.
//!
//! # Words
//! The *backing directory* is the real one, the *mount* is what users see. A *node* is an inode of
//! the mount, a *file* the catalog's identity of a document, an *entry* a name of a file over an
//! interval of *sequence numbers*, the catalog's clock. An *open session* is an open file handle; to
//! *seal* it is to fix its content and attributes as a *version*. The newest version of a live file
//! is its *head*: its content is the file itself. To *preserve* it is to keep that content before something
//! destroys it, as an *object* in the *store*. A *writer* is who caused a change.
//!
//! # Layers
//! Imports go to the right only:
//!
//! ```text
//! main > cli > daemon > fuse > fs > pruning > retention      > timespec, sizespec, globspec
//!                               fs > content > catalog, store > sys > types, causes, clock, config, file_id, ...
//!                     > control > query > restore > content > catalog, store > sys > ...
//! ```
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`fuse`] | requests of the kernel: decode, call `fs`, reply; mounting |
//! | [`fs`] | what each operation does on the backing directory; sessions, seals, the walk and the watch; views of the past |
//! | [`catalog`] | the temporal tree in SQLite: one writer, many readers |
//! | [`store`] | preserved content, by its digest |
//! | [`content`] | the way from a version to its bytes |
//! | [`restore`] | what is to be done to bring things back, and doing it by what the daemon hands in |
//! | [`pruning`] | what the policy decides about the history in the catalog |
//! | [`retention`] | which history is kept and which goes, with a reason each; pure |
//! | [`query`] | what can be asked of a mount, who may see what, and the records of the answers |
//! | [`control`] | the Unix socket between the command line and the daemon |
//! | [`migrate`] | moving in: a tree copied and compared, and a predecessor's history |
//! | [`snapshots`] | the snapshots of the backing filesystem: what they are called, how they are taken and destroyed |
//! | [`webhooks`] | changes that are posted to others, and how far that is |
//! | [`daemon`] | the only wiring: start, serve, stop, in order |
//! | [`cli`] | one file per command |
//! | [`sys`] | raw system calls, the only `unsafe` |
//!
//! Writes go one way: kernel → `fuse` → `fs` → backing directory, and in the same operation `fs` →
//! `catalog`, and before it, where content would be lost, `fs` → `store`. Everyone else reads the catalog, and `fs` never waits for a reader.
//!
//! # How a file is opened
//! | open | kernel flags | why |
//! | --- | --- | --- |
//! | for reading | passthrough, no flush | the kernel reads the backing file itself |
//! | new or truncated, write-only | direct I/O | each write passes us and is hashed on its way |
//! | for appending, changed in place, or readable too | passthrough | the kernel writes; the file is read for its digest when it is closed |
//! | without kernel passthrough | cached reads, direct writes | the same semantics, slower |
//!
//! A handle that can read and write can be mapped, and a store to a mapping is seen by nobody; so
//! only write-only streams prove what is in the file, and everything else is read again.
//!
//! # Why sessions, not paths
//! Whoever watches paths mixes up files that are renamed, saved atomically or reused. Here an event
//! names inodes by number and generation, in the order in which the kernel had them done, and the
//! rules that make files and versions of them stand in one place, the catalog's `apply`.

#[macro_use]
mod serde_text;

pub mod api;
pub mod catalog;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod control;
pub mod daemon;
pub mod file_id;
pub mod fs;
pub mod fuse;
pub mod globspec;
pub mod jsonfile;
pub mod keys;
pub mod metrics;
pub mod migrate;
pub mod pruning;
pub mod query;
pub mod restore;
pub mod retention;
pub mod sizespec;
pub mod snapshots;
pub mod store;
pub mod sys;
pub mod timespec;
pub mod types;
pub mod webhooks;
