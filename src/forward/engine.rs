//! What a device has to do to run a model: the primitives that `block.rs` and `loss.rs` put together.
//!
//! A hidden state, and every other [`Tensor`](Engine::Tensor), is one sequence, `[tokens, features]` in f32. While a
//! sequence goes through a block, its primitives assignment a [`Sequence`](Engine::Sequence): what was observed so far, and
//! on an adapter the dispatches that become one submission.

use super::error::Error;
use super::weights::WeightReader;
use crate::model::{
    DecoderBlock, ExpertAssignment, Experts, HeadNorms, LatentProjections, LatentWidths, Linear,
    Mixer, Nonlinearity, NormTensors, Pairing, Rotary, Scan, SelfAttention, Ssm,
};

/// A block with its weights on a device.
pub(super) type LoadedBlock<E> = DecoderBlock<<E as Engine>::Matrix, <E as Engine>::Norm, Vec<f32>>;

/// Narrow projections with their weights on a device.
pub(super) type LoadedLatent<E> = LatentProjections<<E as Engine>::Matrix, <E as Engine>::Norm>;

/// Experts with their weights on a device.
pub(super) type LoadedExperts<E> = Experts<<E as Engine>::Matrix, Vec<f32>>;

/// Attention with its weights on a device.
pub(super) type LoadedAttention<E> =
    SelfAttention<<E as Engine>::Matrix, <E as Engine>::Norm, Vec<f32>>;

/// Token mixing, with its weights on a device.
pub(super) type LoadedMixer<E> = Mixer<<E as Engine>::Matrix, <E as Engine>::Norm, Vec<f32>>;

/// A recurrence with its weights on a device.
pub(super) type LoadedSsm<E> = Ssm<<E as Engine>::Matrix, <E as Engine>::Norm, Vec<f32>>;

/// Cosines and sines of rope, where a `T` holds those of sequences up to some length.
#[derive(Debug)]
pub(super) struct RopeTables<T> {
    pub(super) pairing: Pairing,
    /// Pairs of features that rope rotates.
    pub(super) pairs: usize,
    /// Each with the longest sequence that it is for, the shorter ones first.
    tables: Vec<(usize, T)>,
}

impl<T> RopeTables<T> {
    /// Those of sequences of at most so many tokens: `table` of `[tokens, pairs]`.
    pub(super) fn new(rotary: &Rotary, tokens: usize, table: impl Fn(&[[f32; 2]]) -> T) -> Self {
        let tables = rotary.by_length(tokens).map(|(longest, frequencies)| {
            let longest = longest.min(tokens);
            let rotations = Rotary::cosines_and_sines(frequencies, rotary.amplitude, longest);
            (longest, table(&rotations))
        });
        Self {
            pairing: rotary.pairing,
            pairs: rotary.frequencies.len(),
            tables: tables.collect(),
        }
    }

    /// The table for a sequence of so many tokens, with heads of so many features.
    pub(super) fn of(&self, tokens: usize, head: usize) -> Result<&T, Error> {
        let mut long_enough = self.tables.iter().filter(|(longest, _)| tokens <= *longest);
        match long_enough.next() {
            Some((_, table)) if 2 * self.pairs <= head => Ok(table),
            _ => Err(Error::Engine(format!(
                "a sequence of {tokens} tokens, or a head of {head}, is longer than was announced"
            ))),
        }
    }
}

/// A causal convolution of each channel for itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Convolved<'a> {
    /// `[channels, width]`; the last factor is that of the token itself.
    pub(super) weight: &'a [f32],
    /// `[channels]`.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) width: usize,
}

/// How the primitives make a block: changes the hidden state of one sequence.
pub(super) type Wiring<E> = fn(
    &E,
    &mut <E as Engine>::Sequence,
    &LoadedBlock<E>,
    &mut <E as Engine>::Tensor,
) -> Result<(), Error>;

/// How sequences go through a block.
pub(super) struct BlockPass<E: Engine> {
    /// What a block does with one.
    pub(super) wiring: Wiring<E>,
    /// Whether statistics are taken of what comes by.
    pub(super) observes: bool,
}

/// Some rows of the head.
#[derive(Clone, Debug)]
pub(super) struct LmHeadPart {
    /// The number of the first.
    pub(super) first: usize,
    /// `[rows, hidden_size]`.
    pub(super) rows: Vec<f32>,
    /// `[rows]`.
    pub(super) bias: Option<Vec<f32>>,
}

/// What some of a token's logits add to its loss.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialLoss {
    pub(super) largest: f32,
    /// Of `exp(logit - largest)`.
    pub(super) sum: f32,
    /// The logit of the token that follows; of no meaning if that is not among these.
    pub(super) target: f32,
}

/// A device that runs models.
pub(super) trait Engine: Sized {
    /// The activations of one sequence, `[tokens, features]`.
    type Tensor;
    /// Its queries, keys and values, head by head.
    type Heads;
    /// The weights of a linear layer.
    type Matrix;
    /// The weights of a norm.
    type Norm;
    /// What the primitives keep while one sequence goes through a block.
    type Sequence;

    /// Brings the weights of a linear layer to the device.
    fn load_matrix(
        &self,
        weights: &WeightReader<'_>,
        linear: &Linear,
    ) -> Result<Self::Matrix, Error>;

    /// Brings those of all linear layers of a block, in their order.
    fn load_matrices(
        &self,
        weights: &WeightReader<'_>,
        layers: &[Linear],
    ) -> Result<Vec<Self::Matrix>, Error> {
        let load = |layer| self.load_matrix(weights, layer);
        layers.iter().map(load).collect()
    }

    /// Brings the weights of a norm to the device.
    fn load_norm(
        &self,
        weights: &WeightReader<'_>,
        norm: &NormTensors,
    ) -> Result<Self::Norm, Error>;

    /// A tensor of so many tokens from its values, `[tokens, features]` row-major: what a sequence starts with.
    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Self::Tensor, Error>;

    /// How many sequences of `context` tokens [`run`](Self::run) should get at a time.
    fn in_flight(&self, context: usize) -> usize;

    /// Sequences through one block, each for itself. Gives what was observed of each, in the order of the calls of
    /// [`observe`](Self::observe); nothing of a pass that does not observe.
    fn run(
        &self,
        block: &LoadedBlock<Self>,
        hidden: &mut [Self::Tensor],
        pass: BlockPass<Self>,
    ) -> Result<Vec<Vec<f32>>, Error>;

    /// The same activations once more, in a place of their own.
    fn copy(&self, x: &Self::Tensor) -> Result<Self::Tensor, Error>;

    // --- The primitives of a block.

    /// `x`, normalised.
    fn norm(
        &self,
        sequence: &mut Self::Sequence,
        norm: &Self::Norm,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// `x W^T + b`.
    fn product(
        &self,
        sequence: &mut Self::Sequence,
        matrix: &Self::Matrix,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Adds `x W^T + b` to `sum`.
    fn add_product(
        &self,
        sequence: &mut Self::Sequence,
        matrix: &Self::Matrix,
        x: &Self::Tensor,
        sum: &mut Self::Tensor,
    ) -> Result<(), Error>;

    /// Adds `x`, times `scale`, to `sum`.
    fn add_scaled(
        &self,
        sequence: &mut Self::Sequence,
        x: &Self::Tensor,
        scale: f32,
        sum: &mut Self::Tensor,
    ) -> Result<(), Error>;

    /// `x`, times `scale`.
    fn scaled(
        &self,
        sequence: &mut Self::Sequence,
        x: &Self::Tensor,
        scale: f32,
    ) -> Result<Self::Tensor, Error>;

    /// `x`, of which as many features as the norm has are normalised together, then the next ones.
    fn norm_parts(
        &self,
        sequence: &mut Self::Sequence,
        norm: &Self::Norm,
        x: Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Each channel of `x`, convolved with those before it.
    fn convolve(
        &self,
        sequence: &mut Self::Sequence,
        convolution: &Convolved<'_>,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Runs along the sequence; the inputs are those of [`ScanSizes`](crate::model::ScanSizes).
    fn scan(
        &self,
        sequence: &mut Self::Sequence,
        scan: &Scan,
        inputs: &[&Self::Tensor],
    ) -> Result<Self::Tensor, Error>;

    /// Queries, keys and values out of what latent projections made: of each head, now first the rope part. `queries` is
    /// `[tokens, heads * (nope + rope)]`, `rope_key` `[tokens, rope]`, `keys_and_values` `[tokens, heads * (nope +
    /// value)]`.
    fn heads_of_latents(
        &self,
        sequence: &mut Self::Sequence,
        widths: LatentWidths,
        queries: &Self::Tensor,
        rope_key: &Self::Tensor,
        keys_and_values: &Self::Tensor,
    ) -> Result<Self::Heads, Error>;

    /// Queries, keys and values of `x`, of projections that are not latent.
    fn heads(
        &self,
        sequence: &mut Self::Sequence,
        attention: &LoadedAttention<Self>,
        x: &Self::Tensor,
    ) -> Result<Self::Heads, Error>;

    /// Brings every feature of the queries, keys and values within `-clip ..= clip`.
    fn clip_heads(
        &self,
        sequence: &mut Self::Sequence,
        clip: f32,
        heads: &mut Self::Heads,
    ) -> Result<(), Error>;

    /// Normalises the queries and the keys, each head or all of them together.
    fn normalise_heads(
        &self,
        sequence: &mut Self::Sequence,
        norms: &HeadNorms<Self::Norm>,
        heads: &mut Self::Heads,
    ) -> Result<(), Error>;

    /// Applies rope to queries and keys by their position, in the way of this index.
    fn apply_rope(
        &self,
        sequence: &mut Self::Sequence,
        rotary: usize,
        heads: &mut Self::Heads,
    ) -> Result<(), Error>;

    /// The attention output, `[tokens, query heads * features of a head]`.
    fn attend(
        &self,
        sequence: &mut Self::Sequence,
        attention: &LoadedAttention<Self>,
        heads: Self::Heads,
    ) -> Result<Self::Tensor, Error>;

    /// `act(x)`, or `act(x) * up`.
    fn activate(
        &self,
        sequence: &mut Self::Sequence,
        activation: Nonlinearity,
        x: Self::Tensor,
        up: Option<Self::Tensor>,
    ) -> Result<Self::Tensor, Error>;

    /// Takes the statistics of `x`, the input of some linear layers.
    fn observe(&self, sequence: &mut Self::Sequence, x: &Self::Tensor) -> Result<(), Error>;

    /// Takes the statistics of no tokens, where nothing reached this reader of an input.
    fn observe_nothing(
        &self,
        sequence: &mut Self::Sequence,
        reader: &Self::Matrix,
    ) -> Result<(), Error>;

    /// Brings `x` to the host, `[tokens, features]` row-major, for a decision that the rest of the block waits for.
    fn values(&self, sequence: &mut Self::Sequence, x: &Self::Tensor) -> Result<Vec<f32>, Error>;

    /// The rows of `x` that an expert assignment names, each times its weight.
    fn gather(
        &self,
        sequence: &mut Self::Sequence,
        x: &Self::Tensor,
        assignment: &ExpertAssignment,
    ) -> Result<Self::Tensor, Error>;

    /// Adds each row of `y`, times its weight, to that row of `sum` which an assignment names for it. An assignment names no row twice.
    fn scatter(
        &self,
        sequence: &mut Self::Sequence,
        y: &Self::Tensor,
        assignment: &ExpertAssignment,
        sum: &mut Self::Tensor,
    ) -> Result<(), Error>;

    // --- Before the blocks and after them.

    /// A hidden state, normalised: for the first block where the embedding has a norm, and for the head.
    fn normalise(&self, norm: &Self::Norm, hidden: &Self::Tensor) -> Result<Self::Tensor, Error>;

    /// `sum + x W^T + b`.
    fn project(
        &self,
        matrix: &Self::Matrix,
        x: &Self::Tensor,
        sum: Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Tokens of a tensor.
    fn tokens(&self, x: &Self::Tensor) -> Result<usize, Error>;

    /// Of each sequence, the logits for a part of the head, summed up for each token that `next` has a successor of.
    fn partial_losses(
        &self,
        head: &LmHeadPart,
        hidden: &[Self::Tensor],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<PartialLoss>>, Error>;

    /// The logits themselves, `[tokens, rows]`.
    fn logits(&self, head: &LmHeadPart, hidden: &Self::Tensor) -> Result<Vec<f32>, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an engine rotated by instead, where a sequence was longer than all of its tables, would be another model.
    #[test]
    fn a_sequence_that_no_table_is_for_is_an_error() {
        let rotary = Rotary {
            frequencies: vec![1.0, 0.5],
            pairing: Pairing::Halves,
            amplitude: 1.0,
            beyond: Some((4, vec![0.5, 0.25])),
            longest: None,
        };
        let tables = RopeTables::new(&rotary, 6, <[_]>::len);
        assert_eq!(tables.of(4, 4).unwrap(), &(4 * 2));
        assert_eq!(tables.of(5, 4).unwrap(), &(6 * 2));
        for (tokens, head) in [(7, 4), (4, 3)] {
            let error = tables.of(tokens, head).unwrap_err().to_string();
            assert!(error.contains("longer than was announced"), "{error}");
        }
        let short = RopeTables::new(&rotary, 3, <[_]>::len);
        assert!(short.of(4, 4).is_err());
    }
}
