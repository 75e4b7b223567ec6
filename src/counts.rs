//! What pruning did to some rows: weights are zeroed where they lie, and counted on the way.

use serde::{Deserialize, Serialize};

use crate::dtype::Weight;

/// Magnitude bits of an infinity; those of a NaN are above.
const NON_FINITE: u32 = f32::INFINITY.to_bits();

/// What pruning some rows did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Weights seen.
    pub weights: u64,
    /// Weights that are zero afterwards.
    pub zeros: u64,
    /// Weights that were zero before.
    pub zeros_before: u64,
    /// NaN and infinities.
    pub non_finite: u64,
    /// `sum W^2` over the finite weights; 0 when squares were not asked for.
    pub squares: f64,
    /// `sum dW^2`, over the pruned ones and those that were compensated; 0 when squares were not asked for.
    pub squares_changed: f64,
    /// `sum n_j W_ij^2` with the column norms: the output that the norms predict; 0 without norms, and when it was not asked for.
    pub output_squares: f64,
    /// `sum n_j dW_ij^2`, as much of it as changes.
    pub output_squares_changed: f64,
    /// Rows that were to be compensated and keep their weights.
    pub rows_not_compensated: u64,
    /// The output error of the compensated rows if they were only pruned, `(v - w)^T H (v - w)` in the units of the layer's `H`.
    pub error_pruned: f64,
    /// Their output error as they are.
    pub error_compensated: f64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.weights += other.weights;
        self.zeros += other.zeros;
        self.zeros_before += other.zeros_before;
        self.non_finite += other.non_finite;
        self.squares += other.squares;
        self.squares_changed += other.squares_changed;
        self.output_squares += other.output_squares;
        self.output_squares_changed += other.output_squares_changed;
        self.rows_not_compensated += other.rows_not_compensated;
        self.error_pruned += other.error_pruned;
        self.error_compensated += other.error_compensated;
    }
}

impl Counts {
    /// Zeroes the weights of a row whose key is `pruned`, and counts; the slices are equally long. A row in which all of these are
    /// zero already keeps its bits, -0.0 too.
    ///
    /// Branch-free but for that, in stretches short enough for 16-bit counters, so that it vectorises.
    #[inline(always)]
    pub(crate) fn zero<W: Weight, K: Copy>(
        &mut self,
        weights: &mut [W],
        keys: &[K],
        squares: bool,
        pruned: impl Fn(K) -> bool,
    ) {
        if squares {
            self.add_squares(weights, keys, &pruned);
        }
        // Over soon: nearly every row has one among its first.
        let mut pairs = weights.iter().zip(keys);
        let loses = pairs.any(|(weight, &key)| pruned(key) & (weight.magnitude_bits() != 0));
        let pruned = |key| loses & pruned(key);
        self.weights += weights.len() as u64;
        for (weights, keys) in weights.chunks_mut(128).zip(keys.chunks(128)) {
            let (mut zeros, mut zeros_before, mut non_finite) = (0_u16, 0_u16, 0_u16);
            for (weight, &key) in weights.iter_mut().zip(keys) {
                let magnitude = weight.magnitude_bits();
                let goes = pruned(key);
                zeros_before += u16::from(magnitude == 0);
                non_finite += u16::from(magnitude >= NON_FINITE);
                zeros += u16::from(goes | (magnitude == 0));
                *weight = if goes { W::zeroed() } else { *weight };
            }
            self.zeros += u64::from(zeros);
            self.zeros_before += u64::from(zeros_before);
            self.non_finite += u64::from(non_finite);
        }
    }

    /// Zeroes the weights that are `pruned`, of a row without zeros and non-finite weights, and counts.
    #[inline(always)]
    pub(crate) fn zero_live<W: Weight>(&mut self, weights: &mut [W], pruned: &[bool]) {
        self.weights += weights.len() as u64;
        for (weights, pruned) in weights.chunks_mut(128).zip(pruned.chunks(128)) {
            let mut zeros = 0_u16;
            for (weight, &goes) in weights.iter_mut().zip(pruned) {
                zeros += u16::from(goes);
                *weight = if goes { W::zeroed() } else { *weight };
            }
            self.zeros += u64::from(zeros);
        }
    }

    #[inline(always)]
    fn add_squares<W: Weight, K: Copy>(
        &mut self,
        weights: &[W],
        keys: &[K],
        pruned: &impl Fn(K) -> bool,
    ) {
        let (mut all, mut gone) = (0.0, 0.0);
        for (&weight, &key) in weights.iter().zip(keys) {
            let magnitude = f64::from(f32::from_bits(weight.magnitude_bits()));
            let square = if magnitude.is_finite() {
                magnitude * magnitude
            } else {
                0.0
            };
            all += square;
            gone += if pruned(key) { square } else { 0.0 };
        }
        self.squares += all;
        self.squares_changed += gone;
    }

    /// Zeros over all weights; 0 for none.
    #[must_use]
    pub fn sparsity(&self) -> f64 {
        if self.weights == 0 {
            0.0
        } else {
            self.zeros as f64 / self.weights as f64
        }
    }

    /// The output error of compensated rows, of what it were if they were only pruned.
    #[must_use]
    pub fn output_error_left(&self) -> Option<f64> {
        (self.error_pruned > 0.0).then(|| self.error_compensated / self.error_pruned)
    }

    /// `sum n dW^2 / sum n W^2`, when it was asked for and there are norms.
    #[must_use]
    pub fn output_error(&self) -> Option<f64> {
        (self.output_squares > 0.0).then(|| self.output_squares_changed / self.output_squares)
    }

    /// `sum dW^2 / sum W^2`, when squares were asked for.
    #[must_use]
    pub fn squared_error(&self) -> Option<f64> {
        (self.squares > 0.0).then(|| self.squares_changed / self.squares)
    }
}
