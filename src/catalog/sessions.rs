//! What sessions make: their versions, and the digests that follow.
//!
//! Owns the rule that one session makes at most one version, and that bytes equal to the head make
//! none. A session is remembered from its first seal until nothing more can come from it.

use super::apply::Apply;
use super::event::Prefix;
use super::preserve::VersionKey;
use super::rows::{ChangeOp, FileRow, HeadHash};
use crate::types::{ContentHash, Inode, InodeKey, Origin, SessionId};

/// What a session sealed.
pub(super) struct Sealed<'e> {
    /// The file.
    pub(super) inode: &'e Inode,
    /// Its digest, if that does not follow.
    pub(super) digest: Option<ContentHash>,
    /// What it begins with, if the session has only appended.
    pub(super) prefix: Option<Prefix>,
    /// What a version of it is to be called.
    pub(super) origin: Origin,
}

impl Apply<'_, '_> {
    pub(super) fn seal(&mut self, sealed: &Sealed<'_>, session: SessionId) -> rusqlite::Result<()> {
        let Sealed { inode, digest, prefix, origin } = *sealed;
        let Some(mut file) = self.sealed_file(inode)? else {
            return self.seal_past(session, sealed);
        };
        let made = self.rows.state.sessions.entry(session).or_default();
        made.awaited += u32::from(digest.is_none());
        if file.head > 0 && made.versions.last() == Some(&(file.id, file.head)) {
            return self.seal_again(file, session, sealed);
        }
        let number = self.new_version_from(&mut file, inode, digest, origin)?;
        settle(&mut file, inode, digest.is_some());
        if let Some(number) = number {
            file.sealed_by = Some(session);
            let made = self.rows.state.sessions.entry(session).or_default();
            // A digest that follows is of what it has now.
            made.versions = vec![(file.id, number)];
            self.rows.put(file);
            if file.ended.is_some() {
                self.rows.move_inode((file.id, number - 1), number)?;
                self.rows.state.orphans.insert(inode.key, Some((file.id, number)));
            }
            self.rows.tell_prefix(file.id, number - 1, prefix)?;
            return self.record_with(ChangeOp::Write, file.id, None, Some(number));
        }
        self.rows.unkeep(file.id, file.head)?;
        self.rows.put(file);
        self.same_bytes(&file, inode)
    }

    /// The file whose content an inode is: by its name, or the one it was when it lost the last.
    fn sealed_file(&mut self, inode: &Inode) -> rusqlite::Result<Option<FileRow>> {
        if let Some(file) = self.rows.find(inode.key)? {
            return Ok(Some(file));
        }
        match self.rows.state.orphans.get(&inode.key).copied() {
            // Unless another inode goes on with that file by now.
            Some(Some((id, _))) => {
                Ok(Some(self.rows.file(id)?).filter(|file| file.ended.is_some()))
            }
            Some(None) => Ok(None),
            None => {
                self.unknown_inode(inode, "seal");
                Ok(None)
            }
        }
    }

    /// Another flush of a session that has a version already: it stays one version.
    fn seal_again(
        &mut self,
        mut file: FileRow,
        session: SessionId,
        sealed: &Sealed<'_>,
    ) -> rusqlite::Result<()> {
        let Sealed { inode, digest, .. } = *sealed;
        let current = self.rows.head_hash(&mut file)?;
        settle(&mut file, inode, digest.is_some());
        if digest.is_some() && digest == current {
            self.rows.put(file);
            return self.same_bytes(&file, inode);
        }
        if digest.is_some() && digest == self.rows.version_hash(file.id, file.head - 1)? {
            self.rows.retract_version(&mut file)?;
            self.rows.unkeep(file.id, file.head)?;
            self.rows.put(file);
            return self.same_bytes(&file, inode);
        }
        self.amend((file.id, file.head), session, sealed)?;
        file.head_hash = HeadHash::Read(digest);
        self.rows.put(file);
        self.record_with(ChangeOp::Write, file.id, None, Some(file.head))
    }

    /// Another flush of a session whose version was replaced by another inode: it stays that version.
    fn seal_past(&mut self, session: SessionId, sealed: &Sealed<'_>) -> rusqlite::Result<()> {
        let Sealed { inode, digest, .. } = *sealed;
        let orphan = self.rows.state.orphans.get(&inode.key).copied().flatten();
        let Some(made) = self.rows.state.sessions.get_mut(&session) else { return Ok(()) };
        made.awaited += u32::from(digest.is_none());
        let Some((file, number)) = orphan.filter(|own| made.versions.last() == Some(own)) else {
            return Ok(());
        };
        let row = self.rows.file(file)?;
        if row.ended.is_none() && row.head == number {
            // What goes on with the file has the bytes of that version, and they are its head.
            return Ok(());
        }
        let current = self.rows.version_hash(file, number)?;
        if digest.is_some() && digest == current {
            return Ok(());
        }
        self.amend((file, number), session, sealed)
    }

    /// The newest version of a session has another content by now.
    fn amend(
        &mut self,
        (file, number): VersionKey,
        session: SessionId,
        sealed: &Sealed<'_>,
    ) -> rusqlite::Result<()> {
        self.part_from_older(session)?;
        self.rows.tell_prefix(file, number - 1, sealed.prefix)?;
        self.rows.forget_copies(file, number)?;
        self.rows.update_version((file, number), &sealed.inode.attr, sealed.digest)
    }

    /// What a session has made of files that were moved over others had the content of its newest
    /// version, which it is about to change.
    fn part_from_older(&mut self, session: SessionId) -> rusqlite::Result<()> {
        let made = self.rows.state.sessions.entry(session).or_default();
        let newest = made.versions.len().saturating_sub(1);
        for (file, number) in made.versions.drain(..newest).collect::<Vec<_>>() {
            self.rows.lose_continued(file, number)?;
        }
        Ok(())
    }

    /// Equal bytes make no version, but the attributes may not be those that were recorded last: a file
    /// that was deleted and made again has new ones.
    pub(super) fn same_bytes(&mut self, file: &FileRow, inode: &Inode) -> rusqlite::Result<()> {
        let attr = &inode.attr;
        let now = (attr.mode, attr.uid, attr.gid, attr.mtime.as_ns());
        if self.rows.recorded_attr(file)? == Some(now) {
            return Ok(());
        }
        self.rows.insert_attr(file.id, attr)?;
        self.record(ChangeOp::Attr, file.id)
    }

    pub(super) fn digest(
        &mut self,
        session: SessionId,
        read: Option<&(Inode, ContentHash)>,
        prefix: Option<Prefix>,
    ) -> rusqlite::Result<()> {
        let Some(made) = self.rows.state.sessions.get_mut(&session) else { return Ok(()) };
        made.awaited = made.awaited.saturating_sub(1);
        let versions = made.versions.clone();
        if made.ended && made.awaited == 0 {
            self.rows.state.sessions.remove(&session);
        }
        let Some(&(inode, digest)) = read else { return Ok(()) };
        for (id, number) in versions {
            // Whatever was read is not a version of another size.
            let is_meant = |facts| facts == (None, inode.attr.size);
            if !self.rows.version_facts(id, number)?.is_some_and(is_meant) {
                continue;
            }
            let mut file = self.rows.file(id)?;
            if file.head == number {
                file.head_hash = HeadHash::Read(Some(digest));
                if file.ended.is_none() && file.key == inode.key {
                    file.settle(&inode.attr);
                }
                if number > 1 && self.rows.version_hash(id, number - 1)? == Some(digest) {
                    self.rows.retract_version(&mut file)?;
                    self.rows.unkeep(file.id, file.head)?;
                    self.rows.put(file);
                    if file.ended.is_none() && file.key == inode.key {
                        self.same_bytes(&file, &inode)?;
                    }
                    continue;
                }
                self.rows.put(file);
            }
            self.rows.fill_hash(id, number, digest)?;
            self.rows.tell_prefix(id, number - 1, prefix)?;
        }
        Ok(())
    }

    pub(super) fn end_session(&mut self, session: SessionId, left: Option<InodeKey>) {
        if let Some(key) = left {
            self.rows.state.orphans.remove(&key);
        }
        if let Some(made) = self.rows.state.sessions.get_mut(&session) {
            made.ended = true;
            if made.awaited == 0 {
                self.rows.state.sessions.remove(&session);
            }
        }
    }
}

fn settle(file: &mut FileRow, inode: &Inode, known: bool) {
    if known {
        file.settle(&inode.attr);
    } else {
        file.take_attr(&inode.attr);
    }
}
