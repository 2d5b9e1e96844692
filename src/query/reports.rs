//! Reports: what takes the space, what is there twice, and who writes.
//!
//! Owns the sums. Each is a walk or two, or a pass over the log; what is there twice needs some memory for every
//! content, the others only for what they tell of.

pub mod duplicates;
pub mod usage;
pub mod writers;

use crate::types::FileId;

/// Files that were counted; their numbers are dense.
#[derive(Debug, Default)]
struct Counted(Vec<u64>);

impl Counted {
    /// Whether a file comes for the first time.
    fn add(&mut self, file: FileId) -> bool {
        let word = usize::try_from(file.0 / 64).unwrap_or(usize::MAX - 1);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let bit = 1 << (file.0 % 64);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_several_names_counts_once() {
        let mut counted = Counted::default();
        let first: Vec<bool> = [0, 63, 64, 1_000_000, 63, 0, 65]
            .map(|file| counted.add(FileId(file)))
            .into_iter()
            .collect();
        assert_eq!(first, [true, true, true, true, false, false, true]);
    }
}
