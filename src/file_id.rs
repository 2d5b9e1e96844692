//! The UUIDs by which files are known outside.
//!
//! Owns the conversion between a [`FileId`] and its UUID. A UUID of version 8 is made of 60 bits of
//! the catalog's identity and 62 bits of the number, so it is unique between catalogs and leads back
//! to the file without an index. It is in the hands of users: it must never change.

use uuid::{Builder, Uuid};

use crate::types::FileId;

/// The bits of the last eight bytes that are the number; the two above are the UUID's variant.
const NUMBER_BITS: u64 = (1 << 62) - 1;

/// The UUID of a file of the catalog with this identity.
pub fn to_uuid(catalog: &[u8; 16], file: FileId) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&catalog[..8]);
    bytes[8..].copy_from_slice(&(file.0 & NUMBER_BITS).to_be_bytes());
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// The file that a UUID names; `None` if it is of another catalog or no UUID of Horace at all.
pub fn from_uuid(catalog: &[u8; 16], uuid: Uuid) -> Option<FileId> {
    let (_, number) = uuid.as_u64_pair();
    let file = FileId(number & NUMBER_BITS);
    (to_uuid(catalog, file) == uuid).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_form_never_changes() {
        let uuid = to_uuid(&[0xab; 16], FileId(0x1234));
        assert_eq!(uuid.to_string(), "abababab-abab-8bab-8000-000000001234");
        assert_eq!(uuid.get_version_num(), 8);
    }

    proptest! {
        #[test]
        fn a_uuid_leads_back_to_its_file(catalog: [u8; 16], number in 0..=NUMBER_BITS) {
            let uuid = to_uuid(&catalog, FileId(number));
            prop_assert_eq!(from_uuid(&catalog, uuid), Some(FileId(number)));
            let mut other = catalog;
            other[0] ^= 1;
            prop_assert_eq!(from_uuid(&other, uuid), None);
        }
    }
}
