//! Who decides the rows of a run on a GPU: the device, and the CPU from the moment that it has failed.
//!
//! The host keeps the bytes of a chunk until its mask is there, and a mask has the same bits wherever it is made. So a
//! device that is lost in the middle, or has no memory left, costs time and nothing else.

use std::cell::Cell;

use super::clocks::Stage;
use super::job::Job;
use crate::device::gpu::{Gpu, Pending, Piece};
use crate::device::{Error, cpu};
use crate::mask::Mask;
use crate::recipe::{Rows, WeightStatistics};

pub(super) struct Decider<'a> {
    job: &'a Job<'a>,
    gpu: &'a Gpu,
    /// Threads of the CPU, should it take over.
    threads: usize,
    has_failed: Cell<bool>,
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
            has_failed: Cell::new(false),
        }
    }

    /// What the device gives, unless it has failed.
    fn on_device<T>(&self, work: impl FnOnce(&Gpu) -> Result<T, Error>) -> Option<T> {
        if self.has_failed.get() {
            return None;
        }
        match work(self.gpu) {
            Ok(done) => Some(done),
            Err(error) => {
                self.has_failed.set(true);
                self.job.device_failed(error);
                None
            }
        }
    }

    /// What the score of the run takes of some rows; of few weights it is counted here, in less time than the device takes to
    /// answer.
    pub(super) fn statistics(&self, rows: Rows<'_>) -> Option<WeightStatistics> {
        let _clock = self.job.clocks.run(Stage::Wait);
        let score = self.job.plan.score();
        if rows.bytes.len() <= FEW_BYTES {
            return cpu::statistics(rows, score);
        }
        self.on_device(|gpu| gpu.statistics(rows, score))
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
        let masks = pending.and_then(|pending| self.on_device(|gpu| gpu.wait(pending)));
        let by_cpu = |piece: &Piece<'_>| {
            cpu::mask_by_threads(piece.rows, piece.first_row, piece.recipe, self.threads)
        };
        masks.unwrap_or_else(|| pieces.iter().map(by_cpu).collect())
    }
}
