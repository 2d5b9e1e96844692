//! The Unix socket between the command line and the daemon.
//!
//! Owns both its ends: the registry by which clients find daemons, the protocol, the queries behind
//! it, and who may see what. Sits beside fuse under daemon: reads the catalog, and asks the mount
//! only through [`Host`], who also does what a request wants changed. Never changes anything itself.
//!
//! The same queries answer from the catalog file where no daemon runs ([`client::ask_catalog`]); who
//! can open that file sees everything in it.

mod access;
pub mod client;
pub mod lookup;
mod query;
pub mod records;
pub mod registry;
pub mod search;
mod server;
pub mod status;
pub mod verify;
pub mod wire;

pub use server::{Server, ServerConfig, ServerError};
pub use status::{
    BackupRecord, Host, LimitsRecord, MountStatus, Passthrough, PruneReport, PruneTotals,
    ReconcileProgress, ReconcileState, WatchRecord,
};
pub use verify::{VerifyProgress, VerifyRecord, VerifyRequest};
