//! What users and other programs see of a mount, tried on real mounts.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "these are tests"
)]

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/mounted.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod mounted;
#[path = "../support/pool.rs"]
mod pool;
#[path = "../support/strace.rs"]
mod strace;

mod api;
mod bypass;
mod callers;
mod commands;
mod configured;
mod damage;
mod export;
mod faults;
mod fstab;
mod hashing;
mod hidden;
mod interleaved;
mod keep;
mod layers;
mod load;
mod logs;
mod mapped;
mod mapping;
mod migrate;
mod names;
mod packs;
mod parsers;
mod posix;
mod pressure;
mod prune;
mod rebuild;
mod reconcile;
mod resources;
mod restart;
mod restore;
mod rights;
mod rollback;
mod runbook;
mod saves;
mod scale;
mod search;
mod snapshots;
mod stress;
mod tools;
mod trouble;
mod upgrade;
mod users;
mod verify;
mod views;
mod work;
