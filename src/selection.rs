//! The selection rule: how many weights of a row are pruned, and how they are chosen from their scores.

use serde::{Deserialize, Serialize};

/// How the weights of a row that go are chosen from their scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Selection {
    /// Exactly `floor(sparsity * in_features + 0.5)` weights a row, the lowest against the block-wise EWMA.
    Ewma {
        /// Fraction of each row, 0 to 1.
        sparsity: f64,
        /// Block size and gain.
        #[serde(flatten)]
        ewma: Ewma,
    },
    /// As many, the lowest scores of the row.
    Exact {
        /// Fraction of each row, 0 to 1.
        sparsity: f64,
    },
    /// Open loop: every weight whose normalised score is below a fixed lambda.
    Lambda {
        /// In mean absolute deviations, more than -16 and less than 16.
        lambda: f64,
        /// Block size and gain.
        #[serde(flatten)]
        ewma: Ewma,
    },
    /// N kept of every M.
    Pattern(Pattern),
}

impl Selection {
    /// The moving average, of the rules that have one.
    #[must_use]
    pub const fn ewma(&self) -> Option<Ewma> {
        match *self {
            Self::Ewma { ewma, .. } | Self::Lambda { ewma, .. } => Some(ewma),
            Self::Exact { .. } | Self::Pattern(_) => None,
        }
    }

    /// Weights to prune in a row of `in_features`; `None` for the open loop and for patterns.
    #[must_use]
    pub fn k(&self, in_features: usize) -> Option<usize> {
        match *self {
            Self::Ewma { sparsity, .. } | Self::Exact { sparsity } => {
                Some((sparsity * in_features as f64 + 0.5).floor() as usize)
            }
            Self::Lambda { .. } | Self::Pattern(_) => None,
        }
    }

    /// The sparsity asked of a row of `in_features`; `None` for the open loop.
    #[must_use]
    pub fn target(&self, in_features: usize) -> Option<f64> {
        let pruned = match *self {
            Self::Pattern(pattern) => {
                let (n, m) = (pattern.n() as usize, pattern.m() as usize);
                in_features - (in_features / m * n + (in_features % m).min(n))
            }
            _ => self.k(in_features)?,
        };
        Some(pruned as f64 / in_features.max(1) as f64)
    }
}

/// The EWMA's two constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "EwmaNumbers")]
pub struct Ewma {
    block_size: usize,
    gain_shift: u32,
}

/// An [`Ewma`] as it is read, before it is checked.
#[derive(Deserialize)]
struct EwmaNumbers {
    block_size: usize,
    gain_shift: u32,
}

impl TryFrom<EwmaNumbers> for Ewma {
    type Error = &'static str;

    fn try_from(of: EwmaNumbers) -> Result<Self, Self::Error> {
        Self::new(of.block_size, of.gain_shift).ok_or("no block size and gain that there are")
    }
}

impl Ewma {
    /// Block sizes that the integer widths allow: powers of two in this range.
    pub const BLOCK_SIZES: std::ops::RangeInclusive<usize> = 16..=4096;

    /// Blocks of `block_size` columns and a gain of `1 / 2^gain_shift`; `None` outside what the widths allow
    /// (a power of two in [`Self::BLOCK_SIZES`], a shift of at most 7).
    #[must_use]
    pub fn new(block_size: usize, gain_shift: u32) -> Option<Self> {
        (block_size.is_power_of_two() && Self::BLOCK_SIZES.contains(&block_size) && gain_shift <= 7)
            .then_some(Self {
                block_size,
                gain_shift,
            })
    }

    /// Columns a block.
    #[must_use]
    pub const fn block_size(self) -> usize {
        self.block_size
    }

    /// The gain is `1 / 2^gain_shift`.
    #[must_use]
    pub const fn gain_shift(self) -> u32 {
        self.gain_shift
    }
}

impl Default for Ewma {
    /// Blocks of 128 columns, gain 1/8.
    fn default() -> Self {
        Self {
            block_size: 128,
            gain_shift: 3,
        }
    }
}

/// An N:M pattern: N kept of every M columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PatternNumbers")]
pub struct Pattern {
    n: u32,
    m: u32,
}

/// A [`Pattern`] as it is read, before it is checked.
#[derive(Deserialize)]
struct PatternNumbers {
    n: u32,
    m: u32,
}

impl TryFrom<PatternNumbers> for Pattern {
    type Error = &'static str;

    fn try_from(of: PatternNumbers) -> Result<Self, Self::Error> {
        Self::new(of.n, of.m).ok_or("no pattern that there is")
    }
}

impl Pattern {
    /// The largest group.
    pub const MAX_M: u32 = 32;

    /// Keeps `n` of every `m` columns; `None` unless `1 <= n < m <= 32`.
    #[must_use]
    pub fn new(n: u32, m: u32) -> Option<Self> {
        (n >= 1 && n < m && m <= Self::MAX_M).then_some(Self { n, m })
    }

    /// Weights kept of each group.
    #[must_use]
    pub const fn n(self) -> u32 {
        self.n
    }

    /// Columns a group.
    #[must_use]
    pub const fn m(self) -> u32 {
        self.m
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.n, self.m)
    }
}

/// Steps of a threshold key in one mean absolute deviation.
pub(crate) const STEPS: f64 = 2048.0;

/// A lambda as a threshold key: above those of zero weights and vanished scores, at most that of a non-finite weight.
pub(crate) fn lambda_key(lambda: f64) -> i16 {
    (lambda * STEPS).round().clamp(-32766.0, 32767.0) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k_rounds_half_up() {
        let k = |sparsity, in_features| Selection::Exact { sparsity }.k(in_features).unwrap();
        assert_eq!(k(0.5, 5), 3);
        assert_eq!(k(0.5, 4), 2);
        assert_eq!(k(0.3, 576), 173);
        assert_eq!(k(0.0, 7), 0);
        assert_eq!(k(1.0, 7), 7);
    }

    #[test]
    fn a_pattern_asks_for_less_in_a_short_tail_group() {
        let two_of_four = Selection::Pattern(Pattern::new(2, 4).unwrap());
        assert_eq!(two_of_four.target(8), Some(0.5));
        assert_eq!(two_of_four.target(6), Some(2.0 / 6.0));
    }

    #[test]
    fn block_sizes_outside_the_widths_are_refused() {
        for (block, shift) in [(0, 3), (8, 3), (100, 3), (8192, 3), (128, 8)] {
            assert!(Ewma::new(block, shift).is_none(), "{block} {shift}");
        }
        assert_eq!(Ewma::new(128, 3), Some(Ewma::default()));
    }

    #[test]
    fn patterns_that_keep_nothing_or_everything_are_refused() {
        for (n, m) in [(0, 4), (4, 4), (5, 4), (1, 33), (1, 1)] {
            assert!(Pattern::new(n, m).is_none(), "{n}:{m}");
        }
    }
}
