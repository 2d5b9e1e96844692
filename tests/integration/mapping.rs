//! Memory that is mapped, for stores that no message tells of.

use std::fs::File;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags};

/// A shared mapping of a file, or memory that is aligned to pages.
pub(crate) struct Mapping {
    start: *mut std::ffi::c_void,
    length: usize,
}

#[expect(unsafe_code, reason = "a mapping that other processes see can be had by no other way")]
impl Mapping {
    pub(crate) fn of(file: &File, length: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing else is there.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, file, 0)
        };
        Self { start: start.unwrap(), length }
    }

    pub(crate) fn anonymous(length: usize) -> Self {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so nothing else is there.
        let start = unsafe {
            let nowhere = std::ptr::null_mut();
            rustix::mm::mmap_anonymous(nowhere, length, protection, MapFlags::PRIVATE)
        };
        Self { start: start.unwrap(), length }
    }

    pub(crate) fn store(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: within the mapping, by the assertion; volatile, as others see it.
            unsafe { self.start.cast::<u8>().add(offset + index).write_volatile(*byte) };
        }
    }

    pub(crate) fn fill(&self, byte: u8) {
        self.store(0, &vec![byte; self.length]);
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for as long as `self` lives, and nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.length) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as `self` lives, and borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.length) }
    }

    pub(crate) fn sync(&self) {
        // SAFETY: exactly what was mapped.
        unsafe { rustix::mm::msync(self.start, self.length, MsyncFlags::SYNC) }.unwrap();
    }
}

#[expect(unsafe_code, reason = "see above")]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what was mapped, and nobody can use it any more.
        unsafe { rustix::mm::munmap(self.start, self.length) }.unwrap();
    }
}
