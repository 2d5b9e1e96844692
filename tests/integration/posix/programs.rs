//! Programs that lie on the mount.

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};

#[rstest]
fn programs_run(#[values("io=auto", "io=stream", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    mounted.shell(
        r#"
        printf '#!/bin/sh\necho script "$@"\n' > script; chmod +x script
        test "$(./script a)" = "script a"
        cp "$(type -P true)" program; ./program
        cp "$(type -P sleep)" sleeper; ./sleeper 100 & child=$!
        # What runs cannot be written, as anywhere.
        until [ "$(readlink /proc/$child/exe)" = "$PWD/sleeper" ]; do :; done
        if (echo x >> sleeper) 2> ../error; then echo written; fi
        kill $child; wait $child || true
        grep -q 'busy' ../error
        "#,
    );
    mounted.assert_manifest_passes();
}
