//! Sizes as people type them.
//!
//! Owns one pure parser and its inverse, and rates, which are sizes in a second. A unit is a power of 1024 however it is written: `64M`,
//! `64MB` and `64MiB` are the same, as for most tools that come with filesystems.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A size in bytes: `100`, `10k`, `64M`, `2G`, `1T`, each with or without `B` or `iB`.
///
/// It shows itself in the largest unit that is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Size(pub u64);

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no size: use 100, 10k, 1M, 2G or 1T")]
pub struct SizeError {
    text: String,
}

const UNITS: [&str; 5] = ["", "K", "M", "G", "T"];

impl Size {
    fn read(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let prefix = match unit.strip_suffix('B') {
            Some(prefix) if prefix.len() == 2 => prefix.strip_suffix('i')?,
            Some(prefix) => prefix,
            None => unit,
        };
        let prefix = if prefix == "k" { "K" } else { prefix };
        let power = UNITS.iter().position(|known| *known == prefix)?;
        let number: u64 = number.parse().ok()?;
        number.checked_mul(1 << (10 * power)).map(Self)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::read(text.trim()).ok_or_else(|| SizeError { text: text.into() })
    }
}

/// Bytes in a second, as people type them: a size, with or without `/s`, or `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate(
    /// How many; `None` as fast as it goes.
    pub Option<NonZeroU64>,
);

impl FromStr for Rate {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "max" => Ok(Self(None)),
            text => {
                let Size(bytes) = text.strip_suffix("/s").unwrap_or(text).parse()?;
                Ok(Self(NonZeroU64::new(bytes)))
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut number, mut units) = (self.0, UNITS.iter());
        let mut unit = units.next();
        while number > 0 && number % 1024 == 0 {
            let Some(next) = units.next() else { break };
            (number, unit) = (number / 1024, Some(next));
        }
        write!(f, "{number}{}", unit.unwrap_or(&""))
    }
}

serde_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[test]
    fn rates_are_sizes_in_a_second() {
        let rate = |text: &str| text.parse::<Rate>().map(|rate| rate.0.map(NonZeroU64::get));
        assert_eq!(rate("50M"), Ok(Some(50 << 20)));
        assert_eq!(rate("1G/s"), Ok(Some(1 << 30)));
        assert_eq!((rate("max"), rate("0")), (Ok(None), Ok(None)));
        assert!(rate("fast").is_err());
    }

    #[rstest]
    #[case("0", 0, "0")]
    #[case("100", 100, "100")]
    #[case("100B", 100, "100")]
    #[case("10k", 10_240, "10K")]
    #[case("64M", 64 << 20, "64M")]
    #[case("64MB", 64 << 20, "64M")]
    #[case(" 64MiB ", 64 << 20, "64M")]
    #[case("1536K", 1536 << 10, "1536K")]
    #[case("4096T", 1 << 52, "4096T")]
    fn sizes_are_read_and_shown(#[case] text: &str, #[case] bytes: u64, #[case] shown: &str) {
        let size: Size = text.parse().unwrap();
        assert_eq!((size, size.to_string().as_str()), (Size(bytes), shown));
    }

    #[rstest]
    #[case("")]
    #[case("M")]
    #[case("1Q")]
    #[case("1Mi")]
    #[case("1iB")]
    #[case("1 M")]
    #[case("-1")]
    #[case("1.5G")]
    #[case("99999999999T")]
    fn what_is_no_size_says_how_to_write_one(#[case] text: &str) {
        let message = text.parse::<Size>().unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")) && message.contains("2G"));
    }

    proptest! {
        #[test]
        fn sizes_survive_their_text(bytes: u64, shift in 0..60) {
            let size = Size(bytes << shift);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Size>();
        }
    }
}
