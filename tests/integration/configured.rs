//! Configuration files: what is read, what goes over what, and what a policy leaves out.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use horace::config::{ConfigFile, MountConfig};
use horace::retention::Retention;
use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, noise, told};

#[test]
fn the_example_is_understood_and_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("horace.toml.example");
    let text = fs::read_to_string(&path).unwrap();
    let mut config = MountConfig::new("/b", "/m");
    ConfigFile::parse(&path, &text).unwrap().apply(&mut config);
    let defaults = MountConfig::new("/b", "/m");
    assert_eq!(
        (config.io, config.keep, config.prune, config.backup, config.reconcile),
        (defaults.io, defaults.keep, defaults.prune, defaults.backup, defaults.reconcile)
    );
    assert_eq!(config.retention.default, defaults.retention.default);
    assert_eq!(config.retention.cap, defaults.retention.cap);
    let choice = |path: &[u8]| config.retention.choose(path).to_string();
    assert_eq!(choice(b"home/u/.cache/x/y"), "excluded by `**/.cache/**`");
    assert_eq!(choice(b"a/b.log"), "rule `*.log`");
    assert_eq!(choice(b"archive/b"), "rule `/archive/**`");
}

#[test]
fn the_default_policy_is_what_the_readme_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(path).unwrap();
    let words: Vec<_> = readme.split_whitespace().collect();
    let sentences = "everything that was current in the last 30 days, then the last version of every hour \
                     for 90 days, of every day for a year, of every week for five years, and of a live \
                     file always the last 10. A year after a file was deleted, all of it goes. Nothing \
                     is excluded, and nothing is too large.";
    assert!(words.join(" ").contains(sentences));
    let policy = "[default]\nkeep = { last = 10, within = \"30d\", grid = \"90d:1h,1y:1d,5y:1w\" }\n\
                  limit = { deleted = \"365d\" }\n[cap]\nshare = \"50%\"\nshare_from = 100\n";
    assert_eq!(Retention::from_toml(policy), Ok(Retention::default()));
}

#[test]
fn options_go_over_the_environment_and_that_over_the_file() {
    if !can_mount() {
        return;
    }
    let file = "[mount]\nio = \"stream\"\nthreads = 3";
    let mounted = Mounted::configured("", file);
    assert_eq!(
        (&mounted.status()["io"], &mounted.status()["threads"]),
        (&"stream".into(), &3.into())
    );
    drop(mounted);
    let mounted = Mounted::configured("io=passthrough", file);
    assert_eq!(mounted.status()["io"], "passthrough");
    drop(mounted);
    let mut mounted = Mounted::unmounted("");
    mounted.configure(file);
    let mut command = mounted.command();
    command.env("HORACE_THREADS", "2");
    mounted.start_by(command);
    assert_eq!(
        (&mounted.status()["io"], &mounted.status()["threads"]),
        (&"stream".into(), &2.into())
    );
}

#[rstest]
#[case("[mount]\nfast = true", "horace.toml, line 2: unknown mount option `fast`", 2)]
#[case("[retention]\nkeep = 1", "horace.toml, line 2: unknown field `keep`", 2)]
#[case("", "cannot read the configuration file", 1)]
fn a_wrong_or_missing_file_stops_the_mount(
    #[case] text: &str,
    #[case] error: &str,
    #[case] code: i32,
) {
    let dirs = Mounted::unmounted("");
    let file = dirs.scratch("horace.toml");
    if !text.is_empty() {
        fs::write(&file, text).unwrap();
    }
    for background in [true, false] {
        let mut command: Command = dirs.command();
        command.arg("mount").arg("-o").arg(format!("api=off,config={}", file.display()));
        if !background {
            command.arg("--foreground");
        }
        let output = command.args([&dirs.backing, &dirs.mountpoint]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains(error), "{}", told(&output));
        assert!(!dirs.is_mounted());
    }
}

/// What a policy leaves out is not kept in any way, and says so; everything else is.
#[test]
fn what_the_policy_leaves_out_is_not_kept_and_says_so() {
    if !can_mount() {
        return;
    }
    let policy = r#"
        [retention]
        exclude = ["*.tmp", "/scratch/**"]
        [[retention.rule]]
        globs = ["*.log"]
        limit = { size = "1K" }
    "#;
    for way in WAYS {
        let mounted = Mounted::configured(way, policy);
        fs::create_dir_all(mounted.at("scratch/deep")).unwrap();
        let files = [
            ("a.tmp", 10, true),
            ("scratch/deep/f", 10, true),
            ("big.log", 1025, true),
            ("small.log", 1024, false),
            ("other", 5000, false),
        ];
        for (seed, (name, size, is_left_out)) in files.into_iter().enumerate() {
            let f = mounted.at(name);
            let content = |n: u64| noise(seed as u64 * 10 + n, size);
            fs::write(&f, content(1)).unwrap();
            fs::write(&f, content(2)).unwrap();
            let file = OpenOptions::new().write(true).open(&f).unwrap();
            file.write_all_at(b"in place", 0).unwrap();
            drop(file);
            fs::write(mounted.at("new"), content(3)).unwrap();
            fs::rename(mounted.at("new"), &f).unwrap();
            fs::remove_file(&f).unwrap();
            let log = mounted.log_of(name);
            assert_eq!(log.len(), 4, "{way}, {name}");
            for version in log {
                let content = if is_left_out { "none" } else { "object" };
                assert_eq!(version["content"], content, "{way}, {name}: {version:#}");
                let reason = if is_left_out { "excluded".into() } else { serde_json::Value::Null };
                assert_eq!(version["content_reason"], reason, "{way}, {name}");
            }
        }
        let output = mounted.run(&["cat", "a.tmp@1"]);
        assert!(told(&output).contains("was not kept: excluded by policy"), "{}", told(&output));
    }
}
