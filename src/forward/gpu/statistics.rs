//! Statistics of activations on the adapter: each is made where the activations are, and only its numbers come back.

use super::buffers::{GpuTensor, buffer};
use super::recorder::{GpuSequence, Recorder};
use crate::device::adapter::context::Context;
use crate::forward::kernels::SiteNormsParams;
use crate::forward::statistics::{Statistic, numbers};
use crate::model::Architecture;

/// The statistics that are wanted, and room for their numbers.
pub(super) struct Observations<'a> {
    statistics: &'a [Statistic],
    pub(super) numbers: wgpu::Buffer,
}

impl<'a> Observations<'a> {
    /// Room for what so many sequences show in one block.
    pub(super) fn new(
        context: &Context,
        architecture: &Architecture,
        statistics: &'a [Statistic],
        sequences: usize,
    ) -> Self {
        let blocks = architecture.blocks.iter();
        let most = blocks.map(|block| numbers(statistics, block)).max();
        let bytes = 4 * (sequences * most.unwrap_or(0)) as u64;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        Self {
            statistics,
            numbers: buffer(context, "statistics", bytes, usage),
        }
    }

    /// Takes every statistic of `x`.
    pub(super) fn observe(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        x: &GpuTensor,
    ) {
        self.observe_rows(recorder, sequence, &x.buffer, [x.tokens, x.features]);
    }

    /// Takes every statistic of no tokens of so many features.
    pub(super) fn observe_nothing(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        features: usize,
    ) {
        self.observe_rows(recorder, sequence, &recorder.nothing, [0, features]);
    }

    fn observe_rows(
        &self,
        recorder: &Recorder<'_>,
        sequence: &mut GpuSequence,
        x: &wgpu::Buffer,
        [tokens, features]: [usize; 2],
    ) {
        for statistic in self.statistics {
            match statistic {
                Statistic::ColumnNorms | Statistic::ColumnSums => {
                    let params = SiteNormsParams {
                        tokens: tokens as u32,
                        features: features as u32,
                        first: sequence.observed as u32,
                        squared: u32::from(*statistic == Statistic::ColumnNorms),
                    };
                    let buffers = [(1, x), (2, &self.numbers)];
                    let groups = (features.div_ceil(64), 1);
                    recorder.dispatch(sequence, "site_norms", &params, &buffers, groups);
                }
                Statistic::Sketch(_) => {}
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
}
