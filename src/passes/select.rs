//! Pass 4, select: which keys of a row are pruned, found by counting, never by sorting.
//!
//! The k smallest keys of a row go, ties to the lower column. Keys are 16-bit threshold keys (EWMA) or 32-bit order keys
//! (`--selection exact`); the answer is one cut a row. The shader finds it with a radix histogram, this twin by a search
//! over vectorised counts in the row's cache-resident keys: another way to the same number.

use super::{NON_FINITE, Pass, ewma};

/// The pass's registry row.
pub const PASS: Pass = Pass {
    name: "select",
    summary: "mask of the k smallest keys of every row, or of all below a fixed lambda",
    wgsl: concat!(
        include_str!("../../shaders/shared/params.wgsl"),
        include_str!("../../shaders/select.wgsl"),
        include_str!("../../shaders/alone/select.wgsl"),
    ),
    entry_points: &["smallest_k", "below_lambda"],
};

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
    /// How far, in ranks, the cuts of two neighbouring rows usually lie apart: a guess that only time depends on.
    const NEIGHBOURHOOD: u32;
}

impl Key for i16 {
    const ZERO: Self = ewma::ZERO_WEIGHT;
    const NON_FINITE: Self = ewma::NON_FINITE_WEIGHT;
    const NEIGHBOURHOOD: u32 = 1 << 7;

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
    const NEIGHBOURHOOD: u32 = 1 << 18;

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

/// The cut that prunes the `k` smallest keys, and every weight that is zero, but no non-finite one.
///
/// `near` is where to look first, such as the threshold of the row before; the cut does not depend on it.
#[inline(always)]
pub(crate) fn smallest_k<K: Key>(keys: &[K], k: usize, near: K) -> Cut<K> {
    if k == 0 {
        return Cut {
            threshold: K::ZERO,
            tie_end: keys.len(),
        };
    }
    let (threshold, below) = kth_smallest(keys, k.min(keys.len()), near);
    let tie_end = if threshold == K::ZERO {
        keys.len()
    } else if threshold == K::NON_FINITE {
        0
    } else {
        column_after_ties(keys, threshold, k - below)
    };
    Cut { threshold, tie_end }
}

/// The open-loop cut: every key below `threshold`.
pub(crate) const fn below<K: Key>(threshold: K) -> Cut<K> {
    Cut {
        threshold,
        tie_end: 0,
    }
}

/// The `k`-th smallest key (from 1) and how many are smaller.
///
/// Each step counts the keys below a rank. The first steps bracket the answer around `near`; then interpolation, which
/// is close where keys lie evenly, takes turns with bisection, which never fails: about 6 counts for a 16-bit key where
/// bisection alone takes 16.
#[inline(always)]
fn kth_smallest<K: Key>(keys: &[K], k: usize, near: K) -> (K, usize) {
    // Invariant: `below` keys, fewer than k, are below `low`, and `up_to` keys, at least k, are at or below `high`.
    let (mut low, mut high) = (K::ZERO.rank(), K::NON_FINITE.rank());
    let (mut below, mut up_to) = (0, keys.len());
    let mut step = 0_u32;
    while low < high {
        let span = high - low;
        let ahead = match step {
            0 => near.rank().saturating_sub(low),
            // On from where the first steps led, further each time.
            1 | 2 if low == K::ZERO.rank() => {
                span.saturating_sub(K::NEIGHBOURHOOD << (3 * (step - 1)))
            }
            1 | 2 if high == K::NON_FINITE.rank() => K::NEIGHBOURHOOD << (3 * (step - 1)),
            _ if step % 3 == 2 => span.div_ceil(2),
            _ => (u64::from(span) * (k - below) as u64 / (up_to - below) as u64) as u32,
        };
        let middle = low + ahead.clamp(1, span);
        let count = count_below(keys, K::from_rank(middle));
        if count < k {
            (low, below) = (middle, count);
        } else {
            (high, up_to) = (middle - 1, count);
        }
        step += 1;
    }
    (K::from_rank(low), below)
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
            near in any::<i16>(),
        ) {
            let k = (share * keys.len() as f64 + 0.5) as usize;
            let cut = smallest_k(&keys, k.min(keys.len()), near);
            let got: Vec<bool> = keys.iter().enumerate().map(|(j, &t)| cut.prunes(j, t)).collect();
            prop_assert_eq!(got, by_sorting(&keys, k));
        }

        #[test]
        fn thirty_two_bit_keys_are_cut_the_same_way(
            keys in prop::collection::vec(0..=NON_FINITE as i32, 1..300),
            near in 0..=NON_FINITE as i32,
        ) {
            let k = keys.len() / 3;
            let cut = smallest_k(&keys, k, near);
            let got = keys.iter().enumerate().filter(|&(j, &key)| cut.prunes(j, key)).count();
            let zeros = keys.iter().filter(|&&key| key == 0).count();
            prop_assert_eq!(got, k.max(zeros));
        }
    }
}
