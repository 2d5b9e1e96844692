//! Packing, giving up and cleaning up in any order, with crashes and failures anywhere, lose nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::RngSeed;
use sha2::Digest as _;

use super::super::{ChunkDb, FILE_NAME};
use crate::store::Packs;
use crate::store::chunk::ChunkSizes;
use crate::store::pack::dir::Step;
use crate::store::pack::error::IndexError;
use crate::store::pack::{
    ChunkIndex, Cuts, GcPolicy, Key, LiveSet, Pace, PackError, PackId, PackIndex, PackOptions,
    PackTotals, PackUsage, Packer, Place, Verdict, choose, rewrite,
};
use crate::types::ContentHash;

const OPTIONS: PackOptions = PackOptions {
    limit_bytes: 3 << 10,
    frame_bytes: 1 << 10,
    cuts: Cuts::Fixed(ChunkSizes { min_bytes: 64, average_bytes: 256, max_bytes: 1024 }),
};

const POLICY: GcPolicy =
    GcPolicy { waste_percent: 0, rewrite_bytes: 1 << 30, small_bytes: 1 << 10 };

/// An index that fails when it is changed.
struct Failing {
    db: ChunkDb,
    /// Before how many more changes it fails, and behind how many.
    before: AtomicU32,
    behind: AtomicU32,
}

fn strikes(count: &AtomicU32) -> bool {
    let left = count.load(Ordering::Relaxed);
    count.store(left.saturating_sub(1), Ordering::Relaxed);
    left == 1
}

impl ChunkIndex for Failing {
    fn find(&self, key: &Key) -> Result<Option<Place>, IndexError> {
        self.db.find(key)
    }

    fn replace(&self, added: &[PackIndex], removed: &[PackId]) -> Result<(), IndexError> {
        if strikes(&self.before) {
            return Err("it failed".into());
        }
        self.db.replace(added, removed)?;
        if strikes(&self.behind) { Err("it stopped".into()) } else { Ok(()) }
    }

    fn packs(&self) -> Result<Vec<PackId>, IndexError> {
        self.db.packs()
    }

    fn totals(&self) -> PackTotals {
        self.db.totals()
    }

    fn count_smaller(&self, bytes: u64) -> usize {
        self.db.count_smaller(bytes)
    }

    fn clear(&self) -> Result<(), IndexError> {
        self.db.clear()
    }
}

/// What happens to the file of the index between two runs.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Stays,
    Goes,
    /// It becomes what it was when this was said before.
    GoesBack,
}

/// How a step ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Well,
    Behind(Step, usize),
    IndexBefore(u32),
    IndexBehind(u32),
}

#[derive(Debug, Clone)]
enum Action {
    Keep(usize),
    GiveUp(usize),
    Pack(End),
    Clean(End),
    Restart(Fate),
}

fn ends() -> impl Strategy<Value = End> {
    let steps = vec![
        Step::Created,
        Step::Written,
        Step::Synced,
        Step::Renamed,
        Step::DirSynced,
        Step::Published,
        Step::Removed,
    ];
    prop_oneof![
        3 => Just(End::Well),
        3 => (select(steps), 1usize..4).prop_map(|(step, times)| End::Behind(step, times)),
        1 => (1u32..4).prop_map(End::IndexBefore),
        1 => (1u32..4).prop_map(End::IndexBehind),
    ]
}

fn actions() -> impl Strategy<Value = Action> {
    let fates = select(vec![Fate::Stays, Fate::Goes, Fate::GoesBack]);
    prop_oneof![
        5 => (0usize..10).prop_map(Action::Keep),
        2 => (0usize..10).prop_map(Action::GiveUp),
        4 => ends().prop_map(Action::Pack),
        3 => ends().prop_map(Action::Clean),
        1 => fates.prop_map(Action::Restart),
    ]
}

/// Contents that have much in common.
fn contents() -> Vec<Vec<u8>> {
    let text = |from: u32, to: u32| (from..to).flat_map(|n| format!("{} ", n * n).into_bytes());
    let content = |n| match n {
        0 => Vec::new(),
        1 => b"tiny".to_vec(),
        n => text(0, 400).chain(text(n * 1000, n * 1000 + 200)).chain(text(400, 900)).collect(),
    };
    (0..10).map(content).collect()
}

fn hash(content: &[u8]) -> ContentHash {
    let digest: [u8; 32] = sha2::Sha256::digest(content).into();
    ContentHash::new(digest)
}

/// A store with its catalog, both as simple as can be.
struct World {
    dir: tempfile::TempDir,
    contents: HashMap<ContentHash, Vec<u8>>,
    names: Vec<ContentHash>,
    /// The catalog.
    known: BTreeSet<ContentHash>,
    /// Contents with files of their own.
    loose: BTreeSet<ContentHash>,
    /// Nothing between two runs.
    open: Option<(Arc<Packs>, Arc<Failing>)>,
    old: Option<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let contents = contents();
        let names: Vec<_> = contents.iter().map(|content| hash(content)).collect();
        let mut this = Self {
            dir: tempfile::tempdir().unwrap(),
            contents: names.iter().copied().zip(contents).collect(),
            names,
            known: BTreeSet::new(),
            loose: BTreeSet::new(),
            open: None,
            old: None,
        };
        this.start();
        this
    }

    fn start(&mut self) {
        let db = ChunkDb::open(&self.dir.path().join(FILE_NAME)).unwrap();
        let (before, behind) = (AtomicU32::new(0), AtomicU32::new(0));
        let index = Arc::new(Failing { db, before, behind });
        let packs = Packs::open(&self.dir.path().join("packs"), Arc::clone(&index) as _).unwrap();
        packs.recover(&packs.maintain()).unwrap();
        self.open = Some((Arc::new(packs), index));
    }

    fn packs(&self) -> &Arc<Packs> {
        &self.open.as_ref().unwrap().0
    }

    fn restart(&mut self, fate: Fate) {
        self.open = None;
        let path = self.dir.path().join(FILE_NAME);
        match fate {
            Fate::Stays => {}
            Fate::Goes => std::fs::remove_file(&path).unwrap(),
            Fate::GoesBack => {
                let now = std::fs::read(&path).unwrap();
                let old = self.old.replace(now);
                old.into_iter().for_each(|old| std::fs::write(&path, old).unwrap());
            }
        }
        self.start();
    }

    fn plan(&self, end: End) {
        let (packs, index) = self.open.as_ref().unwrap();
        match end {
            End::Well => {}
            End::Behind(step, times) => packs.dir().crash.after(step, times),
            End::IndexBefore(times) => index.before.store(times, Ordering::Relaxed),
            End::IndexBehind(times) => index.behind.store(times, Ordering::Relaxed),
        }
    }

    fn pack(&mut self) -> Result<(), PackError> {
        let packs = Arc::clone(self.packs());
        let right = packs.maintain();
        let mut packer = Packer::new(&right, packs.index(), &|_| Pace::Go, OPTIONS);
        for object in self.loose.clone() {
            let content = &self.contents[&object];
            packer.add(object, content.len() as u64, &content[..])?;
            packer.take_packed().iter().for_each(|object| _ = self.loose.remove(object));
        }
        packer.commit()?.iter().for_each(|object| _ = self.loose.remove(object));
        Ok(())
    }

    fn clean(&self) -> Result<(), PackError> {
        let packs = self.packs();
        let right = packs.maintain();
        let mut live = LiveSet::with_room(packs.totals().items);
        for object in &self.known {
            if let Some(recipe) = packs.reader().recipe(*object)? {
                packs.reader().needs(&recipe, &mut |key| live.insert(&key))?;
            }
        }
        let is_live = |key: &Key| live.contains(key);
        let mut usage = Vec::new();
        for pack in packs.index().packs().map_err(PackError::Index)? {
            usage.push(PackUsage::count(&packs.dir().open_pack(pack)?.index()?, &is_live));
        }
        // Now and then everything is put together anew.
        let small_bytes =
            if self.known.len().is_multiple_of(2) { POLICY.small_bytes } else { 1 << 20 };
        let verdicts = choose(&usage, &GcPolicy { small_bytes, ..POLICY });
        let goes = usage.iter().zip(&verdicts).filter(|(_, v)| !matches!(v, Verdict::Keep(_)));
        let goes: Vec<_> = goes.map(|(usage, _)| usage.pack).collect();
        rewrite(&right, packs.index(), &goes, &is_live, &|_| Pace::Go, &OPTIONS).map(drop)
    }

    fn act(&mut self, action: &Action) {
        let mut outcome = Ok(());
        match action {
            Action::Keep(n) => {
                self.known.insert(self.names[*n]);
                self.loose.insert(self.names[*n]);
            }
            Action::GiveUp(n) => {
                self.known.remove(&self.names[*n]);
                self.loose.remove(&self.names[*n]);
            }
            Action::Pack(end) => {
                self.plan(*end);
                outcome = self.pack();
            }
            Action::Clean(end) => {
                self.plan(*end);
                outcome = self.clean();
            }
            Action::Restart(fate) => self.restart(*fate),
        }
        // Also who goes on after a failure can read everything.
        self.check();
        if outcome.is_err() || self.packs().dir().crash.happened() {
            self.restart(Fate::Stays);
            self.check();
        }
        self.plan(End::IndexBefore(0));
        self.plan(End::IndexBehind(0));
        self.plan(End::Behind(Step::Created, usize::MAX));
    }

    fn check(&self) {
        for object in self.known.difference(&self.loose) {
            let content = &self.contents[object];
            let packed = self.packs().open_content(*object).unwrap();
            let packed = packed.unwrap_or_else(|| panic!("{object} is lost"));
            let mut read = vec![0; content.len() + 1];
            assert_eq!(packed.read_at(&mut read, 0).unwrap(), content.len());
            assert!(read[..content.len()] == content[..]);
        }
    }
}

/// The same cases each time, unless there is time to look for others.
#[expect(clippy::disallowed_methods, reason = "whoever runs the test says how long")]
fn config() -> ProptestConfig {
    let cases = std::env::var("HORACE_CRASH_CASES").ok().and_then(|n| n.parse().ok());
    match cases {
        Some(cases) => ProptestConfig::with_cases(cases),
        None => ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(48) },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_that_is_kept_is_lost(actions in proptest::collection::vec(actions(), 1..40)) {
        let mut world = World::new();
        actions.iter().for_each(|action| world.act(action));
        // In the end everything that nobody needs can go.
        world.known.clear();
        world.clean().unwrap();
        prop_assert_eq!(world.packs().totals(), PackTotals::default());
        prop_assert!(world.packs().dir().list().unwrap().is_empty());
    }
}
