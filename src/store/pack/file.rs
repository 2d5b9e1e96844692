//! Reading one pack: its frames, its index, and all that can still be found in a damaged one.
//!
//! A frame is read by its place alone, so that damage elsewhere in the pack is in nobody's way.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::coding::Decoder;
use super::error::{Fault, PackError, Part};
use super::format::{
    self, FOOTER_BYTES, FRAME_MAGIC, Footer, FrameEntry, HEAD_BYTES, HEADER_BYTES, Head,
};
use super::frame::{self, Frame};
use super::types::{Entry, PackId, PackIndex, Place};
use crate::types::ContentHash;

/// Bytes that are looked through at a time.
const WINDOW: usize = 256 << 10;

/// A pack that is open for reading.
#[derive(Debug)]
pub struct PackFile {
    pack: PackId,
    path: PathBuf,
    file: File,
    size: u64,
    /// How many frames were read.
    read: AtomicU32,
    /// Where the index has which frame, in the order of the frames; read when it is worth it.
    table: OnceLock<Vec<FrameEntry>>,
}

/// Frames of a pack after which its index is read too: more of it will be asked for.
const MANY_FRAMES: u32 = 3;

/// What [`PackFile::scan`] found.
#[derive(Debug)]
pub struct Scan {
    /// What can be read.
    pub index: PackIndex,
    /// What cannot.
    pub damage: Vec<PackError>,
}

impl PackFile {
    pub(super) fn open(path: PathBuf, pack: PackId) -> Result<Self, PackError> {
        let file = File::open(&path).map_err(PackError::io("open", &path))?;
        let size = file.metadata().map_err(PackError::io("stat", &path))?.len();
        let (read, table) = (AtomicU32::new(0), OnceLock::new());
        Ok(Self { pack, path, file, size, read, table })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size
    }

    /// Reads the index at the end of the pack.
    ///
    /// # Errors
    /// [`PackError::Outline`] if the header, the index or the footer is damaged: then
    /// [`PackFile::scan`] finds what is still there.
    pub fn index(&self) -> Result<PackIndex, PackError> {
        let (at, bytes) = self.index_bytes()?;
        let entries = format::decode_index(self.pack, &bytes)
            .ok_or_else(|| self.outline(Part::Index, at, Fault::Inconsistent))?;
        Ok(PackIndex { pack: self.pack, size_bytes: self.size, entries })
    }

    /// The bytes of the index, and where they begin.
    fn index_bytes(&self) -> Result<(u64, Vec<u8>), PackError> {
        let footer = self.footer()?;
        let at = u64::from(footer.index_offset);
        let damaged = |fault| self.outline(Part::Index, at, fault);
        let bytes = self.bytes(at, footer.index_bytes as usize)?.ok_or(damaged(Fault::CutOff))?;
        if crc32fast::hash(&bytes) != footer.index_crc {
            return Err(damaged(Fault::Checksum));
        }
        Ok((at, bytes))
    }

    /// Names what is in a frame, if so much of the pack was read that it is worth knowing. What it says
    /// saves a look-up, and is to be proved as what that says.
    pub(super) fn neighbours(&self, place: &Place) -> Vec<Entry> {
        if self.read.fetch_add(1, Ordering::Relaxed) < MANY_FRAMES {
            return Vec::new();
        }
        let table = self.table.get_or_init(|| {
            let read = self.index_bytes().ok();
            read.and_then(|(at, bytes)| format::index_table(at, &bytes)).unwrap_or_default()
        });
        let entry = table.binary_search_by_key(&place.frame, |entry| entry.frame);
        let entries = entry.ok().and_then(|n| {
            let FrameEntry { at, length, .. } = table[n];
            format::decode_index(self.pack, &self.bytes(at, length).ok()??)
        });
        entries.unwrap_or_default()
    }

    /// Checks the header and reads the footer.
    fn footer(&self) -> Result<Footer, PackError> {
        let header = self.bytes(0, HEADER_BYTES)?.ok_or(Fault::CutOff);
        header
            .and_then(|header| format::check_header(&header))
            .map_err(|fault| self.outline(Part::Header, 0, fault))?;
        let at = self.size.saturating_sub(FOOTER_BYTES as u64);
        let footer = self.bytes(at, FOOTER_BYTES)?.ok_or(Fault::CutOff);
        footer
            .and_then(|footer| Footer::decode(&footer, self.size))
            .map_err(|fault| self.outline(Part::Footer, at, fault))
    }

    /// Reads the frame in which an item is and checks its checksums.
    pub(super) fn frame_bytes(&self, place: &Place) -> Result<Vec<u8>, PackError> {
        let (at, length) = (u64::from(place.frame), place.frame_bytes as usize);
        let bytes = self.bytes(at, length)?.ok_or_else(|| self.damaged(at, Fault::CutOff))?;
        frame::check(&bytes).map_err(|fault| self.damaged(at, fault))?;
        Ok(bytes)
    }

    /// Reads and decompresses the frame in which an item is.
    pub(super) fn frame(&self, place: &Place, decoder: &mut Decoder) -> Result<Frame, PackError> {
        let at = u64::from(place.frame);
        let bytes = self.bytes(at, place.frame_bytes as usize)?;
        let bytes = bytes.ok_or_else(|| self.damaged(at, Fault::CutOff))?;
        Frame::decode(&bytes, decoder).map_err(|fault| self.damaged(at, fault))
    }

    /// Finds every frame without the help of the index, decompresses it and names what is in it.
    ///
    /// Behind a damaged frame it goes on with the next one that it can find. Keeps one frame in memory,
    /// and the names.
    ///
    /// # Errors
    /// The filesystem's; what is damaged is part of the answer.
    pub fn scan(&self) -> Result<Scan, PackError> {
        let mut decoder = Decoder::new().map_err(PackError::Compress)?;
        let mut entries = Vec::new();
        let (end, mut damage) = match self.footer() {
            Ok(footer) => (u64::from(footer.index_offset), Vec::new()),
            // Nothing else says where the frames end.
            Err(error @ PackError::Outline { .. }) => (self.size, vec![error]),
            Err(error) => return Err(error),
        };
        let mut at = HEADER_BYTES as u64;
        while at < end {
            match self.scan_frame(at, end, &mut decoder)? {
                Ok((frame, length)) => {
                    self.name_items(&frame, at, length, &mut entries);
                    at += u64::from(length);
                }
                Err(fault) => {
                    let next = self.find_frame(at + 1, end)?;
                    // Past the last frame come the index and the footer.
                    if next.is_some() || end < self.size || fault != Fault::NotThere {
                        damage.push(self.damaged(at, fault));
                    }
                    at = next.unwrap_or(end);
                }
            }
        }
        Ok(Scan { index: PackIndex { pack: self.pack, size_bytes: self.size, entries }, damage })
    }

    /// The SHA-256 of the whole file, which is its name as long as nothing is damaged.
    ///
    /// # Errors
    /// [`PackError::NotItself`], or the filesystem's.
    pub fn check_name(&self) -> Result<(), PackError> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; WINDOW];
        let mut at = 0;
        loop {
            let n =
                self.file.read_at(&mut buffer, at).map_err(PackError::io("read", &self.path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            at += n as u64;
        }
        let found: ContentHash = hasher.into();
        if found == self.pack.0 {
            Ok(())
        } else {
            Err(PackError::NotItself { path: self.path.clone(), found })
        }
    }

    /// An error for a frame of this pack.
    pub(super) fn damaged(&self, offset: u64, fault: Fault) -> PackError {
        PackError::Frame { path: self.path.clone(), offset, fault }
    }

    fn outline(&self, part: Part, offset: u64, fault: Fault) -> PackError {
        PackError::Outline { path: self.path.clone(), part, offset, fault }
    }

    fn scan_frame(
        &self,
        at: u64,
        end: u64,
        decoder: &mut Decoder,
    ) -> Result<Result<(Frame, u32), Fault>, PackError> {
        let Some(head) = self.bytes(at, HEAD_BYTES)? else { return Ok(Err(Fault::CutOff)) };
        let length = match Head::decode(&head) {
            Ok(head) => head.frame_bytes(),
            Err(fault) => return Ok(Err(fault)),
        };
        let Ok(short) = u32::try_from(length) else { return Ok(Err(Fault::Inconsistent)) };
        if at + length > end {
            return Ok(Err(Fault::CutOff));
        }
        let Some(bytes) = self.bytes(at, short as usize)? else { return Ok(Err(Fault::CutOff)) };
        Ok(Frame::decode(&bytes, decoder).map(|frame| (frame, short)))
    }

    fn name_items(&self, frame: &Frame, at: u64, frame_bytes: u32, entries: &mut Vec<Entry>) {
        // A pack is smaller than 4 GiB; what lies further behind no index could name.
        let Ok(at) = u32::try_from(at) else { return };
        for (start, item) in frame.items() {
            let length = u32::try_from(item.len()).unwrap_or(u32::MAX);
            let place = Place { pack: self.pack, frame: at, frame_bytes, start, length };
            entries.extend(frame::name(frame.sort, item).map(|key| Entry { key, place }));
        }
    }

    /// The offset of the next frame whose head is sound.
    fn find_frame(&self, from: u64, end: u64) -> Result<Option<u64>, PackError> {
        let mut at = from;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(WINDOW).min(WINDOW);
            let Some(window) = self.bytes(at, length)? else { return Ok(None) };
            let magics = window.windows(FRAME_MAGIC.len()).enumerate();
            for (n, _) in magics.filter(|(_, bytes)| *bytes == FRAME_MAGIC) {
                let head = self.bytes(at + n as u64, HEAD_BYTES)?;
                if head.is_some_and(|head| Head::decode(&head).is_ok()) {
                    return Ok(Some(at + n as u64));
                }
            }
            if length < WINDOW {
                break;
            }
            // A head may begin at the end of one window and end in the next.
            at += (length - FRAME_MAGIC.len() + 1) as u64;
        }
        Ok(None)
    }

    /// Some bytes of the pack; `None` if it ends before they do.
    fn bytes(&self, at: u64, length: usize) -> Result<Option<Vec<u8>>, PackError> {
        if at.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, at) {
            Ok(()) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(PackError::io("read", &self.path)(error)),
        }
    }
}
