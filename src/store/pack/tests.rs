//! Packs as a whole: written, read, damaged, interrupted and cleaned up.

mod crash;
mod damage;
mod gc;
mod hostile;
mod round_trip;

use std::sync::Arc;

use tempfile::TempDir;

use super::frame::hash;
use super::*;
use crate::store::chunk::ChunkSizes;
use crate::types::ContentHash;

/// Small enough that a few kilobytes make several packs of several frames.
const SMALL: PackOptions = PackOptions {
    limit_bytes: 16 << 10,
    frame_bytes: 2 << 10,
    cuts: Cuts::Fixed(ChunkSizes { min_bytes: 64, average_bytes: 256, max_bytes: 1024 }),
};

/// A directory of packs and their index, which outlives a crash of the rest.
struct Store {
    place: TempDir,
    dir: Arc<PackDir>,
    index: Arc<MemoryIndex>,
    options: PackOptions,
}

impl Store {
    fn new(options: PackOptions) -> Self {
        let place = tempfile::tempdir().unwrap();
        let dir = Arc::new(PackDir::open(&place.path().join("packs")).unwrap());
        Self { place, dir, index: Arc::default(), options }
    }

    /// Begins anew, as after a crash.
    fn reopen(&mut self) -> Recovery {
        self.dir = Arc::new(PackDir::open(&self.place.path().join("packs")).unwrap());
        recover(&self.dir.maintain(), &*self.index).unwrap()
    }

    fn pack(&self, contents: &[Vec<u8>]) -> Result<(Vec<ContentHash>, PackStats), PackError> {
        let right = self.dir.maintain();
        let mut packer = Packer::new(&right, &*self.index, &|_| Pace::Go, self.options);
        let mut packed = Vec::new();
        for (n, content) in contents.iter().enumerate() {
            packer.add(hash(content), content.len() as u64, &content[..])?;
            if n % 3 == 2 {
                packed.extend(packer.commit()?);
            }
        }
        packed.extend(packer.commit()?);
        Ok((packed, packer.stats()))
    }

    fn reader(&self) -> PackReader {
        PackReader::new(Arc::clone(&self.dir), Arc::clone(&self.index) as _, 64 << 10)
    }

    /// The whole content by a fresh reader; `None` if it is not packed.
    fn read(&self, object: ContentHash) -> Result<Option<Vec<u8>>, PackError> {
        let reader = self.reader();
        let Some(recipe) = reader.recipe(object)? else { return Ok(None) };
        let mut out = Vec::new();
        let length = reader.copy(&recipe, &mut out)?;
        assert_eq!(length, out.len() as u64);
        Ok(Some(out))
    }

    fn indices(&self) -> Vec<PackIndex> {
        let packs = self.dir.list().unwrap();
        packs.iter().map(|pack| self.dir.open_pack(*pack).unwrap().index().unwrap()).collect()
    }

    fn file_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.place.path().join("packs")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }
}

/// Words that compress, the same for the same seed.
fn text(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::new();
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(format!("word{} ", state % 997).as_bytes());
    }
    out.truncate(length);
    out
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let blocks =
        (0u64..).flat_map(|n| *hash(&[n.to_le_bytes(), seed.to_le_bytes()].concat()).as_bytes());
    blocks.take(length).collect()
}

/// Contents of all kinds: small and large, compressible and not, versions of one another.
fn contents() -> Vec<Vec<u8>> {
    let long = text(30_000, 1);
    let mut edited = long.clone();
    edited.splice(9_000..9_010, *b"something else");
    vec![
        b"tiny".to_vec(),
        long,
        noise(9_000, 2),
        edited,
        Vec::new(),
        text(700, 3),
        [noise(5_000, 4), text(5_000, 4)].concat(),
    ]
}
