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
//! A matrix knows where its rows lie (`matrix.rs`), a shared recipe how they are pruned (`shared_recipe.rs`), and the job
//! what all threads share (`job.rs`). The same weights without an output, as a forward pass reads them: `pruned_weights.rs`. Bytes that do not change are copied by the kernel.

mod block_scores;
mod chunk;
mod clocks;
mod cpu;
mod decider;
mod error;
mod estimate;
mod fault;
mod gpu;
mod job;
mod matrix;
mod mend;
mod menders;
mod outcome;
mod pieces;
mod pruned_weights;
mod recipes;
mod samples;
mod shared_recipe;
mod single_writer;
mod tally;
mod verify;
mod weigh;

use std::time::Instant;

pub use block_scores::block_scores;
pub use clocks::Stages;
pub use error::Error;
pub use estimate::{memory, time};
pub use fault::{Fault, VerifyError};
pub(crate) use outcome::ShardOutcome;
pub use outcome::{Outcome, PruneEvent};
pub(crate) use pruned_weights::PrunedWeights;
pub use samples::{Histogram, SampleRow, Samples, samples};
pub use verify::{Survivors, Verified, verify, verify_until};

pub use crate::stop::Stop;

use crate::checkpoint::Output;
use crate::device::{Backend, Device, mending};
use crate::plan::Plan;
use job::{Job, JobResult};
use matrix::Matrix;

/// Prunes: runs the plan on the device and makes the output appear, whole, at the end.
///
/// `progress` is called from several threads. Memory: a few chunks a thread. If the device fails in the middle, the CPU goes
/// on, with the same bytes (but for the last bits of weights that are mended): [`PruneEvent::DeviceFailed`] and
/// [`Outcome::device_failure`] tell.
///
/// # Errors
/// Every variant of [`Error`] but [`Error::Stopped`]; the output is then as if nothing had been run.
pub fn prune(
    plan: &Plan,
    device: &Device,
    output: Output,
    progress: &(dyn Fn(PruneEvent<'_>) + Sync),
) -> Result<Outcome, Error> {
    prune_until(plan, device, output, progress, &Stop::new())
}

/// [`prune`], unless it is asked to stop while bytes are missing.
///
/// # Errors
/// As [`prune`], and [`Error::Stopped`].
pub fn prune_until(
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
/// As [`prune_until`].
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
fn work(
    plan: &Plan,
    only: Option<usize>,
    device: &Device,
    output: &Output,
    progress: &(dyn Fn(PruneEvent<'_>) + Sync),
    stop: &Stop,
) -> Result<JobResult, Error> {
    let mends = plan.options().compensation.is_some();
    let chunk_rows = |matrix: &Matrix<'_>| match device.backend() {
        Backend::Cpu(_) => cpu::chunk_rows(matrix, mends),
        Backend::Gpu(gpu) => {
            let rows = gpu.chunk_rows(matrix.target.in_features);
            match plan.options().compensation {
                Some(compensation) => {
                    let in_features = matrix.target.in_features;
                    let fit = mending::chunk_rows(gpu, in_features, compensation.rank);
                    // Should the host mend them, it is as many at a time as it would on its own.
                    let together = mend::rows_together(in_features);
                    let rows = rows.min(fit);
                    rows - if rows > together { rows % together } else { 0 }
                }
                None => rows,
            }
        }
    };
    if mends {
        device.check_mending()?;
    }
    let job = Job::new(plan, only, output, chunk_rows, progress, stop)?;
    match device.backend() {
        Backend::Cpu(cpu) => cpu::run(&job, cpu.threads()),
        Backend::Gpu(gpu) => gpu::run(&job, gpu),
    }
    job.finish()
}
