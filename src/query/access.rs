//! Who may see what of the catalog.
//!
//! Owns the decision. Root and the daemon's own user see everything. Anybody else sees what they
//! could see in the mount: names in directories they may list and reach, digests of files they may
//! read. For what lives, the kernel decides, asked with the user's identity; for what is gone, the
//! owner and permission bits that the catalog has decide, of the thing and of every directory
//! on the way. Identity is by file, not by path, and only for one life: a file that is created at the
//! name of one that was deleted continues it, but who may read the new one may read what is older
//! only if the bits of that time let them.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use crate::catalog::{CatalogError, NodeInfo, Reader, When};
use crate::sys::Errno;
use crate::sys::creds::{AsUser, Identity};
use crate::types::path::{components, parent};
use crate::types::{FileId, Name, Seq};

/// Decisions remembered for directories.
const REMEMBERED: usize = 4096;

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Want {
    /// Read the content of a file, or the names in a directory.
    Read,
    /// Reach what is in a directory by its name.
    Search,
    /// Both, of a directory.
    List,
}

impl Want {
    /// The bits in one digit of an octal mode.
    fn bits(self) -> u32 {
        match self {
            Self::Read => 4,
            Self::Search => 1,
            Self::List => 5,
        }
    }

    fn access(self) -> Access {
        match self {
            Self::Read => Access::READ_OK,
            Self::Search => Access::EXEC_OK,
            Self::List => Access::READ_OK | Access::EXEC_OK,
        }
    }
}

/// What the kernel says of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// There is nothing at this path now.
    Gone,
}

/// Whether recorded owner and permission bits let a user do something.
pub(super) fn permits(node: &NodeInfo, user: &Identity, want: Want) -> bool {
    let shift = if node.uid == user.uid {
        6
    } else if node.gid == user.gid || user.groups.contains(&node.gid) {
        3
    } else {
        0
    };
    (node.mode >> shift) & want.bits() == want.bits()
}

/// The eyes with which a query looks at the catalog.
#[derive(Debug)]
pub(super) enum Guard {
    /// They see everything.
    Everything,
    /// They see what a user may.
    User(Box<UserGuard>),
}

/// What was found out about a file or directory.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// Whether it may be used so now.
    allowed: bool,
    /// When its newest life began.
    alive_since: Seq,
}

/// A user's view, with directories that were looked at.
#[derive(Debug)]
pub(super) struct UserGuard {
    user: Identity,
    backing: Arc<OwnedFd>,
    /// The directories on the way to the last path, by `O_PATH` descriptors.
    way: Vec<(Name, OwnedFd)>,
    known: HashMap<(FileId, Want), Known>,
}

impl Guard {
    /// The eyes of an ordinary user.
    pub(super) fn user(user: Identity, backing: Arc<OwnedFd>) -> Self {
        Self::User(Box::new(UserGuard { user, backing, way: Vec::new(), known: HashMap::new() }))
    }

    /// Whether nothing is hidden from them.
    pub(super) fn sees_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }

    /// Whether the user could get to one of these directories at all.
    pub(super) fn reaches(&self, directories: &[&Path]) -> Result<bool, Errno> {
        let Self::User(guard) = self else {
            return Ok(true);
        };
        let _identity = AsUser::become_user(&guard.user)?;
        let mut found = directories
            .iter()
            .map(|dir| rustix::fs::accessat(CWD, *dir, Access::EXEC_OK, AtFlags::EACCESS));
        Ok(found.any(|answer| answer.is_ok()))
    }

    /// Whether a path of the catalog, live or gone, may be used so.
    pub(super) fn path(
        &mut self,
        reader: &Reader,
        path: &[u8],
        want: Want,
    ) -> Result<bool, CatalogError> {
        let Self::User(guard) = self else {
            return Ok(true);
        };
        match guard.live(path, want) {
            Verdict::Allowed => Ok(true),
            Verdict::Denied => Ok(false),
            Verdict::Gone => guard.gone(reader, path, want),
        }
    }

    /// Whether a path that the newest state of the catalog has may be used so.
    pub(super) fn live_path(&mut self, path: &[u8], want: Want) -> bool {
        match self {
            Self::Everything => true,
            Self::User(guard) => guard.live(path, want) == Verdict::Allowed,
        }
    }

    /// Whether a file or directory may be used so as it was after a change, wherever it is now.
    pub(super) fn node_at(
        &mut self,
        reader: &Reader,
        id: FileId,
        want: Want,
        at: Seq,
    ) -> Result<bool, CatalogError> {
        match self {
            Self::Everything => Ok(true),
            Self::User(guard) => guard.node_at(reader, id, want, at),
        }
    }

    /// Whether the names in a directory may be seen, as it was reached after a change.
    pub(super) fn listing_at(
        &mut self,
        reader: &Reader,
        dir: &[u8],
        at: Seq,
    ) -> Result<bool, CatalogError> {
        let Self::User(guard) = self else {
            return Ok(true);
        };
        let mut here = FileId::ROOT;
        for name in components(dir) {
            if !guard.node_at(reader, here, Want::Search, at)? {
                return Ok(false);
            }
            match reader.child(here, name, When::At(at))? {
                Some(child) => here = child,
                None => return Ok(false),
            }
        }
        guard.node_at(reader, here, Want::List, at)
    }

    /// Whether a name may be seen that a change gave, took away or left: its directory may be listed as it was
    /// before or after.
    pub(super) fn name_at(
        &mut self,
        reader: &Reader,
        path: &[u8],
        at: Seq,
    ) -> Result<bool, CatalogError> {
        let (dir, before) = (parent(path), Seq(at.0.saturating_sub(1)));
        Ok(self.listing_at(reader, dir, at)? || self.listing_at(reader, dir, before)?)
    }
}

impl UserGuard {
    /// Asks the kernel about a path below the backing directory; follows no symlink.
    fn live(&mut self, path: &[u8], want: Want) -> Verdict {
        let Ok(_identity) = AsUser::become_user(&self.user) else {
            return Verdict::Denied;
        };
        let mut names: Vec<&[u8]> = components(path).collect();
        let last = names.pop();
        let answer = self.enter(&names).and_then(|dir| {
            let flags = AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::accessat(dir, last.unwrap_or(b"."), want.access(), flags)
        });
        match answer {
            Ok(()) => Verdict::Allowed,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Verdict::Gone,
            Err(_) => Verdict::Denied,
        }
    }

    /// Goes to a directory, by the part of the way that is the same as last time.
    fn enter(&mut self, names: &[&[u8]]) -> Result<BorrowedFd<'_>, Errno> {
        let same =
            self.way.iter().zip(names).take_while(|((known, _), name)| **known == ***name).count();
        self.way.truncate(same);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for name in &names[same..] {
            let next = rustix::fs::openat(self.last_dir(), *name, flags, Mode::empty())?;
            self.way.push(((*name).into(), next));
        }
        Ok(self.last_dir())
    }

    fn last_dir(&self) -> BorrowedFd<'_> {
        match self.way.last() {
            Some((_, fd)) => fd.as_fd(),
            None => self.backing.as_fd(),
        }
    }

    /// Decides for a path that is gone, by everything on the way as the catalog has it.
    fn gone(&mut self, reader: &Reader, path: &[u8], want: Want) -> Result<bool, CatalogError> {
        let names: Vec<&[u8]> = components(path).collect();
        for length in 0..names.len() {
            let Some(dir) = reader.locate(&names[..length].join(&b'/'))? else {
                return Ok(false);
            };
            if !self.node(reader, dir.file, Want::Search)? {
                return Ok(false);
            }
        }
        match reader.locate(path)? {
            Some(last) => self.node(reader, last.file, want),
            None => Ok(false),
        }
    }

    fn node(&mut self, reader: &Reader, id: FileId, want: Want) -> Result<bool, CatalogError> {
        Ok(self.look_at(reader, id, want)?.allowed)
    }

    fn node_at(
        &mut self,
        reader: &Reader,
        id: FileId,
        want: Want,
        at: Seq,
    ) -> Result<bool, CatalogError> {
        let known = self.look_at(reader, id, want)?;
        if !known.allowed || known.alive_since <= at {
            return Ok(known.allowed);
        }
        let then = reader.node(id, When::At(at))?;
        Ok(then.is_some_and(|node| permits(&node, &self.user, want)))
    }

    fn look_at(&mut self, reader: &Reader, id: FileId, want: Want) -> Result<Known, CatalogError> {
        if let Some(known) = self.known.get(&(id, want)) {
            return Ok(*known);
        }
        let live = match reader.path_of(id, Seq(i64::MAX.cast_unsigned()))? {
            Some(path) => self.live(&path, want),
            None => Verdict::Gone,
        };
        let allowed = match live {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::Gone => {
                reader.node(id, When::Now)?.is_some_and(|node| permits(&node, &self.user, want))
            }
        };
        let known = Known { allowed, alive_since: reader.alive_since(id)?.unwrap_or_default() };
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert((id, want), known);
        Ok(known)
    }

    /// Forgets decisions, so that a long answer sees changed permissions.
    fn forget(&mut self) {
        self.known.clear();
        self.way.clear();
    }
}

impl Guard {
    /// Forgets decisions, so that a long answer sees changed permissions.
    pub(super) fn forget(&mut self) {
        if let Self::User(guard) = self {
            guard.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Kind;
    use rstest::rstest;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[rstest]
    #[case(0o400, 1, 9, Want::Read, true)]
    #[case(0o044, 1, 9, Want::Read, false)] // the owner's digit counts, even if it is the poorer one
    #[case(0o040, 2, 8, Want::Read, true)]
    #[case(0o040, 2, 7, Want::Read, true)]
    #[case(0o404, 2, 8, Want::Read, false)]
    #[case(0o004, 2, 9, Want::Read, true)]
    #[case(0o001, 2, 9, Want::Search, true)]
    #[case(0o001, 2, 9, Want::List, false)]
    #[case(0o005, 2, 9, Want::List, true)]
    fn recorded_bits_decide(
        #[case] mode: u32,
        #[case] uid: u32,
        #[case] gid: u32,
        #[case] want: Want,
        #[case] expected: bool,
    ) {
        let node = NodeInfo {
            id: FileId(5),
            kind: Kind::File,
            mode,
            uid: 1,
            gid,
            size: 0,
            mtime_ns: 0,
            hash: None,
            version: 0,
        };
        let user = Identity { uid: if uid == 1 { 1 } else { 2 }, gid: 8, groups: vec![7] };
        assert_eq!(permits(&node, &user, want), expected);
    }

    #[test]
    fn the_kernel_decides_for_what_lives() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for (path, mode) in [("open", 0o755), ("blind", 0o711), ("shut", 0o700)] {
            std::fs::create_dir(at(path)).unwrap();
            std::fs::write(at(path).join("public"), "x").unwrap();
            std::fs::write(at(path).join("private"), "x").unwrap();
            let private = at(path).join("private");
            std::fs::set_permissions(private, PermissionsExt::from_mode(0o600)).unwrap();
            std::fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        symlink("open", at("link")).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let backing = Arc::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()));
        let nobody = Identity { uid: 65_534, gid: 65_534, groups: Vec::new() };
        let Guard::User(mut guard) = Guard::user(nobody, backing) else {
            panic!("a user is no god")
        };
        for (path, want, expected) in [
            ("", Want::List, Verdict::Allowed),
            ("open", Want::List, Verdict::Allowed),
            ("open/public", Want::Read, Verdict::Allowed),
            ("open/private", Want::Read, Verdict::Denied),
            ("open/none", Want::Read, Verdict::Gone),
            ("blind", Want::List, Verdict::Denied),
            ("blind", Want::Search, Verdict::Allowed),
            ("blind/public", Want::Read, Verdict::Allowed),
            ("shut", Want::Search, Verdict::Denied),
            ("shut/public", Want::Read, Verdict::Denied),
            ("shut/none", Want::Read, Verdict::Denied),
            ("link/public", Want::Read, Verdict::Gone),
        ] {
            assert_eq!(guard.live(path.as_bytes(), want), expected, "{path}");
        }
    }
}
