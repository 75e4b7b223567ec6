//! What a run would take: memory, and the device's time.

use std::time::{Duration, Instant};

use super::chunk::Chunk;
use super::error::Error;
use super::gpu::CHUNKS;
use super::matrix::Matrix;
use super::pieces;
use super::{compensate, compensators};
use crate::checkpoint::Reader;
use crate::device::gpu::CHUNKS_IN_FLIGHT;
use crate::device::{Backend, Device, compensation};
use crate::plan::Draft;
use crate::recipe::{Recipe, Rows};

/// About how much memory a run takes: its chunks, buffers and keys.
#[must_use]
pub fn memory(draft: &Draft, device: &Device) -> u64 {
    let chunk = draft.pruned().map(|(tensor, target)| {
        let row = tensor.len / target.rows().max(1);
        match device.backend() {
            // A chunk holds one row at least; its keys take up to nine bytes a weight. One chunk in hand, three being
            // written or waiting for it.
            Backend::Cpu(cpu) => cpu.threads() as u64 * (4 * (512 << 10).max(row) + 5 * row),
            // The chunks that go round, and the staging memory of those on the device.
            Backend::Gpu(gpu) => {
                let chunk = gpu.chunk_rows(target.in_features) as u64 * row;
                (CHUNKS + CHUNKS_IN_FLIGHT) as u64 * chunk
            }
        }
    });
    let program = match device.backend() {
        Backend::Cpu(_) => 16 << 20,
        Backend::Gpu(_) => 128 << 20,
    };
    program + chunk.max().unwrap_or(0) + compensation(draft, device)
}

/// What compensation takes beside: the factors of a few inputs, and the rows that each thread compensates.
fn compensation(draft: &Draft, device: &Device) -> u64 {
    let Some(compensation) = draft.options().compensation else {
        return 0;
    };
    let widest = draft.pruned().map(|(_, target)| target.in_features).max();
    let widest = widest.unwrap_or(0);
    let rows = match device.backend() {
        Backend::Cpu(cpu) => cpu.threads() as u64 * compensate::memory(widest),
        Backend::Gpu(gpu) => compensation::host_memory(gpu, widest, compensation.rank),
    };
    compensators::memory(widest, compensation.rank) + rows
}

/// How long the device would compute, measured by deciding one chunk of the plan's largest matrix; `None` for a plan
/// without weights, and with compensation.
///
/// # Errors
/// When the sample cannot be read, or the device fails.
pub fn time(draft: &Draft, device: &Device) -> Result<Option<Duration>, Error> {
    const SAMPLE_BYTES: usize = 4 << 20;
    // Most of the time would go into the weights that stay, which need a sketch.
    if draft.options().compensation.is_some() {
        return Ok(None);
    }
    let (matrices, _) = pieces::cut(draft, None, |_| usize::MAX);
    let Some(matrix) = matrices.iter().max_by_key(|matrix| matrix.place.bytes()) else {
        return Ok(None);
    };
    let input = Reader::open(draft.checkpoint())?;
    let rows = 0..(SAMPLE_BYTES / matrix.place.row_bytes().max(1))
        .clamp(1, matrix.target.out_features.max(1));
    let mut chunk = Chunk::default();
    matrix.read(&input, rows.clone(), &mut chunk)?;
    let weights = Rows {
        dtype: matrix.dtype,
        in_features: matrix.target.in_features,
        bytes: chunk.bytes(),
    };
    let recipe = sample_recipe(draft, device, matrix, weights)?;
    device.mask(weights, 0, &recipe)?; // compiles the shaders
    let start = Instant::now();
    device.mask(weights, 0, &recipe)?;
    let sampled = start.elapsed().as_secs_f64() / chunk.bytes().len().max(1) as f64;
    let threads = match device.backend() {
        Backend::Cpu(cpu) => cpu.threads() as f64,
        Backend::Gpu(_) => 1.0,
    };
    Ok(Some(Duration::from_secs_f64(
        sampled * draft.bytes_pruned() as f64 / threads,
    )))
}

/// A recipe of the right form for timing one chunk, as if it were the whole matrix, with factors that need no norms.
fn sample_recipe(
    draft: &Draft,
    device: &Device,
    matrix: &Matrix<'_>,
    weights: Rows<'_>,
) -> Result<Recipe, Error> {
    let (selection, score) = (matrix.selection, draft.score());
    let of_weights = device.statistics(weights, score)?;
    Ok(Recipe::new(
        selection,
        score,
        weights.in_features,
        None,
        of_weights.as_ref(),
    ))
}
