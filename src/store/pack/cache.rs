//! What the reader keeps at hand: open packs and decompressed frames.
//!
//! Owns the limits of both. Neither is needed for a right answer.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::coding::Decoder;
use super::dir::PackDir;
use super::error::{Fault, PackError};
use super::file::PackFile;
use super::frame::{Frame, name};
use super::types::{Entry, Key, PackId, Place};

/// How many packs are held open.
const OPEN_PACKS: NonZeroUsize = NonZeroUsize::new(32).expect("it is not zero");

/// A decompressed frame and which of its items have been compared with their names.
struct Known {
    frame: Frame,
    /// What is in it, as far as somebody looked.
    names: Vec<Entry>,
    verified: Mutex<BTreeSet<u32>>,
}

/// Whether an item must prove to be what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Before it is handed out.
    Now,
    /// By the digest of what it is part of. Its frame's checksum has been checked all the same.
    Later,
}

/// The bytes of an item, which stay as long as they are needed.
pub(super) struct Item {
    known: Arc<Known>,
    range: Range<usize>,
}

impl Deref for Item {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.known.frame.plain[self.range.clone()]
    }
}

struct Frames {
    by_place: LruCache<(PackId, u32), Arc<Known>>,
    /// Where the names of all frames are.
    places: HashMap<Key, Place>,
    bytes: usize,
}

impl Frames {
    fn forget(&mut self, known: &Known) {
        self.bytes -= known.frame.plain.len();
        for entry in &known.names {
            if self.places.get(&entry.key) == Some(&entry.place) {
                self.places.remove(&entry.key);
            }
        }
    }
}

/// Open packs and decompressed frames.
pub(super) struct Cache {
    limit_bytes: usize,
    /// Lock order: none of the three is held while another one is taken.
    frames: Mutex<Frames>,
    packs: Mutex<LruCache<PackId, Arc<PackFile>>>,
    decoders: Mutex<Vec<Decoder>>,
}

impl Cache {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            frames: Mutex::new(Frames {
                by_place: LruCache::unbounded(),
                places: HashMap::new(),
                bytes: 0,
            }),
            packs: Mutex::new(LruCache::new(OPEN_PACKS)),
            decoders: Mutex::new(Vec::new()),
        }
    }

    /// The item at a place.
    pub(super) fn item(
        &self,
        dir: &PackDir,
        key: &Key,
        place: &Place,
        proof: Proof,
    ) -> Result<Item, PackError> {
        let known = self.frame(dir, place)?;
        let damaged = |fault| {
            let path = dir.pack_path(place.pack);
            PackError::Frame { path, offset: u64::from(place.frame), fault }
        };
        let item = known.frame.item(place.start, place.length);
        let item = item.ok_or_else(|| damaged(Fault::Inconsistent))?;
        if proof == Proof::Now && !known.verified.lock().contains(&place.start) {
            if known.frame.sort != key.sort || name(key.sort, item) != Some(*key) {
                return Err(damaged(Fault::Chunk(key.hash)));
            }
            known.verified.lock().insert(place.start);
        }
        let range = place.start as usize..place.start as usize + item.len();
        Ok(Item { known, range })
    }

    /// The place of an item, if its frame is at hand.
    pub(super) fn place(&self, key: &Key) -> Option<Place> {
        self.frames.lock().places.get(key).copied()
    }

    /// Forgets all open packs.
    pub(super) fn close_packs(&self) {
        self.packs.lock().clear();
    }

    /// Forgets a pack that has gone.
    pub(super) fn forget(&self, pack: PackId) {
        self.packs.lock().pop(&pack);
    }

    fn frame(&self, dir: &PackDir, place: &Place) -> Result<Arc<Known>, PackError> {
        let at = (place.pack, place.frame);
        if let Some(known) = self.frames.lock().by_place.get(&at) {
            return Ok(Arc::clone(known));
        }
        let pack = self.pack(dir, place.pack)?;
        let mut decoder = match self.decoders.lock().pop() {
            Some(decoder) => decoder,
            None => Decoder::new().map_err(PackError::Compress)?,
        };
        let frame = pack.frame(place, &mut decoder);
        self.decoders.lock().push(decoder);
        let (frame, names) = (frame?, pack.neighbours(place));
        let known = Arc::new(Known { frame, names, verified: Mutex::default() });
        self.keep(at, &known);
        Ok(known)
    }

    fn keep(&self, at: (PackId, u32), known: &Arc<Known>) {
        let mut frames = self.frames.lock();
        if let Some((_, other)) = frames.by_place.push(at, Arc::clone(known)) {
            frames.forget(&other);
        }
        frames.bytes += known.frame.plain.len();
        frames.places.extend(known.names.iter().map(|entry| (entry.key, entry.place)));
        while frames.bytes > self.limit_bytes {
            let Some((_, oldest)) = frames.by_place.pop_lru() else { break };
            frames.forget(&oldest);
        }
    }

    fn pack(&self, dir: &PackDir, pack: PackId) -> Result<Arc<PackFile>, PackError> {
        if let Some(file) = self.packs.lock().get(&pack) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(dir.open_pack(pack)?);
        self.packs.lock().put(pack, Arc::clone(&file));
        Ok(file)
    }
}
