//! Statistics of activations on the adapter: each is made where the activations are, and only its numbers come back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::buffers::GpuTensor;
use super::layers;
use super::recorder::Recorder;
use super::weights::GpuMatrix;
use crate::device::adapter::context::Context;
use crate::device::product::{self, Destination, Operand, Weights};
use crate::device::recorder::Sequence;
use crate::device::storage::buffer;
use crate::forward::engine::LmHeadPart;
use crate::forward::error::Error;
use crate::forward::kernels::SiteNormsParams;
use crate::forward::statistics::{Statistic, numbers};
use crate::model::Architecture;
use crate::sketch::omega;

/// The statistics that are wanted, and room for their numbers.
pub(super) struct Observations<'a> {
    statistics: &'a [Statistic],
    pub(super) numbers: wgpu::Buffer,
    /// Numbers that were observed so far, of the sequences in flight.
    observed: Cell<usize>,
    /// Whether statistics are taken of these.
    observes: Cell<bool>,
    /// Sequences that there is room for.
    pub(super) sequences: usize,
    /// `Omega^T`, `[rank, features]`, by features.
    signs: RefCell<HashMap<usize, GpuMatrix>>,
}

impl<'a> Observations<'a> {
    /// Room for what so many sequences show in one block, or fewer where a buffer is not as large.
    pub(super) fn new(
        context: &Context,
        architecture: &Architecture,
        statistics: &'a [Statistic],
        sequences: usize,
    ) -> Result<Self, Error> {
        let blocks = architecture.blocks.iter();
        let most = blocks.map(|block| numbers(statistics, block)).max();
        let a_sequence = 4 * most.unwrap_or(0) as u64;
        let fit = context.largest_buffer().checked_div(a_sequence);
        let fit = fit.and_then(|fit| usize::try_from(fit).ok());
        let sequences = sequences.min(fit.unwrap_or(usize::MAX));
        if sequences == 0 {
            return Err(Error::Engine(format!(
                "the statistics of a block take {a_sequence} bytes, more than a buffer of {} can have; a sketch of lower rank \
                 would fit, and the CPU has no such limit",
                context.info
            )));
        }
        let bytes = sequences as u64 * a_sequence;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        Ok(Self {
            statistics,
            numbers: buffer(context, "statistics", bytes, usage),
            observed: Cell::new(0),
            observes: Cell::new(true),
            sequences,
            signs: RefCell::default(),
        })
    }

    /// Begins anew, with the next sequences; whether statistics are taken of them.
    pub(super) fn begin(&self, observes: bool) {
        self.observes.set(observes);
        self.observed.set(0);
    }

    /// How many numbers were observed since.
    pub(super) fn observed(&self) -> usize {
        self.observed.get()
    }

    /// Takes every statistic of `x`.
    pub(super) fn observe(&self, recorder: &Recorder<'_>, sequence: &mut Sequence, x: &GpuTensor) {
        self.observe_rows(recorder, sequence, Some(x), x.features);
    }

    /// Takes every statistic of no tokens of so many features.
    pub(super) fn observe_nothing(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut Sequence,
        features: usize,
    ) {
        self.observe_rows(recorder, sequence, None, features);
    }

    fn observe_rows(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut Sequence,
        x: Option<&GpuTensor>,
        features: usize,
    ) {
        if !self.observes.get() {
            return;
        }
        let tokens = x.map_or(0, |x| x.tokens);
        let buffer = x.map_or(&recorder.nothing, |x| &x.buffer);
        for statistic in self.statistics {
            match statistic {
                Statistic::ColumnNorms | Statistic::ColumnSums => {
                    let params = SiteNormsParams {
                        tokens: tokens as u32,
                        features: features as u32,
                        first: self.observed.get() as u32,
                        squared: u32::from(*statistic == Statistic::ColumnNorms),
                    };
                    let buffers = [(1, buffer), (2, &self.numbers)];
                    let groups = (features.div_ceil(64), 1);
                    let steps = tokens.div_ceil(4);
                    recorder.dispatch(sequence, "site_norms", &params, &buffers, groups, steps);
                }
                Statistic::Sketch(rank) => self.sketch(recorder, sequence, x, features, *rank),
                // The host knows it. It is there before anything else of this submission, and its place is nobody else's.
                Statistic::Tokens => recorder.context.queue.write_buffer(
                    &self.numbers,
                    4 * self.observed.get() as u64,
                    &(tokens as f32).to_ne_bytes(),
                ),
            }
            self.observed
                .set(self.observed.get() + statistic.len(features));
        }
    }

    fn sketch(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut Sequence,
        x: Option<&GpuTensor>,
        features: usize,
        rank: usize,
    ) {
        let mut signs = self.signs.borrow_mut();
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
        let projected = x.map(|x| {
            let projected = recorder.activations(x.tokens, rank);
            layers::product(recorder, sequence, signs, x, layers::all(&projected));
            projected
        });
        // X^T times the projections.
        let tokens = x.map_or(0, |x| x.tokens);
        let x = x.map_or(&recorder.nothing, |x| &x.buffer);
        let projected = projected.as_ref().map_or(&recorder.nothing, |p| &p.buffer);
        let transposed = (Operand::by_terms(x, features), [features, tokens]);
        let weights = Weights::of_floats(Operand::by_terms(projected, rank), rank);
        let to = Destination {
            buffer: &self.numbers,
            stride: rank,
            first: self.observed.get(),
            add: false,
        };
        product::product(recorder, sequence, transposed, &weights, to);
    }
}
