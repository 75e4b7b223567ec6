//! Pass 2, score: from a weight and its column's factor to the order key, an integer that sorts as the score does.
//!
//! `|W_ij| * f_j` is one correctly rounded f32 multiply, the last floating-point operation whose rounding every device
//! must share. RIA's factor is `(r_i + c_j) * f_j`: an add and a multiply more, each followed by an integer operation
//! so that no compiler can fuse or reorder them.

use super::keys::{NON_FINITE, SMALLEST_LIVE};
use super::params::entry_point;
use crate::dtype::Weight;
use crate::shader::{EntryPoint, Shader};

/// The pass's registry row.
pub static PASS: Shader = Shader {
    name: "score",
    summary: "order key of every weight: the bits of |w| times its factor",
    wgsl: concat!(
        include_str!("../../shaders/shared/params.wgsl"),
        include_str!("../../shaders/shared/decode.wgsl"),
        include_str!("../../shaders/score.wgsl"),
        include_str!("../../shaders/alone/score.wgsl"),
    ),
    entry_points: &[&SCORE],
};

pub(crate) static SCORE: EntryPoint =
    entry_point!("score", 256, [Params, Weights, Factors, OrderKeys]);

/// Writes the order key of each weight of one row; returns whether all are live.
///
/// `multipliers[j]` is what `|W_ij|` is multiplied by: the column's factor, or RIA's [`with_terms`]. All are equally long.
#[inline(always)]
pub(crate) fn row<W: Weight>(
    weights: &[W],
    multipliers: impl Iterator<Item = f32> + Clone,
    keys: &mut [u32],
) -> bool {
    // Nearly every row of a model that was not pruned before has live scores only, whose bits are their keys. Whatever else
    // there is lies outside their range: zero, too small a score, a NaN of either sign, an infinity.
    let mut highest = 0;
    for ((key, &weight), multiplier) in keys.iter_mut().zip(weights).zip(multipliers.clone()) {
        *key = (f32::from_bits(weight.magnitude_bits()) * multiplier).to_bits();
        highest = key.wrapping_sub(SMALLEST_LIVE).max(highest);
    }
    if highest < NON_FINITE - SMALLEST_LIVE {
        return true;
    }
    for ((key, &weight), multiplier) in keys.iter_mut().zip(weights).zip(multipliers) {
        *key = order_key(weight.magnitude_bits(), multiplier);
    }
    false
}

/// RIA's multipliers of one row: `(row_term + column_terms[j]) * factors[j]`.
#[inline(always)]
pub(crate) fn with_terms(
    factors: &[f32],
    column_terms: &[f32],
    row_term: f32,
) -> impl Iterator<Item = f32> + Clone {
    let terms = factors.iter().zip(column_terms);
    terms.map(move |(&factor, &column_term)| with_term(factor, column_term, row_term))
}

/// RIA's multiplier of one weight.
#[inline(always)]
pub(crate) fn with_term(factor: f32, column_term: f32, row_term: f32) -> f32 {
    flush((row_term + column_term) * factor)
}

/// The 64 octaves of scores that [`logs`] can tell apart in 16 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// The bits of its lowest score, a multiple of 2^13.
    pub(crate) base: u32,
}

impl Window {
    /// Order keys from the lowest of the window up to the first that is above it. The last log, `i16::MAX`, stays free.
    const WIDTH: u32 = 0xffff << 13;

    /// The window for weights up to about 4 whose multiplier is at most `largest`.
    ///
    /// A score outside costs time, not correctness: trained weights are smaller, and 2^60 times the smallest one.
    pub(crate) fn below(largest: f32) -> Self {
        let top = (4.0 * largest).to_bits() & !0x1fff;
        // All of the window is live scores.
        let lowest = SMALLEST_LIVE.next_multiple_of(1 << 13);
        let highest = NON_FINITE - (1 << 29);
        Self {
            base: top.saturating_sub(Self::WIDTH).clamp(lowest, highest),
        }
    }

    /// How far above the window's lowest score; from [`Self::WIDTH`] up for one that is not in it.
    #[inline(always)]
    const fn above(self, order_key: u32) -> u32 {
        order_key.wrapping_sub(self.base)
    }
}

/// The upper bits of an [`Window::above`]: the score's logarithm, `q` of `docs/algorithm.md` but for a constant.
#[inline(always)]
const fn log(above: u32) -> i16 {
    ((above >> 13) as u16 ^ 0x8000) as i16
}

/// What a row's logarithms stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    /// Each for a live score.
    Live,
    /// The two lowest, `i16::MIN` and the next, for a weight that is zero and for a score that has vanished.
    WithGaps,
}

/// Writes the logarithm of each score of one row as 16 bits, from which `mean` and `|q - h|` come out as from the order
/// keys, since all of them are shifted alike; `None` for a row that has non-finite weights, or scores outside the window.
#[inline(always)]
pub(crate) fn logs<W: Weight>(
    weights: &[W],
    multipliers: impl Iterator<Item = f32> + Clone,
    window: Window,
    logs: &mut [i16],
) -> Option<Logs> {
    // As in `row`: whatever is not live lies outside the window.
    let mut highest = 0;
    for ((to, &weight), multiplier) in logs.iter_mut().zip(weights).zip(multipliers.clone()) {
        let score = f32::from_bits(weight.magnitude_bits()) * multiplier;
        let above = window.above(score.to_bits());
        highest = above.max(highest);
        *to = log(above);
    }
    if highest < Window::WIDTH {
        return Some(Logs::Live);
    }
    let mut outside = false;
    for ((to, &weight), multiplier) in logs.iter_mut().zip(weights).zip(multipliers) {
        let key = order_key(weight.magnitude_bits(), multiplier);
        let above = window.above(key);
        let is_live = key as i32 >= SMALLEST_LIVE as i32;
        outside |= is_live & !(2 << 13..Window::WIDTH).contains(&above);
        *to = if is_live {
            log(above)
        } else {
            i16::MIN + key as i16
        };
    }
    (!outside).then_some(Logs::WithGaps)
}

/// The order key of a weight whose magnitude has these bits.
#[inline(always)]
pub(crate) fn order_key(magnitude: u32, multiplier: f32) -> u32 {
    let score = (f32::from_bits(magnitude) * multiplier).to_bits();
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
    use proptest::prelude::*;

    fn key(weight: f32, factor: f32) -> u32 {
        let mut keys = [0xdead_beef];
        row(&[F32(weight.to_bits())], [factor].into_iter(), &mut keys);
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

    /// The order keys and the logarithms of the same row.
    fn both(weights: &[f32], multipliers: &[f32]) -> (Vec<u32>, Option<Logs>, Vec<i16>) {
        let weights: Vec<F32> = weights.iter().map(|w| F32(w.to_bits())).collect();
        let multipliers = multipliers.iter().copied();
        let (mut keys, mut found) = (vec![1; weights.len()], vec![1; weights.len()]);
        row(&weights, multipliers.clone(), &mut keys);
        let largest = multipliers.clone().fold(0.0, f32::max);
        let kind = logs(&weights, multipliers, Window::below(largest), &mut found);
        (keys, kind, found)
    }

    proptest! {
        #[test]
        fn logarithms_are_the_order_keys_upper_bits_shifted_alike(
            row in prop::collection::vec(
                (prop_oneof![9 => -8.0..8.0_f32, 9 => -1e-9..1e-9_f32, 1 => Just(0.0), 1 => any::<f32>()], 0.0..1.0_f32),
                1..40,
            ),
            scale in prop_oneof![Just(1.0_f32), Just(2.0_f32.powi(-42)), Just(0.0)],
        ) {
            let (weights, multipliers): (Vec<f32>, Vec<f32>) = row.iter().map(|&(w, f)| (w, f * scale)).unzip();
            let (keys, kind, found) = both(&weights, &multipliers);
            let live = |key: u32| (SMALLEST_LIVE..NON_FINITE).contains(&key);
            if kind == Some(Logs::Live) {
                prop_assert!(keys.iter().all(|&key| live(key)));
            }
            if kind.is_some() {
                let shift = |(&key, &log): (&u32, &i16)| (key >> 13) as i32 - i32::from(log);
                let mut shifts = keys.iter().zip(&found).filter(|&(&key, _)| live(key)).map(shift);
                let first = shifts.next();
                prop_assert!(shifts.all(|shift| Some(shift) == first));
                for (&key, &log) in keys.iter().zip(&found) {
                    prop_assert!(key != NON_FINITE);
                    prop_assert!(live(key) || log == i16::MIN + key as i16);
                    prop_assert!(!live(key) || kind == Some(Logs::Live) || log >= i16::MIN + 2);
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_keys_whatever_else_is_in_it() {
        let weights = [0.5, 3.0, 1e-3].map(|w: f32| F32(w.to_bits()));
        let odd = [0.0, f32::NAN, -f32::NAN, f32::INFINITY, 1e-38, f32::MAX];
        let mut expected = [0; 3];
        let factors = [1.0, 0.25, 1.0].into_iter();
        assert!(row(&weights, factors.clone(), &mut expected));
        for (odd, factor) in odd
            .into_iter()
            .flat_map(|w| [(w, 1.0), (w, 0.0), (w, 1e-3)])
        {
            let with = [weights[0], weights[1], weights[2], F32(odd.to_bits())];
            let mut keys = [0; 4];
            let all_live = row(&with, factors.clone().chain([factor]), &mut keys);
            assert_eq!(keys[..3], expected, "{odd} * {factor}");
            assert_eq!(keys[3], order_key(odd.to_bits() & 0x7fff_ffff, factor));
            assert_eq!(all_live, (SMALLEST_LIVE..NON_FINITE).contains(&keys[3]));
        }
    }

    #[test]
    fn ordinary_rows_have_logarithms_and_odd_ones_have_none() {
        let kind = |weights: &[f32]| both(weights, &vec![1.0; weights.len()]).1;
        assert_eq!(kind(&[0.02, -1e-6, 3.9]), Some(Logs::Live));
        assert_eq!(kind(&[0.02, 0.0, -0.0]), Some(Logs::WithGaps));
        assert_eq!(kind(&[0.02, 1e-39]), Some(Logs::WithGaps));
        for odd in [f32::NAN, -f32::NAN, f32::INFINITY, 1e-30, 1e30] {
            assert_eq!(kind(&[0.02, odd]), None, "{odd}");
        }
        // A NaN that the multiplication makes.
        assert_eq!(both(&[1.0, f32::INFINITY], &[1.0, 0.0]).1, None);
    }

    #[test]
    fn a_score_of_at_most_the_smallest_normal_float_has_vanished() {
        assert_eq!(key(f32::MIN_POSITIVE, 1.0), 1);
        assert_eq!(key(f32::MIN_POSITIVE, 0.5), 1);
        assert_eq!(key(f32::from_bits(1), 1.0), 1);
    }
}
