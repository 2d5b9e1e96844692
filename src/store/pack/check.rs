//! Looking for damage in a pack.

use super::coding::Decoder;
use super::error::{Fault, PackError};
use super::file::PackFile;
use super::frame;
use super::pace::{self, Pacer};
use super::types::{Entry, Key};

/// A damage and what it costs.
#[derive(Debug)]
pub struct Damage {
    /// What is wrong, and where.
    pub error: PackError,
    /// What cannot be read because of it; empty if everything still can.
    pub lost: Vec<Key>,
}

impl PackFile {
    /// Reads everything in the pack and compares it with its names; returns what is damaged.
    ///
    /// Where the pack's own index cannot be read, what is in it is unknown: what is lost is then what the
    /// catalog's index has here and [`PackFile::scan`] does not find.
    ///
    /// # Errors
    /// The filesystem's, or [`PackError::Stopped`].
    pub fn check(&self, pacer: &Pacer<'_>) -> Result<Vec<Damage>, PackError> {
        let mut damages = Vec::new();
        let entries = match self.index() {
            Ok(index) => index.entries,
            Err(error @ PackError::Outline { .. }) => {
                damages.push(Damage { error, lost: Vec::new() });
                let scan = self.scan()?;
                let frames = scan.damage.into_iter();
                let frames = frames.filter(|error| matches!(error, PackError::Frame { .. }));
                damages.extend(frames.map(|error| Damage { error, lost: Vec::new() }));
                return Ok(damages);
            }
            Err(error) => return Err(error),
        };
        let mut decoder = Decoder::new().map_err(PackError::Compress)?;
        for items in entries.chunk_by(|a, b| a.place.frame == b.place.frame) {
            damages.extend(self.check_frame(items, &mut decoder)?);
            pace::keep(pacer, u64::from(items[0].place.frame_bytes))?;
        }
        if damages.is_empty()
            && let Err(error) = self.check_name()
        {
            damages.push(Damage { error, lost: Vec::new() });
        }
        Ok(damages)
    }

    fn check_frame(
        &self,
        items: &[Entry],
        decoder: &mut Decoder,
    ) -> Result<Option<Damage>, PackError> {
        let place = &items[0].place;
        let frame = match self.frame(place, decoder) {
            Ok(frame) => frame,
            Err(error @ PackError::Frame { .. }) => {
                return Ok(Some(Damage {
                    error,
                    lost: items.iter().map(|item| item.key).collect(),
                }));
            }
            Err(error) => return Err(error),
        };
        let is_lost = |entry: &&Entry| {
            let bytes = frame.item(entry.place.start, entry.place.length);
            bytes.and_then(|bytes| frame::name(frame.sort, bytes)) != Some(entry.key)
        };
        let lost: Vec<Key> = items.iter().filter(is_lost).map(|entry| entry.key).collect();
        Ok(lost.first().map(|first| Damage {
            error: self.damaged(u64::from(place.frame), Fault::Chunk(first.hash)),
            lost: lost.clone(),
        }))
    }
}
