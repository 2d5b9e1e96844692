//! Which policy is a file's.
//!
//! Owns the list of rules by glob, the exclusions and their text form.

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::decide::held;
use super::{Cap, Decision, DropReason, Globs, History, Item, Keep, Limit, Policy};

/// All that is configured about retention, as the `[retention]` table of a configuration.
///
/// The default is one generous policy for all files, with a cap.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Files of which no content is preserved. What was preserved before goes with the next run.
    #[serde(skip_serializing_if = "Globs::is_empty")]
    pub exclude: Globs,
    /// Policies for some files; the first that matches decides.
    #[serde(rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// The policy of all other files.
    pub default: Policy,
    /// What one run may drop at most.
    pub cap: Cap,
}

/// A policy for some files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RuleText", into = "RuleText")]
pub struct Rule {
    /// Which files; at least one glob.
    pub globs: Globs,
    /// Their policy.
    pub policy: Policy,
}

/// A rule names no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a rule needs `globs`, such as [\"*.log\"]; what holds for all other files is `default`")]
pub struct RuleError;

/// A rule as it is written, with its policy's tables beside the globs.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    #[serde(default)]
    globs: Globs,
    keep: Option<Keep>,
    limit: Option<Limit>,
}

impl TryFrom<RuleText> for Rule {
    type Error = RuleError;

    fn try_from(text: RuleText) -> Result<Self, Self::Error> {
        if text.globs.is_empty() {
            return Err(RuleError);
        }
        let default = Policy::default();
        let policy = Policy {
            keep: text.keep.unwrap_or(default.keep),
            limit: text.limit.unwrap_or(default.limit),
        };
        Ok(Self { globs: text.globs, policy })
    }
}

impl From<Rule> for RuleText {
    fn from(Rule { globs, policy }: Rule) -> Self {
        Self { globs, keep: Some(policy.keep), limit: Some(policy.limit) }
    }
}

/// The text is no retention configuration; the error shows the line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad retention policy: {0}")]
pub struct RetentionError(#[from] toml::de::Error);

/// What holds for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'r> {
    /// None of its content is preserved.
    Excluded {
        /// The glob that matched.
        glob: &'r Arc<str>,
    },
    /// A rule.
    Rule {
        /// The glob that matched.
        glob: &'r Arc<str>,
        /// The rule's policy.
        policy: &'r Policy,
    },
    /// The policy of all other files.
    Default {
        /// That policy.
        policy: &'r Policy,
    },
}

impl fmt::Display for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded { glob } => write!(f, "excluded by `{glob}`"),
            Self::Rule { glob, .. } => write!(f, "rule `{glob}`"),
            Self::Default { .. } => f.write_str("default"),
        }
    }
}

impl Retention {
    /// Reads the text form, which is TOML.
    ///
    /// # Errors
    /// What is wrong, in which line, and what to write there.
    pub fn from_toml(text: &str) -> Result<Self, RetentionError> {
        Ok(toml::from_str(text)?)
    }

    /// What holds for a path below the mount, given without a leading slash.
    ///
    /// For a file that was deleted or has several names, callers choose the one they show it by.
    pub fn choose<'r>(&'r self, path: &[u8]) -> Choice<'r> {
        if let Some(glob) = self.exclude.matching(path) {
            return Choice::Excluded { glob };
        }
        let matching = |rule: &'r Rule| rule.globs.matching(path).map(|glob| (glob, &rule.policy));
        match self.rules.iter().find_map(matching) {
            Some((glob, policy)) => Choice::Rule { glob, policy },
            None => Choice::Default { policy: &self.default },
        }
    }

    /// Whether content of any size is preserved, whatever its path, so that nobody need be asked.
    pub fn admits_everything(&self) -> bool {
        let policies = self.rules.iter().map(|rule| &rule.policy).chain([&self.default]);
        self.exclude.is_empty() && policies.into_iter().all(|policy| policy.limit.size.is_none())
    }

    /// Whether content of this size, at this path, is to be preserved when it is about to be
    /// destroyed.
    ///
    /// # Errors
    /// Why it is not: the path is excluded or the content too large.
    pub fn admit(&self, path: &[u8], size_bytes: u64) -> Result<(), DropReason> {
        match self.choose(path) {
            Choice::Excluded { glob } => Err(DropReason::Excluded(glob.clone())),
            Choice::Rule { policy, .. } | Choice::Default { policy } => {
                policy.limit.exceeded_by_size(size_bytes).map_or(Ok(()), Err)
            }
        }
    }

    /// Decides about every item of the history of a path, in its order; see [`Policy::decide`].
    pub fn decide(
        &self,
        path: &[u8],
        history: &History<'_>,
        now_ns: i64,
        zone: &TimeZone,
    ) -> Vec<Decision> {
        match self.choose(path) {
            Choice::Excluded { glob } => {
                let exclude = |item: &Item| match held(item) {
                    reasons if reasons.is_empty() => {
                        Decision::Drop(DropReason::Excluded(glob.clone()))
                    }
                    reasons => Decision::Keep(reasons),
                };
                history.items.iter().map(exclude).collect()
            }
            Choice::Rule { policy, .. } | Choice::Default { policy } => {
                policy.decide(history, now_ns, zone)
            }
        }
    }
}

impl fmt::Display for Retention {
    /// The text form; what it leaves out has its default.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Life;
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a/b.tmp", "excluded by `*.tmp`", "drop: excluded by `*.tmp`")]
    #[case("keep.log", "rule `/keep.log`", "keep: last 5")]
    #[case("a/x.log", "rule `*.log`", "drop: larger than 5 (10 B)")]
    #[case("a/x", "default", "drop: older than every rule")]
    fn the_first_rule_that_matches_decides(
        #[case] path: &str,
        #[case] choice: &str,
        #[case] decision: &str,
    ) {
        let retention = Retention::from_toml(
            r#"
            exclude = ["*.tmp"]
            [[rule]]
            globs = ["/other", "/keep.log"]
            keep = { last = 5 }
            [[rule]]
            globs = ["*.log"]
            limit = { size = "5" }
            [default]
            keep = { last = 1 }
            "#,
        )
        .unwrap();
        let path = path.as_bytes();
        assert_eq!(retention.choose(path).to_string(), choice);
        let item = |number| Item {
            number,
            time_ns: 0,
            life: Life::Until(0),
            size_bytes: 10,
            pinned: number == 2,
        };
        let history = History { items: &[item(1), item(2)], deleted_ns: None };
        let decisions = retention.decide(path, &history, i64::MAX, &TimeZone::UTC);
        assert!(decisions[1].to_string().starts_with("keep: pinned"));
        assert_eq!(decisions[0].to_string(), decision);
    }

    #[test]
    fn what_is_not_preserved_says_why() {
        let text = "exclude = [\"*.tmp\"]\ndefault.limit.size = \"1K\"";
        let retention = Retention::from_toml(text).unwrap();
        let refusal =
            |path: &[u8], size| retention.admit(path, size).map_err(|why| why.to_string());
        assert_eq!(refusal(b"a", 1024), Ok(()));
        assert_eq!(refusal(b"a", 1025), Err("larger than 1K (1.00 KiB)".into()));
        assert_eq!(refusal(b"a.tmp", 0), Err("excluded by `*.tmp`".into()));
        assert!(Retention::default().admits_everything());
        let one_of_them = [text, "exclude = [\"x\"]", "default.limit.size = \"1K\""];
        for text in one_of_them {
            assert!(!Retention::from_toml(text).unwrap().admits_everything());
        }
    }

    #[rstest]
    #[case("exclude = [\"a[\"]", "bad glob `a[`")]
    #[case("exclude = \"*.tmp\"", "invalid type: string \"*.tmp\", expected a sequence")]
    #[case("[[rule]]\nkeep.last = 1", "a rule needs `globs`, such as [\"*.log\"]")]
    #[case("[[rule]]\nglobs = [\"x\"]\nlast = 1", "unknown field `last`, expected one of `globs`")]
    #[case("[[rule]]\nglobs = [\"x\"]\nkeep = {}", "no rule keeps anything")]
    #[case(
        "[[rules]]",
        "unknown field `rules`, expected one of `exclude`, `rule`, `default`, `cap`"
    )]
    #[case("[cap]\nshare = \"half\"", "`half` is no share: use a whole percentage")]
    #[case("[cap]\nshare = 50", "invalid type: integer `50`")]
    fn a_wrong_text_says_what_and_where(#[case] text: &str, #[case] message: &str) {
        let error = Retention::from_toml(text).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("line "), "{error}");
    }

    #[test]
    fn the_text_form_survives() {
        for text in [
            "",
            r#"
            exclude = ["*.tmp", "**/.cache/**"]
            [[rule]]
            globs = ["*.log"]
            keep = { last = 3, within = "2w", hourly = 1, daily = "all", weekly = 3, monthly = 4 }
            limit = { size = "64M", age = "90d", deleted = "1h30m" }
            [[rule]]
            globs = ["/x/**", "y"]
            keep = { yearly = "all", grid = "1h:all,1d:1h" }
            [default.limit]
            [cap]
            share = "10%"
            share_from = 7
            count = 5
            bytes = "2T"
            "#,
        ] {
            let retention = Retention::from_toml(text).unwrap();
            assert_eq!(Retention::from_toml(&retention.to_string()), Ok(retention));
        }
        assert_eq!(Retention::from_toml(""), Ok(Retention::default()));
    }
}
