//! How long a device takes for one thing, again and again on the same weights, without files and transfers: what `bench`
//! and `cargo bench` measure.

mod cpu;
mod gpu;

use std::time::Duration;

use super::{Device, Error, Recipe, Rows, Step};

/// One thing that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// A copy of the weights' bytes from memory to memory of the device: the yardstick.
    Copy,
    /// The sums of `|W|` over the columns.
    ColumnNorm,
    /// A pass by itself; what it reads was stored by the passes before it.
    Alone(Step),
    /// From weights to the mask as `prune` does it: on an adapter in one dispatch, on the CPU row by row.
    Mask,
}

/// How long some repetitions took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elapsed {
    /// By the host's clock, from the first submission until the last is done.
    pub wall: Duration,
    /// By the device's own clock, where it has one.
    pub device: Option<Duration>,
}

/// Weights on a device, ready to be timed on.
pub struct Timer<'a>(Kind<'a>);

enum Kind<'a> {
    Cpu(cpu::Timer<'a>),
    Gpu(Box<gpu::Timer<'a>>),
}

impl Device {
    /// Brings the weights to the device and runs, once, what `timed` rests on.
    ///
    /// The CPU's threads share the rows.
    ///
    /// # Errors
    /// As [`Self::mask`]; and where `rows` do not fit one of the adapter's buffers.
    pub fn timer<'a>(
        &'a self,
        timed: Timed,
        rows: Rows<'a>,
        recipe: &'a Recipe,
    ) -> Result<Timer<'a>, Error> {
        Ok(Timer(match self {
            Self::Cpu(cpu) => Kind::Cpu(cpu::Timer::new(timed, rows, recipe, cpu.threads())),
            Self::Gpu(gpu) => Kind::Gpu(Box::new(gpu::Timer::new(gpu, timed, rows, recipe)?)),
        }))
    }

    /// Whether [`Self::timer`] can take so many rows: an adapter's buffers have a largest size.
    #[must_use]
    pub fn can_time(&self, rows: usize, in_features: usize) -> bool {
        match self {
            Self::Cpu(_) => true,
            Self::Gpu(gpu) => {
                let context = gpu.context();
                let groups = context.limits.max_compute_workgroups_per_dimension as usize;
                // Keys are 4 bytes a weight.
                rows <= groups && 4 * (rows * in_features) as u64 <= context.largest_buffer()
            }
        }
    }
}

impl Timer<'_> {
    /// Does it so many times, one after the other.
    ///
    /// # Errors
    /// [`Error::Failed`] when the driver fails.
    pub fn run(&mut self, repetitions: u32) -> Result<Elapsed, Error> {
        match &mut self.0 {
            Kind::Cpu(timer) => Ok(timer.run(repetitions)),
            Kind::Gpu(timer) => timer.run(repetitions),
        }
    }
}
