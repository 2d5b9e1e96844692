//! Lines of fstab.
//!
//! Owns their fields and escapes. The options mean what they mean after `-o`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{MountConfig, OptionError};

/// What is wrong with a line of fstab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FstabError {
    /// Fields are missing.
    #[error("an fstab line has BACKING MOUNTPOINT horace OPTIONS")]
    MissingField,
    /// The line is for another filesystem.
    #[error("the filesystem type is `{found}`, not `horace` or `fuse.horace`")]
    OtherType {
        /// The type in the line.
        found: String,
    },
    /// The options are not text.
    #[error("the options are not UTF-8")]
    NotText,
    /// An option is wrong.
    #[error(transparent)]
    Option(#[from] OptionError),
}

impl MountConfig {
    /// Reads one line of fstab of the type `horace` or `fuse.horace`.
    ///
    /// # Errors
    /// For a line of another kind, or a wrong option.
    pub fn from_fstab_line(line: &str) -> Result<Self, FstabError> {
        let mut fields = line.split_ascii_whitespace().take_while(|field| !field.starts_with('#'));
        let mut next = || fields.next().ok_or(FstabError::MissingField);
        let (backing, mountpoint, kind) = (next()?, next()?, next()?);
        if !matches!(kind, "horace" | "fuse.horace") {
            return Err(FstabError::OtherType { found: kind.into() });
        }
        let mut config = Self::new(unescape(backing), unescape(mountpoint));
        if let Some(options) = fields.next() {
            let options = unescape(options).into_string().map_err(|_| FstabError::NotText)?;
            config.apply_options(&options)?;
        }
        Ok(config)
    }

    /// The mountpoint in a line of fstab or of `/proc/mounts`, whatever its type.
    pub fn mountpoint_in(line: &str) -> Option<PathBuf> {
        line.split_ascii_whitespace().nth(1).map(|field| unescape(field).into())
    }
}

/// Decodes `\040` and its like; a backslash before anything else stays.
fn unescape(field: &str) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) = (first, tail) {
            bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, Api};
    use proptest::prelude::*;

    #[test]
    fn a_line_with_escapes_is_read() {
        let line = r"/tank/my\040data /srv/a\134b fuse.horace ro,api=off,_netdev,state=/v\0400 0 0";
        let config = MountConfig::from_fstab_line(line).unwrap();
        assert_eq!(config.backing, std::path::Path::new("/tank/my data"));
        assert_eq!(config.mountpoint, std::path::Path::new(r"/srv/a\b"));
        assert_eq!(config.access, Access::ReadOnly);
        assert_eq!(config.api, Api::Off);
    }

    #[test]
    fn options_may_be_left_out() {
        let config = MountConfig::from_fstab_line("/a\t/b  horace # note").unwrap();
        assert_eq!(config, MountConfig::new("/a", "/b"));
    }

    #[test]
    fn other_lines_are_refused() {
        let parse = MountConfig::from_fstab_line;
        assert_eq!(parse("# comment"), Err(FstabError::MissingField));
        assert_eq!(
            parse("/dev/sda1 / ext4 defaults 0 1").unwrap_err().to_string(),
            "the filesystem type is `ext4`, not `horace` or `fuse.horace`"
        );
        assert!(matches!(parse("/a /b horace wrong"), Err(FstabError::Option(_))));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".*") {
            let _ = MountConfig::from_fstab_line(&line);
        }
    }
}
