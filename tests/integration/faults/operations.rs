//! What is done while something goes wrong: every operation that takes more than one durable step.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags};

use crate::tools::noise;

/// One operation on a directory that has been [prepared](prepare).
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// What of it there may be when it was stopped or has failed.
    pub(super) parts: Parts,
    pub(super) act: fn(&Path) -> std::io::Result<()>,
}

/// How much of an operation may have happened if not all of it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parts {
    /// Nothing.
    None,
    /// Any part: it takes several calls, or one that can stop midway.
    Any,
}

/// Small enough to be hashed before `close` returns, and larger.
const SMALL: usize = 3_000;
const LARGE: usize = 1_200_000;

/// Fills a directory with what the operations work on.
pub(super) fn prepare(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
        fs::write(dir.join(name), noise(seed as u64, SMALL)).unwrap();
    }
    fs::write(dir.join("large"), noise(9, LARGE)).unwrap();
    fs::hard_link(dir.join("c"), dir.join("other")).unwrap();
    fs::create_dir(dir.join("sub")).unwrap();
    fs::write(dir.join("sub/f"), "in a directory").unwrap();
    fs::create_dir(dir.join("empty")).unwrap();
    symlink("a", dir.join("link")).unwrap();
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

macro_rules! operations {
    ($($name:ident, $parts:ident: $act:expr;)*) => {
        /// All of them.
        pub(super) const OPERATIONS: &[Operation] = &[$(Operation {
            name: stringify!($name),
            parts: Parts::$parts,
            act: $act,
        }),*];
    };
}

operations! {
    create, Any: |dir| fs::write(dir.join("new"), noise(20, SMALL));
    create_large, Any: |dir| fs::write(dir.join("new"), noise(20, LARGE));
    replace_content, Any: |dir| fs::write(dir.join("a"), noise(21, SMALL));
    replace_large, Any: |dir| fs::write(dir.join("large"), noise(21, LARGE));
    change_in_place, Any: |dir| open(&dir.join("a"))?.write_all_at(b"changed", 100);
    change_large_in_place, Any: |dir| open(&dir.join("large"))?.write_all_at(b"changed", 100);
    append, Any: |dir| {
        OpenOptions::new().append(true).open(dir.join("a"))?.write_all(b"and more")
    };
    truncate_by_path, None: |dir| {
        Ok(rustix::fs::ftruncate(open(&dir.join("a"))?, 1_000)?)
    };
    punch_a_hole, Any: |dir| {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(open(&dir.join("a"))?, hole, 0, 500)?)
    };
    save_atomically, Any: |dir| {
        fs::write(dir.join("a.new"), noise(22, SMALL))?;
        fs::rename(dir.join("a.new"), dir.join("a"))
    };
    replace_by_rename, None: |dir| fs::rename(dir.join("a"), dir.join("b"));
    replace_a_link_by_rename, None: |dir| fs::rename(dir.join("a"), dir.join("c"));
    exchange, None: |dir| {
        let (flags, cwd) = (rustix::fs::RenameFlags::EXCHANGE, rustix::fs::CWD);
        Ok(rustix::fs::renameat_with(cwd, dir.join("a"), cwd, dir.join("b"), flags)?)
    };
    rename, None: |dir| fs::rename(dir.join("a"), dir.join("moved"));
    rename_a_directory, None: |dir| fs::rename(dir.join("sub"), dir.join("empty"));
    delete, None: |dir| fs::remove_file(dir.join("a"));
    delete_large, None: |dir| fs::remove_file(dir.join("large"));
    delete_one_of_two_names, None: |dir| fs::remove_file(dir.join("c"));
    delete_while_open, Any: |dir| {
        let file = OpenOptions::new().append(true).open(dir.join("a"))?;
        fs::remove_file(dir.join("a"))?;
        (&file).write_all(b"and more")
    };
    delete_a_directory, None: |dir| fs::remove_dir(dir.join("empty"));
    make_a_directory, None: |dir| fs::create_dir(dir.join("new"));
    link, None: |dir| fs::hard_link(dir.join("a"), dir.join("new"));
    make_a_symlink, None: |dir| symlink("b", dir.join("new"));
    change_mode, None: |dir| fs::set_permissions(dir.join("a"), PermissionsExt::from_mode(0o600));
    change_owner, None: |dir| std::os::unix::fs::chown(dir.join("a"), Some(12), Some(34));
    set_an_attribute, None: |dir| {
        Ok(rustix::fs::setxattr(dir.join("a"), "user.note", b"hello", XattrFlags::empty())?)
    };
}
