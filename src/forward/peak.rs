//! A matrix product by itself, again and again: what `bench` holds the forward pass against.

use super::cpu::CpuProduct;
use super::error::Error;
use super::gpu::GpuProduct;
use crate::device::timing::Elapsed;
use crate::device::{Backend, Device};

/// A square product that is ready on a device, in the way of the forward pass there: of activations in f32 with weights that
/// the CPU holds in f32 and an adapter in bf16.
pub(crate) struct PeakProduct<'a>(On<'a>);

enum On<'a> {
    Cpu(CpuProduct),
    Gpu(Box<GpuProduct<'a>>),
}

impl<'a> PeakProduct<'a> {
    /// `[size, size]` times `[size, size]`. The CPU's threads share the rows: a core a window, as in a forward pass.
    ///
    /// # Errors
    /// [`Error::Engine`], and what the device says.
    pub(crate) fn new(device: &'a Device, size: usize) -> Result<Self, Error> {
        Ok(Self(match device.backend() {
            Backend::Cpu(cpu) => On::Cpu(CpuProduct::new(size, cpu.threads())?),
            Backend::Gpu(gpu) => On::Gpu(Box::new(GpuProduct::new(gpu.context(), size)?)),
        }))
    }

    /// Does it so many times, one after the other.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn run(&mut self, repetitions: u32) -> Result<Elapsed, Error> {
        let wall = match &self.0 {
            On::Cpu(product) => product.run(repetitions)?,
            On::Gpu(product) => product.run(repetitions)?,
        };
        Ok(Elapsed { wall, device: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{DeviceChoice, devices};

    #[test]
    fn every_device_multiplies_and_takes_time_for_it() {
        let adapters = devices().into_iter().filter_map(|info| info.index);
        let choices = adapters.map(DeviceChoice::Index);
        for choice in choices.chain([DeviceChoice::Cpu]) {
            let device = Device::open(&choice).unwrap();
            // Not a multiple of a tile.
            let mut product = PeakProduct::new(&device, 100).unwrap();
            product.run(1).unwrap();
            let elapsed = product.run(2).unwrap();
            assert!(!elapsed.wall.is_zero(), "{}", device.info());
        }
    }
}
