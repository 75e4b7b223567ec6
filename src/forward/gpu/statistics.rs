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
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
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
        for statistic in self.statistics {
            match statistic {
                Statistic::ColumnNorms => self.column_norms(recorder, sequence, x),
            }
            sequence.observed += statistic.len(x.features);
        }
    }

    fn column_norms(&self, recorder: &Recorder<'_>, sequence: &mut GpuSequence, x: &GpuTensor) {
        let params = SiteNormsParams {
            tokens: x.tokens as u32,
            features: x.features as u32,
            first: sequence.observed as u32,
        };
        let buffers = [(1, &x.buffer), (2, &self.numbers)];
        let groups = (x.features.div_ceil(64), 1);
        recorder.dispatch(sequence, "site_norms", &params, &buffers, groups);
    }
}
