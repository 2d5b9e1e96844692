//! Random operations on a mount and on a plain directory must not differ, and the catalog must be what
//! a walk over the backing directory finds.
//!
//! Each operation is done in both; results, errors, listings and contents are compared. After each
//! case the catalog is compared with the backing directory, every digest included.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "these are tests"
)]

#[path = "../support/mounted.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod mounted;

mod compare;
mod operation;

use std::path::PathBuf;

use mounted::{Mounted, can_mount};
use operation::{Operation, World};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Cases with up to this many operations each; `HORACE_MODEL_CASES` asks for more.
const OPERATIONS: usize = 60;
const CASES: u32 = 64;

fn run(options: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let cases = std::env::var("HORACE_MODEL_CASES").ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: cases.unwrap_or(CASES),
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::Direct(
            "tests/model/regressions.txt",
        ))),
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let case = std::sync::atomic::AtomicU32::new(0);
    let operations = proptest::collection::vec(any::<Operation>(), 1..OPERATIONS);
    let result = TestRunner::new(config).run(&operations, |operations| {
        let number = case.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        check(&mounted, &format!("case-{number}"), &operations)
    });
    if let Err(error) = result {
        panic!("{options}: {error}");
    }
}

/// Does the operations in both places and compares everything.
fn check(mounted: &Mounted, name: &str, operations: &[Operation]) -> Result<(), TestCaseError> {
    let plain: PathBuf = mounted.scratch(&format!("plain-{name}"));
    let through = mounted.mountpoint.join(name);
    std::fs::create_dir(&plain).unwrap();
    std::fs::create_dir(&through).unwrap();
    let mut worlds = [World::new(&plain), World::new(&through)];
    for (index, operation) in operations.iter().enumerate() {
        let [expected, found] = worlds.each_mut().map(|world| world.apply(operation));
        prop_assert_eq!(&found, &expected, "operation {}: {:?}", index, operation);
    }
    compare::same_trees(&plain, &through)?;
    drop(worlds);
    compare::same_trees(&plain, &through)?;
    mounted.sync();
    compare::catalog_is_true(&mounted.catalog(), &mounted.backing, name).inspect_err(|_| {
        let reader = mounted.catalog();
        let last = reader.seq().unwrap().0;
        for change in reader.changes(horace::types::Seq(last.saturating_sub(40)), 100).unwrap() {
            eprintln!("{change:?}");
        }
    })?;
    std::fs::remove_dir_all(&plain).unwrap();
    std::fs::remove_dir_all(&through).unwrap();
    Ok(())
}

/// Many at once in one directory: results depend on who comes first, but at the end the catalog
/// must be what is there.
fn run_parallel(options: &str) {
    const THREADS: usize = 6;
    const EACH: usize = 2_000;
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let root = mounted.mountpoint.join("shared");
    std::fs::create_dir(&root).unwrap();
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let root = &root;
            scope.spawn(move || {
                let mut runner = TestRunner::new_with_rng(
                    Config::default(),
                    TestRng::from_seed(RngAlgorithm::ChaCha, &[u8::try_from(seed).unwrap(); 32]),
                );
                let mut world = World::new(root);
                for _ in 0..EACH {
                    let operation = any::<Operation>().new_tree(&mut runner).unwrap().current();
                    // A store behind the end of a file that another thread cuts off is a SIGBUS.
                    if !matches!(operation, Operation::Store { .. }) {
                        let _ = world.apply(&operation);
                    }
                }
            });
        }
    });
    mounted.sync();
    compare::same_trees(&mounted.backing.join("shared"), &root).unwrap();
    compare::catalog_is_true(&mounted.catalog(), &mounted.backing, "shared").unwrap();
}

#[test]
fn many_writers_at_once_leave_a_true_catalog() {
    for options in ["io=auto", "io=stream", "io=passthrough", "passthrough=off"] {
        run_parallel(options);
    }
}

#[test]
fn auto_mode_is_like_a_plain_directory() {
    run("io=auto");
}

#[test]
fn stream_mode_is_like_a_plain_directory() {
    run("io=stream");
}

#[test]
fn passthrough_mode_is_like_a_plain_directory() {
    run("io=passthrough");
}

#[test]
fn without_kernel_passthrough_it_is_like_a_plain_directory() {
    run("passthrough=off");
}
