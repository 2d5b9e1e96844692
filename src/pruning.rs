//! What the policy decides about the history in the catalog.
//!
//! Owns the way from the catalog's versions to the items of a policy, and from its decisions to contents
//! that can go. Reads the catalog and changes nothing: whoever asks drops, and only contents. A
//! version whose content went stays in every list, with its digest.
//!
//! # What goes
//! A content goes if the policy drops every version that needs it. A version needs the content that its
//! bytes are in: its own, that of the file it was moved over, or that of its successor if it is only
//! the beginning of that. So none of these goes while something that is kept needs it, and a
//! version that is dropped stays readable as long as its bytes are there for another one anyway: it
//! is then kept as taking no space, and does not count as dropped. What is on its way to the store is in use:
//! the next run decides about it.
//!
//! The head of a live file needs no object: it is in the file itself. An object with the same bytes goes if
//! only versions that are dropped need it. When that file is overwritten later, its content is preserved
//! like that of any head, or is lost like that of any head that is too large to copy. The other way
//! round does not hold, since that loss is possible: that a live file has the same bytes is no reason to
//! drop the content of a version that is kept.
//!
//! # Which policy
//! That of the path of the file as it is now, or as it was last. Of several hard links one decides.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use jiff::tz::TimeZone;

use crate::catalog::{CatalogError, FileHistory, Reader, Retained, Source, StoredContent};
use crate::retention::{
    Candidate, Decision, History, Item, KeepReason, Life, PressureQueue, Retention, Tally,
};
use crate::types::ContentHash;
use crate::types::path::is_below;

/// What nobody needs goes once it has been there for so long, in nanoseconds: what needs it may be on
/// its way to the catalog.
const NOBODYS_NS: i64 = 86_400_000_000_000;
/// Contents looked at together.
const PAGE: usize = 512;

/// A policy at a time.
#[derive(Debug, Clone)]
pub struct Judge<'r> {
    retention: &'r Retention,
    now_ns: i64,
    zone: TimeZone,
}

/// Which part of the tree is pruned; the rest is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of it, and what nobody needs.
    Everything,
    /// What has or had its name below this directory, or this name.
    Below(Vec<u8>),
}

impl Scope {
    fn has(&self, path: &[u8]) -> bool {
        match self {
            Self::Everything => true,
            Self::Below(top) => is_below(path, top),
        }
    }
}

/// What is decided about one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The place of the version in its history.
    pub index: usize,
    /// The decision.
    pub decision: Decision,
    /// Bytes that are free once it has gone; what several versions need counts with the first of
    /// them.
    pub frees: u64,
}

/// What a plan has come to.
#[derive(Debug)]
pub enum Step<'s> {
    /// A file was looked at, for what is needed.
    Looked,
    /// A file was decided about: at this path, with the newest version first.
    Decided(&'s [u8], &'s FileHistory, &'s [Verdict]),
}

/// What is to go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The numbers.
    pub tally: Tally,
    /// The contents that go, with their sizes in bytes.
    pub contents: Vec<(ContentHash, u64)>,
}

impl Plan {
    /// Bytes of all contents that go.
    pub fn bytes(&self) -> u64 {
        self.contents.iter().map(|(_, size)| size).sum()
    }
}

/// What the policy says of one version.
struct Decided {
    /// Its place in its history.
    index: usize,
    item: Item,
    decision: Decision,
}

/// Contents that stay. Eight bytes of a digest stand for it: should two have the same, one more stays.
#[derive(Debug, Default)]
struct Needed(HashSet<[u8; 8]>);

impl Needed {
    fn key(hash: &ContentHash) -> [u8; 8] {
        *hash.as_bytes().first_chunk().expect("a digest has 32 bytes")
    }

    fn add(&mut self, place: Source) {
        if let Source::Object(hash) = place {
            self.0.insert(Self::key(&hash));
        }
    }

    fn has(&self, hash: &ContentHash) -> bool {
        self.0.contains(&Self::key(hash))
    }
}

impl<'r> Judge<'r> {
    /// A policy at a time in nanoseconds since 1970, in a time zone.
    pub fn new(retention: &'r Retention, now_ns: i64, zone: TimeZone) -> Self {
        Self { retention, now_ns, zone }
    }

    /// Decides about everything. `report` is told of each file twice: first while it is found out what is
    /// needed.
    ///
    /// `reader` must see one state throughout.
    ///
    /// # Errors
    /// If the catalog cannot be read, or what `report` fails with.
    pub fn plan<E: From<CatalogError>>(
        &self,
        reader: &Reader,
        scope: &Scope,
        mut report: impl FnMut(Step<'_>) -> Result<(), E>,
    ) -> Result<Plan, E> {
        let mut needed = Needed::default();
        reader.histories(|history| {
            let path = path_of(reader, &history)?;
            let decided = if scope.has(&path) { self.decide(&path, &history) } else { Vec::new() };
            let mut decided = decided.iter().peekable();
            for (index, version) in history.versions.iter().enumerate() {
                let decided = decided.next_if(|decided| decided.index == index);
                if decided.is_none_or(|decided| decided.decision.is_keep()) {
                    needed.add(version.place);
                }
            }
            report(Step::Looked)
        })?;
        let mut plan = Plan::default();
        let mut going = HashSet::new();
        reader.histories(|history| {
            let path = path_of(reader, &history)?;
            if !scope.has(&path) {
                return Ok(());
            }
            let mut verdicts = Vec::new();
            for Decided { index, item, decision } in self.decide(&path, &history).into_iter().rev()
            {
                let version = &history.versions[index];
                let place = version.place;
                let decision = unless_free(decision, version, &needed);
                plan.tally.add(&item, &decision);
                let mut frees = 0;
                if let (Decision::Drop(_), Source::Object(hash)) = (&decision, place)
                    && going.insert(hash)
                {
                    frees = reader.stored_size(hash)?.unwrap_or(0);
                    plan.contents.push((hash, frees));
                }
                verdicts.push(Verdict { index, decision, frees });
            }
            report(Step::Decided(&path, &history, &verdicts))
        })?;
        if *scope == Scope::Everything {
            self.add_nobodys(reader, &needed, &going, &mut plan)?;
        }
        Ok(plan)
    }

    /// What was put into the store for something that did not come to be.
    fn add_nobodys(
        &self,
        reader: &Reader,
        needed: &Needed,
        going: &HashSet<ContentHash>,
        plan: &mut Plan,
    ) -> Result<(), CatalogError> {
        let before_ns = self.now_ns.saturating_sub(NOBODYS_NS);
        let mut last = None;
        loop {
            let page = reader.contents_by_age(last.as_ref(), PAGE)?;
            for content in &page {
                let is_old = content.stored_ns < before_ns;
                if is_old && !needed.has(&content.hash) && !going.contains(&content.hash) {
                    plan.contents.push((content.hash, content.size));
                }
            }
            last = page.last().copied();
            if last.is_none_or(|last| last.stored_ns >= before_ns) {
                return Ok(());
            }
        }
    }

    /// Decides about the versions that have a content. What is lost takes no place among the last.
    fn decide(&self, path: &[u8], history: &FileHistory) -> Vec<Decided> {
        let has_content = history
            .versions
            .iter()
            .enumerate()
            .filter(|(_, v)| !matches!(v.place, Source::Lost(_)));
        let (places, items): (Vec<_>, Vec<_>) = has_content
            .map(|(index, version)| {
                let item = Item {
                    number: version.number.into(),
                    time_ns: version.time_ns,
                    life: version.until_ns.map_or(Life::Head, Life::Until),
                    size_bytes: version.size,
                    pinned: version.pinned,
                };
                (index, item)
            })
            .unzip();
        let deleted_ns = history.ended.map(|(_, time_ns)| time_ns);
        let all = History { items: &items, deleted_ns };
        let decisions = self.retention.decide(path, &all, self.now_ns, &self.zone);
        let decided = decisions.into_iter().zip(places.into_iter().zip(items));
        decided.map(|(decision, (index, item))| Decided { index, item, decision }).collect()
    }

    /// The contents that can make room, of a page of the store, with the first to go first. What pins
    /// need is not among them.
    ///
    /// # Errors
    /// If the catalog cannot be read.
    pub fn candidates(
        &self,
        reader: &Reader,
        page: &[StoredContent],
    ) -> Result<Vec<Candidate<ContentHash>>, CatalogError> {
        let pinned = reader.pinned_contents()?;
        let mut decided = HashMap::new();
        let mut queue = PressureQueue::new();
        for content in page {
            let mut item = Item {
                number: 0,
                time_ns: content.stored_ns,
                life: Life::Until(content.stored_ns),
                size_bytes: content.size,
                pinned: pinned.contains(&content.hash),
            };
            let mut decision = None;
            for file in reader.files_of(content.hash)? {
                let (history, decisions) = match decided.entry(file) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(place) => {
                        let Some(history) = reader.history(file)? else { continue };
                        let path = path_of(reader, &history)?;
                        let decisions = self.decide(&path, &history);
                        place.insert((history, decisions))
                    }
                };
                let needs = |user: &&Decided| {
                    history.versions[user.index].place == Source::Object(content.hash)
                };
                for user in decisions.iter().filter(needs) {
                    if let (Life::Until(end_ns), Life::Until(known)) = (user.item.life, item.life) {
                        item.life = Life::Until(end_ns.max(known));
                    }
                    if decision.is_none() || user.decision.is_keep() {
                        decision = Some(user.decision.clone());
                    }
                }
            }
            // Of what nobody is known to need, nothing is known: it may be about to be told.
            let decision = decision.unwrap_or(Decision::Keep(vec![KeepReason::InUse]));
            queue.offer(content.hash, item, &decision);
        }
        Ok(queue.collect())
    }
}

/// The path by which a file is known; empty for what never had one.
fn path_of(reader: &Reader, history: &FileHistory) -> Result<Vec<u8>, CatalogError> {
    Ok(reader.path_of(history.file, history.known_at())?.unwrap_or_default())
}

/// What is not kept stays nevertheless where dropping it would free nothing.
fn unless_free(decision: Decision, version: &Retained, needed: &Needed) -> Decision {
    let stays = |place: Source| match place {
        Source::Object(hash) => needed.has(&hash),
        Source::Head | Source::Empty | Source::Incoming(_) => true,
        // None of these is where something is in the end.
        Source::Lost(_) | Source::Prefix | Source::Continued(..) => false,
    };
    match decision {
        Decision::Drop(_) if version.waits || matches!(version.place, Source::Incoming(_)) => {
            Decision::Keep(vec![KeepReason::InUse])
        }
        Decision::Drop(_) if stays(version.place) || version.elsewhere.is_some_and(stays) => {
            Decision::Keep(vec![KeepReason::Free])
        }
        decision => decision,
    }
}
