//! The head on the adapter: logits of some rows, and what a loss needs of them.

use wgpu::BufferUsages as Usage;

use super::buffers::GpuTensor;
use super::layers::{elementwise, product};
use super::recorder::Recorder;
use super::weights::GpuMatrix;
use crate::device::product::Destination;
use crate::device::recorder::Recording;
use crate::device::storage::{buffer, filled};
use crate::forward::engine::{LmHeadPart, PartialLoss};
use crate::forward::error::Error;
use crate::forward::kernels::LogSumExpParams;

/// Rows of the head on the adapter.
pub(super) struct HeadRows<'a> {
    recorder: &'a Recorder<'a>,
    matrix: GpuMatrix,
    soft_cap: Option<f32>,
}

impl<'a> HeadRows<'a> {
    /// Brings a part of the head to the device; the soft cap is for its logits.
    pub(super) fn new(
        recorder: &'a Recorder<'a>,
        part: &LmHeadPart,
        (features, soft_cap): (usize, Option<f32>),
    ) -> Self {
        let matrix = GpuMatrix::of_head(recorder.context, part, features);
        Self {
            recorder,
            matrix,
            soft_cap,
        }
    }

    /// The logits of a hidden state, `[tokens, rows]`.
    pub(super) fn logits(&self, hidden: &GpuTensor) -> Result<Vec<f32>, Error> {
        let count = hidden.tokens * self.matrix.out_features;
        let usage = Usage::STORAGE | Usage::COPY_SRC;
        let logits = buffer(self.recorder.context, "logits", 4 * count as u64, usage);
        self.submit(hidden, &logits, |_| {})?;
        Ok(self.recorder.download(&logits, count)?)
    }

    /// What a loss needs of the logits, for each row by the token that follows it; the first of these rows is
    /// `first_row` of the head.
    pub(super) fn partial_losses(
        &self,
        first_row: usize,
        hidden: &[(&GpuTensor, &[u32])],
    ) -> Result<Vec<Vec<PartialLoss>>, Error> {
        let context = self.recorder.context;
        let rows = self.matrix.out_features;
        let longest = hidden
            .iter()
            .map(|(hidden, _)| hidden.tokens)
            .max()
            .unwrap_or(0);
        let bytes = 4 * longest as u64 * rows as u64;
        let logits = buffer(context, "logits", bytes, Usage::STORAGE);
        let mut all = Vec::new();
        for (hidden, next) in hidden {
            let targets = filled(context, "next", next);
            let bytes = 12 * hidden.tokens as u64;
            let sums = buffer(context, "sums", bytes, Usage::STORAGE | Usage::COPY_SRC);
            let params = LogSumExpParams {
                rows: rows as u32,
                first: first_row as u32,
            };
            self.submit(hidden, &logits, |recording| {
                let buffers = [(1, &logits), (2, &targets), (3, &sums)];
                let groups = (hidden.tokens, 1);
                let steps = 4 * rows.div_ceil(256);
                self.recorder
                    .dispatch(recording, "log_sum_exp", &params, &buffers, groups, steps);
            })?;
            all.push(sums);
        }
        let sums = all.iter().zip(hidden);
        sums.map(|(sums, (_, next))| {
            let words = self.recorder.download(sums, 3 * next.len())?;
            let partial = |of_token: &[f32]| PartialLoss {
                largest: of_token[0],
                sum: of_token[1],
                target: of_token[2],
            };
            Ok(words.chunks_exact(3).map(partial).collect())
        })
        .collect()
    }

    /// The logits of a hidden state on the device, then what `then` dispatches.
    fn submit(
        &self,
        hidden: &GpuTensor,
        logits: &wgpu::Buffer,
        then: impl FnOnce(&mut Recording),
    ) -> Result<(), Error> {
        self.recorder.submit(|recording| {
            let to = Destination {
                buffer: logits,
                stride: self.matrix.out_features,
                first: 0,
                add: false,
            };
            product(self.recorder, recording, &self.matrix, hidden, to);
            if let Some(cap) = self.soft_cap {
                let all = (logits, [hidden.tokens, self.matrix.out_features]);
                elementwise(self.recorder, recording, "soft_cap", [1.0, cap], None, all);
            }
            then(recording);
        })?;
        Ok(())
    }
}
