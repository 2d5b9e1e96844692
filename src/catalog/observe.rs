//! What a walk over the backing directory means for the temporal tree.
//!
//! Owns the rules for what was found rather than seen happening: a known inode at a new name has
//! moved, an unknown one at a known name has replaced it and goes on with its history, a name without an
//! inode is gone. All of them may be applied twice without harm. What they reveal gets the origin of the
//! observation.

use super::apply::{Apply, may_continue};
use super::event::{Found, Place, Prefix};
use super::rows::{ChangeOp, EntryRow, FileRow, HeadHash};
use crate::types::{ContentHash, FileId, Inode, InodeKey, Kind, Origin};

impl Apply<'_, '_> {
    /// An inode was found under a name.
    pub(super) fn observe(
        &mut self,
        at: &Place,
        inode: &Inode,
        found: &Found,
        origin: Origin,
    ) -> rusqlite::Result<()> {
        let Some(parent) = self.rows.find(at.parent)? else {
            self.unknown("observe");
            return Ok(());
        };
        let known = self.rows.find(inode.key)?.filter(|f| f.kind == inode.attr.kind);
        let entry = self.rows.entry(parent.id, &at.name)?;
        match (known, entry) {
            (Some(file), Some(entry)) if entry.child == file.id => {
                self.confirm(file, inode, found, origin)
            }
            (Some(file), Some(entry)) => {
                let taken = self.rows.file(entry.child)?;
                if may_continue(&taken, &file) && inode.attr.nlink == 1 {
                    self.leave_other_names(&file)?;
                    self.replace(taken, file, inode)?;
                    return self.confirm_again(inode, found, origin);
                }
                self.displace(parent.id, &at.name, entry)?;
                self.arrive(parent.id, at, file, inode)?;
                self.confirm_again(inode, found, origin)
            }
            (Some(file), None) => {
                self.arrive(parent.id, at, file, inode)?;
                self.confirm_again(inode, found, origin)
            }
            (None, Some(entry)) => {
                let mut taken = self.rows.file(entry.child)?;
                let file = Kind::File;
                if taken.kind == file && inode.attr.kind == file && taken.links == 1 {
                    return self.continue_as(taken, inode, found, origin);
                }
                if taken.kind == Kind::Dir && *found == Found::Heir {
                    // Restored from a backup or a snapshot, or made anew.
                    taken.key = inode.key;
                    return self.take_attr(&mut taken, inode);
                }
                self.displace(parent.id, &at.name, entry)?;
                self.appear(parent.id, at, inode, found, origin)
            }
            (None, None) => self.appear(parent.id, at, inode, found, origin),
        }
    }

    fn confirm_again(
        &mut self,
        inode: &Inode,
        found: &Found,
        origin: Origin,
    ) -> rusqlite::Result<()> {
        match self.rows.find(inode.key)? {
            Some(file) => self.confirm(file, inode, found, origin),
            None => Ok(()),
        }
    }

    /// A file is where it was thought to be; its content or attributes may have changed.
    fn confirm(
        &mut self,
        mut file: FileRow,
        inode: &Inode,
        found: &Found,
        origin: Origin,
    ) -> rusqlite::Result<()> {
        let Found::Content(hash, prefix) = found else {
            if file.kind == Kind::File && file.stamp.mtime_ns != inode.attr.mtime.as_ns() {
                // The content may be new too: that is for a reading, or for the seal, to say.
                return Ok(());
            }
            return self.take_attr(&mut file, inode);
        };
        if file.head > 0 && self.rows.head_hash(&mut file)?.is_none() {
            if file.sealed_by.is_some_and(|s| self.rows.state.sessions.contains_key(&s)) {
                // Its digest is on the way from the session itself.
                return Ok(());
            }
            let sealed = self.rows.head_facts(&file)?;
            if sealed.is_some_and(|(_, size, mtime_ns)| {
                (size, mtime_ns) == (inode.attr.size, inode.attr.mtime.as_ns())
            }) {
                // A crash came between the version and its digest.
                self.rows.fill_hash(file.id, file.head, *hash)?;
                self.rows.tell_prefix(file.id, file.head - 1, *prefix)?;
                file.head_hash = HeadHash::Read(Some(*hash));
            }
        }
        self.found_content(file, inode, (*hash, *prefix), origin)
    }

    fn found_content(
        &mut self,
        mut file: FileRow,
        inode: &Inode,
        (hash, prefix): (ContentHash, Option<Prefix>),
        origin: Origin,
    ) -> rusqlite::Result<()> {
        match self.new_version_from(&mut file, inode, Some(hash), origin)? {
            Some(number) => {
                self.rows.tell_prefix(file.id, number - 1, prefix)?;
                file.settle(&inode.attr);
                self.rows.put(file);
                self.record_with(ChangeOp::Write, file.id, None, Some(number))
            }
            None => {
                file.settle(&inode.attr);
                self.rows.put(file);
                self.same_bytes(&file, inode)
            }
        }
    }

    /// An unknown inode has the name of a known file, whose own inode is nowhere else: an atomic
    /// save around the mount.
    fn continue_as(
        &mut self,
        mut taken: FileRow,
        inode: &Inode,
        found: &Found,
        origin: Origin,
    ) -> rusqlite::Result<()> {
        taken.key = inode.key;
        taken.take_attr(&inode.attr);
        self.rows.put(taken);
        match found {
            Found::Content(hash, prefix) => {
                self.found_content(taken, inode, (*hash, *prefix), origin)
            }
            Found::Unread | Found::Heir | Found::Target(_) => {
                self.unknown("continue_as");
                Ok(())
            }
        }
    }

    /// Something new.
    fn appear(
        &mut self,
        parent: FileId,
        at: &Place,
        inode: &Inode,
        found: &Found,
        origin: Origin,
    ) -> rusqlite::Result<()> {
        let mut file = self.be_born(parent, &at.name, inode)?;
        let mut number = None;
        match found {
            Found::Content(hash, _) => {
                number = self.new_version_from(&mut file, inode, Some(*hash), origin)?;
                if number.is_none() {
                    self.rows.insert_attr(file.id, &inode.attr)?;
                }
                file.settle(&inode.attr);
                self.rows.put(file);
            }
            Found::Target(target) => self.rows.insert_target(file.id, target)?,
            Found::Unread | Found::Heir => {}
        }
        self.record_with(ChangeOp::Create, file.id, None, number)
    }

    /// A known inode has a free name that the catalog did not know: a move, or another link.
    fn arrive(
        &mut self,
        parent: FileId,
        at: &Place,
        mut file: FileRow,
        inode: &Inode,
    ) -> rusqlite::Result<()> {
        let moved = file.kind == Kind::Dir || inode.attr.nlink <= 1;
        if moved {
            self.leave_other_names(&file)?;
            file.links = 0;
        }
        self.rows.open_entry(parent, &at.name, file.id)?;
        file.links += 1;
        file.follow_ctime(&inode.attr);
        self.rows.state.limbo.retain(|id| *id != file.id);
        self.rows.put(file);
        self.record(if moved { ChangeOp::Rename } else { ChangeOp::Link }, file.id)
    }

    fn leave_other_names(&mut self, file: &FileRow) -> rusqlite::Result<()> {
        for (parent, name, from) in self.rows.names(file.id)? {
            let entry = EntryRow { child: file.id, from };
            self.rows.close_entry(parent, &name, entry)?;
        }
        Ok(())
    }

    /// A name has another inode, and the one that it had is at another name, which is told next.
    pub(super) fn elsewhere(&mut self, at: &Place, key: InodeKey) -> rusqlite::Result<()> {
        match self.entry_of(at, key)? {
            Some((parent, entry)) => self.take_name(parent, &at.name, entry).map(|_| ()),
            None => Ok(()),
        }
    }

    /// The entry of a name, if it is that inode's.
    fn entry_of(
        &mut self,
        at: &Place,
        key: InodeKey,
    ) -> rusqlite::Result<Option<(FileId, EntryRow)>> {
        let Some(parent) = self.rows.find(at.parent)? else { return Ok(None) };
        let Some(entry) = self.rows.entry(parent.id, &at.name)? else { return Ok(None) };
        let is_it = self.rows.file(entry.child)?.key == key;
        Ok(is_it.then_some((parent.id, entry)))
    }

    /// A name that the catalog has is not there any more.
    pub(super) fn gone(&mut self, at: &Place, key: InodeKey) -> rusqlite::Result<()> {
        let Some((parent, entry)) = self.entry_of(at, key)? else { return Ok(()) };
        let mut file = self.rows.file(entry.child)?;
        self.rows.close_entry(parent, &at.name, entry)?;
        file.links = file.links.saturating_sub(1);
        if file.links == 0 {
            self.end_tree(file)?;
        } else {
            self.rows.put(file);
        }
        self.record(ChangeOp::Unlink, file.id)
    }

    /// A walk saw the whole tree: what lost its name and was not found elsewhere is gone.
    pub(super) fn walk_done(&mut self) -> rusqlite::Result<()> {
        self.rows.set_meta(super::IMPORTED, 1)?;
        for id in std::mem::take(&mut self.rows.state.limbo) {
            let file = self.rows.file(id)?;
            if file.links == 0 && file.ended.is_none() {
                self.end_tree(file)?;
                self.record(ChangeOp::Unlink, id)?;
            }
        }
        Ok(())
    }
}
