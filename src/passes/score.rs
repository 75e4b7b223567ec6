//! Pass 2, score: from a weight and its column's factor to the order key, an integer that sorts as the score does.
//!
//! `|W_ij| * f_j` is one correctly rounded f32 multiply. The factor of RIA and Z-Pruner is `(r_i + c_j) * f_j`: an add and a
//! multiply before it; Z-Pruner's weight is cubed by two more multiplies. In a shader an integer operation follows each, so
//! that no float operation takes the result of another and no compiler can fuse or reorder them.

use super::keys::{NON_FINITE, SMALLEST_LIVE};
use super::params::entry_point;
use crate::dtype::Weight;
use crate::shader::{EntryPoint, Shader, shader};

/// The pass by itself.
pub(crate) static ALONE: Shader = shader! {
    name: "score",
    summary: "order key of every weight: the bits of |w| times its factor",
    files: ["shared/params", "shared/decode", "passes/score", "entry/alone/score"],
    entry_points: [SCORE],
};

pub(crate) static SCORE: EntryPoint =
    entry_point!("score", 256, [Params, Weights, Factors, OrderKeys]);

/// Writes the order key of each weight of one row; returns whether all are live.
///
/// `multipliers[j]` is what the [`value`] of a weight is multiplied by: the column's factor, or one [`with_terms`]. All are
/// equally long.
#[inline(always)]
pub(crate) fn row<const CUBED: bool, W: Weight>(
    weights: &[W],
    multipliers: impl Iterator<Item = f32> + Clone,
    keys: &mut [u32],
) -> bool {
    // Nearly every row of a model that was not pruned before has live scores only, whose bits are their keys. Whatever else
    // there is lies outside their range: zero, too small a score, a NaN of either sign, an infinity.
    let mut highest = 0;
    for ((key, &weight), multiplier) in keys.iter_mut().zip(weights).zip(multipliers.clone()) {
        *key = (value::<CUBED>(weight.magnitude_bits()) * multiplier).to_bits();
        highest = key.wrapping_sub(SMALLEST_LIVE).max(highest);
    }
    if highest < NON_FINITE - SMALLEST_LIVE {
        return true;
    }
    for ((key, &weight), multiplier) in keys.iter_mut().zip(weights).zip(multipliers) {
        *key = order_key::<CUBED>(weight.magnitude_bits(), multiplier);
    }
    false
}

/// The magnitudes that are cubed are limited to this: 256.
const LARGEST_CUBED: u32 = 256_f32.to_bits();

/// What is multiplied: the magnitude, or its cube. What is not finite stays so.
#[inline(always)]
pub(crate) fn value<const CUBED: bool>(magnitude: u32) -> f32 {
    if !CUBED {
        return f32::from_bits(magnitude);
    }
    let is_finite = (magnitude as i32) < NON_FINITE as i32;
    let limited = f32::from_bits(if is_finite {
        magnitude.min(LARGEST_CUBED)
    } else {
        magnitude
    });
    flush(flush(limited * limited) * limited)
}

/// The multipliers of one row, of a score with terms: `(row_term + column_terms[j]) * factors[j]`.
#[inline(always)]
pub(crate) fn with_terms(
    factors: &[f32],
    column_terms: &[f32],
    row_term: f32,
) -> impl Iterator<Item = f32> + Clone {
    let terms = factors.iter().zip(column_terms);
    terms.map(move |(&factor, &column_term)| with_term(factor, column_term, row_term))
}

/// The multiplier of one weight, of a score with terms.
#[inline(always)]
pub(crate) fn with_term(factor: f32, column_term: f32, row_term: f32) -> f32 {
    flush((row_term + column_term) * factor)
}

/// The order key of a weight whose magnitude has these bits.
#[inline(always)]
pub(crate) fn order_key<const CUBED: bool>(magnitude: u32, multiplier: f32) -> u32 {
    let score = (value::<CUBED>(magnitude) * multiplier).to_bits();
    // Selects rather than branches, and signed compares (baseline x86-64 has no unsigned ones): it vectorises.
    let vanished = i32::from(magnitude as i32 != 0) as u32;
    let finite = if (score as i32) < SMALLEST_LIVE as i32 {
        vanished
    } else {
        score
    };
    if magnitude as i32 >= NON_FINITE as i32 {
        NON_FINITE
    } else {
        finite
    }
}

/// Zero for a result that a device may flush.
#[inline(always)]
fn flush(factor: f32) -> f32 {
    if factor.to_bits() < SMALLEST_LIVE {
        0.0
    } else {
        factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::F32;

    fn key(weight: f32, factor: f32) -> u32 {
        let mut keys = [0xdead_beef];
        row::<false, _>(&[F32(weight.to_bits())], [factor].into_iter(), &mut keys);
        keys[0]
    }

    #[test]
    fn zeros_come_before_vanished_scores_before_live_ones_before_non_finite_weights() {
        let ordered = [
            key(-0.0, 1.0),
            key(1.0, 0.0),
            key(f32::MIN_POSITIVE * 1.001, 1.0),
            key(-1.0, 0.5),
            key(f32::MAX, 1.0),
            key(f32::NAN, 0.0),
        ];
        assert!(ordered.is_sorted_by(|a, b| a < b), "{ordered:x?}");
        assert_eq!(key(0.0, 1.0), 0);
        assert_eq!(key(f32::NEG_INFINITY, 1.0), NON_FINITE);
    }

    #[test]
    fn a_row_has_the_same_keys_whatever_else_is_in_it() {
        let weights = [0.5, 3.0, 1e-3].map(|w: f32| F32(w.to_bits()));
        let odd = [0.0, f32::NAN, -f32::NAN, f32::INFINITY, 1e-38, f32::MAX];
        let mut expected = [0; 3];
        let factors = [1.0, 0.25, 1.0].into_iter();
        assert!(row::<false, _>(&weights, factors.clone(), &mut expected));
        for (odd, factor) in odd
            .into_iter()
            .flat_map(|w| [(w, 1.0), (w, 0.0), (w, 1e-3)])
        {
            let with = [weights[0], weights[1], weights[2], F32(odd.to_bits())];
            let mut keys = [0; 4];
            let all_live = row::<false, _>(&with, factors.clone().chain([factor]), &mut keys);
            assert_eq!(keys[..3], expected, "{odd} * {factor}");
            assert_eq!(
                keys[3],
                order_key::<false>(odd.to_bits() & 0x7fff_ffff, factor)
            );
            assert_eq!(all_live, (SMALLEST_LIVE..NON_FINITE).contains(&keys[3]));
        }
    }

    #[test]
    fn a_cube_is_rounded_twice_and_is_of_256_at_most() {
        let cube = |weight: f32| value::<true>(weight.to_bits());
        assert_eq!(cube(3.0), 27.0);
        assert_eq!(cube(f32::MAX), 256.0_f32.powi(3));
        assert_eq!(cube(2.0_f32.powi(-42)), 0.0);
        assert_eq!(
            cube(2.0_f32.powi(-42) * 1.01),
            (2.0_f32.powi(-84) * (1.01 * 1.01)) * (2.0_f32.powi(-42) * 1.01)
        );
        assert_eq!(cube(f32::INFINITY), f32::INFINITY);
        assert!(cube(f32::NAN).is_nan());
        let mut keys = [0; 3];
        let weights = [f32::NAN, f32::INFINITY, 0.0].map(|w: f32| F32(w.to_bits()));
        assert!(!row::<true, _>(
            &weights,
            [0.5, 0.0, 1.0].into_iter(),
            &mut keys
        ));
        assert_eq!(keys, [NON_FINITE, NON_FINITE, 0]);
    }

    #[test]
    fn a_score_of_at_most_the_smallest_normal_float_has_vanished() {
        assert_eq!(key(f32::MIN_POSITIVE, 1.0), 1);
        assert_eq!(key(f32::MIN_POSITIVE, 0.5), 1);
        assert_eq!(key(f32::from_bits(1), 1.0), 1);
    }
}
