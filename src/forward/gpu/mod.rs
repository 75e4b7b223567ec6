//! The forward pass on an adapter, in f32, by the kernels of `shaders/forward`.
//!
//! Weights go to the device as they are stored. What waits for the device is only what was observed of a few sequences.

mod buffers;
mod head;
mod heads;
mod layers;
mod peak;
mod probe;
mod recorder;
mod rows;
mod scan;
mod statistics;
mod weights;

use super::engine::{
    BlockPass, Convolved, Engine, LmHeadPart, LoadedAttention, LoadedBlock, PartialLoss,
};
use super::error::Error;
use super::statistics::Statistic;
use super::weights::WeightReader;
use crate::device::product::Destination;
use crate::device::recorder::Sequence;
use crate::device::storage::filled;
use crate::device::{self, adapter::context::Context};
use crate::model::{
    Architecture, ExpertAssignment, HeadNorms, LatentWidths, Linear, MixerKind, Nonlinearity,
    NormTensors, Position, Scan,
};
use buffers::GpuTensor;
use head::HeadRows;
use heads::{AlibiBuffer, GpuHeads, MAX_HEAD_FEATURES, RopeBuffers};
pub(super) use peak::GpuProduct;
use recorder::Recorder;
use statistics::Observations;
use weights::{GpuMatrix, GpuNorm};

/// Sequences submitted before they are waited for.
const IN_FLIGHT: usize = 8;

/// An adapter that runs one sequence after the other.
pub(super) struct GpuEngine<'a> {
    embedding_size: usize,
    logit_soft_cap: Option<f32>,
    recorder: Recorder<'a>,
    observations: Observations<'a>,
    /// Of each of the architecture's rotary embeddings.
    ropes: Vec<RopeBuffers>,
    alibi: Option<AlibiBuffer>,
}

impl<'a> GpuEngine<'a> {
    /// An adapter for sequences of at most `tokens` tokens.
    pub(super) fn new(
        architecture: &Architecture,
        tokens: usize,
        statistics: &'a [Statistic],
        context: &'a Context,
    ) -> Result<Self, Error> {
        check_fit(architecture, tokens, statistics, context)?;
        check(context)?;
        let rotaries = architecture.rotaries.iter();
        let engine = Self {
            embedding_size: architecture.embedding_size,
            logit_soft_cap: architecture.logit_soft_cap,
            recorder: Recorder::new(context, tokens),
            observations: Observations::new(context, architecture, statistics, IN_FLIGHT)?,
            ropes: rotaries
                .map(|rotary| {
                    RopeBuffers::new(rotary, tokens, |rotations| {
                        filled(context, "rope", rotations)
                    })
                })
                .collect(),
            alibi: architecture
                .alibi
                .as_ref()
                .map(|alibi| AlibiBuffer::new(context, alibi)),
        };
        context.check()?;
        Ok(engine)
    }
}

/// Tries the kernels on an adapter, once; what differs from the host's results is an error.
pub(super) fn check(context: &Context) -> Result<(), device::Error> {
    let checked = match context.forward_check.get() {
        Some(checked) => checked,
        None => {
            let recorder = Recorder::new(context, 0);
            let found = probe::kernels(&recorder).or_else(|error| match error {
                Error::Device(error) => Err(error),
                error => Ok(Err(error.to_string())),
            })?;
            context.forward_check.get_or_init(|| found)
        }
    };
    checked.clone().map_err(|reason| device::Error::Unfit {
        device: context.info.to_string(),
        reason,
    })
}

/// Checks that the adapter has room for sequences of so many tokens.
fn check_fit(
    architecture: &Architecture,
    tokens: usize,
    statistics: &[Statistic],
    context: &Context,
) -> Result<(), Error> {
    let unfit = |reason: String| {
        Error::Engine(format!(
            "{reason} (on {}; the CPU has no such limit)",
            context.info
        ))
    };
    let most = context.limits.max_compute_workgroups_per_dimension as usize;
    let widest = architecture.blocks.iter().map(|block| block.widest()).max();
    let widest = widest.unwrap_or(0).max(architecture.hidden_size);
    let widest = widest.max(architecture.embedding_size);
    let mixers = architecture.blocks.iter().flat_map(|block| &block.mixers);
    for mixer in mixers {
        let (what, kernel, size, room) = match &mixer.kind {
            MixerKind::Attention(attention) => {
                let size = attention.widest_head();
                ("heads", "attention's", size, MAX_HEAD_FEATURES)
            }
            MixerKind::Recurrence(recurrence) => {
                let size = recurrence.kept();
                ("states", "the recurrence's", size, scan::MAX_KEPT)
            }
        };
        if size > room {
            return Err(unfit(format!(
                "{what} of {size} features do not fit {kernel} kernel, which has room for {room}"
            )));
        }
    }
    // A sketch is made of projections to its rank.
    let ranks = statistics.iter().map(|statistic| match statistic {
        Statistic::Sketch(rank) => *rank,
        _ => 0,
    });
    let widest = widest.max(ranks.max().unwrap_or(0));
    let bytes = 4 * tokens as u64 * widest as u64;
    if tokens > most || bytes > context.largest_buffer() {
        return Err(unfit(format!(
            "sequences of {tokens} tokens are too long: their activations take {bytes} bytes; shorter ones would fit"
        )));
    }
    Ok(())
}

impl Engine for GpuEngine<'_> {
    type Tensor = GpuTensor;
    type Heads = GpuHeads;
    type Matrix = GpuMatrix;
    type Norm = GpuNorm;
    type Sequence = Sequence;

    fn load_matrix(&self, weights: &WeightReader<'_>, linear: &Linear) -> Result<GpuMatrix, Error> {
        GpuMatrix::load(self.recorder.context, weights, linear)
    }

    fn load_norm(&self, weights: &WeightReader<'_>, norm: &NormTensors) -> Result<GpuNorm, Error> {
        GpuNorm::load(self.recorder.context, weights, norm)
    }

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<GpuTensor, Error> {
        let context = self.recorder.context;
        let hidden = GpuTensor::new(context, tokens, rows.len() / tokens.max(1));
        let bytes = bytemuck::cast_slice(&rows);
        context.queue.write_buffer(&hidden.buffer, 0, bytes);
        context.check()?;
        Ok(hidden)
    }

    fn in_flight(&self, _context: usize) -> usize {
        self.observations.sequences
    }

    fn run(
        &self,
        block: &LoadedBlock<Self>,
        hidden: &mut [GpuTensor],
        pass: BlockPass<Self>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.observations.begin(pass.observes);
        let mut last = None;
        let count = hidden.len();
        for hidden in hidden {
            let record = |sequence: &mut Sequence| (pass.wiring)(self, sequence, block, hidden);
            last = Some(self.recorder.try_submit(record)?);
        }
        let observed = self.observations.observed();
        if observed == 0 {
            last.map_or(Ok(()), |submission| self.recorder.wait(submission))?;
            return Ok(vec![Vec::new(); count]);
        }
        let all = self
            .recorder
            .download(&self.observations.numbers, observed)?;
        let of_sequence = all.chunks_exact(observed / count);
        Ok(of_sequence.map(<[f32]>::to_vec).collect())
    }

    fn copy(&self, x: &GpuTensor) -> Result<GpuTensor, Error> {
        let copy = self.recorder.activations(x.tokens, x.features);
        let count = x.tokens * x.features;
        self.recorder.copy(&x.buffer, &copy.buffer, count)?;
        Ok(copy)
    }

    fn norm(
        &self,
        sequence: &mut Sequence,
        norm: &GpuNorm,
        x: &GpuTensor,
    ) -> Result<GpuTensor, Error> {
        let y = self.recorder.activations(x.tokens, x.features);
        layers::norm(&self.recorder, sequence, norm, x, &y.buffer);
        Ok(y)
    }

    fn product(
        &self,
        sequence: &mut Sequence,
        matrix: &GpuMatrix,
        x: &GpuTensor,
    ) -> Result<GpuTensor, Error> {
        let y = self.recorder.activations(x.tokens, matrix.out_features);
        layers::product(&self.recorder, sequence, matrix, x, layers::all(&y));
        Ok(y)
    }

    fn add_product(
        &self,
        sequence: &mut Sequence,
        matrix: &GpuMatrix,
        x: &GpuTensor,
        sum: &mut GpuTensor,
    ) -> Result<(), Error> {
        let to = Destination {
            add: true,
            ..layers::all(sum)
        };
        layers::product(&self.recorder, sequence, matrix, x, to);
        Ok(())
    }

    fn scaled(
        &self,
        sequence: &mut Sequence,
        x: &GpuTensor,
        scale: f32,
    ) -> Result<GpuTensor, Error> {
        let y = self.recorder.activations(x.tokens, x.features);
        let to = (&y.buffer, [y.tokens, y.features]);
        let x = Some(&x.buffer);
        layers::elementwise(&self.recorder, sequence, "scaled", [scale, 0.0], x, to);
        Ok(y)
    }

    fn norm_parts(
        &self,
        sequence: &mut Sequence,
        norm: &GpuNorm,
        x: GpuTensor,
    ) -> Result<GpuTensor, Error> {
        layers::norm_parts(&self.recorder, sequence, norm, &x);
        Ok(x)
    }

    fn convolve(
        &self,
        sequence: &mut Sequence,
        convolution: &Convolved<'_>,
        x: &GpuTensor,
    ) -> Result<GpuTensor, Error> {
        Ok(scan::convolve(&self.recorder, sequence, convolution, x))
    }

    fn scan(
        &self,
        sequence: &mut Sequence,
        scan: &Scan,
        inputs: &[&GpuTensor],
    ) -> Result<GpuTensor, Error> {
        Ok(scan::scan(&self.recorder, sequence, scan, inputs))
    }

    fn heads_of_latents(
        &self,
        sequence: &mut Sequence,
        widths: LatentWidths,
        queries: &GpuTensor,
        rope_key: &GpuTensor,
        keys_and_values: &GpuTensor,
    ) -> Result<GpuHeads, Error> {
        let parts = [queries, rope_key, keys_and_values];
        Ok(GpuHeads::of_latents(
            &self.recorder,
            sequence,
            widths,
            parts,
        ))
    }

    fn add_scaled(
        &self,
        sequence: &mut Sequence,
        x: &GpuTensor,
        scale: f32,
        sum: &mut GpuTensor,
    ) -> Result<(), Error> {
        let to = (&sum.buffer, [sum.tokens, sum.features]);
        let x = Some(&x.buffer);
        layers::elementwise(&self.recorder, sequence, "add_scaled", [scale, 0.0], x, to);
        Ok(())
    }

    fn heads(
        &self,
        sequence: &mut Sequence,
        attention: &LoadedAttention<Self>,
        x: &GpuTensor,
    ) -> Result<GpuHeads, Error> {
        let (counts, projections) = (attention.heads, &attention.projections);
        Ok(GpuHeads::of(
            &self.recorder,
            sequence,
            counts,
            projections,
            x,
        ))
    }

    fn clip_heads(
        &self,
        sequence: &mut Sequence,
        clip: f32,
        heads: &mut GpuHeads,
    ) -> Result<(), Error> {
        heads.clip(&self.recorder, sequence, clip);
        Ok(())
    }

    fn normalise_heads(
        &self,
        sequence: &mut Sequence,
        norms: &HeadNorms<GpuNorm>,
        heads: &mut GpuHeads,
    ) -> Result<(), Error> {
        heads.normalise(&self.recorder, sequence, norms);
        Ok(())
    }

    fn apply_rope(
        &self,
        sequence: &mut Sequence,
        rotary: usize,
        heads: &mut GpuHeads,
    ) -> Result<(), Error> {
        heads.apply_rope(&self.recorder, sequence, &self.ropes[rotary])
    }

    fn attend(
        &self,
        sequence: &mut Sequence,
        attention: &LoadedAttention<Self>,
        heads: GpuHeads,
    ) -> Result<GpuTensor, Error> {
        let alibi = self.alibi.as_ref();
        let alibi = alibi.filter(|_| attention.position == Position::Alibi);
        Ok(heads.attend(&self.recorder, sequence, attention, alibi))
    }

    fn activate(
        &self,
        sequence: &mut Sequence,
        activation: Nonlinearity,
        x: GpuTensor,
        up: Option<GpuTensor>,
    ) -> Result<GpuTensor, Error> {
        layers::activate(&self.recorder, sequence, activation, &x, up.as_ref());
        Ok(x)
    }

    fn observe(&self, sequence: &mut Sequence, x: &GpuTensor) -> Result<(), Error> {
        self.observations.observe(&self.recorder, sequence, x);
        Ok(())
    }

    fn observe_nothing(&self, sequence: &mut Sequence, reader: &GpuMatrix) -> Result<(), Error> {
        let features = reader.in_features;
        self.observations
            .observe_nothing(&self.recorder, sequence, features);
        Ok(())
    }

    fn values(&self, sequence: &mut Sequence, x: &GpuTensor) -> Result<Vec<f32>, Error> {
        let count = x.tokens * x.features;
        Ok(self.recorder.values(sequence, &x.buffer, count)?)
    }

    fn gather(
        &self,
        sequence: &mut Sequence,
        x: &GpuTensor,
        assignment: &ExpertAssignment,
    ) -> Result<GpuTensor, Error> {
        Ok(rows::gather(&self.recorder, sequence, x, assignment))
    }

    fn scatter(
        &self,
        sequence: &mut Sequence,
        y: &GpuTensor,
        assignment: &ExpertAssignment,
        sum: &mut GpuTensor,
    ) -> Result<(), Error> {
        rows::scatter(&self.recorder, sequence, y, assignment, sum);
        Ok(())
    }

    fn normalise(&self, norm: &GpuNorm, hidden: &GpuTensor) -> Result<GpuTensor, Error> {
        let finished = GpuTensor::new(self.recorder.context, hidden.tokens, hidden.features);
        self.recorder.submit(|sequence| {
            layers::norm(&self.recorder, sequence, norm, hidden, &finished.buffer);
        })?;
        Ok(finished)
    }

    fn project(
        &self,
        matrix: &GpuMatrix,
        x: &GpuTensor,
        sum: GpuTensor,
    ) -> Result<GpuTensor, Error> {
        self.recorder.submit(|sequence| {
            let to = Destination {
                add: true,
                ..layers::all(&sum)
            };
            layers::product(&self.recorder, sequence, matrix, x, to);
        })?;
        Ok(sum)
    }

    fn tokens(&self, x: &GpuTensor) -> Result<usize, Error> {
        Ok(x.tokens)
    }

    fn partial_losses(
        &self,
        head: &LmHeadPart,
        hidden: &[GpuTensor],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<PartialLoss>>, Error> {
        let shape = (self.embedding_size, self.logit_soft_cap);
        let rows = HeadRows::new(&self.recorder, head, shape);
        rows.partial_losses(head.first, hidden, next)
    }

    fn logits(&self, head: &LmHeadPart, hidden: &GpuTensor) -> Result<Vec<f32>, Error> {
        let shape = (self.embedding_size, self.logit_soft_cap);
        HeadRows::new(&self.recorder, head, shape).logits(hidden)
    }
}
