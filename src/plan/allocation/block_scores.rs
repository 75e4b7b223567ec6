//! What a rule has to know of the scores of a block's weights, and how that is counted.
//!
//! The score is the one of the papers, `|w| sqrt(n_j)`, whichever score prunes: one rounded multiplication in f32. Scores are
//! counted by the upper 18 bits of their order key, the `q` of `docs/algorithm.md`, a thousandth apart. What is read off the
//! counts is the same whatever the order in which they were counted.

/// Scores above so many times the mean of their block are outliers (OWL's `M`).
pub const OUTLIER: f64 = 5.0;

/// What is known of the scores of one block's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BlockScores {
    /// Weights that were looked at; those of matrices without norms are not.
    pub weights: u64,
    /// The fraction of scores above [`OUTLIER`] times their mean.
    pub outliers: f64,
    /// The median, the lower of the two in the middle. Scores of one model compare; those of two do not.
    pub median: f64,
}

/// How many scores there are of each size.
#[derive(Clone, Debug)]
pub(crate) struct ScoreCounts {
    counts: Vec<u64>,
}

impl ScoreCounts {
    /// Bits of an order key that do not count.
    const SHIFT: u32 = 13;
    /// Sizes that are told apart: every finite f32 that is not negative.
    pub(crate) const SIZES: usize = 0x7f80_0000 >> Self::SHIFT;

    /// The size of a score, [`Self::SIZES`] for one that is not finite.
    #[inline(always)]
    pub(crate) fn size_of(score: f32) -> usize {
        ((score.to_bits() >> Self::SHIFT) as usize).min(Self::SIZES)
    }

    /// None so far.
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; Self::SIZES],
        }
    }

    /// Takes over what a thread has counted, and leaves it zero. What is not finite, the last, is left out.
    pub(crate) fn take(&mut self, counted: &mut [u32]) {
        for (sum, count) in self.counts.iter_mut().zip(counted.iter_mut()) {
            *sum += u64::from(std::mem::take(count));
        }
        counted[Self::SIZES..].fill(0);
    }

    /// What the rules have to know. A size stands for its lowest score; sums go from the lowest up.
    pub(crate) fn summary(&self) -> BlockScores {
        let value = |size: usize| f64::from(f32::from_bits((size as u32) << Self::SHIFT));
        let counted = || {
            self.counts
                .iter()
                .enumerate()
                .filter(|(_, count)| **count > 0)
        };
        let weights: u64 = self.counts.iter().sum();
        if weights == 0 {
            return BlockScores::default();
        }
        let total: f64 = counted().map(|(size, &n)| n as f64 * value(size)).sum();
        let limit = OUTLIER * total / weights as f64;
        let above = counted().filter(|&(size, _)| value(size) > limit);
        let above: u64 = above.map(|(_, count)| count).sum();
        let (mut seen, mut median) = (0, 0.0);
        for (size, count) in counted() {
            seen += count;
            if seen > (weights - 1) / 2 {
                median = value(size);
                break;
            }
        }
        BlockScores {
            weights,
            outliers: above as f64 / weights as f64,
            median,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(scores: &[f32]) -> BlockScores {
        let mut counted = vec![0; ScoreCounts::SIZES + 1];
        for &score in scores {
            counted[ScoreCounts::size_of(score)] += 1;
        }
        let mut counts = ScoreCounts::new();
        counts.take(&mut counted);
        assert!(counted.iter().all(|&count| count == 0));
        counts.summary()
    }

    #[test]
    fn outliers_are_above_five_means_and_the_median_is_the_lower_of_two() {
        // The mean is 2: 10 is not above five of it.
        let found = summary(&[0.0, 0.0, 0.0, 0.0, 10.0]);
        assert_eq!((found.weights, found.outliers, found.median), (5, 0.0, 0.0));
        let found = summary(&[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 32.0, 0.0]);
        assert_eq!(
            (found.weights, found.outliers, found.median),
            (8, 0.125, 1.0)
        );
        assert_eq!(summary(&[1.0, 4.0, 2.0, 8.0]).median, 2.0);
    }

    #[test]
    fn scores_that_are_not_finite_are_left_out() {
        let found = summary(&[f32::INFINITY, f32::NAN, 4.0]);
        assert_eq!((found.weights, found.median), (1, 4.0));
        assert_eq!(summary(&[f32::NAN]), BlockScores::default());
    }

    #[test]
    fn every_finite_score_has_a_size_of_its_own_thousandth() {
        assert_eq!(ScoreCounts::size_of(f32::MAX), ScoreCounts::SIZES - 1);
        assert_eq!(ScoreCounts::size_of(f32::INFINITY), ScoreCounts::SIZES);
        assert!(ScoreCounts::size_of(1.001) > ScoreCounts::size_of(1.0));
    }
}
