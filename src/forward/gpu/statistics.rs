//! Statistics of activations on the adapter: each is made where the activations are, and only its numbers come back.

use std::cell::RefCell;
use std::collections::HashMap;

use super::buffers::{GpuTensor, buffer};
use super::layers::{self, ProductPart};
use super::recorder::{GpuSequence, Recorder};
use super::weights::GpuMatrix;
use crate::device::adapter::context::Context;
use crate::forward::engine::HeadPart;
use crate::forward::error::Error;
use crate::forward::kernels::{SiteNormsParams, SketchParams};
use crate::forward::statistics::{Statistic, numbers};
use crate::model::Architecture;
use crate::sketch::omega;

/// The statistics that are wanted, and room for their numbers.
pub(super) struct Observations<'a> {
    statistics: &'a [Statistic],
    pub(super) numbers: wgpu::Buffer,
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
        let sequences = sequences.min(fit.unwrap_or(u64::MAX) as usize);
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
            sequences,
            signs: RefCell::default(),
        })
    }

    /// Takes every statistic of `x`.
    pub(super) fn observe(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        x: &GpuTensor,
    ) {
        self.observe_rows(recorder, sequence, Some(x), x.features);
    }

    /// Takes every statistic of no tokens of so many features.
    pub(super) fn observe_nothing(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        features: usize,
    ) {
        self.observe_rows(recorder, sequence, None, features);
    }

    fn observe_rows(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        x: Option<&GpuTensor>,
        features: usize,
    ) {
        if !sequence.observes {
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
                        first: sequence.observed as u32,
                        squared: u32::from(*statistic == Statistic::ColumnNorms),
                    };
                    let buffers = [(1, buffer), (2, &self.numbers)];
                    let groups = (features.div_ceil(64), 1);
                    recorder.dispatch(sequence, "site_norms", &params, &buffers, groups);
                }
                Statistic::Sketch(rank) => self.sketch(recorder, sequence, x, features, *rank),
                // The host knows it. It is there before anything else of this submission, and its place is nobody else's.
                Statistic::Tokens => recorder.context.queue.write_buffer(
                    &self.numbers,
                    4 * sequence.observed as u64,
                    &(tokens as f32).to_ne_bytes(),
                ),
            }
            sequence.observed += statistic.len(features);
        }
    }

    fn sketch(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        x: Option<&GpuTensor>,
        features: usize,
        rank: usize,
    ) {
        let mut signs = self.signs.borrow_mut();
        let signs = signs.entry(features).or_insert_with(|| {
            let omega = omega(features, rank);
            let column = |k: usize| omega.iter().skip(k).step_by(rank).copied();
            let transposed = HeadPart {
                first: 0,
                rows: (0..rank).flat_map(column).collect(),
                bias: None,
            };
            GpuMatrix::of_head(recorder.context, &transposed, features)
        });
        let projected = x.map(|x| {
            let projected = recorder.activations(x.tokens, rank);
            let all = ProductPart::all(&projected);
            layers::product(recorder, sequence, signs, x, &all);
            projected
        });
        let params = SketchParams {
            tokens: x.map_or(0, |x| x.tokens) as u32,
            features: features as u32,
            rank: rank as u32,
            first: sequence.observed as u32,
        };
        let buffers = [
            (1, x.map_or(&recorder.nothing, |x| &x.buffer)),
            (
                2,
                projected.as_ref().map_or(&recorder.nothing, |p| &p.buffer),
            ),
            (3, &self.numbers),
        ];
        let groups = (rank.div_ceil(64), features.div_ceil(64));
        recorder.dispatch(sequence, "sketch_of", &params, &buffers, groups);
    }
}
