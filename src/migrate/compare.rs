//! Whether a copy is what it was copied from.
//!
//! Owns the comparison of two trees: all names, every byte of regular files by their digests, owners, modes,
//! times, extended attributes, targets of symlinks, and which names are links of one file. It changes neither.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::digest::digest_of;
use super::{LOST_FOUND, OWN_DIR};
use crate::types::{ContentHash, Xattrs};

/// From so many bytes on both sides are read at the same time.
const LARGE: u64 = 1 << 20;

/// One of the two trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What was copied.
    Source,
    /// The copy.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// What of a name is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Only one side has it.
    OnlyIn(Side),
    /// It is a file here and a directory there, or the like.
    Kind,
    /// The bytes.
    Content,
    /// They change while they are compared.
    Changing,
    /// The mode.
    Mode,
    /// User or group.
    Owner,
    /// The modification time.
    Time,
    /// Extended attributes or ACLs.
    Attributes,
    /// Where a symlink leads.
    LinkTarget,
    /// Which device a node stands for.
    Device,
    /// It is a link of other names here than there.
    Links,
    /// It cannot be read.
    Unreadable(Side, String),
}

impl What {
    /// Whether the bytes are not, or may not be, the same.
    pub fn is_content(&self) -> bool {
        matches!(self, Self::Content | Self::Changing | Self::Unreadable(..))
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyIn(side) => return write!(f, "only in the {side}"),
            Self::Kind => "of another kind",
            Self::Content => "other content",
            Self::Changing => "changed while it was compared",
            Self::Mode => "other mode",
            Self::Owner => "other owner",
            Self::Time => "other modification time",
            Self::Attributes => "other extended attributes or ACLs",
            Self::LinkTarget => "leads elsewhere",
            Self::Device => "other device",
            Self::Links => "linked to other names",
            Self::Unreadable(side, why) => {
                return write!(f, "cannot be read in the {side}: {why}");
            }
        })
    }
}

/// A name that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path from the root of both.
    pub path: PathBuf,
    /// What.
    pub what: What,
}

/// How much was compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// Names.
    pub names: u64,
    /// Regular files whose bytes were read on both sides.
    pub files: u64,
    /// Their bytes, of one side.
    pub bytes: u64,
    /// Differences.
    pub differences: u64,
}

/// Whose owner is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootOwner {
    /// Everybody's.
    Compared,
    /// Not that of the root, which was given another.
    Given,
}

/// Compares two trees, without what Horace has in their roots; `found` hears of every difference, and
/// `progress` how many bytes were read, of one side.
///
/// # Errors
/// If a root cannot be looked at.
pub fn compare(
    source: &Path,
    target: &Path,
    root_owner: RootOwner,
    mut found: impl FnMut(Difference),
    progress: impl Fn(u64),
) -> io::Result<Compared> {
    let both = |name: &Path| -> io::Result<Pair> {
        let [source, target] = [source, target].map(|top| top.join(name));
        let found = [source.symlink_metadata()?, target.symlink_metadata()?];
        Ok(Pair { path: name.into(), full: [source, target], found })
    };
    let root = [source.metadata()?, target.metadata()?];
    let mut comparison = Comparison {
        links: [HashMap::new(), HashMap::new()],
        compared: Compared::default(),
        found: &mut found,
        progress: &progress,
    };
    let full = [source, target].map(Path::to_path_buf);
    let root = Pair { path: PathBuf::new(), full, found: root };
    comparison.attributes(&root, root_owner);
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let Some(names) = comparison.names(&dir, [source, target]) else { continue };
        for name in names {
            match both(&dir.join(&name)) {
                Ok(pair) if comparison.pair(&pair) => dirs.push(pair.path),
                Ok(_) => {}
                Err(error) => {
                    let path = dir.join(&name);
                    let side = match source.join(&path).symlink_metadata() {
                        Ok(_) => Side::Target,
                        Err(_) => Side::Source,
                    };
                    comparison.tell(&path, What::Unreadable(side, error.to_string()));
                }
            }
        }
    }
    Ok(comparison.compared)
}

/// The same name on both sides, the source first.
struct Pair {
    path: PathBuf,
    full: [PathBuf; 2],
    found: [Metadata; 2],
}

struct Comparison<'f> {
    /// For files with several names, where the other side has the first of them.
    links: [HashMap<(u64, u64), (u64, u64)>; 2],
    compared: Compared,
    found: &'f mut dyn FnMut(Difference),
    progress: &'f dyn Fn(u64),
}

const SIDES: [Side; 2] = [Side::Source, Side::Target];

impl Comparison<'_> {
    fn tell(&mut self, path: &Path, what: What) {
        self.compared.differences += 1;
        (self.found)(Difference { path: path.into(), what });
    }

    /// The names that both have of a directory, sorted.
    fn names(&mut self, dir: &Path, tops: [&Path; 2]) -> Option<Vec<OsString>> {
        let mut lists = [Vec::new(), Vec::new()];
        for ((list, top), side) in lists.iter_mut().zip(tops).zip(SIDES) {
            match names_of(&top.join(dir)) {
                Ok(names) => *list = names,
                Err(error) => {
                    self.tell(dir, What::Unreadable(side, error.to_string()));
                    return None;
                }
            }
            if dir.as_os_str().is_empty() {
                list.retain(|name| name != OWN_DIR);
            }
        }
        let [in_source, in_target] = lists;
        for (list, other, side) in
            [(&in_source, &in_target, Side::Source), (&in_target, &in_source, Side::Target)]
        {
            for name in list.iter().filter(|name| other.binary_search(name).is_err()) {
                let is_filesystems = dir.as_os_str().is_empty() && name == LOST_FOUND;
                if !(is_filesystems && side == Side::Target) {
                    self.tell(&dir.join(name), What::OnlyIn(side));
                }
            }
        }
        let mut common = in_source;
        common.retain(|name| in_target.binary_search(name).is_ok());
        Some(common)
    }

    /// Compares a name; whether both are directories.
    fn pair(&mut self, pair: &Pair) -> bool {
        self.compared.names += 1;
        let [here, there] = pair.found.each_ref().map(Metadata::file_type);
        if here != there {
            self.tell(&pair.path, What::Kind);
            return false;
        }
        self.attributes(pair, RootOwner::Compared);
        if here.is_symlink() {
            let targets = pair.full.each_ref().map(|path| std::fs::read_link(path).ok());
            if targets[0] != targets[1] {
                self.tell(&pair.path, What::LinkTarget);
            }
        } else if (here.is_char_device() || here.is_block_device())
            && pair.found[0].rdev() != pair.found[1].rdev()
        {
            self.tell(&pair.path, What::Device);
        }
        if !here.is_dir() && self.links_differ(pair) {
            self.tell(&pair.path, What::Links);
        }
        if here.is_file() {
            self.compared.files += 1;
            self.compared.bytes += pair.found[0].len();
            if let Some(what) = self.content(pair) {
                self.tell(&pair.path, what);
            }
        }
        here.is_dir()
    }

    fn attributes(&mut self, pair: &Pair, owner: RootOwner) {
        let [here, there] = &pair.found;
        let is_symlink = here.file_type().is_symlink();
        if here.mode() != there.mode() && !is_symlink {
            self.tell(&pair.path, What::Mode);
        }
        if owner == RootOwner::Compared && (here.uid(), here.gid()) != (there.uid(), there.gid()) {
            self.tell(&pair.path, What::Owner);
        }
        let is_root = pair.path.as_os_str().is_empty();
        let time = |found: &Metadata| (found.mtime(), found.mtime_nsec());
        // Horace makes its own directory in the root.
        if time(here) != time(there) && !is_root {
            self.tell(&pair.path, What::Time);
        }
        match pair.full.each_ref().map(|path| xattrs_of(path)) {
            [Ok(here), Ok(there)] if here == there => {}
            [Ok(_), Ok(_)] => self.tell(&pair.path, What::Attributes),
            [Err(error), _] => {
                self.tell(&pair.path, What::Unreadable(Side::Source, error.to_string()));
            }
            [_, Err(error)] => {
                self.tell(&pair.path, What::Unreadable(Side::Target, error.to_string()));
            }
        }
    }

    /// Whether a name belongs to another group of links on the other side.
    fn links_differ(&mut self, pair: &Pair) -> bool {
        let [here, there] = &pair.found;
        if here.nlink() == 1 && there.nlink() == 1 {
            return false;
        }
        let keys = [here, there].map(|found| (found.dev(), found.ino()));
        let is_known = self.links[0].entry(keys[0]).or_insert(keys[1]) == &keys[1];
        let is_known_there = self.links[1].entry(keys[1]).or_insert(keys[0]) == &keys[0];
        !is_known || !is_known_there
    }

    fn content(&self, pair: &Pair) -> Option<What> {
        if pair.found[0].len() != pair.found[1].len() {
            return Some(What::Content);
        }
        let [source, target] = &pair.full;
        let nothing = |_: u64| {};
        let [here, there] = if pair.found[0].len() < LARGE {
            [read(source, self.progress), read(target, &nothing)]
        } else {
            std::thread::scope(|scope| {
                let there = scope.spawn(|| read(target, &nothing));
                let here = read(source, self.progress);
                let panicked = || Err(io::Error::other("the thread that reads it panicked"));
                [here, there.join().unwrap_or_else(|_| panicked())]
            })
        };
        let (here, there) = match (here, there) {
            (Ok(here), Ok(there)) => (here, there),
            (Err(error), _) => return Some(What::Unreadable(Side::Source, error.to_string())),
            (_, Err(error)) => return Some(What::Unreadable(Side::Target, error.to_string())),
        };
        let stamp = |found: &Metadata| (found.len(), found.ctime(), found.ctime_nsec());
        if stamp(&pair.found[0]) != stamp(&here.1) || stamp(&pair.found[1]) != stamp(&there.1) {
            return Some(What::Changing);
        }
        (here.0 != there.0).then_some(What::Content)
    }
}

/// The digest of a file, and what it was after that.
fn read(path: &Path, progress: &dyn Fn(u64)) -> io::Result<(ContentHash, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(path)?;
    // What the disk has is to be compared, and not what is in memory still.
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    let digest = digest_of(&file, progress)?;
    Ok((digest, file.metadata()?))
}

fn xattrs_of(path: &Path) -> io::Result<Xattrs> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    Ok(crate::sys::xattr::read_all(fd)?)
}

fn names_of(dir: &Path) -> io::Result<Vec<OsString>> {
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Two trees that are made the same, and then not quite.
    fn differences(same: impl Fn(&Path), spoil: impl Fn(&Path)) -> Vec<String> {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let time = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
        for (dir, spoiled) in dirs.iter().zip([false, true]) {
            same(dir.path());
            if spoiled {
                spoil(dir.path());
            }
            for name in names_of(dir.path()).unwrap() {
                let path = dir.path().join(name);
                if path.symlink_metadata().unwrap().is_file() {
                    let file = File::options().append(true).open(&path).unwrap();
                    let later = file.metadata().unwrap().len() == 77;
                    file.set_times(if later { fs::FileTimes::new() } else { time }).unwrap();
                }
            }
        }
        let mut told = Vec::new();
        let tell = |d: Difference| told.push(format!("{}: {}", d.path.display(), d.what));
        let [source, target] = dirs.each_ref().map(|dir| dir.path());
        compare(source, target, RootOwner::Compared, tell, |_| {}).unwrap();
        told.sort();
        told
    }

    #[test]
    fn every_kind_of_difference_is_told() {
        let make = |dir: &Path| {
            for name in ["bytes", "longer", "mode", "gone", "link1", "link2", "kind"] {
                fs::write(dir.join(name), name).unwrap();
            }
            fs::write(dir.join("large"), vec![1; 3 << 20]).unwrap();
            fs::create_dir(dir.join(OWN_DIR)).unwrap();
        };
        assert_eq!(differences(make, |_| {}), [] as [&str; 0]);
        let spoil = |dir: &Path| {
            fs::write(dir.join("bytes"), "betys").unwrap();
            fs::write(dir.join("longer"), [0; 77]).unwrap();
            fs::set_permissions(dir.join("mode"), PermissionsExt::from_mode(0o4711)).unwrap();
            fs::remove_file(dir.join("gone")).unwrap();
            fs::write(dir.join("new"), "").unwrap();
            fs::remove_file(dir.join("link2")).unwrap();
            fs::remove_file(dir.join("link1")).unwrap();
            fs::write(dir.join("link1"), "link1").unwrap();
            fs::hard_link(dir.join("link1"), dir.join("link2")).unwrap();
            fs::remove_file(dir.join("kind")).unwrap();
            symlink("x", dir.join("kind")).unwrap();
            let mut large = vec![1; 3 << 20];
            large[2 << 20] = 2;
            fs::write(dir.join("large"), large).unwrap();
            fs::write(dir.join(".horace/catalog.db"), "not compared").unwrap();
        };
        let told = differences(make, spoil);
        assert_eq!(
            told,
            [
                "bytes: other content",
                "gone: only in the source",
                "kind: of another kind",
                "large: other content",
                "link2: linked to other names",
                "link2: other content",
                "longer: other content",
                "longer: other modification time",
                "mode: other mode",
                "new: only in the target"
            ]
        );
    }

    #[test]
    fn symlinks_are_compared_by_where_they_lead() {
        let make = |to: &'static str| move |dir: &Path| symlink(to, dir.join("s")).unwrap();
        let spoil = |dir: &Path| {
            fs::remove_file(dir.join("s")).unwrap();
            symlink("b", dir.join("s")).unwrap();
        };
        let told = differences(make("a"), spoil);
        assert!(told.contains(&"s: leads elsewhere".to_owned()), "{told:?}");
    }
}
