//! The devices of a run: the one that was chosen, and the one that runs the model.

use crate::device::{self, Device, DeviceChoice, DeviceKind};

/// Two devices, which are one unless a software adapter was chosen.
#[derive(Debug)]
pub struct DevicePair {
    chosen: Device,
    /// The CPU, where the chosen one is a software adapter: a forward pass would take hours there.
    instead: Option<Device>,
    threads: usize,
}

impl DevicePair {
    /// Opens the chosen device; `threads` bounds the threads of the CPU.
    ///
    /// # Errors
    /// Those of [`Device::open`].
    pub fn open(choice: &DeviceChoice, threads: Option<usize>) -> Result<Self, device::Error> {
        let chosen = Device::open(choice)?.with_threads(threads);
        let instead = match chosen.info().kind {
            DeviceKind::Software => Some(Device::open(&DeviceChoice::Cpu)?.with_threads(threads)),
            _ => None,
        };
        Ok(Self {
            chosen,
            instead,
            threads: threads.unwrap_or_else(all_cores),
        })
    }

    /// Threads of the CPU that the host's own work may take.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The device that prunes: the chosen one.
    #[must_use]
    pub const fn pruning(&self) -> &Device {
        &self.chosen
    }

    /// The device that runs the model: the CPU in place of a software adapter.
    #[must_use]
    pub fn forward(&self) -> &Device {
        self.instead.as_ref().unwrap_or(&self.chosen)
    }
}

fn all_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
