//! How small packs are and how fast: packs directory trees given as arguments, one after the other as if
//! each was the next version, then reads every file of each back and verifies it.
//!
//! Prints a line per tree. Speeds are bytes of content per second of this thread's processor time, since
//! a machine is seldom idle; packing includes reading and hashing the files, and both the index of chunks, a
//! file beside the directory. `scripts/bench-packs` compares with other programs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "nobody else runs this")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use horace::catalog::ChunkDb;
use horace::store::pack::{ChunkIndex, Pace, PackDir, PackOptions, PackReader, Packer};
use horace::types::ContentHash;
use sha2::{Digest as _, Sha256};

/// Bytes of decompressed frames that the reader may keep.
const CACHE_BYTES: usize = 32 << 20;

struct Tree {
    path: PathBuf,
    files: Vec<(PathBuf, ContentHash)>,
    bytes: u64,
}

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let Some((place, paths)) = arguments.split_first().filter(|(_, paths)| !paths.is_empty())
    else {
        println!("usage: cargo bench --bench packs -- EMPTY_DIRECTORY TREE...");
        return;
    };
    let dir = Arc::new(PackDir::open(Path::new(place)).unwrap());
    let index_path = Path::new(place).with_extension("chunks.db");
    let index = Arc::new(ChunkDb::open(&index_path).unwrap());
    let trees: Vec<Tree> = paths.iter().map(|path| survey(Path::new(path))).collect();
    println!("tree                    MB   packs MB   dedup   ratio   pack MB/s");
    let (mut total, mut stored, mut unique) = (0, 0, 0);
    for tree in &trees {
        let start = processor_seconds();
        let right = dir.maintain();
        let mut packer = Packer::new(&right, &*index, &|_| Pace::Go, PackOptions::default());
        for (path, object) in &tree.files {
            let file = fs::File::open(path).unwrap();
            packer.add(*object, file.metadata().unwrap().len(), file).unwrap();
        }
        packer.commit().unwrap();
        let seconds = processor_seconds() - start;
        let stats = packer.stats();
        total += tree.bytes;
        stored += stats.pack_bytes;
        unique += stats.new_bytes;
        println!(
            "{:<18} {:>7.1} {:>10.1} {:>7.2} {:>7.2} {:>11.0}",
            tree.path.file_name().unwrap().to_string_lossy(),
            mega(tree.bytes),
            mega(stats.pack_bytes),
            total as f64 / unique as f64,
            total as f64 / stored as f64,
            mega(tree.bytes) / seconds,
        );
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!("peak of memory: {}", peak[6..].trim());
    measure_index(&dir, &index_path);
    println!("\ntree                  read MB/s   zstd alone MB/s  ratio");
    for tree in &trees {
        let reader = PackReader::new(
            Arc::clone(&dir),
            Arc::clone(&index) as Arc<dyn ChunkIndex>,
            CACHE_BYTES,
        );
        let start = processor_seconds();
        for (_, object) in &tree.files {
            let recipe = reader.recipe(*object).unwrap().unwrap();
            reader.copy(&recipe, &mut std::io::sink()).unwrap();
        }
        let seconds = processor_seconds() - start;
        let zstd = mega(tree.bytes) / zstd_seconds(tree);
        println!(
            "{:<18} {:>12.0} {:>16.0} {:>6.2}",
            tree.path.file_name().unwrap().to_string_lossy(),
            mega(tree.bytes) / seconds,
            zstd,
            mega(tree.bytes) / seconds / zstd,
        );
    }
}

/// What the index takes on disk, and how fast it answers when asked for everything in random order.
fn measure_index(dir: &PackDir, path: &Path) {
    let again = path.with_extension("again.db");
    let packs: Vec<_> = dir.list().unwrap();
    let contents: Vec<_> =
        packs.iter().map(|pack| dir.open_pack(*pack).unwrap().index().unwrap()).collect();
    let mut keys: Vec<_> = contents.iter().flat_map(|c| &c.entries).map(|e| e.key).collect();
    let index = ChunkDb::open(&again).unwrap();
    let start = processor_seconds();
    contents.iter().for_each(|pack| index.replace(std::slice::from_ref(pack), &[]).unwrap());
    let inserted = processor_seconds() - start;
    drop(index);
    let bytes = fs::metadata(&again).unwrap().len();
    let index = ChunkDb::open(&again).unwrap();
    keys.sort_unstable_by_key(|key| key.hash.as_bytes()[31]);
    let start = processor_seconds();
    keys.iter().for_each(|key| assert!(index.find(key).unwrap().is_some()));
    let found = processor_seconds() - start;
    let count = keys.len() as f64;
    println!(
        "index: {count} items in {} packs, {:.1} bytes each, {:.0} inserted/s, {:.0} found/s",
        packs.len(),
        bytes as f64 / count,
        count / inserted,
        count / found,
    );
}

fn survey(path: &Path) -> Tree {
    let mut tree = Tree { path: path.to_path_buf(), files: Vec::new(), bytes: 0 };
    let mut rest = vec![path.to_path_buf()];
    while let Some(path) = rest.pop() {
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            let mut below: Vec<_> =
                fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()).collect();
            below.sort_unstable_by(|a, b| b.cmp(a));
            rest.extend(below);
        } else if kind.is_file() {
            let mut hasher = Sha256::new();
            let mut file = fs::File::open(&path).unwrap();
            tree.bytes += std::io::copy(&mut file, &mut hasher).unwrap();
            tree.files.push((path, hasher.into()));
        }
    }
    tree
}

/// What zstd itself takes to decompress the tree from one stream of the level that packs have.
fn zstd_seconds(tree: &Tree) -> f64 {
    let mut encoder = zstd::Encoder::new(Vec::new(), 6).unwrap();
    for (path, _) in &tree.files {
        std::io::copy(&mut fs::File::open(path).unwrap(), &mut encoder).unwrap();
    }
    let compressed = encoder.finish().unwrap();
    let start = processor_seconds();
    zstd::stream::copy_decode(&compressed[..], std::io::sink()).unwrap();
    processor_seconds() - start
}

/// Processor time of this thread.
fn processor_seconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
    nanoseconds as f64 / 1e9
}

fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
