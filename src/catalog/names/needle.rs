//! What a block of names is signed with, and finding text whatever the case of its letters.
//!
//! Owns the folding of case, which is that of ASCII alone, and the bits that three letters in a row stand
//! for. A text shorter than that has none, and is looked for everywhere.

use memchr::memmem::Finder;

/// Bits in the signature of a block. Measured with 64 names to a block: half as many let twice as many
/// blocks through for three letters, twice as many cost another 8 bytes a name.
pub(super) const BITS: usize = 4096;

/// The bits of a text, each once, in no order.
pub(super) fn bits_of(text: &[u8]) -> Vec<u16> {
    let mut bits: Vec<u16> = trigrams(text).collect();
    bits.sort_unstable();
    bits.dedup();
    bits
}

/// The bit of each three letters in a row.
pub(super) fn trigrams(text: &[u8]) -> impl Iterator<Item = u16> {
    text.windows(3).map(|three| {
        let fold = |at: usize| u32::from(three[at].to_ascii_lowercase());
        let key = fold(0) | fold(1) << 8 | fold(2) << 16;
        // The upper bits of a product depend on all bits of its factors.
        let hashed = key.wrapping_mul(0x9E37_79B1) >> (u32::BITS - BITS.ilog2());
        u16::try_from(hashed).unwrap_or_default()
    })
}

/// A text to be found in others, whatever the case of their ASCII letters.
#[derive(Debug, Clone)]
pub(super) struct Needle {
    finder: Finder<'static>,
    /// What a block must be signed with to have it.
    pub(super) bits: Vec<u16>,
}

impl Needle {
    pub(super) fn new(text: &[u8]) -> Self {
        let lower = text.to_ascii_lowercase();
        Self { finder: Finder::new(&lower).into_owned(), bits: bits_of(&lower) }
    }

    pub(super) fn text(&self) -> &[u8] {
        self.finder.needle()
    }

    /// Whether a name has it.
    pub(super) fn is_in(&self, name: &[u8]) -> bool {
        let needle = self.text();
        needle.is_empty()
            || name.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle))
    }

    /// Where it is in a text of lower case, from a place on.
    pub(super) fn find(&self, lower: &[u8], from: usize) -> Option<usize> {
        self.finder.find(lower.get(from..)?).map(|at| at + from)
    }
}

/// Whether a name begins with a text of lower case.
pub(super) fn starts_with(name: &[u8], lower: &[u8]) -> bool {
    name.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower))
}

/// Whether a name ends with a text of lower case.
pub(super) fn ends_with(name: &[u8], lower: &[u8]) -> bool {
    let start = name.len().checked_sub(lower.len());
    start.is_some_and(|start| name[start..].eq_ignore_ascii_case(lower))
}
