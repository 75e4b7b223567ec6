//! The GPU device: the passes as WGSL, dispatched through wgpu.
//!
//! A chunk of rows is written into mapped staging memory, runs through its passes in one submission, or in several where
//! the device is slow (`adapter/pace.rs`), and only its mask comes back: a sixteenth of a bf16 weight's bytes. [`Gpu::submit`] and [`Gpu::wait`] are separate so that the caller can
//! read the next chunk, and write the last, while one is on the device.

pub(super) mod buffers;
pub(super) mod dispatches;

use std::collections::HashMap;
use std::sync::OnceLock;

use parking_lot::{Mutex, MutexGuard};

use super::adapter::context::{Context, Pipelines};
use super::adapter::mapping::Mapping;
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
    /// Sets of buffers that are not on the device now, for large parts and for small ones.
    idle: [Mutex<Vec<Slot>>; 2],
}

/// Rows to prune, and by what.
#[derive(Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) rows: Rows<'a>,
    /// Where they lie in the recipe's tensor.
    pub(crate) first_row: usize,
    pub(crate) recipe: &'a Recipe,
}

/// Rows with what they are put through.
struct Prepared<'a> {
    /// Which of the pieces they are of.
    piece: usize,
    rows: Rows<'a>,
    work: Work,
    factors: Vec<f32>,
}

impl Prepared<'_> {
    fn weights(&self) -> u64 {
        self.rows.rows() as u64 * self.rows.in_features as u64
    }
}

/// A submission: rows of a large piece, or all of some small ones.
#[derive(Debug)]
struct Submitted {
    parts: Vec<Part>,
    mapping: Mapping,
}

#[derive(Debug)]
struct Part {
    piece: usize,
    slot: Slot,
    is_small: bool,
    /// Of the slot's buffers the one that is read.
    download: wgpu::Buffer,
    rows: usize,
    result_bytes: u64,
}

/// Pieces on the device: in as many submissions as they take.
#[derive(Debug)]
pub(crate) struct Pending {
    submissions: Vec<Submitted>,
    /// Of each piece, the weights a row.
    in_features: Vec<usize>,
}

/// Weights of rows that share a submission with others; their buffers are kept apart, so that few become large.
const SMALL_WEIGHTS: u64 = 1 << 16;

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
            idle: Default::default(),
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

    pub(super) async fn mask(
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
        )
        .await?;
        Ok(mask)
    }

    /// Submits part after part with [`CHUNKS_IN_FLIGHT`] on the device. `work` and `factors` get the rows of a part, and
    /// where they lie in `rows`.
    async fn for_each_part(
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
                take(self.only_mask(oldest, rows.in_features).await?);
            }
            let part = |count: usize| {
                let end = rows.rows().min(first + count);
                let bytes = &rows.bytes[first * row_bytes..end * row_bytes];
                Rows { bytes, ..rows }
            };
            // The kind of the work tells how many rows; it is the same for any number of them.
            let kind = work(part(1), first);
            let part = part(self.submission_rows(&kind, rows.in_features));
            in_flight.push_back(self.dispatch(vec![Prepared {
                piece: 0,
                rows: part,
                work: work(part, first),
                factors: factors(part, first),
            }])?);
            first += part.rows();
        }
        for pending in in_flight {
            take(self.only_mask(pending, rows.in_features).await?);
        }
        Ok(())
    }

    /// What a submission of one part gives.
    async fn only_mask(&self, submitted: Submitted, in_features: usize) -> Result<Mask, Error> {
        let mut masks = vec![Mask::empty(0, in_features)];
        self.wait_for(submitted, &mut masks).await?;
        Ok(masks.remove(0))
    }

    /// The words that the passes give one by one, up to and with `last`.
    pub(super) async fn alone(
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
        )
        .await?;
        Ok(words)
    }

    /// Starts the fused passes on some pieces, each of at most [`Self::chunk_rows`] rows: a large one in several
    /// submissions where the device is slow, small ones together in one.
    pub(crate) fn submit(&self, pieces: &[Piece<'_>]) -> Result<Pending, Error> {
        let mut submissions = Vec::new();
        let mut together: Vec<Prepared<'_>> = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let Piece {
                rows,
                first_row,
                recipe,
            } = *piece;
            let kind = self.fused(rows, first_row, recipe);
            let step = self.submission_rows(&kind, rows.in_features);
            let row_bytes = (rows.in_features * rows.dtype.size()).max(1);
            for (part, bytes) in rows.bytes.chunks(step * row_bytes).enumerate() {
                let (part, first_row) = (Rows { bytes, ..rows }, first_row + part * step);
                let prepared = Prepared {
                    piece: index,
                    rows: part,
                    work: self.fused(part, first_row, recipe),
                    factors: chunk_factors(&recipe.factors, first_row, part.rows()),
                };
                let kind = prepared.work.kind();
                let weights: u64 = together.iter().map(Prepared::weights).sum();
                let is_apart = |first: &Prepared<'_>| {
                    first.work.kind() != kind
                        || weights + prepared.weights() > self.context.submission_limit(kind)
                };
                if together.first().is_some_and(is_apart) {
                    submissions.push(self.dispatch(std::mem::take(&mut together))?);
                }
                together.push(prepared);
            }
        }
        if !together.is_empty() {
            submissions.push(self.dispatch(together)?);
        }
        Ok(Pending {
            submissions,
            in_features: pieces.iter().map(|piece| piece.rows.in_features).collect(),
        })
    }

    /// From weights to the mask in one dispatch.
    pub(super) fn fused(&self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Work {
        Work::fused(rows, first_row, recipe, self.capacity)
    }

    /// What a score takes of these rows. Squares are the host's to count, on every device.
    pub(crate) async fn statistics(
        &self,
        rows: Rows<'_>,
        score: &Score,
    ) -> Result<Option<WeightStatistics>, Error> {
        match score.weights {
            WeightsUse::Sums => Ok(Some(WeightStatistics::Sums(self.sums(rows).await?))),
            _ => Ok(super::cpu::statistics(rows, score)),
        }
    }

    pub(crate) async fn sums(&self, rows: Rows<'_>) -> Result<Sums, Error> {
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
        )
        .await?;
        self.for_each_part(
            rows,
            |part, _| Work::sums(part, false),
            no_factors,
            |chunk| sums.row.extend(add_tiles(&chunk.words, chunk.rows)),
        )
        .await?;
        Ok(sums)
    }

    /// Uploads rows, records their dispatches and the copies of the results, and submits all of it at once.
    fn dispatch(&self, prepared: Vec<Prepared<'_>>) -> Result<Submitted, Error> {
        let _turn = self.context.turn();
        let mut encoder = self.encoder();
        let mut parts = Vec::with_capacity(prepared.len());
        let mut all_buffers = Vec::with_capacity(prepared.len());
        for part in &prepared {
            let is_small = part.weights() <= SMALL_WEIGHTS;
            let mut slot = self.idle(is_small).pop().unwrap_or_default();
            let buffers = slot.fill(&self.context, part.rows, &part.work, &part.factors)?;
            buffers.record_upload(&mut encoder, &part.work);
            parts.push(Part {
                piece: part.piece,
                slot,
                is_small,
                download: buffers.download().clone(),
                rows: part.rows.rows(),
                result_bytes: part.work.result_bytes,
            });
            all_buffers.push(buffers);
        }
        {
            let mut compute = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for (part, buffers) in prepared.iter().zip(&all_buffers) {
                self.record(&mut compute, buffers, &part.work.dispatches);
            }
        }
        for (Prepared { work, .. }, buffers) in prepared.iter().zip(&all_buffers) {
            let result = buffers.bound(work.result);
            encoder.copy_buffer_to_buffer(result, 0, buffers.download(), 0, work.result_bytes);
        }
        let weights = prepared.iter().map(Prepared::weights).sum();
        let kind = prepared.first().map_or("", |part| part.work.kind());
        let submission = self.context.submit(encoder, Some((kind, weights)));

        // All maps complete when the submission does: results to be read, staging memory for the next chunk.
        let maps: Vec<_> = all_buffers
            .iter()
            .flat_map(|buffers| {
                [
                    (buffers.download(), wgpu::MapMode::Read),
                    (buffers.upload(), wgpu::MapMode::Write),
                ]
            })
            .collect();
        let mapping = self.context.map(submission, &maps);
        self.context.check()?;
        Ok(Submitted { parts, mapping })
    }

    fn idle(&self, is_small: bool) -> MutexGuard<'_, Vec<Slot>> {
        let idle = &self.idle[usize::from(is_small)];
        idle.lock()
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

    /// Waits for the masks of pieces, in their order.
    pub(crate) async fn wait(&self, pending: Pending) -> Result<Vec<Mask>, Error> {
        let empty = |&in_features| Mask::empty(0, in_features);
        let mut masks: Vec<Mask> = pending.in_features.iter().map(empty).collect();
        for submitted in pending.submissions {
            self.wait_for(submitted, &mut masks).await?;
        }
        Ok(masks)
    }

    /// Waits for a submission, whose results' words go to the masks of their pieces; the caller of `weight_sums` reads them
    /// as sums.
    async fn wait_for(&self, submitted: Submitted, masks: &mut [Mask]) -> Result<(), Error> {
        self.context.done(submitted.mapping).await?;
        let _turn = self.context.turn();
        for part in submitted.parts {
            let words = self.context.take_words(&part.download, part.result_bytes)?;
            let mask = &mut masks[part.piece];
            mask.rows += part.rows;
            if mask.words.is_empty() {
                mask.words = words;
            } else {
                mask.words.extend(words);
            }
            self.idle(part.is_small).push(part.slot);
        }
        Ok(())
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
mod tests;
