//! The Unix socket between the command line and the daemon.
//!
//! Owns both its ends: the registry by which clients find daemons, and the protocol. What is asked and
//! answered is [`query`](crate::query)'s.

pub mod client;
pub mod lookup;
pub mod registry;
mod server;
pub mod wire;

pub use server::{Server, ServerConfig, ServerError};
