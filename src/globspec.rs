//! Globs as people type them.
//!
//! Owns what one glob means and how large it may be: users give them to a daemon that runs as root, and
//! the parser goes as deep as the braces do.

use globset::{Glob, GlobBuilder, GlobSet};

/// The longest glob in bytes, which is the longest path.
const MAX_BYTES: usize = 4096;
/// Braces that open, nested or not.
const MAX_BRACES: usize = 64;

/// What is wrong with a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It is too long.
    #[error("a glob has at most {MAX_BYTES} bytes")]
    TooLong,
    /// It has too many alternatives.
    #[error("a glob has at most {MAX_BRACES} `{{`")]
    TooManyBraces,
    /// It cannot be understood, or be matched with little memory.
    #[error("{0}")]
    Syntax(globset::ErrorKind),
}

impl From<globset::Error> for GlobError {
    fn from(error: globset::Error) -> Self {
        Self::Syntax(error.kind().clone())
    }
}

/// Reads a glob: `*` and `?` stay within a name, `**` crosses them.
///
/// # Errors
/// See [`GlobError`].
pub fn read(text: &str) -> Result<Glob, GlobError> {
    if text.len() > MAX_BYTES {
        return Err(GlobError::TooLong);
    }
    if text.matches('{').count() > MAX_BRACES {
        return Err(GlobError::TooManyBraces);
    }
    Ok(GlobBuilder::new(text).literal_separator(true).build()?)
}

/// Reads a glob and prepares it for matching.
///
/// # Errors
/// See [`GlobError`].
pub fn compile(text: &str) -> Result<GlobSet, GlobError> {
    Ok(GlobSet::builder().add(read(text)?).build()?)
}

/// Texts that every name has which is the last of a path that a glob matches. There may be more than
/// these: what lies between brackets or braces is not looked at.
pub fn pieces(glob: &str) -> Vec<String> {
    if glob.contains('\\') {
        return Vec::new();
    }
    let first = glob.find(['{', '[']).unwrap_or(glob.len());
    let (head, rest) = glob.split_at(first);
    let after = rest.rfind(['}', ']']).map_or(rest.len(), |at| at + 1);
    let mut parts = Vec::new();
    // A slash further on ends the name that the head is part of.
    if !rest.contains('/') {
        parts.push(head);
    }
    parts.push(&rest[after..]);
    let last_name = |part: &str| part.rsplit('/').next().unwrap_or_default().to_owned();
    let names: Vec<String> = parts.into_iter().map(last_name).collect();
    let texts = names.iter().flat_map(|name| name.split(['*', '?']));
    texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_the_parser_is_refused() {
        let told = |glob: &str| compile(glob).unwrap_err().to_string();
        assert_eq!(told(&"*".repeat(4097)), "a glob has at most 4096 bytes");
        assert_eq!(told(&"{a,".repeat(65)), "a glob has at most 64 `{`");
        assert!(told("{a,").starts_with("unclosed alternate group"));
        let deepest = ["{a,".repeat(64), "}".repeat(64)].concat();
        assert!(compile(&deepest).unwrap().is_match("a"));
    }

    #[test]
    fn every_match_has_the_pieces() {
        let told = |glob: &str| pieces(glob).join(" ");
        assert_eq!(told("*read*me?.md"), "read me .md");
        assert_eq!(told("src/**/lib*.rs"), "lib .rs");
        assert_eq!(told("a{b,c/d}ef"), "ef");
        assert_eq!(told("x/a{b,c}ef[!a]g"), "a g");
        assert_eq!(told("a[]/]b"), "b");
        assert_eq!(told("a\\*b"), "");
        assert_eq!(told("a{b,c}/"), "");
        assert_eq!(told("**"), "");
        let matching = ["a*b/{c,d}x*yz", "*[ab]*.tar.gz", "{a,b}*", "p?q/**/r.s", "a*[]/x]b*"];
        let paths = ["a1b/cx2yz", "a.tar.gz", "b7", "p1q/z/r.s", "a1xb"];
        for (glob, path) in matching.into_iter().zip(paths) {
            let name = path.rsplit('/').next().unwrap();
            assert!(compile(glob).unwrap().is_match(path), "{glob} {path}");
            assert!(pieces(glob).iter().all(|piece| name.contains(piece)), "{glob} {path}");
        }
    }

    #[test]
    fn the_longest_globs_are_answered() {
        for part in ["?", "*", "**/", "[a-z]", "[!a]", "*a", "\u{10ffff}", "a"] {
            let glob = part.repeat(MAX_BYTES / part.len());
            if let Ok(set) = compile(&glob) {
                set.is_match("a".repeat(MAX_BYTES));
            }
        }
    }
}
