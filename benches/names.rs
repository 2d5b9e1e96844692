//! How fast names are found, and how much memory they take: generates a tree in memory, puts its names into
//! an index in the order in which a catalog has them, and asks it what people ask.
//!
//! Prints a line per kind of query, each of which stops after 100 names as a page of answers does, unless it
//! says otherwise. A slice is what a search does while the catalog's writer has to wait. Nothing random
//! differs between runs. `scripts/bench-search` builds and runs it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "nobody else runs this")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "figures to look at"
)]

use std::time::{Duration, Instant};

use horace::catalog::names::{NameIndex, NamePattern, NameQuery, NameSearch};
use horace::globspec;
use horace::types::{FileId, Kind};

/// Names that a page of answers has.
const PAGE: usize = 100;
/// Searches of each kind.
const RUNS: usize = 100;
/// How often each is done: the fastest counts, since a machine is seldom idle.
const TRIES: usize = 5;

const WORDS: [&str; 48] = [
    "report", "invoice", "photo", "draft", "final", "meeting", "notes", "budget", "summary",
    "index", "readme", "config", "module", "test", "handler", "client", "server", "parser",
    "buffer", "window", "kernel", "driver", "network", "session", "holiday", "garden", "kitchen",
    "project", "archive", "backup", "letter", "contract", "offer", "picture", "record", "sample",
    "table", "vector", "widget", "schema", "license", "makefile", "render", "texture", "sound",
    "track", "album", "video",
];
const ENDS: [&str; 12] =
    ["rs", "c", "h", "pdf", "docx", "jpg", "txt", "py", "json", "html", "mp3", "o"];

/// A generator of numbers, always the same.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 ^ self.0 >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn of<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.below(words.len())]
    }

    fn letters(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| b'a' + self.below(26) as u8).collect()
    }

    /// Names of one directory, all of a kind, as they are in real ones.
    fn file(&mut self, like: usize) -> Vec<u8> {
        let (a, b, end) = (self.of(&WORDS), self.of(&WORDS), self.of(&ENDS));
        let number = self.next();
        match like {
            0 | 1 => format!("{a}_{b}{}.{end}", number % 100),
            2 => format!(
                "IMG_20{:02}{:02}{:02}_{:06}.jpg",
                number % 25,
                number % 12 + 1,
                number % 28 + 1,
                number >> 8 & 0xf_ffff
            ),
            3 => format!("{:016x}{:016x}", self.next(), number),
            4 => format!("{} {b} 20{:02}.{end}", a.to_uppercase(), number % 25),
            5 => format!(
                "{}.M{}P{}.host,S={}:2,S",
                1_600_000_000 + number % 100_000_000,
                number % 999_999,
                number % 32_768,
                number % 99_999
            ),
            _ => format!("{a}-{}.{end}", number % 10_000),
        }
        .into_bytes()
    }

    fn dir(&mut self) -> Vec<u8> {
        let number = self.next();
        match number % 4 {
            0 => format!("{}{}", self.of(&WORDS), number >> 8 & 0x3ff),
            1 => format!("20{:02}-{:02}", number >> 8 & 0x1f, number >> 16 & 0xf),
            2 => format!(
                "{}-{}-{}.{}",
                self.of(&WORDS),
                self.of(&WORDS),
                number >> 8 & 7,
                number >> 12 & 31
            ),
            _ => format!("{}", number >> 8 & 0xffff),
        }
        .into_bytes()
    }
}

struct Tree {
    index: NameIndex,
    dirs: Vec<FileId>,
    sample: Vec<(FileId, Vec<u8>)>,
    bytes: usize,
    seconds: f64,
}

fn grow(names: usize) -> Tree {
    let mut dice = Dice(7);
    let mut tree = Tree {
        index: NameIndex::default(),
        dirs: vec![FileId::ROOT],
        sample: Vec::new(),
        bytes: 0,
        seconds: 0.0,
    };
    let (mut next, mut at) = (2, 0);
    while tree.index.len() < names {
        let parent = tree.dirs[at];
        let like = dice.below(8);
        let files = if dice.below(200) == 0 { 1000 } else { dice.below(16) };
        let mut inside: Vec<(Vec<u8>, Kind)> =
            (0..files).map(|_| (dice.file(like), Kind::File)).collect();
        let subdirs = if at < 40 { 20 } else { dice.below(4) };
        inside.extend((0..subdirs).map(|_| (dice.dir(), Kind::Dir)));
        inside.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        inside.dedup_by(|a, b| a.0 == b.0);
        let began = Instant::now();
        for (name, kind) in &inside {
            tree.index.put(parent, name, FileId(next), *kind);
            next += 1;
        }
        tree.seconds += began.elapsed().as_secs_f64();
        let ids = next - inside.len() as u64;
        for (id, (name, kind)) in (ids..).zip(inside) {
            tree.bytes += name.len();
            if kind == Kind::Dir {
                tree.dirs.push(FileId(id));
            } else if dice.below(names / 5000 + 1) == 0 {
                tree.sample.push((parent, name));
            }
        }
        at += 1;
    }
    tree
}

#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn at(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let last = (self.0.len() - 1) as f64 * part;
        let at = (0..self.0.len()).rev().find(|at| *at as f64 <= last).unwrap();
        self.0[at].as_secs_f64() * 1e3
    }
}

struct Bench<'t> {
    tree: &'t Tree,
    slices: Times,
}

impl Bench<'_> {
    fn kind<'q>(
        &mut self,
        what: &str,
        limit: usize,
        mut query: impl FnMut(usize) -> (FileId, NamePattern<'q>, Option<Vec<u8>>),
    ) {
        let (mut times, mut found) = (Times::default(), 0);
        for run in 0..RUNS {
            let (mut best, mut slowest, mut here) = (Duration::MAX, Duration::MAX, 0);
            for _ in 0..TRIES {
                let (top, pattern, extension) = query(run);
                let began = Instant::now();
                let mut search =
                    NameSearch::new(NameQuery { top, pattern, extension, kind: None, after: None });
                let mut longest = Duration::ZERO;
                here = 0;
                while !search.is_done() && here < limit {
                    let slice = Instant::now();
                    here += search.step(&self.tree.index, limit - here).len();
                    longest = longest.max(slice.elapsed());
                }
                (best, slowest) = (best.min(began.elapsed()), slowest.min(longest));
            }
            times.0.push(best);
            self.slices.0.push(slowest);
            found += here;
        }
        println!(
            "{what:<44} {:>8.3} {:>8.3} {:>8.3} {:>9.1}",
            times.at(0.5),
            times.at(0.95),
            times.at(0.99),
            found as f64 / RUNS as f64
        );
    }

    fn name(&self, run: usize) -> &[u8] {
        &self.tree.sample[run * 7 % self.tree.sample.len()].1
    }

    fn path(&self, run: usize) -> Vec<u8> {
        let (top, pattern) = (FileId::ROOT, NamePattern::part(self.name(run)));
        let mut search =
            NameSearch::new(NameQuery { top, pattern, extension: None, kind: None, after: None });
        loop {
            if let Some(found) = search.step(&self.tree.index, 1).into_iter().next() {
                return found.path;
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let names = arguments.first().map_or(10_000_000, |names| names.parse().unwrap());
    let before = resident();
    let mut tree = grow(names);
    let sample: usize =
        tree.sample.iter().map(|s| s.1.len() + 40).sum::<usize>() + tree.dirs.capacity() * 8;
    let total = tree.index.len() as f64;
    println!(
        "{} names, {} directories, {:.1} bytes long on average",
        tree.index.len(),
        tree.dirs.len(),
        tree.bytes as f64 / total
    );
    println!("built in {:.2} s, {:.2} µs a name", tree.seconds, tree.seconds * 1e6 / total);
    println!(
        "{:.1} bytes a name of memory, {:.1} by its own account",
        (resident() - before - sample) as f64 / total,
        tree.index.memory() as f64 / total
    );
    queries(&tree);
    updates(&mut tree);
    let total = tree.index.len() as f64;
    println!(
        "{:.1} bytes a name afterwards by its own account",
        tree.index.memory() as f64 / total
    );
}

fn queries(tree: &Tree) {
    let mut bench = Bench { tree, slices: Times::default() };
    println!("{:<44} {:>8} {:>8} {:>8} {:>9}", "query", "p50 ms", "p95 ms", "p99 ms", "found");
    let part = |text: &[u8]| (FileId::ROOT, NamePattern::part(text), None);
    let samples: Vec<Vec<u8>> = (0..RUNS).map(|run| bench.name(run).to_vec()).collect();
    let paths: Vec<Vec<u8>> = (0..RUNS).map(|run| bench.path(run)).collect();
    bench.kind("a whole name", PAGE, |run| part(&samples[run]));
    bench.kind("eight letters of a name", PAGE, |run| {
        let name = &samples[run];
        let from = name.len().saturating_sub(8) / 2;
        part(&name[from..(from + 8).min(name.len())])
    });
    bench.kind("three letters of a name", PAGE, |run| part(&samples[run][..3]));
    bench.kind("three letters at random", PAGE, |run| part(&Dice(run as u64).letters(3)));
    bench.kind("three letters at random, all of them", usize::MAX, |run| {
        part(&Dice(run as u64).letters(3))
    });
    bench.kind("ten letters that no name has", PAGE, |run| part(&Dice(run as u64).letters(10)));
    bench.kind("a word with a number", PAGE, |run| {
        part(format!("{}-{}", WORDS[run % WORDS.len()], 100 + run).as_bytes())
    });
    bench.kind("a common word", PAGE, |run| part(WORDS[run % WORDS.len()].as_bytes()));
    bench.kind("one letter", PAGE, |run| part(&[b'a' + (run % 26) as u8]));
    bench.kind("two letters that no name has", PAGE, |_| part(b"z~"));
    bench.kind("the end of a directory/and a name's start", PAGE, |run| {
        let path = &paths[run];
        let slash = path.iter().rposition(|b| *b == b'/').unwrap();
        part(&path[slash.saturating_sub(3)..(slash + 6).min(path.len())])
    });
    bench.kind("a whole path", PAGE, |run| part(&paths[run]));
    bench.kind("a directory that matches, all below", PAGE, |run| {
        let path = &paths[run];
        let slash = path.iter().rposition(|b| *b == b'/').unwrap();
        part(&path[path[..slash].iter().rposition(|b| *b == b'/').map_or(0, |at| at + 1)..=slash])
    });
    bench.kind("a glob with two words", PAGE, |run| {
        let (a, b) = (WORDS[run % 48], WORDS[run * 5 % 48]);
        let glob = globspec::compile(&format!("*{a}*{b}7*.pdf")).unwrap();
        let pieces = [a.into(), format!("{b}7").into(), b".pdf".to_vec()];
        let is_match = move |name: &[u8]| glob.is_match(std::str::from_utf8(name).unwrap());
        (FileId::ROOT, NamePattern::name_glob(&pieces, is_match), None)
    });
    bench.kind("a word and an extension", PAGE, |run| {
        (FileId::ROOT, NamePattern::part(WORDS[run % 48].as_bytes()), Some(b"docx".to_vec()))
    });
    bench.kind("a common word in a small directory, all", usize::MAX, |run| {
        (tree.dirs[tree.dirs.len() / 2 + run], NamePattern::part(WORDS[run % 48].as_bytes()), None)
    });
    bench.kind("a common word in 1/20 of the tree, all", usize::MAX, |run| {
        (tree.dirs[1 + run % 20], NamePattern::part(WORDS[run % 48].as_bytes()), None)
    });
    bench.kind("one letter and no such extension", PAGE, |_| {
        (FileId::ROOT, NamePattern::part(b"e"), Some(b"zz".to_vec()))
    });
    println!(
        "{:<44} {:>8.3} {:>8.3} {:>8.3}",
        "the longest slice of each of these",
        bench.slices.at(0.5),
        bench.slices.at(0.95),
        bench.slices.at(0.99)
    );
}

fn updates(tree: &mut Tree) {
    const MANY: usize = 300_000;
    let mut dice = Dice(5);
    let mut per = |what: &str, each: &mut dyn FnMut(usize, &mut Dice, &mut NameIndex)| {
        let began = Instant::now();
        for number in 0..MANY {
            each(number, &mut dice, &mut tree.index);
        }
        println!("{what:<44} {:>8.2} µs", began.elapsed().as_secs_f64() * 1e6 / MANY as f64);
    };
    let dirs = &tree.dirs;
    let next = 1 << 32;
    per("a new name anywhere", &mut |number, dice, index| {
        let dir = dirs[dice.below(dirs.len())];
        index.put(
            dir,
            format!("new file {number}.txt").as_bytes(),
            FileId(next + number as u64),
            Kind::File,
        );
    });
    per("new names in new directories", &mut |number, _, index| {
        let dir = FileId(next * 2 + number as u64 / 20);
        index.put(
            dir,
            format!("new file {number}.txt").as_bytes(),
            FileId(next * 3 + number as u64),
            Kind::File,
        );
    });
    let (sample, mut dice2) = (&tree.sample, Dice(6));
    per("a name taken away and put back", &mut |_, _, index| {
        let (dir, name) = &sample[dice2.below(sample.len())];
        if let Some((child, kind)) = index.get(*dir, name) {
            index.take(*dir, name);
            index.put(*dir, name, child, kind);
        }
    });
}

/// Memory of this process in bytes, with all that its allocator keeps.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
