//! Comparing a tree with a tree, and the catalog with a tree.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use horace::catalog::Descend;
use horace::catalog::{CatalogError, NodeInfo, Reader, When};
use horace::types::{ContentHash, Kind};
use proptest::prelude::*;
use sha2::Digest;

/// What must be the same of two files, as text that shows where they differ.
fn describe(path: &Path) -> String {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let content = if kind.is_file() {
        format!("{}", hash(path))
    } else if kind.is_symlink() {
        format!("-> {:?}", std::fs::read_link(path).unwrap())
    } else {
        format!("fifo {} socket {}", kind.is_fifo(), kind.is_socket())
    };
    let size = if kind.is_dir() { 0 } else { meta.len() };
    let links = if kind.is_dir() { 0 } else { meta.nlink() };
    let mut value = vec![0; 4096];
    let xattr = rustix::fs::lgetxattr(path, "user.test", &mut value[..])
        .map(|n| value[..n].to_vec())
        .unwrap_or_default();
    format!(
        "{kind:?} mode {:o} owner {}:{} size {size} links {links} xattr {xattr:?} {content}",
        meta.mode(),
        meta.uid(),
        meta.gid()
    )
}

fn hash(path: &Path) -> ContentHash {
    ContentHash::from(sha2::Sha256::new_with_prefix(std::fs::read(path).unwrap()))
}

fn describe_tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn add(root: &Path, dir: &Path, tree: &mut BTreeMap<Vec<u8>, String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            tree.insert(name, describe(&path));
            if path.symlink_metadata().unwrap().is_dir() {
                add(root, &path, tree);
            }
        }
    }
    let mut tree = BTreeMap::new();
    add(root, root, &mut tree);
    tree
}

/// Two directories have the same in them.
pub(crate) fn same_trees(expected: &Path, found: &Path) -> Result<(), TestCaseError> {
    prop_assert_eq!(describe_tree(found), describe_tree(expected));
    Ok(())
}

/// The catalog has exactly what lies in a subdirectory of the backing directory.
pub(crate) fn catalog_is_true(
    catalog: &Reader,
    backing: &Path,
    subdirectory: &str,
) -> Result<(), TestCaseError> {
    let top = catalog
        .child(horace::types::FileId::ROOT, subdirectory.as_bytes(), When::Now)
        .unwrap()
        .unwrap();
    let mut known = BTreeMap::new();
    let reader = Reader::open(&backing.join(".horace/catalog.db")).unwrap();
    reader
        .walk::<CatalogError>(top, When::Now, |path, node| {
            known.insert(path.to_vec(), describe_node(node));
            Ok(Descend::Yes)
        })
        .unwrap();
    let root = backing.join(subdirectory);
    let mut there = BTreeMap::new();
    for name in describe_tree(&root).into_keys() {
        let path = root.join(std::ffi::OsStr::from_bytes(&name));
        there.insert(name, describe_found(&path));
    }
    prop_assert_eq!(known, there);
    Ok(())
}

fn describe_node(node: &NodeInfo) -> String {
    let (size, hash) = match node.kind {
        Kind::File => (node.size, format!("{:?}", node.hash)),
        _ => (0, String::new()),
    };
    // Of directories the catalog has no times: they change with every name in them.
    let mtime = if node.kind == Kind::Dir { 0 } else { node.mtime_ns };
    let NodeInfo { kind, mode, uid, gid, .. } = node;
    format!("{kind:?} {mode:o} {uid}:{gid} {size} {mtime} {hash}")
}

fn describe_found(path: &Path) -> String {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let kind = Kind::from_mode(meta.mode()).unwrap();
    let (size, hash) = match kind {
        Kind::File => (meta.len(), format!("{:?}", Some(hash(path)))),
        _ => (0, String::new()),
    };
    let mtime = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    let mtime = if kind == Kind::Dir { 0 } else { mtime };
    format!(
        "{kind:?} {:o} {}:{} {size} {mtime} {hash}",
        meta.mode() & 0o7777,
        meta.uid(),
        meta.gid()
    )
}
