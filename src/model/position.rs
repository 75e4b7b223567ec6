//! How a model without rope knows the order of its tokens: an embedding of positions, or biases of attention.

use super::error::Error;

/// An embedding that is added to that of the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PositionEmbedding {
    /// The tensor, `[offset + positions, hidden_size]`.
    pub(crate) tensor: String,
    /// Rows before that of the first position.
    pub(crate) offset: usize,
    /// Positions there are.
    pub(crate) positions: usize,
}

/// Attention with linear biases (ALiBi, arXiv 2108.12409): what is added to the score of a query and a key falls with
/// their distance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alibi {
    /// How steeply, for each query head.
    pub(crate) slopes: Vec<f32>,
    /// What the bias is multiplied by before it is added to the scaled score.
    pub(crate) factor: f32,
    /// Whether positions, slopes and their product are rounded to bfloat16, in which the model was trained; then a bias
    /// depends on both places, and not only on their distance.
    pub(crate) in_bf16: bool,
}

/// Heads that a model may have here; far more than any has.
const MAX_HEADS: usize = 1 << 12;

impl Alibi {
    /// The slopes of the paper's authors: powers of `2^(-8/n)` for the largest power of two `n` that heads go to, then
    /// every other one of the powers for `2 n`.
    pub(super) fn of_paper(heads: usize) -> Result<Self, Error> {
        let whole = largest_power_of_two(heads)?;
        let powers = |steps: usize| {
            // The base is rounded before it is raised, as elsewhere.
            let base = f64::from((-8.0 / steps as f64).exp2() as f32);
            (1..).map(move |k| base.powi(k) as f32)
        };
        let between = powers(2 * whole).step_by(2).take(heads - whole);
        Ok(Self {
            slopes: powers(whole).take(whole).chain(between).collect(),
            factor: 1.0,
            in_bf16: false,
        })
    }

    /// The slopes of MPT: those for the next power of two, the second, fourth and so on first.
    pub(super) fn of_mpt(heads: usize) -> Result<Self, Error> {
        largest_power_of_two(heads)?;
        let whole = heads.next_power_of_two();
        let slope = |k: usize| (-8.0 * k as f64 / whole as f64).exp2() as f32;
        let all: Vec<f32> = (1..=whole).map(slope).collect();
        let slopes = if whole == heads {
            all
        } else {
            let (even, odd) = (all.iter().skip(1).step_by(2), all.iter().step_by(2));
            even.chain(odd).take(heads).copied().collect()
        };
        Ok(Self {
            slopes,
            factor: 1.0,
            in_bf16: false,
        })
    }
}

fn largest_power_of_two(heads: usize) -> Result<usize, Error> {
    if heads > MAX_HEADS {
        return Err(Error::Config(format!(
            "num_attention_heads is {heads}, more than {MAX_HEADS}"
        )));
    }
    Ok((heads + 1).next_power_of_two() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_of_two_of_heads_has_the_same_slopes_everywhere() {
        let paper = Alibi::of_paper(8).unwrap();
        assert_eq!(paper, Alibi::of_mpt(8).unwrap());
        assert_eq!(paper.slopes[0], 0.5);
        assert_eq!(paper.slopes[7], 1.0 / 256.0);
    }

    #[test]
    fn other_numbers_of_heads_take_slopes_from_between() {
        let near = |got: &[f32], right: &[f64]| {
            assert_eq!(got.len(), right.len());
            for (got, right) in got.iter().zip(right) {
                assert!((f64::from(*got) - right.exp2()).abs() < 1e-7, "{got}");
            }
        };
        // What both of transformers' functions give.
        let paper = Alibi::of_paper(6).unwrap().slopes;
        near(&paper, &[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]);
        let mpt = Alibi::of_mpt(6).unwrap().slopes;
        near(&mpt, &[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]);
        let mpt = Alibi::of_mpt(3).unwrap().slopes;
        near(&mpt, &[-4.0, -8.0, -2.0]);
        near(&Alibi::of_paper(3).unwrap().slopes, &[-4.0, -8.0, -2.0]);
        near(&Alibi::of_paper(1).unwrap().slopes, &[-8.0]);
        assert!(Alibi::of_paper(1 << 20).is_err());
    }
}
