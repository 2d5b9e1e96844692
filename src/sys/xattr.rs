//! All extended attributes of an inode at once.

use std::os::fd::AsFd;

use rustix::buffer::spare_capacity;

use super::{Errno, stat};
use crate::types::Xattrs;

/// The longest value and list that Linux has, in bytes.
pub const MOST: usize = 65_536;

/// Reads every extended attribute of what is open, by `O_PATH` or otherwise. One that goes away
/// meanwhile is left out.
///
/// # Errors
/// The kernel's; a filesystem that has none gives none.
pub fn read_all(fd: impl AsFd) -> Result<Xattrs, Errno> {
    let path = stat::proc_name(&fd);
    // Most files have none, which is found out with a small buffer as well.
    let mut list = Vec::with_capacity(256);
    match rustix::fs::listxattr(&path, spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(Errno::RANGE) => {
            list.reserve(MOST);
            rustix::fs::listxattr(&path, spare_capacity(&mut list))?;
        }
        Err(Errno::OPNOTSUPP) => return Ok(Xattrs::default()),
        Err(error) => return Err(error),
    }
    let mut all = Vec::new();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = Vec::with_capacity(MOST);
        match rustix::fs::getxattr(&path, name, spare_capacity(&mut value)) {
            Ok(_) => all.push((name.into(), value.into())),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Xattrs::new(all))
}
