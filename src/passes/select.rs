//! Pass 4, select: which keys of a row are pruned, found by counting, never by sorting.
//!
//! The k smallest keys of a row go, ties to the lower column. Keys are 16-bit threshold keys (EWMA) or 32-bit order keys
//! (`--selection exact`); the answer is one cut a row. The shader finds it with a radix histogram, this twin by a search
//! over vectorised counts in the row's cache-resident keys: another way to the same number.

use super::ewma;
use super::keys::NON_FINITE;
use super::params::entry_point;
use crate::shader::{EntryPoint, Shader, shader};

/// The pass by itself.
pub(crate) static ALONE: Shader = shader! {
    name: "select",
    summary: "mask of the k smallest keys of every row, or of all below a fixed lambda",
    files: ["shared/params", "passes/select", "entry/alone/select"],
    entry_points: [SMALLEST_K, BELOW_LAMBDA],
};

pub(crate) static SMALLEST_K: EntryPoint = entry_point!("smallest_k", 256, [Params, Result, Keys]);
pub(crate) static BELOW_LAMBDA: EntryPoint =
    entry_point!("below_lambda", 64, [Params, Result, Keys]);

/// A key that can be selected on: an integer with a place for weights that are zero and one for non-finite ones.
pub(crate) trait Key: Copy + Ord + Send {
    /// The key of a weight that is zero: always pruned.
    const ZERO: Self;
    /// The key of a non-finite weight: never pruned.
    const NON_FINITE: Self;
    /// The key's bits in ascending order from 0.
    fn rank(self) -> u32;
    /// The inverse of [`Self::rank`].
    fn from_rank(rank: u32) -> Self;
    /// Ranks that most of a row's keys spread over: a guess that only the time of the first rows depends on.
    const SPREAD: f64;
}

impl Key for i16 {
    const ZERO: Self = ewma::ZERO_WEIGHT;
    const NON_FINITE: Self = ewma::NON_FINITE_WEIGHT;
    const SPREAD: f64 = (1 << 13) as f64;

    fn rank(self) -> u32 {
        (i32::from(self) + 32768) as u32
    }

    fn from_rank(rank: u32) -> Self {
        (rank as i32 - 32768) as Self
    }
}

/// An order key. Signed, because baseline x86-64 compares signed lanes; no order key has the sign bit set.
impl Key for i32 {
    const ZERO: Self = 0;
    const NON_FINITE: Self = NON_FINITE as Self;
    const SPREAD: f64 = (1 << 25) as f64;

    fn rank(self) -> u32 {
        self as u32
    }

    fn from_rank(rank: u32) -> Self {
        rank as Self
    }
}

/// Where a row is cut: pruned are the keys below `threshold`, and those equal to it in columns below `tie_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut<K> {
    pub(crate) threshold: K,
    pub(crate) tie_end: usize,
}

impl<K: Key> Cut<K> {
    /// Whether the key in this column is pruned.
    pub(crate) fn prunes(&self, column: usize, key: K) -> bool {
        key < self.threshold || (key == self.threshold && column < self.tie_end)
    }
}

/// Where the rows before were cut, and how densely their keys lay there: where to look first. No cut depends on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Near {
    rank: f64,
    /// Share of a row's keys that a rank has.
    density: f64,
    rows: u32,
}

impl Near {
    /// Follows the cuts with one more row.
    #[inline(always)]
    fn follow(&mut self, rank: u32, density: Option<f64>) {
        // A mean of the first rows, then a moving average.
        self.rows = (self.rows + 1).min(8);
        let gain = 1.0 / f64::from(self.rows);
        self.rank += (f64::from(rank) - self.rank) * gain;
        if let Some(density) = density {
            self.density += (density - self.density) * gain;
        }
    }
}

/// The cut that prunes the `k` smallest keys, and every weight that is zero, but no non-finite one.
#[inline(always)]
pub(crate) fn smallest_k<K: Key>(keys: &[K], k: usize, near: &mut Near) -> Cut<K> {
    let kth = kth_smallest(
        keys.len(),
        k.min(keys.len()),
        near,
        #[inline(always)]
        |key| count_below(keys, key),
    );
    let tie_end = if kth.key == K::ZERO {
        keys.len()
    } else if kth.key == K::NON_FINITE || kth.ties == 0 {
        0
    } else {
        column_after_ties(keys, kth.key, kth.ties)
    };
    Cut {
        threshold: kth.key,
        tie_end,
    }
}

/// The open-loop cut: every key below `threshold`.
pub(crate) const fn below<K: Key>(threshold: K) -> Cut<K> {
    Cut {
        threshold,
        tie_end: 0,
    }
}

/// A place that `k` keys of a row lie before: those below `key`, and the first `ties` of those equal to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kth<K> {
    pub(crate) key: K,
    /// Keys that are smaller.
    pub(crate) below: usize,
    /// `k - below`.
    pub(crate) ties: usize,
}

/// Finds where the `k` smallest of `len` keys end (`k <= len`), given how many keys are below one.
///
/// Each step counts the keys below a rank, and a rank with exactly `k` below it ends the search. It starts where the rows
/// before were cut and goes on by how dense their keys were; once the answer is bracketed, interpolation, which is close
/// where keys lie evenly, takes turns with bisection, which never fails. About 4 counts a row (`docs/benchmarks.md`), where
/// bisection alone takes 16.
#[inline(always)]
pub(crate) fn kth_smallest<K: Key>(
    len: usize,
    k: usize,
    near: &mut Near,
    mut count_below: impl FnMut(K) -> usize,
) -> Kth<K> {
    const OPEN_STEPS: u32 = 4;
    if k == 0 {
        return Kth {
            key: K::ZERO,
            below: 0,
            ties: 0,
        };
    }
    let (lowest, highest) = (K::ZERO.rank(), K::NON_FINITE.rank());
    // Invariant: `below` keys, fewer than k, are below `low`, and `up_to` keys, at least k, are at or below `high`.
    let (mut low, mut high) = (lowest, highest);
    let (mut below, mut up_to) = (0, len);
    let mut next = if near.rows == 0 {
        lowest + (highest - lowest) / 2
    } else {
        near.rank as u32
    };
    let density = if near.rows == 0 {
        len as f64 / K::SPREAD
    } else {
        near.density * len as f64
    };
    let mut first: Option<(u32, usize)> = None;
    let mut seen = None;
    let mut step = 0_u32;
    while low < high {
        let middle = next.clamp(low + 1, high);
        let count = count_below(K::from_rank(middle));
        if let (Some((rank, before)), None) = (first, seen) {
            seen =
                Some(before.abs_diff(count) as f64 / f64::from(rank.abs_diff(middle)) / len as f64);
        }
        first = first.or(Some((middle, count)));
        if count == k {
            near.follow(middle, seen);
            return Kth {
                key: K::from_rank(middle),
                below: k,
                ties: 0,
            };
        }
        if count < k {
            (low, below) = (middle, count);
        } else {
            (high, up_to) = (middle - 1, count);
        }
        step += 1;
        let span = high - low;
        let is_open = low == lowest || high == highest;
        next = if is_open && step <= OPEN_STEPS {
            let ahead = (count.abs_diff(k) as f64 + 0.5) / density;
            let ahead = (ahead as u32).saturating_add(1);
            if high == highest {
                low.saturating_add(ahead)
            } else {
                (high + 1).saturating_sub(ahead)
            }
        } else if halves(step) {
            low + span.div_ceil(2)
        } else {
            let share = (k - below) as f64 / (up_to - below) as f64;
            low + (f64::from(span) * share) as u32
        };
    }
    near.follow(low, seen);
    Kth {
        key: K::from_rank(low),
        below,
        ties: k - below,
    }
}

/// Whether the count after so many halves the bracket rather than interpolate in it.
///
/// Interpolation usually ends a search at once. Where keys are dense at one end of the bracket it creeps along that end
/// instead, so it is interrupted: once after the [open steps](kth_smallest), then, from the tenth count on, every other
/// time, which bounds the search at about twice what bisection takes.
#[inline(always)]
const fn halves(counts: u32) -> bool {
    counts == 5 || (counts > 8 && counts.is_multiple_of(2))
}

#[inline(always)]
fn count_below<K: Key>(keys: &[K], threshold: K) -> usize {
    // Groups of 128 are counted in 16-bit lanes, which is what keeps a 16-bit key's compare and count one lane wide.
    keys.chunks(128)
        .map(|group| {
            usize::from(
                group
                    .iter()
                    .map(|&key| u16::from(key < threshold))
                    .sum::<u16>(),
            )
        })
        .sum()
}

/// The column just after the `ties`-th key that equals `threshold`.
#[inline(always)]
fn column_after_ties<K: Key>(keys: &[K], threshold: K, ties: usize) -> usize {
    let mut left = ties;
    for (group, start) in keys.chunks(128).zip((0..).step_by(128)) {
        let here = usize::from(
            group
                .iter()
                .map(|&key| u16::from(key == threshold))
                .sum::<u16>(),
        );
        if here < left {
            left -= here;
            continue;
        }
        for (column, &key) in (start..).zip(group) {
            if key == threshold {
                left -= 1;
                if left == 0 {
                    return column + 1;
                }
            }
        }
    }
    keys.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sorts (key, column), the plain definition.
    fn by_sorting(keys: &[i16], k: usize) -> Vec<bool> {
        let zeros = keys.iter().filter(|&&t| t == i16::ZERO).count();
        let finite = keys.iter().filter(|&&t| t != i16::NON_FINITE).count();
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|&column| (keys[column], column));
        let mut pruned = vec![false; keys.len()];
        for &column in &order[..k.max(zeros).min(finite)] {
            pruned[column] = true;
        }
        pruned
    }

    proptest! {
        #[test]
        fn the_k_smallest_keys_are_cut_as_sorting_would(
            keys in prop::collection::vec(prop_oneof![
                3 => any::<i16>(), 3 => -4..4_i16, 1 => Just(i16::ZERO), 1 => Just(i16::NON_FINITE)
            ], 0..700),
            share in 0.0..=1.0_f64,
            rank in 0.0..65535.0_f64,
            density in prop_oneof![Just(0.0), 1e-9..1.0_f64],
        ) {
            let k = (share * keys.len() as f64 + 0.5) as usize;
            let mut near = Near { rank, density, rows: 8 };
            let cut = smallest_k(&keys, k.min(keys.len()), &mut near);
            let got: Vec<bool> = keys.iter().enumerate().map(|(j, &t)| cut.prunes(j, t)).collect();
            prop_assert_eq!(got, by_sorting(&keys, k));
        }

        #[test]
        fn thirty_two_bit_keys_are_cut_the_same_way(
            keys in prop::collection::vec(0..=NON_FINITE as i32, 1..300),
            rank in 0.0..f64::from(NON_FINITE),
            density in prop_oneof![Just(0.0), 1e-12..1.0_f64],
        ) {
            let k = keys.len() / 3;
            let mut near = Near { rank, density, rows: 8 };
            let cut = smallest_k(&keys, k, &mut near);
            let got = keys.iter().enumerate().filter(|&(j, &key)| cut.prunes(j, key)).count();
            let zeros = keys.iter().filter(|&&key| key == 0).count();
            prop_assert_eq!(got, k.max(zeros));
        }
    }
}
