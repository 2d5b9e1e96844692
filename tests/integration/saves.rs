//! However a program saves a file, each save is one version of its path.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;

use rstest::rstest;
use rustix::fs::RenameFlags;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, noise, sha256, sha256_of};

/// What a file has after its n-th save: each save adds a line.
fn content(n: usize) -> String {
    (1..=n).map(|n| format!("line {n} {}\n", "x".repeat(n % 3))).collect()
}

const VIM: &str = r#"
    save() {
        ex -u NONE -i NONE -N -s -c "set $1" -c '%d _' -c "0read $NEW" -c wq f
    }"#;

#[rstest]
#[case::rewrite(&[], r#"cat "$NEW" > f"#)]
#[case::rewrite_by_a_builtin(&[], r#"printf '%s\n' "$(cat "$NEW")" > f"#)]
#[case::append(&[], r#"tail -n 1 "$NEW" >> f"#)]
#[case::append_by_tee(&[], r#"tail -n 1 "$NEW" | tee -a f >/dev/null"#)]
#[case::copy(&[], r#"cp "$NEW" f"#)]
#[case::copy_with_attributes(&[], r#"cp -p "$NEW" f"#)]
#[case::install(&[], r#"install -m 640 "$NEW" f"#)]
#[case::in_place(&[], r#"dd if="$NEW" of=f conv=notrunc bs=7 status=none"#)]
#[case::in_place_synced(&[], r#"dd if="$NEW" of=f conv=notrunc,fsync status=none"#)]
#[case::temp_and_rename(&[], r#"cat "$NEW" > .f.tmp; mv .f.tmp f"#)]
#[case::temp_elsewhere(&[], r#"mkdir -p t; cat "$NEW" > t/$$; mv t/$$ f; rmdir t"#)]
#[case::temp_and_link(&[], r#"cat "$NEW" > tmp; rm -f f; ln tmp f; rm tmp"#)]
#[case::backup_removed(&[], r#"if [ -e f ]; then mv f f~; fi; cat "$NEW" > f; rm -f f~"#)]
#[case::backup_kept(&[], r#"if [ -e f ]; then mv f f~; fi; cat "$NEW" > f"#)]
#[case::backup_linked(&[], r#"if [ -e f ]; then ln -f f f~; fi; cat "$NEW" > t; mv t f"#)]
#[case::backup_copied(&[], r#"if [ -e f ]; then cp -p f f~; fi; cat "$NEW" > f; rm -f f~"#)]
#[case::deleted_and_created(&[], r#"rm -f f; cat "$NEW" > f"#)]
#[case::deleted_and_moved_there(&[], r#"cat "$NEW" > t; rm -f f; mv t f"#)]
#[case::sed_in_place(&[], r#"[ -e f ] && sed -i '$r '<(tail -n 1 "$NEW") f || cat "$NEW" > f"#)]
#[case::office(&[], r#": > '.~lock.f#'; cat "$NEW" > lu12.tmp; mv lu12.tmp f; rm '.~lock.f#'"#)]
#[case::rsync(&["rsync"], r#"rsync -I "$NEW" f"#)]
#[case::rsync_archive(&["rsync"], r#"rsync -aHAX "$NEW" f"#)]
#[case::rsync_backup(&["rsync"], r#"rsync -I --backup "$NEW" f"#)]
#[case::rsync_in_place(&["rsync"], r#"rsync -I --inplace "$NEW" f"#)]
#[case::rsync_append(&["rsync"], r#"rsync -I --append "$NEW" f"#)]
#[case::rsync_no_whole_file(&["rsync"], r#"rsync -I --no-whole-file "$NEW" f"#)]
#[case::vim_backup_by_copy(&["ex"], "save 'backup writebackup backupcopy=yes'")]
#[case::vim_backup_by_rename(&["ex"], "save 'backup writebackup backupcopy=no'")]
#[case::vim_short_backup_by_copy(&["ex"], "save 'nobackup writebackup backupcopy=yes'")]
#[case::vim_short_backup_by_rename(&["ex"], "save 'nobackup writebackup backupcopy=no'")]
#[case::vim_without_backup(&["ex"], "save 'nobackup nowritebackup'")]
#[case::python_replace(&["python3"], r#"python3 -c "if 1:
    import os, tempfile
    with tempfile.NamedTemporaryFile(dir='.', delete=False) as t:
        t.write(open(os.environ['NEW'], 'rb').read()); t.flush(); os.fsync(t.fileno())
    os.replace(t.name, 'f')""#)]
#[case::python_update(&["python3"], r#"python3 -c "if 1:
    import os
    with open('f', 'r+b' if os.path.exists('f') else 'w+b') as f:
        f.write(open(os.environ['NEW'], 'rb').read()); f.flush(); f.seek(0); f.read()""#)]
#[case::perl_in_place(&["perl"], r#"[ -e f ] || { cat "$NEW" > f; exit 0; }
    perl -i -pe 'if (eof) { open N, $ENV{NEW}; @n = <N>; $_ .= $n[-1] }' f"#)]
fn each_save_is_a_version(
    #[case] programs: &[&str],
    #[case] style: &str,
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() || !have(programs) {
        return;
    }
    let mounted = Mounted::with_options(options);
    let new = mounted.scratch("new");
    let mut expected = Vec::new();
    for n in 1..=4 {
        fs::write(&new, content(n)).unwrap();
        mounted.shell(&format!("export NEW={}\n{VIM}\n{style}", new.display()));
        assert_eq!(fs::read_to_string(mounted.at("f")).unwrap(), content(n));
        expected.push(sha256(content(n)));
        assert_eq!(mounted.digests("f"), expected, "after save {n}");
    }
    let sizes: Vec<_> = mounted.log_of("f").iter().map(|v| v["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [1, 2, 3, 4].map(|n| content(n).len() as u64));
    mounted.assert_kept("f");
    mounted.assert_catalog_is_true();
}

#[rstest]
fn saves_of_the_same_size_differ_by_digest(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut expected = Vec::new();
    for n in 0..50_u64 {
        let bytes = noise(n, 100);
        fs::write(mounted.at("f"), &bytes).unwrap();
        expected.push(sha256(bytes));
    }
    assert_eq!(mounted.digests("f"), expected);
    // In place, without the file being cut off.
    for n in 50..100_u64 {
        let bytes = noise(n, 100);
        let mut file = OpenOptions::new().write(true).open(mounted.at("f")).unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        expected.push(sha256(bytes));
    }
    assert_eq!(mounted.digests("f"), expected);
}

#[rstest]
fn returning_to_old_content_is_a_version(#[values("io=auto", "passthrough=off")] options: &str) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    for text in ["a", "b", "a"] {
        fs::write(mounted.at("f"), text).unwrap();
    }
    assert_eq!(mounted.digests("f"), ["a", "b", "a"].map(sha256));
}

#[test]
fn an_exchange_swaps_what_two_paths_show() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("f"), "old").unwrap();
    fs::write(mounted.at("g"), "new").unwrap();
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, mounted.at("f"), cwd, mounted.at("g"), RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(mounted.digests("f"), ["old", "new"].map(sha256));
    assert_eq!(mounted.digests("g"), ["new", "old"].map(sha256));
    fs::remove_file(mounted.at("g")).unwrap();
    assert_eq!(mounted.digests("f"), ["old", "new"].map(sha256));
    assert_eq!(mounted.digests("g"), ["new", "old"].map(sha256));
    mounted.assert_catalog_is_true();
}

#[rstest]
fn a_session_with_many_closes_is_one_version(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut file = File::create(mounted.at("f")).unwrap();
    for n in 0..5 {
        file.write_all(format!("{n}").as_bytes()).unwrap();
        // Closing a duplicate tells the daemon as the last close does.
        drop(file.try_clone().unwrap());
        assert_eq!(mounted.digests("f"), [sha256_of(&mounted.backing.join("f"))]);
    }
    drop(file);
    assert_eq!(mounted.digests("f"), [sha256("01234")]);
}

#[rstest]
fn a_late_close_leaves_the_next_session_alone(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(false, true)] read: bool,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let mut open = OpenOptions::new();
    open.create(true).write(true).read(read);
    let mut first = open.clone().truncate(true).open(mounted.at("f")).unwrap();
    first.write_all(b"first").unwrap();
    let late = first.try_clone().unwrap();
    drop(first);
    // As a child that inherited a descriptor does when it ends.
    let mut second = open.truncate(true).open(mounted.at("f")).unwrap();
    drop(late);
    assert_eq!(mounted.digests("f")[0], sha256("first"));
    second.write_all(b"second").unwrap();
    drop(second);
    assert_eq!(mounted.digests("f"), ["first", "second"].map(sha256));
}

#[rstest]
fn a_close_at_the_moment_of_the_next_open_takes_nothing_from_either(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(false, true)] read: bool,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let (sender, late) = std::sync::mpsc::channel::<File>();
    let closer = std::thread::spawn(move || late.into_iter().for_each(drop));
    let mut expected = Vec::new();
    for n in 0..300 {
        let mut open = OpenOptions::new();
        open.create(true).write(true).read(read).truncate(true);
        let mut file = open.open(mounted.at("f")).unwrap();
        file.write_all(format!("{n:3}").as_bytes()).unwrap();
        sender.send(file.try_clone().unwrap()).unwrap();
        drop(file);
        expected.push(sha256(format!("{n:3}")));
    }
    drop(sender);
    closer.join().unwrap();
    let found = mounted.digests("f");
    let first = (0..300).find(|n| found.get(*n) != expected.get(*n));
    assert_eq!(
        (found.len(), first),
        (300, None),
        "{:#?}",
        mounted.log_of("f").get(first.unwrap_or(0))
    );
}

#[rstest]
fn children_that_inherit_a_file_share_its_session(
    #[values("io=auto", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    mounted.shell("exec 5>f; for n in 1 2 3 4; do (echo $n >&5); sh -c 'echo child >&5'; done");
    let text = "1\nchild\n2\nchild\n3\nchild\n4\nchild\n";
    assert_eq!(fs::read_to_string(mounted.at("f")).unwrap(), text);
    assert_eq!(mounted.digests("f"), [sha256(text)]);
}

#[rstest]
fn equal_bytes_make_no_version(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
    #[values(1_000, 3_000_000)] size: usize,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    let bytes = noise(1, size);
    let new = mounted.scratch("new");
    fs::write(&new, &bytes).unwrap();
    fs::write(mounted.at("f"), &bytes).unwrap();
    let once = [sha256(&bytes)];
    assert_eq!(mounted.digests("f"), once);
    for style in [
        r#"cat "$NEW" > f"#,
        r#"dd if="$NEW" of=f bs=64k conv=notrunc status=none"#,
        r#"cat "$NEW" > t; mv t f"#,
        "exec 5>>f",
        "touch f; chmod 600 f",
        r#"truncate -s +1 f; truncate -s -1 f"#,
    ] {
        let before = mounted.digests("f");
        mounted.shell(&format!("export NEW={}\n{style}", new.display()));
        let after = mounted.digests("f");
        if style.starts_with("truncate") {
            // Two calls of truncate(2) are two saves.
            assert_eq!(after.len(), before.len() + 2, "{style}");
        } else {
            assert_eq!(after, before, "{style}");
        }
    }
    assert_eq!(mounted.digests("f").last(), once.last());
    mounted.assert_catalog_is_true();
}

#[rstest]
fn a_query_after_close_sees_the_version(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::with_options(options);
    for n in 0..40_u64 {
        // Also with more than is read at the close.
        let bytes = noise(n, if n % 8 == 0 { 5_000_000 } else { 2_000 });
        let in_place = n % 16 == 8;
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(!in_place)
            .open(mounted.at("f"))
            .unwrap();
        file.write_all(&bytes).unwrap();
        drop(file);
        let versions = mounted.log_of("f");
        let newest = versions.last().unwrap();
        assert_eq!(versions.len() as u64, n + 1);
        assert_eq!(newest["sha256"], sha256_of(&mounted.backing.join("f")));
        assert_eq!(newest["content"], "head");
    }
}

#[test]
fn versions_tell_who_saved() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    mounted.shell("echo one | tee f >/dev/null");
    let version = mounted.log_of("f").remove(0);
    assert_eq!(version["writer"]["comm"], "tee");
    assert_eq!(version["writer"]["uid"], 0);
    assert!(version["writer"]["pid"].as_u64().unwrap() > 1);
    assert_eq!(version["origin"], "write");
}

#[test]
fn two_files_with_the_same_bytes_have_a_version_each() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    for name in ["a", "b"] {
        fs::write(mounted.at(name), "same").unwrap();
    }
    let ids: BTreeSet<_> = ["a", "b"]
        .into_iter()
        .flat_map(|name| mounted.log_of(name))
        .map(|version| version["file_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_moved_file_keeps_its_history() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new();
    fs::write(mounted.at("a"), "1").unwrap();
    fs::rename(mounted.at("a"), mounted.at("b")).unwrap();
    fs::write(mounted.at("b"), "2").unwrap();
    fs::create_dir(mounted.at("d")).unwrap();
    fs::rename(mounted.at("b"), mounted.at("d/c")).unwrap();
    fs::rename(mounted.at("d"), mounted.at("e")).unwrap();
    fs::write(mounted.at("e/c"), "3").unwrap();
    assert_eq!(mounted.digests("e/c"), ["1", "2", "3"].map(sha256));
    // What was there stays known of a path that nothing has any more.
    assert_eq!(mounted.digests("a"), [sha256("1")]);
    assert_eq!(mounted.digests("b"), ["1", "2"].map(sha256));
    fs::remove_file(mounted.at("e/c")).unwrap();
    assert_eq!(mounted.digests("e/c"), ["1", "2", "3"].map(sha256));
}
