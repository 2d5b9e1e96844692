//! What each event means for the temporal tree.
//!
//! Owns the rules of identity: which file a name stands for after a create, a rename, an atomic
//! save or a delete, and which session makes which version. One event becomes at most one row of
//! the change log and is applied whole, inside the transaction of its batch. Nothing here is guessed
//! from names or times: inodes are matched by number and generation.

use super::event::{Born, Event, Op, Openness, Place, Replaced};
use super::rows::{Change, ChangeOp, EntryRow, FileRow, Rows};
use super::sessions::Sealed;
use crate::types::{
    Attr, ContentHash, FileId, Inode, InodeKey, Kind, Name, Origin, Timestamp, Writer, Xattrs,
};

/// One event being applied.
pub(super) struct Apply<'r, 'a> {
    pub(super) rows: &'r mut Rows<'a>,
    pub(super) time_ns: i64,
    pub(super) writer: Option<&'r Writer>,
}

/// Applies one event.
pub(super) fn apply(rows: &mut Rows<'_>, event: &Event) -> rusqlite::Result<()> {
    let mut this = Apply { rows, time_ns: event.time_ns, writer: event.writer.as_deref() };
    match &event.op {
        Op::Root { inode, incarnation } => this.root(inode, *incarnation),
        Op::Create { at, inode, born } => this.create(at, inode, born),
        Op::Link { at, inode } => this.link(at, inode),
        Op::Unlink { at, key, remaining, openness } => {
            this.unlink(at, *key, remaining.as_ref(), *openness)
        }
        Op::Rename { from, to, inode, replaced } => this.rename(from, to, inode, *replaced),
        Op::Exchange { a, b } => this.exchange(a, b),
        Op::Attr { inode, before } => this.attr(inode, before.as_deref()),
        Op::Leave { key, xattrs } => this.leave(*key, xattrs),
        Op::Arrive { at, inode, replaced } => this.move_in(at, inode, *replaced),
        Op::Seal { inode, session, digest, prefix, origin } => {
            let sealed = Sealed { inode, digest: *digest, prefix: *prefix, origin: *origin };
            this.seal(&sealed, *session)
        }
        Op::Digest { session, read, prefix } => this.digest(*session, read.as_ref(), *prefix),
        Op::Preserve { key, kept } => this.preserve(*key, *kept),
        Op::Stored { id, content, original, prefix } => {
            this.stored(*id, *content, *original, *prefix)
        }
        Op::Dropped { hash } => this.dropped(*hash),
        Op::Perished { hash } => this.perished(*hash),
        Op::Packing { hash, packing } => this.rows.set_packing(*hash, *packing, event.time_ns),
        Op::Cleaned { dropped } => this.rows.set_cleaned(*dropped),
        Op::Surveyed(survey) => this.rows.set_survey(survey),
        Op::Adopted { hash, size } => this.rows.insert_object(*hash, *size, event.time_ns),
        Op::Pin { version, pin } => this.pin(*version, *pin),
        Op::Note { version, text } => this.note(*version, text),
        Op::Label { file, change } => this.label(*file, change),
        Op::Collect { name, change } => this.collect(name, change),
        Op::Snapshots(seen) => this.snapshots(seen),
        Op::Pruned { outcome } => this.rows.set_last_prune(outcome),
        Op::End { session, left } => {
            this.end_session(*session, *left);
            Ok(())
        }
        Op::Observe { at, inode, found, origin } => this.observe(at, inode, found, *origin),
        Op::Elsewhere { at, key } => this.elsewhere(at, *key),
        Op::Gone { at, key } => this.gone(at, *key),
        Op::Verified { state } => this.rows.set_meta(super::verify::VERIFY, &**state),
        Op::WalkDone => this.walk_done(),
        Op::Stop => this.rows.set_meta(super::STOPPED, event.time_ns),
    }
}

impl Apply<'_, '_> {
    pub(super) fn record(&mut self, op: ChangeOp, file: FileId) -> rusqlite::Result<()> {
        self.record_with(op, file, None, None)
    }

    pub(super) fn record_with(
        &mut self,
        op: ChangeOp,
        file: FileId,
        other: Option<FileId>,
        number: Option<u32>,
    ) -> rusqlite::Result<()> {
        let change = Change { op, file, other, number };
        self.rows.record(self.time_ns, self.writer, &change).map(|_| ())
    }

    /// Something the catalog has never heard of took part: only a walk can tell what it is.
    pub(super) fn unknown(&mut self, what: &str) {
        tracing::debug!(what, "the catalog has not heard of it: a reconcile follows");
        self.rows.state.wants_reconcile = true;
    }

    /// An inode without a name is nothing that a walk could find.
    pub(super) fn unknown_inode(&mut self, inode: &Inode, what: &str) {
        if inode.attr.nlink > 0 {
            self.unknown(what);
        }
    }

    fn root(&mut self, inode: &Inode, incarnation: i64) -> rusqlite::Result<()> {
        if self.rows.meta(super::STOPPED)? == Some(0) {
            self.rows.unkeep_heads()?;
            self.rows.state.limbo = self.rows.nameless()?;
        }
        // Until the next orderly end, this run counts as crashed.
        self.rows.set_meta(super::STOPPED, 0)?;
        self.rows.set_meta(super::INCARNATION, incarnation)?;
        if self.rows.seq().0 == 1 {
            let mut row = FileRow::new(FileId::ROOT, inode.key, &inode.attr, self.rows.seq());
            row.links = 1;
            self.rows.insert_row(row)?;
            self.rows.insert_attr(FileId::ROOT, &inode.attr)?;
            return self.record(ChangeOp::Create, FileId::ROOT);
        }
        let mut row = self.rows.file(FileId::ROOT)?;
        row.key = inode.key;
        self.take_attr(&mut row, inode)
    }

    fn create(&mut self, at: &Place, inode: &Inode, born: &Born) -> rusqlite::Result<()> {
        let Some(parent) = self.rows.find(at.parent)? else {
            self.unknown("create");
            return Ok(());
        };
        if let Some(stale) = self.rows.entry(parent.id, &at.name)? {
            // The kernel made sure that the name was free, so its old owner left around the mount.
            self.displace(parent.id, &at.name, stale)?;
        }
        let mut file = self.be_born(parent.id, &at.name, inode)?;
        let mut number = None;
        match born {
            Born::Bare => {}
            Born::Empty => {
                number = self.new_version(&mut file, inode, Some(ContentHash::EMPTY))?;
                if number.is_none() {
                    self.rows.insert_attr(file.id, &inode.attr)?;
                }
                file.settle(&inode.attr);
                self.rows.put(file);
            }
            Born::Target(target) => self.rows.insert_target(file.id, target)?,
        }
        self.record_with(ChangeOp::Create, file.id, None, number)
    }

    /// A file for an inode at a free name: the one whose life ended there, or a new one. A symlink has
    /// one target, a device one number, and so one life.
    pub(super) fn be_born(
        &mut self,
        parent: FileId,
        name: &Name,
        inode: &Inode,
    ) -> rusqlite::Result<FileRow> {
        let has_one_life = |kind: Kind| kind == Kind::Symlink || kind.is_device();
        let may_continue = |f: &FileRow| f.kind == inode.attr.kind && !has_one_life(f.kind);
        let ended = self.rows.ended_at(parent, name)?.filter(may_continue);
        let continues = ended.is_some();
        let file = match ended {
            Some(mut file) => {
                self.rows.insert_past_xattrs(file.id, &Xattrs::default())?;
                if file.uid != inode.attr.uid {
                    // What was said of it was for those who could read it then.
                    self.unlabel(file.id)?;
                }
                file.ended = None;
                file.links = 1;
                file.key = inode.key;
                file.take_attr(&inode.attr);
                self.rows.put(file);
                file
            }
            None => self.rows.insert_file(inode.key, &inode.attr)?,
        };
        self.rows.open_entry(parent, name, file.id)?;
        if file.kind != Kind::File || continues {
            self.rows.insert_attr(file.id, &inode.attr)?;
        }
        Ok(file)
    }

    /// Adds a version unless the bytes are those of the head; returns its number if it was added.
    pub(super) fn new_version(
        &mut self,
        file: &mut FileRow,
        inode: &Inode,
        hash: Option<ContentHash>,
    ) -> rusqlite::Result<Option<u32>> {
        self.new_version_from(file, inode, hash, Origin::Write)
    }

    pub(super) fn new_version_from(
        &mut self,
        file: &mut FileRow,
        inode: &Inode,
        hash: Option<ContentHash>,
        origin: Origin,
    ) -> rusqlite::Result<Option<u32>> {
        if hash.is_some() && file.head > 0 && self.rows.head_hash(file)? == hash {
            return Ok(None);
        }
        self.rows.insert_version(file, &inode.attr, hash, origin).map(Some)
    }

    fn link(&mut self, at: &Place, inode: &Inode) -> rusqlite::Result<()> {
        let (Some(parent), Some(mut file)) =
            (self.rows.find(at.parent)?, self.rows.find(inode.key)?)
        else {
            self.unknown("link");
            return Ok(());
        };
        if let Some(stale) = self.rows.entry(parent.id, &at.name)? {
            self.displace(parent.id, &at.name, stale)?;
        }
        self.rows.open_entry(parent.id, &at.name, file.id)?;
        file.links += 1;
        file.follow_ctime(&inode.attr);
        self.rows.put(file);
        self.record(ChangeOp::Link, file.id)
    }

    fn unlink(
        &mut self,
        at: &Place,
        key: InodeKey,
        remaining: Option<&Inode>,
        openness: Openness,
    ) -> rusqlite::Result<()> {
        let Some(parent) = self.rows.find(at.parent)? else {
            self.unknown("unlink");
            return Ok(());
        };
        let Some(entry) = self.rows.entry(parent.id, &at.name)? else {
            // Deleted before it was ever catalogued.
            self.forget_inode(key, openness, None);
            return Ok(());
        };
        self.rows.close_entry(parent.id, &at.name, entry)?;
        let mut file = self.rows.file(entry.child)?;
        file.links = file.links.saturating_sub(1);
        if let Some(remaining) = remaining.filter(|_| file.key == key && file.links > 0) {
            file.follow_ctime(&remaining.attr);
            self.rows.put(file);
        } else if file.kind == Kind::Dir {
            self.end_tree(file)?;
        } else {
            let seq = self.rows.seq();
            self.forget_inode(key, openness, Some(&file));
            self.rows.end(file, seq);
        }
        self.record(ChangeOp::Unlink, file.id)
    }

    /// An inode lost its last name; while it is open, what its sessions say belongs to `file` or
    /// to nobody.
    fn forget_inode(&mut self, key: InodeKey, openness: Openness, file: Option<&FileRow>) {
        if openness == Openness::Open {
            self.rows.state.orphans.insert(key, file.map(|file| (file.id, file.head)));
        }
    }

    /// Ends a directory with everything that the catalog still thinks to be in it.
    pub(super) fn end_tree(&mut self, top: FileRow) -> rusqlite::Result<()> {
        let seq = self.rows.seq();
        let mut stack = vec![top];
        while let Some(file) = stack.pop() {
            if file.kind == Kind::Dir {
                for (name, entry) in self.rows.children(file.id)? {
                    self.rows.close_entry(file.id, &name, entry)?;
                    let mut child = self.rows.file(entry.child)?;
                    child.links = child.links.saturating_sub(1);
                    if child.links == 0 {
                        stack.push(child);
                    } else {
                        self.rows.put(child);
                    }
                }
            }
            self.rows.end(file, seq);
        }
        Ok(())
    }

    /// Takes a name from the file that has it, because another inode was found there. It stays
    /// alive without a name until a walk has found it elsewhere, or has not.
    pub(super) fn displace(
        &mut self,
        parent: FileId,
        name: &[u8],
        entry: EntryRow,
    ) -> rusqlite::Result<()> {
        if self.take_name(parent, name, entry)? {
            self.rows.state.wants_reconcile = true;
        }
        Ok(())
    }

    /// A file is not where it was; whether it had no other name, and waits to be found.
    pub(super) fn take_name(
        &mut self,
        parent: FileId,
        name: &[u8],
        entry: EntryRow,
    ) -> rusqlite::Result<bool> {
        self.rows.close_entry(parent, name, entry)?;
        let mut file = self.rows.file(entry.child)?;
        file.links = file.links.saturating_sub(1);
        let is_lost = file.links == 0;
        if is_lost {
            self.rows.state.limbo.push(file.id);
        }
        self.rows.put(file);
        Ok(is_lost)
    }

    fn rename(
        &mut self,
        from: &Place,
        to: &Place,
        inode: &Inode,
        replaced: Option<Replaced>,
    ) -> rusqlite::Result<()> {
        let (Some(old_dir), Some(new_dir)) =
            (self.rows.find(from.parent)?, self.rows.find(to.parent)?)
        else {
            self.unknown("rename");
            return Ok(());
        };
        let source = self.rows.entry(old_dir.id, &from.name)?;
        let target = self.rows.entry(new_dir.id, &to.name)?;
        let moved = self.rows.find(inode.key)?;
        if let (Some(source), Some(moved)) = (source, moved)
            && source.child == moved.id
        {
            return self.rename_known(
                (old_dir.id, &from.name, source),
                moved,
                (new_dir.id, &to.name, target),
                inode,
                replaced,
            );
        }
        // The source was never catalogued, or something else has its name in the catalog.
        if let Some(source) = source {
            self.displace(old_dir.id, &from.name, source)?;
        }
        self.unknown("rename");
        self.settle_replaced(replaced, None);
        self.observe(to, inode, &super::event::Found::Unread, Origin::External)
    }

    fn rename_known(
        &mut self,
        (old_dir, old_name, source): (FileId, &Name, EntryRow),
        mut moved: FileRow,
        (new_dir, new_name, target): (FileId, &Name, Option<EntryRow>),
        inode: &Inode,
        replaced: Option<Replaced>,
    ) -> rusqlite::Result<()> {
        let mut other = None;
        if let Some(target) = target {
            if target.child == moved.id {
                // Two names of one inode: rename(2) does nothing then.
                return Ok(());
            }
            let taken = self.rows.file(target.child)?;
            if may_continue(&taken, &moved) {
                self.rows.close_entry(old_dir, old_name, source)?;
                self.settle_replaced(replaced, Some(&taken));
                return self.replace(taken, moved, inode);
            }
            other = Some(taken.id);
            self.lose_name(new_dir, new_name, target, replaced)?;
        }
        self.rows.close_entry(old_dir, old_name, source)?;
        self.rows.open_entry(new_dir, new_name, moved.id)?;
        moved.follow_ctime(&inode.attr);
        self.rows.put(moved);
        self.record_with(ChangeOp::Rename, moved.id, other, None)
    }

    /// The target of a rename loses the name, and ends if that was its last.
    fn lose_name(
        &mut self,
        dir: FileId,
        name: &Name,
        entry: EntryRow,
        replaced: Option<Replaced>,
    ) -> rusqlite::Result<()> {
        self.rows.close_entry(dir, name, entry)?;
        let mut file = self.rows.file(entry.child)?;
        file.links = file.links.saturating_sub(1);
        if file.links > 0 {
            if let Some(inode) = replaced.and_then(|r| r.remaining).filter(|i| i.key == file.key) {
                file.follow_ctime(&inode.attr);
            }
            self.rows.put(file);
            return Ok(());
        }
        self.settle_replaced(replaced, Some(&file));
        self.end_tree(file)
    }

    fn settle_replaced(&mut self, replaced: Option<Replaced>, file: Option<&FileRow>) {
        if let Some(Replaced { key, openness, .. }) = replaced {
            self.forget_inode(key, openness, file);
        }
    }

    /// The atomic save: `target` lives on with the inode and the head of `source`, which ends.
    pub(super) fn replace(
        &mut self,
        mut target: FileRow,
        mut source: FileRow,
        inode: &Inode,
    ) -> rusqlite::Result<()> {
        let seq = self.rows.seq();
        let settled = source.settled();
        let mut number = None;
        self.rows.insert_past_xattrs(target.id, &Xattrs::default())?;
        if source.head > 0 {
            let hash = self.rows.head_hash(&mut source)?;
            let (origin, size, mtime_ns) = match self.rows.head_facts(&source)? {
                Some(facts) => facts,
                None => (Origin::Write, inode.attr.size, inode.attr.mtime.as_ns()),
            };
            // Somebody may have the inode open and be changing it already: that is not this version.
            let attr = Attr { size, mtime: Timestamp::from_ns(mtime_ns), ..inode.attr };
            let sealed = Inode { attr, ..*inode };
            number = self.new_version_from(&mut target, &sealed, hash, origin)?;
            if let (Some(number), Some(session)) = (number, source.sealed_by)
                && let Some(made) = self.rows.state.sessions.get_mut(&session)
            {
                // What the session writes next, or its digest, belongs to the target from now on.
                made.versions.push((target.id, number));
                target.sealed_by = Some(session);
            }
            // That a head goes on here ends whatever was said of where it went on before: in a circle
            // it could be looked for forever.
            self.rows.delete_continued((target.id, target.head))?;
            self.rows.insert_continued((source.id, source.head), (target.id, target.head))?;
        }
        let stamp = source.stamp;
        self.rows.end(source, seq);
        target.key = inode.key;
        target.take_attr(&inode.attr);
        if settled {
            target.stamp = stamp;
            target.follow_ctime(&inode.attr);
        }
        if number.is_none() {
            self.rows.insert_attr(target.id, &inode.attr)?;
        }
        self.rows.put(target);
        self.record_with(ChangeOp::Replace, target.id, Some(source.id), number)
    }

    fn exchange(&mut self, a: &(Place, Inode), b: &(Place, Inode)) -> rusqlite::Result<()> {
        let (Some(dir_a), Some(dir_b)) = (self.rows.find(a.0.parent)?, self.rows.find(b.0.parent)?)
        else {
            self.unknown("exchange");
            return Ok(());
        };
        let old_a = self.rows.entry(dir_a.id, &a.0.name)?;
        let old_b = self.rows.entry(dir_b.id, &b.0.name)?;
        let (Some(old_a), Some(old_b)) = (old_a, old_b) else {
            self.unknown("exchange");
            return Ok(());
        };
        self.rows.close_entry(dir_a.id, &a.0.name, old_a)?;
        self.rows.close_entry(dir_b.id, &b.0.name, old_b)?;
        self.rows.open_entry(dir_a.id, &a.0.name, old_b.child)?;
        self.rows.open_entry(dir_b.id, &b.0.name, old_a.child)?;
        for (inode, id) in [(&a.1, old_b.child), (&b.1, old_a.child)] {
            let mut file = self.rows.file(id)?;
            if file.key == inode.key {
                file.follow_ctime(&inode.attr);
                self.rows.put(file);
            } else {
                self.unknown("exchange");
            }
        }
        self.record_with(ChangeOp::Exchange, old_b.child, Some(old_a.child), None)
    }

    /// An inode that was made elsewhere was moved to a name. Over a file it goes on with that file,
    /// with a version that is still to be told.
    fn move_in(
        &mut self,
        at: &Place,
        inode: &Inode,
        replaced: Option<Replaced>,
    ) -> rusqlite::Result<()> {
        let Some(parent) = self.rows.find(at.parent)? else {
            self.unknown("move_in");
            return Ok(());
        };
        if let Some(entry) = self.rows.entry(parent.id, &at.name)? {
            let mut taken = self.rows.file(entry.child)?;
            if taken.kind == Kind::File && taken.links == 1 {
                self.settle_replaced(replaced, Some(&taken));
                self.rows.insert_past_xattrs(taken.id, &Xattrs::default())?;
                taken.key = inode.key;
                taken.take_attr(&inode.attr);
                self.rows.put(taken);
                return Ok(());
            }
            self.lose_name(parent.id, &at.name, entry, replaced)?;
        }
        let file = self.be_born(parent.id, &at.name, inode)?;
        self.record(ChangeOp::Create, file.id)
    }

    fn attr(&mut self, inode: &Inode, before: Option<&Xattrs>) -> rusqlite::Result<()> {
        let Some(mut file) = self.rows.find(inode.key)? else {
            if !self.rows.state.orphans.contains_key(&inode.key) {
                self.unknown_inode(inode, "attr");
            }
            return Ok(());
        };
        let seq = self.rows.seq();
        if let Some(before) = before {
            self.rows.insert_past_xattrs(file.id, before)?;
        }
        if file.kind == Kind::Dir && file.stamp.mtime_ns != inode.attr.mtime.as_ns() {
            // What is made or removed in it moves its time, too, and is seen by itself; but this may
            // have set it.
            file.take_attr(&inode.attr);
            self.rows.put(file);
            self.rows.insert_attr(file.id, &inode.attr)?;
            return self.record(ChangeOp::Attr, file.id);
        }
        self.take_attr(&mut file, inode)?;
        // Extended ones count as a change, so that what was before and after it can be told apart.
        let told = before.is_none() || self.rows.seq() != seq;
        if told { Ok(()) } else { self.record(ChangeOp::Attr, file.id) }
    }

    /// Attributes without content: a settled file stays settled only if its size is the same.
    pub(super) fn take_attr(&mut self, file: &mut FileRow, inode: &Inode) -> rusqlite::Result<()> {
        let attr = &inode.attr;
        let settled = file.settled() && file.stamp.size == attr.size;
        let same_time = file.kind == Kind::Dir || file.stamp.mtime_ns == attr.mtime.as_ns();
        let same = same_time && (file.mode, file.uid, file.gid) == (attr.mode, attr.uid, attr.gid);
        file.take_attr(attr);
        if settled {
            file.settle(attr);
        }
        self.rows.put(*file);
        if same {
            return Ok(());
        }
        self.rows.insert_attr(file.id, attr)?;
        self.record(ChangeOp::Attr, file.id)
    }
}

/// Whether a rename of `moved` over `taken` is a save of `taken`: both are regular files, and
/// neither has another name under which it must live on.
pub(super) fn may_continue(taken: &FileRow, moved: &FileRow) -> bool {
    taken.kind == Kind::File && moved.kind == Kind::File && taken.links == 1 && moved.links == 1
}
