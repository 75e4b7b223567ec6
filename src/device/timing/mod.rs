//! How long a device takes for one thing, again and again on the same weights, without files and transfers: what `bench`
//! and `cargo bench` measure.

mod cpu;
mod gpu;
mod timed;

pub use timed::{Elapsed, Timed};

use super::cpu::Cpu;
use super::error::Error;
use super::gpu::Gpu;
use crate::recipe::{Recipe, Rows};

/// Weights on a device, ready to be timed on.
pub struct Timer<'a>(TimerOf<'a>);

enum TimerOf<'a> {
    Cpu(cpu::CpuTimer<'a>),
    Gpu(Box<gpu::GpuTimer<'a>>),
}

impl<'a> Timer<'a> {
    /// The CPU's timer: its threads share the rows.
    pub(super) fn on_cpu(cpu: &Cpu, timed: Timed, rows: Rows<'a>, recipe: &'a Recipe) -> Self {
        Self(TimerOf::Cpu(cpu::CpuTimer::new(
            timed,
            rows,
            recipe,
            cpu.threads(),
        )))
    }

    /// An adapter's.
    pub(super) fn on_gpu(
        gpu: &'a Gpu,
        timed: Timed,
        rows: Rows<'a>,
        recipe: &Recipe,
    ) -> Result<Self, Error> {
        let timer = gpu::GpuTimer::new(gpu, timed, rows, recipe)?;
        Ok(Self(TimerOf::Gpu(Box::new(timer))))
    }

    /// Rows of so many weights that the device should get at once at most, as far as it is known by now: a repetition is not
    /// cut, and a longer one may meet a driver's watchdog. The CPU has no such bound.
    #[must_use]
    pub fn rows_at_once(&self, in_features: usize) -> usize {
        match &self.0 {
            TimerOf::Cpu(_) => usize::MAX,
            TimerOf::Gpu(timer) => timer.rows_of_submission(in_features).max(1),
        }
    }

    /// Does it so many times, one after the other.
    ///
    /// # Errors
    /// [`Error::Failed`] when the driver fails.
    #[cfg(feature = "native")]
    pub fn run(&mut self, repetitions: u32) -> Result<Elapsed, Error> {
        pollster::block_on(self.run_async(repetitions))
    }

    /// [`Self::run`] as a future.
    ///
    /// # Errors
    /// [`Error::Failed`] when the driver fails.
    pub async fn run_async(&mut self, repetitions: u32) -> Result<Elapsed, Error> {
        match &mut self.0 {
            TimerOf::Cpu(timer) => Ok(timer.run(repetitions)),
            TimerOf::Gpu(timer) => timer.run(repetitions).await,
        }
    }
}
