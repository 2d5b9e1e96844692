//! What programs expect of a filesystem. Most of it is done twice, in a plain directory and in a mount,
//! which must say the same.

mod acl;
mod actors;
mod append;
mod backings;
mod caches;
mod calls;
mod data;
mod direct;
mod errors;
mod figures;
mod flags;
mod full;
mod large;
mod lifetime;
mod link_max;
mod links;
mod listing;
mod locks;
mod mapped;
mod names;
mod opens;
mod operations;
mod ownership;
mod privileges;
mod programs;
mod special;
mod sync;
mod times;
mod watch;
mod xattr;
