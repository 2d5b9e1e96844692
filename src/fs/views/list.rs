//! Listings of views.
//!
//! Owns the pages in which a directory is read from the catalog. A position is the number of names before
//! it: who reads on needs one query a page, who goes back begins anew. Names come in byte order.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Found, Key, ViewNode, history, numbered, past};
use crate::catalog::CatalogError;
use crate::config::OWN_DIR;
use crate::fs::dir::{DirEntry, Room};
use crate::fs::{Entry, Errno, Fh, Fs, NodeId};
use crate::timespec;
use crate::types::{FileId, Kind, Name};

/// Names read at a time.
const PAGE: usize = 256;

/// An open directory of a view.
#[derive(Debug)]
pub(super) struct ViewDir {
    node: Arc<ViewNode>,
    /// Lock order: before every other lock of views.
    listing: Mutex<Listing>,
}

/// One page of a directory.
#[derive(Debug, Default)]
struct Listing {
    /// How many names came before.
    before: u64,
    page: Vec<(Name, Option<Found>)>,
    /// The last name that was read, if there may be more.
    last: Option<Name>,
    is_begun: bool,
}

/// Names, each with what it is if that is known already, and whether there may be more.
type Page = (Vec<(Name, Option<Found>)>, Option<Name>);

impl Fs {
    /// Opens a directory of a view.
    pub(in crate::fs) fn opendir_in_view(&self, id: NodeId) -> Result<Fh, Errno> {
        let node = self.views.get(id)?;
        let dir = ViewDir { node, listing: Mutex::default() };
        Ok(self.views.dirs.insert(Arc::new(dir)).in_views())
    }

    /// Closes it.
    pub(in crate::fs) fn releasedir_in_view(&self, fh: Fh) {
        // Unknown numbers are the kernel's business.
        let _ = self.views.dirs.remove(fh.of_views());
    }

    /// Reads names from `offset` on until `add` has no more room.
    pub(in crate::fs) fn readdir_in_view(
        &self,
        fh: Fh,
        offset: u64,
        mut add: impl FnMut(&DirEntry<'_>) -> Room,
    ) -> Result<(), Errno> {
        self.each_name(fh, offset, |_, entry, _| add(entry))
    }

    /// The same with a lookup of each name that is counted if `add` took it.
    pub(in crate::fs) fn readdirplus_in_view(
        &self,
        fh: Fh,
        offset: u64,
        mut add: impl FnMut(&DirEntry<'_>, Option<&Entry>) -> Room,
    ) -> Result<(), Errno> {
        self.each_name(fh, offset, |dir, name, found| {
            if name.name == b"." || name.name == b".." {
                return add(name, None);
            }
            let found = match found {
                Some(found) => Some(found.clone()),
                None => self.find_in_view(dir, name.name).ok().flatten(),
            };
            let Some(found) = found else { return Room::Left };
            let entry = self.views.enter(Some(dir), found);
            let room = add(name, Some(&entry));
            if room == Room::None {
                self.views.forget(entry.node, 1);
            }
            room
        })
    }

    fn each_name(
        &self,
        fh: Fh,
        offset: u64,
        mut add: impl FnMut(&Arc<ViewNode>, &DirEntry<'_>, Option<&Found>) -> Room,
    ) -> Result<(), Errno> {
        let dir = self.views.dirs.get(fh.of_views())?;
        let above = dir.node.parent.as_ref().map_or(self.nodes.root().key.ino, |p| p.id.0);
        for (index, (name, ino)) in [(b".".as_slice(), dir.node.id.0), (b"..", above)]
            .into_iter()
            .enumerate()
            .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        {
            let entry = DirEntry { name, ino, kind: Some(Kind::Dir), offset: index as u64 + 1 };
            if add(&dir.node, &entry, None) == Room::None {
                return Ok(());
            }
        }
        let mut position = offset.saturating_sub(2);
        let mut listing = dir.listing.lock();
        while let Some((name, found)) = self.name_at(&dir.node, &mut listing, position)? {
            let kind = found.as_ref().map_or(Kind::Dir, |found| found.attr.kind);
            let ino = found.as_ref().map_or(dir.node.id, |found| found.key.id()).0;
            let entry = DirEntry { name, ino, kind: Some(kind), offset: position + 3 };
            if add(&dir.node, &entry, found.as_ref()) == Room::None {
                break;
            }
            position += 1;
        }
        Ok(())
    }

    /// The name at a position, read from the catalog if it is not in the page.
    fn name_at<'l>(
        &self,
        dir: &ViewNode,
        listing: &'l mut Listing,
        position: u64,
    ) -> Result<Option<&'l (Name, Option<Found>)>, Errno> {
        if position < listing.before {
            *listing = Listing::default();
        }
        while position >= listing.before + listing.page.len() as u64 {
            let after = match (&listing.last, listing.is_begun) {
                (_, false) => Name::default(),
                (Some(last), true) => last.clone(),
                (None, true) => return Ok(None),
            };
            listing.before += listing.page.len() as u64;
            (listing.page, listing.last) = self.page(dir, &after)?;
            listing.is_begun = true;
        }
        Ok(usize::try_from(position - listing.before).ok().and_then(|i| listing.page.get(i)))
    }

    fn page(&self, dir: &ViewNode, after: &[u8]) -> Result<Page, Errno> {
        let all = |names: Vec<(Name, Option<Found>)>| Ok((names, None));
        match &dir.key {
            Key::Top => {
                let names = [b"at".as_slice(), b"gmt", b"versions"];
                all(names.into_iter().map(|name| (name.into(), None)).collect())
            }
            // Every second has a name there, and none is better than another.
            Key::At | Key::Numbered { .. } => all(Vec::new()),
            Key::Gmt => {
                let seconds = self.look_back(|reader| reader.changed_seconds())?;
                let name = |ns| (timespec::gmt_token(ns).into_bytes().into(), None);
                all(seconds.into_iter().map(name).collect())
            }
            Key::Past { tree, file, .. } => {
                let own = |name: &Name| *file == FileId::ROOT && **name == *OWN_DIR.as_bytes();
                self.look_at_past(|reader| {
                    let found = reader.glimpses(*file, tree.seq, after, PAGE)?;
                    let more = more_after(&found).cloned();
                    let shown = found.into_iter().filter(|(name, _)| !own(name));
                    let shown = shown.map(|(name, glimpse)| (name, Some(past(tree, &glimpse))));
                    Ok((shown.collect(), more))
                })
            }
            Key::History { .. } => self.look_back(|reader| {
                let found = reader.names_ever(&dir.path(), after, PAGE)?;
                let more = more_after(&found).cloned();
                let mut names = Vec::new();
                for (name, node) in found {
                    let shown = history(self.judge(reader), dir, &name, &node)?;
                    names.extend(shown.map(|shown| (name, Some(shown))));
                }
                Ok((names, more))
            }),
            Key::Numbers { dir: file, .. } => {
                let names = self.look_back(|reader| {
                    let versions = reader.lineage(&dir.path())?.into_iter();
                    let named = versions.map(|(number, info)| {
                        let shown = numbered(self.judge(reader), dir, *file, number, &info)?;
                        Ok((number.to_string().into_bytes().into(), Some(shown)))
                    });
                    named.collect::<Result<_, CatalogError>>()
                })?;
                all(names)
            }
        }
    }
}

/// The last name of a page, if there may be another page after it.
fn more_after<T>(page: &[(Name, T)]) -> Option<&Name> {
    page.last().filter(|_| page.len() >= PAGE).map(|(name, _)| name)
}
