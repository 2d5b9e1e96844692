//! Space runs low: history makes room in its order, and pins stay.

use std::fs::{self, File};
use std::io::Write;

use crate::disk::Disk;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{noise, sha256};

const SIZE: usize = 50 << 20;

/// Writes go on as long as there is history that may go: what the policy drops goes before what it
/// keeps, however young, then the oldest; and what is pinned may make the disk full.
#[test]
fn what_the_policy_drops_makes_room_first_and_pins_stay() {
    if !can_mount() {
        return;
    }
    let Some(disk) = Disk::new("ext4", 1024, &["-q", "-m", "0"], "") else { return };
    let mut mounted = Mounted::unmounted_on(disk.path().join("backing"), "prune=off");
    fs::create_dir(&mounted.backing).unwrap();
    mounted.configure(
        "[retention]\n[[retention.rule]]\nglobs = [\"*.junk\"]\nkeep = { within = \"1s\" }\nlimit = {}\n",
    );
    mounted.start();
    let names = ["pinned", "first", "second", "a.junk", "b.junk"];
    for (n, name) in names.into_iter().enumerate() {
        fs::write(mounted.at(name), noise(n as u64, SIZE)).unwrap();
        fs::remove_file(mounted.at(name)).unwrap();
        mounted.wait_for("object", || mounted.objects().len() == n + 1);
    }
    mounted.ok(&["pin", "pinned"]);
    mounted.wait_for("junk", || {
        mounted.ok(&["prune", "-n"]).contains("would drop 2 of 5 old versions")
    });
    let digests: Vec<_> = (0..5).map(|n| sha256(noise(n, SIZE))).collect();
    let has = |n: usize| mounted.objects().contains_key(&digests[n]);
    let mut live = File::create(mounted.at("live")).unwrap();
    let piece = noise(99, 10 << 20);
    while has(3) {
        live.write_all(&piece).unwrap();
    }
    assert!(has(0) && has(1) && has(2), "the junk goes first, although it is the youngest");
    while has(1) {
        live.write_all(&piece).unwrap();
    }
    assert!(!has(4) && has(0), "then the oldest, but for what is pinned");
    while live.write_all(&piece).is_ok() {}
    assert_eq!(mounted.objects().keys().collect::<Vec<_>>(), [&digests[0]]);
    drop(live);
    fs::remove_file(mounted.at("live")).unwrap();
    mounted.wait_for("room", || fs::write(mounted.at("after"), "room again").is_ok());
    mounted.wait_for("a catalog that is well", || mounted.status()["degraded"].is_null());
    mounted.wait_for("word of it", || mounted.log_of("first")[0]["content_reason"] == "pruned");
    assert_eq!(sha256(mounted.cat(&["pinned"])), digests[0]);
}
