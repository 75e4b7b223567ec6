//! A random sketch of a layer's input: what is kept of `X^T X` beside its diagonal.
//!
//! `X` is `[tokens, in_features]`, and `Omega` `[in_features, rank]` of random signs. The sketch is `Y = X^T X Omega`: a rank-r
//! picture of a matrix that is never formed. Signs rather than normal deviates, because a sign is the same number on every
//! machine, and a product with it is a sum.
//!
//! Columns of `Omega` are independent, so the first columns of a sketch are a sketch of smaller rank.

/// The most columns a sketch may have.
pub const MAX_RANK: usize = 1024;

/// The seed of `Omega`, part of what a sketch in a file means.
const SEED: u64 = 0x5377_6966_7450_7275;

/// What a counter goes on by from one word of signs to the next (Steele, Lea and Flood: SplitMix64, 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words of signs a feature has: a sign a bit.
const WORDS: u64 = (MAX_RANK / 64) as u64;

/// `Y` of one layer's input.
#[derive(Clone, Debug, PartialEq)]
pub struct Sketch {
    /// Features of the input.
    pub in_features: usize,
    /// Columns.
    pub rank: usize,
    /// `[in_features, rank]`, row-major.
    pub values: Vec<f32>,
}

/// 64 signs of one feature, the first in the lowest bit: 1 is -1.
fn word(feature: usize, index: usize) -> u64 {
    let count = (feature as u64)
        .wrapping_mul(WORDS)
        .wrapping_add(index as u64 + 1);
    let mut x = SEED.wrapping_add(count.wrapping_mul(STEP));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A feature's row of `Omega`, 1 or -1, into as many places as there are columns.
pub(crate) fn signs(feature: usize, row: &mut [f32]) {
    for (index, signs) in row.chunks_mut(64).enumerate() {
        let word = word(feature, index);
        for (bit, sign) in signs.iter_mut().enumerate() {
            *sign = if word >> bit & 1 == 1 { -1.0 } else { 1.0 };
        }
    }
}

/// `Omega`, `[in_features, rank]` row-major.
pub(crate) fn omega(in_features: usize, rank: usize) -> Vec<f32> {
    let mut all = vec![0.0; in_features * rank];
    for (feature, row) in all.chunks_exact_mut(rank.max(1)).enumerate() {
        signs(feature, row);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_columns_are_the_signs_of_a_smaller_rank() {
        let (wide, narrow) = (omega(5, 200), omega(5, 70));
        for (wide, narrow) in wide.chunks_exact(200).zip(narrow.chunks_exact(70)) {
            assert_eq!(&wide[..70], narrow);
        }
    }

    #[test]
    fn signs_are_as_often_one_as_the_other_and_columns_have_nothing_in_common() {
        let (features, rank) = (4096, 96);
        let all = omega(features, rank);
        let dot =
            |a: usize, b: usize| -> f32 { all.chunks_exact(rank).map(|row| row[a] * row[b]).sum() };
        // Six standard deviations of a sum of 4,096 random signs.
        let most = 6.0 * (features as f32).sqrt();
        for column in 0..rank {
            let sum: f32 = all.chunks_exact(rank).map(|row| row[column]).sum();
            assert!(sum.abs() < most, "column {column} sums to {sum}");
            for other in 0..column {
                assert!(dot(column, other).abs() < most, "{column} and {other}");
            }
        }
    }

    #[test]
    fn the_signs_of_a_file_never_change() {
        // What docs/calibration.md defines, computed there by hand in Python.
        assert_eq!(word(0, 0), splitmix(1));
        assert_eq!(word(3, 1), splitmix(3 * 16 + 2));
    }

    /// The published generator, as a sequence.
    fn splitmix(steps: u64) -> u64 {
        let (mut state, mut out) = (SEED, 0);
        for _ in 0..steps {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            out = z ^ (z >> 31);
        }
        out
    }
}
