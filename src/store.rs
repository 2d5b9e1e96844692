//! Preserved content: what versions had that are no heads any more.
//!
//! Owns `.horace/store/` in the backing directory, which is root's alone. Knows contents by their
//! digests and nothing of files or versions: whose they are, the catalog knows.

pub mod chunk;
pub mod objects;
pub mod pack;
mod packs;
pub mod staging;

pub use objects::{Store, StoreError};
pub use packs::{Packed, Packs};
