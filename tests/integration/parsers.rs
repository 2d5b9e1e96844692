//! What reads text and bytes of others survives all of them: seeds that once broke something or might,
//! and changed copies of them. Nothing panics, overflows, or takes long; what is read is printed as
//! something that is read again; what is refused says why.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use horace::config::{ConfigFile, MountConfig};
use horace::control::wire::{AnswerLine, read_request};
use horace::globspec;
use horace::retention::{Globs, Grid};
use horace::sizespec::Size;
use horace::timespec::{Span, gmt_token, parse_absolute, parse_gmt_token, parse_time, rfc3339};
use horace::types::{ContentHash, Xattrs};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::FileFailurePersistence;

/// One seed is parsed by everything within this time, also where two builds run beside it.
const TIME: Duration = Duration::from_secs(20);

/// Has every parser read the bytes.
fn parse_all(bytes: &[u8]) {
    let began = Instant::now();
    of_bytes(bytes);
    of_text(&String::from_utf8_lossy(bytes));
    let took = began.elapsed();
    assert!(took < TIME, "{took:?} for {}", bytes.escape_ascii());
}

fn of_bytes(bytes: &[u8]) {
    match read_request(bytes) {
        Ok(request) => {
            let mut line = serde_json::to_vec(&request).unwrap();
            line.push(b'\n');
            assert_eq!(read_request(&line[..]).unwrap(), request);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = AnswerLine::parse(bytes);
    if let Some(xattrs) = Xattrs::decode(bytes) {
        assert_eq!(xattrs.encode(), bytes);
    }
}

fn of_text(text: &str) {
    let mut config = MountConfig::new("/b", "/m");
    tell(config.apply_options(text));
    tell(MountConfig::from_fstab_line(text));
    let _ = MountConfig::mountpoint_in(text);
    tell(ConfigFile::parse(Path::new("/etc/horace.toml"), text));
    for zone in [TimeZone::UTC, TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()] {
        for now in [i64::MIN, 0, i64::MAX] {
            if let Some(ns) = tell(parse_time(text, now, &zone)) {
                assert_eq!(parse_time(&rfc3339(ns), now, &zone).ok(), Some(ns));
            }
        }
        let _ = parse_absolute(text, &zone);
    }
    if let Some(ns) = parse_gmt_token(text) {
        assert_eq!(gmt_token(ns), text);
    }
    shown_as_it_is_read::<Span>(text);
    shown_as_it_is_read::<Size>(text);
    shown_as_it_is_read::<Grid>(text);
    shown_as_it_is_read::<ContentHash>(text);
    if let Some(glob) = tell(globspec::compile(text)) {
        glob.is_match(std::ffi::OsStr::from_bytes(&[b'a'; 4096]));
    }
    tell(Globs::try_from(vec![text.to_owned(), "*".into()]));
}

/// What was read; what is wrong must be said.
fn tell<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    if let Err(error) = &result {
        assert!(!error.to_string().is_empty());
    }
    result.ok()
}

fn shown_as_it_is_read<T>(text: &str)
where
    T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug,
    T::Err: std::fmt::Display + std::fmt::Debug,
{
    if let Some(read) = tell(text.parse::<T>()) {
        let shown = read.to_string();
        assert_eq!(shown.parse::<T>().unwrap().to_string(), shown);
    }
}

/// The seeds, in the order of their names.
fn seeds() -> Vec<Vec<u8>> {
    let files = fs::read_dir("tests/corpus").unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn every_seed_is_read_or_refused() {
    let seeds = seeds();
    assert!(seeds.len() > 80, "{}", seeds.len());
    seeds.iter().for_each(|seed| parse_all(seed));
}

/// A change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Set(index, byte) => {
                let at = at(index);
                bytes.splice(at..(at + 1).min(bytes.len()), [*byte]);
            }
            Self::Insert(index, new) => {
                let at = at(index);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Remove(index, length) => {
                let at = at(index);
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            Self::Repeat(index, length, times) => {
                let at = at(index);
                let part = bytes[at..(at + length).min(bytes.len())].repeat(*times);
                bytes.splice(at..at, part);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let special = b"\0\n\r\x1b\xff\\\"'{}[](),;:=@~#%*?/-+.0123456789eEdhmswyTZ ".to_vec();
    prop_oneof![
        (any::<Index>(), select(special)).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, new)| Change::Insert(at, new)),
        (any::<Index>(), 1..20usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..20usize, 1..200usize)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/integration/parsers-regressions.txt",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn changed_seeds_are_read_or_refused(
        seed in select(seeds()),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mut bytes = seed;
        changes.iter().for_each(|change| change.apply(&mut bytes));
        parse_all(&bytes);
    }
}
