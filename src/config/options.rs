//! The words after `-o`.
//!
//! Owns their splitting and meaning. A word that is neither Horace's nor one that fstab lines carry
//! for others is refused by name: a misspelt option must not pass for a setting.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{
    Access, Api, Disk, IoMode, Keep, KernelPassthrough, MountConfig, Occasion, Repeat, Snapshots,
    Watch,
};
use crate::snapshots::Require;
use crate::timespec::Span;

/// What is wrong with a mount option.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows this word.
    #[error("unknown mount option `{word}`")]
    Unknown {
        /// The word.
        word: String,
    },
    /// The word needs a value.
    #[error("mount option `{name}` needs a value: {name}={expected}")]
    MissingValue {
        /// The word.
        name: &'static str,
        /// The values it takes.
        expected: &'static str,
    },
    /// The word has a value that it does not take.
    #[error("mount option `{name}` takes {expected}, not `{value}`")]
    BadValue {
        /// The word.
        name: &'static str,
        /// What it was given.
        value: String,
        /// The values it takes.
        expected: &'static str,
    },
    /// The word is a switch and has a value.
    #[error("mount option `{name}` takes no value")]
    UnexpectedValue {
        /// The word.
        name: String,
    },
}

/// More threads help nobody, and a system that cannot give them leaves a mount that nobody serves.
const MAX_THREADS: usize = 256;

/// Words of fstab, mount(8) and libfuse that say nothing to Horace.
const IGNORED: &[&str] = &[
    "_netdev",
    "nofail",
    "noauto",
    "auto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "defaults",
    "default_permissions",
    "nonempty",
    "silent",
    "loud",
];

/// Whether a word says something to Horace, and may stand in a configuration file: what is mounted
/// there, and the words of other programs, may not.
pub(super) fn is_setting(name: &str) -> bool {
    let elsewhere = ["config", "remount"].contains(&name);
    let foreign = IGNORED.contains(&name) || IGNORED_WITH_VALUE.contains(&name);
    !elsewhere && !foreign && !name.starts_with("x-") && !name.contains('=')
}

/// Words with a value that say nothing to Horace.
const IGNORED_WITH_VALUE: &[&str] = &["comment", "fsname", "subtype", "user_id", "group_id"];

impl MountConfig {
    /// Applies comma-separated option words, later ones over earlier ones; `\,` is a comma that
    /// belongs to a value.
    ///
    /// # Errors
    /// The first word that is unknown or has a wrong value.
    pub fn apply_options(&mut self, words: &str) -> Result<(), OptionError> {
        split(words)
            .iter()
            .filter(|word| !word.is_empty())
            .try_for_each(|word| self.apply_option(word))
    }

    /// Applies one word, which is taken as it is.
    pub(super) fn apply_option(&mut self, word: &str) -> Result<(), OptionError> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        match name {
            "state" => self.state = Some(text("state", value, "DIR")?.into()),
            "config" => self.config = Some(text("config", value, "FILE")?.into()),
            "api" => self.api = parse("api", value, "ADDRESS:PORT|unix:PATH|off", api)?,
            "api_also" => {
                self.api_also.push(parse("api_also", value, "ADDRESS:PORT|unix:PATH", also)?);
            }
            "api_guest" => self.api_guest = Some(text("api_guest", value, "USER")?.into()),
            "api_host" => self.api_hosts.push(text("api_host", value, "NAME")?.into()),
            "api_cert" => self.api_cert = Some(text("api_cert", value, "FILE")?.into()),
            "api_cert_key" => {
                self.api_cert_key = Some(text("api_cert_key", value, "FILE")?.into());
            }
            "threads" => {
                self.threads = Some(parse("threads", value, "a NUMBER up to 256", threads)?);
            }
            "descriptors" => {
                let most = parse("descriptors", value, "NUMBER", |v| v.parse().ok())?;
                self.descriptors = Some(most);
            }
            "io" => self.io = parse("io", value, "auto|stream|passthrough", io)?,
            "passthrough" => {
                self.passthrough = parse("passthrough", value, "auto|off", passthrough)?;
            }
            "keep" => self.keep = parse("keep", value, "content|none", keep)?,
            // For tests: nobody need set these.
            "pack_after" => self.pack_after = Some(parse("pack_after", value, "SECONDS", seconds)?),
            "pack_limit" => {
                let limit = parse("pack_limit", value, "BYTES", |v| v.parse().ok())?;
                self.pack_limit = Some(limit);
            }
            "prune" => self.prune = parse("prune", value, "LENGTH OF TIME|off", repeat)?,
            "backup" => self.backup = parse("backup", value, "LENGTH OF TIME|off", repeat)?,
            "reconcile" => {
                self.reconcile = parse("reconcile", value, "LENGTH OF TIME|off", repeat)?;
            }
            "reconcile_threads" => {
                let threads = parse("reconcile_threads", value, "a NUMBER up to 256", threads)?;
                self.reconcile_threads = Some(threads);
            }
            "reconcile_rate" => {
                let rate = parse("reconcile_rate", value, "BYTES|max", |v| v.parse().ok())?;
                self.reconcile_rate = Some(rate);
            }
            "disk" => self.disk = Some(parse("disk", value, "ssd|hdd|network", disk)?),
            "attr_timeout" => {
                self.attr_timeout = parse("attr_timeout", value, "SECONDS", seconds)?;
            }
            "dataset" => self.dataset = Some(text("dataset", value, "POOL/NAME")?.into()),
            "snapshots" => self.snapshots = parse("snapshots", value, "on|off", snapshots)?,
            "require" => self.require = parse("require", value, "zfs|btrfs", require)?,
            "watch" => self.watch = parse("watch", value, "auto|on|off", watch)?,
            _ if name.starts_with("x-") || IGNORED_WITH_VALUE.contains(&name) => {}
            _ if self.apply_switch(name) || IGNORED.contains(&name) => {
                if value.is_some() {
                    return Err(OptionError::UnexpectedValue { name: name.into() });
                }
            }
            _ => return Err(OptionError::Unknown { word: word.into() }),
        }
        Ok(())
    }

    /// Whether `name` is a switch, which is then thrown.
    fn apply_switch(&mut self, name: &str) -> bool {
        let flags = &mut self.flags;
        match name {
            "remount" => self.occasion = Occasion::Remount,
            "ro" => self.access = Access::ReadOnly,
            "rw" => self.access = Access::ReadWrite,
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "nosuid" => flags.nosuid = true,
            "suid" => flags.nosuid = false,
            "nodev" => flags.nodev = true,
            "dev" => flags.nodev = false,
            "noexec" => flags.noexec = true,
            "exec" => flags.noexec = false,
            "noatime" => flags.noatime = true,
            "atime" | "relatime" => flags.noatime = false,
            "dirsync" => flags.dirsync = true,
            "sync" => flags.sync = true,
            "async" => flags.sync = false,
            _ => return false,
        }
        true
    }
}

/// Splits at commas; a backslash takes the next comma or backslash as it is.
fn split(words: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = words.chars().peekable();
    while let Some(c) = rest.next() {
        let part = parts.last_mut().expect("there is always one part");
        match c {
            '\\' => match rest.next_if(|next| matches!(next, ',' | '\\')) {
                Some(escaped) => part.push(escaped),
                None => part.push('\\'),
            },
            ',' => parts.push(String::new()),
            _ => part.push(c),
        }
    }
    parts
}

fn text<'v>(
    name: &'static str,
    value: Option<&'v str>,
    expected: &'static str,
) -> Result<&'v str, OptionError> {
    value.filter(|value| !value.is_empty()).ok_or(OptionError::MissingValue { name, expected })
}

fn parse<T>(
    name: &'static str,
    value: Option<&str>,
    expected: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, OptionError> {
    let value = text(name, value, expected)?;
    read(value).ok_or_else(|| OptionError::BadValue { name, value: value.into(), expected })
}

fn api(value: &str) -> Option<Api> {
    if value == "off" {
        return Some(Api::Off);
    }
    match value.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Api::Unix(path.into())),
        None => value.parse().ok().map(Api::Listen),
    }
}

fn also(value: &str) -> Option<Api> {
    api(value).filter(|api| *api != Api::Off)
}

fn io(value: &str) -> Option<IoMode> {
    [IoMode::Auto, IoMode::Stream, IoMode::Passthrough]
        .into_iter()
        .find(|mode| mode.as_str() == value)
}

fn passthrough(value: &str) -> Option<KernelPassthrough> {
    match value {
        "auto" => Some(KernelPassthrough::Auto),
        "off" => Some(KernelPassthrough::Off),
        _ => None,
    }
}

fn watch(value: &str) -> Option<Watch> {
    match value {
        "auto" => Some(Watch::Auto),
        "on" => Some(Watch::On),
        "off" => Some(Watch::Off),
        _ => None,
    }
}

fn snapshots(value: &str) -> Option<Snapshots> {
    match value {
        "on" => Some(Snapshots::On),
        "off" => Some(Snapshots::Off),
        _ => None,
    }
}

fn require(value: &str) -> Option<Require> {
    match value {
        "zfs" => Some(Require::Zfs),
        "btrfs" => Some(Require::Btrfs),
        _ => None,
    }
}

fn keep(value: &str) -> Option<Keep> {
    match value {
        "content" => Some(Keep::Content),
        "none" => Some(Keep::None),
        _ => None,
    }
}

fn threads(value: &str) -> Option<NonZeroUsize> {
    value.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= MAX_THREADS)
}

fn disk(value: &str) -> Option<Disk> {
    [Disk::Ssd, Disk::Hdd, Disk::Network].into_iter().find(|disk| disk.as_str() == value)
}

fn repeat(value: &str) -> Option<Repeat> {
    match value {
        "off" => Some(Repeat::Off),
        // Without a pause there would be nothing else.
        _ => value.parse().ok().filter(|span: &Span| span.as_ns() > 0).map(Repeat::Every),
    }
}

fn seconds(value: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(value.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn with(words: &str) -> Result<MountConfig, OptionError> {
        let mut config = MountConfig::new("/b", "/m");
        config.apply_options(words)?;
        Ok(config)
    }

    #[test]
    fn every_setting_can_be_given() {
        let config = with(
            "state=/var/lib/h,api=[::1]:9000,api_also=127.0.0.1:9070,api_also=unix:/run/h,api_cert=/etc/c.pem,api_cert_key=/etc/k.pem,ro,allow_other,threads=3,descriptors=99,io=stream,passthrough=off,\
             keep=none,prune=12h,backup=6h,reconcile=2h,reconcile_threads=5,reconcile_rate=50M,disk=hdd,pack_after=2.5,pack_limit=4096,attr_timeout=0.25,config=/etc/h.toml,require=zfs,dataset=tank/files,snapshots=off,nosuid,nodev,noexec,noatime,dirsync,sync",
        )
        .unwrap();
        assert_eq!(config.state_dir(), std::path::Path::new("/var/lib/h"));
        assert_eq!(config.api, Api::Listen("[::1]:9000".parse().unwrap()));
        let also = [Api::Listen("127.0.0.1:9070".parse().unwrap()), Api::Unix("/run/h".into())];
        assert_eq!(config.api_also, also);
        assert_eq!(config.api_cert.as_deref(), Some("/etc/c.pem".as_ref()));
        assert_eq!(config.api_cert_key.as_deref(), Some("/etc/k.pem".as_ref()));
        assert_eq!(config.access, Access::ReadOnly);
        assert_eq!(config.allow_other, Some(true));
        assert_eq!(config.threads.map(std::num::NonZeroUsize::get), Some(3));
        assert_eq!(config.descriptors.map(std::num::NonZeroUsize::get), Some(99));
        assert_eq!(config.io, IoMode::Stream);
        assert_eq!(config.passthrough, KernelPassthrough::Off);
        assert_eq!(config.keep, Keep::None);
        assert_eq!(config.pack_after, Some(Duration::from_millis(2500)));
        assert_eq!(config.pack_limit.map(std::num::NonZeroUsize::get), Some(4096));
        assert_eq!(config.prune, Repeat::Every("12h".parse().unwrap()));
        assert_eq!(config.backup, Repeat::Every("6h".parse().unwrap()));
        assert_eq!(config.reconcile, Repeat::Every("2h".parse().unwrap()));
        assert_eq!(config.reconcile_threads.map(std::num::NonZeroUsize::get), Some(5));
        assert_eq!(config.reconcile_rate, Some("50M".parse().unwrap()));
        assert_eq!(config.disk, Some(Disk::Hdd));
        assert_eq!(config.attr_timeout, Duration::from_millis(250));
        assert_eq!(config.config.as_deref(), Some("/etc/h.toml".as_ref()));
        assert_eq!(config.require, Require::Zfs);
        assert_eq!(config.dataset.as_deref(), Some("tank/files"));
        assert_eq!(config.snapshots, Snapshots::Off);
        let flags = config.flags;
        assert!(flags.nosuid && flags.nodev && flags.noexec);
        assert!(flags.noatime && flags.dirsync && flags.sync);
    }

    #[test]
    fn later_words_win_and_foreign_ones_are_ignored() {
        let config = with(
            "defaults,ro,rw,nosuid,suid,sync,async,noatime,relatime,_netdev,nofail,noauto,user,\
             x-systemd.automount,x-systemd.idle-timeout=60,comment=a b,fsname=x,subtype=y,,nonempty",
        )
        .unwrap();
        assert_eq!(config, MountConfig::new("/b", "/m"));
        assert_eq!(with("api=off").unwrap().api, Api::Off);
        assert_eq!(with("prune=off").unwrap().prune, Repeat::Off);
        assert_eq!(with("backup=off").unwrap().backup, Repeat::Off);
    }

    #[test]
    fn an_escaped_comma_belongs_to_the_value() {
        let config = with(r"state=/a\,b\\c\d,ro").unwrap();
        assert_eq!(config.state_dir(), std::path::Path::new(r"/a,b\c\d"));
        assert_eq!(config.access, Access::ReadOnly);
    }

    #[rstest]
    #[case("tread=3", "unknown mount option `tread=3`")]
    #[case("state", "mount option `state` needs a value: state=DIR")]
    #[case("threads=0", "mount option `threads` takes a NUMBER up to 256, not `0`")]
    #[case("threads=257", "mount option `threads` takes a NUMBER up to 256, not `257`")]
    #[case("api=8000", "mount option `api` takes ADDRESS:PORT|unix:PATH|off, not `8000`")]
    #[case("api_also=off", "mount option `api_also` takes ADDRESS:PORT|unix:PATH, not `off`")]
    #[case("io=fast", "mount option `io` takes auto|stream|passthrough, not `fast`")]
    #[case("attr_timeout=-1", "mount option `attr_timeout` takes SECONDS, not `-1`")]
    #[case("backup=0s", "mount option `backup` takes LENGTH OF TIME|off, not `0s`")]
    #[case("prune=daily", "mount option `prune` takes LENGTH OF TIME|off, not `daily`")]
    #[case("watch=yes", "mount option `watch` takes auto|on|off, not `yes`")]
    #[case("require=ext4", "mount option `require` takes zfs|btrfs, not `ext4`")]
    #[case("disk=tape", "mount option `disk` takes ssd|hdd|network, not `tape`")]
    #[case("reconcile_rate=fast", "mount option `reconcile_rate` takes BYTES|max, not `fast`")]
    #[case("ro=yes", "mount option `ro` takes no value")]
    fn a_wrong_word_is_named(#[case] words: &str, #[case] message: &str) {
        assert_eq!(with(words).unwrap_err().to_string(), message);
    }

    proptest! {
        #[test]
        fn any_words_are_parsed_or_refused(words in ".*") {
            let _ = with(&words);
        }

        #[test]
        fn any_directory_can_be_given_escaped(dir in "[^\u{0}]{1,40}") {
            let escaped = dir.replace('\\', r"\\").replace(',', r"\,");
            let config = with(&format!("ro,state={escaped}")).unwrap();
            prop_assert_eq!(config.state.unwrap(), std::path::PathBuf::from(dir));
        }
    }
}
