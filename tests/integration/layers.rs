//! Imports go to the right only: main > cli > daemon > fuse, control > query, fs > catalog > store > sys > types.

use std::collections::BTreeSet;
use std::path::Path;

/// Who may import whom. A module that is missing here fails the test.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("serde_text", &[]),
    ("types", &[]),
    ("causes", &[]),
    ("jsonfile", &[]),
    ("keys", &["jsonfile"]),
    ("webhooks", &["jsonfile", "query", "catalog", "causes", "clock", "sys", "timespec", "types"]),
    ("metrics", &[]),
    ("clock", &[]),
    ("timespec", &[]),
    ("sizespec", &[]),
    ("globspec", &[]),
    ("retention", &["globspec", "sizespec", "timespec"]),
    ("pruning", &["retention", "catalog", "types"]),
    ("migrate", &["catalog", "jsonfile", "sys", "timespec", "types"]),
    ("snapshots", &["retention", "sys", "timespec", "types"]),
    ("file_id", &["types"]),
    ("config", &["types", "retention", "sizespec", "snapshots", "timespec"]),
    ("sys", &["types"]),
    ("catalog", &["causes", "metrics", "store", "sys", "types", "clock"]),
    ("store", &["sys", "types"]),
    ("content", &["catalog", "store", "sys", "types"]),
    ("restore", &["catalog", "causes", "content", "sys", "types"]),
    (
        "fs",
        &[
            "catalog",
            "causes",
            "metrics",
            "content",
            "store",
            "sys",
            "types",
            "clock",
            "config",
            "file_id",
            "retention",
            "pruning",
            "timespec",
        ],
    ),
    ("fuse", &["metrics", "fs", "sys", "types", "clock", "config"]),
    (
        "query",
        &[
            "catalog",
            "content",
            "store",
            "sys",
            "types",
            "file_id",
            "globspec",
            "timespec",
            "pruning",
            "restore",
            "retention",
            "snapshots",
        ],
    ),
    (
        "api",
        &[
            "query", "catalog", "causes", "clock", "content", "keys", "metrics", "sys", "timespec",
            "types", "webhooks",
        ],
    ),
    (
        "control",
        &[
            "query",
            "catalog",
            "content",
            "pruning",
            "restore",
            "snapshots",
            "store",
            "sys",
            "types",
            "config",
        ],
    ),
    (
        "daemon",
        &[
            "fuse",
            "api",
            "control",
            "keys",
            "query",
            "content",
            "fs",
            "catalog",
            "causes",
            "restore",
            "store",
            "sys",
            "types",
            "clock",
            "config",
            "file_id",
            "pruning",
            "retention",
            "sizespec",
            "snapshots",
            "timespec",
            "webhooks",
        ],
    ),
    (
        "cli",
        &[
            "daemon",
            "control",
            "causes",
            "query",
            "keys",
            "catalog",
            "store",
            "sys",
            "types",
            "clock",
            "config",
            "file_id",
            "migrate",
            "retention",
            "sizespec",
            "snapshots",
            "timespec",
            "webhooks",
        ],
    ),
];

#[test]
fn imports_go_to_the_right_only() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    visit(Path::new("src"), &mut |path, text| {
        let room = room_of(path);
        if room == "lib" || room == "main" {
            return;
        }
        seen.insert(room.clone());
        let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == room);
        for imported in imports(text) {
            let may = allowed.is_some_and(|(_, list)| list.contains(&imported.as_str()));
            if imported != room && !may {
                wrong.push(format!("{}: {room} imports {imported}", path.display()));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let known: BTreeSet<_> = MAY_IMPORT.iter().map(|(name, _)| (*name).to_string()).collect();
    assert_eq!(seen, known, "every module has its place in the order");
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    visit(Path::new("src"), &mut |path, text| {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let unsafe_lines = code.filter(|line| line.contains("unsafe {")).count();
        assert!(unsafe_lines == 0 || room_of(path) == "sys", "{}", path.display());
    });
}

/// The first name of a path below `src`.
fn room_of(path: &Path) -> String {
    let below = path.strip_prefix("src").unwrap();
    let first = below.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_string()
}

/// The first names after `crate::` in a file.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1).map(str::to_string).collect::<Vec<_>>())
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(',').map(|part| part.trim().to_string()).collect(),
            None => vec![rest],
        })
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

fn visit(dir: &Path, with: &mut impl FnMut(&Path, &str)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, with);
        } else if path.extension().is_some_and(|e| e == "rs") {
            with(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}
