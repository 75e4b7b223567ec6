//! What a device is asked: rows of weights, and the recipe by which they become a mask.
//!
//! The host does its part once a tensor, in f64: a score becomes [`Factors`]. What is left for a device is arithmetic that
//! comes out alike everywhere, without files, names or models.

use crate::dtype::Dtype;
use crate::scores::{self, Score, WeightsUse};
use crate::selection::Selection;
use crate::squares::Squares;

/// The most weights a row may have: what the sums' width and, with the smallest blocks, the dispatch sizes allow.
pub const MAX_IN_FEATURES: usize = 1 << 19;

/// Rows of weights: a whole matrix, or the part of one that fits a buffer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rows<'a> {
    /// How a weight is stored.
    pub dtype: Dtype,
    /// Weights a row.
    pub in_features: usize,
    /// Whole rows, row-major; aligned to the dtype's size.
    pub bytes: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Rows of `in_features` weights each: whole ones, in `bytes` aligned to the dtype's size.
    #[must_use]
    pub const fn new(dtype: Dtype, in_features: usize, bytes: &'a [u8]) -> Self {
        Self {
            dtype,
            in_features,
            bytes,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> usize {
        let row = self.in_features * self.dtype.size();
        match self.bytes.len().checked_div(row) {
            Some(rows) => rows,
            None => 0,
        }
    }
}

/// The host's part of the score of one tensor.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Factors {
    /// `f_j`, `[in_features]`.
    pub column: Vec<f32>,
    /// The terms of the scores that have them.
    pub terms: Option<Terms>,
    /// Whether it is the cube of `|w|` that is multiplied.
    pub cubed: bool,
}

/// What a factor has of a weight's row and of its column: `(r_i + c_j) f_j` in place of `f_j`.
#[derive(Clone, Debug)]
pub struct Terms {
    /// `c_j`, `[in_features]`.
    pub column: Vec<f32>,
    /// `r_i`, one for each row of the tensor.
    pub row: Vec<f32>,
}

/// How the rows of one tensor become a mask.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recipe {
    /// The rule.
    pub selection: Selection,
    /// The score.
    pub factors: Factors,
}

impl Factors {
    /// One factor a column, and the terms of a score that has them.
    #[must_use]
    pub const fn new(column: Vec<f32>, terms: Option<Terms>) -> Self {
        Self {
            column,
            terms,
            cubed: false,
        }
    }
}

impl Recipe {
    /// The recipe with these factors.
    #[must_use]
    pub const fn with_factors(selection: Selection, factors: Factors) -> Self {
        Self { selection, factors }
    }

    /// The recipe of a whole tensor with `in_features` weights a row: by this score, with the column norms if there are any,
    /// and with what the score takes of the weights. [`Score::column_factors`] says what is asked of norms.
    #[must_use]
    pub fn new(
        selection: Selection,
        score: &Score,
        in_features: usize,
        norms: Option<&[f32]>,
        weights: Option<&WeightStatistics>,
    ) -> Self {
        let squares = match weights {
            Some(WeightStatistics::Squares(squares)) => Some(squares),
            _ => None,
        };
        let terms = match weights {
            Some(WeightStatistics::Sums(sums)) => Some(Terms {
                column: scores::reciprocal_terms(&sums.column),
                row: scores::reciprocal_terms(&sums.row),
            }),
            Some(WeightStatistics::Squares(squares)) if score.weights.has_terms() => {
                let (column, row) = scores::cubed_terms(squares);
                Some(Terms { column, row })
            }
            _ => None,
        };
        Self {
            selection,
            factors: Factors {
                column: score.column_factors(norms, squares, in_features),
                terms,
                cubed: score.weights == WeightsUse::CubedNorms,
            },
        }
    }
}

/// A pass of a recipe, for tests and benchmarks: a recipe is one thing.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Weights to order keys.
    Score,
    /// Order keys to threshold keys, for the recipes that have them.
    Ewma,
    /// Keys to the mask.
    Select,
}

/// Fixed-point sums of `|W|`, in units of 2^-36.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Over the rows: `[in_features]`.
    pub column: Vec<u64>,
    /// Over the columns: one for each row.
    pub row: Vec<u64>,
}

/// What a score takes of all weights of a matrix: see [`WeightsUse`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WeightStatistics {
    /// The sums of `|W|`.
    Sums(Sums),
    /// The sums of squares, and the sizes.
    Squares(Squares),
}

impl WeightStatistics {
    /// Nothing yet; `None` for a score that takes nothing.
    #[must_use]
    pub(crate) fn nothing(score: &Score, out_features: usize, in_features: usize) -> Option<Self> {
        Some(match score.weights {
            WeightsUse::Unused => return None,
            WeightsUse::Sums => Self::Sums(Sums {
                column: vec![0; in_features],
                row: vec![0; out_features],
            }),
            WeightsUse::ColumnNorms | WeightsUse::CubedNorms => {
                Self::Squares(Squares::new(in_features))
            }
        })
    }

    /// Adds the rows of another part of the same matrix, which begin at `first`.
    pub(crate) fn add(&mut self, first: usize, part: &Self) {
        match (self, part) {
            (Self::Sums(sums), Self::Sums(part)) => {
                for (sum, part) in sums.column.iter_mut().zip(&part.column) {
                    *sum += part;
                }
                sums.row[first..first + part.row.len()].copy_from_slice(&part.row);
            }
            (Self::Squares(squares), Self::Squares(part)) => squares.add(first, part),
            _ => debug_assert!(false, "one matrix has one score"),
        }
    }
}
