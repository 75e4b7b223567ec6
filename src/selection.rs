//! What is asked for: how many weights of a row go, and by which rule.

use crate::passes::ewma::{Ewma, STEPS};
use crate::passes::n_of_m::Pattern;

/// How the weights of a row that go are chosen from their scores.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Selection {
    /// Exactly `floor(sparsity * in_features + 0.5)` weights a row, the lowest against the block-wise EWMA.
    Ewma {
        /// Fraction of each row, 0 to 1.
        sparsity: f64,
        /// Block size and gain.
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
}
