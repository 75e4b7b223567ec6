//! What a device is asked: rows of weights, and the recipe by which they become a mask.
//!
//! The host does its part once a tensor, in f64: a score becomes [`Factors`]. What is left for a device is arithmetic that
//! comes out alike everywhere, without files, names or models.

use crate::dtype::Dtype;
use crate::scores::{self, Score};
use crate::selection::Selection;

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
    /// RIA's terms.
    pub terms: Option<Terms>,
}

/// RIA's reciprocal sums.
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
        Self { column, terms }
    }
}

impl Recipe {
    /// The recipe with these factors.
    #[must_use]
    pub const fn with_factors(selection: Selection, factors: Factors) -> Self {
        Self { selection, factors }
    }

    /// The recipe of a whole tensor with `in_features` weights a row: by this score, with the column norms and the sums
    /// of `|W|` if there are any. [`Score::column_factors`] says what is asked of norms; a score without terms has no use
    /// for sums.
    #[must_use]
    pub fn new(
        selection: Selection,
        score: &Score,
        in_features: usize,
        norms: Option<&[f32]>,
        sums: Option<&Sums>,
    ) -> Self {
        Self {
            selection,
            factors: Factors {
                column: score.column_factors(norms, in_features),
                terms: sums.map(|sums| Terms {
                    column: scores::reciprocal_terms(&sums.column),
                    row: scores::reciprocal_terms(&sums.row),
                }),
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
