//! The GPU device: the passes as WGSL, dispatched through wgpu.
//!
//! A chunk of rows is written into mapped staging memory, runs through its passes in one submission, and only its mask
//! comes back: a sixteenth of a bf16 weight's bytes. [`Gpu::submit`] and [`Gpu::wait`] are separate so that the caller can
//! read the next chunk, and write the last, while one is on the device.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::context::{Context, Mapping, Pipelines};
use super::error::Error;
use super::work::{Dispatch, Work};
use crate::mask::Mask;
use crate::passes::PASSES;
use crate::passes::fused::{
    CAPACITY, GROUPS, ROWS, WIDE_CAPACITY, WIDE_ROWS, WIDE_WORKGROUP_BYTES,
};
use crate::passes::params::{Binding, Params};
use crate::recipe::{Factors, MAX_IN_FEATURES, Recipe, Rows, Step, Sums};
use crate::shader::EntryPoint;

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

/// The buffers of one chunk in flight; they only ever grow.
#[derive(Debug, Default)]
pub(super) struct Slot {
    upload: Option<wgpu::Buffer>,
    weights: Option<wgpu::Buffer>,
    factors: Option<wgpu::Buffer>,
    averages: Option<wgpu::Buffer>,
    order_keys: Option<wgpu::Buffer>,
    threshold_keys: Option<wgpu::Buffer>,
    result: Option<wgpu::Buffer>,
    download: Option<wgpu::Buffer>,
    params: Option<wgpu::Buffer>,
}

/// The slot's buffers for one piece of work.
pub(super) struct Buffers {
    upload: wgpu::Buffer,
    /// Bytes of weights, padded to a word.
    uploaded: u64,
    download: wgpu::Buffer,
    params: wgpu::Buffer,
    weights: wgpu::Buffer,
    factors: wgpu::Buffer,
    averages: wgpu::Buffer,
    result: wgpu::Buffer,
    order_keys: wgpu::Buffer,
    threshold_keys: wgpu::Buffer,
    has_threshold_keys: bool,
}

impl Buffers {
    pub(super) fn bound(&self, binding: Binding) -> &wgpu::Buffer {
        match binding {
            Binding::Params => &self.params,
            Binding::Weights => &self.weights,
            Binding::Factors => &self.factors,
            Binding::Averages => &self.averages,
            Binding::Result => &self.result,
            Binding::Keys if self.has_threshold_keys => &self.threshold_keys,
            // The order keys are selected on, where there are no threshold keys.
            Binding::OrderKeys | Binding::Keys => &self.order_keys,
        }
    }
}

/// A chunk on the device.
#[derive(Debug)]
pub(crate) struct Pending {
    slot: Slot,
    mapping: Mapping,
    rows: usize,
    in_features: usize,
    result_bytes: u64,
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
        self.for_each_chunk(
            rows,
            |chunk, offset| self.submit(chunk, first_row + offset, recipe),
            |chunk| mask.words.extend(chunk.words),
        )?;
        Ok(mask)
    }

    /// Submits chunk after chunk with [`CHUNKS_IN_FLIGHT`] on the device.
    fn for_each_chunk(
        &self,
        rows: Rows<'_>,
        submit: impl Fn(Rows<'_>, usize) -> Result<Pending, Error>,
        mut take: impl FnMut(Mask),
    ) -> Result<(), Error> {
        let row_bytes = rows.in_features * rows.dtype.size();
        if row_bytes == 0 {
            return Ok(());
        }
        let chunk_rows = self.chunk_rows(rows.in_features);
        let mut in_flight = std::collections::VecDeque::new();
        for (chunk, bytes) in rows.bytes.chunks(chunk_rows * row_bytes).enumerate() {
            if in_flight.len() == CHUNKS_IN_FLIGHT
                && let Some(oldest) = in_flight.pop_front()
            {
                take(self.wait(oldest)?);
            }
            in_flight.push_back(submit(Rows { bytes, ..rows }, chunk * chunk_rows)?);
        }
        for pending in in_flight {
            take(self.wait(pending)?);
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
        self.for_each_chunk(
            rows,
            |chunk, offset| {
                let work = Work::alone(chunk, recipe, last);
                let factors = chunk_factors(&recipe.factors, first_row + offset, chunk.rows());
                self.dispatch(chunk, &work, &factors)
            },
            |chunk| words.extend(chunk.words),
        )?;
        Ok(words)
    }

    /// Starts the passes, joined, on at most [`Self::chunk_rows`] rows; `first_row` is where they lie in the recipe's
    /// tensor.
    pub(crate) fn submit(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
    ) -> Result<Pending, Error> {
        let factors = chunk_factors(&recipe.factors, first_row, rows.rows());
        self.dispatch(rows, &self.fused(rows, first_row, recipe), &factors)
    }

    /// From weights to the mask in one dispatch.
    pub(super) fn fused(&self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Work {
        Work::fused(rows, first_row, recipe, self.capacity)
    }

    pub(crate) fn sums(&self, rows: Rows<'_>) -> Result<Sums, Error> {
        let mut sums = Sums {
            column: vec![0; rows.in_features],
            row: Vec::with_capacity(rows.rows()),
        };
        self.for_each_chunk(
            rows,
            |chunk, _| self.submit_sums(chunk, true),
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
        self.for_each_chunk(
            rows,
            |chunk, _| self.submit_sums(chunk, false),
            |chunk| sums.row.extend(add_tiles(&chunk.words, chunk.rows)),
        )?;
        Ok(sums)
    }

    /// Starts `weight_sums` over a chunk's columns, or over its rows.
    fn submit_sums(&self, rows: Rows<'_>, columns: bool) -> Result<Pending, Error> {
        self.dispatch(rows, &Work::sums(rows, columns), &[])
    }

    /// Uploads a chunk, records its dispatches and the copy of their result, and submits them.
    fn dispatch(&self, rows: Rows<'_>, work: &Work, factors: &[f32]) -> Result<Pending, Error> {
        let _turn = self.context.turn();
        let mut slot = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default();
        let buffers = self.fill(&mut slot, rows, work, factors)?;
        let mut encoder = self.encoder();
        self.upload(&mut encoder, &buffers, work);
        {
            let mut compute = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.record(&mut compute, &buffers, &work.dispatches);
        }
        let result = buffers.bound(work.result);
        encoder.copy_buffer_to_buffer(result, 0, &buffers.download, 0, work.result_bytes);
        let submission = self.context.queue.submit([encoder.finish()]);

        // Both maps complete when the submission does: the result to be read, the staging memory for the next chunk.
        let mapping = self.context.map(
            submission,
            &[
                (&buffers.download, wgpu::MapMode::Read),
                (&buffers.upload, wgpu::MapMode::Write),
            ],
        );
        self.context.check()?;
        Ok(Pending {
            slot,
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

    /// Makes the slot's buffers large enough, and fills those that the host fills.
    pub(super) fn fill(
        &self,
        slot: &mut Slot,
        rows: Rows<'_>,
        work: &Work,
        factors: &[f32],
    ) -> Result<Buffers, Error> {
        use wgpu::BufferUsages as Usage;
        debug_assert!(
            rows.in_features <= MAX_IN_FEATURES,
            "the planner refuses longer rows"
        );
        let between = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let padded = (rows.bytes.len() as u64).next_multiple_of(4);
        let buffers = Buffers {
            upload: self.grow(
                &mut slot.upload,
                "upload",
                padded,
                Usage::MAP_WRITE | Usage::COPY_SRC,
            ),
            uploaded: padded,
            download: self.grow(
                &mut slot.download,
                "download",
                work.result_bytes,
                Usage::MAP_READ | Usage::COPY_DST,
            ),
            params: self.grow(
                &mut slot.params,
                "params",
                size_of::<Params>() as u64,
                Usage::UNIFORM | Usage::COPY_DST,
            ),
            weights: self.grow(&mut slot.weights, "weights", padded, between),
            factors: self.grow(
                &mut slot.factors,
                "factors",
                factors.len() as u64 * 4,
                Usage::STORAGE | Usage::COPY_DST,
            ),
            averages: self.grow(
                &mut slot.averages,
                "averages",
                work.bytes(Binding::Averages),
                Usage::STORAGE,
            ),
            result: self.grow(&mut slot.result, "result", work.result_bytes, between),
            order_keys: self.grow(
                &mut slot.order_keys,
                "order keys",
                work.bytes(Binding::OrderKeys),
                between,
            ),
            threshold_keys: self.grow(
                &mut slot.threshold_keys,
                "threshold keys",
                work.bytes(Binding::Keys),
                between,
            ),
            has_threshold_keys: work.params.key_bits == 16,
        };
        self.context.check()?;
        {
            let mut view = buffers
                .upload
                .get_mapped_range_mut(..padded)
                .map_err(|error| self.context.failed(error.to_string()))?;
            view.slice(..rows.bytes.len()).copy_from_slice(rows.bytes);
            view.slice(rows.bytes.len()..).fill(0);
        }
        buffers.upload.unmap();
        let queue = &self.context.queue;
        queue.write_buffer(&buffers.params, 0, bytemuck::bytes_of(&work.params));
        queue.write_buffer(&buffers.factors, 0, bytemuck::cast_slice(factors));
        Ok(buffers)
    }

    /// Records the weights' copy to the device.
    pub(super) fn upload(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &Buffers,
        work: &Work,
    ) {
        encoder.copy_buffer_to_buffer(&buffers.upload, 0, &buffers.weights, 0, buffers.uploaded);
        // Nothing pruned, should a dispatch be lost without an error: the caller's count of zeros tells.
        encoder.clear_buffer(buffers.bound(work.result), 0, Some(work.result_bytes));
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

    /// Waits for a chunk. Its result's words are returned as a mask's; `weight_sums`'s caller reads them as sums.
    pub(crate) fn wait(&self, pending: Pending) -> Result<Mask, Error> {
        let Pending {
            slot,
            mapping,
            rows,
            in_features,
            result_bytes,
        } = pending;
        let _turn = self.context.turn();
        self.context.wait(mapping)?;
        let Some(download) = &slot.download else {
            unreachable!("a pending slot has its buffers")
        };
        let words = self.context.take_words(download, result_bytes)?;
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

    /// The slot's buffer, made anew when it is too small; staging memory stays mapped while it is idle.
    fn grow(
        &self,
        buffer: &mut Option<wgpu::Buffer>,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> wgpu::Buffer {
        let largest = self.context.largest_buffer();
        if buffer.as_ref().is_none_or(|buffer| buffer.size() < bytes) {
            *buffer = Some(self.context.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes.max(256).next_power_of_two().min(largest.max(bytes)),
                usage,
                mapped_at_creation: usage.contains(wgpu::BufferUsages::MAP_WRITE),
            }));
        }
        match buffer {
            Some(buffer) => buffer.clone(),
            None => unreachable!("made above"),
        }
    }
}

/// Column factors, then RIA's column terms and the row terms of this chunk, as `score.wgsl` reads them.
pub(super) fn chunk_factors(factors: &Factors, first_row: usize, rows: usize) -> Vec<f32> {
    let mut all = factors.column.clone();
    if let Some(terms) = &factors.terms {
        all.extend(&terms.column);
        all.extend(&terms.row[first_row..first_row + rows]);
    }
    all
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
