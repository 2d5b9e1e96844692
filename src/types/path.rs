//! Paths from the root of a mount, as the catalog has them: names with slashes between them, and no other slash.

/// The names in a path; slashes before, after and between them count as one.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty())
}

/// The directory of a path, which is empty for the root, and the last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The directory of a path, which is empty for the root.
pub fn parent(path: &[u8]) -> &[u8] {
    split(path).0
}

/// The path of a name in a directory, which is empty for the root.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, name].join(&b'/') }
}

/// Whether a path is `top`, or in what is there; both without slashes at their ends. Everything is below
/// an empty path.
pub fn is_below(path: &[u8], top: &[u8]) -> bool {
    top.is_empty() || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "", "")]
    #[case("a", "", "a")]
    #[case("a/b", "a", "b")]
    #[case("a/b/c", "a/b", "c")]
    fn a_path_is_a_directory_and_a_name(#[case] path: &str, #[case] dir: &str, #[case] name: &str) {
        assert_eq!(split(path.as_bytes()), (dir.as_bytes(), name.as_bytes()));
        assert_eq!(parent(path.as_bytes()), dir.as_bytes());
        assert_eq!(join(dir.as_bytes(), name.as_bytes()), path.as_bytes());
    }

    #[test]
    fn a_name_that_begins_alike_is_not_below() {
        let below = |path: &str, top: &str| is_below(path.as_bytes(), top.as_bytes());
        assert!(below("a/b", "a") && below("a", "a") && below("a", "") && below("", ""));
        assert!(!below("ab", "a") && !below("a", "a/b") && !below("", "a"));
    }
}
