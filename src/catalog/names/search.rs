//! One search on its way through the index.
//!
//! Owns the plan: which blocks are looked into, in the order of names. A search is done in slices of about
//! a millisecond, each of which finds the index as it is then; what it knows between them is the last
//! name that it looked at. What it found out about directories is forgotten when one of them changes.

mod marks;

use super::block::Block;
use super::dirs::{Dirs, NONE, ROOT, Slot};
use super::group::Group;
use super::needle::{bits_of, ends_with};
use super::pattern::{NamePattern, Shape};
use super::{NameIndex, NameKey};
use crate::types::path::join;
use crate::types::{FileId, Kind, Name};
use marks::Marks;

/// Blocks that a slice looks into.
const SLICE_BLOCKS: usize = 1024;
/// Groups that a slice rules out.
const SLICE_GROUPS: usize = 512;
/// Directories below the one that is searched up to which these alone are visited.
const FEW_DIRS: usize = 65_536;

/// What is known of a directory: whether it is `top` or below, whether everything in it matches, and
/// whether names in it can match by themselves.
const KNOWN: u8 = 1;
const INSIDE: u8 = 2;
const COVERED: u8 = 4;
const MAYBE: u8 = 8;

/// What is searched for, and where.
#[derive(Debug)]
pub struct NameQuery<'q> {
    /// The directory to look in.
    pub top: FileId,
    /// What names or paths below it must be like.
    pub pattern: NamePattern<'q>,
    /// What names must end with after a dot; the case of ASCII letters does not count.
    pub extension: Option<Vec<u8>>,
    /// What has the name.
    pub kind: Option<Kind>,
    /// Only names after this one.
    pub after: Option<NameKey>,
}

/// A name that matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundName {
    /// Where it is in the order.
    pub key: NameKey,
    /// What has it.
    pub child: FileId,
    /// What that is.
    pub kind: Kind,
    /// Its path from the root.
    pub path: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Begin,
    /// Looking for directories that match.
    Marks(Marks),
    Names,
    Done,
}

/// Which blocks are looked into.
#[derive(Debug)]
enum Plan {
    /// All that may have the text.
    All,
    /// Those with names in these directories.
    Within(Vec<u64>),
    /// Those that may have the text by their signature, and those with names in these directories.
    Sifted { dirs: Vec<u64>, own: Own },
}

/// Where names are that match by themselves.
#[derive(Debug)]
enum Own {
    /// Where the signature says that they may be.
    Signed,
    /// In these blocks of each group, as long as no block changes its place.
    Refined { layout: u64, masks: Vec<u64> },
    /// Only in the directories that are visited anyway.
    Nowhere,
}

/// One search.
#[derive(Debug)]
pub struct NameSearch<'q> {
    query: NameQuery<'q>,
    /// `.ext` in lower case, and its bits.
    suffix: Option<(Vec<u8>, Vec<u16>)>,
    stage: Stage,
    plan: Plan,
    last: Option<NameKey>,
    memo: Vec<u8>,
    memo_version: u64,
    lower: Vec<u8>,
}

impl<'q> NameSearch<'q> {
    /// Begins a search.
    pub fn new(query: NameQuery<'q>) -> Self {
        let suffix = query.extension.as_ref().map(|extension| {
            let suffix = [b".", &extension.to_ascii_lowercase()[..]].concat();
            let bits = bits_of(&suffix);
            (suffix, bits)
        });
        Self {
            last: query.after.clone(),
            query,
            suffix,
            stage: Stage::Begin,
            plan: Plan::All,
            memo: Vec::new(),
            memo_version: 0,
            lower: Vec::new(),
        }
    }

    /// Whether all was looked at.
    pub fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Goes on for a slice, or until a few more than `want` names were found.
    pub fn step(&mut self, index: &NameIndex, want: usize) -> Vec<FoundName> {
        let mut found = Vec::new();
        let Some(top) = index.dirs.slot(self.query.top) else {
            self.stage = Stage::Done;
            return found;
        };
        if self.memo_version != index.dirs.version || self.memo.len() != index.dirs.len() {
            self.memo.clear();
            self.memo.resize(index.dirs.len(), 0);
            self.memo_version = index.dirs.version;
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Begin => self.begin(index, top),
            Stage::Marks(marks) => self.mark(index, top, marks),
            Stage::Names => self.names(index, top, want, &mut found),
            Stage::Done => {}
        }
        found
    }

    fn begin(&mut self, index: &NameIndex, top: Slot) {
        self.stage = Stage::Names;
        if top != ROOT {
            let most = (index.dirs.len() / 4 + 16).min(FEW_DIRS);
            if let Some(dirs) = index.dirs.below(vec![top], most) {
                self.plan = Plan::Within(dirs);
                return;
            }
        }
        if let Some(marks) = Marks::begin(index, &self.query.pattern) {
            if self.query.pattern.covers() {
                self.stage = Stage::Marks(marks);
            } else {
                self.plan = Plan::Sifted { dirs: Vec::new(), own: Own::Signed };
            }
        }
    }

    /// Looks for directories that match, since what is below them matches too.
    fn mark(&mut self, index: &NameIndex, top: Slot, mut marks: Marks) {
        let mut inside =
            |slot| state(&mut self.memo, &index.dirs, &self.query.pattern, top, slot) & INSIDE != 0;
        match marks.step(index, &self.query.pattern, top, &mut inside) {
            marks::Step::More => self.stage = Stage::Marks(marks),
            marks::Step::TooMany => self.stage = Stage::Names,
            marks::Step::Done => {
                if let Some((dirs, own)) = marks.finish(index) {
                    self.plan = Plan::Sifted { dirs, own };
                }
                self.stage = Stage::Names;
            }
        }
    }

    fn names(&mut self, index: &NameIndex, top: Slot, want: usize, found: &mut Vec<FoundName>) {
        let groups = index.shelf.groups();
        let last = self.last.clone();
        let (mut at, mut start) = (0, 0);
        if let (Some(key), false) = (&last, groups.is_empty()) {
            at = index.shelf.seek(key.parent.0, &key.name);
            start = groups[at].seek(key.parent.0, &key.name);
        }
        let (mut blocks, first_group) = (0, at);
        while let Some(group) = groups.get(at) {
            let own = self.own_mask(index, at, group);
            let mut mask = self.mask(group, own) & u64::MAX << start;
            while mask != 0 {
                let number = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let block = &group.blocks()[number];
                self.scan(index, top, block, own >> number & 1 == 1, last.as_ref(), found);
                blocks += 1;
                if found.len() >= want || blocks >= SLICE_BLOCKS {
                    self.stop_after(block);
                    return;
                }
            }
            if at - first_group >= SLICE_GROUPS
                && let Some(block) = group.blocks().last()
            {
                self.stop_after(block);
                return;
            }
            (at, start) = (at + 1, 0);
        }
        self.stage = Stage::Done;
    }

    fn stop_after(&mut self, block: &Block) {
        let name: Name = block.last_name().into();
        self.last = Some(NameKey { parent: FileId(block.last_parent()), name });
        self.stage = Stage::Names;
    }

    /// The blocks of a group with names that may match by themselves.
    fn own_mask(&self, index: &NameIndex, at: usize, group: &Group) -> u64 {
        match &self.plan {
            Plan::Sifted { own: Own::Nowhere, .. } => u64::MAX,
            Plan::Sifted { own: Own::Refined { layout, masks }, .. }
                if *layout == index.shelf.layout =>
            {
                masks.get(at).copied().unwrap_or(u64::MAX)
            }
            _ => group.sift(self.query.pattern.bits()),
        }
    }

    /// The blocks of a group to be looked into.
    fn mask(&self, group: &Group, own: u64) -> u64 {
        let wanted = match &self.plan {
            Plan::All if self.query.pattern.covers() => group.all(),
            Plan::All => own,
            Plan::Within(dirs) => group.with_parents(dirs),
            Plan::Sifted { dirs, own: Own::Nowhere } => group.with_parents(dirs),
            Plan::Sifted { dirs, .. } => own | group.with_parents(dirs),
        };
        match &self.suffix {
            Some((_, bits)) if wanted != 0 => wanted & group.sift(bits),
            _ => wanted & group.all(),
        }
    }

    fn scan(
        &mut self,
        index: &NameIndex,
        top: Slot,
        block: &Block,
        may_own: bool,
        after: Option<&NameKey>,
        found: &mut Vec<FoundName>,
    ) {
        let mut hits = None;
        let mut entries = block.entries();
        let mut first = 0;
        for run in block.runs() {
            let (start, count) = (first, run.names as usize);
            first += count;
            let known = state(&mut self.memo, &index.dirs, &self.query.pattern, top, run.slot);
            let own = may_own && known & MAYBE != 0;
            let early = after.is_some_and(|after| run.parent < after.parent.0);
            if known & INSIDE == 0 || early || (known & COVERED == 0 && !own) {
                entries.by_ref().take(count).for_each(drop);
                continue;
            }
            let mut is_own = |at: usize, name: &[u8]| match &self.query.pattern.0 {
                Shape::Part(_) => {
                    let bits = hits.get_or_insert_with(|| {
                        hits_in(block, &self.query.pattern, &mut self.lower)
                    });
                    *bits >> at & 1 == 1
                }
                _ => self.query.pattern.is_own(name),
            };
            let mut path = None;
            for (at, entry) in (start..).zip(entries.by_ref().take(count)) {
                let key = (run.parent, entry.name);
                let fits = after.is_none_or(|after| key > (after.parent.0, &*after.name))
                    && self.query.kind.is_none_or(|kind| kind == entry.kind)
                    && self.suffix.as_ref().is_none_or(|(suffix, _)| {
                        entry.name.len() > suffix.len() && ends_with(entry.name, suffix)
                    })
                    && (known & COVERED != 0 || is_own(at, entry.name));
                if !fits {
                    continue;
                }
                let Some(dir) =
                    path.get_or_insert_with(|| DirPath::new(&index.dirs, top, run.slot))
                else {
                    continue;
                };
                if let Shape::Path { is_match, .. } = &self.query.pattern.0
                    && !is_match(&dir.below(entry.name))
                {
                    continue;
                }
                found.push(FoundName {
                    key: NameKey { parent: FileId(run.parent), name: entry.name.into() },
                    child: entry.child,
                    kind: entry.kind,
                    path: dir.whole(entry.name),
                });
            }
        }
    }
}

/// The path of a directory from the root and from the one that is searched.
struct DirPath {
    whole: Vec<u8>,
    below: Vec<u8>,
}

impl DirPath {
    fn new(dirs: &Dirs, top: Slot, slot: Slot) -> Option<Self> {
        let (mut whole, mut below) = (Vec::new(), Vec::new());
        let is_there = dirs.path(ROOT, slot, &mut whole) && dirs.path(top, slot, &mut below);
        is_there.then_some(Self { whole, below })
    }

    fn whole(&self, name: &[u8]) -> Vec<u8> {
        join(&self.whole, name)
    }

    fn below(&self, name: &[u8]) -> Vec<u8> {
        join(&self.below, name)
    }
}

/// A bit for each name of a block that has the text. The names are searched in one piece, which is
/// several times as fast as each by itself.
fn hits_in(block: &Block, pattern: &NamePattern<'_>, lower: &mut Vec<u8>) -> u64 {
    let Shape::Part(needle) = &pattern.0 else { return 0 };
    lower.clear();
    lower.extend_from_slice(block.bytes());
    lower.make_ascii_lowercase();
    let (mut hits, mut from, mut entry) = (0, 0, (0, 0));
    while let Some(at) = needle.find(lower, from) {
        let (index, start, end) = block.entry_at(entry, at);
        if at + needle.text().len() <= end {
            hits |= 1_u64 << index;
            from = end;
        } else {
            // It goes over into the next name.
            from = at + 1;
        }
        entry = (index, start);
    }
    hits
}

/// What is known of a directory, from those above it.
fn state(memo: &mut [u8], dirs: &Dirs, pattern: &NamePattern<'_>, top: Slot, slot: Slot) -> u8 {
    let known = memo[slot as usize];
    if known != 0 {
        return known;
    }
    let mut way = Vec::new();
    let mut at = slot;
    let mut above = loop {
        if memo[at as usize] != 0 {
            break memo[at as usize];
        }
        way.push(at);
        if at == top {
            break 0;
        }
        at = dirs.parent(at);
        if at == NONE {
            break KNOWN;
        }
    };
    for dir in way.into_iter().rev() {
        let mut here = KNOWN | above & (INSIDE | COVERED);
        if dir == top {
            here |= INSIDE;
        }
        if here & INSIDE != 0 {
            let is_own = dir != top && above & MAYBE != 0 && pattern.is_own(dirs.name(dir));
            if pattern.covers() && is_own {
                here |= COVERED;
            }
            if pattern.may_be_in(dirs, top, dir) {
                here |= MAYBE;
            }
        }
        memo[dir as usize] = here;
        above = here;
    }
    above
}
