//! Digests of files, read in large pieces.

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::types::ContentHash;

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Reads an open file from where it is to its end; `progress` hears of every piece how many bytes it had.
pub(super) fn digest_of(mut file: &File, progress: &dyn Fn(u64)) -> io::Result<ContentHash> {
    let length = file.metadata()?.len().clamp(4096, PIECE as u64);
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(PIECE)];
    let mut hasher = Sha256::new();
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.into()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                progress(read as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
