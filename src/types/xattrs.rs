//! Extended attributes as values.
//!
//! Owns the form in which the catalog keeps them. Never reads or sets any.

use super::Name;

/// The extended attributes of an inode, ACLs among them: names and values, in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Xattrs(Vec<(Name, Box<[u8]>)>);

impl Xattrs {
    /// Takes attributes in any order.
    pub fn new(mut all: Vec<(Name, Box<[u8]>)>) -> Self {
        all.sort_unstable();
        Self(all)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of a name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// As bytes: for each attribute the length of its name (one byte), the name, the length of its
    /// value (four bytes, the lowest first) and the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, value) in self.iter() {
            // Linux has names of 255 bytes and values of 64 KiB at most.
            bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(&name[..name.len().min(255)]);
            bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
            bytes.extend_from_slice(value);
        }
        bytes
    }

    /// The inverse of [`Xattrs::encode`]; `None` for bytes that it never makes.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(taken)
        }
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = take(&mut bytes, 1)?[0];
            let name = take(&mut bytes, length.into())?;
            let length = u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?);
            let value = take(&mut bytes, usize::try_from(length).ok()?)?;
            all.push((name.into(), value.into()));
        }
        Some(Self(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            all in prop::collection::vec(
                (prop::collection::vec(1_u8.., 1..=255), prop::collection::vec(any::<u8>(), 0..300)),
                0..5,
            )
        ) {
            let all = all.into_iter().map(|(name, value)| (name.into(), value.into()));
            let xattrs = Xattrs::new(all.collect());
            prop_assert_eq!(Xattrs::decode(&xattrs.encode()).unwrap(), xattrs);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Some(xattrs) = Xattrs::decode(&bytes) {
                prop_assert_eq!(xattrs.encode(), bytes);
            }
        }
    }
}
