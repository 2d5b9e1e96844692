//! The web page, in a browser.

use std::process::Command;

use horace::snapshots::BackendKind;

use super::Served;
use crate::mounted::can_mount;
use crate::snapshots::Volume;
use crate::tools::told;

#[test]
fn a_browser_shows_and_does_what_the_page_promises() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    served.mounted.wait_reconciled();
    let key = served.key("page", &["--scope", "restore"]);
    drive(&served, &key, &[]);
}

#[test]
fn a_browser_takes_compares_and_destroys_snapshots() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    // What the schedule says is seen, and nothing comes by itself meanwhile.
    let mut served = super::snapshots::served(
        &volume,
        "snapshots=on",
        "[snapshots]\nkeep = { hourly = 1, daily = 1, yearly = 1 }\n\
         schedule = { hourly = \"off\", daily = \"off\", weekly = \"off\", monthly = \"off\", yearly = \"yearly\" }",
    );
    served.mounted.ok(&["snapshot", "create", "--class", "yearly"]);
    served.mounted.umount();
    served.mounted.start();
    served.url = served.mounted.status()["api"].as_str().unwrap().to_string();
    let key = served.key("page", &["--scope", "admin"]);
    drive(&served, &key, &["--snapshots"]);
}

fn drive(served: &Served, key: &str, options: &[&str]) {
    let output = Command::new("python3")
        .arg("tests/page/test_page.py")
        .args(options)
        .args([&served.url, key])
        .arg(&served.mounted.mountpoint)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    if output.status.code() == Some(77) {
        assert!(std::env::var_os("REQUIRE_FUSE").is_none(), "{}", told(&output));
        eprintln!("{}", told(&output));
        return;
    }
    assert!(output.status.success(), "{}\n{}", told(&output), served.mounted.log());
}
