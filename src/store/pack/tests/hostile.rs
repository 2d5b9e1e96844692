//! Bytes that no packer made, with the right checksums where these would else be all that is tried.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::coding::{Decoder, Encoder};
use super::super::format::{
    Coding, FOOTER_BYTES, Footer, HEAD_BYTES, Head, MAX_PLAIN_BYTES, check_header, decode_index,
    index_table,
};
use super::super::frame::{Frame, FrameBuilder};
use super::super::recipe::{Recipe, decode_list};
use super::super::types::Sort;
use super::*;

/// Has everything decode the bytes.
fn decode_all(bytes: &[u8]) {
    let pack = PackId(ContentHash::EMPTY);
    let _ = check_header(bytes);
    let _ = Head::decode(bytes);
    for size in [0, bytes.len() as u64, u64::MAX] {
        let _ = Footer::decode(bytes, size);
        let _ = decode_list(bytes, size);
    }
    let whole = decode_index(pack, bytes);
    let table = index_table(u64::from(u32::MAX), bytes);
    assert!(whole.is_none() || table.is_some(), "parts of what is whole");
    let object = bytes.first_chunk().map_or(ContentHash::EMPTY, |first| ContentHash::new(*first));
    if let Ok(recipe) = Recipe::decode(object, bytes) {
        assert_eq!(Recipe::decode(object, &recipe.encode()).unwrap(), recipe);
    }
    if let Ok(frame) = Frame::decode(bytes, &mut Decoder::new().unwrap()) {
        assert!(frame.plain.len() <= MAX_PLAIN_BYTES as usize);
        for (start, item) in frame.items() {
            let length = u32::try_from(item.len()).unwrap();
            assert_eq!(frame.item(start, length), Some(item));
        }
        assert_eq!(frame.item(u32::MAX, u32::MAX), None);
    }
}

/// A frame of these items, as it is stored.
fn frame(items: &[Vec<u8>], coding: Coding) -> Vec<u8> {
    let mut builder = FrameBuilder::new(Sort::Chunk, coding);
    for item in items {
        builder.push(Key::chunk(hash(item)), u32::try_from(item.len()).unwrap(), item);
    }
    builder.drain(&mut Encoder::new().unwrap(), |bytes, _| bytes.to_vec()).unwrap()
}

/// Gives a frame the checksums that fit.
fn reseal(frame: &mut [u8]) {
    let Some((head, body)) = frame.split_at_mut_checked(HEAD_BYTES) else { return };
    head[20..24].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    let crc = crc32fast::hash(&head[..HEAD_BYTES - 4]);
    head[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn every_seed_is_decoded_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for seed in std::fs::read_dir(corpus).unwrap() {
        decode_all(&std::fs::read(seed.unwrap().path()).unwrap());
    }
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        decode_all(&bytes);
    }

    #[test]
    fn any_frame_with_the_right_checksums_is_decoded_or_refused(
        items in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..8),
        zstd: bool,
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4),
        cut in any::<Index>(),
        is_cut: bool,
    ) {
        let mut bytes = frame(&items, if zstd { Coding::Zstd } else { Coding::Plain });
        let sound = bytes.clone();
        for (at, byte) in changes {
            // Behind the magic number, which a change of would be all that is seen.
            let at = 4 + at.index(bytes.len() - 4);
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        reseal(&mut bytes);
        if bytes == sound {
            let frame = Frame::decode(&bytes, &mut Decoder::new().unwrap()).unwrap();
            let read: Vec<_> = frame.items().map(|(_, item)| item.to_vec()).collect();
            prop_assert_eq!(read, items);
        }
        decode_all(&bytes);
    }

    #[test]
    fn any_footer_with_the_right_checksum_is_decoded_or_refused(
        index_offset: u32,
        index_bytes: u32,
        size: u64,
    ) {
        let bytes = Footer { index_offset, index_bytes, index_crc: 0 }.encode();
        prop_assert_eq!(bytes.len(), FOOTER_BYTES);
        if let Ok(footer) = Footer::decode(&bytes, size) {
            prop_assert!(u64::from(footer.index_offset) + u64::from(footer.index_bytes) < size);
        }
    }

    #[test]
    fn any_list_is_decoded_or_refused(
        count: u64,
        refs in prop::collection::vec((any::<[u8; 32]>(), any::<u64>()), 0..5),
        counted: bool,
    ) {
        let mut bytes = Vec::new();
        let count = if counted { refs.len() as u64 } else { count };
        super::super::fields::put_varint(&mut bytes, count);
        for (chunk, covers) in &refs {
            bytes.extend_from_slice(chunk);
            super::super::fields::put_varint(&mut bytes, *covers);
        }
        let total = refs.iter().try_fold(0u64, |sum, (_, covers)| sum.checked_add(*covers));
        let decoded = decode_list(&bytes, total.unwrap_or(0));
        prop_assert_eq!(decoded.is_ok(), total.is_some() && count == refs.len() as u64);
        decode_all(&bytes);
    }
}
