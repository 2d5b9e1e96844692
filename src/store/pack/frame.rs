//! Frames: small items that are stored, compressed and read together.
//!
//! Owns the checks of frames. In memory a frame is its items one after the other;
//! [`format`](super::format) has the bytes on disk.

use std::io;

use super::coding::{Decoder, Encoder};
use super::error::Fault;
use super::fields::Fields;
use super::format::{Coding, HEAD_BYTES, Head};
use super::types::{Key, Sort};
use crate::types::ContentHash;

/// A frame that is being filled.
pub(super) struct FrameBuilder {
    sort: Sort,
    wanted: Coding,
    items: Vec<(Key, u32)>,
    plain: Vec<u8>,
}

impl FrameBuilder {
    pub(super) fn new(sort: Sort, wanted: Coding) -> Self {
        Self { sort, wanted, items: Vec::new(), plain: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn plain_bytes(&self) -> usize {
        self.plain.len()
    }

    pub(super) fn push(&mut self, key: Key, length: u32, bytes: &[u8]) {
        self.items.push((key, length));
        self.plain.extend_from_slice(bytes);
    }

    /// Hands the encoded frame and its items to `put`, and is empty afterwards.
    pub(super) fn drain<T>(
        &mut self,
        encoder: &mut Encoder,
        put: impl FnOnce(&[u8], &[(Key, u32)]) -> T,
    ) -> io::Result<T> {
        let (coding, payload) = encoder.encode(&self.plain, self.wanted)?;
        let mut frame = vec![0; HEAD_BYTES];
        frame.reserve(self.items.len() * 4 + payload.len());
        self.items.iter().for_each(|(_, length)| frame.extend_from_slice(&length.to_le_bytes()));
        frame.extend_from_slice(payload);
        let number = |n: usize| u32::try_from(n).map_err(|_| io::ErrorKind::FileTooLarge);
        let head = Head {
            sort: self.sort,
            coding,
            count: number(self.items.len())?,
            plain_bytes: number(self.plain.len())?,
            stored_bytes: number(payload.len())?,
            body_crc: crc32fast::hash(&frame[HEAD_BYTES..]),
        };
        frame[..HEAD_BYTES].copy_from_slice(&head.encode());
        let result = put(&frame, &self.items);
        self.items.clear();
        self.plain.clear();
        Ok(result)
    }
}

/// A decompressed frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) sort: Sort,
    pub(super) plain: Box<[u8]>,
    /// The length of each item.
    lengths: Vec<u32>,
}

impl Frame {
    /// Decodes the bytes of a whole frame.
    pub(super) fn decode(bytes: &[u8], decoder: &mut Decoder) -> Result<Self, Fault> {
        let (head, body) = check(bytes)?;
        let mut fields = Fields(body);
        let table = (0..head.count).map(|_| fields.u32());
        let lengths = table.collect::<Option<Vec<u32>>>().ok_or(Fault::Inconsistent)?;
        let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
        if total != u64::from(head.plain_bytes) {
            return Err(Fault::Inconsistent);
        }
        let plain = decoder.decode(head.coding, fields.0, head.plain_bytes)?.into_boxed_slice();
        Ok(Self { sort: head.sort, plain, lengths })
    }

    /// The items with the offset of each.
    pub(super) fn items(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let mut rest = Fields(&self.plain);
        let mut start = 0;
        self.lengths.iter().map_while(move |length| {
            let item = (start, rest.bytes(*length as usize)?);
            start += length;
            Some(item)
        })
    }

    /// The bytes of one item.
    pub(super) fn item(&self, start: u32, length: u32) -> Option<&[u8]> {
        self.plain.get(start as usize..)?.get(..length as usize)
    }
}

/// Checks the checksums of a whole frame; returns its head and what follows it.
pub(super) fn check(bytes: &[u8]) -> Result<(Head, &[u8]), Fault> {
    let head = Head::decode(bytes)?;
    if bytes.len() as u64 != head.frame_bytes() {
        return Err(Fault::Inconsistent);
    }
    let body = &bytes[HEAD_BYTES..];
    if crc32fast::hash(body) != head.body_crc {
        return Err(Fault::Checksum);
    }
    Ok((head, body))
}

/// The name of an item as its own bytes tell it.
pub(super) fn name(sort: Sort, item: &[u8]) -> Option<Key> {
    match sort {
        Sort::Chunk => Some(Key::chunk(hash(item))),
        Sort::Recipe => Fields(item).hash().map(Key::recipe),
    }
}

/// The SHA-256 of some bytes.
pub(super) fn hash(bytes: &[u8]) -> ContentHash {
    let digest: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(bytes).into();
    ContentHash::new(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_and_every_flipped_byte_shows() {
        let items: [&[u8]; 3] = [b"one", b"two and more, two and more, two and more", b"3"];
        let mut builder = FrameBuilder::new(Sort::Chunk, Coding::Zstd);
        for item in items {
            builder.push(Key::chunk(hash(item)), u32::try_from(item.len()).unwrap(), item);
        }
        let mut encoder = Encoder::new().unwrap();
        let bytes = builder.drain(&mut encoder, |bytes, _| bytes.to_vec()).unwrap();
        assert!(builder.is_empty());
        let mut decoder = Decoder::new().unwrap();
        let frame = Frame::decode(&bytes, &mut decoder).unwrap();
        assert!(frame.items().map(|(_, item)| item).eq(items));
        let (start, item) = frame.items().nth(2).unwrap();
        assert_eq!(frame.item(start, 1), Some(item));
        assert_eq!(frame.item(start, 2), None);
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x20;
            Frame::decode(&bytes, &mut decoder).unwrap_err();
            assert!(Frame::decode(&bytes[..at], &mut decoder).is_err());
        }
    }
}
