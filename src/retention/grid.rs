//! Grids: how dense history is at which age.
//!
//! Owns their text form and their cells.

use std::fmt;
use std::str::FromStr;

use crate::timespec::Span;

/// Steps from the youngest to the oldest: `1h:all,1d:1h,30d:1d`.
///
/// The ages count from now, not from the step before. Both ages and spacings rise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid(Vec<Step>);

/// How dense history is up to an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Up to this age.
    pub age: Span,
    /// How much is kept.
    pub spacing: Spacing,
}

/// How much of a step is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    /// Everything.
    All,
    /// The last item of each cell of this length.
    Every(Span),
}

/// The text is no grid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// A step is not written as one.
    #[error(
        "`{step}` is no step of a grid: write AGE:SPACING with lengths such as 1h, 30d or 1y, as in `1h:all,1d:1h,30d:1d`"
    )]
    Step {
        /// The step.
        step: String,
    },
    /// A step keeps one item of a cell that is longer than the step.
    #[error("grid step `{step}` is spaced wider than it is long: give it a smaller spacing")]
    TooWide {
        /// The step.
        step: Step,
    },
    /// A step adds nothing to the one before.
    #[error(
        "grid step `{step}` must reach further back and be spaced wider than `{before}` before it"
    )]
    NotRising {
        /// The step.
        step: Step,
        /// The one before it.
        before: Step,
    },
}

impl Grid {
    /// Its steps, from the youngest to the oldest; at least one.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
}

impl Step {
    /// The number of the cell that a time in nanoseconds since 1970 lies in; `None` where
    /// everything is kept.
    pub(super) fn cell(&self, time_ns: i64) -> Option<i64> {
        match self.spacing {
            Spacing::All => None,
            Spacing::Every(spacing) => Some(time_ns.div_euclid(spacing.as_ns())),
        }
    }
}

impl FromStr for Grid {
    type Err = GridError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut steps: Vec<Step> = Vec::new();
        for step in text.split(',') {
            let step: Step = step.parse()?;
            if let Some(before) = steps.last().copied()
                && !step.goes_on(&before)
            {
                return Err(GridError::NotRising { step, before });
            }
            steps.push(step);
        }
        Ok(Self(steps))
    }
}

impl Step {
    fn goes_on(&self, before: &Self) -> bool {
        let wider = match (self.spacing, before.spacing) {
            (Spacing::All, _) => false,
            (Spacing::Every(_), Spacing::All) => true,
            (Spacing::Every(spacing), Spacing::Every(before)) => spacing.as_ns() > before.as_ns(),
        };
        wider && self.age.as_ns() > before.age.as_ns()
    }
}

impl FromStr for Step {
    type Err = GridError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || GridError::Step { step: text.trim().into() };
        let span = |text: &str| text.parse().ok().filter(|span: &Span| span.as_ns() > 0);
        let (age, spacing) = text.split_once(':').ok_or_else(error)?;
        let age = span(age).ok_or_else(error)?;
        let spacing = match spacing.trim() {
            "all" => Spacing::All,
            spacing => Spacing::Every(span(spacing).ok_or_else(error)?),
        };
        let step = Self { age, spacing };
        match spacing {
            Spacing::Every(spacing) if spacing.as_ns() > age.as_ns() => {
                Err(GridError::TooWide { step })
            }
            _ => Ok(step),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spacing {
            Spacing::All => write!(f, "{}:all", self.age),
            Spacing::Every(spacing) => write!(f, "{}:{spacing}", self.age),
        }
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            step.fmt(f)?;
        }
        Ok(())
    }
}

serde_text!(Grid);

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1h:all,1d:1h,30d:1d", "1h:all,1d:1h,30d:1d")]
    #[case(" 1h : all , 1d : 1h ", "1h:all,1d:1h")]
    #[case("1y:1w", "1y:1w")]
    #[case("1d:24h", "1d:24h")]
    fn grids_survive_their_text(#[case] text: &str, #[case] shown: &str) {
        let grid: Grid = text.parse().unwrap();
        assert_eq!(grid.to_string(), shown);
        assert_eq!(shown.parse(), Ok(grid));
    }

    #[rstest]
    #[case("", "`` is no step of a grid")]
    #[case("1h", "`1h` is no step of a grid")]
    #[case("1h:all,", "`` is no step of a grid")]
    #[case("1h:none", "`1h:none` is no step of a grid: write AGE:SPACING")]
    #[case("0h:all", "`0h:all` is no step")]
    #[case("1d:0s", "`1d:0s` is no step")]
    #[case("1h:1d", "`1h:1d` is spaced wider than it is long")]
    #[case("1d:1h,1d:2h", "`1d:2h` must reach further back and be spaced wider than `1d:1h`")]
    #[case("1d:1h,2d:60m", "`2d:60m` must reach further back")]
    #[case("1d:1h,2d:all", "`2d:all` must reach further back")]
    fn a_wrong_step_is_named(#[case] text: &str, #[case] message: &str) {
        let error = text.parse::<Grid>().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn cells_count_from_1970_downwards_too() {
        let step: Step = "1d:1h".parse().unwrap();
        let hour = 3_600_000_000_000;
        assert_eq!([-1, 0, hour - 1, hour].map(|ns| step.cell(ns)), [-1, 0, 0, 1].map(Some));
        assert_eq!("1d:all".parse::<Step>().unwrap().cell(0), None);
    }
}
