//! A catalog that is damaged, and the backup that takes its place.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, told};

impl Mounted {
    fn backups(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.backing.join(".horace/backups")) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|e| e == "db")).collect();
        found.sort();
        found
    }

    fn rebuild(&self) -> Value {
        let backing = self.backing.to_str().unwrap();
        let text = self.ok(&["reconcile", "--json", "--rebuild", backing]);
        serde_json::from_str(&text).unwrap()
    }

    fn damage_catalog(&self) {
        for name in ["catalog.db", "catalog.db-wal"] {
            let path = self.backing.join(".horace").join(name);
            if path.exists() {
                fs::write(path, noise(9, 20_000)).unwrap();
            }
        }
    }
}

#[test]
fn a_damaged_catalog_is_rebuilt_from_its_backup_the_tree_and_the_store() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("backup=1s,pack_after=0");
    let f = mounted.at("f");
    for seed in 1..=3 {
        fs::write(&f, noise(seed, 100_000)).unwrap();
    }
    fs::write(mounted.at("deleted"), "deleted").unwrap();
    fs::write(mounted.at("moved"), "moved").unwrap();
    fs::remove_file(mounted.at("deleted")).unwrap();
    mounted.sync();
    let known = mounted.backups().len();
    mounted.wait_for("two more backups", || mounted.backups().len() >= known + 2);
    // What has happened since the last one must be found.
    mounted.set_options("backup=off,pack_after=0");
    mounted.remount();
    fs::write(&f, noise(4, 100_000)).unwrap();
    fs::rename(mounted.at("moved"), mounted.at("elsewhere")).unwrap();
    fs::write(mounted.at("new"), "new").unwrap();
    let backing = mounted.backing.to_str().unwrap().to_owned();
    let refused = mounted.run(&["reconcile", "--rebuild", &backing]);
    assert!(told(&refused).contains("is already served by process"), "{}", told(&refused));
    mounted.umount();

    mounted.damage_catalog();
    let text = mounted.refused_start();
    let advice = format!("horace reconcile --rebuild {backing}");
    assert!(text.contains(&advice), "{text}");
    let rebuilt = mounted.rebuild();
    let newest = mounted.backups().pop().unwrap();
    assert_eq!(rebuilt["backup"]["path"], newest.to_str().unwrap(), "{rebuilt:#}");
    let aside = PathBuf::from(rebuilt["aside"]["path"].as_str().unwrap());
    assert_eq!(fs::read(aside.join("catalog.db")).unwrap(), noise(9, 20_000));
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    let log = mounted.log_of("f");
    let origins: Vec<_> = log.iter().map(|v| v["origin"].as_str().unwrap()).collect();
    assert_eq!(origins, ["write", "write", "write", "external"], "{log:#?}");
    assert_eq!(mounted.cat(&["f@1"]), noise(1, 100_000));
    assert_eq!(mounted.cat(&["f@2"]), noise(2, 100_000));
    // It was replaced after the backup, but what was kept of it is still there.
    assert_eq!(mounted.cat(&["f@3"]), noise(3, 100_000));
    assert_eq!(mounted.cat(&["deleted"]), b"deleted");
    assert_eq!(mounted.log_of("elsewhere").len(), 1, "a move is recognised by its inode");
    assert!(mounted.verify(&["--restart"]).0);
}

#[test]
fn without_a_whole_backup_a_new_catalog_begins_and_the_store_is_kept() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::with_options("backup=1s");
    fs::write(mounted.at("f"), noise(1, 5000)).unwrap();
    fs::write(mounted.at("f"), noise(2, 5000)).unwrap();
    let object = mounted.object_of(noise(1, 5000));
    mounted.wait_for("a backup", || !mounted.backups().is_empty());
    mounted.set_options("backup=off");
    mounted.remount();
    mounted.umount();
    for backup in mounted.backups() {
        let size = fs::metadata(&backup).unwrap().len();
        fs::File::options().write(true).open(backup).unwrap().set_len(size / 2).unwrap();
    }
    mounted.damage_catalog();
    let backing = mounted.backing.to_str().unwrap().to_owned();
    let text = mounted.ok(&["reconcile", "--rebuild", &backing]);
    assert!(text.contains("there is no backup: the next mount begins a new catalog"), "{text}");
    assert_eq!(text.matches("not whole: ").count(), mounted.backups().len(), "{text}");
    mounted.start();
    mounted.wait_reconciled();
    mounted.assert_catalog_is_true();
    assert_eq!(mounted.log_of("f").len(), 1);
    assert!(object.exists());
    // The same bytes again, and they are at hand.
    fs::write(mounted.at("f"), noise(1, 5000)).unwrap();
    fs::write(mounted.at("f"), noise(3, 5000)).unwrap();
    assert_eq!(mounted.cat(&["f@2"]), noise(1, 5000));
}

#[test]
fn a_directory_that_never_had_a_catalog_gets_none_by_a_rebuild() {
    let dir = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_horace"))
        .args(["reconcile", "--rebuild"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
