//! Devices: where rows of weights become masks. The CPU and every wgpu adapter answer the same question with the same
//! bits.
//!
//! A [`Device`] is opened by a [`DeviceChoice`]; wgpu is spoken here and in `forward/gpu` alone. Devices know nothing of
//! files or models: they see [`Rows`] and a [`Recipe`].
//!
//! All of it is written once, as futures: a browser lends its thread and wants it back. A native program waits for them where
//! it calls, in the functions without `_async` in their names.

pub(crate) mod adapter;
mod choice;
#[cfg(feature = "native")]
pub(crate) mod compensation;
pub(crate) mod cpu;
mod error;
pub(crate) mod gpu;
mod info;
mod probe;
#[cfg(feature = "native")]
pub(crate) mod product;
#[cfg(feature = "native")]
pub(crate) mod recorder;
#[cfg(feature = "native")]
pub(crate) mod storage;
pub(crate) mod timing;

pub use choice::DeviceChoice;
pub use error::Error;
pub use info::{DeviceInfo, DeviceKind};

pub use crate::counts::Counts;
pub use crate::mask::Mask;
pub use crate::recipe::{Factors, MAX_IN_FEATURES, Recipe, Rows, Sums, Terms, WeightStatistics};
pub use crate::squares::Squares;

use crate::recipe::Step;
use crate::scores::Score;
use adapter::faults::Faults;
use timing::{Timed, Timer};

/// A device that is ready.
#[derive(Debug)]
pub struct Device {
    backend: Backend,
    /// Why each adapter that was preferred is not the one.
    passed_over: Vec<String>,
}

/// What a device is, for the modules that run on each in their own way.
#[derive(Debug)]
pub(crate) enum Backend {
    /// This machine's cores.
    Cpu(cpu::Cpu),
    /// An adapter through wgpu.
    Gpu(Box<gpu::Gpu>),
}

/// Every adapter wgpu finds, in the order of their indices. The CPU, which is always there, is not among them.
#[cfg(feature = "native")]
#[must_use]
pub fn devices() -> Vec<DeviceInfo> {
    adapter::adapters(true)
        .into_iter()
        .map(|adapter| adapter.info)
        .collect()
}

impl Device {
    fn cpu(passed_over: Vec<String>) -> Self {
        Self {
            backend: Backend::Cpu(cpu::Cpu::new()),
            passed_over,
        }
    }

    fn gpu(gpu: gpu::Gpu, passed_over: Vec<String>) -> Self {
        Self {
            backend: Backend::Gpu(Box::new(gpu)),
            passed_over,
        }
    }

    /// Opens what was chosen. An adapter computes a few awkward rows first, and is refused if they differ from the CPU's.
    /// [`DeviceChoice::Auto`] then takes the next best, in the end the CPU, and [`Self::passed_over`] says why.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] when nothing fits, [`Error::Unfit`] or [`Error::Failed`] when the adapter does not come up.
    #[cfg(feature = "native")]
    pub fn open(choice: &DeviceChoice) -> Result<Self, Error> {
        pollster::block_on(Self::open_async(choice))
    }

    /// [`Self::open`] as a future.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_async(choice: &DeviceChoice) -> Result<Self, Error> {
        open(choice, true).await
    }

    /// An adapter that passes the start-up check and then has a fault.
    #[cfg(test)]
    pub(crate) fn with_fault(
        adapter: adapter::Adapter,
        fault: Option<adapter::faults::Fault>,
    ) -> Result<Self, Error> {
        let gpu = gpu::Gpu::new(adapter.open(Faults::new(fault))?)?;
        pollster::block_on(probe::arithmetic(&gpu))?;
        gpu.context().faults.arm();
        Ok(Self::gpu(gpu, Vec::new()))
    }

    /// As [`Self::open`] without the rows: to find out where an adapter differs.
    ///
    /// # Errors
    /// As [`Self::open`].
    #[cfg(feature = "native")]
    pub fn open_untried(choice: &DeviceChoice) -> Result<Self, Error> {
        pollster::block_on(Self::open_untried_async(choice))
    }

    /// [`Self::open_untried`] as a future.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_untried_async(choice: &DeviceChoice) -> Result<Self, Error> {
        open(choice, false).await
    }

    /// The CPU with so many threads; an adapter, or `None`, is left as it is.
    #[must_use]
    pub fn with_threads(self, threads: Option<usize>) -> Self {
        match (&self.backend, threads) {
            (Backend::Cpu(_), Some(threads)) => Self {
                backend: Backend::Cpu(cpu::Cpu::with_threads(threads)),
                ..self
            },
            _ => self,
        }
    }

    /// Why adapters that were preferred to this device are not used, a sentence each: only [`DeviceChoice::Auto`] passes
    /// any over. The result is the same on all of them.
    #[must_use]
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Tries the kernels that compensate rows on an adapter, once.
    ///
    /// # Errors
    /// [`Error::Unfit`] where they differ from the host's results, [`Error::Failed`].
    #[cfg(feature = "native")]
    pub(crate) fn check_compensation(&self) -> Result<(), Error> {
        match &self.backend {
            Backend::Cpu(_) => Ok(()),
            Backend::Gpu(gpu) => compensation::check(gpu),
        }
    }

    pub(crate) const fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Its name, back end, kind and driver.
    #[must_use]
    pub fn info(&self) -> &DeviceInfo {
        match &self.backend {
            Backend::Cpu(cpu) => cpu.info(),
            Backend::Gpu(gpu) => &gpu.context().info,
        }
    }

    /// The mask of these rows, which begin at row `first_row` of the tensor that the recipe is for.
    ///
    /// # Errors
    /// [`Error::Failed`] when the driver fails. The CPU does not.
    #[cfg(feature = "native")]
    pub fn mask(&self, rows: Rows<'_>, first_row: usize, recipe: &Recipe) -> Result<Mask, Error> {
        pollster::block_on(self.mask_async(rows, first_row, recipe))
    }

    /// [`Self::mask`] as a future.
    ///
    /// # Errors
    /// As [`Self::mask`].
    pub async fn mask_async(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
    ) -> Result<Mask, Error> {
        match &self.backend {
            Backend::Cpu(_) => Ok(cpu::mask(rows, first_row, recipe)),
            Backend::Gpu(gpu) => gpu.mask(rows, first_row, recipe).await,
        }
    }

    /// What the passes of a recipe give one by one, up to and with `last`: order keys, or threshold keys biased by 32768 (a
    /// key a weight), or the mask's words. For tests: [`Self::mask`] does all in one.
    ///
    /// # Errors
    /// As [`Self::mask`].
    #[cfg(feature = "native")]
    #[doc(hidden)]
    pub fn alone(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
        last: Step,
    ) -> Result<Vec<u32>, Error> {
        pollster::block_on(self.alone_async(rows, first_row, recipe, last))
    }

    /// [`Self::alone`] as a future.
    ///
    /// # Errors
    /// As [`Self::mask`].
    #[doc(hidden)]
    pub async fn alone_async(
        &self,
        rows: Rows<'_>,
        first_row: usize,
        recipe: &Recipe,
        last: Step,
    ) -> Result<Vec<u32>, Error> {
        match &self.backend {
            Backend::Cpu(_) => Ok(cpu::alone(rows, first_row, recipe, last)),
            Backend::Gpu(gpu) => gpu.alone(rows, first_row, recipe, last).await,
        }
    }

    /// What a score takes of the weights of these rows, for [`Recipe::new`]; `None` for one that takes nothing.
    ///
    /// # Errors
    /// As [`Self::mask`].
    #[cfg(feature = "native")]
    pub fn statistics(
        &self,
        rows: Rows<'_>,
        score: &Score,
    ) -> Result<Option<WeightStatistics>, Error> {
        pollster::block_on(self.statistics_async(rows, score))
    }

    /// [`Self::statistics`] as a future.
    ///
    /// # Errors
    /// As [`Self::mask`].
    pub async fn statistics_async(
        &self,
        rows: Rows<'_>,
        score: &Score,
    ) -> Result<Option<WeightStatistics>, Error> {
        match &self.backend {
            Backend::Cpu(_) => Ok(cpu::statistics(rows, score)),
            Backend::Gpu(gpu) => gpu.statistics(rows, score).await,
        }
    }

    /// The sums of `|W|` over these rows.
    ///
    /// # Errors
    /// As [`Self::mask`].
    #[cfg(feature = "native")]
    pub fn sums(&self, rows: Rows<'_>) -> Result<Sums, Error> {
        pollster::block_on(self.sums_async(rows))
    }

    /// [`Self::sums`] as a future.
    ///
    /// # Errors
    /// As [`Self::mask`].
    pub async fn sums_async(&self, rows: Rows<'_>) -> Result<Sums, Error> {
        match &self.backend {
            Backend::Cpu(_) => Ok(cpu::sums(rows)),
            Backend::Gpu(gpu) => gpu.sums(rows).await,
        }
    }

    /// Brings the weights to the device and runs, once, what `timed` rests on.
    ///
    /// The CPU's threads share the rows.
    ///
    /// # Errors
    /// As [`Self::mask`]; and where `rows` do not fit one of the adapter's buffers.
    #[doc(hidden)]
    pub fn timer<'a>(
        &'a self,
        timed: Timed,
        rows: Rows<'a>,
        recipe: &'a Recipe,
    ) -> Result<Timer<'a>, Error> {
        match &self.backend {
            Backend::Cpu(cpu) => Ok(Timer::on_cpu(cpu, timed, rows, recipe)),
            Backend::Gpu(gpu) => Timer::on_gpu(gpu, timed, rows, recipe),
        }
    }

    /// Whether [`Self::timer`] can take so many rows: an adapter's buffers have a largest size.
    #[doc(hidden)]
    #[must_use]
    pub fn can_time(&self, rows: usize, in_features: usize) -> bool {
        match &self.backend {
            Backend::Cpu(_) => true,
            Backend::Gpu(gpu) => {
                let context = gpu.context();
                let groups = context.limits.max_compute_workgroups_per_dimension as usize;
                // Keys are 4 bytes a weight.
                rows <= groups && 4 * rows as u64 * in_features as u64 <= context.largest_buffer()
            }
        }
    }
}

async fn open(choice: &DeviceChoice, probe: bool) -> Result<Device, Error> {
    if *choice == DeviceChoice::Cpu {
        return Ok(Device::cpu(Vec::new()));
    }
    let describe = |adapters: &[adapter::Adapter]| -> Vec<DeviceInfo> {
        adapters
            .iter()
            .map(|adapter| adapter.info.clone())
            .collect()
    };
    // GL is looked at when an adapter is asked for, or on a machine with a display that has nothing better; elsewhere it
    // would only find again what a native back end has found, or software.
    let named = !matches!(choice, DeviceChoice::Auto);
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let mut adapters = adapter::found(named).await;
    if !named && has_display && choice::preferred(&describe(&adapters)).is_none() {
        adapters = adapter::found(true).await;
    }
    let infos = describe(&adapters);
    let mut adapters: Vec<Option<adapter::Adapter>> = adapters.into_iter().map(Some).collect();
    let mut open = async |position: usize| match adapters[position].take() {
        Some(adapter) => open_adapter(adapter, probe).await.map(Some),
        None => Ok(None),
    };
    let position = match choice::choose(choice, &infos) {
        Ok(_) if !named => {
            let (gpu, passed_over) = first_that_opens(choice::by_preference(&infos), open).await;
            return Ok(match gpu.flatten() {
                Some(gpu) => Device::gpu(gpu, passed_over),
                None => Device::cpu(passed_over),
            });
        }
        Ok(position) => position,
        Err(found) => {
            return Err(Error::NoAdapter {
                choice: choice.to_string(),
                found,
            });
        }
    };
    let gpu = match position {
        Some(position) => open(position).await?,
        None => None,
    };
    Ok(match gpu {
        Some(gpu) => Device::gpu(gpu, Vec::new()),
        None => Device::cpu(Vec::new()),
    })
}

async fn open_adapter(adapter: adapter::Adapter, probe: bool) -> Result<gpu::Gpu, Error> {
    let gpu = gpu::Gpu::new(adapter.opened(Faults::of_environment()).await?)?;
    if probe {
        probe::arithmetic(&gpu).await?;
    }
    gpu.context().faults.arm();
    Ok(gpu)
}

/// The first of these that opens, and what was wrong with those before it.
async fn first_that_opens<T>(
    positions: Vec<usize>,
    mut open: impl AsyncFnMut(usize) -> Result<T, Error>,
) -> (Option<T>, Vec<String>) {
    let mut passed_over = Vec::new();
    for position in positions {
        match open(position).await {
            Ok(opened) => return (Some(opened), passed_over),
            Err(error) => passed_over.push(error.to_string()),
        }
    }
    (None, passed_over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_goes_on_to_the_next_that_opens_and_says_what_was_wrong() {
        let open = async |position: usize| match position {
            1 => Ok("one"),
            _ => Err(Error::Unfit {
                device: format!("adapter {position}"),
                reason: "its mask differs".to_owned(),
            }),
        };
        let (opened, passed_over) = pollster::block_on(first_that_opens(vec![3, 1, 2], open));
        assert_eq!(opened, Some("one"));
        assert_eq!(
            passed_over,
            ["adapter 3 cannot run the passes: its mask differs"]
        );
        let (opened, passed_over) = pollster::block_on(first_that_opens(vec![3, 2], open));
        assert_eq!((opened, passed_over.len()), (None, 2));
    }
}
