//! Packing what is due.
//!
//! Owns what is worth packing. What is left alone: contents that share most of their blocks with another file,
//! since they take next to no space as they are; and larger ones that look incompressible, unless other
//! versions of the same file were kept with which they may have something in common.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::PackingState;
use super::pace::Throttle;
use crate::catalog::event::{Op, Packing};
use crate::catalog::{CatalogError, DueObject, Reader};
use crate::causes::with_causes;
use crate::fs::Fs;
use crate::store::pack::{Pace, PackError, PackReader, Packer, looks_dense};
use crate::store::{Packs, Store};
use crate::sys::{Errno, extents};
use crate::types::ContentHash;

/// Rows that are asked for at a time.
const ROWS: u32 = 2000;
/// So many objects are committed together at most.
const MOST_WAITING: u32 = 50_000;
/// While space is short, what is older than this is packed.
const SHORT_AGE: Duration = Duration::from_secs(60);
/// Smaller contents are packed even if they cannot be compressed: they take a block and an inode each.
const SMALL: u64 = 64 << 10;

/// What a look at an object says.
enum Look {
    /// It is to be packed.
    Pack(File),
    /// It is packed.
    Packed,
    /// It stays as it is.
    Stay(Packing),
}

impl Fs {
    /// Packs what is due, the oldest first.
    pub(super) fn pack_what_is_due(
        &self,
        store: &Store,
        throttle: &Throttle<'_>,
    ) -> Result<(), PackError> {
        let Some(packs) = store.packs() else { return Ok(()) };
        let now_ns = crate::clock::now_ns();
        let age = self.age_ns();
        let before_ns = now_ns.saturating_sub(age);
        let mut due = self.due_objects(before_ns, None);
        if !self.is_enough(&due, before_ns.saturating_sub(age / 4)) {
            return Ok(());
        }
        self.packing.set(PackingState::Packs);
        let right = packs.maintain();
        let pacer = |bytes| {
            let pace = throttle.pace(bytes);
            if pace == Pace::Go {
                self.packing.set(PackingState::Packs);
            }
            pace
        };
        let mut packer = Packer::new(&right, packs.index(), &pacer, self.options.packing.packs);
        let mut waiting = 0;
        let mut outcome = Ok(());
        while let Some(last) = due.last().filter(|_| outcome.is_ok()) {
            let after = Some((last.due_ns, last.hash));
            for object in &due {
                outcome = self.pack_one(store, packs, object, &mut packer);
                if outcome.is_ok() && self.is_full() {
                    outcome = Err(PackError::Stopped);
                }
                if outcome.is_err() {
                    break;
                }
                waiting += 1;
                let mut packed = packer.take_packed();
                if waiting >= MOST_WAITING {
                    packed.extend(packer.commit()?);
                }
                if !packed.is_empty() {
                    waiting = 0;
                    self.settle_packed(store, packs, &packed, throttle)?;
                }
            }
            due = self.due_objects(before_ns, after);
        }
        if matches!(outcome, Ok(()) | Err(PackError::Stopped)) {
            let packed = packer.commit()?;
            self.settle_packed(store, packs, &packed, throttle)?;
        }
        outcome
    }

    /// How old what is packed must be, in nanoseconds.
    fn age_ns(&self) -> i64 {
        let after = self.options.packing.after;
        let age = if self.is_nearly_full() { after.min(SHORT_AGE) } else { after };
        i64::try_from(age.as_nanos()).unwrap_or(i64::MAX)
    }

    /// Whether what is due makes a pack, or has waited for so long that it need not.
    fn is_enough(&self, due: &[DueObject], long_due_ns: i64) -> bool {
        let bytes: u64 = due.iter().map(|object| object.size).sum();
        let is_much = due.len() >= ROWS as usize || bytes >= self.options.packing.packs.limit_bytes;
        is_much || due.first().is_some_and(|first| first.due_ns <= long_due_ns)
    }

    fn due_objects(&self, before_ns: i64, after: Option<(i64, ContentHash)>) -> Vec<DueObject> {
        let due = self.catalog.read(|reader: &Reader| reader.due_objects(before_ns, after, ROWS));
        due.unwrap_or_else(|error: CatalogError| {
            tracing::warn!(%error, "cannot tell what is to be packed");
            Vec::new()
        })
    }

    fn pack_one(
        &self,
        store: &Store,
        packs: &Packs,
        object: &DueObject,
        packer: &mut Packer<'_>,
    ) -> Result<(), PackError> {
        let hash = object.hash;
        let stay = |packing| self.tell(Op::Packing { hash, packing });
        let added = match self.look_at(store, packs, object)? {
            Look::Pack(file) => packer.add(hash, object.size, file),
            Look::Packed => {
                packer.add_packed(hash);
                return Ok(());
            }
            Look::Stay(packing) => {
                stay(packing);
                return Ok(());
            }
        };
        match added {
            Err(error @ (PackError::OtherContent { .. } | PackError::Content { .. })) => {
                let error = with_causes(&error);
                tracing::error!(error, %hash, "an object cannot be packed: it is damaged");
                stay(Packing::Needless);
                Ok(())
            }
            added => added,
        }
    }

    fn look_at(&self, store: &Store, packs: &Packs, object: &DueObject) -> Result<Look, PackError> {
        let is_packed = || Ok::<_, PackError>(packs.reader().recipe(object.hash)?.is_some());
        let file = match store.open_object(object.hash) {
            Ok(file) => file,
            Err(Errno::NOENT) if is_packed()? => return Ok(Look::Packed),
            Err(error) => {
                tracing::debug!(%error, hash = %object.hash, "an object cannot be opened");
                return Ok(Look::Stay(Packing::Later));
            }
        };
        if is_mostly_shared(&file) && !is_packed()? {
            return Ok(Look::Stay(Packing::Later));
        }
        let file = File::from(file);
        let is_worth_it = object.size <= SMALL
            || !is_dense(&file, object.size)
            || self.has_kin(object)
            || is_packed()?;
        Ok(if is_worth_it { Look::Pack(file) } else { Look::Stay(Packing::Needless) })
    }

    /// Whether there are others that it may have something in common with; they are due, too, then.
    fn has_kin(&self, object: &DueObject) -> bool {
        let kin = self.catalog.read_committed(|reader| reader.kin(object.hash, object.size));
        let kin = kin.unwrap_or_else(|error: CatalogError| {
            tracing::debug!(%error, "cannot tell other versions");
            Vec::new()
        });
        kin.iter().for_each(|hash| self.tell(Op::Packing { hash: *hash, packing: Packing::Again }));
        !kin.is_empty()
    }

    /// Removes the files of what is packed, once it has been read back and the catalog knows.
    fn settle_packed(
        &self,
        store: &Store,
        packs: &Packs,
        packed: &[ContentHash],
        throttle: &Throttle<'_>,
    ) -> Result<(), PackError> {
        let mut sound = Vec::with_capacity(packed.len());
        // What is still in memory says nothing of the disk.
        let reader = packs.fresh_reader();
        for hash in packed {
            match read_back(&reader, *hash, throttle) {
                Ok(()) => sound.push(*hash),
                Err(PackError::Output(_) | PackError::Stopped) => return Err(PackError::Stopped),
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::error!(error, %hash, "a packed content cannot be read back");
                    self.tell(Op::Packing { hash: *hash, packing: Packing::Needless });
                }
            }
        }
        for hash in &sound {
            self.tell(Op::Packing { hash: *hash, packing: Packing::Done });
        }
        if let Err(error) = self.catalog.sync() {
            // They are due still.
            tracing::warn!(%error, "what is packed keeps its files for now");
            return Err(PackError::Stopped);
        }
        for hash in sound {
            if let Err(error) = self.remove_packed(store, hash) {
                tracing::warn!(%error, %hash, "cannot remove what is packed");
            }
        }
        Ok(())
    }
}

/// Whether most of a file's blocks are another one's too.
fn is_mostly_shared(file: &OwnedFd) -> bool {
    extents::of(file.as_fd()).is_ok_and(|found| found.shared_bytes * 2 > found.bytes)
}

/// Whether four looks at a file say that it cannot be compressed.
fn is_dense(file: &File, size: u64) -> bool {
    const LOOK: usize = 4 << 10;
    let mut seen = vec![0; LOOK * 4];
    for (at, part) in (0..4).map(|n| size / 4 * n).zip(seen.chunks_mut(LOOK)) {
        if file.read_exact_at(part, at).is_err() {
            return false;
        }
    }
    looks_dense(&seen)
}

fn read_back(
    reader: &PackReader,
    hash: ContentHash,
    throttle: &Throttle<'_>,
) -> Result<(), PackError> {
    struct Nowhere<'a>(&'a Throttle<'a>);
    impl Write for Nowhere<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.keep(bytes.len() as u64) {
                Ok(bytes.len())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let unknown = PackError::Unknown { key: crate::store::pack::Key::recipe(hash) };
    let recipe = reader.recipe(hash)?.ok_or(unknown)?;
    reader.copy(&recipe, &mut Nowhere(throttle)).map(drop)
}
