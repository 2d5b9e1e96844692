//! Every raw system call, and the only `unsafe`.
//!
//! Owns the calls that rustix has no safe wrapper for, one per function, and small safe helpers
//! around those it has. Knows nothing of catalogs or versions. Errors are the kernel's own.

pub mod alloc;
pub mod btrfs;
pub mod creds;
pub mod dir;
pub mod extents;
pub mod fanotify;
pub mod fuse_dev;
pub mod handle;
pub mod lease;
pub mod mounts;
pub mod privileges;
pub mod process;
pub mod sqlite;
pub mod stat;
pub mod tcp;
pub mod users;
pub mod writeback;
pub mod xattr;
pub mod zfs;

pub use rustix::io::Errno;
