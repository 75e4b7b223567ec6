//! Statistics of activations on the adapter: each is made where the activations are, and only its numbers come back.

use std::collections::HashMap;

use parking_lot::Mutex;
use wgpu::BufferUsages as Usage;

use super::buffers::GpuTensor;
use super::layers;
use super::recorder::Recorder;
use super::weights::GpuMatrix;
use crate::device::adapter::context::Context;
use crate::device::product::{self, Destination, Operand, Weights};
use crate::device::recorder::Recording;
use crate::device::storage::buffer;
use crate::forward::engine::LmHeadPart;
use crate::forward::error::Error;
use crate::forward::kernels::SiteNormsParams;
use crate::forward::statistics::{Observation, Wanted};
use crate::model::Architecture;
use crate::sketch::omega;

/// Bytes of what is observed before it is brought to the host.
const BYTES: u64 = 64 << 20;

/// The statistics that are wanted, and room for their numbers.
pub(super) struct Observations {
    wanted: Wanted,
    numbers: wgpu::Buffer,
    /// Numbers that there is room for.
    capacity: usize,
    /// `Omega^T`, `[rank, features]`, by features.
    signs: Mutex<HashMap<usize, GpuMatrix>>,
}

/// A task on its way: its dispatches, and what it has observed.
#[derive(Default)]
pub(crate) struct GpuRecording {
    pub(super) kernels: Recording,
    /// What is on the adapter, in the order of its numbers there.
    noted: Vec<Noted>,
    /// Numbers of these.
    used: usize,
    /// What is on the host.
    observed: Vec<Observation>,
}

/// An observation whose numbers are on the adapter.
struct Noted {
    window: usize,
    input: usize,
    features: usize,
    tokens: usize,
}

impl GpuRecording {
    /// Takes the numbers of what is noted.
    fn take(&mut self, wanted: Wanted, numbers: &[f32]) {
        let mut rest = numbers;
        for noted in self.noted.drain(..) {
            let (own, others) = rest.split_at(wanted.numbers(noted.features));
            rest = others;
            self.observed.push(Observation {
                window: noted.window,
                input: noted.input,
                sums: wanted.of_numbers(own, noted.features, noted.tokens),
            });
        }
        self.used = 0;
    }
}

impl Observations {
    /// Room for what some windows show in one block, and for one input at least.
    pub(super) fn new(
        context: &Context,
        architecture: &Architecture,
        wanted: Wanted,
        windows: usize,
    ) -> Result<Self, Error> {
        let blocks = architecture.blocks.iter();
        let most = blocks.clone().map(|block| wanted.of_block(block)).max();
        let inputs = blocks.flat_map(|block| block.inputs());
        let input = inputs.map(|input| wanted.numbers(input.layers[0].in_features));
        let input = 4 * input.max().unwrap_or(0) as u64;
        let all = 4 * windows as u64 * most.unwrap_or(0) as u64;
        let bytes = all.min(BYTES).max(input);
        if bytes > context.largest_buffer() {
            return Err(Error::Engine(format!(
                "the statistics of an input take {bytes} bytes, more than a buffer of {} can have; a sketch of lower rank \
                 would fit, and the CPU has no such limit",
                context.info
            )));
        }
        Ok(Self {
            wanted,
            numbers: buffer(
                context,
                "statistics",
                bytes,
                Usage::STORAGE | Usage::COPY_SRC,
            ),
            capacity: (bytes / 4) as usize,
            signs: Mutex::default(),
        })
    }

    /// Takes the statistics of `x`, an input with so many rows of each window.
    pub(super) fn observe(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut GpuRecording,
        input: usize,
        x: &GpuTensor,
        rows: &[usize],
    ) -> Result<(), Error> {
        let features = x.features;
        let count = self.wanted.numbers(features);
        let mut row = 0;
        for (window, &tokens) in rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
            if recording.used + count > self.capacity {
                let used = recording.used;
                let numbers = recorder.values(&mut recording.kernels, &self.numbers, used)?;
                recording.take(self.wanted, &numbers);
            }
            let kernels = &mut recording.kernels;
            let mut first = recording.used;
            for squared in [true, false] {
                if !squared && !self.wanted.sums {
                    continue;
                }
                let params = SiteNormsParams {
                    row: row as u32,
                    tokens: tokens as u32,
                    features: features as u32,
                    first: first as u32,
                    squared: u32::from(squared),
                };
                let buffers = [(1, &x.buffer), (2, &self.numbers)];
                let groups = (features.div_ceil(64), 1);
                let steps = tokens.div_ceil(4);
                recorder.dispatch(kernels, "site_norms", &params, &buffers, groups, steps);
                first += features;
            }
            if let Some(rank) = self.wanted.sketch_rank {
                self.sketch(recorder, kernels, (x, row, tokens), rank, first);
            }
            recording.noted.push(Noted {
                window,
                input,
                features,
                tokens,
            });
            recording.used += count;
            row += tokens;
        }
        Ok(())
    }

    /// Brings the rest to the host, once everything submitted so far is done.
    pub(super) fn finish(
        &self,
        recorder: &Recorder<'_>,
        mut recording: GpuRecording,
    ) -> Result<Vec<Observation>, Error> {
        let numbers = recorder.download(&self.numbers, recording.used)?;
        recording.take(self.wanted, &numbers);
        Ok(recording.observed)
    }

    /// The sketch of so many rows of `x`, from one on.
    fn sketch(
        &self,
        recorder: &Recorder<'_>,
        kernels: &mut Recording,
        (x, row, tokens): (&GpuTensor, usize, usize),
        rank: usize,
        first: usize,
    ) {
        let features = x.features;
        let mut signs = self.signs.lock();
        let signs = signs.entry(features).or_insert_with(|| {
            let omega = omega(features, rank);
            let column = |k: usize| omega.iter().skip(k).step_by(rank).copied();
            let transposed = LmHeadPart {
                first: 0,
                rows: (0..rank).flat_map(column).collect(),
                bias: None,
            };
            GpuMatrix::of_head(recorder.context, &transposed, features)
        });
        let projected = recorder.activations(x.tokens, rank);
        let along = layers::all(&projected);
        layers::product_of_rows(recorder, kernels, signs, (x, row, tokens), along);
        // X^T times the projections.
        let from = Operand::by_terms(&x.buffer, features).from(row * features);
        let weights = Weights::of_floats(Operand::by_terms(&projected.buffer, rank), rank);
        let to = Destination {
            buffer: &self.numbers,
            stride: rank,
            first,
            add: false,
        };
        product::product(recorder, kernels, (from, [features, tokens]), &weights, to);
    }
}
