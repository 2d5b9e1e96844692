//! Compressing and decompressing frames, and telling beforehand what is not worth it.
//!
//! Owns the compression level and the limit of the entropy check. What photographs, films, archives and
//! ciphertexts have in common is that all byte values are equally frequent in them, which a look at a
//! few kilobytes shows at a fraction of the cost of trying.

use std::io;

use super::error::Fault;
use super::format::Coding;

/// The level of zstd; the documentation of [`pack`](super) says why.
pub(super) const LEVEL: i32 = 6;

/// Bits per byte from which on bytes are taken as incompressible.
const DENSE_BITS: f64 = 7.9;

/// How much is looked at, in bytes: this many from each of four places.
const SAMPLE: usize = 2048;

/// Bytes below which a look says nothing.
const TOO_FEW: usize = 512;

/// Whether the bytes look as if compression would gain nothing.
pub fn looks_dense(bytes: &[u8]) -> bool {
    if bytes.len() < TOO_FEW {
        return false;
    }
    let mut counts = [0u32; 256];
    let mut total = 0;
    // Beginnings are often tables or headers, unlike the rest.
    for part in bytes.chunks(bytes.len().div_ceil(4)) {
        let sample = &part[..part.len().min(SAMPLE)];
        sample.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        total += sample.len();
    }
    entropy(&counts, total) >= DENSE_BITS
}

/// Estimated bits per byte of the source of which a sample has these counts.
fn entropy(counts: &[u32; 256], total: usize) -> f64 {
    let total = total as f64;
    let mut seen = 0.0;
    let mut bits = 0.0;
    for count in counts.iter().filter(|count| **count > 0) {
        let share = f64::from(*count) / total;
        bits -= share * share.log2();
        seen += 1.0;
    }
    // Miller and Madow: a small sample looks more ordered than its source is.
    bits + (seen - 1.0) / (2.0 * total * std::f64::consts::LN_2)
}

/// Compresses one frame after the other.
pub(super) struct Encoder {
    zstd: zstd::bulk::Compressor<'static>,
    buffer: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { zstd: zstd::bulk::Compressor::new(LEVEL)?, buffer: Vec::new() })
    }

    /// The payload for `plain`: compressed if that is `wanted` and makes it at least a thirty-second
    /// smaller.
    pub(super) fn encode<'a>(
        &'a mut self,
        plain: &'a [u8],
        wanted: Coding,
    ) -> io::Result<(Coding, &'a [u8])> {
        if wanted == Coding::Plain {
            return Ok((Coding::Plain, plain));
        }
        self.buffer.clear();
        self.buffer.reserve(zstd::zstd_safe::compress_bound(plain.len()));
        let length = self.zstd.compress_to_buffer(plain, &mut self.buffer)?;
        if length <= plain.len() - plain.len() / 32 && length < plain.len() {
            Ok((Coding::Zstd, &self.buffer))
        } else {
            Ok((Coding::Plain, plain))
        }
    }
}

/// Decompresses one frame after the other.
pub(super) struct Decoder(zstd::bulk::Decompressor<'static>);

impl Decoder {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(zstd::bulk::Decompressor::new()?))
    }

    /// The items of a frame, `plain_bytes` long together.
    pub(super) fn decode(
        &mut self,
        coding: Coding,
        payload: &[u8],
        plain_bytes: u32,
    ) -> Result<Vec<u8>, Fault> {
        let length = plain_bytes as usize;
        let plain = match coding {
            Coding::Plain => payload.to_vec(),
            Coding::Zstd => {
                let mut plain = Vec::with_capacity(length);
                self.0.decompress_to_buffer(payload, &mut plain).map_err(|_| Fault::Compression)?;
                plain
            }
        };
        if plain.len() == length { Ok(plain) } else { Err(Fault::Inconsistent) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// Bytes that no compressor makes smaller.
    fn dense(length: usize) -> Vec<u8> {
        let blocks = (0..length.div_ceil(32) as u64).flat_map(|n| Sha256::digest(n.to_le_bytes()));
        blocks.take(length).collect()
    }

    #[test]
    fn dense_bytes_are_told_from_text_at_every_length() {
        let text = "fn main() { println!(\"{}\", 1 + 1); }\n".repeat(4000);
        for length in [0, 1, 100, 512, 2000, 10_000, 100_000] {
            assert!(!looks_dense(&text.as_bytes()[..length]), "{length}");
            assert!(!looks_dense(&vec![7; length]), "{length}");
            assert_eq!(looks_dense(&dense(length)), length >= TOO_FEW, "{length}");
        }
        // Hexadecimal digits of something random still carry only four bits each.
        let digits = data_encoding::HEXLOWER.encode(&dense(50_000));
        assert!(!looks_dense(digits.as_bytes()));
    }

    #[test]
    fn payloads_round_trip_compressed_or_not() {
        let mut encoder = Encoder::new().unwrap();
        let mut decoder = Decoder::new().unwrap();
        for (plain, expected) in [
            (dense(70_000), Coding::Plain),
            (b"a".repeat(70_000), Coding::Zstd),
            (b"a".to_vec(), Coding::Plain),
        ] {
            let (coding, payload) = encoder.encode(&plain, Coding::Zstd).unwrap();
            assert_eq!(coding, expected);
            let length = u32::try_from(plain.len()).unwrap();
            assert_eq!(decoder.decode(coding, payload, length).unwrap(), plain);
            assert!(decoder.decode(coding, payload, length - 1).is_err());
            assert!(decoder.decode(coding, payload, length + 1).is_err());
            assert!(decoder.decode(coding, &payload[..payload.len() - 1], length).is_err());
        }
    }
}
