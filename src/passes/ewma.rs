//! Pass 3, block-wise EWMA: from order keys to threshold keys, each score normalised by the running mean and mean
//! absolute deviation, its own block included.
//!
//! This is the round-trip-time estimator of TCP along a row: per block of columns the mean and deviation of the scores'
//! logarithms, smoothed with a gain of 1/8. Everything is integer arithmetic but one exact-operand multiply; the widths
//! are in `docs/algorithm.md`.

use super::keys::{NON_FINITE, SMALLEST_LIVE, whole};
use super::params::entry_point;
use crate::selection::Ewma;
use crate::shader::{EntryPoint, Shader, shader};

/// The pass by itself.
pub(crate) static ALONE: Shader = shader! {
    name: "ewma",
    summary: "threshold key of every weight: its score against the EWMA of its blocks",
    files: ["shared/params", "passes/ewma", "entry/alone/ewma"],
    entry_points: [BLOCK_STATISTICS, MOVING_AVERAGE, NORMALISE],
};

pub(crate) static BLOCK_STATISTICS: EntryPoint =
    entry_point!("block_statistics", 256, [Params, Averages, OrderKeys]);
pub(crate) static MOVING_AVERAGE: EntryPoint =
    entry_point!("moving_average", 64, [Params, Averages]);
pub(crate) static NORMALISE: EntryPoint =
    entry_point!("normalise", 256, [Params, Averages, OrderKeys, Keys]);

/// EWMA blocks that a workgroup of [`BLOCK_STATISTICS`] takes: `BATCH` of the shader.
pub(crate) const BATCH: u32 = 8;

/// Threshold key of a weight that is zero.
pub(crate) const ZERO_WEIGHT: i16 = -32768;
/// Threshold key of a weight whose score vanished.
pub(crate) const ZERO_SCORE: i16 = -32767;
/// Threshold key of a NaN or an infinity.
pub(crate) const NON_FINITE_WEIGHT: i16 = 32767;
/// Mean and mean absolute deviation of the scores' logarithms, with 7 fraction bits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Average {
    pub(crate) mean: i32,
    pub(crate) deviation: i32,
}

impl Average {
    /// Of so many live weights, from the sum of their logarithms and of their distances from the [`centre`].
    #[inline(always)]
    pub(crate) fn of(count: i32, sum: i32, distance: i32) -> Self {
        Self {
            mean: fixed_mean(sum, count),
            deviation: fixed_mean(distance, count),
        }
    }

    /// The average with one more block.
    #[inline(always)]
    pub(crate) fn follow(before: Option<Self>, block: Self, gain_shift: u32) -> Self {
        match before {
            None => block,
            Some(before) => Self {
                mean: before.mean + ((block.mean - before.mean) >> gain_shift),
                deviation: before.deviation + ((block.deviation - before.deviation) >> gain_shift),
            },
        }
    }
}

/// The whole number nearest to the mean of so many logarithms, from which distances are taken.
#[inline(always)]
pub(crate) fn centre(sum: i32, count: i32) -> i32 {
    (fixed_mean(sum, count) + 64) >> 7
}

/// What a normalised score is scaled by: `floor(0xFFFFFFFF / max(deviation, 256)) / 2^19`.
#[inline(always)]
pub(crate) fn scale(deviation: i32) -> f32 {
    const SHIFT: f64 = (1_u64 << 52) as f64;
    // The quotient is below 2^24 and, where it is no whole number, at least 2^-25 below the next, which is more than f64
    // rounds by: rounded down it is the integer division, which does not vectorise. See `whole` for how it is rounded.
    let quotient = f64::from(u32::MAX) / f64::from(deviation.max(256));
    let shifted = quotient + SHIFT;
    let nearest = shifted.to_bits() as i32;
    let reciprocal = nearest - i32::from(shifted - SHIFT > quotient);
    reciprocal as f32 * f32::from_bits((127 - 19) << 23)
}

/// The normalised score of a live weight before it becomes a whole number; it never falls where the logarithm rises.
///
/// `origin` is the average's mean with 5 fraction bits.
#[inline(always)]
pub(crate) fn normalised(log: i32, origin: i32, scale: f32) -> f32 {
    (32 * log - origin) as f32 * scale
}

/// Writes the threshold keys of one row from its order keys; the slices are equally long.
#[inline(always)]
pub(crate) fn row(order_keys: &[u32], ewma: Ewma, threshold_keys: &mut [i16]) {
    let mut average: Option<Average> = None;
    let blocks = order_keys.chunks(ewma.block_size());
    for (order, threshold) in blocks.zip(threshold_keys.chunks_mut(ewma.block_size())) {
        let all_live = all_live(order);
        if let Some(block) = block_statistics(order, all_live) {
            average = Some(Average::follow(average, block, ewma.gain_shift()));
        }
        // A block without live weights has no key that would read the average.
        normalise(order, average.unwrap_or_default(), all_live, threshold);
    }
}

/// The moving average at each block of one row, from its order keys: what [`row`] compares with. A block without live weights
/// has the one before it.
pub(crate) fn averages(order_keys: &[u32], ewma: Ewma) -> Vec<Average> {
    let mut average: Option<Average> = None;
    let blocks = order_keys.chunks(ewma.block_size());
    blocks
        .map(|order| {
            if let Some(block) = block_statistics(order, all_live(order)) {
                average = Some(Average::follow(average, block, ewma.gain_shift()));
            }
            average.unwrap_or_default()
        })
        .collect()
}

#[inline(always)]
fn is_live(key: u32) -> bool {
    (key as i32) >= SMALLEST_LIVE as i32 && (key as i32) < NON_FINITE as i32
}

/// Mean and deviation over the block's live weights; `None` if it has none.
#[inline(always)]
fn block_statistics(keys: &[u32], all_live: bool) -> Option<Average> {
    let (mut count, mut sum) = (keys.len() as i32, 0_i32);
    if all_live {
        for &key in keys {
            sum += (key >> 13) as i32;
        }
    } else {
        count = 0;
        for &key in keys {
            let live = -i32::from(is_live(key));
            count -= live;
            sum += (key >> 13) as i32 & live;
        }
    }
    if count == 0 {
        return None;
    }
    let centre = centre(sum, count);
    let mut distance = 0_i32;
    if all_live {
        for &key in keys {
            distance += ((key >> 13) as i32 - centre).abs();
        }
    } else {
        for &key in keys {
            distance += ((key >> 13) as i32 - centre).abs() & -i32::from(is_live(key));
        }
    }
    Some(Average::of(count, sum, distance))
}

/// Whether every key is live: nearly every block of a model that was not pruned before, and then a third of the work.
#[inline(always)]
fn all_live(keys: &[u32]) -> bool {
    let (mut lowest, mut highest) = (i32::MAX, 0);
    for &key in keys {
        lowest = lowest.min(key as i32);
        highest = highest.max(key as i32);
    }
    lowest >= SMALLEST_LIVE as i32 && highest < NON_FINITE as i32
}

/// `sum / count` with 7 fraction bits, rounded down, without ever leaving 32 bits.
#[inline(always)]
fn fixed_mean(sum: i32, count: i32) -> i32 {
    // Nearly every block is whole, and a shift is a division that a row does not wait for.
    if count & (count - 1) == 0 {
        let shift = count.trailing_zeros();
        return ((sum >> shift) << 7) + (((sum & (count - 1)) << 7) >> shift);
    }
    (sum / count) * 128 + (sum % count) * 128 / count
}

#[inline(always)]
fn normalise(order_keys: &[u32], average: Average, all_live: bool, threshold_keys: &mut [i16]) {
    let (origin, scale) = (average.mean >> 2, scale(average.deviation));
    let normalised = |key: u32| {
        let z = normalised((key >> 13) as i32, origin, scale);
        let distance = whole(z.abs().min(32766.0));
        (if z < 0.0 { -distance } else { distance }) as i16
    };
    if all_live {
        for (threshold, &key) in threshold_keys.iter_mut().zip(order_keys) {
            *threshold = normalised(key);
        }
        return;
    }
    for (threshold, &key) in threshold_keys.iter_mut().zip(order_keys) {
        let vanished = if key == 0 { ZERO_WEIGHT } else { ZERO_SCORE };
        let finite = if (key as i32) < SMALLEST_LIVE as i32 {
            vanished
        } else {
            normalised(key)
        };
        *threshold = if key as i32 >= NON_FINITE as i32 {
            NON_FINITE_WEIGHT
        } else {
            finite
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(scores: &[f32]) -> Vec<u32> {
        scores.iter().map(|s| s.to_bits()).collect()
    }

    fn thresholds(order: &[u32], ewma: Ewma) -> Vec<i16> {
        let mut out = vec![12345; order.len()];
        row(order, ewma, &mut out);
        out
    }

    #[test]
    fn the_widths_hold_at_their_extremes() {
        // The largest spread there is: half the scores at the smallest normal, half at the largest finite value.
        for block in [16, 128, 4096] {
            let order: Vec<u32> = (0..2 * block)
                .map(|j| {
                    if j % 2 == 0 {
                        SMALLEST_LIVE
                    } else {
                        NON_FINITE - 1
                    }
                })
                .collect();
            let t = thresholds(&order, Ewma::new(block, 3).unwrap());
            assert!(t[0] <= -2047 && t[0] >= -2049, "{}", t[0]);
            assert!(t[1] <= 2049 && t[1] >= 2047, "{}", t[1]);
        }
    }

    #[test]
    fn a_mean_by_shifts_is_the_mean_by_division() {
        for count in 1..=4096_i32 {
            for sum in [0, 1, count - 1, count, 12_345_678, (1 << 18) * count - 1] {
                let expected = (sum / count) * 128 + (sum % count) * 128 / count;
                assert_eq!(fixed_mean(sum, count), expected, "{sum} / {count}");
            }
        }
    }

    #[test]
    fn the_scale_is_that_of_the_integer_division() {
        for deviation in (0..1 << 16)
            .chain((1 << 16..1 << 25).step_by(37))
            .chain([(1 << 25) - 1])
        {
            let reciprocal = u32::MAX / deviation.max(256) as u32;
            let expected = f64::from(reciprocal) / f64::from(1 << 19);
            assert_eq!(f64::from(scale(deviation)), expected, "{deviation}");
        }
    }

    #[test]
    fn equal_scores_have_equal_keys_near_zero() {
        let t = thresholds(&keys(&[0.125; 300]), Ewma::default());
        assert!(t.iter().all(|&key| key == t[0]), "{t:?}");
    }

    #[test]
    fn a_block_without_live_weights_leaves_the_average_as_it_was() {
        let mut order = keys(&[0.5; 16]);
        order.extend([0; 16]);
        order.extend(keys(&[2.0; 16]));
        let skipping = thresholds(&order, Ewma::new(16, 3).unwrap());
        order.drain(16..32);
        let without = thresholds(&order, Ewma::new(16, 3).unwrap());
        assert_eq!(skipping[..16], without[..16]);
        assert_eq!(skipping[32..], without[16..]);
        assert!(skipping[16..32].iter().all(|&t| t == ZERO_WEIGHT));
    }
}
