//! Cutting contents into chunks where their own bytes say so.
//!
//! Owns the sizes of chunks. An insertion moves the bytes behind it but not the cuts between them, so
//! that two versions of a file share the chunks that their difference does not touch. Never keeps more
//! than one buffer of a content in memory.

use std::io::{self, Read};

use fastcdc::v2020::FastCDC;

/// Limits of the sizes of chunks, in bytes, each an even number.
///
/// The cuts of a content depend on them: what was cut with other sizes shares nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk but the last is smaller; from 64 up.
    pub min_bytes: usize,
    /// What most chunks are close to; from 256 up.
    pub average_bytes: usize,
    /// No chunk is larger.
    pub max_bytes: usize,
}

impl ChunkSizes {
    /// For what people write; the documentation of [`pack`](super::pack) says why.
    pub const FINE: Self = Self { min_bytes: 2 << 10, average_bytes: 8 << 10, max_bytes: 64 << 10 };
    /// For contents of which even versions seldom have small parts in common, or which would have too
    /// many chunks.
    pub const COARSE: Self =
        Self { min_bytes: 32 << 10, average_bytes: 128 << 10, max_bytes: 1 << 20 };
}

/// Cuts what it reads into chunks.
pub struct Chunker<R> {
    content: R,
    sizes: ChunkSizes,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    at_end: bool,
}

impl<R: Read> Chunker<R> {
    /// Begins at the current position of `content`. Holds four times the largest chunk in memory.
    pub fn new(content: R, sizes: ChunkSizes) -> Self {
        let buffer = vec![0; sizes.max_bytes * 4].into_boxed_slice();
        Self { content, sizes, buffer, start: 0, end: 0, at_end: false }
    }

    /// The next chunk, never an empty one; `None` at the end of the content.
    ///
    /// # Errors
    /// Those of reading the content.
    pub fn next_chunk(&mut self) -> io::Result<Option<&[u8]>> {
        if self.end - self.start < self.sizes.max_bytes {
            self.fill()?;
        }
        if self.start == self.end {
            return Ok(None);
        }
        let ahead = &self.buffer[self.start..self.end];
        let ChunkSizes { min_bytes, average_bytes, max_bytes } = self.sizes;
        let (_, cut) = FastCDC::new(ahead, min_bytes, average_bytes, max_bytes).cut(0, ahead.len());
        self.start += cut;
        Ok(Some(&ahead[..cut]))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while !self.at_end && self.end < self.buffer.len() {
            match self.content.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    use proptest::prelude::*;

    const SIZES: ChunkSizes = ChunkSizes { min_bytes: 64, average_bytes: 256, max_bytes: 1024 };

    fn cut(content: impl Read, sizes: ChunkSizes) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::new(content, sizes);
        let mut chunks = Vec::new();
        while let Some(chunk) = chunker.next_chunk().unwrap() {
            chunks.push(chunk.to_vec());
        }
        chunks
    }

    /// Gives one to seven bytes at a time, and is interrupted in between.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(5) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = self.0.len().min(self.1 % 7 + 1).min(buffer.len());
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    /// Bytes that look random and are the same each time.
    fn noise(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        let mut step = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        };
        (0..length).map(|_| step()).collect()
    }

    #[test]
    fn nothing_has_no_chunks() {
        assert!(cut(&b""[..], SIZES).is_empty());
    }

    #[test]
    fn chunks_are_of_the_sizes_they_should_be() {
        let content = noise(300_000, 1);
        let chunks = cut(&content[..], SIZES);
        let (_, all_but_last) = chunks.split_last().unwrap();
        assert!(all_but_last.iter().all(|c| (64..=1024).contains(&c.len())));
        let average = content.len() / chunks.len();
        assert!((128..=512).contains(&average), "{average}");
    }

    #[test]
    fn an_insertion_changes_the_chunks_around_it_alone() {
        let before = noise(200_000, 2);
        let mut after = before.clone();
        after.splice(70_000..70_000, *b"inserted");
        let known: HashSet<_> = cut(&before[..], SIZES).into_iter().collect();
        let new = cut(&after[..], SIZES).into_iter().filter(|c| !known.contains(c)).count();
        assert!((1..=4).contains(&new), "{new}");
    }

    #[test]
    fn a_content_that_cannot_be_read_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
        let error = Chunker::new(Broken, SIZES).next_chunk().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_how_the_content_is_read(
            content in proptest::collection::vec(any::<u8>(), 0..20_000),
        ) {
            let chunks = cut(&content[..], SIZES);
            prop_assert_eq!(chunks.concat(), content.clone());
            prop_assert_eq!(cut(Trickle(&content, 0), SIZES), chunks);
        }
    }
}
