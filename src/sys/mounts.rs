//! The table of mounts.
//!
//! Owns the reading of `/proc/self/mountinfo`, where names are escaped.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Which.
    pub id: u64,
    /// What of its filesystem is mounted there.
    pub root: PathBuf,
    /// Where.
    pub mountpoint: PathBuf,
    /// The type of its filesystem.
    pub fstype: String,
    /// What it is mounted from: the dataset, on ZFS.
    pub source: String,
}

/// Reads one line of the table.
fn parse(line: &[u8]) -> Option<Mount> {
    // ID, parent, device, root, mount point, options, any number of tags, `-`, type, source, options.
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let root = path(fields.nth(2)?);
    let mountpoint = path(fields.next()?);
    fields.find(|field| *field == b"-")?;
    let fstype = String::from_utf8(fields.next()?.to_vec()).ok()?;
    let source = String::from_utf8(unescape(fields.next()?)).ok()?;
    Some(Mount { id, root, mountpoint, fstype, source })
}

/// The mount of an id; `None` if this process sees none.
///
/// # Errors
/// If the table cannot be read.
pub fn find(id: u64) -> std::io::Result<Option<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).find(|mount| mount.id == id))
}

/// `\040` is a space, and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten();
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mount_is_read_with_its_odd_names() {
        let line =
            br"44 43 0:41 /a /mnt/my\040data rw shared:1 master:2 - zfs tank/my\040data rw,xattr";
        let expected = Mount {
            id: 44,
            root: "/a".into(),
            mountpoint: "/mnt/my data".into(),
            fstype: "zfs".into(),
            source: "tank/my data".into(),
        };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse(b"44 43 0:41 / /mnt rw"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_not(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }
}
