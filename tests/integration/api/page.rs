//! The web page, in a browser.

use std::process::Command;

use super::Served;
use crate::mounted::can_mount;
use crate::tools::told;

#[test]
fn a_browser_shows_and_does_what_the_page_promises() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    served.mounted.wait_reconciled();
    let key = served.key("page", &["--scope", "restore"]);
    let output = Command::new("python3")
        .args(["tests/page/test_page.py", &served.url, &key])
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
