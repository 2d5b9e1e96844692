//! Where a search goes on.
//!
//! Owns the text form of a place in the order of a search: live names first, then names that are gone, each
//! by the number of the directory and by the bytes of the name. It is true whatever came or went since.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::catalog::names::NameKey;
use crate::types::{FileId, Seq};

/// A place after one of the names that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// A live name.
    Live(NameKey),
    /// One that is gone, and the change that had given it.
    Gone(NameKey, Seq),
}

/// The text is no cursor.
#[derive(Debug, thiserror::Error)]
#[error("no cursor of a search")]
pub struct ParseCursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, from) = match self {
            Self::Live(key) => (key, None),
            Self::Gone(key, from) => (key, Some(from)),
        };
        write!(f, "{}.{}", key.parent.0, BASE64URL_NOPAD.encode(&key.name))?;
        from.map_or(Ok(()), |from| write!(f, ".{from}"))
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.');
        let number = |part: Option<&str>| {
            part.and_then(|text| text.parse::<u64>().ok()).ok_or(ParseCursorError)
        };
        let parent = FileId(number(parts.next())?);
        let name = parts.next().ok_or(ParseCursorError)?;
        let name = BASE64URL_NOPAD.decode(name.as_bytes()).map_err(|_| ParseCursorError)?;
        let key = NameKey { parent, name: name.into() };
        match (parts.next(), parts.next()) {
            (None, _) => Ok(Self::Live(key)),
            (from, None) => Ok(Self::Gone(key, Seq(number(from)?))),
            _ => Err(ParseCursorError),
        }
    }
}

serde_text!(Cursor);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<Cursor>();
        }

        #[test]
        fn a_cursor_survives_its_text(parent: u64, name: Vec<u8>, from: Option<u64>) {
            let key = NameKey { parent: FileId(parent), name: name.into() };
            let cursor = match from {
                Some(from) => Cursor::Gone(key, Seq(from)),
                None => Cursor::Live(key),
            };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
    }
}
