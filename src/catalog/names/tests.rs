//! The index against a plain list of paths.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

/// A tree as a plain table.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<(u64, Vec<u8>), (u64, Kind)>,
}

impl Model {
    fn path(&self, top: u64, dir: u64) -> Option<Vec<Vec<u8>>> {
        let (mut names, mut at) = (Vec::new(), dir);
        while at != top {
            let ((parent, name), _) = self.entries.iter().find(|(_, (child, _))| *child == at)?;
            names.push(name.clone());
            at = *parent;
        }
        names.reverse();
        Some(names)
    }

    fn search(&self, query: &Query) -> Vec<(u64, Vec<u8>)> {
        let matches = |(parent, name): &(u64, Vec<u8>), kind: Kind| {
            let Some(mut below) = self.path(query.top, *parent) else { return false };
            let Some(_) = self.path(1, *parent) else { return false };
            below.push(name.clone());
            let path = below.join(&b'/').to_ascii_lowercase();
            let is_in = |text: &[u8], part: &[u8]| {
                part.is_empty() || text.windows(part.len()).any(|window| window == part)
            };
            let name = name.to_ascii_lowercase();
            let fits = match query.shape {
                What::Part => is_in(&path, &query.text.to_ascii_lowercase()),
                What::Name => is_in(&name, &query.text),
                What::Path => is_in(&path, &query.text),
            };
            let end = query.extension.as_ref().map(|e| [b".", &e[..]].concat());
            fits && query.kind.is_none_or(|wanted| wanted == kind)
                && end.is_none_or(|end| name.len() > end.len() && name.ends_with(&end))
        };
        let found = self.entries.iter().filter(|(key, (_, kind))| matches(key, *kind));
        found.map(|(key, _)| key.clone()).collect()
    }

    /// Everything in and below a directory, as a catalog would end it.
    fn remove_tree(&mut self, index: &mut NameIndex, key: &(u64, Vec<u8>)) {
        let Some((child, kind)) = self.entries.remove(key) else { return };
        index.take(FileId(key.0), &key.1);
        if kind == Kind::Dir {
            let inside: Vec<_> = self
                .entries
                .range((child, Vec::new())..(child + 1, Vec::new()))
                .map(|e| e.0.clone())
                .collect();
            for key in inside {
                self.remove_tree(index, &key);
            }
            index.end(FileId(child));
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Part,
    Name,
    Path,
}

#[derive(Debug, Clone)]
struct Query {
    top: u64,
    shape: What,
    text: Vec<u8>,
    extension: Option<Vec<u8>>,
    kind: Option<Kind>,
}

#[derive(Debug, Clone)]
enum Step {
    Create { parent: usize, name: Vec<u8>, kind: Kind },
    Remove(usize),
    Rename { from: usize, parent: usize, name: Vec<u8> },
    Search { top: usize, query: Query, page: usize },
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[abAB]{1,4}(\\.[ab]{1,2})?".prop_map(String::into_bytes),
        2 => "(abc|bca|cab|ABC){1,3}[0-9]{0,2}(\\.rs|\\.MD)?".prop_map(String::into_bytes),
        1 => prop::collection::vec(prop_oneof![Just(0xff_u8), Just(b'a'), Just(b'\n')], 1..5),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(Kind::File), 2 => Just(Kind::Dir), 1 => Just(Kind::Symlink)];
    let shape = prop_oneof![4 => Just(What::Part), 1 => Just(What::Name), 1 => Just(What::Path)];
    let text = prop_oneof![
        3 => "[abc]{0,5}",
        3 => "[ab]{0,3}/[ab]{0,3}",
        2 => "(abc|bca)/?[abc]{0,3}/?",
        1 => "[ab]?/[ab]{1,2}/[ab]?",
    ];
    let search = (shape, text, prop::option::of("(rs|md|a|ab)"), prop::option::of(Just(Kind::Dir)));
    let search = search.prop_map(|(shape, text, extension, kind)| Query {
        top: 1,
        shape,
        text: text.into_bytes(),
        extension: extension.map(String::into_bytes),
        kind,
    });
    prop_oneof![
        8 => (any::<usize>(), name(), kind)
            .prop_map(|(parent, name, kind)| Step::Create { parent, name, kind }),
        2 => any::<usize>().prop_map(Step::Remove),
        3 => (any::<usize>(), any::<usize>(), name())
            .prop_map(|(from, parent, name)| Step::Rename { from, parent, name }),
        3 => (any::<usize>(), search, 1..7_usize)
            .prop_map(|(top, query, page)| Step::Search { top, query, page }),
    ]
}

fn pattern(query: &Query) -> NamePattern<'_> {
    let is_in = |text: &[u8]| {
        let text = text.to_ascii_lowercase();
        query.text.is_empty() || text.windows(query.text.len()).any(|part| part == query.text)
    };
    let piece = Vec::from_iter(Some(query.text.clone()).filter(|text| !text.contains(&b'/')));
    match query.shape {
        What::Part => NamePattern::part(&query.text),
        What::Name => NamePattern::name_glob(&piece, is_in),
        What::Path => NamePattern::path_glob(&[], is_in),
    }
}

fn all(index: &NameIndex, query: &Query, after: Option<NameKey>, want: usize) -> Vec<FoundName> {
    let mut search = NameSearch::new(NameQuery {
        top: FileId(query.top),
        pattern: pattern(query),
        extension: query.extension.clone(),
        kind: query.kind,
        after,
    });
    let mut found = Vec::new();
    while !search.is_done() && found.len() < want {
        found.extend(search.step(index, want - found.len()));
    }
    found.truncate(want);
    found
}

fn run(steps: Vec<Step>) {
    let (mut model, mut index) = (Model::default(), NameIndex::default());
    let mut next = 2;
    for step in steps {
        let mut dirs = vec![1];
        dirs.extend(model.entries.values().filter(|e| e.1 == Kind::Dir).map(|e| e.0));
        match step {
            Step::Create { parent, name, kind } => {
                let key = (dirs[parent % dirs.len()], name);
                model.remove_tree(&mut index, &key);
                // Its directory may have gone with it.
                index.put(FileId(key.0), &key.1, FileId(next), kind);
                model.entries.insert(key, (next, kind));
                next += 1;
            }
            Step::Remove(which) if !model.entries.is_empty() => {
                let key = model.entries.keys().nth(which % model.entries.len()).unwrap().clone();
                model.remove_tree(&mut index, &key);
            }
            Step::Rename { from, parent, name } if !model.entries.is_empty() => {
                let from = model.entries.keys().nth(from % model.entries.len()).unwrap().clone();
                let (child, kind) = model.entries[&from];
                let to = (dirs[parent % dirs.len()], name);
                let into_itself = kind == Kind::Dir && model.path(child, to.0).is_some();
                let over_parent = model.entries.contains_key(&to);
                if into_itself || over_parent {
                    continue;
                }
                let before = index.changed();
                model.entries.remove(&from);
                index.take(FileId(from.0), &from.1);
                model.entries.insert(to.clone(), (child, kind));
                index.put(FileId(to.0), &to.1, FileId(child), kind);
                assert_eq!(index.changed() - before, 2);
            }
            Step::Search { top, mut query, page } => {
                query.top = dirs[top % dirs.len()];
                let expected = model.search(&query);
                let found = all(&index, &query, None, usize::MAX);
                let keys: Vec<_> =
                    found.iter().map(|f| (f.key.parent.0, f.key.name.to_vec())).collect();
                assert_eq!(keys, expected, "{query:?}");
                for found in &found {
                    let mut path = model.path(1, found.key.parent.0).unwrap();
                    path.push(found.key.name.to_vec());
                    assert_eq!(found.path, path.join(&b'/'));
                }
                let mut paged: Vec<FoundName> = Vec::new();
                loop {
                    let after = paged.last().map(|f| f.key.clone());
                    let more = all(&index, &query, after, page);
                    paged.extend(more.iter().cloned());
                    if more.len() < page {
                        break;
                    }
                }
                assert_eq!(paged, found);
            }
            _ => {}
        }
    }
    index.shelf.check();
    assert_eq!(index.len(), model.entries.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_search_finds_what_a_plain_list_has(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }
}

/// A tree large enough for many groups, made in an order that is not that of names.
fn large() -> (NameIndex, Vec<(u64, Vec<u8>)>) {
    let mut index = NameIndex::default();
    let mut keys = Vec::new();
    let mut state = 1_u64;
    for dir in 2..1000_u64 {
        index.put(FileId(1 + dir / 40), format!("dir{dir}").as_bytes(), FileId(dir), Kind::Dir);
        keys.push((1 + dir / 40, format!("dir{dir}").into_bytes()));
    }
    for id in 1000..60_000_u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let parent = 1 + state % 999;
        let name = format!("File {} of {}.txt", state % 7919, id);
        index.put(FileId(parent), name.as_bytes(), FileId(id), Kind::File);
        keys.push((parent, name.into_bytes()));
    }
    keys.sort();
    (index, keys)
}

fn part(text: &str) -> Query {
    Query { top: 1, shape: What::Part, text: text.into(), extension: None, kind: None }
}

#[test]
fn many_names_keep_their_order_and_their_room() {
    let (mut index, keys) = large();
    index.shelf.check();
    let names: Vec<_> = all(&index, &part(""), None, usize::MAX);
    let found: Vec<_> = names.iter().map(|f| (f.key.parent.0, f.key.name.to_vec())).collect();
    assert_eq!(found, keys);
    assert!(index.memory() / index.len() < 64, "{} bytes a name", index.memory() / index.len());
    let few = all(&index, &part("of 31415.TXT"), None, usize::MAX);
    assert_eq!(few.len(), 1);
    // Below a directory that matches.
    let below = all(&index, &part("ir40/"), None, usize::MAX);
    assert!(below.len() > 40 && below.iter().all(|f| f.path.windows(6).any(|w| w == b"dir40/")));
    // Taken away again, up to a few, no empty blocks stay.
    for (parent, name) in &keys[..keys.len() - 100] {
        if name.starts_with(b"File") {
            index.take(FileId(*parent), name);
        }
    }
    index.shelf.check();
    assert!(index.shelf.groups().len() < 5, "{} groups", index.shelf.groups().len());
}

#[test]
fn a_search_goes_on_while_names_come_and_go() {
    let (mut index, keys) = large();
    let query = part("txt");
    let mut search = NameSearch::new(NameQuery {
        top: FileId::ROOT,
        pattern: pattern(&query),
        extension: None,
        kind: None,
        after: None,
    });
    let mut found: Vec<NameKey> = Vec::new();
    let mut gone = HashSet::new();
    let mut next = 100_000;
    while !search.is_done() {
        found.extend(search.step(&index, 50).into_iter().map(|f| f.key));
        for (parent, name) in keys.iter().skip(next % 89).step_by(997) {
            if name.starts_with(b"File") && gone.insert((*parent, name.clone())) {
                index.take(FileId(*parent), name);
            }
            next += 1;
            let new = format!("new {next}.txt");
            index.put(FileId(*parent), new.as_bytes(), FileId(next as u64), Kind::File);
        }
    }
    assert!(found.windows(2).all(|two| two[0] < two[1]), "each once, in order");
    let found: HashSet<_> = found.into_iter().map(|k| (k.parent.0, k.name.to_vec())).collect();
    let stayed = keys.iter().filter(|k| k.1.starts_with(b"File") && !gone.contains(*k));
    assert_eq!(stayed.filter(|key| !found.contains(*key)).count(), 0);
}

#[test]
fn renaming_a_directory_changes_one_name() {
    let mut index = NameIndex::default();
    index.put(FileId::ROOT, b"old", FileId(2), Kind::Dir);
    for id in 3..100_003 {
        index.put(FileId(2), format!("file {id}").as_bytes(), FileId(id), Kind::File);
    }
    let before = index.changed();
    index.take(FileId::ROOT, b"old");
    index.put(FileId::ROOT, b"new", FileId(2), Kind::Dir);
    assert_eq!(index.changed() - before, 2, "one taken away, one put");
    assert_eq!(all(&index, &part("new/file 777"), None, usize::MAX).len(), 111);
    assert_eq!(all(&index, &part("old"), None, usize::MAX).len(), 0);
}
