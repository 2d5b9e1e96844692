//! What the README has people do after a disaster, done to the letter.

use std::fs;
use std::process::Command;

use horace::snapshots::BackendKind;
use rstest::rstest;

use crate::mounted::Mounted;
use crate::snapshots::Volume;
use crate::tools::{must, sha256, told};

/// The commands of the README that stand together with a comment.
fn steps(comment: &str) -> String {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("\n\n").filter(|block| block.starts_with("    # "));
    let mut found = blocks.filter(|block| block.contains(comment));
    let block = found.next().unwrap_or_else(|| panic!("the README has nothing on `{comment}`"));
    assert!(found.next().is_none(), "{comment}");
    block.to_owned()
}

impl Mounted {
    /// Runs commands as somebody does at a terminal who has given names to these places.
    fn follow(&self, steps: &str, names: &[(&str, &str)]) {
        let horace = std::path::Path::new(env!("CARGO_BIN_EXE_horace")).parent().unwrap();
        let path = format!("{}:{}", horace.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.args(["-e", "-o", "pipefail", "-c", steps]).env("PATH", path);
        // The daemon goes on, and must not keep our pipe open.
        shell.env("HORACE_API", "off").env("HORACE_SNAPSHOTS", "off");
        shell.env("HORACE_RUNTIME_DIR", &self.runtime).envs(names.iter().copied());
        must(&mut shell);
    }

    fn umount_in_background(&self) {
        let output = self.run_at_root(&["umount", self.mountpoint.to_str().unwrap()]);
        assert!(output.status.success(), "{}", told(&output));
    }
}

/// Three versions of a file, one of a deleted one, and a snapshot; returns its name.
fn before_the_disaster(mounted: &Mounted) -> String {
    mounted.shell(
        "mkdir d; echo one > d/f; echo two > d/f; echo gone > d/gone; rm d/gone; echo x > 'd/a b'",
    );
    let taken = mounted.records(&["snapshot", "create", "--class", "daily"]).remove(0);
    mounted.shell("echo three > d/f; rm 'd/a b'; echo new > d/new");
    mounted.sync();
    taken["name"].as_str().unwrap().to_owned()
}

/// Everything is as it was when the snapshot was taken, and users can go on.
fn assert_is_as_it_was(mounted: &Mounted) {
    assert_eq!(mounted.digests("d/f"), ["one\n", "two\n"].map(sha256));
    assert_eq!(fs::read_to_string(mounted.at("d/f")).unwrap(), "two\n");
    assert_eq!(fs::read_to_string(mounted.at("d/a b")).unwrap(), "x\n");
    assert!(!mounted.at("d/new").exists());
    assert_eq!(mounted.cat(&["d/f@1"]), b"one\n");
    mounted.ok(&["undelete", "d/gone"]);
    assert_eq!(fs::read_to_string(mounted.at("d/gone")).unwrap(), "gone\n");
    mounted.shell("echo four > d/f");
    assert_eq!(mounted.digests("d/f"), ["one\n", "two\n", "four\n"].map(sha256));
    mounted.assert_catalog_is_true();
}

/// "`horace snapshot rollback-plan NAME` prints the commands for this mount."
#[rstest]
fn the_plan_of_a_rollback_does_what_it_says(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let mut mounted = volume.mounted("");
    let name = before_the_disaster(&mounted);
    let plan = mounted.ok(&["snapshot", "rollback-plan", &name]);
    let (undone, all) = plan.split_once("# Everything, ").unwrap();
    assert!(undone.contains("snapshot diff") && undone.contains("horace restore"), "{plan}");
    mounted.remount_in_background();
    mounted.follow(&format!("# {all}"), &[]);
    mounted.ok(&["reconcile", "."]);
    assert_is_as_it_was(&mounted);
    mounted.umount_in_background();
}

/// "The disk is gone, and snapshots were sent elsewhere."
#[rstest]
fn what_was_sent_elsewhere_brings_everything_back(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let mut mounted = volume.mounted("");
    let name = before_the_disaster(&mounted);
    let sent = mounted.scratch("sent");
    let (files, mountpoint) = (mounted.backing.clone(), mounted.mountpoint.clone());
    let names = [
        ("SENT", sent.to_str().unwrap()),
        ("NAME", &name),
        ("FILES", files.to_str().unwrap()),
        ("MOUNT", mountpoint.to_str().unwrap()),
        ("PARENT", files.parent().unwrap().to_str().unwrap()),
    ];
    match &volume {
        Volume::Zfs(pool) => {
            let dataset = pool.dataset();
            let names = [&names[..], &[("DATASET", &dataset)]].concat();
            mounted.follow(r#"zfs send "$DATASET@$NAME" > "$SENT""#, &names);
            mounted.umount();
            // What was closed a moment ago keeps it busy.
            let destroy = r#"for n in {1..100}; do
                zfs destroy -r "$DATASET" && break; sleep 0.1; done; ! zfs list "$DATASET""#;
            mounted.follow(destroy, &names);
            mounted.follow(&steps("of `zfs send "), &names);
        }
        Volume::Btrfs(_) => {
            mounted.follow(r#"btrfs send -q -f "$SENT" "$FILES/.horace/snapshots/$NAME""#, &names);
            mounted.umount();
            let delete = r#"btrfs subvolume delete "$FILES/.horace/snapshots/"* "$FILES""#;
            mounted.follow(delete, &names);
            mounted.follow(&steps("of `btrfs send "), &names);
        }
    }
    assert_is_as_it_was(&mounted);
    mounted.umount_in_background();
}
