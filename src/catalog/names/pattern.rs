//! What a name or its path must be like.
//!
//! Owns the meaning of a text: part of the path below the directory that is searched, whatever the case of
//! its ASCII letters. What it touches is in it: with a directory, everything below is found. What a
//! glob means is not known here: whoever asks brings it, and the pieces of text that every match has.

use super::dirs::{Dirs, Slot};
use super::needle::{Needle, ends_with, starts_with};

/// Says of a name or path whether a glob matches it.
type IsMatch<'q> = Box<dyn Fn(&[u8]) -> bool + Send + 'q>;

/// What is looked for.
pub struct NamePattern<'q>(pub(super) Shape<'q>);

pub(super) enum Shape<'q> {
    /// Everything.
    Any,
    /// A part of a name.
    Part(Needle),
    /// A part of a path over more than one name.
    Parts(Parts),
    /// A glob over the name.
    Name { pieces: Pieces, is_match: IsMatch<'q> },
    /// A glob over the path.
    Path { pieces: Pieces, is_match: IsMatch<'q> },
}

/// Texts that every match has in its name.
pub(super) struct Pieces {
    pub(super) bits: Vec<u16>,
    longest: Option<Needle>,
}

impl Pieces {
    fn new(texts: &[Vec<u8>]) -> Self {
        let mut bits: Vec<u16> =
            texts.iter().flat_map(|text| super::needle::bits_of(text)).collect();
        bits.sort_unstable();
        bits.dedup();
        let longest = texts.iter().max_by_key(|text| text.len()).filter(|text| !text.is_empty());
        Self { bits, longest: longest.map(|text| Needle::new(text)) }
    }

    pub(super) fn may_be_in(&self, name: &[u8]) -> bool {
        self.longest.as_ref().is_none_or(|needle| needle.is_in(name))
    }
}

/// A text with slashes: the end of a name, whole names, and the beginning of one.
pub(super) struct Parts {
    /// All but the last, in lower case; the first is the end of a name.
    above: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// What a block with the last name must be signed with.
    pub(super) bits: Vec<u16>,
    /// What a block with the directory above it must be signed with.
    pub(super) above_bits: Vec<u16>,
}

impl std::fmt::Debug for NamePattern<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NamePattern")
    }
}

impl<'q> NamePattern<'q> {
    /// Part of the path; the case of ASCII letters does not count.
    pub fn part(text: &[u8]) -> Self {
        if text.is_empty() {
            return Self(Shape::Any);
        }
        let lower = text.to_ascii_lowercase();
        let mut above: Vec<Vec<u8>> = lower.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let last = above.pop().unwrap_or_default();
        let Some(directly) = above.last() else {
            return Self(Shape::Part(Needle::new(text)));
        };
        let bits = super::needle::bits_of(&last);
        let above_bits = super::needle::bits_of(directly);
        Self(Shape::Parts(Parts { above, last, bits, above_bits }))
    }

    /// A glob over the last name, with texts that each name has which matches.
    pub fn name_glob(pieces: &[Vec<u8>], is_match: impl Fn(&[u8]) -> bool + Send + 'q) -> Self {
        Self(Shape::Name { pieces: Pieces::new(pieces), is_match: Box::new(is_match) })
    }

    /// A glob over the path, with texts that the last name of each path has which matches.
    pub fn path_glob(pieces: &[Vec<u8>], is_match: impl Fn(&[u8]) -> bool + Send + 'q) -> Self {
        Self(Shape::Path { pieces: Pieces::new(pieces), is_match: Box::new(is_match) })
    }

    /// What a block with a name that matches must be signed with.
    pub(super) fn bits(&self) -> &[u16] {
        match &self.0 {
            Shape::Any => &[],
            Shape::Part(needle) => &needle.bits,
            Shape::Parts(parts) => &parts.bits,
            Shape::Name { pieces, .. } | Shape::Path { pieces, .. } => &pieces.bits,
        }
    }

    /// Whether what is below a directory that matches matches too.
    pub(super) fn covers(&self) -> bool {
        matches!(self.0, Shape::Part(_) | Shape::Parts(_))
    }

    /// Whether names in a directory, which is `top` or below, can match by themselves.
    pub(super) fn may_be_in(&self, dirs: &Dirs, top: Slot, dir: Slot) -> bool {
        match &self.0 {
            Shape::Parts(parts) => parts.leads_to(dirs, top, dir),
            _ => true,
        }
    }

    /// Whether a name by itself matches, in a directory where it can.
    pub(super) fn is_own(&self, name: &[u8]) -> bool {
        match &self.0 {
            Shape::Any => true,
            Shape::Part(needle) => needle.is_in(name),
            Shape::Parts(parts) => starts_with(name, &parts.last),
            Shape::Name { pieces, is_match } => pieces.may_be_in(name) && is_match(name),
            Shape::Path { pieces, .. } => pieces.may_be_in(name),
        }
    }
}

impl Parts {
    /// Whether the path of a directory ends with all but the last part.
    fn leads_to(&self, dirs: &Dirs, top: Slot, dir: Slot) -> bool {
        let mut at = dir;
        for (index, part) in self.above.iter().enumerate().rev() {
            if at == top {
                return false;
            }
            let name = dirs.name(at);
            let fits =
                if index == 0 { ends_with(name, part) } else { name.eq_ignore_ascii_case(part) };
            if !fits {
                return false;
            }
            at = dirs.parent(at);
        }
        true
    }
}
