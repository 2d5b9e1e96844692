//! What to do after a move, and how to go back.
//!
//! Owns the commands as people can copy them. Pure.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::OWN_DIR;
use super::zfs::Dataset;

/// A command as a shell takes it.
pub fn command<'a>(
    program: &str,
    words: impl IntoIterator<Item = &'a (impl AsRef<OsStr> + ?Sized + 'a)>,
) -> String {
    let mut line = program.to_owned();
    for word in words {
        line.push(' ');
        line.push_str(&quoted(word.as_ref()));
    }
    line
}

/// A word that a shell takes as one; what is not UTF-8 is written as `$'\xff'`.
pub fn quoted(word: &OsStr) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/.,:=@%+-_".contains(byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.as_bytes().iter().all(is_plain) => text.into(),
        Some(text) if !text.chars().any(char::is_control) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => format!("$'{}'", word.as_bytes().escape_ascii()),
    }
}

/// What comes next.
pub fn next_steps(target: &Path, state: Option<&Path>) -> Vec<String> {
    let target = quoted(target.as_os_str());
    let option = state.map(|dir| {
        // A comma separates options.
        let dir = dir.to_string_lossy().replace('\\', r"\\").replace(',', r"\,");
        format!(" -o {}", quoted(OsStr::new(&format!("state={dir}"))))
    });
    let option = option.unwrap_or_default();
    vec![
        format!("horace mount{option} {target} {target}   # over itself, or anywhere else"),
        format!("horace status {target}   # the first start reads everything once more"),
    ]
}

/// How to go back.
pub fn way_back(source: &Path, target: &Path, made: &[Dataset]) -> Vec<String> {
    let (from, to) = (target.join(""), source.join(""));
    let exclude = format!("--exclude=/{OWN_DIR}");
    let words: [&OsStr; 7] = [
        OsStr::new("-aHAXS"),
        OsStr::new("--numeric-ids"),
        OsStr::new("--modify-window=-1"),
        OsStr::new("--delete"),
        OsStr::new(&exclude),
        from.as_os_str(),
        to.as_os_str(),
    ];
    let mut lines = vec![
        format!("horace umount {}", quoted(target.as_os_str())),
        format!(
            "{}   # brings back what has changed since, if that is wanted",
            command("rsync", words)
        ),
    ];
    lines.extend(made.iter().filter(|dataset| dataset.create.is_some()).map(|dataset| {
        let words: [OsString; 2] = ["destroy".into(), dataset.name.clone().into()];
        format!("{}   # only when nothing in it is needed", command("zfs", &words))
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        let words = ["-o", "a b", "it's", "", "$HOME", "ä"];
        assert_eq!(command("x", words), r"x -o 'a b' 'it'\''s' '' '$HOME' 'ä'");
        assert_eq!(quoted(OsStr::from_bytes(b"a\n\xff'")), r"$'a\n\xff\''");
    }

    #[test]
    fn a_state_directory_is_named_to_the_mount() {
        let told = next_steps(Path::new("/t"), Some(Path::new("/s,x")));
        assert!(told[0].starts_with(r"horace mount -o 'state=/s\,x' /t /t "), "{told:?}");
        let told = next_steps(Path::new("/t"), None);
        assert!(told[0].starts_with("horace mount /t /t "), "{told:?}");
    }
}
