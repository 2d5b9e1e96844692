//! What somebody needs of all that is packed, in bounded memory.
//!
//! A filter in the manner of Bloom: it never says that something is dead which is alive, and now and then the
//! other way round, which keeps a little garbage. The bits that stand for an item are those of its digest.

use super::types::{Key, Sort};

/// Bits for each item: one dead item in three hundred passes for alive.
const BITS_PER_ITEM: u64 = 12;
/// Bits that stand for an item.
const BITS_SET: u64 = 8;
/// Beyond these 256 MiB more garbage is kept rather than more memory taken.
const MOST_BITS: u64 = 1 << 31;

/// A set of items that may seem to have more than it has.
#[derive(Debug)]
pub struct LiveSet {
    bits: Vec<u64>,
}

impl LiveSet {
    /// An empty set with room for so many items.
    pub fn with_room(items: u64) -> Self {
        let bits = items.saturating_mul(BITS_PER_ITEM).clamp(1 << 12, MOST_BITS);
        Self { bits: vec![0; usize::try_from(bits.div_ceil(64)).unwrap_or(1 << 20)] }
    }

    /// Adds an item.
    pub fn insert(&mut self, key: &Key) {
        let count = self.bits.len() as u64 * 64;
        places(key, count).for_each(|(word, bit)| self.bits[word] |= bit);
    }

    /// Whether an item may be in the set; never `false` for one that is.
    pub fn contains(&self, key: &Key) -> bool {
        let count = self.bits.len() as u64 * 64;
        places(key, count).all(|(word, bit)| self.bits[word] & bit != 0)
    }
}

fn places(key: &Key, count: u64) -> impl Iterator<Item = (usize, u64)> {
    let (words, _) = key.hash.as_bytes().as_chunks::<8>();
    let [first, step] = [words[0], words[1]].map(u64::from_le_bytes);
    let first = match key.sort {
        Sort::Chunk => first,
        Sort::Recipe => !first,
    };
    (0..BITS_SET).map(move |n| {
        let bit = first.wrapping_add(n.wrapping_mul(step | 1)) % count;
        (usize::try_from(bit / 64).unwrap_or(0), 1 << (bit % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::super::frame::hash;
    use super::*;

    #[test]
    fn what_is_in_it_is_found_and_little_else() {
        let key = |n: u64| Key::chunk(hash(&n.to_le_bytes()));
        let mut live = LiveSet::with_room(10_000);
        (0..10_000).for_each(|n| live.insert(&key(n)));
        assert!((0..10_000).all(|n| live.contains(&key(n))));
        let others = (10_000..30_000).filter(|n| live.contains(&key(*n))).count();
        assert!(others < 200, "{others}");
        let recipes = (0..10_000).filter(|n| live.contains(&Key::recipe(key(*n).hash))).count();
        assert!(recipes < 100, "{recipes}");
    }
}
