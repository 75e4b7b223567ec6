//! Who decides the rows of a run on a GPU: the device, and the CPU from the moment that it has failed.
//!
//! The host keeps the bytes of a chunk until its mask is there, and a mask has the same bits wherever it is made. So a
//! device that is lost in the middle, or has no memory left, costs time and nothing else.

use std::cell::Cell;

use super::clocks::Stage;
use super::job::Job;
use crate::device::gpu::{Gpu, Pending};
use crate::device::{Error, cpu};
use crate::mask::Mask;
use crate::recipe::{Recipe, Rows, WeightStatistics};

pub(super) struct Decider<'a> {
    job: &'a Job<'a>,
    gpu: &'a Gpu,
    /// Threads of the CPU, should it take over.
    threads: usize,
    has_failed: Cell<bool>,
}

/// Rows whose mask is to come.
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

    /// What the score of the run takes of these rows.
    pub(super) fn statistics(&self, rows: Rows<'_>) -> Option<WeightStatistics> {
        let _clock = self.job.clocks.run(Stage::Wait);
        let score = self.job.plan.score();
        self.on_device(|gpu| gpu.statistics(rows, score))
            .unwrap_or_else(|| cpu::statistics(rows, score))
    }

    /// Starts to decide rows, the first of which is row `first_row` of the recipe's tensor.
    pub(super) fn submit(&self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Undecided {
        let _clock = self.job.clocks.run(Stage::Upload);
        Undecided(self.on_device(|gpu| gpu.submit(rows, first_row, recipe)))
    }

    /// The mask of what was submitted with these arguments.
    pub(super) fn wait(
        &self,
        undecided: Undecided,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
    ) -> Mask {
        let _clock = self.job.clocks.run(Stage::Wait);
        let pending = undecided.0;
        let mask = pending.and_then(|pending| self.on_device(|gpu| gpu.wait(pending)));
        mask.unwrap_or_else(|| cpu::mask_by_threads(rows, first_row, recipe, self.threads))
    }
}
