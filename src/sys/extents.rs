//! How much of a file's blocks other files have too.
#![expect(unsafe_code, reason = "rustix has no wrapper for FIEMAP")]

use std::os::fd::{AsRawFd, BorrowedFd};

use super::Errno;

/// Bytes of a file's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extents {
    /// All of them.
    pub bytes: u64,
    /// Those that are shared.
    pub shared_bytes: u64,
}

/// Extents asked for at a time.
const COUNT: u32 = 64;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved2: [u32; 3],
}

/// `struct fiemap` with room for extents.
#[repr(C)]
struct Request {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [Extent; COUNT as usize],
}

/// `_IOWR('f', 11, struct fiemap)`, of which the head is 32 bytes.
const FS_IOC_FIEMAP: libc::Ioctl = 0xc020_660b_u32 as libc::Ioctl;
const LAST: u32 = 0x1;
const SHARED: u32 = 0x2000;

/// Asks for the blocks of a file that is open for reading.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOTTY` where the filesystem does not tell; the kernel's.
pub fn of(file: BorrowedFd<'_>) -> Result<Extents, Errno> {
    let mut found = Extents::default();
    let mut start = 0;
    loop {
        let mut request = Request {
            start,
            length: u64::MAX - start,
            flags: 0,
            mapped: 0,
            count: COUNT,
            reserved: 0,
            extents: [Extent::default(); COUNT as usize],
        };
        // SAFETY: the kernel writes at most `count` extents behind the head, for which there is room,
        // and every bit pattern is valid for them; `file` is open for the borrow's life.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, &raw mut request) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
        let mapped = &request.extents[..COUNT.min(request.mapped) as usize];
        for extent in mapped {
            found.bytes += extent.length;
            if extent.flags & SHARED != 0 {
                found.shared_bytes += extent.length;
            }
        }
        match mapped.last() {
            Some(last) if last.flags & LAST == 0 && last.length > 0 => {
                start = last.logical + last.length;
            }
            _ => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn the_blocks_of_a_plain_file_are_its_own() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 100_000]).unwrap();
        file.sync_all().unwrap();
        match of(file.as_fd()) {
            Ok(extents) => {
                assert!(extents.bytes >= 100_000, "{extents:?}");
                assert_eq!(extents.shared_bytes, 0);
            }
            Err(error) => assert!(matches!(error, Errno::OPNOTSUPP | Errno::NOTTY), "{error}"),
        }
    }
}
