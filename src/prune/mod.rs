//! Running a plan: rows flow from the checkpoint through a device to the output, in memory bounded by the chunks in
//! flight, whatever the size of the model.
//!
//! ```text
//!   plan ── pieces ──> in the order of the bytes: spans to copy, rows to sum, rows to prune
//!             │
//!             ├─ cpu   each thread reads, prunes and hands on chunks of its own; one thread at a time writes
//!             └─ gpu   reader ─> device ─> pruner ─> writer, stages over bounded channels; the device returns masks
//! ```
//!
//! A matrix knows where its rows lie (`matrix.rs`), a shared recipe how they are pruned (`shared_recipe.rs`), and
//! the job what all threads share (`job.rs`). The same weights without an output, as a forward pass reads them:
//! `pruned_weights.rs`. From one stream to another, where there are neither files nor threads: `stream.rs`. Bytes that do not
//! change are copied by the kernel.

#[cfg(feature = "native")]
mod block_scores;
mod check;
mod chunk;
#[cfg(feature = "native")]
mod clocks;
#[cfg(feature = "native")]
mod compensate;
#[cfg(feature = "native")]
mod compensators;
#[cfg(feature = "native")]
mod cpu;
#[cfg(feature = "native")]
mod decider;
mod error;
#[cfg(feature = "native")]
mod estimate;
#[cfg(feature = "native")]
mod fault;
#[cfg(feature = "native")]
mod gpu;
#[cfg(feature = "native")]
mod job;
mod matrix;
#[cfg(feature = "native")]
mod outcome;
#[cfg(feature = "native")]
mod pieces;
#[cfg(feature = "native")]
mod pruned_weights;
#[cfg(feature = "native")]
mod recipes;
#[cfg(feature = "native")]
mod samples;
#[cfg(feature = "native")]
mod shared_recipe;
#[cfg(feature = "native")]
mod single_writer;
mod stream;
#[cfg(feature = "native")]
mod tally;
#[cfg(feature = "native")]
mod verify;

#[cfg(feature = "native")]
use std::time::Instant;

#[cfg(feature = "native")]
pub use block_scores::block_scores;
#[cfg(feature = "native")]
pub use clocks::Stages;
pub use error::Error;
#[cfg(feature = "native")]
pub use estimate::{memory, time};
#[cfg(feature = "native")]
pub use fault::{Fault, VerifyError};
#[cfg(feature = "native")]
pub(crate) use outcome::ShardOutcome;
#[cfg(feature = "native")]
pub use outcome::{Outcome, PruneEvent};
#[cfg(feature = "native")]
pub(crate) use pruned_weights::{PrunedWeights, of_overlay};
#[cfg(feature = "native")]
pub use samples::{Histogram, SampleRow, Samples, samples};
pub use stream::{Sink, Source, Streamed, open_stream, prune_stream};
#[cfg(feature = "native")]
pub use verify::{Survivors, Verified, verify};

pub use crate::stop::Stop;

#[cfg(feature = "native")]
use crate::checkpoint::Output;
#[cfg(feature = "native")]
use crate::device::{self, Backend, Device, compensation};
#[cfg(feature = "native")]
use crate::plan::Plan;
#[cfg(feature = "native")]
use job::{Job, JobResult};
#[cfg(feature = "native")]
use matrix::Matrix;

/// Prunes: runs the plan on the device and makes the output appear, whole, at the end, unless it is asked to stop while bytes are
/// missing.
///
/// `progress` is called from several threads. Memory: a few chunks a thread. If the device fails in the middle, the CPU goes
/// on, with the same bytes (but for the last bits of weights that are compensated): [`PruneEvent::DeviceFailed`] and
/// [`Outcome::device_failure`] tell.
///
/// # Errors
/// Every variant of [`Error`]; the output is then as if nothing had been run.
#[cfg(feature = "native")]
pub fn prune(
    plan: &Plan,
    device: &Device,
    output: Output,
    progress: &(dyn Fn(PruneEvent<'_>) + Sync),
    stop: &Stop,
) -> Result<Outcome, Error> {
    let start = Instant::now();
    let JobResult {
        counts,
        stages,
        device_failure,
    } = work(plan, None, device, &output, progress, stop)?;
    let finished = output.finish()?;
    Ok(Outcome {
        counts,
        elapsed: start.elapsed(),
        stages,
        finished,
        device_failure,
    })
}

/// Prunes one shard of the plan into an output in which that shard is staged; it is not finished.
///
/// # Errors
/// As [`prune`].
#[cfg(feature = "native")]
pub(crate) fn prune_shard(
    plan: &Plan,
    shard: usize,
    device: &Device,
    output: &Output,
    progress: &(dyn Fn(PruneEvent<'_>) + Sync),
    stop: &Stop,
) -> Result<ShardOutcome, Error> {
    let start = Instant::now();
    let JobResult {
        counts,
        stages,
        device_failure,
    } = work(plan, Some(shard), device, output, progress, stop)?;
    Ok(ShardOutcome {
        counts,
        elapsed: start.elapsed(),
        stages,
        device_failure,
    })
}

/// Does the plan's work, or that of one of its shards.
#[cfg(feature = "native")]
fn work(
    plan: &Plan,
    only: Option<usize>,
    device: &Device,
    output: &Output,
    progress: &(dyn Fn(PruneEvent<'_>) + Sync),
    stop: &Stop,
) -> Result<JobResult, Error> {
    let compensates = plan.options().compensation.is_some();
    let chunk_rows = |matrix: &Matrix<'_>| match device.backend() {
        Backend::Cpu(_) => cpu::chunk_rows(matrix, compensates),
        Backend::Gpu(gpu) => {
            let rows = gpu.chunk_rows(matrix.target.in_features);
            match plan.options().compensation {
                Some(compensation) => {
                    let in_features = matrix.target.in_features;
                    let fit = compensation::chunk_rows(gpu, in_features, compensation.rank);
                    // Should the host compensate them, it is as many at a time as it would on its own.
                    let together = compensate::rows_together(in_features);
                    let rows = rows.min(fit);
                    rows - if rows > together { rows % together } else { 0 }
                }
                None => rows,
            }
        }
    };
    let job = Job::new(plan, only, output, chunk_rows, progress, stop)?;
    if compensates {
        match device.check_compensation() {
            Err(error @ device::Error::Failed { .. }) => job.device_failed(error),
            checked => checked?,
        }
    }
    match device.backend() {
        Backend::Cpu(cpu) => cpu::run(&job, cpu.threads())?,
        Backend::Gpu(gpu) => gpu::run(&job, gpu)?,
    }
    job.finish()
}
