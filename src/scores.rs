//! The scores: how important a weight is, as one factor per column (and one per row for RIA and Z-Pruner).
//!
//! Every score is `|W_ij|` times a factor that the host computes once a tensor, in f64 (for Z-Pruner, `|W_ij|^3`). So the passes know nothing of
//! scores, and a new one is a function here and a row of [`SCORES`], which the command line, the help and the tests
//! iterate. The formulas and where they come from: `docs/algorithm.md`.

use crate::squares::Squares;

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

/// What a score takes of the matrix's weights beside the weight itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightsUse {
    /// Nothing.
    Unused,
    /// The sums of `|W|` over its row and its column, as two reciprocal terms that are added (RIA).
    Sums,
    /// The norm of its column, `sqrt(sum_i W_ij^2)`, which the factor is divided by (NoWag).
    ColumnNorms,
    /// The norms of its row and its column, as two terms that are added; and the weight is cubed (Z-Pruner).
    CubedNorms,
}

impl WeightsUse {
    /// Whether it takes sums of squares.
    #[must_use]
    pub const fn needs_squares(self) -> bool {
        matches!(self, Self::ColumnNorms | Self::CubedNorms)
    }

    /// Whether each weight's factor has a term of its row and one of its column.
    #[must_use]
    pub const fn has_terms(self) -> bool {
        matches!(self, Self::Sums | Self::CubedNorms)
    }
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
    /// Whether the norms are taken about the mean of each input, `n_j - t m_j^2` over `t` tokens with the mean `m_j`.
    pub about_mean: bool,
    /// What it takes of the other weights.
    pub weights: WeightsUse,
    /// Column factors, up to scale, from `n_j` and `S`; called only with norms and `S > 0`.
    factor: fn(n: f64, total: f64) -> f64,
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// Every score, the default first.
pub static SCORES: &[Score] = &[
    Score {
        name: "swiftprune",
        summary: "contribution to the layer's output, corrected for what the other weights can take over",
        formula: "w^2 n / (1 - n/S)",
        norms: NormsUse::Required,
        about_mean: false,
        weights: WeightsUse::Unused,
        factor: |n, total| (n / rest(n, total)).sqrt(),
    },
    Score {
        name: "swiftprune-weight",
        summary: "the same correction, in weight space",
        formula: "w^2 / (1 - n/S)",
        norms: NormsUse::Required,
        about_mean: false,
        weights: WeightsUse::Unused,
        factor: |n, total| (1.0 / rest(n, total)).sqrt(),
    },
    Score {
        name: "wanda",
        summary: "weight times the norm of its input (arXiv 2306.11695)",
        formula: "w^2 n",
        norms: NormsUse::Required,
        about_mean: false,
        weights: WeightsUse::Unused,
        factor: |n, _| n.sqrt(),
    },
    Score {
        name: "ria",
        summary: "relative importance within row and column (ICLR 2024); works without norms",
        formula: "(|w|/rowsum + |w|/colsum)^2 sqrt(n)",
        norms: NormsUse::Optional,
        about_mean: false,
        weights: WeightsUse::Sums,
        // Two square roots rather than a power: IEEE rounds a square root correctly everywhere.
        factor: |n, _| n.sqrt().sqrt(),
    },
    Score {
        name: "magnitude",
        summary: "the weight alone",
        formula: "w^2",
        norms: NormsUse::Unused,
        about_mean: false,
        weights: WeightsUse::Unused,
        factor: |_, _| 1.0,
    },
    Score {
        name: "stade",
        summary: "weight times the standard deviation of its input (arXiv 2503.22451)",
        formula: "w^2 (n - t m^2)",
        norms: NormsUse::Required,
        about_mean: true,
        weights: WeightsUse::Unused,
        factor: |n, _| n.sqrt(),
    },
    Score {
        name: "nowag",
        summary: "weight normalised by its column, then by its row, times the norm of its input (arXiv 2504.14569)",
        formula: "w^2 n / (colsum of w^2)",
        norms: NormsUse::Optional,
        about_mean: false,
        // The norm of the row is the same for all that is compared.
        weights: WeightsUse::ColumnNorms,
        factor: |n, _| n.sqrt(),
    },
    Score {
        name: "z-pruner",
        summary: "cubed z-scores within row and column (arXiv 2508.15828)",
        formula: "(a |w/rownorm|^3 sqrt(columns)^3 + (1-a) |w/colnorm|^3 sqrt(rows)^3) n^(3/4), a = 0.7 (1 - 0.3 f)",
        norms: NormsUse::Optional,
        about_mean: false,
        weights: WeightsUse::CubedNorms,
        factor: |n, _| n.sqrt() * n.sqrt().sqrt(),
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
    ///
    /// `squares` are those of the whole matrix, for [`WeightsUse::ColumnNorms`]; a column of zeros has the factor 0.
    #[must_use]
    pub fn column_factors(
        &self,
        norms: Option<&[f32]>,
        squares: Option<&Squares>,
        in_features: usize,
    ) -> Vec<f32> {
        let total: f64 = norms
            .unwrap_or_default()
            .iter()
            .map(|&n| f64::from(n))
            .sum();
        let norms = norms.filter(|_| total > 0.0 && self.norms != NormsUse::Unused);
        let squares = squares.filter(|_| self.weights == WeightsUse::ColumnNorms);
        if norms.is_none() && squares.is_none() {
            return vec![1.0; in_features];
        }
        let factor = |column: usize| {
            let own = norms.map_or(1.0, |norms| (self.factor)(f64::from(norms[column]), total));
            match squares.map(|squares| squares.column[column]) {
                Some(0) => 0.0,
                Some(square) => own / (square as f64).sqrt(),
                None => own,
            }
        };
        let factors: Vec<f64> = (0..in_features).map(factor).collect();
        let largest = factors.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 {
            return vec![0.0; in_features];
        }
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

/// Z-Pruner's terms from sums of squares: `a (R_i^2 / mean)^(-3/2)` of each row and `(1 - a) (C_j^2 / mean)^(-3/2)` of each
/// column, where the means are those over rows and columns, and `a = 0.7 (1 - 0.3 f)`. 0 where the sum is 0, and at most
/// 2^40.
///
/// The paper cubes `(W_ij / R_i) / s`, where `s` is the standard deviation of the normalised matrix; about a mean of zero it is
/// `1 / sqrt(in_features)`. The cubes of both quotients have these terms, times `|W_ij|^3` and a constant.
#[must_use]
pub(crate) fn cubed_terms(squares: &Squares) -> (Vec<f32>, Vec<f32>) {
    const LARGEST: f64 = (1_u64 << 40) as f64;
    let total = squares.total() as f64;
    let of_rows = 0.7 * (1.0 - 0.3 * squares.near_zero());
    let terms = |sums: &[u128], share: f64| {
        let term = |&sum: &u128| {
            if sum == 0 {
                return 0.0;
            }
            let relative = sum as f64 * sums.len() as f64 / total;
            (share / (relative * relative.sqrt())).min(LARGEST) as f32
        };
        sums.iter().map(term).collect()
    };
    (
        terms(&squares.column, 1.0 - of_rows),
        terms(&squares.row, of_rows),
    )
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
            let factors = score.column_factors(Some(&[4.0, 1.0, 0.25, 3.5]), None, 4);
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
            wanda.column_factors(Some(&[4.0, 1.0, 0.0]), None, 3),
            [1.0, 0.5, 0.0]
        );
    }

    #[test]
    fn one_feature_that_carries_all_stays_finite() {
        for score in SCORES {
            let factors = score.column_factors(Some(&[0.0, 5.0]), None, 2);
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
                score.column_factors(Some(&[0.0; 3]), None, 3),
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

    #[test]
    fn nowag_divides_by_the_norm_of_the_column() {
        let nowag = Score::by_name("nowag").unwrap();
        let weights = [3.0_f32, 0.5, 0.0, 4.0, 0.0, 0.0];
        let squares = Squares::of(crate::Dtype::F32, 3, bytemuck::cast_slice(&weights));
        // Column norms 5, 1/2, 0; roots of the norms 4, 1, 1.
        let factors = nowag.column_factors(Some(&[16.0, 1.0, 1.0]), Some(&squares), 3);
        assert_eq!(factors, [0.4, 1.0, 0.0]);
        assert_eq!(
            nowag.column_factors(None, Some(&squares), 3),
            [0.1, 1.0, 0.0]
        );
    }

    #[test]
    fn terms_of_z_scores_are_the_share_where_all_weights_are_alike_and_fall_with_the_cube_of_the_norm()
     {
        let terms = |weights: &[f32]| {
            cubed_terms(&Squares::of(
                crate::Dtype::F32,
                2,
                bytemuck::cast_slice(weights),
            ))
        };
        let (columns, rows) = terms(&[0.5; 6]);
        assert_eq!((columns, rows), (vec![0.3; 2], vec![0.7; 3]));
        // The second row is twice the first, the third is dead.
        let (_, rows) = terms(&[1.0, -1.0, 2.0, 2.0, 0.0, 0.0]);
        assert_eq!(rows[0], 8.0 * rows[1]);
        assert_eq!(rows[2], 0.0);
        let (columns, rows) = terms(&[0.0; 4]);
        assert_eq!((columns, rows), (vec![0.0; 2], vec![0.0; 2]));
        assert_eq!(terms(&[1e-9, 100.0]).0[0], (1_u64 << 40) as f32);
    }
}
