//! The scores: how important a weight is, as one factor per column (and one per row for RIA).
//!
//! Every score is `|W_ij|` times a factor that the host computes once a tensor, in f64. So the passes know nothing of
//! scores, and a new one is a function here and a row of [`SCORES`], which the command line, the help and the tests
//! iterate. The formulas and where they come from: `docs/algorithm.md`.

/// Whether a score uses the column norms of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormsUse {
    /// It is not defined without them.
    Required,
    /// It uses them when there are any.
    Optional,
    /// It has no place for them.
    Unused,
}

/// One row of the registry.
#[derive(Debug)]
#[non_exhaustive]
pub struct Score {
    /// The name on the command line, in reports and in goldens.
    pub name: &'static str,
    /// One line for the help.
    pub summary: &'static str,
    /// The squared contribution, as documented.
    pub formula: &'static str,
    /// What it does with the column norms.
    pub norms: NormsUse,
    /// Whether the factor has terms made of the sums of `|W|` over columns and rows (RIA).
    pub sums_of_weights: bool,
    /// Column factors, up to scale, from `n_j` and `S`; called only with norms and `S > 0`.
    factor: fn(n: f64, total: f64) -> f64,
}

/// Every score, the default first.
pub static SCORES: &[Score] = &[
    Score {
        name: "swiftprune",
        summary: "contribution to the layer's output, corrected for what the other weights can take over",
        formula: "w^2 n / (1 - n/S)",
        norms: NormsUse::Required,
        sums_of_weights: false,
        factor: |n, total| (n / rest(n, total)).sqrt(),
    },
    Score {
        name: "swiftprune-weight",
        summary: "the same correction, in weight space",
        formula: "w^2 / (1 - n/S)",
        norms: NormsUse::Required,
        sums_of_weights: false,
        factor: |n, total| (1.0 / rest(n, total)).sqrt(),
    },
    Score {
        name: "wanda",
        summary: "weight times the norm of its input (arXiv 2306.11695)",
        formula: "w^2 n",
        norms: NormsUse::Required,
        sums_of_weights: false,
        factor: |n, _| n.sqrt(),
    },
    Score {
        name: "ria",
        summary: "relative importance within row and column (ICLR 2024); works without norms",
        formula: "(|w|/rowsum + |w|/colsum)^2 sqrt(n)",
        norms: NormsUse::Optional,
        sums_of_weights: true,
        // Two square roots rather than a power: IEEE rounds a square root correctly everywhere.
        factor: |n, _| n.sqrt().sqrt(),
    },
    Score {
        name: "magnitude",
        summary: "the weight alone",
        formula: "w^2",
        norms: NormsUse::Unused,
        sums_of_weights: false,
        factor: |_, _| 1.0,
    },
];

/// What is left of S without this feature; one feature that carries all must not divide by zero.
fn rest(n: f64, total: f64) -> f64 {
    (1.0 - n / total).max(0.001)
}

impl Score {
    /// The score of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        SCORES.iter().find(|score| score.name == name)
    }

    /// Whether its factors are those of an inverse Hessian: where there is one of more than rank one, that one gives them.
    #[must_use]
    pub fn has_inverse_hessian(&self) -> bool {
        std::ptr::eq(self, &SCORES[0])
    }

    /// Column factors `f_j` of one tensor, `[in_features]`, the largest 1.
    ///
    /// `norms` are the sums of squares `n_j` of the layer's input, finite and not negative. Without norms, or where the
    /// input was zero throughout (`S = 0`), every factor is 1, which is `magnitude` (or RIA without its last term).
    #[must_use]
    pub fn column_factors(&self, norms: Option<&[f32]>, in_features: usize) -> Vec<f32> {
        let total: f64 = norms
            .unwrap_or_default()
            .iter()
            .map(|&n| f64::from(n))
            .sum();
        let Some(norms) = norms.filter(|_| total > 0.0 && self.norms != NormsUse::Unused) else {
            return vec![1.0; in_features];
        };
        let factors: Vec<f64> = norms
            .iter()
            .map(|&n| (self.factor)(f64::from(n), total))
            .collect();
        let largest = factors.iter().copied().fold(0.0, f64::max);
        factors
            .iter()
            .map(|&factor| normal((factor / largest) as f32))
            .collect()
    }
}

/// The reciprocal terms of RIA from fixed-point sums of `|W|`: 0 where the sum is 0.
#[must_use]
pub(crate) fn reciprocal_terms(sums: &[u64]) -> Vec<f32> {
    sums.iter()
        .map(|&sum| {
            if sum == 0 {
                0.0
            } else {
                (0.5 / sum as f64) as f32
            }
        })
        .collect()
}

/// Zero for a factor that a device may flush to zero.
fn normal(factor: f32) -> f32 {
    if factor <= f32::MIN_POSITIVE {
        0.0
    } else {
        factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_factor_is_one_for_every_score() {
        for score in SCORES {
            let factors = score.column_factors(Some(&[4.0, 1.0, 0.25, 3.5]), 4);
            assert_eq!(
                factors.iter().copied().fold(0.0, f32::max),
                1.0,
                "{}",
                score.name
            );
        }
    }

    #[test]
    fn wanda_is_the_square_root_of_the_norm() {
        let wanda = Score::by_name("wanda").unwrap();
        assert_eq!(
            wanda.column_factors(Some(&[4.0, 1.0, 0.0]), 3),
            [1.0, 0.5, 0.0]
        );
    }

    #[test]
    fn one_feature_that_carries_all_stays_finite() {
        for score in SCORES {
            let factors = score.column_factors(Some(&[0.0, 5.0]), 2);
            assert!(
                factors.iter().all(|f| f.is_finite()),
                "{}: {factors:?}",
                score.name
            );
        }
    }

    #[test]
    fn an_input_of_zeros_falls_back_to_magnitude() {
        for score in SCORES {
            assert_eq!(
                score.column_factors(Some(&[0.0; 3]), 3),
                [1.0; 3],
                "{}",
                score.name
            );
        }
    }

    #[test]
    fn names_are_unique() {
        for (i, score) in SCORES.iter().enumerate() {
            assert!(std::ptr::eq(
                Score::by_name(score.name).unwrap(),
                &SCORES[i]
            ));
        }
    }
}
