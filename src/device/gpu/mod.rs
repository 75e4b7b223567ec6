//! The GPU device: the passes as WGSL, dispatched through wgpu.
//!
//! A chunk of rows is written into mapped staging memory, runs through its passes in one submission, or in several where
//! the device is slow (`adapter/pace.rs`), and only its mask comes back: a sixteenth of a bf16 weight's bytes. [`Gpu::submit`] and [`Gpu::wait`] are separate so that the caller can
//! read the next chunk, and write the last, while one is on the device.

pub(super) mod buffers;
pub(super) mod dispatches;

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::adapter::context::{Context, Mapping, Pipelines};
use super::error::Error;
use crate::mask::Mask;
use crate::passes::PASSES;
use crate::passes::fused::{
    CAPACITY, GROUPS, ROWS, WIDE_CAPACITY, WIDE_ROWS, WIDE_WORKGROUP_BYTES,
};
use crate::passes::params::Binding;
use crate::recipe::{Recipe, Rows, Step, Sums, WeightStatistics};
use crate::scores::{Score, WeightsUse};
use crate::shader::EntryPoint;
use buffers::{Buffers, Slot, chunk_factors};
use dispatches::{Dispatch, Work};

/// Weights a chunk at most: 8 MiB of bf16.
const CHUNK_WEIGHTS: usize = 4 << 20;

/// Chunks that may be on the device at once.
pub(crate) const CHUNKS_IN_FLIGHT: usize = 2;

/// An opened adapter with its compiled passes.
#[derive(Debug)]
pub struct Gpu {
    context: Context,
    pipelines: Pipelines,
    /// Of wide rows, once there are some: it takes as long to compile as all others together.
    wide_rows: OnceLock<Pipelines>,
    /// Columns of a row that can be kept in workgroup memory.
    capacity: usize,
    /// Sets of buffers that are not on the device now.
    idle: Mutex<Vec<Slot>>,
}

/// Rows on the device: a submission.
#[derive(Debug)]
struct Submitted {
    slot: Slot,
    /// Of the slot's buffers the one that is read.
    download: wgpu::Buffer,
    mapping: Mapping,
    rows: usize,
    in_features: usize,
    result_bytes: u64,
}

/// A chunk on the device: as many submissions as it takes.
#[derive(Debug)]
pub(crate) struct Pending {
    parts: Vec<Submitted>,
    in_features: usize,
}

impl Gpu {
    /// Compiles the passes.
    pub(super) fn new(context: Context) -> Result<Self, Error> {
        let mut pipelines = HashMap::new();
        let has_wide_rows =
            context.limits.max_compute_workgroup_storage_size >= WIDE_WORKGROUP_BYTES;
        for pass in PASSES.iter().copied().chain([&ROWS, &GROUPS]) {
            pipelines.extend(context.compile(pass));
        }
        context.check()?;
        Ok(Self {
            context,
            pipelines,
            wide_rows: OnceLock::new(),
            capacity: if has_wide_rows {
                WIDE_CAPACITY
            } else {
                CAPACITY
            },
            idle: Mutex::default(),
        })
    }

    /// The opened adapter.
    pub(crate) const fn context(&self) -> &Context {
        &self.context
    }

    /// Rows of this many weights that fit a chunk.
    pub(crate) fn chunk_rows(&self, in_features: usize) -> usize {
        let binding = self.context.largest_buffer() / 4;
        let weights = CHUNK_WEIGHTS.min(usize::try_from(binding).unwrap_or(usize::MAX));
        let groups = self.context.limits.max_compute_workgroups_per_dimension as usize;
        (weights / in_features.max(1)).clamp(1, groups)
    }

    /// Rows that one submission of some work should have.
    pub(super) fn submission_rows(&self, work: &Work, in_features: usize) -> usize {
        let weights = self.context.submission_limit(work.kind());
        let rows = usize::try_from(weights).unwrap_or(usize::MAX) / in_features.max(1);
        rows.clamp(1, self.chunk_rows(in_features))
    }

    pub(super) fn mask(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
    ) -> Result<Mask, Error> {
        let mut mask = Mask {
            rows: rows.rows(),
            in_features: rows.in_features,
            words: Vec::new(),
        };
        self.for_each_part(
            rows,
            |part, offset| self.fused(part, first_row + offset, recipe),
            |part, offset| chunk_factors(&recipe.factors, first_row + offset, part.rows()),
            |part| mask.words.extend(part.words),
        )?;
        Ok(mask)
    }

    /// Submits part after part with [`CHUNKS_IN_FLIGHT`] on the device. `work` and `factors` get the rows of a part, and
    /// where they lie in `rows`.
    fn for_each_part(
        &self,
        rows: Rows<'_>,
        work: impl Fn(Rows<'_>, usize) -> Work,
        factors: impl Fn(Rows<'_>, usize) -> Vec<f32>,
        mut take: impl FnMut(Mask),
    ) -> Result<(), Error> {
        let row_bytes = rows.in_features * rows.dtype.size();
        if row_bytes == 0 {
            return Ok(());
        }
        let mut in_flight = std::collections::VecDeque::new();
        let mut first = 0;
        while first < rows.rows() {
            if in_flight.len() == CHUNKS_IN_FLIGHT
                && let Some(oldest) = in_flight.pop_front()
            {
                take(self.wait_for(oldest)?);
            }
            let part = |count: usize| {
                let end = rows.rows().min(first + count);
                let bytes = &rows.bytes[first * row_bytes..end * row_bytes];
                Rows { bytes, ..rows }
            };
            // The kind of the work tells how many rows; it is the same for any number of them.
            let kind = work(part(1), first);
            let part = part(self.submission_rows(&kind, rows.in_features));
            in_flight.push_back(self.dispatch(part, &work(part, first), &factors(part, first))?);
            first += part.rows();
        }
        for pending in in_flight {
            take(self.wait_for(pending)?);
        }
        Ok(())
    }

    /// The words that the passes give one by one, up to and with `last`.
    pub(super) fn alone(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
        last: Step,
    ) -> Result<Vec<u32>, Error> {
        let mut words = Vec::new();
        self.for_each_part(
            rows,
            |part, _| Work::alone(part, recipe, last),
            |part, offset| chunk_factors(&recipe.factors, first_row + offset, part.rows()),
            |part| words.extend(part.words),
        )?;
        Ok(words)
    }

    /// Starts the fused passes on at most [`Self::chunk_rows`] rows; `first_row` is where they lie in the recipe's
    /// tensor.
    pub(crate) fn submit(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
    ) -> Result<Pending, Error> {
        let kind = self.fused(rows, first_row, recipe);
        let step = self.submission_rows(&kind, rows.in_features);
        let row_bytes = (rows.in_features * rows.dtype.size()).max(1);
        let mut parts = Vec::new();
        for (part, bytes) in rows.bytes.chunks(step * row_bytes).enumerate() {
            let (part, first_row) = (Rows { bytes, ..rows }, first_row + part * step);
            let factors = chunk_factors(&recipe.factors, first_row, part.rows());
            parts.push(self.dispatch(part, &self.fused(part, first_row, recipe), &factors)?);
        }
        Ok(Pending {
            parts,
            in_features: rows.in_features,
        })
    }

    /// From weights to the mask in one dispatch.
    pub(super) fn fused(&self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Work {
        Work::fused(rows, first_row, recipe, self.capacity)
    }

    /// What a score takes of these rows. Squares are the host's to count, on every device.
    pub(crate) fn statistics(
        &self,
        rows: Rows<'_>,
        score: &Score,
    ) -> Result<Option<WeightStatistics>, Error> {
        match score.weights {
            WeightsUse::Sums => Ok(Some(WeightStatistics::Sums(self.sums(rows)?))),
            _ => Ok(super::cpu::statistics(rows, score)),
        }
    }

    pub(crate) fn sums(&self, rows: Rows<'_>) -> Result<Sums, Error> {
        let mut sums = Sums {
            column: vec![0; rows.in_features],
            row: Vec::with_capacity(rows.rows()),
        };
        let no_factors = |_: Rows<'_>, _| Vec::new();
        self.for_each_part(
            rows,
            |part, _| Work::sums(part, true),
            no_factors,
            |chunk| {
                for (sum, part) in sums
                    .column
                    .iter_mut()
                    .zip(add_tiles(&chunk.words, rows.in_features))
                {
                    *sum += part;
                }
            },
        )?;
        self.for_each_part(
            rows,
            |part, _| Work::sums(part, false),
            no_factors,
            |chunk| sums.row.extend(add_tiles(&chunk.words, chunk.rows)),
        )?;
        Ok(sums)
    }

    /// Uploads a chunk, records its dispatches and the copy of their result, and submits them.
    fn dispatch(&self, rows: Rows<'_>, work: &Work, factors: &[f32]) -> Result<Submitted, Error> {
        let _turn = self.context.turn();
        let mut slot = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        let buffers = slot.fill(&self.context, rows, work, factors)?;
        let mut encoder = self.encoder();
        buffers.record_upload(&mut encoder, work);
        {
            let mut compute = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.record(&mut compute, &buffers, &work.dispatches);
        }
        let result = buffers.bound(work.result);
        encoder.copy_buffer_to_buffer(result, 0, buffers.download(), 0, work.result_bytes);
        let weights = (rows.rows() * rows.in_features) as u64;
        let submission = self.context.submit(encoder, Some((work.kind(), weights)));

        // Both maps complete when the submission does: the result to be read, the staging memory for the next chunk.
        let mapping = self.context.map(
            submission,
            &[
                (buffers.download(), wgpu::MapMode::Read),
                (buffers.upload(), wgpu::MapMode::Write),
            ],
        );
        self.context.check()?;
        Ok(Submitted {
            slot,
            download: buffers.download().clone(),
            mapping,
            rows: rows.rows(),
            in_features: rows.in_features,
            result_bytes: work.result_bytes,
        })
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        self.context.device.create_command_encoder(&descriptor)
    }

    fn pipeline(&self, entry_point: &EntryPoint) -> &wgpu::ComputePipeline {
        self.pipelines.get(entry_point.name).unwrap_or_else(|| {
            let wide_rows = self
                .wide_rows
                .get_or_init(|| self.context.compile(&WIDE_ROWS));
            &wide_rows[entry_point.name]
        })
    }

    /// Records dispatches.
    pub(super) fn record(
        &self,
        compute: &mut wgpu::ComputePass<'_>,
        buffers: &Buffers,
        dispatches: &[Dispatch],
    ) {
        for &(entry_point, (x, y)) in dispatches {
            let bound: Vec<_> = entry_point
                .bindings
                .iter()
                .map(|&number| (number, buffers.bound(Binding::ALL[number as usize])))
                .collect();
            let pipeline = self.pipeline(entry_point);
            compute.set_pipeline(pipeline);
            compute.set_bind_group(
                0,
                &self.context.bind(pipeline, entry_point.name, &bound),
                &[],
            );
            compute.dispatch_workgroups(x, y, 1);
        }
    }

    /// Waits for a chunk's mask.
    pub(crate) fn wait(&self, pending: Pending) -> Result<Mask, Error> {
        let mut mask = Mask {
            rows: 0,
            in_features: pending.in_features,
            words: Vec::new(),
        };
        for part in pending.parts {
            let part = self.wait_for(part)?;
            mask.rows += part.rows;
            if mask.words.is_empty() {
                mask.words = part.words;
            } else {
                mask.words.extend(part.words);
            }
        }
        Ok(mask)
    }

    /// Waits for a submission. Its result's words are returned as a mask's; the caller of `weight_sums` reads them as
    /// sums.
    fn wait_for(&self, submitted: Submitted) -> Result<Mask, Error> {
        let Submitted {
            slot,
            download,
            mapping,
            rows,
            in_features,
            result_bytes,
        } = submitted;
        let _turn = self.context.turn();
        self.context.wait(mapping)?;
        let words = self.context.take_words(&download, result_bytes)?;
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(slot);
        Ok(Mask {
            rows,
            in_features,
            words,
        })
    }
}

/// Adds the tiles of each of `count` sums: words are low and high halves, per tile, then per sum.
fn add_tiles(words: &[u32], count: usize) -> Vec<u64> {
    let mut sums = vec![0; count];
    if count == 0 {
        return sums;
    }
    for tile in words.chunks_exact(2 * count) {
        for (sum, part) in sums.iter_mut().zip(tile.chunks_exact(2)) {
            *sum += u64::from(part[0]) | u64::from(part[1]) << 32;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::adapter::adapters;
    use crate::device::adapter::faults::Faults;
    use crate::device::adapter::pace::TARGET;
    use crate::device::cpu;
    use crate::dtype::Dtype;
    use crate::fixtures::{WeightMatrix, rules, trained_norms};
    use crate::scores::SCORES;

    #[test]
    fn no_submission_comes_near_a_watchdog_and_the_mask_is_the_same_in_however_many() {
        let (rows, in_features) = (1024, 4096);
        let tensor = WeightMatrix::trained(5, Dtype::Bf16, rows, in_features);
        let norms = trained_norms(5, in_features);
        for adapter in adapters(true) {
            let gpu = Gpu::new(adapter.open(Faults::default()).unwrap()).unwrap();
            for rule in rules() {
                let recipe =
                    Recipe::new(rule.selection, &SCORES[0], in_features, Some(&norms), None);
                let expected = cpu::mask_by_threads(tensor.view(), 0, &recipe, 2);
                let kind = gpu.fused(tensor.view(), 0, &recipe).kind();
                // The first ones compile, and find out how much the next may be.
                assert!(gpu.mask(tensor.view(), 0, &recipe).unwrap() == expected);
                gpu.context.take_longest_submission();
                let pending = gpu.submit(tensor.view(), 0, &recipe).unwrap();
                let parts = pending.parts.len();
                assert!(gpu.wait(pending).unwrap() == expected, "{}", rule.name);
                let longest = gpu.context.take_longest_submission();
                println!(
                    "{} {}: {parts} submissions of at most {} weights, the longest {longest:?}",
                    gpu.context.info,
                    rule.name,
                    gpu.context.submission_limit(kind)
                );
                // On a busy machine some are slower than the bound expects; a watchdog waits for 2 s.
                assert!(longest < TARGET * 4, "{}: {longest:?}", rule.name);
            }
        }
    }
}
