//! Who decides the rows of a run on a GPU: the device, and the CPU from the moment that it has failed.
//!
//! The host keeps the bytes of a chunk until its mask is there, and a mask has the same bits wherever it is made. So a
//! device that is lost in the middle, or has no memory left, costs time and nothing else.

use std::sync::Arc;

use super::clocks::Stage;
use super::compensate;
use super::error::Error as PruneError;
use super::job::Job;
use crate::compensation::{CompensatedRows, Compensator};
use crate::device::compensation::RowCompensator;
use crate::device::gpu::{Gpu, Pending, Piece};
use crate::device::{Error, cpu};
use crate::mask::Mask;
use crate::recipe::{Rows, WeightStatistics};
use crate::selection::Selection;

pub(super) struct Decider<'a> {
    job: &'a Job<'a>,
    gpu: &'a Gpu,
    /// Threads of the CPU, should it take over.
    threads: usize,
}

/// What the device gives, unless it has failed, now or before.
fn unless_failed<T>(job: &Job<'_>, work: impl FnOnce() -> Result<T, Error>) -> Option<T> {
    if job.has_device_failed() {
        return None;
    }
    work().map_err(|error| job.device_failed(error)).ok()
}

/// Who compensates the rows of a run on a GPU, likewise. What a device has begun is begun anew by the CPU.
pub(super) struct RowCompensators<'a> {
    job: &'a Job<'a>,
    on_device: RowCompensator<'a>,
}

impl<'a> RowCompensators<'a> {
    pub(super) fn new(job: &'a Job<'a>, gpu: &'a Gpu) -> Self {
        Self {
            job,
            on_device: RowCompensator::new(gpu),
        }
    }

    /// Compensates rows of a matrix that are selected so.
    pub(super) fn compensate(
        &mut self,
        compensator: &Arc<Compensator>,
        selection: Selection,
        weights: &[f32],
        mask: &mut Mask,
    ) -> Result<CompensatedRows, PruneError> {
        if self.on_device.can_compensate(compensator, &selection) {
            let mut chosen = mask.clone();
            let on_device = &mut self.on_device;
            let work = || on_device.compensate(compensator, selection, weights, &mut chosen);
            if let Some(compensated) = unless_failed(self.job, work) {
                *mask = chosen;
                return Ok(compensated);
            }
        }
        compensate::on_host(compensator, selection, weights, mask)
    }
}

/// Bytes of rows that the host adds up itself.
const FEW_BYTES: usize = 128 << 10;

/// Pieces whose masks are to come.
pub(super) struct Undecided(Option<Pending>);

impl<'a> Decider<'a> {
    pub(super) fn new(job: &'a Job<'a>, gpu: &'a Gpu) -> Self {
        Self {
            job,
            gpu,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    /// What the device gives, unless it has failed.
    fn on_device<T>(&self, work: impl FnOnce(&Gpu) -> Result<T, Error>) -> Option<T> {
        unless_failed(self.job, || work(self.gpu))
    }

    /// What the score of the run takes of some rows; of few weights it is counted here, in less time than the device takes to
    /// answer.
    pub(super) fn statistics(&self, rows: Rows<'_>) -> Option<WeightStatistics> {
        let _clock = self.job.clocks.run(Stage::Wait);
        let score = self.job.plan.score();
        if rows.bytes.len() <= FEW_BYTES {
            return cpu::statistics(rows, score);
        }
        self.on_device(|gpu| pollster::block_on(gpu.statistics(rows, score)))
            .unwrap_or_else(|| cpu::statistics(rows, score))
    }

    /// Starts to decide pieces.
    pub(super) fn submit(&self, pieces: &[Piece<'_>]) -> Undecided {
        let _clock = self.job.clocks.run(Stage::Upload);
        Undecided(self.on_device(|gpu| gpu.submit(pieces)))
    }

    /// The masks of what was submitted as these pieces.
    pub(super) fn wait(&self, undecided: Undecided, pieces: &[Piece<'_>]) -> Vec<Mask> {
        let _clock = self.job.clocks.run(Stage::Wait);
        let pending = undecided.0;
        let masks =
            pending.and_then(|pending| self.on_device(|gpu| pollster::block_on(gpu.wait(pending))));
        let by_cpu = |piece: &Piece<'_>| {
            cpu::mask_by_threads(piece.rows, piece.first_row, piece.recipe, self.threads)
        };
        masks.unwrap_or_else(|| pieces.iter().map(by_cpu).collect())
    }
}
