//! The mount as what plans of bringing back are carried out by.

use std::sync::Arc;

use crate::content::Wanted;
use crate::fs::{Fs, RestoreError};
use crate::restore::{Done, Tree};
use crate::sys::creds::Actor;
use crate::types::{Facts, Kind};

/// The operations of the mount.
#[derive(Debug)]
pub(super) struct Restorer(pub(super) Arc<Fs>);

fn told(result: Result<(), RestoreError>) -> Done {
    result.map_err(|error| error.to_string())
}

impl Tree for Restorer {
    fn file(&self, by: &Actor, path: &[u8], wanted: &Wanted<'_>, facts: &Facts) -> Done {
        told(self.0.restore_file(by, path, wanted, facts))
    }

    fn dir(&self, by: &Actor, path: &[u8], facts: &Facts) -> Done {
        told(self.0.restore_dir(by, path, facts))
    }

    fn symlink(&self, by: &Actor, path: &[u8], to: &[u8], facts: &Facts) -> Done {
        told(self.0.restore_symlink(by, path, to, facts))
    }

    fn special(&self, by: &Actor, path: &[u8], kind: Kind, rdev: u32, facts: &Facts) -> Done {
        told(self.0.restore_special(by, path, kind, rdev, facts))
    }

    fn attributes(&self, by: &Actor, path: &[u8], facts: &Facts) -> Done {
        told(self.0.restore_attributes(by, path, facts))
    }

    fn remove(&self, by: &Actor, path: &[u8]) -> Done {
        told(self.0.remove_path(by, path))
    }

    fn rename(&self, by: &Actor, from: &[u8], to: &[u8]) -> Done {
        told(self.0.move_path(by, from, to))
    }

    fn link(&self, by: &Actor, from: &[u8], to: &[u8]) -> Done {
        told(self.0.link_path(by, from, to))
    }

    fn sync(&self) -> Done {
        self.0.write_through().map_err(|error| error.to_string())
    }
}
