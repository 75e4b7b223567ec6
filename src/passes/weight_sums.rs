//! Pass 1, weight sums: `sum_i |W_ij|` for each column and `sum_j |W_ij|` for each row, which RIA needs.
//!
//! Sums are fixed point in 64 bits, so that the order of addition, and with it tiles, threads and devices, cannot matter.

use super::keys::NON_FINITE;
use super::params::entry_point;
use crate::dtype::Weight;
use crate::recipe::Sums;
use crate::shader::{EntryPoint, Shader, shader};

/// The pass by itself.
pub(crate) static ALONE: Shader = shader! {
    name: "weight_sums",
    summary: "sums of |W| for every column and every row, in fixed point",
    files: ["shared/params", "shared/decode", "passes/weight_sums", "entry/alone/weight_sums"],
    entry_points: [WEIGHT_SUMS],
};

pub(crate) static WEIGHT_SUMS: EntryPoint =
    entry_point!("weight_sums", 64, [Params, Weights, Result]);

/// Magnitudes above this count as this, so that 2^19 of them fit into 63 bits.
pub(crate) const LARGEST: f32 = 256.0;

/// A magnitude in fixed point, units of 2^-36, as two parts that 32-bit lanes can add up.
#[derive(Clone, Copy)]
struct Fixed {
    /// In units of 2^-14, to the nearest; from 0 to 2^22. Stored plus [`Self::HIGH`], for the sum to take off.
    high: u32,
    /// What is missing, in units of 2^-36 and rounded down; from -2^21 to 2^21.
    low: i32,
}

/// Rows, or columns, whose parts add up in 32 bits: 2^9 times 2^22, 2^9 times 2^21 of either sign.
const WITHIN_32_BITS: usize = 512;

impl Fixed {
    /// The bits of the float whose last place is worth 2^-14: added to a magnitude, it leaves it rounded to that.
    const HIGH: u32 = 512_f32.to_bits();

    /// `|w|` rounded down, for finite weights up to [`LARGEST`]. Each step but the two roundings is exact in f32.
    #[inline(always)]
    fn of(magnitude: f32) -> Self {
        const SHIFT: f32 = 12_582_912.0;
        let rounded = magnitude + f32::from_bits(Self::HIGH);
        let missing = magnitude - (rounded - f32::from_bits(Self::HIGH));
        let scaled = missing * f32::from_bits((127 + 36) << 23);
        let nearest = scaled + SHIFT;
        let low = (nearest.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
        Self {
            high: rounded.to_bits(),
            low: low - i32::from(nearest - SHIFT > scaled),
        }
    }

    /// The sum of so many, from the sums of their parts.
    #[inline(always)]
    fn join(count: u32, high: u32, low: i32) -> u64 {
        let high = high.wrapping_sub(count.wrapping_mul(Self::HIGH));
        (u64::from(high) << 22).wrapping_add_signed(i64::from(low))
    }
}

/// What a weight adds: nothing if it is not finite, and no more than [`LARGEST`].
#[inline(always)]
fn limited(magnitude_bits: u32) -> f32 {
    let magnitude = f32::from_bits(magnitude_bits);
    if magnitude_bits as i32 >= NON_FINITE as i32 {
        0.0
    } else {
        magnitude.min(LARGEST)
    }
}

/// Adds the magnitudes of whole rows, `[rows, in_features]`, to `sums.column`, and appends each row's own sum.
///
/// Parts are added in 32-bit lanes for as long as they fit, which is twice as many lanes as the sums have.
#[inline(always)]
pub(crate) fn rows<W: Weight>(weights: &[W], in_features: usize, sums: &mut Sums) {
    let (mut high, mut low) = (vec![0_u32; in_features], vec![0_i32; in_features]);
    for few in weights.chunks(in_features * WITHIN_32_BITS) {
        high.fill(0);
        low.fill(0);
        for row in few.chunks_exact(in_features) {
            let mut largest = 0;
            for weight in row {
                largest = weight.magnitude_bits().max(largest);
            }
            // Nearly every row there is.
            let sum = if largest <= LARGEST.to_bits() {
                add_row(row, f32::from_bits, &mut high, &mut low)
            } else {
                add_row(row, limited, &mut high, &mut low)
            };
            sums.row.push(sum);
        }
        let count = (few.len() / in_features) as u32;
        for ((sum, &high), &low) in sums.column.iter_mut().zip(&high).zip(&low) {
            *sum += Fixed::join(count, high, low);
        }
    }
}

/// Adds one row to the columns' parts and returns its own sum.
#[inline(always)]
fn add_row<W: Weight>(
    row: &[W],
    magnitude: impl Fn(u32) -> f32,
    high: &mut [u32],
    low: &mut [i32],
) -> u64 {
    let columns = high
        .chunks_mut(WITHIN_32_BITS)
        .zip(low.chunks_mut(WITHIN_32_BITS));
    let mut sum = 0;
    for (weights, (high, low)) in row.chunks(WITHIN_32_BITS).zip(columns) {
        let (mut high_here, mut low_here) = (0_u32, 0_i32);
        for ((&weight, high), low) in weights.iter().zip(high).zip(low) {
            let value = Fixed::of(magnitude(weight.magnitude_bits()));
            *high = high.wrapping_add(value.high);
            *low += value.low;
            high_here = high_here.wrapping_add(value.high);
            low_here += value.low;
        }
        sum += Fixed::join(weights.len() as u32, high_here, low_here);
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
            prop_assert_eq!(alone(bits), exact as u64);
        }

        #[test]
        fn small_magnitudes_too(magnitude in 0.0..1.0_f32, shift in 0..60_i32) {
            let bits = (magnitude * 2_f32.powi(-shift)).to_bits();
            let exact = (f64::from(f32::from_bits(bits)) * 2_f64.powi(36)).floor();
            prop_assert_eq!(alone(bits), exact as u64);
        }
    }

    /// The sum of one weight.
    fn alone(bits: u32) -> u64 {
        let mut sums = Sums {
            column: vec![0],
            row: Vec::new(),
        };
        rows(&[crate::dtype::F32(bits)], 1, &mut sums);
        assert_eq!(sums.column, sums.row);
        sums.row[0]
    }

    #[test]
    fn non_finite_weights_add_nothing() {
        for bits in [NON_FINITE, 0x7fff_ffff] {
            assert_eq!(alone(bits), 0);
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
