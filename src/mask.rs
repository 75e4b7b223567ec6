//! The mask that a device returns, one bit per weight (1 = pruned), and how it is applied to stored weights.

use std::ops::Range;

use crate::counts::Counts;
use crate::dtype::{Dtype, Weight, with_weights};
use crate::simd::widest;

/// One bit a weight, 1 = pruned; rows start on a u32 word, the first column in the lowest bit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mask {
    /// Rows (output neurons).
    pub rows: usize,
    /// Weights a row.
    pub in_features: usize,
    /// `rows * ceil(in_features / 32)` words; bits past a row's last column are 0.
    pub words: Vec<u32>,
}

impl Mask {
    /// u32 words a row takes.
    #[must_use]
    pub const fn words_per_row(in_features: usize) -> usize {
        in_features.div_ceil(32)
    }

    /// A mask that prunes nothing.
    #[must_use]
    pub fn empty(rows: usize, in_features: usize) -> Self {
        Self {
            rows,
            in_features,
            words: vec![0; rows * Self::words_per_row(in_features)],
        }
    }

    /// Whether the weight is pruned.
    #[must_use]
    pub fn prunes(&self, row: usize, column: usize) -> bool {
        let word = self.words[row * Self::words_per_row(self.in_features) + column / 32];
        (word >> (column % 32)) & 1 == 1
    }

    /// Marks the weight as pruned.
    pub fn set(&mut self, row: usize, column: usize) {
        self.words[row * Self::words_per_row(self.in_features) + column / 32] |= 1 << (column % 32);
    }

    /// The mask of some rows.
    #[must_use]
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        let words = Self::words_per_row(self.in_features);
        Self {
            rows: rows.len(),
            in_features: self.in_features,
            words: self.words[rows.start * words..rows.end * words].to_vec(),
        }
    }

    /// Has the rows from `first` on be those of `part`.
    pub(crate) fn set_part(&mut self, first: usize, part: &Self) {
        let start = first * Self::words_per_row(self.in_features);
        self.words[start..start + part.words.len()].copy_from_slice(&part.words);
    }

    /// Zeroes the pruned weights, of rows in which one is not zero already, in `bytes` (`[rows, in_features]`, aligned to the dtype) and counts.
    pub fn apply(&self, dtype: Dtype, bytes: &mut [u8], squares: bool) -> Counts {
        let mut counts = Counts::default();
        if self.in_features > 0 {
            with_weights!(dtype, bytes, cast_slice_mut, |weights| {
                widest(
                    #[inline(always)]
                    || self.apply_to(weights, squares, &mut counts),
                );
            });
        }
        counts
    }

    #[inline(always)]
    fn apply_to<W: Weight>(&self, weights: &mut [W], squares: bool, counts: &mut Counts) {
        let words_per_row = Self::words_per_row(self.in_features);
        let mut pruned = vec![false; 32 * words_per_row];
        let words = self.words.chunks(words_per_row);
        for (row, words) in weights.chunks_mut(self.in_features).zip(words) {
            for (pruned, word) in pruned.as_chunks_mut::<32>().0.iter_mut().zip(words) {
                // Bytes compared with bits of their own vectorise, where shifts by different amounts do not.
                let bytes = word.to_le_bytes();
                *pruned = std::array::from_fn(|bit| bytes[bit / 8] & 1 << (bit % 8) != 0);
            }
            counts.zero(row, &pruned[..row.len()], squares, |goes| goes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_loses_nothing_keeps_its_negative_zeros() {
        let mut mask = Mask::empty(2, 3);
        for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            mask.set(row, column);
        }
        let before = [-0.0_f32, 0.0, 1.0, -0.0, 2.0, -0.0];
        for squares in [false, true] {
            let mut weights = before;
            let counts = mask.apply(Dtype::F32, bytemuck::cast_slice_mut(&mut weights), squares);
            let bits = weights.map(f32::to_bits);
            let wanted = [-0.0_f32, 0.0, 1.0, 0.0, 0.0, -0.0];
            assert_eq!(bits, wanted.map(f32::to_bits));
            assert_eq!((counts.zeros, counts.zeros_before), (5, 4));
        }
    }

    #[test]
    fn applying_zeroes_the_pruned_and_leaves_every_other_bit() {
        let mut mask = Mask::empty(2, 35);
        for (row, column) in [(0, 0), (0, 34), (1, 31), (1, 32)] {
            mask.set(row, column);
        }
        let mut bytes: Vec<u16> = (0..70).map(|i| 0x8001 + i).collect();
        bytes[0] = 0x8000; // -0.0
        bytes[5] = 0x7fc0; // NaN
        let before = bytes.clone();
        let counts = mask.apply(Dtype::Bf16, bytemuck::cast_slice_mut(&mut bytes), true);
        for (i, (&now, &then)) in bytes.iter().zip(&before).enumerate() {
            assert_eq!(now, if mask.prunes(i / 35, i % 35) { 0 } else { then });
        }
        assert_eq!(
            (
                counts.weights,
                counts.zeros,
                counts.zeros_before,
                counts.non_finite
            ),
            (70, 4, 1, 1)
        );
    }
}
