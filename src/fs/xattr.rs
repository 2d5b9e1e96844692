//! Extended attributes, ACLs among them.
//!
//! Owns the four calls. They reach the inode through `/proc/self/fd`, which works for every kind of
//! inode and follows nothing. `user.horace.sha256`, `.version` and `.file_id` are not stored: they say
//! what the catalog has. They are not listed, so that nobody copies them.

use rustix::fs::XattrFlags;

use super::privileges::as_writer;
use super::seal::Times;
use super::{Fs, NodeId};
use crate::catalog::CatalogError;
use crate::sys::xattr::{MOST, read_all};
use crate::sys::{Errno, process, stat};
use crate::types::Caller;

/// What our own attributes begin with.
const OWN_PREFIX: &[u8] = b"user.horace.";

/// Attributes that only who administers the system may see.
const TRUSTED: &[u8] = b"trusted.";

/// The names in a list, each with its NUL.
fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split_inclusive(|byte| *byte == 0)
}

impl Fs {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` if there is none of the name; the backing filesystem's.
    pub fn getxattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, Errno> {
        match (name.strip_prefix(OWN_PREFIX), node.is_view()) {
            (Some(name), true) => return self.own_xattr_in_view(node, name),
            (Some(name), false) => return self.own_xattr(node, name),
            (None, true) => {
                let all = self.xattrs_in_view(node)?;
                return all.get(name).map(<[u8]>::to_vec).ok_or(Errno::NODATA);
            }
            (None, false) => {}
        }
        let fd = self.path_fd(&*self.node(node)?)?;
        let mut value = Vec::with_capacity(256);
        let path = stat::proc_name(&fd);
        match rustix::fs::getxattr(&path, name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => Ok(value),
            Err(Errno::RANGE) => {
                value.reserve(MOST);
                rustix::fs::getxattr(&path, name, rustix::buffer::spare_capacity(&mut value))?;
                Ok(value)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether an attribute is one of ours, which say what the catalog has of a file.
    pub fn is_own_xattr(name: &[u8]) -> bool {
        name.starts_with(OWN_PREFIX)
    }

    fn own_xattr(&self, node: NodeId, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let key = self.node(node)?.key;
        let found = self.catalog.read::<_, CatalogError>(|reader| {
            Ok(reader.by_inode(key)?.map(|info| (info, reader.catalog_id())))
        });
        let (info, catalog) = found.map_err(|_| Errno::IO)?.ok_or(Errno::NODATA)?;
        let text = match name {
            b"sha256" => info.hash.map(|hash| hash.to_string()),
            b"version" if info.version > 0 => Some(info.version.to_string()),
            b"file_id" => {
                let catalog = catalog.map_err(|_| Errno::IO)?;
                Some(crate::file_id::to_uuid(&catalog, info.id).to_string())
            }
            _ => None,
        };
        text.map(String::into_bytes).ok_or(Errno::NODATA)
    }

    /// The names of the attributes that `caller` may know of, each ended by a NUL, for a buffer of
    /// `room` bytes.
    ///
    /// # Errors
    /// `ERANGE` if the buffer is too small, `E2BIG` if every buffer is; the backing filesystem's.
    pub fn listxattr(&self, caller: Caller, node: NodeId, room: u32) -> Result<Vec<u8>, Errno> {
        let mut list = if node.is_view() {
            let all = self.xattrs_in_view(node)?;
            all.iter().flat_map(|(name, _)| [name, b"\0"].concat()).collect()
        } else {
            self.list_all(node, room)?
        };
        let has = |list: &[u8], prefix| names(list).any(|name| name.starts_with(prefix));
        let hides = has(&list, TRUSTED) && !process::rights(caller).sys_admin;
        if hides || has(&list, OWN_PREFIX) {
            let is_hidden =
                |name: &[u8]| Self::is_own_xattr(name) || (hides && name.starts_with(TRUSTED));
            let shown = names(&list).filter(|name| !is_hidden(name));
            list = shown.flatten().copied().collect();
        }
        Ok(list)
    }

    fn list_all(&self, node: NodeId, room: u32) -> Result<Vec<u8>, Errno> {
        let fd = self.path_fd(&*self.node(node)?)?;
        let mut list: Vec<u8> = vec![0; MOST];
        let length = match rustix::fs::listxattr(stat::proc_name(&fd), &mut list[..]) {
            Err(Errno::TOOBIG) if room > 0 && (room as usize) < MOST => Err(Errno::RANGE),
            result => result,
        }?;
        list.truncate(length);
        Ok(list)
    }

    /// Sets an attribute, with the flags of `setxattr(2)`.
    ///
    /// # Errors
    /// The backing filesystem's.
    pub fn setxattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<(), Errno> {
        let flags = XattrFlags::from_bits_retain(flags.cast_unsigned());
        self.change_xattr(caller, node, name, |path| rustix::fs::setxattr(path, name, value, flags))
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// As [`Fs::getxattr`].
    pub fn removexattr(&self, caller: Caller, node: NodeId, name: &[u8]) -> Result<(), Errno> {
        self.change_xattr(caller, node, name, |path| rustix::fs::removexattr(path, name))
    }

    fn change_xattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: &[u8],
        change: impl FnOnce(&std::ffi::CStr) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        Self::may_change(node)?;
        if Self::is_own_xattr(name) {
            return Err(Errno::PERM);
        }
        let node = self.node(node)?;
        let writer = Self::writer(caller);
        let fd = self.path_fd(&node)?;
        let _tree = self.tree.read();
        self.ensure_known(&node);
        // More than can be listed cannot be remembered; that is no reason to refuse.
        let before = read_all(&fd).ok();
        // The change time moves, and an ACL may change the mode.
        let tell = |attr, ()| {
            self.push_attr(&node, attr, before, writer);
        };
        let change = || {
            // An ACL takes setgid where the caller is no member of the group.
            let _as_writer = as_writer(caller, &fd)?;
            change(&stat::proc_name(&fd))
        };
        self.change_inode(&node, &fd, Times::Kept, change, tell)
    }
}
