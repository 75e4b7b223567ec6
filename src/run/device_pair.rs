//! The devices of a run: the one that was chosen, the one that runs the model, and the CPU in the place of both once one has
//! failed.

use std::sync::OnceLock;

use crate::calibration;
use crate::device::{self, Device, DeviceChoice, DeviceKind};
use crate::forward;

/// Two devices, which are one unless a software adapter was chosen.
#[derive(Debug)]
pub struct DevicePair {
    chosen: Device,
    /// What runs the model in place of the chosen one: [`stand_in`].
    instead: Option<Device>,
    /// The CPU, once another device has failed: it is not asked again.
    after_failure: OnceLock<Device>,
    /// Why the forward pass does not run on the chosen device, which nobody asked for by name.
    passed_over: Vec<String>,
    is_auto: bool,
    threads: Option<usize>,
}

impl DevicePair {
    /// Opens the chosen device; `threads` bounds the threads of the CPU.
    ///
    /// # Errors
    /// Those of [`Device::open`].
    pub fn open(choice: &DeviceChoice, threads: Option<usize>) -> Result<Self, device::Error> {
        let chosen = Device::open(choice)?.with_threads(threads);
        Ok(Self {
            passed_over: chosen.passed_over().to_vec(),
            instead: stand_in(&chosen, threads)?,
            chosen,
            after_failure: OnceLock::new(),
            is_auto: *choice == DeviceChoice::Auto,
            threads,
        })
    }

    /// One device for everything, a software adapter too.
    #[cfg(test)]
    pub(super) fn of(chosen: Device) -> Self {
        Self {
            passed_over: Vec::new(),
            chosen,
            instead: None,
            after_failure: OnceLock::new(),
            is_auto: false,
            threads: None,
        }
    }

    /// Tries what a forward pass needs of the device, before one is started. Where nobody named the device, the CPU takes
    /// its place if it is unfit, and [`Self::passed_over`] says so.
    ///
    /// # Errors
    /// [`device::Error::Unfit`] and [`device::Error::Failed`] of a device that was named.
    pub fn prepare_forward(&mut self) -> Result<(), device::Error> {
        match forward::check(self.forward()) {
            Err(error) if self.is_auto => {
                self.passed_over.push(error.to_string());
                self.instead = Some(Device::open(&DeviceChoice::Cpu)?.with_threads(self.threads));
                Ok(())
            }
            checked => checked,
        }
    }

    /// Tries what compensation takes of the device, before weights are compensated, as [`Self::prepare_forward`] does.
    ///
    /// # Errors
    /// As [`Self::prepare_forward`].
    pub fn prepare_compensation(&mut self) -> Result<(), device::Error> {
        match self.pruning().check_compensation() {
            Err(error) if self.is_auto => {
                self.passed_over.push(error.to_string());
                self.failed();
                Ok(())
            }
            checked => checked,
        }
    }

    /// Why devices that were preferred are not used, a sentence each.
    #[must_use]
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// Threads of the CPU that the host's own work may take.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(all_cores)
    }

    /// The device that prunes: the chosen one, until it has failed.
    #[must_use]
    pub fn pruning(&self) -> &Device {
        self.after_failure.get().unwrap_or(&self.chosen)
    }

    /// The device that runs the model: the CPU in place of a software adapter, or of one that has failed.
    #[must_use]
    pub fn forward(&self) -> &Device {
        let instead = self.after_failure.get().or(self.instead.as_ref());
        instead.unwrap_or(&self.chosen)
    }

    /// Does what runs the model on [`Self::forward`]. If that device fails in the middle, `tell` is told why, and the CPU
    /// does it again from the start: the result is the one that the CPU gives.
    ///
    /// # Errors
    /// Those of `work`, but not that an adapter failed.
    pub fn run_forward<T>(
        &self,
        work: impl Fn(&Device) -> Result<T, calibration::Error>,
        tell: impl FnOnce(&device::Error),
    ) -> Result<T, calibration::Error> {
        match work(self.forward()) {
            Err(calibration::Error::Forward(forward::Error::Device(
                error @ device::Error::Failed { .. },
            ))) => {
                tell(&error);
                self.failed();
                work(self.forward())
            }
            done => done,
        }
    }

    /// Has the CPU do everything from now on.
    pub(super) fn failed(&self) {
        if let Ok(cpu) = Device::open(&DeviceChoice::Cpu) {
            self.after_failure
                .get_or_init(|| cpu.with_threads(self.threads));
        }
    }
}

/// The CPU, where the chosen device is a software adapter: a forward pass would take hours there.
///
/// # Errors
/// Those of [`Device::open`].
pub(crate) fn stand_in(
    chosen: &Device,
    threads: Option<usize>,
) -> Result<Option<Device>, device::Error> {
    Ok(match chosen.info().kind {
        DeviceKind::Software => Some(Device::open(&DeviceChoice::Cpu)?.with_threads(threads)),
        _ => None,
    })
}

/// What is said where [`DevicePair::run_forward`] has begun anew.
pub(crate) fn by_the_cpu(error: &device::Error) -> String {
    format!("{error}. The CPU runs the model, from the start, and goes on")
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
