//! Access control lists.

use std::process::Command;

use crate::mounted::can_mount;
use crate::tools::{have, same_in_every_way, told};

#[test]
fn access_control_lists_decide() {
    if !can_mount() || !have(&["setfacl", "getfacl", "setpriv"]) {
        return;
    }
    same_in_every_way(|dir| {
        let script = r#"
            cd "$1"; echo x > f; chmod 600 f; setfacl -m u:61234:r f; getfacl -c f; stat -c %A f
            setpriv --reuid=61234 --clear-groups -- cat f; chmod 640 f; getfacl -c f
            setpriv --reuid=61235 --clear-groups -- cat f 2>&1
            setfacl -b f; getfacl -c f; mkdir d; setfacl -d -m u:61234:rwx d; mkdir d/e; getfacl -c d/e
            setfacl -m u:61234:--- f; chmod 666 f; setpriv --reuid=61234 --clear-groups -- cat f 2>&1"#;
        told(&Command::new("bash").args(["-c", script, "-"]).arg(dir).output().unwrap())
    });
}
