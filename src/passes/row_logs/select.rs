//! Where a row is cut, as bounds on its scores' logarithms.
//!
//! Within a block of the EWMA a threshold key never falls where the logarithm rises. So "threshold key below `t`" is
//! "logarithm below a bound", one bound a block, and the search for `t` (pass 4) needs no threshold keys (pass 3): for each
//! `t` it tries, it computes the blocks' bounds and counts 16-bit logarithms below them. The cut is the one that
//! [`ewma::row`](crate::passes::ewma::row) and [`smallest_k`] find, bit for bit; a test holds them together.

use std::ops::Range;

use super::ewma::Scales;
use super::score::{BIAS, Logs};
use crate::counts::Counts;
use crate::dtype::Weight;
use crate::passes::ewma::{ZERO_SCORE, ZERO_WEIGHT, normalised};
use crate::passes::select::{Kth, Near, kth_smallest, smallest_k};

/// What of a row is pruned: every weight whose logarithm is below its block's bound, and some more columns.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    block_size: usize,
    /// One bound a block.
    below: Vec<i16>,
    /// Columns of weights that are pruned though not below the bound.
    ties: Vec<usize>,
    /// Logarithms below their bounds.
    count: usize,
}

impl Bounds {
    /// One bound for a row of so many columns.
    #[inline(always)]
    fn set(&mut self, columns: usize, bound: i16) {
        self.block_size = columns;
        self.below.clear();
        self.below.push(bound);
        self.ties.clear();
    }

    /// Counts the logarithms below their bounds.
    #[inline(always)]
    pub(crate) fn count(&mut self, logs: &[i16]) -> usize {
        self.count = if self.block_size == 128 {
            count_below(logs, &self.below)
        } else {
            let blocks = logs.chunks(self.block_size).zip(&self.below);
            blocks.map(|(logs, &bound)| count_under(logs, bound)).sum()
        };
        self.count
    }

    /// Zeroes what is pruned of a row whose scores are all live, and adds to the counts.
    #[inline(always)]
    pub(crate) fn zero_live<W: Weight>(
        &self,
        logs: &[i16],
        weights: &mut [W],
        counts: &mut Counts,
    ) {
        counts.weights += weights.len() as u64;
        counts.zeros += (self.count + self.ties.len()) as u64;
        let blocks = logs
            .chunks(self.block_size)
            .zip(weights.chunks_mut(self.block_size));
        for ((logs, weights), &bound) in blocks.zip(&self.below) {
            for (weight, &log) in weights.iter_mut().zip(logs) {
                *weight = if log < bound { W::zeroed() } else { *weight };
            }
        }
        for &column in &self.ties {
            weights[column] = W::zeroed();
        }
    }

    /// Sets `pruned[j]` to whether weight `j` of the row goes.
    #[inline(always)]
    pub(crate) fn mark(&self, logs: &[i16], pruned: &mut [bool]) {
        let blocks = logs
            .chunks(self.block_size)
            .zip(pruned.chunks_mut(self.block_size));
        for ((logs, pruned), &bound) in blocks.zip(&self.below) {
            for (pruned, &log) in pruned.iter_mut().zip(logs) {
                *pruned = log < bound;
            }
        }
        for &column in &self.ties {
            pruned[column] = true;
        }
    }

    /// The cut of `--selection exact`: the `k` smallest order keys, and every weight that is zero.
    ///
    /// `order_key` tells a column's key, for those that the logarithm leaves undecided.
    #[inline(always)]
    pub(crate) fn cut_exactly(
        &mut self,
        logs: &[i16],
        kind: Logs,
        k: usize,
        near: &mut Near,
        order_key: impl Fn(usize) -> u32,
    ) {
        let kth = kth_smallest(
            logs.len(),
            k,
            near,
            #[inline(always)]
            |bound| count_under(logs, bound),
        );
        if kind == Logs::WithGaps && kth.key == i16::MIN {
            // However few are asked for, every weight that is zero goes.
            self.set(logs.len(), i16::MIN + 1);
            self.count(logs);
            return;
        }
        self.set(logs.len(), kth.key);
        self.count = kth.below;
        if kth.ties == 0 {
            return;
        }
        let equal = kth.key..kth.key + 1;
        push_columns(logs, 0, equal, logs.len(), &mut self.ties);
        let keys: Vec<i32> = self.ties.iter().map(|&j| order_key(j) as i32).collect();
        let cut = smallest_k(&keys, kth.ties, &mut Near::default());
        let mut keys = keys.iter().enumerate();
        self.ties
            .retain(|_| keys.next().is_some_and(|(j, &key)| cut.prunes(j, key)));
    }

    /// The cut of the `k` smallest threshold keys, and every weight that is zero.
    #[inline(always)]
    pub(crate) fn cut(&mut self, logs: &[i16], scales: &Scales, k: usize, near: &mut Near) {
        // A search that ends without ties ends at the key it tried last.
        let kth = kth_smallest(
            logs.len(),
            k,
            near,
            #[inline(always)]
            |key| {
                self.set_below(key, scales);
                self.count(logs)
            },
        );
        if kth.key == ZERO_WEIGHT {
            // However few are asked for, every weight that is zero goes.
            self.set_below(ZERO_SCORE, scales);
            self.count(logs);
        } else if kth.ties > 0 {
            self.find_ties(logs, scales, kth);
        }
    }

    /// Bounds below the key, and in `ties` as many columns with that key as are asked for.
    #[inline(always)]
    fn find_ties(&mut self, logs: &[i16], scales: &Scales, kth: Kth<i16>) {
        self.set_below(kth.key + 1, scales);
        let up_to = self.below.clone();
        self.set_below(kth.key, scales);
        self.count = kth.below;
        let blocks = logs.chunks(self.block_size).zip(&self.below).zip(up_to);
        for (((logs, &from), to), start) in blocks.zip((0..).step_by(self.block_size)) {
            // Most blocks have no logarithm that only the key's last step takes in.
            if from == to {
                continue;
            }
            push_columns(logs, start, from..to, kth.ties, &mut self.ties);
            if self.ties.len() == kth.ties {
                return;
            }
        }
    }

    /// Sets each block's bound so that below it are the weights whose threshold key is below `key`; no ties.
    #[inline(always)]
    pub(crate) fn set_below(&mut self, key: i16, scales: &Scales) {
        self.block_size = scales.block_size;
        self.below.resize(scales.origin.len(), 0);
        self.ties.clear();
        let least = i16::MIN + (i32::from(key) + BIAS).min(scales.gaps) as i16;
        // No live weight's key is below -32766, and every one is below 32767.
        if key <= ZERO_SCORE + 1 {
            return self.below.fill(least);
        }
        if key == i16::MAX {
            return self.below.fill(i16::MAX);
        }
        // trunc(z) < key for a z below this, and for no other.
        let edge = if key >= 1 {
            f32::from(key)
        } else {
            (f32::from(key) - 1.0).next_up()
        };
        let scales = scales.origin.iter().zip(&scales.scale).zip(&scales.inverse);
        for (below, ((&origin, &scale), &inverse)) in self.below.iter_mut().zip(scales) {
            // Solved for `32 log - origin`: rounding puts it at most 2 beside the least that is not below, and 8 less it
            // lies at most 32, one step of the logarithm, under it. So the bound is this step or the next.
            let solved = nearest((edge * inverse).clamp(-FAR, FAR));
            let log = ((solved - 8 + origin + 31) >> 5).clamp(0, 0xffff);
            let log = log + i32::from(normalised(log, origin, scale) < edge);
            *below = ((log - BIAS).min(i32::from(i16::MAX)) as i16).max(least);
        }
    }
}

/// Logarithms below the bounds of their blocks of 128.
#[inline(always)]
fn count_below(logs: &[i16], bounds: &[i16]) -> usize {
    let (blocks, rest) = logs.as_chunks::<128>();
    let (bounds, bound_of_rest) = bounds.split_at(blocks.len());
    let (fours, others) = blocks.as_chunks::<4>();
    let (bounds_of_fours, bounds_of_others) = bounds.as_chunks::<4>();
    // A lane a column of a block, added up once a row. `MAX_IN_FEATURES / 128` fits into one.
    let mut lanes = [0_u16; 128];
    for ([a, b, c, d], bounds) in fours.iter().zip(bounds_of_fours) {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += u16::from(a[j] < bounds[0])
                + u16::from(b[j] < bounds[1])
                + u16::from(c[j] < bounds[2])
                + u16::from(d[j] < bounds[3]);
        }
    }
    for (block, &bound) in others.iter().zip(bounds_of_others) {
        for (lane, &log) in lanes.iter_mut().zip(block) {
            *lane += u16::from(log < bound);
        }
    }
    let whole: u32 = lanes.iter().copied().map(u32::from).sum();
    let bound = bound_of_rest.first().copied().unwrap_or(i16::MIN);
    whole as usize + count_under(rest, bound)
}

/// Logarithms below one bound.
#[inline(always)]
fn count_under(logs: &[i16], bound: i16) -> usize {
    let mut total = 0;
    // Counted in 16 bits.
    for logs in logs.chunks(1 << 15) {
        let mut count = 0_u16;
        for &log in logs {
            count += u16::from(log < bound);
        }
        total += usize::from(count);
    }
    total
}

/// Pushes the columns, the first of which is `start`, of logarithms in the range, until there are `limit` columns.
#[inline(always)]
fn push_columns(
    logs: &[i16],
    start: usize,
    range: Range<i16>,
    limit: usize,
    columns: &mut Vec<usize>,
) {
    // Few logarithms are: a vectorised look tells where.
    for (logs, start) in logs.chunks(64).zip((start..).step_by(64)) {
        let mut any = false;
        for &log in logs {
            any |= (log >= range.start) & (log < range.end);
        }
        if !any {
            continue;
        }
        for (column, _) in (start..).zip(logs).filter(|(_, log)| range.contains(log)) {
            if columns.len() == limit {
                return;
            }
            columns.push(column);
        }
    }
}

/// Beyond every `32 log - origin`, and within what [`nearest`] takes.
const FAR: f32 = (1 << 22) as f32 - 16.0;

/// The whole number nearest to `x`, for `|x| < 2^22`: a conversion that vectorises, see [`whole`](crate::passes::keys::whole).
#[inline(always)]
fn nearest(x: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32)
}

#[cfg(test)]
mod tests {
    use super::super::score::{self as row_logs, Span};
    use super::*;
    use crate::dtype::F32;
    use crate::passes::ewma::scale;
    use crate::passes::select::{self, Cut};
    use crate::passes::{ewma, score};
    use crate::selection::Ewma;
    use proptest::prelude::*;

    /// A row both ways: its order keys, and its logarithms if it has them.
    struct Row {
        weights: Vec<F32>,
        order_keys: Vec<u32>,
        logs: Vec<i16>,
        kind: Option<Logs>,
    }

    fn row(weights: &[f32]) -> Row {
        let weights: Vec<F32> = weights.iter().map(|w| F32(w.to_bits())).collect();
        let multipliers = || std::iter::repeat_n(1.0, weights.len());
        let mut order_keys = vec![0; weights.len()];
        score::row::<false, _>(&weights, multipliers(), &mut order_keys);
        let mut logs = vec![0; weights.len()];
        let kind = row_logs::row::<false, _>(&weights, multipliers(), Span::below(1.0), &mut logs);
        Row {
            weights,
            order_keys,
            logs,
            kind,
        }
    }

    fn marked(row: &Row, bounds: &Bounds) -> Vec<bool> {
        let mut pruned = vec![false; row.logs.len()];
        bounds.mark(&row.logs, &mut pruned);
        if row.kind == Some(Logs::Live) {
            let (mut weights, mut counts) = (row.weights.clone(), Counts::default());
            bounds.zero_live(&row.logs, &mut weights, &mut counts);
            let zeroed: Vec<bool> = weights.iter().map(|w| w.0 == 0).collect();
            assert_eq!(zeroed, pruned, "zeroed is what is marked");
            let zeros = pruned.iter().filter(|&&goes| goes).count();
            assert_eq!(counts.zeros, zeros as u64, "counted is what is marked");
        }
        pruned
    }

    fn cut_by_keys<K: select::Key>(cut: Cut<K>, keys: &[K]) -> Vec<bool> {
        (0..keys.len()).map(|j| cut.prunes(j, keys[j])).collect()
    }

    /// Weights of every size that the span holds, at its ends too, some equal, some zero, some that vanish.
    fn weights() -> impl Strategy<Value = Vec<f32>> {
        let size = (-61.9..2.0_f64).prop_map(|octave| octave.exp2() as f32);
        let usual = (-8.0..-2.0_f64).prop_map(|octave| octave.exp2() as f32);
        let live = prop_oneof![1 => size, 8 => usual, 2 => prop::sample::select(vec![0.5_f32, 0.25, 2.5e-19])];
        let gaps = prop::collection::vec(
            (any::<usize>(), prop::sample::select(vec![0.0_f32, 1e-39])),
            0..40,
        );
        let with_gaps = prop_oneof![2 => Just(vec![]), 1 => gaps];
        (prop::collection::vec(live, 1..1100), with_gaps).prop_map(|(mut weights, gaps)| {
            for (at, gap) in gaps {
                let at = at % weights.len();
                weights[at] = gap;
            }
            weights
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

        #[test]
        fn a_row_is_cut_by_bounds_as_by_keys(
            weights in weights(),
            share in 0.0..=1.0_f64,
            block in prop_oneof![2 => Just(128_usize), 1 => prop::sample::select(vec![16, 32, 64, 256, 4096])],
            gain_shift in 0..=7_u32,
            threshold in any::<i16>(),
        ) {
            let row = row(&weights);
            let kind = row.kind.expect("all weights are in the span");
            let ewma = Ewma::new(block, gain_shift).expect("within the widths");
            let k = (share * weights.len() as f64) as usize;
            let mut threshold_keys = vec![0; weights.len()];
            ewma::row(&row.order_keys, ewma, &mut threshold_keys);
            let (mut scales, mut bounds, mut near) = (Scales::default(), Bounds::default(), Near::default());
            scales.measure(&row.logs, kind, ewma);

            bounds.cut(&row.logs, &scales, k, &mut near);
            let cut = smallest_k(&threshold_keys, k, &mut Near::default());
            prop_assert_eq!(marked(&row, &bounds), cut_by_keys(cut, &threshold_keys), "ewma, {}", k);

            bounds.set_below(threshold, &scales);
            bounds.count(&row.logs);
            let cut = select::below(threshold);
            prop_assert_eq!(marked(&row, &bounds), cut_by_keys(cut, &threshold_keys), "below {}", threshold);

            bounds.cut_exactly(&row.logs, kind, k, &mut near, |j| row.order_keys[j]);
            let order_keys: &[i32] = bytemuck::cast_slice(&row.order_keys);
            let cut = smallest_k(order_keys, k, &mut Near::default());
            prop_assert_eq!(marked(&row, &bounds), cut_by_keys(cut, order_keys), "exact, {}", k);
        }

        #[test]
        fn a_bound_parts_the_logarithms_where_the_threshold_key_does(
            mean in 0..=0xffff * 128_i32,
            deviation in 0..=0xffff * 64_i32,
            small in 0..4096_i32,
            key in -32766..=i16::MAX,
        ) {
            for deviation in [deviation, small] {
                let (origin, scale) = (mean >> 2, scale(deviation));
                let scales = Scales {
                    block_size: 128,
                    gaps: 0,
                    origin: vec![origin],
                    deviation: vec![deviation],
                    scale: vec![scale],
                    inverse: vec![1.0 / scale],
                };
                let mut bounds = Bounds::default();
                bounds.set_below(key, &scales);
                let bound = i32::from(bounds.below[0]) + BIAS;
                // The definition: truncated towards zero, then limited.
                let threshold_key = |log: i32| normalised(log, origin, scale).clamp(-32766.0, 32766.0).trunc() as i16;
                prop_assert!(bound == 0 || threshold_key(bound - 1) < key);
                prop_assert!(bound == 0xffff || threshold_key(bound) >= key);
            }
        }
    }
}
