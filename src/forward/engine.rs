//! What a device has to do to run a model: the primitives that `block.rs` and `loss.rs` put together.

use super::batch::{Cut, Span};
use super::error::Error;
use super::statistics::Observation;
use super::weights::WeightReader;
use crate::model::{
    DecoderBlock, ExpertAssignment, HeadNorms, InputKind, LatentWidths, Linear, Nonlinearity,
    NormTensors, Pairing, Parts, Rotary, Scan, SelfAttention,
};

/// Cosines and sines of rope, where a `T` holds those of windows up to some length.
#[derive(Debug)]
pub(super) struct RopeTables<T> {
    pub(super) pairing: Pairing,
    /// Pairs of features that rope rotates.
    pub(super) pairs: usize,
    /// Each with the longest window that it is for, the shorter ones first.
    tables: Vec<(usize, T)>,
}

impl<T> RopeTables<T> {
    /// Those of windows of at most so many tokens: `table` of `[tokens, pairs]`.
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

    /// The table for a window of so many tokens, with heads of so many features.
    pub(super) fn of(&self, tokens: usize, head: usize) -> Result<&T, Error> {
        let mut long_enough = self.tables.iter().filter(|(longest, _)| tokens <= *longest);
        match long_enough.next() {
            Some((_, table)) if 2 * self.pairs <= head => Ok(table),
            _ => Err(Error::Engine(format!(
                "a window of {tokens} tokens, or a head of {head}, is longer than was announced"
            ))),
        }
    }
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

/// One pass of some rows through a block.
pub(super) struct Step<'s, E: Engine> {
    pub(super) spans: &'s [Span],
    /// The block's inputs, in order, if they are observed.
    pub(super) inputs: Option<&'s [InputKind]>,
    pub(super) recording: &'s mut E::Recording,
}

impl<E: Engine> Step<'_, E> {
    /// Takes the statistics of `x`, an input of which every token of the step has a row.
    pub(super) fn observe(
        &mut self,
        engine: &E,
        input: InputKind,
        x: &E::Tensor,
    ) -> Result<(), Error> {
        let rows: Vec<usize> = self.spans.iter().map(|span| span.rows).collect();
        self.observe_rows(engine, input, x, &rows)
    }

    /// The same of an input that has so many rows of each span, one behind the other.
    pub(super) fn observe_rows(
        &mut self,
        engine: &E,
        input: InputKind,
        x: &E::Tensor,
        rows: &[usize],
    ) -> Result<(), Error> {
        let Some(inputs) = self.inputs else {
            return Ok(());
        };
        let number = inputs.iter().position(|known| *known == input);
        let number =
            number.ok_or_else(|| Error::Engine(format!("the block has no input {input:?}")))?;
        engine.observe(self.recording, number, x, rows)
    }
}

/// What a block's mixers keep from one chunk of a window to the next; nothing before the first.
pub(super) struct BlockState<E: Engine>(pub(super) Vec<MixerState<E>>);

/// What one mixer keeps, of every span of a step.
pub(super) struct MixerState<E: Engine> {
    /// Keys and values.
    pub(super) cache: E::Cache,
    /// What the convolutions look back at.
    pub(super) tails: [E::Tail; 3],
    pub(super) scan: E::ScanState,
}

impl<E: Engine> BlockState<E> {
    /// That of windows of which a block has seen nothing.
    pub(super) fn new(block: &DecoderBlock<E>) -> Self {
        let fresh = || MixerState {
            cache: E::Cache::default(),
            tails: Default::default(),
            scan: E::ScanState::default(),
        };
        Self(block.mixers.iter().map(|_| fresh()).collect())
    }
}

/// A device that runs models; its [`Parts`] are weights that it has loaded.
pub(super) trait Engine: Parts<Numbers = Vec<f32>> + Sized + Sync {
    /// Activations, `[rows, features]`.
    type Tensor: Send;
    /// Queries, keys and values, head by head.
    type Heads;
    /// What is under way for one task of [`run`](Self::run): what was observed so far, and on an adapter the dispatches that
    /// become one submission.
    type Recording;
    /// Keys and values of the tokens before, of each span.
    type Cache: Default;
    /// The last inputs of a convolution, of each span.
    type Tail: Default;
    /// What a scan has come to, of each span.
    type ScanState: Default;

    // --- Weights.

    /// Brings the weights of a linear layer to the device.
    fn load_matrix(
        &self,
        weights: &WeightReader<'_>,
        linear: &Linear,
    ) -> Result<Self::Linear, Error>;

    /// Brings those of several to it, in their order.
    fn load_matrices(
        &self,
        weights: &WeightReader<'_>,
        layers: &[Linear],
    ) -> Result<Vec<Self::Linear>, Error> {
        let load = |layer| self.load_matrix(weights, layer);
        layers.iter().map(load).collect()
    }

    /// Brings the weights of a norm to the device.
    fn load_norm(
        &self,
        weights: &WeightReader<'_>,
        norm: &NormTensors,
    ) -> Result<Self::Norm, Error>;

    /// Brings a list of numbers to the device.
    fn load_vector(&self, numbers: Vec<f32>) -> Result<Self::Vector, Error>;

    /// Brings a convolution to the device: `[channels, width]`, and `[channels]` where there is a bias.
    fn load_convolution(
        &self,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        width: usize,
    ) -> Result<Self::Convolution, Error>;

    /// Brings the numbers of a scan to the device.
    fn load_scan(&self, scan: Scan) -> Result<Self::Scan, Error>;

    // --- Around the blocks.

    /// A tensor from its values, `[tokens, features]` row-major: what a window starts with.
    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Self::Tensor, Error>;

    /// Bytes that hidden states may take where the engine has them.
    fn hidden_room(&self) -> usize;

    /// How windows of at most so many tokens become tensors.
    fn cut(&self, window: usize) -> Cut;

    /// How many tensors of so many rows [`run`](Self::run) should get at a time.
    fn in_flight(&self, rows: usize) -> usize;

    /// Does each task with a recording of its own, on the CPU a core a task. Gives what each observed, in the order of the tasks.
    fn run<T: Send>(
        &self,
        tasks: Vec<T>,
        work: impl Fn(&mut Self::Recording, T) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Vec<Observation>>, Error>;

    /// Of each tensor, the logits for a part of the head, summed up for each row by the token that follows it.
    fn partial_losses(
        &self,
        head: &LmHeadPart,
        hidden: &[(&Self::Tensor, &[u32])],
    ) -> Result<Vec<Vec<PartialLoss>>, Error>;

    /// The logits themselves, `[rows, rows of the head]`.
    fn logits(&self, head: &LmHeadPart, hidden: &Self::Tensor) -> Result<Vec<f32>, Error>;

    // --- The primitives of a block.

    /// `x`, normalised.
    fn norm(
        &self,
        step: &mut Step<'_, Self>,
        norm: &Self::Norm,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// `x W^T + b`.
    fn product(
        &self,
        step: &mut Step<'_, Self>,
        matrix: &Self::Linear,
        x: &Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Adds `x W^T + b` to `sum`.
    fn add_product(
        &self,
        step: &mut Step<'_, Self>,
        matrix: &Self::Linear,
        x: &Self::Tensor,
        sum: &mut Self::Tensor,
    ) -> Result<(), Error>;

    /// Adds `x`, times `scale`, to `sum`.
    fn add_scaled(
        &self,
        step: &mut Step<'_, Self>,
        x: &Self::Tensor,
        scale: f32,
        sum: &mut Self::Tensor,
    ) -> Result<(), Error>;

    /// `x`, times `scale`, in a place of its own.
    fn scaled(
        &self,
        step: &mut Step<'_, Self>,
        x: &Self::Tensor,
        scale: f32,
    ) -> Result<Self::Tensor, Error>;

    /// `x`, of which as many features as the norm has are normalised together, then the next ones.
    fn norm_parts(
        &self,
        step: &mut Step<'_, Self>,
        norm: &Self::Norm,
        x: Self::Tensor,
    ) -> Result<Self::Tensor, Error>;

    /// Each channel of `x`, convolved with the tokens before it.
    fn convolve(
        &self,
        step: &mut Step<'_, Self>,
        convolution: &Self::Convolution,
        x: &Self::Tensor,
        tail: &mut Self::Tail,
    ) -> Result<Self::Tensor, Error>;

    /// Runs along the tokens; the inputs are those of [`ScanSizes`](crate::model::ScanSizes).
    fn scan(
        &self,
        step: &mut Step<'_, Self>,
        scan: &Self::Scan,
        inputs: &[&Self::Tensor],
        state: &mut Self::ScanState,
    ) -> Result<Self::Tensor, Error>;

    /// Queries, keys and values out of what latent projections made: of each head, now first the rope part. `queries` is
    /// `[tokens, heads * (nope + rope)]`, `rope_key` `[tokens, rope]`, `keys_and_values` `[tokens, heads * (nope +
    /// value)]`.
    fn heads_of_latents(
        &self,
        step: &mut Step<'_, Self>,
        widths: LatentWidths,
        queries: &Self::Tensor,
        rope_key: &Self::Tensor,
        keys_and_values: &Self::Tensor,
    ) -> Result<Self::Heads, Error>;

    /// Queries, keys and values of `x`, of projections that are not latent.
    fn heads(
        &self,
        step: &mut Step<'_, Self>,
        attention: &SelfAttention<Self>,
        x: &Self::Tensor,
    ) -> Result<Self::Heads, Error>;

    /// Brings every feature of the queries, keys and values within `-clip ..= clip`.
    fn clip_heads(
        &self,
        step: &mut Step<'_, Self>,
        clip: f32,
        heads: &mut Self::Heads,
    ) -> Result<(), Error>;

    /// Normalises the queries and the keys, each head or all of them together.
    fn normalise_heads(
        &self,
        step: &mut Step<'_, Self>,
        norms: &HeadNorms<Self::Norm>,
        heads: &mut Self::Heads,
    ) -> Result<(), Error>;

    /// Applies rope to queries and keys by their position, in the way of this index.
    fn apply_rope(
        &self,
        step: &mut Step<'_, Self>,
        rotary: usize,
        heads: &mut Self::Heads,
    ) -> Result<(), Error>;

    /// The attention output, `[tokens, query heads * features of a head]`, of queries that see the keys of the cache and those
    /// beside them. These go into the cache where their window goes on.
    fn attend(
        &self,
        step: &mut Step<'_, Self>,
        attention: &SelfAttention<Self>,
        heads: Self::Heads,
        cache: &mut Self::Cache,
    ) -> Result<Self::Tensor, Error>;

    /// `act(x)`, or `act(x) * up`.
    fn activate(
        &self,
        step: &mut Step<'_, Self>,
        activation: Nonlinearity,
        x: Self::Tensor,
        up: Option<Self::Tensor>,
    ) -> Result<Self::Tensor, Error>;

    /// Takes the statistics of the block's input of this number, which has so many rows of each span.
    fn observe(
        &self,
        recording: &mut Self::Recording,
        input: usize,
        x: &Self::Tensor,
        rows: &[usize],
    ) -> Result<(), Error>;

    /// Brings `x` to the host, `[tokens, features]` row-major, for a decision that the rest of the block waits for.
    fn values(&self, step: &mut Step<'_, Self>, x: &Self::Tensor) -> Result<Vec<f32>, Error>;

    /// The rows of `x` that an expert assignment names, each times its weight.
    fn gather(
        &self,
        step: &mut Step<'_, Self>,
        x: &Self::Tensor,
        assignment: &ExpertAssignment,
    ) -> Result<Self::Tensor, Error>;

    /// Adds each row of `y`, times its weight, to that row of `sum` which an assignment names for it. An assignment names no row
    /// twice.
    fn scatter(
        &self,
        step: &mut Step<'_, Self>,
        y: &Self::Tensor,
        assignment: &ExpertAssignment,
        sum: &mut Self::Tensor,
    ) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an engine rotated by instead, where a window was longer than all of its tables, would be another model.
    #[test]
    fn a_window_that_no_table_is_for_is_an_error() {
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
