//! Packs: many contents in few files, each chunk of them once, compressed.
//!
//! Owns a directory of pack files. A content is named by its SHA-256; it is cut into chunks where its own
//! bytes say so ([`chunk`](super::chunk)), and a chunk that is in any pack already is not stored again.
//! Never knows who needs a content, or since when: the index of chunks is handed in as a [`ChunkIndex`],
//! and so is what is still alive. Never changes a pack once it has its name.
//!
//! # On disk
//! `<sha-256 of the file>.pack`, so that `sha256sum` alone can check a pack and no name is ever used twice.
//! A pack is a header, frames, an index and a footer ([`mod@format`] has the bytes). A *frame* is some 256 KiB of
//! items of one kind, compressed together, with checksums of its own: it is what is read, decompressed and
//! lost at a time. The index of a pack repeats what the frames say, for those who have lost theirs
//! ([`PackFile::index`]); if it is damaged too, [`PackFile::scan`] computes it from the frames. A content
//! of one chunk *is* that chunk; a longer one has a [`recipe`], which lies in a frame like the chunks.
//!
//! # Durable steps, and a crash between them
//! Packing: (1) the pack is written as `N.tmp`, (2) synced, (3) renamed to its digest, (4) the directory
//! synced, (5) the index told, (6) the name of each content given back, whose loose copy may go now.
//! A crash before (3) leaves a file that [`PackDir::open`] removes; between (3) and (5) a pack that nobody
//! knows, which [`recover()`] makes known; after (5) loose copies of what is packed. Nothing is lost in any
//! case, since loose copies go last.
//!
//! Cleaning up: (1) to (4) for the new packs, (5) one change of the index that knows the new ones and
//! forgets the old ones, (6) the old ones are removed. A crash between (4) and (6) leaves packs that nobody
//! knows. [`recover()`] removes those of which everything is elsewhere, and makes known those that have
//! more: garbage, of which the next cleaning gets rid.
//!
//! # Damage
//! A damaged frame costs what is in it and nothing else; a damaged header, index or footer costs nothing,
//! since contents are read by the places in the catalog. Each [`PackError`] names pack, offset and
//! content. [`PackFile::check`] finds damage before somebody needs what is lost. A pack with damage is
//! never rewritten, so that what may be rescued from it is not destroyed.
//!
//! # Why
//! Measured on parts of the Linux sources 6.1.170, 176, 187 and 190 (88,359 files, 832 MB): the ratio of all
//! bytes to those stored, with recipes and indices, at zstd 9:
//!
//! | average chunk | dedup alone | chunks one by one | with a dictionary | in frames of 256 KiB |
//! | --- | --- | --- | --- | --- |
//! | 2 KiB | 3.77 | 8.9 | 10.9 | 14.1 |
//! | 4 KiB | 3.64 | 10.0 | 12.1 | 14.7 |
//! | **8 KiB** | 3.47 | 10.7 | 12.6 | **14.5** |
//! | 16 KiB | 3.28 | 10.9 | 12.7 | 14.0 |
//! | 64 KiB | 2.94 | 10.7 | 12.1 | 12.8 |
//! | 1 MiB | 2.76 | 10.4 | 11.6 | 12.1 |
//!
//! - *Frames, not dictionaries.* Small chunks compress badly alone. A dictionary of 112 KiB per pack repairs
//!   half of that, takes a second to train and is one place where damage costs the whole pack; frames repair
//!   more. What they cost is that a chunk is read by decompressing 256 KiB, a third of a millisecond, and
//!   that damage costs a frame. Frames of 512 KiB store 2 % less, of 128 KiB 4 % more.
//! - *Chunks of 8 KiB.* 4 KiB would gain 1 % and need half as many rows again in the catalog. Finer than that the
//!   names outweigh the chunks.
//! - *Coarse chunks* of 128 KiB for what begins like something compressed already, and above 1 GiB: a terabyte of
//!   photographs in chunks of 8 KiB would be 130 million rows. Four tar files of the same trees, whose
//!   headers all differ, show what coarseness costs where it is wrong: they dedup to 1.50 with 8 KiB, 1.15
//!   with 32 KiB, 1.00 with 1 MiB.
//! - *zstd 6.* Level 3 stores 10 % more, 9 stores 2 % less at half the speed, 12 is another 1 % less. All
//!   are read equally fast.
//! - *SHA-256 for chunks too*, although BLAKE3 is faster: so the name of a small content and that of its only
//!   chunk are the same, it needs no recipe, and is verified once.
//!
//! # Against others
//! `scripts/bench-packs` on the same trees; two EPYC cores shared with others, so speeds are of processor time,
//! in MB of content a second:
//!
//! | | MB | ratio | make | read the last version |
//! | --- | --- | --- | --- | --- |
//! | packs | 59.0 | 14.1 | 186 | 610 to 660 |
//! | packs and the index of chunks | 61.7 | 13.5 | | |
//! | restic 0.14, auto / max | 96.5 / 89.9 | 8.6 / 9.3 | 84 / 25 | 106 / 98 |
//! | borg 1.2, lz4 / zstd 6 | 137.2 / 87.3 | 6.1 / 9.5 | 89 / 32 | 112 / 85 |
//! | tar and zstd 6, each tree / all in one, `--long=30` | 178.3 / 47.1 | 4.7 / 17.7 | 74 / 169 | 955 / 993 |
//!
//! restic and borg store names and attributes too, which here are in the catalog with the places of
//! chunks. One stream of everything is smaller, but nothing in it can be read without what is before
//! it. Reading is half as fast as zstd alone (0.46 to 0.49 of it in one process, of up to 1340 MB/s): what
//! remains is SHA-256, 1.8 GB/s here. Packing and then reading takes 42 MB of memory in all.

mod cache;
pub mod check;
mod coding;
pub mod dir;
pub mod error;
mod fields;
pub mod file;
pub mod format;
mod frame;
pub mod gc;
pub mod index;
mod live;
pub mod pace;
pub mod packer;
pub mod reader;
pub mod recipe;
pub mod recover;
pub mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use check::Damage;
pub use coding::looks_dense;
pub use dir::{Maintenance, PackDir};
pub use error::PackError;
pub use file::{PackFile, Scan};
pub use gc::{GcPolicy, PackUsage, Verdict, choose, rewrite};
pub use index::{ChunkIndex, MemoryIndex, PackTotals};
pub use live::LiveSet;
pub use pace::Pace;
pub use packer::{Cuts, PackOptions, PackStats, Packer};
pub use reader::PackReader;
pub use recipe::Recipe;
pub use recover::{Recovery, learn, recover};
pub use types::{Entry, Key, PackId, PackIndex, Place};
