//! A row as the 16-bit logarithms of its scores.

use crate::dtype::Weight;
use crate::passes::keys::{NON_FINITE, SMALLEST_LIVE};
use crate::passes::score::{order_key, value};

/// Logarithms are stored less this, as signed 16-bit numbers, which every CPU compares.
pub(super) const BIAS: i32 = 1 << 15;

/// The scores, nearly 64 octaves of them, that [`row`] can tell apart in 16 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// The bits of its lowest score, a multiple of 2^13.
    pub(crate) base: u32,
}

impl Span {
    /// Order keys from the lowest of the span up to the first that is above it. The last log, `i16::MAX`, stays free.
    const WIDTH: u32 = 0xffff << 13;

    /// The span for weights up to about 4 whose multiplier is at most `largest`.
    ///
    /// A score outside costs time, not correctness: trained weights are smaller, and 2^60 times the smallest one.
    pub(crate) fn below(largest: f32) -> Self {
        let top = (4.0 * largest).to_bits() & !0x1fff;
        // All of the span is live scores.
        let lowest = SMALLEST_LIVE.next_multiple_of(1 << 13);
        let highest = NON_FINITE - (1 << 29);
        Self {
            base: top.saturating_sub(Self::WIDTH).clamp(lowest, highest),
        }
    }

    /// How far above the span's lowest score; from [`Self::WIDTH`] up for one that is not in it.
    #[inline(always)]
    const fn above(self, order_key: u32) -> u32 {
        order_key.wrapping_sub(self.base)
    }
}

/// The upper bits of a [`Span::above`]: the score's logarithm, `q` of `docs/algorithm.md` but for a constant.
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
/// keys, since all of them are shifted alike; `None` for a row that has non-finite weights, or scores outside the span.
#[inline(always)]
pub(crate) fn row<const CUBED: bool, W: Weight>(
    weights: &[W],
    multipliers: impl Iterator<Item = f32> + Clone,
    span: Span,
    logs: &mut [i16],
) -> Option<Logs> {
    // As in `score::row`: whatever is not live lies outside the span.
    let mut highest = 0;
    for ((to, &weight), multiplier) in logs.iter_mut().zip(weights).zip(multipliers.clone()) {
        let score = value::<CUBED>(weight.magnitude_bits()) * multiplier;
        let above = span.above(score.to_bits());
        highest = above.max(highest);
        *to = log(above);
    }
    if highest < Span::WIDTH {
        return Some(Logs::Live);
    }
    let mut outside = false;
    for ((to, &weight), multiplier) in logs.iter_mut().zip(weights).zip(multipliers) {
        let key = order_key::<CUBED>(weight.magnitude_bits(), multiplier);
        let above = span.above(key);
        let is_live = key as i32 >= SMALLEST_LIVE as i32;
        outside |= is_live & !(2 << 13..Span::WIDTH).contains(&above);
        *to = if is_live {
            log(above)
        } else {
            i16::MIN + key as i16
        };
    }
    (!outside).then_some(Logs::WithGaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::F32;
    use crate::passes::score;
    use proptest::prelude::*;

    /// The order keys and the logarithms of the same row.
    fn both(weights: &[f32], multipliers: &[f32]) -> (Vec<u32>, Option<Logs>, Vec<i16>) {
        let weights: Vec<F32> = weights.iter().map(|w| F32(w.to_bits())).collect();
        let multipliers = multipliers.iter().copied();
        let (mut keys, mut found) = (vec![1; weights.len()], vec![1; weights.len()]);
        score::row::<false, _>(&weights, multipliers.clone(), &mut keys);
        let largest = multipliers.clone().fold(0.0, f32::max);
        let kind = row::<false, _>(&weights, multipliers, Span::below(largest), &mut found);
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
}
