//! The configuration file.
//!
//! Owns its text form: a table `[mount]` with the words of mount options, a table `[retention]` as
//! [`Retention::from_toml`] reads it, and a table `[snapshots]`. What is wrong is told with the file and the line.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::options::is_setting;
use super::{MountConfig, OptionError, SnapshotSettings};
use crate::retention::Retention;

/// What a configuration file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its mount options, each known to be right.
    words: Vec<String>,
    retention: Arc<Retention>,
    snapshots: Arc<SnapshotSettings>,
}

/// What is wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, line {line}: {reason}", path.display())]
pub struct ConfigFileError {
    /// The file.
    path: PathBuf,
    /// Where, from 1.
    line: usize,
    /// What, in words.
    reason: String,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    mount: BTreeMap<Spanned<String>, Spanned<Value>>,
    #[serde(default)]
    retention: Retention,
    #[serde(default)]
    snapshots: SnapshotSettings,
}

impl ConfigFile {
    /// Reads the text of a file; its path is for what is told of it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigFileError> {
        let error = |place: Option<Range<usize>>, reason: String| {
            let before = text.get(..place.map_or(0, |place| place.start)).unwrap_or(text);
            ConfigFileError { path: path.into(), line: before.matches('\n').count() + 1, reason }
        };
        let file: Text =
            toml::from_str(text).map_err(|wrong| error(wrong.span(), wrong.message().into()))?;
        // What a word means does not depend on the mount.
        let mut trial = MountConfig::new("/", "/");
        let mut words = Vec::new();
        for (name, value) in &file.mount {
            let word = word(name.as_ref(), value.as_ref())
                .and_then(|word| trial.apply_option(&word).map(|()| word))
                .map_err(|wrong| error(Some(value.span()), wrong.to_string()))?;
            words.push(word);
        }
        Ok(Self { words, retention: Arc::new(file.retention), snapshots: Arc::new(file.snapshots) })
    }

    /// Applies it to the settings of a mount.
    pub fn apply(&self, config: &mut MountConfig) {
        for word in &self.words {
            config.apply_option(word).expect("every word was tried when the file was read");
        }
        config.retention = Arc::clone(&self.retention);
        config.snapshot_settings = Arc::clone(&self.snapshots);
    }
}

/// A setting as the word of a mount option.
fn word(name: &str, value: &Value) -> Result<String, OptionError> {
    let unknown = || OptionError::Unknown { word: name.into() };
    if !is_setting(name) {
        return Err(unknown());
    }
    Ok(match value {
        Value::Boolean(true) => name.into(),
        Value::Boolean(false) => match name {
            "ro" => "rw".into(),
            "rw" => "ro".into(),
            "sync" => "async".into(),
            "allow_other" => "noallow_other".into(),
            _ => name.strip_prefix("no").ok_or_else(unknown)?.into(),
        },
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Access, IoMode, Repeat};
    use proptest::prelude::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(Path::new("/etc/h.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn options_and_retention_are_read() {
        let text = r#"
            [mount]
            io = "stream"
            threads = 3
            attr_timeout = 0.5
            state = "/a,b"
            ro = true
            nosuid = true
            noatime = false
            prune = "off"

            [retention]
            exclude = ["*.tmp"]
            default.keep.last = 3
        "#;
        let mut config = MountConfig::new("/b", "/m");
        parse(text).unwrap().apply(&mut config);
        assert_eq!(config.io, IoMode::Stream);
        assert_eq!(config.threads.map(std::num::NonZeroUsize::get), Some(3));
        assert_eq!(config.attr_timeout, std::time::Duration::from_millis(500));
        assert_eq!(config.state_dir(), Path::new("/a,b"));
        assert_eq!(config.access, Access::ReadOnly);
        assert!(config.flags.nosuid && !config.flags.noatime);
        assert_eq!(config.prune, Repeat::Off);
        assert_eq!(config.retention.choose(b"a.tmp").to_string(), "excluded by `*.tmp`");
        parse("mount.ro = false").unwrap().apply(&mut config);
        assert_eq!(config.access, Access::ReadWrite);
        assert_eq!(config.retention, Arc::default());
    }

    #[rstest]
    #[case("\n[mount]\nfast = true", "/etc/h.toml, line 3: unknown mount option `fast`")]
    #[case("[mount]\nio = \"fast\"", "/etc/h.toml, line 2: mount option `io` takes auto|")]
    #[case("[mount]\nio = true", "/etc/h.toml, line 2: mount option `io` needs a value")]
    #[case("[mount]\nio = false", "/etc/h.toml, line 2: unknown mount option `io`")]
    #[case("[mount]\nro = 1", "/etc/h.toml, line 2: mount option `ro` takes no value")]
    #[case("[mount]\nconfig = \"/x\"", "/etc/h.toml, line 2: unknown mount option `config`")]
    #[case("[mount]\n_netdev = true", "/etc/h.toml, line 2: unknown mount option `_netdev`")]
    #[case("[mount]\n\"io=auto\" = true", "/etc/h.toml, line 2: unknown mount option `io=auto`")]
    #[case("io = \"auto\"", "/etc/h.toml, line 1: unknown field `io`, expected one of `mount`")]
    #[case("\n\n[mount\n", "/etc/h.toml, line 3: ")]
    #[case("[retention]\n\nkeep = 1", "/etc/h.toml, line 3: unknown field `keep`")]
    #[case("[retention]\nexclude = [\"a[\"]", "/etc/h.toml, line 2: bad glob `a[`")]
    #[case("[[retention.rule]]\nglobs = [\"x\"]\nlast = 1", "unknown field `last`")]
    fn what_is_wrong_is_told_with_its_line(#[case] text: &str, #[case] message: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.contains(message), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\[mount\\]\n)?.*") {
            let _ = parse(&text);
        }
    }
}
