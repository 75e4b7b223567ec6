//! Pass 1, column norm: for every input feature one number, summed over the rows of a matrix.
//!
//! Here over the weights: `sum_i |W_ij|` for each column and `sum_j |W_ij|` for each row, which RIA needs. Sums are fixed
//! point in 64 bits, so that the order of addition, and with it tiles, threads and devices, cannot matter.

use super::{NON_FINITE, Pass};
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

/// `|w|` in fixed point, rounded down; 0 for a non-finite weight.
#[inline(always)]
fn fixed(magnitude_bits: u32) -> u64 {
    let bits = if magnitude_bits as i32 >= NON_FINITE as i32 {
        0
    } else {
        magnitude_bits
    };
    let high_scaled = f32::from_bits(bits).min(LARGEST) * f32::from_bits((127 + 18) << 23);
    // Two 18-bit steps: each is exact in f32, and an f32 to i32 conversion is a vector instruction where one to 64
    // bits is not.
    let high = high_scaled as i32;
    let low = ((high_scaled - high as f32) * f32::from_bits((127 + 18) << 23)) as i32;
    (u64::from(high as u32) << 18) + u64::from(low as u32)
}

/// Adds one row's magnitudes to `column_sums` and returns the row's own sum.
///
/// Units: 2^-36. The slices are equally long.
#[inline(always)]
pub(crate) fn row<W: Weight>(weights: &[W], column_sums: &mut [u64]) -> u64 {
    let mut row_sum = 0;
    for (sum, &weight) in column_sums.iter_mut().zip(weights) {
        let value = fixed(weight.magnitude_bits());
        *sum += value;
        row_sum += value;
    }
    row_sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fixed_point_is_the_magnitude_times_two_to_the_36_rounded_down(bits in 0..NON_FINITE) {
            let exact = (f64::from(f32::from_bits(bits)).min(256.0) * 2_f64.powi(36)).floor();
            prop_assert_eq!(fixed(bits), exact as u64);
        }
    }

    #[test]
    fn non_finite_weights_add_nothing() {
        assert_eq!(fixed(NON_FINITE), 0);
        assert_eq!(fixed(0x7fff_ffff), 0);
    }
}
