//! What is kept of a layer's input: statistics of activations, each a list of numbers that adds up over sequences.
//!
//! Within a sequence they are added in f32 where the activations are, across sequences in f64 on the host, so that a long
//! calibration loses nothing to rounding. To add one: a file here with its definition and the CPU's half, a variant of
//! [`Statistic`], and the adapter's half in `forward/gpu/statistics.rs`.

mod column_norms;
mod column_sums;
mod sketch;
mod tokens;

use crate::model::{Architecture, DecoderBlock};
use crate::products;

/// A statistic of a layer's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statistic {
    /// The sum of squares of each feature.
    ColumnNorms,
    /// The sum of each feature.
    ColumnSums,
    /// How many tokens there were.
    Tokens,
    /// The sketch of so many columns.
    Sketch(usize),
}

impl Statistic {
    /// Numbers that it is made of, for an input of so many features.
    pub(super) fn len(self, in_features: usize) -> usize {
        match self {
            Self::ColumnNorms => column_norms::len(in_features),
            Self::ColumnSums => column_sums::len(in_features),
            Self::Tokens => tokens::LEN,
            Self::Sketch(rank) => sketch::len(in_features, rank),
        }
    }

    /// Its numbers for one sequence, `[tokens, in_features]` row-major.
    pub(super) fn of(self, x: &[f32], in_features: usize) -> Result<Vec<f32>, products::Error> {
        match self {
            Self::ColumnNorms => Ok(column_norms::of(x, in_features)),
            Self::ColumnSums => Ok(column_sums::of(x, in_features)),
            Self::Tokens => Ok(tokens::of(x, in_features)),
            Self::Sketch(rank) => sketch::of(x, in_features, rank),
        }
    }
}

/// Numbers that are observed of one sequence in one block.
pub(super) fn numbers(statistics: &[Statistic], block: &DecoderBlock) -> usize {
    let inputs = block.inputs().into_iter();
    let of_input = |in_features| statistics.iter().map(move |s| s.len(in_features));
    inputs
        .flat_map(|input| of_input(input.layers[0].in_features))
        .sum()
}

/// What was observed in every block, added up over sequences.
pub(super) struct StatisticSums {
    /// By block; in it by input, then by statistic.
    sums: Vec<Vec<f64>>,
}

impl StatisticSums {
    /// Nothing seen yet.
    pub(super) fn new(architecture: &Architecture) -> Self {
        Self {
            sums: vec![Vec::new(); architecture.blocks()],
        }
    }

    /// Adds what one sequence showed in a block.
    pub(super) fn add(&mut self, block: usize, observed: &[f32]) {
        let sums = &mut self.sums[block];
        if sums.is_empty() {
            sums.resize(observed.len(), 0.0);
        }
        debug_assert_eq!(sums.len(), observed.len(), "an input that is not observed");
        for (sum, &number) in sums.iter_mut().zip(observed) {
            *sum += f64::from(number);
        }
    }

    /// The numbers of a block, in the order in which they were observed. They are gone then.
    pub(super) fn take(&mut self, block: usize) -> Vec<f64> {
        std::mem::take(&mut self.sums[block])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_back_in_the_order_in_which_they_were_observed() {
        let mut sums = StatisticSums {
            sums: vec![Vec::new(); 2],
        };
        sums.add(1, &[1.0, 2.0, 3.0]);
        sums.add(1, &[1e-9, 2.0, 3.0]);
        assert_eq!(sums.take(1), [1.0 + f64::from(1e-9_f32), 4.0, 6.0]);
        assert!(sums.take(0).is_empty(), "nothing was observed");
    }
}
