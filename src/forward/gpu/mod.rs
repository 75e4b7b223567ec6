//! The forward pass on an adapter, in f32, by the kernels of `shaders/forward`.
//!
//! Weights go to the device as they are stored. What waits for the device is only what was observed of a few windows.

mod buffers;
mod head;
mod heads;
mod layers;
mod peak;
mod probe;
mod recorder;
mod scan;
mod statistics;
mod weights;

use super::batch::{Cut, HIDDEN_BYTES};
use super::engine::{Engine, LmHeadPart, PartialLoss, Step};
use super::error::Error;
use super::statistics::{Observation, Wanted};
use super::weights::WeightReader;
use crate::device::product::Destination;
use crate::device::storage::filled;
use crate::device::{self, adapter::context::Context};
use crate::model::{
    Architecture, ExpertAssignment, HeadNorms, LatentWidths, Linear, MixerKind, Nonlinearity,
    NormTensors, Parts, Position, Scan, SelfAttention,
};
use buffers::GpuTensor;
use head::HeadRows;
use heads::{AlibiBuffer, GpuHeads, MAX_HEAD_FEATURES, RopeBuffers, SpanCache};
pub(super) use peak::GpuProduct;
use recorder::Recorder;
use scan::{GpuConvolution, GpuScan};
use statistics::{GpuRecording, Observations};
use weights::{GpuMatrix, GpuNorm};

/// Windows that go through a block as one tensor, at most: a product of few rows leaves a large adapter idle.
const WINDOWS: usize = 8;

/// Bytes of the widest activations of these.
const TENSOR_BYTES: usize = 128 << 20;

/// A chunk of a window is a multiple of so many tokens: the queries of a tile of `attention.wgsl`.
const CHUNK: usize = 16;

/// An adapter that runs one tensor after the other.
pub(super) struct GpuEngine<'a> {
    embedding_size: usize,
    logit_soft_cap: Option<f32>,
    cut: Cut,
    recorder: Recorder<'a>,
    observations: Observations,
    /// Of each of the architecture's rotary embeddings.
    ropes: Vec<RopeBuffers>,
    alibi: Option<AlibiBuffer>,
}

impl<'a> GpuEngine<'a> {
    /// An adapter for windows of at most `window` tokens.
    pub(super) fn new(
        architecture: &Architecture,
        window: usize,
        wanted: Wanted,
        context: &'a Context,
    ) -> Result<Self, Error> {
        let cut = cut(architecture, window, wanted, context)?;
        check(context)?;
        let rotaries = architecture.rotaries.iter();
        let engine = Self {
            embedding_size: architecture.embedding_size,
            logit_soft_cap: architecture.logit_soft_cap,
            cut,
            recorder: Recorder::new(context, cut.windows * cut.tokens),
            observations: Observations::new(context, architecture, wanted, cut.windows)?,
            ropes: rotaries
                .map(|rotary| {
                    RopeBuffers::new(rotary, window, |rotations| {
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

/// How windows of at most so many tokens become tensors that an adapter has room for.
fn cut(
    architecture: &Architecture,
    window: usize,
    wanted: Wanted,
    context: &Context,
) -> Result<Cut, Error> {
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
    let widest = widest.max(wanted.rank());
    let room = context.largest_buffer();
    let mixers = architecture.blocks.iter().flat_map(|block| &block.mixers);
    let kept = mixers.map(|mixer| match &mixer.kind {
        MixerKind::Attention(attention) => 2 * attention.heads.keys * attention.widest_head(),
        MixerKind::Recurrence(_) => 0,
    });
    let kept = kept.max();
    let bytes = 4 * window as u64 * kept.unwrap_or(0) as u64;
    let rows = room / (4 * widest.max(1) as u64);
    let rows = usize::try_from(rows).unwrap_or(usize::MAX).min(most);
    if rows < CHUNK || bytes > room {
        return Err(unfit(format!(
            "windows of {window} tokens are too long: the keys and values of one take {bytes} bytes; shorter ones would fit"
        )));
    }
    let rows = rows.min(TENSOR_BYTES / (4 * widest.max(1)));
    let tokens = if window <= rows {
        window.max(1)
    } else {
        (rows / CHUNK * CHUNK).max(CHUNK)
    };
    Ok(Cut {
        windows: (rows / tokens).clamp(1, WINDOWS),
        tokens,
    })
}

impl Parts for GpuEngine<'_> {
    type Linear = GpuMatrix;
    type Norm = GpuNorm;
    type Vector = wgpu::Buffer;
    type Numbers = Vec<f32>;
    type Convolution = GpuConvolution;
    type Scan = GpuScan;
}

impl Engine for GpuEngine<'_> {
    type Tensor = GpuTensor;
    type Heads = GpuHeads;
    type Recording = GpuRecording;
    type Cache = Vec<Option<SpanCache>>;
    type Tail = Vec<Option<wgpu::Buffer>>;
    type ScanState = Vec<Option<wgpu::Buffer>>;

    fn load_matrix(&self, weights: &WeightReader<'_>, linear: &Linear) -> Result<GpuMatrix, Error> {
        GpuMatrix::load(self.recorder.context, weights, linear)
    }

    fn load_norm(&self, weights: &WeightReader<'_>, norm: &NormTensors) -> Result<GpuNorm, Error> {
        GpuNorm::load(self.recorder.context, weights, norm)
    }

    fn load_vector(&self, numbers: Vec<f32>) -> Result<wgpu::Buffer, Error> {
        Ok(filled(self.recorder.context, "numbers", &numbers))
    }

    fn load_convolution(
        &self,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        width: usize,
    ) -> Result<GpuConvolution, Error> {
        let context = self.recorder.context;
        Ok(GpuConvolution::new(
            context,
            &weight,
            bias.as_deref(),
            width,
        ))
    }

    fn load_scan(&self, scan: Scan) -> Result<GpuScan, Error> {
        Ok(GpuScan::new(self.recorder.context, &scan))
    }

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<GpuTensor, Error> {
        let context = self.recorder.context;
        let hidden = GpuTensor::new(context, tokens, rows.len() / tokens.max(1));
        let bytes = bytemuck::cast_slice(&rows);
        context.queue.write_buffer(&hidden.buffer, 0, bytes);
        context.check()?;
        Ok(hidden)
    }

    // How much memory an adapter has, nobody tells.
    fn hidden_room(&self) -> usize {
        HIDDEN_BYTES
    }

    fn cut(&self, _window: usize) -> Cut {
        self.cut
    }

    fn in_flight(&self, _rows: usize) -> usize {
        1
    }

    fn run<T: Send>(
        &self,
        tasks: Vec<T>,
        work: impl Fn(&mut GpuRecording, T) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Vec<Observation>>, Error> {
        let run = |task| {
            let mut recording = GpuRecording::default();
            let submission = self.recorder.try_submit(|kernels| {
                recording.kernels = std::mem::take(kernels);
                let result = work(&mut recording, task);
                *kernels = std::mem::take(&mut recording.kernels);
                result
            })?;
            self.recorder.wait(submission)?;
            self.observations.finish(&self.recorder, recording)
        };
        tasks.into_iter().map(run).collect()
    }

    fn norm(
        &self,
        step: &mut Step<'_, Self>,
        norm: &GpuNorm,
        x: &GpuTensor,
    ) -> Result<GpuTensor, Error> {
        let y = self.recorder.activations(x.tokens, x.features);
        layers::norm(&self.recorder, &mut step.recording.kernels, norm, x, &y);
        Ok(y)
    }

    fn product(
        &self,
        step: &mut Step<'_, Self>,
        matrix: &GpuMatrix,
        x: &GpuTensor,
    ) -> Result<GpuTensor, Error> {
        let y = self.recorder.activations(x.tokens, matrix.out_features);
        layers::product(
            &self.recorder,
            &mut step.recording.kernels,
            matrix,
            x,
            layers::all(&y),
        );
        Ok(y)
    }

    fn add_product(
        &self,
        step: &mut Step<'_, Self>,
        matrix: &GpuMatrix,
        x: &GpuTensor,
        sum: &mut GpuTensor,
    ) -> Result<(), Error> {
        let to = Destination {
            add: true,
            ..layers::all(sum)
        };
        layers::product(&self.recorder, &mut step.recording.kernels, matrix, x, to);
        Ok(())
    }

    fn scaled(
        &self,
        step: &mut Step<'_, Self>,
        x: &GpuTensor,
        scale: f32,
    ) -> Result<GpuTensor, Error> {
        let y = self.recorder.activations(x.tokens, x.features);
        let to = (&y.buffer, [y.tokens, y.features]);
        let x = Some(&x.buffer);
        layers::elementwise(
            &self.recorder,
            &mut step.recording.kernels,
            "scaled",
            [scale, 0.0],
            x,
            to,
        );
        Ok(y)
    }

    fn norm_parts(
        &self,
        step: &mut Step<'_, Self>,
        norm: &GpuNorm,
        x: GpuTensor,
    ) -> Result<GpuTensor, Error> {
        layers::norm_parts(&self.recorder, &mut step.recording.kernels, norm, &x);
        Ok(x)
    }

    fn convolve(
        &self,
        step: &mut Step<'_, Self>,
        convolution: &GpuConvolution,
        x: &GpuTensor,
        tail: &mut Vec<Option<wgpu::Buffer>>,
    ) -> Result<GpuTensor, Error> {
        let kernels = &mut step.recording.kernels;
        Ok(convolution.apply(&self.recorder, kernels, x, (step.spans, tail)))
    }

    fn scan(
        &self,
        step: &mut Step<'_, Self>,
        scan: &GpuScan,
        inputs: &[&GpuTensor],
        state: &mut Vec<Option<wgpu::Buffer>>,
    ) -> Result<GpuTensor, Error> {
        let kernels = &mut step.recording.kernels;
        Ok(scan.run(&self.recorder, kernels, inputs, (step.spans, state)))
    }

    fn heads_of_latents(
        &self,
        step: &mut Step<'_, Self>,
        widths: LatentWidths,
        queries: &GpuTensor,
        rope_key: &GpuTensor,
        keys_and_values: &GpuTensor,
    ) -> Result<GpuHeads, Error> {
        let parts = [queries, rope_key, keys_and_values];
        Ok(GpuHeads::of_latents(
            &self.recorder,
            &mut step.recording.kernels,
            widths,
            parts,
        ))
    }

    fn add_scaled(
        &self,
        step: &mut Step<'_, Self>,
        x: &GpuTensor,
        scale: f32,
        sum: &mut GpuTensor,
    ) -> Result<(), Error> {
        let to = (&sum.buffer, [sum.tokens, sum.features]);
        let x = Some(&x.buffer);
        layers::elementwise(
            &self.recorder,
            &mut step.recording.kernels,
            "add_scaled",
            [scale, 0.0],
            x,
            to,
        );
        Ok(())
    }

    fn heads(
        &self,
        step: &mut Step<'_, Self>,
        attention: &SelfAttention<Self>,
        x: &GpuTensor,
    ) -> Result<GpuHeads, Error> {
        let (counts, projections) = (attention.heads, &attention.projections);
        Ok(GpuHeads::of(
            &self.recorder,
            &mut step.recording.kernels,
            counts,
            projections,
            x,
        ))
    }

    fn clip_heads(
        &self,
        step: &mut Step<'_, Self>,
        clip: f32,
        heads: &mut GpuHeads,
    ) -> Result<(), Error> {
        heads.clip(&self.recorder, &mut step.recording.kernels, clip);
        Ok(())
    }

    fn normalise_heads(
        &self,
        step: &mut Step<'_, Self>,
        norms: &HeadNorms<GpuNorm>,
        heads: &mut GpuHeads,
    ) -> Result<(), Error> {
        heads.normalise(&self.recorder, &mut step.recording.kernels, norms);
        Ok(())
    }

    fn apply_rope(
        &self,
        step: &mut Step<'_, Self>,
        rotary: usize,
        heads: &mut GpuHeads,
    ) -> Result<(), Error> {
        let kernels = &mut step.recording.kernels;
        heads.apply_rope(&self.recorder, kernels, &self.ropes[rotary], step.spans)
    }

    fn attend(
        &self,
        step: &mut Step<'_, Self>,
        attention: &SelfAttention<Self>,
        heads: GpuHeads,
        cache: &mut Vec<Option<SpanCache>>,
    ) -> Result<GpuTensor, Error> {
        let alibi = self.alibi.as_ref();
        let alibi = alibi.filter(|_| attention.position == Position::Alibi);
        let kernels = &mut step.recording.kernels;
        let spans = (step.spans, cache);
        heads.attend(&self.recorder, kernels, attention, alibi, spans)
    }

    fn activate(
        &self,
        step: &mut Step<'_, Self>,
        activation: Nonlinearity,
        x: GpuTensor,
        up: Option<GpuTensor>,
    ) -> Result<GpuTensor, Error> {
        layers::activate(
            &self.recorder,
            &mut step.recording.kernels,
            activation,
            &x,
            up.as_ref(),
        );
        Ok(x)
    }

    fn observe(
        &self,
        recording: &mut GpuRecording,
        input: usize,
        x: &GpuTensor,
        rows: &[usize],
    ) -> Result<(), Error> {
        let observations = &self.observations;
        observations.observe(&self.recorder, recording, input, x, rows)
    }

    fn values(&self, step: &mut Step<'_, Self>, x: &GpuTensor) -> Result<Vec<f32>, Error> {
        let count = x.tokens * x.features;
        let kernels = &mut step.recording.kernels;
        Ok(self.recorder.values(kernels, &x.buffer, count)?)
    }

    fn gather(
        &self,
        step: &mut Step<'_, Self>,
        x: &GpuTensor,
        assignment: &ExpertAssignment,
    ) -> Result<GpuTensor, Error> {
        Ok(layers::gather(
            &self.recorder,
            &mut step.recording.kernels,
            x,
            assignment,
        ))
    }

    fn scatter(
        &self,
        step: &mut Step<'_, Self>,
        y: &GpuTensor,
        assignment: &ExpertAssignment,
        sum: &mut GpuTensor,
    ) -> Result<(), Error> {
        layers::scatter(
            &self.recorder,
            &mut step.recording.kernels,
            y,
            assignment,
            sum,
        );
        Ok(())
    }

    fn partial_losses(
        &self,
        head: &LmHeadPart,
        hidden: &[(&GpuTensor, &[u32])],
    ) -> Result<Vec<Vec<PartialLoss>>, Error> {
        let shape = (self.embedding_size, self.logit_soft_cap);
        let rows = HeadRows::new(&self.recorder, head, shape);
        rows.partial_losses(head.first, hidden)
    }

    fn logits(&self, head: &LmHeadPart, hidden: &GpuTensor) -> Result<Vec<f32>, Error> {
        let shape = (self.embedding_size, self.logit_soft_cap);
        HeadRows::new(&self.recorder, head, shape).logits(hidden)
    }
}
