//! The bytes of a pack: header, heads of frames, index, footer. Pure encoding and decoding.
//!
//! ```text
//! header   magic "HoracePk", version u16, zero u16, CRC-32 of the 12 bytes before
//! frame*   head     magic "HoFr", sort u8, coding u8, zero u16, count u32, plain bytes u32,
//!                   stored bytes u32, CRC-32 of table and payload, CRC-32 of the 24 bytes before
//!          table    the length u32 of each item, in order
//!          payload  the items one after the other, as they are (coding 0) or as one zstd frame (1)
//! index    per frame: offset u32, length u32, sort u8, count u32,
//!                   then per item its hash (32 bytes) and its length u32
//! footer   offset of the index u32, its length u32, its CRC-32,
//!          CRC-32 of the 12 bytes before, magic "kPecaroH"
//! ```
//!
//! Numbers are little-endian. The hashes are in the index alone: they take as much room as a small
//! chunk, and a scan computes them from the frames (of a recipe it reads them, see
//! [`recipe`](super::recipe)), so that an index rebuilt by a scan is one that has been verified.

use super::error::Fault;
use super::fields::{Fields, put_u32};
use super::types::{Entry, Key, PackId, Place, Sort};

/// The version that is written and the latest that is read.
pub const VERSION: u16 = 1;

/// Length of the header.
pub(super) const HEADER_BYTES: usize = 16;
/// Length of the footer.
pub(super) const FOOTER_BYTES: usize = 24;
/// Length of a frame's head.
pub(super) const HEAD_BYTES: usize = 28;
/// Begins each frame.
pub(super) const FRAME_MAGIC: [u8; 4] = *b"HoFr";
/// No frame is larger when decompressed: what damaged numbers can make us allocate.
pub(super) const MAX_PLAIN_BYTES: u32 = 16 << 20;

const HEADER_MAGIC: [u8; 8] = *b"HoracePk";
const FOOTER_MAGIC: [u8; 8] = *b"kPecaroH";

/// How the payload of a frame is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Plain,
    /// As one zstd frame.
    Zstd,
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sort: Sort,
    pub(super) coding: Coding,
    /// How many items it has.
    pub(super) count: u32,
    /// Length of the items together.
    pub(super) plain_bytes: u32,
    /// Length of the payload.
    pub(super) stored_bytes: u32,
    /// CRC-32 of the table and the payload.
    pub(super) body_crc: u32,
}

impl Head {
    /// Length of the whole frame, as long as the numbers are those of a frame that can be.
    pub(super) fn frame_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.count) * 4 + u64::from(self.stored_bytes)
    }

    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&[
            self.sort.code(),
            matches!(self.coding, Coding::Zstd).into(),
            0,
            0,
        ]);
        for number in [self.count, self.plain_bytes, self.stored_bytes, self.body_crc] {
            put_u32(&mut out, number);
        }
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        let mut head = [0; HEAD_BYTES];
        head.copy_from_slice(&out);
        head
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let bytes = bytes.get(..HEAD_BYTES).ok_or(Fault::CutOff)?;
        if !bytes.starts_with(&FRAME_MAGIC) {
            return Err(Fault::NotThere);
        }
        let (checked, crc) = bytes.split_at(HEAD_BYTES - 4);
        if crc != crc32fast::hash(checked).to_le_bytes() {
            return Err(Fault::Checksum);
        }
        let head = Self::decode_checked(Fields(&checked[4..])).ok_or(Fault::Inconsistent)?;
        // Each item has at least one byte.
        if head.plain_bytes > MAX_PLAIN_BYTES
            || head.stored_bytes > MAX_PLAIN_BYTES
            || head.count > head.plain_bytes
        {
            return Err(Fault::Inconsistent);
        }
        Ok(head)
    }

    fn decode_checked(mut fields: Fields<'_>) -> Option<Self> {
        let sort = Sort::from_code(fields.u8()?)?;
        let coding = match fields.u8()? {
            0 => Coding::Plain,
            1 => Coding::Zstd,
            _ => return None,
        };
        fields.u16()?;
        Some(Self {
            sort,
            coding,
            count: fields.u32()?,
            plain_bytes: fields.u32()?,
            stored_bytes: fields.u32()?,
            body_crc: fields.u32()?,
        })
    }
}

/// The header of every pack.
pub(super) fn header() -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    out[..8].copy_from_slice(&HEADER_MAGIC);
    out[8..10].copy_from_slice(&VERSION.to_le_bytes());
    let crc = crc32fast::hash(&out[..12]);
    out[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Says what is wrong with a header.
pub(super) fn check_header(bytes: &[u8]) -> Result<(), Fault> {
    let bytes = bytes.get(..HEADER_BYTES).ok_or(Fault::CutOff)?;
    if !bytes.starts_with(&HEADER_MAGIC) {
        return Err(Fault::NotThere);
    }
    if crc32fast::hash(&bytes[..12]).to_le_bytes() != bytes[12..] {
        return Err(Fault::Checksum);
    }
    match u16::from_le_bytes([bytes[8], bytes[9]]) {
        VERSION => Ok(()),
        later => Err(Fault::Version(later)),
    }
}

/// Where the index is and what its checksum must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) index_offset: u32,
    pub(super) index_bytes: u32,
    pub(super) index_crc: u32,
}

impl Footer {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        for number in [self.index_offset, self.index_bytes, self.index_crc] {
            put_u32(&mut out, number);
        }
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        out.extend_from_slice(&FOOTER_MAGIC);
        out
    }

    /// Decodes the last bytes of a pack of `size_bytes`.
    pub(super) fn decode(bytes: &[u8], size_bytes: u64) -> Result<Self, Fault> {
        let bytes: &[u8; FOOTER_BYTES] = bytes.try_into().map_err(|_| Fault::CutOff)?;
        if !bytes.ends_with(&FOOTER_MAGIC) {
            return Err(Fault::NotThere);
        }
        if crc32fast::hash(&bytes[..12]).to_le_bytes() != bytes[12..16] {
            return Err(Fault::Checksum);
        }
        let mut fields = Fields(bytes);
        let mut next = || fields.u32().ok_or(Fault::CutOff);
        let footer = Self { index_offset: next()?, index_bytes: next()?, index_crc: next()? };
        let end = u64::from(footer.index_offset) + u64::from(footer.index_bytes);
        if end + FOOTER_BYTES as u64 == size_bytes { Ok(footer) } else { Err(Fault::Inconsistent) }
    }
}

/// Encodes an index. The entries must be in the order in which they lie in the pack.
pub(super) fn encode_index(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 37);
    for frame in entries.chunk_by(|a, b| a.place.frame == b.place.frame) {
        let Entry { key, place } = frame[0];
        put_u32(&mut out, place.frame);
        put_u32(&mut out, place.frame_bytes);
        out.push(key.sort.code());
        // An item has at least a byte, and a pack less than 4 GiB.
        put_u32(&mut out, u32::try_from(frame.len()).unwrap_or(u32::MAX));
        for entry in frame {
            out.extend_from_slice(entry.key.hash.as_bytes());
            put_u32(&mut out, entry.place.length);
        }
    }
    out
}

/// Where the index has what is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameEntry {
    /// Offset of the frame in the pack.
    pub(super) frame: u32,
    /// Offset of its part of the index in the pack.
    pub(super) at: u64,
    /// Length of that part.
    pub(super) length: usize,
}

/// Finds the parts of an index that begins at `at`, in the order of frames; `None` if it contradicts
/// itself. Each part is itself an index.
pub(super) fn index_table(at: u64, bytes: &[u8]) -> Option<Vec<FrameEntry>> {
    const ITEM_BYTES: usize = 36;
    let mut fields = Fields(bytes);
    let mut table = Vec::new();
    while !fields.0.is_empty() {
        let before = fields.0.len();
        let (frame, _, _) = (fields.u32()?, fields.u32()?, fields.u8()?);
        let count = fields.u32()? as usize;
        fields.bytes(count.checked_mul(ITEM_BYTES)?)?;
        let at = at + (bytes.len() - before) as u64;
        table.push(FrameEntry { frame, at, length: before - fields.0.len() });
    }
    table.sort_unstable_by_key(|entry| entry.frame);
    Some(table)
}

/// Decodes the index of `pack`; `None` if it contradicts itself.
pub(super) fn decode_index(pack: PackId, bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut fields = Fields(bytes);
    let mut entries = Vec::new();
    while !fields.0.is_empty() {
        let (frame, frame_bytes) = (fields.u32()?, fields.u32()?);
        let sort = Sort::from_code(fields.u8()?)?;
        let mut start = 0u32;
        for _ in 0..fields.u32()? {
            let key = Key { sort, hash: fields.hash()? };
            let length = fields.u32()?;
            entries.push(Entry { key, place: Place { pack, frame, frame_bytes, start, length } });
            start = start.checked_add(length)?;
        }
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ContentHash;

    #[test]
    fn heads_round_trip_and_every_flipped_bit_shows() {
        let head = Head {
            sort: Sort::Recipe,
            coding: Coding::Zstd,
            count: 3,
            plain_bytes: 300,
            stored_bytes: 200,
            body_crc: 0x1234_5678,
        };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes), Ok(head));
        assert_eq!(head.frame_bytes(), 28 + 12 + 200);
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn headers_and_footers_round_trip_and_every_flipped_bit_shows() {
        let footer = Footer { index_offset: 100, index_bytes: 50, index_crc: 7 };
        let bytes = footer.encode();
        assert_eq!(bytes.len(), FOOTER_BYTES);
        assert_eq!(Footer::decode(&bytes, 174), Ok(footer));
        assert_eq!(Footer::decode(&bytes, 175), Err(Fault::Inconsistent));
        assert_eq!(check_header(&header()), Ok(()));
        for bit in 0..FOOTER_BYTES * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bytes, 174).is_err(), "bit {bit}");
        }
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = header();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(check_header(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_later_format_says_so() {
        let mut bytes = header();
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check_header(&bytes), Err(Fault::Version(2)));
    }

    #[test]
    fn an_index_round_trips_and_does_not_end_early() {
        let pack = PackId(ContentHash::EMPTY);
        let entry = |sort, frame, start, length| Entry {
            key: Key { sort, hash: ContentHash::EMPTY },
            place: Place { pack, frame, frame_bytes: 90, start, length },
        };
        let entries = vec![
            entry(Sort::Chunk, 16, 0, 10),
            entry(Sort::Chunk, 16, 10, 20),
            entry(Sort::Recipe, 106, 0, 5),
        ];
        let bytes = encode_index(&entries);
        assert_eq!(decode_index(pack, &bytes), Some(entries.clone()));
        assert_eq!(decode_index(pack, &bytes[..bytes.len() - 1]), None);
        let table = index_table(1000, &bytes).unwrap();
        let part = |entry: &FrameEntry| {
            let at = usize::try_from(entry.at).unwrap() - 1000;
            decode_index(pack, &bytes[at..at + entry.length]).unwrap()
        };
        assert_eq!(table.iter().map(|entry| entry.frame).collect::<Vec<_>>(), [16, 106]);
        assert_eq!(table.iter().flat_map(part).collect::<Vec<_>>(), entries);
        assert_eq!(index_table(1000, &bytes[..bytes.len() - 1]), None);
    }
}
