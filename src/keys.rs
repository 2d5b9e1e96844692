//! Keys of the HTTP API.
//!
//! Owns `api-keys.json` in the state directory: who may do what with which key. The key itself is shown once,
//! when it is made; what is stored is its digest. Keys are made and revoked by root at the command line, also
//! where no daemon runs, and a daemon sees it with the next request.

use std::path::PathBuf;

use data_encoding::HEXLOWER;
use rustix::rand::GetRandomFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::jsonfile::{JsonFile, JsonFileError};

/// The name of the file.
const FILE_NAME: &str = "api-keys.json";
/// What every key begins with, so that it is known for one where it should not be.
const PREFIX: &str = "horace_";
/// Random bytes of a key.
const BYTES: usize = 32;

/// What a key is good for; each includes the ones before it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// To read what its user may read
    Read,
    /// To bring things back and to mark versions
    Restore,
    /// To prune, to verify and to reconcile
    Admin,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// What it is called.
    pub name: String,
    /// Digest of the key, in hexadecimal.
    sha256: String,
    /// What it is good for.
    pub scope: Scope,
    /// The user with whose eyes it sees and as whom it acts; everything for root.
    pub user: String,
    /// Paths from the root of the mount at and below which it is good; everywhere if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<String>,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: i64,
    /// When it ends, in nanoseconds since 1970; never if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ns: Option<i64>,
}

/// What a new key is to be.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What it is called: one word.
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// The user with whose eyes it sees.
    pub user: String,
    /// Paths at and below which it is good.
    pub below: Vec<String>,
    /// When it ends, in nanoseconds since 1970.
    pub expires_ns: Option<i64>,
}

/// Why keys cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Their file cannot be used.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// There is no randomness.
    #[error("cannot make a key")]
    Random,
    /// A name is taken.
    #[error("there is a key `{0}` already: revoke it first, or take another name")]
    Taken(String),
    /// A name is none.
    #[error("`{0}` is no name for a key: letters, digits, `-`, `_` and `.`, at most 64 of them")]
    BadName(String),
    /// There is no such key.
    #[error("there is no key `{0}`")]
    Unknown(String),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

/// The file with the keys.
#[derive(Debug)]
pub struct KeyFile(JsonFile<Keys>);

impl KeyFile {
    /// The keys of a state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self(JsonFile::new(state_dir, FILE_NAME))
    }

    /// All keys, in the order in which they were made.
    ///
    /// # Errors
    /// If the file cannot be read. That there is none is fine.
    pub fn list(&self) -> Result<Vec<Key>, KeyError> {
        Ok(self.0.read()?.keys.clone())
    }

    /// The key that somebody shows, if there is one that has not ended.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn find(&self, secret: &str, now_ns: i64) -> Result<Option<Key>, KeyError> {
        let digest = digest_of(secret);
        let file = self.0.read()?;
        // Digests of what nobody can guess may be compared in any time.
        let found = file.keys.iter().find(|key| key.sha256 == digest);
        Ok(found.filter(|key| key.expires_ns.is_none_or(|end| now_ns < end)).cloned())
    }

    /// Makes a key and returns it: nobody can tell it again.
    ///
    /// # Errors
    /// If its name is taken or none, or the file cannot be written.
    pub fn create(&self, new: NewKey, now_ns: i64) -> Result<String, KeyError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if new.name.is_empty() || new.name.len() > 64 || !new.name.chars().all(is_part) {
            return Err(KeyError::BadName(new.name));
        }
        let secret = new_secret()?;
        self.change(|keys| {
            if keys.iter().any(|key| key.name == new.name) {
                return Err(KeyError::Taken(new.name.clone()));
            }
            keys.push(Key {
                name: new.name.clone(),
                sha256: digest_of(&secret),
                scope: new.scope,
                user: new.user.clone(),
                below: new.below.clone(),
                created_ns: now_ns,
                expires_ns: new.expires_ns,
            });
            Ok(())
        })?;
        Ok(secret)
    }

    /// Takes a key away.
    ///
    /// # Errors
    /// If there is none of that name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), KeyError> {
        self.change(|keys| {
            let before = keys.len();
            keys.retain(|key| key.name != name);
            if keys.len() == before { Err(KeyError::Unknown(name.into())) } else { Ok(()) }
        })
    }

    /// Changes the keys while nobody else does.
    fn change(
        &self,
        change: impl FnOnce(&mut Vec<Key>) -> Result<(), KeyError>,
    ) -> Result<(), KeyError> {
        self.0.change(|file| change(&mut file.keys))
    }
}

fn new_secret() -> Result<String, KeyError> {
    let mut bytes = [0; BYTES];
    match rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(BYTES) => Ok(format!("{PREFIX}{}", HEXLOWER.encode(&bytes))),
        _ => Err(KeyError::Random),
    }
}

fn digest_of(secret: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn new(name: &str) -> NewKey {
        let (scope, user) = (Scope::Read, "root".into());
        NewKey { name: name.into(), scope, user, below: Vec::new(), expires_ns: Some(100) }
    }

    #[test]
    fn a_key_is_found_until_it_ends_or_is_revoked() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (KeyFile::new(dir.path()), KeyFile::new(dir.path()));
        assert!(file.list().unwrap().is_empty());
        let secret = file.create(new("one"), 5).unwrap();
        assert_eq!(other.find(&secret, 99).unwrap().unwrap().name, "one");
        assert_eq!(other.find(&secret, 100).unwrap(), None, "it has ended");
        assert_eq!(other.find("horace_00", 5).unwrap(), None);
        let second = other.create(NewKey { expires_ns: None, ..new("two") }, 6).unwrap();
        assert_ne!(second, secret);
        assert_eq!(file.list().unwrap().len(), 2);
        file.revoke("one").unwrap();
        assert_eq!(other.find(&secret, 5).unwrap(), None);
        assert!(other.find(&second, i64::MAX).unwrap().is_some());
    }

    #[test]
    fn only_digests_are_stored_and_only_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path());
        let secret = file.create(new("one"), 5).unwrap();
        let text = std::fs::read_to_string(file.0.path()).unwrap();
        assert!(!text.contains(&secret[PREFIX.len()..]), "{text}");
        let mode = std::fs::metadata(file.0.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn bad_names_and_damaged_files_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path());
        for name in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert!(matches!(file.create(new(name), 5), Err(KeyError::BadName(_))), "{name}");
        }
        file.create(new("one"), 5).unwrap();
        assert!(matches!(file.create(new("one"), 5), Err(KeyError::Taken(_))));
        assert!(matches!(file.revoke("none"), Err(KeyError::Unknown(_))));
        std::fs::write(file.0.path(), "{").unwrap();
        assert!(matches!(file.find("x", 5), Err(KeyError::File(_))));
        assert!(matches!(file.create(new("two"), 5), Err(KeyError::File(_))));
    }
}
