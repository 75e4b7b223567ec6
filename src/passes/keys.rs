//! The order keys that have a meaning of their own, and the one rounding that the keys' arithmetic needs.

/// The bits of the smallest live score. Up to 2^-126 (`0x0080_0000`) a score has vanished: below it is no normal f32,
/// which a device may flush, and a product that only rounding lifts to it may be flushed before it is rounded.
pub(crate) const SMALLEST_LIVE: u32 = 0x0080_0001;

/// The order key of a NaN or an infinity; every live score is below it.
pub(crate) const NON_FINITE: u32 = 0x7f80_0000;

/// `x` rounded down, for `0 <= x < 2^23`.
///
/// Adding 2^23 leaves the nearest whole number in the mantissa; where that is the one above, one is taken off again.
/// Written out because a saturating conversion of a float (`as`) is not vectorised.
#[inline(always)]
pub(crate) fn whole(x: f32) -> i32 {
    const SHIFT: f32 = 8_388_608.0;
    let shifted = x + SHIFT;
    let nearest = (shifted.to_bits() - SHIFT.to_bits()) as i32;
    nearest - i32::from(shifted - SHIFT > x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whole_is_the_conversion_that_rounds_down(x in 0.0..8_388_607.9_f32, bits in 0..0x4b00_0000_u32) {
            for x in [x, x.round(), f32::from_bits(bits)] {
                prop_assert_eq!(whole(x), x as i32);
            }
        }
    }
}
