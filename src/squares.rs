//! Sums of squares of the weights, and how many weights there are of each size: what some scores take of a whole matrix.
//!
//! The host counts them, whatever device prunes. Sums are integers, so that the order of addition cannot matter.

use crate::dtype::{Dtype, Weight, with_weights};
use crate::simd::widest;

/// Sums of squares in units of 2^-60, of weights limited to 256 (as sums of `|W|` are); non-finite weights add nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Squares {
    /// Over the rows: `[in_features]`.
    pub column: Vec<u128>,
    /// Over the columns: one for each row.
    pub row: Vec<u128>,
    /// Finite weights by the upper 16 bits of `|w|` as f32, `[32640]`.
    pub sizes: Vec<u64>,
}

/// Magnitudes above this count as this.
const LARGEST: f64 = 256.0;
/// Upper halves of the f32 that are finite and not negative.
const SIZES: usize = 0x7f80;

impl Squares {
    /// Nothing yet, of so many columns.
    #[must_use]
    pub fn new(in_features: usize) -> Self {
        Self {
            column: vec![0; in_features],
            row: Vec::new(),
            sizes: vec![0; SIZES],
        }
    }

    /// Of these rows, `[rows, in_features]` row-major; `bytes` are aligned to the dtype's size.
    #[must_use]
    pub fn of(dtype: Dtype, in_features: usize, bytes: &[u8]) -> Self {
        let mut squares = Self::new(in_features);
        if in_features > 0 {
            with_weights!(dtype, bytes, cast_slice, |weights| {
                widest(
                    #[inline(always)]
                    || squares.add_rows(weights, in_features),
                );
            });
        }
        squares
    }

    /// Adds the rows of another part of the same matrix to the columns and the sizes; its own rows begin at `first`.
    pub fn add(&mut self, first: usize, part: &Self) {
        for (sum, part) in self.column.iter_mut().zip(&part.column) {
            *sum += part;
        }
        for (count, part) in self.sizes.iter_mut().zip(&part.sizes) {
            *count += part;
        }
        let end = first + part.row.len();
        if self.row.len() < end {
            self.row.resize(end, 0);
        }
        self.row[first..end].copy_from_slice(&part.row);
    }

    /// All of it.
    #[must_use]
    pub(crate) fn total(&self) -> u128 {
        self.row.iter().sum()
    }

    /// The fraction of weights whose size is below that of a tenth of their mean.
    #[must_use]
    pub(crate) fn near_zero(&self) -> f64 {
        let counted = || self.sizes.iter().enumerate();
        let weights: u64 = self.sizes.iter().sum();
        let value = |size: usize| f64::from(f32::from_bits((size as u32) << 16));
        let sum: f64 = counted().map(|(size, &n)| n as f64 * value(size)).sum();
        let limit = (0.1 * (sum / weights.max(1) as f64)) as f32;
        let below = (limit.to_bits() >> 16) as usize;
        let below: u64 = counted()
            .take_while(|&(size, _)| size < below)
            .map(|(_, n)| n)
            .sum();
        below as f64 / weights.max(1) as f64
    }

    #[inline(always)]
    fn add_rows<W: Weight>(&mut self, weights: &[W], in_features: usize) {
        // A square has 48 bits at most, so that every step is exact: units of 2^-20, and what is missing in units of 2^-60.
        let mut column = vec![[0_u64; 2]; in_features];
        for row in weights.chunks_exact(in_features) {
            let mut sum = [0_u64; 2];
            for (weight, column) in row.iter().zip(&mut column) {
                let bits = weight.magnitude_bits();
                let size = (bits >> 16) as usize;
                let is_finite = size < SIZES;
                let magnitude = f64::from(f32::from_bits(bits)).min(LARGEST);
                let magnitude = if is_finite { magnitude } else { 0.0 };
                let scaled = magnitude * magnitude * f64::from(1 << 20);
                let whole = scaled as u64;
                let rest = ((scaled - whole as f64) * (1_u64 << 40) as f64) as u64;
                sum[0] += whole;
                sum[1] += rest;
                column[0] += whole;
                column[1] += rest;
                if is_finite {
                    self.sizes[size] += 1;
                }
            }
            self.row.push(joined(sum));
        }
        for (sum, part) in self.column.iter_mut().zip(column) {
            *sum += joined(part);
        }
    }
}

/// A sum from its parts.
fn joined([whole, rest]: [u64; 2]) -> u128 {
    (u128::from(whole) << 40) + u128::from(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(weights: &[f32], in_features: usize) -> Squares {
        Squares::of(Dtype::F32, in_features, bytemuck::cast_slice(weights))
    }

    proptest! {
        #[test]
        fn a_square_is_rounded_down_to_units_of_two_to_the_minus_60(bits in 0..0x7f80_0000_u32) {
            let w = f32::from_bits(bits);
            let exact = (f64::from(w).min(256.0).powi(2) * 2_f64.powi(60)).floor() as u128;
            prop_assert_eq!(&of(&[w], 1).row, &[exact]);
            prop_assert_eq!(&of(&[-w], 1).column, &[exact]);
        }

        #[test]
        fn parts_add_up_to_the_whole(weights in prop::collection::vec(-2.0..2.0_f32, 12), split in 0..=4_usize) {
            let whole = of(&weights, 3);
            let (first, rest) = weights.split_at(3 * split);
            let mut sum = Squares::new(3);
            sum.add(split, &of(rest, 3));
            sum.add(0, &of(first, 3));
            prop_assert_eq!(sum, whole);
        }
    }

    #[test]
    fn the_largest_add_up_without_overflow_and_non_finite_weights_add_nothing() {
        let found = of(&[f32::MAX, f32::NAN, f32::INFINITY, 3.0], 4);
        let units = |w: u128| (w * w) << 60;
        assert_eq!(found.row, [units(256) + units(3)]);
        assert_eq!(found.sizes.iter().sum::<u64>(), 2);
        let rows = vec![f32::MAX; 5000];
        assert_eq!(of(&rows, 1).column, [5000 * units(256)]);
        assert_eq!(of(&rows, 5000).row, [5000 * units(256)]);
    }

    #[test]
    fn weights_below_a_tenth_of_the_mean_are_near_zero() {
        assert_eq!(of(&[0.0, 1.0, 1.0, -2.0], 4).near_zero(), 0.25);
        assert_eq!(of(&[1.0, 1.0], 2).near_zero(), 0.0);
        assert_eq!(of(&[0.0; 4], 2).near_zero(), 0.0, "the mean is zero");
        assert_eq!(of(&[], 2).near_zero(), 0.0);
    }
}
