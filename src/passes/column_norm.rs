//! Pass 1, column norm: for every input feature one number, summed over the rows of a matrix.
//!
//! Here over the weights: `sum_i |W_ij|` for each column and `sum_j |W_ij|` for each row, which RIA needs. Sums are fixed
//! point in 64 bits, so that the order of addition, and with it tiles, threads and devices, cannot matter.

use super::{NON_FINITE, Pass, whole};
use crate::device::Sums;
use crate::dtype::Weight;

/// The pass's registry row.
pub const PASS: Pass = Pass {
    name: "column_norm",
    summary: "sums of |W| for every column and every row, in fixed point",
    wgsl: concat!(
        include_str!("../../shaders/shared/params.wgsl"),
        include_str!("../../shaders/shared/decode.wgsl"),
        include_str!("../../shaders/column_norm.wgsl"),
    ),
    entry_points: &["column_norm"],
};

/// Magnitudes above this count as this, so that 2^19 of them fit into 63 bits.
pub(crate) const LARGEST: f32 = 256.0;

/// A magnitude in fixed point, units of 2^-36, as two parts that 32-bit lanes can add up.
#[derive(Clone, Copy)]
struct Fixed {
    /// In units of 2^-14, at most 2^22.
    high: u32,
    /// In units of 2^-36, below 2^22.
    low: u32,
}

/// Rows, or columns, whose parts add up in 32 bits: 2^9 times 2^22.
const WITHIN_32_BITS: usize = 512;

impl Fixed {
    /// `|w|` rounded down; 0 for a non-finite weight.
    #[inline(always)]
    fn of(magnitude_bits: u32) -> Self {
        let bits = if magnitude_bits as i32 >= NON_FINITE as i32 {
            0
        } else {
            magnitude_bits
        };
        // Each step is exact in f32.
        let high_scaled = f32::from_bits(bits).min(LARGEST) * f32::from_bits((127 + 14) << 23);
        let high = whole(high_scaled);
        let low = whole((high_scaled - high as f32) * f32::from_bits((127 + 22) << 23));
        Self {
            high: high as u32,
            low: low as u32,
        }
    }

    /// The sum of parts that were added up apart.
    #[inline(always)]
    fn join(high: u32, low: u32) -> u64 {
        (u64::from(high) << 22) + u64::from(low)
    }
}

/// Adds the magnitudes of whole rows, `[rows, in_features]`, to `sums.column`, and appends each row's own sum.
///
/// Parts are added in 32-bit lanes for as long as they fit, which is twice as many lanes as the sums have.
#[inline(always)]
pub(crate) fn rows<W: Weight>(weights: &[W], in_features: usize, sums: &mut Sums) {
    let (mut high, mut low) = (vec![0_u32; in_features], vec![0_u32; in_features]);
    for few in weights.chunks(in_features * WITHIN_32_BITS) {
        high.fill(0);
        low.fill(0);
        for row in few.chunks_exact(in_features) {
            sums.row.push(add_row(row, &mut high, &mut low));
        }
        for ((sum, &high), &low) in sums.column.iter_mut().zip(&high).zip(&low) {
            *sum += Fixed::join(high, low);
        }
    }
}

/// Adds one row to the columns' parts and returns its own sum.
#[inline(always)]
fn add_row<W: Weight>(row: &[W], high: &mut [u32], low: &mut [u32]) -> u64 {
    let columns = high
        .chunks_mut(WITHIN_32_BITS)
        .zip(low.chunks_mut(WITHIN_32_BITS));
    let mut sum = 0;
    for (weights, (high, low)) in row.chunks(WITHIN_32_BITS).zip(columns) {
        let mut here = Fixed { high: 0, low: 0 };
        for ((&weight, high), low) in weights.iter().zip(high).zip(low) {
            let value = Fixed::of(weight.magnitude_bits());
            *high += value.high;
            *low += value.low;
            here.high += value.high;
            here.low += value.low;
        }
        sum += Fixed::join(here.high, here.low);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fixed_point_is_the_magnitude_times_two_to_the_36_rounded_down(bits in 0..NON_FINITE) {
            let exact = (f64::from(f32::from_bits(bits)).min(256.0) * 2_f64.powi(36)).floor();
            let fixed = Fixed::of(bits);
            prop_assert_eq!(Fixed::join(fixed.high, fixed.low), exact as u64);
        }
    }

    #[test]
    fn non_finite_weights_add_nothing() {
        for bits in [NON_FINITE, 0x7fff_ffff] {
            let fixed = Fixed::of(bits);
            assert_eq!(Fixed::join(fixed.high, fixed.low), 0);
        }
    }

    #[test]
    fn the_largest_weights_add_up_without_overflow_in_every_column_and_row() {
        let (rows_, in_features) = (2 * WITHIN_32_BITS + 1, WITHIN_32_BITS + 3);
        let weights = vec![crate::dtype::F32(f32::MAX.to_bits()); rows_ * in_features];
        let mut sums = Sums {
            column: vec![0; in_features],
            row: Vec::new(),
        };
        rows(&weights, in_features, &mut sums);
        assert_eq!(sums.column, vec![(rows_ as u64) << 44; in_features]);
        assert_eq!(sums.row, vec![(in_features as u64) << 44; rows_]);
    }
}
